"""The chain against the definitions in NumPy float64; learning rates against optax's schedules and rules by hand."""

import dataclasses
from typing import get_args, get_type_hints

import jax
import numpy as np
import optax
import pytest

from seqkd_jax.config import OptimiserConfig
from seqkd_jax.training import optimizer
from seqkd_jax.training.optimizer import Decay, after_epoch, learning_rate
from seqkd_jax.types import UserError

DIVISOR = 7.0
CHAINS = {
    "sgd": (OptimiserConfig("sgd"), 0.0),
    "sgd, l2, clipped": (OptimiserConfig("sgd", l2=0.05), 0.5),
    "adam": (OptimiserConfig("adam", b1=0.8, b2=0.9, epsilon=1e-3), 0.0),
    "adam, l2, clipped": (OptimiserConfig("adam", l2=0.05), 0.5),
    "adamw, clipped": (OptimiserConfig("adamw", weight_decay=0.1), 0.5),
    "adafactor": (OptimiserConfig("adafactor", weight_decay=0.1), 0.0),
    "lion, clipped": (OptimiserConfig("lion", b1=0.7, b2=0.8, weight_decay=0.1), 0.5),
}


def example(seed):
    """A tree like that of weights; "large" is a matrix whose second moments Adafactor keeps by row and column."""
    rng = np.random.default_rng(seed)
    shapes = {"large": (130, 128), "matrix": (3, 4), "bias": (4,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def chain(config, clip_norm, held=None, updates=3):
    """Weights after each of some updates, made by the chain."""
    made = optimizer.optimiser(optimizer.static_rule(config))
    params = example(0)
    state, after = made.init(params), []

    @jax.jit
    def update(params, state, gradient, rate):
        scalars = {"divisor": np.float32(DIVISOR), "clip_norm": np.float32(clip_norm), "rate": rate}
        updates, state = made.update(gradient, state, params, held=held, **scalars)
        return optax.apply_updates(params, updates), state

    for step in range(1, updates + 1):
        params, state = update(params, state, example(step), np.float32(0.1 / step))
        after.append(params)
    return after, state


def by_definition(config, clip_norm, updates=3):
    """The same in float64, written out; also the norm of the last gradient before clipping."""
    params = {name: leaf.astype(np.float64) for name, leaf in example(0).items()}
    moments = {name: {} for name in params}
    after = []
    for step in range(1, updates + 1):
        pull = {name: 2 * config.l2 * leaf * (leaf.ndim > 1) for name, leaf in params.items()}
        gradient = {name: leaf.astype(np.float64) / DIVISOR + pull[name] for name, leaf in example(step).items()}
        norm = np.sqrt(sum(np.square(leaf).sum() for leaf in gradient.values()))
        clip = clip_norm / norm if 0 < clip_norm < norm else 1.0
        assert clip_norm == 0 or clip < 1, "the example must clip"
        for name, p in params.items():
            direction = DIRECTIONS[config.name](config, gradient[name] * clip, moments[name], p, step)
            decay = config.weight_decay * p * (p.ndim > 1)
            params[name] = p - 0.1 / step * (direction + decay)
        after.append(dict(params))
    return after, norm


def adam(config, g, kept, p, step):
    kept["m"] = config.b1 * kept.get("m", 0) + (1 - config.b1) * g
    kept["v"] = config.b2 * kept.get("v", 0) + (1 - config.b2) * g**2
    m, v = kept["m"] / (1 - config.b1**step), kept["v"] / (1 - config.b2**step)
    return m / (np.sqrt(v) + config.epsilon)


def adafactor(config, g, kept, p, step):
    """Shazeer & Stern 2018, algorithms 4 and 5, without momentum."""
    decay = 1 - step**-0.8
    kept["v"] = decay * kept.get("v", 0) + (1 - decay) * (g**2 + 1e-30)
    v = kept["v"]
    if min(g.shape) >= 128:  # the mean over a row of a sum over time is the sum of the means
        v = v.mean(1, keepdims=True) * v.mean(0, keepdims=True) / v.mean()
    direction = g / np.sqrt(v)
    direction = direction / max(1.0, np.sqrt(np.mean(direction**2)))
    return direction * max(1e-3, np.sqrt(np.mean(p**2)))


def lion(config, g, kept, p, step):
    """Chen et al. 2023, algorithm 2."""
    before = kept.get("m", 0)
    kept["m"] = config.b2 * before + (1 - config.b2) * g
    return np.sign(config.b1 * before + (1 - config.b1) * g)


DIRECTIONS = {"sgd": lambda config, g, *_: g, "adam": adam, "adamw": adam, "adafactor": adafactor, "lion": lion}


def choices(field):
    return set(get_args(get_type_hints(OptimiserConfig)[field]))


def test_every_optimiser_has_a_definition_here():
    assert DIRECTIONS.keys() == optimizer.DIRECTIONS.keys() == choices("name")
    assert {config.name for config, _ in CHAINS.values()} == choices("name")


@pytest.mark.parametrize("case", CHAINS)
def test_updates_are_those_of_the_definition(case):
    found, state = chain(*CHAINS[case])
    expected, norm = by_definition(*CHAINS[case])
    for step, (ours, theirs) in enumerate(zip(found, expected, strict=True), start=1):
        for name, leaf in theirs.items():
            message = f"{name} after update {step} of {case}"
            np.testing.assert_allclose(ours[name], leaf, rtol=2e-5, atol=2e-6, err_msg=message)
    assert float(optimizer.gradient_norm(state)) == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("case", ["sgd, l2, clipped", "adam", "adamw, clipped", "adafactor", "lion, clipped"])
def test_weights_that_are_held_are_exactly_zero(case):
    """From the first update on, whatever decay and moments want; the others are updated, by a norm of their own."""
    held = jax.tree.map(lambda leaf: leaf > 0.5, example(9))
    after, state = chain(*CHAINS[case], held=held)
    if not CHAINS[case][0].l2:
        others = np.concatenate([leaf[~held[name]].astype(np.float64) for name, leaf in example(3).items()])
        norm = float(optimizer.gradient_norm(state))
        assert norm == pytest.approx(np.linalg.norm(others) / DIVISOR, rel=1e-5)
    for params in after:
        for name, leaf in params.items():
            assert not np.asarray(leaf)[held[name]].any(), f"{name}: a weight that is held is not zero"
            assert (np.asarray(leaf) != example(0)[name])[~held[name]].all()


def test_what_holds_no_weight_changes_nothing():
    case = CHAINS["adamw, clipped"]
    nothing = jax.tree.map(lambda leaf: np.zeros(leaf.shape, bool), example(0))
    for a, b in zip(chain(*case)[0], chain(*case, held=nothing)[0], strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)


def test_the_chain_is_the_same_whatever_is_an_argument():
    """Runs that differ in what is not compiled in share a program."""
    config = OptimiserConfig("sgd", 0.1, "cosine", clip_norm=1.0, warmup_steps=5, l2=0.1, weight_decay=0.2)
    other = dataclasses.replace(config, learning_rate=0.3, schedule="paper", clip_norm=0.0, warmup_steps=9)
    assert optimizer.static_rule(config) == optimizer.static_rule(other)
    assert optimizer.static_rule(config) != optimizer.static_rule(dataclasses.replace(config, weight_decay=0.3))


PAPER = OptimiserConfig(name="sgd", learning_rate=1.0, schedule="paper", decay_from_epoch=4)


def rates(losses, config=PAPER):
    """The rate of every epoch, given the validation loss at its end."""
    decay, found = Decay(), []
    for epoch, loss in enumerate(losses, 1):
        found.append(learning_rate(config, 1, 1, decay))
        decay = after_epoch(config, decay, epoch, loss)
    return found


def test_paper_rule_halves_every_epoch_from_the_named_one():
    assert rates([6, 5, 4, 3, 2, 1]) == [1, 1, 1, 1, 0.5, 0.25], "decay starts after epoch 4"


def test_paper_rule_is_sticky_once_validation_has_risen():
    assert rates([6, 7, 5, 3, 2]) == [1, 1, 0.5, 0.25, 0.125], "one rise decays every later epoch"


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.25, 0.5, 1.0, 1.0, 1.0, 1.0]),
        ("inverse_sqrt", [0.25, 0.5, 1.0, (4 / 5) ** 0.5, (4 / 8) ** 0.5, (4 / 12) ** 0.5]),
        ("cosine", [0.25, 0.5, 1.0, 0.9619397662556434, 0.5, 0.0]),
    ],
)
def test_warmed_up_schedules(schedule, expected):
    config = OptimiserConfig(learning_rate=1.0, schedule=schedule, warmup_steps=4)
    found = [learning_rate(config, step, 12, Decay()) for step in (1, 2, 4, 5, 8, 12)]
    assert found == pytest.approx(expected)


def test_exponential_decay_begins_after_warm_up_and_hold():
    """As the schedule of Abnar et al.'s code: a warm-up that decays at once never comes near the peak rate."""
    options = {"warmup_steps": 4, "hold_steps": 3, "decay_steps": 2, "decay_factor": 0.5}
    config = OptimiserConfig(learning_rate=1.0, schedule="exponential", **options)
    found = [learning_rate(config, step, 20, Decay()) for step in (1, 2, 4, 5, 7, 9, 11)]
    assert found == pytest.approx([0.25, 0.5, 1.0, 1.0, 1.0, 0.5, 0.25])


def periods(config, count):
    """The arguments of optax's cosines, one after the other."""
    length, peak, floor = config.decay_steps, 1.0, config.restart_floor
    for _ in range(count):
        top = config.learning_rate * (floor + (1 - floor) * peak)
        end = config.learning_rate * floor
        yield {"init_value": top, "peak_value": top, "warmup_steps": 0, "decay_steps": length, "end_value": end}
        length, peak = length * config.restart_stretch, peak * config.restart_peak


TOTAL = 90
RATES = OptimiserConfig(
    learning_rate=0.3,
    warmup_steps=8,
    decay_factor=0.7,
    hold_steps=5,
    decay_steps=10,
    restart_stretch=1.5,
    restart_peak=0.9,
    restart_floor=0.1,
)
OPTAX = {
    "constant": (8, lambda config: optax.warmup_constant_schedule(0.0, 0.3, 8)),
    "cosine": (8, lambda config: optax.warmup_cosine_decay_schedule(0.0, 0.3, 8, TOTAL)),
    "exponential": (8, lambda config: optax.warmup_exponential_decay_schedule(0.0, 0.3, 8, 10, 0.7, 5)),
    "cosine_restarts": (0, lambda config: optax.sgdr_schedule(periods(config, 5))),  # optax counts from 0
}


@pytest.mark.parametrize("name", OPTAX)
def test_schedules_are_optax_s(name):
    """In float64: theirs are made of JAX's functions, and float32 otherwise."""
    warmup, theirs = OPTAX[name]
    config = dataclasses.replace(RATES, schedule=name, warmup_steps=warmup)
    found = [learning_rate(config, step, TOTAL, Decay()) for step in range(1, TOTAL + 1)]
    with jax.enable_x64(True):
        expected = theirs(config)(np.arange(TOTAL) + (name != "cosine_restarts"))
    np.testing.assert_allclose(found, np.broadcast_to(expected, TOTAL), rtol=1e-12, atol=1e-15)


def test_every_schedule_is_held_to_another():
    assert optimizer.SCHEDULES.keys() == OPTAX.keys() | {"inverse_sqrt"}, "optax has no inverse square root"
    assert optimizer.SCHEDULES.keys() | {"paper"} == choices("schedule")


@pytest.mark.parametrize(
    ("name", "decay", "message"),
    [
        ("adam", 0.1, "weight_decay is 0.1: adam has no decoupled decay"),
        ("adamw", 0.0, "weight_decay is 0.0: adamw needs"),
    ],
)
def test_decay_and_name_that_do_not_fit(name, decay, message):
    with pytest.raises(UserError, match=message):
        OptimiserConfig(name, weight_decay=decay).validate()
