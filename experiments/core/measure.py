"""Time and what may be said of it: systems take turns, intervals assume no distribution, ratios are paired by round.

Each round runs every system once on the same work, in an order drawn from the seed, so that what slows the machine for
a while slows them alike. Intervals are those of order statistics: k and n+1-k of the sorted values, with the largest k
for which the binomial distribution promises the level. Fewer than 6 rounds promise nothing at 95%: no interval then.
"""

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

LEVEL = 0.95
PAUSE = 0.25  # seconds before each run: OpenMP's threads go on spinning for 0.2 s after their work


class Interval(NamedTuple):
    """A median and between what the median of endless rounds lies, with at least 95% confidence."""

    median: float
    low: float | None  # None: too few values
    high: float | None


class Timed(NamedTuple):
    """One run of a system over all of its jobs."""

    seconds: list[float]  # of each job
    outputs: list[Any]  # of each job


def time_jobs(run: Callable[[Any], Any], jobs: Sequence[Any]) -> Timed:
    """Run the jobs one after the other; a job ends when its output is on the host."""
    seconds, outputs = [], []
    for job in jobs:
        start = time.perf_counter()
        outputs.append(run(job))
        seconds.append(time.perf_counter() - start)
    return Timed(seconds, outputs)


def interleave(
    runs: Mapping[str, Callable[[], Timed]],
    rounds: int,
    seed: int,
    advance: Callable[[int], object] = lambda n: None,
    pause: float = PAUSE,
) -> dict[str, list[Timed]]:
    """Every run once a round, in an order shuffled by (seed, round); name -> one Timed for each round.

    What must happen before the clock starts (compilation, warm-up) is the caller's. advance is told of each run.
    """
    found: dict[str, list[Timed]] = {name: [] for name in runs}
    for number in range(rounds):
        order = list(runs)
        random.Random(f"{seed} {number}").shuffle(order)
        for name in order:
            time.sleep(pause)
            found[name].append(runs[name]())
            advance(1)
    return found


def interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """The median of the values and its interval by order statistics."""
    ordered, n, median = sorted(values), len(values), statistics.median(values)
    outside = 0.0  # the probability that the true median lies below the k-th smallest value
    for k in range(n // 2 + 1):
        outside += math.comb(n, k) / 2**n
        if 2 * outside > 1 - level:
            break
    return Interval(median, ordered[k - 1], ordered[n - k]) if k else Interval(median, None, None)


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Interval:
    """The interval of a ratio, paired by round."""
    return interval([above / below for above, below in zip(numerators, denominators, strict=True)])


def differs_from_one(found: Interval) -> bool:
    """Whether a ratio may be printed as a speed-up (or a slow-down)."""
    return found.low is not None and (found.low > 1 or found.high < 1)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values do not exceed (the nearest rank)."""
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The b of seconds = a * size^b, by least squares of the logarithms: 1 is linear growth."""
    return statistics.linear_regression([math.log(x) for x in sizes], [math.log(y) for y in seconds]).slope
