"""Where results go: a local directory, or a URL to which they are published."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

from seqkd_jax import distributed
from seqkd_jax.types import UserError
from seqkd_jax.utils import remote, urls

P = ParamSpec("P")
T = TypeVar("T")


@contextlib.contextmanager
def working_directory(out: Path | str) -> Iterator[Path]:
    """The directory to write: `out`, or of a URL a local one that is published when the block ends."""
    if not urls.is_url(out):
        yield Path(out)
        return
    distributed.start()
    require_one_process(out, distributed.count())
    with remote.published(urls.as_url(out)) as directory:
        yield directory


def require_one_process(out: Path | str, count: int) -> None:
    """UserError where several processes are to write to a URL."""
    if count > 1 and urls.is_url(out):
        raise UserError(f"{urls.as_url(out)}: several processes write to a file system that they share; name a path")


def publishing(function: Callable[P, T]) -> Callable[P, T]:
    """A function whose argument `out` may be a URL; what it returns has the paths of the working directory."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def published(*arguments: P.args, **options: P.kwargs) -> T:
        bound = signature.bind(*arguments, **options)
        if not urls.is_url(bound.arguments["out"]):
            return function(*arguments, **options)
        with working_directory(bound.arguments["out"]) as directory:
            bound.arguments["out"] = directory
            return function(*bound.args, **bound.kwargs)

    return published
