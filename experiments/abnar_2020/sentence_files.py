"""Files of agreement sentences, checked row by row: tables of sentences, and prefixes without their verbs. NumPy only.

A row that is not what it should be is a UserError with file, line and reason.
"""

import csv
import gzip
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from sys import intern
from typing import NamedTuple

import numpy as np

from experiments.abnar_2020.sentences import UNKNOWN, Prefixes, Sentences
from seqkd_jax.data.corpus import read_lines
from seqkd_jax.types import UserError

NUMBERS = {"VBZ": False, "VBP": True}  # tag of the verb -> plural
IRREGULAR = {"are": "is", "have": "has", "do": "does", "were": "was", "go": "goes"}  # plural -> singular


class Layout(NamedTuple):
    """How a table writes a sentence down. The columns are named in the order in which `_row` reads them."""

    columns: tuple[str, ...]
    first: int  # the number of a sentence's first token
    quoting: int  # one of csv's


SPLIT_FILES = Layout(
    ("sentence", "subj_idx", "verb_idx", "verb_pos", "verb", "distance", "n_intervening", "n_attractors")
    + ("inflected_verb",),
    first=0,
    quoting=csv.QUOTE_NONE,
)
PUBLISHED = Layout(
    ("sentence", "subj_index", "verb_index", "verb_pos", "verb", "distance", "n_intervening", "n_diff_intervening"),
    first=1,
    quoting=csv.QUOTE_MINIMAL,  # Python's csv module wrote it
)


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
    reader = csv.reader(_lines(path), delimiter="\t", quoting=layout.quoting)
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


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file, compressed or not, without their ends."""
    if path.suffix != ".gz":
        yield from read_lines(path)
        return
    try:
        with gzip.open(path, "rt", encoding="utf-8-sig", newline="\n") as stream:
            for line in stream:
                yield line.rstrip("\r\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or f"not a whole gzip file of UTF-8 text ({error}); fetch it again"
        raise UserError(f"{path}: {reason}") from None


def _int32(values: Sequence[int]) -> np.ndarray:
    return np.array(values, np.int32)
