"""Data sets as sentence pairs, checked line by line. The first stage; read by `readers`.

A path may be a directory with train/valid/test.<language> files (or .tsv, .jsonl, .parquet), one TSV, JSONL or Parquet
file, or a data set on the Hugging Face hub; or be `toy`, the toy language. Two files can be named instead of a path.
Every format (readers.py) becomes a table, and that a `Corpus`. No pair is dropped here: pairs that cannot be trained on
are dropped, and counted, once their ids are known (batches.encode_corpus).
"""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seqkd_jax.config import CorpusConfig
from seqkd_jax.data import distilled, languages, readers
from seqkd_jax.data.readers import Split, read_lines
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, integrity, remote, urls
from seqkd_jax.utils.settings import Range

__all__ = [
    "Corpus",
    "Split",
    "describe",
    "fingerprint",
    "load_split",
    "mix",
    "read_lines",
    "require_pairs",
    "take",
    "toy_pairs",
]

TOY_PAIRS = {"train": 10_000, "valid": 300, "test": 500}  # sentence pairs of the toy language in each split
WEIGHTS = Range(0, 1e9, above=True)  # of the parts of a mixed corpus; their products are finite float32


class Corpus(NamedTuple):
    """Sentence pairs."""

    sources: list[str]
    targets: list[str]
    weights: list[float] | None = None  # of each pair in the loss; None: all 1
    name: str = "corpus"  # for messages
    languages: tuple[str, str] | None = None  # of the sources and the targets, where they are known
    form: str = ""  # of the file that it was read from, for messages


def load_split(config: CorpusConfig, split: Split) -> Corpus:
    """The pairs of a split, in their order, none left out. UserError for input that is not what it should be.

    A single file, or two named files, are the training split. A numeric column `weight`, if there is one, becomes the
    weights.
    """
    config.validate()
    config.require_named()
    if split not in readers.SPLITS:
        raise UserError(f"split is {split!r}: it must be one of {', '.join(readers.SPLITS)}")
    path = remote.local(config.path)
    called = config.path if urls.is_url(config.path) else path
    if config.source_file:
        name = f"{config.source_file} and {config.target_file}"
        _only_train(name, split)
        pairs = readers.parallel(remote.local(config.source_file), remote.local(config.target_file))
        return _corpus(pairs, config, name)._replace(languages=languages.of(config))
    if files.existing(path).is_dir():
        return _corpus(integrity.whole(path, partial(_directory, split, config)), config, f"{called}, split {split}")
    if path.exists():  # a file, or a pipe
        _only_train(str(path), split)
        return _corpus(readers.file(path, config), config, str(called))
    if config.path == readers.TOY:
        toy = toy_pairs(TOY_PAIRS[split], split)
        if (config.source, config.target) != toy.languages:
            raise UserError(f"source and target are {config.source} and {config.target}: the toy language has en, de")
        return toy
    return _corpus(readers.hub(config, split), config, f"{path}, split {split}")


def _directory(split: Split, config: CorpusConfig, path: Path) -> readers.Table:
    distilled.require_whole(path)
    return readers.directory(path, split, config)


def toy_pairs(count: int, split: Split, seed: int = 0) -> Corpus:
    """`count` sentence pairs of the toy language."""
    from seqkd_jax.data import toy  # imported late: most corpora do without

    return Corpus(*toy.lines(toy.sample_pairs(seed, count, split)), None, f"toy language, split {split}", ("en", "de"))


def describe(corpus: Corpus) -> str:
    """One line: the name, the form of the file, how many pairs, the languages."""
    form = f" ({corpus.form})" if corpus.form else ""
    languages = f", {' to '.join(corpus.languages)}" if corpus.languages else ""
    return f"{corpus.name}{form}: {len(corpus.sources):,} pairs{languages}"


def require_pairs(corpus: Corpus) -> None:
    """Check a corpus that was made in Python: UserError for columns of different lengths, or for a weight out of range.

    TypeError for a text in the place of a list of lines.
    """
    if isinstance(corpus.sources, str) or isinstance(corpus.targets, str):
        raise TypeError(f"{corpus.name}: sources and targets must be lists of lines, not one text")
    columns = {"sources": corpus.sources, "targets": corpus.targets, "weights": corpus.weights}
    counts = {name: len(column) for name, column in columns.items() if column is not None}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        raise UserError(f"{corpus.name}: has {told}: give as many of each")
    for number, weight in enumerate(corpus.weights or (), start=1):
        readers.number(weight, f"{corpus.name}, pair {number}")


def fingerprint(corpus: Corpus) -> str:
    """SHA-256 of the pairs and weights in their order; names and languages do not count."""
    digest = hashlib.sha256()
    for part in corpus[:3]:
        digest.update(json.dumps(part).encode("ascii"))
    return digest.hexdigest()


def take(corpus: Corpus, rows: Sequence[int] | np.ndarray) -> Corpus:
    """These pairs, in this order."""
    weights = None if corpus.weights is None else [corpus.weights[row] for row in rows]
    sources, targets = [corpus.sources[row] for row in rows], [corpus.targets[row] for row in rows]
    return corpus._replace(sources=sources, targets=targets, weights=weights)


def mix(parts: Sequence[tuple[Corpus, float]]) -> Corpus:
    """Corpora one after the other, each with its weight times those of its pairs. UserError: a weight out of range."""
    if not parts:
        raise UserError("a mixed corpus needs at least one part")
    sources, targets, weights = [], [], []
    for corpus, weight in parts:
        if not WEIGHTS.holds(weight):
            raise UserError(f"{corpus.name}: weight is {weight}: it must be a number {WEIGHTS}")
        sources += corpus.sources
        targets += corpus.targets
        weights += [weight * own for own in corpus.weights or [1.0] * len(corpus.sources)]
    name = " + ".join(corpus.name if weight == 1 else f"{weight:g} x {corpus.name}" for corpus, weight in parts)
    return Corpus(sources, targets, None if set(weights) <= {1.0} else weights, name, parts[0][0].languages)


def _corpus(table: readers.Table, config: CorpusConfig, name: str) -> Corpus:
    """A table as a corpus: cells that are checked to be text and numbers."""
    sides = []
    for language, cells in zip((config.source, config.target), table[:2], strict=True):
        wrong = next((row for row, cell in enumerate(cells) if not isinstance(cell, str)), None)
        if wrong is not None:
            raise UserError(f"{name}, row {wrong + 1}: {language!r} is {str(cells[wrong])[:40]}, expected text")
        sides.append([_one_line(cell) for cell in cells])
    if not sides[0]:
        raise UserError(f"{name}: no usable pair, it has no rows")
    weights = table.weights
    if weights is not None:
        weights = [readers.number(cell, f"{name}, row {row}") for row, cell in enumerate(weights, 1)]
    return Corpus(sides[0], sides[1], weights, name, (config.source, config.target), table.form)


def _one_line(text: str) -> str:
    """Replace line ends inside a cell by spaces: text that is written and read line by line must stay one line."""
    return text.replace("\r\n", " ").replace("\n", " ").replace("\r", " ") if "\n" in text or "\r" in text else text


def _only_train(name: str, split: Split) -> None:
    if split != "train":
        raise UserError(
            f"{name}: holds a training split only, no split {split!r}; give a directory with train, valid and test, or "
            "--hold-out N of its pairs for validation"
        )
