"""The study as a value: what its command takes, which scale that means, what a dry run must know."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import jax
import numpy as np

from experiments.abnar_2020 import charts, claims, findings, pipeline, plots, results, tables, tasks
from experiments.abnar_2020.arms import Arm
from experiments.abnar_2020.scales import scale_of
from experiments.abnar_2020.setups import QUIRKS, SETUPS, Quirk, Scale, computed
from experiments.core import dry_run
from experiments.core.study import Options, Study, Workspace
from seqkd_jax import models
from seqkd_jax.config import ComputeType
from seqkd_jax.training import teacher_cache, trainer
from seqkd_jax.types import Batch, Model, UserError
from seqkd_jax.utils import performance

MOST_SEEDS = 1024  # as `seqkd train --replicas` has it


@dataclass(frozen=True, kw_only=True)
class Command(Options):
    """Abnar et al. 2020: models of several architectures alone, and each taught by the others; tables beside theirs."""

    scenario: Literal["agreement", "digits"] = "agreement"
    """Subject-verb agreement, or digits."""
    setup: Literal["lm", "classification"] | None = None
    """Of agreement: language models, or classifiers of the verb's number (None)."""
    scale: Literal["smoke", "small", "controls", "paper"] = "smoke"
    """smoke: minutes, on toy data; small: hours on two cores; controls: small, with arms that differ in one thing each
    and tell what an effect comes from; paper: the published sizes."""
    seeds: int | None = None
    """So many seeds of each arm, trained at once (None: the scale's)."""
    quirks: tuple[Quirk, ...] = ()
    """Do as the paper's code does: teachers keep their dropout; the teacher's term is divided by T², not multiplied."""
    alpha: float = 1.0
    """Of a student's loss, the weight of its teacher's distribution; the label has the rest (the paper: 1)."""
    teachers: Literal["one", "each"] = "each"
    """each: every seed of a student is taught by that seed of its teacher; one: all by the first."""
    compute: ComputeType = "float32"
    """Type of matrix products and activations of all models of sentences. bfloat16_products is faster on CPUs with
    bfloat16 in their vector units."""


def scales(command: Command) -> dict[str, Scale]:
    """The one scale that is asked for, by the name of its directory."""
    if command.seeds is not None and not 1 <= command.seeds <= MOST_SEEDS:
        raise UserError(f"--seeds {command.seeds}: at least 1, and at most {MOST_SEEDS:,}")
    if not 0 < command.alpha <= 1:
        raise UserError(f"--alpha {command.alpha:g}: above 0, and at most 1")
    scale = scale_of(command.scenario, command.setup, command.scale, command.quirks)
    scale = computed(scale, command.compute)
    soft = replace(scale.soft, alpha=command.alpha)
    scale = replace(scale, teachers=command.teachers, soft=soft, seeds=command.seeds or scale.seeds)
    parts = [scale.setup, scale.name, *(name for name in QUIRKS if name in command.quirks)]
    parts += ["one_teacher"] * (command.teachers == "one") + [f"alpha_{command.alpha:g}"] * (command.alpha != 1)
    parts += [command.compute] * (command.compute != "float32")
    return {"-".join(parts): scale}


def size(workspace: Workspace) -> str:
    """How many sentences or digits each split has."""
    counts = {name: count for name, count in workspace.data.counts.items() if name in ("train", "valid", "test")}
    examples = "digits" if workspace.scale.setup == "images" else "sentences"
    return f"{', '.join(f'{count:,} {name}' for name, count in counts.items())} {examples}"


def needs(scale: Scale, arm: Arm) -> Iterable[Arm]:
    """Its teacher, and what that is chosen by."""
    return scale.needs(arm)


# Dry run

WORDS = 15  # of a sentence of the toy language


def plan(scale: Scale, arm: Arm) -> dry_run.Plan:
    """What a dry run must know of an arm's training, on data of the size that its set-up is meant for.

    Of a teacher whose features are kept for all epochs a step computes the head; the pass that finds them is in `once`.
    """
    config = scale.config(arm)
    in_epoch = math.ceil(scale.examples / config.batch.sentences / (2 if scale.way(arm).learns else 1))
    batch, once = _batch(scale, config.batch.sentences), 0.0
    teacher, each = None if arm.teacher is None else build(scale, arm.teacher), scale.teachers == "each"
    if teacher and not config.loss.teacher_dropout:
        count = scale.seeds if each and scale.seeds > 1 else 1
        features, flops = _pass_of(teacher, batch, count)
        if in_epoch * features.size * features.dtype.itemsize <= CACHE_GIB * teacher_cache.GIBIBYTE:
            batch, once = batch._replace(teacher_features=features), in_epoch * count * flops
    return dry_run.Plan(
        model=build(scale, arm.student),
        config=config,
        updates=config.epochs * in_epoch,
        batch=batch,
        largest=_batch(scale, config.batch.sentences),
        teacher=teacher,
        each=each and scale.seeds > 1,
        once=once,
    )


def further(scale: Scale, arms: Sequence[Arm]) -> list[tuple[str, float]]:
    """The search for the rate and dropout of every model of these arms, and its FLOPs."""
    if scale.search is None:
        return []
    found, search = [], scale.search
    for name in dict.fromkeys(arm.student for arm in arms):
        alone = plan(scale, Arm(name))
        in_epoch = alone.updates // alone.config.epochs
        updates = len(search.rates) * search.updates + len(search.dropouts) * search.epochs * in_epoch
        found.append((f"search for {name}", updates * dry_run.update_flops(alone) / scale.seeds))
    return found


CACHE_GIB = trainer.Run._field_defaults["teacher_cache_gib"]


def build(scale: Scale, name: str) -> Model:
    """A model with the scale's whole vocabulary."""
    setup, words = SETUPS[scale.setup], scale.vocabulary + 4
    return models.build(scale.models[name], words if setup.length else 0, setup.classes or words)


def _batch(scale: Scale, rows: int) -> Batch:
    """A batch of shapes without content."""
    setup = SETUPS[scale.setup]
    length = min(setup.length, WORDS) if scale.toy else setup.length
    inputs = jax.ShapeDtypeStruct((rows, length), np.int32)
    if not length:
        inputs = jax.ShapeDtypeStruct((rows, 28, 28), np.uint8)
    labels = jax.ShapeDtypeStruct((rows, 1 if setup.classes else length), np.int32)
    return Batch(inputs, labels, jax.ShapeDtypeStruct(labels.shape, np.float32))


def _pass_of(teacher: Model, batch: Batch, count: int) -> tuple[jax.ShapeDtypeStruct, float]:
    """The features of so many teachers for a batch, and the FLOPs in which one of them finds its own."""

    def find(params, inputs):
        return teacher.features(params, inputs, None)

    params = jax.eval_shape(teacher.init, jax.eval_shape(lambda: jax.random.key(0)))
    found = jax.eval_shape(find, params, batch.inputs)
    rows, places, width = found.shape
    features = jax.ShapeDtypeStruct((rows, places, *([count] if count > 1 else []), width), found.dtype)
    return features, performance.count_flops(jax.jit(find), params, batch.inputs)


ABOUT = (
    "[Transferring Inductive Biases through Knowledge Distillation](https://arxiv.org/abs/2006.00555): a model whose "
    "architecture favours the right generalisation teaches one whose architecture does not, and hands that on with its "
    "soft targets. LSTMs teach Transformers the agreement of subject and verb, as language models and as classifiers; "
    "a CNN teaches an MLP digits, which are tested shrunk and moved. mu: accuracy; D: its mean over the distances of "
    "subject and verb; A: its mean over numbers of attractors, nouns between the two of the other number."
)

STUDY = Study(
    name="abnar_2020",
    title="Abnar et al. 2020",
    about=ABOUT,
    options=Command,
    scales=scales,
    load=tasks.load,
    size=size,
    arms=lambda scale: scale.arms,
    needs=needs,
    evaluate=pipeline.evaluated,
    collect=results.collect,
    plan=plan,
    further=further,
    required=("arm", "student", "teacher", "metrics"),
    claims=claims.claims,
    sections=tables.sections,
    plots=plots.PLOTS,
    charts=charts.CHARTS,
    headline=findings.headline,
    findings=findings.findings,
)
