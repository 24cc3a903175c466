"""Language models and classifiers of one sequence: what each position sees, and what it must not."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from seqkd_jax import models
from seqkd_jax.config import CNNConfig, MLPConfig, SequenceLSTMConfig, SequenceTransformerConfig
from seqkd_jax.models import READERS, kind_of
from seqkd_jax.types import BOS, EOS, UserError

V, B, T = 17, 3, 6
LSTM = SequenceLSTMConfig(2, 8, "every", tied=True, recurrent_dropout=0.2)
TRANSFORMER = SequenceTransformerConfig(2, 8, 2, 16, reads="every", tied=True, max_length=12)
LANGUAGE_MODELS = {
    "lstm": LSTM,
    "lstm, untied": dataclasses.replace(LSTM, tied=False, init_scale=0.1),
    "transformer": TRANSFORMER,
    "universal, post": dataclasses.replace(TRANSFORMER, shared=True, norm="post", tied=False),
}
CLASSIFIERS = {
    "lstm": dataclasses.replace(LSTM, reads="last", tied=False),
    "transformer": dataclasses.replace(TRANSFORMER, causal=False, reads="first", tied=False),
    "transformer-seq": dataclasses.replace(TRANSFORMER, reads="last", tied=False),
    "universal": dataclasses.replace(TRANSFORMER, reads="last", tied=False, shared=True, layers=3),
}
VARIANTS = ("lstm, untied", "universal, post", "transformer-seq")


def over(cases):
    """Parametrise over cases; variants of another are slow, since each compiles programs."""
    return pytest.mark.parametrize(
        "case", [pytest.param(case, marks=[pytest.mark.slow] if case in VARIANTS else []) for case in cases]
    )


def test_every_reader_is_held_to_the_contract():
    cases = [*LANGUAGE_MODELS.values(), *CLASSIFIERS.values(), CNNConfig(), MLPConfig()]  # images: test_image_models
    missing = set(READERS) - {kind_of(config) for config in cases}
    assert not missing, f"add a small configuration of {missing} to the cases of this file"


lms, classifiers = over(LANGUAGE_MODELS), over(CLASSIFIERS)


@functools.cache
def made(config, classes=V):
    model = models.build(config, V, classes)
    return model, jax.jit(model.init)(jax.random.key(1)), jax.jit(model.features)


def sequences(seed=0, rows=B, steps=T):
    rng = np.random.default_rng(seed)
    ids = rng.integers(EOS + 1, V, (rows, steps)).astype(np.int32)
    ids[:, 0] = BOS
    return ids


def padded(ids, lengths, width):
    out = np.zeros((len(ids), width), np.int32)
    for row, length in enumerate(lengths):
        out[row, :length] = ids[row, :length]
    return out


def test_matrices_start_about_zero():
    """Where all are positive, words share a direction and are learned slowly: jax.nn's uniform starts at zero."""
    cases = [(*item, V) for item in LANGUAGE_MODELS.items()] + [(*item, 2) for item in CLASSIFIERS.items()]
    for case, config, classes in cases:
        _, params, _ = made(config, classes)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            if leaf.ndim > 1 and np.std(leaf) > 0:
                apart = abs(np.mean(leaf)) / (np.std(leaf) / np.sqrt(leaf.size))
                assert apart < 5, f"{case}: {jax.tree_util.keystr(path)} starts {apart:.0f} standard errors from zero"


@lms
def test_a_language_model_sees_no_word_to_come(case):
    _, params, features = made(LANGUAGE_MODELS[case])
    ids, other = sequences(), sequences(1)
    other[:, :3] = ids[:, :3]
    found, changed = features(params, ids, None), features(params, other, None)
    np.testing.assert_allclose(found[:, :3], changed[:, :3], atol=1e-6, err_msg="a later word changes an earlier place")
    assert not np.allclose(found[:, 3:], changed[:, 3:]), "nothing is read"


@lms
def test_padding_does_not_change_what_stands_before_it(case):
    _, params, features = made(LANGUAGE_MODELS[case])
    ids = sequences()
    whole, part = features(params, ids, None), features(params, padded(ids, [4, 6, 2], T + 2), None)
    for row, length in enumerate([4, 6, 2]):
        np.testing.assert_allclose(whole[row, :length], part[row, :length], atol=2e-6, err_msg=f"row {row}")


@classifiers
def test_a_classifier_does_not_see_padding(case):
    _, params, features = made(CLASSIFIERS[case], 2)
    ids, lengths = sequences(), [4, T, 4]  # few, since each length is a program
    found = features(params, padded(ids, lengths, T + 3), None)
    assert found.shape == (B, 1, 8), "a classifier's features have a position axis of length 1"
    for row, length in enumerate(lengths):
        alone = features(params, ids[row : row + 1, :length], None)
        np.testing.assert_allclose(found[row], alone[0], atol=2e-6, err_msg=f"row {row}: padding or neighbours count")


@classifiers
def test_a_classifier_reads_every_word(case):
    _, params, features = made(CLASSIFIERS[case], 2)
    ids = sequences()
    for place in range(T):
        other = ids.copy()
        other[:, place] = EOS
        assert not np.allclose(features(params, ids, None), features(params, other, None)), f"word {place} is not read"


@pytest.mark.parametrize("config", [LSTM, CLASSIFIERS["transformer"]])
def test_dropout_is_of_the_row(config):
    _, params, features = made(config)
    ids, keys = sequences(), jax.vmap(jax.random.key)(np.arange(B))
    dropped = features(params, ids, keys)
    assert not np.allclose(dropped, features(params, ids, None)), "dropout does nothing"
    alone = features(params, ids[1:2], keys[1:2])
    np.testing.assert_allclose(dropped[1:2], alone, atol=2e-6, err_msg="a row's masks depend on its neighbours")


def lstm_reference(params, config, ids):
    """A language model's logits [T,V] of one sequence, step by step in float64."""
    p = {name: np.asarray(value, np.float64) for name, value in params["params"].items()}
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    states, out = [(np.zeros(config.size), np.zeros(config.size)) for _ in range(config.layers)], []
    for word in ids:
        x = p["embedding"][word]
        for layer in range(config.layers):
            h, c = states[layer]
            gates = np.concatenate([x, h]) @ p[f"layer_{layer}_kernel"] + p[f"layer_{layer}_bias"]
            i, f, o, g = np.split(gates, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            x = sigmoid(o) * np.tanh(c)
            states[layer] = x, c
        if config.tied:
            x = x @ p["projection"]
        out.append((p["embedding"] if config.tied else p["output_kernel"]) @ x + p["output_bias"])
    return np.stack(out)


@pytest.mark.parametrize("case", ["lstm", "lstm, untied"])
def test_the_lstm_is_the_textbook_s(case):
    config = LANGUAGE_MODELS[case]
    model, params, features = made(config)
    ids = sequences()
    logits = model.head(params, features(params, ids, None))
    for row in range(B):
        np.testing.assert_allclose(logits[row], lstm_reference(params, config, ids[row]), atol=1e-5)


def transformer_reference(params, config, ids):
    """Pre-norm features [T,E] of one sequence in float64; bidirectional where the configuration says so."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])

    def norm(x, weights):
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(variance + 1e-5) * weights["scale"] + weights["bias"]

    def linear(x, weights):
        return x @ weights["kernel"] + weights["bias"]

    from math import erf

    gelu = np.vectorize(lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))))
    ids = [BOS, *ids] if config.reads == "first" else ids
    x = p["embedding"][ids] + p["positions"][: len(ids)]
    size = config.width // config.heads
    for depth in range(config.layers):
        layer = p[f"layers_{0 if config.shared else depth}"]
        q, k, v = np.split(
            linear(norm(x, layer["attention_residual"]["norm"]), layer["attention"]["query_key_value"]), 3, -1
        )
        heads = []
        for head in range(config.heads):
            part = slice(head * size, (head + 1) * size)
            scores = q[:, part] @ k[:, part].T / np.sqrt(size)
            if config.causal:
                scores = np.where(np.tri(len(ids)) > 0, scores, -np.inf)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
        x = x + linear(np.concatenate(heads, -1), layer["attention"]["output"])
        inner = gelu(linear(norm(x, layer["feed_forward_residual"]["norm"]), layer["feed_forward"]["inner"]))
        x = x + linear(inner, layer["feed_forward"]["outer"])
    return norm(x, p["norm"])


@pytest.mark.parametrize("case", ["transformer", "transformer-seq", "universal"])
def test_the_transformer_is_the_textbook_s(case):
    config = CLASSIFIERS[case]
    _, params, features = made(config, 2)
    ids = sequences()
    found = features(params, ids, None)
    for row in range(B):
        expected = transformer_reference(params, config, ids[row])[0 if config.reads == "first" else -1]
        np.testing.assert_allclose(found[row, 0], expected, atol=2e-5, err_msg=f"{case}, row {row}")


def test_shared_weights_are_one_layer():
    own, shared = (dataclasses.replace(CLASSIFIERS["universal"], shared=flag) for flag in (False, True))
    counts = [models.parameter_count(models.build(config, V, 2)) for config in (own, shared)]
    layer = sum(leaf.size for leaf in jax.tree.leaves(made(shared, 2)[1]["params"]["layers_0"]))
    assert counts[0] - counts[1] == 2 * layer


@pytest.mark.parametrize(
    ("config", "classes", "message"),
    [
        (
            dataclasses.replace(TRANSFORMER, heads=3),
            V,
            "width is 8: it must be a multiple of sequence_transformer.heads",
        ),
        (dataclasses.replace(TRANSFORMER, layers=0), V, "layers is 0"),
        (dataclasses.replace(TRANSFORMER, causal=False), V, "must be causal"),
        (dataclasses.replace(TRANSFORMER, reads="first", tied=False), 2, "first position of a causal model"),
        (dataclasses.replace(TRANSFORMER, attention_dropout=1.0), V, "attention_dropout is 1.0"),
        (TRANSFORMER, 2, "tied needs one vocabulary"),
        (LSTM, 2, "tied needs one vocabulary"),
        (dataclasses.replace(LSTM, dropout=-0.1), V, "dropout is -0.1"),
    ],
)
def test_what_is_no_model_is_refused(config, classes, message):
    with pytest.raises(UserError, match=message):
        models.build(config, V, classes)


def test_a_misspelled_choice_is_refused():
    config = dataclasses.replace(TRANSFORMER)
    object.__setattr__(config, "activation", "silu")  # past the type checker of the tests
    with pytest.raises(UserError, match="activation is 'silu': it must be one of relu, gelu, swish"):
        models.build(config, V, V)


def test_a_sequence_without_positions_is_refused():
    _, params, _ = made(TRANSFORMER)
    with pytest.raises(UserError, match="13 positions.*12.*max_length"):
        made(TRANSFORMER)[2](params, sequences(steps=13), None)
