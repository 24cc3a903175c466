"""Safetensors files, checked. The only file that imports safetensors.

The package compares types, shapes and places in the header with the size of the file before anything is allocated.
Names in a file are data, never paths; nothing is unpickled.
"""

from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from seqkd_jax.types import UserError
from seqkd_jax.utils import files

TYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "U32": np.dtype(np.uint32),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write a file of these arrays, their types as they are. metadata: texts for the file's header."""
    contiguous = {name: np.ascontiguousarray(tensor).reshape(tensor.shape) for name, tensor in tensors.items()}
    files.write_bytes(path, safetensors.numpy.save(contiguous, dict(metadata)))


def read(path: Path) -> dict[str, np.ndarray]:
    """Name -> array, bfloat16 too. UserError: the file is missing, damaged, or of a type that is not in TYPES."""
    files.require_file(path)
    try:
        with safetensors.safe_open(path, "np"):  # compares header and size before anything is read into memory
            pass
        return {name: _array(tensor) for name, tensor in safetensors.deserialize(path.read_bytes())}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; the weights are read from it") from None
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: damaged, or no safetensors of a known type ({reason}); copy it again") from None


def _array(tensor: Mapping) -> np.ndarray:
    if tensor["dtype"] not in TYPES:
        raise ValueError(f"type {tensor['dtype']}; known are {', '.join(TYPES)}")
    return np.frombuffer(tensor["data"], TYPES[tensor["dtype"]]).reshape(tensor["shape"])
