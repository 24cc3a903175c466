"""The statistics of benchmarks, by hand."""

import random

import pytest

from experiments.core import measure, report


def test_an_interval_is_that_of_order_statistics():
    """n = 11: the 2nd and the 10th value hold the median with probability 1 - 2 * 12 / 2048 = 98.8%."""
    found = measure.interval([5, 3, 8, 1, 9, 2, 7, 4, 6, 11, 10])
    assert found == (6, 2, 10)
    assert measure.interval([3, 1, 2, 6, 4, 5]) == (3.5, 1, 6), "6 values: 1 - 2 / 64 = 96.9%"
    assert measure.interval([1, 2, 3, 4, 5]) == (3, None, None), "5 values promise 93.75%, less than 95%"


def test_an_interval_holds_the_median_as_often_as_it_says():
    draw = random.Random(0)
    held = 0
    for _ in range(2000):
        found = measure.interval([draw.expovariate(1.0) for _ in range(9)])
        held += found.low <= 0.6931 <= found.high
    assert held / 2000 > 0.95, "the interval must cover the true median (ln 2) in at least 95% of experiments"


def test_ratios_are_paired_by_round():
    slow_rounds = [1.0, 10.0, 2.0, 7.0, 1.0, 3.0, 30.0]
    found = measure.ratio([2.0 * seconds for seconds in slow_rounds], slow_rounds)
    assert found == (2.0, 2.0, 2.0)
    assert measure.differs_from_one(found)
    assert not measure.differs_from_one(measure.Interval(1.1, 0.9, 1.3))
    assert not measure.differs_from_one(measure.Interval(3.0, None, None)), "too few rounds say nothing"


def test_a_speed_up_is_printed_only_where_it_is_shown():
    as_dict = lambda *numbers: measure.Interval(*numbers)._asdict()  # noqa: E731
    assert report.speed_up(as_dict(1.5, 1.2, 1.7)) == "1.50× [1.20, 1.70]"
    assert report.speed_up(as_dict(1.2, 0.9, 1.3)) == "no difference shown [0.90, 1.30]"
    assert report.speed_up(as_dict(1.2, None, None)) == "too few rounds"


def test_systems_take_turns_in_an_order_of_the_seed():
    said = []
    runs = {name: lambda name=name: said.append(name) for name in "abcd"}
    measure.interleave(runs, rounds=20, seed=1, pause=0)
    rounds = [tuple(said[first : first + 4]) for first in range(0, 80, 4)]
    assert all(sorted(order) == list("abcd") for order in rounds), "each once a round"
    assert len(set(rounds)) > 5, "the order must change"
    again, said[:] = list(said), []
    measure.interleave(runs, rounds=20, seed=1, pause=0)
    assert said == again


def test_quantiles_and_exponents():
    assert [measure.quantile(range(1, 21), share) for share in (0.5, 0.95, 1.0)] == [10, 19, 20]
    assert measure.quantile([7.0], 0.95) == 7.0
    assert measure.exponent([8, 16, 32], [3 * 8**1.5, 3 * 16**1.5, 3 * 32**1.5]) == pytest.approx(1.5)
