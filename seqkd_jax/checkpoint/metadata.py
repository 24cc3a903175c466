"""What the metadata of a checkpoint say of the run that saved it."""

import jax
import numpy as np

from seqkd_jax.checkpoint.loaded import Checkpoint
from seqkd_jax.checkpoint.record import RECORD
from seqkd_jax.utils.untrusted import require_form

# The entries of metadata that identify the run of a checkpoint. An average of checkpoints keeps them.
OF_RUN = ("inputs", "config", "replica", "metric", "languages")


def inputs_of(metadata: dict) -> dict[str, str]:
    """The inputs of the run that saved a checkpoint with this metadata: name -> SHA-256."""
    return metadata.get("inputs") or metadata.get("made_of", {})  # the key before 0.2.0


def run_of(loaded: Checkpoint) -> tuple:
    """The identity of the run that a checkpoint is from: its inputs, and its seed unless it started from weights.

    Replicas of one run differ by their number.
    """
    metadata = _checked(loaded)
    inputs = inputs_of(metadata)
    tuned = inputs.get("start", "none") != "none"
    return inputs, None if tuned else (metadata.get("config", {}).get("seed"), metadata.get("replica", 0))


def defect(loaded: Checkpoint) -> str:
    """Why a checkpoint must not be used, as a predicate such as "has weights that ..."; "" for a sound one.

    A replica that diverged before its first validation has unvalidated weights in best/.
    """
    replicas = _checked(loaded).get("run", {}).get("replicas", ())
    if loaded.replica is not None and loaded.replica < len(replicas):
        own = replicas[loaded.replica]
        if own.get("diverged") and not own.get("best_step"):
            return "diverged before its first validation"
    finite = all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(loaded.params))
    return "" if finite else "has weights that are not finite: its training diverged"


def _checked(loaded: Checkpoint) -> dict:
    """The metadata of a run, as far as they are read here. UserError for others."""
    form = {"inputs?": {...: str}, "made_of?": {...: str}, "config?": {"seed?": int}, "replica?": int}
    form["run?"] = {"replicas?": [{"diverged?": int, "best_step?": int}]}
    return require_form(loaded.metadata, form, f"{loaded.directory / RECORD}, metadata", "train again")
