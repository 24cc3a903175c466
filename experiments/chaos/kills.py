"""A moment in the life of processes, and what the disk says of them at that moment.

Moments are of two kinds: so many seconds after the start, and so many changes of the names and sizes in the directory
that the process writes, with a short delay. The second kind hits saves and renames, which are short. A directory is
watched by reading it again and again, which works on every system.
"""

import os
import random
import re
import time
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from experiments.chaos.processes import PATIENCE, Running

KILL, TERM, FULL = "SIGKILL", "SIGTERM", "full disk"
POLL = 0.002  # seconds between two looks at a directory
AT_CHANGE = 0.75  # share of the moments that are told by changes
DELAY = 0.01  # seconds after a change, at most


class Moment(NamedTuple):
    """When a process is killed."""

    changes: int  # so many names or sizes in its directory have changed since its start
    seconds: float  # after that


class Seen(NamedTuple):
    """What the disk showed at a moment."""

    changes: int  # since the last start
    before: frozenset[str]  # names at the last start
    after: frozenset[str]
    ended: bool  # all processes, before the moment came


def draw(rng: random.Random, changes: int, seconds: float) -> Moment:
    """A moment of a run that makes so many changes in so many seconds when it is left alone.

    One that is resumed makes fewer: the change is drawn from the first sixth, so that others follow.
    """
    if rng.random() < AT_CHANGE:
        return Moment(rng.randint(1, max(1, changes // 6)), rng.choice([0.0, rng.uniform(0, DELAY)]))
    return Moment(0, rng.uniform(0, seconds))


def wait_until(moment: Moment, running: Collection[Running], directory: Path, depth: int) -> Seen:
    """Wait for a moment of these processes, counted from now, or until all have ended."""
    since, before, looked = time.monotonic(), watched(directory, depth), 0
    latest, changes, reached = before, 0, since if moment.changes == 0 else None
    while True:
        now, ended = time.monotonic(), all(one.status() is not None for one in running)
        if ended or (reached is not None and now - reached >= moment.seconds):
            return Seen(changes, frozenset(before), frozenset(latest), ended)
        if looked * POLL > PATIENCE:  # not by the clock, which goes on while this process is stopped
            raise TimeoutError(f"neither the moment nor an end within {PATIENCE:.0f} s")
        time.sleep(POLL)
        looked += 1
        found = watched(directory, depth)
        changes += sum(latest.get(name) != found.get(name) for name in latest.keys() | found.keys())
        latest = found
        if reached is None and changes >= moment.changes:
            reached = time.monotonic()


def watched(directory: Path, depth: int) -> dict[str, int]:
    """Names under a directory, so many levels deep -> size of a file, 0 of a directory."""
    found: dict[str, int] = {}
    _watch(str(directory), "", depth, found)
    return found


def _watch(directory: str, prefix: str, depth: int, found: dict[str, int]) -> None:
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                name = f"{prefix}{entry.name}"
                inner = entry.is_dir(follow_symlinks=False)
                found[name] = 0 if inner else entry.stat(follow_symlinks=False).st_size
                if inner and depth > 1 and not TEMPORARY.fullmatch(entry.name):
                    _watch(entry.path, f"{name}/", depth - 1, found)
    except OSError:  # it went while it was read
        pass


# What the disk said


TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{16}\.(?P<kind>new|old)")
CALLED = (  # names in the directories of runs and stages -> as a table has them
    (r"step-\d+", "step-N/"),
    (r"(best|last)", r"\1/"),
    (r"shard-\d+\.jsonl\.gz", "a shard"),
    (r"shard-\d+\.jsonl\.json", "the hash of a shard"),
    (r"shard-\d+\.lock", "the lock of a shard"),
    (r"(out|corpus)", "the corpus"),
    (r"(.*)-[0-9a-f]{12}(\.partial|\.json)?", "a stage"),
)
STARTING, BETWEEN = "starting", "between a shard and its hash"


def phase(seen: Seen, doing: str) -> str:
    """What a process did, as the names tell that it has made since its start. doing: if it was not writing."""
    made = [(name, TEMPORARY.fullmatch(Path(name).name)) for name in sorted(seen.after - seen.before)]
    unfinished = [(found["kind"], found["name"]) for _, found in made if found]
    for kind, name in sorted(unfinished, reverse=True):  # what stepped aside comes first
        return f"{'replacing' if kind == 'old' else 'writing'} {called(name)}"
    shards = {name for name, _ in made if name.endswith(".jsonl.gz")}
    if any(f"{name.removesuffix('.gz')}.json" not in seen.after for name in shards):
        return BETWEEN
    return doing if seen.changes else STARTING


def called(name: str) -> str:
    """A name as a table has it."""
    for form, told in CALLED:
        if found := re.fullmatch(form, name):
            return found.expand(told)
    return name
