"""Models as NamedTuples of pure functions. Only this package imports flax.

Adding a model: one file with a frozen dataclass, every field with a default, one of them `dropout` (those that commands
offer stand in `config`), and a `build_…` function; one entry here, and one small configuration in the contract tests
(tests/test_models, test_sequence_models, test_image_models). They hold it to invariance to padding and neighbours, to
dropout keyed by row, and a translator to `step` repeated = `features`.
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
from seqkd_jax.models.ensemble import ensemble
from seqkd_jax.models.images import build_cnn, build_mlp
from seqkd_jax.models.lstm import build_lstm
from seqkd_jax.models.sequence_lstm import build_sequence_lstm
from seqkd_jax.models.sequence_transformer import build_sequence_transformer
from seqkd_jax.models.transformer import build_transformer
from seqkd_jax.types import Model, Translator

__all__ = ["MODELS", "READERS", "TRANSLATORS", "Entry", "build", "ensemble", "kind_of", "parameter_count"]


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
    """The name in MODELS that a configuration belongs to."""
    return next(name for name, entry in MODELS.items() if type(config) is entry.config)


@functools.cache
def build(config: ModelConfig, source_size: int, target_size: int) -> Translator | Model:
    """The model of a configuration; equal ones share it, and every compiled function. UserError if it is no model."""
    kind = kind_of(config)
    config.validate(lambda name: f"{kind}.{name}")
    return MODELS[kind].build(config, source_size, target_size)


def parameter_count(model) -> int:
    """Number of parameters, found without allocating them."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(jax.eval_shape(model.init, key)))
