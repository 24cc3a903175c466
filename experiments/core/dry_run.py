"""What a scale of a study would take, from shapes and configurations alone: nothing is trained, compiled or read.

A study gives a `Plan` of each arm's training. FLOPs are those of matrix products (`performance.count_flops`) in the
very step that training compiles; memory is that of one device at the largest batch. Sizes of data are assumed, so
updates and FLOPs are estimates.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.core.tables import Section, Table
from seqkd_jax import models
from seqkd_jax.config import TrainConfig
from seqkd_jax.losses import LOSSES, arguments_from, over_positions, top_k
from seqkd_jax.training import train_step
from seqkd_jax.types import Batch, Model, Past
from seqkd_jax.utils import performance

NOTES = (
    "memory: weights, gradients, the optimiser's state, a teacher, and what the backward pass reads; all seeds",
    "FLOPs: of matrix products, all seeds; a CPU core makes some 1e10 to 5e10 of them a second in training "
    "(`performance.matrix_peak` measures the most)",
)


class Plan(NamedTuple):
    """The training of one arm. Batches are abstract, with all their rows: [rows, ...]."""

    model: Model
    config: TrainConfig
    updates: int
    batch: Batch  # of mean length
    largest: Batch
    teacher: Model | None = None
    each: bool = False  # every replica has a teacher of its own
    once: float = 0.0  # FLOPs beside those of updates


def sections(
    arms: Sequence[Any], plan_of: Callable[[Any], Plan], further: Sequence[tuple[str, float]], devices: int
) -> list[Section]:
    """The dry run of these arms. further: what else is computed, and its FLOPs."""
    rows, total = [], sum(flops for _, flops in further)
    for arm in arms:
        plan = asked_before(plan_of(arm))
        each = update_flops(plan)
        training = plan.updates * each + plan.once
        total += training
        size = f"{update_memory(plan, devices).total / 2**20:,.0f} MiB"
        parameters = f"{models.parameter_count(plan.model):,}"
        rows.append([arm.label, parameters, f"{plan.updates:,}", size, f"{each:.2g}", f"{training:.2g}"])
    head = ["arm", "parameters", "updates", "memory per device", "FLOPs per update", "training FLOPs"]
    points = [f"{what}: {flops:.2g} FLOPs" for what, flops in further]
    return [Section(table=Table(head, rows, notes=NOTES)), Section(points=[*points, f"in all: {total:.2g} FLOPs"])]


def asked_before(plan: Plan) -> Plan:
    """Of a loss that reads a TopK: the plan with that in its batches, and the teacher's FLOPs once in place of it."""
    config, teacher = plan.config, plan.teacher
    if teacher is None or not LOSSES[config.loss.name].top_k:
        return plan

    def kept(params, inputs):
        logits = teacher.head(params, teacher.features(params, inputs, None))
        return top_k(logits, config.loss.top_k, config.loss.temperature)

    params = _params(teacher)
    with_kept = lambda batch: batch._replace(teacher_features=jax.eval_shape(kept, params, batch.inputs))  # noqa: E731
    once = plan.updates / config.epochs * performance.count_flops(kept, params, plan.batch.inputs)
    batch, largest = with_kept(plan.batch), with_kept(plan.largest)
    return plan._replace(batch=batch, largest=largest, teacher=None, each=False, once=plan.once + once)


def update_flops(plan: Plan) -> float:
    """FLOPs of one update of mean length, over all replicas."""
    config = plan.config
    microbatch = _with_rows(plan.batch, config.accumulate, (1, config.accumulate))
    rows = jax.ShapeDtypeStruct(microbatch.labels.shape[:3], np.int32)
    state = jax.eval_shape(lambda: train_step.start_state(plan.model, config))
    params = None if plan.teacher is None else _params(plan.teacher, config.replicas if plan.each else 1)
    teacher = None if plan.teacher is None else train_step.Teacher(plan.teacher, params, plan.each)
    update = train_step.update_for(plan.model, config, tuple(jax.local_devices()[:1]), teacher)
    return performance.count_flops(update, state, microbatch, rows, train_step.settings(config, 1.0), params)


def update_memory(plan: Plan, devices: int) -> performance.Memory:
    """Bytes on one of the devices during the largest update, of all replicas."""
    config, model, teacher = plan.config, plan.model, plan.teacher
    batch = _with_rows(plan.largest, devices * config.accumulate)
    loss_of, arguments = over_positions(LOSSES[config.loss.name]), arguments_from(config.loss)
    keys = jax.eval_shape(lambda: jax.vmap(jax.random.key)(np.arange(batch.labels.shape[0])))
    taught_by = None if teacher is None else _params(teacher)

    def loss(params, given):
        batch, keys, teacher_params = given
        logits = model.head(params, model.features(params, batch.inputs, keys))
        taught = batch.teacher_features
        if teacher is not None:
            taught = teacher.head(teacher_params, teacher.features(teacher_params, batch.inputs, None))
        return loss_of(logits, taught, batch.labels, batch.weights, arguments)[0]

    state = jax.eval_shape(lambda: train_step.start_state(model, config))
    weights, average = performance.tree_bytes(state.params), performance.tree_bytes(state.average)
    teachers = config.replicas if plan.each else 1
    return performance.Memory(
        parameters=weights,
        gradients=weights * (2 if config.accumulate > 1 else 1),
        optimiser=performance.tree_bytes(state) - weights - average,
        average=average,
        teacher=0 if teacher is None else teachers * performance.tree_bytes(taught_by),
        activations=config.replicas * performance.residual_bytes(loss, _params(model), (batch, keys, taught_by)),
    )


def decoding_flops(model: Any, source_length: float, target_length: float, beam: int) -> float:
    """FLOPs of the beam search of one sentence."""
    length, params = math.ceil(target_length), _params(model)
    source = jax.ShapeDtypeStruct((1, math.ceil(source_length)), np.int32)
    # A place has the entries of all hypotheses, and each hypothesis needs its own.
    step, *arguments = decoding_step(model, params, source, beam, math.ceil(length / beam))
    return performance.count_flops(model.start, params, source) + length * performance.count_flops(step, *arguments)


def step_flops(model: Any, source_length: float, target_length: float) -> float:
    """FLOPs of one step of one hypothesis, with the vocabulary after it."""
    source = jax.ShapeDtypeStruct((1, math.ceil(source_length)), np.int32)
    step, *arguments = decoding_step(model, _params(model), source, 1, math.ceil(target_length))
    return performance.count_flops(step, *arguments)


def decoding_step(model: Any, params: Any, source: jax.ShapeDtypeStruct, beam: int, places: int) -> tuple:
    """A step of the model and its head, and what it takes: the shapes for this source and `places` in the caches."""
    shape = lambda *axes, of=np.int32: jax.ShapeDtypeStruct(axes, of)  # noqa: E731
    rows = source.shape[0]
    memory, state = jax.eval_shape(model.start, params, source)
    state = jax.tree.map(lambda leaf: shape(rows, beam, *leaf.shape[1:], of=leaf.dtype), state)
    caches = jax.eval_shape(lambda: model.caches(rows, beam, places))
    past = Past(shape(rows, beam), shape(), shape(rows, beam, beam * places, of=bool))

    def step(params, token, *others):
        features, _, *after = model.step(params, token, *others)
        return model.head(params, features), after

    return step, params, shape(rows, beam), memory, state, caches, past


def _with_rows(batch: Batch, parts: int, lead: tuple[int, ...] = ()) -> Batch:
    """One of so many equal parts of a batch [rows, ...], with leading axes."""
    shape = lambda leaf: (*lead, math.ceil(leaf.shape[0] / parts), *leaf.shape[1:])  # noqa: E731
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(shape(leaf), leaf.dtype), batch)


def _params(model: Model, replicas: int = 1) -> Any:
    params = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)))
    if replicas == 1:
        return params
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((replicas, *leaf.shape), leaf.dtype), params)
