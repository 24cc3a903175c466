"""A lock that a file stands for, held by one process; and the opening of such a file, or of one that grows.

The lock goes with its process, however that ends. Imports no jax.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from seqkd_jax.types import UserError

NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF)  # EBADF: of a directory, on NFS


@contextlib.contextmanager
def alone(path: Path, busy: Callable[[], None]) -> Iterator[None]:
    """Hold the lock that a file stands for; it goes with its process, however that ends.

    busy: called if another process holds it; raises, or returns to wait. Where the file system knows no locks nothing
    is held.
    """
    descriptor = open_own(path, os.O_RDWR)
    try:
        try:
            _lock(descriptor, busy)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, busy: Callable[[], None]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        pass
    busy()
    fcntl.flock(descriptor, fcntl.LOCK_EX)


_shared: dict[Path, int] = {}  # directory -> a descriptor that has its lock until this process ends


def share(directory: Path) -> bool:
    """Keep a directory from `alone_with` while this process lives; False if there is none. Any number may share it."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    before = _shared.get(directory)
    if before is not None and os.path.samestat(os.fstat(before), os.fstat(descriptor)):
        os.close(descriptor)
        return True
    with contextlib.suppress(OSError):  # the file system knows no locks: `alone_with` gets none either
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    try:
        there = os.path.samestat(os.fstat(descriptor), os.lstat(directory))
    except FileNotFoundError:
        there = False
    if not there:  # it was removed before the lock
        os.close(descriptor)
        return False
    if before is not None:
        os.close(before)
    _shared[directory] = descriptor
    return True


@contextlib.contextmanager
def alone_with(directory: Path) -> Iterator[None]:
    """Hold the lock of a directory that no process shares. OSError: one does, or no lock can be had."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def open_own(path: Path, flags: int) -> int:
    """Open a file of ours to write, made if it is missing, its content kept. UserError for a link, a pipe, a device."""
    with contextlib.ExitStack() as opened:
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
            opened.callback(os.close, descriptor)
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
                raise
            regular = False
        if not regular:
            raise UserError(f"{path}: is a link or no file, and would be written to; delete it")
        opened.pop_all()
        return descriptor
