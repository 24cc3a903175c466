"""The embedded language: a stochastic synchronous grammar whose every probability is known. NumPy only.

The default corpus of the study (`corpus.py` serves it like any other), and the truth that models are measured against.
A source is English-like and has tens to hundreds of right German-like targets, each with an exact p(target | source).

Two little probabilistic programs, `_sentence` and `_target`, make every choice through a function `choose` that they
are given: one that draws makes the corpus, one that follows given words is the parser, one that tries everything
enumerates the translations. What is sampled, parsed and summed cannot drift apart.

Choices are correlated, so that greedy search errs. How a target begins, its register, its dialect and its order are
drawn first and obeyed to the end. To begin with something else than the subject is the more probable, but such targets
scatter over registers, dialects and synonyms; those that begin with the subject keep to its habits (people of the town
are spoken of formally and in the north's words, the country's plainly and in the south's). So the mode is one of these,
while the most probable first word often belongs to the others.
"""

import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from .base import UserError

Split = Literal["train", "valid", "test"]
Choose = Callable[[Mapping[Any, float]], Any]  # weights of the options -> the option taken

MAX_SOURCE = 16  # words of the longest source, EOS not counted; the grammar guarantees it
MAX_TARGET = 18  # words of the longest target, EOS not counted
MAX_TRANSLATIONS = 500  # right targets of one source at most

# --- What the speaker's habits are worth --------------------------------------------------------------------------

# Weights of the ways to begin a target: subject, object, or an opener (the adverb, or else the because-clause).
BEGIN_SUBJECT, BEGIN_OPENER, BEGIN_OBJECT, BEGIN_CLAUSE_BESIDE_ADVERB = 5.0, 6.0, 2.0, 1.0
# How probably each two-way choice is the habitual one: firm after the subject, nearly even after anything else.
FIRM, LOOSE = 0.85, 0.55
PERCENT = {"train": range(80), "valid": range(80, 90), "test": range(90, 100)}  # hash buckets of the splits

# --- The lexicon --------------------------------------------------------------------------------------------------


class GermanNoun(NamedTuple):
    gender: str  # m, f, n
    singular: str  # nominative
    oblique: str  # the singular's other cases
    plural: str


class Noun(NamedTuple):
    kind: str  # town or country (they act), thing
    german: tuple[GermanNoun, GermanNoun]  # north, south


class GermanVerb(NamedTuple):
    finite: tuple[str, str]  # singular, plural
    particle: str  # of a separable verb: at the end of a main clause, joined in front of the verb in others
    case: str  # of the object


class Verb(NamedTuple):
    object: str  # being, thing, or nothing
    german: tuple[GermanVerb, GermanVerb]  # plain, formal


# english singular, plural | north | south (gender, singular, plural); one alone is said everywhere; gender w: masculine,
# and in all cases but the nominative like its plural
_NOUNS = {
    "town": """doctor doctors | m Arzt Ärzte | m Doktor Doktoren
        teacher teachers | m Lehrer Lehrer
        judge judges | m Richter Richter
        lady ladies | f Dame Damen
        guard guards | w Polizist Polizisten | w Gendarm Gendarmen
        nurse nurses | f Schwester Schwestern | f Pflegerin Pflegerinnen
        carpenter carpenters | m Tischler Tischler | m Schreiner Schreiner
        butcher butchers | m Fleischer Fleischer | m Metzger Metzger""",
    "country": """farmer farmers | w Bauer Bauern
        boy boys | w Junge Jungen | w Bub Buben
        girl girls | n Mädchen Mädchen | n Mädel Mädel
        dog dogs | m Hund Hunde
        cat cats | f Katze Katzen
        horse horses | n Pferd Pferde | m Gaul Gäule
        hen hens | f Henne Hennen | n Huhn Hühner
        goat goats | f Ziege Ziegen | f Geiß Geißen""",
    "thing": """cupboard cupboards | m Schrank Schränke | m Kasten Kästen
        chair chairs | m Stuhl Stühle | m Sessel Sessel
        roll rolls | n Brötchen Brötchen | f Semmel Semmeln
        potato potatoes | f Kartoffel Kartoffeln | m Erdapfel Erdäpfel
        bag bags | f Tüte Tüten | n Sackerl Sackerl
        bucket buckets | m Eimer Eimer | m Kübel Kübel
        car cars | m Wagen Wagen | n Auto Autos
        cap caps | f Mütze Mützen | f Haube Hauben
        table tables | m Tisch Tische
        lamp lamps | f Lampe Lampen
        house houses | n Haus Häuser
        book books | n Buch Bücher""",
}
# english singular, plural | plain | formal (finite singular, plural, then the particle or -, then the object's case)
_VERBS = {
    "being": """sees see | sieht sehen - acc | erblickt erblicken - acc
        helps help | hilft helfen - dat | unterstützt unterstützen - acc
        follows follow | läuft laufen nach dat | verfolgt verfolgen - acc
        calls call | ruft rufen an acc | verständigt verständigen - acc
        meets meet | trifft treffen - acc | begegnet begegnen - dat
        watches watch | schaut schauen an acc | betrachtet betrachten - acc
        welcomes welcome | nimmt nehmen auf acc | empfängt empfangen - acc
        hears hear | hört hören zu dat | vernimmt vernehmen - acc""",
    "thing": """opens open | macht machen auf acc | öffnet öffnen - acc
        closes close | macht machen zu acc | schließt schließen - acc
        chooses choose | sucht suchen aus acc | wählt wählen - acc
        shows show | zeigt zeigen - acc | führt führen vor acc
        buys buy | kauft kaufen - acc | erwirbt erwerben - acc
        repairs repair | flickt flicken - acc | setzt setzen instand acc
        keeps keep | hebt heben auf acc | verwahrt verwahren - acc
        finds find | findet finden - acc | entdeckt entdecken - acc""",
    "nothing": """sleeps sleep | schläft schlafen - acc | ruht ruhen - acc
        arrives arrive | kommt kommen an acc | trifft treffen ein acc
        starts start | fängt fangen an acc | beginnt beginnen - acc
        leaves leave | geht gehen weg acc | bricht brechen auf acc
        wakes wake | wacht wachen auf acc | erwacht erwachen - acc""",
}
# english: (plain, formal) stems or words; where several are free, the first is the usual one
_ADJECTIVES = {
    "big": ("groß", "mächtig"),
    "small": ("klein", "winzig"),
    "pretty": ("hübsch", "schön"),
    "strange": ("komisch", "seltsam"),
    "famous": ("bekannt", "berühmt"),
    "dirty": ("dreckig", "schmutzig"),
}
_ADVERBS = {
    "now": (("jetzt", "gerade"), ("nun", "derzeit")),
    "often": (("oft", "öfter"), ("häufig", "vielfach")),
    "always": (("immer", "dauernd"), ("stets", "jederzeit")),
    "soon": (("bald", "gleich"), ("demnächst", "alsbald")),
    "again": (("wieder", "nochmal"), ("erneut", "abermals")),
    "sometimes": (("manchmal", "mal"), ("bisweilen", "gelegentlich")),
}
_CONJUNCTIONS = {
    "because": (("weil", "wo"), ("da", "zumal")),
    "while": (("während", "solange"), ("indes", "derweil")),
    "if": (("wenn", "falls"), ("sofern", "soweit")),
}
_PREPOSITIONS = {  # all with the dative; free in any register
    "near": ("bei", "nahe"),
    "with": ("mit", "samt"),
    "from": ("aus", "von"),
    "behind": ("hinter",),
    "beside": ("neben",),
}
_MODAL_PARTICLES = ("eben", "halt")  # north, south; plain speech only
_DETERMINERS = {"the": 6.0, "a": 2.0, "this": 1.0, "these": 1.0}
_NUMBERS = {"the": (False, True), "a": (False,), "this": (False,), "these": (True,)}  # plural or not

_ARTICLES = {  # nominative, accusative, dative by gender; +: plural
    "the": {"m": "der den dem", "f": "die die der", "n": "das das dem", "+": "die die den"},
    "that": {"m": "der den dem", "f": "die die der", "n": "das das dem", "+": "die die denen"},
    "a": {"m": "ein einen einem", "f": "eine eine einer", "n": "ein ein einem"},
    "this": {"m": "dieser diesen diesem", "f": "diese diese dieser", "n": "dieses dieses diesem"},
    "these": {"+": "diese diese diesen"},
    "which": {
        "m": "welcher welchen welchem",
        "f": "welche welche welcher",
        "n": "welches welches welchem",
        "+": "welche welche welchen",
    },
}
_CASES = ("nom", "acc", "dat")
_BEINGS, _ANYTHING = ("town", "country"), ("town", "country", "thing")


def _read_nouns() -> dict[str, tuple[Noun, bool]]:
    """English word -> (noun, plural)."""
    forms = {}
    for kind, table in _NOUNS.items():
        for line in table.splitlines():
            english, *german = [part.split() for part in line.split("|")]
            entries = [
                GermanNoun("m" if gender == "w" else gender, one, many if gender == "w" else one, many)
                for gender, one, many in german
            ]
            noun = Noun(kind, (entries[0], entries[-1]))
            forms |= {english[0]: (noun, False), english[1]: (noun, True)}
    return forms


def _read_verbs() -> dict[str, tuple[Verb, bool]]:
    """English word -> (verb, plural)."""
    forms = {}
    for kind, table in _VERBS.items():
        for line in table.splitlines():
            english, *german = [part.split() for part in line.split("|")]
            plain, formal = (GermanVerb((one, many), part.strip("-"), case) for one, many, part, case in german)
            forms |= {word: (Verb(kind, (plain, formal)), word == english[1]) for word in english}
    return forms


_NOUN_FORMS, _VERB_FORMS = _read_nouns(), _read_verbs()

# --- Sources ------------------------------------------------------------------------------------------------------


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


@functools.cache
def _nouns(kinds: tuple[str, ...], determiner: str) -> dict[str, float]:
    numbers = _NUMBERS[determiner]
    return {word: 1.0 for word, (noun, plural) in _NOUN_FORMS.items() if noun.kind in kinds and plural in numbers}


@functools.cache
def _verbs(plural: bool, objects: tuple[str, ...]) -> dict[str, float]:
    return {word: 1.0 for word, (verb, number) in _VERB_FORMS.items() if number == plural and verb.object in objects}


def _phrase(pick: Choose, kinds: tuple[str, ...], adjectives: bool = False, determiner: str = "") -> Phrase:
    determiner = determiner or pick(_DETERMINERS)
    adjective = pick({"": 6.0} | dict.fromkeys(_ADJECTIVES, 1.0)) if adjectives else ""
    return Phrase(determiner, adjective, *_NOUN_FORMS[pick(_nouns(kinds, determiner))])


def _object(pick: Choose, verb: Verb, adjectives: bool = False) -> Phrase | None:
    kinds = {"being": _BEINGS, "thing": ("thing",), "nothing": None}[verb.object]
    return _phrase(pick, kinds, adjectives) if kinds else None


def _relative(pick: Choose, antecedent: Phrase) -> Clause:
    """After `that`: a verb (the antecedent is its subject), or a determiner (it is the object of what follows)."""
    verbs = _verbs(antecedent.plural, ("being", "thing"))
    word = pick(verbs | {determiner: 2 * weight for determiner, weight in _DETERMINERS.items()})
    if word in verbs:
        verb, _ = _VERB_FORMS[word]
        return Clause(None, verb, _object(pick, verb))
    subject = _phrase(pick, _BEINGS, determiner=word)
    return Clause(subject, _VERB_FORMS[pick(_verbs(subject.plural, ("being",)))][0], None)


def _sentence(choose: Choose) -> tuple[Sentence, list[str], int, int]:
    """One source with its words and the indices of subject and verb. Every choice is the next word; "" adds none."""
    words: list[str] = []
    said: list[Noun] = []  # no noun comes twice

    def pick(options):
        word = choose({w: weight for w, weight in options.items() if _NOUN_FORMS.get(w, (None,))[0] not in said})
        words.extend([word] if word else [])
        said.extend([_NOUN_FORMS[word][0]] if word in _NOUN_FORMS else [])
        return word

    subject = _phrase(pick, _BEINGS, adjectives=True)
    subject_index = len(words) - 1
    preposition = pick({"": 12.0} | dict.fromkeys(_PREPOSITIONS, 1.0))
    attribute = _phrase(pick, _ANYTHING) if preposition else None
    relative = _relative(pick, subject) if pick({"": 7.0, "that": 3.0}) else None
    verb_index = len(words)
    verb, _ = _VERB_FORMS[pick(_verbs(subject.plural, ("being", "thing", "nothing")))]
    object = _object(pick, verb, adjectives=True)
    adverb = pick({"": 4.0} | dict.fromkeys(_ADVERBS, 1.0))
    # A clause has 6 words at most; this condition keeps sources within MAX_SOURCE.
    conjunction = pick({"": 7.0} | dict.fromkeys(_CONJUNCTIONS, 1.0)) if len(words) + 6 <= MAX_SOURCE else ""
    clause = None
    if conjunction:
        other = _phrase(pick, _BEINGS)
        does, _ = _VERB_FORMS[pick(_verbs(other.plural, ("being", "thing", "nothing")))]
        clause = Clause(other, does, _object(pick, does))
    sentence = Sentence(subject, preposition, attribute, relative, verb, object, adverb, conjunction, clause)
    return sentence, words, subject_index, verb_index


def _drawing(rng: np.random.Generator) -> Choose:
    """Choices drawn by their weights."""

    def choose(options):
        point = rng.random() * sum(options.values())
        for option, weight in options.items():
            point -= weight
            if point < 0:
                break
        return option  # the last one, should rounding leave a rest

    return choose


def _parse(source: str) -> tuple[Sentence, float]:
    """What a source says, and its log-probability, by making the choices that its words show."""
    given = source.split()
    place, log_probability = 0, 0.0

    def choose(options):
        nonlocal place, log_probability
        word = given[place] if place < len(given) and given[place] in options else ""
        if word not in options:
            raise _not_of_the_language(given, place, options)
        place += bool(word)
        log_probability += math.log(options[word] / sum(options.values()))
        return word

    sentence, *_ = _sentence(choose)
    if place < len(given):
        raise _not_of_the_language(given, place, {})
    return sentence, log_probability


def _not_of_the_language(given: Sequence[str], place: int, options: Mapping[str, float]) -> UserError:
    if place == len(given):
        wrong = f"ends too early, after word {place}"
    else:
        known = given[place] in source_words()
        wrong = f"word {place + 1} {given[place]!r} {'cannot stand here' if known else 'is no word of the language'}"
    some = ", ".join(list(options)[:4]) + (", ..." if len(options) > 4 else "")
    return UserError(f"embedded language: source {' '.join(given)!r}: {wrong}; use {some or 'nothing more here'}")


# --- Targets ------------------------------------------------------------------------------------------------------


def _article(kind: str, gender: str, case: str) -> str:
    return _ARTICLES[kind][gender].split()[_CASES.index(case)]


def _german_phrase(phrase: Phrase, case: str, formal: bool, south: bool) -> list[str]:
    noun = phrase.noun.german[south]
    gender = "+" if phrase.plural else noun.gender
    determiner = _article(phrase.determiner, gender, case)
    word = noun.plural if phrase.plural else noun.singular if case == "nom" else noun.oblique
    if phrase.plural and case == "dat" and word[-1] not in "ns":
        word += "n"
    if not phrase.adjective:
        return [determiner, word]
    if determiner == "ein":  # shows no gender, so the adjective does
        ending = {"m": "er", "n": "es"}[gender]
    else:
        ending = "e" if gender != "+" and (case == "nom" or (case == "acc" and gender in "fn")) else "en"
    return [determiner, _ADJECTIVES[phrase.adjective][formal] + ending, word]


def _german_clause(clause: Clause, antecedent: Phrase | None, formal: bool, south: bool) -> list[str]:
    """A subordinate clause without its conjunction: the verb last, in one word. Relative if it has an antecedent."""
    verb = clause.verb.german[formal]
    words = []
    if antecedent:
        gender = "+" if antecedent.plural else antecedent.noun.german[south].gender
        words.append(_article("which" if formal else "that", gender, verb.case if clause.subject else "nom"))
    if clause.subject:
        words += _german_phrase(clause.subject, "nom", formal, south)
    if clause.object:
        words += _german_phrase(clause.object, verb.case, formal, south)
    return [*words, verb.particle + verb.finite[(clause.subject or antecedent).plural]]


def _has_dialects(s: Sentence) -> bool:
    clauses = [clause for clause in (s.relative, s.clause) if clause]
    phrases = [s.subject, s.attribute, s.object, *(p for clause in clauses for p in (clause.subject, clause.object))]
    return any(phrase and phrase.noun.german[0] != phrase.noun.german[1] for phrase in phrases)


def _target(s: Sentence, choose: Choose) -> list[str]:
    """One target. A choice is made only where it changes the words, so that each target has one derivation."""
    openers = {"adverb": BEGIN_OPENER} if s.adverb else {}
    if s.clause:
        openers["clause"] = BEGIN_CLAUSE_BESIDE_ADVERB if s.adverb else BEGIN_OPENER
    begin = choose({"subject": BEGIN_SUBJECT} | openers | ({"object": BEGIN_OBJECT} if s.object else {}))
    habit = FIRM if begin == "subject" else LOOSE

    def usually(option, other):
        return choose({option: habit, other: 1 - habit})

    def synonym(words):
        return usually(*words) if len(words) > 1 else words[0]

    town = s.subject.noun.kind == "town"
    formal = usually(town, not town)
    south = _has_dialects(s) and usually(not town, town)
    verb = s.verb.german[formal]
    middle = [part for part in ("adverb", "object") if getattr(s, part) and part != begin]
    late_relative = s.relative and (begin == "subject" or middle or verb.particle)
    late = (late_relative or len(middle) == 2) and usually(False, True)

    subject = _german_phrase(s.subject, "nom", formal, south)
    if s.preposition:
        subject += [synonym(_PREPOSITIONS[s.preposition]), *_german_phrase(s.attribute, "dat", formal, south)]
    relative = _german_clause(s.relative, s.subject, formal, south) if s.relative else []
    parts = {"subject": subject if late else subject + relative}
    if s.object:
        parts["object"] = _german_phrase(s.object, verb.case, formal, south)
    if s.adverb:
        parts["adverb"] = [synonym(_ADVERBS[s.adverb][formal])]
    if s.clause:
        parts["clause"] = [
            synonym(_CONJUNCTIONS[s.conjunction][formal]),
            *_german_clause(s.clause, None, formal, south),
        ]
    modal = [] if formal else [usually("", _MODAL_PARTICLES[south])]
    words = [*parts.pop(begin), verb.finite[s.subject.plural], *modal, *parts.pop("subject", [])]
    for part in reversed(middle) if late else middle:
        words += parts[part]
    words += [verb.particle, *(relative if late else []), *parts.get("clause", [])]
    return [word for word in words if word]


def _derivations(sentence: Sentence) -> Iterator[tuple[float, list[str]]]:
    """All targets with their probabilities: every sequence of choices is replayed, and its alternatives noted."""
    pending: list[tuple] = [()]
    while pending:
        taken, made, probability = pending.pop(), [], 1.0

        def choose(options, taken=taken, made=made):
            nonlocal probability
            if len(made) < len(taken):
                option = taken[len(made)]
            else:
                option, *others = options
                pending.extend((*made, other) for other in others)
            made.append(option)
            probability *= options[option] / sum(options.values())
            return option

        words = _target(sentence, choose)
        yield probability, words


# --- What the rest of the project asks ----------------------------------------------------------------------------


def sample_pairs(seed: int, count: int, split: Split = "train") -> list[Example]:
    """`count` examples drawn from the grammar given the split; the same in every process, the first n of more too."""
    if split not in PERCENT:
        raise UserError(f"embedded language: no split {split!r}; use one of {', '.join(PERCENT)}")
    choose = _drawing(np.random.default_rng([seed, list(PERCENT).index(split)]))
    examples: list[Example] = []
    while len(examples) < count:
        sentence, words, subject_index, verb_index = _sentence(choose)
        source = " ".join(words)
        if split_of(source) != split:
            continue
        plural = sentence.subject.plural
        between = [_NOUN_FORMS[w][1] for w in words[subject_index + 1 : verb_index] if w in _NOUN_FORMS]
        examples.append(
            Example(
                source=source,
                target=" ".join(_target(sentence, choose)),
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


def split_of(source: str) -> Split:
    """The split a source belongs to, by its hash: no source is in two."""
    bucket = int.from_bytes(hashlib.sha256(source.encode()).digest()[:8], "big") % 100
    return next(split for split, buckets in PERCENT.items() if bucket in buckets)


@functools.lru_cache(maxsize=4096)
def _translations(source: str) -> tuple[tuple[str, float], ...]:
    found = [(" ".join(words), probability) for probability, words in _derivations(_parse(source)[0])]
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
    return _parse(source)[1]


@functools.cache
def source_words() -> tuple[str, ...]:
    """Every word a source can have, sorted."""
    closed = [*_DETERMINERS, *_ADJECTIVES, *_PREPOSITIONS, *_ADVERBS, *_CONJUNCTIONS, "that"]
    return tuple(sorted({*_NOUN_FORMS, *_VERB_FORMS, *closed}))


@functools.cache
def target_words() -> tuple[str, ...]:
    """Every word a target can have, sorted."""
    words = {*_MODAL_PARTICLES}
    words |= {word for table in _ARTICLES.values() for forms in table.values() for word in forms.split()}
    words |= {word for synonyms in _PREPOSITIONS.values() for word in synonyms}
    words |= {word for table in (_ADVERBS, _CONJUNCTIONS) for both in table.values() for one in both for word in one}
    words |= {stem + ending for stems in _ADJECTIVES.values() for stem in stems for ending in ("e", "en", "er", "es")}
    for noun, _ in _NOUN_FORMS.values():
        for german in noun.german:
            dative = german.plural + ("" if german.plural[-1] in "ns" else "n")
            words |= {german.singular, german.oblique, german.plural, dative}
    for verb, _ in _VERB_FORMS.values():
        for german in verb.german:
            words |= {*german.finite, *(german.particle + form for form in german.finite)}
            words |= {german.particle} - {""}
    return tuple(sorted(words))
