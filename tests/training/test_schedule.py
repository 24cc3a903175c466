"""Learning rates against the rules written out by hand."""

import optax
import pytest

from seqkd_jax.config import OptimiserConfig
from seqkd_jax.training.schedule import Decay, after_epoch, learning_rate

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


def test_exponential_decay_is_optax_s():
    options = {"schedule": "exponential", "warmup_steps": 0, "decay_steps": 10, "decay_factor": 0.8, "hold_steps": 5}
    config = OptimiserConfig(learning_rate=0.1, **options)
    expected = optax.exponential_decay(0.1, transition_steps=10, decay_rate=0.8, transition_begin=5)
    for step in (1, 4, 5, 6, 15, 40):
        assert learning_rate(config, step, 100, Decay()) == pytest.approx(float(expected(step))), f"at update {step}"


def test_exponential_decay_begins_after_warm_up_and_hold():
    """As the schedule of Abnar et al.'s code: a warm-up that decays at once never comes near the peak rate."""
    options = {"warmup_steps": 4, "hold_steps": 3, "decay_steps": 2, "decay_factor": 0.5}
    config = OptimiserConfig(learning_rate=1.0, schedule="exponential", **options)
    found = [learning_rate(config, step, 20, Decay()) for step in (1, 2, 4, 5, 7, 9, 11)]
    assert found == pytest.approx([0.25, 0.5, 1.0, 1.0, 1.0, 0.5, 0.25])


def test_cosine_restarts_begin_anew_longer_and_lower():
    """Periods of 4, 8, 16 updates whose peaks are 1, 0.9, 0.81 of the rate; the end of a period is the floor."""
    config = OptimiserConfig(
        learning_rate=0.5,
        schedule="cosine_restarts",
        warmup_steps=0,
        decay_steps=4,
        restart_stretch=2.0,
        restart_peak=0.9,
        restart_floor=0.1,
    )
    pieces = [optax.cosine_decay_schedule(0.5 * 0.9, 4), optax.cosine_decay_schedule(0.5 * 0.9 * 0.9, 8)]
    pieces.append(optax.cosine_decay_schedule(0.5 * 0.9 * 0.81, 16))
    joined = optax.join_schedules(pieces, [4, 12])
    for step in range(1, 28):
        expected = float(joined(step - 1)) + 0.1 * 0.5
        assert learning_rate(config, step, 28, Decay()) == pytest.approx(expected), f"at update {step}"
