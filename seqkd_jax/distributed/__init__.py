"""Several processes that run one command: which one this is, how they meet, and how they end together.

    with joined(coordinator, processes, process):
        ...

Arrays pass between them through `jax.distributed`; what is said here are small JSON values, over one connection from
each process to process 0 (`hub`, `member`). With one process nothing is done, and nothing here imports jax.

A process that is gone ends all others within a minute, with one line that names it and status 75: the same command goes
on. So do SIGTERM to one of them and an error in one of them, with the status of that.
"""

import atexit
import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from seqkd_jax.distributed import clusters
from seqkd_jax.types import UserError
from seqkd_jax.utils import exits, progress

if TYPE_CHECKING:  # it imports asyncio, which one process does not need
    from seqkd_jax.distributed.member import Member

MINUTES = 60.0  # that process 0 waits for the others at a barrier
START = 300.0  # seconds that all must start in
LONG = 10**6  # seconds, for JAX's own timeouts: a process that is gone is noticed here
NOTICED = 3.0  # seconds in which that happens after it shows elsewhere
LAST = 3.0  # seconds for a last word
PARTED = 10.0  # seconds in which all part from JAX's service when the command is done
AGAIN, GOES_ON = 75, "the same command goes on"  # exit status EX_TEMPFAIL, and what it means

_member: "Member | None" = None  # this process, if it is one of several
_alone = False


def start(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Join the processes of a command, before the backend of JAX starts; does nothing for one process.

    coordinator: HOST:PORT of process 0. processes: how many there are. process: the number of this one, from 0. None of
    them: those that other code has joined by jax.distributed.initialize, if any. UserError: arguments that do not go
    together, a port that is taken. Ended: the others did not come.
    """
    if _member is not None:
        return
    if here := _of_running_jax():
        _join_known(*here)
    elif place := clusters.given(coordinator, processes, process):
        _join(place)


def _several() -> "Member | None":
    return None if _alone else _member


def index() -> int:
    """The number of this process, from 0."""
    here = _several()
    return here.place.index if here else 0


def count() -> int:
    """How many processes run this command."""
    here = _several()
    return here.count if here else 1


def first() -> bool:
    """Is this process 0, which writes and logs?"""
    return index() == 0


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """What this process does by itself, while the others wait for it: inside, it is the only one."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def by_first(work: Callable[[], Any]) -> Any:
    """The JSON value that `work` returns, of process 0, which does it alone, in every process."""
    value = None
    if count() > 1:
        _start_devices()
    if first():
        with alone():
            value = work()
    return agreed(value)


def _start_devices() -> None:
    """JAX's devices: each process waits there for all others, so none may come alone."""
    import jax

    jax.local_devices()


def barrier(name: str, minutes: float = MINUTES) -> None:
    """Wait until all processes are here; else all end with a line that names who is missing, and status 75.

    name: what for, as that line says it. minutes: that process 0 waits for the others; the others wait for process 0 as
    long as it lives, whatever it does meanwhile.
    """
    gathered(None, minutes, name)


def agreed(value: Any, minutes: float = MINUTES, name: str = "what process 0 says") -> Any:
    """The JSON value of process 0, in every process. minutes, name: see `barrier`."""
    return gathered(value if first() else None, minutes, name)[0]


def gathered(value: Any, minutes: float = MINUTES, name: str = "what all say") -> list:
    """The JSON values of all processes, in their order, in every process. minutes, name: see `barrier`."""
    here = _several()
    return here.gathered(value, name, minutes) if here else [json.loads(json.dumps(value))]


def stopping() -> bool:
    """Has any process got SIGTERM (`ask_to_stop`)? All processes ask equally often, and get the same answers."""
    here = _several()
    return here is not None and here.stopping()


def ask_to_stop() -> None:
    """SIGTERM came to this process: `stopping` will say so in all, at the same time of asking. For signal handlers."""
    if _member:
        _member.ask_to_stop()


@contextlib.contextmanager
def joined(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    command: Mapping[str, Any] | None = None,
) -> Iterator[None]:
    """A command that several processes run: they start, must have been given the same, and end together.

    Without options they are found by what started them: SLURM, Open MPI, TPU pods; processes 1: this one is for itself.
    command: its settings, JSON values by the names of the options.
    """
    place = clusters.given(coordinator, processes, process)
    if coordinator is None and processes is None and process is None:
        place = clusters.found()
    if place is None:
        yield
        return
    try:
        _join(place)
        require_same(command or {})
        yield
    except SystemExit as ending:
        _bye(ending.code if isinstance(ending.code, int) else int(ending.code is not None))
        raise
    except BaseException as error:
        _fail(error)
        if exits.outcome(error)[0] == exits.BUG:  # a traceback follows, which has no number
            print(progress.of_process(), end="", file=sys.stderr)
        raise
    _bye(0)


def leave(status: int) -> None:
    """End the process at once after a failure: what JAX does at the end waits for the others, which are gone."""
    if _member is not None and status:
        _leave_at_once(status)


def _leave_at_once(status: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, AttributeError):
            stream.flush()
    os._exit(status)


def require_same(command: Mapping[str, Any]) -> None:
    """UserError in every process unless all have the same settings."""
    commands = gathered(dict(command), name="the command")
    for number, other in enumerate(commands):
        for name in [*commands[0], *other]:
            values = [repr(one.get(name, "not there")) for one in (commands[0], other)]
            if values[0] != values[1]:
                option = f"--{name.replace('_', '-')}"
                raise UserError(
                    f"process 0 has {option} {values[0]}, process {number} {option} {values[1]}: give every process "
                    "the same command, but for --process"
                )


def _join(found: clusters.Found) -> None:
    member = _make_member(found.index, found.count)
    try:
        _find_others(member, found)
    except BaseException:
        member.close()
        raise
    _start_jax(member, found.devices)


def _find_others(member: "Member", found: clusters.Found) -> None:
    host, port = clusters.split(found.coordinator)
    if found.index == 0:
        loopback = host in ("localhost", "127.0.0.1", "::1")
        try:
            member.open_hub(host if loopback else None, port, found.coordinator, START)
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(f"--coordinator {found.coordinator}: process 0 cannot listen there ({reason})") from None
        host = host if loopback else "localhost"
    _meet(member, host, port, found.coordinator)


def _make_member(number: int, processes: int) -> "Member":
    from seqkd_jax.distributed.hub import Place
    from seqkd_jax.distributed.member import Member

    place = Place(number, socket.gethostname(), os.getpid())
    member = Member(place, processes, lambda status, line: _end(member, status, line))
    return member


def _meet(member: "Member", host: str, port: int, address: str) -> None:
    global _member
    from seqkd_jax.distributed.member import Late

    try:
        member.connect(host, port, address, START)
    except Late as error:
        raise exits.Ended(str(error), AGAIN) from None
    _member = member
    progress.be_process(member.place.index)


def _start_jax(member: "Member", devices: list[int] | None) -> None:
    """jax.distributed, reached through the connections of the processes and with none of its timeouts."""
    import jax

    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is handled here
    _print_results_only()
    for what in ("local", "global"):
        jax.config.update(f"jax_cpu_get_{what}_topology_timeout_minutes", LONG // 60)
    os.environ["no_grpc_proxy"] = "127.0.0.1"  # noqa: SIM112 (gRPC reads this name; a proxy would be asked)
    jax.config.update("jax_check_proxy_envs", False)
    if member.place.index == 0:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        member.serve_jax(port)
    else:
        port = member.relay()
    jax.distributed.initialize(
        f"127.0.0.1:{port}",
        member.count,
        member.place.index,
        devices,
        "deactivate",
        initialization_timeout=int(START),
        heartbeat_timeout_seconds=LONG,
        coordinator_bind_address=f"127.0.0.1:{port}",
    )


def _print_results_only() -> None:
    """Standard output is for results: gloo prints a line there whenever it connects processes."""
    if sys.stdout is not None and sys.stdout.fileno() == 1:
        sys.stdout.flush()
        ours, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
        sys.stdout = os.fdopen(ours, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors, buffering=1)


def _of_running_jax() -> tuple[Any, int, int, str] | None:
    """What other code in this process has joined: client, number, count and host of process 0; None: nothing."""
    if "jax" not in sys.modules:
        return None
    from jax._src import distributed, xla_bridge

    state = distributed.global_state
    if state.client is not None and state.num_processes > 1:
        assert state.coordinator_address
        return state.client, state.process_id, state.num_processes, state.coordinator_address
    if xla_bridge.backends_are_initialized():
        import jax

        if jax.process_count() > 1:
            raise UserError(
                f"JAX has {jax.process_count()} processes here, which cannot agree on anything without "
                "jax.distributed.initialize(): call that first"
            )
    return None


def _join_known(client: Any, number: int, processes: int, address: str) -> None:
    """Connect processes that JAX has joined: process 0 tells its port through JAX's store of keys and values."""
    host, _ = clusters.split(address)
    member = _make_member(number, processes)
    if number == 0:
        port = member.open_hub("0.0.0.0", 0, address, START)
        client.key_value_set("seqkd_jax/port", str(port))
    port = int(client.blocking_key_value_get("seqkd_jax/port", int(START * 1000)))
    _meet(member, "127.0.0.1" if number == 0 else host, port, address)
    atexit.register(_at_exit)


def _at_exit() -> None:
    """End of a Python program that joined its processes itself; an error has been printed by now."""
    assert _member
    if (error := getattr(sys, "last_value", None)) is not None:
        _fail(error)
        leave(exits.BUG)
    _member.bye(0)


def _bye(status: int) -> None:
    """The command is done here: wait for the others, then part from JAX's service together. Ended: others failed."""
    assert _member
    most = _member.bye(status)
    if most > status:
        raise exits.Ended(f"another process ended with status {most}", most)
    parting = threading.Thread(target=_part, name="parting", daemon=True)
    parting.start()
    parting.join(PARTED)
    if parting.is_alive():  # JAX waits for one that was killed when all was done
        _leave_at_once(status)


def _part() -> None:
    assert _member
    with contextlib.suppress(RuntimeError, TimeoutError):
        from jax._src import distributed

        if distributed.global_state.client:
            distributed.global_state.client.shutdown()
            distributed.global_state.client = None
        _member.gathered(None, "the end", MINUTES, LAST)  # the others reach the service through process 0
        distributed.shutdown()


def _fail(error: BaseException) -> None:
    """The command failed here: tell the others why. Ended, instead of what SIGTERM raises."""
    status, line = exits.outcome(error)
    if _member is None:  # it waited for the others
        if isinstance(error, exits.Terminated):
            raise exits.Ended(f"{line}; {GOES_ON}", AGAIN) from None
        return
    if status == exits.BUG:
        time.sleep(NOTICED)  # as of a collective of JAX, when a process is gone: then the line that says so comes
    if not _member.ending.acquire(blocking=False):
        time.sleep(LONG)  # this process is being ended
    if isinstance(error, exits.Terminated):
        status, line = AGAIN, f"{line}; {GOES_ON}"
    _member.fail(status, f"{_member.place}: {line}")
    if isinstance(error, exits.Terminated):
        raise exits.Ended(line, status) from None


def _end(member: "Member", status: int, line: str) -> None:
    """End this process because of another; runs in a thread, whatever the main one does."""
    threading.Timer(2 * LAST, os._exit, [status]).start()  # should writing block
    progress.stop_bars()
    exits.report(exits.started, line, status)
    member.wait_for_others()
    _leave_at_once(status)
