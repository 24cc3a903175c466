"""The devices of this process."""

import contextlib
import os
from typing import Any

from seqkd_jax.types import UserError


def local(count: int) -> tuple[Any, ...]:
    """The first `count` devices of this process, 0: all. UserError if there are fewer."""
    import jax  # imported late: only who computes pays for it

    available = jax.local_devices()
    if count > len(available):
        raise UserError(f"devices={count}, but this process has {len(available)}; use at most that, or 0 for all")
    return tuple(available[: count or None])


def on_each(tree: Any, devices: tuple) -> tuple[Any, ...]:
    """Arrays, on each of the devices."""
    import jax

    return tuple(jax.device_put(tree, device) for device in devices)


def cores() -> int:
    """The CPU cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_cpu_devices(count: int) -> None:
    """Divide the CPU into `count` devices, 0: one a core, and never more; before the first computation, later it has
    no effect.

    JAX makes one device of all cores. A search gains less from their threads than from several searches at a time: its
    products are small. An environment that says how many devices there are is obeyed.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "JAX_NUM_CPU_DEVICES" in os.environ or "xla_force_host_platform_device_count" in flags:
        return
    import jax

    with contextlib.suppress(RuntimeError):  # the backend has started
        jax.config.update("jax_num_cpu_devices", min(count or cores(), cores()))
