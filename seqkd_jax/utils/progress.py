"""Progress on standard error: a bar with rate and time left, or a quiet log if it is not a terminal.

Also the count of compilations, which the command line prints: static shapes keep it small.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
LOG_EVERY = 30.0  # seconds between lines of the quiet log

_compiled: list[tuple[str, float]] = []  # one process has one compiler, so one list: (name, seconds)
_lock = threading.Lock()


def log(message: str) -> None:
    """One line on stderr, if that is open; above a bar that is running."""
    if sys.stderr is None:  # print would take standard output, where the data go
        return
    if _bars:
        _bars[-1].console.print(message, markup=False, highlight=False)
    else:
        print(message, file=sys.stderr, flush=True)


def track(iterable: Iterable[Item], total: int | None, description: str, unit: str = "items") -> Iterator[Item]:
    """The items, while progress is shown. total None: unknown. The last line also appears when the reader stops."""
    with counter(total, description, unit) as advance:
        for item in iterable:
            yield item
            advance(1)


@contextlib.contextmanager
def counter(total: int | None, description: str, unit: str = "items") -> Iterator[Callable[[float], None]]:
    """Yields advance(n): n more units are done. total in units, None if unknown; the rate is in units/s."""
    show = _bar if sys.stderr is not None and sys.stderr.isatty() and not _bars else _quiet
    with show(total, description, unit) as advance:
        yield advance


_bars: list = []  # the running bar; one inside another would fight for the cursor, so the inner one is quiet


@contextlib.contextmanager
def _bar(total: int | None, description: str, unit: str) -> Iterator[Callable[[float], None]]:
    from rich import progress as rich_progress  # imported late: it is slow, and the quiet log does not need it
    from rich.console import Console

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.TextColumn("{task.fields[counted]}"),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TimeElapsedColumn(),
    )
    bar = rich_progress.Progress(*columns, console=Console(stderr=True), refresh_per_second=4)
    start = time.monotonic()
    done = 0.0
    with bar:
        task = bar.add_task(description, total=total, counted="")
        _bars.append(bar)

        def advance(n: float = 1) -> None:
            nonlocal done
            done += n
            bar.update(task, advance=n, counted=_counted(done, total, unit, time.monotonic() - start))

        try:
            yield advance
        finally:
            _bars.remove(bar)


@contextlib.contextmanager
def _quiet(total: int | None, description: str, unit: str) -> Iterator[Callable[[float], None]]:
    start = last = time.monotonic()
    done = 0.0

    def advance(n: float = 1) -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= LOG_EVERY:
            last = now
            left = "" if not total or not done else f", {duration((now - start) * (total - done) / done)} left"
            log(f"{description}: {_counted(done, total, unit, now - start)}{left}")

    end = "stopped"
    try:
        yield advance
        end = "done"
    finally:
        seconds = time.monotonic() - start
        log(f"{description}: {end}, {_counted(done, total, unit, seconds)} in {duration(seconds)}")


def _counted(done: float, total: int | None, unit: str, seconds: float) -> str:
    of = "" if total is None else f"/{total:,}"
    rate = done / max(seconds, 1e-9)
    return f"{done:,.0f}{of} {unit}, {rate:,.{0 if rate >= 10 else 2}f} {unit}/s"


def duration(seconds: float) -> str:
    """Seconds as 4.2s, 1m05s or 2h03m."""
    if seconds < 60:
        return f"{max(seconds, 0):.1f}s"
    if seconds < 3600:
        return f"{int(seconds // 60)}m{int(seconds % 60):02d}s"
    return f"{int(seconds // 3600)}h{int(seconds % 3600 // 60):02d}m"


def compilations() -> int:
    """Programs that the backend has compiled in this process since `count_compilations` was first called."""
    with _lock:
        return len(_compiled)


def compiled() -> list[tuple[str, float]]:
    """(name, seconds) of each of them, in order; the name is that of the jitted function."""
    with _lock:
        return list(_compiled)


_listening = False


def count_compilations() -> None:
    """Begin to count; call it before the first jax computation. Calling it again changes nothing."""
    global _listening
    if _listening:
        return
    import jax  # imported late: only who computes pays for it

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            with _lock:
                _compiled.append((str(kwargs.get("fun_name", "?")), duration_secs))

    jax.monitoring.register_event_duration_secs_listener(listen)
    _listening = True
