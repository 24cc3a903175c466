"""Verdicts, table and plots anew from a results.json alone: nothing is trained, and no checkpoint is read.

For results whose checkpoints are gone, or somebody else's, after claims, tables or plots were changed.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from experiments import pipeline
from experiments.abnar_2020 import claims, plots, results, tables
from experiments.command import exit_status, write


@dataclass(frozen=True)
class Command:
    """Write table.md, plots and the verdicts of results.json anew, from what results.json says of the arms."""

    out: Path
    """The directory of results.json, such as experiments/results/abnar_2020/lm."""


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 an error that the user can mend."""
    command = tyro.cli(Command, args=arguments, prog="python -m experiments.abnar_2020.render")
    return exit_status(lambda: _run(command))


def _run(command: Command) -> int:
    found = results.read(command.out / "results.json")
    found["claims"] = [claim._asdict() for claim in claims.claims(found)]
    found["rendered"] = pipeline.commit()
    write(command.out, found, tables.table(found), plots.PLOTS)
    print(f"{command.out}: table.md, plots and {len(found['claims'])} verdicts written anew")
    return 0


if __name__ == "__main__":
    sys.exit(main())
