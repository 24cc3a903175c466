"""Atomic files and directories, and their hashes. Imports no jax.

Everything a stage makes goes through here. A file: temporary name, fsync, rename, fsync of the directory. A directory:
filled beside its place as `.<name>.new`; an older one steps aside as `.<name>.old` while the new one moves in, and
whoever reads in between, or after a kill in between, finds the old one (`existing`, `recover`). Every directory ends
with a SHA256SUMS over its files, which `sha256sum -c` of coreutils reads, and which `verify` checks before its reader
parses anything.
"""

import contextlib
import errno
import fcntl
import fnmatch
import hashlib
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import TextIOBase
from pathlib import Path
from typing import Any, TextIO

from seqkd_jax.types import UserError

SUMS = "SHA256SUMS"  # at the top of every directory that `new_directory` filled


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write a file atomically; missing parent directories are made. UserError for a directory."""
    path = Path(path)
    require_no_directory(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    fsync(path.parent)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically; line ends stay as they are."""
    write_bytes(path, text.encode("utf-8"))


def one_line(text: str) -> str:
    """The text without line breaks, each a space: in a file of lines one of them would shift all that follow.

    These are all that `str.splitlines` knows. Our readers end a line at a line feed only, but others also at a carriage
    return (Python's text files), a form feed or U+2028 (`splitlines`).
    """
    return " ".join(text.splitlines())


def text_lines(texts: Iterable[str]) -> Iterator[str]:
    """The lines of a file of texts, their ends included: one for each text, whatever it holds."""
    return (f"{one_line(text)}\n" for text in texts)


def write_lines(path: Path | str, texts: Iterable[str]) -> None:
    """Write one text a line, atomically; see `one_line`."""
    write_text(path, "".join(text_lines(texts)))


def write_json(path: Path | str, value: Any) -> None:
    """Write `json_text`, atomically."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """JSON that a person can read. NaN and infinity are refused (they are not JSON): write None."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path | str) -> Any:
    """The value in a JSON file; UserError if the file is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:  # of the text's form, its encoding, its longest numbers, its depth
        line = getattr(error, "lineno", 1)
        raise UserError(f"{path}, line {line}: not JSON ({error}); delete it and create it again") from None


def json_line(value: Any) -> str:
    """One line of JSONL, its end included. No character in it ends a line for any reader: see `one_line`."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)  # writes control characters as escapes, but not these
    return line.replace("\x85", "\\u0085").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029") + "\n"


def read_jsonl(path: Path | str) -> list[Any]:
    """The values of a JSONL file; a last line without its end, which a killed writer left, does not count."""
    values = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith("\n"):
                break
            try:
                values.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {number}: not JSON ({error}); delete the line") from None
    return values


def remove(path: Path | str) -> None:
    """Remove a file or a directory, which is gone at once for a reader; nothing there is fine."""
    path = Path(path)
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    going, aside = _beside(path, "new"), _beside(path, "old")  # names that readers leave out
    for left in (going, aside):  # the older one would be read in the place of what goes
        shutil.rmtree(left, ignore_errors=True)
    os.rename(path, going)
    shutil.rmtree(going)


def require_no_directory(path: Path) -> None:
    """UserError for a directory where a file is to be written; asked early, nothing is computed in vain."""
    if path.is_dir():
        raise UserError(f"{path}: is a directory; name a file")


@contextlib.contextmanager
def new_file(path: Path | str) -> Iterator[TextIOBase]:
    """A stream of UTF-8 text; on a clean exit the file takes its place whole, on an error it is removed.

    A device or a pipe is written to as it is. UserError for a directory.
    """
    path = Path(path)
    require_no_directory(path)
    if path.exists() and not path.is_file():
        with open(path, "w", encoding="utf-8", newline="\n") as stream:
            yield stream
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path, "new")
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_directory(directory: Path | str, holds: Sequence[str]) -> Iterator[Path]:
    """Fill the yielded path; on a clean exit it takes the place of `directory` whole, on an error it is removed.

    holds: see `require_replaceable`. SHA256SUMS is added (see `verify`).
    """
    directory = recover(directory)
    require_replaceable(directory, holds)
    temporary, aside = _beside(directory, "new"), _beside(directory, "old")
    directory.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(temporary, ignore_errors=True)  # what a killed writer left
    temporary.mkdir()
    try:
        yield temporary
        _write_sums(temporary)
        fsync_tree(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if directory.exists():
        os.rename(directory, aside)
    os.rename(temporary, directory)
    fsync(directory.parent)
    shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def locked(directory: Path | str) -> Iterator[None]:
    """Hold a directory while it is written in; UserError if another process does."""

    def refuse() -> None:
        raise UserError(f"{directory}: another process is writing there; wait for it, or name another directory")

    with alone(Path(directory) / ".lock", refuse):
        yield


@contextlib.contextmanager
def alone(path: Path, busy: Callable[[], None]) -> Iterator[None]:
    """Hold the lock that a file stands for; it goes with its process, however that ends.

    busy: called if another process holds it; raises, or returns to wait. Where the file system knows no locks nothing
    is held.
    """
    with open(path, "w", encoding="utf-8") as file:
        try:
            _lock(file, busy)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
                raise
        yield


def _lock(file: TextIO, busy: Callable[[], None]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        pass
    busy()
    fcntl.flock(file, fcntl.LOCK_EX)


def require_replaceable(directory: Path | str, holds: Sequence[str]) -> None:
    """UserError if putting a new directory there would remove something else than an older one of its kind.

    A slip in --out must not delete somebody's data. holds: patterns of the names in a directory of this kind; the first
    is of what each of them has; SHA256SUMS is of every kind. An empty directory may be replaced; a file, or where the
    process works, may not. Asked early, nothing is computed in vain.
    """
    directory = Path(directory)
    if directory.is_file():
        raise UserError(f"{directory}: is a file; name a new directory")
    if not directory.exists():
        return
    resolved = directory.resolve()
    if resolved in (Path.cwd(), *Path.cwd().parents):
        raise UserError(
            f"{directory}: is the current directory or contains it, and writing would replace it; name a new directory"
        )
    names = sorted(path.name for path in resolved.iterdir())
    others = [name for name in names if not any(fnmatch.fnmatchcase(name, pattern) for pattern in (*holds, SUMS))]
    if names and not any(fnmatch.fnmatchcase(name, holds[0]) for name in names):
        others = others or names
    if others:
        raise UserError(
            f"{directory}: holds other files ({', '.join(others[:3])}), which writing would remove; name a new "
            "directory"
        )


def describe_error(error: OSError) -> str:
    """One line for an error of the operating system, such as a full disk, which names no file."""
    return f"{error.filename or 'reading or writing'}: {error.strerror or error}"


def drop_output() -> None:
    """Nobody reads standard output any more: Python must not try to flush it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def existing(directory: Path | str) -> Path:
    """The path to read `directory` from: itself, or the old one that a killed writer moved aside. Changes nothing."""
    directory = Path(directory)
    aside = _beside(Path(os.path.realpath(directory)), "old")
    return aside if aside.exists() and not directory.exists() else directory


def recover(directory: Path | str) -> Path:
    """Undo what a killed writer left: the old directory moves back, or goes if the new one is in place.

    Returns where the directory is: a link stays, what it leads to is written.
    """
    directory = Path(os.path.realpath(directory))
    aside = _beside(directory, "old")
    if aside.exists():
        if directory.exists():
            shutil.rmtree(aside)
        else:
            os.rename(aside, directory)
    return directory


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    return sha256_bytes(json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False).encode("utf-8"))


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_tree(path: Path | str) -> str:
    """SHA-256 of a file, or of the names and contents of all files under a directory.

    Left out are unfinished ones, and every SHA256SUMS, which says nothing that they do not.
    """
    path = Path(path)
    if path.is_file():
        return sha256_file(path)
    return sha256_json({name: sha256_file(path / name) for name in tree(path) if not is_sums(name)})


def is_sums(name: str) -> bool:
    """Is this relative name that of a SHA256SUMS?"""
    return name.rpartition("/")[2] == SUMS


def verify(directory: Path | str, remedy: str, only: Sequence[str] = ("*",)) -> bool:
    """UserError, naming the file and the remedy, unless a directory holds just what its SHA256SUMS says.

    remedy: what to do about a damaged directory, such as "train again". only: patterns; other files are not looked at,
    such as what a reader does not need (`*` also stands for "/"). Each file that is listed must be there with its hash,
    each that is there must be listed, except hidden ones (".DS_Store", what a killed writer left); none may be a link.
    Returns False, and checks nothing, for a directory without SHA256SUMS: one of version 0.2.0 or before, or a user's.
    """
    directory = Path(directory)
    if not os.path.lexists(directory / SUMS):
        return False

    def damaged(name: str, reason: str) -> UserError:
        return UserError(f"{directory / name}: damaged, {reason}; {remedy}")

    def wanted(name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in only)

    found, links = _entries(directory)
    for name in sorted(links | {SUMS} - found):
        if name == SUMS or wanted(name):
            raise damaged(name, "it is a link or no file (`cp -rL` copies what links lead to)")
    try:
        listed = _parse_sums((directory / SUMS).read_bytes())
    except ValueError as error:
        raise damaged(SUMS, str(error)) from None
    except FileNotFoundError:
        raise damaged(SUMS, "it is missing") from None
    for name in filter(wanted, sorted(found ^ {*listed, SUMS})):
        if name in listed:
            raise damaged(name, f"it is missing, and {SUMS} lists it")
        if not _hidden(name):
            raise damaged(name, f"{SUMS} does not list it (if you put it there, move it elsewhere)")
    for name in filter(wanted, listed):
        try:
            same = sha256_file(directory / name) == listed[name]
        except FileNotFoundError:  # the directory is being replaced or removed
            raise damaged(name, "it is missing") from None
        if not same:
            raise damaged(name, f"it does not have the hash in {SUMS}")
    return True


def _entries(directory: Path) -> tuple[set[str], set[str]]:
    """The relative names of all files under a directory; and of what is neither a file nor a directory."""
    found, others = set(), set()
    for parent, folders, names in os.walk(directory):
        for entry in (*folders, *names):
            path = Path(parent, entry)
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:  # removed since: it is missing if it is listed
                continue
            if not stat.S_ISDIR(mode):
                (found if stat.S_ISREG(mode) else others).add(path.relative_to(directory).as_posix())
    return found, others


def _write_sums(directory: Path) -> None:
    """Write SHA256SUMS over all files under a directory."""
    lines = [f"{sha256_file(directory / name)}  {name}\n" for name in tree(directory)]
    try:
        data = "".join(lines).encode("utf-8")
        _parse_sums(data)
    except ValueError as error:
        raise UserError(f"{directory}: {error}; choose another name") from None
    (directory / SUMS).write_bytes(data)


def _parse_sums(data: bytes) -> dict[str, str]:
    """Relative name -> SHA-256. ValueError unless it is just what `_write_sums` writes, safe names included."""
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


def tree(directory: Path | str) -> list[str]:
    """Relative names ("/" between parts) of all files under a directory, sorted; unfinished ones are left out."""
    directory = Path(directory)
    names = [file.relative_to(directory) for file in directory.rglob("*") if file.is_file()]
    return sorted(name.as_posix() for name in names if not any(_unfinished(part) for part in name.parts))


def fsync(path: Path | str) -> None:
    """Make a file's content, or a directory's entries, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(directory: Path | str) -> None:
    """fsync every file and directory under `directory`, itself last."""
    for parent, _, names in os.walk(directory, topdown=False):
        for name in names:
            fsync(os.path.join(parent, name))
        fsync(parent)


def _beside(directory: Path, suffix: str) -> Path:
    return directory.with_name(f".{directory.name}.{suffix}")


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _unfinished(name: str) -> bool:
    return name.startswith(".") and name.endswith((".new", ".old", ".lock"))
