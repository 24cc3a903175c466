"""What a result holds, file by file, without what may differ between two runs that were left alone: times, names that
are made of them, and how many devices there were.

A checkpoint stands for its parameters, by their own hash, and its record; how orbax lays its arrays out in files is
random. Names of stages end in the hash of their inputs, among which are times: that hash is left out.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seqkd_jax.utils import files

RECORD = "checkpoint.json"
ARRAYS = ("params", "state")  # directories of a checkpoint whose hash is in its record
# Made of what others hold, times among it.
LEFT_OUT = {files.SUMS, "manifest.json", "table.md", "report.html"}
SUFFIXES_LEFT_OUT = (".png",)
# Keys of JSON objects that are left out; and all with "second" in them.
VARY = {
    "commit", "commits", "command", "devices", "finished", "flops", "metrics", "peak_fraction", "processes", "ran_on",
    "resumed", "sha256", "started", "tokens",
}  # fmt: skip


def content(directory: Path) -> dict[str, str]:
    """Name -> SHA-256 of what it holds, of every file under a directory; a checkpoint is one name."""
    return {_plain(path.relative_to(directory)): _hash(path) for path in _files(directory) if _counts(path)}


def names(directory: Path) -> list[str]:
    """Every file and empty directory that is there, hidden ones too; a checkpoint is one name."""
    return sorted(_plain(path.relative_to(directory)) for path in _files(directory))


def _files(directory: Path) -> Iterator[Path]:
    inside = sorted(directory.iterdir())
    if not inside:
        yield directory
    checkpoint = directory / RECORD in inside
    for path in inside:
        if path.is_symlink() or not path.is_dir():
            yield path
        elif not (checkpoint and path.name in ARRAYS):
            yield from _files(path)


def _counts(path: Path) -> bool:
    return not (path.is_dir() or path.name in LEFT_OUT or path.suffix in SUFFIXES_LEFT_OUT or path.name[0] == ".")


def _plain(path: Path) -> str:
    return re.sub(r"-[0-9a-f]{12}(?=/|$)", "", path.as_posix())


def _hash(path: Path) -> str:
    if path.suffix != ".json":
        return files.sha256_file(path)
    return files.sha256_json(_constant(files.read_json(path)))


def _constant(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _constant(inner) for key, inner in value.items() if not _varies(key)}
    if isinstance(value, list):
        return [_constant(inner) for inner in value]
    return value


def _varies(key: str) -> bool:
    return key in VARY or "second" in key
