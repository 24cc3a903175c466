"""Atomic files and directories. Imports no jax.

Everything a stage makes goes through here. A file: temporary name, fsync, rename, fsync of the directory. A directory:
filled beside its place; an older one steps aside while the new one moves in, and whoever reads in between, or after a
kill in between, finds the old one (`existing`, `recover`). Every directory ends with a SHA256SUMS over its files, which
`verify` checks before its reader parses anything.

  temporary  the names beside a file or directory, and who holds them
  locks      a file that stands for a lock
  sums       SHA256SUMS
"""

import contextlib
import errno
import fnmatch
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from io import TextIOBase
from pathlib import Path
from typing import Any

from seqkd_jax.types import UserError
from seqkd_jax.utils import locks, sums, temporary, urls
from seqkd_jax.utils.sums import SUMS, is_sums, sha256_file, tree
from seqkd_jax.utils.sums import verify as verify  # readers have it from here
from seqkd_jax.utils.untrusted import MOST_BYTES, parse_json


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write a file atomically; missing parent directories are made. A link at `path` is replaced, not followed.

    UserError for a directory.
    """
    path = Path(path)
    with _replacing(path) as descriptor, open(descriptor, "wb", closefd=False) as file:
        file.write(data)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically; line ends stay as they are."""
    write_bytes(path, text.encode("utf-8"))


def one_line(text: str) -> str:
    """The text without line breaks, each a space: in a file of lines one of them would shift all that follow.

    These are all that `str.splitlines` knows. Our readers end a line at a line feed only, but others also at a carriage
    return (Python's text files), a form feed or U+2028 (`splitlines`). NUL becomes a space too: readers refuse it.
    """
    return " ".join(text.replace("\0", " ").splitlines())


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


def read_bytes(path: Path | str, most: int = MOST_BYTES) -> bytes:
    """The content of a file. UserError: it is missing, no file, cannot be read, or has more than `most` bytes."""
    urls.require_local(path, "what is read here")
    try:
        require_file(path)
        with open(path, "rb") as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: of a name that no file can have
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > most:
        raise UserError(f"{path}: has more than {most:,} bytes, which nothing of ours has; name another file")
    return data


def read_json(path: Path | str) -> Any:
    """The value in a JSON file; UserError if the file is missing, or not JSON as `untrusted.parse_json` has it."""
    data = read_bytes(path)
    try:
        return parse_json(data)
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise UserError(f"{path}, line {line}: not JSON ({error}); delete it and create it again") from None


def json_line(value: Any) -> str:
    """One line of JSONL, its end included. No character in it ends a line for any reader: see `one_line`."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)  # writes control characters as escapes, but not these
    return line.replace("\x85", "\\u0085").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029") + "\n"


def read_jsonl(path: Path | str) -> list[Any]:
    """The values of a JSONL file; a last line without its end, which a killed writer left, does not count."""
    require_file(path)
    values = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                values.append(parse_json(line))
            except ValueError as error:
                raise UserError(f"{path}, line {number}: not JSON ({error}); delete the line") from None
    return values


def append(path: Path | str, text: str) -> None:
    """Add UTF-8 text to a file, which is made if it is missing. UserError for a link, and for what is no file."""
    with naming(path), open(locks.open_own(Path(path), os.O_WRONLY | os.O_APPEND), "ab") as file:
        file.write(text.encode("utf-8"))


def remove(path: Path | str) -> None:
    """Remove a file, a directory, which is gone at once for a reader, or a link, alone; nothing there is fine."""
    path = Path(path)
    with naming(path):
        for old in temporary.aside(path):  # it would be read in the place of what goes
            temporary.dispose(old, path)
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
        else:
            temporary.dispose(path, path)


def require_file(path: Path | str) -> None:
    """UserError for a pipe or a device where a file of ours is to be read: one is waited for, the other has no end."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):  # a directory has its own error
        raise UserError(f"{path}: is a pipe or a device, where a file is expected; delete it")


def require_no_directory(path: Path) -> None:
    """UserError for a directory where a file is to be written; asked early, nothing is computed in vain."""
    if path.is_dir():
        raise UserError(f"{path}: is a directory; name a file")


@contextlib.contextmanager
def new_file(path: Path | str) -> Iterator[TextIOBase]:
    """A stream of UTF-8 text; on a clean exit the file takes its place whole, on an error it is removed.

    A link stays, and what it leads to is written. A device or a pipe is written to as it is. UserError for a directory.
    """
    path = Path(path)
    with naming(path):
        require_no_directory(path)
        leads_to = Path(os.path.realpath(path))
        special = path.exists() and not path.is_file()
    if special:
        with naming(path), open(path, "w", encoding="utf-8", newline="\n") as stream:
            yield stream
        return
    with (
        _replacing(leads_to) as descriptor,
        open(descriptor, "w", encoding="utf-8", newline="\n", closefd=False) as stream,
    ):
        yield stream


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[int]:
    """The descriptor of a file to write; on a clean exit it takes the place of `path`, on an error it is removed."""
    with naming(path):
        require_no_directory(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.new_file(path) as (descriptor, written):
            yield descriptor
            os.fsync(descriptor)
            os.replace(written, path)
        fsync(path.parent)


@contextlib.contextmanager
def new_directory(directory: Path | str, holds: Sequence[str]) -> Iterator[Path]:
    """Fill the yielded path; on a clean exit it takes the place of `directory` whole, on an error it is removed.

    holds: see `require_replaceable`. SHA256SUMS is added (see `verify`).
    """
    with naming(directory):
        directory = recover(directory)
        require_replaceable(directory, holds)
        directory.parent.mkdir(parents=True, exist_ok=True)
        with temporary.new_directory(directory) as filled:
            made = os.lstat(filled)
            yield filled
            if not os.path.samestat(made, os.lstat(filled)):  # removed, and made anew for its last files
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(filled))
            sums.write(filled)
            fsync_tree(filled)
            require_replaceable(directory, holds)  # it may have been filled meanwhile
            _take_place(filled, directory)


def _take_place(filled: Path, directory: Path) -> None:
    """Put a complete directory in the place of another, or of nothing. On an error the other is there again."""
    old = temporary.step_aside(directory) if directory.exists() else None
    try:
        os.rename(filled, directory)
    except BaseException:
        if old:
            os.rename(old, directory)
        raise
    fsync(directory.parent)
    if old:
        temporary.dispose(old, directory)


@contextlib.contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Have an error of writing name the file that a person knows, where it names a temporary one or none.

    UserError for a URL.
    """
    urls.require_local(path, "what is written here")
    try:
        yield
    except UserError as error:
        error.args = (temporary.without(str(error)),)
        raise
    except OSError as error:
        if error.filename is None and error.errno in REMEDIES:
            error.filename = str(path)
        elif isinstance(error.filename, str):
            error.filename = temporary.without(error.filename)
        raise


@contextlib.contextmanager
def locked(directory: Path | str) -> Iterator[None]:
    """Hold a directory while it is written in, and clear up after killed writers; UserError if another process does."""

    def refuse() -> None:
        raise UserError(f"{directory}: another process is writing there; wait for it, or name another directory")

    with locks.alone(Path(directory) / ".lock", refuse):
        temporary.clear_all(Path(directory))
        for path in temporary.stepped_aside(Path(directory)):
            recover(path)
        yield


def require_replaceable(directory: Path | str, holds: Sequence[str]) -> None:
    """UserError if putting a new directory there would remove something else than an older one of its kind.

    A slip in --out must not delete somebody's data. holds: patterns of the names in a directory of this kind, the
    first of a name that each of them has; SHA256SUMS is in every kind. An empty directory may be replaced; a file, or
    where the process works, may not. It must be a place that the process may write to. Asked early, nothing is computed
    in vain.
    """
    urls.require_local(directory, "what is written here")
    directory = Path(directory)
    if directory.is_file():
        raise UserError(f"{directory}: is a file; name a new directory")
    leads_to = Path(os.path.realpath(directory))
    above = next((parent for parent in leads_to.parents if parent.exists()), leads_to)
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"{directory}: cannot be written, {above} is read-only or somebody else's; name another place")
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


REMEDIES = {
    errno.ENOSPC: "free some space and give the same command again",
    errno.EDQUOT: "free some space and give the same command again",
    errno.EFBIG: "raise the limit (`ulimit -f`) and give the same command again",
    errno.EROFS: "name a place that can be written to",
    errno.EIO: "",
}


def describe_error(error: OSError) -> str:
    """One line for an error of the operating system, such as a full disk."""
    remedy = REMEDIES.get(error.errno or 0, "")
    return f"{error.filename or 'reading or writing'}: {error.strerror or error}{remedy and f'; {remedy}'}"


def existing(directory: Path | str) -> Path:
    """The path to read `directory` from: itself, or the old one that a killed writer moved aside. Changes nothing.

    Version 0.2.0 moved it to `.NAME.old`. That is read, but never moved or removed: it may be somebody's own copy.
    """
    directory = Path(directory)
    if directory.exists():
        return directory
    urls.require_local(directory, "what is read here")
    leads_to = Path(os.path.realpath(directory))
    before = leads_to.with_name(f".{leads_to.name}.old")
    places = [*temporary.aside(leads_to), *([before] if before.is_dir() and not before.is_symlink() else [])]
    return places[0] if places else directory


def recover(directory: Path | str) -> Path:
    """Undo what a killed writer left: the old directory moves back, or goes if the new one is in place.

    Returns where the directory is: a link stays, what it leads to is written.
    """
    directory = Path(os.path.realpath(directory))
    for old in temporary.aside(directory):
        if directory.exists():
            temporary.dispose(old, directory)
        else:
            os.rename(old, directory)
    return directory


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    return sha256_bytes(json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False).encode("utf-8"))


def sha256_tree(path: Path | str) -> str:
    """SHA-256 of a file, or of the names and contents of all files under a directory.

    Left out are unfinished ones, and every SHA256SUMS, which says nothing that they do not.
    """
    path = Path(path)
    if path.is_file():
        return sha256_file(path)
    return sha256_json({name: sha256_file(path / name) for name in tree(path) if not is_sums(name)})


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
