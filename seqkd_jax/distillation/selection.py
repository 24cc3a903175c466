"""One hypothesis of an n-best list, under a named rule.

To add a rule: one function (hypotheses, reference, tokenize) -> similarities, and one line in SELECTIONS.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from seqkd_jax.distillation import mbr
from seqkd_jax.distillation.nbest import Candidate
from seqkd_jax.evaluation import metrics, tokenization
from seqkd_jax.types import UserError


class Choice(NamedTuple):
    """The hypothesis chosen for one line."""

    candidate: Candidate
    first: Candidate  # the first of the list, which the model prefers
    index: int  # in the list, from 0
    similarity: float | None  # what the rule measured; None: it takes the model's order


class Rule(NamedTuple):
    """One entry of SELECTIONS."""

    # (hypotheses, reference | None, tokenize) -> the similarity of each, higher is nearer; None: the model's own order
    similarity: Callable[[Sequence[str], Any, str], Sequence[float]] | None
    needs_reference: bool = True


def require_rule(selection: str, references: bool) -> None:
    """UserError for a rule that is unknown, or that needs references where there are none."""
    if selection not in SELECTIONS:
        raise UserError(f"selection {selection!r}: no such rule; the rules are {', '.join(SELECTIONS)}")
    if SELECTIONS[selection].needs_reference and not references:
        without = " or ".join(repr(name) for name, rule in SELECTIONS.items() if not rule.needs_reference)
        raise UserError(f"selection {selection!r} needs references, but only source text is given; use {without}")


def choose(
    candidates: Sequence[Candidate], selection: str, reference: str | None = None, tokenize: str = "auto"
) -> Choice:
    """The candidate that a rule chooses. Unfinished ones are considered only if none is finished.

    Among equally similar ones the better model score wins. tokenize: the metric's; auto: by the reference's script.
    UserError: see `require_rule`.
    """
    require_rule(selection, reference is not None)
    similarity = SELECTIONS[selection].similarity
    finished = [index for index, candidate in enumerate(candidates) if candidate.finished]
    allowed = finished or list(range(len(candidates)))
    if similarity is None:
        return Choice(candidates[allowed[0]], candidates[0], allowed[0], None)
    texts = [candidates[index].text for index in allowed]
    if tokenize == tokenization.AUTO:
        tokenize = tokenization.for_text(texts if reference is None else [reference])
    similarities = similarity(texts, reference, tokenize)
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


def minimum_bayes_risk(hypotheses: Sequence[str], reference: str | None, tokenize: str) -> Sequence[float]:
    """The mean chrF of each hypothesis against all of the list, 0 to 100: no reference is read.

    Targets by this rule: MBR distillation (Finkelstein & Freitag 2024, who choose among samples).
    """
    utilities = mbr.expected_utilities(hypotheses, np.ones(len(hypotheses)), "chrf", tokenize)
    return utilities.round(9).tolist()  # a tie is one within rounding


def _ngrams(words: Sequence[str], order: int) -> Counter:
    return Counter(tuple(words[start : start + order]) for start in range(len(words) - order + 1))


SELECTIONS: dict[str, Rule] = {  # Kim & Rush's Seq-KD is `best`, their Seq-Inter `kim_rush`
    "best": Rule(None, needs_reference=False),
    "kim_rush": Rule(kim_rush),
    "sacrebleu": Rule(metrics.sentence_bleu),
    "chrf": Rule(metrics.sentence_chrf),
    "mbr": Rule(minimum_bayes_risk, needs_reference=False),
}
