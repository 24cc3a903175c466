"""The fast beam search, with the results of `simple`: the sentences of a pool are decoded in few slots.

Everything runs inside one program. While sentences wait, the slots of finished ones are refilled. The step is that of
all slots, and compiled once.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

from seqkd_jax.config import SearchConfig
from seqkd_jax.decoding.search.beams import advance
from seqkd_jax.decoding.search.past import extended, followed
from seqkd_jax.decoding.search.rules import Request
from seqkd_jax.decoding.search.slots import Pool, Slots, empty, pool_of, refilled
from seqkd_jax.decoding.search.topk import extensions
from seqkd_jax.types import Hypotheses, Translator

ENCODED = 4  # 1/ENCODED of the slots is encoded at a time
IDLE = 32  # refill when 1/IDLE of the slots are done


def engine(translator: Translator, config: SearchConfig, max_steps: int, slots: int | None = None) -> Callable:
    """The search (params, Request of P rows) -> Hypotheses with T = max_steps, to be jitted.

    slots: sentences decoded at a time, at most P (None: P). Rules and results are those of `simple.beam_search`, up to
    rounding.
    """
    config.validate()

    def search(params, request: Request) -> Hypotheses:
        rows = request.source.shape[0]
        width = min(slots or rows, rows)
        request = request._replace(max_length=jnp.minimum(request.max_length, max_steps))
        pool = pool_of(translator, params, request, max(1, width // ENCODED) if width < rows else width)
        enough = max(1, width // IDLE)

        def goes_on(now: Slots) -> Bool[Array, ""]:
            return (now.following < pool.used) | jnp.any(now.row < rows)

        def worth_stepping(now: Slots) -> Bool[Array, ""]:
            idle = jnp.sum(now.beams.done)
            return idle < jnp.where(now.following < pool.used, enough, width)

        def round_(now: Slots) -> Slots:
            step = partial(_step, translator, config, params, pool)
            return lax.while_loop(worth_stepping, step, refilled(config, pool, now))

        return lax.while_loop(goes_on, round_, empty(translator, config, pool, width, max_steps)).results

    return search


def _step(translator: Translator, config: SearchConfig, params, pool: Pool, now: Slots) -> Slots:
    """One step of every slot."""
    lineage, past = extended(now.lineage, ~now.beams.done)
    features, attention, state, caches = translator.step(params, now.token, now.memory, now.state, now.caches, past)
    own = jax.tree.map(lambda leaf: leaf[jnp.minimum(now.row, pool.rows - 1)], pool.request)
    found = extensions(config, now.t, now.beams, translator.head(params, features), own)
    advance_all = jax.vmap(lambda *row: advance(config, *row))
    beams, token, parents = advance_all(now.t, now.beams, found, own.max_length, attention)
    if config.beam > 1:  # a single hypothesis is its own parent
        state, lineage = followed(state, lineage, parents)
    return now._replace(t=now.t + 1, beams=beams, token=token, state=state, caches=caches, lineage=lineage)
