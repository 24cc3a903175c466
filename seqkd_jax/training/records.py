"""Records of a run that people plot, beside metrics.jsonl: CSV, TensorBoard's event files, Weights & Biases.

metrics.jsonl is the one source. When a run begins or resumes, after that file was cut back to the last save, each
record is written anew from it; from then on it gets every line that metrics.jsonl gets. So a record holds every step
once, however often the run was killed, and also one that is asked for only on the resume.
"""

import contextlib
import csv
import functools
import importlib
import importlib.util
import io
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seqkd_jax.types import UserError
from seqkd_jax.utils import files


class Event(NamedTuple):
    """A line of metrics.jsonl as scalars."""

    step: int
    scalars: dict[str, float]  # train/loss, validation/bleu, ...; of several seeds train/loss/seed-3


class Record(NamedTuple):
    """An open record."""

    add: Callable[[Event], object]
    close: Callable[[], object] = lambda: None


class Writer(NamedTuple):
    """A kind of record."""

    open: Callable[[Path, list[Event]], Record]  # the run's directory, and what it has logged so far
    package: str = ""  # that must be installed
    install: str = ""  # how


def _csv(directory: Path, events: list[Event]) -> Record:
    """metrics.csv: a row for each event, a column for each name; written anew when a name is new."""
    path, rows = directory / "metrics.csv", list(events)
    columns = dict.fromkeys(name for event in rows for name in event.scalars)

    def text(chosen: Sequence[Event], header: bool) -> str:
        made = io.StringIO()
        table = csv.DictWriter(made, ["step", *columns], lineterminator="\n")
        if header:
            table.writeheader()
        table.writerows({"step": event.step, **event.scalars} for event in chosen)
        return made.getvalue()

    def add(event: Event) -> None:
        rows.append(event)
        if event.scalars.keys() <= columns.keys():
            files.append(path, text([event], header=False))
        else:
            columns.update(dict.fromkeys(event.scalars))
            files.write_text(path, text(rows, header=True))

    files.write_text(path, text(rows, header=True))
    return Record(add)


def _tensorboard(directory: Path, events: list[Event]) -> Record:
    """tensorboard/events.out.tfevents.*"""
    from tensorboardX import SummaryWriter

    place = directory / "tensorboard"
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise UserError(f"{place}: is a link or no directory, and would be written to; delete it")
    for old in place.glob("events.out.tfevents.*"):
        old.unlink()
    writer = SummaryWriter(str(place), flush_secs=10)

    def add(event: Event) -> None:
        for name, value in event.scalars.items():
            writer.add_scalar(name, value, event.step)

    for event in events:
        add(event)
    return Record(add, writer.close)


def _wandb(directory: Path, events: list[Event]) -> Record:
    """A run of W&B, continued by its id in wandb-id. It forgets nothing: what it has of a step that is made again is
    the same, and stays.
    """
    wandb: Any = importlib.import_module("wandb")  # no extra of ours: types are checked without it
    place = directory / "wandb-id"
    if not place.exists():
        files.write_text(place, f"{uuid.uuid4().hex}\n")
    number = place.read_text(encoding="utf-8").strip()
    project = os.environ.get("WANDB_PROJECT", "seqkd_jax")
    run = wandb.init(project=project, name=directory.resolve().name, id=number, resume="allow", dir=str(directory))
    known = int(run.step or 0)  # 0 of a new run

    def add(event: Event) -> None:
        if event.step >= known:
            run.log(dict(event.scalars), step=event.step)

    for event in events:
        add(event)
    return Record(add, run.finish)


WRITERS: dict[str, Writer] = {
    "csv": Writer(_csv),
    "tensorboard": Writer(_tensorboard, "tensorboardX", "pip install 'seqkd_jax[tensorboard]'"),
    "wandb": Writer(_wandb, "wandb", "pip install wandb"),
}


def require(names: Sequence[str], option: str = "log") -> None:
    """UserError for a record that is unknown, or whose package is not installed. option: what the user calls them."""
    for name in names:
        if name not in WRITERS:
            raise UserError(f"{option} is {name!r}: it must be one of {', '.join(WRITERS)}")
        package = WRITERS[name].package
        if package and importlib.util.find_spec(package) is None:
            raise UserError(f"{option} {name} needs the package {package}: {WRITERS[name].install}")


@contextlib.contextmanager
def kept(directory: Path, names: Sequence[str], seed: int) -> Iterator[Callable[[dict], None]]:
    """Open the records of a run; yields what adds a line of metrics.jsonl to each. seed: the first of the replicas."""
    require(names)
    if not names:
        yield lambda line: None
        return
    path = directory / "metrics.jsonl"
    read = functools.partial(_event, seed=seed)
    events = [read(line) for line in files.read_jsonl(path)] if path.exists() else []
    with contextlib.ExitStack() as opened:
        records = []
        for name in dict.fromkeys(names):
            records.append(WRITERS[name].open(directory, events))
            opened.callback(records[-1].close)

        def add(line: dict) -> None:
            for record in records:
                record.add(read(line))

        yield add


def _event(line: dict[str, Any], seed: int) -> Event:
    """A line of metrics.jsonl, which has lists where there are several replicas, and texts for nan and inf."""
    part = "validation" if line.get("validation") else "train"
    own = f"/seed-{line['seed']}" if "seed" in line else ""
    scalars = {}
    for key, value in line.items():
        if key in ("step", "validation", "seed"):
            continue
        if isinstance(value, list):
            scalars |= {f"{part}/{key}/seed-{seed + place}": float(one) for place, one in enumerate(value)}
        else:
            scalars[f"{part}/{key}{own}"] = float(value)
    return Event(line["step"], scalars)
