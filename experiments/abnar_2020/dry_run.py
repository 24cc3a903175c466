"""What a scale would take, from shapes and configurations alone: nothing is trained, compiled or read.

Updates and FLOPs rest on the sizes of the data that a set-up is meant for; FLOPs are those of matrix products
(`performance.count_flops`) in the very step that training compiles. Of a teacher whose features are cached that is
its head; the pass that computes them is in the sum of all updates.
"""

import math
from collections.abc import Sequence

import jax
import numpy as np

from experiments.abnar_2020.arms import Arm
from experiments.abnar_2020.scale import SETUPS, Scale
from experiments.core import report
from seqkd_jax import models
from seqkd_jax.losses import LOSSES
from seqkd_jax.training import teacher_cache, train_step, trainer
from seqkd_jax.types import Batch
from seqkd_jax.utils import performance

WORDS = 15  # of an embedded sentence
CACHE_GIB = trainer.Run._field_defaults["teacher_cache_gib"]
HINT = "A CPU core makes some 1e10 to 5e10 of them a second in training: `performance.matrix_peak` measures its most."


def describe(scale: Scale, seeds: int, arms: Sequence[Arm]) -> str:
    """The dry run of some arms as Markdown."""
    examples = scale.embedded["train"] if scale.embedded else SETUPS[scale.setup].examples[scale.name]
    cells, total = [], 0.0
    for arm in arms:
        parameters, updates, flops, once = _estimate(scale, arm, seeds, examples)
        of_arm = updates * flops + once
        total += of_arm
        cells.append([arm.label, f"{parameters:,}", f"{updates:,}", f"{flops:.2g}", f"{of_arm:.2g}"])
    head = ["arm", "parameters of a seed", "updates", "FLOPs an update, all seeds", "FLOPs, all seeds"]
    title = f"## {scale.setup}, {scale.name}: {examples:,} training examples, {seeds} seed(s) at once"
    lines = [
        title,
        "",
        *report.markdown(head, cells, left=1),
        "",
        f"In all {total:.2g} FLOPs of matrix products.",
        HINT,
    ]
    return "\n".join(lines)


def _estimate(scale: Scale, arm: Arm, seeds: int, examples: int) -> tuple[int, int, float, float]:
    """Parameters of one seed; updates, FLOPs of each for all seeds, and of what is done once."""
    config = scale.config(arm, seeds)
    model = _build(scale, arm.student)
    in_epoch = math.ceil(examples / config.batch.sentences)
    updates = config.epochs * in_epoch
    taught = None if arm.teacher is None else _build(scale, arm.teacher)
    each = scale.teachers == "each" and seeds > 1
    teachers = seeds if each else 1
    known = None if taught is None else _params(taught, teachers)
    teacher = None if taught is None else train_step.Teacher(taught, known, each)
    assert LOSSES[config.loss.name].needs_teacher == (teacher is not None)
    device = tuple(jax.local_devices()[:1])
    update = train_step.update_for(model, config, device, teacher)
    state = jax.eval_shape(lambda: train_step.start_state(model, config))
    batch, once = _batch(scale, config.batch.sentences), 0.0
    if teacher and not config.loss.teacher_dropout:
        features, of_pass = _cached(taught, batch, teachers if each else None)
        if in_epoch * features.size * features.dtype.itemsize <= CACHE_GIB * teacher_cache.GIBIBYTE:
            batch, once = batch._replace(teacher_features=features), in_epoch * teachers * of_pass
    rows = jax.ShapeDtypeStruct((1, 1, config.batch.sentences), np.int32)
    flops = performance.count_flops(update, state, batch, rows, train_step.settings(config, 1.0), known)
    return models.parameter_count(model), updates, flops, once


def _cached(taught, batch: Batch, replicas: int | None) -> tuple[jax.ShapeDtypeStruct, float]:
    """A teacher's features of a batch, and the FLOPs in which one teacher finds them."""

    def find(params, inputs):
        return taught.features(params, inputs, None)

    arguments = _params(taught, 1), jax.ShapeDtypeStruct(batch.inputs.shape[2:], batch.inputs.dtype)
    found = jax.eval_shape(find, *arguments)
    rows, places, width = found.shape
    of_each = () if replicas is None else (replicas,)
    features = jax.ShapeDtypeStruct((1, 1, rows, places, *of_each, width), found.dtype)
    return features, performance.count_flops(jax.jit(find), *arguments)


def _build(scale: Scale, name: str):
    setup, words = SETUPS[scale.setup], scale.vocabulary + 4
    return models.build(scale.models[name], words if setup.length else 0, setup.classes or words)


def _params(model, replicas: int):
    params = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)))
    if replicas == 1:
        return params
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((replicas, *leaf.shape), leaf.dtype), params)


def _batch(scale: Scale, rows: int) -> Batch:
    setup = SETUPS[scale.setup]
    length = min(setup.length, WORDS) if scale.embedded else setup.length
    inputs = jax.ShapeDtypeStruct((1, 1, rows, length), np.int32)
    if not length:
        inputs = jax.ShapeDtypeStruct((1, 1, rows, 28, 28), np.uint8)
    labels = jax.ShapeDtypeStruct((1, 1, rows, 1 if setup.classes else length), np.int32)
    return Batch(inputs, labels, jax.ShapeDtypeStruct(labels.shape, np.float32))
