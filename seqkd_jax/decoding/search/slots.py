"""The engine's slots: a pool of encoded sentences is decoded in a smaller number of slots.

A slot holds one sentence at a time. When that is done, its hypotheses are stored in the results and the slot takes the
next sentence of the pool.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from seqkd_jax.config import SearchConfig
from seqkd_jax.decoding.search.beams import Beams, first_beams, n_best, uncovered
from seqkd_jax.decoding.search.rules import Request
from seqkd_jax.types import BOS, PAD, Hypotheses, Translator


class Pool(NamedTuple):
    """P encoded sentences, fill rows included; fill rows at the end are not decoded."""

    request: Request
    used: Int[Array, ""]  # rows up to the last sentence
    covered: Float[Array, "P S"] | None  # the coverage before the first step, if a rule reads it
    memory: Any  # the model's [P,...]
    first: Any  # its state before the first step [P,...]; caches have length 0 here, and their room in the slots

    @property
    def rows(self) -> int:
        """P."""
        return self.request.source.shape[0]


class Slots(NamedTuple):
    """The state of the decoder: B slots for the P sentences of the pool."""

    row: Int[Array, " B"]  # row of its sentence in the pool; P: the slot is empty
    t: Int[Array, " B"]  # tokens decoded so far
    beams: Beams
    token: Int[Array, "B K"]  # the last token of each hypothesis
    parents: Int[Array, "B K"]  # its place in the beam before that token
    memory: Any  # the model's [B,...]
    state: Any  # the model's [B,K,...]
    following: Int[Array, ""]  # the next row of the pool
    results: Hypotheses  # [P,K,...]


def encoded(translator: Translator, config: SearchConfig, params, request: Request, width: int) -> Pool:
    """The pool, encoded `width` rows at a time, so that shapes inside the model do not depend on the pool's size."""
    rows = request.source.shape[0]
    shapes = jax.eval_shape(lambda source: translator.start(params, source, 0), request.source)

    def encode(block, pooled):
        start = jnp.minimum(block * width, rows - width)
        found = translator.start(params, lax.dynamic_slice_in_dim(request.source, start, width), 0)
        return jax.tree.map(lambda all_, new: lax.dynamic_update_slice_in_dim(all_, new, start, 0), pooled, found)

    used = jnp.max(jnp.where(request.max_length > 0, jnp.arange(1, rows + 1), 0))
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    memory, first = lax.fori_loop(0, -(-used // width), encode, nothing)
    return Pool(request, used, uncovered(config, request.source), memory, first)


def empty(pool: Pool, state, beam: int, max_steps: int, slots: int) -> Slots:
    """Empty slots and empty results. state: shapes [B,...] of the model's state, caches included."""
    zeros = lambda leaf, *axes: jnp.zeros((slots, *axes, *leaf.shape[1:]), leaf.dtype)  # noqa: E731
    nothing = jnp.full((pool.rows, beam), -jnp.inf, jnp.float32)
    tokens = jnp.full((pool.rows, beam, max_steps), PAD, jnp.int32)
    covered = None if pool.covered is None else pool.covered[:slots]
    return Slots(
        row=jnp.full(slots, pool.rows, jnp.int32),
        t=jnp.zeros(slots, jnp.int32),
        beams=first_beams(beam, max_steps, jnp.zeros(slots, jnp.int32), covered),
        token=jnp.full((slots, beam), BOS, jnp.int32),
        parents=jnp.zeros((slots, beam), jnp.int32),
        memory=jax.tree.map(zeros, pool.memory),
        state=jax.tree.map(lambda leaf: zeros(leaf, beam), state),
        following=jnp.int32(0),
        results=Hypotheses(tokens, nothing, nothing, jnp.zeros((pool.rows, beam), bool)),
    )


def refilled(config: SearchConfig, pool: Pool, now: Slots) -> Slots:
    """Store the hypotheses of slots that are done in the results, and give these slots the next sentences, if any."""
    done, (beam, max_steps) = now.beams.done, now.beams.live.shape[1:]
    collected = jax.vmap(lambda beams: n_best(config, beams))(now.beams)
    place = jnp.where(done, now.row, pool.rows)  # out of bounds: dropped
    results = jax.tree.map(lambda all_, new: all_.at[place].set(new, mode="drop"), now.results, collected)
    following = now.following + jnp.cumsum(done)  # the row after the one that each slot would take
    row = jnp.where(done, jnp.where(following <= pool.used, following - 1, pool.rows), now.row)
    fresh, source_row = done & (row < pool.rows), jnp.minimum(row, pool.rows - 1)
    room = jnp.where(row < pool.rows, pool.request.max_length[source_row], 0)
    beams = first_beams(beam, max_steps, room, None if pool.covered is None else pool.covered[source_row])
    return Slots(
        row=row,
        t=jnp.where(done, 0, now.t),
        beams=jax.tree.map(lambda old, new: _where(done, new, old), now.beams, beams),
        token=_where(done, jnp.full_like(now.token, BOS), now.token),
        parents=_where(done, jnp.broadcast_to(np.arange(beam)[None], now.parents.shape), now.parents),
        memory=jax.tree.map(lambda old, new: _where(fresh, new[source_row], old), now.memory, pool.memory),
        # Caches are not cleared: entries that a hypothesis has not written are never read.
        state=jax.tree.map(
            lambda old, new: _where(done, new[source_row][:, None], old) if old.shape[2:] == new.shape[1:] else old,
            now.state,
            pool.first,
        ),
        following=jnp.minimum(following[-1], pool.used),
        results=results,
    )


def compacted(pool: Pool, now: Slots, slots: int) -> Slots:
    """The same in fewer slots, which must be enough for the sentences being decoded."""
    holding_first = jnp.argsort(now.row == pool.rows, stable=True)[:slots]
    of_slots = {name: value for name, value in now._asdict().items() if name not in ("following", "results")}
    return now._replace(**jax.tree.map(lambda leaf: leaf[holding_first], of_slots))


def cut(state, shapes):
    """A model's state [B,K,...] with its caches cut to the lengths in `shapes` [*,...]."""
    return jax.tree.map(lambda leaf, shape: leaf[tuple(map(slice, (*leaf.shape[:2], *shape.shape[1:])))], state, shapes)


def widened(cut_state, state):
    """The opposite of `cut`: `state` with its caches overwritten at the front by those of `cut_state`."""
    return jax.tree.map(lambda new, old: lax.dynamic_update_slice(old, new, (0,) * old.ndim), cut_state, state)


def _where(rows: Bool[Array, " B"], new, old):
    return jnp.where(jnp.expand_dims(rows, tuple(range(1, old.ndim))), new, old)
