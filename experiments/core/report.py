"""What every report of results shares: what ran, Markdown tables that are readable as they are, intervals in them."""

import datetime
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from experiments.core import measure, stages
from seqkd_jax.types import UserError
from seqkd_jax.utils import files

DAGGER = "†"  # a published number from memory


def what_ran(data: Mapping[str, str]) -> dict:
    """The top of results.json. data: what it is -> SHA-256."""
    import jax

    devices = [f"{device.platform} {device.device_kind}" for device in jax.local_devices()]
    return {
        **stages.provenance(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "devices": devices,
        "host_cpu": host_cpu(),
        "data": dict(data),
    }


def read(path: Path, study: str, written: Collection[str]) -> dict:
    """A results.json of that study, each of whose arms has what `written` names; UserError for what is none."""
    found = files.read_json(path)
    if not isinstance(found, dict) or found.get("study") != study or not isinstance(found.get("arms"), list):
        raise UserError(f"{path}: no results.json of {study}; name one that this study has written")
    if not all(isinstance(arm, dict) and arm.keys() >= set(written) for arm in found["arms"]):
        raise UserError(f"{path}: lacks what a results.json of this study has, or is of an old form; make it anew")
    return found


def short_commit(results: Mapping) -> str:
    """The commit of what_ran as a table tells it: twelve digits, and whether files differed from it."""
    return results["commit"][:12] + (" + changes" if "+" in results["commit"] else "")


def host_cpu() -> str:
    """The processor's name, as far as the system tells, and its number of cores for this process."""
    import os

    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """The lines of a table, aligned, so that they are readable as they are; the first `left` columns are text."""
    widths = [max(2, *(len(row[column]) for row in [head, *rows])) for column in range(len(head))]  # "-:" takes two

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if column < left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return [line(head), line(rule), *map(line, rows)]


def _amount(value: float) -> str:
    return f"{value:,.{0 if value >= 100 else 1}f}"


def interval(found: Mapping, write: Callable[[float], str] = _amount) -> str:
    """A measured interval as median [low, high], or the median alone where there are too few rounds."""
    if found["low"] is None:
        return write(found["median"])
    return f"{write(found['median'])} [{write(found['low'])}, {write(found['high'])}]"


def speed_up(found: Mapping | None) -> str:
    """How many times as fast our system is as another, where the interval excludes 1."""
    if found is None:
        return "–"
    if found["low"] is None:
        return "too few rounds"
    two = lambda value: f"{value:.2f}"  # noqa: E731
    if measure.differs_from_one(measure.Interval(**found)):
        return f"{two(found['median'])}× [{two(found['low'])}, {two(found['high'])}]"
    return f"no difference shown [{two(found['low'])}, {two(found['high'])}]"
