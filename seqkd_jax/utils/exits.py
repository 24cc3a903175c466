"""How a command ends: its exit status, and one line for an error."""

import contextlib
import errno
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TextIO

from seqkd_jax.types import UserError
from seqkd_jax.utils import devices, files, progress
from seqkd_jax.utils.untrusted import printable

OUTPUT = "standard output"  # as errors name it
BUG = 1  # exit status of Python for an exception that nobody expected
started = ""  # the program that runs, as errors name it
SMALLER = "free some memory and give the same command again"


def exit_status(
    run: Callable[[], int],
    *,
    program: str = "",
    interrupted: str = "interrupted",
    smaller: str = SMALLER,
) -> int:
    """The result of `run`; 2 after a UserError, an OSError or when memory is short, 130 when interrupted, 143 after
    SIGTERM, that of an Ended, each with one line on standard error; 141 when the reader of standard output is gone.
    Other exceptions are our bugs and pass.

    smaller: what to do when memory is short.
    """
    global started
    started, stops = program, []
    try:
        with _stoppable() as stops:
            status = run()
        if sys.stdout is not None:  # None: it was closed before the start
            with files.naming(OUTPUT):
                sys.stdout.flush()
        return status
    except BrokenPipeError:  # as in `| head`: not an error
        drop(sys.stdout)
        return 141
    except (Exception, KeyboardInterrupt, Terminated) as error:
        status, line = outcome(error, interrupted, smaller)
        if status == BUG and stops:
            status, line = outcome(stops[0](), interrupted, smaller)
        if status == BUG:
            raise
        return report(program, line, status)
    finally:
        _drop_what_cannot_be_written()


def outcome(error: BaseException, interrupted: str = "interrupted", smaller: str = SMALLER) -> tuple[int, str]:
    """The exit status after an error, and the line for it; BUG for an exception that is no error of the user."""
    if isinstance(error, Ended):
        return error.status, str(error)
    if isinstance(error, UserError):
        return 2, str(error)
    if isinstance(error, KeyboardInterrupt):
        return 130, interrupted
    if isinstance(error, Terminated):
        return 143, f"stopped by SIGTERM{interrupted.removeprefix('interrupted')}"
    if out_of_memory(error):
        reason = (str(error).splitlines() or [""])[0][:200]
        return 2, f"out of memory{reason and f' ({reason})'}; {smaller}"
    if isinstance(error, OSError):
        return 2, files.describe_error(error)
    return BUG, f"{type(error).__name__}: {error}"


class Ended(Exception):
    """The command ends before its work is done, with a status of its own."""

    def __init__(self, line: str, status: int):
        super().__init__(line)
        self.status = status


class Terminated(BaseException):
    """SIGTERM came: what is half done is cleaned up and what is kept is said, as after an interrupt."""


SOON, LATE = 0.01, 10.0  # seconds after which a signal is looked at again, and raised whatever is done


@contextlib.contextmanager
def _stoppable() -> Iterator[list[type[BaseException]]]:
    """SIGTERM raises Terminated in the main thread, once; training asks for it in its own way (training.preemption).

    Yields what was raised so, or by an interrupt: code of others may make an error of its own of it. While modules are
    imported neither is raised, but soon after: an extension module that is stopped so prints a traceback. Where it was
    raised and Python had to drop it, as in a finaliser or a callback of the garbage collector, it is raised again.
    """
    raised: list[type[BaseException]] = []
    came: dict[int, float] = {}  # signal -> when

    def later(number: int) -> None:
        again = threading.Timer(SOON, signal.pthread_kill, (threading.main_thread().ident, number))
        again.daemon = True
        again.start()

    def stop(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if (dropping or _importing(frame)) and now - came.setdefault(number, now) < LATE:
            return later(number)
        default, kind = STOPS[signal.Signals(number)]
        signal.signal(number, default)
        raised.append(kind)
        raise kind

    dropping = False  # in the hook, too, an exception would be dropped

    def dropped(what: Any) -> None:
        nonlocal dropping
        for number in ours:
            if raised and what.exc_type is raised[-1] is STOPS[number][1]:
                dropping = True
                raised.pop()
                signal.signal(number, stop)
                later(number)
                dropping = False
                return
        tell(what)

    before, tell = {}, sys.unraisablehook
    if threading.current_thread() is threading.main_thread():  # Python delivers signals to that one only
        before = {number: signal.getsignal(number) for number in STOPS}
    ours = [number for number in before if before[number] is STOPS[number][0]]  # else who called knows better
    for number in ours:
        signal.signal(number, stop)
    if ours:
        sys.unraisablehook = dropped
    try:
        yield raised
    finally:
        for number in ours:
            signal.signal(number, before[number])
        ours.clear()  # from now on `dropped` does nothing of its own
        if sys.unraisablehook is dropped:  # else another hook, which calls this one, stays
            sys.unraisablehook = tell


STOPS = {  # signal -> what Python does by itself, what is raised
    signal.SIGTERM: (signal.SIG_DFL, Terminated),
    signal.SIGINT: (signal.default_int_handler, KeyboardInterrupt),
}


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def out_of_memory(error: BaseException) -> bool:
    """Is this the error of Python, NumPy, the system or XLA for too little memory? XLA's is told by its text."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    told = str(error).lower()
    marks = ("resource_exhausted", "out of memory", "std::bad_alloc", "can't start new thread")
    return isinstance(error, MemoryError) or isinstance(error, RuntimeError) and any(mark in told for mark in marks)


# GiB of address space that JAX takes to run at all, most of it reserved and not used: for itself, and for each core.
# Measured with jaxlib 0.10 on one core and on two (docs/decisions.md).
ADDRESS_SPACE, OF_EACH_CORE = 1.2, 0.25


def require_address_space() -> None:
    """UserError where `ulimit -v` leaves less than JAX takes; its threads would end the process without a word of ours.

    Below four times as much a warning: larger programs need more.
    """
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return
    allowed, least = limit / 2**30, ADDRESS_SPACE + OF_EACH_CORE * devices.cores()
    told = f"the address space of this process is limited to {allowed:.1f} GiB (`ulimit -v`)"
    if allowed < least:
        raise UserError(f"{told}, but JAX takes {least:.1f} GiB on this machine; raise the limit or lift it")
    if allowed < 4 * least:
        progress.log(f"warning: {told}; raise it if XLA or LLVM ends the process")


def say(result: object) -> None:
    """Print a line on standard output, of several processes once; an error of writing names that."""
    if progress.is_first():
        with files.naming(OUTPUT):
            print(result)


def report(program: str, message: str, status: int) -> int:
    """Print an error as one line, if standard error is open; returns the status."""
    if sys.stderr is not None:  # print would take standard output, where the data go
        line = f"{program}{': ' if program else ''}error: {progress.of_process()}{printable(' '.join(message.split()))}"
        try:
            print(line, file=sys.stderr, flush=True)
        except OSError:  # its disk is full
            drop(sys.stderr)
    return status


def drop(stream: TextIO | None) -> None:
    """Nobody reads standard output or error any more, or it is full: Python must not try to flush it at exit."""
    if stream is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _drop_what_cannot_be_written() -> None:
    """Python flushes standard output at exit, and would end with 120 and two lines where that fails again."""
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError:
            drop(sys.stdout)
