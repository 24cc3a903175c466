"""The fast beam search, with the results of `simple`: the sentences of a pool are decoded in few slots.

Everything runs inside one program. While sentences wait, the slots of finished ones are refilled; then those that are
left move together, so that few slots are idle at the end. A step is that of all slots.
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
from seqkd_jax.decoding.search.slots import (
    Held,
    Slots,
    Use,
    before_first,
    busy,
    empty,
    fewer,
    pool_of,
    refilled,
    stored,
    waiting,
)
from seqkd_jax.decoding.search.topk import extensions
from seqkd_jax.types import Hypotheses, Translator

ENCODED = 4  # 1/ENCODED of the slots is encoded at a time
IDLE = 32  # refill when 1/IDLE of the slots are done
FEWER = (2, 8)  # when no sentence waits, those that are left move to 1/2, then to 1/8 of the slots
MANY = 16  # fewer slots than these end as they are


def engine(translator: Translator, config: SearchConfig, max_steps: int, slots: int | None = None) -> Callable:
    """The search (params, Request of P rows) -> Hypotheses with T = max_steps, to be jitted.

    slots: sentences decoded at a time, at most P (None: P). Rules and results are those of `simple.beam_search`, up to
    rounding.
    """
    search = counting_engine(translator, config, max_steps, slots)
    return lambda params, request: search(params, request)[0]


def counting_engine(translator: Translator, config: SearchConfig, max_steps: int, slots: int | None = None) -> Callable:
    """The `engine` with how it used its slots: (params, Request) -> (Hypotheses, Use)."""
    config.validate()

    def search(params, request: Request) -> tuple[Hypotheses, Use]:
        rows = request.source.shape[0]
        width = min(slots or rows, rows)
        sizes = [width, *(width // part for part in FEWER if rows > width >= MANY), 0]
        request = request._replace(max_length=jnp.minimum(request.max_length, max_steps))
        step = partial(_step, translator, config, params)

        def begun(row, own: Request) -> Held:
            return before_first(translator, config, params, row, own, max_steps)

        pool = pool_of(request, max(1, width // ENCODED) if width < rows else width, begun)
        enough = max(1, width // IDLE)

        def stepped(now: Slots) -> Slots:
            own = jax.tree.map(lambda leaf: leaf[jnp.minimum(now.held.row, rows - 1)], request)
            used = Use(now.used.slots + len(now.held.row), now.used.busy + busy(now))
            return now._replace(held=step(own, now.held), used=used)

        def worth_stepping(now: Slots) -> Bool[Array, ""]:
            return busy(now) > jnp.where(waiting(pool, now), width - enough, sizes[1])

        def decoded(now: Slots) -> Slots:
            """Encode the next block and decode until slots wait for the block after it; after the last, to the end."""
            block = pool.encode(now.following)

            def goes_on(now: Slots) -> Bool[Array, ""]:
                left = now.following <= block.row[-1]
                return jnp.where(waiting(pool, now), left, busy(now) > sizes[1])

            def round_(now: Slots) -> Slots:
                return lax.while_loop(worth_stepping, stepped, refilled(config, pool, block, now))

            return lax.while_loop(goes_on, round_, now)

        now = lax.while_loop(partial(waiting, pool), decoded, empty(pool, width))
        for size, next_size in zip(sizes[1:-1], sizes[2:], strict=True):
            now = lax.while_loop(
                lambda now, least=next_size: busy(now) > least, stepped, fewer(config, pool, now, size)
            )
        return stored(config, pool, now), now.used

    return search


def _step(translator: Translator, config: SearchConfig, params, request: Request, held: Held) -> Held:
    """One step of N sentences, with their Requests."""
    own, past = extended(held.own & ~held.beams.done[:, None, None])  # nobody reads what a finished sentence wrote
    features, attention, state, caches = translator.step(params, held.token, held.memory, held.state, held.caches, past)
    found = extensions(config, held.t, held.beams, translator.head(params, features), request)
    advance_all = jax.vmap(lambda *row: advance(config, *row))
    beams, token, parents = advance_all(held.t, held.beams, found, request.max_length, attention)
    if config.beam > 1:  # a single hypothesis is its own parent
        state, own = followed(state, own, parents)
    return Held(held.row, held.t + 1, beams, token, held.memory, state, caches, own)
