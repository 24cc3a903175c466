"""The parts in their order, each in a process of its own, in no more time than is left; what is there is kept.

A part that fails, runs out of memory or takes too long is told and left out; the next begins with a fresh process. The
backend of JAX is never started here: on TPUs one process at a time has the chips.
"""

import datetime
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from experiments.accelerator import tables
from experiments.accelerator.parts import EVERY, MACHINE, PARTS, Part
from experiments.core import report, stages
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, progress

AIM = 0.8  # of the time that a part may take, what it measures for; the rest is for its start and its last round
TO_END = 10.0  # seconds that a process may take after SIGTERM


class Told(NamedTuple):
    """What is measured, and how a part is told so."""

    minutes: float
    seed: int
    toy: bool
    data: Path | None
    out: Path


Launch = Callable[[Told, Part, float], str]  # runs a part, which writes its file; "" or why it did not


def run(told: Told, launch: Launch | None = None) -> int:
    """Measure what there is time for, and write results.json and table.md after each part."""
    launch = launch or in_a_process
    deadline = time.monotonic() + 60 * told.minutes
    stages.commit()  # of the code that is loaded now
    if failed := launch(told, MACHINE, deadline - time.monotonic()):
        raise UserError(f"no device could be measured: {failed}")
    machine = _read(told.out, MACHINE)
    toy = told.toy or all(device.startswith("cpu") for device in machine["devices"])
    if toy and not told.toy:
        progress.log("no accelerator here: toy sizes, which measure nothing")
    key = {"devices": machine["devices"], "jax": machine["jax"], "toy": toy, "seed": told.seed}
    key |= {"data": stages.content_hash(told.data) if told.data else None}
    told, left_out = told._replace(toy=toy), {}
    for place, part in enumerate(PARTS):
        if part.final and _read(told.out, part).get("key") == key:
            progress.log(f"{part.name}: measured before")
            continue
        left = deadline - time.monotonic()
        if reason := _why_not(part, left, left_out, toy):
            left_out[part.name] = reason
            continue
        share = left / (len(PARTS) - place) if toy else 0.0  # a slow machine compiles for long, but not all the time
        limit = min(max(part.seconds, share), left)
        progress.log(f"{part.name}: {limit:.0f}s at most, {left:.0f}s left")
        reason = launch(told, part, limit)
        if reason:
            left_out[part.name] = reason
            progress.log(f"{part.name} is left out: {reason}")
        else:
            files.write_json(_path(told.out, part), _read(told.out, part) | {"key": key})
        write(told, machine, key, left_out)
    print(write(told, machine, key, left_out))
    print(f"results and table: {told.out}")
    return 0 if results_of(told.out, key) else 1


def _why_not(part: Part, left: float, left_out: dict, toy: bool) -> str:
    if left < (1.0 if toy else part.least):
        return f"{max(left, 0.0):.0f}s were left, it needs {part.least:.0f}s"
    if part.after in left_out:
        return f"without {part.after} it says nothing"
    return ""


def in_a_process(told: Told, part: Part, seconds: float) -> str:
    """Run a part for so many seconds at most; "" or why it gave nothing."""
    if lacking := [name for name in part.packages if importlib.util.find_spec(name) is None]:
        return f"{' and '.join(lacking)} must be installed: pip install 'seqkd_jax[peers]'"
    command = [sys.executable, "-m", "experiments.accelerator", "--part", part.name, "--out", str(told.out)]
    command += ["--minutes", str(max(AIM * seconds, 1.0) / 60), "--seed", str(told.seed)]
    command += ["--toy"] * told.toy + (["--data", str(told.data)] if told.data else [])
    log = told.out / "logs" / f"{part.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    # A peer shares the card with the JAX of its process, which only asks what is there.
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=environment)
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"it had not ended after {seconds:.0f}s"
        finally:
            _end(process)
    if status == 0:
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.partition("error: ")[2] or line for line in reversed(lines) if line.strip()), f"status {status}")


def _end(process: subprocess.Popen) -> None:
    """A part that can save does so on SIGTERM."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _path(out: Path, part: Part) -> Path:
    return out / "parts" / f"{part.name}.json"


def _read(out: Path, part: Part) -> dict:
    path = _path(out, part)
    found = files.read_json(path) if path.exists() else {}
    return found if isinstance(found, dict) else {}


def measure(told: Told, name: str, job: Any) -> int:
    """Run one part in this process and write its file."""
    if name not in EVERY:
        raise UserError(f"--part {name}: there is none of that name; there are {', '.join(EVERY)}")
    started = time.monotonic()
    result = EVERY[name].run(job)
    how = {"commit": stages.commit(), "part_seconds": time.monotonic() - started}
    files.write_json(_path(told.out, EVERY[name]), {**result, **how})
    return 0


def results_of(out: Path, key: dict) -> dict[str, dict]:
    """What was measured here, under these settings."""
    found = {part.name: _read(out, part) for part in PARTS}
    return {name: result for name, result in found.items() if result.get("key") == key}


def write(told: Told, machine: dict, key: dict, left_out: dict) -> str:
    """results.json and table.md; returns the table."""
    found = results_of(told.out, key)
    results = {
        "study": "accelerator",
        **stages.provenance(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host_cpu": report.host_cpu(),
        "settings": {"minutes": told.minutes, "seed": told.seed, "toy": key["toy"]},
        "machine": machine,
        "parts": tables.compared(found),
        "left_out": {name: reason for name, reason in left_out.items() if name not in found},
    }
    table = report.to_markdown(tables.sections(results))
    files.write_json(told.out / "results.json", results)
    files.write_text(told.out / "table.md", table)
    return table
