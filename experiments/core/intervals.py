"""95% intervals of a difference between two arms, over both things that were drawn: seeds, and test examples.

Of seeds there are a few: theirs is Student's t, with Welch's degrees of freedom, since a bootstrap of three to five
values is too narrow. Of examples there are many: theirs is a bootstrap, in which an example is drawn for all seeds of
both arms at once. Their reaches are added in squares on each side (Howe 1974; Zou & Donner 2008), each with a quantile
of its own, so that the level holds where one arm varies far more over seeds than the other. Both measure the
interaction of seed and example, so where that is known it is counted once. `docs/decisions.md` has the coverage, and
that of other intervals.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

Interval = tuple[float, float] | None  # its ends; None: unknown
NORMAL = 1.959964  # the 97.5% quantile
LEAST_P = 1e-12  # less is not told apart


class Spread(NamedTuple):
    """The variance of a difference of two means, and the degrees of freedom with which it is known."""

    variance: float
    freedom: float


class Estimate(NamedTuple):
    """A difference, with what else other seeds and examples could have given."""

    size: float
    interval: Interval = None  # 95%; None where the seeds are too few
    p: float | None = None  # two-sided, of a difference of zero; None without an interval


def of_seeds(first: Sequence[float], second: Sequence[float] | None = None) -> Spread | None:
    """Of mean(first) - mean(second), one value a seed; second None: of mean(first). None: a side has one value."""
    sides = [first] if second is None else [first, second]
    if min(map(len, sides)) < 2:
        return None
    parts = [(_variance(values) / len(values), len(values) - 1) for values in sides]
    total = math.fsum(part for part, _ in parts)
    squares = math.fsum(part**2 / freedom for part, freedom in parts)
    return Spread(total, total**2 / squares if squares else math.inf)


def estimate(size: float, seeds: Spread | None, examples: Interval = None, shared: float = 0.0) -> Estimate:
    """A difference and its interval. examples: the bootstrap's 95% interval, of the same difference.

    shared: the part of the variance that seeds and examples both have. Each side has a reach of its own, since the
    bootstrap's interval need not be symmetric; p is that at which the interval touches zero. No interval, either, where
    all seeds have one value and nothing is known of examples: that two seeds agree to the digit is chance, as with
    shares of a few hundred sentences, and no certainty.
    """
    low, high = examples or (size, size)
    if seeds is None or seeds.variance == 0 and low == high:
        return Estimate(size)
    errors = [max(0.0, reach) / NORMAL for reach in (size - low, high - size)]
    below, above = (_reach(0.05, seeds, error, shared) for error in errors)
    towards_zero = errors[0] if size > 0 else errors[1]
    return Estimate(size, (size - below, size + above), _p_value(abs(size), seeds, towards_zero, shared))


class Parts(NamedTuple):
    """What `estimate` puts together."""

    size: float
    seeds: Spread | None
    examples: Interval = None
    shared: float = 0.0


def between(first: Parts, second: Parts) -> Estimate:
    """first - second, two differences with neither seeds nor examples in common."""
    size = first.size - second.size
    if first.seeds is None or second.seeds is None:
        return estimate(size, None)
    squares = math.fsum(spread.variance**2 / spread.freedom for spread in (first.seeds, second.seeds))
    variance = first.seeds.variance + second.seeds.variance
    seeds = Spread(variance, variance**2 / squares if squares else math.inf)
    (low, high), (other_low, other_high) = (of.examples or (of.size, of.size) for of in (first, second))
    below = math.hypot(first.size - low, other_high - second.size)
    above = math.hypot(high - first.size, second.size - other_low)
    return estimate(size, seeds, (size - below, size + above), first.shared + second.shared)


def welch(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Of mean(first) - mean(second), over seeds alone: Welch's t."""
    return estimate(mean(first) - mean(second), of_seeds(first, second))


def detectable(interval: Interval, seeds: int) -> float | None:
    """The difference that is found, its interval without zero, in 80% of runs like that which has this one, about.

    Student's t of 2 (seeds - 1) degrees of freedom stands for the interval's own: the factor on the half width is 1.34
    with 3 seeds a side, 1.39 with 5, 1.43 with many. None without an interval.
    """
    from scipy import special

    if interval is None or seeds < 2:
        return None
    outer, inner = (float(special.stdtrit(2 * (seeds - 1), share)) for share in (0.975, 0.8))
    return (interval[1] - interval[0]) / 2 * (1 + inner / outer)


def _reach(outside: float, seeds: Spread, error: float, shared: float) -> float:
    """How far the interval reaches that leaves out a share of `outside`, half of it on each side.

    shared cannot be known so well that less than either part alone would be left.
    """
    from scipy import special

    normal = float(special.ndtri(outside / 2)) ** 2
    student = float(special.stdtrit(seeds.freedom, outside / 2)) ** 2 if math.isfinite(seeds.freedom) else normal
    of_seeds, of_examples = student * seeds.variance, normal * error**2
    return math.sqrt(max(of_seeds + of_examples - normal * shared, of_seeds, of_examples))


def _p_value(size: float, seeds: Spread, error: float, shared: float) -> float:
    """The share `outside` at which the interval reaches just so far."""
    low, high = LEAST_P, 1.0
    if _reach(low, seeds, error, shared) <= size:
        return low if size else 1.0
    while high > low * (1 + 1e-9):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if _reach(middle, seeds, error, shared) > size else (low, middle)
    return high


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    return math.fsum((value - mean(values)) ** 2 for value in values) / (len(values) - 1)
