"""The command: directories of runs -> one HTML page."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments.core import pages
from experiments.core.results import NAME, check, named, reading
from experiments.report import page, parts
from seqkd_jax.cli.main import errors_in_one_line
from seqkd_jax.config import Count
from seqkd_jax.types import UserError
from seqkd_jax.utils import files
from seqkd_jax.utils.exits import exit_status

COMMAND = "python -m experiments.report"


@dataclass(frozen=True)
class Options:
    """One page to look at, of the results of studies and benchmarks; it needs no other file and no network."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")]
    """Directories with a results.json."""
    out: Path | None = None
    """Where the page goes (default: RUN/report.html; for several runs it must be named)."""
    sentences: Count = page.SENTENCES
    """At most so many sentences of a test set with their translations, evenly drawn; 0: all."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 an error that the user can mend."""
    with errors_in_one_line(COMMAND):
        options = tyro.cli(Options, args=arguments, prog=COMMAND)
    return exit_status(lambda: run(options))


def run(options: Options) -> int:
    """Write the page and name it."""
    if not options.runs:
        raise UserError("RUN: name a directory with a results.json")
    if options.out is None and len(options.runs) > 1:
        raise UserError(f"--out: name a file for the page of {len(options.runs)} runs")
    out = options.out or options.runs[0] / "report.html"
    parts_of = [part(directory) for directory in options.runs]
    with reading(", ".join(str(directory / NAME) for directory in options.runs)):
        text = page.page(parts_of, options.sentences)
    files.write_text(out, text)
    print(out)
    return 0


def part(directory: Path) -> parts.Part:
    """What the run in this directory says. UserError for results that no study or benchmark here has written."""
    path = directory / NAME
    name, results = named(path)
    if name in pages.STUDIES:
        study = pages.study_of(name)
        check(results, path, study.required)
        with reading(path):
            return parts.of_study(study, results, directory)
    benchmark = pages.benchmarks().get(name)
    if benchmark is None:
        raise UserError(f"{path}: is of no study or benchmark that is here; name a directory that one has written")
    with reading(path):
        return parts.of_benchmark(benchmark, results, directory)


if __name__ == "__main__":
    sys.exit(main())
