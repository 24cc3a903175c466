"""Verdicts, table and plots of a study anew from its results.json alone: nothing is trained, and no checkpoint is read.

For results whose checkpoints are gone, or somebody else's, after claims, tables or plots were changed.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import tyro

from experiments.core import stages
from experiments.core.claims import Claim
from experiments.core.command import exit_status, write
from seqkd_jax.types import UserError
from seqkd_jax.utils import files


@dataclass(frozen=True)
class Command:
    """Write table.md, plots and the verdicts of results.json anew, from what results.json says of the arms."""

    out: Path
    """The directory of results.json, such as experiments/results/abnar_2020/lm."""


class Rendered(NamedTuple):
    """What is written anew of a study."""

    results: dict
    claims: Sequence[Claim]
    table: str
    plots: Mapping[str, Callable]


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 an error that the user can mend."""
    command = tyro.cli(Command, args=arguments, prog="python -m experiments.core.render")
    return exit_status(lambda: _run(command))


def _run(command: Command) -> int:
    path = command.out / "results.json"
    found = files.read_json(path)
    study = found.get("study") if isinstance(found, dict) else None
    if study not in STUDIES:
        raise UserError(f"{path}: no results.json of {' or '.join(STUDIES)}; name one that a study has written")
    results, claims, table, plots = STUDIES[study](path)
    results |= {"claims": [claim._asdict() for claim in claims], "rendered": stages.commit()}
    write(command.out, results, table, plots)
    print(f"{command.out}: table.md, plots and {len(claims)} verdicts written anew")
    return 0


def _abnar_2020(path: Path) -> Rendered:
    from experiments.abnar_2020 import claims, plots, results, tables

    found = results.read(path)
    return Rendered(found, claims.claims(found), tables.table(found), plots.PLOTS)


STUDIES = {"abnar_2020": _abnar_2020}

if __name__ == "__main__":
    sys.exit(main())
