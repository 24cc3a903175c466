"""Attention to a cache in blocks, against attention over all entries at once."""

import jax
import numpy as np
import pytest

from seqkd_jax.models import caches
from seqkd_jax.models.caches import attend, empty, written
from seqkd_jax.types import Past

B, H, K, D = 2, 3, 2, 4


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("length", "blocks"), [(5, 1), (12, 2), (37, 2)])
def test_it_is_attention_to_the_own_entries_of_the_blocks_in_use(length, blocks, monkeypatch):
    monkeypatch.setattr(caches, "LEAST", 8 * B * K * H * D)
    cache = empty(B, K, length, H, D, "float32")
    assert len(cache) == blocks
    put, keys, values = jax.jit(written), np.zeros((B, H, length, K, D)), np.zeros((B, H, length, K, D))
    for place in np.random.default_rng(length).permutation(length):
        new = normal(place, B, H, K, D), normal(100 + place, B, H, K, D)
        cache, (keys[:, :, place], values[:, :, place]) = put(cache, *new, place), new
    for used in {1, 5, *range(8, length, 8), length}:
        own = np.random.default_rng(used).random((B, K, length, K)) < 0.5
        own[:, :, used:], own[:, :, used - 1] = False, True
        query = normal(used, B, H, K, D)
        found = jax.jit(attend)(query, cache, Past(np.int32(0), np.int32(used), own))
        scores = np.einsum("bhkd,bhtjd->bhktj", query, keys)
        weights = np.exp(scores) * own[:, None]
        wanted = np.einsum("bhktj,bhtjd->bhkd", weights, values) / weights.sum((-1, -2))[..., None]
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
