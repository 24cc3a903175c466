"""What a run does beside its updates: hooks.

`AFTER_UPDATE` are called with the result of each update: stop what diverged, log, count the time. `PERIODIC` are called
between updates when they are due: validate, keep checkpoints, save. Another periodic action is one more entry.
"""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from seqkd_jax import checkpoint, distributed
from seqkd_jax.config import TrainConfig
from seqkd_jax.training import best
from seqkd_jax.training.optimizer import after_epoch
from seqkd_jax.training.run_state import (
    STEPS,
    Outcome,
    Replica,
    RunState,
    append_metrics,
    metadata,
    metrics_mark,
    outcomes,
)
from seqkd_jax.training.train_step import Metrics, TrainState
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, progress, settings


class Context(NamedTuple):
    """What does not change during a run."""

    config: TrainConfig
    inputs: Mapping[str, str]
    directory: Path
    name: str
    total: int  # updates if nothing stops early
    validate: Callable[[Any], dict]
    save: Callable[..., Path]
    record: Callable[[dict], object]  # adds a line of metrics.jsonl to the other records
    ran_on: Mapping[str, Any]  # for the checkpoints to say


class Pending(NamedTuple):
    """An update that was started and not yet waited for."""

    step: int
    rates: list[float]  # of each replica
    metrics: Metrics
    tokens: int  # of one replica: labels that count
    flops: float
    compiled_before: bool  # its program had run before: its time is that of an update, not of a compilation


class Moment(NamedTuple):
    """A run between two updates."""

    run: RunState
    state: TrainState
    since: float  # when the last update ended, or what was done after it
    saved: float  # when last/ was saved
    pending: Pending | None = None
    stopping: bool = False  # SIGTERM came


class Diverged(UserError):
    """No replica is left whose loss is finite. `replicas`: what each had come to."""

    def __init__(self, message: str, replicas: list[Outcome]):
        super().__init__(message)
        self.replicas = replicas


# ---- after each update: (context, run, the update, its metrics as NumPy, each [R], its seconds) -> run


def stop_diverged(context: Context, run: RunState, update: Pending, metrics: Metrics, seconds: float) -> RunState:
    """Stops the training of replicas whose loss or gradient is not finite."""
    losses, norms = metrics.loss_sum, metrics.gradient_norm
    for place, replica in enumerate(run.replicas):
        if replica.active and not (np.isfinite(losses[place]) and np.isfinite(norms[place])):
            reason = f"loss {losses[place]} and gradient norm {norms[place]} at update {update.step}"
            run = _diverge(context, run, place, update.step, f"{reason} (learning rate {update.rates[place]:g})")
    return run


def log_metrics(context: Context, run: RunState, update: Pending, metrics: Metrics, seconds: float) -> RunState:
    """A line of metrics.jsonl every `config.log_every` updates."""
    if update.step % context.config.log_every == 0:
        losses = metrics.loss_sum.astype(float) / np.maximum(metrics.weight, 1e-9)
        line = {"loss": losses.tolist(), "learning_rate": update.rates, "gradient_norm": metrics.gradient_norm.tolist()}
        if len(run.replicas) == 1:
            line = {key: value[0] for key, value in line.items()}
        _log(context, {"step": update.step, **line})
    return run


def count_time(context: Context, run: RunState, update: Pending, metrics: Metrics, seconds: float) -> RunState:
    """Tokens, seconds and FLOPs, of updates that were not compiled first."""
    if not update.compiled_before:
        return run
    tokens = run.tokens + update.tokens * sum(replica.active for replica in run.replicas)
    return run._replace(tokens=tokens, seconds=run.seconds + seconds, flops=run.flops + update.flops)


def _log(context: Context, line: dict) -> None:
    if distributed.first():
        append_metrics(context.directory, line)
        context.record(line)


AFTER_UPDATE = (stop_diverged, log_metrics, count_time)


def _diverge(context: Context, run: RunState, place: int, step: int, reason: str) -> RunState:
    """The run without that replica; Diverged if it was the last that still trained and none had stopped early."""
    replica = run.replicas[place]
    seed = f"seed {replica.seed}: " if len(run.replicas) > 1 else ""
    message = f"{context.name}: {seed}{reason}: {_advice(context.config, step)}"
    run = run.with_replica(place, replica._replace(diverged=step))
    if not any(replica.active or replica.stopped for replica in run.replicas):
        message = f"{message}; the last good checkpoint, if one was saved, is {context.directory / 'last'}"
        raise Diverged(message, outcomes(run, context.config))
    others = "the others continue" if run.active else "the others had stopped before"
    progress.log(f"{message}; training of this replica stopped, {others}")
    return run


def _advice(config: TrainConfig, step: int) -> str:
    """What to do about a loss or a gradient that is not finite at update `step`."""
    if step == 1:  # no rate has acted yet
        return "the weights that it starts from, or the weights of the corpus, are too large"
    clip = "" if config.optimiser.clip_norm else ", or clip (optimiser.clip_norm)"
    return f"lower the learning rate{clip}"


# ---- between updates


class Hook(NamedTuple):
    """An action and when it is taken; `due` is asked again after the hooks before it have acted."""

    due: Callable[[Context, Moment], bool]
    act: Callable[[Context, Moment], Moment]
    doing: str  # what is shown meanwhile


def path_due(context: Context, moment: Moment) -> bool:
    """Before the first update, and after epochs 1, 2, 4, 8, ..."""
    epoch_ends, epoch = moment.run.epoch_ends, moment.run.position.epoch
    return context.config.keep_path and epoch_ends and epoch.bit_count() < 2


def keep_path(context: Context, moment: Moment) -> Moment:
    """Keep the weights as epoch-<n>/."""
    _save(context, moment.run, f"epoch-{moment.run.position.epoch:04d}", _weights(context, moment.state))
    return moment


def validation_due(context: Context, moment: Moment) -> bool:
    """Every so many updates, or after each epoch; the schedule `paper` needs the latter; and at the end."""
    config, run = context.config, moment.run
    by_epoch = not config.validate_every or config.optimiser.schedule == "paper"
    by_updates = config.validate_every > 0 and run.step % config.validate_every == 0
    return by_updates or (by_epoch and run.epoch_ends) or _at_end(context, run)


def validate(context: Context, moment: Moment) -> Moment:
    """Score the weights of each replica, save the best, decay the rate (`paper`) at the end of an epoch."""
    run, better, params = moment.run, [], _weights(context, moment.state)
    first = distributed.first()
    for place, replica in enumerate(run.replicas):
        improved = False
        if replica.active:
            found = context.validate(_select(params, place, len(run.replicas))) if first else None
            replica, improved = _validated(context, run, replica, distributed.agreed(found))
        better.append(improved)
        run = run.with_replica(place, replica)
        if moment.run.replicas[place].active and not math.isfinite(loss := replica.history[-1]["loss"]):
            run = _diverge(context, run, place, run.step, f"validation loss {loss} after update {run.step}")
    if any(better) and first:
        _save(context, run, "best", params if all(better) else _with_best(context, params, better))
    return moment._replace(run=run._replace(finished=_at_end(context, run)))


def steps_due(context: Context, moment: Moment) -> bool:
    """At validations, if checkpoints of these are kept."""
    return context.config.keep > 0 and validation_due(context, moment)


def keep_steps(context: Context, moment: Moment) -> Moment:
    """Keep the weights as step-<n>/, and of these the newest."""
    _save(context, moment.run, f"step-{moment.run.step:07d}", _weights(context, moment.state))
    for old in sorted(context.directory.glob(STEPS))[: -context.config.keep]:
        files.remove(old)
    return moment


def end_due(context: Context, moment: Moment) -> bool:
    """After the last validation, if the path is kept."""
    return context.config.keep_path and moment.run.finished


def keep_end(context: Context, moment: Moment) -> Moment:
    """Keep the weights as end/."""
    _save(context, moment.run, "end", _weights(context, moment.state))
    return moment


def save_due(context: Context, moment: Moment) -> bool:
    """After a validation, before the process ends, and when the last save is long ago."""
    late = time.monotonic() - moment.saved > 60 * context.config.save_minutes
    return late or moment.stopping or validation_due(context, moment)


def save_last(context: Context, moment: Moment) -> Moment:
    """Save as last/ everything that is needed to resume."""
    _save(context, moment.run, "last", _weights(context, moment.state), moment.state)
    return moment._replace(saved=time.monotonic())


PATH = Hook(path_due, keep_path, "saving")
VALIDATION = Hook(validation_due, validate, "validating")
PERIODIC = (
    PATH,
    VALIDATION,
    Hook(steps_due, keep_steps, "saving"),
    Hook(end_due, keep_end, "saving"),
    Hook(save_due, save_last, "saving"),
)


def periodic() -> tuple[Hook, ...]:
    """Those of this process. Process 0 alone validates and writes; the others learn what it measured."""
    return PERIODIC if distributed.first() else (VALIDATION,)


def _at_end(context: Context, run: RunState) -> bool:
    return run.step >= context.total or not run.active


def _weights(context: Context, state: TrainState) -> Any:
    """The weights that are validated and kept: the moving average if there is one."""
    weights = state.average if context.config.average_decay > 0 else state.params
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), weights)


def _select(params: Any, place: int, replicas: int) -> Any:
    """The parameters of one replica; on the host, so that no slicing is compiled."""
    return params if replicas == 1 else jax.tree.map(lambda leaf: np.asarray(leaf)[place], params)


def _with_best(context: Context, params: Any, better: list[bool]) -> Any:
    """The present weights of those replicas that are better than before, of the others those in best/."""
    if not files.existing(context.directory / "best").exists():
        return params
    before = checkpoint.load_params(context.directory / "best", params)
    chosen = np.where(better, 0, 1), np.arange(len(better))
    return jax.tree.map(lambda new, old: np.stack([np.asarray(new), old])[chosen], params, before)


def _validated(context: Context, run: RunState, replica: Replica, found: dict) -> tuple[Replica, bool]:
    """A replica after a validation that found these measures, and whether it is better than before."""
    config = context.config
    entry = {"step": run.step, **found}
    decay = replica.decay
    if run.epoch_ends:
        decay = after_epoch(config.optimiser, decay, run.position.epoch, entry["loss"])
    replica = best.judged(replica, entry, config)._replace(decay=decay)
    better = replica.best_step == run.step
    several = len(run.replicas) > 1
    _log(context, {"validation": True, **({"seed": replica.seed} if several else {}), **entry})
    measures = ", ".join(f"{key} {value:.4g}" for key, value in entry.items() if key != "step")
    seed = f", seed {replica.seed}" if several else ""
    progress.log(f"{context.name}: update {run.step}{seed}: {measures}{' (best)' if better else ''}")
    return replica, better


def _save(context: Context, run: RunState, name: str, params: Any, state: TrainState | None = None) -> None:
    several = {"replicas": len(run.replicas)} if len(run.replicas) > 1 else {}
    about = metadata(context.config, context.inputs, run) | {"ran_on": dict(context.ran_on)}
    if state is not None:
        about["metrics"] = metrics_mark(context.directory)
        about["described"] = (context.directory / settings.CONFIG_FILE).exists()
    context.save(context.directory / name, params, metadata=about, state=state, **several)
