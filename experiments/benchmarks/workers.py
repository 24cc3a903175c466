"""What is measured, in a process of its own. In one process the systems' thread pools slow each other down, some of
them fourfold at one sentence, and the comparison would be of that.

One process works at a time; the others wait for a request.
"""

import contextlib
import multiprocessing
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from seqkd_jax.types import UserError


class Missing(Exception):
    """Why something cannot be measured here: one line."""


class Worker(NamedTuple):
    """A process that answers requests, one at a time."""

    ask: Callable[..., Any]  # (name of the request, arguments) -> its answer; UserError: the process has failed
    close: Callable[[], None]


def start(name: str, make: Callable[..., Mapping[str, Callable]], *arguments: Any) -> Worker:
    """A process that ends with ours, or by its `close`. make: (arguments) -> {request: function that answers it}.

    name: of the worker, in errors. Missing: `make` raised it, or an ImportError. UserError: the process failed.
    """
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(there, make, arguments), daemon=True)
    process.start()
    there.close()

    def answer() -> Any:
        try:
            return here.recv()
        except (EOFError, OSError):
            raise UserError(f"{name}: its process failed; what it says stands above") from None

    def ask(*request: Any) -> Any:
        with contextlib.suppress(OSError):  # `answer` tells
            here.send(request)
        return answer()

    def close() -> None:
        here.close()
        process.join()

    missing = answer()
    if missing:
        close()
        raise missing
    return Worker(ask, close)


def _serve(connection, make: Callable[..., Mapping[str, Callable]], arguments: tuple) -> None:
    try:
        answers = make(*arguments)
    except Missing as error:
        return connection.send(error)
    except ImportError as error:
        return connection.send(Missing(f"{error.name or error} is not installed: pip install 'seqkd_jax[peers]'"))
    connection.send(None)
    try:
        while True:
            request, *given = connection.recv()
            connection.send(answers[request](*given))
    except EOFError:  # closed
        return


def resident() -> int | None:
    """Bytes of this process that are in memory; None where there is no /proc."""
    return _status("VmRSS")


def highest_resident() -> int | None:
    """The most of them since the last call; None where the system does not forget it between calls."""
    found = _status("VmHWM")
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return None
    return found


def _status(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def device_peak(peer: bool) -> int | None:
    """Bytes on the GPU: of JAX's allocator, or of PyTorch's; None: it does not tell."""
    if peer:
        torch = sys.modules.get("torch")
        return (torch.cuda.max_memory_allocated() or None) if torch and torch.cuda.is_available() else None
    import jax

    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
