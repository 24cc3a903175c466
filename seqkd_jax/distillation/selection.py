"""One hypothesis of an n-best list, under a named rule.

To add a rule: one function (hypotheses, reference, tokenize) -> similarities, and one line in SELECTIONS.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from seqkd_jax.distillation.nbest import Candidate
from seqkd_jax.evaluation import metrics, tokenization
from seqkd_jax.types import UserError


class Choice(NamedTuple):
    """The hypothesis chosen for one line."""

    candidate: Candidate
    first: Candidate  # the first of the list, which the model prefers
    index: int  # in the list, from 0
    similarity: float | None  # to the reference, for rules that read it


def require_rule(selection: str, references: bool) -> None:
    """UserError for a rule that is unknown, or that needs references where there are none."""
    if selection not in SELECTIONS:
        raise UserError(f"selection {selection!r}: no such rule; the rules are {', '.join(SELECTIONS)}")
    if SELECTIONS[selection] is not None and not references:
        raise UserError(f"selection {selection!r} needs references, but only source text is given; use 'best'")


def choose(
    candidates: Sequence[Candidate], selection: str, reference: str | None = None, tokenize: str = "auto"
) -> Choice:
    """The candidate that a rule chooses. Unfinished ones are considered only if none is finished.

    Among equally similar ones the better model score wins. tokenize: the metric's; auto: by the reference's script.
    UserError: see `require_rule`.
    """
    require_rule(selection, reference is not None)
    similarity = SELECTIONS[selection]
    finished = [index for index, candidate in enumerate(candidates) if candidate.finished]
    allowed = finished or list(range(len(candidates)))
    if similarity is None or reference is None:
        return Choice(candidates[allowed[0]], candidates[0], allowed[0], None)
    if tokenize == tokenization.AUTO:
        tokenize = tokenization.for_text([reference])
    similarities = similarity([candidates[index].text for index in allowed], reference, tokenize)
    best = max(range(len(allowed)), key=lambda place: (similarities[place], candidates[allowed[place]].score))
    return Choice(candidates[allowed[best]], candidates[0], allowed[best], similarities[best])


def kim_rush(hypotheses: Sequence[str], reference: str, tokenize: str) -> list[float]:
    """Sentence BLEU, 0 to 1, by the halving rule of the authors' code (s2sa/scorers/bleu.lua of seq2seq-attn).

    Of the words that sacrebleu's tokenizer `tokenize` gives, which for 13a is not the tokenization of their data.
    Orders 1 to 4; a first order without a match counts 1/2 match, the next 1/4, and so on (NIST; Chen & Cherry 2014,
    smoothing 3); an order that the hypothesis is too short for is skipped, the root stays the fourth; brevity penalty
    exp(1 - max(1, |reference| / |hypothesis|)). An empty hypothesis has 0.
    """
    wanted = metrics.tokenise(reference, tokenize)
    counts = [_ngrams(wanted, order) for order in range(1, 5)]
    return [_halving_bleu(metrics.tokenise(hypothesis, tokenize), counts, len(wanted)) for hypothesis in hypotheses]


def _halving_bleu(words: Sequence[str], reference_counts: Sequence[Counter], reference_length: int) -> float:
    if not words:
        return 0.0
    product, partial = 1.0, 1.0
    for order, wanted in enumerate(reference_counts, start=1):
        found = _ngrams(words, order)
        if not found:
            continue
        matches = sum(min(count, wanted[ngram]) for ngram, count in found.items())
        if matches == 0:
            partial /= 2
            matches = partial
        product *= matches / found.total()
    return product ** (1 / len(reference_counts)) * math.exp(1 - max(1.0, reference_length / len(words)))


def _ngrams(words: Sequence[str], order: int) -> Counter:
    return Counter(tuple(words[start : start + order]) for start in range(len(words) - order + 1))


# name -> similarities of hypotheses to the reference, higher is nearer; None: the model's own order. Kim & Rush's
# Seq-KD is `best`, their Seq-Inter `kim_rush`.
SELECTIONS: dict[str, Callable[[Sequence[str], str, str], list[float]] | None] = {
    "best": None,
    "kim_rush": kim_rush,
    "sacrebleu": metrics.sentence_bleu,
    "chrf": metrics.sentence_chrf,
}
