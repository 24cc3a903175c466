"""What a scale would take, from shapes and configurations alone: nothing is trained, compiled or read.

Updates and FLOPs rest on FACTS, the sizes of the data that the scale is meant for; FLOPs are those of matrix products
(`performance.count_flops`) in the very step that training compiles, teacher included.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from experiments import report
from experiments.abnar_2020.arms import Arm
from experiments.abnar_2020.scales import Scale
from seqkd_jax import models, performance, train
from seqkd_jax.base import Batch
from seqkd_jax.losses import LOSSES


class Facts(NamedTuple):
    """Of a training set."""

    examples: int
    length: int  # ids of an example, about, padding included; 0: images


# Mean lengths of data/agreement, of a whole sentence and of what stands before the verb, with some padding.
FACTS = {
    ("classification", "small"): Facts(39_929, 12),
    ("lm", "small"): Facts(39_929, 27),
    ("images", "small"): Facts(60_000, 0),
    ("classification", "paper"): Facts(157_700, 12),
    ("lm", "paper"): Facts(157_700, 27),
    ("images", "paper"): Facts(60_000, 0),
}
WORDS = 15  # of an embedded sentence


def describe(scale: Scale, seeds: int, arms: Sequence[Arm]) -> str:
    """The dry run of some arms as Markdown."""
    facts = _facts(scale)
    cells, total = [], 0.0
    for arm in arms:
        parameters, updates, flops = _estimate(scale, arm, seeds, facts)
        total += updates * flops
        cells.append([arm.label, f"{parameters:,}", f"{updates:,}", f"{flops:.2g}", f"{updates * flops:.2g}"])
    head = ["arm", "parameters", "updates", "FLOPs an update", "FLOPs"]
    title = f"## {scale.setup}, {scale.name}: {facts.examples:,} training examples, {seeds} seed(s) at once"
    lines = [title, "", *report.markdown(head, cells, left=1), "", f"In all {total:.2g} FLOPs of matrix products."]
    return "\n".join(lines)


def _facts(scale: Scale) -> Facts:
    if scale.embedded:
        return Facts(scale.embedded["train"], 0 if scale.setup == "images" else WORDS)
    return FACTS[scale.setup, scale.name]


def _estimate(scale: Scale, arm: Arm, seeds: int, facts: Facts) -> tuple[int, int, float]:
    """Parameters of one seed; updates, and FLOPs of each for all seeds."""
    config = scale.config(arm, seeds)
    model = _build(scale, arm.student)
    updates = config.epochs * math.ceil(facts.examples / config.batch.sentences)
    taught = None if arm.teacher is None else _build(scale, arm.teacher)
    each = scale.teachers == "each" and seeds > 1
    known = None if taught is None else _params(taught, seeds if each else 1)
    teacher = None if taught is None else train.Teacher(taught, known, each)
    assert LOSSES[config.loss.name].needs_teacher == (teacher is not None)
    device = tuple(jax.local_devices()[:1])
    update = train.update_for(model, config, device, teacher)
    state = jax.eval_shape(lambda: train.start_state(model, config))
    batch = _batch(scale, config.batch.sentences, facts)
    rows = jax.ShapeDtypeStruct((1, 1, config.batch.sentences), np.int32)
    flops = performance.count_flops(update, state, batch, rows, train.settings(config, 1.0), known)
    return models.parameter_count(model), updates, flops


def _build(scale: Scale, name: str):
    words = scale.vocabulary + 4
    sizes = {"lm": (words, words), "classification": (words, 2), "images": (0, 10)}[scale.setup]
    return models.build(scale.models[name], *sizes)


def _params(model, replicas: int):
    params = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)))
    if replicas == 1:
        return params
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((replicas, *leaf.shape), leaf.dtype), params)


def _batch(scale: Scale, rows: int, facts: Facts) -> Batch:
    positions = facts.length if scale.setup == "lm" else 1
    inputs = (28, 28) if scale.setup == "images" else (facts.length,)
    ids = jax.ShapeDtypeStruct((1, 1, rows, *inputs), np.uint8 if scale.setup == "images" else np.int32)
    labels = jax.ShapeDtypeStruct((1, 1, rows, positions), np.int32)
    return Batch(ids, labels, jax.ShapeDtypeStruct(labels.shape, np.float32))
