"""One step of a beam search for one sentence; a search lifts it by vmap over its sentences.

A step is two functions: `candidates` finds the 2K best extensions of the hypotheses; `advance` decides which of them
finish, which stay live, and whether the sentence is done. The engine replaces the first and shares the second.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from seqkd_jax.config import SearchConfig
from seqkd_jax.decoding.search.rules import Request, allowed, length_penalty, score
from seqkd_jax.types import EOS, PAD, Hypotheses, UserError


class Beams(NamedTuple):
    """The hypotheses of a sentence after t tokens, best first; for B sentences with a leading axis."""

    done: Bool[Array, "*B"]
    live: Int[Array, "*B K T"]  # hypotheses without EOS: t tokens, then PAD
    live_log_probs: Float[Array, "*B K"]  # -inf: an impossible slot
    coverage: Float[Array, "*B K S"]  # of live ones: total attention on each source position; S = 0: not kept
    finished: Int[Array, "*B K T"]  # hypotheses with EOS, or cut at the limit
    finished_scores: Float[Array, "*B K"]  # under the length rule; -inf: an empty slot
    finished_log_probs: Float[Array, "*B K"]


class Candidates(NamedTuple):
    """The 2K best extensions of the live hypotheses, best first; ties: lower parent, then lower token, first."""

    totals: Float[Array, "*B 2K"]  # log-probability with the new token
    parents: Int[Array, "*B 2K"]  # slot of the hypothesis that is extended
    tokens: Int[Array, "*B 2K"]


def first_beams(beam: int, max_steps: int, max_length: Int[Array | np.ndarray, " B"], covered=None) -> Beams:
    """The Beams before the first step: one empty hypothesis a row, none in a fill row. covered: from `uncovered`."""
    rows, max_length = max_length.shape[0], jnp.asarray(max_length)
    covered = jnp.zeros((rows, 0), jnp.float32) if covered is None else covered
    coverage = jnp.broadcast_to(covered[:, None], (rows, beam, covered.shape[-1]))
    possible = (jnp.arange(beam) == 0)[None] & (max_length > 0)[:, None]
    tokens = jnp.full((rows, beam, max_steps), PAD, jnp.int32)
    nothing = jnp.full((rows, beam), -jnp.inf, jnp.float32)
    return Beams(max_length <= 0, tokens, jnp.where(possible, 0.0, nothing), coverage, tokens, nothing, nothing)


def uncovered(config: SearchConfig, source: Int[Array | np.ndarray, "B S"]) -> Float[Array, "B S"] | None:
    """The coverage before the first step: 1 for padding, else 0. None if no rule reads it."""
    return (source == PAD).astype(jnp.float32) if config.coverage_penalty else None


def covered_by(config: SearchConfig, coverage, attention):
    """The coverage [*pos,S] after a step with this attention; unchanged if no rule reads it."""
    if not config.coverage_penalty:
        return coverage
    if attention is None:
        raise UserError("--coverage-penalty needs attention, which this model does not have; set it to 0")
    return coverage + attention


def log_softmax(logits: Float[Array, "*pos V"]) -> Float[Array, "*pos V"]:
    """Log-probabilities in float32."""
    logits = logits.astype(jnp.float32)
    return logits - jax.nn.logsumexp(logits, axis=-1, keepdims=True)


def candidates(config: SearchConfig, t, beams: Beams, logits: Float[Array, "K V"], request: Request) -> Candidates:
    """The best allowed extensions of one sentence's hypotheses, which have t tokens each."""
    beam, vocabulary = logits.shape
    totals = beams.live_log_probs[:, None] + allowed(config, t, beams.live, log_softmax(logits), request)
    totals, flat = lax.top_k(totals.reshape(-1), 2 * beam)
    return Candidates(totals, flat // vocabulary, (flat % vocabulary).astype(jnp.int32))


def advance(config: SearchConfig, t, beams: Beams, found: Candidates, max_length, attention=None):
    """One step of one sentence: (Beams, last token [K] of each live hypothesis, parents [K] of the live hypotheses).

    attention [K,S]: weights on the source in this step; only coverage_penalty reads it.
    """
    last = t + 1 >= max_length
    if config.at_limit == "free_eos":
        found = jax.tree.map(lambda free, paid: jnp.where(last, free, paid), _ended_for_free(beams), found)
    totals, parents, tokens = found
    extended = jnp.where(jnp.arange(beams.live.shape[-1]) == t, tokens[:, None], beams.live[parents])
    finishes, lives = _fates(config, last, beams, found)
    coverage = covered_by(config, beams.coverage, attention)[parents]

    first = slice(2 * config.beam if config.eos_among == "all" else config.beam)  # those that may finish
    ended = jnp.where(finishes, totals, -jnp.inf)[first]
    ended_scores = score(config, ended, t + 1, tokens[first] == EOS, coverage[first])
    scores, best = lax.top_k(jnp.concatenate([beams.finished_scores, ended_scores]), config.beam)
    live_log_probs, on = lax.top_k(jnp.where(lives, totals, -jnp.inf), config.beam)
    after = Beams(
        done=last | _settled(config, t, scores[-1], live_log_probs[0], tokens[0], max_length),
        live=extended[on],
        live_log_probs=live_log_probs,
        coverage=coverage[on],
        finished=jnp.concatenate([beams.finished, extended[first]])[best],
        finished_scores=scores,
        finished_log_probs=jnp.concatenate([beams.finished_log_probs, ended])[best],
    )
    after = jax.tree.map(lambda old, new: jnp.where(beams.done, old, new), beams, after)
    return after, tokens[on], parents[on]


def n_best(config: SearchConfig, beams: Beams) -> Hypotheses:
    """The finished hypotheses of one sentence, then live ones, marked unfinished, in the remaining slots."""
    live, live_log_probs, coverage = beams.live, beams.live_log_probs, beams.coverage
    if config.ended == "extended":  # a hypothesis that continued after EOS is among the finished ones
        over = jnp.any(live == EOS, axis=-1)
        live_log_probs, order = lax.top_k(jnp.where(over, -jnp.inf, live_log_probs), config.beam)
        live, coverage = live[order], coverage[order]
    live_scores = score(config, live_log_probs, jnp.maximum(jnp.sum(live != PAD, axis=-1), 1), False, coverage)
    if config.coverage_penalty:  # live hypotheses are ordered by log-probability
        live_scores, order = lax.top_k(live_scores, config.beam)
        live, live_log_probs = live[order], live_log_probs[order]
    count = jnp.sum(beams.finished_scores != -jnp.inf)  # not `> -inf`, which would hide a NaN from the caller
    slot = jnp.arange(config.beam)
    chosen = jnp.where(slot < count, slot, config.beam + slot - count)
    scores = jnp.concatenate([beams.finished_scores, live_scores])[chosen]
    log_probs = jnp.concatenate([beams.finished_log_probs, live_log_probs])[chosen]
    tokens = jnp.concatenate([beams.finished, live])[chosen]
    tokens = jnp.where((scores == -jnp.inf)[:, None], PAD, tokens)
    return Hypotheses(tokens, scores, log_probs, jnp.any(tokens == EOS, axis=-1))


def _fates(config: SearchConfig, last, beams: Beams, found: Candidates):
    """Which of the 2K candidates finish, and which may stay live (the best K of these do): two bool arrays [2K]."""
    totals, parents, tokens = found
    place, ends = jnp.arange(2 * config.beam), tokens == EOS
    first_k, empty = place < config.beam, jnp.sum(beams.finished_scores == -jnp.inf)
    finishes = ends if config.eos_among == "all" else ends & first_k
    if config.at_limit == "ranked":
        finishes |= last & first_k
    # At most K of the 2K candidates end with EOS (one for each parent), so K are left to stay live.
    lives = ~ends
    if config.ended == "removed":
        finishes, lives = finishes & (place < empty), lives & (place < empty)
    if config.ended == "extended":
        finishes, lives = finishes & first_k & ~jnp.any(beams.live[parents] == EOS, axis=-1), first_k
    if config.at_limit == "ranked":
        lives &= ~last
    if config.keep == "first":
        finishes &= totals != -jnp.inf
        finishes &= jnp.cumsum(finishes) <= empty
    return finishes, lives


def _settled(config: SearchConfig, t, worst, best_live, top_token, max_length):
    """Whether the stop rule ends the sentence. worst: score of the K-th finished hypothesis; -inf: fewer."""
    if config.stop == "first_k_finished":
        return (worst > -jnp.inf) | (best_live == -jnp.inf)
    if config.stop == "top_ends":
        return (top_token == EOS) | (best_live == -jnp.inf)
    # Later hypotheses have smaller log-probabilities and at most the greatest penalty, so this bounds their scores.
    return worst >= best_live / length_penalty(config, max_length if config.stop == "bound" else t + 1, False)


def _ended_for_free(beams: Beams) -> Candidates:
    """The live hypotheses extended by an EOS of probability 1, padded with impossible candidates to 2K."""
    beam = beams.live_log_probs.size
    totals = jnp.pad(beams.live_log_probs, (0, beam), constant_values=-jnp.inf)
    return Candidates(totals, jnp.arange(2 * beam) % beam, jnp.full(2 * beam, EOS))
