"""An LSTM that reads one sequence: a language model or a classifier (Abnar et al. 2020).

Inputs are ids [B,T], padded on the right. `reads` selects the positions that have features: every one, or the last
word's. A classifier's features keep a position axis of length 1, so that losses, the teacher cache and validation are
the same for all models. With tied output weights, a projection maps features to the width of the embeddings.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from seqkd_jax.config import SequenceLSTMConfig
from seqkd_jax.models.layers import (
    ACTIVATION_TYPES,
    OPERAND_TYPES,
    dropout,
    fold_keys,
    product,
    read_positions,
    require_tied,
    vocabulary_logits,
)
from seqkd_jax.models.recurrence import lstm_layer
from seqkd_jax.types import PAD, Model


def _forget_one(key, shape, dtype=jnp.float32):
    """Biases 0, and 1 for the forget gate (Jozefowicz et al. 2015)."""
    width = shape[0] // 4
    return jnp.zeros(shape, dtype).at[width : 2 * width].set(1.0)


def _symmetric(scale: float) -> Callable:
    """Uniform in [-scale, scale], unlike that of jax.nn, which is in [0, scale)."""
    return lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -scale, scale)


def _glorot_and_orthogonal(inputs: int):
    """The kernel [I+E,4E] of a layer: Glorot uniform for its input, orthogonal for its own state."""

    def initial(key, shape, dtype=jnp.float32):
        first, second = jax.random.split(key)
        recurrent = shape[0] - inputs, shape[1]
        parts = (
            nn.initializers.glorot_uniform()(first, (inputs, shape[1]), dtype),
            nn.initializers.orthogonal()(second, recurrent, dtype),
        )
        return jnp.concatenate(parts)

    return initial


class SequenceLSTM(nn.Module):
    """The parameters, and the functions of types.Model as methods."""

    config: SequenceLSTMConfig
    source_size: int
    target_size: int

    def setup(self):
        config, width = self.config, self.config.size

        def parameter(name, initial, *shape):
            if config.init_scale:
                initial = _symmetric(config.init_scale)
            return self.param(name, initial, shape)

        self.embedding = parameter("embedding", _symmetric(0.1), self.source_size, width)
        self.layers = [
            (
                parameter(f"layer_{layer}_kernel", _glorot_and_orthogonal(width), 2 * width, 4 * width),
                parameter(f"layer_{layer}_bias", _forget_one, 4 * width),
            )
            for layer in range(config.layers)
        ]
        glorot = nn.initializers.glorot_uniform()
        self.projection = parameter("projection", glorot, width, width) if config.tied else None
        own = None if config.tied else parameter("output_kernel", glorot, self.target_size, width)
        self.output_kernel = self.embedding if own is None else own
        self.output_bias = self.param("output_bias", nn.initializers.zeros, (self.target_size,))

    def features(self, inputs: Int[Array, "B T"], keys=None) -> Float[Array, "B P E"]:
        """The vectors that the head reads, at all T positions or at the last word. keys [B]: with dropout."""
        config = self.config
        activations, operands = ACTIVATION_TYPES[config.compute], OPERAND_TYPES[config.compute]
        x = dropout(self.embedding[inputs].astype(activations), config.input_dropout, fold_keys(keys, 0))
        mask = (inputs != PAD).T[..., None]
        for layer, (kernel, bias) in enumerate(self.layers):
            site = fold_keys(keys, layer + 1)
            kept = None
            if keys is not None and config.recurrent_dropout:
                ones = jnp.ones((inputs.shape[0], config.size), activations)
                kept = dropout(ones, config.recurrent_dropout, fold_keys(site, 0))
            kernel, bias = kernel.astype(operands), bias.astype(activations)
            states, _ = lstm_layer(jnp.swapaxes(x, 0, 1), kernel, bias, mask, recurrent_mask=kept)
            x = dropout(jnp.swapaxes(states, 0, 1), config.dropout, fold_keys(site, 1))
        x = read_positions(x, inputs, config.reads)
        return x if self.projection is None else product(x, self.projection.astype(operands))

    def head(self, features: Float[Array, "*pos E"]) -> Float[Array, "*pos V"]:
        """Logits in float32."""
        return vocabulary_logits(features, self.output_kernel, self.output_bias, self.config.compute)


def build_sequence_lstm(config: SequenceLSTMConfig, source_size: int, target_size: int) -> Model:
    """The model for vocabularies of inputs and outputs of these sizes; UserError if the configuration is not valid."""
    require_tied("sequence_lstm", config, source_size, target_size)
    module = SequenceLSTM(config, source_size, target_size)
    return Model(
        init=lambda key: module.init(key, jnp.zeros((1, 1), jnp.int32), method="features"),
        features=partial(module.apply, method="features"),
        head=partial(module.apply, method="head"),
    )
