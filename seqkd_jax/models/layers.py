"""What the models share: dropout keyed by row.

Every sentence has its own key, so its masks do not depend on the batch, device or microbatch it is in, and training
with dropout is the same objective on any number of devices.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

LEVELS = 2**16  # a mask compares 16 random bits with round(rate * LEVELS): rates are rounded to 1/65536


def fold_keys(keys: Key[Array, "B"] | None, site: int) -> Key[Array, "B"] | None:
    """Keys [B] for one dropout site (or group of sites), derived from the rows' keys; None stays None."""
    return None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, site))(keys)


def dropout(x: Float[Array, "B *pos"], rate: float, keys: Key[Array, "B"] | None) -> Float[Array, "B *pos"]:
    """Inverted dropout; each row's mask is drawn from its own key only. keys None: identity.

    The rate is static, in [0, 1). Kept values are scaled by the inverse of the probability, as rounded, that they are
    kept, so the expectation is exact.
    """
    dropped = round(rate * LEVELS)
    if keys is None or dropped == 0:
        return x
    size = math.prod(x.shape[1:])

    def draw(key):
        # Two 16-bit numbers of each 32 bits: asked for uint16, jax would hash once for each of them.
        bits = jax.random.bits(key, (-(-size // 2),), jnp.uint32)
        return jax.lax.bitcast_convert_type(bits, jnp.uint16).reshape(-1)[:size].reshape(x.shape[1:])

    return jnp.where(jax.vmap(draw)(keys) >= dropped, x * (LEVELS / (LEVELS - dropped)), jnp.zeros((), x.dtype))
