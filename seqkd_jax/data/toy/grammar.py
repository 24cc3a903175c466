"""The grammar of the toy language: two probabilistic programs, and the ways to run them.

`source` and `target` make every choice through a function `choose` that they are given. One that draws makes the
corpus, one that follows given words is the parser, one that tries everything enumerates the translations: what is
sampled, parsed and summed cannot drift apart.
"""

import functools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from seqkd_jax.data.toy.lexicon import (
    ADJECTIVES,
    ADVERBS,
    CONJUNCTIONS,
    DETERMINERS,
    FILLER,
    MODALS,
    NOUN_FORMS,
    NUMBERS,
    PREPOSITIONS,
    VERB_FORMS,
    Noun,
    Verb,
    adjective_ending,
    article,
    noun_form,
    source_words,
)
from seqkd_jax.types import UserError

Choose = Callable[[Mapping[Any, float]], Any]  # weights of the options -> the option taken

MAX_SOURCE = 16  # words of the longest source, EOS not counted
MAX_TARGET = 18  # words of the longest target, EOS not counted

# Weights of the ways a target may begin. Filler: only of a sentence without adverb.
BEGIN = {"subject": 5.0, "filler": 6.0, "adverb": 4.0, "object": 2.0, "clause": 1.5}
# How probable the subject's habit is in each two-way choice: it is kept after the subject, and rather not after others.
FIRM, LOOSE = 0.85, 0.45

_BEINGS, _ANYTHING = ("town", "country"), ("town", "country", "thing")


class Phrase(NamedTuple):
    determiner: str
    adjective: str  # "": none
    noun: Noun
    plural: bool


class Clause(NamedTuple):
    subject: Phrase | None  # None: the antecedent of a subject relative
    verb: Verb
    object: Phrase | None  # None: the verb has none, or it is the antecedent of an object relative


class Sentence(NamedTuple):
    """What a source says, from left to right."""

    subject: Phrase
    preposition: str  # "": none, as with all below
    attribute: Phrase | None
    relative: Clause | None
    verb: Verb
    object: Phrase | None
    adverb: str
    conjunction: str
    clause: Clause | None


class Style(NamedTuple):
    """What a target keeps to from its first word to its last, beside its order."""

    formal: bool  # the register, of verbs, adjectives, prepositions, relative pronouns, adverbs and conjunctions
    south: bool  # the dialect, of nouns and modal particles
    distant: bool  # `the` is jener, not der


# --- Sources ------------------------------------------------------------------------------------------------------


@functools.cache
def _nouns(kinds: tuple[str, ...], determiner: str) -> dict[str, float]:
    numbers = NUMBERS[determiner]
    return {word: 1.0 for word, (noun, plural) in NOUN_FORMS.items() if noun.kind in kinds and plural in numbers}


@functools.cache
def _verbs(plural: bool, objects: tuple[str, ...]) -> dict[str, float]:
    return {word: 1.0 for word, (verb, number) in VERB_FORMS.items() if number == plural and verb.object in objects}


def _phrase(pick: Choose, kinds: tuple[str, ...], adjectives: bool = False, determiner: str = "") -> Phrase:
    determiner = determiner or pick(DETERMINERS)
    adjective = pick({"": 6.0} | dict.fromkeys(ADJECTIVES, 1.0)) if adjectives else ""
    return Phrase(determiner, adjective, *NOUN_FORMS[pick(_nouns(kinds, determiner))])


def _object(pick: Choose, verb: Verb, adjectives: bool = False) -> Phrase | None:
    kinds = {"being": _BEINGS, "thing": ("thing",), "nothing": None}[verb.object]
    return _phrase(pick, kinds, adjectives) if kinds else None


def _relative(pick: Choose, antecedent: Phrase) -> Clause:
    """After `that`: a verb (the antecedent is its subject), or a determiner (it is the object of what follows)."""
    verbs = _verbs(antecedent.plural, ("being", "thing"))
    word = pick(verbs | {determiner: 2 * weight for determiner, weight in DETERMINERS.items()})
    if word in verbs:
        verb, _ = VERB_FORMS[word]
        return Clause(None, verb, _object(pick, verb))
    subject = _phrase(pick, _BEINGS, determiner=word)
    return Clause(subject, VERB_FORMS[pick(_verbs(subject.plural, ("being",)))][0], None)


def _pick(choose: Choose, words: list[str], options: Mapping[str, float]) -> str:
    """The next word, which joins `words` unless it is ""; a noun already among them is no option again."""
    if list(options)[-1] in NOUN_FORMS:
        said = [NOUN_FORMS[word][0] for word in words if word in NOUN_FORMS]
        options = {word: weight for word, weight in options.items() if NOUN_FORMS[word][0] not in said}
    word = choose(options)
    words.extend([word] if word else [])
    return word


def source(choose: Choose) -> tuple[Sentence, list[str], int, int]:
    """One source with its words and the indices of subject and verb. Every choice is the next word; "" adds none."""
    words: list[str] = []
    pick = functools.partial(_pick, choose, words)
    subject = _phrase(pick, _BEINGS, adjectives=True)
    subject_index = len(words) - 1
    preposition = pick({"": 12.0} | dict.fromkeys(PREPOSITIONS, 1.0))
    attribute = _phrase(pick, _ANYTHING) if preposition else None
    relative = _relative(pick, subject) if pick({"": 7.0, "that": 3.0}) else None
    verb_index = len(words)
    verb, _ = VERB_FORMS[pick(_verbs(subject.plural, ("being", "thing", "nothing")))]
    object = _object(pick, verb, adjectives=True)
    adverb = pick({"": 5.0} | dict.fromkeys(ADVERBS, 1.0))
    # A clause has 6 words at most; this condition keeps sources within MAX_SOURCE.
    conjunction = pick({"": 7.0} | dict.fromkeys(CONJUNCTIONS, 1.0)) if len(words) + 6 <= MAX_SOURCE else ""
    clause = None
    if conjunction:
        other = _phrase(pick, _BEINGS)
        does, _ = VERB_FORMS[pick(_verbs(other.plural, ("being", "thing", "nothing")))]
        clause = Clause(other, does, _object(pick, does))
    sentence = Sentence(subject, preposition, attribute, relative, verb, object, adverb, conjunction, clause)
    return sentence, words, subject_index, verb_index


# --- Targets ------------------------------------------------------------------------------------------------------


def _german_phrase(phrase: Phrase, case: str, style: Style) -> list[str]:
    noun = phrase.noun.german[style.south]
    gender = "+" if phrase.plural else noun.gender
    kind = "yonder" if style.distant and phrase.determiner == "the" else phrase.determiner
    words = [article(kind, gender, case), noun_form(noun, phrase.plural, case)]
    if phrase.adjective:
        stem = ADJECTIVES[phrase.adjective][style.formal]
        words.insert(1, stem + adjective_ending(words[0], gender, case))
    return words


def _german_clause(clause: Clause, antecedent: Phrase | None, style: Style) -> list[str]:
    """A subordinate clause without its conjunction: the verb last, in one word. Relative if it has an antecedent."""
    verb = clause.verb.german[style.formal]
    words = []
    if antecedent:
        gender = "+" if antecedent.plural else antecedent.noun.german[style.south].gender
        words.append(article("which" if style.formal else "that", gender, verb.case if clause.subject else "nom"))
    if clause.subject:
        words += _german_phrase(clause.subject, "nom", style)
    if clause.object:
        words += _german_phrase(clause.object, verb.case, style)
    subject = clause.subject or antecedent
    assert subject, "a clause has a subject or an antecedent"
    return [*words, verb.particle + verb.finite[subject.plural]]


def _phrases(s: Sentence) -> list[Phrase]:
    clauses = [clause for clause in (s.relative, s.clause) if clause]
    phrases = [s.subject, s.attribute, s.object, *(p for clause in clauses for p in (clause.subject, clause.object))]
    return [phrase for phrase in phrases if phrase]


def _beginnings(s: Sentence) -> dict[str, float]:
    possible = {"filler": not s.adverb, "adverb": s.adverb, "object": s.object, "clause": s.clause}
    return {way: weight for way, weight in BEGIN.items() if possible.get(way, True)}


def _usually(choose: Choose, habit: float, option, other):
    return choose({option: habit, other: 1 - habit})


def target(s: Sentence, choose: Choose) -> list[str]:
    """One target, its style first. A choice is made only where it changes words: each target has one derivation."""
    begin = choose(_beginnings(s))
    usually = functools.partial(_usually, choose, FIRM if begin == "subject" else LOOSE)
    town, phrases = s.subject.noun.kind == "town", _phrases(s)
    formal = usually(town, not town)
    modal = s.clause is None and usually(False, True)
    has_dialects = modal or any(phrase.noun.german[0] != phrase.noun.german[1] for phrase in phrases)
    style = Style(
        formal,
        south=has_dialects and usually(not town, town),
        distant=any(phrase.determiner == "the" for phrase in phrases) and usually(False, True),
    )
    verb = s.verb.german[formal]
    middle = [part for part in ("adverb", "object") if getattr(s, part) and part != begin]
    moves = len(middle) == 2 or bool(s.relative and (begin == "subject" or middle or verb.particle))
    late = moves and usually(False, True)  # the object before the adverb, the relative clause after the main one
    return _main_clause(s, style, begin, middle[::-1] if late else middle, late, modal, usually)


def _main_clause(
    s: Sentence, style: Style, begin: str, middle: list[str], late: bool, modal: bool, usually: Callable
) -> list[str]:
    """The words of a target, in the order decided; synonyms are chosen here."""
    verb = s.verb.german[style.formal]
    subject = _german_phrase(s.subject, "nom", style)
    if s.attribute:
        subject += [PREPOSITIONS[s.preposition][style.formal], *_german_phrase(s.attribute, "dat", style)]
    relative = _german_clause(s.relative, s.subject, style) if s.relative else []
    parts = {"filler": [FILLER], "subject": subject if late else subject + relative}
    if s.object:
        parts["object"] = _german_phrase(s.object, verb.case, style)
    if s.adverb:
        parts["adverb"] = [usually(*ADVERBS[s.adverb][style.formal])]
    if s.clause:
        conjunction = usually(*CONJUNCTIONS[s.conjunction][style.formal])
        parts["clause"] = [conjunction, *_german_clause(s.clause, None, style)]
    order = [part for part in ("subject", *middle) if part != begin]
    return [
        *parts[begin],
        verb.finite[s.subject.plural],
        *([MODALS[style.formal][style.south]] if modal else []),
        *(word for part in order for word in parts[part]),
        *([verb.particle] if verb.particle else []),
        *(relative if late else []),
        *(parts["clause"] if s.clause and begin != "clause" else []),
    ]


# --- The ways to choose -------------------------------------------------------------------------------------------


def drawing(rng: np.random.Generator) -> Choose:
    """Choices drawn by their weights."""

    def choose(options):
        point = rng.random() * sum(options.values())
        for option, weight in options.items():
            point -= weight
            if point < 0:
                return option
        return option  # rounding left a rest: the last one

    return choose


def parse(line: str) -> tuple[Sentence, float]:
    """What a source says, and its log-probability, by making the choices that its words show."""
    given = line.split()
    place, log_probability = 0, 0.0

    def choose(options):
        nonlocal place, log_probability
        word = given[place] if place < len(given) and given[place] in options else ""
        if word not in options:
            raise _not_of_the_language(given, place, options)
        place += bool(word)
        log_probability += math.log(options[word] / sum(options.values()))
        return word

    sentence, *_ = source(choose)
    if place < len(given):
        raise _not_of_the_language(given, place, ())
    return sentence, log_probability


def _not_of_the_language(given: Sequence[str], place: int, options: Collection[str]) -> UserError:
    if place == len(given):
        wrong = f"ends too early, after word {place}"
    else:
        known = given[place] in source_words()
        wrong = f"word {place + 1} {given[place]!r} {'cannot stand here' if known else 'is no word of the language'}"
    some = ", ".join(list(options)[:4]) + (", ..." if len(options) > 4 else "")
    return UserError(f"toy language, source {' '.join(given)!r}: {wrong}; expected {some or 'nothing more'}")


def _replay(taken: tuple, made: list, weights: list[float], pending: list[tuple], options: Mapping[Any, float]) -> Any:
    """The choices taken before, again; then always the first option, while its alternatives join those pending."""
    if len(made) < len(taken):
        option = taken[len(made)]
    else:
        option, *others = options
        pending.extend((*made, other) for other in others)
    made.append(option)
    weights.append(options[option] / sum(options.values()))
    return option


def derivations(sentence: Sentence) -> Iterator[tuple[list[str], float]]:
    """All targets with their probabilities, by trying every sequence of choices."""
    pending: list[tuple] = [()]
    while pending:
        weights: list[float] = []
        words = target(sentence, functools.partial(_replay, pending.pop(), [], weights, pending))
        yield words, math.prod(weights)
