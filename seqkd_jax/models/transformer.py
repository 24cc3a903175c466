"""An encoder-decoder Transformer (Vaswani et al. 2017), pre- or post-norm.

Training and decoding share every sub-layer. Attention to the source takes queries [B,Q,E] against keys and values that
`start` computes once per sentence: in training Q are the target positions T, in decoding the beam K, so the memory is
never tiled. Only self-attention differs: over a causal mask in training, over a cache of the beam's own in decoding.

Positions are counted from 0: sines in the first half, cosines in the second, of frequencies from 1 to 1/10000 inclusive
(tensor2tensor), or, with positions="vaswani", as Hugging Face's Marian has them. With norm="post", activation="swish",
tied="all" and output_bias=True the model is Marian's and its weights fit (exchange); a fused kernel is the query, key
and value kernels side by side. Norms have epsilon 1e-5.

Parameters are float32. Under compute="bfloat16" products and activations are bfloat16; norms, softmax and logits not.
"""

import math
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from seqkd_jax.base import PAD, Translator, UserError
from seqkd_jax.config import TransformerConfig
from seqkd_jax.models.layers import (
    DECODING,
    dropout,
    fold_keys,
    prepared_head,
    preparing,
    reorder,
    vocabulary_logits,
)

ACTIVATIONS = {"relu": nn.relu, "gelu": partial(nn.gelu, approximate=False), "swish": nn.swish}

Keys = Key[Array, "B"] | None


class Memory(NamedTuple):
    """What decoding reads of a source sentence, once per sentence."""

    # Of each decoder layer's attention to the source: keys, laid out for products of a few rows, and values.
    keys_values: tuple[tuple[Float[Array, "B H D S"], Float[Array, "B H S D"]], ...]
    mask: Bool[Array, "B 1 1 S"]  # True where there is a word


class State(NamedTuple):
    """What decoding carries: leaves [B,K,...] (as `start` returns them, [B,...])."""

    # Of each decoder layer's attention to itself: keys and values; nothing at or beyond `position` is ever read.
    caches: tuple[tuple[Float[Array, "*BK H T D"], Float[Array, "*BK H T D"]], ...]
    position: Int[Array, "*BK"]  # tokens read so far


def _sinusoids(position, width: int, kind: str = "tensor2tensor"):
    """Position encodings [*pos,E] of integers [*pos], float32; kind: TransformerConfig.positions."""
    half = width // 2
    steps = max(half - 1, 1) if kind == "tensor2tensor" else half  # from frequency 1 to 1/10000
    frequency = jnp.exp(jnp.arange(half, dtype=jnp.float32) * (-math.log(10_000) / steps))
    angle = position[..., None].astype(jnp.float32) * jnp.expand_dims(frequency, tuple(range(position.ndim)))
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def _attention_weights(scores, mask):
    """Softmax over the last axis in float32. A row of which nothing may be seen gets finite, even weights."""
    return jax.nn.softmax(jnp.where(mask, scores.astype(jnp.float32), jnp.finfo(jnp.float32).min), axis=-1)


def _linear(config: TransformerConfig, size: int, scale: float = 1.0) -> nn.Dense:
    """A product [*pos,I] -> [*pos,size] in the compute type; Glorot uniform with its variance times `scale`."""
    initial = nn.initializers.variance_scaling(scale, "fan_avg", "uniform")
    return nn.Dense(size, config.biases, dtype=config.compute, param_dtype=jnp.float32, kernel_init=initial)


def _norm() -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-5, dtype=jnp.float32, use_fast_variance=False)


class Attention(nn.Module):
    """Multi-head attention, its projections fused where their input is the same: to itself, or to another sequence."""

    config: TransformerConfig
    to_itself: bool

    def setup(self):
        config, width = self.config, self.config.width
        # All parts of the fused kernels start as in fairseq: Glorot of an ExE kernel, its variance halved.
        if self.to_itself:
            self.query_key_value = _linear(config, 3 * width)
        else:
            self.query, self.key_value = _linear(config, width, 1 / 2), _linear(config, 2 * width, 3 / 4)
        self.output = _linear(config, width)

    def itself(self, x, mask, keys: Keys):
        """All positions at once: x [B,T,E], mask broadcastable to [B,H,T,T]."""
        query, key, value = jnp.moveaxis(self._heads(self.query_key_value(x), 3), 1, 0)
        return self._attend(query, jnp.swapaxes(key, -1, -2), value, mask, keys)[0]

    def project(self, encoded):
        """Keys [B,H,D,S] and values [B,H,S,D] of another sequence [B,S,E], for `other`."""
        keys, values = jnp.moveaxis(self._heads(self.key_value(encoded), 2), 1, 0)
        return jnp.swapaxes(keys, -1, -2), values

    def other(self, x, keys_values, mask, keys: Keys):
        """x [B,Q,E] to the keys and values of its row: output [B,Q,E], weights [B,H,Q,S]. Q: targets or beam."""
        query = self._heads(self.query(x), 1)[:, 0]
        return self._attend(query, *keys_values, mask, keys)

    def next(self, x, cache, position, parents):
        """One position: x [B,K,E] to its own past, in `cache` (two [B,K,H,T,D]), and itself. Returns output and cache.

        Reordering the cache by parents [B,K] and writing the new position is one pass over it, the cheapest that keeps
        each hypothesis's past in one place (an attention that looks its past up by ancestor was slower on CPUs).
        """
        rows, beam, _ = x.shape
        steps = jnp.arange(cache[0].shape[-2])
        heads = self.query_key_value(x).reshape(rows, beam, 3, self.config.heads, 1, -1)
        at = (position[:, :, None] == steps[None, None])[:, :, None, :, None]  # [B,K,1,T,1]
        keys, values = (
            jnp.where(at, heads[:, :, part], reorder(old, parents)) for part, old in enumerate(cache, start=1)
        )
        past = (steps[None, None] <= position[:, :, None])[:, :, None]
        scores = jnp.einsum("bkhd,bkhtd->bkht", heads[:, :, 0, :, 0] * self._scale(), keys)
        weights = _attention_weights(scores, past).astype(x.dtype)
        attended = jnp.einsum("bkht,bkhtd->bkhd", weights, values)
        return self.output(attended.reshape(rows, beam, -1)), (keys, values)

    def _attend(self, query, key, value, mask, keys):
        """Queries [B,H,Q,D] to keys [B,H,D,S] and values [B,H,S,D]: output [B,Q,E] and weights [B,H,Q,S]."""
        weights = _attention_weights(jnp.einsum("bhqd,bhds->bhqs", query * self._scale(), key), mask)
        dropped = dropout(weights.astype(value.dtype), self.config.attention_dropout, keys)
        attended = jnp.swapaxes(jnp.einsum("bhqs,bhsd->bhqd", dropped, value), 1, 2)
        return self.output(attended.reshape(*attended.shape[:2], -1)), weights

    def _heads(self, x, parts):
        """[B,S,parts*E] -> [B,parts,H,S,D]."""
        return jnp.transpose(x.reshape(*x.shape[:2], parts, self.config.heads, -1), (0, 2, 3, 1, 4))

    def _scale(self):
        return (self.config.width // self.config.heads) ** -0.5


class FeedForward(nn.Module):
    """Two linear maps with an activation between, the same at every position."""

    config: TransformerConfig

    def setup(self):
        self.inner, self.outer = _linear(self.config, self.config.feed_forward), _linear(self.config, self.config.width)

    def __call__(self, x, keys: Keys):
        inner = ACTIVATIONS[self.config.activation](self.inner(x))
        return self.outer(dropout(inner, self.config.activation_dropout, keys))


class Residual(nn.Module):
    """What surrounds a sub-layer: x + f(norm(x)), or norm(x + f(x)); dropout on f's output."""

    config: TransformerConfig

    def setup(self):
        self.norm = _norm()

    def before(self, x):
        return self.norm(x).astype(x.dtype) if self.config.norm == "pre" else x

    def after(self, x, y, keys: Keys):
        x = x + dropout(y, self.config.dropout, keys)
        return x if self.config.norm == "pre" else self.norm(x).astype(x.dtype)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward."""

    config: TransformerConfig

    def setup(self):
        self.attention = Attention(self.config, to_itself=True)
        self.feed_forward = FeedForward(self.config)
        self.attention_residual, self.feed_forward_residual = Residual(self.config), Residual(self.config)

    def __call__(self, x, mask, keys: Keys):
        site = partial(fold_keys, keys)
        y = self.attention.itself(self.attention_residual.before(x), mask, site(0))
        x = self.attention_residual.after(x, y, site(1))
        y = self.feed_forward(self.feed_forward_residual.before(x), site(2))
        return self.feed_forward_residual.after(x, y, site(3))


class DecoderLayer(nn.Module):
    """Self-attention, attention to the source, feed-forward; over all target positions, or the next of every beam."""

    config: TransformerConfig

    def setup(self):
        self.attention = Attention(self.config, to_itself=True)
        self.source_attention = Attention(self.config, to_itself=False)
        self.feed_forward = FeedForward(self.config)
        self.attention_residual, self.source_residual = Residual(self.config), Residual(self.config)
        self.feed_forward_residual = Residual(self.config)

    def __call__(self, x, causal, keys_values, mask, keys: Keys):
        """x [B,T,E] -> the same, weights on the source [B,H,T,S]."""
        y = self.attention.itself(self.attention_residual.before(x), causal, fold_keys(keys, 0))
        return self._rest(self.attention_residual.after(x, y, fold_keys(keys, 1)), keys_values, mask, keys)

    def next(self, x, cache, position, parents, keys_values, mask):
        """x [B,K,E] -> the same, weights on the source [B,H,K,S], cache."""
        y, cache = self.attention.next(self.attention_residual.before(x), cache, position, parents)
        return *self._rest(self.attention_residual.after(x, y, None), keys_values, mask, None), cache

    def _rest(self, x, keys_values, mask, keys: Keys):
        site = partial(fold_keys, keys)
        y, weights = self.source_attention.other(self.source_residual.before(x), keys_values, mask, site(2))
        x = self.source_residual.after(x, y, site(3))
        y = self.feed_forward(self.feed_forward_residual.before(x), site(4))
        return self.feed_forward_residual.after(x, y, site(5)), weights


class TransformerTranslator(nn.Module):
    """The parameters, and the pure functions of base.Translator as methods."""

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
        final = _norm if config.norm == "pre" else lambda: lambda x: x  # pre-norm layers end without a norm
        self.encoder_norm, self.decoder_norm = final(), final()

    def features(self, inputs, keys: Keys = None) -> Float[Array, "B T E"]:
        """Teacher-forced last layer of (source [B,S], target_in [B,T]); keys [B]: with dropout."""
        return self._decode(inputs, keys)[0]

    def attention(self, inputs) -> tuple[Float[Array, "B H T S"], ...]:
        """Each decoder layer's weights on the source, of (source [B,S], target_in [B,T])."""
        return self._decode(inputs, None)[1]

    def _decode(self, inputs, keys: Keys):
        """The last layer [B,T,E], and the weights on the source [B,H,T,S] of each."""
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

    def head(self, features: Float[Array, "*pos E"], ids=None) -> Float[Array, "*pos V"]:
        """Logits in float32; with ids, of these entries of the vocabulary only."""
        prepared = self.get_variable(DECODING, "head")
        return vocabulary_logits(features, self.output_kernel, self.bias, self.config.compute, ids, prepared)

    def prepare(self) -> Float[Array, "_ V"]:
        """The head's weights as decoding reads them."""
        return prepared_head(self.output_kernel, self.bias, self.config.compute)

    def start(self, source: Int[Array, "B S"], length: int) -> tuple[Memory, State]:
        """Memory, and an empty state with room for `length` steps."""
        config, rows = self.config, source.shape[0]
        empty = jnp.zeros((rows, config.heads, length, config.width // config.heads), config.compute)
        caches = ((empty, empty),) * len(self.decoder)
        return self._encode(source, None), State(caches, jnp.zeros(rows, jnp.int32))

    def step(self, token: Int[Array, "B K"], memory: Memory, state: State, parents=None):
        """The next position of all hypotheses: features [B,K,E], weights on the source [B,K,S] (last layer), state."""
        position = reorder(state.position, parents)
        x = self._embed(self.target_embedding, token, position, None)
        caches = []
        for layer, cache, keys_values in zip(self.decoder, state.caches, memory.keys_values, strict=True):
            x, weights, cache = layer.next(x, cache, position, parents, keys_values, memory.mask)
            caches.append(cache)
        features = self.decoder_norm(x).astype(x.dtype)
        return features, weights.mean(axis=1), State(tuple(caches), position + 1)

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
        return dropout(embedded.astype(self.config.compute), self.config.dropout, keys)


def _check(config: TransformerConfig, source_size: int, target_size: int) -> None:
    """Raise UserError for a configuration that is no model."""
    if config.width % 2 or config.width % config.heads:
        raise UserError(f"transformer: width {config.width} must be even and a multiple of heads ({config.heads})")
    if config.decoder_layers < 1 or config.encoder_layers < 0:
        layers = f"{config.encoder_layers} encoder and {config.decoder_layers} decoder layers"
        raise UserError(f"transformer: {layers}; at least one decoder layer is needed")
    if config.tied == "all" and source_size != target_size:
        sizes = f"{source_size} source and {target_size} target entries"
        raise UserError(
            f"transformer: tied=all needs one joint vocabulary, got {sizes}; take tied=target or joint=True"
        )
    for name in ("dropout", "attention_dropout", "activation_dropout"):
        if not 0 <= getattr(config, name) < 1:
            raise UserError(f"transformer: {name} is {getattr(config, name)}; it must be at least 0 and below 1")


def build_transformer(config: TransformerConfig, source_size: int, target_size: int) -> Translator:
    """The translator for vocabularies of these sizes; UserError if the configuration does not fit them."""
    _check(config, source_size, target_size)
    module = TransformerTranslator(config, source_size, target_size)
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
    )
