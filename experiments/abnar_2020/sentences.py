"""Sentences of the agreement task: read, checked row by row, or drawn from the embedded language. NumPy only.

The first stage of scenario 1. A sentence is a list of whitespace tokens with the places of a subject and its verb; the
label is the verb's number, VBZ singular or VBP plural. `load` serves three sources: the embedded language, a directory
with train.tsv, valid.tsv and test.tsv, and the file that Linzen, Dupoux & Goldberg 2016 published. `strata` reads that
paper's prefixes by their number of attractors. The rest says which rows count for what: a label must not leak, and what
was trained on is told apart from what was not.
"""

import csv
import gzip
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from sys import intern
from typing import NamedTuple

import numpy as np

from experiments.abnar_2020.accuracy import distance_rows
from seqkd_jax import language
from seqkd_jax.base import UserError
from seqkd_jax.corpus import read_lines
from seqkd_jax.language.lexicon import VERB_FORMS

SPLITS = ("train", "valid", "test")
EMBEDDED = {"train": 10_000, "valid": 500, "test": 2_000}  # sentences of the embedded language, if nobody says how many
TRAIN, VALID = 0.10, 0.01  # shares of Linzen et al.'s file; the rest is for testing
LINZEN = ("agr_50_mostcommon_10K.tsv", "agr_50_mostcommon_10K.tsv.gz")
NUMBERS = {"VBZ": False, "VBP": True}  # tag of the verb -> plural
UNKNOWN = -1  # the place of a subject that the data do not tell
IRREGULAR = {"are": "is", "have": "has", "do": "does", "were": "was", "go": "goes"}  # plural -> singular


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

    @property
    def homogeneous(self) -> np.ndarray:
        """bool [N]: every noun between is an attractor, or there is none. Only these count in A-acc."""
        return self.intervening == self.attractors


class Prefixes(NamedTuple):
    """What stands before N verbs that are not told."""

    words: list[list[str]]
    plural: np.ndarray  # bool [N], the verb was VBP
    attractors: np.ndarray  # int32 [N], gold
    name: str  # for messages


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


def load(data: Path | None, seed: int, counts: dict[str, int] | None) -> dict[str, Sentences]:
    """The sentences of the splits train, valid and test.

    data: None for the embedded language; a directory with train.tsv, valid.tsv and test.tsv; or Linzen et al.'s
    published file, or a directory that holds it, which is split here, 10% train, 1% valid, 89% test, by a permutation
    drawn from `seed`. The sizes are those of Abnar et al. 2020, the rows are not: their shuffle cannot be reproduced.
    counts: sentences of each split, of read data the first so many; a split not named gives all (embedded: EMBEDDED).
    UserError if something is missing or a row is not what it should be.
    """
    wrong = sorted(set(counts or {}) - set(SPLITS))
    if wrong:
        raise UserError(f"counts of {', '.join(wrong)}: the splits are {', '.join(SPLITS)}")
    if data is None:
        return {split: _embedded(seed, count, split) for split, count in (EMBEDDED | (counts or {})).items()}
    published = _published(data)
    parts = _split(read_linzen(published), seed) if published else {s: read_tsv(data / f"{s}.tsv") for s in SPLITS}
    for split, count in (counts or {}).items():
        parts[split] = take(parts[split], np.arange(min(count, len(parts[split].words))))
    return parts


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


def strata(directory: Path | None) -> dict[int, Prefixes]:
    """Linzen et al.'s prefixes by their number of attractors, 1 to 4, and 5 if there is such a file.

    They lie in <directory>/linzen_strata, attractors_1.tsv and so on, one a line: VBZ or VBP, a tab, the words before
    the verb. Empty if that folder is missing, or for the embedded language (None).
    """
    folder = None if directory is None else directory / "linzen_strata"
    if folder is None or not folder.is_dir():
        return {}
    paths = {count: folder / f"attractors_{count}.tsv" for count in range(1, 6)}
    return {count: _prefixes(path, count) for count, path in paths.items() if count < 5 or path.is_file()}


def take(sentences: Sentences, rows: np.ndarray) -> Sentences:
    """These sentences: indices, in this order, or a bool [N]."""
    rows = np.flatnonzero(rows) if rows.dtype == bool else rows
    chosen = [[part[row] for row in rows] if isinstance(part, list) else part[rows] for part in sentences[:-1]]
    return Sentences(*chosen, sentences.name)


def drop_leaked(prefixes: Prefixes, train: Sentences) -> tuple[Prefixes, int]:
    """The prefixes that are not all that stands before the verb of a training row, and how many were.

    Of 1 to 5 attractors 2,103 / 252 / 55 / 9 / 3 go with the 39,929 training rows of the split files. To drop what
    begins a training sentence and ends anywhere in it would take 110 more of 1 attractor and 1 more of 2; there
    training has shown no verb, so they stay.
    """
    seen = set(_before_verb(train))
    kept = [row for row, words in enumerate(prefixes.words) if tuple(words) not in seen]
    words = [prefixes.words[row] for row in kept]
    left = prefixes._replace(words=words, plural=prefixes.plural[kept], attractors=prefixes.attractors[kept])
    return left, len(prefixes.words) - len(kept)


def unseen(test: Sentences, train: Sentences) -> np.ndarray:
    """bool [N]: the words before the verb are not those before the verb of a training row."""
    seen = set(_before_verb(train))
    return np.array([words not in seen for words in _before_verb(test)], bool)


def scorable(sentences: Sentences, known: Callable[[str], bool] | Collection[str]) -> np.ndarray:
    """bool [N]: a language model can be scored here. Both forms are words that it knows, and the verb is in its place.

    In some rows the token there is the verb's own tag, or a verb of another spelling: the first would leak the label.
    known: the words, or what tells whether a word is one.
    """
    is_known = known if callable(known) else known.__contains__
    places = zip(sentences.words, sentences.verb.tolist(), sentences.forms, strict=True)
    return np.array(
        [words[place] == pair[0] and "" not in pair and all(map(is_known, pair)) for words, place, pair in places], bool
    )


def filtered(sentences: Sentences) -> np.ndarray:
    """bool [N]: the rows that Abnar et al. 2020 score, of at most 4 nouns between and a distance of at most 16."""
    return distance_rows(sentences.distance, sentences.intervening)


def verb_forms(train: Sentences) -> dict[str, bool]:
    """Form -> whether it is plural, of every verb and other inflection; the `ambiguous_forms` are left out.

    Where no verb is told, as in the strata, a language model weighs all singular forms against all plural ones.
    """
    singular, plural = _forms(train, False), _forms(train, True)
    return {form: form in plural for form in sorted(singular ^ plural)}


def ambiguous_forms(train: Sentences) -> list[str]:
    """Forms that occur both as a singular and as a plural, sorted: a tagger's errors, most of them."""
    return sorted(_forms(train, False) & _forms(train, True))


def _forms(train: Sentences, plural: bool) -> set[str]:
    """Every verb of that number, and the other inflections of the other number's verbs."""
    return {
        pair[0 if number == plural else 1] for number, pair in zip(train.plural.tolist(), train.forms, strict=True)
    } - {""}


def _before_verb(sentences: Sentences) -> Iterator[tuple[str, ...]]:
    return (tuple(words[:verb]) for words, verb in zip(sentences.words, sentences.verb.tolist(), strict=True))


def _embedded(seed: int, count: int, split: str) -> Sentences:
    examples = language.sample_pairs(seed, count, split)
    words = [list(map(intern, example.source.split())) for example in examples]
    spelled = {entry: form for form, entry in VERB_FORMS.items()}
    forms = []
    for example, tokens in zip(examples, words, strict=True):
        verb, plural = VERB_FORMS[tokens[example.verb_index]]
        forms.append((spelled[verb, plural], spelled[verb, not plural]))
    places = [[getattr(example, name) for example in examples] for name in ("subject_index", "verb_index")]
    counts = [[getattr(example, name) for example in examples] for name in ("distance", "intervening", "attractors")]
    plural = np.array([example.verb_plural for example in examples], bool)
    name = f"embedded language, split {split}"
    return Sentences(words, *map(_int32, places), plural, forms, *map(_int32, counts), name)


def _published(data: Path) -> Path | None:
    """Linzen et al.'s file, or None for a directory with a file for each split. UserError if it is neither."""
    if data.is_file():
        return data
    if not data.is_dir():
        raise UserError(f"{data}: no such file or directory")
    if any((data / f"{split}.tsv").is_file() for split in SPLITS):
        return None
    found = next((data / name for name in LINZEN if (data / name).is_file()), None)
    if found is None:
        raise UserError(f"{data}: holds neither train.tsv, valid.tsv and test.tsv nor {LINZEN[0]}, plain or as .gz")
    return found


def _split(sentences: Sentences, seed: int) -> dict[str, Sentences]:
    total = len(sentences.words)
    ends = int(TRAIN * total), int(TRAIN * total) + int(VALID * total)
    if not 0 < ends[0] < ends[1]:
        raise UserError(f"{sentences.name}: {total} rows are too few for a split of 10%, 1% and 89%; it takes 100")
    rows = np.split(np.random.default_rng(seed).permutation(total), ends)
    parts = {split: take(sentences, part) for split, part in zip(SPLITS, rows, strict=True)}
    return {split: part._replace(name=f"{part.name}, split {split}") for split, part in parts.items()}


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
        for cells in reader:
            if len(cells) != len(names):
                raise UserError(f"{path}, line {reader.line_num}: {len(cells)} cells, expected {len(names)}")
            yield reader.line_num, wanted(cells)
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}; expected cells with tabs between them") from None


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file, compressed or not, without their ends."""
    if path.suffix != ".gz":
        yield from read_lines(path)
        return
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="\n") as stream:
            for line in stream:
                yield line.rstrip("\r\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or f"not a whole gzip file of UTF-8 text ({error}); fetch it again"
        raise UserError(f"{path}: {reason}") from None


def _prefixes(path: Path, attractors: int) -> Prefixes:
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


def _int32(values: Sequence[int]) -> np.ndarray:
    return np.array(values, np.int32)
