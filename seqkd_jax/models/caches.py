"""The cache of self-attention in decoding: entries that are written once, attended to by all hypotheses of a sentence.

The entries of all K hypotheses of a sentence are one matrix, and all queries of the sentence meet it in one product; a
mask leaves each its own (types.Past). The matrix is divided into blocks of entries, and only those in use are read.
"""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from seqkd_jax.models.layers import attention_weights
from seqkd_jax.types import Past

LEAST = 2**17  # numbers in a block of keys, at least: reading fewer takes no longer than to choose, and compiles faster
STEP = 16  # blocks are multiples of it


class Block(NamedTuple):
    """C of the entries. Keys have the layout for products of few rows."""

    keys: Float[Array, "B H D C"]
    values: Float[Array, "B H C D"]


Cache = tuple[Block, ...]


def empty(rows: int, beam: int, length: int, heads: int, size: int, dtype) -> Cache:
    """A cache for `length` steps of `beam` hypotheses.

    Two blocks: the first has room for half of the steps and what a beam keeps apart from them (see
    `decoding.search.past`), which is mostly enough. One block if the first would be small.
    """
    entries = beam * length
    first = max(length // 2 + 6 * (beam - 1), -(-LEAST // (rows * heads * size)))
    first += -first % STEP
    ends = sorted({min(first, entries), entries})
    sizes = np.diff([0, *ends]).tolist()
    zeros = partial(jnp.zeros, dtype=dtype)
    return tuple(Block(zeros((rows, heads, size, n)), zeros((rows, heads, n, size))) for n in sizes)


def written(
    cache: Cache, keys: Float[Array, "B H K D"], values: Float[Array, "B H K D"], place: Int[Array, "B K"]
) -> Cache:
    """The cache with what each hypothesis writes at its place."""
    row, start, blocks = np.arange(len(place))[:, None], 0, []
    keys, values = jnp.swapaxes(keys, 1, 2), jnp.swapaxes(values, 1, 2)
    for block in cache:
        size = block.keys.shape[-1]
        at = jnp.where(place >= start, place - start, size)  # beyond the block: dropped
        put = {"mode": "drop", "unique_indices": True}
        blocks.append(
            Block(block.keys.at[row, :, :, at].set(keys, **put), block.values.at[row, :, at].set(values, **put))
        )
        start += size
    return tuple(blocks)


def attend(query: Float[Array, "B H K D"], cache: Cache, past: Past) -> Float[Array, "B H K D"]:
    """What the queries find among their own entries."""
    starts = np.cumsum([0, *(block.keys.shape[-1] for block in cache[:-1])])
    in_use = jnp.sum(past.used > starts) - 1
    branches = [partial(_attend_to_first, count) for count in range(1, len(cache) + 1)]
    return lax.switch(in_use, branches, query, cache, past.own)


def _attend_to_first(count: int, query, cache: Cache, own: Bool[Array, "B K C"]):
    """Attention to the first `count` blocks."""
    scores = [jnp.einsum("bhkd,bhdt->bhkt", query, block.keys) for block in cache[:count]]
    ends = np.cumsum([one.shape[-1] for one in scores]).tolist()
    mask = own[:, None, :, : ends[-1]]
    weights = attention_weights(jnp.concatenate(scores, axis=-1), mask).astype(query.dtype)
    parts = zip(jnp.split(weights, ends[:-1], axis=-1), cache, strict=False)
    return sum(jnp.einsum("bhkt,bhtd->bhkd", part, block.values) for part, block in parts)
