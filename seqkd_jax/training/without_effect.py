"""Settings that cannot act in a run, because of its length or of other settings; said in one line each at its start.

Each rule is a function (configuration, length of the run) -> lines. A line names the setting, its value and the
remedy. Settings that exclude each other are errors and stand elsewhere; these are legal, and hardly what was meant.
"""

import math
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any, NamedTuple

from seqkd_jax.config import LossConfig, OptimiserConfig, TrainConfig
from seqkd_jax.losses import LOSSES
from seqkd_jax.training.optimizer import SCHEDULES, with_warmup


class Length(NamedTuple):
    """How long a run is, if nothing stops it early."""

    updates: int
    updates_per_epoch: int

    @property
    def epochs(self) -> int:
        """Epochs that are ended or begun."""
        return math.ceil(self.updates / self.updates_per_epoch)


def without_effect(config: TrainConfig, length: Length) -> list[str]:
    """A line for each setting that cannot act."""
    return [line for rule in RULES for line in rule(config, length)]


def warmup(config: TrainConfig, length: Length) -> Iterator[str]:
    """A warm-up that takes most of the run, or is longer."""
    given, total = config.optimiser.warmup_steps, length.updates
    if given is not None and config.optimiser.schedule != "paper" and 2 * given > total:
        fits = with_warmup(replace(config.optimiser, warmup_steps=None), total).warmup_steps
        late = "never reaches" if given > total else f"only after update {given:,} reaches"
        yield (
            f"optimiser.warmup_steps is {given:,}, the run has {total:,} updates: the rate {late} "
            f"{config.optimiser.learning_rate:g}; leave it out for {fits:,}, or train longer"
        )


# Field of the optimiser -> the schedules, or the optimisers, that read it.
OF_SCHEDULE = {
    "warmup_steps": tuple(SCHEDULES),
    "decay_from_epoch": ("paper",),
    "decay_factor": ("paper", "exponential"),
    "hold_steps": ("exponential",),
    "decay_steps": ("exponential", "cosine_restarts"),
    "restart_stretch": ("cosine_restarts",),
    "restart_peak": ("cosine_restarts",),
    "restart_floor": ("cosine_restarts",),
}
OF_NAME = {"b1": ("adam", "adamw", "lion"), "b2": ("adam", "adamw", "lion"), "epsilon": ("adam", "adamw")}


def of_another(config: TrainConfig, length: Length) -> Iterator[str]:
    """What another schedule, optimiser or loss reads."""
    rule, default = config.optimiser, OptimiserConfig()
    for chosen, what, readers in (("schedule", "schedule", OF_SCHEDULE), ("name", "optimiser", OF_NAME)):
        for field, read_by in readers.items():
            value = getattr(rule, field)
            if value and value != getattr(default, field) and getattr(rule, chosen) not in read_by:
                yield (
                    f"optimiser.{field} is {value}, which the {what} {getattr(rule, chosen)} does not read; leave it "
                    f"out, or set optimiser.{chosen} to {' or '.join(read_by)}"
                )
    for field in fields(LossConfig):
        value = getattr(config.loss, field.name)
        if field.name in OF_TEACHER and value != field.default and not LOSSES[config.loss.name].needs_teacher:
            yield f"loss.{field.name} is {value}, which the loss {config.loss.name} does not read; leave it out"
    if config.loss.top_k != LossConfig.top_k and not LOSSES[config.loss.name].top_k:
        yield f"loss.top_k is {config.loss.top_k}, which the loss {config.loss.name} does not read; leave it out"


OF_TEACHER = ("alpha", "temperature", "temperature_scaling", "teacher_dropout")


def decay(config: TrainConfig, length: Length) -> Iterator[str]:
    """A decay that begins after the end."""
    rule, total = config.optimiser, length.updates
    if rule.schedule == "paper" and rule.decay_from_epoch >= length.epochs:
        yield (
            f"optimiser.decay_from_epoch is {rule.decay_from_epoch}, the run has {length.epochs} epochs: the rate "
            "decays only if the validation perplexity rises; lower it, or train longer"
        )
    begins = (rule.warmup_steps or 0) + rule.hold_steps
    if rule.schedule == "exponential" and begins >= total:
        yield (
            f"optimiser.warmup_steps and optimiser.hold_steps are {begins:,} together, the run has {total:,} updates: "
            "the rate never decays; lower one, or train longer"
        )
    if rule.schedule == "cosine_restarts" and rule.decay_steps >= total:
        yield (
            f"optimiser.decay_steps is {rule.decay_steps:,}, the run has {total:,} updates: the cosine never restarts; "
            "lower it, or train longer"
        )


def limits(config: TrainConfig, length: Length) -> Iterator[str]:
    """An end that another limit precedes."""
    if (most := config.epochs * length.updates_per_epoch) < config.max_steps:
        wanted = math.ceil(config.max_steps / length.updates_per_epoch)
        yield (
            f"max_steps is {config.max_steps:,}, but {config.epochs} epochs end the run after {most:,} updates; set "
            f"epochs to {wanted:,} to reach it"
        )


def intervals(config: TrainConfig, length: Length) -> Iterator[str]:
    """What is done every so many updates, or after so many validations, and more often than there are any."""
    total, by_epoch = length.updates, not config.validate_every or config.optimiser.schedule == "paper"
    if config.validate_every > total and not by_epoch:
        yield (
            f"validate_every is {config.validate_every:,}, the run has {total:,} updates: it is validated at its end "
            "only; lower it"
        )
    ends = {total} | (set(range(length.updates_per_epoch, total, length.updates_per_epoch)) if by_epoch else set())
    if config.validate_every:
        ends |= set(range(config.validate_every, total, config.validate_every))
    if config.patience and config.patience + 1 >= len(ends):  # the first validation is always better than none
        yield (
            f"patience is {config.patience:,}, the run has {len(ends):,} validations: it cannot stop early; lower it, "
            "or validate more often (validate_every)"
        )
    if config.log_every > total and config.log_every != TrainConfig().log_every:
        yield (
            f"log_every is {config.log_every:,}, the run has {total:,} updates: metrics.jsonl has its validations "
            "only; lower it"
        )


def average(config: TrainConfig, length: Length) -> Iterator[str]:
    """A moving average that is longer than the run: its own warm-up, (1 + n) / (10 + n), never reaches the decay."""
    reached = length.updates / (9 + length.updates)
    if config.average_decay > reached:
        yield (
            f"average_decay is {config.average_decay:g}, the run has {length.updates:,} updates: the average's own "
            f"warm-up ends at {reached:.4g}; lower it below that, or train longer"
        )


RULES: tuple[Any, ...] = (warmup, of_another, decay, limits, intervals, average)
