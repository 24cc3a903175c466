"""What moves into and out of slots."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from searches import limits, request, sources
from tiny import TINY, parameters

from seqkd_jax.config import SearchConfig
from seqkd_jax.decoding.search.slots import empty, pool_of, refilled

CONFIG, STEPS, VOCABULARY = SearchConfig(beam=2), 5, 9


def filled(longest, slots, block):
    """The function that refills, and slots that hold the first of these sentences, `block` encoded at a time."""
    asked = request(sources(0, VOCABULARY, len(longest)), *limits(0, STEPS, len(longest)))
    asked = asked._replace(max_length=np.array(longest, np.int32))
    params = parameters(0, VOCABULARY)

    @jax.jit
    def first(params, asked):
        return empty(TINY, CONFIG, pool_of(TINY, params, asked, block), slots, STEPS)

    @jax.jit
    def refill(params, asked, now):
        return refilled(CONFIG, pool_of(TINY, params, asked, block), now)

    refill = functools.partial(refill, params, asked)
    now = first(params, asked)
    for _ in range(-(-slots // block)):
        now = refill(now)
    return refill, now, params["source"][asked.source]


def done(now, *rows):
    return now._replace(beams=now.beams._replace(done=jnp.array(rows, bool)))


@pytest.mark.parametrize("block", [3, 1])
def test_slots_take_the_next_sentences_in_their_order_and_no_fill_rows_at_the_end(block):
    refill, now, values = filled([3, 3, 3, 3, 3, 0, 0], 3, block)
    assert now.row.tolist() == [0, 1, 2]
    now = now._replace(t=jnp.array([2, 2, 2]), lineage=now.lineage._replace(step=jnp.int32(2)))
    now = refill(done(now, 1, 0, 1))
    if block == 1:  # one sentence was there
        assert now.row.tolist() == [3, 1, 7]
        now = refill(now)
    assert now.row.tolist() == [3, 1, 4] and now.t.tolist() == [0, 2, 0]
    assert now.lineage.began.tolist() == [2, 0, 2]
    np.testing.assert_array_equal(now.memory[0], values[np.array([3, 1, 4])])
    now = refill(done(now, 1, 1, 0))
    assert now.row.tolist() == [7, 7, 4] and int(now.following) == 5, "no sentence is left: these slots are empty"
