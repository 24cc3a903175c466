"""Training losses. Each is written for one position and lifted over all position axes.

A loss takes the student's logits [V], the teacher's logits [V] or None, one label and the traced settings, and returns
nats. `over_positions` casts to float32, lifts by `vmap`, applies weights and returns `(sum, weight sum)`; the trainer
adds both over microbatches and devices and divides once. The settings are traced scalars, so runs that differ in alpha,
temperature, scale or smoothing share one compiled step.

A model can bar entries of its vocabulary, such as the padding entry of an imported one: their logits are -inf or a huge
negative number. They can never be produced, so no loss gives them mass: label smoothing and the teacher's distribution
are over the other entries, as if the vocabulary had no more.

To add a loss: write one function with the signature below and give it one line in LOSSES.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from seqkd_jax.config import LossConfig
from seqkd_jax.types import UserError

BARRED = 1e8  # how far below the largest logit an entry can never be produced; no logit that was learned is so low


class LossArguments(NamedTuple):
    """The settings of all losses, as scalars that a compiled step takes as arguments."""

    alpha: float  # weight of the teacher's term; the gold term has 1 - alpha
    temperature: float  # divides both models' logits in the teacher's term
    scale: float  # factor of the teacher's term in addition to alpha
    label_smoothing: float  # probability mass spread evenly over the entries that are not barred, in the gold term


class Loss(NamedTuple):
    """One entry of LOSSES."""

    # (student [V], teacher [V] | None, label, LossArguments, allowed [V] | None = None) -> nats
    # allowed: which entries are not barred; None, or not given: all
    function: Callable
    needs_teacher: bool


def nll(student, teacher, label, arguments: LossArguments, allowed=None):
    """Cross-entropy with the gold label: (1-e) * -log p(label) + e * mean over entries of -log p, in nats.

    The smoothing mass e is spread over all entries that are not barred, the label included, as in Szegedy et al. 2016,
    `optax.smooth_labels` and torch's `label_smoothing`.
    """
    return _gold(student, label, arguments.label_smoothing, allowed)


def word_kd(student, teacher, label, arguments: LossArguments, allowed=None):
    """Word-level distillation: (1-alpha) * gold term + alpha * scale * cross-entropy(teacher_T, student_T), in nats.

    Kim & Rush 2016, section 3.1, who use T = 1 and alpha = 0.5. Both models' logits are divided by T; `scale` is the
    convention for T^2 (see `arguments_from`). The teacher gets no gradient. The cross-entropy differs from the KL
    divergence by the teacher's entropy, which does not depend on the student. What the student bars, the teacher does
    not teach.
    """
    gold = _gold(student, label, arguments.label_smoothing, allowed)
    return (1.0 - arguments.alpha) * gold + arguments.alpha * arguments.scale * _soft(student, teacher, arguments.temperature, allowed)


def barred(logits: Float[Array, "*pos V"]) -> Bool[Array, "*pos V"]:
    """Which entries can never be produced."""
    least = jnp.finfo(logits.dtype).min  # masks are made of it; that of float16 is not huge
    logits = jnp.where(logits <= least, -jnp.inf, logits).astype(jnp.float32)
    return ~(jnp.max(logits, axis=-1, keepdims=True) - logits < BARRED)


def over_positions(loss: Loss, bars: bool = False) -> Callable:
    """Lift a one-position loss over all position axes. bars: the student may bar entries; otherwise none is looked for.

    Returns `(student [*pos,V], teacher [*pos,V] | None, labels [*pos], weights [*pos], arguments) -> (sum, weights)`:
    float32 scalars, the sum in nats. Logits of any float type are cast to float32 first. A position of weight 0 adds
    nothing, whatever its values, and gets no gradient. UserError, when traced: the loss needs a teacher and gets none.
    """

    def lifted(
        student: Float[Array, "*pos V"],
        teacher: Float[Array, "*pos V"] | None,
        labels: Integer[Array, "*pos"],
        weights: Float[Array, "*pos"],
        arguments: LossArguments,
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        allowed = (~barred(student),) if bars else ()
        student = student.astype(jnp.float32)
        if not loss.needs_teacher:
            teacher = None
        elif teacher is None:
            raise UserError(f"loss {loss.function.__name__!r} needs the logits of a teacher: name its checkpoint")
        else:
            teacher = jax.lax.stop_gradient(teacher.astype(jnp.float32))
        axes = (0, 0 if loss.needs_teacher else None, 0, None, *(0,) * bars)
        each = loss.function
        for _ in labels.shape:
            each = jax.vmap(each, in_axes=axes)
        weights = weights.astype(jnp.float32)
        counted = weights != 0
        # Infinite logits at a padded position must give 0 * inf neither in the sum nor in its gradient.
        student = _counted(student, counted)
        values = jnp.where(counted, each(student, teacher, labels, arguments, *allowed), 0.0)
        return jnp.sum(values * weights), jnp.sum(weights)

    return lifted


def arguments_from(config: LossConfig) -> LossArguments:
    """The traced settings of a valid configuration, as Python floats.

    `temperature_scaling` names the convention for the teacher's term: "hinton" multiplies by T^2, so that the size of
    its gradient does not change with T (Hinton, Vinyals & Dean 2015, section 2); "none" by 1; "inverse" by 1/T^2, as in
    the code of Abnar, Dehghani & Zuidema 2020. At T = 1, which Kim & Rush use, all three are equal.
    """
    scale = TEMPERATURE_SCALINGS[config.temperature_scaling](config.temperature)
    return LossArguments(float(config.alpha), float(config.temperature), float(scale), float(config.label_smoothing))


def require_loss(name: str, named: str = "loss.name") -> Loss:
    """The entry of LOSSES; UserError if there is none. named: the setting as the user knows it."""
    if name not in LOSSES:
        raise UserError(f"{named} is {name!r}: it must be one of {', '.join(LOSSES)}")
    return LOSSES[name]


@jax.custom_vjp
def _counted(student, counted):
    """The logits as they are; at a position that does not count their gradient is 0, whatever is passed back."""
    return student


_counted.defvjp(
    lambda student, counted: (student, counted),
    lambda counted, gradient: (jnp.where(counted[..., None], gradient, 0.0), None),
)


@jax.custom_vjp
def _gold(student, label, smoothing, allowed):
    return _gold_forward(student, label, smoothing, allowed)[0]


def _gold_forward(student, label, smoothing, allowed):
    top = jnp.max(student)
    exponentials = jnp.exp(student - top)
    total = jnp.sum(exponentials)
    below = jax.lax.cond(smoothing != 0, lambda: jnp.mean(top - student, where=allowed), lambda: jnp.zeros_like(top))
    value = jnp.log(total) + (1.0 - smoothing) * (top - student[label]) + smoothing * below
    return value, (exponentials, total, label, smoothing, allowed)


def _gold_backward(saved, gradient):
    """Probabilities minus the distribution that is wanted, in one pass; JAX would scatter the label into zeros."""
    exponentials, total, label, smoothing, allowed = saved
    entries = jnp.arange(len(exponentials))
    even = smoothing / len(exponentials) if allowed is None else jnp.where(allowed, smoothing / jnp.sum(allowed), 0.0)
    wanted = jnp.where(entries == label, 1.0 - smoothing, 0.0) + even
    return gradient * (exponentials / total - wanted), None, None, None


_gold.defvjp(_gold_forward, _gold_backward)


@jax.custom_vjp
def _soft(student, teacher, temperature, allowed):
    """Cross-entropy of the two distributions at a temperature, in nats."""
    return _soft_forward(student, teacher, temperature, allowed)[0]


def _soft_forward(student, teacher, temperature, allowed):
    # A value is log(sum of exponentials) + a mean of differences to the largest logit, so that nothing is lost when all
    # logits are large. A log-softmax would be kept for the gradient beside the exponentials.
    cooling = 1.0 / temperature
    top, exponentials, total = _exponentials(student, temperature)
    if allowed is not None:
        teacher = jnp.where(allowed, teacher, -jnp.inf)
    wanted = jnp.exp((teacher - jnp.max(teacher)) * cooling)  # not yet normalised
    mass = jnp.sum(wanted)
    value = jnp.log(total) + jnp.sum(wanted * (top - student), where=allowed) / mass * cooling
    return value, (exponentials, total, wanted, mass, cooling)


def _soft_backward(saved, gradient):
    exponentials, total, wanted, mass, cooling = saved
    return gradient * cooling * (exponentials / total - wanted / mass), None, None, None


_soft.defvjp(_soft_forward, _soft_backward)


def _exponentials(student, temperature):
    """The largest logit, exp((logit - that) / temperature) of each, and their sum."""
    top = jnp.max(student)
    plain = jnp.exp(student - top)
    total = jnp.sum(plain)  # the gold term has these too: without a temperature both are computed once

    def tempered():
        exponentials = jnp.exp((student - top) / temperature)
        return exponentials, jnp.sum(exponentials)

    return top, *jax.lax.cond(temperature == 1.0, lambda: (plain, total), tempered)


TEMPERATURE_SCALINGS: dict[str, Callable[[float], float]] = {
    "hinton": lambda temperature: temperature**2,
    "none": lambda temperature: 1.0,
    "inverse": lambda temperature: temperature**-2,
}

LOSSES: dict[str, Loss] = {
    "nll": Loss(nll, needs_teacher=False),
    "word_kd": Loss(word_kd, needs_teacher=True),
}
