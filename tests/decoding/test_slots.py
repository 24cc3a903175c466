"""What moves between slots: caches that are cut and put back, sentences that move to fewer slots."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from searches import limits, request, sources
from tiny import TINY, parameters

from seqkd_jax.config import SearchConfig
from seqkd_jax.decoding.search.slots import compacted, cut, empty, encoded, refilled, widened

CONFIG, STEPS, VOCABULARY = SearchConfig(beam=2), 5, 9


def test_a_state_that_is_cut_and_widened_keeps_what_is_beyond():
    whole = {"cache": np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).astype(np.float32), "position": np.ones((2, 3))}
    shapes = {"cache": np.zeros((7, 2, 5)), "position": np.zeros(7)}  # as `start` gives them, for other rows
    small = cut(whole, shapes)
    assert small["cache"].shape == (2, 3, 2, 5) and small["position"].shape == (2, 3)
    again = widened({"cache": -small["cache"], "position": 2 * small["position"]}, whole)
    np.testing.assert_array_equal(again["cache"][:, :, :2], -whole["cache"][:, :, :2])
    np.testing.assert_array_equal(again["cache"][:, :, 2:], whole["cache"][:, :, 2:])
    assert (again["position"] == 2).all()


def slots_of(longest, number):
    """The pool of these sentences, and so many slots that hold the first of them."""
    asked = request(sources(0, VOCABULARY, len(longest)), *limits(0, STEPS, len(longest)))
    asked = asked._replace(max_length=np.array(longest, np.int32))

    @jax.jit
    def filled(params, asked):
        pool = encoded(TINY, CONFIG, params, asked, number)
        state = TINY.start(params, asked.source[:number], STEPS)[1]
        return pool, refilled(CONFIG, pool, empty(pool, state, CONFIG.beam, STEPS, number))

    return filled(parameters(0, VOCABULARY), asked)


def test_slots_take_the_next_sentences_in_their_order_and_no_fill_rows_at_the_end():
    pool, now = slots_of([3, 3, 3, 3, 3, 0, 0], 3)
    refill = jax.jit(functools.partial(refilled, CONFIG))
    assert now.row.tolist() == [0, 1, 2] and int(pool.used) == 5
    done = now._replace(beams=now.beams._replace(done=jnp.array([True, False, True])), t=jnp.array([2, 2, 2]))
    now = refill(pool, done)
    assert now.row.tolist() == [3, 1, 4] and now.t.tolist() == [0, 2, 0]
    done = now._replace(beams=now.beams._replace(done=jnp.array([True, True, False])))
    now = refill(pool, done)
    assert now.row.tolist() == [7, 7, 4], "there is no sentence left: these slots are empty"


def test_sentences_that_move_to_fewer_slots_take_everything_along():
    pool, now = slots_of([3] * 6, 6)
    now = now._replace(row=jnp.array([6, 1, 6, 6, 4, 6]), t=jnp.arange(6))
    few = compacted(pool, now, 3)
    assert few.row.tolist() == [1, 4, 6] and few.t.tolist()[:2] == [1, 4]
    assert few.following == now.following and few.results.tokens.shape == now.results.tokens.shape
    for leaf in (few.token, few.parents, few.beams.live):
        assert len(leaf) == 3
