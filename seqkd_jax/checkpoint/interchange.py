"""Checkpoints of every kind of model as safetensors, for other toolkits: out and in again.

  model.safetensors  the weights, in the shapes and types that they have here; the names are the paths in the tree of
                     parameters, such as params/decoder_0/attention/output/kernel, as checkpoint.json lists them
  config.json        format, model kind and configuration, sizes and fingerprint of the vocabulary, metadata, versions
  vocabulary/        both vocabularies as plain files
  README.md          a model card

What was exported and is imported has the same fingerprint. The weights may have been changed in between.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqkd_jax import checkpoint
from seqkd_jax.checkpoint import arrays, model_card, tensor_files
from seqkd_jax.checkpoint.record import config_from_json, versions
from seqkd_jax.data import vocabulary
from seqkd_jax.types import UserError
from seqkd_jax.utils import files
from seqkd_jax.utils.untrusted import require_form, shown

WEIGHTS, DESCRIPTION = "model.safetensors", "config.json"
FORMAT = "seqkd_jax-1"  # of config.json, which other toolkits give the same name
FORM = {"model": dict, "vocabulary?": str, "metadata?": dict}  # what is read of it
HOLDS = (WEIGHTS, DESCRIPTION, "vocabulary", "README.md")
CHANGED = "copy it again, or delete SHA256SUMS if the change is meant"
CARD = model_card.Form(
    header={"library_name": "seqkd_jax", "tags": ["seqkd_jax", "jax"]},
    use="""
As a checkpoint, for `seqkd translate`, `distill`, `evaluate` and `train --start`:

    seqkd import --from safetensors DIRECTORY --out CHECKPOINT

The arrays alone, in Python:

    from safetensors.numpy import load_file
    weights = load_file("model.safetensors")

Their names are paths in the tree of parameters; `config.json` has the model's configuration, `vocabulary/` what turns
text into ids.
""",
    limits=["seqkd_jax runs the model; other toolkits can read the arrays and need the model's definition."],
)


def export_tensors(directory: Path | str, out: Path | str) -> Path:
    """Write a checkpoint of any kind of model as safetensors. UserError: several replicas, weights not finite."""
    loaded = load_sound(directory)
    vocabularies = loaded.vocabularies
    description = {
        "format": FORMAT,
        "model": loaded.config_json,
        "vocabulary": vocabularies.fingerprint,
        "source_size": vocabularies.source.size,
        "target_size": vocabularies.target.size,
        "metadata": loaded.metadata,
        "versions": versions(),
    }
    with files.new_directory(out, HOLDS) as path:
        tensors = arrays.named_leaves(arrays.host(loaded.params))
        tensor_files.write(path / WEIGHTS, tensors, {"format": "np"})
        vocabulary.save(vocabularies, path / "vocabulary")
        files.write_json(path / DESCRIPTION, description)
        files.write_text(path / "README.md", model_card.text(loaded, Path(out).name, CARD))
    return Path(out)


def load_sound(directory: Path | str) -> checkpoint.Checkpoint:
    """A checkpoint to export. UserError: several replicas, of which none is named, or weights that are not finite."""
    loaded = checkpoint.load(directory)
    if why := checkpoint.defect(loaded):
        raise UserError(f"{directory}: {why}; export another checkpoint")
    return loaded


def import_tensors(directory: Path | str, out: Path | str) -> Path:
    """The checkpoint of a directory that `export_tensors` wrote, or of one with the same files.

    Weights in a type that the model's type holds exactly (bfloat16 and float16 for float32) are widened. UserError:
    a file is missing or damaged, or the weights are not those of the model.
    """
    directory = Path(directory)
    files.verify(directory, CHANGED, (WEIGHTS, DESCRIPTION, "vocabulary/*"))
    described = _read_description(directory / DESCRIPTION)
    config = config_from_json(described["model"], directory / DESCRIPTION)
    vocabularies = vocabulary.load(directory / "vocabulary")
    if "vocabulary" in described:
        vocabulary.require_same(described["vocabulary"], vocabularies, directory / DESCRIPTION)
    shapes = checkpoint.param_shapes(config, (vocabularies.source.size, vocabularies.target.size))
    tensors = _widened(tensor_files.read(directory / WEIGHTS), arrays.named_leaves(shapes))
    arrays.require(arrays.describe(tensors), arrays.describe(shapes), str(directory / WEIGHTS))
    params = jax.tree.unflatten(jax.tree.structure(shapes), [tensors[name] for name in arrays.named_leaves(shapes)])
    if broken := [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]:
        raise UserError(f"{directory / WEIGHTS}: {shown(min(broken))} has values that are not finite; use another copy")
    origin = {"from": "safetensors", "model_sha256": files.sha256_file(directory / WEIGHTS)}
    metadata = {**described.get("metadata", {}), "imported": origin}
    return checkpoint.save(out, params, model_config=config, vocabularies=vocabularies, metadata=metadata)


def _read_description(path: Path) -> dict[str, Any]:
    described = files.read_json(path)
    found = described.get("format") if isinstance(described, dict) else None
    if found != FORMAT:
        raise UserError(f"{path}: format is {shown(found)}, not {FORMAT!r}; for a directory of transformers, --from hf")
    return require_form(described, FORM, path, "export the model again")


def _widened(tensors: dict[str, np.ndarray], expected: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays; those of floating-point numbers in the expected types where these hold every value of theirs."""

    def widened(name: str, array: np.ndarray) -> np.ndarray:
        wanted = expected[name].dtype if name in expected else array.dtype
        wider = jnp.issubdtype(array.dtype, jnp.floating) and np.can_cast(array.dtype, wanted)
        return array.astype(wanted) if wider else array

    return {name: widened(name, array) for name, array in tensors.items()}
