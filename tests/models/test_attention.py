"""Attention weights on demand, against both models written out in float64 NumPy, and from the command line's side."""

import math

import jax
import numpy as np
import pytest
from reference import reference_lstm
from tiny import WITHOUT_ATTENTION, parameters

from seqkd_jax.config import LSTMConfig, TransformerConfig
from seqkd_jax.decoding import force_attention
from seqkd_jax.decoding.search import attention_weights
from seqkd_jax.models import build, ensemble
from seqkd_jax.types import BOS, EOS, PAD, UserError

V, S, T, K = 17, 6, 4, 2
LENGTHS = (6, 3, 2)  # of the sources, with EOS
LSTM = LSTMConfig(layers=2, size=6)
TRANSFORMER = TransformerConfig(
    encoder_layers=1, decoder_layers=2, width=8, heads=2, feed_forward=12, tied="none", output_bias=True
)


def inputs():
    random = np.random.default_rng(0)
    source = np.full((len(LENGTHS), S), PAD, np.int32)
    for row, length in zip(source, LENGTHS, strict=True):
        row[:length] = [*random.integers(4, V, length - 1), EOS]
    return source, random.integers(4, V, (len(LENGTHS), K, T)).astype(np.int32)


def weighted(config):
    """A model and parameters spread enough for its attention to choose."""
    model = build(config, V, V)
    params = jax.jit(model.init)(jax.random.key(0))
    random = np.random.default_rng(1)
    return model, jax.tree.map(lambda leaf: leaf + random.normal(scale=0.4, size=leaf.shape).astype(np.float32), params)


def norm(x, p):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]


def linear(x, p):
    return x @ p["kernel"] + p["bias"]


def attend(query, key, value, heads, causal=False):
    """Output [Q,E] before its projection, and weights [H,Q,S], head by head."""
    outputs, weights = [], []
    for q, k, v in zip(*(np.split(x, heads, axis=-1) for x in (query, key, value)), strict=True):
        scores = q @ k.T / math.sqrt(q.shape[-1])
        if causal:
            scores = np.where(np.tril(np.ones_like(scores)) > 0, scores, -np.inf)
        weights.append(np.exp(scores) / np.exp(scores).sum(-1, keepdims=True))
        outputs.append(weights[-1] @ v)
    return np.concatenate(outputs, -1), np.array(weights)


def reference_transformer(params, config, source, target_in):
    """Weights on the source [H,T,S] of each decoder layer: pre-norm, ReLU, one sentence without padding."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])

    def embed(table, ids):
        half = config.width // 2
        angle = np.arange(len(ids))[:, None] * 10_000 ** (-np.arange(half) / (half - 1))
        return table[ids] * math.sqrt(config.width) + np.concatenate([np.sin(angle), np.cos(angle)], -1)

    def itself(x, layer, causal):
        query_key_value = linear(norm(x, layer["attention_residual"]["norm"]), layer["attention"]["query_key_value"])
        attended, _ = attend(*np.split(query_key_value, 3, -1), config.heads, causal)
        return x + linear(attended, layer["attention"]["output"])

    def feed_forward(x, layer):
        inner = linear(norm(x, layer["feed_forward_residual"]["norm"]), layer["feed_forward"]["inner"])
        return x + linear(np.maximum(inner, 0), layer["feed_forward"]["outer"])

    x = embed(p["source_embedding"], source)
    for index in range(config.encoder_layers):
        x = feed_forward(itself(x, p[f"encoder_{index}"], False), p[f"encoder_{index}"])
    encoded, x, found = norm(x, p["encoder_norm"]), embed(p["target_embedding"], target_in), []
    for index in range(config.decoder_layers):
        layer = p[f"decoder_{index}"]
        x, other = itself(x, layer, True), layer["source_attention"]
        query = linear(norm(x, layer["source_residual"]["norm"]), other["query"])
        attended, weights = attend(query, *np.split(linear(encoded, other["key_value"]), 2, -1), config.heads)
        x = feed_forward(x + linear(attended, other["output"]), layer)
        found.append(weights)
    return found


def compiled(model, layer=None, heads=None):
    return jax.jit(lambda *arguments: attention_weights(model, *arguments, layer=layer, heads=heads))


def assert_weights(found, expected):
    """[B,K,T,S] against expected(source ids, target_in) -> [T,S], which knows no padding."""
    source, tokens = inputs()
    assert found.shape == (len(LENGTHS), K, T, S)
    np.testing.assert_allclose(np.asarray(found).sum(-1), 1, rtol=1e-5, err_msg="a row is no distribution")
    for row, length in enumerate(LENGTHS):
        assert (np.asarray(found)[row, ..., length:] == 0).all(), "attention falls on PAD"
        for slot in range(K):
            target_in = [BOS, *tokens[row, slot, :-1]]
            reference = expected(source[row, :length], target_in)
            np.testing.assert_allclose(found[row, slot, :, :length], reference, atol=2e-5)


def test_the_lstm_attends_as_the_equations_say():
    model, params = weighted(LSTM)
    assert_weights(compiled(model)(params, *inputs()), lambda *pair: reference_lstm(params, LSTM, *pair)[1])


@pytest.mark.parametrize(
    ("layer", "heads"), [(None, None), (1, None), (2, (2,)), (1, (1, 2))], ids=["last, mean", "1", "2.2", "1.1,2"]
)
def test_the_transformer_attends_as_the_equations_say(layer, heads):
    """Layers and heads count from 1; by default the last layer, the mean over its heads."""
    model, params = weighted(TRANSFORMER)
    chosen = [head - 1 for head in heads or (1, 2)]

    def expected(*pair):
        return reference_transformer(params, TRANSFORMER, *pair)[(layer or 2) - 1][chosen].mean(0)

    assert_weights(compiled(model, layer, heads)(params, *inputs()), expected)
    by_head = [reference_transformer(params, TRANSFORMER, [5, 6, EOS], [BOS, 7])[0][head] for head in (0, 1)]
    assert np.abs(by_head[0] - by_head[1]).max() > 0.05, "the heads hardly differ: raise the spread of the weights"


def test_what_cannot_be_shown_is_refused():
    lstm, transformer = weighted(LSTM), weighted(TRANSFORMER)
    both = ensemble((lstm[0], transformer[0])), (lstm[1], transformer[1])
    none = WITHOUT_ATTENTION, parameters(0, V)
    for (model, params), layer, heads, said in (
        (transformer, 3, None, "no layer 3.*1 to 2"),
        (transformer, 0, None, "layer 0.*1 to 2"),
        (transformer, None, (1, 3), "head 3.*1 to 2"),
        (lstm, 1, None, "no layers and heads"),
        (both, None, (1,), "no layers and heads"),
        (none, None, None, "attention: this model has none"),
    ):
        with pytest.raises(UserError, match=said):
            jax.eval_shape(lambda *a: attention_weights(model, *a, layer=layer, heads=heads), params, *inputs())  # noqa: B023


def test_pairs_of_any_length_come_back_in_order():
    """Widths, batches and chunks leave no trace: each pair as if alone."""
    model, params = weighted(TRANSFORMER)
    random = np.random.default_rng(2)
    lengths = random.integers(1, 9, (7, 2))
    pairs = [(random.integers(4, V, s).tolist(), random.integers(4, V, t).tolist()) for s, t in lengths]
    pairs += [([EOS], [EOS]), ([5, EOS], [6] * 12)]
    found = list(force_attention(model, params, pairs, layer=1, heads=(2,), buckets=(4, 8), batch_tokens=16, chunk=4))
    assert [weights.shape for weights in found] == [(len(target), len(source)) for source, target in pairs]
    for weights, (source, target) in zip(found, pairs, strict=True):
        expected = reference_transformer(params, TRANSFORMER, source, [BOS, *target[:-1]])[0][1]
        np.testing.assert_allclose(weights, expected, atol=2e-5)
