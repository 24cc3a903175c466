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


@pytest.mark.parametrize(("length", "blocks"), [(5, 1), (12, 2), (67, 2)])
def test_it_is_attention_to_the_own_entries_of_the_blocks_in_use(length, blocks, monkeypatch):
    monkeypatch.setattr(caches, "LEAST", 16 * B * H * D)
    cache, entries = empty(B, K, length, H, D, "float32"), K * length
    assert len(cache) == blocks
    put, keys, values = jax.jit(written), np.zeros((B, H, entries, D)), np.zeros((B, H, entries, D))
    order = np.stack([np.random.default_rng(row).permutation(entries) for row in range(B)]).reshape(B, length, K)
    row = np.arange(B)[:, None]
    for step in range(length):
        new = normal(step, B, H, K, D), normal(100 + step, B, H, K, D)
        cache = put(cache, *new, order[:, step])
        keys[row, :, order[:, step]], values[row, :, order[:, step]] = (np.swapaxes(one, 1, 2) for one in new)
    for used in {1, 5, *range(16, entries, 16), entries}:
        own = np.random.default_rng(used).random((B, K, entries)) < 0.5
        own[..., used:], own[..., used - 1] = False, True
        query = normal(used, B, H, K, D)
        found = jax.jit(attend)(query, cache, Past(np.zeros((B, K), np.int32), np.int32(used), own))
        weights = np.exp(np.einsum("bhkd,bhcd->bhkc", query, keys)) * own[:, None]
        wanted = np.einsum("bhkc,bhcd->bhkd", weights, values) / weights.sum(-1)[..., None]
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
