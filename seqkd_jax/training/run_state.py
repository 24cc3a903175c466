"""The run state: what a training run carries from update to update beside its TrainState, and how it is resumed.

A run is of one or more seeds, each with a best value, a rate and an end of its own. The run state is JSON in the
metadata of last/. metrics.jsonl is for people; it is cut back to the checkpoint when a run is resumed.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from seqkd_jax import checkpoint
from seqkd_jax.config import TrainConfig
from seqkd_jax.data.batches import Position
from seqkd_jax.training.optimizer import WARMUP, Decay, with_warmup
from seqkd_jax.training.train_step import TrainState
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, settings

# A run may be resumed with other values of these.
FREE = ("devices", "keep", "replicas_by", "save_minutes", "log_every")


class Replica(NamedTuple):
    """What a run carries of one seed."""

    seed: int
    best_value: float = math.inf  # of the selecting metric, lower is better; BLEU is negated
    best_step: int = 0
    worse: int = 0  # validations since the best
    stopped: bool = False  # early
    diverged: int = 0  # the update whose loss or gradient was not finite; 0: none
    decay: Decay = Decay()
    history: tuple = ()  # one entry a validation

    @property
    def active(self) -> bool:
        """Does it still train?"""
        return not self.stopped and not self.diverged


class RunState(NamedTuple):
    """What a run carries from update to update beside its TrainState."""

    replicas: tuple[Replica, ...]
    step: int = 0
    position: Position = Position(0, 0)
    finished: bool = False
    tokens: float = 0.0  # target tokens in timed updates
    seconds: float = 0.0  # of timed updates
    flops: float = 0.0  # of timed updates

    @property
    def active(self) -> bool:
        """Does any replica still train?"""
        return any(replica.active for replica in self.replicas)

    @property
    def epoch_ends(self) -> bool:
        """Is the next batch the first of an epoch?"""
        return self.position.batch == 0

    def with_replica(self, place: int, replica: Replica) -> "RunState":
        """The run with one of its replicas replaced."""
        return self._replace(replicas=(*self.replicas[:place], replica, *self.replicas[place + 1 :]))


class Outcome(NamedTuple):
    """What became of one seed."""

    seed: int
    best_step: int
    best_value: float  # of the selecting metric
    stopped: bool  # early
    diverged: int  # the update whose loss or gradient was not finite; 0: none
    history: list[dict]  # one entry a validation


def outcomes(run: RunState, config: TrainConfig) -> list[Outcome]:
    """What became of each seed."""
    sign = -1.0 if config.validate_bleu else 1.0
    return [
        Outcome(r.seed, r.best_step, sign * r.best_value, r.stopped, r.diverged, list(r.history)) for r in run.replicas
    ]


def metadata(config: TrainConfig, inputs: Mapping[str, str], run: RunState) -> dict:
    """What the checkpoints of a run hold beside its weights."""
    replicas = [{**replica._asdict(), "decay": replica.decay._asdict()} for replica in run.replicas]
    state = plain({**run._asdict(), "replicas": replicas})
    return {"config": settings.to_json(config), "inputs": dict(inputs), "step": run.step, "run": state}


def plain(value: Any) -> Any:
    """As JSON has it: tuples as lists, so that what is read back compares equal; infinities as strings."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


STEPS = f"step-{'[0-9]' * 7}"  # the checkpoints of `TrainConfig.keep`, and nothing else


def settled(directory: Path, config: TrainConfig, total: int) -> TrainConfig:
    """The configuration of a run of `total` updates with its warm-up settled, if that is None.

    A run that is resumed keeps its warm-up: one of version 0.2.0 has 400 updates, whatever its length.
    """
    if config.optimiser.warmup_steps is not None:
        return config
    optimiser = with_warmup(config.optimiser, total)
    existing = _existing(directory)
    stored = {} if existing is None else checkpoint.read_record(existing)["metadata"].get("config", {})
    if stored.get("optimiser", {}).get("warmup_steps") == WARMUP:
        optimiser = dataclasses.replace(optimiser, warmup_steps=WARMUP)
    return dataclasses.replace(config, optimiser=optimiser)


def _existing(directory: Path) -> Path | None:
    """The first checkpoint of a run in `directory`: last/, if it is there."""
    left = [directory / "last", directory / "best", *sorted(directory.glob("epoch-*")), *sorted(directory.glob(STEPS))]
    return next((place for place in left if files.existing(place).exists()), None)


def resume(directory: Path, config: TrainConfig, inputs: Mapping[str, str]) -> RunState:
    """The run that `directory` holds, or a new one; UserError if it holds another. What no run will use is removed."""
    last = directory / "last"
    existing = _existing(directory)
    if existing is not None:
        _require_same(directory, checkpoint.read_record(existing)["metadata"], config, inputs)
    if (
        existing != last
    ):  # nothing is there, or the run was killed before last/ was, or that was deleted: it starts over
        for old in directory.glob(STEPS):
            files.remove(old)
        _truncate(directory, 0)
        return RunState(tuple(Replica(config.seed + place) for place in range(config.replicas)))
    stored = checkpoint.read_record(last)["metadata"]["run"]
    replicas = tuple(map(_read_replica, stored["replicas"]))
    run = RunState(**{**stored, "position": Position(*stored["position"]), "replicas": replicas})
    _truncate(directory, run.step)
    return run


def require_whole(directory: Path, run: RunState) -> None:
    """UserError unless what a finished run left is still there, with the hashes that it was written with."""
    validated = any(replica.best_step for replica in run.replicas)
    for name in ("best", "last") if validated else ("last",):
        try:
            files.verify(directory / name, "put it back")
            checkpoint.load_all(directory / name)
        except UserError as error:
            raise UserError(
                f"{directory}: its run is finished, but {name}/ is gone or damaged ({error}): put it back, or train in "
                "another directory"
            ) from None


def load_state(directory: Path, start: TrainState) -> TrainState:
    """The TrainState of last/, in the structure and on the devices of `start`."""
    last = directory / "last"
    stored, expected = checkpoint.read_record(last)["state"], checkpoint.arrays.describe(start)
    if stored is not None and stored.keys() != expected.keys():
        raise UserError(
            f"{last}: its training state is of another version of seqkd_jax and cannot be resumed; train in another "
            f"directory, with --start {last} to begin with its weights"
        )
    return checkpoint.load_state(last, start)


def _require_same(directory: Path, stored: dict, config: TrainConfig, inputs: Mapping[str, str]) -> None:
    """UserError if a checkpoint's metadata are not of this run."""
    if "config" not in stored:
        raise UserError(f"{directory}: holds a checkpoint that is of no training run; use another directory")
    if "inputs" not in stored:  # identities were made otherwise before 0.2.0
        raise UserError(
            f"{directory}: holds a run of seqkd_jax 0.1, which this version cannot resume; train in another directory, "
            f"with --start {directory / 'last'} to begin with its weights"
        )
    before = settings.from_json(TrainConfig, stored["config"], lambda name: f"{directory}: holds a run whose {name}")
    for name, old, new in settings.differences(before, config):
        if name not in FREE:
            raise UserError(f"{directory}: holds a run with {name}={old}, not {new}; use another directory")
    for key, value in inputs.items():
        old = stored["inputs"].get(key, value)
        if old != value:
            raise UserError(
                f"{directory}: holds a run with another {key} ({old[:12]}, not {value[:12]}); use another directory"
            )


def _read_replica(stored: dict) -> Replica:
    stored = {**stored, "best_value": float(stored["best_value"]), "decay": Decay(**_finite_or_not(stored["decay"]))}
    return Replica(**{**stored, "history": tuple(map(_finite_or_not, stored["history"]))})


def _finite_or_not(stored: dict) -> dict:
    """What `plain` made strings of, as numbers."""
    return {key: float(value) if value in ("nan", "inf", "-inf") else value for key, value in stored.items()}


LOGGED = {"step", "loss", "learning_rate", "gradient_norm"}  # of every line that is not a validation's


def append_metrics(directory: Path, line: dict) -> None:
    """Add a line to metrics.jsonl."""
    files.append(directory / "metrics.jsonl", files.json_line(plain(line)))


def _truncate(directory: Path, step: int) -> None:
    """Remove metrics past the checkpoint: those updates are made again. UserError if the file is of something else."""
    path = directory / "metrics.jsonl"
    if path.exists():
        lines = files.read_jsonl(path)
        for number, line in enumerate(lines, start=1):
            ours = isinstance(line, dict) and isinstance(line.get("step"), int)
            if not ours or not (line.get("validation") or line.keys() >= LOGGED):
                raise UserError(f"{path}, line {number}: not of a training run; use another directory")
        kept = [line for line in lines if line["step"] <= step]
        files.write_text(path, "".join(map(files.json_line, kept)))
