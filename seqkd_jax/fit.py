"""The training loop: the update of `train` over a stream of batches, for teachers, students and classifiers alike.

It validates, keeps the best and the last checkpoint, writes metrics, stops on a loss that is not finite, and goes on
where it was killed: what it carries beside the TrainState is `_Run`, saved in the checkpoint's metadata.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from seqkd_jax import checkpoint, files, performance, progress, train
from seqkd_jax.base import Batch, UserError
from seqkd_jax.batches import Position
from seqkd_jax.config import TrainConfig
from seqkd_jax.losses import LOSSES
from seqkd_jax.schedule import Decay, after_epoch, learning_rate
from seqkd_jax.train import Teacher, TrainState

FREE = ("devices", "keep", "save_minutes", "log_every")  # a run may go on under other values of these


class Data(NamedTuple):
    """A training corpus as `fit` reads it."""

    batches: Callable[[Position], Iterator[tuple[Position, Batch]]]  # endless; each with the position after it
    batches_per_epoch: int


class Summary(NamedTuple):
    """What `fit` found."""

    best: Path  # checkpoint
    last: Path  # checkpoint
    best_step: int
    best_value: float  # of the selecting metric
    steps: int
    history: list[dict]  # one entry a validation
    tokens_per_second: float  # target tokens, compilation and validation kept out
    peak_fraction: float  # of the machine's measured matrix-product rate


class _Run(NamedTuple):
    """What `fit` carries from update to update beside the TrainState; JSON in a checkpoint's metadata."""

    step: int = 0
    position: Position = Position(0, 0)
    decay: Decay = Decay()
    best_value: float = math.inf  # lower is better; BLEU is negated
    best_step: int = 0
    worse: int = 0  # validations since the best
    finished: bool = False
    history: tuple = ()
    tokens: float = 0.0  # target tokens in timed updates
    seconds: float = 0.0  # of timed updates
    flops: float = 0.0  # of timed updates


def fit(
    model: train.AnyModel,
    data: Data,
    config: TrainConfig,
    directory: Path,
    *,
    validate: Callable[[Any], dict],
    save: Callable[..., Path],
    params: Any = None,
    teacher: Teacher | None = None,
    name: str = "train",
) -> Summary:
    """Train until `config` says stop; called again on the same directory it goes on, or returns at once when done.

    validate: params -> {"loss": nats per token, ...}, with "bleu" if config.validate_bleu. save: (directory, params,
    metadata=, state=). params: where to start instead of at random. Writes last/ (everything needed to go on), best/,
    step-<n>/ (config.keep of them) and metrics.jsonl. SIGTERM saves and exits with 143. UserError: a loss that is not
    finite, with the step named and the checkpoints left as they are; a directory that holds another run.
    """
    if LOSSES[config.loss.name].needs_teacher and teacher is None:
        raise UserError(f"loss {config.loss.name!r} needs a teacher: give its checkpoint")
    devices = train.devices(config.devices)
    directory.mkdir(parents=True, exist_ok=True)
    identity = {"config": _plain(asdict(config))}
    run, state = _resume(directory, identity, train.start_state(model, config, params), devices)
    taught, known = (teacher.model, train.replicate(teacher.params, devices)) if teacher else (None, None)
    update = train.make_update(
        model, config.loss.name, train.static_rule(config.optimiser), config.average_decay > 0, taught, devices
    )
    loop = _Loop(config, directory, data, devices, update, known, validate, save, identity, name)
    if not run.finished:
        with _stop_signal() as stopped:
            run, state = _train(loop, run, state, stopped)
    rate = run.tokens / run.seconds if run.seconds else 0.0
    fraction = run.flops / run.seconds / performance.matrix_peak() / len(devices) if run.seconds else 0.0
    sign = -1.0 if config.validate_bleu else 1.0
    return Summary(
        directory / "best",
        directory / "last",
        run.best_step,
        sign * run.best_value,
        run.step,
        list(run.history),
        rate,
        fraction,
    )


class _Loop(NamedTuple):
    """What does not change during `fit`."""

    config: TrainConfig
    directory: Path
    data: Data
    devices: tuple
    update: Callable
    teacher: Any  # its parameters, on every device; None without
    validate: Callable
    save: Callable
    identity: dict
    name: str

    @property
    def total(self) -> int:
        """Updates if nothing stops early."""
        steps = self.config.epochs * self.data.batches_per_epoch
        return min(steps, self.config.max_steps) if self.config.max_steps else steps


class _Pending(NamedTuple):
    """An update that was started and not yet waited for."""

    step: int
    rate: float
    metrics: train.Metrics
    flops: float
    known: bool  # its program had run before: its time is that of an update, not of a compilation


def _train(loop: _Loop, run: _Run, state: TrainState, stopped: Callable[[], bool]) -> tuple[_Run, TrainState]:
    config, flops, pending = loop.config, {}, None
    saved = since = time.monotonic()
    with progress.counter(loop.total - run.step, loop.name, "updates") as advance:
        for position, batch in loop.data.batches(run.position):
            rate = learning_rate(config.optimiser, run.step + 1, loop.total, run.decay)
            arguments = (
                *train.arrange(batch, len(loop.devices), config.accumulate),
                train.settings(config, rate),
                loop.teacher,
            )
            shape, known = str(jax.tree.map(np.shape, batch)), True
            if shape not in flops:
                flops[shape], known = performance.count_flops(loop.update, state, *arguments), False
            state, metrics = loop.update(state, *arguments)
            # Looking at a result waits for it: stay one update behind, so that the device always has its next work.
            run, since = _settle(loop, run, pending, since)
            pending = _Pending(run.step + 1, rate, metrics, flops[shape], known)
            run = run._replace(step=run.step + 1, position=position)
            advance(1)
            epoch_ends, last, ending = position.batch == 0, run.step >= loop.total, stopped()
            due = last or (run.step % config.validate_every == 0 if config.validate_every else epoch_ends)
            if due or ending or time.monotonic() - saved > 60 * config.save_minutes:
                run, _ = _settle(loop, run, pending, since)
                if due:
                    run = _validate(loop, run, state, position.epoch if epoch_ends else None)
                    last = last or 0 < config.patience <= run.worse
                    run = run._replace(finished=last)
                loop.save(loop.directory / "last", state.params, metadata=_metadata(loop, run), state=state)
                pending, saved = None, time.monotonic()
                since = saved
            if last:
                return run, state
            if ending:
                progress.log(f"{loop.name}: stopped at update {run.step}, saved; the same command goes on from here")
                raise SystemExit(143)
    raise AssertionError("the stream of training batches ended; it must go on over epochs")


def _settle(loop: _Loop, run: _Run, pending: _Pending | None, since: float) -> tuple[_Run, float]:
    """Wait for an update, check its loss, log it, count its time. Returns the run and the time now."""
    if pending is None:
        return run, since
    value, weight, norm = (float(np.asarray(metric.addressable_data(0))) for metric in pending.metrics)
    if not math.isfinite(value) or not math.isfinite(norm):
        raise UserError(
            f"{loop.name}: loss {value} and gradient norm {norm} at update {pending.step}: lower the learning rate "
            f"(now {pending.rate:g}) or clip; the last good checkpoint, if one was saved, is {loop.directory / 'last'}"
        )
    if pending.step % loop.config.log_every == 0:
        record = {
            "step": pending.step,
            "loss": value / max(weight, 1e-9),
            "learning_rate": pending.rate,
            "gradient_norm": norm,
        }
        _append(loop.directory, record)
    now = time.monotonic()
    if pending.known:
        run = run._replace(
            tokens=run.tokens + weight, seconds=run.seconds + now - since, flops=run.flops + pending.flops
        )
    return run, now


def _validate(loop: _Loop, run: _Run, state: TrainState, epoch: int | None) -> _Run:
    """Score the weights, keep the best, decay the rate (paper's rule) at the end of an epoch."""
    config = loop.config
    averaged = config.average_decay > 0
    params = jax.tree.map(lambda leaf: leaf.addressable_data(0), state.average if averaged else state.params)
    entry = {"step": run.step, **loop.validate(params)}
    value = -entry["bleu"] if config.validate_bleu else entry["loss"]
    better = value < run.best_value
    run = run._replace(
        history=(*run.history, entry),
        best_value=value if better else run.best_value,
        best_step=run.step if better else run.best_step,
        worse=0 if better else run.worse + 1,
        decay=run.decay if epoch is None else after_epoch(config.optimiser, run.decay, epoch, entry["loss"]),
    )
    if better:
        loop.save(loop.directory / "best", params, metadata=_metadata(loop, run))
    if config.keep:
        loop.save(loop.directory / f"step-{run.step:07d}", params, metadata=_metadata(loop, run))
        for old in sorted(loop.directory.glob("step-*"))[: -config.keep]:
            files.remove(old)
    _append(loop.directory, {"validation": True, **entry})
    said = ", ".join(f"{key} {value:.4g}" for key, value in entry.items() if key != "step")
    progress.log(f"{loop.name}: update {run.step}: {said}{' (best)' if better else ''}")
    return run


def _metadata(loop: _Loop, run: _Run) -> dict:
    return {**loop.identity, "step": run.step, "run": _plain({**run._asdict(), "decay": run.decay._asdict()})}


def _plain(value: Any) -> Any:
    """As JSON has it: tuples as lists, so that what is read back compares equal; infinities as strings."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _resume(directory: Path, identity: dict, state: TrainState, devices: tuple) -> tuple[_Run, TrainState]:
    """The run to go on with, and its state on every device."""
    state = train.replicate(state, devices)
    if not files.existing(directory / "last").exists():
        return _Run(), state
    metadata = checkpoint.read_record(directory / "last")["metadata"]
    for key, value in identity["config"].items():
        if metadata["config"].get(key) != value and key not in FREE:
            raise UserError(
                f"{directory}: holds a run with {key}={metadata['config'].get(key)}, not {value}; use another directory"
            )
    stored = metadata["run"]
    decay = Decay(**{key: float(v) if isinstance(v, str) else v for key, v in stored["decay"].items()})
    run = _Run(
        **{**stored, "position": Position(*stored["position"]), "decay": decay, "history": tuple(stored["history"])}
    )
    run = run._replace(best_value=float(run.best_value))
    _truncate(directory, run.step)
    return run, checkpoint.load_state(directory / "last", state)


def _append(directory: Path, record: dict) -> None:
    with open(directory / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(files.json_line(_plain(record)))


def _truncate(directory: Path, step: int) -> None:
    """Forget metrics past the checkpoint: those updates are made again."""
    path = directory / "metrics.jsonl"
    if path.exists():
        kept = [record for record in files.read_jsonl(path) if record["step"] <= step]
        files.write_text(path, "".join(map(files.json_line, kept)))


class _stop_signal:
    """SIGTERM (a preemption) is noted, and acted on between two updates. Yields a function: did it come?"""

    def __enter__(self):
        self.came = False
        self.main = threading.current_thread() is threading.main_thread()
        if self.main:
            self.before = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "came", True))
        return lambda: self.came

    def __exit__(self, *_):
        if self.main:
            signal.signal(signal.SIGTERM, self.before)
