"""The fast beam search, with the results of `simple`: a pool of sentences is encoded, then decoded in few slots.

Everything runs inside one program. While sentences wait, the slots of finished ones are refilled; when few sentences
are left, a loop over fewer slots decodes them. To save work on unused cache entries, the loop over steps is compiled
for two lengths of the caches, and the shorter one runs while it holds the longest live hypothesis. The model reorders
hypotheses in the same pass that writes its caches.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int

from seqkd_jax.config import SearchConfig
from seqkd_jax.decoding.search.beams import advance
from seqkd_jax.decoding.search.rules import Request
from seqkd_jax.decoding.search.slots import Pool, Slots, compacted, cut, empty, encoded, refilled, widened
from seqkd_jax.decoding.search.topk import extensions
from seqkd_jax.types import Hypotheses, Translator

TURN = 2  # steps in one iteration of the inner loop; with one, XLA copies every cache once more
PART = 8  # refill when 1/PART of the slots are done; decode the last sentences of a pool in 1/PART of the slots


def engine(translator: Translator, config: SearchConfig, max_steps: int, slots: int | None = None) -> Callable:
    """The search (params, Request of P rows) -> Hypotheses with T = max_steps, to be jitted.

    slots: sentences decoded at a time, at most P (None: P). Rules and results are those of `simple.beam_search`, up to
    rounding.
    """
    config.validate()

    def search(params, request: Request) -> Hypotheses:
        rows = request.source.shape[0]
        width = min(slots or rows, rows)
        few = width // PART  # 0: no second loop over fewer slots
        request = request._replace(max_length=jnp.minimum(request.max_length, max_steps))
        pool = encoded(translator, config, params, request, width)
        levels = _levels(translator, params, request.source[:width], max_steps)
        run = partial(_run, partial(_step, translator, config, params, pool), partial(refilled, config, pool))

        def more_than_few(now: Slots) -> Bool[Array, ""]:
            return (now.following < pool.used) | (jnp.sum(now.row < rows) > few)

        def at_level(level: int, now: Slots) -> Slots:
            goes_on = lambda now: more_than_few(now) & _suits(levels, level, now)  # noqa: E731
            after = run(goes_on, now._replace(state=cut(now.state, levels[level][1])))
            return after._replace(state=widened(after.state, now.state))

        now = refilled(config, pool, empty(pool, levels[-1][1], config.beam, max_steps, width))
        branches = [partial(at_level, level) for level in range(len(levels))]
        now = lax.while_loop(more_than_few, lambda now: lax.switch(_level(levels, now), branches, now), now)
        if few:
            now = run(lambda now: jnp.any(now.row < rows), compacted(pool, now, few))
        return now.results

    return search


def _run(step: Callable, refill: Callable, goes_on: Callable, now: Slots) -> Slots:
    """Step and refill while `goes_on`, which must be False when all slots are empty."""
    enough = max(1, len(now.row) // PART)

    def worth_stepping(now: Slots):
        finished = jnp.sum(now.beams.done & (now.row < len(now.results.scores)))
        return goes_on(now) & jnp.any(~now.beams.done) & (finished < enough)

    def turn(now: Slots) -> Slots:
        for _ in range(TURN):
            now = step(now)
        return now

    def round_(now: Slots) -> Slots:
        return refill(lax.while_loop(worth_stepping, turn, now))

    return lax.while_loop(goes_on, round_, now)


def _step(translator: Translator, config: SearchConfig, params, pool: Pool, now: Slots) -> Slots:
    """One step of every slot."""
    parents = now.parents if config.beam > 1 else None  # a single hypothesis is its own parent
    features, attention, state = translator.step(params, now.token, now.memory, now.state, parents)
    own = jax.tree.map(lambda leaf: leaf[jnp.minimum(now.row, pool.rows - 1)], pool.request)
    found = extensions(config, now.t, now.beams, translator.head(params, features), own)
    advance_all = jax.vmap(lambda *row: advance(config, *row))
    beams, token, parents = advance_all(now.t, now.beams, found, own.max_length, attention)
    return now._replace(t=now.t + 1, beams=beams, token=token, parents=parents, state=state)


def capacities(max_steps: int) -> list[int]:
    """Lengths of the caches in steps, ascending. Each is compiled as a loop, so there are at most two."""
    return [max_steps] if max_steps <= 16 else [-(-max_steps // 2), max_steps]


def _levels(translator: Translator, params, source, max_steps: int) -> list[tuple[int, object]]:
    """(length, shapes of the model's state) of each length of the caches; one for a model without caches."""

    def state(steps: int):
        return jax.eval_shape(lambda source: translator.start(params, source, steps)[1], source)

    levels = [(steps, state(steps)) for steps in capacities(max_steps)]
    return levels if levels[0][1] != levels[-1][1] else levels[-1:]


def _level(levels, now: Slots) -> Int[Array, ""]:
    """The index of the shortest caches that hold the longest live hypothesis with some room left."""
    return sum(_longest(now) > _comfortable(capacity) for capacity, _ in levels[:-1]) + jnp.int32(0)


def _suits(levels, level: int, now: Slots) -> Bool[Array, ""]:
    """Whether the caches of this level have room for TURN steps and those of the level below are too short."""
    has_room = (level == len(levels) - 1) | (_longest(now) + TURN <= levels[level][0])
    return has_room if level == 0 else has_room & (_longest(now) > _comfortable(levels[level - 1][0]))


def _comfortable(capacity: int) -> int:
    """The longest hypothesis for which caches of this length are chosen; it leaves room for further steps."""
    return capacity - TURN - capacity // 8


def _longest(now: Slots) -> Int[Array, ""]:
    return jnp.max(jnp.where(now.beams.done, 0, now.t))
