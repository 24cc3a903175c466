"""The run state: what a training run carries from update to update beside its TrainState, and how it is resumed.

A run is of one or more seeds, each with a best value, a rate and an end of its own. The run state is JSON in the
metadata of last/. metrics.jsonl is for people; when a run is resumed, it is cut back to what it was when last/ was
saved, of which last/ has the hash.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from seqkd_jax import checkpoint, distributed
from seqkd_jax.config import TrainConfig
from seqkd_jax.data.batches import Position
from seqkd_jax.training.optimizer import WARMUP, Decay, with_warmup
from seqkd_jax.training.train_step import TrainState
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, integrity, progress, settings
from seqkd_jax.utils.untrusted import require_form, shown

METRICS = "metrics.jsonl"

BUCKETS = 3  # the default number of batch shapes up to 0.4.0

MASK = "mask"  # name among the inputs of a run of which weights stay zero
ABSENT = {MASK: "none"}  # the value of an input that a run need not have

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
    return {"config": settings.to_json(config), "inputs": dict(inputs), "step": run.step, "run": _to_json(run)}


def _to_json(run: RunState) -> dict:
    """What `read_run` reads."""
    replicas = [{**replica._asdict(), "decay": replica.decay._asdict()} for replica in run.replicas]
    return plain({**run._asdict(), "replicas": replicas})


def of_first(run: RunState | None) -> RunState:
    """The run state of process 0, in every process; None: of another process."""
    return read_run(distributed.agreed(None if run is None else _to_json(run)), Path("process 0"))


def plain(value: Any) -> Any:
    """As JSON has it: tuples as lists, so that what is read back compares equal; infinities as strings."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


STEPS = f"step-{'[0-9]' * 7}"  # the checkpoints of `TrainConfig.keep`, and nothing else


def with_warmup_of_run(directory: Path, config: TrainConfig, total: int) -> TrainConfig:
    """The configuration of a run of `total` updates with its warm-up settled, if that is None.

    A run that is resumed keeps its warm-up: one of version 0.2.0 has 400 updates, whatever its length.
    """
    if config.optimiser.warmup_steps is not None:
        return config
    optimiser = with_warmup(config.optimiser, total)
    if distributed.agreed(distributed.first() and _warmup_of_run(directory) == WARMUP):
        optimiser = dataclasses.replace(optimiser, warmup_steps=WARMUP)
    return dataclasses.replace(config, optimiser=optimiser)


def _warmup_of_run(directory: Path) -> int | None:
    """That of the run in `directory`; None if there is none, or it was not settled."""
    return _stored(directory).get("config", {}).get("optimiser", {}).get("warmup_steps")


def with_buckets_of_run(directory: Path, config: TrainConfig) -> TrainConfig:
    """The configuration with the number of batch shapes of the run in `directory`, if that had the former default."""
    if config.batch.buckets is not None:
        return config
    stored = _stored(directory).get("config", {}).get("batch") if distributed.first() else None
    if not distributed.agreed(isinstance(stored, dict) and stored.get("buckets") == BUCKETS):
        return config
    return dataclasses.replace(config, batch=dataclasses.replace(config.batch, buckets=BUCKETS))


def input_of_run(directory: Path, name: str) -> str | None:
    """What the run in `directory` has under this name among its inputs; None: no run."""
    return distributed.agreed(_stored(directory).get("inputs", {}).get(name) if distributed.first() else None)


def _stored(directory: Path) -> dict:
    """The metadata of the run in `directory`; empty without one."""
    existing = _existing(directory)
    return {} if existing is None else _metadata(existing)


def _existing(directory: Path) -> Path | None:
    """The first checkpoint of a run in `directory`: last/, if it is there."""
    left = [directory / "last", directory / "best", *sorted(directory.glob("epoch-*")), *sorted(directory.glob(STEPS))]
    return next((place for place in left if files.existing(place).exists()), None)


def _metadata(place: Path) -> dict:
    """The metadata of a checkpoint of a run. UserError if it is not of the form that `metadata` gives it."""
    form = {"config?": {"optimiser?": dict}, "inputs?": {...: str}}
    found = checkpoint.read_record(place)["metadata"]
    return require_form(found, form, f"{place / 'checkpoint.json'}, metadata", "bring back a copy, or train again")


def resume(directory: Path, config: TrainConfig, inputs: Mapping[str, str]) -> RunState:
    """The run that `directory` holds, or a new one; UserError if it holds another. What no run will use is removed."""
    last = directory / "last"
    existing = _existing(directory)
    if existing is not None:
        _require_same(directory, _metadata(existing), config, inputs)
    if existing != last:  # nothing is there, or the run was killed before last/ was, or that was deleted: start over
        for old in directory.glob(STEPS):
            files.remove(old)
        _truncate(directory, 0)
        return RunState(tuple(Replica(config.seed + place) for place in range(config.replicas)))
    record = checkpoint.read_record(last)
    run = read_run(record["metadata"].get("run"), last / "checkpoint.json")
    _require_whole(directory, run, record)
    _cut_back(directory, run, record["metadata"].get("metrics"))
    return run


def _require_whole(directory: Path, run: RunState, record: dict) -> None:
    """UserError unless what a run has left is still there, with the hashes that it was written with.

    record: of last/. The state of a run that is not finished is verified when it is loaded.
    """
    validated = any(replica.best_step for replica in run.replicas)
    for name in ("best", "last") if validated else ("last",):
        parts = ("*",) if run.finished or name == "best" else ("params/*", "vocabulary/*")
        try:
            checkpoint.read_record(directory / name, parts, "put it back")
            if run.finished and integrity.SEALED not in record:  # of before 0.3.0: its weights alone have a hash
                checkpoint.load_all(directory / name)
        except UserError as error:
            raise UserError(
                f"{directory}: its run is {'' if run.finished else 'not '}finished, but {name}/ is gone or damaged "
                f"({error}): put it back, or train in another directory"
            ) from None


def load_state(directory: Path, start: TrainState) -> TrainState:
    """The TrainState of last/, in the structure and on the device of `start`."""
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
            raise UserError(f"{directory}: holds a run with {name}={old!s:.100}, not {new}; use another directory")
    for key, value in {**ABSENT, **inputs}.items():
        old = stored["inputs"].get(key, ABSENT.get(key, value))
        if old != value:
            raise UserError(
                f"{directory}: holds a run with another {key} ({old[:12]}, not {value[:12]}); use another directory"
            )


def read_run(stored: Any, path: Path) -> RunState:
    """The run state in checkpoint.json. UserError if it is not of the form that `metadata` gives it."""
    stored = _fields(RunState, stored, path, "metadata.run")
    replicas = []
    for place, replica in enumerate(stored["replicas"]):
        name = f"metadata.run.replicas[{place}]"
        replica = _fields(Replica, replica, path, name)
        decay = _fields(Decay, replica.get("decay", {}), path, f"{name}.decay")
        history = tuple(map(_finite_or_not, replica.get("history", ())))
        replicas.append(Replica(**{**replica, "decay": Decay(**decay), "history": history}))
    position = Position(*stored.get("position", Position(0, 0)))
    return RunState(**{**stored, "position": position, "replicas": tuple(replicas)})


FORMS = {tuple[Replica, ...]: [dict], Position: [int, int], Decay: dict, tuple: [dict], float: (float, str)}


def _fields(kind: Any, stored: Any, path: Path, name: str) -> dict:
    """The fields of a NamedTuple as JSON has them, numbers that JSON has not as numbers. UserError for others."""
    hints, remedy = get_type_hints(kind), "bring back a copy, or train in another directory"
    form = {f"{field}{'?' * (field in kind._field_defaults)}": FORMS.get(hint, hint) for field, hint in hints.items()}
    require_form(stored, form, f"{path}, {name}", remedy)
    for field, value in stored.items():
        if field not in hints or (hints[field] is float and isinstance(value, str) and value not in NOT_FINITE):
            raise UserError(f"{path}, {name}: damaged, {field} is {shown(value)}; {remedy}")
    return _finite_or_not(stored)


NOT_FINITE = ("nan", "inf", "-inf")


def _finite_or_not(stored: dict) -> dict:
    """What `plain` made strings of, as numbers."""
    return {key: float(value) if value in NOT_FINITE else value for key, value in stored.items()}


LOGGED = {"step", "loss", "learning_rate", "gradient_norm"}  # of every line that is not a validation's


def append_metrics(directory: Path, line: dict) -> None:
    """Add a line to metrics.jsonl."""
    files.append(directory / METRICS, files.json_line(plain(line)))


def metrics_mark(directory: Path) -> dict:
    """How many bytes metrics.jsonl has, and their SHA-256: it is stored with last/, for `resume` to compare."""
    path = directory / METRICS
    data = path.read_bytes() if path.exists() else b""
    return {"bytes": len(data), "sha256": files.sha256_bytes(data)}


MARK = {"bytes": int, "sha256": str}


def _cut_back(directory: Path, run: RunState, mark: Any) -> None:
    """Cut from metrics.jsonl what came after last/ was saved: those updates are made again; see `read_metrics`."""
    path = directory / METRICS
    if mark is None:
        return _truncate(directory, run.step)
    data, count = read_metrics(directory, run.finished, mark), mark["bytes"]
    if data is None and count:
        progress.log(f"{path}: is gone; the run goes on without the lines of its first {run.step:,} updates")
    if data is not None and len(data) > count:
        progress.log(f"{path}: {len(data) - count:,} bytes are cut: their updates, after {run.step:,}, are made again")
        files.write_bytes(path, data[:count])


def read_metrics(directory: Path, finished: bool, mark: Any) -> bytes | None:
    """The content of metrics.jsonl; None if it is gone. UserError if what was there when last/ was saved is not now.

    mark: what `metrics_mark` gave then. finished: nothing may have been added since.
    """
    path, last = directory / METRICS, directory / "last"
    require_form(mark, MARK, f"{last / 'checkpoint.json'}, metadata.metrics", "bring back a copy")
    count = mark["bytes"]
    if not path.exists():
        return None
    files.require_file(path)
    data = path.read_bytes()
    if files.sha256_bytes(data[:count]) != mark["sha256"]:
        raise UserError(
            f"{path}: damaged, its first {count:,} bytes are not those it had when {last} was saved; bring back a "
            "copy, or delete it to go on without"
        )
    if len(data) > count and finished:
        raise UserError(
            f"{path}: damaged, {len(data) - count:,} bytes came after the end of the run; cut it to {count:,} bytes"
        )
    return data


def _truncate(directory: Path, step: int) -> None:
    """Remove the lines of updates after `step`. UserError if the file is of something else than a training run."""
    path = directory / METRICS
    if path.exists():
        lines = files.read_jsonl(path)
        for number, line in enumerate(lines, start=1):
            ours = isinstance(line, dict) and isinstance(line.get("step"), int)
            if not ours or not (line.get("validation") or line.keys() >= LOGGED):
                raise UserError(f"{path}, line {number}: not of a training run; use another directory")
        kept = [line for line in lines if line["step"] <= step]
        files.write_text(path, "".join(map(files.json_line, kept)))
