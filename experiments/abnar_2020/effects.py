"""From the dict of results.json to effects: what `claims` measures, each positive where the paper is right.

An effect's interval is over seeds: Welch's t for differences of means, Fisher's F for a ratio of deviations, and
Welch's t on jackknife pseudo-values where pairs of models are compared, since pairs that share a model are not
independent. Where results["differences"] has a paired interval over test examples, which takes the models as given,
the two are put together (`experiments.core.intervals`): other seeds and other examples would both give other numbers.
What seeds and examples share is not known there, so it is counted twice. Arms that were never side by side have an
interval over examples that is wider than a paired one. With too few seeds there is none, and no verdict.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from experiments.abnar_2020 import published
from experiments.core.claims import Part
from experiments.core.intervals import Estimate, Interval, Spread, estimate, mean, of_seeds

SIMILAR = 0.1  # "similar perplexity": the highest at most this share above the lowest


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


def difference(results: dict, comparison: Comparison, named: bool = False) -> Part:
    """The difference of two arms' means, beside the paper's; named: its texts say of which."""
    first, second, metric, sign = comparison
    ours, theirs = (values(results, arm, metric) for arm in (first, second))
    names = (f"{first} ", f"{second} ") if named else ("", "")
    printed, effects = printed_difference(results["setup"], comparison, names)
    if not ours or not theirs:
        missing = _missing(arm for arm, found in ((first, ours), (second, theirs)) if not found)
        return missing._replace(printed=printed, published=effects)
    examples = paired(results, first, second, metric) or unpaired(results, first, second, metric)
    size = sign * (mean(ours) - mean(theirs))
    found = estimate(size, of_seeds(ours, theirs), oriented(examples, sign))
    text = against(mean(ours), mean(theirs), 2 if metric == "perplexity" else 4, names)
    return Part(found, text, min(len(ours), len(theirs)), printed, effects)


def printed_difference(
    setup: str, comparison: Comparison, names: tuple[str, str] = ("", "")
) -> tuple[str, tuple[float, ...]]:
    """The paper's two numbers, and its effect; nothing where it does not have both."""
    known = [published.number(setup, arm, comparison.metric) for arm in comparison[:2]]
    if None in known:
        return "", ()
    first, second = known
    printed = " against ".join(f"{name}{number.short}" for name, number in zip(names, known, strict=True))
    return printed, (comparison.sign * (first.value - second.value),)


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
    size = ours["mean"] - theirs["mean"]
    below, above = (math.hypot(*(end - size for end in ends)) for ends in zip(by_ours, by_theirs, strict=True))
    return size - below, size + above


def steadier(results: dict, arm: str, alone: str, metric: str) -> Part:
    """ln of the ratio of the deviations over seeds, alone to taught; the interval takes seeds to be normal."""
    from scipy import special

    sides = {name: values(results, name, metric) for name in (arm, alone)}
    printed, effects = _printed_deviations(results["setup"], arm, alone, metric)
    if min(map(len, sides.values())) < 2:
        missing = _missing((name for name, found in sides.items() if len(found) < 2), "two seeds of ")
        return missing._replace(printed=printed, published=effects)
    taught, other = map(_deviation, sides.values())
    text, seeds = f"sd {taught:.4f} against {other:.4f}", min(map(len, sides.values()))
    if not taught or not other:
        return Part(Estimate(other - taught), text, seeds, printed, effects)
    size = math.log(other / taught)
    freedom = len(sides[alone]) - 1, len(sides[arm]) - 1
    low, high = (size - 0.5 * math.log(float(special.fdtri(*freedom, share))) for share in (0.975, 0.025))
    below = float(special.fdtr(*freedom, (other / taught) ** 2))
    found = Estimate(size, (low, high), 2 * min(below, 1 - below))
    return Part(found, text, seeds, printed, effects)


def _printed_deviations(setup: str, arm: str, alone: str, metric: str) -> tuple[str, tuple[float, ...]]:
    known = [published.number(setup, name, metric) for name in (arm, alone)]
    if not all(one and one.deviation for one in known):
        return "", ()
    taught, other = (float(one.deviation) for one in known)
    return f"sd {' against '.join(f'{one.deviation}{one.mark}' for one in known)}", (math.log(other / taught),)


def closer_together(results: dict, arm: str, alone: str) -> Part:
    """Mean similarity of an arm's models to each other, above that of the models trained alone."""
    sides = {name: _rows(results, name) for name in (arm, alone)}
    if min(map(len, sides.values())) < 2:
        return _missing((name for name, found in sides.items() if len(found) < 2), "pairs of ")
    taught, other = sides.values()
    spread = of_seeds(*map(jackknifed, sides.values()))
    return _similarity(taught, other, estimate(mean(taught) - mean(other), spread))


def nearer(results: dict, arm: str, alone: str, teacher: str) -> Part:
    """Similarity of an arm's models to what taught each, above that of the models trained alone to all that taught.

    The models alone share these teachers: their mean varies with the models, and with the teachers, so that variances
    of its rows and of its columns are added. Where the columns are not known, no interval is.
    """
    taught = ((results.get("representations") or {}).get("to_teachers", {})).get(arm, {}).get(teacher, [])
    others = _to_each_teacher(results, alone, teacher)
    if not taught or not others:
        return _missing(
            (name for name, found in ((arm, taught), (alone, others)) if not found), f"similarity to {teacher} of "
        )
    rows = [mean(row) for row in others]
    parts = [of_seeds(taught), of_seeds(rows)]
    columns = [mean(column) for column in zip(*others, strict=True)]
    if results.get("teachers") != "one":  # else all is told of that one
        parts.append(of_seeds(columns))
    return _similarity(taught, rows, estimate(mean(taught) - mean(rows), added(parts)))


def similar_to(results: dict, arm: str, teacher: str) -> float | None:
    """Mean similarity of all models of an arm to all of a teacher, at the end of their training: like with like."""
    found = results.get("representations") or {"models": [], "similarity": []}
    ours, theirs = ([i for i, one in enumerate(found["models"]) if one["arm"] == name] for name in (arm, teacher))
    pairs = [found["similarity"][i][j] for i in ours for j in theirs]
    return mean(pairs) if pairs else None


def _to_each_teacher(results: dict, alone: str, teacher: str) -> list[list[float]]:
    """Of each model trained alone its similarity to each seed of a teacher; [] if that is not known.

    Results of an older form have the mean over the teachers. Where these taught as they were at their end, the
    similarities of all models hold each.
    """
    found = results.get("representations") or {}
    known = found.get("to_teachers", {}).get(alone, {}).get(teacher, [])
    if not known or isinstance(known[0], list):
        return known
    places = {name: [i for i, one in enumerate(found["models"]) if one["arm"] == name] for name in (alone, teacher)}
    if results.get("teaching") == "end" and all(places.values()):
        return [[found["similarity"][i][j] for j in places[teacher]] for i in places[alone]]
    return [[value] for value in known]


def added(spreads: Sequence[Spread | None]) -> Spread | None:
    """Of a sum of independent parts, by Welch and Satterthwaite; None if one is not known."""
    if None in spreads:
        return None
    total = math.fsum(part.variance for part in spreads)
    squares = math.fsum(part.variance**2 / part.freedom for part in spreads)
    return Spread(total, total**2 / squares if squares else math.inf)


def jackknifed(means: Sequence[float]) -> list[float]:
    """Pseudo-values of the mean over pairs, from each model's mean over its pairs; of two models none are known."""
    count = len(means)
    if count < 3:
        return []
    return [mean(means) + 2 * (count - 1) / (count - 2) * (one - mean(means)) for one in means]


def similar_perplexity(results: dict, arms: Sequence[str]) -> Part:
    """How far the spread of the perplexities stays under SIMILAR."""
    found = {arm: values(results, arm, "perplexity") for arm in arms}
    theirs = [published.number(results["setup"], arm, "perplexity") for arm in arms]
    low, high = (chosen(theirs, key=lambda number: number.value) for chosen in (min, max))
    beside = f"{low.short} to {high.short}", (SIMILAR - (high.value / low.value - 1),)
    if not all(found.values()):
        missing = _missing(arm for arm, known in found.items() if not known)
        return missing._replace(printed=beside[0], published=beside[1])
    ranked = sorted(found.values(), key=mean)
    best, worst = mean(ranked[0]), mean(ranked[-1])
    seeds = of_seeds([value / best for value in ranked[-1]], [value / best for value in ranked[0]])
    text = f"{best:.2f} to {worst:.2f}, {worst / best - 1:.1%} apart; similar: {SIMILAR:.0%}"
    return Part(estimate(SIMILAR - (worst / best - 1), seeds), text, min(map(len, found.values())), *beside)


def best_is_below(results: dict, arms: Sequence[str], above: str, metric: str) -> Part:
    """How far `above` is above the arm that has the best perplexity here; not measured if it has that itself."""
    found = {arm: values(results, arm, "perplexity") for arm in arms}
    if not all(found.values()):
        return _missing(arm for arm, known in found.items() if not known)
    best = min(arms, key=lambda arm: mean(found[arm]))
    if best == above:
        return _without_premise(f"the best in perplexity is the {best} itself")
    part = difference(results, Comparison(above, best, metric))
    return part if part.estimate is None else part._replace(text=f"{part.text}; the best: {best}")


def presupposing(results: dict, premise: Comparison, metric: str, part: Part) -> Part:
    """The part; not measured if what it presupposes does not hold here. metric: how the premise's is called.

    premise: a teacher, as it is when it teaches if that is known, above its student alone.
    """
    teacher, student, key, _ = premise
    ours = values(results, teacher, f"taught_{key}") or values(results, teacher, key)
    theirs = values(results, student, key)
    if not ours or not theirs:
        missing = _missing(arm for arm, found in ((teacher, ours), (student, theirs)) if not found)
    elif part.estimate is None or mean(ours) > mean(theirs):
        return part
    else:
        text = against(mean(ours), mean(theirs), 4, (f"{teacher} ", f"{student} "))
        missing = _without_premise(f"{text} in {metric}")
    return missing._replace(printed=part.printed, published=part.published)


def against(first: float, second: float, digits: int, names: tuple[str, str] = ("", "")) -> str:
    """The two numbers."""
    return " against ".join(f"{name}{value:.{digits}f}" for name, value in zip(names, (first, second), strict=True))


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
    return [mean(row) for row in rows if row]


def _similarity(taught: Sequence[float], alone: Sequence[float], found: Estimate) -> Part:
    return Part(found, against(mean(taught), mean(alone), 4), min(len(taught), len(alone)))


def _missing(arms: Iterable[str], what: str = "") -> Part:
    """What could not be measured without these arms."""
    absent = [f"{what}{arm}" for arm in dict.fromkeys(arms)]
    return Part(None, f"no {', '.join(absent)}")


def _without_premise(why: str) -> Part:
    return Part(None, f"its premise does not hold: {why}")


def oriented(interval: Interval, sign: int) -> Interval:
    """The interval of a difference, or with sign -1 that of its negative."""
    return interval if interval is None or sign > 0 else (-interval[1], -interval[0])


def _deviation(found: Sequence[float]) -> float:
    return math.sqrt(math.fsum((value - mean(found)) ** 2 for value in found) / (len(found) - 1))
