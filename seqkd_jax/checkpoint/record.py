"""checkpoint.json: the model's kind and configuration, shapes, hashes, metadata, versions."""

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from seqkd_jax import __version__, models
from seqkd_jax.config import ModelConfig
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, integrity, settings

FORMAT = 1
RECORD = "checkpoint.json"
PARTS = ("params/*", "vocabulary/*", "state/*")  # of a checkpoint, beside its record
LEAVES = {...: [[int], str]}  # name -> shape and dtype
FORM = {
    "model": dict,
    "vocabulary": str,
    "source_size": int,
    "target_size": int,
    "replicas?": int,
    "params": LEAVES,
    "params_sha256": str,
    "pruned?": {"weights": int, "sha256": str},
    "state": (dict, type(None)),  # else LEAVES
    "metadata": dict,
}


REMEDY = "bring back a copy, or train again"


def read_at(path: Path, directory: Path | str, parts: Sequence[str] = (), remedy: str = REMEDY) -> dict:
    """The content of checkpoint.json, which with these `parts` of its directory has the hashes of SHA256SUMS.

    path: where the directory is now; directory: what messages call it.
    """
    if not path.is_dir():
        raise UserError(
            f"{directory}: no such checkpoint; give a directory that `seqkd train` or `seqkd average` wrote"
        )
    if not os.path.lexists(path / RECORD) and any(path.glob("*.safetensors*")):
        raise UserError(f"{directory}: a model in another form, not a checkpoint; `seqkd import` makes one of it")
    if not os.path.lexists(path / RECORD) and not os.path.lexists(path / files.SUMS):
        inside = sorted(str(Path(directory) / inner.parent.name) for inner in path.glob(f"*/{RECORD}"))
        instead = f"did you mean {' or '.join(inside)}?" if inside else "give a directory that `seqkd train` wrote"
        raise UserError(f"{directory}: not a checkpoint (it has no checkpoint.json); {instead}")
    return integrity.read_description(path / RECORD, FORMAT, FORM, remedy, parts)


def config_to_json(config: ModelConfig) -> dict:
    """A model's kind and configuration, every field spelled out, as JSON."""
    return {"kind": models.kind_of(config), **settings.to_json(config)}


def config_from_json(value: dict, where: Path | str) -> ModelConfig:
    """The inverse of `config_to_json`. A missing field takes its default.

    UserError that names an unknown kind, an unknown field or a value that the field may not have.
    """
    value = dict(value)
    kind = value.pop("kind", None)
    if not isinstance(kind, str) or kind not in models.MODELS:
        raise UserError(f"{where}: unknown model kind {kind!r}; this version knows {', '.join(models.MODELS)}")
    return settings.from_json(models.MODELS[kind].config, value, lambda name: f"{where}: {kind}.{name}")


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide results."""
    packages = (
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "orbax-checkpoint",
        "numpy",
        "sentencepiece",
        "sacrebleu",
    )
    installed = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), "seqkd_jax": __version__, **installed}  # ours: of the code that runs
