"""The command: everything that there is time for, or one part in this process."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments.accelerator import plan
from seqkd_jax.cli.main import errors_in_one_line
from seqkd_jax.config import Seed
from seqkd_jax.utils.exits import exit_status
from seqkd_jax.utils.settings import Range, Settings

PROGRAM = "python -m experiments.accelerator"


@dataclass(frozen=True, kw_only=True)
class Command(Settings):
    """Measure the accelerator that is here, the most important first, in so many minutes. The same command goes on."""

    minutes: Annotated[float, Range(0.01, 10_000)] = 10.0
    """Minutes in all; what there is no time for is named."""
    data: Path | None = None
    """Multi30k, or another corpus of English and German, for the seeds of a student; without it the toy language."""
    out: Path = Path("runs/accelerator")
    """Where results.json and table.md go, and what is measured, part by part."""
    seed: Seed = 0
    """Of random weights, data and the first student."""
    toy: bool = False
    """Tiny sizes, which show that the command works and measure nothing; so it is on CPUs."""
    part: str = ""
    """Measure this part alone, in this process."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 nothing could be measured, 2 an error that the user can mend."""
    with errors_in_one_line(PROGRAM):
        command = tyro.cli(Command, args=arguments, prog=PROGRAM)
    told = plan.Told(command.minutes, command.seed, command.toy, command.data, command.out.absolute())

    def run() -> int:
        command.validate(lambda name: f"--{name}")
        if command.part:
            return _one(command, told)
        return plan.run(told)

    return exit_status(run, interrupted="interrupted; the same command goes on")


def _one(command: Command, told: plan.Told) -> int:
    import jax

    from experiments.accelerator.speed import Job
    from seqkd_jax.utils import program_cache

    program_cache.keep()
    toy = command.toy or jax.default_backend() == "cpu"
    seconds = 0.5 if toy else 60 * command.minutes
    return plan.measure(told, command.part, Job(seconds, command.seed, toy, told.out / "work", command.data))


if __name__ == "__main__":
    sys.exit(main())
