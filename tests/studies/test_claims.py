"""The rule for a claim's verdict, claims of several parts, Holm's correction, the table of claims."""

import math

import pytest

from experiments.core.claims import (
    CONTRADICTED,
    DEMONSTRATION,
    INCONCLUSIVE,
    NOT_RUN,
    REPRODUCED,
    Claim,
    Part,
    corrected,
    is_demonstration,
    judged,
    section,
    summary,
    verdict,
)
from experiments.core.intervals import Estimate


@pytest.mark.parametrize(
    "estimate, expected",
    [
        (Estimate(0.1, (0.02, 0.2), 0.01), REPRODUCED),
        (Estimate(0.1, (-0.02, 0.2), 0.1), INCONCLUSIVE),
        (Estimate(0.1, (0.0, 0.2), 0.05), INCONCLUSIVE),  # an interval that touches zero holds it
        (Estimate(0.1), INCONCLUSIVE),  # of a single seed
        (Estimate(-0.1), INCONCLUSIVE),
        (Estimate(0.0, (0.0, 0.0), 1.0), INCONCLUSIVE),
        (Estimate(-0.1, (-0.3, 0.1), 0.3), INCONCLUSIVE),
        (Estimate(-0.1, (-0.2, -0.02), 0.01), CONTRADICTED),
        (None, NOT_RUN),
        (Estimate(math.nan, (0.1, 0.2), 0.01), NOT_RUN),
    ],
)
def test_the_rule(estimate, expected):
    assert verdict(estimate) == expected
    claim = judged("A", "beats B", [Part(estimate, "numbers", 3)])
    assert (claim.verdict, claim.measured) == (expected, "numbers")
    if expected != NOT_RUN:
        assert (claim.effect, claim.interval, claim.p) == tuple(estimate)


GOOD, BETTER = Estimate(0.2, (0.1, 0.3), 0.001), Estimate(9.0, (8.0, 10.0), 1e-6)
UNSURE, BAD = Estimate(0.1, (-0.1, 0.3), 0.3), Estimate(-0.1, (-0.19, -0.01), 0.03)


@pytest.mark.parametrize(
    "estimates, expected, place",
    [
        ([BETTER, GOOD], REPRODUCED, 1),
        ([GOOD, UNSURE, BETTER], INCONCLUSIVE, 1),
        ([GOOD, Estimate(5.0)], INCONCLUSIVE, 1),  # one part without an interval
        ([GOOD, None, UNSURE], NOT_RUN, 1),
        ([BAD], CONTRADICTED, 0),
        ([GOOD, BAD], INCONCLUSIVE, 1),  # two chances to find a part of p = 0.03
        ([GOOD, BAD._replace(p=0.02)], CONTRADICTED, 1),
        ([None, BAD._replace(p=0.02)], CONTRADICTED, 1),  # whatever else could not be measured
    ],
)
def test_the_part_that_decides_is_shown(estimates, expected, place):
    parts = [Part(one, f"part {i}", 3, f"printed {i}", (1.0,)) for i, one in enumerate(estimates)]
    claim = judged("A", "beats B", parts)
    assert claim.verdict == expected and claim.measured.endswith(f"part {place}")
    if expected != NOT_RUN:
        assert claim.published.endswith(f"printed {place}") and claim.effect == estimates[place].size


def test_p_of_several_parts():
    """Of a claim that all hold the largest; against it the smallest, times their number."""
    assert judged("A", "", [Part(GOOD), Part(BETTER)]).p == 0.001
    assert judged("A", "", [Part(GOOD), Part(BAD)]).p == pytest.approx(0.06)
    assert judged("A", "", [Part(GOOD), Part(Estimate(1.0))]).p is None


def test_whether_the_paper_s_own_effects_lie_in_the_interval():
    parts = [Part(GOOD, printed="+0.2 / +0.5", published=(0.2, 0.5))]
    assert judged("A", "", parts).published_inside == "yes / no"
    assert judged("A", "", [Part(Estimate(0.2), published=(0.2,))]).published_inside == "", "there is no interval"
    assert judged("A", "", [Part(GOOD)]).published_inside == "", "there is no number"


def test_holms_correction_by_hand():
    claims = [Claim("A", str(p), p=p) for p in (0.01, None, 0.04, 0.012, 0.9)]
    found = [claim.p_holm for claim in corrected(claims)]
    assert found[1] is None and found == [pytest.approx(p) if p else None for p in (0.04, None, 0.08, 0.04, 0.9)]
    assert corrected([Claim("A", "", p=0.6), Claim("A", "", p=0.7)])[0].p_holm == 1.0
    assert corrected([]) == [] and corrected(claims)[0].verdict == claims[0].verdict


def test_the_table_and_the_summary():
    claims = [
        Claim(
            "A", "beats B", "0.9 against 0.8", "0.95 against 0.9", 0.05, (0.04, 0.06), 3, 1e-4, 2e-4, REPRODUCED, "no"
        ),
        Claim("A", "beats D", "", "", -3.0, (-5.0, -1.0), 2, 0.03, 0.06, CONTRADICTED),
        Claim("A", "beats C"),
    ]
    head, (first, second, third), _, notes = section(claims).table
    assert head[:2] == ["about", "claim"] and head[-1] == "verdict"
    shown = ["0.9 against 0.8", "0.95 against 0.9", "3", "+0.0500 [+0.0400, +0.0600]", "no", "< 0.001", "< 0.001"]
    assert first[2:] == [*shown, REPRODUCED]
    assert second[2:] == ["–", "–", "2", "-3.00 [-5.00, -1.00]", "–", "0.030", "0.060", CONTRADICTED]
    assert third[2:] == [*["–"] * 7, NOT_RUN]
    told = "3 claims: 1 reproduced, 1 contradicted, 1 not run"
    assert summary(claims) == f"{told}; after Holm's correction for their number 1 reproduced and 0 contradicted"
    assert summary(claims[2:]) == "1 claims: 1 not run"
    assert str(claims[0]) == "reproduced: A: beats B (0.95 against 0.9)" and str(claims[2]) == "not run: A: beats C"
    assert not any(DEMONSTRATION in note for note in notes)


def test_the_toy_scale_is_a_demonstration():
    assert is_demonstration({"scale": "smoke"}) and not is_demonstration({"scale": "multi30k"})
    shown = section([], demonstration=True)
    assert "a demonstration" in shown.title and DEMONSTRATION in shown.table.notes[0]
