"""Settings that cannot act are said, each in one line with its remedy; those that act are not."""

import dataclasses
import re

import pytest
from updates import CONFIG, fit, killed_at, stream

from seqkd_jax import checkpoint
from seqkd_jax.config import LossConfig, OptimiserConfig, TrainConfig
from seqkd_jax.training.optimizer import Decay, learning_rate, with_warmup
from seqkd_jax.training.without_effect import Length, without_effect
from seqkd_jax.types import UserError

LENGTH = Length(550, 55)


def optimiser(**settings):
    return TrainConfig(optimiser=OptimiserConfig(**settings))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (optimiser(warmup_steps=600), "optimiser.warmup_steps is 600, the run has 550 updates: the rate never reaches"),
        (optimiser(warmup_steps=400), "the rate only after update 400 reaches 0.001; leave it out for 137, or"),
        (optimiser(schedule="paper", warmup_steps=5), "optimiser.warmup_steps is 5, which the schedule paper does not"),
        (optimiser(hold_steps=9), "which the schedule inverse_sqrt does not read; leave it out, or set .* exponential"),
        (optimiser(name="sgd", b1=0.5), "optimiser.b1 is 0.5, which the optimiser sgd does not read"),
        (optimiser(name="lion", epsilon=1e-6), "optimiser.epsilon is 1e-06, which the optimiser lion does not read"),
        (TrainConfig(loss=LossConfig(alpha=0.3)), "loss.alpha is 0.3, which the loss nll does not read; leave it out"),
        (optimiser(schedule="paper", decay_from_epoch=10), "has 10 epochs: the rate decays only if the validation"),
        (optimiser(schedule="exponential", hold_steps=550), "550 together, the run has 550 updates: the rate never"),
        (optimiser(schedule="cosine_restarts", decay_steps=550), "is 550, the run has 550 updates: .* never restarts"),
        (
            TrainConfig(max_steps=4000),
            "max_steps is 4,000, but 10 epochs end the run after 550 .* epochs to 73",
        ),
        (TrainConfig(validate_every=551), "validate_every is 551, the run has 550 updates: it is validated at its end"),
        (TrainConfig(patience=9), "patience is 9, the run has 10 validations: it cannot stop early; lower it"),
        (TrainConfig(patience=5, validate_every=100), "patience is 5, the run has 6 validations"),
        (TrainConfig(log_every=551), "log_every is 551, the run has 550 updates: metrics.jsonl has its validations"),
        (
            TrainConfig(average_decay=0.999),
            "average_decay is 0.999, .* own warm-up ends at 0.9839; lower",
        ),
    ],
)
def test_what_cannot_act(config, said):
    (line,) = without_effect(config, LENGTH)
    assert "\n" not in line and re.search(said, line), line


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(),
        TrainConfig(max_steps=550, patience=8, validate_every=50, log_every=550, average_decay=0.98),
        optimiser(warmup_steps=275),
        optimiser(schedule="paper", decay_from_epoch=9, warmup_steps=0),
        optimiser(schedule="exponential", warmup_steps=100, hold_steps=100, decay_factor=0.9),
        optimiser(schedule="cosine_restarts", decay_steps=100, restart_floor=0.1),
        TrainConfig(loss=LossConfig("word_kd", alpha=0.3, temperature=2.0)),
    ],
)
def test_what_acts(config):
    assert without_effect(config, LENGTH) == []


@pytest.mark.parametrize(("updates", "expected"), [(3, 0), (550, 137), (1599, 399), (1600, 400), (10**6, 400)])
def test_the_warm_up_of_a_short_run_is_a_share_of_it(updates, expected):
    settled = with_warmup(OptimiserConfig(), updates)
    assert settled.warmup_steps == expected
    assert with_warmup(OptimiserConfig(warmup_steps=400), updates).warmup_steps == 400, "what is given is not changed"
    peak = learning_rate(OptimiserConfig(), max(expected, 1), updates, Decay())
    assert peak == OptimiserConfig().learning_rate == learning_rate(settled, max(expected, 1), updates, Decay())


DEFAULT = dataclasses.replace(CONFIG, optimiser=dataclasses.replace(CONFIG.optimiser, warmup_steps=None))
BEFORE = dataclasses.replace(CONFIG, optimiser=dataclasses.replace(CONFIG.optimiser, warmup_steps=400))


def test_it_is_said_at_the_start_and_the_run_remembers_its_warm_up(tmp_path, capfd):
    fit(tmp_path / "default", dataclasses.replace(DEFAULT, epochs=9))
    config = checkpoint.read_record(tmp_path / "default" / "last")["metadata"]["config"]
    assert config["optimiser"]["warmup_steps"] == 6, "a quarter of 27 updates"
    assert "warmup_steps" not in capfd.readouterr().err
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "before", BEFORE, killed_at(stream, 4))
    assert (
        "the run has 6 updates: the rate never reaches 0.5; leave it out for 1" in capfd.readouterr().err.split("\n")[0]
    )
    fit(tmp_path / "before", DEFAULT)
    config = checkpoint.read_record(tmp_path / "before" / "last")["metadata"]["config"]
    assert config["optimiser"]["warmup_steps"] == 400, "a run of an older version keeps its schedule"
    other = dataclasses.replace(CONFIG.optimiser, warmup_steps=3)
    with pytest.raises(UserError, match="holds a run with optimiser.warmup_steps=400, not 3"):
        fit(tmp_path / "before", dataclasses.replace(CONFIG, optimiser=other))
