"""How arms are compared: differences of measures, with what other seeds and other test sentences would have given.

A measure is one number for each seed. A comparison weighs the measures of an arm against those of its reference, so
that "what the beam adds" is as good a comparison as "BLEU at beam 1". The bootstrap draws the test sentences for all
seeds of both arms at once; `experiments.core.intervals` puts its interval together with the spread over seeds.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.core.intervals import Estimate, Interval, Parts, between, estimate, mean, of_seeds
from experiments.kim_rush_2016.arms import BASELINE, BEAMS
from seqkd_jax.evaluation import metrics

LEAST = 1e-12  # of a probability whose logarithm is taken
LOGARITHMS = {"ln perplexity": "perplexity", "ln p(t=ŷ)": "mode_probability"}
Weights = Mapping[str, float]  # measure -> weight


class Comparison(NamedTuple):
    """A difference: a weighted sum of an arm's measures less one of its reference's."""

    ours: Weights
    theirs: Weights


def _same(measure: str) -> Comparison:
    return Comparison({measure: 1.0}, {measure: 1.0})


def _negative(weights: Weights) -> Weights:
    return {name: -weight for name, weight in weights.items()}


ACROSS, ADDED = "beam1 to beam5", "what a beam adds"
HALVED = ("u/2 - g", "u/2 + g")  # g: what a beam of 5 adds to an arm, u: what it adds to its reference
_GAIN, _HALF = {"bleu_beam5": 1.0, "bleu_beam1": -1.0}, {"bleu_beam5": 0.5, "bleu_beam1": -0.5}
COMPARISONS: dict[str, Comparison] = {
    **{beam: _same(f"bleu_{beam}") for beam in BEAMS},
    **{f"chrf {beam}": _same(f"chrf_{beam}") for beam in BEAMS},
    **{f"tuned {beam}": _same(f"tuned_bleu_{beam}") for beam in BEAMS},
    **{f"recall {beam}": _same(f"recall_{beam}") for beam in BEAMS},
    ACROSS: Comparison({"bleu_beam1": 1.0}, {"bleu_beam5": 1.0}),
    ADDED: Comparison(_GAIN, _GAIN),
    f"chrf {ACROSS}": Comparison({"chrf_beam1": 1.0}, {"chrf_beam5": 1.0}),
    "ln perplexity": _same("ln perplexity"),
    "ln p(t=ŷ)": _same("ln p(t=ŷ)"),
    HALVED[0]: Comparison(_negative(_GAIN), _negative(_HALF)),
    HALVED[1]: Comparison(_GAIN, _negative(_HALF)),
}


def measures(arm: Mapping) -> dict[str, list[float]]:
    """Measure -> a value for each seed, of one of results.json's arms, or of one evaluation."""
    scores = [f"{name}_{beam}" for beam in BEAMS for name in ("bleu", "chrf", "recall", "tuned_bleu")]
    found = {name: values(arm, name) for name in scores if name in arm}
    for name, of in LOGARITHMS.items():
        if of in arm:
            found[name] = [math.log(max(value, LEAST)) for value in values(arm, of)]
    return found


def values(arm: Mapping, name: str) -> list[float]:
    """A number of an arm, for each of its seeds."""
    return arm.get("by_seed", {}).get(name) or [arm[name]]


class Resampled(NamedTuple):
    """The measures of one seed, and what they are on each resample of the test sentences [1000]."""

    values: dict[str, float]
    samples: dict[str, np.ndarray]  # those that are known by sentence: not perplexity


def resampled(found: Mapping, outputs: Mapping, probabilities: Mapping, tokenize: str) -> Resampled:
    """Of an evaluation's numbers, its outputs and their probabilities; of outputs with tuned lengths as tuned_BEAM."""
    samples, references = {}, outputs["references"]
    for beam in BEAMS:
        scores = metrics.resampled(outputs[beam], references, tokenize)
        samples |= {f"{name}_{beam}": scores[name] for name in ("bleu", "chrf", "recall")}
        if tuned := outputs.get(f"tuned_{beam}"):
            samples[f"tuned_bleu_{beam}"] = metrics.resampled(tuned, references, tokenize)["bleu"]
    known = np.array([found is not None for found in probabilities["beam1"]], float)  # sources that are not empty
    drawn = metrics.resamples(len(known)) * known
    means = drawn @ np.array([found or 0.0 for found in probabilities["beam1"]]) / np.maximum(drawn.sum(axis=1), 1)
    samples["ln p(t=ŷ)"] = np.log(np.maximum(means, LEAST))
    return Resampled({name: one for name, (one,) in measures(found).items()}, samples)


def compare(ours: Sequence[Resampled], theirs: Sequence[Resampled]) -> dict[str, dict[str, float]]:
    """Comparison -> {low, high: the 95% interval over test sentences, shared: the variance that seeds share with them}.

    One entry of each side a seed. Without what is not known by sentence.
    """
    found = {}
    for name, comparison in COMPARISONS.items():
        sides = [side for of in zip((ours, theirs), comparison, strict=True) if (side := _deviations(*of))]
        if len(sides) == 2:
            (own, ours_off), (other, theirs_off) = sides
            delta = own - other
            samples = delta + ours_off.mean(axis=0) - theirs_off.mean(axis=0)
            low, high = np.percentile(samples, [2.5, 97.5])
            shared = _interaction(ours_off) + _interaction(theirs_off)
            found[name] = {"delta": delta, "delta_low": float(low), "delta_high": float(high), "shared": shared}
    return found


def _deviations(seeds: Sequence[Resampled], weights: Weights) -> tuple[float, np.ndarray] | None:
    """The mean over seeds of the weighted sum, and what each seed's resamples are away from its own value [R,1000]."""
    if any(name not in seed.samples for seed in seeds for name in weights):
        return None
    own = np.array([sum(weight * seed.values[name] for name, weight in weights.items()) for seed in seeds])
    samples = np.stack([sum(weight * seed.samples[name] for name, weight in weights.items()) for seed in seeds])
    return float(own.mean()), samples - own[:, None]


def _interaction(deviations: np.ndarray) -> float:
    """The variance of the mean over seeds that stems from sentences which one seed finds easier than another."""
    seeds = len(deviations)
    return float(deviations.var(axis=0, ddof=1).mean() / seeds) if seeds > 1 else 0.0


def difference(arm: Mapping, reference: Mapping, name: str, above: float = 0.0) -> Estimate:
    """By how much a comparison of two arms of results.json exceeds `above`: over seeds, and over test sentences if
    results have that.
    """
    return estimate(*parts(arm, reference, name, above))


def summary(results: Mapping) -> dict:
    """Of a results.json what `gained_more` reads: BLEU at beam 1 of the baselines and of Seq-KD."""
    kept = []
    for arm in results["arms"]:
        if arm["arm"] in (BASELINE, "Seq-KD"):
            compared = arm.get("significance", {}).get(BASELINE, {})
            by_seed = {name: found for name, found in arm.get("by_seed", {}).items() if name == "bleu_beam1"}
            significance = {BASELINE: {name: found for name, found in compared.items() if name == "beam1"}}
            of_arm = {name: arm[name] for name in ("arm", "model", "bleu_beam1")}
            kept.append({**of_arm, "by_seed": by_seed, "significance": significance})
    return {"scale": results["scale"], "arms": kept}


def gained_more(here: Sequence[Mapping], there: Sequence[Mapping], name: str = "beam1") -> Estimate:
    """By how much an arm gains more over its reference here than there: (arm, reference) of two runs."""
    return between(parts(*here, name), parts(*there, name))


def parts(arm: Mapping, reference: Mapping, name: str, above: float = 0.0) -> Parts:
    """The same before it is put together."""
    pairs = zip((arm, reference), COMPARISONS[name], strict=True)
    ours, theirs = (_weighed(measures(side), weights) for side, weights in pairs)
    found = _compared(arm, reference, name)
    size = mean(ours) - mean(theirs) - above
    sentences = over_sentences(arm, reference, name, above)
    return Parts(size, of_seeds(ours, theirs), sentences, found.get("shared", 0.0))


def over_sentences(arm: Mapping, reference: Mapping, name: str, above: float = 0.0) -> Interval:
    """The 95% interval of the same over test sentences alone, which takes the trained models as given."""
    found = _compared(arm, reference, name)
    return (found["delta_low"] - above, found["delta_high"] - above) if found else None


def _compared(arm: Mapping, reference: Mapping, name: str) -> Mapping:
    return arm.get("significance", {}).get(reference["arm"], {}).get(name) or {}


def _weighed(found: Mapping[str, Sequence[float]], weights: Weights) -> list[float]:
    columns = [[weight * value for value in found[name]] for name, weight in weights.items()]
    return [math.fsum(seed) for seed in zip(*columns, strict=True)]
