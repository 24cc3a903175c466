"""Trees of arrays on the disk, checked. The only file that imports orbax.

Orbax casts dtypes silently and accepts wrong shapes for NumPy targets, so both are compared here. What it raises (its
own bare Exception, tensorstore's ValueErrors) becomes one UserError or OSError that names the path, and what it prints
besides, from its threads, event loops and log, is not shown.
"""

import contextlib
import hashlib
import logging
import os
import re
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from seqkd_jax.types import UserError
from seqkd_jax.utils import exits

T = TypeVar("T")


def describe(tree: Any) -> dict[str, list]:
    """Name -> [shape, dtype] of every leaf."""
    return {name: [list(np.shape(leaf)), str(_dtype(leaf))] for name, leaf in named_leaves(tree).items()}


def sha256(tree: Any) -> str:
    """SHA-256 over names, shapes, dtypes and bytes of a tree of host arrays, in the order of their names."""
    digest = hashlib.sha256()
    for name, leaf in sorted(named_leaves(tree).items()):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{name} {array.shape} {array.dtype}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)  # as bytes: bfloat16 has no buffer protocol
    return digest.hexdigest()


def require(actual: dict, expected: dict, where: str) -> None:
    """Compare two results of `describe`. UserError that names the first leaf that differs."""
    for name in sorted(actual.keys() | expected.keys()):
        if actual.get(name) != expected.get(name):
            there, here = (
                "missing" if leaf is None else f"{leaf[1]}{leaf[0]}" for leaf in (actual.get(name), expected.get(name))
            )
            raise UserError(f"{where}: {name} is {there}, expected {here}; use the configuration it was made with")


def named_leaves(tree: Any) -> dict[str, Any]:
    """Path, with / between -> leaf."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def host(tree: Any) -> Any:
    """The tree with NumPy leaves, taken from the first copy of a replicated array.

    ValueError for an array that is not replicated: only part of it would be saved.
    """
    for name, leaf in named_leaves(tree).items():
        if isinstance(leaf, jax.Array) and not leaf.is_fully_replicated:
            raise ValueError(f"{name} is not replicated: {leaf.sharding}; reduce it over the devices before saving")
    return jax.tree.map(np.asarray, tree)


def write(path: Path, tree: Any) -> None:
    """Write a tree and wait until it is on the disk. OSError, such as of a full disk, and UserError name the path."""
    _require_arrays(tree)

    def save() -> None:
        with _checkpointer() as checkpointer:
            checkpointer.save(path.absolute(), tree)
            checkpointer.wait_until_finished()  # saves are asynchronous

    _call(save, path, lambda reason: f"{path}: cannot be written ({reason}); see whether its disk is in order")


def read(path: Path, shapes: Any, sharding: jax.sharding.Sharding) -> Any:
    """The tree of these ShapeDtypeStructs, its leaves placed by `sharding`; see `restore`."""
    return restore(
        path, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)
    )


def restore(path: Path, targets: Any) -> Any:
    """The saved tree in the form of `targets` (see `target`). UserError if it is missing or damaged."""
    _require_arrays(targets)

    def load() -> Any:
        with _checkpointer() as checkpointer:
            return checkpointer.restore(path.absolute(), targets)

    return _call(load, path, lambda reason: f"{path}: damaged, cannot be restored ({reason}); train again")


def _checkpointer() -> ocp.StandardCheckpointer:
    """One of this process alone: what is saved is whole in each of several processes, and only one calls this."""
    own = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own})
    return ocp.StandardCheckpointer(multiprocessing_options=alone)


def _require_arrays(tree: Any) -> None:
    """TypeError, which is our mistake and not the disk's, for a leaf that is no array."""
    for name, leaf in named_leaves(tree).items():
        if not isinstance(leaf, np.ndarray | np.generic | jax.Array | jax.ShapeDtypeStruct) or leaf.dtype == object:
            raise TypeError(f"{name} is {type(leaf).__name__}: only arrays are saved and restored")


def _call(orbax: Callable[[], T], path: Path, failed: Callable[[str], str]) -> T:
    """The result of `orbax`. Its errors are raised without their cause: that holds its tasks, which would report
    themselves when they go. MemoryError where memory is short: then the files are not to blame."""
    with _silence():
        try:
            return orbax()
        except Exception as error:  # a bare Exception, or any of tensorstore, asyncio, json: they have no common base
            reason, code, short = _reason(_first(error))
    if short:
        raise MemoryError(reason)
    if code is not None:
        raise OSError(code, os.strerror(code), str(path))
    raise UserError(failed(reason))


def _first(error: BaseException) -> BaseException:
    """The error that a chain began with."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return error


def _reason(error: BaseException) -> tuple[str, int | None, bool]:
    """The first line of an error; the number of the operating system's error, if it was one; is memory short?"""
    text = str(error)
    code = re.search(r"\[os_error_code='(\d+)'", text)
    number = int(code[1]) if code else error.errno if isinstance(error, OSError) else None
    line = (text.splitlines() or [type(error).__name__])[0]
    return line[:200], number, exits.out_of_memory(error)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Nothing is printed of what orbax logs, nor of what its tasks do after one of them has failed."""
    log, asyncio = logging.getLogger("absl"), logging.getLogger("asyncio")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    # These two stay: tasks that were left behind report themselves when they are collected, or when the process ends.
    asyncio.addFilter(_is_others)
    if not isinstance(sys.unraisablehook, _Unraisable):
        sys.unraisablehook = _Unraisable(sys.unraisablehook)
    try:
        yield
    finally:
        log.setLevel(level)


def _is_others(record: logging.LogRecord) -> bool:
    """Whether what asyncio logs is of other tasks than orbax's."""
    return not (record.exc_info and _of_orbax(record.exc_info[2]))


def _of_orbax(raised: types.TracebackType | None) -> bool:
    places = (frame.f_code.co_filename for frame, _ in traceback.walk_tb(raised))
    return any(f"{os.sep}orbax{os.sep}" in place for place in places)


class _Unraisable(NamedTuple):
    """A hook for errors that Python cannot raise, which leaves out those of tasks that orbax left behind."""

    others: Callable[[Any], object]  # the hook for all others

    def __call__(self, unraisable: Any) -> None:
        """Called by Python."""
        closed = str(unraisable.exc_value) == "Event loop is closed"  # tensorstore reports to it from its own threads
        if not closed and not _of_orbax(unraisable.exc_traceback):
            self.others(unraisable)


def target(leaf: Any, device: jax.sharding.Sharding) -> Any:
    """The form in which orbax restores a leaf: a jax array with its own sharding, else on `device`; or NumPy."""
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or device)
    return np.asarray(leaf)


def _dtype(leaf: Any) -> np.dtype:
    return leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
