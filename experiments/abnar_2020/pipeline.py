"""The stages of the study, each a function of the data as models read them and of earlier stages' directories.

  prepared -> training of each arm, its teacher's first -> its predictions
                                                        -> what it teaches, if it does
                                                        -> its vectors -> map of all

`stages.stage` makes each once. An arm's seeds are trained at once, as replicas of one run. A stage is asked for by
whoever needs it, so that asking for one arm makes what that arm needs and no more.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.abnar_2020 import predictions
from experiments.abnar_2020.arms import Arm
from experiments.abnar_2020.tasks import first
from experiments.core.study import Workspace
from seqkd_jax import checkpoint, distributed
from seqkd_jax.config import BatchConfig
from seqkd_jax.data import batches, vocabulary
from seqkd_jax.evaluation import representations
from seqkd_jax.training import loop
from seqkd_jax.training.run_state import plain
from seqkd_jax.training.trainer import Run, train_model
from seqkd_jax.types import Model
from seqkd_jax.utils import files, progress

# A run's checkpoint that is reported, as in the paper's code. Not that of the lowest validation loss, `best`: that loss
# rises after a few epochs, by confidence in what is wrong, while accuracy still grows.
END = "end"
TAUGHT = 4000  # training examples whose soft targets are measured


# Training


def prepared(workspace: Workspace) -> Path:
    """The vocabularies and the batch shapes that all arms share."""
    scale, task = workspace.scale, workspace.data

    def make(directory: Path) -> None:
        vocabulary.save(task.vocabularies, directory)
        plan = batches.make_plan(task.train, next(iter(scale.training.values())).batch)
        files.write_json(directory / "shapes.json", [list(shape) for shape in plan.shapes])

    settings = [scale.setup, task.learned_from, [config.batch for config in scale.training.values()]]
    return workspace.stage("prepared", settings, {}, make)


def shapes(workspace: Workspace) -> tuple[batches.Shape, ...]:
    """The batch shapes that all arms share."""
    return tuple(batches.Shape(*shape) for shape in files.read_json(prepared(workspace) / "shapes.json"))


def untaught(workspace: Workspace, arm: Arm) -> set[int]:
    """The seeds, by their places, whose teacher was not trained to the end; it is trained first."""
    without = set() if arm.teacher is None else diverged(workspace, Arm(arm.teacher))
    if workspace.scale.teachers == "one":
        return set(range(workspace.scale.seeds)) if 0 in without else set()
    return without


def diverged(workspace: Workspace, arm: Arm) -> set[int]:
    """The seeds that were not trained to the end, or whose teacher was not; the arm is trained first.

    All of them, and nothing is trained, if no teacher is left.
    """
    without = untaught(workspace, arm)
    if len(without) == workspace.scale.seeds:
        return without
    outcomes = files.read_json(training(workspace, arm) / "summary.json")["replicas"]
    return without | {place for place, outcome in enumerate(outcomes) if outcome["diverged"]}


def training(workspace: Workspace, arm: Arm) -> Path:
    """The training run of an arm: checkpoints of all its seeds, metrics.jsonl, summary.json.

    If all its seeds diverged, the summary has only what is known of them.
    """
    scale, task = workspace.scale, workspace.data
    model, config = scale.models[arm.student], scale.config(arm)
    inputs = {"prepared": prepared(workspace)}
    if arm.teacher is not None:
        inputs["teacher"] = teaching(workspace, Arm(arm.teacher))

    def make(directory: Path) -> None:
        summarised = directory / "summary.json"
        if not distributed.agreed(summarised.exists()):  # it is if a run was killed at its end
            summary = _trained(workspace, arm, inputs, directory)
            distributed.by_first(lambda: files.write_json(summarised, summary))
        # The run is over: its optimiser's state is of no use.
        distributed.by_first(lambda: files.remove(directory / "last"))

    settings = [scale.setup, task.learned_from, model, config, scale.teachers if arm.teacher else None]
    return workspace.stage(f"train-{arm.key}", settings, inputs, make, resumable=True, together=True)


def _trained(workspace: Workspace, arm: Arm, inputs: Mapping[str, Path], directory: Path) -> dict:
    """Train an arm; returns what is known of the run."""
    scale, task = workspace.scale, workspace.data
    given = scale.models[arm.student], task.vocabularies, scale.config(arm), shapes(workspace)
    try:
        run = Run(*given, teacher=inputs.get("teacher"), teachers=scale.teachers)
        summary = train_model(run, task.train, task.valid, directory, arm.key)._asdict()
        del summary["best"], summary["last"]
    except loop.Diverged as error:
        progress.log(f"{error}; no seed of {arm.label} is left, the study goes on without it")
        summary = {"replicas": error.replicas}
    summary["replicas"] = [outcome._asdict() for outcome in summary["replicas"]]
    return plain(summary)


def teaching(workspace: Workspace, teacher: Arm) -> Path:
    """The checkpoint that a teacher's students learn from."""
    return training(workspace, teacher) / workspace.scale.teaching


def teaches(workspace: Workspace, arm: Arm) -> bool:
    """Whether an arm is some student's teacher."""
    return arm.teacher is None and any(other.teacher == arm.student for other in workspace.scale.arms)


# Evaluation


def evaluated(workspace: Workspace, arm: Arm) -> set[int]:
    """Train and evaluate an arm; returns the seeds that are left out, and evaluates nothing if those are all."""
    left_out = diverged(workspace, arm)
    if len(left_out) < workspace.scale.seeds:
        evaluation(workspace, arm)
        if teaches(workspace, arm):
            lesson(workspace, arm)
    return left_out


def evaluation(workspace: Workspace, arm: Arm) -> Path:
    """Of each seed: its decisions on the test sets, its confidence on the validation set, loss and perplexity."""
    run, task = training(workspace, arm), workspace.data
    measured = {"valid": task.valid} | {name: test.encoded for name, test in task.tests.items() if test.calibrated}

    def measure(model: Model, params) -> dict[str, np.ndarray]:
        found = {f"decisions_{name}": predictions.decisions(model, params, test) for name, test in task.tests.items()}
        for name, encoded in measured.items():
            labels = predictions.at_labels(model, params, encoded, _batch(workspace, arm), shapes(workspace))
            found |= {f"{name}_{key}": getattr(labels, key) for key in ("nats", "count", "confidence", "correct")}
        return found

    inputs = {"run": run, "prepared": prepared(workspace)}
    settings = [workspace.scale.setup, task.learned_from, task.tested_on]
    return workspace.stage(
        f"evaluate-{arm.key}", settings, inputs, lambda to: _save(to / "predictions.npz", run / END, measure)
    )


def lesson(workspace: Workspace, teacher: Arm) -> Path:
    """What a teacher is when it teaches, of each seed: its decisions on the test set, its vectors of the mapped
    examples, and of its soft targets on training examples the entropy and whether they are right.

    A teacher that has its training set by heart has an entropy of nearly 0: its soft targets are the labels.
    """
    taught_by, soft, task = teaching(workspace, teacher), workspace.scale.soft, workspace.data
    shown = first(task.train, TAUGHT)

    def measure(model: Model, params) -> dict[str, np.ndarray]:
        given = model, params, shown, _batch(workspace, teacher), shapes(workspace)
        labels = predictions.at_labels(*given, soft.temperature, soft.teacher_dropout)
        return {
            "entropy": labels.entropy.mean(),
            "right": labels.correct.mean(),
            "decisions_test": predictions.decisions(model, params, task.tests["test"]),
            "vectors": predictions.vectors(model, params, task.mapped).astype(np.float32),
        }

    dropout = ["dropout"] if soft.teacher_dropout else []
    settings = [workspace.scale.setup, task.learned_from, task.tested_on, soft.temperature, TAUGHT, *dropout]
    inputs = {"teacher": taught_by, "prepared": prepared(workspace)}
    return workspace.stage(
        f"lesson-{teacher.key}", settings, inputs, lambda to: _save(to / "lesson.npz", taught_by, measure)
    )


def lesson_of(workspace: Workspace, teacher: Arm) -> dict[str, np.ndarray]:
    """The arrays of a lesson, [R,...] each."""
    return read_arrays(lesson(workspace, teacher) / "lesson.npz")


def _batch(workspace: Workspace, arm: Arm) -> BatchConfig:
    return workspace.scale.training[arm.student].batch


def _save(path: Path, checkpoints: Path, measure: Callable[[Model, Any], Mapping[str, np.ndarray]]) -> None:
    """What is measured of each seed's model and params, stacked [R,...]."""
    seeds = [measure(found.model, found.params) for found in checkpoint.load_all(checkpoints)]
    np.savez_compressed(path, **{key: np.stack([found[key] for found in seeds]) for key in seeds[0]})


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file; objects in it are refused."""
    with np.load(path, allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


# Representations


def vectors(workspace: Workspace, arm: Arm) -> Path:
    """Penultimate vectors of the mapped examples: of each seed at its end, and along its path if that is shown."""
    run, mapped, shown = training(workspace, arm), workspace.data.mapped, arm in workspace.scale.paths

    def make(directory: Path) -> None:
        places = {END: run / END} | ({path.name: path for path in run.glob("epoch-*")} if shown else {})
        if shown:
            epochs = checkpoint.read_record(run / END)["metadata"]["run"]["position"][0]
            places[f"epoch-{epochs:04d}"] = run / END
        arrays = {
            f"{place}.{index}": predictions.vectors(found.model, found.params, mapped).astype(np.float32)
            for place, checkpoints in places.items()
            for index, found in enumerate(checkpoint.load_all(checkpoints))
        }
        np.savez_compressed(directory / "vectors.npz", **arrays)

    return workspace.stage(f"vectors-{arm.key}", [workspace.data.tested_on, shown], {"run": run}, make)


def drawn_map(workspace: Workspace, left_out: Mapping[Arm, set[int]]) -> Path:
    """Similarity of all models, their map, and learning paths in a map of their own.

    left_out: of each arm to be shown the replicas that diverged.
    """
    scale, arms = workspace.scale, tuple(left_out)
    teachers = [arm for arm in arms if teaches(workspace, arm)]
    inputs = {arm.key: vectors(workspace, arm) for arm in arms}
    inputs |= {f"lesson of {arm.key}": lesson(workspace, arm) for arm in teachers}

    def make(directory: Path) -> None:
        ends, paths = [], []
        for arm in arms:
            arrays = read_arrays(inputs[arm.key] / "vectors.npz")
            for key in sorted(arrays, key=lambda key: (int(key.rsplit(".", 1)[1]), _epoch(key))):
                place, index = key.rsplit(".", 1)
                if int(index) in left_out[arm]:
                    continue
                entry = {"arm": arm.label, "seed": scale.config(arm).seed + int(index)}
                matrix = representations.cosine_matrix(arrays[key])
                if place == END:
                    ends.append((int(index), entry, matrix))
                else:
                    paths.append(({**entry, "epoch": _epoch(key)}, matrix))
        lessons = {
            arm.student: {
                place: representations.cosine_matrix(found)
                for place, found in enumerate(lesson_of(workspace, arm)["vectors"])
                if place not in left_out[arm] and (scale.teachers == "each" or place == 0)
            }
            for arm in teachers
        }
        to_teachers = {arm.label: _to_teachers(workspace, arm, ends, lessons) for arm in arms}
        shown = _mapped([(entry, matrix) for _, entry, matrix in ends], paths, len(workspace.data.mapped.targets))
        files.write_json(directory / "map.json", {**shown, "to_teachers": to_teachers})

    settings: list = [[arm.label, sorted(left_out[arm])] for arm in arms]
    return workspace.stage("map", [*settings, *(["one"] if scale.teachers == "one" else [])], inputs, make)


def _epoch(key: str) -> int:
    """Of an array's name; -1: the end."""
    return -1 if key.startswith(END) else int(key.split(".")[0].removeprefix("epoch-"))


def _to_teachers(workspace: Workspace, arm: Arm, ends: list, lessons: Mapping[str, Mapping[int, np.ndarray]]) -> dict:
    """Teacher -> of each model of an arm, how similar it is to what taught it; alone, to all that teach others."""
    own = [(place, matrix) for place, entry, matrix in ends if entry["arm"] == arm.label]
    taught_by = {arm.teacher} if arm.teacher else lessons.keys() - {arm.student}
    each = workspace.scale.teachers == "each"
    similar = {}
    for teacher, known in lessons.items():
        if teacher in taught_by and known:
            others = [[known[place if each else 0]] if arm.teacher else known.values() for place, _ in own]
            pairs = zip(own, others, strict=True)
            similar[teacher] = [
                float(np.mean([representations.similarity(matrix, other) for other in of])) for (_, matrix), of in pairs
            ]
    return similar


def _mapped(ends: list, paths: list, examples: int) -> dict:
    """What results.json says of representations. ends, paths: (what it is, cosine matrix)."""
    similar = representations.similarities([matrix for _, matrix in ends])
    found = {
        "examples": examples,
        "models": [entry for entry, _ in ends],
        "similarity": similar.round(6).tolist(),
        "map": representations.embed(representations.distances(similar)).tolist(),
    }
    walked: dict[tuple, dict] = {}
    if paths:
        distances = representations.distances(representations.similarities([matrix for _, matrix in paths]))
        for (entry, _), point in zip(paths, representations.embed(distances).tolist(), strict=True):
            start = {"arm": entry["arm"], "seed": entry["seed"], "epochs": [], "points": []}
            path = walked.setdefault((entry["arm"], entry["seed"]), start)
            path["epochs"].append(entry["epoch"])
            path["points"].append(point)
    return {**found, "paths": list(walked.values())}
