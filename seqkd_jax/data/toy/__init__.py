"""The toy language: English-like sources, German-like targets, every probability known. NumPy only.

The default corpus of the studies, read through `corpus` like any other, and the truth that models are measured against.
A source has tens to hundreds of right targets, each with an exact p(target | source); see grammar.py and lexicon.py.

Choices are correlated, so that greedy search errs and a mixture of right targets is wrong. How a target begins, its
register, its dialect and its order are drawn first and obeyed to the end. One that begins with the subject keeps to the
subject's habits (people of the town are spoken of formally and in the north's words, the country's plainly and in the
south's); the others scatter. So the mode is one of the former, a function of the source that a small student can
learn, while the most probable first word often leads to the latter.
"""

import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from seqkd_jax.data.toy import grammar
from seqkd_jax.data.toy.grammar import MAX_SOURCE, MAX_TARGET
from seqkd_jax.data.toy.lexicon import NOUN_FORMS, source_words, target_words
from seqkd_jax.types import UserError

__all__ = [
    "MAX_SOURCE",
    "MAX_TARGET",
    "MAX_TRANSLATIONS",
    "Example",
    "entropy",
    "is_right",
    "kl_divergence",
    "lines",
    "mode",
    "probability",
    "sample_pairs",
    "source_log_probability",
    "source_words",
    "split_of",
    "target_words",
    "translations",
]

MAX_TRANSLATIONS = 500  # right targets of one source at most
PERCENT = {"train": range(80), "valid": range(80, 90), "test": range(90, 100)}  # hash buckets of the splits


class Example(NamedTuple):
    """A sentence pair with the labels of the agreement task; indices count the words of the source from 0."""

    source: str
    target: str
    verb_plural: bool  # the label: the number of the main verb and of its subject
    subject_index: int
    verb_index: int
    distance: int  # verb_index - subject_index
    intervening: int  # nouns between the subject and the main verb
    attractors: int  # those of them whose number is not the subject's


def sample_pairs(seed: int, count: int, split: str = "train") -> list[Example]:
    """`count` examples drawn from the grammar given the split; the same in every process, the first n of more too."""
    if split not in PERCENT:
        raise UserError(f"toy language: no split {split!r}; use one of {', '.join(PERCENT)}")
    choose = grammar.drawing(np.random.default_rng([seed, list(PERCENT).index(split)]))
    examples: list[Example] = []
    while len(examples) < count:
        sentence, words, subject_index, verb_index = grammar.source(choose)
        source = " ".join(words)
        if split_of(source) != split:
            continue
        plural = sentence.subject.plural
        between = [NOUN_FORMS[word][1] for word in words[subject_index + 1 : verb_index] if word in NOUN_FORMS]
        examples.append(
            Example(
                source=source,
                target=" ".join(grammar.target(sentence, choose)),
                verb_plural=plural,
                subject_index=subject_index,
                verb_index=verb_index,
                distance=verb_index - subject_index,
                intervening=len(between),
                attractors=sum(number != plural for number in between),
            )
        )
    return examples


def lines(examples: Sequence[Example]) -> tuple[list[str], list[str]]:
    """The sources and the targets: a parallel corpus."""
    return [example.source for example in examples], [example.target for example in examples]


def split_of(source: str) -> str:
    """The split a source belongs to, by its hash: no source is in two."""
    bucket = int.from_bytes(hashlib.sha256(source.encode()).digest()[:8], "big") % 100
    return next(split for split, buckets in PERCENT.items() if bucket in buckets)


@functools.lru_cache(maxsize=4096)
def _translations(source: str) -> tuple[tuple[str, float], ...]:
    found = [(" ".join(words), probability) for words, probability in grammar.derivations(grammar.parse(source)[0])]
    return tuple(sorted(found, key=lambda pair: (-pair[1], pair[0])))


def translations(source: str) -> dict[str, float]:
    """Every right target with p(target | source), the most probable first. UserError: not a source of the language."""
    return dict(_translations(source))


def probability(source: str, target: str) -> float:
    """p(target | source), 0 if the target is wrong."""
    return translations(source).get(target, 0.0)


def is_right(source: str, target: str) -> bool:
    """Is this one of the right targets?"""
    return probability(source, target) > 0


def mode(source: str) -> tuple[str, float]:
    """The most probable target and its probability."""
    return _translations(source)[0]


def entropy(source: str) -> float:
    """Of p(target | source), in nats."""
    return -sum(p * math.log(p) for p in translations(source).values())


def kl_divergence(source: str, log_probabilities: Callable[[str, list[str]], Sequence[float]]) -> float:
    """KL(p || model) in nats, forward and exact: the sum runs over all right targets.

    log_probabilities(source, targets): the model's log-probabilities of whole targets (end included), nats.
    """
    targets = translations(source)
    model = log_probabilities(source, list(targets))
    return math.fsum(p * (math.log(p) - float(q)) for p, q in zip(targets.values(), model, strict=True))


def source_log_probability(source: str) -> float:
    """Of the source under the grammar, all splits together, in nats."""
    return grammar.parse(source)[1]
