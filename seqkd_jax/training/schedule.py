"""Learning rates, computed on the host and given to the compiled step as a number.

The paper's rule (harvardnlp/seq2seq-attn): from an epoch on, or once validation perplexity has risen, the rate decays
after *every* further epoch; the flag is sticky.
"""

import math
from typing import NamedTuple

from seqkd_jax.config import OptimiserConfig


class Decay(NamedTuple):
    """What the paper's rule remembers from epoch to epoch."""

    factor: float = 1.0  # on the peak rate
    decaying: bool = False
    previous_loss: float = math.inf  # validation, nats per token


def after_epoch(config: OptimiserConfig, decay: Decay, epoch: int, loss: float) -> Decay:
    """The decay after validation at the end of `epoch` (counted from 1)."""
    decaying = decay.decaying or epoch >= config.decay_from_epoch or loss > decay.previous_loss
    return Decay(decay.factor * (config.decay_factor if decaying else 1.0), decaying, loss)


def learning_rate(config: OptimiserConfig, step: int, total: int, decay: Decay) -> float:
    """The rate of update number `step` (counted from 1) of `total`."""
    warmup = min(1.0, step / max(config.warmup_steps, 1))
    if config.schedule == "paper":
        return config.learning_rate * decay.factor
    if config.schedule == "constant":
        return config.learning_rate * warmup
    if config.schedule == "inverse_sqrt":
        return config.learning_rate * min(warmup, math.sqrt(max(config.warmup_steps, 1) / step))
    if config.schedule == "exponential":
        decays = max(step - config.warmup_steps - config.hold_steps, 0) / max(config.decay_steps, 1)
        return config.learning_rate * warmup * config.decay_factor**decays
    if config.schedule == "cosine_restarts":
        return config.learning_rate * warmup * _restarted(config, step - 1)
    done = (step - config.warmup_steps) / max(total - config.warmup_steps, 1)  # cosine
    return config.learning_rate * (warmup if done <= 0 else 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def _restarted(config: OptimiserConfig, done: int) -> float:
    """The share of the peak rate after `done` updates of cosines that start anew (Loshchilov & Hutter 2017)."""
    period, peak = float(max(config.decay_steps, 1)), 1.0
    while done >= period:
        done, period, peak = done - period, period * config.restart_stretch, peak * config.restart_peak
    cosine = 0.5 * peak * (1 + math.cos(math.pi * done / period))
    return (1 - config.restart_floor) * cosine + config.restart_floor
