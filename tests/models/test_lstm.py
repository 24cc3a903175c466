"""The paper's LSTM: its published sizes, and its forward pass against float64 NumPy written from the equations."""

import jax
import numpy as np
import pytest
from reference import reference_lstm

from seqkd_jax.config import LSTMConfig
from seqkd_jax.models import build, parameter_count
from seqkd_jax.types import BOS, EOS, PAD

WORDS, THAI = 50_004, 25_004  # with the four special ids


@pytest.mark.parametrize(
    ("layers", "size", "vocabulary", "published"),
    [
        (4, 1000, WORDS, 221_094_004),
        (2, 500, WORDS, 84_814_004),
        (2, 300, WORDS, 48_568_404),
        (2, 500, THAI, 47_289_004),
        (2, 100, THAI, 7_917_804),
    ],
)
def test_parameter_counts_are_the_published_ones(layers, size, vocabulary, published):
    """Kim & Rush 2016: 221m, 84m, 49m, 47m and 8m; nothing is allocated to find them."""
    assert parameter_count(build(LSTMConfig(layers=layers, size=size), vocabulary, vocabulary)) == published


@pytest.mark.parametrize(
    "config",
    [
        LSTMConfig(layers=2, size=6),
        LSTMConfig(layers=2, size=6, bidirectional=True, input_feeding=False),
        LSTMConfig(layers=1, size=6, attention=False, start_from_encoder=False),
    ],
    ids=["paper", "bidirectional, no feeding", "no attention"],
)
def test_features_are_those_of_the_equations(config):
    model = build(config, 20, 20)
    # a tenfold initial scale: the sigmoids must leave their linear range
    params = jax.tree.map(lambda leaf: 10 * leaf, jax.jit(model.init)(jax.random.key(0)))
    random = np.random.default_rng(0)
    source = np.full((3, 7), PAD, np.int32)
    lengths = (7, 4, 1)
    for row, length in enumerate(lengths):
        source[row, :length] = [*random.integers(4, 20, length - 1), EOS]
    target_in = random.integers(4, 20, (3, 5)).astype(np.int32)
    target_in[:, 0] = BOS
    found = jax.jit(model.features)(params, (source, target_in), None)
    for row, length in enumerate(lengths):
        expected, _ = reference_lstm(params, config, source[row, :length], target_in[row])
        np.testing.assert_allclose(found[row], expected, atol=2e-5, err_msg=f"sentence {row} of {length} words")


def test_dropout_falls_on_layer_inputs_and_the_attentional_vector():
    config = LSTMConfig(layers=1, size=64, dropout=0.5)
    model = build(config, 20, 20)
    params = jax.jit(model.init)(jax.random.key(0))
    inputs = np.full((2, 5), 7, np.int32), np.full((2, 6), 8, np.int32)
    features = np.asarray(jax.jit(model.features)(params, inputs, jax.random.split(jax.random.key(1), 2)))
    assert 0.4 < np.mean(features == 0) < 0.6, "the attentional vector is dropped out at the configured rate"
    assert np.any((features[0] == 0) != (features[1] == 0)), "each row has its own mask"


@pytest.mark.parametrize("layers", [1, 2])
def test_dropout_between_layers_is_where_there_are_layers(layers):
    """At the first target position of one layer, what is kept of the attentional vector is twice the plain one."""
    model = build(LSTMConfig(layers=layers, size=32, dropout=0.5), 20, 20)
    params = jax.jit(model.init)(jax.random.key(0))
    inputs = np.full((2, 5), 7, np.int32), np.full((2, 6), 8, np.int32)
    read = jax.jit(model.features)
    plain, dropped = (np.asarray(read(params, inputs, keys)) for keys in (None, jax.random.split(jax.random.key(1), 2)))
    kept = dropped != 0
    doubled = np.isclose(dropped, 2 * plain, rtol=1e-3, atol=1e-5) | ~kept
    assert doubled[:, 0].all() == (layers == 1)
    assert not doubled[:, 1:].all(), "what is fed to the next step is the vector as it was dropped"
