"""The translation model of Kim & Rush 2016: a stacked LSTM with Luong's general attention and input feeding.

The five parameter counts in the paper determine: embeddings as wide as the hidden states, no tied weights, a
unidirectional encoder, one bias for each layer, none in attention. From the authors' code (harvardnlp/seq2seq-attn):
gates are ordered input, forget, output, transform; dropout is applied to the inputs of layers 2 and up and to the
attentional vector, and input feeding uses the vector after dropout. That code batches by exact source length; here
padding is masked.

Training (a scan over time, K = 1) and decoding (one call for each step) use the same decoder cell. Training computes
outside of the loop what does not depend on it: the contribution of the embeddings to the gates, attention keys, dropout
masks and logits.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from seqkd_jax.config import LSTMConfig
from seqkd_jax.models.layers import (
    ACTIVATION_TYPES,
    DECODING,
    OPERAND_TYPES,
    dropout,
    fold_keys,
    prepared_head,
    preparing,
    product,
    vocabulary_logits,
)
from seqkd_jax.models.recurrence import Weight, apply_weight, lstm_cell, lstm_layer, scan_products
from seqkd_jax.types import PAD, Translator

TABLE = 2**25  # numbers, at most: of the tokens' part of the gates, kept for decoding


class Memory(NamedTuple):
    """What decoding reads of a source sentence, once per sentence."""

    keys: jax.Array | None  # [B,E,S] encoder states times the attention matrix; None without attention
    values: jax.Array  # [B,S,E] encoder states; without attention the last one only, S = 1
    mask: jax.Array  # [B,1,S] False at padding


class State(NamedTuple):
    """What decoding carries from step to step: leaves [B,K,E] (as `start` returns them, [B,E])."""

    hidden: tuple  # one per layer
    cell: tuple  # one per layer
    feed: jax.Array  # the last attentional vector, after dropout in training


def _decoder_cell(config: LSTMConfig, mask, linear, state: State, embedded, masks=None):
    """One decoder step. embedded [B,K,4E]: the token's part of layer 1's gates; masks [L,B,K,E]: dropout multipliers.

    Returns the attentional vector [B,K,E], the attention weights [B,K,S] and the next state.
    """
    hidden, cell = [], []
    for layer in range(config.layers):
        if layer == 0:
            inputs = [state.feed, state.hidden[0]] if config.input_feeding else [state.hidden[0]]
        else:
            inputs = [hidden[-1] if masks is None else hidden[-1] * masks[layer - 1], state.hidden[layer]]
        gates = linear(f"decoder_{layer}", jnp.concatenate(inputs, axis=-1))
        h, c = lstm_cell(gates + embedded if layer == 0 else gates, state.cell[layer])
        hidden.append(h)
        cell.append(c)
    if config.attention:
        scores = jnp.where(mask, linear("keys", hidden[-1]).astype(jnp.float32), jnp.finfo(jnp.float32).min)
        attention = jax.nn.softmax(scores, axis=-1)
    else:
        attention = jnp.ones((*hidden[-1].shape[:-1], 1))
    context = linear("values", attention.astype(embedded.dtype))
    vector = jnp.tanh(linear("combine", jnp.concatenate([context, hidden[-1]], axis=-1)))
    if masks is not None:
        vector = vector * masks[config.layers - 1]
    return vector, attention, State(tuple(hidden), tuple(cell), vector)


class LSTMTranslator(nn.Module):
    """The parameters, and the functions of types.Translator as methods."""

    config: LSTMConfig
    source_size: int
    target_size: int

    def setup(self):
        config, width = self.config, self.config.size

        def initial(key, shape):
            return jax.random.uniform(key, shape, jnp.float32, -config.init_scale, config.init_scale)

        def lstm(name, inputs):
            return (
                self.param(f"{name}_kernel", initial, (inputs + width, 4 * width)),
                self.param(f"{name}_bias", initial, (4 * width,)),
            )

        self.source_embedding = self.param("source_embedding", initial, (self.source_size, width))
        self.target_embedding = self.param("target_embedding", initial, (self.target_size, width))
        directions = ("forward", "backward") if config.bidirectional else ("forward",)
        self.encoders = [[lstm(f"encoder_{d}_{layer}", width) for layer in range(config.layers)] for d in directions]
        first = 2 * width if config.input_feeding else width
        self.decoder = [lstm(f"decoder_{layer}", width if layer else first) for layer in range(config.layers)]
        self.attention = self.param("attention", initial, (width, width)) if config.attention else None
        self.combine = self.param("combine", initial, (2 * width, width))
        self.output_kernel = self.param("output_kernel", initial, (self.target_size, width))
        self.output_bias = self.param("output_bias", initial, (self.target_size,))

    def features(self, inputs, keys=None):
        """Teacher-forced attentional vectors [B,T,E] of (source [B,S], target_in [B,T]); keys [B]: with dropout."""
        source, target_in = inputs
        memory, state = self._encode(source, fold_keys(keys, 0))
        embedded = self._embed_target(target_in.T[..., None])  # [T,B,1,4E]
        state = jax.tree.map(lambda leaf: leaf[:, None], state)

        def body(linear, state, scanned):
            vector, _, state = _decoder_cell(self.config, memory.mask, linear, state, *scanned)
            return state, vector

        _, vectors = scan_products(body, self._decoder_weights(memory), state, (embedded, self._masks(target_in, keys)))
        return jnp.swapaxes(vectors[:, :, 0], 0, 1)

    def head(self, features):
        """Logits [*pos,V] in float32."""
        prepared = self.get_variable(DECODING, "head")
        return vocabulary_logits(features, self.output_kernel, self.output_bias, self.config.compute, prepared)

    def prepare(self):
        """The head's weights in the layout for decoding; each token's part of the gates, unless they are many."""
        ready = {"head": prepared_head(self.output_kernel, self.output_bias, self.config.compute)}
        if self.target_size * 4 * self.config.size <= TABLE:
            ready["embedded"] = self._embed_target(jnp.arange(self.target_size))
        return ready

    def start(self, source):
        """Memory and first state of source [B,S]."""
        return self._encode(source, None)

    def step(self, token, memory, state, caches, past):
        """One step: token [B,K] -> features [B,K,E], attention [B,K,S] (None without), state, no caches."""
        del past
        weights = self._decoder_weights(memory)
        table = self.get_variable(DECODING, "embedded")
        embedded = self._embed_target(token) if table is None else table[token]
        vector, attention, state = _decoder_cell(
            self.config, memory.mask, lambda name, x: apply_weight(weights[name], x), state, embedded
        )
        return vector, attention if self.config.attention else None, state, caches

    def _typed(self, x):
        return x.astype(ACTIVATION_TYPES[self.config.compute])

    def _kernel(self, weight):
        return weight.astype(OPERAND_TYPES[self.config.compute])

    def _embed_target(self, tokens):
        """The embeddings' part of the first decoder layer's gates, bias included: [...] -> [...,4E]."""
        kernel, bias = self.decoder[0]
        weight = Weight(self._kernel(kernel[: self.config.size]), self._typed(bias))
        return apply_weight(weight, self._typed(self.target_embedding[tokens]))

    def _decoder_weights(self, memory):
        weights = {"values": Weight(memory.values), "combine": Weight(self._kernel(self.combine))}
        if self.config.attention:
            weights["keys"] = Weight(memory.keys)
        for layer, (kernel, bias) in enumerate(self.decoder):
            kernel, bias = self._kernel(kernel), self._typed(bias)
            weights[f"decoder_{layer}"] = Weight(kernel, bias) if layer else Weight(kernel[self.config.size :])
        return weights

    def _masks(self, target_in, keys):
        """Dropout multipliers [T,L,B,1,E]: inputs of layers 2 and up, then the attentional vector. None: no dropout."""
        if keys is None or self.config.dropout == 0:
            return None
        rows, steps = target_in.shape
        ones = jnp.ones((rows, steps, self.config.layers, self.config.size), ACTIVATION_TYPES[self.config.compute])
        masks = dropout(ones, self.config.dropout, fold_keys(keys, 1))
        return jnp.transpose(masks, (1, 2, 0, 3))[:, :, :, None]

    def _encode(self, source, keys):
        """Memory and the decoder's first state (leaves [B,E]) of source [B,S]."""
        mask = source.T[..., None] != PAD  # [S,B,1]
        embedded = self._typed(self.source_embedding[source.T])
        outputs, lasts = [], []
        for direction, layers in enumerate(self.encoders):
            x, last = embedded, []
            for layer, (kernel, bias) in enumerate(layers):
                if layer:
                    site = fold_keys(keys, direction * self.config.layers + layer)
                    x = jnp.swapaxes(dropout(jnp.swapaxes(x, 0, 1), self.config.dropout, site), 0, 1)
                x, end = lstm_layer(x, self._kernel(kernel), self._typed(bias), mask, reverse=direction == 1)
                last.append(end)
            outputs.append(x)
            lasts.append(last)
        states, last = jnp.swapaxes(sum(outputs), 0, 1), jax.tree.map(lambda *ends: sum(ends), *lasts)
        zeros = jnp.zeros_like(last[0][0])
        start = last if self.config.start_from_encoder else [(zeros, zeros)] * self.config.layers
        state = State(tuple(h for h, _ in start), tuple(c for _, c in start), zeros)
        mask = jnp.swapaxes(mask, 0, 1).swapaxes(1, 2)
        if not self.config.attention:
            return Memory(None, last[-1][0][:, None], mask), state
        keys = product(states, self._kernel(self.attention).T)
        return Memory(jnp.swapaxes(keys, 1, 2), states, mask), state


def build_lstm(config: LSTMConfig, source_size: int, target_size: int) -> Translator:
    """The translator for vocabularies of these sizes; UserError if the configuration is not valid."""
    module = LSTMTranslator(config, source_size, target_size)
    return Translator(
        init=lambda key: module.init(key, jnp.zeros((1, 1), jnp.int32), method="start"),
        features=partial(module.apply, method="features"),
        head=partial(module.apply, method="head"),
        start=partial(module.apply, method="start"),
        step=partial(module.apply, method="step"),
        prepare=preparing(module),
    )
