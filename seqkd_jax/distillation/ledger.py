"""The shards of n-best lists as work that any number of processes and machines share: each is made once.

A process takes a shard that nobody holds, by a lock file beside it (see `utils.leases`), makes it, and takes the next.
Where others hold all that is left it waits: until those are complete, or until an owner is dead and its shard is free.
So every process ends when all shards are complete. Whoever was paused for so long that its shard was taken over leaves
that to its successor.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from seqkd_jax import checkpoint
from seqkd_jax.config import Overlong
from seqkd_jax.decoding import Decoding
from seqkd_jax.distillation.earlier_results import inputs_told
from seqkd_jax.distillation.nbest import NBest, checked, decoded, plan, shard_file, write_shard
from seqkd_jax.distillation.reuse import NOTHING, Earlier, earlier
from seqkd_jax.types import Translator, UserError
from seqkd_jax.utils import files, leases, progress

Teacher = checkpoint.Checkpoint[Translator] | checkpoint.Ensemble
EVERYTHING = (1, 1)  # part 1 of 1


def n_best(
    directory: Path | str,
    teacher: Teacher,
    lines: Sequence[str],
    decoding: Decoding,
    *,
    shard_lines: int = 1000,
    part: tuple[int, int] = EVERYTHING,
    name: str = "n-best",
) -> NBest:
    """The teacher's n-best lists of source lines, in `directory`; called again, it makes only the missing shards.

    Several processes may do so at once and share the work; the bytes are those of one, since each shard is decoded by
    itself. part: see `make`.
    """
    found = plan(directory, teacher, lines, decoding, shard_lines=shard_lines)
    found.directory.mkdir(parents=True, exist_ok=True)
    return make(found, teacher, part=part, name=name)


def require_part(part: tuple[int, int], named: str = "part") -> None:
    """UserError unless it is (i, n) with i from 1 to n. named: what sets it, for the message."""
    number, count = part
    if not 1 <= number <= count:
        last = max(count, 1)
        raise UserError(f"{named} {number}/{count}: there is no such part; they are 1/{last} to {last}/{last}")


def make(
    found: NBest,
    teacher: Teacher,
    *,
    part: tuple[int, int] = EVERYTHING,
    name: str = "n-best",
    overlong: Overlong = "fail",
    other: Path | None = None,
) -> NBest:
    """Make the shards that are missing in a directory, which must be there; returns the lists, where they are now.

    part (i, n): only every n-th shard, from the i-th, from 1. overlong: see `translate_lines`. other: the directory of
    lists of another job: shards and lines that are the same there are taken (see `reuse` on the last bits of scores);
    and where these lists go when they are complete (see earlier_results.put_in_place), which another process may do
    while this one is at work. However the work ends before its time, what is kept is said.
    """
    require_part(part)
    mine = range(part[0] - 1, len(found.shards), part[1])
    todo = [number for number in mine if checked(found, number)[0] is None]
    beside = found._replace(directory=other) if other not in (None, found.directory) else None
    undecoded = [number for number in todo if beside is None or checked(beside, number)[0] is None]
    lines = earlier(found, undecoded, beside.directory) if beside else NOTHING
    _say_what_is_there(found, name, len(mine), len(undecoded), lines, beside)
    total, left = (sum(len(found.shards[number]) for number in numbers) for numbers in (mine, undecoded))
    count, own, inputs = len(todo), 0, inputs_told(found.directory)

    def work(lists: NBest, number: int, lease: leases.Lease, advance: Callable[[float], object]) -> None:
        nonlocal own
        if inputs_told(lists.directory) != inputs:
            raise UserError(f"{lists.directory}: another job took it over while this process was paused")
        if reason := checked(lists, number)[1]:
            progress.log(f"{shard_file(lists, number)}: {reason}; it is made again")
        if _made(lists, number, lease, beside, lambda: _rows(lists, teacher, number, lines, advance, overlong)):
            own += 1
        else:
            progress.log(f"{shard_file(lists, number)}: another process took it over while this one was paused")

    try:
        with progress.counter(total, name, "sentences", done=total - left + lines.count) as advance:
            found = _share(found, todo, other, lambda lists, number, lease: work(lists, number, lease, advance))
    except BaseException:  # whatever ends it: a signal, a full disk, an error
        kept = (
            f"{len(mine) - len(todo)} of {len(mine)} shards are complete and kept in {found.directory}: the same "
            "command continues there"
        )
        progress.log(f"{name}: stopped; {kept if len(todo) < len(mine) else 'no shard is complete'}")
        raise
    if own < count:
        progress.log(f"{name}: {count - own} of {len(mine)} shards were made by other processes")
    if part == EVERYTHING:
        for left_by_the_dead in found.directory.glob("shard-*.lock"):
            files.remove(left_by_the_dead)
    return found


def _say_what_is_there(found: NBest, name: str, mine: int, undecoded: int, lines: Earlier, beside: NBest | None):
    if undecoded < mine:
        progress.log(f"{name}: {mine - undecoded} of {mine} shards need no decoding")
    if lines.count and beside:
        progress.log(f"{name}: {lines.count:,} lines of the other shards are taken from {beside.directory}")


def _share(found: NBest, todo: list[int], other: Path | None, work: Callable[[NBest, int, leases.Lease], Any]) -> NBest:
    """Take the shards of `todo` that nobody holds, until all are complete, which are removed from it.

    Returns the lists, where they are now.
    """
    while True:
        took = False
        for number in list(todo):
            found = _located(found, other)
            if checked(found, number)[0] is None:
                took = _attempt(found, number, other, work) or took
            if checked(found, number)[0] is not None:
                todo.remove(number)
        if not todo:
            return _located(found, other)
        if not took:
            _wait(found, todo)


def _attempt(found: NBest, number: int, other: Path | None, work: Callable[[NBest, int, leases.Lease], Any]) -> bool:
    """Do the work on a shard, unless another process holds it, or made it before it could be taken."""
    try:
        with leases.attempt(_lock(found, number)) as lease:
            # The shard first: if the directory was moved between the two, the lock is not held.
            if lease is None or checked(found, number)[0] is not None or not lease.held():
                return False
            work(found, number, lease)
            return True
    except FileNotFoundError:
        if found.directory.is_dir() or other in (None, found.directory):
            raise
        return False


def _wait(found: NBest, todo: Sequence[int]) -> None:
    """Until one of these shards, which others hold, is not held any more."""
    owner = leases.holder(_lock(found, todo[0]))
    who = owner.owner if owner else "another process"
    with progress.phase(f"waiting for {shard_file(found, todo[0]).name}, which {who} makes"):
        for pause in leases.pauses():
            time.sleep(pause)
            try:
                holders = (leases.holder(_lock(found, number)) for number in todo)
                if any(one is None or one.is_dead() for one in holders):
                    return
            except FileNotFoundError:  # the directory was moved to its place just now
                return


def _located(found: NBest, other: Path | None) -> NBest:
    """The lists where they are now: those that were made beside others may have been moved to their own directory."""
    return found if other is None or found.directory.is_dir() else found._replace(directory=other)


def _lock(found: NBest, number: int) -> Path:
    return found.directory / f"shard-{number:05d}.lock"


def _made(
    found: NBest, number: int, lease: leases.Lease, beside: NBest | None, rows: Callable[[], Sequence[str]]
) -> bool:
    """Write a shard, copied if it is complete elsewhere; False if the lock was lost meanwhile."""
    whole = checked(beside, number)[0] if beside else None
    if beside and whole is not None:
        files.write_bytes(shard_file(found, number), whole)
        hashes = shard_file(beside, number).with_suffix(".json").read_bytes()
        files.write_bytes(shard_file(found, number).with_suffix(".json"), hashes)
        return True
    made = rows()
    if not lease.held():
        return False
    write_shard(found, number, made)
    return True


def _rows(
    found: NBest,
    teacher: Teacher,
    number: int,
    lines: Earlier,
    advance: Callable[[float], object],
    overlong: Overlong,
) -> list[str]:
    """The rows of a shard: those that are there, and the others decoded."""
    rows = lines.rows(number)
    missing = [place for place in range(len(found.shards[number])) if place not in rows]
    rows.update(decoded(found, teacher, number, missing, advance, overlong))
    return [row for _, row in sorted(rows.items())]
