"""Terms of losses that are functions of both models' probabilities at one position, beside the cross-entropy.

A measure takes `Both` and returns its value and its slope by the student's probabilities, up to a constant; from that
follows the gradient by the logits, p * (slope - sum p * slope) / T, in one pass. Terms have the signature of those of
`terms`. What the student bars the teacher does not teach.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from seqkd_jax.losses import terms

ROUNDING = 1e-6  # relative, of a float32 probability
RANKED = 5  # entries of each model that `top_1_ranking` orders: the k of Zhang et al.'s runs


class Both(NamedTuple):
    """The two models at one position, [V] each."""

    student: jax.Array  # logits
    teacher: jax.Array  # logits; -inf where the student bars
    p: jax.Array  # the student's probabilities at the temperature
    q: jax.Array  # the teacher's
    log_p: jax.Array  # 0 where p is 0
    log_q: jax.Array  # of a q that is at least terms.LEAST times the largest


def term(measure: Callable[[Both], tuple[jax.Array, jax.Array]]) -> Callable:
    """(student, teacher, temperature, allowed) -> the measure, with its gradient by the student."""

    @jax.custom_vjp
    def value(student, teacher, temperature, allowed):
        return forward(student, teacher, temperature, allowed)[0]

    def forward(student, teacher, temperature, allowed):
        both = _both(student, teacher, temperature, allowed)
        found, slope = measure(both)
        return found, (both.p, slope, temperature)

    def backward(saved, gradient):
        p, slope, temperature = saved
        return gradient / temperature * p * (slope - jnp.sum(p * slope)), None, None, None

    value.defvjp(forward, backward)
    return value


def _both(student, teacher, temperature, allowed) -> Both:
    if allowed is not None:
        teacher = jnp.where(allowed, teacher, -jnp.inf)
    top, exponentials, total = terms.masses(student, temperature)
    best, wanted, mass = terms.masses(teacher, temperature)
    p, q = exponentials / total, wanted / mass
    log_p = jnp.where(p > 0, (student - top) / temperature - jnp.log(total), 0.0)
    log_q = jnp.maximum((teacher - best) / temperature, jnp.log(terms.LEAST)) - jnp.log(mass)
    return Both(student, teacher, p, q, log_p, log_q)


def _reverse_kl(both: Both):
    slope = jnp.where(both.p > 0, both.log_p - both.log_q, 0.0)
    return jnp.sum(both.p * slope), slope


def _jensen_shannon(both: Both):
    p, q, mean = both.p, both.q, (both.p + both.q) / 2
    slope, other = (jnp.where(own > 0, jnp.log(own / mean), 0.0) / 2 for own in (p, q))
    return jnp.sum(p * slope + q * other), slope


def _total_variation(both: Both):
    difference = both.p - both.q
    equal = jnp.abs(difference) <= ROUNDING * (both.p + both.q)  # the sign of a rounding error would be a gradient
    return jnp.sum(jnp.abs(difference)) / 2, jnp.where(equal, 0.0, jnp.sign(difference)) / 2


def _top_1_ranking(both: Both):
    count = min(RANKED, len(both.p))
    ours, theirs = (jax.lax.top_k(logits, count)[1] for logits in (both.student, both.teacher))
    # Pairs of entries of which the teacher may prefer the first. Logits decide, not probabilities: many of these are 0.
    pairs = [jnp.broadcast_arrays(theirs[:1], theirs), jnp.broadcast_arrays(theirs[:, None], ours)]
    value, slope = jnp.zeros(()), jnp.zeros_like(both.p)
    for above, below in pairs:
        wrong = (both.teacher[above] > both.teacher[below]) & (both.student[below] > both.student[above])
        value += jnp.sum(jnp.where(wrong, both.p[below] - both.p[above], 0.0))
        wrong = wrong.astype(slope.dtype)
        slope = slope.at[below].add(wrong).at[above].add(-wrong)
    return value, slope


reverse_kl = term(_reverse_kl)
jensen_shannon = term(_jensen_shannon)
total_variation = term(_total_variation)
top_1_ranking = term(_top_1_ranking)
