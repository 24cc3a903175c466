"""Magnitude pruning (See, Luong & Manning 2016): the weights of least magnitude become zero, and stay zero in training.

Weights are the arrays with more than one axis; biases and the scales of norms are never pruned. A class of weights is
one array. What is pruned is a mask (checkpoint.Pruned), which the checkpoint holds: a run that starts from it keeps the
mask, and so do the checkpoints of that run.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from seqkd_jax import checkpoint
from seqkd_jax.checkpoint import Pruned, arrays
from seqkd_jax.checkpoint.metadata import OF_RUN
from seqkd_jax.config import PruningConfig
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, progress, remote, settings

# Rule -> of the names of the arrays, the groups of which each loses the same share.
RULES: dict[str, Callable[[Sequence[str]], list[list[str]]]] = {
    "class_blind": lambda names: [list(names)],
    "class_uniform": lambda names: [[name] for name in names],
}
EMBEDDINGS = ("embedding", "positions")  # how the names of arrays end that are embeddings


def prune(directory: Path | str, out: Path | str, config: PruningConfig) -> Path:
    """Write a checkpoint with the weights of another, some of them zero.

    UserError: several replicas, weights that are not finite, or a checkpoint that is pruned already, of which the rule
    would not prune all again.
    """
    config.validate()
    loaded = checkpoint.load(directory)
    if why := checkpoint.defect(loaded):
        raise UserError(f"{directory}: {why}; prune another checkpoint")
    params = arrays.host(loaded.params)
    pruned = choose(params, config, loaded.pruned)
    if lost := _lost(loaded.pruned or {}, pruned):
        raise UserError(
            f"{directory}: is pruned already, and {lost:,} of its pruned weights would come back; prune a larger share "
            "by the same rule, or the checkpoint that it was made of"
        )
    metadata = {key: loaded.metadata[key] for key in OF_RUN if key in loaded.metadata}
    written = checkpoint.save(
        out,
        applied(params, pruned),
        model_config=loaded.model_config,
        vocabularies=loaded.vocabularies,
        metadata={**metadata, "pruning": {**settings.to_json(config), "of": loaded.fingerprint}},
        pruned=pruned,
    )
    progress.log(f"{out}: {_told(params, pruned)}; {size(out):,} bytes of weights, {size(directory):,} before")
    return written


def choose(params: Any, config: PruningConfig, already: Pruned | None = None) -> Pruned:
    """Which weights of host arrays are pruned: of each group the share of least magnitude, to the nearest whole number.

    Of equal magnitudes the first go, in the order of the arrays' names. already: those that are pruned, which go before
    all others.
    """
    leaves = {name: leaf for name, leaf in arrays.named_leaves(params).items() if _may_go(name, leaf, config)}
    pruned = {}
    for names in RULES[config.rule](sorted(leaves)):
        size_of = [leaves[name].size for name in names]
        magnitudes = np.concatenate([_magnitudes(leaves[name], (already or {}).get(name)) for name in names])
        parts = np.split(_least(magnitudes, round(config.share * magnitudes.size)), np.cumsum(size_of)[:-1])
        pruned |= {name: part.reshape(leaves[name].shape) for name, part in zip(names, parts, strict=True)}
    return pruned


def _may_go(name: str, leaf: np.ndarray, config: PruningConfig) -> bool:
    return leaf.ndim > 1 and (config.embeddings or not name.endswith(EMBEDDINGS))


def _magnitudes(leaf: np.ndarray, already: np.ndarray | None) -> np.ndarray:
    """Those of an array [n]; -1 for a weight that is pruned already."""
    found = np.abs(leaf).astype(np.float32).reshape(-1)
    return found if already is None else np.where(already.reshape(-1), np.float32(-1), found)


def _least(values: np.ndarray, count: int) -> np.ndarray:
    """Booleans [n]: the `count` least of values, of equal ones the first. As exact as a stable sort, in linear time."""
    if count == 0:
        return np.zeros(values.shape, bool)
    border = np.partition(values, count - 1)[count - 1]
    least = values < border
    least[np.flatnonzero(values == border)[: count - np.count_nonzero(least)]] = True
    return least


def _lost(before: Pruned, now: Pruned) -> int:
    """How many weights are pruned in the first mask, and not in the second."""
    return sum(int(np.count_nonzero(mask & ~now.get(name, np.zeros((), bool)))) for name, mask in before.items())


def applied(params: Any, pruned: Pruned) -> Any:
    """Host arrays with +0.0 for each weight that is pruned."""
    leaves = [
        np.where(pruned[name], np.zeros((), leaf.dtype), leaf) if name in pruned else leaf
        for name, leaf in arrays.named_leaves(params).items()
    ]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


def nonzero(params: Any) -> int:
    """How many parameters are not zero."""
    return sum(int(np.count_nonzero(np.asarray(leaf))) for leaf in jax.tree.leaves(params))


def size(directory: Path | str) -> int:
    """The bytes that the weights of a checkpoint take on the disk."""
    params = files.existing(remote.local(directory)) / "params"
    return sum(path.stat().st_size for path in params.rglob("*") if path.is_file())


def _told(params: Any, pruned: Pruned) -> str:
    """What was pruned, in words."""
    gone, may_go = (sum(int(count(mask)) for mask in pruned.values()) for count in (np.count_nonzero, np.size))
    left = nonzero(applied(params, pruned))
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    return f"{gone:,} of {may_go:,} weights are pruned; {left:,} of {total:,} parameters are not zero"
