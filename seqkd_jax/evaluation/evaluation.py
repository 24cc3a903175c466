"""How good a translator is: BLEU and chrF, perplexity, the probability of its own output, speed."""

import functools
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from seqkd_jax import distributed
from seqkd_jax.config import BatchConfig
from seqkd_jax.data import scripts
from seqkd_jax.data.batches import Shape
from seqkd_jax.data.corpus import Corpus
from seqkd_jax.decoding import (
    Decoding,
    Hypothesis,
    Translation,
    compile_searches,
    prepare,
    require_length,
    translate_lines,
)
from seqkd_jax.decoding.search import greedy_rules
from seqkd_jax.evaluation import likelihood
from seqkd_jax.evaluation.metrics import confidence_interval, metric_references, score, signatures
from seqkd_jax.types import EOS, System
from seqkd_jax.utils import progress


class Evaluation(NamedTuple):
    """One arm: its row of the results, and its outputs, which the bootstrap reads."""

    results: dict  # JSON values
    outputs: dict[str, list[str]]  # "beam1", "beam5" -> one line for each source
    references: list[str]  # as the metric reads them
    # As outputs: that of each, 0 for one that was cut, None of an empty source
    probabilities: dict[str, list[float | None]] = {}


def evaluate(
    system: System,
    corpus: Corpus,
    decoding: Decoding,
    *,
    batch: BatchConfig,
    tokenize: str,
    shapes: Sequence[Shape] | None = None,
    repetitions: int = 3,
    timed_sentences: int | None = None,
    name: str = "evaluate",
) -> Evaluation:
    """Translate and score a corpus, greedily ("beam1") and as `decoding` has it ("beam5" if its beam is 5).

    Results, each with _beam1 and _beamK: bleu (bleu_low, bleu_high: 95%), chrf, length_ratio, unfinished,
    mode_probability, source_words_per_second (median of `repetitions` passes over `timed_sentences` lines, None: all),
    compile_seconds (of loading, where the programs had been kept); once: perplexity, mode_probability (of the greedy
    output), signature. batch, shapes: of the batches for perplexity, as in training. tokenize: BLEU's. Several
    processes (`distributed`) share the translations, which are those of one; speed is that of process 0 alone.
    """
    vocabularies = system.vocabularies
    references = metric_references(vocabularies, corpus.targets, tokenize)
    ids = [[*vocabularies.source.encode(line), EOS] for line in corpus.sources]
    for number, (source, target) in enumerate(zip(ids, corpus.targets, strict=True), start=1):  # before hours of work
        require_length(number, len(source), f"{corpus.name}, sources: ")
        require_length(number, len(vocabularies.target.encode(target)) + 1, f"{corpus.name}, references: ")
    timed = _spread(corpus.sources, timed_sentences)
    results: dict[str, Any] = {"sentences": len(references)}
    outputs, probabilities = {}, {}
    greedy = replace(decoding, search=greedy_rules(decoding.search))
    runs = {"beam1": greedy}  # the greedy search, whatever the rules say of a beam of 1
    if decoding.search.beam != 1:
        runs[f"beam{decoding.search.beam}"] = decoding
    ready = system._replace(params=prepare(system.translator, system.params, decoding.devices))
    own = len(ids[distributed.index() :: distributed.count()])
    with progress.counter(len(runs) * (own + repetitions * len(timed)), name, "sentences") as advance:
        for key, run in runs.items():
            compiling = compile_searches(ready.translator, ready.params, ids, run)
            decode = functools.partial(translate_lines, ready, decoding=run, n_best=1, progress=advance)
            translations = by_all_processes(decode, corpus.sources)
            outputs[key] = [translation.text for translation in translations]
            probabilities[key] = _probabilities(translations)
            measures = _of_outputs(outputs[key], references, tokenize) | _of_search(translations, probabilities[key])
            speed = functools.partial(words_per_second, decode, timed, repetitions)
            measures["source_words_per_second"] = distributed.by_first(speed)
            measures["compile_seconds"] = compiling
            results |= {f"{measure}_{key}": value for measure, value in measures.items()}
    found = likelihood.of_references(system, corpus, batch, shapes)
    results |= {"perplexity": found.perplexity, "reference_tokens": found.tokens}
    results["mode_probability"] = results["mode_probability_beam1"]
    results["signature"], results["chrf_signature"] = signatures(tokenize)
    return Evaluation(distributed.agreed(results), outputs, references, probabilities)


def by_all_processes(decode: Callable[[Sequence[str]], Iterable[Translation]], lines: Sequence[str]) -> list:
    """The translation of each line, in order; each of several processes (`distributed`) decodes its part of them.

    A line has other neighbours there than in one process: the text is the same, scores up to their last bits.
    """
    index, count = distributed.index(), distributed.count()
    if count == 1:
        return list(decode(lines))
    own = [[source, [list(hypothesis) for hypothesis in found]] for source, found in decode(lines[index::count])]
    parts = [iter(part) for part in distributed.gathered(own, name="the translations of all processes")]
    in_order = (next(parts[place % count]) for place in range(len(lines)))
    return [Translation(source, [Hypothesis(*hypothesis) for hypothesis in found]) for source, found in in_order]


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


def _probabilities(translations: Sequence[Translation]) -> list[float | None]:
    """That of each output under its model; an output that was cut is no translation, its probability counts as 0. None:
    the source is empty, and no model was asked.
    """
    best = [(translation.source, translation.hypotheses[0]) for translation in translations]
    return [(math.exp(one.log_prob) if one.finished else 0.0) if source.strip() else None for source, one in best]


def _of_search(translations: Sequence[Translation], probabilities: Sequence[float | None]) -> dict:
    """p(t=y^), Kim & Rush 2016, table 1: the mean over sentences of the probability that a model gives its own output.

    Empty sources are left out.
    """
    known = [found for found in probabilities if found is not None]
    unfinished = sum(
        not translation.hypotheses[0].finished
        for translation, found in zip(translations, probabilities, strict=True)
        if found is not None
    )
    return {"mode_probability": statistics.fmean(known or [0.0]), "unfinished": unfinished}


def words_per_second(
    decode: Callable[[Sequence[str]], Iterable], lines: Sequence[str], repetitions: int
) -> float | None:
    """Source words/s, as `scripts.words` counts them: the median over passes; everything must be compiled.

    A pass is text to text: encoding and decoding the ids count, as they do for whoever waits for it. None: no passes.
    """
    seconds = []
    for _ in range(repetitions):
        start = time.perf_counter()
        for _ in decode(lines):
            pass
        seconds.append(time.perf_counter() - start)
    return sum(map(scripts.words, lines)) / statistics.median(seconds) if seconds else None


def _spread(lines: list[str], count: int | None) -> list[str]:
    """`count` lines at even distances, all if None: of the same lengths as the whole, so nothing new is compiled."""
    if count is None or count >= len(lines):
        return lines
    return [lines[index] for index in np.linspace(0, len(lines) - 1, count).astype(int)]
