"""From finished stages to the dict of results.json. A seed that diverged, or whose teacher did, is never averaged."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.abnar_2020 import accuracy, claims, maps, study
from experiments.abnar_2020.arms import Arm
from experiments.abnar_2020.scale import SETUPS
from experiments.abnar_2020.study import Study
from experiments.core import report, stages
from seqkd_jax.config import ModelConfig
from seqkd_jax.evaluation import calibration
from seqkd_jax.types import UserError
from seqkd_jax.utils import files
from seqkd_jax.utils.settings import to_json

WRITTEN = {"arm", "student", "teacher", "metrics"}  # of every arm


def collect(made: Study, left_out: Mapping[Arm, set[int]]) -> dict:
    """What results.json says beside what ran.

    left_out: of each arm that was evaluated the seeds that do not count.
    """
    task, scale, arms = made.task, made.scale, tuple(left_out)
    said = {arm: _kept(made, arm, left_out[arm]) for arm in arms}
    entries = [_entry(made, arm, said, left_out[arm]) for arm in arms]
    mapped = tuple(arm for arm in arms if len(left_out[arm]) < made.seeds)
    right = {
        arm.label: {name: _correct(made, said[arm], name) for name in task.tests if not name.startswith("gold_")}
        for arm in mapped
    }
    first = scale.training[scale.arms[0].student].seed
    return {
        "scenario": SETUPS[scale.setup].scenario,
        "setup": scale.setup,
        "scale": scale.name,
        "seeds": [first + place for place in range(made.seeds)],
        "teachers": scale.teachers,
        "teaching": scale.teaching,
        "quirks": list(scale.quirks),
        "data": data_hashes(made),
        "notes": list(scale.deviations),
        "counts": task.counts,
        "arms": entries,
        "differences": differences(scale.setup, task.strata, right),
        "representations": files.read_json(maps.drawn_map(made, mapped, left_out) / "map.json") if mapped else None,
    }


def read(path: Path) -> dict:
    """A results.json of this study; UserError for what is none."""
    found = report.read(path, "abnar_2020", WRITTEN)
    if found.get("setup") not in SETUPS:
        raise UserError(f"{path}: of no set-up that there is; name one that this study has written")
    return found


def differences(setup: str, strata: Mapping[str, np.ndarray], right: Mapping[str, dict]) -> dict[str, dict]:
    """The paired intervals that claims ask for, where both arms are there; right: arm -> test set -> bool [R,N]."""
    found: dict[str, dict] = {}
    for first, second, metric in claims.comparisons(setup):
        if first in right and second in right:
            found.setdefault(f"{first} | {second}", {})[metric] = _difference(
                strata, right[first], right[second], metric
            )
    return found


def _difference(strata: Mapping[str, np.ndarray], first: dict, second: dict, metric: str) -> dict:
    name = metric.removeprefix("accuracy_") if metric.startswith("accuracy_") else "test"
    binned = {accuracy.MACRO[bins]: bins for bins in ("distance", "attractors")}
    if metric not in binned:
        return accuracy.difference(first[name], second[name])
    counted = accuracy.selections(strata["distance"], strata["intervening"], strata["attractors"])
    rows, bins, groups = counted[binned[metric]]
    return accuracy.difference(first[name][:, rows], second[name][:, rows], bins, groups)


def _kept(made: Study, arm: Arm, left_out: set[int]) -> dict[str, np.ndarray]:
    """An arm's predictions [R,...] of the seeds that count; without any, `places` alone."""
    rows = [place for place in range(made.seeds) if place not in left_out]
    arrays = study.read_arrays(study.evaluation(made, arm) / "predictions.npz") if rows else {}
    return {key: value[rows] for key, value in arrays.items()} | {"places": np.array(rows, int)}


def _entry(made: Study, arm: Arm, said: dict, left_out: set[int]) -> dict:
    """One entry of results.json's `arms`."""
    config, found = made.scale.config(arm, made.seeds), said[arm]
    entry = {
        "arm": arm.label,
        "student": arm.student,
        "teacher": arm.teacher,
        "parameters": study.parameters(made, arm.student),
        "seeds": [config.seed + int(place) for place in found["places"]],
        "diverged": [config.seed + place for place in sorted(left_out)],
        "metrics": {},
        "bins": {},
        "reliability": [],
        "training": {
            "config": to_json(config),
            "model": _described(made.scale.models[arm.student]),
            **_ran(made, arm),
        },
    }
    if not len(found["places"]):
        return entry
    metrics, bins = (_of_agreement if made.task.strata else _of_images)(made, found)
    metrics |= _of_labels(made, found)
    if study.teaches(made, arm):
        metrics |= _as_teacher(made, arm, found["places"])
    if arm.teacher is not None and Arm(arm.teacher) in said:
        metrics["agreement"] = _agreement(made, found, study.lesson_of(made, Arm(arm.teacher)))
    reliability = calibration.reliability(found["valid_confidence"].ravel(), found["valid_correct"].ravel())
    return {**entry, "metrics": metrics, "bins": bins, "reliability": reliability}


def _described(model: ModelConfig) -> dict:
    """A model's configuration, every field spelled out, with its type and the form of that."""
    form = {"form": model.FORM} if hasattr(model, "FORM") else {}
    return {"type": type(model).__name__, **form, **to_json(model)}


def _as_teacher(made: Study, arm: Arm, places: np.ndarray) -> dict:
    """What a teacher is when it teaches, which need not be what it is at its end; of the seeds that teach."""
    taught = study.lesson_of(made, arm)
    rows = [place for place in places.tolist() if made.scale.teachers == "each" or place == 0]
    if not rows:
        return {}
    told = {key: _over_seeds(taught[key][rows].tolist()) for key in ("entropy", "right")}
    correct = taught["decisions_test"][rows] == made.task.tests["test"].truth
    if made.task.strata:
        measured, _ = accuracy.agreement_metrics(correct, **made.task.strata)
        told |= {name: measured[name] for name in ("mu", "d", "a")}
    else:
        told["accuracy"] = accuracy.mean_with_interval(correct)
    return {f"taught_{key}": value for key, value in told.items()}


def _ran(made: Study, arm: Arm) -> dict:
    """What a training run left; nothing of a student that had no teacher left."""
    if len(study.untaught(made, arm)) == made.seeds:
        return {}
    run = study.training(made, arm)
    how = stages.read_manifest(run)
    return {
        "commit": how["commit"],
        "commits": stages.commits_of(how),
        "seconds": how["seconds"],
        "resumed": how["resumed"],
        **files.read_json(run / "summary.json"),
    }


def _of_agreement(made: Study, found: dict) -> tuple[dict, dict]:
    gold = {int(name.removeprefix("gold_")): _correct(made, found, name) for name in made.task.tests if name != "test"}
    return accuracy.agreement_metrics(_correct(made, found, "test"), **made.task.strata, gold=gold or None)


def _of_images(made: Study, found: dict) -> tuple[dict, dict]:
    metrics = {"accuracy": accuracy.mean_with_interval(_correct(made, found, "test"))}
    for name in [name for name, test in made.task.tests.items() if test.calibrated]:
        metrics[f"accuracy_{name}"] = accuracy.mean_with_interval(_correct(made, found, name))
        metrics[f"ece_{name}"] = _calibration(found, name, calibration.BINS)
    return metrics, {}


def _of_labels(made: Study, found: dict) -> dict:
    """Loss, perplexity and calibration at the labels of the validation set."""
    nats, counts = found["valid_nats"], found["valid_count"]
    loss = [float(n.sum() / c.sum()) for n, c in zip(nats, counts, strict=True)]
    metrics = {
        "loss": _over_seeds(loss),
        "ece": _calibration(found, "valid", calibration.BINS),
        "ece_original": _calibration(found, "valid", calibration.ORIGINAL_BINS),
    }
    if made.scale.setup == "lm":
        pairs = list(zip(nats, counts, strict=True))
        metrics["perplexity"] = _over_seeds([accuracy.corpus_perplexity(*pair) for pair in pairs])
        metrics["perplexity_batches"] = _over_seeds([accuracy.batch_perplexity(*pair) for pair in pairs])
    return metrics


def _calibration(found: dict, name: str, bins: int) -> dict:
    pairs = zip(found[f"{name}_confidence"], found[f"{name}_correct"], strict=True)
    return _over_seeds([calibration.expected_calibration_error(*pair, bins) for pair in pairs])


def _agreement(made: Study, found: dict, lesson: dict) -> dict:
    """The share of test examples on which students decide as their teachers did when they taught."""
    taught = lesson["decisions_test"]
    rows = found["places"] if made.scale.teachers == "each" else slice(0, 1)
    return accuracy.agreement_with(found["decisions_test"], taught[rows])


def _over_seeds(values: Sequence[float]) -> dict:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "sd": deviation, "low": None, "high": None, "values": list(values)}


def _correct(made: Study, found: dict, name: str) -> np.ndarray:
    return found[f"decisions_{name}"] == made.task.tests[name].truth


def data_hashes(made: Study) -> dict[str, str]:
    """What models learned from and were tested on, as they read it -> SHA-256."""
    strata = {name: values.tolist() for name, values in made.task.strata.items()}
    counted = {"counted by": files.sha256_json(strata)} if strata else {}
    return {"learned from": made.task.learned_from, "tested on": made.task.tested_on, **counted}
