"""Trees of arrays on the disk, checked. The only file that imports orbax.

Orbax casts dtypes silently and accepts wrong shapes for NumPy targets, so both are compared here.
"""

import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from seqkd_jax.types import UserError


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
    """Write a tree and wait until it is on the disk."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), tree)
        checkpointer.wait_until_finished()  # saves are asynchronous


def read(path: Path, shapes: Any, sharding: jax.sharding.Sharding) -> Any:
    """The tree of these ShapeDtypeStructs, its leaves placed by `sharding`; see `restore`."""
    return restore(
        path, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)
    )


def restore(path: Path, targets: Any) -> Any:
    """The saved tree in the form of `targets` (see `target`). UserError if it is missing or damaged."""
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(path.absolute(), targets)
    except (FileNotFoundError, KeyError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: damaged, cannot be restored ({reason[:200]}); delete it and train again") from error


def target(leaf: Any, device: jax.sharding.Sharding) -> Any:
    """The form in which orbax restores a leaf: a jax array with its own sharding, else on `device`; or NumPy."""
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or device)
    return np.asarray(leaf)


def _dtype(leaf: Any) -> np.dtype:
    return leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
