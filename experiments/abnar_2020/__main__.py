"""The command of the study: runs its stages, then writes results.json, table.md and plots, and prints what came out."""

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.abnar_2020.arms import select, with_teachers
from experiments.abnar_2020.scale import QUIRKS, SETUPS, Quirk, Scale
from experiments.abnar_2020.scales import scale_of
from experiments.core.command import evaluated, exit_status, write
from seqkd_jax.types import UserError
from seqkd_jax.utils import progress


@dataclass(frozen=True)
class Command:
    """Abnar et al. 2020: models of several architectures alone, and each taught by the others; tables beside theirs."""

    scenario: Literal["agreement", "digits"] = "agreement"
    """Subject-verb agreement, or digits."""
    setup: Literal["lm", "classification"] | None = None
    """Of agreement: language models, or classifiers of the verb's number (None)."""
    scale: Literal["smoke", "small", "paper"] = "smoke"
    """smoke: minutes, on embedded data; small: hours on two cores; paper: the published sizes."""
    data: Path | None = None
    """A directory with train.tsv, valid.tsv and test.tsv, or Linzen et al.'s file; digits: one with MNIST's files."""
    out: Path | None = None
    """Where results go, and stages in OUT/stages (None: runs/abnar_2020/SETUP-SCALE, then quirks)."""
    seeds: int | None = None
    """So many seeds of each arm, trained at once (None: the scale's)."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ARM ...")] = ()
    """Make only these arms, such as lstm-to-transformer, with their teachers; what was made before is reported, too."""
    quirks: tuple[Quirk, ...] = ()
    """Do as the paper's code does: teachers keep their dropout; the teacher's term is divided by T², not multiplied."""
    alpha: float = 1.0
    """Of a student's loss, the weight of its teacher's distribution; the label has the rest (the paper: 1)."""
    teachers: Literal["one", "each"] = "each"
    """each: every seed of a student is taught by that seed of its teacher; one: all by the first."""
    dry_run: bool = False
    """Print parameters, updates and FLOPs; train nothing."""


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 an error that the user can mend."""
    command = tyro.cli(Command, args=arguments, prog="python -m experiments.abnar_2020")
    return exit_status(lambda: _run(_scale(command), command))


def _scale(command: Command) -> Scale:
    scale = scale_of(command.scenario, command.setup, command.scale, command.quirks)
    return replace(scale, teachers=command.teachers, soft=replace(scale.soft, alpha=command.alpha))


def _check(scale: Scale, command: Command) -> None:
    if command.seeds is not None and command.seeds < 1:
        raise UserError(f"--seeds {command.seeds}: at least 1")
    if not 0 < command.alpha <= 1:
        raise UserError(f"--alpha {command.alpha:g}: above 0, and at most 1")
    if command.dry_run:
        return
    if scale.embedded and command.data:
        raise UserError(f"--scale {scale.name} is on embedded data; --data is for small and paper")
    if not scale.embedded and command.data is None:
        raise UserError(f"--scale {scale.name} needs --data: {SETUPS[scale.setup].files}")
    if command.data is not None and not command.data.exists():
        raise UserError(f"{command.data}: no such file or directory; --data must lead to {SETUPS[scale.setup].files}")


def _out(scale: Scale, command: Command) -> Path:
    """Where results go."""
    said = [name for name in QUIRKS if name in command.quirks] + ["one_teacher"] * (command.teachers == "one")
    said += [f"alpha_{command.alpha:g}"] * (command.alpha != 1)
    return command.out or Path("runs") / "abnar_2020" / "-".join((scale.setup, scale.name, *said))


def _run(scale: Scale, command: Command) -> int:
    _check(scale, command)
    asked = with_teachers(scale.arms, select(scale.arms, command.only))
    if command.dry_run:
        from experiments.abnar_2020 import dry_run

        print(dry_run.describe(scale, command.seeds or scale.seeds, asked))
        return 0
    from experiments.abnar_2020 import claims, plots, results, study, tables, tasks
    from experiments.core import report

    progress.count_compilations()
    started = time.monotonic()
    out = _out(scale, command)
    making = study.Study(scale, tasks.load(scale, command.data), out / "stages", command.seeds or scale.seeds)
    left_out = evaluated(scale.arms, asked, making, lambda arm: arm.key, study.evaluated)
    found = results.collect(making, left_out)
    found = {"study": "abnar_2020", **report.what_ran(found["data"]), **found}
    found["claims"] = [claim._asdict() for claim in claims.claims(found)]
    table = tables.table(found)
    write(out, found, table, plots.PLOTS)
    print(table)
    print(f"results, table and plots: {out}")
    print(f"{progress.duration(time.monotonic() - started)}; {progress.compilations()} compilations")
    return 0


if __name__ == "__main__":
    sys.exit(main())
