"""How far a distilling job is, by what lies in its directories. Nothing is changed, and no lock is taken."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seqkd_jax.data.distilled import CARD
from seqkd_jax.distillation.earlier_results import LISTS, read_card
from seqkd_jax.distillation.nbest import number_of, sealed, shard_files
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, integrity, leases

REMEDY = "give the command of the corpus again, with --overwrite"


def status(out: Path) -> dict:
    """JSON values on the corpus at `out` and its n-best lists, of whatever job they are.

      corpus          complete, missing, or damaged
      lists           the directory of the lists: those that are being made, where they replace others
      shards          how many there are to make, and `lines` in them; None: not known (the lists are of before 0.4.0)
      complete        shards that are whole, and `lines_complete` in them
      held            [{shard, host, pid, since, heartbeat_seconds, alive}]: who makes which; shard None: the corpus
      damaged         [{path, reason}]

    The age of heartbeats is by the clock of this machine: that of the file system is asked by writing.
    """
    beside, own = (out.with_name(f"{out.name}.n-best{suffix}") for suffix in (".next", ""))
    lists = beside if (beside / LISTS).exists() else own
    damaged: list[dict[str, str]] = []

    def damage(path: Path, reason: str) -> None:
        damaged.append({"path": str(path), "reason": reason})

    locks = [path for path in sorted(lists.glob("shard-*.lock")) if path.stem.removeprefix("shard-").isdigit()]
    held = [_held(number_of(path), path) for path in locks] + [_held(None, out.with_name(f".{out.name}.lock"))]
    being_written = {one["shard"] for one in held if one and one["alive"]}
    total, of_each = _planned(lists, damage)
    whole: dict[int, int] = {}
    for path in shard_files(lists):
        number, (_, told) = number_of(path), sealed(path)
        if isinstance(told, dict):
            if total is None or of_each is None or number * of_each < total:
                whole[number] = told["lines"]
        elif number not in being_written:
            damage(path, told or "its hash is missing")
    return {
        "out": str(out),
        "corpus": _corpus(out, damage),
        "lists": str(lists),
        "shards": -(-total // of_each) if total is not None and of_each else None,
        "complete": len(whole),
        "lines": total,
        "lines_complete": sum(whole.values()),
        "held": [one for one in held if one and one["shard"] not in whole],
        "damaged": damaged,
    }


def _planned(lists: Path, damage: Callable[[Path, str], None]) -> tuple[int | None, int | None]:
    """How many lines the lists are of, and how many are in a shard, as far as lists.json says it."""
    path = lists / LISTS
    if not path.exists():
        return None, None
    try:
        told = files.read_json(path)
        if not isinstance(told, dict) or not integrity.unchanged(path, told):
            raise UserError("it does not have its hash")
        return told.get("lines"), told["inputs"]["shard_lines"]
    except UserError as error:
        damage(path, str(error))
        return None, None


def _held(number: int | None, path: Path) -> dict[str, Any] | None:
    """Who holds the lock of a shard, for a person."""
    holder, now = leases.holder(path), time.time()
    if holder is None:
        return None
    owner = {"host": holder.owner.host, "pid": holder.owner.pid, "since": holder.owner.since}
    age = round(max(now - holder.beat, 0.0), 1)
    return {"shard": number, **owner, "heartbeat_seconds": age, "alive": not holder.is_dead(now)}


def _corpus(out: Path, damage: Callable[[Path, str], None]) -> str:
    found = files.existing(out)
    if not (found / CARD).exists():
        return "missing"
    try:
        files.verify(found, REMEDY)
        read_card(found)
        return "complete"
    except UserError as error:
        damage(out, str(error))
        return "damaged"
