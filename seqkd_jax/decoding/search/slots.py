"""The engine's slots: the sentences of a pool are decoded in a smaller number of slots.

A slot holds one sentence at a time. When that is done, its hypotheses are stored in the results and the slot takes the
next sentence of the pool. Sentences are encoded a block at a time, when the block before has been used up.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int

from seqkd_jax.config import SearchConfig
from seqkd_jax.decoding.search.beams import Beams, first_beams, n_best, uncovered
from seqkd_jax.decoding.search.past import Lineage, unwritten, with_beam_axis
from seqkd_jax.decoding.search.rules import Request
from seqkd_jax.types import BOS, PAD, Hypotheses, Translator


class Block(NamedTuple):
    """The next sentences, encoded: N rows of the pool."""

    start: Int[Array, ""]  # the pool's row of the first
    memory: Any  # the model's [N,...]
    state: Any  # its state before the first step [N,...]


class Slots(NamedTuple):
    """The state of the decoder: B slots for the P sentences of the pool."""

    row: Int[Array, " B"]  # row of its sentence in the pool; P: the slot is empty
    t: Int[Array, " B"]  # tokens decoded so far
    beams: Beams
    token: Int[Array, "B K"]  # the last token of each hypothesis
    memory: Any  # the model's [B,...]
    state: Any  # the model's [B,K,...]
    caches: Any  # the model's
    lineage: Lineage
    block: Block
    following: Int[Array, ""]  # the next row of the pool
    results: Hypotheses  # [P,K,...]


class Pool(NamedTuple):
    """P sentences, fill rows included; fill rows at the end are not decoded."""

    request: Request
    used: Int[Array, ""]  # rows up to the last sentence
    encode: Callable  # (first row) -> Block

    @property
    def rows(self) -> int:
        """P."""
        return self.request.source.shape[0]


def pool_of(translator: Translator, params, request: Request, block: int) -> Pool:
    """The pool of these sentences, to be encoded `block` at a time."""
    rows = request.source.shape[0]

    def encode(start) -> Block:
        start = jnp.minimum(start, rows - block)
        return Block(start, *translator.start(params, lax.dynamic_slice_in_dim(request.source, start, block)))

    return Pool(request, jnp.max(jnp.where(request.max_length > 0, jnp.arange(1, rows + 1), 0)), encode)


def empty(translator: Translator, config: SearchConfig, pool: Pool, slots: int, max_steps: int) -> Slots:
    """Empty slots, a block that is used up, and empty results."""
    request, sizes = pool.request, (slots, config.beam, max_steps)
    shapes = jax.eval_shape(pool.encode, jnp.int32(0))
    zeros = lambda tree, *axes: jax.tree.map(lambda leaf: jnp.zeros((*axes, *leaf.shape[1:]), leaf.dtype), tree)  # noqa: E731
    block = jax.tree.leaves(shapes.memory)[0].shape[0]
    nothing = jnp.full((pool.rows, config.beam), -jnp.inf, jnp.float32)
    tokens = jnp.full((pool.rows, config.beam, max_steps), PAD, jnp.int32)
    return Slots(
        row=jnp.full(slots, pool.rows, jnp.int32),
        t=jnp.zeros(slots, jnp.int32),
        beams=first_beams(*sizes[1:], jnp.zeros(slots, jnp.int32), uncovered(config, request.source[:slots])),
        token=jnp.full(sizes[:2], BOS, jnp.int32),
        memory=zeros(shapes.memory, slots),
        state=zeros(shapes.state, *sizes[:2]),
        caches=translator.caches(*sizes),
        lineage=unwritten(*sizes),
        block=Block(jnp.int32(-block), zeros(shapes.memory, block), zeros(shapes.state, block)),
        following=jnp.int32(0),
        results=Hypotheses(tokens, nothing, nothing, jnp.zeros(nothing.shape, bool)),
    )


def refilled(config: SearchConfig, pool: Pool, now: Slots) -> Slots:
    """Store the hypotheses of slots that are done in the results, and give these slots the next sentences, if any.

    They take what is left of the block, so it may take several refills until all slots have a sentence.
    """
    done, (beam, max_steps) = now.beams.done, now.beams.live.shape[1:]
    place = jnp.where(done, now.row, pool.rows)  # out of bounds: dropped
    found = jax.vmap(lambda beams: n_best(config, beams))(now.beams)
    results = jax.tree.map(lambda all_, new: all_.at[place].set(new, mode="drop"), now.results, found)

    size = jax.tree.leaves(now.block.memory)[0].shape[0]
    used_up = (now.following >= now.block.start + size) & (now.following < pool.used)
    block = lax.cond(used_up, lambda block: pool.encode(now.following), lambda block: block, now.block)
    row = block.start + np.arange(size)
    turn = row - now.following  # a sentence's place among those that wait
    taken = (turn >= 0) & (turn < jnp.sum(done)) & (row < pool.used)
    free = jnp.argsort(~done, stable=True)
    slot = jnp.where(taken, free[jnp.clip(turn, 0, len(free) - 1)], len(free))
    request = jax.tree.map(lambda leaf: leaf[row], pool.request)

    def put(old, new):
        return jax.tree.map(lambda old, new: old.at[slot].set(new, mode="drop"), old, new)

    return Slots(
        row=put(jnp.where(done, pool.rows, now.row), row),
        t=put(now.t, 0),
        beams=put(now.beams, first_beams(beam, max_steps, request.max_length, uncovered(config, request.source))),
        token=put(now.token, BOS),
        memory=put(now.memory, block.memory),
        state=put(now.state, with_beam_axis(block.state, beam)),
        caches=now.caches,  # the entries of the sentence before are older than this one
        lineage=now.lineage._replace(began=put(now.lineage.began, now.lineage.step)),
        block=block,
        following=now.following + jnp.sum(taken),
        results=results,
    )
