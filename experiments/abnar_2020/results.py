"""From finished stages to the dict of results.json. A seed that diverged, or whose teacher did, is never averaged."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.abnar_2020 import accuracy, claims, mistakes, pipeline, search
from experiments.abnar_2020.arms import Arm
from experiments.abnar_2020.setups import SETUPS
from experiments.abnar_2020.tasks import Task
from experiments.core import stages
from experiments.core.study import Workspace
from seqkd_jax import models
from seqkd_jax.config import ModelConfig, TrainConfig
from seqkd_jax.evaluation import calibration
from seqkd_jax.training.run_state import METRICS
from seqkd_jax.utils import files
from seqkd_jax.utils.settings import to_json

Arrays = Mapping[str, np.ndarray]


def collect(workspace: Workspace, left_out: Mapping[Arm, set[int]], out: Path) -> dict:
    """What results.json says beside what ran. left_out: of each arm that was evaluated the seeds that do not count."""
    scale, task = workspace.scale, workspace.data
    kept = {arm: _kept(workspace, arm, without) for arm, without in left_out.items()}
    mapped = {arm: without for arm, without in left_out.items() if len(without) < scale.seeds}
    first = scale.training[scale.arms[0].student].seed
    return {
        "scenario": SETUPS[scale.setup].scenario,
        "setup": scale.setup,
        "seeds": [first + place for place in range(scale.seeds)],
        "teachers": scale.teachers,
        "teaching": scale.teaching,
        "quirks": list(scale.quirks),
        **({"ways": {name: way.about for name, way in scale.ways.items()}} if scale.ways else {}),
        **({"search": searches(workspace, left_out)} if scale.search else {}),
        "data": data_hashes(task),
        "counts": task.counts,
        "arms": [_entry(workspace, arm, kept, left_out[arm]) for arm in left_out],
        "differences": differences(scale.setup, task, {arm.label: kept[arm] for arm in mapped}),
        "mistakes": _mistakes(workspace, kept),
        "representations": files.read_json(pipeline.drawn_map(workspace, mapped) / "map.json") if mapped else None,
    }


def searches(workspace: Workspace, arms: Iterable[Arm]) -> dict[str, dict]:
    """Model -> the rates and dropouts that were tried, their losses, and what was chosen."""
    names = dict.fromkeys(arm.student for arm in arms)
    return {name: files.read_json(pipeline.searched(workspace, name) / search.TRIED) for name in names}


def data_hashes(task: Task) -> dict[str, str]:
    """What models learned from and were tested on, as they read it -> SHA-256."""
    strata = {name: values.tolist() for name, values in task.strata.items()}
    counted = {"counted by": files.sha256_json(strata)} if strata else {}
    return {"learned from": task.learned_from, "tested on": task.tested_on, **counted}


def differences(setup: str, task: Task, found: Mapping[str, Arrays]) -> dict[str, dict]:
    """The paired intervals that claims ask for, where both arms are there. found: arm -> predictions."""
    binned = {accuracy.MACRO[bins]: bins for bins in ("distance", "attractors")}

    def difference(first: Arrays, second: Arrays, metric: str) -> dict:
        name = metric.removeprefix("accuracy_") if metric.startswith("accuracy_") else "test"
        pair = [_correct(task, one, name) for one in (first, second)]
        if metric not in binned:
            return accuracy.difference(*pair)
        kinds = [task.strata[kind] for kind in ("distance", "intervening", "attractors")]
        rows, bins, groups = accuracy.selections(*kinds)[binned[metric]]
        return accuracy.difference(*(one[:, rows] for one in pair), bins, groups)

    pairs: dict[str, dict] = {}
    for first, second, metric in claims.comparisons(setup):
        if first in found and second in found:
            pairs.setdefault(f"{first} | {second}", {})[metric] = difference(found[first], found[second], metric)
    return pairs


def _mistakes(workspace: Workspace, kept: Mapping[Arm, Arrays]) -> dict:
    """Arm -> teacher -> how far their mistakes on the test set are the same; models alone that are no plain arms have
    none."""
    scale, task = workspace.scale, workspace.data
    shown = {arm: found for arm, found in kept.items() if len(found["places"]) and (arm.teacher or not arm.way)}

    def taught(arm: Arm, places: np.ndarray) -> np.ndarray:
        decided = pipeline.lesson_of(workspace, arm)["decisions_test"]
        return decided[places if scale.teachers == "each" else [0]] == task.tests["test"].truth

    teachers = {
        arm.label: taught(students[0], found["places"])
        for arm, found in shown.items()
        if not arm.teacher and (students := pipeline.students_of(scale, arm))
        if scale.teachers == "each" or 0 in found["places"]  # the one that teaches, unless it diverged
    }
    taught_by = {
        arm.label: (arm.teacher, taught(arm, found["places"]))
        for arm, found in shown.items()
        if scale.teacher(arm) in kept
    }
    correct = {arm.label: _correct(task, found, "test") for arm, found in shown.items()}
    return mistakes.of_arms(correct, taught_by, teachers)


def _kept(workspace: Workspace, arm: Arm, left_out: set[int]) -> Arrays:
    """An arm's predictions [R,...] of the seeds that count; without any, `places` alone."""
    rows = [place for place in range(workspace.scale.seeds) if place not in left_out]
    arrays = pipeline.read_arrays(pipeline.evaluation(workspace, arm) / "predictions.npz") if rows else {}
    return {key: value[rows] for key, value in arrays.items()} | {"places": np.array(rows, int)}


def _entry(workspace: Workspace, arm: Arm, kept: Mapping[Arm, Arrays], left_out: set[int]) -> dict:
    """One entry of results.json's `arms`."""
    scale, found = workspace.scale, kept[arm]
    (model, config), teacher = pipeline.setting(workspace, arm), scale.teacher(arm)
    sizes = workspace.data.vocabularies
    metrics, bins, reliability = {}, {}, []
    if len(found["places"]):
        metrics, bins = (_of_agreement if workspace.data.strata else _of_images)(workspace.data, found)
        metrics |= _of_labels(scale.setup, found)
        metrics |= _clipped(pipeline.training(workspace, arm), config, found["places"])
        if students := pipeline.students_of(scale, arm):
            metrics |= _as_teacher(workspace, students[0], found["places"], "taught")
        if arm.way and teacher in kept:
            metrics |= _as_teacher(workspace, arm, found["places"], "teacher")
        if teacher in kept:
            # The share of test examples on which students decide as their teachers did when they taught.
            rows = found["places"] if scale.teachers == "each" else slice(0, 1)
            taught = pipeline.lesson_of(workspace, arm)["decisions_test"][rows]
            metrics["agreement"] = accuracy.agreement_with(found["decisions_test"], taught)
        reliability = calibration.reliability(found["valid_confidence"].ravel(), found["valid_correct"].ravel())
    return {
        "arm": arm.label,
        "student": arm.student,
        "teacher": arm.teacher,
        **({"way": arm.way} if arm.way else {}),
        "parameters": models.parameter_count(models.build(model, sizes.source.size, sizes.target.size)),
        "seeds": [config.seed + int(place) for place in found["places"]],
        "diverged": [config.seed + place for place in sorted(left_out)],
        "metrics": metrics,
        "bins": bins,
        "reliability": reliability,
        "training": {"config": to_json(config), "model": _described(model), **_ran(workspace, arm)},
    }


def _described(model: ModelConfig) -> dict:
    """A model's configuration, every field spelled out, with its type and the form of that."""
    form = {"form": model.FORM} if hasattr(model, "FORM") else {}
    return {"type": type(model).__name__, **form, **to_json(model)}


def _ran(workspace: Workspace, arm: Arm) -> dict:
    """What a training run left; nothing of a student that had no teacher left."""
    if len(pipeline.untaught(workspace, arm)) == workspace.scale.seeds:
        return {}
    run = pipeline.training(workspace, arm)
    how = stages.read_manifest(run)
    ran = {"commit": how["commit"], "commits": how["commits"]}
    return ran | {"seconds": how["seconds"], "resumed": how["resumed"], **files.read_json(run / "summary.json")}


def _as_teacher(workspace: Workspace, arm: Arm, places: np.ndarray, called: str) -> dict:
    """What taught an arm, as it was when it taught, which need not be what it is at its end; of the seeds that teach.

    called: what the names of these metrics begin with: taught, of the teacher of plain arms; teacher, of the student's.
    """
    task, taught = workspace.data, pipeline.lesson_of(workspace, arm)
    rows = [place for place in places.tolist() if workspace.scale.teachers == "each" or place == 0]
    if not rows:
        return {}
    found = {key: _over_seeds(taught[key][rows].tolist()) for key in ("entropy", "right")}
    correct = taught["decisions_test"][rows] == task.tests["test"].truth
    if task.strata:
        measured, _ = accuracy.agreement_metrics(correct, **task.strata)
        found |= {name: measured[name] for name in ("mu", "d", "a")}
    else:
        found["accuracy"] = accuracy.mean_with_interval(correct)
    return {f"{called}_{key}": value for key, value in found.items()}


def _of_agreement(task: Task, found: Arrays) -> tuple[dict, dict]:
    gold = {int(name.removeprefix("gold_")): _correct(task, found, name) for name in task.tests if name != "test"}
    return accuracy.agreement_metrics(_correct(task, found, "test"), **task.strata, gold=gold or None)


def _of_images(task: Task, found: Arrays) -> tuple[dict, dict]:
    metrics = {"accuracy": accuracy.mean_with_interval(_correct(task, found, "test"))}
    for name in [name for name, test in task.tests.items() if test.calibrated]:
        metrics[f"accuracy_{name}"] = accuracy.mean_with_interval(_correct(task, found, name))
        metrics[f"ece_{name}"] = _calibration(found, name, calibration.BINS)
    return metrics, {}


def _of_labels(setup: str, found: Arrays) -> dict:
    """Loss, perplexity and calibration at the labels of the validation set."""
    pairs = list(zip(found["valid_nats"], found["valid_count"], strict=True))
    metrics = {
        "loss": _over_seeds([float(nats.sum() / count.sum()) for nats, count in pairs]),
        "ece": _calibration(found, "valid", calibration.BINS),
        "ece_original": _calibration(found, "valid", calibration.ORIGINAL_BINS),
    }
    if setup == "lm":
        metrics["perplexity"] = _over_seeds([accuracy.corpus_perplexity(*pair) for pair in pairs])
        metrics["perplexity_batches"] = _over_seeds([accuracy.batch_perplexity(*pair) for pair in pairs])
    return metrics


def _clipped(run: Path, config: TrainConfig, places: Sequence[int]) -> dict:
    """The share of updates whose gradient was clipped, of those that metrics.jsonl has; nothing if it has none."""
    lines = (json.loads(line) for line in (run / METRICS).read_text(encoding="utf-8").splitlines())
    norms = np.array([np.atleast_1d(line["gradient_norm"]) for line in lines if "gradient_norm" in line], float)
    most = config.optimiser.clip_norm or math.inf
    return {"clipped": _over_seeds([float(np.mean(norms[:, place] > most)) for place in places])} if len(norms) else {}


def _calibration(found: Arrays, name: str, bins: int) -> dict:
    pairs = zip(found[f"{name}_confidence"], found[f"{name}_correct"], strict=True)
    return _over_seeds([calibration.expected_calibration_error(*pair, bins) for pair in pairs])


def _over_seeds(values: Sequence[float]) -> dict:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "sd": deviation, "low": None, "high": None, "values": list(values)}


def _correct(task: Task, found: Arrays, name: str) -> np.ndarray:
    return found[f"decisions_{name}"] == task.tests[name].truth
