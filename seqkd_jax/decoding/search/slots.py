"""The engine's slots: the sentences of a pool are decoded in a smaller number of slots.

A slot holds one sentence at a time. When that is done, its hypotheses are stored in the results and the slot takes the
next sentence of the pool. Sentences are encoded a block at a time, when all of the block before have slots.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int

from seqkd_jax.config import SearchConfig
from seqkd_jax.decoding.search.beams import Beams, first_beams, n_best, uncovered
from seqkd_jax.decoding.search.past import Own, nothing_own, with_beam_axis
from seqkd_jax.decoding.search.rules import Request
from seqkd_jax.types import BOS, PAD, Hypotheses, Translator

LEAST = 256  # positions of a block: fewer are encoded as they are, which compiles faster


class Held(NamedTuple):
    """N sentences that are being decoded."""

    row: Int[Array, " N"]  # in the pool; P: none
    t: Int[Array, " N"]  # tokens decoded so far
    beams: Beams
    token: Int[Array, "N k"]  # the last token of each hypothesis
    memory: Any  # the model's [N,...]
    state: Any  # the model's [N,K,...]
    caches: Any  # the model's [N,...]
    own: Own  # [N,K,C] the entries of the caches that each hypothesis reads


class Use(NamedTuple):
    """How the slots were used."""

    slots: Int[Array, ""]  # the sum of the slots of all steps
    busy: Int[Array, ""]  # of those with a sentence that was not done


class Slots(NamedTuple):
    """The state of the decoder: B slots for the P sentences of the pool."""

    held: Held  # of N = B
    following: Int[Array, ""]  # the next row of the pool
    results: Hypotheses  # [P,K,...]
    used: Use


class Pool(NamedTuple):
    """P sentences, fill rows included; fill rows at the end are not decoded."""

    request: Request
    used: Int[Array, ""]  # rows up to the last sentence
    encode: Callable  # (first row) -> Held of a block

    @property
    def rows(self) -> int:
        """P."""
        return self.request.source.shape[0]


def pool_of(request: Request, block: int, begun: Callable) -> Pool:
    """The pool of these sentences, `block` of which are begun at a time: begun(rows [N], Request of these) -> Held."""
    rows = request.source.shape[0]

    def encode(start) -> Held:
        start = jnp.minimum(start, rows - block)
        some = jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, start, block), request)
        return begun(start + np.arange(block), some)

    return Pool(request, jnp.max(jnp.where(request.max_length > 0, jnp.arange(1, rows + 1), 0)), encode)


def before_first(translator: Translator, config: SearchConfig, params, row, request: Request, steps: int) -> Held:
    """Sentences before their first token. steps: T."""
    memory, state = _started(translator, params, request.source)
    rows, beam = len(row), config.beam
    return Held(
        row,
        jnp.zeros(rows, jnp.int32),
        first_beams(beam, steps, request.max_length, uncovered(config, request.source)),
        jnp.full((rows, beam), BOS, jnp.int32),
        memory,
        with_beam_axis(state, beam),
        translator.caches(rows, beam, steps),
        nothing_own(rows, beam, beam * steps),
    )


def _started(translator: Translator, params, source: Int[Array | np.ndarray, "N S"]):
    """Memory and state. A block in which all are short is encoded with fewer columns; its memory is padded."""
    few = source.shape[1] * 3 // 4
    if source.size < LEAST:
        return translator.start(params, source)
    whole = jax.eval_shape(translator.start, params, source)

    def of_short(source):
        found = translator.start(params, source[:, :few])
        sizes = lambda leaf, of: [(0, size - own) for own, size in zip(leaf.shape, of.shape, strict=True)]  # noqa: E731
        return jax.tree.map(lambda leaf, of: jnp.pad(leaf, sizes(leaf, of)), found, whole)

    long = jnp.any(source[:, few:] != PAD)
    return lax.cond(long, partial(translator.start, params), of_short, source)


def empty(pool: Pool, slots: int) -> Slots:
    """Empty slots and results."""
    shapes = jax.eval_shape(pool.encode, jnp.int32(0))
    held = jax.tree.map(lambda leaf: jnp.zeros((slots, *leaf.shape[1:]), leaf.dtype), shapes)
    held = held._replace(row=held.row + pool.rows, beams=held.beams._replace(done=jnp.ones(slots, bool)))
    beam, steps = shapes.beams.live.shape[1:]
    nothing = jnp.full((pool.rows, beam), -jnp.inf, jnp.float32)
    tokens = jnp.full((pool.rows, beam, steps), PAD, jnp.int32)
    return Slots(
        held,
        jnp.int32(0),
        Hypotheses(tokens, nothing, nothing, jnp.zeros(nothing.shape, bool)),
        Use(jnp.int32(0), jnp.int32(0)),
    )


def waiting(pool: Pool, now: Slots) -> Bool[Array, ""]:
    """Whether a sentence of the pool has no slot yet."""
    return now.following < pool.used


def busy(now: Slots) -> Int[Array, ""]:
    """The number of slots with a sentence that is not done."""
    return jnp.sum(~now.held.beams.done)


def stored(config: SearchConfig, pool: Pool, now: Slots) -> Hypotheses:
    """The results, with the hypotheses of slots that are done."""
    place = jnp.where(now.held.beams.done, now.held.row, pool.rows)  # out of bounds: dropped
    found = jax.vmap(lambda beams: n_best(config, beams))(now.held.beams)
    return jax.tree.map(lambda all_, new: all_.at[place].set(new, mode="drop"), now.results, found)


def refilled(config: SearchConfig, pool: Pool, block: Held, now: Slots) -> Slots:
    """Store the hypotheses of slots that are done in the results; the slots take the next sentences of the block."""
    done = now.held.beams.done
    turn = block.row - now.following  # a sentence's place among those that wait
    taken = (turn >= 0) & (turn < jnp.sum(done)) & (block.row < pool.used)
    free = jnp.argsort(~done, stable=True)
    slot = jnp.where(taken, free[jnp.clip(turn, 0, len(free) - 1)], len(free))
    held = now.held._replace(row=jnp.where(done, pool.rows, now.held.row))
    held = jax.tree.map(lambda old, new: old.at[slot].set(new, mode="drop"), held, block)
    return Slots(held, now.following + jnp.sum(taken), stored(config, pool, now), now.used)


def fewer(config: SearchConfig, pool: Pool, now: Slots, size: int) -> Slots:
    """The slots that are not done, at most `size`, moved to so many slots; the results of the others are stored."""
    chosen = jnp.argsort(now.held.beams.done, stable=True)[:size]
    held = jax.tree.map(lambda leaf: leaf[chosen], now.held)
    return now._replace(held=held, results=stored(config, pool, now))
