"""The cache of self-attention in decoding: entries that are written once, attended to by all hypotheses of a sentence.

The K entries of a place stand side by side, so the past of all K hypotheses is one matrix, and all queries of a
sentence meet it in one product; a mask leaves each its own (types.Past). The matrix is divided into blocks of places,
and only those in use are read.
"""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from seqkd_jax.models.layers import attention_weights
from seqkd_jax.types import Past

LEAST = 2**17  # numbers in a block of keys, at least: reading fewer takes no longer than to choose, and compiles faster


class Block(NamedTuple):
    """The entries of P places. Keys have the layout for products of few rows."""

    keys: Float[Array, "B H D PK"]
    values: Float[Array, "B H PK D"]


Cache = tuple[Block, ...]


def empty(rows: int, beam: int, length: int, heads: int, size: int, dtype) -> Cache:
    """A cache of `length` places: two halves, or one block if they would be small."""
    half = max(-(-length // 2), -(-LEAST // (rows * beam * heads * size)))
    ends = sorted({min(half, length), length})
    entries = [beam * (end - start) for start, end in zip([0, *ends], ends, strict=False)]
    zeros = partial(jnp.zeros, dtype=dtype)
    return tuple(Block(zeros((rows, heads, size, n)), zeros((rows, heads, n, size))) for n in entries)


def written(cache: Cache, keys: Float[Array, "B H K D"], values: Float[Array, "B H K D"], place: Int[Array, ""]):
    """The cache with the entries of a step at its place."""
    start, blocks = 0, []
    for block in cache:
        places = block.keys.shape[-1] // keys.shape[2]
        inside = (place >= start) & (place < start + places)
        at = jnp.where(inside, place - start, 0) * keys.shape[2]
        new = zip(block, (jnp.swapaxes(keys, -1, -2), values), ((0, 0, 0, at), (0, 0, at, 0)), strict=True)
        # A block that the place is not in is written too, with what is there: a branch would copy it.
        blocks.append(Block(*(_put(old, one, corner, inside) for old, one, corner in new)))
        start += places
    return tuple(blocks)


def attend(query: Float[Array, "B H K D"], cache: Cache, past: Past) -> Float[Array, "B H K D"]:
    """What the queries find among their own entries."""
    beam, start, starts = query.shape[2], 0, []
    for block in cache:
        starts.append(start)
        start += block.keys.shape[-1] // beam
    in_use = sum(past.used > start for start in starts) - 1
    branches = [partial(_attend_to_first, count) for count in range(1, len(cache) + 1)]
    return lax.switch(in_use, branches, query, cache, past.own)


def _attend_to_first(count: int, query, cache: Cache, own: Bool[Array, "B K T K"]):
    """Attention to the first `count` blocks."""
    scores = [jnp.einsum("bhkd,bhdt->bhkt", query, block.keys) for block in cache[:count]]
    ends = [sum(one.shape[-1] for one in scores[:n]) for n in range(1, count + 1)]
    mask = own.reshape(*own.shape[:2], -1)[:, None, :, : ends[-1]]
    weights = attention_weights(jnp.concatenate(scores, axis=-1), mask).astype(query.dtype)
    parts = zip(jnp.split(weights, ends[:-1], axis=-1), cache, strict=False)
    return sum(jnp.einsum("bhkt,bhtd->bhkd", part, block.values) for part, block in parts)


def _put(array, new, corner, inside):
    """The array with `new` at this corner, or as it is; one write in place either way."""
    old = lax.dynamic_slice(array, corner, new.shape)
    return lax.dynamic_update_slice(array, jnp.where(inside, new, old), corner)
