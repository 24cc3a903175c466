"""From data to what models read: vocabularies, encoded splits, and the test sets with what there is to decide.

A set-up's data are one function and one line in TASKS. Decisions are classes: 0 singular (VBZ), 1 plural (VBP), or
the digit. Classifiers decide by the most probable class. A language model reads the words before the verb and weighs
the verb against its other inflection; on the gold strata, which tell no verb, all singular forms against all plural.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.abnar_2020 import digits, sentences
from experiments.abnar_2020.accuracy import LARGEST_DISTANCE, LARGEST_INTERVENING, attractor_rows, distance_rows
from experiments.abnar_2020.arms import Half
from experiments.abnar_2020.sentences import Prefixes, Sentences
from experiments.abnar_2020.setups import Scale
from seqkd_jax.data import batches, shaping, vocabulary
from seqkd_jax.data.tokenizers import most_frequent
from seqkd_jax.data.vocabulary import Vocabularies
from seqkd_jax.types import EOS, UNK, UserError
from seqkd_jax.utils import files

CLASSES = ("VBZ", "VBP")
DIGITS = tuple("0123456789")
BESIDE = 2 + shaping.FORMER.step - 1  # positions that a line of words may take beside them: two marks, padding
DATA_SEED = 0  # of what is drawn: toy data, a split, moved digits


class Test(NamedTuple):
    """Examples to decide on."""

    encoded: batches.Encoded
    truth: np.ndarray  # int [N], the right decision
    # What is weighed. None: all classes. [N,2]: two ids of each example. Two lists: the sums over their ids.
    choices: np.ndarray | tuple[list[int], list[int]] | None = None
    calibrated: bool = False  # confidence and calibration are measured on it too, not only on the validation set

    @property
    def identity(self) -> list:
        """What there is to decide, as JSON values."""
        choices = self.choices.tolist() if isinstance(self.choices, np.ndarray) else self.choices
        return [batches.fingerprint(self.encoded), self.truth.tolist(), choices]


@dataclass(frozen=True)
class Task:
    """A set-up on its data."""

    vocabularies: Vocabularies
    train: batches.Encoded
    valid: batches.Encoded
    tests: dict[str, Test]  # "test", and "gold_1" ... or "scaled", "translated"
    mapped: batches.Encoded  # examples whose representations are compared
    strata: dict[str, np.ndarray]  # of "test", agreement only: distance, intervening, attractors, seen; [N] each
    counts: dict[str, int]  # for the results: what was read, what was left out

    @cached_property
    def learned_from(self) -> str:
        """SHA-256 of what models are trained and validated on."""
        splits = batches.fingerprint(self.train), batches.fingerprint(self.valid)
        return files.sha256_json([self.vocabularies.fingerprint, *splits])

    @cached_property
    def tested_on(self) -> str:
        """SHA-256 of the test sets, of what there is to decide, and of the examples that are mapped."""
        tests = {name: test.identity for name, test in self.tests.items()}
        return files.sha256_json([tests, batches.fingerprint(self.mapped)])


def load(scale: Scale, data: Path | None) -> Task:
    """The task of a scale; UserError for data that are not what they should be."""
    return TASKS[scale.setup](scale, data)


def _classification(scale: Scale, data: Path | None) -> Task:
    splits = sentences.load(data, DATA_SEED, scale.toy)
    known = _words(splits["train"], scale.vocabulary)
    vocabularies = vocabulary.labels(known, CLASSES)

    def encode(words: Sequence[Sequence[str]], plural: np.ndarray, name: str) -> batches.Encoded:
        _check_lengths(words, scale, name)
        ids = [np.array([*known.source.encode(" ".join(line)), EOS], np.int32) for line in words]
        return batches.classified(ids, plural.astype(int).tolist())

    encoded = {split: encode(sentences.before_verb(part), part.plural, part.name) for split, part in splits.items()}
    gold, counts = _gold(data, splits["train"])
    tests = {"test": Test(encoded["test"], splits["test"].plural.astype(int))}
    tests |= {f"gold_{count}": Test(encode(*p[:2], p.name), p.plural.astype(int)) for count, p in gold.items()}
    counts |= _counts(splits, splits["test"], known)
    mapped = first(encoded["test"], scale.mapped)
    train, valid = encoded["train"], encoded["valid"]
    return Task(vocabularies, train, valid, tests, mapped, _strata(splits["test"], splits["train"]), counts)


def _language_model(scale: Scale, data: Path | None) -> Task:
    splits = sentences.load(data, DATA_SEED, scale.toy)
    known = _words(splits["train"], scale.vocabulary)

    def ids(line: Sequence[str]) -> list[int]:
        return known.source.encode(" ".join(line))

    def encode(words: Sequence[Sequence[str]], name: str) -> batches.Encoded:
        _check_lengths(words, scale, name)
        return batches.sequences([ids(line) for line in words])

    def is_known(word: str) -> bool:
        return ids([word]) not in ([], [UNK])

    train, valid = (encode(splits[split].words, splits[split].name) for split in ("train", "valid"))
    test = sentences.take(splits["test"], sentences.scorable(splits["test"], is_known))
    if not test.words:
        raise UserError(
            f"{splits['test'].name}: no row can be scored: a verb must stand in its place, and it and its other "
            "inflection must be among the words of the training split"
        )
    pairs = [pair[::-1] if plural else pair for pair, plural in zip(test.forms, test.plural.tolist(), strict=True)]
    choices = np.array([[ids([form])[0] for form in pair] for pair in pairs])  # singular, plural
    before = encode(sentences.before_verb(test), test.name)
    gold, counts = _gold(data, splits["train"])
    forms = {form: plural for form, plural in sentences.verb_forms(splits["train"]).items() if is_known(form)}
    sums = tuple([ids([form])[0] for form, plural in forms.items() if plural == number] for number in (False, True))
    tests = {"test": Test(before, test.plural.astype(int), choices)}
    for count, prefixes in gold.items():
        tests[f"gold_{count}"] = Test(encode(prefixes.words, prefixes.name), prefixes.plural.astype(int), sums)
    counts |= _counts(splits, test, known) | {"verb_forms": len(forms)}
    mapped = first(before, scale.mapped)
    return Task(known, train, valid, tests, mapped, _strata(test, splits["train"]), counts)


def _images(scale: Scale, data: Path | None) -> Task:
    loaded = digits.load(data, DATA_SEED, scale.toy)
    encoded = {use: batches.classified(list(part.images), part.labels.tolist()) for use, part in loaded.items()}
    tests = {
        use: Test(encoded[use], part.labels.astype(int), calibrated=use != "test")  # "test" is the validation set
        for use, part in loaded.items()
        if use != "train"
    }
    counts = {use: len(part.labels) for use, part in loaded.items()}
    vocabularies = vocabulary.labels(None, DIGITS)
    mapped = first(encoded["test"], scale.mapped)
    return Task(vocabularies, encoded["train"], encoded["test"], tests, mapped, {}, counts)


TASKS = {"classification": _classification, "lm": _language_model, "images": _images}


def _check_lengths(lines: Sequence[Sequence[str]], scale: Scale, name: str) -> None:
    """UserError for a line that a model of the scale has no positions for."""
    room = min((model.max_length for model in scale.models.values() if hasattr(model, "max_length")), default=None)
    longest = max(lines, key=len)
    if room is not None and len(longest) > room - BESIDE:
        raise UserError(
            f"{name}: {len(longest)} words to read in the row that has {' '.join(longest[:5])!r}; the Transformers of "
            f"scale {scale.name} read {room - BESIDE} at most: leave the row out"
        )


def _words(train: Sentences, size: int) -> Vocabularies:
    """The most frequent words of the training split."""
    specials = len(vocabulary.SPECIALS)
    ranked = most_frequent(map(" ".join, train.words), str.split, size + specials)
    return vocabulary.words(ranked[specials:])


def _gold(data: Path | None, train: Sentences) -> tuple[dict[int, Prefixes], dict[str, int]]:
    """The gold strata of 1 to 4 attractors without what training has shown, and how much that was."""
    gold, counts = {}, {}
    for count, prefixes in sentences.strata(data).items():
        kept, dropped = sentences.drop_leaked(prefixes, train)
        if kept.words:
            gold[count] = kept
        counts |= {f"gold_{count}": len(kept.words), f"gold_{count}_in_training": dropped}
    return gold, counts


def _counts(splits: Mapping[str, Sentences], test: Sentences, known: Vocabularies) -> dict[str, int]:
    """test_scored: the rows of mu; test_filtered: those of D and A."""
    read = {split: len(part.words) for split, part in splits.items()}
    scored = {
        "test_scored": len(test.words),
        "test_filtered": int(distance_rows(test.distance, test.intervening).sum()),
    }
    return read | scored | {"words": known.source.size}


def _strata(test: Sentences, train: Sentences) -> dict[str, np.ndarray]:
    if not attractor_rows(test.distance, test.intervening, test.attractors).any():
        raise UserError(
            f"{test.name}: no row that D or A counts: at most {LARGEST_INTERVENING} nouns between subject and verb, "
            f"for A all of the other number, and a distance of at most {LARGEST_DISTANCE}"
        )
    kinds = {"distance": test.distance, "intervening": test.intervening, "attractors": test.attractors}
    return kinds | {"seen": ~sentences.unseen(test, train)}


def half(encoded: batches.Encoded, name: Half) -> batches.Encoded:
    """Half A or B of the examples: of the different inputs, in the order in which they first occur, every other one.

    All examples of one input are in the same half, so that what has learned from one half has seen none of the other.
    """
    read = encoded.targets if encoded.form == "language_model" else encoded.sources
    inputs = [np.asarray(example).tobytes() for example in read]
    order = {found: place for place, found in enumerate(dict.fromkeys(inputs))}
    return _taken(encoded, [row for row, found in enumerate(inputs) if order[found] % 2 == "AB".index(name)])


def first(encoded: batches.Encoded, count: int) -> batches.Encoded:
    """The first examples."""
    return _taken(encoded, range(min(count, len(encoded.targets))))


def _taken(encoded: batches.Encoded, rows: Sequence[int]) -> batches.Encoded:
    sources, targets = ([part[row] for row in rows] for part in (encoded.sources, encoded.targets))
    return encoded._replace(sources=sources, targets=targets, weights=encoded.weights[list(rows)])
