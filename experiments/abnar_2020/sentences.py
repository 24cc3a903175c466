"""Sentences of the agreement task: the toy language, a file for each split, or Linzen et al.'s file. NumPy only.

A sentence is a list of whitespace tokens with the places of a subject and its verb; its label is the verb's number, VBZ
singular or VBP plural. A row of a file that is not what it should be is a UserError with file, line and reason.
"""

import csv
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from sys import intern
from typing import NamedTuple

import numpy as np

from seqkd_jax.data import toy
from seqkd_jax.data.corpus import read_lines
from seqkd_jax.data.toy.lexicon import VERB_FORMS
from seqkd_jax.types import UserError

SPLITS = ("train", "valid", "test")
TRAIN, VALID = 0.10, 0.01  # shares of Linzen et al.'s file; the rest is for testing
LINZEN = ("agr_50_mostcommon_10K.tsv", "agr_50_mostcommon_10K.tsv.gz")
NUMBERS = {"VBZ": False, "VBP": True}  # tag of the verb -> plural
IRREGULAR = {"are": "is", "have": "has", "do": "does", "were": "was", "go": "goes"}  # plural -> singular
UNKNOWN = -1  # the place of a subject that the data do not give


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
    """What stands before N verbs, which the data do not give."""

    words: list[list[str]]
    plural: np.ndarray  # bool [N], the verb was VBP
    attractors: np.ndarray  # int32 [N], gold
    name: str  # for messages


def load(data: Path | None, seed: int, counts: Mapping[str, int] | None) -> dict[str, Sentences]:
    """The sentences of the splits train, valid and test.

    data: None for the toy language, `counts` sentences of each split; a directory with train.tsv, valid.tsv and
    test.tsv; or Linzen et al.'s file, or a directory that holds it, which is split here by a permutation drawn from
    `seed`. The sizes are those of Abnar et al. 2020, the rows are not: their shuffle cannot be reproduced.
    """
    if data is None:
        return {split: _toy(seed, counts[split], split) for split in SPLITS}
    if not data.exists():
        raise UserError(f"{data}: no such file or directory")
    if any((data / f"{split}.tsv").is_file() for split in SPLITS):
        return {split: read_tsv(data / f"{split}.tsv") for split in SPLITS}
    found = data if data.is_file() else next((data / name for name in LINZEN if (data / name).is_file()), None)
    if found is None:
        raise UserError(f"{data}: holds neither train.tsv, valid.tsv and test.tsv nor {LINZEN[0]}, plain or as .gz")
    return _split(read_linzen(found), seed)


def strata(data: Path | None) -> dict[int, Prefixes]:
    """Linzen et al.'s prefixes by their number of attractors, 1 to 4.

    They lie in linzen_strata, attractors_1.tsv and so on, in the directory of the data or beside the file that these
    are. Empty if that folder is missing, or for the toy language (None).
    """
    folder = data and (data.parent if data.is_file() else data) / "linzen_strata"
    if not folder or not folder.is_dir():
        return {}
    return {count: read_prefixes(folder / f"attractors_{count}.tsv", count) for count in range(1, 5)}


def _toy(seed: int, count: int, split: str) -> Sentences:
    examples = toy.sample_pairs(seed, count, split)
    words = [list(map(intern, example.source.split())) for example in examples]
    spelled = {entry: form for form, entry in VERB_FORMS.items()}
    verbs = [VERB_FORMS[tokens[example.verb_index]] for example, tokens in zip(examples, words, strict=True)]
    forms = [(spelled[verb, plural], spelled[verb, not plural]) for verb, plural in verbs]

    def column(name: str) -> np.ndarray:
        return _int32([getattr(example, name) for example in examples])

    places, counts = (
        map(column, ("subject_index", "verb_index")),
        map(column, ("distance", "intervening", "attractors")),
    )
    plural = np.array([example.verb_plural for example in examples], bool)
    return Sentences(words, *places, plural, forms, *counts, f"toy language, split {split}")


def _split(sentences: Sentences, seed: int) -> dict[str, Sentences]:
    total = len(sentences.words)
    ends = int(TRAIN * total), int(TRAIN * total) + int(VALID * total)
    if not 0 < ends[0] < ends[1]:
        raise UserError(f"{sentences.name}: {total} rows are too few for a split of 10%, 1% and 89%; it takes 100")
    rows = np.split(np.random.default_rng(seed).permutation(total), ends)
    parts = {split: take(sentences, part) for split, part in zip(SPLITS, rows, strict=True)}
    return {split: part._replace(name=f"{part.name}, split {split}") for split, part in parts.items()}


# Which rows count for what


def take(sentences: Sentences, rows: np.ndarray) -> Sentences:
    """These sentences: indices, in this order, or a bool [N]."""
    rows = np.flatnonzero(rows) if rows.dtype == bool else rows
    chosen = [[part[row] for row in rows] if isinstance(part, list) else part[rows] for part in sentences[:-1]]
    return Sentences(*chosen, sentences.name)


def before_verb(sentences: Sentences) -> list[tuple[str, ...]]:
    """The words of each up to its verb, the verb not among them."""
    return [tuple(words[:verb]) for words, verb in zip(sentences.words, sentences.verb.tolist(), strict=True)]


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
    can = [
        words[place] == verb != other and "" not in (verb, other) and is_known(verb) and is_known(other)
        for words, place, (verb, other) in places
    ]
    return np.array(can, bool)


def verb_forms(train: Sentences) -> dict[str, bool]:
    """Form -> whether it is plural, of every verb and other inflection; without those that occur as both: a tagger's
    errors, most of them.

    Where the data give no verb, as in the strata, a language model weighs all singular forms against all plural ones.
    """
    of: dict[bool, set[str]] = {False: set(), True: set()}
    for plural, (verb, other) in zip(train.plural.tolist(), train.forms, strict=True):
        of[plural].add(verb)
        of[not plural].add(other)
    return {form: form in of[True] for form in sorted((of[False] ^ of[True]) - {""})}


# Files


class Layout(NamedTuple):
    """How a table writes a sentence down. The columns are named in the order in which `_row` reads them."""

    columns: tuple[str, ...]
    first: int  # the number of a sentence's first token
    quoting: int  # one of csv's


_SPLIT_COLUMNS = "sentence subj_idx verb_idx verb_pos verb distance n_intervening n_attractors inflected_verb"
_LINZEN_COLUMNS = "sentence subj_index verb_index verb_pos verb distance n_intervening n_diff_intervening"
SPLIT_FILES = Layout(tuple(_SPLIT_COLUMNS.split()), first=0, quoting=csv.QUOTE_NONE)
PUBLISHED = Layout(tuple(_LINZEN_COLUMNS.split()), first=1, quoting=csv.QUOTE_MINIMAL)  # Python's csv module wrote it


def read_tsv(path: Path) -> Sentences:
    """A table with the columns of SPLIT_FILES, places from 0, -1 for an unknown subject. Other columns are ignored."""
    return _read(path, SPLIT_FILES)


def read_linzen(path: Path) -> Sentences:
    """Linzen et al.'s table, compressed or not: the columns of PUBLISHED, places from 1. Other columns are ignored.

    It does not give the other inflection of a verb, which Abnar et al. 2020 look up with a word list and the package
    `inflect`; here `inflections` finds it among the verbs of the file. "" where it finds none.
    """
    sentences = _read(path, PUBLISHED)
    verbs, plural = [form for form, _ in sentences.forms], sentences.plural.tolist()
    others = inflections(verbs, plural)
    return sentences._replace(forms=[(v, others.get((v, p), "")) for v, p in zip(verbs, plural, strict=True)])


def inflections(verbs: Sequence[str], plural: Sequence[bool]) -> dict[tuple[str, bool], str]:
    """(form, whether it is plural) -> the form of the other number, for the verbs of a corpus.

    IRREGULAR pairs are known. Any other pair must stand in the corpus, a VBP form and the VBZ form that `third_person`
    makes of it; where two VBP forms make the same one, the more frequent has it.
    """
    others = {}
    for base, single in IRREGULAR.items():
        others |= {(base, True): single, (single, False): base}
    seen = Counter(zip(verbs, plural, strict=True))
    for (form, number), _ in seen.most_common():
        if number and (third_person(form), False) in seen:
            single = others.setdefault((form, True), third_person(form))
            others.setdefault((single, False), form)
    return others


def third_person(base: str) -> str:
    """A regular verb's third person singular: -es after a hiss or a consonant with o, -ies for y, else -s."""
    after_consonant = len(base) > 1 and base[-2] not in "aeiou"
    if base.endswith("y") and after_consonant:
        return base[:-1] + "ies"
    hissing = base.endswith(("s", "x", "z", "ch", "sh"))
    return base + ("es" if hissing or (base.endswith("o") and after_consonant) else "s")


def read_prefixes(path: Path, attractors: int) -> Prefixes:
    """Prefixes with so many attractors, one a line: VBZ or VBP, a tab, the words before the verb."""
    words, plural = [], []
    for number, line in enumerate(read_lines(path), 1):
        tag, *texts = line.split("\t")
        if tag not in NUMBERS or len(texts) != 1 or not texts[0].strip():
            raise UserError(
                f"{path}, line {number}: {line[:40]!r}, expected VBZ or VBP, a tab, the words before the verb"
            )
        words.append(list(map(intern, texts[0].split())))
        plural.append(NUMBERS[tag])
    if not words:
        raise UserError(f"{path}: an empty file")
    return Prefixes(words, np.array(plural, bool), np.full(len(words), attractors, np.int32), str(path))


def _read(path: Path, layout: Layout) -> Sentences:
    """All rows of a table, checked. The other inflection is "" where the layout has none."""
    rows = [_row(layout, cells, f"{path}, line {line}") for line, cells in _cells(path, layout)]
    if not rows:
        raise UserError(f"{path}: no rows under its first line")
    words, subject, verb, plural, forms, *counts = zip(*rows, strict=True)
    places = _int32(subject), _int32(verb)
    return Sentences(list(words), *places, np.array(plural, bool), list(forms), *map(_int32, counts), str(path))


def _row(layout: Layout, cells: Sequence[str], where: str) -> tuple:
    """The parts of one sentence, in the order of `Sentences`."""
    text, subject_cell, verb_cell, tag, form, *counts, other = cells if len(cells) == 9 else (*cells, "")
    subject_name, verb_name, tag_name = layout.columns[1:4]
    words = list(map(intern, text.split()))
    if tag not in NUMBERS:
        raise UserError(f"{where}: {tag_name} is {tag[:40]!r}, expected {' or '.join(NUMBERS)}")
    verb = _place(verb_cell, verb_name, words, layout.first, where)
    known = subject_cell != str(UNKNOWN)
    subject = _place(subject_cell, subject_name, words, layout.first, where) if known else UNKNOWN
    counts = [_number(cell, name, where) for cell, name in zip(counts, layout.columns[5:8], strict=True)]
    if known and not verb - subject == counts[0] > 0:
        raise UserError(
            f"{where}: {subject_name} {subject_cell}, {verb_name} {verb_cell} and distance {counts[0]} do not agree: "
            "a subject stands before its verb, and the distance is the difference"
        )
    if counts[2] > counts[1]:
        raise UserError(f"{where}: {layout.columns[7]} is {counts[2]}, more than all nouns between, {counts[1]}")
    return words, subject, verb, NUMBERS[tag], (intern(form), intern(other)), *counts


def _place(cell: str, column: str, words: Sequence[str], first: int, where: str) -> int:
    place = _number(cell, column, where) - first
    if not 0 <= place < len(words):
        raise UserError(f"{where}: {column} {cell} lies outside its {len(words)} tokens; the first is number {first}")
    return place


def _number(cell: str, column: str, where: str) -> int:
    if not cell.isdecimal() or len(cell) > 9:  # what int32 holds
        raise UserError(f"{where}: {column} is {cell[:40]!r}, expected a whole number from 0 up")
    return int(cell)


def _cells(path: Path, layout: Layout) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line number, the cells of the layout's columns) of each row. The first line names the columns."""
    reader = csv.reader(read_lines(path), delimiter="\t", quoting=layout.quoting)
    try:
        names = next(reader, None)
        if names is None:
            raise UserError(f"{path}: an empty file")
        missing = [column for column in layout.columns if column not in names]
        if missing:
            raise UserError(f"{path}, line 1: no column {', '.join(missing)}; there are {', '.join(names)[:300]}")
        wanted = itemgetter(*map(names.index, layout.columns))
        first = reader.line_num + 1  # of a row: with an unclosed quote it would go on to the end of the file
        for cells in reader:
            if len(cells) != len(names):
                raise UserError(f"{path}, line {first}: {len(cells)} cells, expected {len(names)}")
            yield first, wanted(cells)
            first = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}; expected cells with tabs between them") from None


def _int32(values: Sequence[int]) -> np.ndarray:
    return np.array(values, np.int32)
