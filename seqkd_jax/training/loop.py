"""The training loop: the update of `train_step` over a stream of batches, for teachers, students and classifiers alike.

It validates, keeps the best and the last checkpoint, writes metrics, stops on a loss that is not finite, and resumes
where it was killed: what it carries beside the TrainState is in `run_state`.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from seqkd_jax import checkpoint
from seqkd_jax.config import TrainConfig
from seqkd_jax.data.batches import Position
from seqkd_jax.losses import require_loss
from seqkd_jax.training import train_step
from seqkd_jax.training.optimizer import after_epoch, learning_rate
from seqkd_jax.training.preemption import stop_signal
from seqkd_jax.training.run_state import STEPS, Replica, RunState, append_metrics, metadata, resume, with_replica
from seqkd_jax.training.train_step import Teacher, TrainState
from seqkd_jax.types import Batch, UserError
from seqkd_jax.utils import files, performance, progress, settings

NOTHING: Mapping[str, str] = MappingProxyType({})


class Data(NamedTuple):
    """A training corpus as `fit` reads it."""

    batches: Callable[[Position], Iterator[tuple[Position, Batch]]]  # endless; each with the position after it
    batches_per_epoch: int


class Outcome(NamedTuple):
    """What `fit` found of one seed."""

    seed: int
    best_step: int
    best_value: float  # of the selecting metric
    stopped: bool  # early
    diverged: int  # the update whose loss or gradient was not finite; 0: none
    history: list[dict]  # one entry a validation


class Summary(NamedTuple):
    """What `fit` found."""

    best: Path  # checkpoint; of several replicas stacked, each at its own best
    last: Path  # checkpoint
    steps: int
    replicas: list[Outcome]  # of an ordinary run one
    tokens_per_second: float  # target tokens, those of all replicas; compilation and validation kept out
    peak_fraction: float  # of the machine's measured matrix-product rate


class Diverged(UserError):
    """No replica is left whose loss is finite. `replicas`: as in Summary, of what was found until then."""

    def __init__(self, message: str, replicas: list[Outcome]):
        super().__init__(message)
        self.replicas = replicas


def fit(
    model: train_step.AnyModel,
    data: Data,
    config: TrainConfig,
    directory: Path,
    *,
    validate: Callable[[Any], dict],
    save: Callable[..., Path],
    params: Any = None,
    teacher: Teacher | None = None,
    inputs: Mapping[str, str] = NOTHING,
    described: Mapping[str, Any] | None = None,
    name: str = "train",
) -> Summary:
    """Train until `config` says stop; called again on the same directory it goes on, or returns at once when done.

    validate: params -> {"loss": nats per token, ...}, with "bleu" if config.validate_bleu. save: (directory, params,
    metadata=, state=), and replicas= if there are several. params: where to start instead of at random. inputs: what
    decides the run beside `config`, such as its corpus -> a hash of that. described: the content of config.json (see
    run_config); None: no such file. Writes last/ (everything needed to go on),
    best/, step-<n>/ (config.keep of them), epoch-<n>/ and end/ (config.keep_path) and metrics.jsonl. SIGTERM saves and
    exits with 143.
    Diverged: a loss that is not finite, with the step named and the checkpoints left as they are; of several replicas
    such a one is trained no further (an update that had been started may still be made) and the others go on, and it is
    an error once none is left. UserError: a setting out of its range; a directory that holds another run, by its
    configuration or by what it is made of, or that another process trains in.
    """
    config.validate()
    if require_loss(config.loss.name).needs_teacher and teacher is None:
        raise UserError(f"loss {config.loss.name!r} needs a teacher: give its checkpoint")
    devices = train_step.devices(config.devices)
    update = train_step.update_for(model, config, devices, teacher)  # what cannot be is said before anything is written
    directory.mkdir(parents=True, exist_ok=True)
    with files.locked(directory):
        run, state = resume(directory, config, inputs, train_step.start_state(model, config, params), devices)
        if described is not None:
            files.write_json(directory / settings.CONFIG_FILE, described)
        teacher_params = train_step.replicate(teacher.params, devices) if teacher else None
        loop = _Loop(config, inputs, directory, data, devices, update, teacher_params, validate, save, name)
        if not run.finished:
            with stop_signal(instead_of=Diverged) as stopped:
                run, state = _train(loop, run, state, stopped)
    rate = run.tokens / run.seconds if run.seconds else 0.0
    fraction = run.flops / run.seconds / performance.matrix_peak() / len(devices) if run.seconds else 0.0
    return Summary(directory / "best", directory / "last", run.step, _outcomes(config, run), rate, fraction)


def _outcomes(config: TrainConfig, run: RunState) -> list[Outcome]:
    sign = -1.0 if config.validate_bleu else 1.0
    return [
        Outcome(r.seed, r.best_step, sign * r.best_value, r.stopped, r.diverged, list(r.history)) for r in run.replicas
    ]


class _Loop(NamedTuple):
    """What does not change during `fit`."""

    config: TrainConfig
    inputs: Mapping[str, str]
    directory: Path
    data: Data
    devices: tuple
    update: Callable
    teacher: Any  # its parameters, on every device; None without
    validate: Callable
    save: Callable
    name: str

    @property
    def total(self) -> int:
        """Updates if nothing stops early."""
        steps = self.config.epochs * self.data.batches_per_epoch
        return min(steps, self.config.max_steps) if self.config.max_steps else steps


class _Pending(NamedTuple):
    """An update that was started and not yet waited for."""

    step: int
    rates: list[float]  # of each replica
    metrics: train_step.Metrics
    tokens: int  # of one replica: labels that count
    flops: float
    compiled_before: bool  # its program had run before: its time is that of an update, not of a compilation


def _train(loop: _Loop, run: RunState, state: TrainState, stopped: Callable[[], bool]) -> tuple[RunState, TrainState]:
    config, flops, pending = loop.config, {}, None
    saved = since = time.monotonic()
    if config.keep_path and run.step == 0:
        _save(loop, run, "epoch-0000", _validated(loop, state))
    with progress.counter(loop.total - run.step, loop.name, "updates") as advance:
        for position, batch in loop.data.batches(run.position):
            shape = str(jax.tree.map(np.shape, batch))
            compiled_before = shape in flops
            if not compiled_before:
                # What is compiled now is no part of the update before it.
                run, since = _settle(loop, run, pending, since)
                pending = None
            rates = [learning_rate(config.optimiser, run.step + 1, loop.total, r.decay) for r in run.replicas]
            arguments = (
                *train_step.arrange(batch, len(loop.devices), config.accumulate),
                train_step.settings(config, rates, [replica.active for replica in run.replicas]),
                loop.teacher,
            )
            if not compiled_before:
                flops[shape] = performance.count_flops(loop.update, state, *arguments)
            state, metrics = loop.update(state, *arguments)
            # Looking at a result waits for it: stay one update behind, so that the device always has its next work.
            run, since = _settle(loop, run, pending, since)
            tokens = int(np.count_nonzero(batch.weights))
            pending = _Pending(run.step + 1, rates, metrics, tokens, flops[shape], compiled_before)
            run = run._replace(step=run.step + 1, position=position)
            advance(1)
            last = run.step >= loop.total or not _any_active(run)
            epoch_ends, ending = position.batch == 0, stopped()
            if config.keep_path and epoch_ends and position.epoch.bit_count() == 1:
                run, _ = _settle(loop, run, pending, since)
                pending = None
                _save(loop, run, f"epoch-{position.epoch:04d}", _validated(loop, state))
                since = time.monotonic()  # writing is no training
            # The paper's rule looks at the validation loss after every epoch.
            by_epoch = not config.validate_every or config.optimiser.schedule == "paper"
            due = last or (epoch_ends and by_epoch)
            due = due or (config.validate_every > 0 and run.step % config.validate_every == 0)
            if due or ending or time.monotonic() - saved > 60 * config.save_minutes:
                run, _ = _settle(loop, run, pending, since)
                if due:
                    run = _validate(loop, run, state, position.epoch if epoch_ends else None)
                    last = last or not _any_active(run)
                    run = run._replace(finished=last)
                    if config.keep_path and last:
                        _save(loop, run, "end", _validated(loop, state))
                _save(loop, run, "last", _validated(loop, state), state)
                pending, saved = None, time.monotonic()
                since = saved
            if last:
                return run, state
            if ending:
                progress.log(f"{loop.name}: stopped at update {run.step}, saved; the same command goes on from here")
                return run, state
    raise AssertionError("the stream of training batches ended; it must go on over epochs")


def _settle(loop: _Loop, run: RunState, pending: _Pending | None, since: float) -> tuple[RunState, float]:
    """Wait for an update, check its losses, log it, count its time. Returns the run and the time now."""
    if pending is None:
        return run, since
    values, weights, norms = (np.atleast_1d(metric.addressable_data(0)) for metric in pending.metrics)
    finite = np.isfinite(values) & np.isfinite(norms)
    for place in [place for place, replica in enumerate(run.replicas) if replica.active and not finite[place]]:
        what = f"loss {values[place]} and gradient norm {norms[place]} at update {pending.step}"
        run = _diverge(loop, run, place, pending.step, f"{what} (learning rate {pending.rates[place]:g})")
    if pending.step % loop.config.log_every == 0:
        losses = values.astype(float) / np.maximum(weights, 1e-9)
        record = {"loss": losses.tolist(), "learning_rate": pending.rates, "gradient_norm": norms.tolist()}
        if len(values) == 1:
            record = {key: value[0] for key, value in record.items()}
        append_metrics(loop.directory, {"step": pending.step, **record})
    now = time.monotonic()
    if pending.compiled_before:
        tokens = run.tokens + pending.tokens * sum(replica.active for replica in run.replicas)
        run = run._replace(tokens=tokens, seconds=run.seconds + now - since, flops=run.flops + pending.flops)
    return run, now


def _diverge(loop: _Loop, run: RunState, place: int, step: int, what: str) -> RunState:
    """A replica that is not finite trains no more; Diverged if it was the last that still did. what: it is."""
    replica = run.replicas[place]
    seed = f"seed {replica.seed}: " if len(run.replicas) > 1 else ""
    reason = f"{loop.name}: {seed}{what}: lower the learning rate, or clip"
    run = with_replica(run, place, replica._replace(diverged=step))
    if not any(replica.active or replica.stopped for replica in run.replicas):
        message = f"{reason}; the last good checkpoint, if one was saved, is {loop.directory / 'last'}"
        raise Diverged(message, _outcomes(loop.config, run))
    others = "the others go on" if _any_active(run) else "the others had stopped before"
    progress.log(f"{reason}; it is trained no further, {others}")
    return run


def _any_active(run: RunState) -> bool:
    return any(replica.active for replica in run.replicas)


def _validate(loop: _Loop, run: RunState, state: TrainState, epoch: int | None) -> RunState:
    """Score the weights of each replica, keep its best, decay its rate (paper's rule) at the end of an epoch."""
    config, better, params = loop.config, [], _validated(loop, state)
    for place, replica in enumerate(run.replicas):
        found, improved = replica, False
        if replica.active:
            found, improved = _validate_one(loop, run, replica, _select(params, place, config.replicas), epoch)
        better.append(improved)
        run = with_replica(run, place, found)
        if replica.active and not math.isfinite(found.history[-1]["loss"]):  # the last update made it so
            what = f"validation loss {found.history[-1]['loss']} after update {run.step}"
            run = _diverge(loop, run, place, run.step, what)
    if any(better):
        _save(loop, run, "best", params if all(better) else _merged(loop, params, better))
    if config.keep:
        _save(loop, run, f"step-{run.step:07d}", params)
        for old in sorted(loop.directory.glob(STEPS))[: -config.keep]:
            files.remove(old)
    return run


def _validated(loop: _Loop, state: TrainState) -> Any:
    """The weights that are validated and kept: the moving average if there is one."""
    weights = state.average if loop.config.average_decay > 0 else state.params
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), weights)


def _merged(loop: _Loop, params: Any, better: list[bool]) -> Any:
    """The present weights of those replicas that are better than before, of the others those in best/."""
    if not files.existing(loop.directory / "best").exists():
        return params
    before = checkpoint.load_params(loop.directory / "best", params)
    chosen = np.where(better, 0, 1), np.arange(len(better))
    return jax.tree.map(lambda new, old: np.stack([np.asarray(new), old])[chosen], params, before)


def _validate_one(loop: _Loop, run: RunState, replica: Replica, params: Any, epoch: int | None) -> tuple[Replica, bool]:
    """A replica after its validation, and whether it is better than before."""
    config = loop.config
    entry = {"step": run.step, **loop.validate(params)}
    value = -entry["bleu"] if config.validate_bleu else entry["loss"]
    finite = math.isfinite(entry["loss"])  # else it neither improved nor came to its end: it diverged
    better = finite and value < replica.best_value
    worse = 0 if better else replica.worse + 1
    replica = replica._replace(
        history=(*replica.history, entry),
        best_value=value if better else replica.best_value,
        best_step=run.step if better else replica.best_step,
        worse=worse,
        stopped=finite and 0 < config.patience <= worse,
        decay=replica.decay if epoch is None else after_epoch(config.optimiser, replica.decay, epoch, entry["loss"]),
    )
    several = len(run.replicas) > 1
    append_metrics(loop.directory, {"validation": True, **({"seed": replica.seed} if several else {}), **entry})
    said = ", ".join(f"{key} {value:.4g}" for key, value in entry.items() if key != "step")
    seed = f", seed {replica.seed}" if several else ""
    progress.log(f"{loop.name}: update {run.step}{seed}: {said}{' (best)' if better else ''}")
    return replica, better


def _select(params: Any, place: int, replicas: int) -> Any:
    """The parameters of one replica; on the host, so that no slicing is compiled."""
    return params if replicas == 1 else jax.tree.map(lambda leaf: np.asarray(leaf)[place], params)


def _save(loop: _Loop, run: RunState, name: str, params: Any, state: TrainState | None = None) -> None:
    several = {"replicas": loop.config.replicas} if loop.config.replicas > 1 else {}
    loop.save(loop.directory / name, params, metadata=metadata(loop.config, loop.inputs, run), state=state, **several)
