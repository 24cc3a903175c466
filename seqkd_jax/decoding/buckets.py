"""Batches of few static shapes, and their results in the order of the sentences.

Sentences are read and grouped by shape, a chunk at a time. All batches of a chunk are dispatched before the first
result is awaited, so that host and devices work in parallel. Width and steps follow from the sentence alone, so a
result depends neither on neighbours nor on how the work was split, up to rounding: the number of rows of a product, and
the place of one within it, may decide in which order its sum is taken. So devices share out whole batches, which are
those of a single device, and the results are the same bit for bit.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from seqkd_jax.types import PAD, UserError

Ids = Sequence | np.ndarray
Item = TypeVar("Item")
# Widths, EOS included. Padding costs a search little, and sentences of different widths cannot share its slots, so it
# has few; it costs a forced pass every position.
SOURCE_BUCKETS = (16, 32, 64, 128)
FORCED_BUCKETS = (8, 16, 24, 32, 48, 64, 96, 128)
SHARE = 0.6  # of the positions of a chunk that one pool has at most, so that two devices work when all have one width
FEW, MANY = (1, 8), 16  # a search that has MANY slots or more gets a program with so FEW for as many sentences
LONGEST = 4096  # ids of one sentence, EOS included: memory grows as the square of it


class Shape(NamedTuple):
    """The static shape of a program."""

    rows: int
    width: int  # of the source (when scoring: of the target too), EOS included
    steps: int  # the longest translation, EOS included
    prefix: int = 0  # room for tokens that the translation must begin with
    slots: int = 0  # of a search that refills its slots from the rows: sentences decoded at a time


def require_length(number: int, length: int, of: str = "") -> None:
    """UserError for a sentence of more than LONGEST ids. number: from 1; of: what it belongs to, for the message."""
    if length > LONGEST:
        raise UserError(f"{of}sentence {number} has {length:,} tokens, more than {LONGEST:,}; split or drop it")


def in_order(
    items: Iterable[Item],
    size: Callable[[Item], tuple[int, ...]],
    shape_of: Callable[[Item], Shape | None],
    run: Callable[[Shape, list[Item], int], Any],
    chunk: int,
    progress: Callable[[int], object] | None = None,
    first: int = 0,
    devices: int = 1,
) -> Iterator[Any]:
    """One result for each item, in order, computed in batches of one shape and similar size.

    size: the number of ids of each part of an item. shape_of: the shape of an item; None: its result is None. run:
    dispatches a batch on the device of a number and returns arrays with a leading axis of rows. chunk: items read
    before the first batch is dispatched. progress: called with the number of items of each finished batch. first: the
    number of the first item, from 0, for errors. devices: how many share the batches.
    UserError for an item of more than LONGEST ids, after the results of those before it.
    """
    items, failure = iter(items), None
    while failure is None:
        present, shapes, failure = _read(items, size, shape_of, chunk, first)
        if not present:
            break
        first += len(present)
        groups: dict[Shape, list[int]] = {}
        for index in sorted(range(len(present)), key=lambda i: size(present[i])):
            shape = shapes[index]
            if shape is not None:
                groups.setdefault(shape, []).append(index)
        results: list[Any] = [None] * len(present)
        batches: list[tuple[Shape, list[int]]] = []
        positions = sum(shape.width for shape in shapes if shape is not None)
        for shape, members in groups.items():
            members.reverse()  # the longest first: the last rows of a pool are then short
            rows = -(-len(members) // -(-len(members) // _most(shape, positions)))  # few batches, of equal size
            parts = [members[start : start + rows] for start in range(0, len(members), rows)]
            batches.extend((fitted(shape, len(part)), part) for part in parts)
        running = [
            (batch, run(shape, [present[i] for i in batch], device))
            for shape, batch, device in _dealt(batches, devices)
        ]
        for batch, output in running:
            output = jax.device_get(output)
            for row, index in enumerate(batch):
                results[index] = jax.tree.map(lambda leaf, row=row: leaf[row], output)
            if progress:
                progress(len(batch))
        without_shape = shapes.count(None)
        if progress and without_shape:
            progress(without_shape)
        yield from results
    if failure is not None:
        raise failure


def _most(shape: Shape, positions: int) -> int:
    """The most sentences of a batch, in a chunk of so many positions. A pool's slots are refilled at least once."""
    if not shape.slots:
        return shape.rows
    return min(shape.rows, max(int(SHARE * positions) // shape.width, 2 * shape.slots))


def _dealt(batches: list[tuple[Shape, list[int]]], devices: int) -> Iterator[tuple[Shape, list[int], int]]:
    """Each batch with the number of its device: the most work first, each to the device that has the least so far."""
    if devices == 1:
        yield from ((shape, batch, 0) for shape, batch in batches)
        return
    work = lambda shape, batch: shape.width * max(len(batch), shape.slots)  # noqa: E731  (positions)
    given = [0] * devices
    for shape, batch in sorted(batches, key=lambda one: -work(*one)):
        device = given.index(min(given))
        given[device] += work(shape, batch)
        yield shape, batch, device


def _read(
    items: Iterator[Item],
    size: Callable[[Item], tuple[int, ...]],
    shape_of: Callable[[Item], Shape | None],
    chunk: int,
    first: int,
) -> tuple[list[Item], list[Shape | None], UserError | None]:
    """The next items with their shapes, up to one that cannot be read or is too long; and its error."""
    present, shapes = [], []
    try:
        for item in islice(items, chunk):
            require_length(first + len(present) + 1, max(size(item)))
            shapes.append(shape_of(item))
            present.append(item)
    except UserError as error:
        return present, shapes, error
    return present, shapes, None


def width_of(length: int, buckets: Sequence[int]) -> int:
    """The narrowest bucket that holds the length, or the widest one doubled until it does."""
    fitting = [width for width in buckets if width >= length]
    width = min(fitting) if fitting else max(buckets)
    while width < length:
        width *= 2
    return width


def fitted(shape: Shape, count: int) -> Shape:
    """The shape for so few sentences that most slots of a search would be empty; or `shape`."""
    few = [slots for slots in FEW if count <= slots <= shape.slots // 2]
    refills = shape.rows > shape.slots >= MANY
    return shape._replace(rows=few[0], slots=few[0]) if refills and few else shape


def rows_of(width: int, batch_tokens: int) -> int:
    """The number of sentences of this width in a batch of batch_tokens positions; at least 1."""
    return max(1, batch_tokens // width)


def padded(rows: Sequence[Ids], shape: Shape, fill: int = PAD) -> np.ndarray:
    """int32 [rows, width], PAD on the right; each missing row begins with `fill`."""
    array = np.full((shape.rows, shape.width), PAD, np.int32)
    array[len(rows) :, 0] = fill
    for row, ids in zip(array, rows, strict=False):
        row[: len(ids)] = ids
    return array
