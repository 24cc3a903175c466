"""Lives: from an empty directory through some kills to the result, which must be that of a run that was left alone.

All of it is on the disk, so that this command may be killed too. Of each experiment:

  reference.json  what a run comes to that was left alone
  life/           what the processes of the present life write
  life.json       the kills in it
  lives.json      the lives that are over
  failures/       the lives that went wrong: the directory, and what the process said

What is drawn depends on the seed, the experiment, the number of the life and that of the kill.
"""

import contextlib
import fcntl
import multiprocessing
import os
import random
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import seqkd_jax as kd
from experiments.chaos import disk, kills, processes
from experiments.chaos.content import content, names
from experiments.chaos.kills import FULL, KILL, TERM, Moment
from experiments.chaos.processes import Running
from experiments.chaos.runs import Experiment, environment
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, progress

LEAST, MOST = 5, 14  # kills in a life
ALL = 0.25  # share of the kills of several processes that hit all of them
COLD = 1 / 40  # share of the lives that have to compile
DISK = 8 * 2**20  # bytes
WITHIN = 60.0  # seconds in which the others end when one of several joined processes is killed
ALONE, LEFT = "left alone", "another process was killed"
ENDED = {  # what was done -> statuses of a process that ended as it should; 0 is always one
    ALONE: {0},
    LEFT: {75},
    KILL: {-9},
    TERM: {143, 75, -15},  # -15: it had not come to say what SIGTERM does
    FULL: {2},
}
SIGNALS = {KILL: signal.SIGKILL, TERM: signal.SIGTERM}
SAID = {LEFT: "", TERM: "SIGTERM", FULL: "No space left on device"}  # in the one line of the error


class Fault(Exception):
    """Something was lost, or a process ended as none should. What it said comes second."""


class Bench(NamedTuple):
    """Where an experiment is made."""

    experiment: Experiment
    work: Path  # of all experiments
    seed: int
    fresh: float = 1.0  # share of the processes that are started from scratch

    @property
    def directory(self) -> Path:
        """Of this experiment; in it the commands run."""
        return self.work / self.experiment.slug

    @property
    def life(self) -> Path:
        """What the processes write."""
        return self.directory / "life"

    def drawn(self, *what: object) -> random.Random:
        """Of the seed, the experiment and what is drawn."""
        return random.Random(" ".join(map(str, (self.seed, self.experiment.slug, *what))))


class Group(NamedTuple):
    """The processes of a life."""

    bench: Bench
    cold: bool  # its programs are its own, and none is there at its start
    lock: int  # a descriptor that each of them holds
    running: dict[int, Running]  # by number; those that have ended are left out


def run(bench: Bench, wanted: int) -> None:
    """Lives until so many kills were made. UserError: two runs that were left alone differ."""
    bench.directory.mkdir(parents=True, exist_ok=True)
    lock = os.open(bench.directory / "processes.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _wait_for_those_of_before(lock, bench)
        if not (bench.directory / "reference.json").exists():
            files.write_json(bench.directory / "reference.json", _reference(bench, lock))
        while (left := wanted - killed(bench)) > 0:
            _live(bench, left, lock)
            if _orphaned():
                return
            progress.log(f"{bench.experiment.name}: {killed(bench)} of {wanted} kills")
    finally:
        os.close(lock)


def _orphaned() -> bool:
    """Whether the command was killed: it goes on when it is given again."""
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()


def over(bench: Bench) -> list[dict]:
    """The lives that are over."""
    return _list(bench.directory / "lives.json")


def _list(path: Path) -> list[dict]:
    return files.read_json(path) if path.exists() else []


def killed(bench: Bench) -> int:
    """Kills in the lives that are over."""
    return sum(len(life["kills"]) for life in over(bench))


def reference(bench: Bench) -> dict:
    """What a run comes to that is left alone: content, names, seconds, changes."""
    return files.read_json(bench.directory / "reference.json")


def _wait_for_those_of_before(lock: int, bench: Bench) -> None:
    """What was left by a run of this command that was killed holds the lock until it ends."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        progress.log(f"{bench.experiment.name}: waits for processes that were left")
        fcntl.flock(lock, fcntl.LOCK_EX)


def _reference(bench: Bench, lock: int) -> dict:
    """Two runs that are left alone: the first compiles, the second is measured."""
    first, second = (_left_alone(bench, lock) for _ in range(2))
    differ = _difference(first, second)
    if differ:
        raise UserError(f"{bench.experiment.name}: two runs that were left alone differ in {differ}")
    return {**second, "seconds_cold": max(first["seconds"], second["seconds"])}


def _left_alone(bench: Bench, lock: int) -> dict:
    group = _begin(bench, lock, cold=False)
    try:
        since, never = time.monotonic(), Moment(sys.maxsize, 0.0)
        seen = kills.wait_until(never, group.running.values(), bench.life, bench.experiment.depth)
        seconds = round(time.monotonic() - since, 3)
        _end(group, ALONE, list(group.running))
        return {"content": content(bench.life), "names": names(bench.life), "seconds": seconds, "changes": seen.changes}
    except (Fault, TimeoutError) as fault:
        raise UserError(f"{bench.experiment.name}: failed, though it was left alone: {': '.join(fault.args)}") from None
    finally:
        _clear(group)


def _live(bench: Bench, left: int, lock: int) -> None:
    """One life, with at most so many kills; or the rest of one that was begun."""
    number, since = len(over(bench)), time.monotonic()
    events = _events(bench, number)
    cold, plan = bench.drawn(number, "cold").random() < COLD, bench.drawn(number, "kills").randint(LEAST, MOST)
    group = _begin(bench, lock, cold, anew=not events)
    try:
        while len(events) < min(left, plan) and group.running:
            event = _strike(group, bench.drawn(number, len(events)))
            if event:
                events.append({"life": number, **event})
                files.write_json(bench.directory / "life.json", events)
            if _orphaned():
                return
        _end(group, ALONE, list(group.running))
        _require_whole(bench)
        over_now = {"kills": events}
    except (Fault, TimeoutError) as fault:
        hang = processes.stacks(group.running) if isinstance(fault, TimeoutError) else ""
        _keep(bench, number, [*fault.args, hang])
        over_now = {"kills": events, "fault": fault.args[0]}
        progress.log(f"{bench.experiment.name}: {fault.args[0]}; kept in {bench.directory / 'failures'}")
    finally:
        _clear(group)
    seconds = round(time.monotonic() - since, 3)
    over_now |= {"seconds": seconds, "cold": cold}
    files.write_json(bench.directory / "lives.json", [*over(bench), over_now])
    files.remove(bench.directory / "life.json")


def _events(bench: Bench, number: int) -> list[dict]:
    """The kills of a life that was begun. A disk that was mounted is gone, and what was on it."""
    path = bench.directory / "life.json"
    events = _list(path)
    if events and (events[0]["life"] != number or FULL in bench.experiment.actions):
        files.remove(path)
        return []
    return events


def _begin(bench: Bench, lock: int, cold: bool, anew: bool = True) -> Group:
    """Start all processes. anew: in an empty directory, and with no programs if `cold`."""
    if anew:
        for path in (bench.life, bench.directory / "programs"):
            files.remove(path)
        bench.life.mkdir(parents=True)
        if FULL in bench.experiment.actions:
            disk.mount(bench.life, DISK)
    group = Group(bench, cold, lock, {})
    _start(group, range(bench.experiment.processes), bench.drawn("begin"))
    return group


def _start(group: Group, numbers: Iterable[int], rng: random.Random) -> None:
    """Start these processes, some from scratch; joined ones are told of each other."""
    bench, experiment = group.bench, group.bench.experiment
    variables = environment(bench.work, experiment)
    if group.cold:
        variables["SEQKD_COMPILED_PROGRAMS"] = str(bench.directory / "programs")
    port = _free_port() if experiment.joined else 0
    for number in numbers:
        command = [*experiment.command("life")]
        if experiment.joined:
            command += ["--coordinator", f"127.0.0.1:{port}"]
            command += ["--processes", str(experiment.processes), "--process", str(number)]
        fresh = rng.random() < bench.fresh
        group.running[number] = processes.start(command, bench.directory, variables, group.lock, fresh)


def _strike(group: Group, rng: random.Random) -> dict | None:
    """Wait for a moment, act, and start again what has ended; None if there was nothing left to kill."""
    bench, experiment, running = group.bench, group.bench.experiment, group.running
    alone = reference(bench)
    moment = kills.draw(rng, alone["changes"], alone["seconds_cold" if group.cold else "seconds"])
    action, all_of_them, one = rng.choice(experiment.actions), rng.random() < ALL, rng.random()
    seen = kills.wait_until(moment, running.values(), bench.life, experiment.depth)
    alive = sorted(number for number, process in running.items() if process.status() is None)
    ended = [number for number in running if number not in alive]
    _end(group, ALONE, ended)
    if not alive:
        return None
    victims = alive if all_of_them or experiment.processes == 1 else [alive[int(one * len(alive))]]
    doing = experiment.doing(bench.life)
    statuses = _act(group, action, victims)
    if action == KILL:
        seen = seen._replace(after=frozenset(kills.watched(bench.life, experiment.depth)))
    others = _end(group, LEFT, list(running), WITHIN) if experiment.joined else []
    if not any(statuses + others):
        return None
    again = range(experiment.processes) if experiment.joined else victims
    _start(group, again, rng)
    what = kills.phase(seen, doing)
    if group.cold and what == kills.STARTING:
        what = "starting, compiling"
    return {"action": action, "of": len(victims), "status": statuses, "phase": what, "started": len(again)}


def _act(group: Group, action: str, victims: list[int]) -> list[int]:
    """Do it to these processes, and wait until they have ended; their statuses."""
    if action == FULL:
        disk.fill(group.bench.life)
    else:
        for number in victims:
            processes.send(group.running[number], SIGNALS[action])
    try:
        return _end(group, action, victims)
    finally:
        if action == FULL:
            disk.empty(group.bench.life)


def _end(group: Group, action: str, numbers: list[int], patience: float = processes.PATIENCE) -> list[int]:
    """Wait until these processes have ended; their statuses. Fault: one that does not fit what was done."""
    statuses = []
    for number in numbers:
        status, said = processes.end(group.running[number], patience)
        del group.running[number]
        _require_fitting(action, status, said)
        statuses.append(status)
    return statuses


def _require_fitting(action: str, status: int, said: str) -> None:
    """Fault: a traceback, another status, or an error that says something else than what was done."""
    if status not in ENDED[action] | {0}:
        raise Fault(f"{action}: ended with status {status}", said)
    if "Traceback" in said or "Fatal" in said:
        raise Fault(f"{action}: a traceback", said)
    errors = [line for line in said.splitlines() if "error:" in line]
    expected = status != 0 and action in SAID
    if len(errors) > expected or any(SAID[action] not in line for line in errors if status != 75):
        raise Fault(f"{action}: status {status} with another error", said)
    if action == FULL and status and not errors:
        raise Fault(f"{action}: status {status} without an error", said)


def _require_whole(bench: Bench) -> None:
    """Fault: the result is not that of a run that was left alone, or does not verify."""
    differ = _difference(reference(bench), {"content": content(bench.life), "names": names(bench.life)})
    if differ:
        raise Fault(f"differs in {differ}", "")
    if bench.experiment.verified:
        status, said = processes.run(lambda: _verify(bench))
        if status:
            raise Fault("does not verify", said)


def _verify(bench: Bench) -> None:
    """As `seqkd verify --complete`."""
    damages = kd.verify(*(bench.life / name for name in bench.experiment.verified), complete=True).damages
    if damages:
        raise UserError("; ".join(damages))


def _free_port() -> int:
    """A port of this machine that nobody listens at, of those that systems give to no connection by themselves."""
    while True:
        with socket.socket() as opened, contextlib.suppress(OSError):
            opened.bind(("127.0.0.1", random.SystemRandom().randrange(20_000, 32_768)))
            return opened.getsockname()[1]


def _difference(one: dict, other: dict) -> str:
    """The names whose content differs, or that only one of them has; "" if there are none."""
    held, also = one["content"], other["content"]
    differ = {name for name in held | also if held.get(name) != also.get(name)}
    differ |= set(one["names"]) ^ set(other["names"])
    return ", ".join(sorted(differ))


def _keep(bench: Bench, number: int, told: Sequence[str]) -> None:
    """Keep a life that went wrong: its directory, and what is told of it."""
    place = bench.directory / "failures" / f"{number:04d}"
    files.remove(place)
    shutil.copytree(bench.life, place / "life", symlinks=True)
    files.write_text(place / "said.txt", "\n".join(told))


def _clear(group: Group) -> None:
    """End what is still running, and let a mounted disk go."""
    processes.stop(group.running.values())
    if FULL in group.bench.experiment.actions:
        disk.unmount(group.bench.life)
