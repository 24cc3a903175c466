"""The few static shapes of a corpus's batches, chosen from the lengths of its sentences alone. NumPy only.

Every shape costs one compilation, so there are few, chosen so that the fewest cells are padding.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from seqkd_jax.config import BatchConfig

ROUND = 4  # widths of sequences are multiples of this
ROWS = 8  # rows under a budget of tokens are multiples of this
CANDIDATES = 24  # widths considered for each side


class Shape(NamedTuple):
    """The static shape of a batch: one compilation."""

    rows: int  # B
    source: int  # S, EOS included
    target: int  # T, labels with EOS


def choose(source: np.ndarray, target: np.ndarray, config: BatchConfig) -> tuple[Shape, ...]:
    """At most `config.buckets` nested shapes with the fewest cells in all batches, filled rows included.

    Dynamic programming over (source, target) widths: best[j] is the cost of all sentences that fit widths j, when j is
    the last of k shapes; the sentences between widths i and j cost whole batches of j's shape.
    """
    widths = [(s, t) for s in _candidates(source) for t in _candidates(target)]
    shapes = [_shape(s, t, config) for s, t in widths]
    s, t = np.array(widths).T
    inside = np.array([np.count_nonzero((source <= a) & (target <= b)) for a, b in widths])
    rows, cells = np.array([shape.rows for shape in shapes]), s + t
    nested = (s[:, None] <= s) & (t[:, None] <= t)
    step = -(-(inside - inside[:, None]) // rows) * rows * cells  # [i, j]: from i to j
    step = np.where(nested, step, np.inf)
    best, parents = -(-inside // rows) * rows * cells.astype(float), []
    costs = [best[-1]]  # the last candidate holds every sentence
    for _ in range(1, min(config.buckets, len(widths))):
        through = best[:, None] + step
        parents.append(through.argmin(0))
        best = through.min(0)
        costs.append(best[-1])
    last, chosen = len(widths) - 1, {len(widths) - 1}
    for parent in reversed(parents[: int(np.argmin(costs))]):
        last = int(parent[last])
        chosen.add(last)
    return in_order(shapes[index] for index in chosen)


def smallest_fit(source: np.ndarray, target: np.ndarray, shapes: tuple[Shape, ...]) -> np.ndarray:
    """[N] int32: the first shape that holds each sentence, -1 if none does."""
    buckets = np.full(len(source), -1, np.int32)
    for index in reversed(range(len(shapes))):
        buckets[(source <= shapes[index].source) & (target <= shapes[index].target)] = index
    return buckets


def holding(source: np.ndarray, target: np.ndarray, config: BatchConfig) -> Shape:
    """One shape that holds all of these lengths."""
    return _shape(int(_up(source).max()), int(_up(target).max()), config)


def in_order(shapes: Iterable[Shape]) -> tuple[Shape, ...]:
    """From small to large, so that the first that fits wastes least."""
    return tuple(sorted(set(shapes), key=lambda shape: (shape.source + shape.target, shape)))


def _candidates(lengths: np.ndarray) -> list[int]:
    """Widths to consider: every multiple of ROUND that rounds a length, thinned by quantiles; the largest is in it."""
    widths = np.unique(_up(lengths))
    if len(widths) > CANDIDATES:
        widths = np.unique(_up(np.quantile(lengths, np.linspace(0, 1, CANDIDATES), method="higher")))
    return widths.tolist()


def _shape(source: int, target: int, config: BatchConfig) -> Shape:
    return Shape(config.sentences or max(config.tokens // target // ROWS * ROWS, ROWS), source, target)


def _up(lengths: np.ndarray) -> np.ndarray:
    """Multiples of ROUND; a side that is 1 everywhere (a class, an image, no source) is no sequence and stays 1."""
    return lengths if lengths.max() == 1 else -(-lengths // ROUND) * ROUND
