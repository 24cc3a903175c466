"""Calibration against the definition in a loop, and against numbers worked by hand."""

import time

import numpy as np
import pytest

from seqkd_jax.evaluation import calibration
from seqkd_jax.evaluation.calibration import ORIGINAL_BINS, expected_calibration_error, reliability
from seqkd_jax.types import UserError


def example(seed=0, examples=500):
    random = np.random.default_rng(seed)
    confidence = random.uniform(0.3, 1.0, examples)
    return confidence, random.random(examples) < confidence**2


def slow(confidence, correct, bins):
    """Guo et al. 2017, eq. 3, one bin after the other: [(edges, members' confidence, members' correctness)]."""
    found = []
    for i in range(bins):
        low, high = i / bins, (i + 1) / bins
        inside = (confidence >= low) & ((confidence < high) | (i == bins - 1))
        found.append((low, high, confidence[inside], correct[inside]))
    return found


@pytest.mark.parametrize("bins", [1, 2, 16, 20, 1000])
def test_error_is_the_definition(bins):
    confidence, correct = example()
    expected = sum(
        len(members) / len(confidence) * abs(right.mean() - members.mean())
        for _, _, members, right in slow(confidence, correct, bins)
        if len(members)
    )
    assert expected_calibration_error(confidence, correct, bins) == pytest.approx(expected, rel=1e-12)


def test_error_worked_by_hand():
    confidence = np.array([0.55, 0.65, 0.95, 0.95])
    correct = np.array([True, False, True, True])
    # Two bins: all in the upper one. Ten: bins of one, one and two.
    assert expected_calibration_error(confidence, correct, 2) == pytest.approx(abs(0.75 - 0.775))
    assert expected_calibration_error(confidence, correct, 10) == pytest.approx((0.45 + 0.65 + 2 * 0.05) / 4)


def test_a_million_bins_are_quick_and_give_every_example_its_own():
    random = np.random.default_rng(1)
    confidence = (np.arange(200_000) * 5 + random.uniform(0.1, 0.9, 200_000)) / ORIGINAL_BINS
    correct = random.random(200_000) < 0.5
    start = time.process_time()
    found = expected_calibration_error(confidence, correct, ORIGINAL_BINS)
    assert time.process_time() - start < 1.0, "work must follow the examples, not the bins"
    assert found == pytest.approx(np.abs(correct - confidence).mean(), rel=1e-12)


def test_edges_belong_to_the_upper_bin_and_one_to_the_last():
    rows = reliability(np.array([0.0, 0.25, 0.5, 0.75, 1.0]), np.ones(5, bool), 4)
    assert [row["n"] for row in rows] == [1, 1, 1, 2], "a bin holds low <= confidence < high; the last holds 1, too"


def test_reliability_is_every_bin_and_sums_to_the_error():
    confidence, correct = example(2)
    rows = reliability(confidence, correct)
    assert len(rows) == 20 and rows[0]["n"] == 0, "no confidence is below 0.3: the first bins must be there, empty"
    for row, (low, high, members, right) in zip(rows, slow(confidence, correct, 20), strict=True):
        assert (row["low"], row["high"], row["n"]) == (low, high, len(members))
        if not row["n"]:
            assert row["confidence"] is None and row["accuracy"] is None
            continue
        assert (row["confidence"], row["accuracy"]) == (pytest.approx(members.mean()), pytest.approx(right.mean()))
    gaps = [row["n"] * abs(row["accuracy"] - row["confidence"]) for row in rows if row["n"]]
    assert sum(gaps) / len(confidence) == pytest.approx(expected_calibration_error(confidence, correct))


def test_a_calibrated_model_has_hardly_any_error():
    random = np.random.default_rng(3)
    confidence = random.uniform(0.5, 1.0, 200_000)
    correct = random.random(200_000) < confidence
    assert expected_calibration_error(confidence, correct) < 0.005
    assert expected_calibration_error(confidence, correct, ORIGINAL_BINS) > 0.2, "with a bin for each it cannot be seen"


def test_probabilities_that_float32_rounds_above_one_are_ones():
    assert reliability(np.array([1.0 + 1e-7]), np.array([True]))[-1]["n"] == 1


def test_bad_input_is_named():
    with pytest.raises(UserError, match="example 1 is nan"):
        expected_calibration_error(np.array([0.5, np.nan]), np.array([True, True]))
    with pytest.raises(UserError, match="example 0 is 1.5"):
        expected_calibration_error(np.array([1.5]), np.array([True]))
    with pytest.raises(UserError, match="no examples"):
        expected_calibration_error(np.zeros(0), np.zeros(0, bool))
    with pytest.raises(UserError, match="bins is 0"):
        expected_calibration_error(np.array([0.5]), np.array([True]), 0)
    assert calibration.BINS == 20
