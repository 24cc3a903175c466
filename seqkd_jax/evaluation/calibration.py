"""Calibration of a model's confidence: expected calibration error, reliability diagrams. NumPy only.

Works on what any classifier gives: the probability of its decision and whether the decision was right. Language models
are classifiers with one example a token. Studies call it on validation sets; it knows nothing of models.

Bins are equal in width over [0, 1]. Edges: bin i of n holds i/n <= confidence < (i+1)/n, and the last one holds 1
as well, as in `tfp.stats.expected_calibration_error`.
"""

import numpy as np
from jaxtyping import Bool, Float

from seqkd_jax.types import UserError

BINS = 20
# What Abnar et al. 2020 used: their logs match it. Almost every example then has a bin of its own, and the error is
# about the mean of |right or wrong - confidence|. To be read beside published numbers only.
ORIGINAL_BINS = 1_000_000
ROUNDING = 1e-5  # by which a probability in float32 may leave [0, 1]


def expected_calibration_error(
    confidence: Float[np.ndarray, "N"], correct: Bool[np.ndarray, "N"], bins: int = BINS
) -> float:
    """The mean over examples of |accuracy - mean confidence| of the bin that each is in (Guo et al. 2017, eq. 3)."""
    _, n, summed, right = _occupied(confidence, correct, bins)
    return float(np.abs(right - summed).sum() / n.sum())


def reliability(
    confidence: Float[np.ndarray, "N"], correct: Bool[np.ndarray, "N"], bins: int = BINS
) -> list[dict[str, float | int | None]]:
    """Every bin from low to high: its edges, its examples, their mean confidence and accuracy (None without any)."""
    rows = [
        {"low": i / bins, "high": (i + 1) / bins, "n": 0, "confidence": None, "accuracy": None} for i in range(bins)
    ]
    for i, n, summed, right in zip(*_occupied(confidence, correct, bins), strict=True):
        rows[i] |= {"n": int(n), "confidence": float(summed / n), "accuracy": float(right / n)}
    return rows


def _occupied(confidence, correct, bins: int):
    # (index, examples, summed confidence, right decisions) of the bins that hold an example: work and memory follow the
    # number of examples, not a million bins.
    if bins < 1:
        raise UserError(f"calibration: bins is {bins}: it must be at least 1")
    if confidence.size == 0:
        raise UserError("calibration: no examples; at least one is needed")
    bad = ~((confidence >= -ROUNDING) & (confidence <= 1 + ROUNDING))  # true for NaN, too
    if bad.any():
        row = int(bad.argmax())
        raise UserError(f"calibration: the confidence of example {row} is {confidence[row]}: give probabilities")
    confidence = np.clip(confidence.astype(np.float64), 0.0, 1.0)
    bin_of = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    occupied, position, n = np.unique(bin_of, return_inverse=True, return_counts=True)
    summed = np.bincount(position, weights=confidence)
    right = np.bincount(position, weights=correct)
    return occupied, n, summed, right
