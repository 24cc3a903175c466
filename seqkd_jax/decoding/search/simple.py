"""The reference implementation of beam search and greedy search: a batch is decoded until all its sentences are done.

One loop runs over the steps of all B sentences; the step of one sentence is in `beams` and lifted by vmap. The loop
closes over the model's memory, which is never copied. The state gets a beam axis once and is reordered by one gather,
as is the table of what each hypothesis reads in the caches, so the search does not depend on the model. The Beams of a
sentence that is done do not change.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from seqkd_jax.config import SearchConfig
from seqkd_jax.decoding.search.beams import advance, candidates, covered_by, first_beams, log_softmax, n_best, uncovered
from seqkd_jax.decoding.search.past import extended, followed, nothing_own, with_beam_axis
from seqkd_jax.decoding.search.rules import Request, allowed, score
from seqkd_jax.types import BOS, EOS, PAD, Hypotheses, Translator


def beam_search(translator: Translator, config: SearchConfig, max_steps: int) -> Callable[..., Hypotheses]:
    """The search (params, Request) -> Hypotheses with T = max_steps, to be jitted.

    Lengths are from `length_limits`; a row of max_length 0 (a fill row) needs no step and has no hypotheses. By default
    an EOS among the first K of a step's 2K candidates finishes its hypothesis, and the first K others stay live.
    """
    config.validate()
    candidates_all = jax.vmap(lambda *row: candidates(config, *row), in_axes=(None, 0, 0, 0))
    advance_all = jax.vmap(lambda *row: advance(config, *row), in_axes=(None, 0, 0, 0, 0))
    n_best_all = jax.vmap(lambda beams: n_best(config, beams))

    def search(params, request: Request) -> Hypotheses:
        request = request._replace(max_length=jnp.minimum(request.max_length, max_steps))
        memory, state = translator.start(params, request.source)
        sizes = request.source.shape[0], config.beam, max_steps
        beams = first_beams(config.beam, max_steps, request.max_length, uncovered(config, request.source))

        def some_sentence_is_not_done(carry):
            return ~jnp.all(carry[1].done)

        def step(carry):
            t, beams, token, state, caches, own = carry
            own, past = extended(own)
            features, attention, state, caches = translator.step(params, token, memory, state, caches, past)
            found = candidates_all(t, beams, translator.head(params, features), request)
            beams, token, parents = advance_all(t, beams, found, request.max_length, attention)
            if config.beam > 1:  # a single beam is its own parent
                state, own = followed(state, own, parents)
            return t + 1, beams, token, state, caches, own

        first = jnp.full(sizes[:2], BOS, jnp.int32)
        state, caches = with_beam_axis(state, config.beam), translator.caches(*sizes)
        carry = jnp.int32(0), beams, first, state, caches, nothing_own(*sizes[:2], sizes[1] * max_steps)
        return n_best_all(lax.while_loop(some_sentence_is_not_done, step, carry)[1])

    return search


def greedy(translator: Translator, config: SearchConfig, max_steps: int) -> Callable[..., Hypotheses]:
    """Greedy search, independent of `beam_search`, whose K = 1 must agree with it. Same signature.

    It returns one hypothesis whatever config.beam is. Its score follows the same rules, which do not affect the choice.
    """

    def most_probable(t, log_probs, request):
        return lax.top_k(log_probs[:, 0], 1)[1]  # on CPUs several times faster than argmax

    return one_by_one(translator, config, max_steps, 1, most_probable)


class Grown(NamedTuple):
    """C translations of each sentence that grow independently of each other."""

    t: Int[Array, " B"]  # tokens so far
    token: Int[Array, "B C"]  # the last
    tokens: Int[Array, "B C T"]  # PAD after the last
    total: Float[Array, "B C"]  # log-probability
    coverage: Float[Array, "B C S"]
    running: Bool[Array, "B C"]


def nothing_grown(config: SearchConfig, request: Request, count: int, max_steps: int) -> Grown:
    """Before the first token; a fill row does not run."""
    empty = first_beams(count, max_steps, request.max_length, uncovered(config, request.source))
    running = jnp.broadcast_to(~empty.done[:, None], empty.live_log_probs.shape)
    token, total = jnp.full(running.shape, BOS, jnp.int32), jnp.where(running, 0.0, -jnp.inf)
    return Grown(jnp.zeros(len(running), jnp.int32), token, empty.live, total, empty.coverage, running)


def grow(config: SearchConfig, request: Request, now: Grown, token, gained, attention) -> Grown:
    """Add a token [B,C] with this log-probability to what runs; attention [B,C,S] or None: that of its step.

    A hypothesis whose token is not allowed (-inf) becomes impossible.
    """
    last = (now.t + 1 >= request.max_length)[:, None]
    if config.at_limit == "free_eos":
        gained, token = jnp.where(last, 0.0, gained), jnp.where(last, EOS, token)
    here = (np.arange(now.tokens.shape[-1])[None] == now.t[:, None])[:, None] & now.running[..., None]
    return Grown(
        now.t + jnp.any(now.running, axis=1),
        jnp.where(now.running, token, now.token),
        jnp.where(here, token[..., None], now.tokens),
        jnp.where(now.running, now.total + gained, now.total),
        jnp.where(now.running[..., None], covered_by(config, now.coverage, attention), now.coverage),
        now.running & (token != EOS) & ~last & (gained != -jnp.inf),
    )


def hypotheses(config: SearchConfig, grown: Grown) -> Hypotheses:
    """What has grown, unsorted."""
    impossible = grown.total == -jnp.inf
    tokens = jnp.where(impossible[..., None], PAD, grown.tokens)
    finished = jnp.any(tokens == EOS, axis=-1)
    scores = score(config, grown.total, jnp.sum(tokens != PAD, axis=-1), finished, grown.coverage)
    return Hypotheses(tokens, scores, grown.total, finished)


def one_by_one(
    translator: Translator, config: SearchConfig, max_steps: int, count: int, choose: Callable
) -> Callable[..., Hypotheses]:
    """A search in which `count` hypotheses of each sentence grow independently, [B,count] and unsorted.

    choose(t [B], log_probs [B,count,V], request) -> the next token of each [B,count]. A hypothesis without an allowed
    token becomes impossible (score -inf).
    """
    config.validate()
    allowed_all = jax.vmap(lambda *row: allowed(config, *row))

    def search(params, request: Request) -> Hypotheses:
        request = request._replace(max_length=jnp.minimum(request.max_length, max_steps))
        memory, state = translator.start(params, request.source)

        def step(carry):
            now, state, caches, own = carry
            own, past = extended(own)
            features, attention, state, caches = translator.step(params, now.token, memory, state, caches, past)
            log_probs = allowed_all(now.t, now.tokens, log_softmax(translator.head(params, features)), request)
            token = choose(now.t, log_probs, request).astype(jnp.int32)
            gained = jnp.take_along_axis(log_probs, token[..., None], axis=-1)[..., 0]
            return grow(config, request, now, token, gained, attention), state, caches, own

        sizes = request.source.shape[0], count, max_steps
        carry = nothing_grown(config, request, count, max_steps), with_beam_axis(state, count)
        carry = *carry, translator.caches(*sizes), nothing_own(*sizes[:2], sizes[1] * max_steps)
        return hypotheses(config, lax.while_loop(lambda carry: jnp.any(carry[0].running), step, carry)[0])

    return search
