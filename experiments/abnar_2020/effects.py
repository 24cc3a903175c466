"""From the dict of results.json to effects: what `claims` measures, each positive where the paper is right.

An effect's interval is over seeds: Welch's t for differences of means, Fisher's F for a ratio of deviations, and
Welch's t on jackknife pseudo-values where pairs of models are compared, since pairs that share a model are not
independent. Where results["differences"] has a paired interval over test examples, which takes the models as given,
the two are put together: other seeds and other examples would both give other numbers. Arms that were never side by
side have an interval over examples that is wider than a paired one. With too few seeds there is
none, and the most that a claim can get is "direction only".
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from experiments.core.claims import Interval, together, welch

SIMILAR = 0.1  # "similar perplexity": the highest at most this share above the lowest


class Effect(NamedTuple):
    """One measured part of a claim."""

    size: float | None  # positive where the claim is right; None: an arm is missing or has no seed left
    interval: Interval
    seeds: int
    text: str
    sign: int = 1  # -1: `text` shows a difference that is negative where the claim is right
    missing: tuple[str, ...] = ()  # what a size could not be had without
    premise: str = ""  # what the claim presupposes and does not hold here


class Comparison(NamedTuple):
    """`first` is above `second` in a metric, or below with sign -1."""

    first: str
    second: str
    metric: str
    sign: int = 1


def values(results: dict, arm: str, metric: str) -> list[float]:
    """One number for each seed that was trained to the end."""
    metrics = next((one["metrics"] for one in results["arms"] if one["arm"] == arm), {})
    known = (metrics.get(metric) or {}).get("values") or ()
    return [value for value in known if value is not None and math.isfinite(value)]


def difference(results: dict, comparison: Comparison, named: bool = False) -> Effect:
    """The difference of two arms' means; named: its text says of which."""
    first, second, metric, sign = comparison
    ours, theirs = (values(results, arm, metric) for arm in (first, second))
    if not ours or not theirs:
        return _missing(arm for arm, found in ((first, ours), (second, theirs)) if not found)
    size = _mean(ours) - _mean(theirs)
    interval = welch(ours, theirs)
    examples = paired(results, first, second, metric) or unpaired(results, first, second, metric)
    if examples is not None:
        interval = together(size, interval, examples)
    interval = oriented(interval, sign)
    names = (f"{first} ", f"{second} ") if named else ("", "")
    text = against(_mean(ours), _mean(theirs), 2 if metric == "perplexity" else 4, names)
    return Effect(sign * size, interval, min(len(ours), len(theirs)), text, sign)


def paired(results: dict, first: str, second: str, metric: str) -> Interval:
    """The interval of first - second in results["differences"], whichever of the two is named first there."""
    for key, sign in ((f"{first} | {second}", 1), (f"{second} | {first}", -1)):
        found = results.get("differences", {}).get(key, {}).get(metric)
        if found:
            return oriented((found["low"], found["high"]), sign)
    return None


def unpaired(results: dict, first: str, second: str, metric: str) -> Interval:
    """Over test examples, of first - second, as if each arm had examples of its own.

    For arms whose predictions were never side by side. It is wider than the paired one, as models err on the same.
    """
    metrics = {one["arm"]: one["metrics"] for one in results["arms"]}
    found = [metrics.get(name, {}).get(metric) or {} for name in (first, second)]
    if any(one.get(key) is None for one in found for key in ("mean", "low", "high")):
        return None
    ours, theirs = found
    by_ours = ours["low"] - theirs["mean"], ours["high"] - theirs["mean"]
    by_theirs = ours["mean"] - theirs["high"], ours["mean"] - theirs["low"]
    return together(ours["mean"] - theirs["mean"], by_ours, by_theirs)


def steadier(results: dict, arm: str, alone: str, metric: str) -> Effect:
    """ln of the ratio of the deviations over seeds, alone to taught; the interval takes seeds to be normal."""
    from scipy import stats

    sides = {name: values(results, name, metric) for name in (arm, alone)}
    if min(map(len, sides.values())) < 2:
        return _missing((name for name, found in sides.items() if len(found) < 2), "two seeds of ")
    taught, other = map(_deviation, sides.values())
    text, seeds = f"sd {taught:.4f} against {other:.4f}", min(map(len, sides.values()))
    if not taught or not other:
        return Effect(other - taught, None, seeds, text)
    size = math.log(other / taught)
    freedom = len(sides[alone]) - 1, len(sides[arm]) - 1
    low, high = (size - 0.5 * math.log(float(stats.f.ppf(share, *freedom))) for share in (0.975, 0.025))
    return Effect(size, (low, high), seeds, f"{text} (ln of the ratio {-size:+.2f})", sign=-1)


def closer_together(results: dict, arm: str, alone: str) -> Effect:
    """Mean similarity of an arm's models to each other, above that of the models trained alone."""
    sides = {name: _rows(results, name) for name in (arm, alone)}
    if min(map(len, sides.values())) < 2:
        return _missing((name for name, found in sides.items() if len(found) < 2), "pairs of ")
    return _similarity(*sides.values(), interval=welch(*map(jackknifed, sides.values())))


def nearer(results: dict, arm: str, alone: str, teacher: str) -> Effect:
    """Similarity of an arm's models to what taught each, above that of the models trained alone to all that taught."""
    found = (results.get("representations") or {}).get("to_teachers", {})
    sides = {name: found.get(name, {}).get(teacher, []) for name in (arm, alone)}
    if not all(sides.values()):
        return _missing((name for name, found in sides.items() if not found), f"similarity to {teacher} of ")
    return _similarity(*sides.values(), interval=welch(*sides.values()))


def jackknifed(means: Sequence[float]) -> list[float]:
    """Pseudo-values of the mean over pairs, from each model's mean over its pairs; of two models none are known."""
    count = len(means)
    if count < 3:
        return []
    return [_mean(means) + 2 * (count - 1) / (count - 2) * (one - _mean(means)) for one in means]


def similar_perplexity(results: dict, arms: Sequence[str]) -> Effect:
    """How far the spread of the perplexities stays under SIMILAR."""
    found = {arm: values(results, arm, "perplexity") for arm in arms}
    if not all(found.values()):
        return _missing(arm for arm, known in found.items() if not known)
    ranked = sorted(found.values(), key=_mean)
    best, worst = _mean(ranked[0]), _mean(ranked[-1])
    size, interval = SIMILAR - (worst / best - 1), welch(ranked[-1], ranked[0])
    if interval is not None:
        interval = SIMILAR - interval[1] / best, SIMILAR - interval[0] / best
    text = f"{best:.2f} to {worst:.2f}, {worst / best - 1:.1%} apart; similar: {SIMILAR:.0%} ({size:+.1%})"
    return Effect(size, interval, min(map(len, found.values())), text)


def best_is_below(results: dict, arms: Sequence[str], above: str, metric: str) -> Effect:
    """How far `above` is above the arm that has the best perplexity here; not measured if it has that itself."""
    found = {arm: values(results, arm, "perplexity") for arm in arms}
    if not all(found.values()):
        return _missing(arm for arm, known in found.items() if not known)
    best = min(arms, key=lambda arm: _mean(found[arm]))
    if best == above:
        return Effect(None, None, 0, "", premise=f"the best in perplexity is the {best} itself")
    effect = difference(results, Comparison(above, best, metric))
    return effect if effect.size is None else effect._replace(text=f"{effect.text}; the best: {best}")


def presupposing(results: dict, premise: Comparison, metric: str, effect: Effect) -> Effect:
    """The effect; not measured if what it presupposes does not hold here. metric: how the premise's is called.

    premise: a teacher, as it is when it teaches if that is known, above its student alone.
    """
    teacher, student, key, _ = premise
    ours = values(results, teacher, f"taught_{key}") or values(results, teacher, key)
    theirs = values(results, student, key)
    if not ours or not theirs:
        return _missing(arm for arm, found in ((teacher, ours), (student, theirs)) if not found)
    if effect.size is None or _mean(ours) > _mean(theirs):
        return effect
    text = against(_mean(ours), _mean(theirs), 4, (f"{teacher} ", f"{student} "))
    return Effect(None, None, 0, "", premise=f"{text} in {metric}")


def against(first: float, second: float, digits: int, names: tuple[str, str] = ("", "")) -> str:
    """The two numbers and their difference."""
    here, there = (f"{name}{value:.{digits}f}" for name, value in zip(names, (first, second), strict=True))
    return f"{here} against {there} ({first - second:+.{digits}f})"


def alike(results: dict, arm: str) -> list[list[float]]:
    """Of an arm's models, how similar each is to each; [] if that is not known."""
    found = results.get("representations") or {"models": [], "similarity": []}
    places = [i for i, one in enumerate(found["models"]) if one["arm"] == arm]
    if places:
        return [[found["similarity"][i][j] for j in places] for i in places]
    return found.get("within", {}).get(arm, [])


def _rows(results: dict, arm: str) -> list[float]:
    """For each model of an arm its mean similarity to the others."""
    rows = [[*row[:i], *row[i + 1 :]] for i, row in enumerate(alike(results, arm))]
    return [_mean(row) for row in rows if row]


def _similarity(taught: Sequence[float], alone: Sequence[float], interval: Interval) -> Effect:
    ours, theirs = _mean(taught), _mean(alone)
    return Effect(ours - theirs, interval, min(len(taught), len(alone)), against(ours, theirs, 4))


def _missing(arms: Iterable[str], what: str = "") -> Effect:
    return Effect(None, None, 0, "", missing=tuple(f"{what}{arm}" for arm in arms))


def oriented(interval: Interval, sign: int) -> Interval:
    """The interval of a difference, or with sign -1 that of its negative."""
    return interval if interval is None or sign > 0 else (-interval[1], -interval[0])


def _mean(found: Sequence[float]) -> float:
    return math.fsum(found) / len(found)


def _deviation(found: Sequence[float]) -> float:
    return math.sqrt(math.fsum((value - _mean(found)) ** 2 for value in found) / (len(found) - 1))
