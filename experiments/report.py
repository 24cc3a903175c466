"""What every report of results shares: what ran, and Markdown tables that are readable as they are."""

import datetime
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments import pipeline

DAGGER = "†"  # a published number from memory


def what_ran(data: Mapping[str, str]) -> dict:
    """The top of results.json. data: what it is -> SHA-256."""
    import jax

    devices = [f"{device.platform} {device.device_kind}" for device in jax.local_devices()]
    return {
        **pipeline.provenance(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "devices": devices,
        "host_cpu": host_cpu(),
        "data": dict(data),
    }


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
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if column < left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return [line(head), line(rule), *map(line, rows)]
