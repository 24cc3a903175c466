"""One update: the same on any number of devices, and the one that its definition says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from updates import CONFIG, MODEL, ROWS, SGD, T, V, assert_close, batch

from seqkd_jax import models
from seqkd_jax.config import LossConfig, LSTMConfig
from seqkd_jax.training import train_step
from seqkd_jax.types import Model
from seqkd_jax.utils import programs


def updated(devices=1, accumulate=1, updates=2, config=CONFIG):
    """The state after some updates, made directly."""
    chosen = tuple(jax.local_devices()[:devices])
    update = train_step.make_update(
        MODEL, config.loss.name, train_step.static_rule(config.optimiser), config.average_decay > 0, None, chosen
    )
    state = train_step.replicate(train_step.start_state(MODEL, config), chosen)
    for seed in range(updates):
        arranged = train_step.arrange(batch(seed), devices, accumulate)
        state, metrics = update(state, *arranged, train_step.settings(config, 0.5), None)
    return state, metrics


@pytest.mark.parametrize("normalise", ["tokens", "sentences"])
def test_four_devices_and_microbatches_are_one_device(normalise):
    config = dataclasses.replace(CONFIG, optimiser=dataclasses.replace(SGD, normalise=normalise))
    whole, measured = updated(config=config)
    for devices, accumulate in [(2, 2)] if normalise == "sentences" else [(4, 1), (1, 3)]:
        split, metrics = updated(devices, accumulate, config=config)
        where = f"{devices} devices, {accumulate} microbatches, dropout on: rows or keys depend on the split"
        assert_close(split.params, whole.params, where)
        assert_close(metrics, measured, where)
        for leaf in jax.tree.leaves(split):
            copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
            assert len(copies) == devices
            assert all(np.array_equal(copy, copies[0]) for copy in copies), "a value was not reduced over devices"


def test_a_taught_update_is_one_device_s_too():
    """Word-KD whose teacher keeps its dropout, of a batch that does not divide evenly."""
    config = dataclasses.replace(CONFIG, loss=LossConfig("word_kd", alpha=0.5, teacher_dropout=True))
    teacher = train_step.Teacher(MODEL, train_step.start_state(MODEL, dataclasses.replace(CONFIG, seed=9)).params)

    def taught(devices, accumulate):
        chosen = tuple(jax.local_devices()[:devices])
        state = train_step.replicate(train_step.start_state(MODEL, config), chosen)
        arguments = *train_step.arrange(batch(0), devices, accumulate), train_step.settings(config, 0.5), teacher.params
        return train_step.update_for(MODEL, config, chosen, teacher)(state, *arguments)

    assert_close(taught(2, 2), taught(1, 1), "a teacher's rows or keys depend on the split")


def gradient_of_the_mean(made, params, divisor, step=0):
    """Of the loss of a batch, dropout on, written out."""
    step_key = jax.random.fold_in(jax.random.key(3), step)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, np.arange(ROWS))

    def mean_loss(params):
        logits = MODEL.head(params, MODEL.features(params, made.inputs, keys))
        picked = jax.nn.log_softmax(logits)[np.arange(ROWS)[:, None], np.arange(T), made.labels]
        return -(picked * made.weights).sum() / divisor

    return jax.grad(mean_loss)(params)


@pytest.mark.parametrize("normalise", ["tokens", "sentences"])
def test_update_is_clipped_gradient_of_the_mean_loss(normalise):
    rule = dataclasses.replace(SGD, clip_norm=0.05, normalise=normalise)
    config = dataclasses.replace(CONFIG, optimiser=rule)
    before = train_step.start_state(MODEL, config)
    after, metrics = updated(updates=1, config=config)
    made = batch(0)
    divisor = ROWS if normalise == "sentences" else made.weights.sum()
    gradient = gradient_of_the_mean(made, before.params, divisor)
    norm = np.sqrt(sum(float(np.square(leaf).sum()) for leaf in jax.tree.leaves(gradient)))
    assert norm > 0.05, "the test must clip"
    assert float(metrics.gradient_norm) == pytest.approx(norm, rel=1e-4)
    expected = jax.tree.map(lambda p, g: p - 0.5 * g * 0.05 / norm, before.params, gradient)
    assert_close(after.params, expected, "one SGD step written out")


def test_l2_pulls_on_matrices():
    """The gradient of the mean loss and of l2 times the sum of their squares."""
    rule = dataclasses.replace(SGD, clip_norm=0.0, l2=0.05)
    config = dataclasses.replace(CONFIG, optimiser=rule)
    before = train_step.start_state(MODEL, config).params
    made = batch(0)
    gradient = gradient_of_the_mean(made, before, made.weights.sum())
    pulled = jax.tree.map(lambda g, p: g + 0.1 * p if p.ndim > 1 else g, gradient, before)
    assert any(leaf.ndim == 1 for leaf in jax.tree.leaves(before)), "the example needs biases"
    after, _ = updated(updates=1, config=config)
    assert_close(after.params, jax.tree.map(lambda p, g: p - 0.5 * g, before, pulled), "one step written out")


def test_a_gradient_that_is_not_finite_changes_nothing():
    """Of a finite loss: the square root is 0 at 0, and steep without bound."""

    def features(params, inputs, keys):
        steep = jnp.sqrt(params - jax.lax.stop_gradient(params))
        return jnp.broadcast_to(steep[None, None], (*inputs[1].shape, V))

    model = Model(init=lambda key: jnp.ones(V), features=features, head=lambda params, features, ids=None: features)
    devices = tuple(jax.local_devices()[:1])
    state = train_step.replicate(train_step.start_state(model, CONFIG), devices)
    before = jax.tree.map(np.array, state)
    arguments = *train_step.arrange(batch(0), 1, 1), train_step.settings(CONFIG, 0.5), None
    after, metrics = train_step.update_for(model, CONFIG, devices)(state, *arguments)
    assert np.isfinite(metrics.loss_sum) and not np.isfinite(metrics.gradient_norm)
    jax.tree.map(np.testing.assert_array_equal, after, before)


def test_runs_that_differ_in_scalars_share_one_program():
    programs.count()
    updated()
    before = len(programs.built())
    loss = LossConfig(alpha=0.9, temperature=2.0, label_smoothing=0.1)
    updated(config=dataclasses.replace(CONFIG, seed=9, loss=loss, optimiser=dataclasses.replace(SGD, clip_norm=0.0)))
    assert len(programs.built()) == before, f"compiled again: {programs.built()[before:]}"


def test_average_follows_with_warm_up():
    config = dataclasses.replace(CONFIG, average_decay=0.9)
    first = train_step.start_state(MODEL, config).params
    one, two = updated(updates=1, config=config)[0], updated(updates=2, config=config)[0]
    average = jax.tree.map(lambda a, p: a + 0.9 * (p - a), first, one.params)  # decay (1+0)/(10+0)
    average = jax.tree.map(lambda a, p: a + (1 - 2 / 11) * (p - a), average, two.params)
    assert_close(two.average, average, "moving average")


def test_word_kd_with_alpha_one_pulls_to_the_teacher():
    """With the student as its own teacher and no dropout, the gradient of the teacher's term is zero."""
    model = models.build(LSTMConfig(layers=2, size=8, dropout=0.0), V, V)
    config = dataclasses.replace(CONFIG, loss=LossConfig("word_kd", alpha=1.0))
    devices = tuple(jax.local_devices()[:1])
    update = train_step.make_update(model, "word_kd", train_step.static_rule(SGD), False, model, devices)
    state = train_step.replicate(train_step.start_state(model, config), devices)
    teacher = jax.tree.map(np.asarray, state.params)
    _, metrics = update(state, *train_step.arrange(batch(0), 1, 1), train_step.settings(config, 0.5), teacher)
    assert float(metrics.gradient_norm) < 1e-5
