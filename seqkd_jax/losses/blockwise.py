"""Head and loss in blocks of positions, so that the logits of all positions are never in memory together.

For N positions and V entries, logits and their gradient take 8NV bytes, the teacher's logits another 4NV; on CPUs a
quarter of the head's time went into moving them. Since the loss is a sum over positions, each block's gradient is
computed together with its value, and only the gradients by parameters and features are kept. Nothing is computed twice,
as it would be with `jax.checkpoint`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Logits in a block. On CPUs 8 MiB, so that they stay in the cache; elsewhere a bound of memory that is not measured.
LOGITS = {"cpu": 2**21}
LOGITS_ELSEWHERE = 2**26


def summed(
    head: Callable, loss: Callable, params: Any, features: Any, others: Any, constants: Any
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """`loss(head(params, features), others, constants)` -> (sum, weights), in blocks of positions if there are many.

    features: [*pos,E], for an ensemble one array for each member; all leaves of others begin with the same axes *pos,
    which become one axis in a block. The sum can be differentiated once, in reverse mode, by params and features.
    `loss` must be a sum over positions, and 0 where features and others are 0: such positions pad the last block.
    """

    def function(params, features, others, constants):
        return loss(head(params, features), others, constants)

    blocks = _blocks(head, params, features)
    if blocks.count <= 1:
        return function(params, features, others, constants)
    return _in_blocks(function)(params, *blocks.split((features, others)), constants)


def mapped(head: Callable, function: Callable, params: Any, features: Any) -> Any:
    """`function(head(params, features))`, whose leaves are [*pos,...], in blocks of positions if there are many."""
    blocks = _blocks(head, params, features)
    if blocks.count <= 1:
        return function(head(params, features))
    return blocks.join(jax.lax.map(lambda block: function(head(params, block)), blocks.split(features)))


class _Blocks(NamedTuple):
    axes: tuple[int, ...]  # *pos
    count: int
    each: int  # positions in a block

    def split(self, tree: Any) -> Any:
        """[*pos,...] -> [blocks,positions,...], filled up with zeros."""
        positions, axes = math.prod(self.axes), len(self.axes)

        def split(leaf):
            padded = jnp.pad(leaf.reshape(positions, -1), [(0, self.count * self.each - positions), (0, 0)])
            return padded.reshape(self.count, self.each, *leaf.shape[axes:])

        return jax.tree.map(split, tree)

    def join(self, tree: Any) -> Any:
        """[blocks,positions,...] -> [*pos,...]."""

        def join(leaf):
            flat = leaf.reshape(self.count * self.each, *leaf.shape[2:])
            return flat[: math.prod(self.axes)].reshape(*self.axes, *leaf.shape[2:])

        return jax.tree.map(join, tree)


def _blocks(head: Callable, params: Any, features: Any) -> _Blocks:
    logits = jax.eval_shape(head, params, features)
    axes = logits.shape[:-1]
    count = -(-logits.size // LOGITS.get(jax.default_backend(), LOGITS_ELSEWHERE))
    return _Blocks(axes, count, -(-math.prod(axes) // max(count, 1)))


def _in_blocks(function):
    nothing = jnp.zeros(()), jnp.zeros(())

    @jax.custom_vjp
    def total(params, features, others, constants):
        def add(so_far, block):
            return jax.tree.map(jnp.add, so_far, function(params, *block, constants)), None

        return jax.lax.scan(add, nothing, (features, others))[0]

    def forward(params, features, others, constants):
        def add(so_far, block):
            features, others = block
            value, pull, weights = jax.vjp(lambda *by: function(*by, others, constants), params, features, has_aux=True)
            of_params, of_features = pull(jnp.ones_like(value))
            return jax.tree.map(jnp.add, so_far, ((value, weights), of_params)), of_features

        start = nothing, jax.tree.map(jnp.zeros_like, params)
        (sums, of_params), of_features = jax.lax.scan(add, start, (features, others))
        return sums, (of_params, of_features)

    def backward(gradients, by):
        return *jax.tree.map(lambda leaf: leaf * by[0].astype(leaf.dtype), gradients), None, None

    total.defvjp(forward, backward)
    return total
