"""Scales and ticks of charts: from numbers to places, and which numbers stand at an axis."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

MARGIN = 0.06  # of the range, on each side


class Scale(NamedTuple):
    """From numbers to places on the page."""

    place: Callable[[float], float]
    ticks: Sequence[float]


def scale(values: Sequence[float], first: float, last: float, *, log: bool, zero: bool, ticks: int) -> Scale:
    """The scale on which these values lie between two places, with about so many ticks.

    log: only the positive values count; others lie at its low end. zero: is on it.
    """
    if log:
        return _logarithmic([value for value in values if value > 0] or [1.0], first, last, ticks)
    low, high = min([*values, *[0.0] * zero]), max([*values, *[0.0] * zero])
    margin = MARGIN * (high - low) or abs(high) or 1.0
    ends = zero and low != high  # zero itself may end the axis
    low, high = (low - margin * (low != 0 or not ends)), (high + margin * (high != 0 or not ends))

    def place(value: float) -> float:
        return first + (value - low) / (high - low) * (last - first)

    return Scale(place, linear_ticks(low, high, ticks))


def _logarithmic(values: Sequence[float], first: float, last: float, ticks: int) -> Scale:
    low, high = math.log(min(values)), math.log(max(values))
    margin = MARGIN * (high - low) or 0.15
    low, high = low - margin, high + margin

    def place(value: float) -> float:
        share = (math.log(value) - low) / (high - low) if value > 0 else 0.0
        return first + min(max(share, 0.0), 1.0) * (last - first)

    return Scale(place, log_ticks(math.exp(low), math.exp(high), ticks))


def linear_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers in the range."""
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= 0.8 * rough)
    first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
    return [round(number * step, 12) for number in range(first, last + 1)]


def log_ticks(low: float, high: float, count: int) -> list[float]:
    """1, 2 and 5 times powers of ten inside the range; fewer where those are too many, round ones where too few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for factors, every in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3)):
        found = [factor * 10.0**power for power in powers if power % every == 0 for factor in factors]
        found = [tick for tick in found if low <= tick <= high]
        if len(found) <= count:
            break
    return found if len(found) > 2 else linear_ticks(low, high, count)


def number(value: float) -> str:
    """A number at an axis."""
    if value == 0:
        return "0"
    if abs(value) >= 10_000:
        return f"{value / 1000:,g}k"
    return f"{value:,.6g}".replace("-", "−")
