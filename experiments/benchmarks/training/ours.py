"""One update of `training.train_step`, with head and loss in blocks of positions (`losses.blockwise`) or at once."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.training.subjects import Subject, batch, teacher_kernel
from seqkd_jax import models
from seqkd_jax.config import LossConfig, TrainConfig
from seqkd_jax.losses import blockwise
from seqkd_jax.training import teacher_top_k, train_step
from seqkd_jax.types import Batch, Model
from seqkd_jax.utils import performance


class Update(NamedTuple):
    """A system's update of one subject, compiled, and what is known of it without running it."""

    run: Callable[[], float]  # one update more; the loss before it, in nats a position
    parameters: int
    flops: float | None = None  # of the matrix products
    temporary_bytes: int | None = None  # beside state and batch
    compile_seconds: float | None = None  # of its one program, tracing included; a run has one for each batch shape


def update(subject: Subject, seed: int, in_blocks: bool = True, loss: str = "nll") -> Update:
    """The update of a random start. loss: read if the subject has a live teacher."""
    model = models.build(subject.model, subject.entries, subject.entries)
    config, given = TrainConfig(loss=LossConfig(loss, top_k=subject.top_k or 1)), batch(subject, seed)
    teacher = None
    if subject.teacher:
        config = TrainConfig(loss=LossConfig("word_kd", alpha=1.0))
        teacher = train_step.Teacher(_RECORDED, {"kernel": teacher_kernel(subject, seed)})
    elif loss == "word_kd":
        teacher = train_step.Teacher(*live_teacher(subject, seed))
    elif loss == "word_kd_top_k":
        kept = jax.tree.map(np.asarray, _kept(subject, seed, given))
        teacher, given = train_step.Teacher(None, ()), given._replace(teacher_features=kept)
    devices = train_step.devices(1)
    state = train_step.replicate(train_step.start_state(model, config), devices)
    params = train_step.replicate(teacher.params, devices) if teacher else None
    arguments = [*train_step.arrange(given, 1, 1), train_step.settings(config, 1e-3), params]
    with _blocks(in_blocks):
        step = train_step.update_for(model, config, devices, teacher)
        flops = performance.count_flops(step, state, *arguments)
        start = time.perf_counter()
        compiled = step.lower(state, *arguments).compile()
        seconds = time.perf_counter() - start

    def run() -> float:
        nonlocal state
        state, metrics = compiled(state, *arguments)
        return float(metrics.loss_sum) / float(metrics.weight)

    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return Update(run, parameters, flops, compiled.memory_analysis().temp_size_in_bytes, seconds)


def forward(subject: Subject, seed: int) -> Callable[[], float]:
    """The live teacher's forward pass, head included, in blocks as the loss has them; a number that it gives."""
    model, params = live_teacher(subject, seed)
    compiled, inputs = _compiled_forward(model), jax.device_put(batch(subject, seed).inputs)
    return lambda: float(compiled(params, inputs))


def _compiled_forward(model: Model) -> Callable:
    def largest(params, inputs):
        features = model.features(params, inputs, None)
        return jnp.sum(blockwise.mapped(model.head, lambda logits: jnp.max(logits, -1), params, features))

    return jax.jit(largest)


def memory(subject: Subject, in_blocks: bool) -> dict[str, int]:
    """Bytes of a Word-KD update under its live teacher, which is compiled and not run."""
    model, config = (
        models.build(subject.model, subject.entries, subject.entries),
        TrainConfig(loss=LossConfig("word_kd")),
    )
    taught, devices = models.build(subject.live, subject.entries, subject.entries), train_step.devices(1)
    state = jax.eval_shape(lambda: train_step.start_state(model, config))
    params = jax.eval_shape(lambda: taught.init(jax.random.key(0)))
    arranged = train_step.arrange(batch(subject, 0), 1, 1)
    with _blocks(in_blocks):
        step = train_step.update_for(model, config, devices, train_step.Teacher(taught, params))
        found = step.lower(state, *arranged, train_step.settings(config, 1e-3), params).compile().memory_analysis()
    held = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return {"temporary": found.temp_size_in_bytes, "peak": held + found.temp_size_in_bytes}


def live_teacher(subject: Subject, seed: int) -> tuple:
    """Model and random parameters of the teacher that runs in every update."""
    model = models.build(subject.live, subject.entries, subject.entries)
    return model, jax.jit(model.init)(jax.random.key(seed + 1))


def _kept(subject: Subject, seed: int, given: Batch):
    """The most probable entries of the live teacher."""
    model, params = live_teacher(subject, seed)
    return teacher_top_k.compiled_top_k(model, subject.top_k)(params, given.inputs, np.float32(1))


# A teacher whose features are cached is its head.
_RECORDED = Model(
    init=lambda key: {}, features=lambda *_: None, head=lambda params, features: features @ params["kernel"].T
)


@contextmanager
def _blocks(wanted: bool) -> Iterator[None]:
    """Trace updates as they are, or with blocks that hold all positions. Nothing traced before is found again."""
    backend, before = jax.default_backend(), dict(blockwise.LOGITS)
    train_step.make_update.cache_clear()
    if not wanted:
        blockwise.LOGITS[backend] = sys.maxsize
    try:
        yield
    finally:
        blockwise.LOGITS.clear()
        blockwise.LOGITS.update(before)
        train_step.make_update.cache_clear()
