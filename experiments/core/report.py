"""What every report of results shares: what ran, sections as Markdown, intervals in words."""

import datetime
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from experiments.core import measure, stages
from experiments.core.tables import Section, Table
from seqkd_jax.utils import files

DAGGER = "†"  # a published number from memory


def what_ran(data: Mapping[str, str]) -> dict:
    """The top of results.json. data: what it is -> SHA-256."""
    import jax

    devices = [f"{device.platform} {device.device_kind}" for device in jax.devices()]
    return {
        **stages.provenance(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "devices": devices,
        "processes": jax.process_count(),
        "host_cpu": host_cpu(),
        "data": dict(data),
    }


def short_commit(results: Mapping) -> str:
    """The commit of what_ran as a table tells it: twelve digits, and whether files differed from it."""
    return results["commit"][:12] + (" + changes" if "+" in results["commit"] else "")


def commits_of(training: Mapping) -> list[str]:
    """The commits of an arm's `training` in results.json; older ones name the last alone, or none."""
    last = training.get("commit")
    return training.get("commits") or ([last] if last else [])


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


def to_markdown(sections: Iterable[Section], level: int = 2) -> str:
    """Sections as Markdown whose tables are readable as they are; level: of the headings."""
    parts = []
    for section in sections:
        parts += [f"{'#' * level} {_escaped(section.title)}"] if section.title else []
        parts += map(_escaped, section.text)
        parts += ["\n".join(f"- {_escaped(point)}" for point in section.points)] if section.points else []
        if section.table:
            parts.append(_markdown_table(section.table))
            parts += ["\n".join(f"- {_escaped(note)}" for note in section.table.notes)] if section.table.notes else []
        parts += [f"![{shown}]({path})" for shown, path in section.images]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    """Aligned, so that it is readable as it is."""
    rows = [[cell(one) for one in row] for row in (table.columns, *table.rows)]
    widths = [max(2, *map(len, column)) for column in zip(*rows, strict=True)]  # "-:" takes two
    left = [column < table.left for column in range(len(widths))]
    rule = ["-" * width if words else "-" * (width - 1) + ":" for words, width in zip(left, widths, strict=True)]
    aligned = [
        [f"{cell:{'<' if words else '>'}{width}}" for cell, words, width in zip(row, left, widths, strict=True)]
        for row in (rows[0], rule, *rows[1:])
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in aligned)


def cell(text: str) -> str:
    """Plain text as a cell of a table."""
    return _escaped(text).replace("|", "\\|")


def code(text: str) -> str:
    """Any text as code within a line, between more backticks than it has in a row."""
    line = files.one_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{fence}{line}{fence}" if len(fence) == 1 else f"{fence} {line} {fence}"


def _escaped(text: str) -> str:
    """Plain text as Markdown, in one line: the stars of significance are no emphasis, and nothing is HTML."""
    marked = re.compile(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)|\*|<(?=[A-Za-z/!?])")
    return marked.sub(lambda found: found[0] if found[0][0] == "`" else f"\\{found[0]}", files.one_line(text))


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
