"""Several real processes of one command on this machine, for tests: started together, waited for, killed in the end."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

ROOT = Path(__file__).parent.parent


class Result(NamedTuple):
    """How a process ended."""

    status: int  # negative: the signal that ended it
    out: str
    err: str


class Started(NamedTuple):
    """A running process, and the files that hold what it prints."""

    process: subprocess.Popen
    out: IO[str]
    err: IO[str]

    def result(self, seconds: float = 60) -> Result:
        """Wait for its end. subprocess.TimeoutExpired: it goes on."""
        status = self.process.wait(seconds)
        return Result(status, *(_content(file) for file in (self.out, self.err)))

    def printed(self) -> str:
        """What it has printed until now, on standard output."""
        return _content(self.out)


def _content(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def commands(several: Sequence[Sequence[object]], devices: int = 1, **environment: str) -> Iterator[list[Started]]:
    """Processes of `python ARGUMENTS`, each with so many CPU devices; those that still run at the end are killed."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "OMPI_"))}
    flags = [flag for flag in own.get("XLA_FLAGS", "").split() if "device_count" not in flag]
    flags.append(f"--xla_force_host_platform_device_count={devices}")
    own |= {"XLA_FLAGS": " ".join(flags), "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **environment}
    with contextlib.ExitStack() as ending:
        started = []
        for arguments in several:
            out, err = (ending.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2))
            words = [sys.executable, *map(str, arguments)]
            process = subprocess.Popen(words, env=own, stdout=out, stderr=err, stdin=subprocess.DEVNULL)
            ending.callback(process.wait)
            ending.callback(process.kill)
            started.append(Started(process, out, err))
        yield started


def options(count: int, port: int | None = None) -> list[list[str]]:
    """--coordinator, --processes and --process of each of `count` processes on this machine."""
    port = port or free_port()
    return [f"--coordinator 127.0.0.1:{port} --processes {count} --process {i}".split() for i in range(count)]


def seqkd(count: int, *arguments: object, devices: int = 1, **environment: str):
    """A context of `count` processes of one command `seqkd`; see `commands`."""
    each = [["-m", "seqkd_jax", *arguments, *own] for own in options(count)]
    return commands(each, devices, **environment)


def python(count: int, code: str, devices: int = 1, **environment: str):
    """A context of `count` processes of Python code, in which `joined()` of seqkd_jax.distributed is entered.

    The code may read `index` and `count`; `distributed` is imported. A failure ends as a command's does.
    """
    port = free_port()
    body = "\n".join(f"        {line}" for line in code.strip().splitlines())
    programs = [
        f"""
import sys
from seqkd_jax import distributed
from seqkd_jax.utils import exits
index, count = {index}, {count}
def run():
    with distributed.joined("127.0.0.1:{port}", count, index):
{body}
    return 0
status = exits.exit_status(run, program="test")
distributed.leave(status)
sys.exit(status)
"""
        for index in range(count)
    ]
    return commands([["-c", program] for program in programs], devices, **environment)


def results(started: Sequence[Started], seconds: float = 60) -> list[Result]:
    """How they ended."""
    return [process.result(seconds) for process in started]
