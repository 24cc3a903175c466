"""A Transformer that reads one sequence: a language model or a classifier (Abnar et al. 2020).

Inputs are ids [B,T], padded on the right. By default it is a small GPT-2 (causal, pre-norm, GELU, learned positions).
With `causal=False, reads="first"` it is BERT's encoder: a BOS is put before the sequence, and the features are those of
the BOS. With `shared` it is a Universal Transformer without halting: one layer is applied `layers` times. The layers
are those of the translation model. Attention ignores padding.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from seqkd_jax.config import SequenceTransformerConfig
from seqkd_jax.models.layers import (
    ACTIVATION_TYPES,
    dropout,
    fold_keys,
    read_positions,
    require_tied,
    vocabulary_logits,
)
from seqkd_jax.models.transformer_layers import EncoderLayer, Keys, LayerNorm
from seqkd_jax.types import BOS, PAD, Model, UserError


class SequenceTransformer(nn.Module):
    """The parameters, and the functions of types.Model as methods."""

    config: SequenceTransformerConfig
    source_size: int
    target_size: int

    def setup(self):
        config = self.config
        initial = nn.initializers.normal(config.init_scale)
        self.embedding = self.param("embedding", initial, (self.source_size, config.width), jnp.float32)
        self.positions = self.param("positions", initial, (config.max_length, config.width), jnp.float32)
        self.layers = [EncoderLayer(config) for _ in range(1 if config.shared else config.layers)]
        self.norm = LayerNorm() if config.norm == "pre" else lambda x: x
        own = None if config.tied else self.param("output_kernel", initial, (self.target_size, config.width))
        self.output_kernel = self.embedding if own is None else own
        self.output_bias = self.param("output_bias", nn.initializers.zeros, (self.target_size,))

    def features(self, inputs: Int[Array, "B T"], keys: Keys = None) -> Float[Array, "B P E"]:
        """The last layer at all T positions, at the last word or at BOS. keys [B]: with dropout."""
        config = self.config
        if config.reads == "first":
            inputs = jnp.concatenate([jnp.full_like(inputs[:, :1], BOS), inputs], axis=1)
        length = inputs.shape[1]
        if length > config.max_length:
            raise UserError(
                f"sequence_transformer: a sequence has {length} positions, but there are only {config.max_length} "
                "position embeddings; raise max_length, or leave out longer sequences"
            )
        embedded = self.embedding[inputs] + self.positions[None, :length]
        x = dropout(embedded.astype(ACTIVATION_TYPES[config.compute]), config.embedding_dropout, fold_keys(keys, 0))
        mask = (inputs != PAD)[:, None, None]
        if config.causal:
            steps = jnp.arange(length)
            mask = mask & (steps[:, None] >= steps[None])[None, None]
        for depth in range(config.layers):
            x = self.layers[0 if config.shared else depth](x, mask, fold_keys(keys, depth + 1))
        x = self.norm(read_positions(x, inputs, config.reads))
        return x.astype(ACTIVATION_TYPES[config.compute])

    def head(self, features: Float[Array, "*pos E"]) -> Float[Array, "*pos V"]:
        """Logits in float32."""
        return vocabulary_logits(features, self.output_kernel, self.output_bias, self.config.compute)


def build_sequence_transformer(config: SequenceTransformerConfig, source_size: int, target_size: int) -> Model:
    """The model for vocabularies of inputs and outputs of these sizes; UserError if the configuration is not valid."""
    require_tied("sequence_transformer", config, source_size, target_size)
    module = SequenceTransformer(config, source_size, target_size)
    return Model(
        init=lambda key: module.init(key, jnp.zeros((1, 1), jnp.int32), method="features"),
        features=partial(module.apply, method="features"),
        head=partial(module.apply, method="head"),
    )
