"""Checks of vocabularies, evaluations, exported models, the stages of studies, and any directory with SHA256SUMS."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from seqkd_jax.checkpoint import run_config, tensor_files
from seqkd_jax.data import vocabulary
from seqkd_jax.data.text import read_lines
from seqkd_jax.utils import files, integrity, settings
from seqkd_jax.utils.untrusted import require_form
from seqkd_jax.verification.outcome import Damaged, Outcome, Verified, examine, require, require_sums

RESULTS = "results.json"  # of an evaluation
MANIFEST = "manifest.json"  # of a stage: its settings and inputs, and the hash of every file
STAGE = r".+-[0-9a-f]{12}"  # the name of a stage: the end is a hash of what it is made of
IDENTITY = ("name", "settings", "inputs", "format", "version")  # of the manifest, what that hash is of


def check_vocabulary(directory: Path, teacher: str | None) -> Iterator[Verified]:
    """A vocabulary: its hashes and its fingerprint."""

    def check(path: Path) -> Outcome:
        require_sums(path)
        found = vocabulary.load(path)
        sizes = f"{found.source.size:,}" + ("" if found.joint else f" and {found.target.size:,}")
        return Outcome("whole", f"{sizes} entries")

    yield examine(directory, "vocabulary", check)


def check_evaluation(directory: Path, teacher: str | None) -> Iterator[Verified]:
    """Results of `seqkd evaluate`: all hashes, and a translation for each sentence."""

    def check(path: Path) -> Outcome:
        sealed = require_sums(path)
        results = require_form(files.read_json(path / RESULTS), {"sentences?": int}, path / RESULTS, "evaluate again")
        config = path / settings.CONFIG_FILE
        described = run_config.content(config) if config.exists() else {}
        require(sealed or integrity.SIGNATURE not in described, path / files.SUMS, "is missing")
        count = results.get("sentences")
        for output in sorted(path.glob("beam*.txt")):
            lines = sum(1 for _ in read_lines(output))
            require(lines == count, output, f"has {lines:,} lines, {RESULTS} says {count} sentences")
        return Outcome(
            "whole", ("" if count is None else f"{count:,} sentences") + ("" if sealed else "; no SHA256SUMS")
        )

    yield examine(directory, "evaluation", check)


def check_exported(directory: Path, teacher: str | None) -> Iterator[Verified]:
    """A model in another form: all hashes, and weights that can be read and are finite."""

    def check(path: Path) -> Outcome:
        sealed = require_sums(path)
        for file in sorted(path.glob("*.safetensors")):
            for name, tensor in tensor_files.read(file).items():
                require(bool(np.isfinite(tensor).all()), file, f"{name} has values that are not finite")
        return Outcome("whole", "weights read" + ("" if sealed else "; no SHA256SUMS, so no hashes"))

    yield examine(directory, "exported model", check)


def check_sums(directory: Path, teacher: str | None) -> Iterator[Verified]:
    """Any directory with SHA256SUMS."""

    def check(path: Path) -> Outcome:
        require_sums(path)
        return Outcome("whole", "all hashes")

    yield examine(directory, "directory", check)


def check_stage(directory: Path, teacher: str | None) -> Iterator[Verified]:
    """A stage of a study: its name, and the hash of every file, as its manifest has them."""
    yield examine(directory, "stage", lambda path: _stage(path, directory.name))


def _stage(path: Path, name: str) -> Outcome:
    manifest = path / MANIFEST
    require(manifest.exists(), manifest, "is missing; delete the directory to make it again")
    described = require_form(files.read_json(manifest), {"files": {...: str}}, manifest, "make the stage again")
    signed = integrity.SIGNATURE not in described or integrity.unchanged(manifest, described)
    require(signed, manifest, "does not have its sha256")
    identity = files.sha256_json({key: described[key] for key in IDENTITY if key in described})[:12]
    require(
        name.endswith(f"-{identity}"), manifest, f"is not of a stage of this name, but of one that ends in {identity}"
    )
    found, listed = set(files.tree(path)) - {MANIFEST}, described["files"]
    damages = [
        f"{path / one}: is {'not in the manifest' if one in found else 'missing'}" for one in found ^ set(listed)
    ]
    same = {one: files.sha256_file(path / one) == listed[one] for one in found & set(listed)}
    damages += [f"{path / one}: does not have the hash in {MANIFEST}" for one in same if not same[one]]
    if damages:
        raise Damaged(sorted(damages))
    return Outcome("whole", "all files of its manifest")


def check_study(directory: Path, teacher: str | None) -> Iterator[Verified]:
    """A study: which stages are not finished, and every stage that is."""
    root = directory / "stages" if (directory / "stages").is_dir() else directory
    inner = sorted(path for path in root.iterdir() if path.is_dir() and not path.is_symlink())
    made = [path for path in inner if re.fullmatch(STAGE, path.name)]
    begun = [path.name.removesuffix(".partial") for path in inner if path.name.endswith(".partial")]

    def check(path: Path) -> Outcome:
        if (path / RESULTS).exists():
            files.read_json(path / RESULTS)
        if begun:
            return Outcome("unfinished", f"{len(made)} stages are finished, not {', '.join(begun)}")
        return Outcome("whole", f"{len(made)} stages")

    yield examine(directory, "study", check, lambda name: name != "stages" and not re.match(STAGE, name))
    for path in made:
        yield from check_stage(path, teacher)
