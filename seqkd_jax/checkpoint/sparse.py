"""The weights of a pruned model on the disk: a bit for each weight of an array that was pruned, and what is left of it.

  params/sparse.safetensors  of an array that was pruned, NAME:kept, uint8, eight weights to a byte, the first in the
                             lowest bit: 1 where the weight is kept, and 0 in the bits that fill up the last byte; and
                             NAME:values, the weights that are kept, in their order. Any other array as NAME.

A weight that is pruned is +0.0. So the weights are read back bit for bit, and with them which ones must stay zero.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from seqkd_jax.checkpoint import arrays, tensor_files
from seqkd_jax.types import UserError

Pruned = Mapping[str, np.ndarray]  # name of an array -> booleans of its shape: True where a weight is pruned

FILE = "sparse.safetensors"
KEPT, VALUES = ":kept", ":values"


def write(directory: Path, params: Any, pruned: Pruned) -> None:
    """Write host arrays. Those of several replicas have an axis before those of their mask, which is common to all.

    ValueError for a mask that fits no array, or a pruned weight that is not +0.0.
    """
    tensors, leaves = {}, arrays.named_leaves(params)
    if unknown := pruned.keys() - leaves.keys():
        raise ValueError(f"there is no array {min(unknown)} to be pruned")
    for name, leaf in leaves.items():
        if name not in pruned:
            tensors[name] = leaf
            continue
        kept = ~pruned[name].reshape(-1)
        rows = leaf.reshape(*leaf.shape[: leaf.ndim - pruned[name].ndim], -1)
        if np.ascontiguousarray(rows[..., ~kept]).view(np.uint8).any():  # bits: -0.0 is another number
            raise ValueError(f"{name}: a weight that is pruned is not zero")
        tensors[name + KEPT] = np.packbits(kept, bitorder="little")
        tensors[name + VALUES] = rows[..., kept]
    directory.mkdir()
    tensor_files.write(directory / FILE, tensors, {})


def read(directory: Path, shapes: Any, replicas: int = 1) -> tuple[Any, Pruned]:
    """The host arrays of these ShapeDtypeStructs, and which weights are pruned. UserError: missing or damaged."""
    path = directory / FILE
    tensors, pruned = tensor_files.read(path), {}

    def dense(name: str, shape: jax.ShapeDtypeStruct) -> np.ndarray:
        if name + KEPT not in tensors:
            return _taken(tensors, name, shape.shape, shape.dtype, path)
        own = shape.shape[1:] if replicas > 1 else shape.shape
        size = int(np.prod(own))
        bits = _taken(tensors, name + KEPT, (-(-size // 8),), np.dtype(np.uint8), path)
        unpacked = np.unpackbits(bits, bitorder="little").astype(bool)
        kept = unpacked[:size]
        if unpacked[size:].any():
            raise UserError(f"{path}: damaged, {name + KEPT} marks weights beyond its {size:,}; bring back a copy")
        lead = shape.shape[: len(shape.shape) - len(own)]
        values = _taken(tensors, name + VALUES, (*lead, np.count_nonzero(kept)), shape.dtype, path)
        leaf = np.zeros((*lead, size), shape.dtype)
        leaf[..., kept] = values
        pruned[name] = ~kept.reshape(own)
        return leaf.reshape(shape.shape)

    leaves = [dense(name, shape) for name, shape in arrays.named_leaves(shapes).items()]
    if tensors:
        raise UserError(f"{path}: damaged, the model has no array {min(tensors)[:100]}; bring back a copy")
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves), pruned


def _taken(tensors: dict, name: str, shape: tuple, dtype: np.dtype, path: Path) -> np.ndarray:
    """An array out of `tensors`, of this shape and type."""
    found = tensors.pop(name, None)
    if found is None or (found.shape, found.dtype) != (shape, dtype):
        there = "missing" if found is None else f"{found.dtype}{list(found.shape)}"
        raise UserError(f"{path}: damaged, {name} is {there}, expected {dtype}{list(shape)}; bring back a copy")
    return found


def sha256(pruned: Pruned) -> str:
    """SHA-256 over names, shapes and bits of a mask."""
    digest = hashlib.sha256()
    for name, mask in sorted(pruned.items()):
        digest.update(f"{name} {mask.shape}\n".encode())
        digest.update(np.packbits(mask, bitorder="little").data)
    return digest.hexdigest()


def describe(pruned: Pruned) -> dict[str, Any]:
    """What checkpoint.json says of a mask: how many weights are pruned, of one replica, and its hash."""
    return {"weights": sum(int(np.count_nonzero(mask)) for mask in pruned.values()), "sha256": sha256(pruned)}


def same(one: Pruned | None, other: Pruned | None) -> bool:
    """Are the same weights pruned? None: of a model that was not pruned."""
    return sha256(one or {}) == sha256(other or {})
