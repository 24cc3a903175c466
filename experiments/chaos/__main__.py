"""The command: kill real runs, and compare what they come to with runs that were left alone.

python -m experiments.chaos [--kills 1000] [--work DIR] [--out OUT] [--only EXPERIMENT ...]
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import tyro

from experiments.chaos import disk, jobs, runs, tables
from experiments.chaos.kills import FULL
from experiments.chaos.lives import Bench
from experiments.chaos.runs import EXPERIMENTS, Experiment
from experiments.core import report, stages
from seqkd_jax.cli.main import errors_in_one_line
from seqkd_jax.config import Count, Positive, Seed
from seqkd_jax.types import UserError
from seqkd_jax.utils import files
from seqkd_jax.utils.devices import cores
from seqkd_jax.utils.exits import exit_status
from seqkd_jax.utils.settings import Settings

MODULE = "experiments.chaos"
COMMAND = f"python -m {MODULE}"


@dataclass(frozen=True, kw_only=True)
class Options(Settings):
    """Kill real runs at random moments; what they come to must be what a run comes to that is left alone."""

    kills: Positive = 1000
    """Kills in all; each experiment has its share."""
    seed: Seed = 0
    """Of all that is drawn: the moments, what is done, to which process."""
    jobs: Count = 0
    """Experiments at the same time; 0: as many as there are cores."""
    work: Path = Path("runs/chaos")
    """Where the runs are; killed, the same command continues there."""
    out: Path | None = None
    """Where results.json and table.md go (default: the directory of --work)."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="EXPERIMENT ...")] = ()
    """Only these experiments, by the start of their names."""
    render: Path | None = None
    """A directory with results.json: write its table anew, and kill nothing."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 nothing was lost, 1 something was, 2 an error that the user can mend."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    with errors_in_one_line(COMMAND):
        options = tyro.cli(Options, args=given, prog=COMMAND)

    def run() -> int:
        if options.render:
            return _write(files.read_json(options.render / "results.json"), options.render)
        options.validate(lambda name: f"--{name}")
        chosen = select(options.only)
        mounts = any(FULL in one.actions for one in chosen) and disk.enter(MODULE, given)
        return kill(options, [one for one in chosen if mounts or FULL not in one.actions], len(chosen))

    return exit_status(run, interrupted="interrupted; the same command continues from here")


def select(names: Sequence[str]) -> list[Experiment]:
    """The experiments whose names begin with one of these; all if none is given; UserError for one not there."""
    for name in names:
        if not any(one.name.startswith(name) for one in EXPERIMENTS):
            there = "; ".join(one.name for one in EXPERIMENTS)
            raise UserError(f"--only {name}: no experiment begins with that; there are: {there}")
    return [one for one in EXPERIMENTS if not names or one.name.startswith(tuple(names))]


def kill(options: Options, chosen: Sequence[Experiment], asked: int) -> int:
    """Make the kills and write the results; the exit status."""
    work = options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    with files.locked(work):
        plan = {"commit": stages.commit(), "seed": options.seed}
        _require_same(work, plan)
        jax.config.update("jax_platforms", "cpu")  # as in the runs
        data = runs.write_inputs(work)
        _teach(work)
        benches = [Bench(one, work, options.seed) for one in chosen]
        jobs.run_all(benches, shares(options.kills, chosen), options.jobs or cores())
    found = [tables.collect(bench) for bench in benches]
    left_out = [] if len(chosen) == asked else [f"experiments with a {FULL} are left out: nothing can be mounted here"]
    settings = {"kills": options.kills, "seed": options.seed, "jobs": options.jobs}
    results = {"study": "chaos", **report.what_ran(data), "settings": settings, "experiments": found}
    return _write({**results, "left_out": left_out}, options.out or work)


def shares(kills: int, chosen: Sequence[Experiment]) -> list[int]:
    """How many kills each experiment has, by its share, one at least."""
    of_all = sum(one.share for one in chosen)
    wanted = [max(1, int(kills * one.share / of_all)) for one in chosen]
    wanted[0] += max(0, kills - sum(wanted))
    return wanted


def _require_same(work: Path, plan: dict) -> None:
    """UserError if the directory holds kills of other code or another seed."""
    path = work / "plan.json"
    before = files.read_json(path) if path.exists() else plan
    for name, value in plan.items():
        if before[name] != value:
            told = f"holds kills with {name} {before[name]}, not {value}"
            raise UserError(f"{work}: {told}; name another directory")
    files.write_json(path, plan)


def _teach(work: Path) -> None:
    """Train the teacher, unless it is there."""
    variables = runs.environment(work, EXPERIMENTS[0])
    done = subprocess.run(
        runs.teacher_command(), cwd=work / "inputs", env={**os.environ, **variables}, capture_output=True, text=True
    )
    if done.returncode:
        raise UserError(f"{work}: the teacher could not be trained: {done.stderr.splitlines()[-1:]}")


def _write(results: dict, out: Path) -> int:
    table = report.to_markdown(tables.sections(results))
    files.write_json(out / "results.json", results)
    files.write_text(out / "table.md", table)
    print(f"{table}\nresults and table: {out}")
    return int(any(experiment["faults"] for experiment in results["experiments"]))


if __name__ == "__main__":
    sys.exit(main())
