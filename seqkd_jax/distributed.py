"""Several processes that run one command: which one this is, how they meet, and how they end together.

`start` joins them by `jax.distributed`; with one process it does nothing, and nothing here imports jax.
"""

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from seqkd_jax.types import UserError

MINUTES = 60.0  # that process 0 waits for the others at a barrier


class Joined(NamedTuple):
    """This process among several."""

    client: Any  # of JAX's coordination service
    index: int
    count: int
    meetings: Any  # numbers them, alike in every process


_joined: Joined | None = None


def start(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Join the processes of a command, before the backend of JAX starts; does nothing for one process.

    coordinator: HOST:PORT of process 0. processes: how many there are. process: the number of this one, from 0.
    """
    global _joined
    given = (coordinator, processes, process)
    if given == (None, None, None) or processes == 1:
        return
    if None in given:
        raise UserError("--coordinator, --processes and --process belong together: give all three, or none")
    import jax
    from jax._src import distributed

    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(coordinator, processes, process, cluster_detection_method="deactivate")
    assert processes is not None and process is not None
    _joined = Joined(distributed.global_state.client, process, processes, itertools.count())


def index() -> int:
    """The number of this process, from 0."""
    return _joined.index if _joined else 0


def count() -> int:
    """How many processes run this command."""
    return _joined.count if _joined else 1


def first() -> bool:
    """Is this process 0, which writes and logs?"""
    return index() == 0


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """What this process does by itself, while the others wait for it: inside, it is the only one."""
    global _joined
    joined, _joined = _joined, None
    try:
        yield
    finally:
        _joined = joined


def by_first(work: Callable[[], Any]) -> Any:
    """The JSON value that `work` returns, of process 0, which does it alone, in every process."""
    value = None
    if first():
        with alone():
            value = work()
    return agreed(value)


def barrier(name: str, minutes: float = MINUTES) -> None:
    """Wait until all processes are here.

    name: what for, as messages say it. minutes: that process 0 waits for the others; a process that waits for process
    0 does so while that is alive.
    """
    gathered(name, minutes)


def agreed(value: Any, minutes: float = MINUTES) -> Any:
    """The JSON value of process 0, in every process."""
    return gathered(value, minutes)[0]


def gathered(value: Any, minutes: float = MINUTES) -> list:
    """The JSON values of all processes, in their order."""
    if _joined is None:
        return [json.loads(json.dumps(value))]
    key, timeout = f"seqkd/{next(_joined.meetings)}", int(minutes * 60_000)
    _joined.client.key_value_set(f"{key}/{_joined.index}", json.dumps(value))
    return [json.loads(_joined.client.blocking_key_value_get(f"{key}/{i}", timeout)) for i in range(_joined.count)]


def stopping(step: int) -> bool:
    """Has any process got SIGTERM? The same answer for the same step in every process; each asks at every step."""
    del step
    return False
