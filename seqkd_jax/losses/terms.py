"""Terms of losses for one position, in nats, with their gradients written out: JAX's make more passes over the logits.

student: logits [V]. allowed: None, or which entries [V] are not barred (see `losses`).
"""

import jax
import jax.numpy as jnp

LEAST = 1e-37  # of a sum of exponentials, whose largest is 1: no float32 that a logarithm is taken of is 0


@jax.custom_vjp
def gold(student, label, smoothing, allowed):
    """Cross-entropy with the label, a mass `smoothing` of which is spread evenly over all entries."""
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


gold.defvjp(_gold_forward, _gold_backward)


@jax.custom_vjp
def soft(student, teacher, temperature, allowed):
    """Cross-entropy of the two distributions at a temperature, in nats."""
    return _soft_forward(student, teacher, temperature, allowed)[0]


def _soft_forward(student, teacher, temperature, allowed):
    # A value is log(sum of exponentials) + a mean of differences to the largest logit, so that nothing is lost when all
    # logits are large. A log-softmax would be kept for the gradient beside the exponentials.
    cooling = 1.0 / temperature
    top, exponentials, total = masses(student, temperature)
    if allowed is not None:
        teacher = jnp.where(allowed, teacher, -jnp.inf)
    wanted = jnp.exp((teacher - jnp.max(teacher)) * cooling)  # not yet normalised
    mass = jnp.sum(wanted)
    value = jnp.log(total) + jnp.sum(wanted * (top - student), where=allowed) / mass * cooling
    return value, (exponentials, total, wanted, mass, cooling)


def _soft_backward(saved, gradient):
    exponentials, total, wanted, mass, cooling = saved
    return gradient * cooling * (exponentials / total - wanted / mass), None, None, None


soft.defvjp(_soft_forward, _soft_backward)


@jax.custom_vjp
def soft_of_top_k(student, teacher, temperature, allowed):
    """Cross-entropy of a TopK and the student's distribution at a temperature, all other entries taken as one.

    The teacher's mass on barred entries goes to the others. Where the student's mass on all other entries is less than
    LEAST times that of its best entry, it counts as so much.
    """
    return _soft_of_top_k_forward(student, teacher, temperature, allowed)[0]


def _soft_of_top_k_forward(student, teacher, temperature, allowed):
    entries, wanted, wanted_rest = teacher.entries, teacher.probabilities[:-1], teacher.probabilities[-1]
    if allowed is not None:
        wanted = jnp.where(allowed[entries], wanted, 0.0)
    mass = jnp.maximum(jnp.sum(wanted) + wanted_rest, LEAST)
    wanted, wanted_rest = wanted / mass, wanted_rest / mass
    top, exponentials, total = masses(student, temperature)
    kept = exponentials[entries]
    others = exponentials.at[entries].set(0.0)
    rest = jnp.maximum(jnp.sum(others), LEAST)  # the total less what is kept could be a rounding error
    of_entries = jnp.where(wanted > 0, wanted * (top - student[entries]), 0.0) / temperature
    value = jnp.log(total) + jnp.sum(of_entries) - wanted_rest * jnp.log(rest)
    return value, (others, total, kept, rest, entries, wanted, wanted_rest, temperature)


def _soft_of_top_k_backward(saved, gradient):
    others, total, kept, rest, entries, wanted, wanted_rest, temperature = saved
    scale = gradient / temperature
    of_others = others * (scale * (1.0 / total - wanted_rest / rest))
    return of_others.at[entries].set(scale * (kept / total - wanted)), None, None, None


soft_of_top_k.defvjp(_soft_of_top_k_forward, _soft_of_top_k_backward)


def masses(logits, temperature):
    """The largest logit, exp((logit - that) / temperature) of each, and their sum."""
    top = jnp.max(logits)
    plain = jnp.exp(logits - top)
    total = jnp.sum(plain)  # the gold term has these too: without a temperature both are computed once

    def tempered():
        exponentials = jnp.exp((logits - top) / temperature)
        return exponentials, jnp.sum(exponentials)

    return top, *jax.lax.cond(temperature == 1.0, lambda: (plain, total), tempered)
