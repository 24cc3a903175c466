"""Updates with the same bits on any number of devices (`--parts`).

A batch is divided into P parts, a power of two. The sums of a part are made by a program of one device, which is the
same wherever it runs. They are added up as a tree of pairs,

    ((a + b) + (c + d)) + ((e + f) + (g + h)),

of which a device makes the branch of its own parts, and all together the rest. Then each device applies the total, by a
program of one device again. An update that is one program for all devices does the same work, but XLA compiles it
otherwise for one device than for two, and it rounds otherwise.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seqkd_jax.config import TrainConfig
from seqkd_jax.training import processes
from seqkd_jax.types import UserError

AXIS = PartitionSpec("devices")


def microbatches(config: TrainConfig, devices: int) -> int:
    """In how many microbatches a device gets its rows. UserError: the parts of a batch do not divide among devices."""
    if not config.parts:
        return config.accumulate
    if config.parts % devices:
        raise UserError(f"parts={config.parts} do not divide among {devices} devices; use 1, 2, 4, ... of them")
    return config.parts // devices


class Programs(NamedTuple):
    """The compiled programs of an update. All but `everywhere` are of one device, and the same on each."""

    of_part: Callable  # (state, batch, rows, settings, teacher params) -> the sums of a part, as one array [N]
    add: Callable  # two arrays [N] -> their sum
    everywhere: Callable  # [G,N], a row on each device -> the same shape, each row the sum of all
    finish: Callable  # (state, settings, sums [1,N]) -> (state, metrics)


def programs(sums: Callable, apply: Callable, nothing: Callable, devices: tuple) -> Programs:
    """Arguments: see `update`."""

    def sums_of_part(*arguments):
        return ravel_pytree(sums(*arguments))[0]

    def apply_total(state, settings, total):
        tree_of = ravel_pytree(nothing(state, settings))[1]
        return apply(state, settings, tree_of(total[0]))

    return Programs(
        jax.jit(sums_of_part),
        jax.jit(jnp.add, donate_argnums=0),
        jax.jit(_over_devices(devices)),
        jax.jit(apply_total, donate_argnums=0),
    )


def update(sums: Callable, apply: Callable, nothing: Callable, devices: tuple) -> Callable:
    """The update, with the arguments and results of `train_step.make_update`.

    sums: (state, batch, rows, settings, teacher params) -> sums of one part; nothing: (state, settings) -> the sums of
    no part; apply: (state, settings, sums) -> (state, metrics).
    """
    made, mine = programs(sums, apply, nothing, devices), processes.own(devices)
    rows_of_all = NamedSharding(Mesh(np.array(devices), ("devices",)), AXIS)
    copies = NamedSharding(Mesh(np.array(mine), ("devices",)), PartitionSpec())

    def run(state, batch, rows, settings, teacher_params):
        states, teachers = _on_each(state, mine), _on_each(teacher_params, mine)

        def part(place: int, number: int) -> jax.Array:
            own = jax.tree.map(lambda array: array[place, number], (batch, rows))
            return made.of_part(states[place], *own, settings, teachers[place])

        branches = [
            in_pairs((part(place, number) for number in range(rows.shape[1])), made.add)[None]
            for place in range(len(mine))
        ]
        if len(devices) > 1:
            shape = len(devices), branches[0].shape[1]
            together = jax.make_array_from_single_device_arrays(shape, rows_of_all, branches)
            branches = _on_each(made.everywhere(together), mine)
        results = [made.finish(own, settings, total) for own, total in zip(states, branches, strict=True)]
        return jax.tree.map(
            lambda *leaves: jax.make_array_from_single_device_arrays(leaves[0].shape, copies, list(leaves)), *results
        )

    return run


def in_pairs(values: Iterable[Any], add: Callable[[Any, Any], Any] = jnp.add) -> Any:
    """The sum of a power of two of values, neighbours first, each value added as soon as it is there."""
    branches: list[tuple[int, Any]] = []  # (values in it, sum)
    for value in values:
        size = 1
        while branches and branches[-1][0] == size:
            value, size = add(branches.pop()[1], value), 2 * size
        branches.append((size, value))
    ((_, total),) = branches
    return total


def _over_devices(devices: tuple) -> Callable:
    """[G,N] -> [G,N], each row the sum of all in pairs; each device adds up one section of the rows."""

    def add(own):
        count, size = len(devices), own.shape[1]
        sections = jnp.pad(own[0], (0, -size % count)).reshape(count, -1)
        section = in_pairs(list(jax.lax.all_to_all(sections, "devices", 0, 0)))
        return jax.lax.all_gather(section, "devices", tiled=True)[None, :size]

    return jax.shard_map(add, mesh=Mesh(np.array(devices), ("devices",)), in_specs=AXIS, out_specs=AXIS)


def _on_each(tree: Any, devices: Sequence) -> list:
    """What each device has of arrays that are on these devices, as arrays of that device alone."""

    def of(device, leaf):
        return next(shard.data for shard in leaf.addressable_shards if shard.device == device)

    return [jax.tree.map(lambda leaf, device=device: of(device, leaf), tree) for device in devices]
