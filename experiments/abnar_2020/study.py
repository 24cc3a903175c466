"""The stages of the study, each a function of the data as models read them and of earlier stages. `pipeline.stage`
makes each once.

  prepared -> training of each arm, its teacher's first -> its predictions
                                                        -> what it teaches, if it does
                                                        -> its vectors -> map of all (maps.py)

An arm's seeds are trained at once, as replicas of one run. A stage is asked for by whoever needs it, so that asking for
one arm makes what that arm needs and no more.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.abnar_2020 import predictions
from experiments.abnar_2020.arms import Arm
from experiments.abnar_2020.scale import Scale
from experiments.abnar_2020.tasks import Task, first
from experiments.core import stages
from seqkd_jax import checkpoint, models
from seqkd_jax.config import BatchConfig
from seqkd_jax.data import batches, vocabulary
from seqkd_jax.training import loop
from seqkd_jax.training.run_state import plain
from seqkd_jax.training.trainer import Run, train_model
from seqkd_jax.types import Model
from seqkd_jax.utils import files, progress

# A run's checkpoint that is reported, as in the paper's code. Not that of the lowest validation loss, `best`: that loss
# rises after a few epochs, by confidence in what is wrong, while accuracy still grows.
END = "end"
TAUGHT = 4000  # training examples whose soft targets are looked at


class Study(NamedTuple):
    """A scale on its data."""

    scale: Scale
    task: Task  # the data as models read them
    root: Path  # where its stages are
    seeds: int
    make: bool = True  # False: only look up what is there; NotMade if it is not

    def stage(
        self, name: str, settings: Any, inputs: Mapping[str, Path], make: Callable, resumable=False, version=1
    ) -> Path:
        """One stage of this study."""
        make = make if self.make else None
        return stages.stage(name, settings, inputs, make, self.root, resumable=resumable, version=version)


def prepared(study: Study) -> Path:
    """The vocabularies and the batch shapes that all arms share."""
    scale = study.scale

    def make(directory: Path) -> None:
        vocabulary.save(study.task.vocabularies, directory)
        config = next(iter(scale.training.values())).batch
        plan = batches.make_plan(study.task.train, config)
        files.write_json(directory / "shapes.json", [list(shape) for shape in plan.shapes])

    settings = [scale.setup, study.task.learned_from, [config.batch for config in scale.training.values()]]
    return study.stage("prepared", settings, {}, make)


def shapes(study: Study) -> tuple[batches.Shape, ...]:
    """The batch shapes that all arms share."""
    return tuple(batches.Shape(*shape) for shape in files.read_json(prepared(study) / "shapes.json"))


def untaught(study: Study, arm: Arm) -> set[int]:
    """The seeds, by their places, whose teacher was not trained to the end; it is trained first."""
    without = set() if arm.teacher is None else diverged(study, Arm(arm.teacher))
    if study.scale.teachers == "one":
        return set(range(study.seeds)) if 0 in without else set()
    return without


def diverged(study: Study, arm: Arm) -> set[int]:
    """The seeds that were not trained to the end, or whose teacher was not; the arm is trained first.

    All of them, and nothing is trained, if no teacher is left.
    """
    without = untaught(study, arm)
    if len(without) == study.seeds:
        return without
    told = files.read_json(training(study, arm) / "summary.json")["replicas"]
    return without | {place for place, replica in enumerate(told) if replica["diverged"]}


def training(study: Study, arm: Arm) -> Path:
    """The training run of an arm: checkpoints of all its seeds, metrics.jsonl, summary.json.

    If all its seeds diverged, the summary has only what is known of them.
    """
    scale = study.scale
    model, config = scale.models[arm.student], scale.config(arm, study.seeds)
    inputs = {"prepared": prepared(study)}
    if arm.teacher is not None:
        inputs["teacher"] = teaching(study, Arm(arm.teacher))

    def make(directory: Path) -> None:
        if (directory / "summary.json").exists():  # killed between the end of training and the stage's
            files.remove(directory / "last")
            return
        given = study.task
        run = Run(
            model,
            given.vocabularies,
            config,
            shapes(study),
            teacher=inputs.get("teacher"),
            teachers=scale.teachers,
        )
        try:
            told = train_model(run, given.train, given.valid, directory, arm.key)._asdict()
            del told["best"], told["last"]
        except loop.Diverged as error:
            progress.log(f"{error}; no seed of {arm.label} is left, the study goes on without it")
            told = {"replicas": error.replicas}
        told["replicas"] = [outcome._asdict() for outcome in told["replicas"]]
        files.write_json(directory / "summary.json", plain(told))
        files.remove(directory / "last")  # the run is over: its optimiser's state is of no use

    settings = [scale.setup, study.task.learned_from, model, config, scale.teachers if arm.teacher else None]
    return study.stage(f"train-{arm.key}", settings, inputs, make, resumable=True)


def teaching(study: Study, teacher: Arm) -> Path:
    """The checkpoint that a teacher's students learn from."""
    return training(study, teacher) / study.scale.teaching


def evaluation(study: Study, arm: Arm) -> Path:
    """Of each seed: its decisions on the test sets, its confidence on the validation set, loss and perplexity."""
    run, task = training(study, arm), study.task
    measured = {"valid": task.valid} | {name: test.encoded for name, test in task.tests.items() if test.calibrated}

    def say(model: Model, params) -> dict[str, np.ndarray]:
        said = {f"decisions_{name}": predictions.decisions(model, params, test) for name, test in task.tests.items()}
        for name, encoded in measured.items():
            labels = predictions.at_labels(model, params, encoded, _batch(study, arm), shapes(study))
            said |= {f"{name}_{key}": getattr(labels, key) for key in ("nats", "count", "confidence", "correct")}
        return said

    inputs = {"run": run, "prepared": prepared(study)}
    settings = [study.scale.setup, task.learned_from, task.tested_on]
    return study.stage(
        f"evaluate-{arm.key}", settings, inputs, lambda to: _save(to / "predictions.npz", run / END, say)
    )


def lesson(study: Study, teacher: Arm) -> Path:
    """What a teacher is when it teaches, of each seed: its decisions on the test set, its vectors of the mapped
    examples, and of its soft targets on training examples the entropy and whether they are right.

    A teacher that has its training set by heart has an entropy of nearly 0: its soft targets are the labels.
    """
    taught_by, soft, task = teaching(study, teacher), study.scale.soft, study.task
    shown = first(task.train, TAUGHT)

    def say(model: Model, params) -> dict[str, np.ndarray]:
        given = model, params, shown, _batch(study, teacher), shapes(study)
        labels = predictions.at_labels(*given, soft.temperature, soft.teacher_dropout)
        return {
            "entropy": labels.entropy.mean(),
            "right": labels.correct.mean(),
            "decisions_test": predictions.decisions(model, params, task.tests["test"]),
            "vectors": predictions.vectors(model, params, task.mapped).astype(np.float32),
        }

    dropout = ["dropout"] if soft.teacher_dropout else []
    settings = [study.scale.setup, task.learned_from, task.tested_on, soft.temperature, TAUGHT, *dropout]
    inputs = {"teacher": taught_by, "prepared": prepared(study)}
    return study.stage(f"lesson-{teacher.key}", settings, inputs, lambda to: _save(to / "lesson.npz", taught_by, say))


def _batch(study: Study, arm: Arm) -> BatchConfig:
    return study.scale.training[arm.student].batch


def _save(path: Path, checkpoints: Path, say: Callable[[Model, Any], Mapping[str, np.ndarray]]) -> None:
    """What `say` has of each seed's model and params, stacked [R,...]."""
    seeds = [say(found.model, found.params) for found in checkpoint.load_all(checkpoints)]
    np.savez_compressed(path, **{key: np.stack([said[key] for said in seeds]) for key in seeds[0]})


def lesson_of(study: Study, teacher: Arm) -> dict[str, np.ndarray]:
    """The arrays of a lesson, [R,...] each."""
    return read_arrays(lesson(study, teacher) / "lesson.npz")


def teaches(study: Study, arm: Arm) -> bool:
    """Whether an arm is some student's teacher."""
    return arm.teacher is None and any(other.teacher == arm.student for other in study.scale.arms)


def evaluated(study: Study, arm: Arm) -> set[int]:
    """Train and evaluate an arm; returns the seeds that are left out, and evaluates nothing if those are all."""
    left_out = diverged(study, arm)
    if len(left_out) < study.seeds:
        evaluation(study, arm)
        if teaches(study, arm):
            lesson(study, arm)
    return left_out


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file; objects in it are refused."""
    with np.load(path, allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


def parameters(study: Study, student: str) -> int:
    """Of a model, found without making it."""
    sizes = study.task.vocabularies
    return models.parameter_count(models.build(study.scale.models[student], sizes.source.size, sizes.target.size))
