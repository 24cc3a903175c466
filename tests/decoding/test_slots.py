"""What moves into and out of slots."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from searches import limits, request, sources
from tiny import TINY, parameters

from seqkd_jax.config import SearchConfig
from seqkd_jax.decoding.search.slots import before_first, empty, fewer, pool_of, refilled

CONFIG, STEPS, VOCABULARY = SearchConfig(beam=2), 5, 9


def filled(longest, slots, block):
    """The function that refills, and slots that hold the first of these sentences, `block` encoded at a time."""
    asked = request(sources(0, VOCABULARY, len(longest)), *limits(0, STEPS, len(longest)))
    asked = asked._replace(max_length=np.array(longest, np.int32))
    params = parameters(0, VOCABULARY)

    def pool(params, asked):
        return pool_of(asked, block, lambda *some: before_first(TINY, CONFIG, params, *some, STEPS))

    first = jax.jit(lambda params, asked: empty(pool(params, asked), slots))

    @jax.jit
    def refill(params, asked, now):
        of = pool(params, asked)
        return refilled(CONFIG, of, of.encode(now.following), now)

    refill = functools.partial(refill, params, asked)
    now = first(params, asked)
    for _ in range(-(-slots // block)):
        now = refill(now)
    return refill, now, params["source"][asked.source], jax.jit(lambda now: fewer(CONFIG, pool(params, asked), now, 2))


def done(now, *rows):
    beams = now.held.beams._replace(done=jnp.array(rows, bool))
    return now._replace(held=now.held._replace(t=jnp.full(len(rows), 2), beams=beams))


@pytest.mark.parametrize("block", [3, 1])
def test_slots_take_the_next_sentences_in_their_order_and_no_fill_rows_at_the_end(block):
    refill, now, values, _ = filled([3, 3, 3, 3, 3, 0, 0], 3, block)
    assert now.held.row.tolist() == [0, 1, 2]
    now = refill(done(now, 1, 0, 1))
    if block == 1:  # one sentence was there
        assert now.held.row.tolist() == [3, 1, 7]
        now = refill(now)
    assert now.held.row.tolist() == [3, 1, 4] and now.held.t.tolist() == [0, 2, 0]
    np.testing.assert_array_equal(now.held.memory[0], values[np.array([3, 1, 4])])
    now = refill(done(now, 1, 1, 0))
    assert now.held.row.tolist() == [7, 7, 4] and int(now.following) == 5, "no sentence is left: these slots are empty"


def test_those_that_are_left_move_to_fewer_slots():
    _, now, values, to_two = filled([3, 3, 3], 3, 3)
    beams = now.held.beams
    found = beams._replace(finished_scores=jnp.array([[-1.0, -2], [-3, -4], [-5, -6]]))
    now = to_two(done(now._replace(held=now.held._replace(beams=found)), 0, 1, 0))
    assert now.held.row.tolist() == [0, 2] and not now.held.beams.done.any()
    np.testing.assert_array_equal(now.held.memory[0], values[np.array([0, 2])])
    assert now.results.scores[1].tolist() == [-3, -4], "what was done is stored"
    assert not np.isfinite(now.results.scores[jnp.array([0, 2])]).any()
