"""What a paper says beside what was measured: one form of claim, one rule for its verdict, one table.

A study lists its claims as data and measures each on its results; here stands what such a measurement amounts to.
Nothing is tuned and no result is left out: a claim that fails is reported as that. An effect is positive where the
paper is right; of a claim with a threshold ("several times") it is how far beyond the threshold the results are. Its
95% interval is over seeds, and over test examples too where that is known (`intervals`).

  reproduced    the interval lies above zero
  contradicted  the interval lies below zero
  inconclusive  the interval holds zero, or there is none: a single seed says nothing of another training
  not run       it could not be measured: an arm is missing or has no seed left, or what the claim presupposes does not
                hold here (that a teacher is better than its student alone)

A claim of several parts is reproduced if each part is, which needs no correction for their number. It is contradicted
if one part is, at a level divided by the number of parts. Verdicts are of each claim alone. Beside them stand p and
what Holm's correction makes of it among all claims of a results.json: it tells which verdicts hold together.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from experiments.core.intervals import Estimate, Interval
from experiments.core.tables import Section, Table

REPRODUCED, CONTRADICTED, INCONCLUSIVE, NOT_RUN = "reproduced", "contradicted", "inconclusive", "not run"
VERDICTS = (REPRODUCED, CONTRADICTED, INCONCLUSIVE, NOT_RUN)  # in the order in which they are told
LEVEL = 0.05
RULE = (
    "effect: positive where the paper is right; of a ratio, the logarithm; of a claim with a threshold, how far beyond "
    "that; in it: whether the paper's own effect lies in the interval; seeds: of the side that has fewer",
    "reproduced: the 95% interval of the effect lies above zero; contradicted: below zero; inconclusive: it holds "
    "zero, or there is none (–), as of a single seed; not run: an arm is missing, or a premise fails",
    "p: two-sided, of no effect; Holm: corrected for the number of claims of this table that have one",
)
DEMONSTRATION = (
    "a demonstration: the toy scale's settings were chosen in sight of the effect; its verdicts do not count"
)


class Claim(NamedTuple):
    """One claim about one model or arm."""

    about: str  # the model or arm that it concerns
    text: str
    published: str = ""  # as printed, "" if no number is known
    measured: str = ""  # the numbers behind the effect, or why there are none
    effect: float | None = None  # positive where the paper is right
    interval: Interval = None  # 95%, of the effect
    seeds: int = 0  # on each side; the smaller number where they differ
    p: float | None = None  # two-sided, of no effect
    p_holm: float | None = None
    verdict: str = NOT_RUN
    published_inside: str = ""  # "yes" or "no" for each published number; "" without numbers or interval

    def __str__(self) -> str:
        measured = f" ({self.measured})" if self.measured else ""
        return f"{self.verdict}: {self.about}: {self.text}{measured}"


class Part(NamedTuple):
    """One measured part of a claim."""

    estimate: Estimate | None  # None: it was not measured
    text: str = ""  # the numbers behind it, or why there are none
    seeds: int = 0
    printed: str = ""  # the paper's numbers
    published: Sequence[float] = ()  # the paper's effects of this part, one for each of its tables


def verdict(estimate: Estimate | None) -> str:
    """What an effect amounts to that is positive where the claim is right; None or NaN: it was not measured."""
    if estimate is None or math.isnan(estimate.size):
        return NOT_RUN
    low, high = estimate.interval or (0.0, 0.0)
    return REPRODUCED if low > 0 else CONTRADICTED if high < 0 else INCONCLUSIVE


def judged(about: str, text: str, parts: Sequence[Part]) -> Claim:
    """The claim that all parts are positive, shown by the part that decides. p is not corrected yet."""
    verdicts = [verdict(part.estimate) for part in parts]
    known = [part for part, found in zip(parts, verdicts, strict=True) if found != NOT_RUN]
    against = [part for part in known if part.estimate.interval and part.estimate.size < 0]
    worst = min(against, key=lambda part: part.estimate.p, default=None)
    p_worst = min(1.0, len(parts) * worst.estimate.p) if worst else None
    if worst and p_worst < LEVEL:
        return _shown(about, text, worst, len(parts), CONTRADICTED, p_worst)
    if len(known) < len(parts):
        why = next(part.text for part, found in zip(parts, verdicts, strict=True) if found == NOT_RUN)
        return Claim(about, text, _least(parts).printed, why)
    part = max(parts, key=_doubt)
    found = REPRODUCED if set(verdicts) == {REPRODUCED} else INCONCLUSIVE
    return _shown(about, text, part, len(parts), found, part.estimate.p if worst is None else p_worst)


def _shown(about: str, text: str, part: Part, parts: int, found: str, p: float | None) -> Claim:
    least, (size, interval, _) = "least: " if parts > 1 else "", part.estimate
    printed, measured = (least + told if told else "" for told in (part.printed, part.text))
    low, high = interval or (math.nan, math.nan)
    inside = ["yes" if low <= effect <= high else "no" for effect in part.published] if interval else []
    p = None if interval is None else p
    return Claim(about, text, printed, measured, size, interval, part.seeds, p, None, found, " / ".join(inside))


def _doubt(part: Part) -> tuple[bool, float]:
    """The larger, the less the part is shown: first without an interval, then by the one-sided p of a positive one."""
    size, interval, p = part.estimate
    if interval is None:
        return True, -size
    return False, p / 2 if size > 0 else 1 - p / 2


def _least(parts: Sequence[Part]) -> Part:
    known = [part for part in parts if part.published]
    return min(known, key=lambda part: min(part.published), default=Part(None))


def corrected(claims: Sequence[Claim]) -> list[Claim]:
    """The claims with Holm's p: the k-th smallest of the m that there are, times m - k + 1, and never falling."""
    ranked = sorted((claim.p, place) for place, claim in enumerate(claims) if claim.p is not None)
    found, highest = list(claims), 0.0
    for rank, (p, place) in enumerate(ranked):
        highest = max(highest, min(1.0, p * (len(ranked) - rank)))
        found[place] = claims[place]._replace(p_holm=highest)
    return found


def is_demonstration(results: dict) -> bool:
    """Whether results are of the toy scale, whose settings were chosen in sight of the effect."""
    return results["scale"] == "smoke"


def section(claims: Sequence[Claim], demonstration: bool = False) -> Section:
    """The claims as a table, and how many have which verdict."""
    head = ["about", "claim", "paper", "here", "seeds", "effect [95% interval]", "in it", "p", "Holm", "verdict"]
    rows = [
        [claim.about, claim.text, claim.published or "–", claim.measured or "–", str(claim.seeds or "–")]
        + [_effect(claim), claim.published_inside or "–", _p(claim.p), _p(claim.p_holm), claim.verdict]
        for claim in claims
    ]
    notes = ([f"{DEMONSTRATION}."] if demonstration else []) + [f"{summary(claims)}.", *RULE]
    title = "Claims of the paper" + (", a demonstration" if demonstration else "")
    return Section(title, table=Table(head, rows, len(head), notes))


def summary(claims: Sequence[Claim]) -> str:
    """How many claims have which verdict, and which of these hold after the correction, in one line."""
    counts = {name: sum(claim.verdict == name for claim in claims) for name in VERDICTS}
    told = f"{len(claims)} claims: " + ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    hold = [claim.verdict for claim in claims if claim.p_holm is not None and claim.p_holm < LEVEL]
    if counts[REPRODUCED] or counts[CONTRADICTED]:
        kept = [f"{hold.count(name)} {name}" for name in (REPRODUCED, CONTRADICTED) if counts[name]]
        told += f"; after Holm's correction for their number {' and '.join(kept)}"
    return told


def _effect(claim: Claim) -> str:
    if claim.effect is None:
        return "–"
    ends = claim.interval or ()
    digits = 2 if max(map(abs, (claim.effect, *ends))) >= 1 else 4
    interval = "[" + ", ".join(f"{end:+.{digits}f}" for end in ends) + "]" if ends else "–"
    return f"{claim.effect:+.{digits}f} {interval}"


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
