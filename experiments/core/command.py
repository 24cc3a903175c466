"""What commands of studies share: exit statuses, the loop over arms of which some may not be made, the files."""

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from seqkd_jax.types import UserError
from seqkd_jax.utils import files, progress


def exit_status(run: Callable[[], int], interrupted: str = "the same command goes on from here") -> int:
    """That of `run`; 2 for an error that the user can mend, 130 if interrupted, each told in one line; 141 if whoever
    reads the output went away.
    """
    try:
        status = run()
        if sys.stdout is not None:  # it is where it was closed
            sys.stdout.flush()
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `| head`
        files.drop_output()
        return 141
    except OSError as error:
        print(f"error: {files.said(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted; {interrupted}", file=sys.stderr)
        return 130


def evaluated(arms: Iterable, asked: Iterable, study, key: Callable[[Any], str], evaluate: Callable) -> dict:
    """Arm -> evaluate(study, arm), of those that are asked for or were made before; the others are told by their key.

    Those that are asked for come first: by the time that they are made, another process may have made the others.
    study: of a study's `Study` type, whose `make` says whether a stage is made or only looked up.
    """
    from experiments.core import stages

    arms, asked, found = list(arms), set(asked), {}
    for arm in sorted(arms, key=lambda arm: arm not in asked):
        try:
            found[arm] = evaluate(study if arm in asked else study._replace(make=False), arm)
        except stages.NotMade:
            progress.log(f"[{key(arm)}] left out: not among --only, and not made before")
    return {arm: found[arm] for arm in arms if arm in found}


def write(out: Path, results: dict, table: str, plots: Mapping[str, Callable]) -> None:
    """results.json, table.md and plots/."""
    from experiments.core.plots import draw_all

    files.write_json(out / "results.json", results)
    files.write_text(out / "table.md", table)
    draw_all(plots, results, out / "plots")
