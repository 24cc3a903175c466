"""The rule for a claim's verdict, the intervals over seeds, the table of claims."""

import math

import numpy as np
import pytest
from scipy import stats

from experiments.core.claims import (
    DIRECTION,
    FAILED,
    NOT_RUN,
    REPRODUCED,
    VERDICTS,
    Claim,
    section,
    summary,
    together,
    verdict,
    weakest,
    welch,
)


@pytest.mark.parametrize(
    "effect, interval, threshold, expected",
    [
        (0.1, (0.02, 0.2), None, REPRODUCED),
        (0.1, (-0.02, 0.2), None, DIRECTION),
        (0.1, (0.0, 0.2), None, DIRECTION),  # an interval that touches zero does not exclude it
        (0.1, None, None, DIRECTION),
        (0.0, (0.0, 0.0), None, FAILED),
        (-0.1, (-0.2, -0.02), None, FAILED),
        (-0.1, (-0.3, 0.1), None, FAILED),
        (-0.1, (0.01, 0.1), None, FAILED),  # an interval alone reproduces nothing
        (None, None, None, NOT_RUN),
        (math.nan, (0.1, 0.2), None, NOT_RUN),
        (2.0, None, 2.0, REPRODUCED),
        (1.9, None, 2.0, DIRECTION),
        (1.9, (1.0, 3.0), 2.0, DIRECTION),  # a threshold is stricter than "more than nothing"
        (-0.1, None, 2.0, FAILED),
        (-0.1, None, -0.2, REPRODUCED),  # "about the same": a threshold below zero
        (None, None, 2.0, NOT_RUN),
    ],
)
def test_the_rule(effect, interval, threshold, expected):
    assert verdict(effect, interval, threshold) == expected


def test_the_weakest_part_decides():
    assert weakest(VERDICTS) == FAILED and weakest([REPRODUCED] * 3) == REPRODUCED
    assert weakest([REPRODUCED, DIRECTION]) == DIRECTION
    assert weakest([REPRODUCED, NOT_RUN, DIRECTION]) == NOT_RUN
    assert weakest([NOT_RUN, FAILED]) == FAILED, "what failed failed, whatever else could not be measured"


def test_two_reasons_to_be_uncertain_add_in_squares():
    assert together(1.0, (-2.0, 5.0), (-3.0, 4.0)) == pytest.approx((1 - 5, 1 + 5))
    assert together(1.0, (1.0, 1.0), (0.5, 2.0)) == pytest.approx((0.5, 2.0))
    assert together(1.0, None, (0.5, 2.0)) is None and together(1.0, (0.5, 2.0), None) is None


def test_together_they_cover_what_they_should():
    """Means over seeds on one set of examples: seeds and examples both are draws; the true difference is zero."""
    draw, covered, rounds = np.random.default_rng(0), 0, 400
    for _ in range(rounds):
        noise = draw.normal(scale=1.0, size=(2, 200))  # of the examples, the same for every seed
        sides = [noise[side].mean() + draw.normal(scale=0.1, size=5) for side in (0, 1)]
        size = sides[0].mean() - sides[1].mean()
        reach = 1.96 * math.sqrt(2 / 200)
        low, high = together(size, welch(*map(list, sides)), (size - reach, size + reach))
        covered += low <= 0 <= high
    assert covered / rounds == pytest.approx(0.95, abs=0.03)


def test_welch_is_that_of_scipy():
    draw = np.random.default_rng(0)
    for counts in ((3, 3), (2, 5), (10, 4)):
        first, second = draw.normal(1, 2, counts[0]), draw.normal(0, 0.3, counts[1])
        expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
        assert welch(list(first), list(second)) == pytest.approx((expected.low, expected.high))


def test_welch_of_too_few_and_of_equal_values():
    assert welch([1.0], [1.0, 2.0]) is None and welch([1.0, 2.0], []) is None
    assert welch([3.0, 3.0], [1.0, 1.0]) == (2.0, 2.0)
    low, high = welch([3.0, 3.0], [1.0, 2.0])
    assert low < 1.5 < high


def test_the_table_and_the_summary():
    claims = [
        Claim("A", "beats B", "0.9 against 0.8", "0.95 against 0.90 (+0.05)", 3, (0.04, 0.06), REPRODUCED),
        Claim("A", "beats C", "", "", 0, None, NOT_RUN),
    ]
    head, (first, second), *_ = section(claims).table
    assert head[:2] == ["about", "claim"] and head[-1] == "verdict"
    assert first[2:] == ["0.9 against 0.8", "0.95 against 0.90 (+0.05)", "3", "[+0.0400, +0.0600]", REPRODUCED]
    assert second[2:] == ["–", "–", "–", "–", NOT_RUN]
    assert summary(claims) == "2 claims: 1 reproduced, 1 not run"
    assert str(claims[0]) == "reproduced: A: beats B (0.95 against 0.90 (+0.05))"
    assert str(claims[1]) == "not run: A: beats C"
