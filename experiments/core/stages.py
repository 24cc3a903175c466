"""Stages: each is made once, whole, and says how. The flow of a study is files, one way.

A stage's identity is the hash of its name, its settings (settings.identity: those that are not at their default), the
contents of its inputs and the format version: arms that need the same thing share it, and changed settings make another
directory instead of a stale one. It is filled in `<name>-<identity>.partial` (kept when killed, for stages that can go
on), gets a manifest with the hash of every file, and then its name. Done means that the manifest is there and its
hashes verify, not that a file exists.

Of several processes (`distributed`) each asks for the same stages in the same order. Process 0 makes a stage alone
while the others wait, or, with `together`, all make it: the result of a stage is that of one process.
"""

import contextlib
import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from seqkd_jax import checkpoint, distributed
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, integrity, locks, progress
from seqkd_jax.utils.settings import identity
from seqkd_jax.utils.untrusted import require_form

FORMAT = 1  # raise it when stages made by older code must not be used any more
MANIFEST = "manifest.json"
MANIFEST_FORM = {"name": str, "files": {...: str}, "commits?": [str], "seconds?": float, "resumed?": bool}
PART = {"commit": str, "started": float, "seconds?": float}
PARTS = ".parts"  # beside the stages, of each unfinished one: the commit and the start of every run that worked on it


class NotMade(Exception):
    """A stage was only looked up, and is not there."""


def stage(
    name: str,
    settings: Any,
    inputs: Mapping[str, Path],
    make: Callable[[Path], object] | None,
    root: Path | str,
    *,
    resumable: bool = False,
    version: int = 1,
    together: bool = False,
) -> Path:
    """The finished directory of a stage, made now if it is not there yet.

    settings: everything that decides the result beside the inputs (dataclass, NamedTuple or JSON values). inputs:
    results of earlier stages, or files. make: fills the directory it is given; with `resumable` it finds there what a
    killed run left, otherwise an empty one. None: only look, and raise NotMade. version: of `make`'s own format. A
    second command that wants the same stage waits for the first. together: of several processes all run `make` at once,
    in one directory, and each file is written by one of them. UserError: a finished stage is damaged, an input is
    missing.
    """
    root = Path(root).absolute()
    hashes = {input_name: content_hash(path) for input_name, path in sorted(inputs.items())}
    key = {"name": name, "settings": identity(settings), "inputs": hashes, "format": FORMAT, "version": version}
    directory = root / f"{name}-{files.sha256_json(key)[:12]}"
    asked = distributed.gathered([directory.name, distributed.first() and _done(directory)])
    if other := [name for name, _ in asked if name != directory.name]:
        raise UserError(
            f"another process asks for stage {other[0]}, not {directory.name}: give all processes the same command, "
            "code and data"
        )
    done = asked[0][1]
    if not done:
        if make is None:
            raise NotMade(str(directory))
        if together:
            _make_together(directory, key, make, resumable)
        else:
            distributed.by_first(lambda: _make(directory, key, make, resumable))
        if not (directory / MANIFEST).is_file():
            raise UserError(f"{directory}: process 0 has made it, and it is not here; all need one shared directory")
    if make is not None and directory not in _told:
        if distributed.first() and _parts(directory).exists():  # of a run that was killed just after the renaming
            _parts(directory).unlink(missing_ok=True)
        progress.log(f"[{name}] done before ({directory.name})")
        _told.add(directory)
    return directory


def content_hash(path: Path | str) -> str:
    """What stands for an input in an identity: the hash of a file or tree; inside a stage, from its manifest."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such input; check the path")
    for directory in (path, *path.parents):
        if re.search("-[0-9a-f]{12}$", directory.name) and (directory / MANIFEST).is_file():
            inside = path.relative_to(directory).as_posix()
            prefix = "" if inside == "." else f"{inside}/"
            listed = read_manifest(directory)["files"].items()
            named = [(name, digest) for name, digest in listed if not files.is_sums(name)]  # as in sha256_tree
            return files.sha256_json({name: digest for name, digest in named if f"{name}/".startswith(prefix)})
    return files.sha256_tree(path)


def read_manifest(directory: Path | str) -> dict:
    """The manifest of a finished stage. UserError if it is damaged."""
    path, remedy = Path(directory) / MANIFEST, f"delete {directory} to make it again"
    manifest = require_form(files.read_json(path), MANIFEST_FORM, path, remedy)
    if integrity.SIGNATURE in manifest and not integrity.unchanged(path, manifest):
        raise UserError(f"{path}: damaged, it does not have its sha256; {remedy}")
    return manifest


def verify(directory: Path) -> None:
    """UserError, naming the file and the remedy, unless a finished stage holds just what its manifest says."""
    listed = read_manifest(directory)["files"]
    found = set(files.tree(directory)) - {MANIFEST}
    for name in sorted(found ^ set(listed)):
        state = "is not in its manifest" if name in found else "is missing"
        raise UserError(f"{directory}: damaged, {name} {state}; delete the directory to make it again")
    for name, digest in listed.items():
        if files.sha256_file(directory / name) != digest:
            raise UserError(f"{directory}: damaged, {name} has changed; delete the directory to make it again")


def provenance() -> dict:
    """What runs: command, commit, versions."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)  # of `python -m`; a script has none
    program = f"python -m {spec.name.removesuffix('.__main__')}" if spec else Path(sys.argv[0]).name
    command = " ".join([program, *(shlex.quote(_short(word)) for word in sys.argv[1:])])
    return {"command": command, "commit": commit(), "versions": checkpoint.versions()}


def _short(word: str) -> str:
    """A path, also as --option=PATH, by its last part: what it was, not where somebody keeps it."""
    option, equals, value = word.rpartition("=") if word.startswith("-") else ("", "", word)
    return f"{option}{equals}{Path(value).name}" if os.sep in value else word


@functools.cache
def commit() -> str:
    """The commit of this code, "+ changes" if files differ from it; "unknown" outside of a repository.

    As it was when first asked: commands that run for long ask at their start.
    """
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        found = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{found} + changes" if changed.strip() else found


_told: set[Path] = set()  # stages whose line was logged
_verified: set[tuple[str, int]] = set()  # (directory, time of its manifest): hashed once in a process


def _done(directory: Path) -> bool:
    manifest = directory / MANIFEST
    if not manifest.is_file():
        return False
    known = str(directory), manifest.stat().st_mtime_ns
    if known not in _verified:
        verify(directory)
        _verified.add(known)
    return True


def _make_together(directory: Path, key: dict, make: Callable[[Path], object], resumable: bool) -> None:
    """Make a stage in all processes: process 0 does all but `make` alone, and says when that is to run."""
    end = f"the end of {directory.name}"

    def make_in_all(work: Path) -> None:
        distributed.agreed("make")
        make(work)
        distributed.barrier(end)

    if distributed.first():
        _make(directory, key, make_in_all, resumable)
        distributed.agreed("made")
    else:
        while distributed.agreed(None) == "make":
            make(_unfinished(directory))
            distributed.barrier(end)


def _make(directory: Path, key: dict, make: Callable[[Path], object], resumable: bool) -> None:
    """Make a stage in this process, unless another command makes it first."""
    with _alone(directory, key["name"]), files.naming(directory):
        if not _done(directory):
            _fill(directory, key, make, resumable)


def _unfinished(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.partial")


def _parts(directory: Path) -> Path:
    """The record of the runs that work on a stage."""
    return directory.parent / PARTS / f"{directory.name}.json"


def _fill(directory: Path, key: dict, make: Callable[[Path], object], resumable: bool) -> None:
    if directory.exists():
        raise UserError(f"{directory}: not a finished stage, it has no {MANIFEST}; delete it to make it again")
    name, work = key["name"], _unfinished(directory)
    resumed = resumable and work.exists()
    if work.exists() and not resumable:
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    (work / MANIFEST).unlink(missing_ok=True)  # of a run killed just before the renaming
    progress.log(f"[{name}] {'goes on' if resumed else 'starts'} ({directory.name})")
    parts = _parts(directory)
    before = _earlier_parts(work, parts) if resumed else []
    files.write_json(parts, [*before, {"commit": commit(), "started": time.time()}])
    start = time.monotonic()
    make(work)
    seconds = time.monotonic() - start + sum(part.get("seconds", 0.0) for part in before)
    _drop_unfinished(work)
    hashes = {file: files.sha256_file(work / file) for file in files.tree(work)}
    commits = list(dict.fromkeys([*(part["commit"] for part in before), commit()]))
    how = {**provenance(), "commits": commits, "seconds": round(seconds, 3), "resumed": resumed}
    files.write_json(work / MANIFEST, integrity.signed({**key, "files": hashes, **how}))
    files.fsync_tree(work)
    os.rename(work, directory)
    files.fsync(directory.parent)
    parts.unlink(missing_ok=True)
    _verified.add((str(directory), (directory / MANIFEST).stat().st_mtime_ns))
    _told.add(directory)
    progress.log(f"[{name}] made in {progress.duration(seconds)}")


def _earlier_parts(work: Path, parts: Path) -> list[dict]:
    """Of each run that worked on this stage and was killed: its commit, and its seconds until it last wrote a file."""
    if not parts.exists():
        return []
    before = require_form(files.read_json(parts), [PART], parts, "delete it")
    if not before:
        return []
    written = max((path.stat().st_mtime for path in work.rglob("*") if path.is_file()), default=0.0)
    before[-1]["seconds"] = round(max(0.0, written - before[-1]["started"]), 3)
    return before


def _drop_unfinished(work: Path) -> None:
    """Remove what killed writers left beside whole files: it is in no manifest."""
    listed = set(files.tree(work))
    for path in [path for path in work.rglob("*") if path.is_file()]:
        if path.relative_to(work).as_posix() not in listed:
            path.unlink()


def _alone(directory: Path, name: str) -> contextlib.AbstractContextManager:
    """One command at a time makes a stage; others wait for it."""
    path = directory.parent / ".locks" / directory.name
    path.parent.mkdir(parents=True, exist_ok=True)
    told = f"[{name}] waits: another process is making it ({directory.name})"
    return locks.alone(path, lambda: progress.log(told))
