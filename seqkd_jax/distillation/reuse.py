"""Lines that other n-best lists hold already: a corpus with new, moved or changed lines decodes only those.

A line's list depends on nothing but the line, the teacher and the rules, up to rounding: among other neighbours the
place of its row within a product may decide in which order a sum is taken, and so the last bits of a score
(`decoding.buckets`). Only a sample is drawn by the line's number, which must then be the same. Whether an earlier shard
is of the teacher and the rules of these lists is told by its identity, which is computed anew of the lines that stand
in it.
"""

import contextlib
import functools
import json
import zlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from seqkd_jax.distillation.nbest import SAMPLE, NBest, number_of, rows_of, sealed, shard_files, shard_identity
from seqkd_jax.types import UserError
from seqkd_jax.utils import files


class Earlier(NamedTuple):
    """The lines of some shards that other lists hold."""

    count: int
    rows: Callable[[int], dict[int, str]]  # the number of a shard -> place of a line in it -> its row


NOTHING = Earlier(0, lambda _: {})


def earlier(found: NBest, numbers: Sequence[int], directory: Path) -> Earlier:
    """What the complete shards in `directory` hold of these shards. Their rows are read again when they are wanted."""
    places: dict[Hashable, tuple[Path, int] | None] = {key: None for number in numbers for key in _keys(found, number)}
    shards = shard_files(directory) if places else []
    size = _shard_lines(shards)

    @functools.lru_cache(maxsize=2)  # lines that follow each other here mostly do so there
    def rows_in(path: Path) -> tuple[list[str], list[str]]:
        return _read(found, path, number_of(path) * size)

    for path in shards:
        _, sources = rows_in(path)
        for place, key in enumerate(_keyed(found, number_of(path) * size, sources)):
            if places.get(key, ...) is None:
                places[key] = path, place

    def rows(number: int) -> dict[int, str]:
        taken = {}
        for place, key in enumerate(_keys(found, number)):
            if held := places[key]:
                path, at = held
                kept, sources = rows_in(path)
                if sources[at : at + 1] == [found.shards[number][place]]:  # else it is gone, or was replaced since
                    taken[place] = kept[at]
        return taken

    return Earlier(sum(places[key] is not None for number in numbers for key in _keys(found, number)), rows)


def _keys(found: NBest, number: int) -> Iterator[Hashable]:
    return _keyed(found, found.shard_lines * number, found.shards[number])


def _keyed(found: NBest, first: int, lines: Sequence[str]) -> Iterator[Hashable]:
    """What must be equal of two lines for the list of one to be that of the other, for each line."""
    return enumerate(lines, start=first) if found.decoding.decoder == SAMPLE else iter(lines)


def _shard_lines(shards: Sequence[Path]) -> int:
    """How many lines a shard has there: all have as many, but for the last."""
    counts = [0]
    for path in shards:
        with contextlib.suppress(UserError, AttributeError):  # it is missing or damaged, and so the shard is not used
            counts.append(files.read_json(path.with_suffix(".json")).get("lines"))
    return max(count for count in counts if type(count) is int)


def _read(found: NBest, path: Path, first: int) -> tuple[list[str], list[str]]:
    """The rows of a shard and the source of each; none if it is damaged, or of another teacher or other rules."""
    data, told = sealed(path)
    if data is None or isinstance(told, str):
        return [], []
    try:
        rows = rows_of(data)
        sources = [json.loads(row)["source"] for row in rows]
        if told["identity"] == shard_identity(found.identity, first, sources):
            return rows, sources
    except (ValueError, TypeError, KeyError, OSError, EOFError, zlib.error):
        pass  # no shard of ours, though its hash fits
    return [], []
