"""What a check finds of a directory, and what all checks have in common."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from seqkd_jax.types import UserError
from seqkd_jax.utils import files, integrity, sums, temporary

State = Literal["whole", "unfinished", "incomplete", "damaged"]


class Outcome(NamedTuple):
    """What was found."""

    state: State
    result: str  # in words
    damages: tuple[str, ...] = ()  # a line for each, with the name of the file


class Verified(NamedTuple):
    """A directory, and what was found."""

    object: str  # the directory, as it was named
    kind: str
    files: int
    bytes: int
    state: State
    result: str
    damages: tuple[str, ...]


class Damaged(UserError):
    """Several damages of a directory, a line for each."""

    def __init__(self, damages: Iterable[str]):
        super().__init__(*damages)


def examine(
    directory: Path, kind: str, check: Callable[[Path], Outcome], within: Callable[[str], bool] = lambda name: True
) -> Verified:
    """What `check`, given the path where the directory is now, finds in it; an error that it raises is a damage.

    within: whether a name at its top belongs to it; what others check is not counted.
    """

    def examined(path: Path) -> tuple[Outcome, tuple[int, int]]:
        names = [name for name in files.tree(path) if within(name.partition("/")[0])]
        if away := [name for name in names if leads_out(path, name)]:
            lines = (
                f"{directory / name}: is a link that leads out of {directory}; it is not followed" for name in away
            )
            return Outcome("damaged", "links lead out of it", tuple(lines)), (len(names), 0)
        return _checked(check, path), (len(names), sum(_size(path / name) for name in names))

    outcome, size = integrity.whole(directory, examined)
    return Verified(str(directory), kind, size[0], size[1], *outcome)


def _checked(check: Callable[[Path], Outcome], path: Path) -> Outcome:
    try:
        return check(path)
    except UserError as error:
        damages = tuple(temporary.without(str(line)) for line in error.args)
    except OSError as error:
        damages = (temporary.without(files.describe_error(error)),)
    return Outcome("damaged", "damaged", damages)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # removed since
        return 0


def leads_out(path: Path, name: str) -> bool:
    """Whether a file or directory is reached over a link that leads out of the directory `path`."""
    inside = os.path.realpath(path)
    return os.path.commonpath([inside, os.path.realpath(path / name)]) != inside


def require_sums(path: Path, only: Iterable[str] = ("*",)) -> bool:
    """Damaged, with a line for each file that is not what SHA256SUMS says; False if there is none."""
    if not os.path.lexists(path / files.SUMS):
        return False
    damages = [f"{path / name}: {reason}" for name, reason in sums.defects(path, tuple(only))]
    if damages:
        raise Damaged(damages)
    return True


def require(holds: bool, path: Path, reason: str) -> None:
    """UserError, which is a damage here, unless it holds."""
    if not holds:
        raise UserError(f"{path}: {reason}")
