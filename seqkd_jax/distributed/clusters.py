"""Which process this is: by its options, or by what started it (SLURM's srun, Open MPI's mpirun, a TPU pod).

Finding out costs nothing where nothing hints at several processes; what JAX knows of clusters is asked only then.
"""

import importlib.util
import ipaddress
import os
import re
from typing import NamedTuple

from seqkd_jax.types import UserError

PORT = "JAX_COORDINATOR_PORT"  # of the environment, as for JAX
# Variable with the number of processes -> that with those on this host, and JAX's name of what sets it.
LAUNCHERS = {
    "SLURM_STEP_NUM_TASKS": ("SLURM_STEP_TASKS_PER_NODE", "slurm"),
    "OMPI_COMM_WORLD_SIZE": ("OMPI_COMM_WORLD_LOCAL_SIZE", "ompi"),
}
PODS = ("gketpu", "gcetpu")


class Found(NamedTuple):
    """A process among several."""

    coordinator: str  # HOST:PORT
    count: int
    index: int
    devices: list[int] | None = None  # of its host, those that are its own; None: all


def given(coordinator: str | None, processes: int | None, process: int | None) -> Found | None:
    """This process by its options; None: it is alone. UserError for options that do not go together."""
    options = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    missing = [option for option, value in options.items() if value is None]
    if len(missing) == 3 or (processes == 1 and process in (None, 0)):
        return None
    if missing or coordinator is None or processes is None or process is None:
        named = " and ".join(option for option in options if option not in missing)
        raise UserError(
            f"{named} without {' and '.join(missing)}: give all three, or none to find them (SLURM, TPU pods)"
        )
    if not 0 <= process < processes:
        raise UserError(f"--process {process}: must be from 0 to {processes - 1}, as --processes is {processes}")
    split(coordinator)
    return Found(coordinator, processes, process)


def split(coordinator: str) -> tuple[str, int]:
    """HOST:PORT, [IPv6]:PORT too, as host and port. UserError for what is neither, or no host can be called."""
    host, _, port = coordinator.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator {coordinator}: must be HOST:PORT, with a port from 1 to 65535")
    if not _can_be_a_host(host):
        raise UserError(f"--coordinator {coordinator}: {host} is neither an address nor a name that a host can have")
    return host, int(port)


def _can_be_a_host(host: str) -> bool:
    """Whether an address is complete, and a name of the form of one (RFC 1123; in practice _ is allowed)."""
    labels = host.removesuffix(".").split(".")
    if ":" in host or labels[-1].isdecimal():
        try:
            ipaddress.ip_address(host.partition("%")[0])
            return True
        except ValueError:
            return False
    try:
        name = host.encode("idna").decode("ascii")
    except UnicodeError:
        return False
    if labels[-1].lower() == "invalid" or len(name) > 253:  # RFC 6761: reserved, never a host
        return False
    return all(re.fullmatch(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)", label) for label in name.removesuffix(".").split("."))


def found() -> Found | None:
    """This process by what started it; None: it is alone. UserError: it is one of several, but not to be found."""
    for size, (of_host, name) in LAUNCHERS.items():
        if os.environ.get(size, "1") not in ("", "1"):
            return _ask_jax([name], os.environ.get(of_host, ""))
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if importlib.util.find_spec("libtpu") and (not platforms or "tpu" in platforms):
        return _ask_jax(PODS, "")
    return None


def _ask_jax(names: tuple[str, ...] | list[str], on_this_host: str) -> Found | None:
    from jax._src import clusters

    try:
        for kind in clusters.ClusterEnv._cluster_types:
            if kind.name in names and kind.is_env_present() and (count := kind.get_process_count()) > 1:
                address = kind.get_coordinator_address(60, os.environ.get(PORT))
                return Found(address, count, kind.get_process_id(), _own_devices(kind, on_this_host))
    except Exception as error:  # a service of the cloud does not answer, or a variable is missing
        raise UserError(
            f"this is one of several processes ({' or '.join(names)}), but which one was not found "
            f"({type(error).__name__}: {error}); name it with --coordinator, --processes and --process, or give "
            "--processes 1 if this command is for itself"
        ) from error
    return None


def _own_devices(kind, on_this_host: str) -> list[int] | None:
    """Of several processes on a host of GPUs each has one, unless the launcher shows it only its own."""
    several = on_this_host.split(",")[0].split("(")[0] not in ("", "1")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all").split(",")
    return [kind.get_local_process_id()] if several and (len(visible) > 1 or visible == ["all"]) else None
