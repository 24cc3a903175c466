"""Models as NamedTuples of pure functions. Only this package imports flax.

To add a model: write one file with a `build_…` function and a frozen dataclass whose fields all have defaults, one of
them `dropout` (configurations that commands offer are in `config`); add one entry below and one small configuration to
the contract tests in tests/models. They check that results do not depend on padding or on other rows, that dropout is
keyed by row, and that a translator's repeated `step` gives its `features`.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from seqkd_jax.config import (
    CNNConfig,
    LSTMConfig,
    MLPConfig,
    ModelConfig,
    SequenceLSTMConfig,
    SequenceTransformerConfig,
    TransformerConfig,
)
from seqkd_jax.models.drafted import drafted
from seqkd_jax.models.ensemble import ensemble
from seqkd_jax.models.images import build_cnn, build_mlp
from seqkd_jax.models.lstm import build_lstm
from seqkd_jax.models.sequence_lstm import build_sequence_lstm
from seqkd_jax.models.sequence_transformer import build_sequence_transformer
from seqkd_jax.models.transformer import build_transformer
from seqkd_jax.types import Model, Translator, UserError

__all__ = ["MODELS", "READERS", "TRANSLATORS", "Entry", "build", "drafted", "ensemble", "kind_of", "parameter_count"]


class Entry(NamedTuple):
    """A kind of model: its configuration and how to build it."""

    config: type
    build: Callable  # (config, source_size, target_size) -> Translator, or Model


TRANSLATORS: dict[str, Entry] = {
    "lstm": Entry(LSTMConfig, build_lstm),
    "transformer": Entry(TransformerConfig, build_transformer),
}
# Language models and classifiers: of one sequence [B,T], or of images [B,28,28].
READERS: dict[str, Entry] = {
    "sequence_lstm": Entry(SequenceLSTMConfig, build_sequence_lstm),
    "sequence_transformer": Entry(SequenceTransformerConfig, build_sequence_transformer),
    "cnn": Entry(CNNConfig, build_cnn),
    "mlp": Entry(MLPConfig, build_mlp),
}
MODELS = TRANSLATORS | READERS


def kind_of(config: ModelConfig) -> str:
    """The name in MODELS that a configuration belongs to. TypeError for anything else."""
    for name, entry in MODELS.items():
        if type(config) is entry.config:
            return name
    known = ", ".join(entry.config.__name__ for entry in MODELS.values())
    raise TypeError(f"model is {config!r}: it must be one of {known}")


@functools.cache
def build(config: ModelConfig, source_size: int, target_size: int) -> Translator | Model:
    """The model of a configuration; equal ones share it and its compiled functions. UserError if it is not valid."""
    if jax.dtypes.canonicalize_dtype(np.float64) == np.float64:
        raise UserError("JAX_ENABLE_X64 is on, but models and searches are of 32-bit numbers: turn it off")
    kind = kind_of(config)
    config.validate(lambda name: f"{kind}.{name}")
    return MODELS[kind].build(config, source_size, target_size)


def parameter_count(model) -> int:
    """Number of parameters, counted without allocating them."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(jax.eval_shape(model.init, key)))
