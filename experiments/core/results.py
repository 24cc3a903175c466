"""results.json as it is read back: the form that all studies' have, and one line for what is damaged or old.

Tables, plots and pages are read off results of anybody, of any version. What every study writes is checked here by its
form. What a study writes besides is read as it comes: `reading` turns whatever fails there into one line, too.
"""

import contextlib
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from seqkd_jax.types import UserError
from seqkd_jax.utils import files
from seqkd_jax.utils.untrusted import require_form, shown

NAME = "results.json"  # in the directory of a run
REMEDY = "make the results anew, or bring back a copy"
ARM = {"arm": str, "seed?": int, "seeds?": [int], "training?": (dict, type(None)), "metrics?": dict, "outputs?": dict}
FORM = {
    "study": str,
    "scale": str,
    "command": str,
    "commit": str,
    "finished": str,
    "versions": {...: str},
    "devices": [str],
    "host_cpu": str,
    "data": {...: str},
    "arms": [ARM],
    "outputs?": {...: str},
    "distilled?": dict,
    "deviations?": [str],
    "notes?": [str],  # as deviations were called once
}


def named(path: Path) -> tuple[str, dict]:
    """The name of the study or benchmark that wrote the results at a path, and these; "" and {} for other content."""
    results = files.read_json(path)
    name = results.get("study") if isinstance(results, dict) else None
    return (name, results) if isinstance(name, str) else ("", {})


def read(path: Path, study: str, required: Sequence[str]) -> dict:
    """The results of a study at a path. UserError for what is none. required: what each of its arms has."""
    name, results = named(path)
    if name != study:
        raise UserError(f"{path}: no results.json of {study}; name one that this study has written")
    check(results, path, required)
    return results


def check(results: dict, path: Path, required: Sequence[str]) -> None:
    """UserError unless they have the form of every study's, and arms, each with what it must have."""
    arms = require_form(results, FORM, path, REMEDY)["arms"]
    if not arms:
        raise UserError(f"{path}: damaged, it has no arms; {REMEDY}")
    for arm in arms:
        missing = sorted(set(required) - arm.keys())
        if missing:
            raise UserError(
                f"{path}: arm {shown(arm['arm'])} lacks {', '.join(missing)}, so it is of an old form; {REMEDY}"
            )


@contextlib.contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Tables, plots and pages are made of what stands at a path: UserError, naming it, if they cannot be."""
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__}: {error}, {Path(last.filename).name}, line {last.lineno}"
        raise UserError(f"{path}: damaged or of an old form ({files.one_line(place)}); {REMEDY}") from error
