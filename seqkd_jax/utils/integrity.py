"""What is read back: files of ours, verified before they are used, and directories that a writer may be replacing."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from seqkd_jax.types import UserError
from seqkd_jax.utils import files, remote
from seqkd_jax.utils.untrusted import require_form

T = TypeVar("T")
SEALED = "sha256sums"  # key of a file that describes its directory: SHA256SUMS was written there
SIGNATURE = "sha256"  # key of a `signed` object
PATIENCE = 60.0  # seconds for which a directory that is replaced again and again is read again


def read_object(path: Path, version: int, form: dict, remedy: str) -> dict:
    """The object in a JSON file of this `format` and form (see untrusted.require_form). UserError names the file."""
    value = files.read_json(path)
    found = value.get("format") if isinstance(value, dict) else None
    if type(found) is not int or found != version:
        raise UserError(f"{path}: is of format {found!r:.20}, this version reads {version}; {remedy}")
    return require_form(value, form, path, remedy)


def read_description(path: Path, version: int, form: dict, remedy: str, parts: Sequence[str] = ()) -> dict:
    """`read_object` of the file that describes its directory, after it and `parts` were compared with SHA256SUMS.

    parts: patterns of names, as `files.verify` has them. UserError names what is damaged, and the remedy. A directory
    of a version before 0.3.0 has no SHA256SUMS, and its description no key `sha256sums`.
    """
    directory = path.parent
    verified = files.verify(directory, remedy, (path.name, *parts))
    description = read_object(path, version, form, remedy)
    if SEALED in description and not verified:
        raise UserError(f"{directory / files.SUMS}: damaged, it is missing; {remedy}")
    return description


def signed(value: Mapping[str, Any]) -> dict:
    """An object with its hash in it, for a JSON file that stands by itself; see `unchanged`."""
    return {**value, SIGNATURE: files.sha256_bytes(files.json_text(dict(value)).encode("utf-8"))}


def unchanged(path: Path, value: Mapping[str, Any]) -> bool:
    """Whether the file that this object was read from is, to the byte, what was written of a `signed` one."""
    written = signed({key: inner for key, inner in value.items() if key != SIGNATURE})
    return files.read_bytes(path) == files.json_text(written).encode("utf-8")


def whole(directory: Path | str, read: Callable[[Path], T]) -> T:
    """The result of `read`, which has read one version of a directory, though a writer may put new ones in its place.

    read: called with the path of the directory (see `files.existing`), and again if another one came into its place
    before it ended: what it returned or raised then is dropped. Of a URL a local copy is read. UserError: that goes on
    for a minute.
    """
    directory = remote.local(directory)
    end, looks = time.monotonic() + PATIENCE, 0
    while True:
        path = files.existing(directory)
        held, before = _open(path)
        try:
            error, result = None, read(path)
        except (UserError, OSError) as raised:
            error, result = raised, None
        finally:
            place = files.existing(directory)  # elsewhere: it stepped aside, and the new one is not in its place yet
            after = _identity(place)
            if held is not None:  # until now: its number cannot become that of another
                os.close(held)
        looks += before is None
        if (path, before) == (place, after) and (before is not None or looks > 2):  # there may be none for an instant
            if error is not None:
                with remote.named():
                    raise error
            return result  # pyright: ignore[reportReturnType]
        if time.monotonic() > end:
            raise UserError(
                f"{directory}: another process replaced it each time while it was read; read it when that has ended"
            )
        if before is None:
            time.sleep(0.01)


def _open(path: Path) -> tuple[int | None, tuple[int, int] | None]:
    """A descriptor of a directory, and its identity; None if there is none."""
    try:
        held = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except (OSError, ValueError):
        return None, None
    found = os.fstat(held)
    return held, (found.st_dev, found.st_ino)


def _identity(path: Path) -> tuple[int, int] | None:
    held, identity = _open(path)
    if held is not None:
        os.close(held)
    return identity
