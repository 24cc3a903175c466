"""A lock among processes of any machines that share a file system: a file with its owner and a heartbeat.

The file is created exclusively, so of many that want it one gets it. Its owner touches it every 10 seconds. An owner is
dead if it is of this machine and its flock is gone, which is known at once; or if its last heartbeat is more than
60 seconds old, by the clock of the file system: clocks of machines differ.

A dead owner's lock is taken over by creating its successor, NAME.<id of the dead owner>.lock, exclusively again: one
wins. The last of this chain holds the lock. Nothing is replaced, so an owner that was only paused cannot be robbed
between two looks; when it comes back it finds its successor (`held`) and leaves its work. Imports no jax.
"""

import contextlib
import errno
import fcntl
import functools
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from seqkd_jax.utils import progress, temporary
from seqkd_jax.utils.locks import NO_LOCKS
from seqkd_jax.utils.untrusted import parse_json, printable

BEAT = 10.0  # seconds between two heartbeats
STALE = 60.0  # seconds without one after which an owner is dead
FIRST_LOOK, LAST_LOOK = 0.1, 5.0  # seconds between two looks of one who waits: they grow
CLOCK = "clock"  # what temporary files are named after whose time is asked for
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Owner(NamedTuple):
    """What stands in the file of a lock, as far as it could be read."""

    host: str  # for a person
    pid: int
    since: str  # UTC, by the clock of the owner's machine
    machine: str  # see `machine`; "": the owner has no flock that would tell whether it lives
    id: str  # 16 hexadecimal digits, random

    def __str__(self) -> str:
        return f"process {self.pid} of {self.host}" if self.host else "another process"


UNKNOWN = Owner("", 0, "", "", "unknown")  # it has created the file and not yet written it, or its disk is full


class Holder(NamedTuple):
    """The owner of a lock, as another process sees it."""

    file: Path  # the last of the chain
    owner: Owner
    beat: float  # time of its last heartbeat, by the clock of the file system
    free: bool  # no living process has its flock
    number: tuple[int, int]  # device and inode of the file

    def is_dead(self, now: float | None = None) -> bool:
        """Whether the lock may be taken over. now: by the clock of the file system; None: it is asked (see `_Clock`).

        Only the clock itself says that an owner is dead: one that was asked some seconds ago may have been set since.
        """
        if self.free and self.owner.machine == machine():
            return True
        if now is not None:
            return now - self.beat > STALE
        known = _clocks.get(self.number[0])
        passed = time.monotonic() - known.asked if known else BEAT
        if known and passed < BEAT and known.time + passed - self.beat <= STALE:
            return False
        return _now(self.file.parent, self.number[0]) - self.beat > STALE


class _Clock(NamedTuple):
    """What a file system's clock said when it was last asked. To ask means to write, so it is asked once a heartbeat
    for all that look at locks there."""

    asked: float  # by time.monotonic
    time: float


_clocks: dict[int, _Clock] = {}  # device of a file system -> its clock


class Lease(NamedTuple):
    """A lock that this process has."""

    path: Path
    file: Path  # of the chain
    descriptor: int  # which has the flock
    directory: int  # a descriptor of the directory: by it the file is found again where the directory was moved
    ended: threading.Event

    def held(self) -> bool:
        """Whether it is still ours: asked before anything is written, since whoever was paused may have lost it."""
        self.beat()  # first: from here on nobody takes it over
        last = holder(self.path)
        return last is not None and last.number == _number(os.fstat(self.descriptor))

    def beat(self) -> None:
        """Say that the owner lives."""
        with contextlib.suppress(OSError):  # who cannot say it loses the lock, and finds that out
            os.utime(self.descriptor)


@contextlib.contextmanager
def attempt(path: Path) -> Iterator[Lease | None]:
    """A lock for as long as the context lasts; None: another process holds it. `path` ends with .lock.

    OSError: the directory cannot be written to, or is gone.
    """
    lease = _take(path)
    if lease is None:
        yield None
        return
    heart = threading.Thread(target=_beat, args=(lease,), name="heartbeat", daemon=True)
    try:
        heart.start()
        yield lease
    finally:
        lease.ended.set()
        if heart.ident is not None:
            heart.join()
        _release(lease)


@contextlib.contextmanager
def waited(path: Path, what: str) -> Iterator[Lease]:
    """A lock for as long as the context lasts, once it is free. what: what its owner does, for a message."""
    with contextlib.ExitStack() as stack:
        lease = stack.enter_context(attempt(path))
        if lease is None:
            last = holder(path)
            with progress.phase(f"waiting for {last.owner if last else 'another process'}, which {what}"):
                for pause in pauses():
                    time.sleep(pause)
                    lease = stack.enter_context(attempt(path))
                    if lease is not None:
                        break
        assert lease is not None  # pauses have no end
        yield lease


def pauses() -> Iterator[float]:
    """The seconds to sleep between looks at what others hold, without end."""
    pause = FIRST_LOOK
    while True:
        yield pause
        pause = min(1.5 * pause, LAST_LOOK)


def holder(path: Path) -> Holder | None:
    """Who has a lock, dead or alive; None: nobody. Reads only."""
    chain = _chain(path)
    return chain[-1] if chain else None


def alive(path: Path) -> Holder | None:
    """Who has a lock, if it lives. The file of one that is dead is removed: nobody is to succeed it.

    So is that of one that was killed before it wrote who it is: a living one has the flock by then, or looks again.
    """
    last = holder(path)
    if last is None:
        return None
    with contextlib.suppress(OSError):  # no right to, or another process was faster
        if last.is_dead():
            os.unlink(last.file)
        elif last.owner == UNKNOWN and last.free:
            _remove_unowned(last)
        return holder(path)
    return last


def _remove_unowned(last: Holder) -> None:
    """Remove the file of a lock in which no owner stands, unless one is about to write. OSError: it has the flock."""
    descriptor = os.open(last.file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _number(os.fstat(descriptor)) == last.number and _owner(os.read(descriptor, 4096)) == UNKNOWN:
            os.unlink(last.file)
    finally:
        os.close(descriptor)


@functools.cache
def machine() -> str:
    """The kernel that runs here: among its processes a flock tells who lives, whatever the file system."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def _take(path: Path) -> Lease | None:
    last = holder(path)
    if last is not None and not last.is_dead():
        return None
    lease = _create(path, path if last is None else _successor(path, last.owner.id))
    if lease is None:  # another was faster
        return None
    try:
        if last is None:
            return lease
        # Meanwhile the owner that seemed dead may have come back, or all of this chain may have been released.
        now = next((one for one in _chain(path) if one.number == last.number), None)
        if now is not None and now.is_dead() and lease.held():
            return lease
    except BaseException:
        _drop(lease)
        raise
    _drop(lease)
    return None


def _create(path: Path, file: Path) -> Lease | None:
    """The file of a lock with its flock and owner; None if it is there already."""
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(file.name, flags, 0o666, dir_fd=directory)
    except BaseException as error:
        os.close(directory)
        if isinstance(error, FileExistsError):
            return None
        raise
    lease = Lease(path, file, descriptor, directory, threading.Event())
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        owner = Owner(socket.gethostname(), os.getpid(), since, _flocked(descriptor), secrets.token_hex(8))
        os.write(descriptor, json.dumps(owner._asdict()).encode("utf-8"))
    except OSError as error:
        if error.errno not in FULL:  # then the file alone is the lock, and what is written next names the full disk
            _drop(lease)
            raise
        os.ftruncate(descriptor, 0)
    if not _is_at(lease):  # `alive` of another process came before the flock
        _drop(lease)
        return _create(path, file)
    return lease


def _is_at(lease: Lease) -> bool:
    """Whether the file that was made is still the one of its name."""
    try:
        return _number(os.lstat(lease.file.name, dir_fd=lease.directory)) == _number(os.fstat(lease.descriptor))
    except FileNotFoundError:
        return False


def _flocked(descriptor: int) -> str:
    """The machine on which a flock of this file tells that its owner lives; "" where the file system knows no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # nobody else keeps it: others only look whether it is free
        return machine()
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return ""


def _beat(lease: Lease) -> None:
    while not lease.ended.wait(BEAT):
        lease.beat()


def _release(lease: Lease) -> None:
    """Remove the files of a lock that is ours, the first before all others: what comes then begins a new chain."""
    with contextlib.suppress(OSError):
        lease.beat()  # nobody takes it over meanwhile
        chain = _chain(lease.path, lease.directory)
        if chain and chain[-1].number == _number(os.fstat(lease.descriptor)):
            for one in chain[:-1]:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(one.file.name, dir_fd=lease.directory)
    _drop(lease)


def _drop(lease: Lease) -> None:
    """Close the file, and remove it unless a successor stands on it; in a directory that was moved, too."""
    name, directory = lease.file.name, lease.directory
    with contextlib.suppress(OSError):
        stood_on = [one.number for one in _chain(lease.path, directory)[:-1]]
        if _number(os.fstat(lease.descriptor)) not in stood_on and _is_at(lease):
            os.unlink(name, dir_fd=directory)
    os.close(lease.descriptor)
    os.close(directory)


def _chain(path: Path, directory: int | None = None) -> list[Holder]:
    """The owners of a lock, each of which took over from the one before it. directory: see `_read`."""
    chain, seen = [], set()
    one = _read(path, directory)
    while one is not None and one.number not in seen:
        chain.append(one)
        seen.add(one.number)
        one = _read(_successor(path, one.owner.id), directory)
    return chain


def _successor(path: Path, owner: str) -> Path:
    return path.with_suffix(f".{owner}{path.suffix}")


def _read(file: Path, directory: int | None) -> Holder | None:
    """The file of a lock; None if there is none. It is opened: only then does NFS ask the server how it is now.

    directory: a descriptor of the one in which the name of the file is looked up; None: it is at its path.
    """
    where = file if directory is None else file.name
    try:
        descriptor = os.open(where, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    try:
        data, status = os.read(descriptor, 4096), os.fstat(descriptor)
        return Holder(file, _owner(data), status.st_mtime, _is_free(descriptor), _number(status))
    except OSError as error:
        if error.errno == errno.ESTALE:  # NFS: it was removed meanwhile
            return None
        raise
    finally:
        os.close(descriptor)


def _owner(data: bytes) -> Owner:
    try:
        owner = Owner(**parse_json(data))
    except (ValueError, TypeError):
        return UNKNOWN
    if [type(one) for one in owner] != [str, int, str, str, str]:
        return UNKNOWN
    if not re.fullmatch("[0-9a-f]{16}", owner.id):  # it becomes part of a file's name
        return UNKNOWN
    return owner._replace(host=printable(owner.host)[:100], since=printable(owner.since)[:40])


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    except OSError as error:
        if error.errno not in (*NO_LOCKS, errno.EWOULDBLOCK):
            raise
        return False


def _number(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def clear(directory: Path) -> None:
    """Remove what a process left in a directory that was killed while it asked the clock."""
    temporary.clear(directory / CLOCK)


def _now(directory: Path, device: int) -> float:
    """The time by the clock of a file system: that of a file which is made now. device: that of the file system."""
    with temporary.new_file(directory / CLOCK) as (descriptor, _):
        now = os.fstat(descriptor).st_mtime
    _clocks[device] = _Clock(time.monotonic(), now)
    return now
