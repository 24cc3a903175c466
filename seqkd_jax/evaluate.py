"""How good a translator is: BLEU and chrF, perplexity, the probability of its own output, speed. Uses `translate`.

The only module that imports sacrebleu: corpus scores with their signatures, the sentence metrics by which `distill`
chooses, and the paired bootstrap that says whether a difference between two systems is more than chance.

Text is scored as sacrebleu wants it: detokenised, cased, with its own tokenizer (13a); where the vocabulary is one of
words, outputs are tokens already, references are split into tokens the same way, and the tokenizer is `none`.
"""

import contextlib
import functools
import math
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from seqkd_jax import likelihood, progress
from seqkd_jax.base import EOS, Translator, UserError
from seqkd_jax.batches import Shape
from seqkd_jax.config import BatchConfig
from seqkd_jax.search import greedy_rules
from seqkd_jax.translate import Decoding, Translation, compile_searches, prepare, require_length, translate_lines

SAMPLES, SEED = 1000, 12345  # of the bootstrap; sacrebleu's own defaults


class CorpusScores(NamedTuple):
    """What sacrebleu says of a system's outputs."""

    bleu: float  # 0 to 100
    chrf: float  # 0 to 100
    length_ratio: float  # tokens of the outputs / tokens of the references


class Evaluation(NamedTuple):
    """One arm: its row of the results, and its outputs, which the bootstrap reads."""

    results: dict  # JSON values
    outputs: dict[str, list[str]]  # "beam1", "beam5" -> one line for each source
    references: list[str]  # as the metric reads them


def evaluate(
    translator: Translator,
    params,
    vocabularies,
    corpus,
    decoding: Decoding,
    *,
    batch: BatchConfig,
    shapes: Sequence[Shape] | None = None,
    repetitions: int = 3,
    timed_sentences: int | None = None,
    name: str = "evaluate",
) -> Evaluation:
    """Translate and score a corpus, greedily ("beam1") and as `decoding` has it ("beam5" if its beam is 5).

    Results, each with _beam1 and _beamK: bleu (bleu_low, bleu_high: 95%), chrf, length_ratio, unfinished,
    mode_probability, source_words_per_second (median of `repetitions` passes over `timed_sentences` lines, None: all),
    compile_seconds; once: perplexity, mode_probability (of the greedy output), signature. batch, shapes: of the batches
    for perplexity, as in training.
    """
    references = metric_references(vocabularies, corpus.targets)
    ids = [[*vocabularies.source.encode(line), EOS] for line in corpus.sources]
    for number, (source, target) in enumerate(zip(ids, corpus.targets, strict=True), start=1):  # before hours of work
        require_length(number, len(source), f"{corpus.name}, sources: ")
        require_length(number, len(vocabularies.target.encode(target)) + 1, f"{corpus.name}, references: ")
    timed = _spread(corpus.sources, timed_sentences)
    results, outputs = {"sentences": len(references)}, {}
    greedy = replace(decoding, search=greedy_rules(decoding.search))
    runs = {"beam1": greedy}  # the greedy search, whatever the rules say of a beam of 1
    if decoding.search.beam != 1:
        runs[f"beam{decoding.search.beam}"] = decoding
    ready = prepare(translator, params)
    with progress.counter(len(runs) * (len(ids) + repetitions * len(timed)), name, "sentences") as advance:
        for key, run in runs.items():
            compiling = compile_searches(translator, ready, ids, run)
            decode = functools.partial(
                translate_lines, translator, ready, vocabularies, decoding=run, n_best=1, progress=advance
            )
            translations = list(decode(corpus.sources))
            outputs[key] = [translation.text for translation in translations]
            measures = _of_outputs(outputs[key], references, vocabularies.metric_tokenizer) | _of_search(translations)
            measures["source_words_per_second"] = words_per_second(decode, timed, repetitions)
            measures["compile_seconds"] = compiling
            results |= {f"{measure}_{key}": value for measure, value in measures.items()}
    found = likelihood.of_references(translator, params, vocabularies, corpus, batch, shapes)
    results |= {"perplexity": found.perplexity, "reference_tokens": found.tokens}
    results["mode_probability"] = results["mode_probability_beam1"]
    results["signature"], results["chrf_signature"] = signatures(vocabularies.metric_tokenizer)
    return Evaluation(results, outputs, references)


def _of_outputs(outputs: Sequence[str], references: Sequence[str], tokenize: str) -> dict:
    found = score(outputs, references, tokenize)
    low, high = confidence_interval(outputs, references, tokenize)
    return {
        "bleu": found.bleu,
        "bleu_low": low,
        "bleu_high": high,
        "chrf": found.chrf,
        "length_ratio": found.length_ratio,
    }


def _of_search(translations: Sequence[Translation]) -> dict:
    """p(t=y^), Kim & Rush 2016, table 1: the mean over sentences of the probability that a model gives its own output.

    Empty sources are left out; an output that was cut is no translation, its probability counts as 0.
    """
    best = [translation.hypotheses[0] for translation in translations if translation.source.strip()]
    probabilities = [math.exp(hypothesis.log_prob) if hypothesis.finished else 0.0 for hypothesis in best]
    unfinished = sum(not hypothesis.finished for hypothesis in best)
    return {"mode_probability": statistics.fmean(probabilities or [0.0]), "unfinished": unfinished}


def words_per_second(
    decode: Callable[[Sequence[str]], Iterable], lines: Sequence[str], repetitions: int
) -> float | None:
    """Source words/s: the median over passes; everything must be compiled. Words are what white space separates.

    A pass is text to text: encoding and decoding the ids count, as they do for whoever waits for it. None: no passes.
    """
    seconds = []
    for _ in range(repetitions):
        start = time.perf_counter()
        for _ in decode(lines):
            pass
        seconds.append(time.perf_counter() - start)
    return sum(len(line.split()) for line in lines) / statistics.median(seconds) if seconds else None


def _spread(lines: Sequence[str], count: int | None) -> Sequence[str]:
    """`count` lines at even distances, all if None: of the same lengths as the whole, so nothing new is compiled."""
    if count is None or count >= len(lines):
        return lines
    return [lines[index] for index in np.linspace(0, len(lines) - 1, count).astype(int)]


def metric_references(vocabularies, lines: Iterable[str]) -> list[str]:
    """References as the metric reads them: as they are, or split into tokens where the vocabulary's text is tokens."""
    if vocabularies.metric_tokenizer != "none":
        return list(lines)
    return [" ".join(vocabularies.target.split(line)) for line in lines]


def score(outputs: Sequence[str], references: Sequence[str], tokenize: str) -> CorpusScores:
    """Corpus BLEU and chrF of outputs against one reference each."""
    _same_length(outputs, references)
    bleu = BLEU(tokenize=tokenize, force=True).corpus_score(outputs, [references])
    chrf = CHRF().corpus_score(outputs, [references])
    return CorpusScores(bleu.score, chrf.score, bleu.sys_len / max(bleu.ref_len, 1))


def signatures(tokenize: str) -> tuple[str, str]:
    """sacrebleu's signatures of the BLEU and the chrF that `score` computes."""
    metrics = BLEU(tokenize=tokenize, references=[["one reference"]]), CHRF(references=[["one reference"]])
    return tuple(str(metric.get_signature()) for metric in metrics)


def paired_bootstrap(
    systems: Mapping[str, Sequence[str]], references: Sequence[str], against: str, tokenize: str
) -> dict[str, dict]:
    """Every system's BLEU compared with that of `against`: {name: {bleu, delta, p_value, delta_low, delta_high}}.

    p_value: sacrebleu's paired bootstrap resampling (Koehn 2004), 1000 samples, seed 12345. delta_low, delta_high: 95%
    interval of the difference over the same resamples. What does not differ in any has p = 1 (sacrebleu: 1/1001).
    """
    if against not in systems:
        raise UserError(f"bootstrap: no system is called {against!r}; there are {', '.join(systems)}")
    others = [name for name in systems if name != against]
    for outputs in systems.values():
        _same_length(outputs, references)
    if not others:
        return {}
    with _fixed_seed():
        named = [(name, list(systems[name])) for name in (against, *others)]
        metrics = {"BLEU": BLEU(tokenize=tokenize, force=True, references=[references])}
        _, table = PairedTest(named, metrics, None, test_type="bs", n_samples=SAMPLES)()
    baseline, *found = table["BLEU"]
    baseline_samples = _resampled_bleu(systems[against], references, tokenize)
    comparison = {}
    for name, result in zip(others, found, strict=True):
        differences = _resampled_bleu(systems[name], references, tokenize) - baseline_samples
        low, high = _middle_95(differences)
        comparison[name] = {
            "bleu": result.score,
            "delta": result.score - baseline.score,
            "p_value": result.p_value if differences.any() else 1.0,
            "delta_low": low,
            "delta_high": high,
        }
    return comparison


def confidence_interval(outputs: Sequence[str], references: Sequence[str], tokenize: str) -> tuple[float, float]:
    """The 95% interval of one system's BLEU over 1000 resamples of the test sentences."""
    _same_length(outputs, references)
    return _middle_95(_resampled_bleu(outputs, references, tokenize))


def sentence_bleu(hypotheses: Sequence[str], reference: str, tokenize: str) -> list[float]:
    """sacrebleu's sentence BLEU of each hypothesis, 0 to 100: `exp` smoothing, effective order."""
    metric = _sentence_metric(tokenize)
    return [metric.sentence_score(hypothesis, [reference]).score for hypothesis in hypotheses]


def sentence_chrf(hypotheses: Sequence[str], reference: str, tokenize: str) -> list[float]:
    """sacrebleu's sentence chrF of each hypothesis, 0 to 100; `tokenize` plays no part."""
    metric = CHRF()
    return [metric.sentence_score(hypothesis, [reference]).score for hypothesis in hypotheses]


def tokenise(line: str, tokenize: str) -> list[str]:
    """The words of a line after sacrebleu's tokenizer of that name."""
    return _sentence_metric(tokenize).tokenizer(line.rstrip()).split()


@functools.cache
def _sentence_metric(tokenize: str) -> BLEU:
    return BLEU(tokenize=tokenize, force=True, effective_order=True)


def _resampled_bleu(outputs: Sequence[str], references: Sequence[str], tokenize: str) -> np.ndarray:
    """BLEU of each resample [SAMPLES]: the very resamples that sacrebleu draws under the same seed."""
    scores = [
        _sentence_metric(tokenize).sentence_score(*pair)
        for pair in zip(outputs, ([r] for r in references), strict=True)
    ]
    counts = np.array([[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in scores], np.float64)
    order = (counts.shape[1] - 2) // 2
    drawn = np.random.default_rng(SEED).choice(len(counts), size=(SAMPLES, len(counts)), replace=True)
    sums = (np.bincount(sample, minlength=len(counts)) @ counts for sample in drawn)
    return np.array(
        [
            BLEU.compute_bleu(s[2 : 2 + order].tolist(), s[2 + order :].tolist(), int(s[0]), int(s[1]), "exp").score
            for s in sums
        ]
    )


def _middle_95(samples: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(samples, [2.5, 97.5])
    return float(low), float(high)


@contextlib.contextmanager
def _fixed_seed() -> Iterator[None]:
    """sacrebleu reads its seed from the environment; whatever stands there, ours is used."""
    before = os.environ.get("SACREBLEU_SEED")
    os.environ["SACREBLEU_SEED"] = str(SEED)
    try:
        yield
    finally:
        if before is None:
            del os.environ["SACREBLEU_SEED"]
        else:
            os.environ["SACREBLEU_SEED"] = before


def _same_length(outputs: Sequence[str], references: Sequence[str]) -> None:
    if len(outputs) != len(references) or not outputs:
        raise UserError(
            f"{len(outputs)} outputs for {len(references)} references: there must be one of each for each line"
        )
