"""The layers of all Transformers: attention, feed-forward, residual connections (Vaswani et al. 2017).

Training and decoding share every sub-layer (see `transformer`). Norms have epsilon 1e-5; a fused kernel is the query,
key and value kernels side by side.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Key

from seqkd_jax.config import SequenceTransformerConfig, TransformerConfig
from seqkd_jax.models.caches import attend, written
from seqkd_jax.models.layers import (
    ACTIVATION_TYPES,
    OPERAND_TYPES,
    attention_weights,
    dropout,
    fold_keys,
    gelu,
    normalised,
    product,
)
from seqkd_jax.types import Past

LayerConfig = TransformerConfig | SequenceTransformerConfig  # the layers read only fields that both have
ACTIVATIONS = {"relu": nn.relu, "gelu": gelu, "swish": nn.swish}

Keys = Key[Array, "B"] | None


class Linear(nn.Module):
    """A product [*pos,I] -> [*pos,size], and a bias; Glorot uniform with its variance times `scale`."""

    config: LayerConfig
    size: int
    scale: float = 1.0

    @nn.compact
    def __call__(self, x):
        initial, compute = nn.initializers.variance_scaling(self.scale, "fan_avg", "uniform"), self.config.compute
        kernel = self.param("kernel", initial, (x.shape[-1], self.size))
        found = product(x, kernel.astype(OPERAND_TYPES[compute]))
        if not self.config.biases:
            return found
        bias = self.param("bias", nn.initializers.zeros, (self.size,)).astype(ACTIVATION_TYPES[compute])
        return found + jnp.expand_dims(bias, tuple(range(found.ndim - 1)))


class LayerNorm(nn.Module):
    """A layer norm over the last axis, in float32."""

    @nn.compact
    def __call__(self, x):
        size = x.shape[-1:]
        scale, bias = self.param("scale", nn.initializers.ones, size), self.param("bias", nn.initializers.zeros, size)
        return normalised(x.astype(jnp.float32), scale, bias)


class Attention(nn.Module):
    """Multi-head attention to the own or another sequence; projections with the same input are fused."""

    config: LayerConfig
    to_itself: bool

    def setup(self):
        config, width = self.config, self.config.width
        # Initial values as in fairseq: Glorot uniform of an ExE kernel with half the variance.
        if self.to_itself:
            self.query_key_value = Linear(config, 3 * width)
        else:
            self.query, self.key_value = Linear(config, width, 1 / 2), Linear(config, 2 * width, 3 / 4)
        self.output = Linear(config, width)

    def itself(self, x, mask, keys: Keys):
        """All positions at once: x [B,T,E], mask broadcastable to [B,H,T,T]."""
        query, key, value = self._heads(self.query_key_value(x), 3)
        return self._attend(query, jnp.swapaxes(key, -1, -2), value, mask, keys)[0]

    def project(self, encoded):
        """Keys [B,H,D,S] and values [B,H,S,D] of another sequence [B,S,E], arguments of `other`."""
        keys, values = self._heads(self.key_value(encoded), 2)
        return jnp.swapaxes(keys, -1, -2), values

    def other(self, x, keys_values, mask, keys: Keys):
        """x [B,Q,E] to the keys and values of its row: output [B,Q,E], weights [B,H,Q,S]. Q: targets or beam."""
        (query,) = self._heads(self.query(x), 1)
        key, value = keys_values
        return self._attend(query, key, value, mask, keys)

    def next(self, x, cache, past: Past):
        """One position: x [B,K,E] attends to itself and what the cache has of its past. Returns output and cache."""
        query, key, value = self._heads(self.query_key_value(x), 3)
        cache = written(cache, key, value, past.place)
        return self._output(attend(query * self._scale(), cache, past)), cache

    def _attend(self, query, key, value, mask, keys):
        """Queries [B,H,Q,D] to keys [B,H,D,S] and values [B,H,S,D]: output [B,Q,E] and weights [B,H,Q,S]."""
        weights = attention_weights(jnp.einsum("bhqd,bhds->bhqs", query * self._scale(), key), mask)
        dropped = dropout(weights.astype(value.dtype), self.config.attention_dropout, keys)
        return self._output(jnp.einsum("bhqs,bhsd->bhqd", dropped, value)), weights

    def _output(self, attended):
        """[B,H,Q,D] -> [B,Q,E]."""
        joined = jnp.swapaxes(attended, 1, 2)
        return self.output(joined.reshape(*joined.shape[:2], -1))

    def _heads(self, x, parts):
        """[B,S,parts*E] -> [B,H,S,D] of each part."""
        split = jnp.split(x, parts, axis=-1)  # before the transposition, so that gradients are put together in one pass
        return [jnp.swapaxes(part.reshape(*x.shape[:2], self.config.heads, -1), 1, 2) for part in split]

    def _scale(self):
        return (self.config.width // self.config.heads) ** -0.5


class FeedForward(nn.Module):
    """Two linear maps with an activation between them, at every position."""

    config: LayerConfig

    def setup(self):
        self.inner, self.outer = Linear(self.config, self.config.feed_forward), Linear(self.config, self.config.width)

    def __call__(self, x, keys: Keys):
        inner = ACTIVATIONS[self.config.activation](self.inner(x))
        return self.outer(dropout(inner, self.config.activation_dropout, keys))


class Residual(nn.Module):
    """The residual connection of a sub-layer: x + f(norm(x)) or norm(x + f(x)), with dropout on the output of f."""

    config: LayerConfig

    def setup(self):
        self.norm = LayerNorm()

    def before(self, x):
        return self.norm(x).astype(x.dtype) if self.config.norm == "pre" else x

    def after(self, x, y, keys: Keys):
        x = x + dropout(y, self.config.dropout, keys)
        return x if self.config.norm == "pre" else self.norm(x).astype(x.dtype)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward."""

    config: LayerConfig

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
    """Self-attention, attention to the source, feed-forward: for all target positions, or for the next of each beam."""

    config: LayerConfig

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

    def next(self, x, cache, past: Past, keys_values, mask):
        """x [B,K,E] -> the same, weights on the source [B,H,K,S], cache."""
        y, cache = self.attention.next(self.attention_residual.before(x), cache, past)
        return *self._rest(self.attention_residual.after(x, y, None), keys_values, mask, None), cache

    def _rest(self, x, keys_values, mask, keys: Keys):
        site = partial(fold_keys, keys)
        y, weights = self.source_attention.other(self.source_residual.before(x), keys_values, mask, site(2))
        x = self.source_residual.after(x, y, site(3))
        y = self.feed_forward(self.feed_forward_residual.before(x), site(4))
        return self.feed_forward_residual.after(x, y, site(5)), weights
