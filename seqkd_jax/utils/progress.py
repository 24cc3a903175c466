"""Progress on standard error: a bar with rate and time left, or a quiet log if it is not a terminal.

Rate and time left are those of the units themselves. What stands between them (compiling, validating, saving) is a
`phase`: it is named while it lasts, and its time is in no rate. Of several processes of a command only the first logs.
"""

import contextlib
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from seqkd_jax.types import UserError
from seqkd_jax.utils.untrusted import printable

Item = TypeVar("Item")
LOG_EVERY = 30.0  # seconds between lines of the quiet log; a phase that lasts as long is named there
SAID_AFTER = 2.0  # seconds of compiling until the quiet log says so: lines for quick programs would be noise
WINDOW = 60.0  # seconds of work that a rate follows


_process = 0


def be_process(number: int) -> None:
    """This is one of several processes of a command: those after the first do not log."""
    global _process
    _process = number


def is_first() -> bool:
    """Is this the process that logs?"""
    return not _process


def of_process() -> str:
    """What stands before an error of a process that does not log."""
    return f"process {_process}: " if _process else ""


def log(message: str) -> None:
    """One line on stderr, if that is open; above a bar that is running. A job goes on though nobody can read it."""
    if sys.stderr is None or _process:  # None: print would take standard output, where the data go
        return
    message = printable(message)
    try:
        if _bars:
            _bars[-1].console.print(message, markup=False, highlight=False)
        else:
            print(message, file=sys.stderr, flush=True)
    except OSError:  # a full disk, or a pipe whose reader has gone: `2>&1 | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # what is still buffered goes there


def track(iterable: Iterable[Item], total: int | None, description: str, unit: str = "items") -> Iterator[Item]:
    """The items, while progress is shown. total None: unknown. The last line also appears when the reader stops."""
    with counter(total, description, unit) as advance:
        for item in iterable:
            yield item
            advance(1)


@contextlib.contextmanager
def counter(
    total: int | None, description: str, unit: str = "items", done: int = 0
) -> Iterator[Callable[[float], None]]:
    """Yields advance(n): n more units are done. total in units, None if unknown; the rate is in units/s.

    done: units of the total that were done before, by a process that this one resumes; they are in no rate.
    """
    work = _Work(total, description, unit, done)
    show = _bar if sys.stderr is not None and sys.stderr.isatty() and not _bars and not _process else _quiet
    with _inside(description), show(work):
        _running.append(work)
        try:
            yield work.advance
        finally:
            _running.remove(work)


@contextlib.contextmanager
def phase(what: str, compiling: bool = False) -> Iterator[None]:
    """Something between the units of the running counter, if one runs; its time is in no rate, and it is named.

    A bar names it at once; the quiet log once it lasts, so that what is quick makes no line.
    """
    work = _running[-1] if _running else None
    said = f"{work.description}: {what} …" if work else f"{what} …"
    cancel = (lambda: None) if work and work.has_bar else _later(SAID_AFTER if compiling else LOG_EVERY, said)
    if work:
        work.enter(what, compiling)
    try:
        yield
    finally:
        cancel()
        if work:
            work.leave()


def stop_bars() -> None:
    """End what is drawn at a terminal, before this process ends at once."""
    for bar in _bars:
        bar.stop()


_running: list["_Work"] = []  # counters, the innermost last
_bars: list = []  # the running bar; one inside another would fight for the cursor, so the inner one is quiet


@contextlib.contextmanager
def _inside(description: str) -> Iterator[None]:
    """A counter that starts within a unit of another is a phase of that one; it names itself."""
    outer = _running[-1] if _running else None
    if outer:
        outer.enter(description, False)
    try:
        yield
    finally:
        if outer:
            outer.leave()


def _later(seconds: float, message: str) -> Callable[[], None]:
    """Log a message after so many seconds; returns what prevents it."""
    timer = threading.Timer(seconds, log, (message,))
    timer.daemon = True
    timer.start()
    return timer.cancel


class _Work:
    """What a counter has counted, and where the time went."""

    def __init__(self, total: int | None, description: str, unit: str, done: float):
        self.total, self.description, self.unit = total, description, unit
        self.before = self.done = float(done)
        self.start = self.now = time.monotonic()
        self.seconds = {"units": 0.0, "compiling": 0.0, "other": 0.0}  # since the start, by what was done in them
        self.phases: list[tuple[str, str]] = []  # (what it is called, which seconds are its), the innermost last
        self.counted = 0.0  # of seconds["units"], those that are in `recent`
        self.recent = (0.0, 0.0)  # (units, seconds) in which the last WINDOW weighs most
        self.has_bar = False
        self.changed: Callable[[], None] = lambda: None

    def advance(self, n: float = 1) -> None:
        """n more units are done."""
        self.tick()
        self.done += n
        spent = self.seconds["units"] - self.counted
        self.counted += spent
        keep = math.exp(-spent / WINDOW)
        self.recent = (self.recent[0] * keep + n, self.recent[1] * keep + spent)
        self.changed()

    def enter(self, what: str, compiling: bool) -> None:
        """Begin a phase."""
        self.tick()
        self.phases.append((what, "compiling" if compiling else "other"))
        self.changed()

    def leave(self) -> None:
        """End the innermost phase."""
        self.tick()
        self.phases.pop()
        self.changed()

    def tick(self) -> None:
        """Count the time until now."""
        now = time.monotonic()
        self.seconds[self.phases[-1][1] if self.phases else "units"] += now - self.now
        self.now = now

    def left(self) -> float | None:
        """Seconds until the end: of units at the present rate, and of what stood between them, but for compiling."""
        units, seconds = self.recent
        if self.total is None or not units or not seconds:
            return None
        return (self.total - self.done) * (seconds / units + self.seconds["other"] / (self.done - self.before))

    def amount(self, units: float, seconds: float) -> str:
        """What was done of the total, and the rate."""
        of = "" if self.total is None else f"/{self.total:,}"
        count = f"{self.done:,.0f}{of} {self.unit}"
        if not units or not seconds:
            return count
        rate = units / seconds
        return f"{count}, {rate:,.{0 if rate >= 10 else 2}f} {self.unit}/s"

    def at_present(self) -> str:
        """A line while it runs: what is done, and the phase, or rate and time left."""
        if self.phases:
            return f"{self.amount(0, 0)}, {self.phases[-1][0]} …"
        left = self.left()
        return self.amount(*self.recent) + ("" if left is None else f", {duration(left)} left")

    def overall(self) -> str:
        """Amount, rate and time of all that was done."""
        self.tick()
        compiling = self.seconds["compiling"]
        of_it = f", {duration(compiling)} of it for programs" if compiling >= SAID_AFTER else ""
        amount = self.amount(self.done - self.before, self.seconds["units"])
        return f"{amount} in {duration(self.now - self.start)}{of_it}"


@contextlib.contextmanager
def _bar(work: _Work) -> Iterator[None]:
    from rich import progress as rich_progress  # imported late: it is slow, and the quiet log does not need it
    from rich.console import Console
    from rich.table import Column

    columns = (
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(bar_width=None, table_column=Column(min_width=6, max_width=40)),  # narrow where it must
        rich_progress.TextColumn("{task.fields[at_present]}", markup=False),
        rich_progress.TimeElapsedColumn(),
    )
    bar = rich_progress.Progress(*columns, console=Console(stderr=True), refresh_per_second=4)
    with bar:
        task = bar.add_task(work.description, total=work.total, at_present="")
        bar.update(task, completed=work.done)
        work.has_bar = True
        work.changed = lambda: bar.update(
            task, completed=work.done, at_present=work.at_present(), refresh=bool(work.phases)
        )
        _bars.append(bar)
        try:
            yield
        finally:
            bar.update(task, at_present=work.overall())
            _bars.remove(bar)


@contextlib.contextmanager
def _quiet(work: _Work) -> Iterator[None]:
    last, done = work.start, work.done

    def changed() -> None:
        nonlocal last, done
        if work.done > done and work.now - last >= LOG_EVERY:
            last, done = work.now, work.done
            log(f"{work.description}: {work.at_present()}")

    work.changed = changed
    end = "stopped"
    try:
        yield
        end = "done"
    except UserError:
        if work.done == work.before:  # nothing was begun: the error is all there is to say
            end = ""
        raise
    finally:
        if end:
            log(f"{work.description}: {end}, {work.overall()}")


def duration(seconds: float) -> str:
    """Seconds as 4.2s, 1m05s or 2h03m."""
    if seconds < 60:
        return f"{max(seconds, 0):.1f}s"
    if seconds < 3600:
        return f"{int(seconds // 60)}m{int(seconds % 60):02d}s"
    return f"{int(seconds // 3600)}h{int(seconds % 3600 // 60):02d}m"
