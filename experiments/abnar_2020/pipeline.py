"""The stages of the study, each a function of the data as models read them and of earlier stages' directories.

  prepared -> training of each arm, its teacher's first -> its predictions
           -> what a teacher is when it teaches (lesson) -> its vectors -> map of all

`stages.stage` makes each once. An arm's seeds are trained at once, as replicas of one run. A stage is asked for by
whoever needs it, so that asking for one arm makes what that arm needs and no more.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.abnar_2020 import predictions, search
from experiments.abnar_2020.arms import MATCHED, Arm
from experiments.abnar_2020.setups import Scale, with_dropout
from experiments.abnar_2020.tasks import first, half
from experiments.core.study import Workspace
from seqkd_jax import checkpoint, distributed
from seqkd_jax.config import BatchConfig, ModelConfig, TrainConfig
from seqkd_jax.data import batches, vocabulary
from seqkd_jax.evaluation import representations
from seqkd_jax.training import loop
from seqkd_jax.training.run_state import STEPS, plain
from seqkd_jax.training.trainer import Run, train_model
from seqkd_jax.types import Model
from seqkd_jax.utils import files, progress

# A run's checkpoint that is reported, as in the paper's code. Not that of the lowest validation loss, `best`: that loss
# rises after a few epochs, by confidence in what is wrong, while accuracy still grows.
END = "end"
TAUGHT = 4000  # training examples whose soft targets are measured


# Training


def setting(workspace: Workspace, arm: Arm) -> tuple[ModelConfig, TrainConfig]:
    """What an arm trains and how, with the rate and dropout that were chosen if its scale has a search."""
    scale = workspace.scale
    model, config = scale.model(arm), scale.config(arm)
    if scale.search is None:
        return model, config
    chosen = files.read_json(searched(workspace, arm.student) / search.TRIED)["chosen"]
    optimiser = dataclasses.replace(config.optimiser, learning_rate=chosen["rate"])
    return with_dropout(model, chosen["dropout"]), dataclasses.replace(config, optimiser=optimiser)


def searched(workspace: Workspace, name: str) -> Path:
    """Which rates and dropouts were tried for a model, and what was chosen."""
    return search.searched(workspace, name, prepared(workspace), shapes(workspace))


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
    """The seeds, by their places, whose teacher was not trained to the end, or what that is chosen by; both come
    first."""
    scale = workspace.scale
    without = set().union(*(diverged(workspace, needed) for needed in scale.needs(arm)))
    if scale.teachers == "one":
        return set(range(scale.seeds)) if 0 in without else set()
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
    (model, config), learns = setting(workspace, arm), scale.way(arm).learns
    inputs = {"prepared": prepared(workspace)}
    if arm.teacher is not None:
        inputs["teacher"] = teaching(workspace, arm)

    def make(directory: Path) -> None:
        summarised = directory / "summary.json"
        if not distributed.agreed(summarised.exists()):  # it is if a run was killed at its end
            summary = _trained(workspace, arm, inputs, directory)
            distributed.by_first(lambda: files.write_json(summarised, summary))
        # The run is over: its optimiser's state is of no use.
        distributed.by_first(lambda: files.remove(directory / "last"))

    settings = [scale.setup, task.learned_from, model, config, scale.teachers if arm.teacher else None]
    settings += [f"half {learns}"] if learns else []
    return workspace.stage(f"train-{arm.key}", settings, inputs, make, resumable=True, together=True)


def _trained(workspace: Workspace, arm: Arm, inputs: Mapping[str, Path], directory: Path) -> dict:
    """Train an arm; returns what is known of the run."""
    scale, task = workspace.scale, workspace.data
    model, config = setting(workspace, arm)
    given = model, task.vocabularies, config, shapes(workspace)
    try:
        run = Run(*given, teacher=inputs.get("teacher"), teachers=scale.teachers)
        summary = train_model(run, learned(workspace, arm), task.valid, directory, arm.key)._asdict()
        del summary["best"], summary["last"]
    except loop.Diverged as error:
        progress.log(f"{error}; no seed of {arm.label} is left, the study goes on without it")
        summary = {"replicas": error.replicas}
    summary["replicas"] = [outcome._asdict() for outcome in summary["replicas"]]
    return plain(summary)


def learned(workspace: Workspace, arm: Arm) -> batches.Encoded:
    """The training examples of an arm."""
    train, learns = workspace.data.train, workspace.scale.way(arm).learns
    return half(train, learns) if learns else train


def teaching(workspace: Workspace, arm: Arm) -> Path:
    """The checkpoint that a taught arm learns from."""
    scale = workspace.scale
    place = scale.way(arm).teaching or scale.teaching
    return matched(workspace, arm) if place == MATCHED else training(workspace, scale.teacher(arm)) / place


def matched(workspace: Workspace, arm: Arm) -> Path:
    """Of each seed of an arm's teacher the kept checkpoint whose validation loss is nearest to that of the same seed of
    the student's architecture alone at its end; the earlier of two that are as near.

    A teacher that is no better a model than its student would be alone: what it hands on is something else.
    """
    scale = workspace.scale
    teacher, alone = (training(workspace, needed) for needed in scale.needs(arm))

    def make(directory: Path) -> None:
        wanted = [history[-1]["loss"] for history in _histories(alone)]
        steps = {int(path.name.removeprefix("step-")): path for path in teacher.glob(STEPS)}
        chosen = [
            min((entry for entry in history if entry["step"] in steps), key=lambda entry: abs(entry["loss"] - loss))
            for history, loss in zip(_histories(teacher), wanted, strict=True)
        ]
        found = [checkpoint.load(steps[entry["step"]], replica=place) for place, entry in enumerate(chosen)]
        params = jax.tree.map(lambda *leaves: np.stack(list(map(np.asarray, leaves))), *(one.params for one in found))
        made = {"model_config": found[0].model_config, "vocabularies": found[0].vocabularies, "replicas": len(found)}
        checkpoint.save(directory / "checkpoint", params, metadata={}, **made)
        files.write_json(directory / "chosen.json", {"wanted": wanted, "chosen": chosen})

    made = workspace.stage(f"matched-{arm.key}", "nearest in loss", {"teacher": teacher, "alone": alone}, make)
    return made / "checkpoint"


def _histories(run: Path) -> list[list[dict]]:
    """Of each seed of a run its validations."""
    return [outcome["history"] for outcome in files.read_json(run / "summary.json")["replicas"]]


def students_of(scale: Scale, teacher: Arm) -> list[Arm]:
    """The plain arms that an arm taught; any of them says what it is when it teaches."""
    return [other for other in scale.arms if not other.way and scale.teacher(other) == teacher]


# Evaluation


def evaluated(workspace: Workspace, arm: Arm) -> set[int]:
    """Train and evaluate an arm; returns the seeds that are left out, and evaluates nothing if those are all."""
    left_out = diverged(workspace, arm)
    if len(left_out) < workspace.scale.seeds:
        evaluation(workspace, arm)
        for taught in [arm] if arm.teacher else students_of(workspace.scale, arm)[:1]:
            lesson(workspace, taught)
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


def lesson(workspace: Workspace, arm: Arm) -> Path:
    """What taught an arm, as it is when it teaches, of each seed: its decisions on the test set, its vectors of the
    mapped examples, and of its soft targets on the arm's training examples the entropy and whether they are right.

    A teacher that has its training set by heart has an entropy of nearly 0: its soft targets are the labels.
    """
    taught_by, soft, task = teaching(workspace, arm), workspace.scale.loss(arm), workspace.data
    teacher, learns = workspace.scale.teacher(arm), workspace.scale.way(arm).learns
    shown = first(learned(workspace, arm), TAUGHT)

    def measure(model: Model, params) -> dict[str, np.ndarray]:
        given = model, params, shown, _batch(workspace, teacher), shapes(workspace)
        labels = predictions.at_labels(*given, soft.temperature, soft.teacher_dropout)
        return {
            "entropy": labels.entropy.mean(),
            "right": labels.correct.mean(),
            "decisions_test": predictions.decisions(model, params, task.tests["test"]),
            "vectors": predictions.vectors(model, params, task.mapped).astype(np.float32),
        }

    more = [*(["dropout"] if soft.teacher_dropout else []), *([f"half {learns}"] if learns else [])]
    settings = [workspace.scale.setup, task.learned_from, task.tested_on, soft.temperature, TAUGHT, *more]
    inputs = {"teacher": taught_by, "prepared": prepared(workspace)}
    return workspace.stage(
        f"lesson-{teacher.key}", settings, inputs, lambda to: _save(to / "lesson.npz", taught_by, measure)
    )


def lesson_of(workspace: Workspace, arm: Arm) -> dict[str, np.ndarray]:
    """The arrays of a lesson, [R,...] each."""
    return read_arrays(lesson(workspace, arm) / "lesson.npz")


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
    of_teachers = {arm: found[0] for arm in arms if arm.teacher is None and (found := students_of(scale, arm))}
    inputs = {arm.key: vectors(workspace, arm) for arm in arms}
    inputs |= {f"lesson of {arm.key}": lesson(workspace, taught) for arm, taught in of_teachers.items()}
    inputs |= {f"lesson of {arm.key}": lesson(workspace, arm) for arm in arms if arm.teacher and arm.way}

    def make(directory: Path) -> None:
        ends, paths = [], []
        for arm in arms:
            arrays, walked = read_arrays(inputs[arm.key] / "vectors.npz"), 0
            for key in sorted(arrays, key=lambda key: (int(key.rsplit(".", 1)[1]), _epoch(key))):
                place, index = key.rsplit(".", 1)
                if int(index) in left_out[arm]:
                    continue
                entry = {"arm": arm.label, "seed": scale.config(arm).seed + int(index)}
                if place == END:
                    walked += 1
                    ends.append((int(index), entry, representations.cosine_matrix(arrays[key])))
                elif walked <= (scale.path_seeds or walked):
                    paths.append(({**entry, "epoch": _epoch(key)}, representations.cosine_matrix(arrays[key])))
        to_teachers = {arm.label: _to_teachers(workspace, arm, ends, of_teachers, left_out) for arm in arms}
        shown = _mapped([(entry, matrix) for _, entry, matrix in ends], paths, len(workspace.data.mapped.targets))
        files.write_json(directory / "map.json", {**shown, "to_teachers": to_teachers})

    settings: list = [[arm.label, sorted(left_out[arm])] for arm in arms]
    settings += ["one"] if scale.teachers == "one" else []
    settings += [f"{scale.path_seeds} paths"] if scale.path_seeds else []
    return workspace.stage("map", settings, inputs, make, version=2)


def _epoch(key: str) -> int:
    """Of an array's name; -1: the end."""
    return -1 if key.startswith(END) else int(key.split(".")[0].removeprefix("epoch-"))


def _to_teachers(
    workspace: Workspace,
    arm: Arm,
    ends: list,
    of_teachers: Mapping[Arm, Arm],
    left_out: Mapping[Arm, set[int]],
) -> dict[str, list]:
    """Teacher -> of each model of an arm, how similar it is to what taught it; alone, to each seed of all that teach
    others. of_teachers: teacher -> an arm that it taught."""
    own = [(place, matrix) for place, entry, matrix in ends if entry["arm"] == arm.label]
    each = workspace.scale.teachers == "each"

    def taught(by: Arm, without: Collection[int] = ()) -> dict[int, np.ndarray]:
        found = lesson_of(workspace, by)["vectors"]
        used = [place for place in range(len(found)) if place not in without and (each or place == 0)]
        return {place: representations.cosine_matrix(found[place]) for place in used}

    if arm.teacher:
        known = taught(arm) if own else {}
        similar = [representations.similarity(matrix, known[place if each else 0]) for place, matrix in own]
        return {arm.teacher: similar} if own else {}
    others = {teacher: student for teacher, student in of_teachers.items() if teacher.student != arm.student}
    known = {teacher.student: list(taught(by, left_out[teacher]).values()) for teacher, by in others.items()}
    return {
        name: [[representations.similarity(matrix, other) for other in of] for _, matrix in own]
        for name, of in known.items()
        if of
    }


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
