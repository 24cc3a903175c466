"""One training loop for teachers, students, language models and classifiers; the only module that uses pmap.

`make_update` is the whole algorithm of a step: every device sums loss, weight and gradient over its microbatches, `psum` adds the
devices up, and the sum is divided once, clipped, and applied. So the objective does not depend on how many devices or
microbatches share a batch, dropout included: its keys are derived from (seed, step, row of the global batch).
Learning rate, loss settings and seed are arguments of the compiled step; arms of a study share it.

`fit` runs the step over a stream of batches, validates, saves, and goes on where it was killed.
"""

import functools
import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from seqkd_jax import checkpoint, files, performance, progress
from seqkd_jax.base import Batch, Model, Translator, UserError
from seqkd_jax.batches import Position
from seqkd_jax.config import OptimiserConfig, TrainConfig
from seqkd_jax.losses import LOSSES, LossArguments, arguments_from, over_positions
from seqkd_jax.schedule import Decay, after_epoch, learning_rate

AnyModel = Model | Translator


class TrainState(NamedTuple):
    """What an update reads and writes. It never has a device axis."""

    step: Any  # updates done
    params: Any
    moments: Any  # of the optimiser
    average: Any  # moving average of the parameters; () when off


class Settings(NamedTuple):
    """The scalars of a step: arguments, not constants, so that runs which differ in them share one program."""

    seed: Any
    learning_rate: Any
    clip_norm: Any  # 0: no clipping
    average_decay: Any
    loss: LossArguments


class Metrics(NamedTuple):
    """What an update reports, summed over the global batch."""

    loss_sum: Any  # nats
    weight: Any  # target positions
    gradient_norm: Any  # before clipping


class Teacher(NamedTuple):
    """The model whose distribution a loss reads, beside the gold labels."""

    model: AnyModel
    params: Any


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


def optimiser(config: OptimiserConfig) -> optax.GradientTransformation:
    """The direction of a step; the learning rate is applied outside, as an argument."""
    if config.name == "sgd":
        return optax.identity()
    return optax.scale_by_adam(config.b1, config.b2, config.epsilon)


def _microbatch_loss(model, loss, teacher_model, params, batch, keys, settings, teacher_params):
    logits = model.head(params, model.features(params, batch.inputs, keys))
    taught = None
    if teacher_model is not None:
        taught = teacher_model.head(teacher_params, teacher_model.features(teacher_params, batch.inputs, None))
    return over_positions(loss)(logits, taught, batch.labels, batch.weights, settings.loss)


def _row_keys(settings, step, rows):
    """Dropout keys of rows of the global batch: a function of seed, step and row only."""
    key = jax.random.fold_in(jax.random.key(settings.seed), step)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, rows)


@functools.cache
def make_update(
    model: AnyModel, loss_name: str, rule: OptimiserConfig, average: bool, teacher_model: AnyModel | None, devices: tuple
) -> Callable:
    """The compiled update: (state, batch [G,M,R,...], rows [G,M,R], settings, teacher params | None) -> (state, Metrics).

    Only `rule`'s name, moments and normalisation matter here (`static_rule`); everything else is in the settings.
    """
    loss, direction = LOSSES[loss_name], optimiser(rule)
    loss_of = functools.partial(_microbatch_loss, model, loss, teacher_model)

    def update(state, batch, rows, settings, teacher_params):
        def microbatch(total, scanned):
            batch, rows = scanned
            keys = _row_keys(settings, state.step, rows)
            (value, weight), gradient = jax.value_and_grad(loss_of, has_aux=True)(
                state.params, batch, keys, settings, teacher_params
            )
            sentences = jnp.sum(batch.weights.reshape(batch.weights.shape[0], -1)[:, 0])
            return jax.tree.map(jnp.add, total, (value, weight, sentences, gradient)), None

        nothing = (0.0, 0.0, 0.0, jax.tree.map(jnp.zeros_like, state.params))
        total, _ = jax.lax.scan(microbatch, jax.tree.map(jnp.asarray, nothing), (batch, rows))
        value, weight, sentences, gradient = jax.lax.psum(total, "devices")
        divisor = jnp.maximum(weight if rule.normalise == "tokens" else sentences, 1e-9)
        norm = optax.tree.norm(gradient) / divisor
        clip = jnp.where((settings.clip_norm > 0) & (norm > settings.clip_norm), settings.clip_norm / norm, 1.0)
        gradient = jax.tree.map(lambda g: g * (clip / divisor), gradient)
        steps, moments = direction.update(gradient, state.moments, state.params)
        params = jax.tree.map(lambda p, s: p - settings.learning_rate * s, state.params, steps)
        averaged = _average(state, params, settings.average_decay) if average else ()
        return TrainState(state.step + 1, params, moments, averaged), Metrics(value, weight, norm)

    return data_parallel(update, devices)


def _average(state, params, decay):
    # The warm-up keeps the random start out of the average (as TensorFlow's ExponentialMovingAverage with num_updates).
    decay = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step))
    return jax.tree.map(lambda a, p: a + (1.0 - decay) * (p - a), state.average, params)


def static_rule(config: OptimiserConfig) -> OptimiserConfig:
    """The part of an optimiser's configuration that is compiled in; the rest at its default."""
    names = ("name", "b1", "b2", "epsilon", "normalise")
    return OptimiserConfig(**{name: getattr(config, name) for name in names})


def data_parallel(update: Callable, devices: tuple) -> Callable:
    """Run (state, batch [G,...], rows [G,...], settings, teacher) on G devices; state in and out without a device axis.

    The one pmap: another way to use many devices is an edit of this function.
    """
    return jax.pmap(
        update, "devices", in_axes=(None, 0, 0, None, None), out_axes=None, devices=devices, donate_argnums=0
    )


def replicate(tree: Any, devices: tuple) -> Any:
    """Put host arrays on every device, as the update returns them; otherwise its second call would compile again."""
    mesh = jax.sharding.Mesh(np.array(devices), ("devices",))
    return jax.device_put(tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def arrange(batch: Batch, devices: int, accumulate: int) -> tuple[Batch, np.ndarray]:
    """A global batch of N rows as [G,M,R,...], padded with rows of weight 0, and the rows' numbers [G,M,R]."""
    count = len(batch.weights)
    each = -(-count // (devices * accumulate))

    def split(array):
        padded = np.zeros((devices * accumulate * each, *array.shape[1:]), array.dtype)
        padded[:count] = array
        return padded.reshape(devices, accumulate, each, *array.shape[1:])

    return jax.tree.map(split, batch), split(np.arange(count, dtype=np.int32))


@functools.cache
def _make_start(model: AnyModel, rule: OptimiserConfig, average: bool) -> tuple[Callable, Callable]:
    def from_params(params):
        return TrainState(jnp.zeros((), jnp.int32), params, optimiser(rule).init(params), params if average else ())

    return jax.jit(lambda seed: from_params(model.init(jax.random.key(seed)))), jax.jit(from_params)


def start_state(model: AnyModel, config: TrainConfig, params: Any = None) -> TrainState:
    """The state before the first update: from the seed, or from given parameters."""
    from_seed, from_params = _make_start(model, static_rule(config.optimiser), config.average_decay > 0)
    return from_seed(np.uint32(config.seed)) if params is None else from_params(params)


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
    model: AnyModel,
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

    validate: params -> {"loss": nats per token, ...}, with "bleu" if config.validate_bleu. save: (directory, params, metadata=, state=).
    params: where to start instead of at random. Writes last/ (everything needed to go on), best/, step-<n>/ (config.keep of
    them) and metrics.jsonl. SIGTERM saves and exits with 143. UserError: a loss that is not finite, with the step named and
    the checkpoints left as they are; a directory that holds another run.
    """
    if LOSSES[config.loss.name].needs_teacher and teacher is None:
        raise UserError(f"loss {config.loss.name!r} needs a teacher: give its checkpoint")
    devices = _devices(config.devices)
    directory.mkdir(parents=True, exist_ok=True)
    identity = {"config": _plain(asdict(config))}
    run, state = _resume(directory, identity, start_state(model, config, params), devices)
    taught, known = (teacher.model, replicate(teacher.params, devices)) if teacher else (None, None)
    update = make_update(
        model, config.loss.name, static_rule(config.optimiser), config.average_decay > 0, taught, devices
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
    metrics: Metrics
    flops: float
    known: bool  # its program had run before: its time is that of an update, not of a compilation


def _train(loop: _Loop, run: _Run, state: TrainState, stopped: Callable[[], bool]) -> tuple[_Run, TrainState]:
    config, flops, pending = loop.config, {}, None
    saved = since = time.monotonic()
    with progress.counter(loop.total - run.step, loop.name, "updates") as advance:
        for position, batch in loop.data.batches(run.position):
            rate = learning_rate(config.optimiser, run.step + 1, loop.total, run.decay)
            arguments = (*arrange(batch, len(loop.devices), config.accumulate), settings(config, rate), loop.teacher)
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


def settings(config: TrainConfig, rate: float) -> Settings:
    """The scalars of an update as NumPy float32: a Python number would be weakly typed and compile another program."""
    clip, decay = np.float32(config.optimiser.clip_norm), np.float32(config.average_decay)
    return Settings(
        np.uint32(config.seed), np.float32(rate), clip, decay, LossArguments(*map(np.float32, arguments_from(config.loss)))
    )


def _settle(loop: _Loop, run: _Run, pending: _Pending | None, since: float) -> tuple[_Run, float]:
    """Wait for an update, check its loss, log it, count its time. Returns the run and the time now."""
    if pending is None:
        return run, since
    value, weight, norm = (float(np.asarray(metric.addressable_data(0))) for metric in pending.metrics)
    if not math.isfinite(value) or not math.isfinite(norm):
        raise UserError(
            f"{loop.name}: loss {value} and gradient norm {norm} at update {pending.step}: lower the learning rate (now "
            f"{pending.rate:g}) or clip; the last good checkpoint, if one was saved, is {loop.directory / 'last'}"
        )
    if pending.step % loop.config.log_every == 0:
        record = {"step": pending.step, "loss": value / max(weight, 1e-9), "learning_rate": pending.rate, "gradient_norm": norm}
        _append(loop.directory, record)
    now = time.monotonic()
    if pending.known:
        run = run._replace(tokens=run.tokens + weight, seconds=run.seconds + now - since, flops=run.flops + pending.flops)
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
            shutil.rmtree(old)
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
    state = replicate(state, devices)
    if not files.existing(directory / "last").exists():
        return _Run(), state
    metadata = checkpoint.read_record(directory / "last")["metadata"]
    for key, value in identity["config"].items():
        if metadata["config"].get(key) != value and key != "devices":
            raise UserError(
                f"{directory}: holds a run with {key}={metadata['config'].get(key)}, not {value}; use another directory"
            )
    stored = metadata["run"]
    decay = Decay(**{key: float(v) if isinstance(v, str) else v for key, v in stored["decay"].items()})
    run = _Run(**{**stored, "position": Position(*stored["position"]), "decay": decay, "history": tuple(stored["history"])})
    run = run._replace(best_value=float(run.best_value))
    _truncate(directory, run.step)
    return run, checkpoint.load_state(directory / "last", state)


def _append(directory: Path, record: dict) -> None:
    with open(directory / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def _truncate(directory: Path, step: int) -> None:
    """Forget metrics past the checkpoint: those updates are made again."""
    path = directory / "metrics.jsonl"
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]  # a kill may have cut the last one
        files.write_text(path, "".join(line for line in whole if json.loads(line)["step"] <= step))


class _stop_signal:
    """SIGTERM (a preemption) is noted, and acted on between two updates. Yields a function that says whether it came."""

    def __enter__(self):
        self.came = False
        self.main = threading.current_thread() is threading.main_thread()
        if self.main:
            self.before = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "came", True))
        return lambda: self.came

    def __exit__(self, *_):
        if self.main:
            signal.signal(signal.SIGTERM, self.before)


def _devices(count: int) -> tuple:
    found = jax.local_devices()
    if count > len(found):
        raise UserError(f"devices={count}, but this machine has {len(found)}; use at most that, or 0 for all")
    return tuple(found[: count or None])
