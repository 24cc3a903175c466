"""Training losses. Each is written for one position and lifted over all position axes.

A loss takes the student's logits [V], the teacher's logits [V] (or its TopK) or None, one label and the traced
settings, and returns nats. `over_positions` casts to float32, lifts by `vmap`, applies weights and returns
`(sum, weight sum)`; the trainer adds both over microbatches and devices and divides once. The settings are traced
scalars, so runs that differ in alpha, temperature, scale or smoothing share one compiled step.

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
from seqkd_jax.losses import divergences, terms
from seqkd_jax.types import TopK, UserError

BARRED = 1e8  # how far below the largest logit an entry can never be produced; no logit that was learned is so low


class LossArguments(NamedTuple):
    """The settings of all losses, as scalars that a compiled step takes as arguments."""

    alpha: float  # weight of the teacher's term; the gold term has 1 - alpha
    temperature: float  # divides both models' logits in the teacher's term
    scale: float  # factor of the teacher's term in addition to alpha
    label_smoothing: float  # probability mass spread evenly over the entries that are not barred, in the gold term


class Loss(NamedTuple):
    """One entry of LOSSES."""

    # (student [V], teacher [V] | TopK | None, label, LossArguments, allowed [V] | None = None) -> nats
    # allowed: which entries are not barred; None, or not given: all
    function: Callable
    needs_teacher: bool
    top_k: bool = False  # of its teacher it reads a TopK, which is computed before training, instead of logits


def nll(student, teacher, label, arguments: LossArguments, allowed=None):
    """Cross-entropy with the gold label: (1-e) * -log p(label) + e * mean over entries of -log p, in nats.

    The smoothing mass e is spread over all entries that are not barred, the label included, as in Szegedy et al. 2016,
    `optax.smooth_labels` and torch's `label_smoothing`.
    """
    return terms.gold(student, label, arguments.label_smoothing, allowed)


def word_kd(student, teacher, label, arguments: LossArguments, allowed=None):
    """Word-level distillation: (1-alpha) * gold term + alpha * scale * cross-entropy(teacher_T, student_T), in nats.

    Kim & Rush 2016, section 3.1, who use T = 1 and alpha = 0.5. Both models' logits are divided by T; `scale` is the
    convention for T^2 (see `arguments_from`). The teacher gets no gradient. The cross-entropy differs from the KL
    divergence by the teacher's entropy, which does not depend on the student. What the student bars, the teacher does
    not teach.
    """
    return _interpolated(terms.soft, student, teacher, label, arguments, allowed)


def word_kd_top_k(student, teacher: TopK, label, arguments: LossArguments, allowed=None):
    """word_kd with what is known of the teacher's distribution by its k most probable entries, in nats.

    All other entries are one: (1-alpha) * gold term + alpha * scale * -(sum_i q_i log p_i + q_rest log p_rest), where i
    goes over the k entries, and p_rest is the mass that the student gives to all others. How it is distributed among
    these nobody teaches. With k = V it is word_kd. q is of the temperature that the TopK was computed with.
    """
    return _interpolated(terms.soft_of_top_k, student, teacher, label, arguments, allowed)


def reverse_kl(student, teacher, label, arguments: LossArguments, allowed=None):
    """(1-alpha) * gold term + alpha * scale * KL(student_T || teacher_T), in nats.

    It leads a student that is too small for the whole distribution to a part of it, where word_kd spreads it over all
    (Wen et al. 2023, f-distill; Gu et al. 2024, MiniLLM). The teacher's probabilities count as at least terms.LEAST
    times the largest, so that an entry that it bars costs the student at most 85 nats.
    """
    return _interpolated(divergences.reverse_kl, student, teacher, label, arguments, allowed)


def jensen_shannon(student, teacher, label, arguments: LossArguments, allowed=None):
    """(1-alpha) * gold term + alpha * scale * the mean of the KL divergences of both from their mean, in nats.

    At most ln 2, symmetric (Lin 1991; Wen et al. 2023).
    """
    return _interpolated(divergences.jensen_shannon, student, teacher, label, arguments, allowed)


def total_variation(student, teacher, label, arguments: LossArguments, allowed=None):
    """(1-alpha) * gold term + alpha * scale * half the sum of |p - q|: the mass that lies otherwise, 0 to 1.

    Wen et al. 2023. Beside nats it is small; its gradient too, where the student is sure.
    """
    return _interpolated(divergences.total_variation, student, teacher, label, arguments, allowed)


def tie_kd(student, teacher, label, arguments: LossArguments, allowed=None):
    """word_kd with the ranking loss of Zhang et al. 2023 (TIE-KD) added to its teacher's term.

    With t the teacher's 5 best entries, best first, and s the student's:
    sum_j max(0, p(t_j) - p(t_1)) + sum_ij [q(t_i) > q(s_j)] max(0, p(s_j) - p(t_i)). The formula and 5 are those of the
    authors' code (songmzhang/NMT-KD, label_smoothed_cross_entropy_advanced_kd.py). Their second means, distilling again
    on the student's own predictions, is not part of it.
    """

    def taught(*given):
        return terms.soft(*given) + divergences.top_1_ranking(*given)

    return _interpolated(taught, student, teacher, label, arguments, allowed)


def _interpolated(term, student, teacher, label, arguments: LossArguments, allowed):
    """(1-alpha) * gold term + alpha * scale * the teacher's term."""
    gold = terms.gold(student, label, arguments.label_smoothing, allowed)
    taught = term(student, teacher, arguments.temperature, allowed)
    return (1.0 - arguments.alpha) * gold + arguments.alpha * arguments.scale * taught


def top_k(logits: Float[Array, "*pos V"], k: int, temperature: float | Float[Array, ""]) -> TopK:
    """The k most probable entries of a teacher at a temperature, and the mass of all others, summed over those."""
    logits = logits.astype(jnp.float32) / temperature
    largest, entries = jax.lax.top_k(logits, k)
    exponentials, kept = jnp.exp(logits - largest[..., :1]), jnp.exp(largest - largest[..., :1])
    rest = jnp.put_along_axis(exponentials, entries, 0.0, axis=-1, inplace=False)
    masses = jnp.concatenate([kept, jnp.sum(rest, axis=-1, keepdims=True)], axis=-1)
    return TopK(entries, masses / jnp.sum(masses, axis=-1, keepdims=True))


def barred(logits: Float[Array, "*pos V"]) -> Bool[Array, "*pos V"]:
    """Which entries can never be produced."""
    least = jnp.finfo(logits.dtype).min  # masks are made of it; that of float16 is not huge
    logits = jnp.where(logits <= least, -jnp.inf, logits).astype(jnp.float32)
    return ~(jnp.max(logits, axis=-1, keepdims=True) - logits < BARRED)


def over_positions(loss: Loss, bars: bool = False) -> Callable:
    """Lift a one-position loss over all position axes. bars: the student may bar entries; otherwise none is looked for.

    Returns `(student [*pos,V], teacher [*pos,V] | TopK | None, labels [*pos], weights [*pos], arguments) ->
    (sum, weights)`: float32 scalars, the sum in nats. Logits of any float type are cast to float32 first. A position of
    weight 0 adds nothing, whatever its values, and gets no gradient. UserError, when traced: the loss needs a teacher
    and gets none.
    """

    def lifted(
        student: Float[Array, "*pos V"],
        teacher: Float[Array, "*pos V"] | TopK | None,
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
            teacher = jax.tree.map(_of_teacher, teacher)
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


def _of_teacher(array):
    """A constant: float32, or ids as they are."""
    if jnp.issubdtype(array.dtype, jnp.floating):
        array = array.astype(jnp.float32)
    return jax.lax.stop_gradient(array)


@jax.custom_vjp
def _counted(student, counted):
    """The logits as they are; at a position that does not count their gradient is 0, whatever is passed back."""
    return student


_counted.defvjp(
    lambda student, counted: (student, counted),
    lambda counted, gradient: (jnp.where(counted[..., None], gradient, 0.0), None),
)


TEMPERATURE_SCALINGS: dict[str, Callable[[float], float]] = {
    "hinton": lambda temperature: temperature**2,
    "none": lambda temperature: 1.0,
    "inverse": lambda temperature: temperature**-2,
}

LOSSES: dict[str, Loss] = {
    "nll": Loss(nll, needs_teacher=False),
    "word_kd": Loss(word_kd, needs_teacher=True),
    "word_kd_top_k": Loss(word_kd_top_k, needs_teacher=True, top_k=True),
    "reverse_kl": Loss(reverse_kl, needs_teacher=True),
    "jensen_shannon": Loss(jensen_shannon, needs_teacher=True),
    "total_variation": Loss(total_variation, needs_teacher=True),
    "tie_kd": Loss(tie_kd, needs_teacher=True),
}
