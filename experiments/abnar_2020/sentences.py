"""What a sentence of the agreement task is, and which rows count for what. NumPy only.

A sentence is a list of whitespace tokens with the places of a subject and its verb; the label is the verb's number, VBZ
singular or VBP plural. A label must not leak, and what was trained on is told apart from what was not.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np

from experiments.abnar_2020.accuracy import distance_rows

UNKNOWN = -1  # the place of a subject that the data do not tell


class Sentences(NamedTuple):
    """N sentences, each with a subject and its verb. Places count a sentence's tokens from 0."""

    words: list[list[str]]
    subject: np.ndarray  # int32 [N], UNKNOWN where it is
    verb: np.ndarray  # int32 [N]
    plural: np.ndarray  # bool [N], the label: the verb is VBP
    forms: list[tuple[str, str]]  # the verb as the sentence had it, its other inflection; "" if that is unknown
    distance: np.ndarray  # int32 [N], verb - subject
    intervening: np.ndarray  # int32 [N], nouns between the two
    attractors: np.ndarray  # int32 [N], those of them whose number is not the subject's
    name: str  # for messages


class Prefixes(NamedTuple):
    """What stands before N verbs that are not told."""

    words: list[list[str]]
    plural: np.ndarray  # bool [N], the verb was VBP
    attractors: np.ndarray  # int32 [N], gold
    name: str  # for messages


def take(sentences: Sentences, rows: np.ndarray) -> Sentences:
    """These sentences: indices, in this order, or a bool [N]."""
    rows = np.flatnonzero(rows) if rows.dtype == bool else rows
    chosen = [[part[row] for row in rows] if isinstance(part, list) else part[rows] for part in sentences[:-1]]
    return Sentences(*chosen, sentences.name)


def drop_leaked(prefixes: Prefixes, train: Sentences) -> tuple[Prefixes, int]:
    """The prefixes that are not all that stands before the verb of a training row, and how many were.

    Of 1 to 5 attractors 2,103 / 252 / 55 / 9 / 3 go with the 39,929 training rows of the split files. To drop what
    begins a training sentence and ends anywhere in it would take 110 more of 1 attractor and 1 more of 2. After few of
    those has training shown a verb, to language models only: they stay.
    """
    seen = set(before_verb(train))
    kept = [row for row, words in enumerate(prefixes.words) if tuple(words) not in seen]
    words = [prefixes.words[row] for row in kept]
    left = prefixes._replace(words=words, plural=prefixes.plural[kept], attractors=prefixes.attractors[kept])
    return left, len(prefixes.words) - len(kept)


def unseen(test: Sentences, train: Sentences) -> np.ndarray:
    """bool [N]: the words before the verb are not those before the verb of a training row."""
    seen = set(before_verb(train))
    return np.array([words not in seen for words in before_verb(test)], bool)


def scorable(sentences: Sentences, known: Callable[[str], bool] | Collection[str]) -> np.ndarray:
    """bool [N]: a language model can be scored here. Two forms are words that it knows, and the verb is in its place.

    In some rows the token there is the verb's own tag, or a verb of another spelling: the first would leak the label.
    In a few both forms are one: a noun or a foreign word was taken for a verb ("album", "et").
    known: the words, or what tells whether a word is one.
    """
    is_known = known if callable(known) else known.__contains__
    places = zip(sentences.words, sentences.verb.tolist(), sentences.forms, strict=True)
    return np.array(
        [
            words[place] == verb != other and "" not in (verb, other) and is_known(verb) and is_known(other)
            for words, place, (verb, other) in places
        ],
        bool,
    )


def filtered(sentences: Sentences) -> np.ndarray:
    """bool [N]: the rows that Abnar et al. 2020 score, of at most 4 nouns between and a distance of at most 16."""
    return distance_rows(sentences.distance, sentences.intervening)


def verb_forms(train: Sentences) -> dict[str, bool]:
    """Form -> whether it is plural, of every verb and other inflection; without those that occur as
    both: a tagger's errors, most of them.

    Where no verb is told, as in the strata, a language model weighs all singular forms against all plural ones.
    """
    singular, plural = _forms(train, False), _forms(train, True)
    return {form: form in plural for form in sorted(singular ^ plural)}


def _forms(train: Sentences, plural: bool) -> set[str]:
    """Every verb of that number, and the other inflections of the other number's verbs."""
    return {
        pair[0 if number == plural else 1] for number, pair in zip(train.plural.tolist(), train.forms, strict=True)
    } - {""}


def before_verb(sentences: Sentences) -> list[tuple[str, ...]]:
    """The words of each up to its verb, the verb not among them."""
    return [tuple(words[:verb]) for words, verb in zip(sentences.words, sentences.verb.tolist(), strict=True)]
