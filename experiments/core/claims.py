"""What a paper says beside what was measured: one form of claim, one rule for its verdict, one table.

A study lists its claims as data and measures each on its results; here stands what such a measurement amounts to.
Nothing is tuned and no result is left out: a claim that fails is reported as that. The rule, for an effect that is
positive where the paper is right:

  reproduced      its 95% interval lies above zero; where a study states a threshold, the effect reaches that
  direction only  it is positive, but its interval holds zero, or there is none, or the threshold is not reached
  not reproduced  it is zero or of the other sign
  not run         it could not be measured: an arm is missing or has no seed left, or what the claim presupposes does
                  not hold here (that a teacher is better than its student alone)

A claim of several parts has the verdict of the weakest, so its parts need no correction for their number; one part that
fails is enough to fail it, whatever could not be measured.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from experiments.core.tables import Section, Table

REPRODUCED, DIRECTION, FAILED, NOT_RUN = "reproduced", "direction only", "not reproduced", "not run"
VERDICTS = (REPRODUCED, DIRECTION, FAILED, NOT_RUN)  # in the order in which they are told
WEAKER = (REPRODUCED, DIRECTION, NOT_RUN, FAILED)  # from the best to the weakest
RULE = (
    "reproduced: the 95% interval of the effect lies on the claimed side of zero, or the stated threshold is reached",
    "direction only: the effect has the claimed sign, but no more; not run: an arm is missing, or a premise fails",
)

Interval = tuple[float, float] | None  # its ends


class Claim(NamedTuple):
    """One claim about one model or arm."""

    about: str  # the model or arm that it concerns
    text: str
    published: str  # as printed, "" if no number is known
    measured: str
    seeds: int  # on each side; the smaller number where they differ
    interval: Interval  # 95%, of the difference that `measured` shows
    verdict: str

    def __str__(self) -> str:
        measured = f" ({self.measured})" if self.measured else ""
        return f"{self.verdict}: {self.about}: {self.text}{measured}"


def verdict(effect: float | None, interval: Interval = None, threshold: float | None = None) -> str:
    """What an effect amounts to that is positive where the claim is right; None or NaN: it was not measured."""
    if effect is None or math.isnan(effect):
        return NOT_RUN
    above = effect > 0 and interval is not None and interval[0] > 0
    sure = above if threshold is None else effect >= threshold
    return REPRODUCED if sure else DIRECTION if effect > 0 else FAILED


def weakest(verdicts: Iterable[str]) -> str:
    """The verdict of a claim from those of its parts."""
    return max(verdicts, key=WEAKER.index)


def together(size: float, first: Interval, second: Interval) -> Interval:
    """The 95% interval of a difference that is uncertain for two independent reasons, such as which examples were
    tested and which seeds were trained: on each side their reaches add in squares. None if one is not known.
    """
    if first is None or second is None:
        return None
    below, above = (math.hypot(size - first[0], size - second[0]), math.hypot(first[1] - size, second[1] - size))
    return size - below, size + above


def welch(first: Sequence[float], second: Sequence[float]) -> Interval:
    """95% interval of mean(first) - mean(second) by Welch's t; None if a side has fewer than two values."""
    from scipy import stats

    if min(len(first), len(second)) < 2:
        return None
    means, variances = zip(*(_mean_and_variance(values) for values in (first, second)), strict=True)
    shares = [variance / len(values) for variance, values in zip(variances, (first, second), strict=True)]
    difference, total = means[0] - means[1], sum(shares)
    if total == 0:
        return difference, difference
    freedom = total**2 / sum(share**2 / (len(v) - 1) for share, v in zip(shares, (first, second), strict=True))
    reach = float(stats.t.ppf(0.975, freedom)) * math.sqrt(total)
    return difference - reach, difference + reach


def _mean_and_variance(values: Sequence[float]) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    return mean, math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def section(claims: Sequence[Claim]) -> Section:
    """The claims as a table, and how many have which verdict."""
    head = ["about", "claim", "paper", "here", "seeds", "95% interval", "verdict"]
    rows = [
        [claim.about, claim.text, claim.published or "–", claim.measured or "–", _seeds(claim), _interval(claim)]
        + [claim.verdict]
        for claim in claims
    ]
    return Section("Claims of the paper", table=Table(head, rows, len(head), (f"{summary(claims)}.", *RULE)))


def summary(claims: Sequence[Claim]) -> str:
    """How many claims have which verdict, in one line."""
    counts = {name: sum(claim.verdict == name for claim in claims) for name in VERDICTS}
    return f"{len(claims)} claims: " + ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _seeds(claim: Claim) -> str:
    return str(claim.seeds) if claim.seeds else "–"


def _interval(claim: Claim) -> str:
    if claim.interval is None:
        return "–"
    digits = 2 if max(map(abs, claim.interval)) >= 1 else 4
    return "[" + ", ".join(f"{end:+.{digits}f}" for end in claim.interval) + "]"
