"""The devices of this process."""

import contextlib
import os
from functools import cache
from typing import Any

from seqkd_jax.types import UserError

THREADS = "PJRT_NPROC"  # how many threads a CPU client makes


def local(count: int) -> tuple[Any, ...]:
    """The first `count` devices of this process, 0: all. UserError if there are fewer."""
    import jax  # imported late: only who computes pays for it

    available = jax.local_devices()
    if count > len(available):
        raise UserError(f"devices={count}, but this process has {len(available)}; use at most that, or 0 for all")
    return tuple(available[: count or None])


def of_a_thread_each(devices: tuple[Any, ...]) -> tuple[Any, ...]:
    """For programs of one device each: instead of several CPU devices as many with a thread of their own.

    The CPU devices of JAX share their threads. Every product is divided among all of them, which costs a small one more
    than it gains, and programs on several devices wait for each other. Clients of one device and one thread do not.
    """
    if len(devices) == 1 or devices[0].platform != "cpu":
        return devices
    return tuple(_of_a_thread(number, device) for number, device in enumerate(devices))


@cache
def _of_a_thread(number: int, instead_of: Any) -> Any:
    """The device of a CPU client with one thread; a JAX without such clients: that device as it is. number: its own."""
    try:
        from jaxlib.xla_client import make_cpu_client
    except ImportError:
        return instead_of
    before = os.environ.get(THREADS)
    os.environ[THREADS] = "1"  # read when a client is made
    try:
        return make_cpu_client(num_devices=1).devices()[0]
    finally:
        os.environ.pop(THREADS)
        os.environ.update({THREADS: before} if before else {})


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
