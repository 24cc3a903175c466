"""The fast beam search: what `simple` returns, sooner. A pool of sentences is encoded at once and decoded in few slots.

A slot holds one sentence at a time; when it is done its hypotheses go to the results and the slot takes the next
sentence of the pool, so that no step is spent on finished rows until the pool runs dry. Everything happens inside one
program: an outer loop collects and refills, an inner one steps until enough slots are done.

A step is spared what is costly: hypotheses are reordered by the model, in the pass that writes its caches; of the
vocabulary one pass takes every block's maximum and mass, and only the few best blocks are searched for the best tokens.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from seqkd_jax.base import BOS, PAD, Hypotheses, Translator, UserError
from seqkd_jax.config import SearchConfig
from seqkd_jax.search.beams import Beams, Candidates, advance, first_beams, log_softmax, n_best, uncovered
from seqkd_jax.search.rules import SPECIAL, Request, allowed, barred, check, may_force

BLOCK = 80  # entries of the vocabulary that are ranked together, about


class Slots(NamedTuple):
    """The state of the decoder: B slots for the P sentences of the pool."""

    row: Int[Array, " B"]  # its sentence in the pool; P: none, the slot is empty
    t: Int[Array, " B"]  # tokens behind it
    beams: Beams
    token: Int[Array, "B K"]  # the last of each hypothesis
    parents: Int[Array, "B K"]  # and the slot it had before that
    memory: Any  # the model's [B,...]
    state: Any  # the model's [B,K,...]
    following: Int[Array, ""]  # the next row of the pool
    results: Hypotheses  # [P,K,...]


def engine(translator: Translator, config: SearchConfig, max_steps: int, slots: int | None = None) -> Callable:
    """The search (params, Request of P rows, words=None) -> Hypotheses with T = max_steps, to be jitted.

    slots: sentences decoded at a time, at most P (None: P). Rules and results as in `simple.beam_search`, to rounding.
    words: ids [W] that alone may be produced, as from `shortlist.words`; probabilities are then normalised over them.
    """
    check(config)
    beam = config.beam
    advance_all = jax.vmap(lambda *row: advance(config, *row))
    n_best_all = jax.vmap(lambda beams: n_best(config, beams))

    def search(params, request: Request, words: Int[Array, " W"] | None = None) -> Hypotheses:
        if words is not None and (config.no_repeat_ngram or request.prefix.shape[-1]):
            raise UserError("search: a shortlist goes with neither no_repeat_ngram nor prefixes; leave one of them out")
        pool = request.source.shape[0]
        width = min(slots or pool, pool)
        enough = max(1, width // 8)  # slots that must be done before it is worth while to refill
        request = request._replace(max_length=jnp.minimum(request.max_length, max_steps))
        covered = uncovered(config, request.source)
        memory, first = _encoded(translator, params, request, width)
        shapes = jax.eval_shape(lambda source: translator.start(params, source, max_steps), request.source[:width])

        def refill(now: Slots) -> Slots:
            done = now.beams.done
            collected = n_best_all(now.beams)
            place = jnp.where(done, now.row, pool)  # beyond the end: dropped
            results = jax.tree.map(lambda all_, new: all_.at[place].set(new, mode="drop"), now.results, collected)
            row = jnp.where(done, jnp.minimum(now.following + jnp.cumsum(done) - 1, pool), now.row)
            fresh, source_row = done & (row < pool), jnp.minimum(row, pool - 1)
            room = jnp.where(row < pool, request.max_length[source_row], 0)
            beams = first_beams(beam, max_steps, room, None if covered is None else covered[source_row])
            take = lambda old, new: _where(fresh, new, old)  # noqa: E731
            return Slots(
                row=row,
                t=jnp.where(done, 0, now.t),
                beams=jax.tree.map(lambda old, new: _where(done, new, old), now.beams, beams),
                token=_where(fresh, jnp.full_like(now.token, BOS), now.token),
                parents=_where(fresh, jnp.broadcast_to(np.arange(beam)[None], now.parents.shape), now.parents),
                memory=jax.tree.map(lambda old, new: take(old, new[source_row]), now.memory, memory),
                # A cache needs no cleaning: nothing beyond what a hypothesis has written is read.
                state=jax.tree.map(
                    lambda old, new: take(old, new[source_row][:, None]) if old.shape[2:] == new.shape[1:] else old,
                    now.state,
                    first,
                ),
                following=jnp.minimum(now.following + jnp.sum(done), pool),
                results=results,
            )

        def step(now: Slots) -> Slots:
            parents = now.parents if beam > 1 else None  # a single hypothesis is its own parent
            features, attention, state = translator.step(params, now.token, now.memory, now.state, parents)
            own = jax.tree.map(lambda leaf: leaf[jnp.minimum(now.row, pool - 1)], request)
            logits = translator.head(params, features, words)
            if words is not None:
                there = (words != PAD) | (jnp.arange(len(words)) == PAD)
                logits = jnp.where(there[None, None], logits, jnp.finfo(jnp.float32).min)
            found = _candidates(config, logits, now, own)
            if words is not None:
                found = found._replace(tokens=words[found.tokens])
            beams, token, parents = advance_all(now.t, now.beams, found, own.max_length, attention)
            return now._replace(t=now.t + 1, beams=beams, token=token, parents=parents, state=state)

        def worth_stepping(now: Slots):
            waiting = now.following < pool
            return jnp.any(~now.beams.done) & ~(waiting & (jnp.sum(now.beams.done) >= enough))

        def round_(now: Slots) -> Slots:
            # Two steps a turn: with one, XLA copies every cache once more to bring it back to the buffer it came from.
            return refill(lax.while_loop(worth_stepping, lambda now: step(step(now)), now))

        now = refill(_empty(beam, max_steps, width, pool, *shapes, covered))
        return lax.while_loop(lambda now: jnp.any(now.row < pool), round_, now).results

    return search


def _encoded(translator: Translator, params, request: Request, width: int):
    """Memory and first state of every row of the pool, `width` rows at a time; fill rows at its end are left out.

    So the model sees shapes that do not depend on how many sentences there are. The states have no room in their caches
    (`start` for 0 steps): that is in the slots.
    """
    pool = request.source.shape[0]
    shapes = jax.eval_shape(lambda source: translator.start(params, source, 0), request.source)

    def encode(block, pooled):
        start = jnp.minimum(block * width, pool - width)
        found = translator.start(params, lax.dynamic_slice_in_dim(request.source, start, width), 0)
        return jax.tree.map(lambda all_, new: lax.dynamic_update_slice_in_dim(all_, new, start, 0), pooled, found)

    used = jnp.max(jnp.where(request.max_length > 0, jnp.arange(1, pool + 1), 0))
    blocks = -(-used // width)
    return lax.fori_loop(0, blocks, encode, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))


def best_extensions(
    scores: Float[Array, "B K V"], live: Float[Array, "B K"], number: int, special: Bool[Array, "B 4"] | None
) -> Candidates:
    """The best extensions of each sentence's hypotheses, of equal ones the lower parent, then the lower token, first.

    scores: logits, with special: those of the first ids that a sentence must not take (what they have of the
    probability stays theirs). With None: log-probabilities, -inf where a token may not follow. live: log-probabilities
    of the hypotheses.
    Exact: the best n lie in the n blocks with the best maxima, of equal ones in those that come first.
    """
    rows, _, vocabulary = scores.shape
    width = _block_width(vocabulary)
    lowest = jnp.finfo(jnp.float32).min
    scores = jnp.pad(scores, ((0, 0), (0, 0), (0, -vocabulary % width)), constant_values=lowest)
    blocks, inside = scores.reshape(*scores.shape[:2], -1, width), np.arange(width)[None, None]
    highest, total = blocks.max(-1), 0.0
    if special is not None:
        mass = jnp.sum(jnp.exp(blocks - highest[..., None]), -1)
        highest, mass = lax.optimization_barrier((highest, mass))
        top = jnp.max(highest, -1, keepdims=True)
        total = top + jnp.log(jnp.sum(mass * jnp.exp(highest - top), -1, keepdims=True))
        first = _bar(blocks[..., 0, :], inside, special).max(-1)
        highest = highest.at[..., 0].set(first)
    highest = (live[..., None] + (highest - total)).reshape(rows, -1)
    _, chosen = _top_k(highest, min(number, highest.shape[-1]))
    chosen = jnp.sort(chosen, axis=-1)  # the second stage must meet the extensions in their order
    parents, ids = jnp.divmod(chosen[..., None] * width + inside, blocks.shape[-2] * width)
    values = jnp.take_along_axis(blocks.reshape(rows, -1, width), chosen[..., None], axis=1)
    total = jnp.take_along_axis(jnp.broadcast_to(total, (*live.shape, 1))[..., 0], parents[..., 0], axis=-1)[..., None]
    values = jnp.take_along_axis(live, parents[..., 0], axis=-1)[..., None] + (values - total)
    values = values if special is None else _bar(values, ids, special)
    values = jnp.where(ids < vocabulary, values, -jnp.inf).reshape(rows, -1)
    values, place = _top_k(values, number)
    pick = lambda ids: jnp.take_along_axis(ids.reshape(rows, -1), place, axis=-1).astype(jnp.int32)  # noqa: E731
    return Candidates(values, pick(parents), pick(ids))


def _candidates(config: SearchConfig, logits, now: Slots, request: Request) -> Candidates:
    """As `beams.candidates`, of all slots. What bars special ids alone needs no pass over the vocabulary."""
    live = now.beams.live_log_probs
    if config.no_repeat_ngram or may_force(config, request):
        rule = jax.vmap(lambda *row: allowed(config, *row))
        return best_extensions(rule(now.t, now.beams.live, log_softmax(logits), request), live, 2 * config.beam, None)
    return best_extensions(logits, live, 2 * config.beam, jax.vmap(lambda *row: barred(config, *row))(now.t, request))


def _top_k(values, number: int):
    """lax.top_k; behind a barrier, for a slice of its result would make XLA sort all values instead."""
    return lax.optimization_barrier(lax.top_k(values, number))


def _bar(values: Float[Array, "B J n"], ids, barred: Bool[Array, "B 4"]):
    """-inf for the ids, [1,1,n] or [B,J,n], that a sentence must not take."""
    for special in SPECIAL:
        values = jnp.where((ids == special) & barred[:, special, None, None], -jnp.inf, values)
    return values


def _block_width(vocabulary: int) -> int:
    """A divisor of the vocabulary near BLOCK, so that nothing is padded, if there is one; small ones are one block."""
    if vocabulary <= 4 * BLOCK:
        return vocabulary
    divisors = [width for width in range(BLOCK // 4, 2 * BLOCK + 1) if vocabulary % width == 0]
    return min(divisors, key=lambda width: abs(width - BLOCK), default=BLOCK)


def _where(rows: Bool[Array, " B"], new, old):
    return jnp.where(jnp.expand_dims(rows, tuple(range(1, old.ndim))), new, old)


def _empty(beam: int, max_steps: int, slots: int, pool: int, memory, state, covered) -> Slots:
    """Slots without sentences, and results without hypotheses. memory, state: shapes [B,...] of the model's."""
    zeros = lambda shape: jnp.zeros(shape.shape, shape.dtype)  # noqa: E731
    nothing = jnp.full((pool, beam), -jnp.inf, jnp.float32)
    tokens = jnp.full((pool, beam, max_steps), PAD, jnp.int32)
    return Slots(
        row=jnp.full(slots, pool, jnp.int32),
        t=jnp.zeros(slots, jnp.int32),
        beams=first_beams(beam, max_steps, jnp.zeros(slots, jnp.int32), None if covered is None else covered[:slots]),
        token=jnp.full((slots, beam), BOS, jnp.int32),
        parents=jnp.zeros((slots, beam), jnp.int32),
        memory=jax.tree.map(zeros, memory),
        state=jax.tree.map(lambda leaf: jnp.zeros((slots, beam, *leaf.shape[1:]), leaf.dtype), state),
        following=jnp.int32(0),
        results=Hypotheses(tokens, nothing, nothing, jnp.zeros((pool, beam), bool)),
    )
