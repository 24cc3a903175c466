"""The image classifiers: against float64 NumPy written from the definitions, row by row, and many at once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqkd_jax import models
from seqkd_jax.config import CNNConfig, MLPConfig
from seqkd_jax.models.images import build_cnn, build_mlp
from seqkd_jax.types import UserError

B, V = 5, 10
CASES = {
    "cnn": CNNConfig(channels=(8, 8, 4), maxout=(8, 8, 4), groups=2),
    "cnn, maxout": CNNConfig(channels=(8, 12, 8), maxout=(8, 4, 2), pools=(1, 2, 3), groups=2),
    "mlp": MLPConfig(widths=(24, 16, 8), dropout=0.4),
}
cases = pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] if case == "cnn" else []) for case in CASES]
)  # of the two CNNs the one with maxout has every part


@functools.cache
def subject(case):
    """A model, its parameters, and features and head compiled."""
    config = CASES[case]
    model = (build_cnn if isinstance(config, CNNConfig) else build_mlp)(config, 0, V)
    params = jax.jit(model.init)(jax.random.key(1))
    # Biases, and the norms' scales and shifts, start at 0 and 1, where a forgotten one would not show.
    names, random = params["params"], np.random.default_rng(2)
    for name in [name for name in names if name.endswith(("scale", "bias", "shift"))]:
        names[name] = jnp.asarray(random.normal(size=names[name].shape).astype(np.float32))
    return model, params, jax.jit(model.features), jax.jit(model.head)


def images(rows=B, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, 28, 28)).astype(np.uint8)


def row_keys(rows=B):
    return jax.random.split(jax.random.key(3), rows)


def normalised(x):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5)


def reference_cnn(params, config, image):
    """Logits [V] and features [E] of one image: every sum and maximum written out, in the authors' order."""
    p = {name: np.asarray(value, np.float64) for name, value in params["params"].items()}
    x = image.astype(np.float64)[..., None] / 255
    for layer, (channels, units, pool) in enumerate(zip(config.channels, config.maxout, config.pools, strict=True)):
        kernel, bias, side = p[f"layer_{layer}_kernel"], p[f"layer_{layer}_bias"], x.shape[0] - 2
        x = np.array(
            [
                [np.einsum("yxc,yxcf->f", x[row : row + 3, column : column + 3], kernel) for column in range(side)]
                for row in range(side)
            ]
        )
        x, members = x + bias, channels // units
        x = np.stack([x[..., unit * members : (unit + 1) * members].max(-1) for unit in range(units)], axis=-1)
        x = np.concatenate([normalised(group) for group in np.split(x, config.groups, axis=-1)], axis=-1)
        x = np.maximum(p[f"layer_{layer}_scale"] * x + p[f"layer_{layer}_shift"], 0)
        side = len(x)
        places = range(0, side - pool + 1, pool)
        x = np.array([[x[r : r + pool, c : c + pool].max((0, 1)) for c in places] for r in places])
    features = x.mean((0, 1))
    return p["output_kernel"] @ features + p["output_bias"], features


def reference_mlp(params, config, image):
    """Logits [V] and features [E] of one image."""
    p = {name: np.asarray(value, np.float64) for name, value in params["params"].items()}
    x = image.astype(np.float64).reshape(-1) / 255
    for layer in range(len(config.widths)):
        x = np.maximum(x @ p[f"layer_{layer}_kernel"] + p[f"layer_{layer}_bias"], 0)
        x = p[f"layer_{layer}_scale"] * normalised(x) + p[f"layer_{layer}_shift"]
    return p["output_kernel"] @ x + p["output_bias"], x


@cases
def test_forward_pass_is_that_of_the_definitions(case):
    _, params, features, head = subject(case)
    reference = reference_mlp if case == "mlp" else reference_cnn
    found = features(params, images(2), None)
    logits = head(params, found)
    for row, image in enumerate(images(2)):
        expected_logits, expected = reference(params, CASES[case], image)
        assert np.abs(expected).max() > 0.1, "a reference of zeros would test nothing: take another seed"
        np.testing.assert_allclose(found[row, 0], expected, atol=2e-5)
        np.testing.assert_allclose(logits[row, 0], expected_logits, atol=5e-5)


@cases
def test_shapes_and_types(case):
    _, params, features, head = subject(case)
    config = CASES[case]
    width = config.widths[-1] if case == "mlp" else config.maxout[-1]
    found = features(params, images(), None)
    logits = head(params, found)
    assert (found.shape, logits.shape) == ((B, 1, width), (B, 1, V))
    assert found.dtype == logits.dtype == jnp.float32
    as_float = features(params, images().astype(np.float32), None)
    np.testing.assert_array_equal(as_float, found, err_msg="float images have the same range, 0 to 255")


@cases
def test_a_row_does_not_depend_on_its_neighbours(case):
    """Neither on their pixels, nor on their number or its own place, with dropout as without."""
    _, params, features, _ = subject(case)
    for keys in (None, row_keys()):
        together = np.asarray(features(params, images(), keys))
        others = np.concatenate([images(2), images(3, seed=9)])
        np.testing.assert_array_equal(features(params, others, keys)[:2], together[:2])
        for row in (0, B - 1):
            own = None if keys is None else keys[row : row + 1]
            alone = np.asarray(features(params, images()[row : row + 1], own))[0]
            np.testing.assert_array_equal(alone == 0, together[row] == 0, err_msg="dropout must be keyed by row")
            np.testing.assert_allclose(alone, together[row], atol=2e-5)


def draws(config, count):
    """Features [E] without dropout, with it [N,E], and those of the same model at rate 0."""
    build = build_cnn if isinstance(config, CNNConfig) else build_mlp
    model, same = build(config, 0, V), build(dataclasses.replace(config, dropout=0.0), 0, V)
    params = jax.jit(model.init)(jax.random.key(1))
    inputs, keys = np.repeat(images(1), count, axis=0), row_keys(count)
    plain = np.asarray(jax.jit(model.features)(params, inputs[:1], None))[0, 0]
    dropped = np.asarray(jax.jit(model.features)(params, inputs, keys))[:, 0]
    without = np.asarray(jax.jit(same.features)(params, inputs[:2], keys[:2]))[:, 0]
    np.testing.assert_allclose(without, np.stack([plain] * 2), atol=2e-5, err_msg="rate 0 is no dropout")
    return plain, dropped


def test_dropout_of_the_mlp_falls_on_its_features():
    """At the configured rate, and what is kept is scaled up. One layer: others have dropout before it."""
    config = MLPConfig(widths=(24,), dropout=0.4)
    plain, dropped = draws(config, 400)
    assert np.mean(dropped == 0) == pytest.approx(config.dropout, abs=0.06)
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], np.stack([plain] * 400)[kept] / (1 - config.dropout), rtol=1e-4)


def test_dropout_of_the_cnn_falls_on_places_of_its_maps():
    """Not on whole features: their mean over 169 places keeps its value and loses little of its steadiness."""
    plain, dropped = draws(CNNConfig(channels=(8,), maxout=(8,), pools=(2,), groups=2, dropout=0.4), 400)
    np.testing.assert_allclose(dropped.mean(axis=0), plain, rtol=0.05)
    noise = dropped.std(axis=0) / plain
    # Were all places alike it would be sqrt(.4 / .6 / 169) = 0.063; a feature dropped as a whole has 0.82.
    assert noise.min() > 0.06 and noise.max() < 0.15, noise


@cases
def test_padding_rows_change_nothing_and_gradients_are_finite(case):
    """Black images of weight 0 at the end: the same loss and gradient, and no NaN where an image has no variance."""
    model, params, _, _ = subject(case)

    def loss(params, images, keys, weights):
        logits = model.head(params, model.features(params, images, keys))[:, 0]
        return -jnp.sum(weights * jax.nn.log_softmax(logits)[:, 3])

    both = jax.jit(jax.value_and_grad(loss))
    keys, black = row_keys(B + 2), np.zeros((2, 28, 28), np.uint8)
    value, gradient = both(params, images(), keys[:B], jnp.ones(B))
    weights = jnp.concatenate([jnp.ones(B), jnp.zeros(2)])
    padded_value, padded = both(params, np.concatenate([images(), black]), keys, weights)
    np.testing.assert_allclose(value, padded_value, rtol=1e-5)
    for name, leaf in gradient["params"].items():
        assert np.all(np.isfinite(leaf)) and np.any(leaf != 0), f"gradient of {name}"
        np.testing.assert_allclose(leaf, padded["params"][name], atol=1e-4 * np.abs(leaf).max(), err_msg=name)


@pytest.mark.slow
@cases
def test_several_parameters_at_once_are_as_one_by_one(case):
    """vmap over parameters, the images shared: how replicas of several seeds are trained."""
    model, _, features, _ = subject(case)
    init = jax.jit(jax.vmap(model.init))
    replicas = init(jax.random.split(jax.random.key(4), 3))
    found = jax.jit(jax.vmap(model.features, in_axes=(0, None, None)))(replicas, images(), row_keys())
    for replica in range(3):
        params = jax.tree.map(lambda leaf, replica=replica: leaf[replica], replicas)
        np.testing.assert_allclose(found[replica], features(params, images(), row_keys()), atol=2e-5)
    assert np.abs(found[0] - found[1]).max() > 0.01, "each replica has parameters of its own"


@pytest.mark.slow
def test_initial_scales():
    """He normal: variance 2 / inputs; Glorot uniform: at most sqrt(6 / (inputs + outputs))."""
    wide = build_cnn(CNNConfig(channels=(64, 64), maxout=(64, 64), pools=(1, 1)), 0, V)
    p = jax.jit(wide.init)(jax.random.key(0))["params"]
    assert np.var(p["layer_1_kernel"]) == pytest.approx(2 / (9 * 64), rel=0.05)
    assert np.abs(p["output_kernel"]).max() == pytest.approx(np.sqrt(6 / (64 + V)), rel=0.05)
    p = jax.jit(build_mlp(MLPConfig(), 0, V).init)(jax.random.key(0))["params"]
    assert np.var(p["layer_0_kernel"]) == pytest.approx(2 / 784, rel=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maxout": (32, 32)}, "have 3, 2 and 3 entries"),
        ({"channels": (), "maxout": (), "pools": ()}, "one at least"),
        ({"groups": 3}, "groups is 3: it must divide the 32 units of layer 1"),
        ({"groups": 0}, "groups is 0"),
        ({"maxout": (32, 32, 5)}, "maxout is 5 in layer 3: it must divide its 16 channels"),
        ({"maxout": (32, 32, 2)}, "groups is 4: it must divide the 2 units of layer 3"),
        ({"pools": (1, 2, 11)}, "pool of layer 3 is 11: it must be from 1 to 10"),
        ({"pools": (13, 2, 1)}, "pool of layer 2 is 2: it must be from 1 to 0"),
        ({"pools": (0, 2, 2)}, "pools is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_a_configuration_that_is_no_cnn_is_named(change, message):
    with pytest.raises(UserError, match=f"^cnn[.:].*{message}"):
        models.build(dataclasses.replace(CNNConfig(), **change), 0, V)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"widths": ()}, "widths is empty"), ({"widths": (8, 0)}, "widths is 0"), ({"dropout": -0.1}, "dropout is -0.1")],
)
def test_a_configuration_that_is_no_mlp_is_named(change, message):
    with pytest.raises(UserError, match=rf"^mlp\.{message}"):
        models.build(dataclasses.replace(MLPConfig(), **change), 0, V)
