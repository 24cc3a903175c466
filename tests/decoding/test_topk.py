"""The ranking of the vocabulary in blocks, against a plain top-k over all of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from seqkd_jax.decoding.search.topk import best_extensions


@pytest.mark.parametrize("vocabulary", [5, 9, 640, 700, 709])  # one block, blocks that fit, blocks that are padded
@pytest.mark.parametrize("ties", [False, True])
def test_best_extensions_are_those_of_a_plain_top_k(vocabulary, ties):
    random = np.random.default_rng(vocabulary)
    logits = random.normal(size=(4, 3, vocabulary)).astype(np.float32)
    if ties:  # few values, exact in float32: the order of equals counts, those beside the highest come after others
        logits = (random.random(logits.shape) < 0.2).astype(np.float32)
        logits[..., -2:] = 2
    live = np.array([[0, -np.inf, -np.inf], [-1, -2, -3], [-1, -1, -1], [-4, -5, -np.inf]], np.float32)
    special = np.array([[1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 1, 1]], bool)

    def plain(logits, live, special):
        log_probs = jax.nn.log_softmax(logits)
        barred = jnp.pad(special, ((0, 0), (0, vocabulary - 4)))[:, None]
        totals = live[..., None] + jnp.where(barred, -jnp.inf, log_probs)
        totals, flat = lax.top_k(totals.reshape(4, -1), 6)
        return totals, flat // vocabulary, flat % vocabulary

    found = jax.device_get(jax.jit(functools.partial(best_extensions, number=6))(logits, live, special=special))
    wanted = jax.device_get(jax.jit(plain)(logits, live, special))
    np.testing.assert_allclose(found.totals, wanted[0], rtol=1e-6, atol=1e-6)
    possible = wanted[0] > -np.inf  # among impossible ones there is no order
    for mine, theirs in zip(found[1:], wanted[1:], strict=True):
        np.testing.assert_array_equal(mine[possible], theirs[possible])


def test_best_extensions_of_log_probabilities():
    log_probs = np.log(np.random.default_rng(0).dirichlet(np.ones(700), (2, 3))).astype(np.float32)
    log_probs[:, :, 5::7] = -np.inf
    live = np.array([[-1, -2, -3], [0, -np.inf, -np.inf]], np.float32)
    found = jax.device_get(jax.jit(functools.partial(best_extensions, number=6, special=None))(log_probs, live))
    flat = (live[..., None] + log_probs).reshape(2, -1)
    order = np.argsort(-flat, axis=-1, kind="stable")[:, :6]
    np.testing.assert_array_equal(found.parents, order // 700)
    np.testing.assert_array_equal(found.tokens, order % 700)
    np.testing.assert_allclose(found.totals, np.take_along_axis(flat, order, -1), rtol=1e-6)
