"""The optimiser: one optax chain from a summed gradient to an update, and the schedules of its learning rate.

What differs from run to run without another program is an argument of the chain's update: divisor, clip_norm and rate,
each a scalar. Schedules are functions of numbers on the host, in float64: a rate is one of those arguments, and optax's
own schedules would compile one more program for each run. Tests hold each to optax's schedule of that name.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from seqkd_jax.config import OptimiserConfig

# From a clipped gradient to a direction; decay, rate and sign come after it.
DIRECTIONS: dict[str, Callable[[OptimiserConfig], optax.GradientTransformation]] = {
    "sgd": lambda config: optax.identity(),
    "adam": lambda config: optax.scale_by_adam(config.b1, config.b2, config.epsilon),
    "adamw": lambda config: optax.scale_by_adam(config.b1, config.b2, config.epsilon),
    "adafactor": lambda config: optax.chain(  # as optax.adafactor has it
        optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0), optax.scale_by_param_block_rms()
    ),
    "lion": lambda config: optax.scale_by_lion(config.b1, config.b2),
}


def optimiser(config: OptimiserConfig) -> optax.GradientTransformationExtraArgs:
    """The chain: (gradient, state, params, divisor=, clip_norm=, rate=, held=) -> (update to add, state).

    gradient: summed over the batch. divisor: what that is divided by. clip_norm: of the divided gradient; 0: no
    clipping. held: None, or a tree of booleans, of which the true ones name weights that are zero after the update;
    they have no gradient, so the norm that is clipped is that of the others. Only what `static_rule` keeps of `config`
    matters.
    """
    return optax.named_chain(
        ("cut", cut_gradient()),
        ("l2", add_l2(config.l2)),
        ("clip", divide_and_clip()),
        ("direction", DIRECTIONS[config.name](config)),
        ("decay", optax.add_decayed_weights(config.weight_decay, mask=matrices)),
        ("rate", scale_by_rate()),
        ("hold", hold_at_zero()),
    )


def static_rule(config: OptimiserConfig) -> OptimiserConfig:
    """The part of an optimiser's configuration that is compiled in; the rest at its default."""
    names = ("name", "b1", "b2", "epsilon", "normalise", "l2", "weight_decay")
    return OptimiserConfig(**{name: getattr(config, name) for name in names})


def gradient_norm(state: Any) -> Any:
    """Of the last update, before clipping: read off the state of the chain."""
    return state["clip"].gradient_norm


def matrices(params: Any) -> Any:
    """Which weights l2 and weight_decay act on: those with more than one axis."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def add_l2(l2: float) -> optax.GradientTransformation:
    """Adds the gradient of divisor * l2 * (sum of squares of all matrices); nothing if l2 is 0."""
    if not l2:
        return optax.identity()

    def update(updates, state, params=None, **scalars):
        pull = 2 * l2 * scalars["divisor"]
        return jax.tree.map(lambda g, p: g + pull * p if p.ndim > 1 else g, updates, params), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


class ClipState(NamedTuple):
    gradient_norm: Any  # of the last gradient, divided, before clipping


def divide_and_clip() -> optax.GradientTransformation:
    """Divides a sum by `divisor` and clips the quotient to a global norm of at most `clip_norm`, in one product."""

    def init(params):
        return ClipState(jnp.zeros((), jnp.float32))

    def update(updates, state, params=None, **scalars):
        divisor, clip_norm = scalars["divisor"], scalars["clip_norm"]
        norm = optax.tree.norm(updates) / divisor
        clip = jnp.where((clip_norm > 0) & (norm > clip_norm), clip_norm / norm, 1.0)
        return jax.tree.map(lambda g: g * (clip / divisor), updates), ClipState(norm)

    return optax.GradientTransformationExtraArgs(init, update)


def scale_by_rate() -> optax.GradientTransformation:
    """From a direction to the update: times -`rate`."""

    def update(updates, state, params=None, **scalars):
        return jax.tree.map(lambda d: -scalars["rate"] * d, updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def cut_gradient() -> optax.GradientTransformation:
    """Gradients that are zero for the weights of `held`, as of a model that has not got these."""

    def update(updates, state, params=None, held=None, **_):
        if held is not None:
            updates = jax.tree.map(lambda g, hold: jnp.where(hold, 0.0, g), updates, held)
        return updates, state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def hold_at_zero() -> optax.GradientTransformation:
    """Updates that make the weights of `held` exactly zero, whatever the links before have in mind for them."""

    def update(updates, state, params=None, held=None, **_):
        if held is not None:
            updates = jax.tree.map(lambda u, p, hold: jnp.where(hold, -p, u), updates, params, held)
        return updates, state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def moving_average(average: Any, params: Any, step: Any, decay: Any) -> Any:
    """The average of the weights after update `step`, counted from 0.

    The warm-up keeps the random start out of it (as TensorFlow's ExponentialMovingAverage with num_updates).
    """
    decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda a, p: a + (1.0 - decay) * (p - a), average, params)


class Decay(NamedTuple):
    """What the schedule `paper` remembers from epoch to epoch."""

    factor: float = 1.0  # on the peak rate
    decaying: bool = False
    previous_loss: float = math.inf  # validation, nats per token


def after_epoch(config: OptimiserConfig, decay: Decay, epoch: int, loss: float) -> Decay:
    """The decay after validation at the end of `epoch` (counted from 1), by the rule of harvardnlp/seq2seq-attn.

    From an epoch on, or once validation perplexity has risen, the rate decays after every further epoch.
    """
    decaying = decay.decaying or epoch >= config.decay_from_epoch or loss > decay.previous_loss
    return Decay(decay.factor * (config.decay_factor if decaying else 1.0), decaying, loss)


# Updates where none are set, and the part of a shorter run. inverse_sqrt falls once the warm-up ends: in 550 updates on
# the toy language, a tenth gave perplexity 57.9 (LSTM) and 15.4 (Transformer), a quarter 45.6 and 12.0.
WARMUP, WARMUP_SHARE = 400, 1 / 4


def with_warmup(config: OptimiserConfig, total: int) -> OptimiserConfig:
    """The configuration with its warm-up settled, if that is None, for a run of `total` updates."""
    if config.warmup_steps is not None:
        return config
    return dataclasses.replace(config, warmup_steps=min(WARMUP, int(total * WARMUP_SHARE)))


def learning_rate(config: OptimiserConfig, step: int, total: int, decay: Decay) -> float:
    """The rate of update number `step` (counted from 1) of `total`."""
    config = with_warmup(config, total)
    if config.schedule == "paper":
        return config.learning_rate * decay.factor
    warmup = min(1.0, step / max(config.warmup_steps or 0, 1))
    return config.learning_rate * warmup * SCHEDULES[config.schedule](config, step, total)


def _constant(config, step, total):
    return 1.0


def _inverse_sqrt(config, step, total):
    return min(1.0, math.sqrt(max(config.warmup_steps, 1) / step))


def _cosine(config, step, total):
    done = (step - config.warmup_steps) / max(total - config.warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0)))


def _exponential(config, step, total):
    return config.decay_factor ** (max(step - config.warmup_steps - config.hold_steps, 0) / max(config.decay_steps, 1))


def _cosine_restarts(config, step, total):
    """Cosines that start anew (Loshchilov & Hutter 2017)."""
    done, period, peak = step - 1, float(max(config.decay_steps, 1)), 1.0
    while done >= period:
        done, period, peak = done - period, period * config.restart_stretch, peak * config.restart_peak
    cosine = 0.5 * peak * (1 + math.cos(math.pi * done / period))
    return (1 - config.restart_floor) * cosine + config.restart_floor


# Name -> (config, step, total) -> share of the peak rate, beside the warm-up.
SCHEDULES: dict[str, Callable[[OptimiserConfig, int, int], float]] = {
    "constant": _constant,
    "inverse_sqrt": _inverse_sqrt,
    "cosine": _cosine,
    "exponential": _exponential,
    "cosine_restarts": _cosine_restarts,
}
