"""What checkpoint.json says: the model's kind and configuration, shapes, hashes, versions."""

import importlib.metadata
import platform
from dataclasses import asdict, fields
from pathlib import Path

from seqkd_jax import models
from seqkd_jax.config import ModelConfig
from seqkd_jax.types import UserError
from seqkd_jax.utils import files

FORMAT = 1
RECORD = "checkpoint.json"
KEYS = ("model", "vocabulary", "source_size", "target_size", "params", "params_sha256", "state", "metadata")  # of it


def read_record(directory: Path | str) -> dict:
    """The content of checkpoint.json, its format checked."""
    path = files.existing(directory)
    if not path.is_dir():
        raise UserError(
            f"{directory}: no such checkpoint; give a directory that `seqkd train` or `seqkd average` wrote"
        )
    if not (path / RECORD).is_file():
        inside = sorted(str(Path(directory) / found.parent.name) for found in path.glob(f"*/{RECORD}"))
        remedy = f"did you mean {' or '.join(inside)}?" if inside else "give a directory that `seqkd train` wrote"
        raise UserError(f"{directory}: not a checkpoint (it has no checkpoint.json); {remedy}")
    record = files.read_json(path / RECORD)
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise UserError(f"{directory}: checkpoint format {found}, this version reads {FORMAT}; train again")
    lacking = [key for key in KEYS if key not in record]
    if lacking:
        raise UserError(f"{path / RECORD}: damaged, it lacks {', '.join(lacking)}; train again")
    return record


def config_to_json(config: ModelConfig | tuple) -> dict:
    """A model's configuration with its kind, as JSON; of a tuple, an ensemble's: its members'."""
    if isinstance(config, tuple):
        return {"kind": "ensemble", "members": [config_to_json(member) for member in config]}
    return {"kind": models.kind_of(config), **asdict(config)}


def config_from_json(value: dict, where: Path | str) -> ModelConfig:
    """The inverse. Unknown kinds, fields and types are refused by name; a field added since then takes its default."""
    value = dict(value)
    kind = value.pop("kind", None)
    if kind not in models.MODELS:
        raise UserError(f"{where}: unknown model kind {kind!r}; this version knows {', '.join(models.MODELS)}")
    config = models.MODELS[kind].config
    known = {field.name: type(field.default) for field in fields(config)}
    for name, content in value.items():
        if name not in known:
            raise UserError(f"{where}: unknown field {name!r} for model kind {kind}; a newer version wrote it")
        if known[name] is tuple and isinstance(content, list):
            content = value[name] = tuple(content)
        if type(content) is not known[name] and not (known[name] is float and type(content) is int):
            raise UserError(f"{where}: {name} is {content!r}, expected {known[name].__name__}")
    return config(**value)


def versions() -> dict[str, str]:
    """The versions that decide results, for provenance."""
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
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
            continue
    return found
