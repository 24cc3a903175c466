"""config.json: what a run was started with, written beside its results; `seqkd COMMAND --config FILE` reads it.

  command   train, distill, evaluate or translate
  settings  every option of the command, defaults too; paths as they were given, so relative to where it ran
  inputs    what the run read: of corpora names, pairs and hashes, of vocabularies and checkpoints fingerprints
  versions  of the packages that decide results
  sha256    of all that, as it is written in the file

The settings start the run again; the inputs tell whether what the paths lead to is still the same.
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from seqkd_jax.checkpoint.record import versions
from seqkd_jax.data import corpus
from seqkd_jax.data.vocabulary import Vocabularies
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, integrity, settings, urls

FORMAT = 1
FORM = {"command": str, "settings": dict, "inputs": {...: dict}, "versions?": {...: str}, "sha256?": str}
T = TypeVar("T")

# Input -> the options that name it, "." at the end: all that begin so. One that is given allows another input.
NAMED_BY = {
    "training corpus": ("--corpus.", "--train-on", "--hold-out"),
    "validation corpus": ("--corpus.", "--hold-out"),
    "corpus": ("--corpus.", "--hold-out", "--split"),
    "source lines": ("--corpus.", "--hold-out", "--source-only"),
    "vocabulary": ("--vocabulary", "--vocab.", "--teacher", "--start", "--corpus.", "--hold-out"),
    "checkpoint": ("--checkpoint",),
    "n-best lists": ("--n-best",),
    "start": ("--start",),
    "teacher": ("--teacher",),
}


def describe(command: str, given: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict:
    """The content of config.json. inputs: name -> Corpus, Vocabularies, or the fingerprint of a checkpoint."""
    described = {name: _describe(value) for name, value in inputs.items()}
    return {"format": FORMAT, "command": command, "settings": dict(given), "inputs": described, "versions": versions()}


def _describe(value: corpus.Corpus | Vocabularies | str) -> dict:
    if isinstance(value, corpus.Corpus):
        return {"name": value.name, "pairs": len(value.sources), "fingerprint": corpus.fingerprint(value)}
    if isinstance(value, Vocabularies):
        return {"sizes": [value.source.size, value.target.size], "fingerprint": value.fingerprint}
    return {"fingerprint": value}


def write(path: Path, described: Mapping[str, Any]) -> None:
    """Write a config.json; UserError if that would replace a file of another kind, such as a model's configuration."""
    require_replaceable(path)
    files.write_json(path, integrity.signed(described))


def require_replaceable(path: Path) -> None:
    """UserError if a file is there that is no config.json as it was written; asked early, nothing is made in vain."""
    if os.path.lexists(path):
        try:
            content(path)
        except UserError:
            raise UserError(
                f"{path}: is not the settings of a run, or not as they were written, and writing would replace it; "
                "remove it, or name another directory"
            ) from None


def read(path: Path | str, command: str, kind: type[T]) -> T:
    """The settings in a config.json of a command, as its dataclass. UserError names file, key and remedy."""
    found = content(path)
    if found["command"] != command:
        raise UserError(f"{path}: is of `seqkd {found['command']}`, not of {command}; name one that {command} wrote")
    return settings.from_json(kind, found["settings"], lambda key: f"{path}: settings.{key}")


def require_same_inputs(path: Path | str, described: Mapping[str, Any], options: Collection[str]) -> None:
    """UserError if a run that config.json started does not read what that says, and no option named what it reads.

    described: of the run; options: those given beside the file.
    """
    before = content(path)["inputs"]
    for name, found in described["inputs"].items():
        named_by = NAMED_BY[name]
        named = any(option == by or option.startswith(by) and by[-1] == "." for option in options for by in named_by)
        wanted = before.get(name, found)
        if "fingerprint" not in wanted:
            raise UserError(f"{path}: inputs.{name} has no fingerprint; take inputs.{name} out, or name another file")
        old, new = str(wanted["fingerprint"]), found["fingerprint"]
        if old != new and not named:
            raise UserError(
                f"{path}: inputs.{name} was {old[:12]}, now it is {new[:12]}; bring the old one back, or say "
                f"that another is meant, with {' or '.join(by + '…' * by.endswith('.') for by in named_by)}"
            )


def find(path: Path) -> dict:
    """The content of a config.json that an earlier job may have left; empty where there is none as it was written."""
    try:
        return content(path)
    except UserError:
        return {}


def is_same_job(path: Path, described: Mapping[str, Any]) -> bool:
    """Whether a config.json is of this command, with these settings and inputs; those new since then do not count."""
    before = find(path)
    return bool(before) and all(_agree(before[key], described[key]) for key in ("command", "settings", "inputs"))


def _agree(before: Any, now: Any) -> bool:
    if isinstance(before, dict) and isinstance(now, dict):
        return all(_agree(value, now[name]) for name, value in before.items() if name in now)
    if isinstance(before, list) and isinstance(now, list):
        return len(before) == len(now) and all(map(_agree, before, now))
    if isinstance(before, str) and isinstance(now, str):
        return urls.shown(before) == urls.shown(now)  # before 0.5.0 a URL was written without one of its slashes
    return before == now


def content(path: Path | str) -> dict:
    """The content of a config.json that is as it was written, or was edited and has no hash. UserError for others."""
    remedy = "name a config.json that a run wrote"
    if Path(path).is_dir():
        raise UserError(f"{path}: is a directory; {remedy}, such as {Path(path) / 'config.json'}")
    found = integrity.read_object(Path(path), FORMAT, FORM, remedy)
    unknown = sorted(found.keys() - {"format", *(key.removesuffix("?") for key in FORM)})
    if unknown:
        raise UserError(f"{path}: {unknown[0]!r:.60}: there is no such key; a newer version wrote it, or a slip")
    if integrity.SIGNATURE in found and not integrity.unchanged(Path(path), found):
        raise UserError(
            f"{path}: does not have its sha256: it was edited, or is damaged; remove the key sha256 if the edit is "
            "meant, else bring back a copy"
        )
    return found
