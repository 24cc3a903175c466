"""Minimum Bayes risk decoding: choose the hypothesis that is most similar to the others, not the most probable one.

The hypotheses stand in for all translations (Kumar & Byrne 2004 with an n-best list, Eikema & Aziz 2020 with samples):
each is judged by its expected similarity to what the model might have produced. Text only, after the search.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float

from seqkd_jax.decoding import Translation
from seqkd_jax.evaluation import metrics, tokenization
from seqkd_jax.types import UserError


def expected_utilities(
    texts: Sequence[str], weights: Float[np.ndarray, "K"], utility: str, tokenize: str
) -> Float[np.ndarray, "K"]:
    """For each text the weighted mean, 0 to 100, of its similarity to all of them, itself among them; float64.

    weights: probabilities of the texts as translations; they are normalised. utility: an entry of UTILITIES. tokenize:
    sacrebleu's tokenizer, for BLEU. Equal texts are compared once: the cost is the square of the different ones.
    """
    different = list(dict.fromkeys(texts))
    place = [different.index(text) for text in texts]
    mass = np.bincount(place, weights) / weights.sum()
    similarity = [_entry(UTILITIES, utility, "utility")(different, reference, tokenize) for reference in different]
    return (mass @ np.array(similarity))[place]


def by_expected_utility(
    translations: Iterable[Translation], utility: str, weights: str = "uniform", tokenize: str = "auto"
) -> Iterator[Translation]:
    """Translations with their hypotheses sorted by expected utility, highest first; ties keep the order they came in.

    weights: an entry of WEIGHTS. tokenize: the metric's, for BLEU; auto: by the script of each sentence's hypotheses.
    Unfinished hypotheses are no translations: they are neither judges nor candidates and stay at the end, unless none
    is finished.
    """
    weigh = _entry(WEIGHTS, weights, "weights")
    _entry(UTILITIES, utility, "utility")
    warned = utility != "bleu" or tokenize == tokenization.AUTO
    for translation in translations:
        finished = [h for h in translation.hypotheses if h.finished]
        rest = [h for h in translation.hypotheses if not h.finished] if finished else []
        candidates = finished or translation.hypotheses
        log_probs = np.array([hypothesis.log_prob for hypothesis in candidates])
        texts = [hypothesis.text for hypothesis in candidates]
        warned = warned or tokenization.warn_unless_suited(tokenize, texts)
        words = tokenization.for_text(texts) if tokenize == tokenization.AUTO else tokenize
        utilities = expected_utilities(texts, weigh(log_probs), utility, words)
        order = np.argsort(-utilities.round(9), kind="stable")  # a tie is one within rounding
        yield translation._replace(hypotheses=[*(candidates[index] for index in order), *rest])


def _probability(log_probs: np.ndarray) -> np.ndarray:
    return np.exp(log_probs - log_probs.max())


def _entry(entries: dict[str, Callable], name: str, what: str) -> Callable:
    if name not in entries:
        raise UserError(f"mbr: no {what} named {name!r}; there are {', '.join(entries)}")
    return entries[name]


# (hypotheses, reference, tokenize) -> similarity of each hypothesis, 0 to 100
UTILITIES: dict[str, Callable[[Sequence[str], str, str], list[float]]] = {
    "chrf": metrics.sentence_chrf,
    "bleu": metrics.sentence_bleu,
}

# Log-probabilities -> weights. Samples come as often as they are probable: uniform. The hypotheses of a beam come once
# each: by the probability that the model gives them (shares of their sum), or uniform, which trusts it less.
WEIGHTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"uniform": np.ones_like, "probability": _probability}
