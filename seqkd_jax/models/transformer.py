"""An encoder-decoder Transformer (Vaswani et al. 2017), pre- or post-norm.

Training and decoding share every sub-layer. Attention to the source compares queries [B,Q,E] with keys that `start`
computes once per sentence: Q are the target positions T in training and the beam K in decoding, so the memory is never
tiled. Only self-attention differs: it uses a causal mask in training and a cache for each sentence in decoding.

Positions are counted from 0. Their encodings have sines in the first half and cosines in the second, with frequencies
from 1 to 1/10000 inclusive (tensor2tensor) or, with positions="vaswani", those of Hugging Face's Marian. With
norm="post", activation="swish", tied="all" and output_bias=True the model is Marian's (see the package marian). A fused
kernel is the query, key and value kernels side by side. Norms have epsilon 1e-5.

Parameters are float32. With compute="bfloat16" products and activations are bfloat16; norms, softmax and logits are
float32. With compute="bfloat16_products" weights and what they are multiplied with are read in bfloat16, and all else
is float32.
"""

import math
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from seqkd_jax.config import TransformerConfig
from seqkd_jax.models import caches
from seqkd_jax.models.layers import (
    ACTIVATION_TYPES,
    DECODING,
    dropout,
    fold_keys,
    prepared_head,
    preparing,
    vocabulary_logits,
)
from seqkd_jax.models.transformer_layers import DecoderLayer, EncoderLayer, Keys, LayerNorm
from seqkd_jax.types import PAD, Past, Translator, UserError


class Memory(NamedTuple):
    """What decoding reads of a source sentence, once per sentence."""

    # For each decoder layer's attention to the source: keys, in the layout for products of few rows, and values.
    keys_values: tuple[tuple[Float[Array, "B H D S"], Float[Array, "B H S D"]], ...]
    mask: Bool[Array, "B 1 1 S"]  # False at padding


def _sinusoids(position, width: int, kind: str = "tensor2tensor"):
    """Position encodings [*pos,E] of integers [*pos], float32; kind: TransformerConfig.positions."""
    half = width // 2
    steps = max(half - 1, 1) if kind == "tensor2tensor" else half  # from frequency 1 to 1/10000
    frequency = jnp.exp(jnp.arange(half, dtype=jnp.float32) * (-math.log(10_000) / steps))
    angle = position[..., None].astype(jnp.float32) * jnp.expand_dims(frequency, tuple(range(position.ndim)))
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


class TransformerTranslator(nn.Module):
    """The parameters, and the functions of types.Translator as methods."""

    config: TransformerConfig
    source_size: int
    target_size: int

    def setup(self):
        config = self.config

        def embedding(name, size):
            initial = nn.initializers.normal(config.width**-0.5)
            return self.param(name, initial, (size, config.width), jnp.float32)

        self.target_embedding = embedding("target_embedding", self.target_size)
        shared = config.tied == "all"
        self.source_embedding = self.target_embedding if shared else embedding("source_embedding", self.source_size)
        untied = config.tied == "none"
        self.output_kernel = embedding("output_kernel", self.target_size) if untied else self.target_embedding
        zeros = nn.initializers.zeros
        self.bias = self.param("output_bias", zeros, (self.target_size,), jnp.float32) if config.output_bias else None
        self.encoder = [EncoderLayer(config) for _ in range(config.encoder_layers)]
        self.decoder = [DecoderLayer(config) for _ in range(config.decoder_layers)]
        final = LayerNorm if config.norm == "pre" else lambda: lambda x: x  # pre-norm layers leave outputs unnormalised
        self.encoder_norm, self.decoder_norm = final(), final()

    def features(self, inputs, keys: Keys = None) -> Float[Array, "B T E"]:
        """The last layer, teacher-forced, for (source [B,S], target_in [B,T]); keys [B]: with dropout."""
        return self._decode(inputs, keys)[0]

    def attention(self, inputs) -> tuple[Float[Array, "B H T S"], ...]:
        """Attention weights on the source of each decoder layer, for (source [B,S], target_in [B,T])."""
        return self._decode(inputs, None)[1]

    def _decode(self, inputs, keys: Keys):
        """The last layer [B,T,E], and the weights on the source [B,H,T,S] of each decoder layer."""
        source, target_in = inputs
        memory = self._encode(source, fold_keys(keys, 0))
        steps = jnp.arange(target_in.shape[1])
        causal = (steps[:, None] >= steps[None])[None, None]
        keys = fold_keys(keys, 1)
        x, attention = self._embed(self.target_embedding, target_in, steps[None], fold_keys(keys, 0)), []
        for index, (layer, keys_values) in enumerate(zip(self.decoder, memory.keys_values, strict=True), start=1):
            x, weights = layer(x, causal, keys_values, memory.mask, fold_keys(keys, index))
            attention.append(weights)
        return self.decoder_norm(x).astype(x.dtype), tuple(attention)

    def head(self, features: Float[Array, "*pos E"]) -> Float[Array, "*pos V"]:
        """Logits in float32."""
        prepared = self.get_variable(DECODING, "head")
        return vocabulary_logits(features, self.output_kernel, self.bias, self.config.compute, prepared)

    def prepare(self) -> dict[str, Array]:
        """The head's weights in the layout for decoding."""
        return {"head": prepared_head(self.output_kernel, self.bias, self.config.compute)}

    def start(self, source: Int[Array, "B S"]) -> tuple[Memory, Int[Array, " B"]]:
        """Memory, and the state: the number of tokens read so far."""
        return self._encode(source, None), jnp.zeros(source.shape[0], jnp.int32)

    def step(self, token: Int[Array, "B K"], memory: Memory, position: Int[Array, "B K"], caches, past: Past):
        """The next position: features [B,K,E], the last layer's weights on the source [B,K,S], position, caches."""
        x = self._embed(self.target_embedding, token, position, None)
        after = []
        for layer, cache, keys_values in zip(self.decoder, caches, memory.keys_values, strict=True):
            x, weights, cache = layer.next(x, cache, past, keys_values, memory.mask)
            after.append(cache)
        features = self.decoder_norm(x).astype(x.dtype)
        return features, weights.mean(axis=1), position + 1, tuple(after)

    def _encode(self, source, keys: Keys) -> Memory:
        mask = (source != PAD)[:, None, None]
        x = self._embed(self.source_embedding, source, jnp.arange(source.shape[1])[None], fold_keys(keys, 0))
        for index, layer in enumerate(self.encoder, start=1):
            x = layer(x, mask, fold_keys(keys, index))
        x = self.encoder_norm(x).astype(x.dtype)
        return Memory(tuple(layer.source_attention.project(x) for layer in self.decoder), mask)

    def _embed(self, embedding, tokens, position, keys: Keys):
        """[B,T] tokens at positions [B,T] or [1,T] -> [B,T,E]."""
        scale = math.sqrt(self.config.width) if self.config.scale_embeddings else 1.0
        positions = _sinusoids(position, self.config.width, self.config.positions)
        embedded = embedding[tokens] * scale + positions
        return dropout(embedded.astype(ACTIVATION_TYPES[self.config.compute]), self.config.dropout, keys)


def build_transformer(config: TransformerConfig, source_size: int, target_size: int) -> Translator:
    """The translator for vocabularies of these sizes; UserError if the configuration does not fit them."""
    if config.tied == "all" and source_size != target_size:
        sizes = f"{source_size} source and {target_size} target entries"
        raise UserError(
            f"transformer: tied=all needs one joint vocabulary, got {sizes}; take tied=target or joint=True"
        )
    module = TransformerTranslator(config, source_size, target_size)

    def empty_caches(rows: int, beam: int, length: int):
        sizes = rows, beam, length, config.heads, config.width // config.heads
        return tuple(caches.empty(*sizes, ACTIVATION_TYPES[config.compute]) for _ in range(config.decoder_layers))

    return Translator(
        init=lambda key: module.init(
            key, (jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, 1), jnp.int32)), method="features"
        ),
        features=partial(module.apply, method="features"),
        head=partial(module.apply, method="head"),
        start=partial(module.apply, method="start"),
        step=partial(module.apply, method="step"),
        attention=partial(module.apply, method="attention"),
        prepare=preparing(module),
        caches=empty_caches,
        parallel=True,
    )
