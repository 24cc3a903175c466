"""BLEU and chrF with their signatures, sentence metrics, intervals and the paired bootstrap: the door to sacrebleu.

Text is scored as sacrebleu wants it: detokenised, cased, with one of its own tokenizers (`tokenization` says which);
where the vocabulary is one of words, outputs are tokens already, references are split into tokens the same way, and the
tokenizer is `none`.
"""

import contextlib
import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.significance import PairedTest, Result

from seqkd_jax.types import UserError

SAMPLES, SEED = 1000, 12345  # of the bootstrap; sacrebleu's own defaults
EXTRAS = {"ja-mecab": "ja", "ko-mecab": "ko"}  # of sacrebleu, which install what a tokenizer needs


class CorpusScores(NamedTuple):
    """Corpus scores by sacrebleu."""

    bleu: float  # 0 to 100
    chrf: float  # 0 to 100
    length_ratio: float  # tokens of the outputs / tokens of the references


def require_tokenizer(tokenize: str, named: str) -> None:
    """UserError for a tokenizer whose package or model is not there. named: what the user calls the setting."""
    try:
        _sentence_metric(tokenize)
    except (Exception, SystemExit) as error:  # of MeCab, a download, sentencepiece: they have no common base
        if tokenize in EXTRAS:
            remedy = f'install its package with `pip install "sacrebleu[{EXTRAS[tokenize]}]"`'
        else:
            remedy = "sacrebleu downloads its model once, so connect to the network"
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise UserError(
            f"{named} is {tokenize}, which cannot be used here ({reason}): {remedy}, or choose another tokenizer"
        ) from None


def available(tokenize: str) -> bool:
    """Whether a tokenizer's package and model are there."""
    try:
        require_tokenizer(tokenize, tokenize)
    except UserError:
        return False
    return True


def metric_references(vocabularies, lines: Iterable[str], tokenize: str) -> list[str]:
    """References as the metric reads them: as they are, or split into tokens where the vocabulary's text is tokens.

    vocabularies: None where they are not known.
    """
    if tokenize != "none" or not vocabularies or not vocabularies.tokenised:
        return list(lines)
    return [" ".join(vocabularies.target.split(line)) for line in lines]


def score(outputs: Sequence[str], references: Sequence[str], tokenize: str) -> CorpusScores:
    """Corpus BLEU and chrF of outputs against one reference each."""
    _same_length(outputs, references)
    bleu = BLEU(tokenize=tokenize, force=True).corpus_score(outputs, [references])
    chrf = CHRF().corpus_score(outputs, [references])
    return CorpusScores(bleu.score, chrf.score, bleu.sys_len / max(bleu.ref_len, 1))


def multi_bleu(outputs: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU as multi-bleu.perl has it, 0 to 100: of words between spaces, cased, unsmoothed.

    It is 0 where an order has no match. Kim & Rush's BLEU is of this kind, of tokenised text.
    """
    _same_length(outputs, references)
    return BLEU(tokenize="none", smooth_method="none", force=True).corpus_score(outputs, [references]).score


def recall(outputs: Sequence[str], references: Sequence[str], tokenize: str) -> float:
    """The share of the references' n-grams that the outputs have, 0 to 100: BLEU with both exchanged, without its
    brevity penalty.

    BLEU is a precision: words too many cost it, and nothing here. So a system with shorter outputs that gains in this,
    too, gains by more than their length.
    """
    _same_length(outputs, references)
    found = BLEU(tokenize=tokenize, force=True).corpus_score(references, [outputs])
    return BLEU.compute_bleu(found.counts, found.totals, found.sys_len, found.sys_len, "exp").score


def signatures(tokenize: str) -> tuple[str, str]:
    """sacrebleu's signatures of the BLEU and the chrF that `score` computes."""
    bleu, chrf = BLEU(tokenize=tokenize, references=[["one reference"]]), CHRF(references=[["one reference"]])
    return str(bleu.get_signature()), str(chrf.get_signature())


def paired_bootstrap(
    baseline: Sequence[str], others: Mapping[str, Sequence[str]], references: Sequence[str], tokenize: str
) -> dict[str, dict]:
    """BLEU of others' outputs compared with a baseline's: {name: {bleu, delta, p_value, delta_low, delta_high}}.

    p_value: sacrebleu's paired bootstrap resampling (Koehn 2004), 1000 samples, seed 12345. delta_low, delta_high: 95%
    interval of the difference over the same resamples. What does not differ in any has p = 1 (sacrebleu: 1/1001).
    """
    for outputs in (baseline, *others.values()):
        _same_length(outputs, references)
    if not others:
        return {}
    with _fixed_seed():
        named: list[tuple[str, Sequence[str]]] = [("baseline", list(baseline))]  # the names play no part in the test
        named += [(name, list(outputs)) for name, outputs in others.items()]
        metrics = {"BLEU": BLEU(tokenize=tokenize, force=True, references=[references])}
        _, table = PairedTest(named, metrics, None, test_type="bs", n_samples=SAMPLES)()
    first, *found = (result for result in table["BLEU"] if isinstance(result, Result))
    baseline_samples = _resampled_bleu(baseline, references, tokenize)
    comparison = {}
    for name, result in zip(others, found, strict=True):
        differences = _resampled_bleu(others[name], references, tokenize) - baseline_samples
        low, high = _middle_95(differences)
        comparison[name] = {
            "bleu": result.score,
            "delta": result.score - first.score,
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
    return _bleu_of_resamples(_bleu_counts(outputs, references, tokenize))


def _resampled_recall(outputs: Sequence[str], references: Sequence[str], tokenize: str) -> np.ndarray:
    """`recall` of each resample [SAMPLES]."""
    counts = _bleu_counts(references, outputs, tokenize)
    counts[:, 1] = counts[:, 0]  # no brevity penalty
    return _bleu_of_resamples(counts)


def _bleu_of_resamples(counts: np.ndarray) -> np.ndarray:
    order = (counts.shape[1] - 2) // 2
    return np.array(
        [
            BLEU.compute_bleu(s[2 : 2 + order].tolist(), s[2 + order :].tolist(), int(s[0]), int(s[1]), "exp").score
            for s in resamples(len(counts)) @ counts
        ]
    )


def _bleu_counts(outputs: Sequence[str], references: Sequence[str], tokenize: str) -> np.ndarray:
    """Of each sentence the tokens of output and reference, and for each order the n-grams that match and all [N,10]."""
    pairs = zip(outputs, ([reference] for reference in references), strict=True)
    scores = [_sentence_metric(tokenize).sentence_score(*pair) for pair in pairs]
    return np.array([[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in scores], np.float64)


def _resampled_chrf(outputs: Sequence[str], references: Sequence[str]) -> np.ndarray:
    metric = CHRF()
    counts = np.array(metric._extract_corpus_statistics(outputs, [references]), np.float64)
    return np.array([metric._compute_score_from_stats(sums).score for sums in resamples(len(counts)) @ counts])


def resampled(outputs: Sequence[str], references: Sequence[str], tokenize: str) -> dict[str, np.ndarray]:
    """Each of CorpusScores, and `recall`, on 1000 resamples of the sentences [1000], the same for every system."""
    _same_length(outputs, references)
    lengths = _bleu_counts(outputs, references, tokenize)[:, :2]
    own, theirs = (resamples(len(outputs)) @ lengths).T
    return {
        "bleu": _resampled_bleu(outputs, references, tokenize),
        "chrf": _resampled_chrf(outputs, references),
        "recall": _resampled_recall(outputs, references, tokenize),
        "length_ratio": own / np.maximum(theirs, 1),
    }


@functools.lru_cache(maxsize=1)
def resamples(count: int) -> np.ndarray:
    """How often each of `count` sentences is in each resample, [1000, count]: those of sacrebleu under its seed."""
    drawn = np.random.default_rng(SEED).choice(count, size=(SAMPLES, count), replace=True)
    return np.stack([np.bincount(sample, minlength=count) for sample in drawn]).astype(np.float64)


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
        raise UserError(f"{len(outputs)} outputs for {len(references)} references: the numbers must be equal")
