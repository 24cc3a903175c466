"""One update of `training.train_step`, with head and loss in blocks of positions (`losses.blockwise`) or at once."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax

from experiments.benchmarks.training.subjects import Subject, batch, teacher_kernel
from seqkd_jax import models
from seqkd_jax.config import LossConfig, TrainConfig
from seqkd_jax.losses import blockwise
from seqkd_jax.training import train_step
from seqkd_jax.types import Model
from seqkd_jax.utils import performance


class Update(NamedTuple):
    """A system's update of one subject, compiled, and what is known of it without running it."""

    run: Callable[[], float]  # one update more; the loss before it, in nats a position
    parameters: int
    flops: float | None = None  # of the matrix products
    temporary_bytes: int | None = None  # beside state and batch
    compile_seconds: float | None = None  # of its one program, tracing included; a run has one for each batch shape


def update(subject: Subject, seed: int, in_blocks: bool) -> Update:
    """The update of a random start."""
    model = models.build(subject.model, subject.entries, subject.entries)
    config, teacher, params = TrainConfig(), None, None
    if subject.teacher:
        config = TrainConfig(loss=LossConfig("word_kd", alpha=1.0))
        params = {"kernel": teacher_kernel(subject, seed)}
        teacher = train_step.Teacher(_RECORDED, params)
    devices = train_step.devices(1)
    state = train_step.replicate(train_step.start_state(model, config), devices)
    arguments = [*train_step.arrange(batch(subject, seed), 1, 1), train_step.settings(config, 1e-3), params]
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
