"""The command of the study: runs its stages, then writes results.json, table.md and plots, and prints what came out."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments.core.command import evaluated, exit_status, write
from experiments.kim_rush_2016.arms import select
from experiments.kim_rush_2016.scales import SCALES, Scale, scales
from seqkd_jax.types import UserError
from seqkd_jax.utils import progress


@dataclass(frozen=True)
class Command:
    """Kim & Rush 2016: a teacher, students distilled from it in every way of the paper, and a table beside theirs."""

    scale: str = "smoke"
    """smoke (minutes on two cores), multi30k (hours on two cores), paper, paper-en-de or paper-th-en."""
    data: Path | None = None
    """A directory with train, valid and test files; `paper` wants one for each pair inside it: en-de, th-en."""
    out: Path | None = None
    """Where results go, and stages in OUT/stages (default: runs/kim_rush_2016/SCALE)."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ARM ...")] = ()
    """Make only these arms, such as baseline seq_kd, and what they need; those made before are reported too."""
    dry_run: bool = False
    """Print parameters, updates, memory and FLOPs; train nothing."""


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 too many compilations, 2 an error that the user can mend."""
    command = tyro.cli(Command, args=arguments, prog="python -m experiments.kim_rush_2016")
    return exit_status(lambda: max([_run(scale, command) for scale in scales(command.scale)]))


def _data(scale: Scale, command: Command) -> Path | None:
    if scale.embedded:
        if command.data:
            raise UserError(f"--scale {scale.name} is on the embedded language; --data is for multi30k and paper")
        return None
    if command.data is None:
        raise UserError(f"--scale {scale.name} needs --data DIR, with train, valid and test files of its languages")
    several = len(SCALES[command.scale]) > 1
    path = command.data / "-".join(scale.languages) if several else command.data
    if not path.exists():
        raise UserError(f"{path}: no such file or directory; --data must lead to the corpus of {scale.name}")
    return path


def _run(scale: Scale, command: Command) -> int:
    from experiments.kim_rush_2016 import study

    arms = select(command.only)
    if not any(row.arm in arms for row in study.rows(scale)):
        raise UserError(f"--only {' '.join(command.only)}: scale {scale.name} has no model for that")
    if command.dry_run:
        return _dry_run(scale, arms)
    from experiments.core import report
    from experiments.kim_rush_2016 import claims, plots, tables
    from experiments.kim_rush_2016 import results as finished

    progress.count_compilations()
    started, compiled = time.monotonic(), progress.compilations()
    out = command.out or Path("runs") / "kim_rush_2016"
    out = out / scale.name if command.out is None or len(SCALES[command.scale]) > 1 else out
    making = study.Study(scale, out / "stages", _data(scale, command))
    rows = study.rows(scale)
    asked = [row for row in rows if row.arm in arms]
    found = evaluated(rows, asked, making, lambda row: row.key, study.measured)
    results = {"study": "kim_rush_2016", "scale": scale.name, **report.what_ran(finished.data_hashes(making))}
    results |= finished.collect(making, found)
    tested = claims.claims(results, scale.published)
    results["claims"] = [claim._asdict() for claim in tested]
    tables.check(results)
    table = tables.table(results, scale.published)
    write(out, results, table, plots.PLOTS)
    print(finished.samples(making, found))
    print(table)
    _print_deviations(results, tested)
    print(f"\nresults, table and plots: {out}")
    return _count(scale, time.monotonic() - started, progress.compiled()[compiled:])


def _dry_run(scale: Scale, arms) -> int:
    import jax

    from experiments.kim_rush_2016 import dry_run, study

    print(dry_run.describe(scale, jax.local_device_count(), [row for row in study.rows(scale) if row.arm in arms]))
    return 0


def _print_deviations(results: dict, tested: list) -> None:
    """From the paper's setting, and from what it found."""
    from experiments.core.claims import FAILED

    for deviation in results["deviations"]:
        print(f"- not as in the paper: {deviation}")
    failed = sum(claim.verdict == FAILED for claim in tested)
    if failed:
        print(f"warning: {failed} claim(s) of the paper did not hold in this run", file=sys.stderr)


def _count(scale: Scale, seconds: float, made: list[tuple[str, float]]) -> int:
    """Print what was compiled; too much is a failure."""
    names = ", ".join(f"{name} {took:.1f}s" for name, took in made)
    limit = f" (at most {scale.max_compilations})" if scale.max_compilations else ""
    print(f"{progress.duration(seconds)}; {len(made)} compilations{limit}: {names}")
    if scale.max_compilations and len(made) > scale.max_compilations:
        print("error: too many compilations: what should be shared differs in a shape or setting", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
