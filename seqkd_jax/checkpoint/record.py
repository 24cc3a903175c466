"""checkpoint.json: the model's kind and configuration, shapes, hashes, metadata, versions."""

import importlib.metadata
import platform
from pathlib import Path

from seqkd_jax import models
from seqkd_jax.config import ModelConfig
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, settings

FORMAT = 1
RECORD = "checkpoint.json"
KEYS = ("model", "vocabulary", "source_size", "target_size", "params", "params_sha256", "state", "metadata")


def read_record(directory: Path | str) -> dict:
    """The content of checkpoint.json, its format checked."""
    path = files.existing(directory)
    if not path.is_dir():
        raise UserError(
            f"{directory}: no such checkpoint; give a directory that `seqkd train` or `seqkd average` wrote"
        )
    if not (path / RECORD).is_file():
        inside = sorted(str(Path(directory) / inner.parent.name) for inner in path.glob(f"*/{RECORD}"))
        remedy = f"did you mean {' or '.join(inside)}?" if inside else "give a directory that `seqkd train` wrote"
        raise UserError(f"{directory}: not a checkpoint (it has no checkpoint.json); {remedy}")
    record = files.read_json(path / RECORD)
    version = record.get("format") if isinstance(record, dict) else None
    if version != FORMAT:
        raise UserError(f"{directory}: checkpoint format {version}, this version reads {FORMAT}; train again")
    lacking = [key for key in KEYS if key not in record]
    if lacking:
        raise UserError(f"{path / RECORD}: damaged, it lacks {', '.join(lacking)}; train again")
    return record


def config_to_json(config: ModelConfig) -> dict:
    """A model's kind and configuration, every field spelled out, as JSON."""
    return {"kind": models.kind_of(config), **settings.to_json(config)}


def config_from_json(value: dict, where: Path | str) -> ModelConfig:
    """The inverse of `config_to_json`. A missing field takes its default.

    UserError that names an unknown kind, an unknown field or a value that the field may not have.
    """
    value = dict(value)
    kind = value.pop("kind", None)
    if kind not in models.MODELS:
        raise UserError(f"{where}: unknown model kind {kind!r}; this version knows {', '.join(models.MODELS)}")
    return settings.from_json(models.MODELS[kind].config, value, lambda name: f"{where}: {kind}.{name}")


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide results."""
    packages = (
        "seqkd_jax",
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "orbax-checkpoint",
        "numpy",
        "sentencepiece",
        "sacrebleu",
    )
    installed = {"python": platform.python_version()}
    for package in packages:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
            continue
    return installed
