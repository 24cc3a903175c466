"""What stands where a corpus or its n-best lists are to be written: nothing, the same, or the result of another job.

Another job's result took hours. It is refused, and what differs is named, unless `overwrite` says that it may go; then
it goes when its successor is complete.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqkd_jax.checkpoint import run_config
from seqkd_jax.config import FilterConfig, SearchConfig
from seqkd_jax.data.distilled import CARD
from seqkd_jax.distillation.nbest import NBest, checked, foreign
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, integrity, leases, progress, settings
from seqkd_jax.utils.untrusted import require_form

LISTS = "lists.json"  # of a directory of n-best lists: what they are of
HOLDS_LISTS = ("shard-*", LISTS)
REMEDY = "name another directory with --out, or replace it with --overwrite"
# A corpus without these is made again with them: nothing of it is lost.
ADDED = ("references", "metric.tokenize", "filters", "marian")
GROWN = {"source lines", "references"}  # what differs where a corpus has other lines and all else is the same
UNKNOWN = "another teacher, other rules or other source lines"


def is_complete(directory: Path, wanted: Mapping[str, Any], described: Mapping[str, Any] | None = None) -> bool:
    """Whether just this corpus is there. UserError if that of another job is, or a damaged one.

    wanted: its card, as far as that is known beforehand (distilled_corpus.card_of). described: its config.json, which
    tells references apart that a card before 0.3.0 does not.
    """
    found = files.existing(directory)
    if not (found / CARD).exists():
        return False
    verified = files.verify(found, REMEDY)
    card = read_card(found)
    before, now = _inputs(card), _inputs(wanted)
    before = {"marian": None, **({} if "inputs" in card else _older(found, card, wanted, described or {})), **before}
    different = {name: before.get(name, value) for name, value in now.items() if before.get(name, value) != value}
    replaced = [_told(name, old, now[name]) for name, old in different.items() if old is not None or name not in ADDED]
    if replaced:
        only_new = ", which decodes only lines that are new" if different.keys() <= GROWN else ""
        raise UserError(f"{directory}: holds a corpus with {', '.join(replaced)}; {REMEDY}{only_new}")
    return verified and not different


def read_card(directory: Path) -> dict:
    """The card of a distilled corpus. UserError: it is missing or damaged."""
    return _formed(files.read_json(directory / CARD), directory / CARD, {"selection": str})


def _formed(described: Any, path: Path, more: Mapping[str, Any]) -> dict:
    """The object, in which `_inputs` finds what it reads. UserError names the file."""
    absent, form = type(None), {"teacher": dict, "inputs?": dict, **more}
    require_form(described, form | dict.fromkeys(("decoding?", "filters?"), (dict, absent)), path, REMEDY)
    require_form(described.get("decoding") or {}, {"search?": (dict, absent)}, f"{path}, decoding", REMEDY)
    return described


def _inputs(described: Mapping[str, Any]) -> dict[str, Any]:
    """What a corpus or n-best lists were made with, by name; what older versions did not write down is left out."""
    teacher, filters = described["teacher"], described.get("filters")
    found = {
        "teacher": teacher.get("fingerprint") or teacher.get("sha256"),
        "replica": teacher.get("replica"),
        "compute": teacher.get("compute"),
        **(settings.to_json(SearchConfig()) if described.get("decoding") else {}),
        **((described.get("decoding") or {}).get("search") or {}),
        **{name: value for name, value in (described.get("decoding") or {}).items() if name != "search"},
        **described.get("inputs", {}),
        "filters": filters and _filters(filters),
    }
    known = ("selection", "similarity_tokenizer", "languages", "marian")
    return found | {name: described[name] for name in known if name in described}


def _older(directory: Path, card: dict, wanted: Mapping[str, Any], described: Mapping[str, Any]) -> dict[str, Any]:
    """What a card before 0.3.0 does not say: its lines, by the hashes of the files; its references, by config.json."""
    listed = require_form(card.get("files") or {}, {...: str}, f"{directory / CARD}, files", REMEDY)
    written = {name.removeprefix("train."): digest for name, digest in listed.items() if name.startswith("train.")}
    lines, languages = wanted["inputs"]["source lines"], wanted["languages"]
    found: dict[str, Any] = {
        "source lines": lines if lines in written.values() else written.get(languages[0], "others")
    }
    found["languages"] = languages if set(written) == set(languages) else sorted(written)
    before, now = (_lines_read(one) for one in (run_config.find(directory / settings.CONFIG_FILE), described))
    same = None in (before, now) or before == now or found["source lines"] != lines
    return found if same else {**found, "references": before}


def _lines_read(config: Any) -> Any:
    """The fingerprint of source lines and references in a config.json; None if it has none."""
    for name in ("inputs", "source lines", "fingerprint"):
        config = config.get(name) if isinstance(config, Mapping) else None
    return config


def _filters(described: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in described.items() if name not in ("dropped", "kept")}
    return settings.to_json(FilterConfig()) | own


def _told(name: str, before: Any, now: Any) -> str:
    if name in ("teacher", "source lines", "references"):
        one, other = ("none" if value is None else str(value)[:12] for value in (before, now))
        return f"{'another' if name == 'teacher' else 'other'} {name} ({one}, not {other})"
    if name == "compute":
        before, now = ("the teacher's own" if value is None else value for value in (before, now))
    if name == "filters":
        return "filters" if now is None else "other filters"
    one, other = ("-".join(map(str, value)) if isinstance(value, list) else str(value) for value in (before, now))
    return f"{name} {one[:60]}, not {other[:60]}"


def claim(lists: NBest, overwrite: bool) -> NBest:
    """The lists in the directory that they are to be made in, which says from now on what it holds.

    That is their own directory; if it holds lists of another job, one beside it until they are complete (see
    `put_in_place`). UserError for lists of another job that may not go.
    """
    beside = _beside(lists)
    if not lists.directory.exists() and _has_shards(beside.directory) and not _difference(beside):
        put_in_place(beside, lists.directory)  # a killed one moved the old ones away
    different = _difference(lists)
    if different and not overwrite:
        raise UserError(f"{lists.directory}: holds n-best lists of {different}; {REMEDY}")
    if different:
        files.require_replaceable(lists.directory, HOLDS_LISTS)
        progress.log(f"{lists.directory}: holds n-best lists of {different}; they go when the new ones are complete")
        lists = beside
        if _difference(lists):
            files.require_replaceable(lists.directory, HOLDS_LISTS)
            files.remove(lists.directory)
    told = lists.directory / LISTS
    if not told.exists() or not _has_shards(lists.directory) or "lines" not in files.read_json(told):  # before 0.4.0
        files.write_json(told, _description(lists))
    return lists


def _beside(lists: NBest) -> NBest:
    """The same lists where they are made while those of another job are in their own directory."""
    return lists._replace(directory=lists.directory.with_name(f"{lists.directory.name}.next"))


def settle(lists: NBest) -> None:
    """Do for a corpus that is there what a killed process left: its lists go to their place, locks of the dead go."""
    beside = _beside(lists)
    same = _has_shards(beside.directory) and not _difference(beside)
    if same and all(checked(beside, number)[0] is not None for number in range(len(lists.shards))):
        put_in_place(beside, lists.directory)
    leases.clear(lists.directory)
    for path in lists.directory.glob("shard-*.lock"):
        leases.alive(path)


def inputs_told(directory: Path) -> dict[str, Any] | None:
    """What the n-best lists in a directory are made with, as its lists.json says; None if there is none."""
    path = directory / LISTS
    return _inputs(_formed(files.read_json(path), path, {})) if path.exists() else None


def put_in_place(lists: NBest, directory: Path) -> None:
    """Move complete lists to their own directory, if they were made beside it; those of another job there go."""
    if lists.directory != directory:
        files.remove(directory)
        os.rename(lists.directory, directory)


def _description(lists: NBest) -> dict:
    """The content of lists.json, its own hash included."""
    lines = files.sha256_json([list(shard) for shard in lists.shards])
    inputs = {"source lines": lines, "shard_lines": lists.shard_lines}
    described = {"format": 1, **lists.card, "lines": len(lists.sources), "inputs": inputs}
    return integrity.signed(described)


def _has_shards(directory: Path) -> bool:
    return any(directory.glob("shard-*.jsonl.gz"))


def _difference(lists: NBest) -> str:
    """What the lists in the directory are of, if not of the same; "" if they are, or there are none."""
    if not _has_shards(lists.directory):
        return ""
    if not (lists.directory / LISTS).exists():  # of a version before 0.3.0
        return UNKNOWN if foreign(lists) else ""
    try:
        before = _formed(files.read_json(lists.directory / LISTS), lists.directory / LISTS, {})
    except UserError:
        before = None
    if before is None or not integrity.unchanged(lists.directory / LISTS, before):
        return f"{UNKNOWN} ({LISTS} is damaged)"
    old, new = _inputs(before), _inputs(_description(lists))
    return ", ".join(_told(name, old[name], value) for name, value in new.items() if old.get(name, value) != value)
