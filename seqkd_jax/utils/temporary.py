"""What stands beside a file or directory while it is replaced: names, who holds them, and what killed writers left.

`.NAME.<16 hexadecimal digits>.new` is being written or removed, `.old` stepped aside for a new one. The digits are
random and a name is made exclusively, so that no link and no file of somebody else is written to. A writer locks what
it makes; the lock goes with its process, so what has such a name and no lock is a killed writer's. Imports no jax.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from seqkd_jax.utils.locks import NO_LOCKS


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[tuple[int, Path]]:
    """An open descriptor and its path, beside `path`; removed on exit unless it was renamed.

    It has the permissions of the file at `path`, else those that `open` gives.
    """
    clear(path)
    descriptor, temporary = _held(path, _create_file)
    try:
        _open_as(path, stat.S_ISREG, descriptor, 0o777)
        yield descriptor, temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        os.close(descriptor)


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A new directory beside `path`, as open to others as one that is there; removed on exit unless it was renamed."""
    clear(path)
    descriptor, temporary = _held(path, _create_directory)
    try:
        _open_as(path, stat.S_ISDIR, descriptor, 0o7777, stat.S_IRWXU)
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(descriptor)


def clear(path: Path) -> None:
    """Remove what killed writers of `path` left unfinished. What a living one holds stays, and what is not ours."""
    _clear(_beside(path, "new"))


def clear_all(directory: Path) -> None:
    """`clear` of every name in a directory."""
    _clear(_named(directory, ".+", "new"))


def _clear(found: list[Path]) -> None:
    for left in found:
        with contextlib.suppress(OSError):  # no right to, or another process was faster
            descriptor = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _delete(left)
            finally:
                os.close(descriptor)


def step_aside(path: Path) -> Path:
    """Move a directory away, to where `aside` finds it; returns its new path."""
    old = _name(path, "old")
    os.rename(path, old)
    return old


def aside(path: Path) -> list[Path]:
    """The directories that stepped aside for `path` and were not removed, the last first. Links do not count."""
    found = []
    for old in _beside(path, "old"):
        with contextlib.suppress(FileNotFoundError):  # its writer has just removed it
            status = old.lstat()
            if stat.S_ISDIR(status.st_mode):
                found.append((status.st_mtime_ns, old))
    return [old for _, old in sorted(found, reverse=True)]


def stepped_aside(directory: Path) -> set[Path]:
    """What directories in this one stepped aside for, whether that is there or not."""
    return {directory / replaced(old.name) for old in _named(directory, ".+", "old")}


def replaced(name: str) -> str:
    """The name of what a temporary one is to become, or stepped aside for; any other name as it is."""
    return re.sub(r"\A\.(.+)\.[0-9a-f]{16}\.(?:new|old)\Z", r"\1", name)


def dispose(path: Path, of: Path) -> None:
    """Remove a directory, which is gone at once for a reader. of: what it is, or stepped aside for."""
    going = _name(of, "new")
    with contextlib.suppress(FileNotFoundError):  # another process has removed it
        os.rename(path, going)
        shutil.rmtree(going, ignore_errors=True)


def without(text: str) -> str:
    """A path, or a text with paths, with the names of what temporary ones are to become in their places."""
    return re.sub(r"(^|[/\s'])\.([^/]+?)\.[0-9a-f]{16}\.(?:new|old)\b", r"\1\2", text)


def _held(path: Path, create: Callable[[Path], int]) -> tuple[int, Path]:
    """A new entry beside `path`, and a descriptor that locks it."""
    while True:
        temporary = _name(path, "new")
        descriptor = create(temporary)
        try:
            _wait_for_lock(descriptor)
            if os.path.samestat(os.fstat(descriptor), os.lstat(temporary)):
                return descriptor, temporary
        except FileNotFoundError:  # `clear` of another process came before the lock
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _open_as(path: Path, kind: Callable[[int], bool], descriptor: int, kept: int, added: int = 0) -> None:
    """Give a descriptor the permissions of what is at `path`, if that is of the same kind and they can be given."""
    with contextlib.suppress(OSError):  # nothing is there, or the file system has no permissions
        mode = os.lstat(path).st_mode
        if kind(mode):
            os.fchmod(descriptor, mode & kept | added)


def _wait_for_lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise


def _create_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def _create_directory(path: Path) -> int:
    while True:
        os.mkdir(path)
        with contextlib.suppress(FileNotFoundError):  # as above
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _name(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.{suffix}")


def _beside(path: Path, suffix: str) -> list[Path]:
    """What has such a name, but for links."""
    return _named(path.parent, re.escape(path.name), suffix)


def _named(directory: Path, name: str, suffix: str) -> list[Path]:
    form = re.compile(rf"\.{name}\.[0-9a-f]{{16}}\.{suffix}")
    try:
        with os.scandir(directory) as entries:
            return [
                directory / entry.name for entry in entries if form.fullmatch(entry.name) and not entry.is_symlink()
            ]
    except OSError:  # there is no such directory, or it cannot be listed
        return []
