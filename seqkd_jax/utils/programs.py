"""Compiled programs: those that this process builds are counted, and it is said when one is compiled."""

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from seqkd_jax.utils import progress


class Program(NamedTuple):
    """A program that the backend was asked for."""

    name: str  # of the jitted function
    seconds: float  # of compiling it, or of loading it
    loaded: bool  # an earlier process had compiled it


_built: list[Program] = []  # one process has one compiler, so one list
_lock = threading.Lock()
_thread = threading.local()  # a program is loaded, and then built, in one thread
_counting = False


def count() -> None:
    """Begin to count; call it before the first jax computation. Calling it again changes nothing."""
    global _counting
    if _counting:
        return
    import jax  # imported late: only who computes pays for it

    def loaded(event: str, **kwargs: str | int) -> None:
        if event == "/jax/compilation_cache/cache_hits":
            _thread.loaded = True

    def finished(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            program = Program(str(kwargs.get("fun_name", "?")), duration_secs, getattr(_thread, "loaded", False))
            _thread.loaded = False
            with _lock:
                _built.append(program)

    jax.monitoring.register_event_listener(loaded)
    jax.monitoring.register_event_duration_secs_listener(finished)
    _counting = True


def built() -> list[Program]:
    """The programs that this process has built since `count` was first called, in order: compiled or loaded."""
    with _lock:
        return list(_built)


def summary(programs: Sequence[Program]) -> str:
    """How many programs were built, and how many of them compiled."""
    compiled = [program.seconds for program in programs if not program.loaded]
    took = f" in {progress.duration(sum(compiled))}" if compiled else ""
    return f"{len(programs)} programs, {len(compiled) or 'none'} of them compiled{took}"


def announced(function: Callable, what: Callable[..., str]) -> Callable:
    """A jitted function; its first call for each name that `what` gives its arguments is shown as a compilation."""
    named: set[str] = set()

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        name = what(*arguments)
        if name in named:
            return function(*arguments)
        with progress.phase(f"compiling {name}", compiling=True):
            result = function(*arguments)
        named.add(name)
        return result

    return call


def shapes(arrays: Any) -> str:
    """The shapes that occur in a tree of arrays, as a person reads them: 32 x 18 and 32 x 20."""
    import jax

    return " and ".join(dict.fromkeys(" x ".join(map(str, leaf.shape)) for leaf in jax.tree.leaves(arrays)))
