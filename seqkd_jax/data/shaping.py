"""The few static shapes of a corpus's batches, chosen from the lengths of its sentences alone. NumPy only.

Every shape costs a compilation, so there are few, chosen so that the least work is done for padding.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from seqkd_jax.config import BatchConfig

ROWS = 8  # rows under a budget of tokens are multiples of this
MOST = 20  # shapes, where their number is not given
PADDING = 0.1  # the share of positions at which enough shapes are found
WORTH = 0.5  # batches that a shape more must save in an epoch: in ten epochs about what compiling it takes


class Shape(NamedTuple):
    """The static shape of a batch: one compilation."""

    rows: int  # B
    source: int  # S, EOS included
    target: int  # T, labels with EOS


class Rule(NamedTuple):
    """How shapes are chosen and sentences assigned to them. A run keeps the rule that it began with."""

    step: int  # widths of sequences are multiples of this
    widths: int  # considered for each side
    target: int  # the work at a target position; at a source position it is 1
    moves: bool  # the sentences that do not fill a batch move up to the next shape


RULE = Rule(step=2, widths=32, target=2, moves=True)
FORMER = Rule(step=4, widths=24, target=1, moves=False)  # of the versions up to 0.4.0


class Chain(NamedTuple):
    """Nested shapes, from small to large, and how many sentences have each as the first that holds them."""

    shapes: tuple[Shape, ...]
    counts: tuple[int, ...]


def choose(source: np.ndarray, target: np.ndarray, config: BatchConfig, rule: Rule = RULE) -> tuple[Shape, ...]:
    """At most `config.buckets` nested shapes with the least work at all positions.

    Without a number: the fewest that leave PADDING, at most MOST, as long as each saves WORTH batches an epoch.
    """
    offered = chains(source, target, config, rule)
    found, used = next(offered), 1
    ids, every = int(source.sum() + target.sum()), rule._replace(target=1)
    least = 0.0 if config.buckets else WORTH * _of_batch(found.shapes[-1], rule)  # to be saved by a shape more
    for count, chain in enumerate(offered, start=2):
        enough = not config.buckets and ids >= (1 - PADDING) * _work(found, every)
        if enough or count > (config.buckets or MOST):
            break
        if _work(found, rule) - _work(chain, rule) > (count - used) * least:
            found, used = chain, count
    moved = [0, *_moved(found.counts, found.shapes, rule), 0]
    left = [count + moved[place] - moved[place + 1] for place, count in enumerate(found.counts)]
    return tuple(shape for shape, count in zip(found.shapes, left, strict=True) if count or not rule.moves)


def chains(source: np.ndarray, target: np.ndarray, config: BatchConfig, rule: Rule = RULE) -> Iterator[Chain]:
    """The best nested shapes of one, of two, ... as long as there are widths.

    Dynamic programming over (source, target) widths: best[j] is the work for all sentences that fit widths j, when j is
    the last of k shapes; the sentences between widths i and j have j's shape. The work of a sentence is that at the
    positions of its shape. Under a rule without moves whole batches count.
    """
    sources, targets = _widths(source, rule), _widths(target, rule)
    shapes = [_shape(int(s), int(t), config) for s in sources for t in targets]
    rows, s, t = np.array(shapes).T
    inside = _inside(source, target, sources, targets)
    each = _positions(s, t, rule)

    def work(count):
        return (count if rule.moves else -(-count // rows) * rows) * each

    nested = (s[:, None] <= s) & (t[:, None] <= t)
    step = np.where(nested, work(inside - inside[:, None]), np.inf)  # [i, j]: from i to j
    best, parents = work(inside).astype(float), []
    for _ in range(len(shapes)):
        path = [len(shapes) - 1]  # the last candidate holds every sentence
        for parent in reversed(parents):
            path.append(int(parent[path[-1]]))
        path = sorted(set(path))
        counts = np.diff(inside[path], prepend=0)
        yield Chain(tuple(shapes[index] for index in path), tuple(counts.tolist()))
        through = best[:, None] + step
        parents.append(through.argmin(0))
        best = through.min(0)


def assign(source: np.ndarray, target: np.ndarray, shapes: tuple[Shape, ...], rule: Rule = RULE) -> np.ndarray:
    """[N] int32: the shape of each sentence, -1 if none holds it.

    It is the first that does; with moves the longest of those that fill no batch have the next one.
    """
    buckets = np.full(len(source), -1, np.int32)
    for index in reversed(range(len(shapes))):
        buckets[(source <= shapes[index].source) & (target <= shapes[index].target)] = index
    counts = np.bincount(buckets[buckets >= 0], minlength=len(shapes)).tolist()
    for index, moved in enumerate(_moved(counts, shapes, rule)):
        if moved:
            rows = np.flatnonzero(buckets == index)
            work = _positions(source[rows], target[rows], rule)
            buckets[rows[np.argsort(work, kind="stable")[-moved:]]] = index + 1
    return buckets


def holding(source: np.ndarray, target: np.ndarray, config: BatchConfig, rule: Rule = RULE) -> Shape:
    """One shape that holds all of these lengths."""
    return _shape(int(_up(source, rule).max()), int(_up(target, rule).max()), config)


def in_order(shapes: Iterable[Shape]) -> tuple[Shape, ...]:
    """From small to large, so that the first that fits wastes least."""
    return tuple(sorted(set(shapes), key=lambda shape: (shape.source + shape.target, shape)))


def _moved(counts: Sequence[int], shapes: tuple[Shape, ...], rule: Rule) -> list[int]:
    """How many sentences of each shape move up to the next, where that is less work than a batch that is not full."""
    moved = [0]
    for count, (shape, above) in zip(counts, pairwise(shapes), strict=False):
        over = (count + moved[-1]) % shape.rows
        fits = above.source >= shape.source and above.target >= shape.target
        less = over * _positions(*above[1:], rule) < shape.rows * _positions(*shape[1:], rule)
        moved.append(over if rule.moves and fits and less else 0)
    return moved[1:]


def _work(chain: Chain, rule: Rule) -> int:
    """At all positions of an epoch's batches, those of fill included."""
    moved = [0, *_moved(chain.counts, chain.shapes, rule), 0]
    total = 0
    for place, (shape, count) in enumerate(zip(chain.shapes, chain.counts, strict=True)):
        total += -(-(count + moved[place] - moved[place + 1]) // shape.rows) * _of_batch(shape, rule)
    return total


def _of_batch(shape: Shape, rule: Rule) -> int:
    return shape.rows * _positions(shape.source, shape.target, rule)


def _positions(source, target, rule: Rule):
    """The work for a sentence of these widths."""
    return source + rule.target * target


def _inside(source: np.ndarray, target: np.ndarray, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """How many sentences fit each pair of widths, the pairs in the order of a product: [len(sources)*len(targets)]."""
    size = len(sources), len(targets)
    places = np.searchsorted(sources, source) * size[1] + np.searchsorted(targets, target)
    return np.bincount(places, minlength=size[0] * size[1]).reshape(size).cumsum(0).cumsum(1).ravel()


def _widths(lengths: np.ndarray, rule: Rule) -> np.ndarray:
    """Widths to consider: every multiple of the step that rounds a length, thinned by quantiles; with the largest."""
    widths = np.unique(_up(lengths, rule))
    if len(widths) > rule.widths:
        widths = np.unique(_up(np.quantile(lengths, np.linspace(0, 1, rule.widths), method="higher"), rule))
    return widths


def _shape(source: int, target: int, config: BatchConfig) -> Shape:
    return Shape(config.sentences or max(config.tokens // target // ROWS * ROWS, ROWS), source, target)


def _up(lengths: np.ndarray, rule: Rule) -> np.ndarray:
    """Multiples of the step; a side that is 1 everywhere (a class, an image, no source) is no sequence and stays 1."""
    return lengths if lengths.max() == 1 else -(-lengths // rule.step) * rule.step
