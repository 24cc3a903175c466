"""Batch normalisation: by the batch in training, later by running statistics, which an update moves."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqkd_jax import models
from seqkd_jax.config import CNNConfig, MLPConfig, OptimiserConfig, TrainConfig
from seqkd_jax.training import train_step
from seqkd_jax.types import STATISTICS, Batch, UserError

MLP = MLPConfig((6, 4), dropout=0.0, norm="batch")
CNN = CNNConfig((4, 2), (2, 2), (2, 2), groups=1, dropout=0.0, norm="batch")


def made(config):
    model = models.build(config, 0, 3)
    return model, model.init(jax.random.key(0))


def images(count):
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (count, 28, 28)), jnp.uint8)


def reference(params, read):
    """The MLP in NumPy, float64: features by the batch's statistics, and these."""
    x, found = np.asarray(read, np.float64).reshape(len(read), -1) / 255, {}
    for layer in range(2):
        own = {name: np.asarray(params["params"][f"layer_{layer}_{name}"], np.float64) for name in PARTS}
        x = np.maximum(x @ own["kernel"] + own["bias"], 0)
        mean, variance = x.mean(0), x.var(0)
        found |= {f"layer_{layer}_mean": mean, f"layer_{layer}_variance": variance}
        x = (x - mean) / np.sqrt(variance + 1e-3) * own["scale"] + own["shift"]
    return x, found


PARTS = ("kernel", "bias", "scale", "shift")


def test_features_and_statistics_against_numpy():
    """Rows of weight 0 do not count."""
    model, params = made(MLP)
    read = images(5)
    features, found = model.observed(
        params, jnp.concatenate([read, images(2)]), None, jnp.array([[1.0]] * 5 + [[0.0]] * 2)
    )
    expected, statistics = reference(params, read)
    np.testing.assert_allclose(features[:5, 0], expected, rtol=1e-3, atol=1e-4)
    assert found.keys() == statistics.keys() == params[STATISTICS].keys()
    for name, value in statistics.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("config", [MLP, CNN], ids=["mlp", "cnn"])
def test_by_the_statistics_of_a_batch_features_are_what_training_sees(config):
    """And by others they are not: what is evaluated depends on no other image."""
    model, params = made(config)
    read = images(4)
    features, found = model.observed(params, read, None, jnp.ones((4, 1)))
    own = {**params, STATISTICS: found}
    np.testing.assert_allclose(model.features(own, read, None), features, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.features(own, read[:1], None), features[:1], rtol=1e-5, atol=1e-5)
    assert not np.allclose(model.features(params, read, None), features, atol=1e-3)


def test_an_update_moves_the_running_statistics_and_nothing_else_does():
    """Of each replica towards its batch's; a strong decay of weights leaves them alone."""
    model = models.build(MLP, 0, 3)
    config = TrainConfig(optimiser=OptimiserConfig("sgd", 0.1, "constant", 0, l2=0.5), replicas=2, devices=1)
    devices = train_step.devices(1)
    state = train_step.start_state(model, config)
    before = jax.tree.map(np.array, state.params)
    batch = Batch(images(4), np.zeros((4, 1), np.int32), np.ones((4, 1), np.float32))
    arranged = train_step.arrange(batch, 1, 1)
    update = train_step.update_for(model, config, devices)
    after, _ = update(train_step.replicate(state, devices), *arranged, train_step.settings(config, 0.1), None)
    for place in range(2):
        old, new = (
            jax.tree.map(lambda leaf, place=place: np.asarray(leaf)[place], one) for one in (before, after.params)
        )
        _, observed = model.observed(old, batch.inputs, None, jnp.asarray(batch.weights))
        for name, value in observed.items():
            expected = 0.99 * old[STATISTICS][name] + 0.01 * np.asarray(value)
            np.testing.assert_allclose(new[STATISTICS][name], expected, rtol=1e-5, atol=1e-6)
        assert not np.allclose(old["params"]["layer_0_kernel"], new["params"]["layer_0_kernel"], atol=1e-4)


def test_only_a_whole_batch_is_normalised():
    model, config = models.build(MLP, 0, 3), TrainConfig(accumulate=2, devices=1)
    with pytest.raises(UserError, match="leave accumulate at 1"):
        batch = Batch(images(4), np.zeros((4, 1), np.int32), np.ones((4, 1), np.float32))
        state = train_step.start_state(model, config)
        update = train_step.update_for(model, config, train_step.devices(1))
        update(state, *train_step.arrange(batch, 1, 2), train_step.settings(config, 0.1), None)
    with pytest.raises(UserError, match="train on one device"):
        train_step.update_for(model, dataclasses.replace(config, accumulate=1, parts=2), train_step.devices(1))


def test_by_default_each_image_is_normalised_by_itself():
    for config in (MLPConfig(), CNNConfig()):
        model = models.build(config, 0, 3)
        assert model.observed is None and STATISTICS not in jax.eval_shape(model.init, jax.random.key(0))
