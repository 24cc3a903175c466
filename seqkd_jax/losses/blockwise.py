"""Head and loss in blocks of positions: of many positions, the logits are never in memory together.

Of N positions and V entries, logits and their gradient are 8NV bytes, a teacher's another 4NV; on CPUs it took a
quarter of the head's time to carry them to memory and back. A sum over positions needs each of them once only: a
block's gradient is found beside its value, and what is kept is the gradient by parameters and features. So nothing is
computed twice either, as it would be under `jax.checkpoint`.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Logits in a block. On CPUs 8 MiB, so that they stay in a cache; elsewhere a bound of the memory, not yet measured.
LOGITS = {"cpu": 2**21}
LOGITS_ELSEWHERE = 2**26


def summed(
    head: Callable, loss: Callable, params: Any, features: Any, others: Any, constants: Any
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """`loss(head(params, features), others, constants)` -> (sum, weights), in blocks of positions if there are many.

    features: [*pos,E], of an ensemble one array a member; all leaves of others begin with the same axes *pos, which are
    one axis in a block. The sum may be differentiated, once and in reverse, by params and features. `loss` must be a
    sum over positions, and nothing where features and others are 0: with such positions the last block is filled up.
    """

    def function(params, features, others, constants):
        return loss(head(params, features), others, constants)

    logits = jax.eval_shape(head, params, features)
    axes, positions = logits.ndim - 1, math.prod(logits.shape[:-1])
    count = -(-logits.size // LOGITS.get(jax.default_backend(), LOGITS_ELSEWHERE))
    if count <= 1:
        return function(params, features, others, constants)
    each = -(-positions // count)

    def split(leaf):
        padded = jnp.pad(leaf.reshape(positions, -1), [(0, count * each - positions), (0, 0)])
        return padded.reshape(count, each, *leaf.shape[axes:])

    return _in_blocks(function)(params, *jax.tree.map(split, (features, others)), constants)


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
