"""What several processes of one run share: sums over the devices of all, and what process 0 has."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.flatten_util import ravel_pytree

from seqkd_jax import checkpoint, distributed
from seqkd_jax.config import TrainConfig
from seqkd_jax.types import UserError
from seqkd_jax.utils import settings


def own(devices: tuple) -> list:
    """Those of this process."""
    return [device for device in devices if device.process_index == jax.process_index()]


def own_part(arranged: Any, devices: tuple) -> Any:
    """What this process feeds to its devices, of arrays [G,...]."""
    mine = own(devices)
    first = devices.index(mine[0])
    return jax.tree.map(lambda array: array[first : first + len(mine)], arranged)


def over_devices(sums: Any, devices: tuple) -> Any:
    """The sums of all devices, added up; inside the pmap over the axis "devices".

    CPUs of several processes are added in the order of the devices, as XLA adds those of one process: so the same
    devices give the same bits, however many processes hold them. From four devices on, Gloo's all-reduce would add in
    another order.
    """
    if len(devices) == 1:
        return sums  # XLA would copy every gradient
    if devices[0].platform != "cpu" or len({device.process_index for device in devices}) == 1:
        return jax.lax.psum(sums, "devices")
    count = jax.lax.axis_size("devices")  # where JAX traces without compiling it is that of this process
    flat, tree_of = ravel_pytree(sums)
    each = -(-flat.size // count)
    parts = jnp.pad(flat, (0, each * count - flat.size)).reshape(count, each)
    parts = jax.lax.all_to_all(parts, "devices", 0, 0)  # one part of the sum, from each device
    part = functools.reduce(jnp.add, parts)
    part = jnp.where(part == 0, 0.0, part)  # XLA begins with 0.0, so its sum is never -0.0
    whole = tree_of(jax.lax.all_gather(part, "devices", tiled=True)[: flat.size])
    return jax.lax.optimization_barrier(whole)  # else XLA sums their squares, for the norm, along the flat array


def broadcast(tree: Any) -> Any:
    """The arrays of process 0, bit for bit, in every process. All give the same shapes and dtypes."""
    if distributed.count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(jax.tree.map(np.asarray, tree))
    # As bytes: JAX adds the zeros of the others, and -0.0 + 0.0 is 0.0. As one array: each would be a program.
    sent = multihost_utils.broadcast_one_to_all(np.frombuffer(b"".join(leaf.tobytes() for leaf in leaves), np.uint8))
    parts = np.split(np.asarray(sent), np.cumsum([leaf.nbytes for leaf in leaves])[:-1])
    made = [part.view(leaf.dtype).reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, made)


def require_same_run(config: TrainConfig, inputs: Mapping[str, str]) -> None:
    """UserError in every process unless all train the same run, with the same versions, on as many devices each.

    inputs: of the run, name -> hash. The gradients of different corpora would be added up all the same.
    """
    if distributed.count() == 1:
        return
    versions = {f"version of {package}": version for package, version in checkpoint.versions().items()}
    number = {"number of devices": str(jax.local_device_count())}
    first, *others = distributed.gathered([versions | number | dict(inputs), settings.to_json(config)])
    for process, other in enumerate(others, start=1):
        differing = [(name, first[0].get(name), other[0].get(name)) for name in first[0] | other[0]]
        before, now = (settings.from_json(TrainConfig, one[1]) for one in (first, other))
        differing += settings.differences(before, now)
        for name, of_first, own in differing:
            if own != of_first:
                raise UserError(
                    f"process {process} has another {name} than process 0: {own!s:.12}, not {of_first!s:.12}; give all "
                    "the same command, and the same files to read"
                )
