"""Data sets as sentence pairs, checked line by line. The first stage; the only module that imports `datasets`.

A path may be a directory with train/valid/test.<language> files (or .tsv, .jsonl, .parquet), one TSV, JSONL or Parquet
file, a data set on the Hugging Face hub, or nothing: the embedded language. Two files can be named instead of a path.
Text is read here, so that bad input gets one line with file and line number; all forms meet in a `datasets.Dataset`,
whose columns become a `Corpus`. Nothing is dropped without being asked for.
"""

import contextlib
import hashlib
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from seqkd_jax.base import UserError
from seqkd_jax.config import CorpusConfig

Dataset = Any  # a datasets.Dataset; importing it takes a second, so it is imported where it is used
Split = Literal["train", "valid", "test"]
SPLITS = {
    "train": ("train",),
    "valid": ("valid", "validation", "dev", "val"),
    "test": ("test",),
}  # names found in the wild
SUFFIXES = (".tsv", ".jsonl", ".parquet")
EMBEDDED = {
    "train": 20_000,
    "valid": 500,
    "test": 1_000,
}  # sentences of the embedded language, if the study says nothing
WEIGHT = "weight"  # a column of this name is the pair's weight in the loss


class Corpus(NamedTuple):
    """Sentence pairs."""

    sources: list[str]
    targets: list[str]
    weights: list[float] | None  # of each pair in the loss; None: all 1
    name: str  # for messages


def load_split(config: CorpusConfig, split: Split) -> Corpus:
    """The pairs of a split, in their order, none left out. UserError for input that is not what it should be."""
    if config.source == config.target:
        raise UserError(f"source and target are both {config.source!r}: they name two files, columns or keys")
    if config.source_file or config.target_file:
        if not (config.source_file and config.target_file):
            raise UserError("source_file and target_file belong together: name both")
        name = f"{config.source_file} and {config.target_file}"
        _only_train(name, split)
        return _corpus(_parallel(Path(config.source_file), Path(config.target_file), config), config, name)
    if not config.path:
        return embedded(EMBEDDED[split], split)
    path = Path(config.path)
    if path.is_dir():
        return _directory(path, split, config)
    if path.is_file():
        _only_train(config.path, split)
        return _file(path, config)
    if (
        path.is_absolute()
        or len(path.parts) > 2
        or path.suffix in SUFFIXES
        or (path.parts[1:] and path.parent.is_dir())
    ):
        raise UserError(f"{path}: no such file or directory")
    return _hub(config, split)


def embedded(count: int, split: Split, seed: int = 0) -> Corpus:
    """Sentences of the embedded language."""
    from seqkd_jax.language import sample_pairs  # imported late: most corpora do without

    sources, targets = zip(*sample_pairs(seed, count, split), strict=True)
    return Corpus(list(sources), list(targets), None, f"embedded language, {split}")


def read_lines(path: Path | str) -> Iterator[str]:
    """The lines of a file, or of standard input ("-"), one at a time. UserError: no such file, not UTF-8 (which line).

    Only a line feed ends a line, so that U+2028 and its like cannot shift the lines of one side; a carriage return
    before it goes. A file may begin with a byte order mark.
    """
    name = "standard input" if str(path) == "-" else str(path)
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if str(path) == "-" else open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    text = line.decode("utf-8")
                except UnicodeDecodeError as error:
                    found = f"byte {error.start + 1} is 0x{line[error.start]:02x}"
                    raise UserError(
                        f"{name}, line {number}: not UTF-8 ({found}); convert it, e.g. with iconv"
                    ) from None
                if number == 1:
                    text = text.removeprefix("\ufeff")
                yield text.removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}") from None


def fingerprint(corpus: Corpus) -> str:
    """SHA-256 of the pairs and weights in their order; the name does not count."""
    digest = hashlib.sha256()
    for side in corpus[:3]:
        digest.update(json.dumps(side, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def take(corpus: Corpus, rows: Sequence[int] | np.ndarray) -> Corpus:
    """These pairs, in this order."""
    weights = None if corpus.weights is None else [corpus.weights[row] for row in rows]
    return Corpus([corpus.sources[row] for row in rows], [corpus.targets[row] for row in rows], weights, corpus.name)


def hold_out(corpus: Corpus, count: int, seed: int = 0) -> tuple[Corpus, Corpus]:
    """(the rest, `count` pairs): a validation split for a corpus without one. Both keep the order of the corpus."""
    total = len(corpus.sources)
    if not 0 < count < total:
        raise UserError(f"{corpus.name}: cannot hold out {count:,} of {total:,} pairs; give at least one to each side")
    chosen = np.random.default_rng(seed).permutation(total)[:count]
    held = np.zeros(total, bool)
    held[chosen] = True
    return take(corpus, np.flatnonzero(~held)), take(corpus, np.flatnonzero(held))


def mix(parts: Sequence[tuple[Corpus, float]]) -> Corpus:
    """Corpora one after the other; the weights of each are multiplied by its own. UserError: a weight not above 0."""
    if not parts:
        raise UserError("a mixed corpus needs at least one part")
    sources, targets, weights = [], [], []
    for corpus, weight in parts:
        if not 0 < weight < float("inf"):
            raise UserError(f"{corpus.name}: weight {weight} in a mixed corpus; it must be above 0 and finite")
        sources += corpus.sources
        targets += corpus.targets
        weights += [weight * own for own in corpus.weights or [1.0] * len(corpus.sources)]
    name = " + ".join(corpus.name if weight == 1 else f"{weight:g} x {corpus.name}" for corpus, weight in parts)
    return Corpus(sources, targets, None if all(weight == 1 for weight in weights) else weights, name)


class Filtered(NamedTuple):
    """What `usable_pairs` did with the pairs of a corpus. A pair counts where it failed first, in this order."""

    empty: int  # one side or both are blank
    duplicate: int  # an earlier pair is the same
    length_ratio: int
    score: int
    kept: int

    def __str__(self) -> str:
        dropped = ", ".join(f"{count:,} {name}" for name, count in self._asdict().items() if name != "kept")
        return f"{self.kept:,} pairs kept; dropped: {dropped}"


def usable_pairs(
    corpus: Corpus,
    *,
    deduplicate: bool = False,
    max_length_ratio: float = 0.0,
    scores: Sequence[float] | np.ndarray | None = None,
    min_score: float = -float("inf"),
) -> tuple[Corpus, Filtered]:
    """The pairs that are not blank and pass the filters that are on, in their order; with the counts.

    max_length_ratio: words (separated by spaces) of the longer side for each of the shorter; 0: no limit. scores [N]:
    of each pair, e.g. log-probability per token; below min_score, or NaN, it goes. UserError if no pair is left.
    """
    if scores is not None and len(scores) != len(corpus.sources):
        raise UserError(f"{corpus.name}: {len(corpus.sources):,} pairs but {len(scores):,} scores")
    counts, rows, seen = dict.fromkeys(Filtered._fields, 0), [], set()
    for row, pair in enumerate(zip(corpus.sources, corpus.targets, strict=True)):
        shorter, longer = sorted(len(side.split()) for side in pair)
        if not shorter:
            verdict = "empty"
        elif deduplicate and pair in seen:
            verdict = "duplicate"
        elif max_length_ratio and longer > max_length_ratio * shorter:
            verdict = "length_ratio"
        elif scores is not None and not scores[row] >= min_score:
            verdict = "score"
        else:
            verdict = "kept"
            rows.append(row)
        if deduplicate:
            seen.add(pair)
        counts[verdict] += 1
    filtered = Filtered(**counts)
    if not rows:
        raise UserError(f"{corpus.name}: no usable pair left ({filtered})")
    return (corpus if filtered.kept == len(corpus.sources) else take(corpus, rows)), filtered


# The forms of a path


def _directory(path: Path, split: Split, config: CorpusConfig) -> Corpus:
    for name in SPLITS[split]:
        sides = source, target = path / f"{name}.{config.source}", path / f"{name}.{config.target}"
        present = [side for side in sides if side.is_file()]
        if len(present) == 2:
            return _corpus(_parallel(source, target, config), config, str(path / name))
        if present:
            (absent,) = set(sides) - set(present)
            raise UserError(f"{absent}: no such file beside {present[0].name}; check the languages of the corpus")
        for suffix in SUFFIXES:
            if (path / f"{name}{suffix}").is_file():
                return _file(path / f"{name}{suffix}", config)
        shards = sorted([*path.glob(f"{name}-*.parquet"), *path.glob(f"data/{name}-*.parquet")])  # as the hub has them
        if shards:
            return _parquet(shards, config, f"{path}, split {name}")
    found = ", ".join(sorted(entry.name for entry in path.iterdir())[:12]) or "nothing"
    wanted = f"{split}.{config.source} and {split}.{config.target}, or {' or '.join(split + end for end in SUFFIXES)}"
    raise UserError(f"{path}: no split {split!r}: expected {wanted}; found {found}")


def _file(path: Path, config: CorpusConfig) -> Corpus:
    readers = {".tsv": _tsv, ".jsonl": _jsonl, ".parquet": lambda path, config: _parquet([path], config, str(path))}
    if path.suffix not in readers:
        raise UserError(f"{path}: not {' or '.join(SUFFIXES)}; plain text is two files: source_file and target_file")
    return readers[path.suffix](path, config)


def _parallel(source: Path, target: Path, config: CorpusConfig) -> Dataset:
    sides = {config.source: _text(source), config.target: _text(target)}
    (short, path), (long, other) = sorted(
        (len(sides[key]), str(path)) for key, path in zip(sides, (source, target), strict=True)
    )
    if short != long:
        raise UserError(
            f"{path} has {short:,} lines but {other} has {long:,}: from line {short + 1} on there is no partner; "
            "the two files must agree line by line"
        )
    return _dataset(sides)


def _tsv(path: Path, config: CorpusConfig) -> Corpus:
    """Two columns, source and target; or any number under a first line that names them."""
    lines = _text(path)
    names = lines[0].split("\t")
    header = bool({config.source, config.target} & set(names))
    if not header and len(names) != 2:
        raise UserError(
            f"{path}, line 1: {len(names)} column(s): {', '.join(names)[:80]}; expected two, source and target, "
            f"or a first line that names {config.source!r} and {config.target!r}"
        )
    names = names if header else [config.source, config.target]
    _require_columns(names, config, f"{path}, line 1")
    columns = {name: [] for name in names}
    for number, line in enumerate(lines[header:], 1 + header):
        cells = line.split("\t")
        if len(cells) != len(names):
            raise UserError(
                f"{path}, line {number}: {len(cells)} column(s), expected {len(names)} ({', '.join(names)})"
            )
        for name, cell in zip(names, cells, strict=True):
            columns[name].append(cell)
    if WEIGHT in columns:
        columns[WEIGHT] = [_number(cell, f"{path}, line {row}") for row, cell in enumerate(columns[WEIGHT], 1 + header)]
    return _corpus(_dataset(columns), config, str(path))


def _jsonl(path: Path, config: CorpusConfig) -> Corpus:
    """One object a line, with the languages as keys or under `translation`. Blank lines count but hold nothing."""
    columns: dict[str, list] = {config.source: [], config.target: []}
    weights, count = [], 0
    for number, line in enumerate(_text(path), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{where}: not JSON ({error.msg}, column {error.colno})") from None
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected a JSON object with {config.source!r} and {config.target!r}")
        pair = row["translation"] if isinstance(row.get("translation"), dict) else row
        _require_columns(list(pair), config, where)
        for language, cells in columns.items():
            if not isinstance(pair[language], str):
                raise UserError(f"{where}: {language!r} is {json.dumps(pair[language])[:40]}, expected a string")
            cells.append(pair[language])
        count += 1
        if WEIGHT in row:
            weights.append(_number(row[WEIGHT], where))
        if weights and len(weights) != count:
            raise UserError(f"{where}: {WEIGHT!r} must be on every line or on none")
    return _corpus(_dataset(columns | ({WEIGHT: weights} if weights else {})), config, str(path))


def _parquet(paths: list[Path], config: CorpusConfig, name: str) -> Corpus:
    """Parquet files, one after the other."""
    for path in paths:
        _require_content(path)
    with tempfile.TemporaryDirectory() as cache, _load_dataset(name) as load:
        dataset = load("parquet", data_files=[str(path) for path in paths], split="train", cache_dir=cache)
        return _corpus(dataset, config, name)


def _hub(config: CorpusConfig, split: Split) -> Corpus:
    """A data set by its name on the hub; datasets keeps it in its cache."""
    name = config.path
    with _load_dataset(
        f"{name}: neither a file or directory here nor a data set that could be had from the hub"
    ) as load:
        splits = load(name, config.hub_config or None)
    for candidate in SPLITS[split]:
        if candidate in splits:
            return _corpus(splits[candidate], config, f"{name}, split {candidate}")
    raise UserError(f"{name}: no split {split!r}; it has {', '.join(splits)}")


@contextlib.contextmanager
def _load_dataset(trouble: str) -> Iterator[Callable]:
    """datasets.load_dataset without progress bars, and with its many kinds of errors as one line."""
    import datasets

    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)  # what matters they raise as well
    try:
        yield datasets.load_dataset
    except UserError:
        raise
    except Exception as error:  # of datasets, pyarrow, the hub's client and its transport: no common base
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split())[:300] or type(cause).__name__
        raise UserError(f"{trouble}: {reason}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            datasets.enable_progress_bars()


# Columns to pairs


def _dataset(columns: dict[str, list]) -> Dataset:
    from datasets import Dataset

    return Dataset.from_dict(columns)


def _corpus(dataset: Dataset, config: CorpusConfig, name: str) -> Corpus:
    """The columns of the two languages, or those keys of `translation`, checked to be text."""
    if "translation" in dataset.column_names:
        dataset = dataset.flatten()  # to translation.<language>
    names = [name.removeprefix("translation.") for name in dataset.column_names]
    _require_columns(names, config, name)
    columns = dict(zip(names, dataset.column_names, strict=True))
    sides = []
    for language in (config.source, config.target):
        cells = dataset[columns[language]][:]
        wrong = next((row for row, cell in enumerate(cells) if not isinstance(cell, str)), None)
        if wrong is not None:
            raise UserError(f"{name}, row {wrong + 1}: {language!r} is {str(cells[wrong])[:40]}, expected text")
        sides.append([_one_line(cell) for cell in cells])
    if not sides[0]:
        raise UserError(f"{name}: no pair in it")
    weights = None
    if WEIGHT in names:
        weights = [_number(cell, f"{name}, row {row}") for row, cell in enumerate(dataset[columns[WEIGHT]][:], 1)]
    return Corpus(*sides, weights, name)


def _one_line(text: str) -> str:
    """A cell may hold line ends, a line may not: what is read line by line must count the same everywhere."""
    return text if "\n" not in text and "\r" not in text else " ".join(text.replace("\r", "\n").split("\n"))


def _require_columns(names: Sequence[str], config: CorpusConfig, where: str) -> None:
    for language in (config.source, config.target):
        if language not in names:
            raise UserError(
                f"{where}: no column {language!r}; there are {', '.join(names)[:200]}: set source and target"
            )


def _number(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 <= number < float("inf"):
        raise UserError(f"{where}: {WEIGHT} {str(value)[:40]!r} is not a number from 0 up")
    return number


def _only_train(name: str, split: Split) -> None:
    if split != "train":
        raise UserError(f"{name}: one training corpus, no split {split!r}; give a directory with train, valid and test")


def _text(path: Path) -> list[str]:
    _require_content(path)
    return list(read_lines(path))


def _require_content(path: Path) -> None:
    try:
        if not path.stat().st_size:
            raise UserError(f"{path}: an empty file")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
