"""What a scale would take, from shapes and configurations alone: nothing is trained, compiled or read.

Updates and FLOPs rest on the scale's `facts` about its data, so they are estimates; parameters are exact if the text
fills the vocabulary. FLOPs are those of matrix products (`performance.count_flops`), memory is that of one training
device at the largest batch shape.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from experiments.core import report
from experiments.kim_rush_2016.arms import ARMS, Arm
from experiments.kim_rush_2016.scales import Scale, label
from experiments.kim_rush_2016.study import Row, rows, start_of, train_config
from seqkd_jax import models
from seqkd_jax.config import BatchConfig, ModelConfig, SearchConfig, TrainConfig
from seqkd_jax.losses import LOSSES, arguments_from, over_positions
from seqkd_jax.training import train_step
from seqkd_jax.types import Batch, Translator
from seqkd_jax.utils import performance

PADDING = 1.1  # cells for each id in a bucketed batch, about


class Estimate(NamedTuple):
    """One row of the dry run."""

    parameters: int
    updates: int
    memory: performance.Memory  # bytes on a device
    flops: float  # of the whole training


def describe(scale: Scale, devices: int, chosen: list[Row] | None = None) -> str:
    """The dry run of a scale as Markdown."""
    facts = scale.facts
    lines = [
        f"## {scale.name}",
        "",
        f"{facts.pairs:,} training pairs of about {facts.source_length:g} and {facts.target_length:g} ids (assumed), "
        f"vocabulary {scale.vocabulary.size:,} ({scale.vocabulary.kind}), {devices} device(s)",
        "",
    ]
    head = ["model", "arm", "parameters", "updates", "memory per device", "training FLOPs"]
    cells, total = [], 0.0
    chosen = with_what_they_need(scale, rows(scale) if chosen is None else chosen)
    for row in chosen:
        found = estimate(scale, row, devices)
        total += found.flops
        memory = f"{found.memory.total / 2**20:,.0f} MiB"
        numbers = [f"{found.parameters:,}", f"{found.updates:,}", memory, f"{found.flops:.2g}"]
        cells.append([label(row.model), row.arm.name, *numbers])
    lines += report.markdown(head, cells, left=2)
    lines += ["", "Memory: weights, gradients, moments, a teacher for Word-KD, and what the backward pass reads."]
    corpora = {row.arm.corpus for row in chosen}
    for corpus, name, search, share in (
        ("seq_kd", "Seq-KD", scale.seq_kd_search, 1.0),
        ("seq_inter", "Seq-Inter", scale.seq_inter_search, scale.seq_inter_share),
    ):
        if corpus not in corpora:
            continue
        flops = decoding_flops(scale, scale.teacher, search) * facts.pairs * share
        total += flops
        sentences = round(facts.pairs * share)
        lines += ["", f"{name}: n-best lists with K={search.beam} for {sentences:,} sentences, {flops:.2g} FLOPs."]
    lines += ["", f"Training and distillation: {total:.2g} FLOPs."]
    lines += [f"- {deviation}" for deviation in ("", *scale.deviations) if deviation]
    return "\n".join(lines) + "\n"


def with_what_they_need(scale: Scale, chosen: Sequence[Row]) -> list[Row]:
    """These rows, what they are fine-tuned from, and the teacher if one learns from it; in the order of the table."""
    found = set(chosen)
    found |= {start for row in chosen if (start := start_of(row))}
    if any(row.arm.corpus != "gold" or LOSSES[row.arm.loss].needs_teacher for row in found):
        found.add(Row(ARMS[0], scale.teacher))
    return [row for row in rows(scale) if row in found]


def build(scale: Scale, config: ModelConfig) -> Translator:
    """A model of the scale, with its whole vocabulary."""
    return models.build(config, scale.vocabulary.size, scale.vocabulary.size)


def parameters(scale: Scale, config: ModelConfig) -> int:
    """Parameters of a model with the scale's whole vocabulary; nothing is allocated."""
    return models.parameter_count(build(scale, config))


def estimate(scale: Scale, row: Row, devices: int) -> Estimate:
    """What training one arm takes."""
    config, model = train_config(scale, row.arm), build(scale, row.model)
    teacher = build(scale, scale.teacher) if LOSSES[config.loss.name].needs_teacher else None
    updates = update_count(scale, row.arm, config)
    flops = update_flops(scale, config, model, teacher)
    memory = update_memory(scale, config, model, teacher, devices)
    return Estimate(parameters(scale, row.model), updates, memory, updates * flops)


def update_count(scale: Scale, arm: Arm, config: TrainConfig) -> int:
    """Updates of a training run: of a corpus as long as the gold one, or the share of it that Seq-Inter has."""
    pairs = scale.facts.pairs * (scale.seq_inter_share if arm.corpus == "seq_inter" else 1.0)
    sentences = config.batch.sentences or config.batch.tokens / (scale.facts.target_length * PADDING)
    updates = config.epochs * math.ceil(pairs / sentences)
    return min(updates, config.max_steps) if config.max_steps else updates


def shape_of(scale: Scale, batch: BatchConfig, largest: bool) -> tuple[int, int, int]:
    """(rows, source, target) of a batch: the largest there is, or one of mean length."""
    if scale.shapes:
        return scale.shapes[-1]
    source, target = batch.max_source + 1, batch.max_target + 1
    if not largest:
        source = math.ceil(scale.facts.source_length * PADDING)
        target = math.ceil(scale.facts.target_length * PADDING)
    return batch.sentences or max(1, batch.tokens // target), source, target


def abstract_batch(rows: int, source: int, target: int, lead: tuple[int, ...] = ()) -> Batch:
    """A batch of shapes without content."""
    ids = [jax.ShapeDtypeStruct((*lead, rows, width), np.int32) for width in (source, target, target)]
    return Batch((ids[0], ids[1]), ids[2], jax.ShapeDtypeStruct((*lead, rows, target), np.float32))


def update_flops(scale: Scale, config: TrainConfig, model: Translator, teacher: Translator | None) -> float:
    """FLOPs of one update of mean length: those of the very step that training compiles."""
    count, source, target = shape_of(scale, config.batch, largest=False)
    lead = (1, config.accumulate)
    batch = abstract_batch(math.ceil(count / config.accumulate), source, target, lead)
    numbers = jax.ShapeDtypeStruct(batch.labels.shape[:-1], np.int32)
    state = jax.eval_shape(lambda: train_step.start_state(model, config))
    params = None if teacher is None else _params(teacher)
    taught_by = None if teacher is None else train_step.Teacher(teacher, params)
    update = train_step.update_for(model, config, tuple(jax.local_devices()[:1]), taught_by)
    return performance.count_flops(update, state, batch, numbers, train_step.settings(config, 1.0), params)


def update_memory(
    scale: Scale, config: TrainConfig, model: Translator, teacher: Translator | None, devices: int
) -> performance.Memory:
    """Bytes on one device during the largest update."""
    count, source, target = shape_of(scale, config.batch, largest=True)
    batch = abstract_batch(math.ceil(count / (devices * config.accumulate)), source, target)
    loss_of, arguments = over_positions(LOSSES[config.loss.name]), arguments_from(config.loss)
    keys = jax.eval_shape(lambda: jax.vmap(jax.random.key)(np.arange(batch.labels.shape[0])))

    def loss(params, given):
        batch, keys, teacher_params = given
        logits = model.head(params, model.features(params, batch.inputs, keys))
        taught = None
        if teacher is not None:
            taught = teacher.head(teacher_params, teacher.features(teacher_params, batch.inputs, None))
        return loss_of(logits, taught, batch.labels, batch.weights, arguments)[0]

    return performance.training_memory(
        model.init,
        loss,
        (batch, keys, None if teacher is None else _params(teacher)),
        moments=2 if config.optimiser.name == "adam" else 0,
        average=config.average_decay > 0,
        accumulate=config.accumulate,
        teacher_bytes=0 if teacher is None else performance.tree_bytes(_params(teacher)),
    )


def decoding_flops(scale: Scale, config: ModelConfig, search: SearchConfig) -> float:
    """FLOPs of the beam search of one sentence of mean length."""
    model = build(scale, config)
    length = math.ceil(scale.facts.target_length)
    source = jax.ShapeDtypeStruct((1, math.ceil(scale.facts.source_length)), np.int32)
    params = _params(model)
    start = lambda params, source: model.start(params, source, length)  # noqa: E731
    memory, state = jax.eval_shape(start, params, source)

    def widened(leaf):
        return jax.ShapeDtypeStruct((leaf.shape[0], search.beam, *leaf.shape[1:]), leaf.dtype)

    def step(params, token, memory, state):
        features, _, state = model.step(params, token, memory, state)
        return model.head(params, features), state

    token = jax.ShapeDtypeStruct((1, search.beam), np.int32)
    each = performance.count_flops(step, params, token, memory, jax.tree.map(widened, state))
    return performance.count_flops(start, params, source) + length * each


def _params(model: Translator):
    return jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)))
