"""SHA256SUMS: the hashes of all files of a directory, in the form that `sha256sum -c` of coreutils reads.

`files.new_directory` writes one into every directory; `verify` checks it before a reader parses anything. Imports no
jax.
"""

import fnmatch
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from seqkd_jax.types import UserError

SUMS = "SHA256SUMS"  # at the top of every directory that `files.new_directory` filled


def write(directory: Path) -> None:
    """Write SHA256SUMS over all files under a directory. UserError for a name that it cannot hold."""
    lines = [f"{sha256_file(directory / name)}  {name}\n" for name in tree(directory)]
    if not lines:
        return
    try:
        data = "".join(lines).encode("utf-8")
        _parse(data)
    except ValueError as error:
        raise UserError(f"{directory}: {error}; choose another name") from None
    (directory / SUMS).write_bytes(data)


def is_sums(name: str) -> bool:
    """Is this relative name that of a SHA256SUMS?"""
    return name.rpartition("/")[2] == SUMS


def verify(directory: Path | str, remedy: str, only: Sequence[str] = ("*",)) -> bool:
    """UserError, naming the file and the remedy, unless a directory holds just what its SHA256SUMS says.

    remedy: what to do about a damaged directory, such as "train again". only: patterns; other files are not looked at,
    such as what a reader does not need (`*` also stands for "/"). Each file that is listed must be there with its hash,
    each that is there must be listed, except hidden ones (".DS_Store", what a killed writer left). A link to a file is
    that file, as in the cache of the Hugging Face hub: its hash says whether it is the right one.
    Returns False, and checks nothing, for a directory without SHA256SUMS: one of version 0.2.0 or before, or a user's.
    """
    directory = Path(directory)
    if not os.path.lexists(directory / SUMS):
        return False
    for name, reason in defects(directory, only):
        raise UserError(f"{directory / name}: damaged, {reason}; {remedy}")
    return True


def defects(directory: Path, only: Sequence[str] = ("*",)) -> Iterator[tuple[str, str]]:
    """The name of each file of a directory that is not just what its SHA256SUMS says, and why; see `verify`."""

    def wanted(name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in only)

    found, others = _entries(directory)
    no_files = [name for name in sorted(others | {SUMS} - found) if name == SUMS or wanted(name) and not _hidden(name)]
    yield from ((name, "it is no file, and no folder that is not a link") for name in no_files)
    if SUMS in no_files:
        return
    try:
        listed = _parse((directory / SUMS).read_bytes())
    except ValueError as error:
        yield SUMS, str(error)
        return
    except FileNotFoundError:
        yield SUMS, "it is missing"
        return
    for name in filter(wanted, sorted(found ^ {*listed, SUMS})):
        if name in listed and name not in no_files:
            yield name, f"it is missing, and {SUMS} lists it"
        if name not in listed and not _hidden(name):
            yield name, f"{SUMS} does not list it (if you put it there, move it elsewhere)"
    for name in filter(wanted, sorted(found & listed.keys())):
        try:
            same = sha256_file(directory / name) == listed[name]
        except FileNotFoundError:  # the directory is being replaced or removed
            yield name, "it is missing"
            continue
        if not same:
            yield name, f"it does not have the hash in {SUMS}"


def _entries(directory: Path) -> tuple[set[str], set[str]]:
    """The relative names of all files under a directory, links to files too; and of what else is no directory."""
    found, others = set(), set()
    for parent, folders, names in os.walk(directory):
        for entry in (*folders, *names):
            path = Path(parent, entry)
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:  # removed since: it is missing if it is listed
                continue
            if not stat.S_ISDIR(mode):
                is_file = path.is_file() if stat.S_ISLNK(mode) else stat.S_ISREG(mode)
                (found if is_file else others).add(path.relative_to(directory).as_posix())
    return found, others


def _parse(data: bytes) -> dict[str, str]:
    """Relative name -> SHA-256. ValueError unless it is just what `write` writes, safe names included."""
    listed: dict[str, str] = {}
    *lines, rest = data.decode("utf-8").split("\n")
    if not lines:
        raise ValueError("it has no line")
    for number, line in enumerate(lines, start=1):
        match = re.fullmatch("([0-9a-f]{64})  (.+)", line)
        if not match:
            raise ValueError(f"line {number} is not a SHA-256, two spaces and a name")
        digest, name = match.groups()
        if re.search(r"[\x00-\x1f\x7f\\]", name) or {"", ".", ".."} & set(name.split("/")):
            raise ValueError(f"line {number} has a name that no file here may have: {name!r}")
        if listed and name <= next(reversed(listed)):
            raise ValueError(f"line {number} is not in its place: names are sorted, each is there once")
        listed[name] = digest
    if rest:
        raise ValueError("its last line has no end")
    return listed


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree(directory: Path | str) -> list[str]:
    """Relative names ("/" between parts) of all files under a directory, sorted; unfinished ones are left out."""
    directory = Path(directory)
    names = [file.relative_to(directory) for file in directory.rglob("*") if file.is_file()]
    return sorted(name.as_posix() for name in names if not any(_unfinished(part) for part in name.parts))


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _unfinished(name: str) -> bool:
    return name.startswith(".") and name.endswith((".new", ".old", ".lock"))
