"""The training loop: the update of `train_step` over a stream of batches, for teachers, students and classifiers alike.

`fit` prepares and resumes a run, `_train` is the loop, `_start` and `_wait` make one update. The loop is one update
ahead of the results it looks at. All that a run does beside its updates is in `hooks`.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from seqkd_jax import checkpoint, distributed
from seqkd_jax.checkpoint import run_config
from seqkd_jax.config import TrainConfig
from seqkd_jax.data.batches import Position
from seqkd_jax.training import hooks, parts, processes, records, train_step
from seqkd_jax.training.compatibility import require_teacher
from seqkd_jax.training.hooks import Context, Diverged, Moment, Pending
from seqkd_jax.training.optimizer import learning_rate
from seqkd_jax.training.preemption import stop_signal
from seqkd_jax.training.run_state import (
    Outcome,
    RunState,
    load_state,
    of_first,
    outcomes,
    resume,
    with_warmup_of_run,
)
from seqkd_jax.training.train_step import Metrics, Teacher
from seqkd_jax.training.without_effect import Length, without_effect
from seqkd_jax.types import Batch
from seqkd_jax.utils import files, performance, programs, progress, settings

__all__ = ["Data", "Diverged", "Outcome", "Summary", "fit"]

NOTHING: Mapping[str, str] = MappingProxyType({})


class Data(NamedTuple):
    """A training corpus as `fit` reads it."""

    batches: Callable[[Position], Iterator[tuple[Position, Batch]]]  # endless; each with the position after it
    batches_per_epoch: int


class Summary(NamedTuple):
    """What a run came to."""

    best: Path  # checkpoint; of several replicas stacked, each at its own best
    last: Path  # checkpoint
    steps: int
    replicas: list[Outcome]  # of an ordinary run one
    tokens_per_second: float  # target tokens, those of all replicas; compilation and validation kept out
    peak_fraction: float  # of the machine's measured matrix-product rate


def fit(
    model: train_step.AnyModel,
    data: Data,
    config: TrainConfig,
    directory: Path,
    *,
    validate: Callable[[Any], dict],
    save: Callable[..., Path],
    params: Any = None,
    pruned: checkpoint.Pruned | None = None,
    teacher: Teacher | None = None,
    bars: bool = False,
    inputs: Mapping[str, str] = NOTHING,
    described: Mapping[str, Any] | None = None,
    log: Sequence[str] = (),
    name: str = "train",
) -> Summary:
    """Train until `config` says stop; called again on the same directory it resumes, or returns at once when done.

    validate: params -> {"loss": nats per token, ...}, with "bleu" if config.validate_bleu. save: (directory, params,
    metadata=, state=), and replicas= if there are several. params: where to start instead of at random. pruned: which
    of these stay zero. bars: the model may bar entries (see losses). inputs: what decides the run beside `config`, such
    as its corpus -> a hash of that. described: the content of config.json; None: no such file. log: records beside
    metrics.jsonl, names of records.WRITERS. Writes last/ (everything needed to resume), best/, step-<n>/ (config.keep
    of them), epoch-<n>/ and end/ (config.keep_path) and metrics.jsonl. SIGTERM saves and exits with 143.
    Several processes call it alike: each feeds its devices, process 0 alone validates, writes and needs the directory.
    SIGTERM to one of them saves once and exits from all with 75.
    Diverged: a loss that is not finite, with the step named and the checkpoints left as they are. Of several replicas
    the training of such a one stops (an update that had been started may still be made), the others continue, and it is
    an error once none is left. UserError: a setting out of its range; a directory that holds another run, by its
    configuration or inputs, or that another process trains in.
    """
    config.validate()
    require_teacher(config, teacher is not None)
    devices = train_step.devices(config.devices)
    parts.microbatches(config, len(devices))  # an error must precede what is written, here and below
    ways = config, dataclasses.replace(config, parts=0)
    update, counted = (train_step.update_for(model, way, devices, teacher, bars) for way in ways)
    total = config.epochs * data.batches_per_epoch
    total = min(total, config.max_steps or total)
    records.require(log)
    processes.require_same_run(config, inputs)
    first = distributed.first()
    if first and described is not None:
        run_config.require_replaceable(directory / settings.CONFIG_FILE)
    idle = without_effect(config, Length(total, data.batches_per_epoch))
    config = with_warmup_of_run(directory, config, total)
    with _held(directory) if first else contextlib.nullcontext():
        run = of_first(resume(directory, config, inputs) if first else None)
        if not run.finished:
            for line in idle:
                progress.log(f"{name}: {line}")
            state = _state(model, config, (params, pruned), devices, directory if run.step else None)
        if first and described is not None:
            run_config.write(directory / settings.CONFIG_FILE, described)
        with records.kept(directory, log if first else (), config.seed) as record:
            if not run.finished:
                ran_on = train_step.ran_on(devices)
                context = Context(config, inputs, directory, name, total, validate, save, record, ran_on)
                taught = train_step.replicate(teacher.params, devices) if teacher else None
                step = _Step(update, counted, devices, taught, {})
                now = time.monotonic()
                with stop_signal(instead_of=Diverged) as stopped:
                    run = _train(context, step, data, Moment(run, state, since=now, saved=now), stopped)
    distributed.barrier(f"the end of {name}")  # what process 0 has written is there
    rate = run.tokens / run.seconds if run.seconds else 0.0
    fraction = run.flops / run.seconds / performance.matrix_peak() / len(devices) if run.seconds else 0.0
    return Summary(directory / "best", directory / "last", run.step, outcomes(run, config), rate, fraction)


def _state(model: train_step.AnyModel, config: TrainConfig, start: tuple, devices: tuple, left: Path | None) -> Any:
    """The TrainState of a run on all devices: of a new one, or of that which `left` holds, as process 0 reads it."""
    with progress.phase("compiling the initial state", compiling=True):
        state = train_step.start_state(model, config, *start)
    if left and distributed.first():
        state = load_state(left, state)
    return train_step.replicate(state, devices)


@contextlib.contextmanager
def _held(directory: Path) -> Iterator[None]:
    """The directory of a run, made if it is missing, held while the run writes there."""
    directory.mkdir(parents=True, exist_ok=True)
    with files.locked(directory):
        yield


class _Step(NamedTuple):
    """The compiled update, and what it is given each time."""

    update: Callable
    counted: Callable  # the same as one program, to count its FLOPs; never compiled if `update` is another
    devices: tuple
    teacher: Any  # its parameters, on every device; None without
    flops: dict[str, float]  # of each batch shape that was compiled; grows


def _train(context: Context, step: _Step, data: Data, moment: Moment, stopped: Callable[[], bool]) -> RunState:
    """Updates, and between them the periodic hooks that are due, until the end or SIGTERM."""
    periodic = hooks.periodic()
    if moment.run.step == 0 and hooks.PATH in periodic and hooks.PATH.due(context, moment):
        moment = hooks.PATH.act(context, moment)
    shown = moment.run.step
    with progress.counter(context.total, context.name, "updates", done=shown) as advance:
        for position, batch in data.batches(moment.run.position):
            moment = _start(context, step, moment, position, batch)
            advance(moment.run.step - 1 - shown)  # the update that was started is not done
            shown = moment.run.step - 1
            moment = moment._replace(stopping=stopped())
            if any(hook.due(context, moment) for hook in periodic):
                moment = _wait(context, moment)
                advance(1)
                shown += 1
                for hook in periodic:
                    if hook.due(context, moment):
                        with progress.phase(hook.doing):
                            moment = hook.act(context, moment)
                moment = moment._replace(since=time.monotonic())
            if moment.run.finished:
                return moment.run
            if moment.stopping:
                progress.log(f"{context.name}: stopped at update {moment.run.step}, saved; the same command resumes it")
                return moment.run
    raise AssertionError("the stream of training batches ended; it must go on over epochs")


def _start(context: Context, step: _Step, moment: Moment, position: Position, batch: Batch) -> Moment:
    """Start the update of a batch, then wait for the one before it: so the device always has its next work."""
    config, shape = context.config, str(jax.tree.map(np.shape, batch))
    compiled_before = shape in step.flops
    if not compiled_before:
        moment = _wait(context, moment)  # what is compiled now is no part of the update before
    run = moment.run
    rates = [learning_rate(config.optimiser, run.step + 1, context.total, r.decay) for r in run.replicas]
    count = len(step.devices)
    arranged = train_step.arrange(batch, count, parts.microbatches(config, count))
    arguments = (
        *processes.own_part(arranged, step.devices),
        train_step.settings(config, rates, [replica.active for replica in run.replicas]),
        step.teacher,
    )
    if compiled_before:
        state, metrics = step.update(moment.state, *arguments)
    else:
        with progress.phase(f"compiling the training step for {programs.shapes(batch.labels)}", compiling=True):
            own = performance.count_flops(step.counted, moment.state, *arguments)  # of the devices of this process
            step.flops[shape] = own * distributed.count()
            state, metrics = step.update(moment.state, *arguments)
    moment = _wait(context, moment)
    run, tokens = moment.run, int(np.count_nonzero(batch.weights))
    pending = Pending(run.step + 1, rates, metrics, tokens, step.flops[shape], compiled_before)
    return moment._replace(run=run._replace(step=run.step + 1, position=position), state=state, pending=pending)


def _wait(context: Context, moment: Moment) -> Moment:
    """Wait for the update that was started and not yet waited for, if there is one, and look at its result."""
    if moment.pending is None:
        return moment
    metrics = Metrics(*(np.atleast_1d(metric.addressable_data(0)) for metric in moment.pending.metrics))
    now, run = time.monotonic(), moment.run
    for hook in hooks.AFTER_UPDATE:
        run = hook(context, run, moment.pending, metrics, now - moment.since)
    return moment._replace(run=run, pending=None, since=now)
