"""The processes of a command: started from scratch, or forked from one that has imported what they import.

Imports are half of what a start takes. What is forked runs the same module with the same arguments; a quarter is
started from scratch, so that kills hit imports, too.
"""

import contextlib
import faulthandler
import math
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

FORK = multiprocessing.get_context("fork")
PATIENCE = 300.0  # seconds that a process may take to end
LOOK = 0.005  # seconds between two looks at one that is to end


class Running(NamedTuple):
    """A process of a command."""

    pid: int
    status: Callable[[], int | None]  # None while it runs; -9: SIGKILL ended it
    said: IO[bytes]  # standard output and error


def prepare() -> None:
    """Import what the commands import; nothing of it starts a thread or the backend of JAX."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    import jax

    jax.config.update("jax_platforms", "cpu")
    import experiments.chaos.small_study  # noqa: F401
    import seqkd_jax.api.distilling  # noqa: F401
    import seqkd_jax.api.training  # noqa: F401

    warnings.filterwarnings("ignore", message=r"os\.fork\(\)")  # JAX says so of any process


def start(command: Sequence[str], directory: Path, environment: Mapping[str, str], lock: int, fresh: bool) -> Running:
    """Start a command, `-m MODULE ARGUMENTS`, in a directory. lock: a descriptor that it holds until its end.

    fresh: from scratch; otherwise after `prepare`.
    """
    said = tempfile.TemporaryFile()  # noqa: SIM115 - `end` closes it
    if fresh:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=directory,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            pass_fds=[lock],
            start_new_session=True,  # an interrupt at the terminal is not for it
        )
        return Running(process.pid, process.poll, said)
    return _fork(_become, (command, directory, environment, said.fileno()), said)


def run(work: Callable[[], object]) -> tuple[int, str]:
    """Do something in a process of its own, so that no thread of it is left: its status, and what it said."""
    said = tempfile.TemporaryFile()  # noqa: SIM115
    return end(_fork(_redirected, (work, said.fileno()), said))


def _fork(target: Callable, arguments: tuple, said: IO[bytes]) -> Running:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # it would be written twice
    process = FORK.Process(target=target, args=arguments)
    process.start()
    assert process.pid is not None
    return Running(process.pid, lambda: process.exitcode, said)


def _become(command: Sequence[str], directory: Path, environment: Mapping[str, str], said: int) -> None:
    os.setsid()
    os.chdir(directory)
    os.environ.update(environment)
    option, module, *arguments = command
    assert option == "-m"
    sys.argv = [module, *arguments]
    _redirected(lambda: runpy.run_module(module, run_name="__main__", alter_sys=True), said)


def stacks(running: dict[int, Running]) -> str:
    """End processes that hang, and take them out: what each said, and where it is."""
    told = []
    for number, one in list(running.items()):
        send(one, signal.SIGABRT)  # `faulthandler` then prints where each thread is
        with contextlib.suppress(TimeoutError):
            told.append("process {}, status {}:\n{}".format(number, *end(one, 10)))
            del running[number]
    return "\n\n".join(told)


def _redirected(work: Callable[[], object], said: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, place in ((nothing, 0), (said, 1), (said, 2)):
        os.dup2(descriptor, place)
    faulthandler.enable(said)
    work()


def send(one: Running, number: signal.Signals) -> None:
    """Send a signal, unless the process has ended."""
    if one.status() is None:
        os.kill(one.pid, number)


def end(one: Running, patience: float = PATIENCE) -> tuple[int, str]:
    """Wait until a process has ended: its status, and what it said. TimeoutError: not within `patience` seconds."""
    for _ in range(math.ceil(patience / LOOK)):  # not by the clock, which goes on while this process is stopped
        if (status := one.status()) is not None:
            break
        time.sleep(LOOK)
    else:
        raise TimeoutError(f"a process did not end within {patience:.0f} s")
    with one.said:
        one.said.seek(0)
        return status, one.said.read().decode("utf-8", errors="replace")


def stop(running: Collection[Running]) -> None:
    """End processes that are of no use any more."""
    for one in running:
        send(one, signal.SIGKILL)
    for one in running:
        with contextlib.suppress(TimeoutError):
            end(one)
