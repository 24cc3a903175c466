"""Readers of text, TSV, JSONL, Parquet and the Hugging Face hub: each returns a `Table`.

Text, TSV and JSONL, compressed or not (`text`), are parsed here instead of by `datasets`: an error then names file and
line, and only a line feed ends a line. `datasets` reads Parquet files and the hub.
"""

import contextlib
import json
import logging
import re
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from seqkd_jax.config import CorpusConfig
from seqkd_jax.data import languages, text
from seqkd_jax.data.text import read_lines
from seqkd_jax.types import UserError
from seqkd_jax.utils import progress

Dataset = Any  # a datasets.Dataset; importing it takes a second, so it is imported where it is used
Split = Literal["train", "valid", "test"]
SPLITS = {"train": ("train",), "valid": ("valid", "validation", "dev", "val"), "test": ("test",)}  # names in the wild
SUFFIXES = (".tsv", ".jsonl", ".parquet")
TOY = "toy"  # the path of the toy language, unless there is a file or directory of this name
WEIGHT = "weight"  # a column of this name is the pair's weight in the loss
ROLES = (("source", "src"), ("target", "tgt", "trg"))  # other names of the two sides' columns


class Table(NamedTuple):
    """What a file holds; a cell is not checked yet."""

    sources: list
    targets: list
    weights: list | None
    form: str  # of the file, for messages: how it was understood


def directory(path: Path, split: Split, config: CorpusConfig) -> Table:
    """A split in a directory: <split>.<language> files, a TSV, JSONL or Parquet file, or Parquet shards."""
    for name in SPLITS[split]:
        sides = [path / f"{name}.{language}" for language in (config.source, config.target)]
        source, target = map(text.find, sides)
        if source and target:
            return parallel(source, target)
        if present := source or target:
            absent = sides[0] if source is None else sides[1]
            raise UserError(
                f"{absent}: no such file, though {present.name} exists; check --corpus.source and --corpus.target"
            )
        for suffix in SUFFIXES:
            if found := text.find(path / f"{name}{suffix}"):
                table = file(found, config)
                return table._replace(form=f"{found.name}, {table.form}")
        shards = sorted([*path.glob(f"{name}-*.parquet"), *path.glob(f"data/{name}-*.parquet")])
        if shards:
            return _parquet(_complete(shards), config)
    found = ", ".join(sorted(entry.name for entry in path.iterdir())[:12]) or "nothing"
    wanted = f"{split}.{config.source} and {split}.{config.target}, or {' or '.join(split + end for end in SUFFIXES)}"
    hidden = "; the toy language is hidden by this directory, work in another one for it" * (config.path == TOY)
    raise UserError(f"{path}: no split {split!r}: expected {wanted}; found {found}{hidden}")


def _complete(shards: list[Path]) -> list[Path]:
    """Check that all Parquet shards (named as on the hub) are there once. UserError if not."""
    matches = [re.search(r"-(\d+)-of-(\d+)\.parquet$", shard.name) for shard in shards]
    numbers = [match for match in matches if match]
    if len(numbers) == len(shards):
        wanted = [f"{number:05d}" for number in range(int(numbers[0][2]))]
        if sorted(number[1] for number in numbers) != wanted:
            raise UserError(f"{shards[0]}: found {len(shards)} of {len(wanted)} shards; each is needed exactly once")
    return shards


def file(path: Path, config: CorpusConfig) -> Table:
    """One file with both sides; its suffix names the format, and a second one a compression."""
    if path.suffix == ".parquet":
        return _parquet([path], config)
    if text.uncompressed(path).suffix == ".jsonl":
        return _jsonl(path, config)
    if text.uncompressed(path).suffix == ".tsv":
        return _tsv(path, config)
    raise UserError(
        f"{path}: unknown suffix; expected {' or '.join(SUFFIXES)}, or two text files (--corpus.source-file and "
        "--corpus.target-file)"
    )


def parallel(source: Path, target: Path) -> Table:
    """Two plain text files, parallel line by line."""
    sources, targets = _text(source), _text(target)
    if len(sources) != len(targets):
        (short, shorter), (long, longer) = sorted([(len(sources), source), (len(targets), target)])
        raise UserError(
            f"{shorter} has {short:,} lines but {longer} has {long:,}: line {short + 1} of {longer.name} has no "
            "counterpart; the two files must be parallel line by line"
        )
    return Table(sources, targets, None, f"text files {source.name} and {target.name}")


def hub(config: CorpusConfig, split: Split) -> Table:
    """A split of a data set on the hub; `datasets` downloads it once and keeps it in its cache."""
    name, path = config.path, Path(config.path)
    local = path.is_absolute() or name[0] in ".~" or len(path.parts) > 2 or path.suffix in SUFFIXES
    if local or (len(path.parts) == 2 and path.parent.is_dir()):  # a mistyped path would wait for the network
        raise UserError(f"{name}: no such file or directory")
    with _load_dataset(f"{name}: no such file or directory, and loading it from the hub failed") as load:
        splits = load(name, config.hub_config or None)
    for candidate in SPLITS[split]:
        if candidate in splits:
            return _table(splits[candidate], config, f"{name}, split {split}", "data set of the hub")
    raise UserError(f"{name}: no split {split!r}; it has {', '.join(splits)}")


def columns_of(names: Collection[str], config: CorpusConfig, where: str) -> tuple[str, str]:
    """The names of the columns of source and target. UserError, listing the existing columns, without both of them."""
    found = []
    for language, others in zip((config.source, config.target), _other_names(config), strict=True):
        meant = [language] if language in names else [name for name in names if name.strip().lower() in others]
        if len(meant) != 1:
            there = ", ".join(meant or names)[:200] or "none"
            problem = f"columns {there} may all be {language!r}" if meant else f"no column {language!r}, found: {there}"
            raise UserError(f"{where}: {problem}; name them with --corpus.source and --corpus.target")
        found += meant
    return found[0], found[1]


def _other_names(config: CorpusConfig) -> list[tuple[str, ...]]:
    """Under which the columns of source and target are found, too, in small letters: the language's, the side's."""
    codes = config.source.lower(), config.target.lower()
    return [(code, languages.NAMES.get(code, code), *roles) for code, roles in zip(codes, ROLES, strict=True)]


def number(value: Any, where: str) -> float:
    """A pair's weight. UserError unless it is finite and not negative."""
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if 0 <= float(value) < float("inf"):
            return float(value)
    raise UserError(f"{where}: {WEIGHT} is {str(value)[:40]!r}, expected a number from 0 up")


def _tsv(path: Path, config: CorpusConfig) -> Table:
    """Two columns, source and target; or any number under a header that names them. Quotes are ordinary text."""
    lines = _text(path)
    names = lines[0].split("\t")
    header = _is_header(names, config, path)
    if not header and len(names) != 2:
        raise UserError(
            f"{path}, line 1: {len(names)} column(s) ({', '.join(names)[:80]}); expected two, or a first line that "
            f"names {config.source!r} and {config.target!r}"
        )
    sides = columns_of(names, config, f"{path}, line 1") if header else (config.source, config.target)
    names = names if header else list(sides)
    for name in (*sides, WEIGHT):
        if names.count(name) > 1:
            raise UserError(
                f"{path}, line 1: {names.count(name)} columns are named {name!r}; column names must be unique"
            )
    columns: dict[str, list] = {name: [] for name in names if name in (*sides, WEIGHT)}
    for line_number, line in enumerate(lines[header:], 1 + header):
        cells, where = line.split("\t"), f"{path}, line {line_number}"
        if len(cells) != len(names):
            raise UserError(f"{where}: {len(cells)} column(s), expected {len(names)} ({', '.join(names)[:80]})")
        for name, cell in zip(names, cells, strict=True):
            if name in columns:
                columns[name].append(number(cell, where) if name == WEIGHT else cell)
    form = f"TSV with a header: {', '.join(sides)}" if header else "TSV without a header"
    return Table(columns[sides[0]], columns[sides[1]], columns.get(WEIGHT), form)


def _is_header(names: list[str], config: CorpusConfig, path: Path) -> bool:
    """Whether the first line of a TSV names its columns: one of them as the configuration does, or both otherwise."""
    if {config.source, config.target} & set(names):
        return True
    small = [name.strip().lower() for name in names]
    if all(set(others) & set(small) for others in _other_names(config)):
        return True
    known = {*languages.NAMES, *languages.NAMES.values(), *ROLES[0], *ROLES[1]}
    if len(small) == 2 and set(small) <= known:
        progress.log(
            f"{path}, line 1: {' and '.join(names)} are read as a pair; if they are names of columns, give them with "
            "--corpus.source and --corpus.target"
        )
    return False


def _jsonl(path: Path, config: CorpusConfig) -> Table:
    """One object a line, with the languages as keys or under `translation`. Blank lines hold nothing, but count."""
    sides, weights = ([], []), []
    keys = wanted = config.source, config.target
    for line_number, line in enumerate(_text(path), 1):
        if not line.strip():
            continue
        where = f"{path}, line {line_number}"
        row = text.json_object(line, where, "the two languages as keys")
        pair = row["translation"] if isinstance(row.get("translation"), dict) else row
        keys = wanted if all(key in pair for key in wanted) else columns_of(pair, config, where)
        for cells, key in zip(sides, keys, strict=True):
            if not isinstance(pair[key], str):
                raise UserError(f"{where}: {key!r} is {json.dumps(pair[key])[:40]}, expected a string")
            cells.append(text.whole_characters(pair[key], f"{where}: {key!r}"))
        if WEIGHT in row:
            weights.append(number(row[WEIGHT], where))
        if len(weights) not in (0, len(sides[0])):
            raise UserError(f"{where}: {WEIGHT!r} must be on every line or on none")
    return Table(*sides, weights or None, f"JSONL with keys {', '.join(keys)}")


def _parquet(paths: list[Path], config: CorpusConfig) -> Table:
    """Parquet files in the given order, read without a cache: an edited file is read as it is now."""
    for path in paths:
        _require_content(path)
    with tempfile.TemporaryDirectory() as cache, _load_dataset(f"{paths[0]}: not Parquet") as load:
        links = [Path(cache, f"{number}.parquet") for number in range(len(paths))]
        for link, path in zip(links, paths, strict=True):  # `datasets` takes names for patterns and addresses
            link.symlink_to(path.absolute())
        dataset = load("parquet", data_files=list(map(str, links)), split="train", cache_dir=cache, keep_in_memory=True)
    return _table(dataset, config, str(paths[0]), "Parquet")


def _table(dataset: Dataset, config: CorpusConfig, where: str, form: str) -> Table:
    """The columns of the two languages, or those keys of `translation`."""
    if "translation" in dataset.column_names:
        dataset = dataset.flatten()  # to translation.<language>
    columns = {column.removeprefix("translation."): column for column in dataset.column_names}
    sides = columns_of(columns, config, where)
    source, target = (dataset[columns[language]][:] for language in sides)
    weights = dataset[columns[WEIGHT]][:] if WEIGHT in columns else None
    return Table(source, target, weights, f"{form} with columns {', '.join(sides)}")


@contextlib.contextmanager
def _load_dataset(trouble: str) -> Iterator[Callable]:
    """`datasets.load_dataset` without progress bars and log lines; any of its errors becomes one UserError."""
    import datasets

    bars = datasets.is_progress_bar_enabled()
    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    datasets.disable_progress_bars()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)  # what matters is raised as well
    try:
        yield datasets.load_dataset
    except Exception as error:  # of datasets, pyarrow, the hub's client, its transport: they have no common base
        cause = error.__cause__ or error
        raise UserError(f"{trouble}: {' '.join(str(cause).split())[:300] or type(cause).__name__}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            datasets.enable_progress_bars()


def _text(path: Path) -> list[str]:
    lines = list(read_lines(path))
    if not lines:
        raise UserError(f"{path}: the file is empty")
    return lines


def _require_content(path: Path) -> None:
    try:
        if not path.stat().st_size:
            raise UserError(f"{path}: the file is empty")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
