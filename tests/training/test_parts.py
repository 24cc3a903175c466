"""Updates with the same bits on any number of devices."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny_studies import MeanConfig, build_mean
from updates import CONFIG, MODEL, V, assert_close, batch

from seqkd_jax.config import LossConfig, TrainConfig
from seqkd_jax.training import parts, train_step
from seqkd_jax.types import UserError

MEAN = build_mean(MeanConfig(every=True), V, V)


def mean_batch(seed):
    made = batch(seed)
    return made._replace(inputs=made.inputs[1])


def trained(model, batches, config, count, teacher=None):
    """The leaves of state and metrics after an update for each batch, on so many devices."""
    chosen = tuple(jax.local_devices()[:count])
    update = train_step.update_for(model, config, chosen, teacher)
    state = train_step.replicate(train_step.start_state(model, config), chosen)
    known = train_step.replicate(teacher.params, chosen) if teacher else None
    for one in batches:
        arranged = train_step.arrange(one, count, parts.microbatches(config, count))
        state, metrics = update(state, *arranged, train_step.settings(config, 0.5), known)
    return jax.tree.map(np.asarray, (state, metrics))


def bits(tree):
    return [leaf.tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("replicas", [1, 2])
def test_parts_are_the_same_bits_on_any_number_of_devices(replicas):
    config = dataclasses.replace(CONFIG, parts=4, average_decay=0.5, replicas=replicas)
    made = [mean_batch(seed) for seed in range(3)]
    one, two, four = (trained(MEAN, made, config, count) for count in (1, 2, 4))
    assert bits(one) == bits(two) == bits(four), "a program of `parts` depends on the devices"
    whole = trained(MEAN, made, dataclasses.replace(config, parts=0), 1)
    assert_close(one[0], whole[0], "parts add up to another update than the whole batch")


def test_a_taught_model_too():
    """Word-KD whose teacher keeps its dropout, of a batch that does not divide evenly."""
    config = dataclasses.replace(CONFIG, parts=4, loss=LossConfig("word_kd", alpha=0.5, teacher_dropout=True))
    teacher = train_step.Teacher(MODEL, MODEL.init(jax.random.key(1)))
    odd = jax.tree.map(lambda array: array[:-1], batch(0))
    one, two = (trained(MODEL, [odd], config, count, teacher) for count in (1, 2))
    assert bits(one) == bits(two), "a program of `parts` depends on the devices"


def test_neighbours_are_added_first():
    said = parts.in_pairs("abcdefgh", "({}+{})".format)
    assert said == "(((a+b)+(c+d))+((e+f)+(g+h)))"
    assert parts.in_pairs(["a"], "({}+{})".format) == "a"


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"parts": 3}, "parts is 3: it must be a power of two, or 0"),
        ({"parts": 2, "accumulate": 2}, "leave accumulate out"),
    ],
)
def test_parts_that_cannot_be_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        TrainConfig(**settings).validate()


def test_parts_must_divide_among_the_devices():
    with pytest.raises(UserError, match="parts=4 do not divide among 3 devices"):
        parts.microbatches(TrainConfig(parts=4), 3)
