"""Checks of training runs and of checkpoints."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from seqkd_jax import checkpoint
from seqkd_jax.checkpoint import run_config
from seqkd_jax.checkpoint.metadata import inputs_of
from seqkd_jax.config import TrainConfig
from seqkd_jax.training.run_state import METRICS, RunState, read_metrics, read_run
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, settings, temporary
from seqkd_jax.utils.untrusted import printable
from seqkd_jax.verification.outcome import Outcome, Verified, examine, leads_out, require, require_sums

CHECKPOINTS = re.compile(r"best|last|end|epoch-[0-9]{4,}|step-[0-9]{7,}")  # of a run
OTHERS = {
    METRICS,
    settings.CONFIG_FILE,
    ".lock",
    "metrics.csv",
    "tensorboard",
    "wandb",
    "wandb-id",
}  # that a run writes


def check_checkpoint(directory: Path, teacher: str | None) -> Iterator[Verified]:
    """A checkpoint: all hashes, shapes, the vocabulary, the hash of the weights, which must be finite."""
    yield examine(directory, "checkpoint", lambda path: _checkpoint(path, directory))


def _checkpoint(path: Path, directory: Path) -> Outcome:
    sealed = require_sums(path)
    record, name = checkpoint.verify_at(path, directory)
    diverged = [place for place, one in enumerate(_replicas(record["metadata"])) if one.get("diverged")]
    require(name is None or bool(diverged), directory, f"{name} has values that are not finite")
    told = [] if sealed else ["no SHA256SUMS: a version before 0.3.0 wrote it"]
    told += [f"seed number {place} diverged" for place in diverged]
    told += [f"{record['pruned']['weights']:,} weights are pruned"] if record.get("pruned") else []
    return Outcome("whole", "; ".join(["whole", *told]))


def _replicas(metadata: Mapping[str, Any]) -> list[dict]:
    run = metadata.get("run")
    replicas = run.get("replicas") if isinstance(run, dict) else None
    return [one for one in replicas if isinstance(one, dict)] if isinstance(replicas, list) else []


def check_run(directory: Path, teacher: str | None) -> Iterator[Verified]:
    """A training run: metrics.jsonl, config.json, which checkpoints must be there; then each of these."""
    yield examine(directory, "training run", lambda path: _run(directory), lambda name: not CHECKPOINTS.fullmatch(name))
    places = {path.name for path in (*directory.iterdir(), *temporary.stepped_aside(directory))}
    for name in sorted(filter(CHECKPOINTS.fullmatch, places)):
        if leads_out(directory, name):
            told = "is a link that leads out of the run; verify what it leads to"
            yield Verified(str(directory / name), "checkpoint", 0, 0, "damaged", told, (f"{directory / name}: {told}",))
        elif files.existing(directory / name).exists():  # `keep` may have removed it meanwhile
            yield from check_checkpoint(directory / name, teacher)


def _run(directory: Path) -> Outcome:
    config = directory / settings.CONFIG_FILE
    described = run_config.content(config) if config.exists() else {}
    if described:
        require(described["command"] == "train", config, f"is of `seqkd {described['command']}`, not of a training run")
    last, beside = directory / "last", _not_of_a_run(directory)
    if not files.existing(last).exists():
        require(not _was_saved(directory), last, f"is gone, {METRICS} goes on after it was saved")
        others = [path.name for path in directory.iterdir() if CHECKPOINTS.fullmatch(path.name)]
        return Outcome("unfinished", f"not finished, last/ {'is gone' if others else 'was not saved yet'}{beside}")
    try:
        record = checkpoint.read_record(last)
        metadata = record["metadata"]
        run = read_run(metadata.get("run"), last / "checkpoint.json")
    except UserError:  # it is told of last/ itself
        return Outcome("damaged", "last/ is damaged")
    require(config.exists() or not metadata.get("described"), config, "is missing")
    _metrics(directory, metadata.get("metrics"), run)
    _belongs(directory, described, record, run)
    trained = settings.from_json(TrainConfig, metadata["config"], lambda name: f"{last}: metadata.config.{name}")
    _complete(directory, trained, run)
    if run.finished:
        return Outcome("whole", f"finished, {run.step:,} updates{beside}")
    return Outcome("unfinished", f"not finished, update {run.step:,} of {_total(trained, run)}{beside}")


def _not_of_a_run(directory: Path) -> str:
    """What is at the top of a run that no run writes, such as the log of a user: it is named, and damages nothing."""
    names = {path.name for path in directory.iterdir()} - OTHERS
    foreign = sorted(name for name in names if not CHECKPOINTS.fullmatch(name) and temporary.replaced(name) == name)
    return f"; not of the run: {printable(', '.join(foreign))[:200]}" if foreign else ""


def _was_saved(directory: Path) -> bool:
    """Whether there was a last/, which is saved after each validation: updates follow one."""
    path = directory / METRICS
    lines = [line for line in files.read_jsonl(path) if isinstance(line, dict)] if path.exists() else []
    steps = [line["step"] for line in lines if type(line.get("step")) is int]
    validated = next((line.get("step") for line in lines if line.get("validation")), None)
    return type(validated) is int and max(steps) > validated


def _metrics(directory: Path, mark: dict | None, run: RunState) -> None:
    path = directory / METRICS
    if mark is not None:
        found = read_metrics(directory, run.finished, mark)
        require(found is not None or not mark["bytes"], path, "is missing")
    if path.exists():
        files.read_jsonl(path)


def _belongs(directory: Path, described: Mapping[str, Any], record: dict, run: RunState) -> None:
    """best/ and config.json are of the run of last/, and best/ is not older than that says."""
    own = described.get("inputs", {}).get("vocabulary", {}).get("fingerprint", record["vocabulary"])
    require(own == record["vocabulary"], directory / settings.CONFIG_FILE, "is of another vocabulary than last/")
    best, step = directory / "best", max(replica.best_step for replica in run.replicas)
    if not step:
        return
    require(files.existing(best).exists(), best, f"is missing, and last/ says that update {step:,} was the best")
    try:
        metadata = checkpoint.read_record(best)["metadata"]
    except UserError:  # it is told of best/ itself
        return
    require(inputs_of(metadata) == inputs_of(record["metadata"]), best, "is of another run than last/")
    at = metadata.get("step")
    fits = at == step if run.finished else isinstance(at, int) and at >= step  # it is saved first
    require(fits, best, f"is of update {at}, but last/ says that update {step:,} was the best")


def _complete(directory: Path, config: TrainConfig, run: RunState) -> None:
    """With keep_path, the weights of epochs 0, 1, 2, 4, 8, ... are there, and at last those of the end."""
    if not config.keep_path:
        return
    epochs = (epoch for epoch in range(run.position.epoch + 1) if epoch.bit_count() < 2)
    for name in (*(f"epoch-{epoch:04d}" for epoch in epochs), *(["end"] if run.finished else [])):
        require(files.existing(directory / name).exists(), directory / name, "is missing")


def _total(config: TrainConfig, run: RunState) -> str:
    """How many updates a run has; in its first epoch it may be known only how many epochs."""
    step, (epoch, batch) = run.step, run.position
    if epoch:
        total = config.epochs * ((step - batch) // epoch)
        return f"{min(total, config.max_steps or total):,}"
    return f"{config.epochs} epochs" + (f", {config.max_steps:,} at most" if config.max_steps else "")
