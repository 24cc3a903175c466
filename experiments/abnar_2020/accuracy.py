"""How often agreement is right: accuracies over seeds, with intervals over test examples. NumPy only.

In: `correct` [R,N], one row a seed, every seed on the same N test examples; out: what results.json holds. The paper's
measures: mu, plain accuracy; D, the unweighted mean of the accuracies at distances 1 to 16; A, that over 0 to 4
attractors. A bin of some thirty examples weighs as much as one of twelve thousand, so each number has an interval.

Intervals: 95%, percentile bootstrap over examples, all seeds resampled together. They say what other test examples
would give; what other seeds would give is the standard deviation's to say. Where all examples of a bin came out alike,
a bootstrap would say that none ever comes out otherwise: there half an example of each extreme is added before drawing.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from seqkd_jax.types import UserError

Group = int | tuple[int, ...]  # a bin, or neighbouring ones pooled
DISTANCES: tuple[Group, ...] = tuple(range(1, 17))
POOLED: tuple[Group, ...] = (*range(1, 9), (9, 10), (11, 12), (13, 14, 15, 16))
ATTRACTORS: tuple[Group, ...] = tuple(range(5))
LARGEST_INTERVENING, LARGEST_DISTANCE = 4, 16  # D and A leave other examples out (Tran et al. 2018, Abnar et al. 2020)
RESAMPLES, SEED = 1000, 0  # of the bootstrap
MACRO = {"distance": "d", "distance_pooled": "d_pooled", "attractors": "a", "gold_attractors": "a_gold"}  # bins, metric


class Strata(NamedTuple):
    """Accuracies of the G bins that hold examples."""

    groups: list[int]  # G positions in the wanted groups
    n: np.ndarray  # [G] examples
    values: np.ndarray  # [R,G] accuracy of each seed
    resampled: np.ndarray  # [resamples,G] mean over seeds, on resampled examples of that bin


def label(group: Group) -> str:
    """A bin's name in results.json: 9, or 9-10 for bins that are pooled."""
    return str(group) if isinstance(group, int) else f"{group[0]}-{group[-1]}"


def mean_with_interval(correct) -> dict:
    """{mean, sd, low, high, values} of accuracy; correct: [R,N]. sd: over seeds, None for one; values: one a seed."""
    correct = _checked(correct)
    strata = _strata(correct, np.zeros(correct.shape[1], np.int64), (0,))
    return _summary(strata.values[:, 0], strata.resampled[:, 0])


def by_bins(correct, bins, groups: Sequence[Group]) -> dict[str, dict]:
    """label -> {n, mean, sd, low, high} of every group; all but n are None where it has no examples. bins: [N]."""
    strata = _strata(_checked(correct), bins, groups)
    found = {label(group): {"n": 0, "mean": None, "sd": None, "low": None, "high": None} for group in groups}
    for i, group in enumerate(strata.groups):
        summary = _summary(strata.values[:, i], strata.resampled[:, i])
        del summary["values"]
        found[label(groups[group])] = {"n": int(strata.n[i]), **summary}
    return found


def macro(correct, bins, groups: Sequence[Group]) -> dict:
    """{mean, sd, low, high, values, empty}: the unweighted mean over the groups that hold examples.

    empty: how many hold none and are left out. The bootstrap is stratified: every bin keeps its number of examples.
    """
    strata = _strata(_checked(correct), bins, groups)
    summary = _summary(strata.values.mean(axis=1), strata.resampled.mean(axis=1))
    return {**summary, "empty": len(groups) - len(strata.groups)}


def difference(a, b, bins=None, groups: Sequence[Group] | None = None) -> dict[str, float]:
    """{mean, low, high} of accuracy(a) - accuracy(b), paired over examples; a: [R,N], b: [Q,N], the same N.

    With bins and groups: of the macro averages. An example is resampled with its results under both models.
    """
    a, b = _checked(a), _checked(b)
    if a.shape[1] != b.shape[1]:
        raise UserError(f"difference: {a.shape[1]} and {b.shape[1]} examples: compare models on the same test examples")
    if (bins is None) != (groups is None):
        raise UserError("difference: bins and groups go together: give both, or neither")
    if bins is None:
        bins, groups = np.zeros(a.shape[1], np.int64), (0,)
    position, used = _positions(bins, groups, a.shape[1])
    # Of an example only the pair (seeds of a, seeds of b that are right) counts.
    pairs = a.sum(axis=0) * (len(b) + 1) + b.sum(axis=0)
    tally = _tally(position, len(used), pairs, (len(a) + 1) * (len(b) + 1))
    points = (np.arange(len(a) + 1)[:, None] / len(a) - np.arange(len(b) + 1)[None] / len(b)).ravel()
    mean = float((tally @ points / tally.sum(axis=1)).mean())
    low, high = _middle_95(_resampled(tally, points).mean(axis=1))
    return {"mean": mean, "low": min(low, mean), "high": max(high, mean)}


def distance_rows(distance, intervening) -> np.ndarray:
    """[N] bool: the examples that D counts, of at most 4 intervening nouns and a distance of at most 16."""
    return (np.asarray(intervening) <= LARGEST_INTERVENING) & (np.asarray(distance) <= LARGEST_DISTANCE)


def attractor_rows(distance, intervening, attractors) -> np.ndarray:
    """[N] bool: the examples that A counts, those of D whose intervening nouns are all attractors."""
    return distance_rows(distance, intervening) & (np.asarray(intervening) == np.asarray(attractors))


def selections(distance, intervening, attractors) -> dict[str, tuple[np.ndarray, np.ndarray, tuple[Group, ...]]]:
    """Bins of MACRO -> (the examples that count, bool [N]; the bin of each of these; the groups of bins)."""
    distance, attractors = np.asarray(distance), np.asarray(attractors)
    counted, plain = distance_rows(distance, intervening), attractor_rows(distance, intervening, attractors)
    return {
        "distance": (counted, distance[counted], DISTANCES),
        "distance_pooled": (counted, distance[counted], POOLED),
        "attractors": (plain, attractors[plain], ATTRACTORS),
    }


def with_gold(correct, bins, gold: Mapping[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(correct [R,N'], bins [N']): the examples in bin 0, and those of the strata with gold attractor counts.

    correct, bins: of `attractor_rows`; gold: attractors, from 1 on -> [R,M]. The strata have no bin without attractors.
    """
    correct, bins = _checked(correct), np.asarray(bins)
    gold = {count: _checked(stratum) for count, stratum in gold.items() if np.size(stratum)}
    for count, stratum in gold.items():
        if count < 1 or len(stratum) != len(correct):
            raise UserError(
                f"gold stratum {count} has {len(stratum)} seeds, the test {len(correct)}: give strata from 1 "
                "attractor on, under the same seeds"
            )
    without = correct[:, bins == 0]
    counts = [np.zeros(without.shape[1], np.int64), *(np.full(part.shape[1], count) for count, part in gold.items())]
    return np.concatenate([without, *gold.values()], axis=1), np.concatenate(counts)


def agreement_metrics(
    correct, distance, intervening, attractors, seen=None, gold: Mapping[int, np.ndarray] | None = None
) -> tuple[dict[str, dict], dict[str, dict]]:
    """(metrics, bins) of one arm, as results.json has them. correct: [R,N] on all test examples; the others: [N].

    seen: the words before the verb occur in training; "mu_unseen" is there if some example's do not. gold: see
    `with_gold`; "a_gold" is there if it is given.
    """
    correct, counted = _checked(correct), selections(distance, intervening, attractors)
    chosen = {name: (correct[:, rows], bins, groups) for name, (rows, bins, groups) in counted.items()}
    if gold is not None:
        chosen["gold_attractors"] = (*with_gold(*chosen["attractors"][:2], gold), ATTRACTORS)
    metrics = {"mu": mean_with_interval(correct)}
    metrics |= {MACRO[name]: macro(*examples) for name, examples in chosen.items()}
    if seen is not None and not np.all(seen):
        metrics["mu_unseen"] = mean_with_interval(correct[:, ~np.asarray(seen, bool)])
    return metrics, {name: by_bins(*examples) for name, examples in chosen.items()}


def agreement_with(decisions, teacher_decisions) -> dict:
    """`mean_with_interval` of deciding alike; decisions: [R,N], teacher_decisions: [R,N], or [1,N] for one teacher."""
    decisions, teacher_decisions = np.asarray(decisions), np.asarray(teacher_decisions)
    if teacher_decisions.shape not in (decisions.shape, (1, *decisions.shape[1:])):
        raise UserError(
            f"agreement: decisions are {decisions.shape}, the teacher's {teacher_decisions.shape}: give one row a "
            "seed, or one for all, on the same examples"
        )
    return mean_with_interval(decisions == teacher_decisions)


def corpus_perplexity(nats, tokens) -> float:
    """exp of the mean nats of a token; nats, tokens: [N], summed over each sentence."""
    nats, tokens = _checked_sentences(nats, tokens)
    return float(np.exp(np.minimum(nats.sum() / tokens.sum(), 700.0)))


def batch_perplexity(nats, tokens, batch: int = 64) -> float:
    """The mean over batches of exp of a batch's mean nats of a token, sentences in the order given: Abnar et al.'s.

    As in their code a last batch that is not full is left out, unless it is the only one.
    """
    nats, tokens = _checked_sentences(nats, tokens)
    whole = len(nats) - len(nats) % batch or len(nats)
    starts = np.arange(0, whole, batch)
    means = np.add.reduceat(nats[:whole], starts) / np.add.reduceat(tokens[:whole], starts)
    return float(np.exp(np.minimum(means, 700.0)).mean())


def _strata(correct, bins, groups) -> Strata:
    position, used = _positions(bins, groups, correct.shape[1])
    right = np.stack([np.bincount(position, weights=row, minlength=len(used) + 1)[:-1] for row in correct])
    # Of an example only the number of seeds that are right counts, so a bin is a tally of R+1 kinds and a resample of
    # it one multinomial draw: its cost does not grow with the number of examples.
    tally = _tally(position, len(used), correct.sum(axis=0), len(correct) + 1)
    n = tally.sum(axis=1)
    points = np.arange(len(correct) + 1) / len(correct)
    return Strata(used, n, right / n, _resampled(tally, points))


def _positions(bins, groups, examples: int) -> tuple[np.ndarray, list[int]]:
    # ([N] 0..G-1 among the groups that hold examples, G for an example in none; the G groups' places in `groups`)
    bins = np.asarray(bins)
    if bins.shape != (examples,):
        raise UserError(f"accuracy: bins are {bins.shape} for {examples} examples: give one for each")
    inside = [np.isin(bins, group) for group in groups]
    used = [i for i, members in enumerate(inside) if members.any()]
    if not used:
        raise UserError(f"accuracy: no example is in any of the bins {', '.join(map(label, groups))}: give more data")
    position = np.full(examples, len(used))
    for i, group in enumerate(used):
        position[inside[group]] = i
    return position, used


def _tally(position, number: int, kinds, size: int) -> np.ndarray:
    # [number,size] how many examples of each bin are of each kind
    return np.bincount(position * size + kinds, minlength=(number + 1) * size).reshape(number + 1, size)[:-1]


def _resampled(tally, points) -> np.ndarray:
    # [resamples,G] the mean of `points`, one a kind, over as many examples as the bin has, drawn with replacement
    random = np.random.default_rng(SEED)
    extremes = np.isin(np.arange(len(points)), (points.argmin(), points.argmax()))
    known = [row + 0.5 * extremes if np.ptp(points[row > 0]) < 1e-12 else row for row in tally]  # all came out alike
    pairs = zip(tally, known, strict=True)
    drawn = [random.multinomial(row.sum(), weights / weights.sum(), size=RESAMPLES) for row, weights in pairs]
    return np.stack([draws @ points / row.sum() for draws, row in zip(drawn, tally, strict=True)], axis=1)


def _summary(values, resampled) -> dict:
    mean, (low, high) = float(np.mean(values)), _middle_95(resampled)
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    low, high = min(low, mean), max(high, mean)
    return {"mean": mean, "sd": sd, "low": low, "high": high, "values": [float(v) for v in values]}


def _middle_95(resampled) -> tuple[float, float]:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(low), float(high)


def _checked(correct) -> np.ndarray:
    correct = np.asarray(correct)
    if correct.ndim != 2 or not correct.size:
        raise UserError(f"accuracy: correct is {correct.shape}: give [seeds, examples], at least one of each")
    if correct.dtype != bool:
        raise UserError(f"accuracy: correct is of {correct.dtype}: give True and False")
    return correct


def _checked_sentences(nats, tokens) -> tuple[np.ndarray, np.ndarray]:
    nats, tokens = np.asarray(nats, np.float64), np.asarray(tokens, np.int64)
    if nats.ndim != 1 or nats.shape != tokens.shape or not nats.size or tokens.min() < 1:
        raise UserError(
            f"perplexity: {nats.shape} nats, {tokens.shape} tokens: give both for every sentence, at least one token"
        )
    return nats, tokens
