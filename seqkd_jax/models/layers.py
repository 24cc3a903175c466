"""What the models share: dropout keyed by row, the product with the vocabulary, positions read, hypotheses reordered.

Every sentence has its own key, so its masks do not depend on the batch, device or microbatch it is in, and training
with dropout is the same objective on any number of devices.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

from seqkd_jax.types import PAD, UserError

DECODING = "decoding"  # beside the parameters: copies of weights, laid out for decoding
LEVELS = 2**16  # a mask compares 16 random bits with round(rate * LEVELS): rates are rounded to 1/65536


def fold_keys(keys: Key[Array, "B"] | None, site: int) -> Key[Array, "B"] | None:
    """Keys [B] for one dropout site (or group of sites), derived from the rows' keys; None stays None."""
    return None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, site))(keys)


def dropout(x: Float[Array, "B *pos"], rate: float, keys: Key[Array, "B"] | None) -> Float[Array, "B *pos"]:
    """Inverted dropout; each row's mask is drawn from its own key only. keys None: identity.

    The rate is static, in [0, 1). Kept values are scaled by the inverse of the probability, as rounded, that they are
    kept, so the expectation is exact.
    """
    dropped = min(round(rate * LEVELS), LEVELS - 1)
    if keys is None or dropped == 0:
        return x
    size = math.prod(x.shape[1:])

    def draw(key):
        # Two 16-bit numbers of each 32 bits: asked for uint16, jax would hash once for each of them.
        bits = jax.random.bits(key, (-(-size // 2),), jnp.uint32)
        return jax.lax.bitcast_convert_type(bits, jnp.uint16).reshape(-1)[:size].reshape(x.shape[1:])

    return jnp.where(jax.vmap(draw)(keys) >= dropped, x * (LEVELS / (LEVELS - dropped)), jnp.zeros((), x.dtype))


@jax.custom_vjp
def product(x: Shaped[Array, "*pos I"], kernel: Shaped[Array, "I O"]) -> Shaped[Array, "*pos O"]:
    """x . kernel. Its gradients are those that JAX finds; in that of the kernel the smaller factor is the first.

    The first is transposed in memory on CPUs. JAX takes the gradient of what comes out, into which XLA then fuses the
    sum of all layers above that it is in a residual stream: of 12 sub-layers a sixth of the time of an update.
    """
    return jnp.einsum("...i,io->...o", x, kernel)


def _product_backward(saved, gradient):
    x, kernel = saved
    of_x = jnp.einsum("...o,io->...i", gradient, kernel)
    if kernel.shape[0] > kernel.shape[1]:
        return of_x, jnp.einsum("...o,...i->oi", gradient, x).T
    return of_x, jnp.einsum("...i,...o->io", x, gradient)


product.defvjp(lambda x, kernel: (product(x, kernel), (x, kernel)), _product_backward)


def read_positions(x: Float[Array, "B T E"], inputs: Int[Array, "B T"], reads: str) -> Float[Array, "B P E"]:
    """The positions of x that have features: `every` one, the `last` that is not padding, or the `first`."""
    if reads == "every":
        return x
    if reads == "first":
        return x[:, :1]
    last = jnp.maximum(jnp.sum(inputs != PAD, axis=1) - 1, 0)
    return jax.vmap(lambda row, place: row[place])(x, last)[:, None]


def require_tied(name: str, config, source_size: int, target_size: int) -> None:
    """UserError if output weights are to be the embeddings and cannot be."""
    if config.tied and source_size != target_size:
        raise UserError(f"{name}: tied needs one vocabulary, got {source_size} and {target_size} entries: tied=False")


def reorder(leaf: Shaped[Array, "B K ..."], parents: Int[Array, "B K"] | None) -> Shaped[Array, "B K ..."]:
    """A leaf of a decoding state with each sentence's hypotheses replaced by their parents; None: as they are."""
    return leaf if parents is None else jax.vmap(lambda row, parent: row[parent])(leaf, parents)


def vocabulary_logits(
    features: Float[Array, "*pos E"],
    kernel: Float[Array, "V E"],
    bias: Float[Array, " V"] | None,
    compute: str,
    prepared: Float[Array, "_ V"] | None = None,
) -> Float[Array, "*pos V"]:
    """features . kernel + bias in float32.

    prepared: the same weights from `prepared_head`, read instead of these.
    """
    if prepared is not None:
        if prepared.shape[0] > features.shape[-1]:  # the bias is in it
            features, bias = jnp.concatenate([features, jnp.ones_like(features[..., :1])], axis=-1), None
        logits = jnp.einsum("...e,ev->...v", features, prepared, preferred_element_type=jnp.float32)
    else:
        logits = _logits(features, kernel.astype(compute))
    return logits if bias is None else logits + jnp.expand_dims(bias, tuple(range(logits.ndim - 1)))


@jax.custom_vjp
def _logits(features, kernel):
    """[*pos,E] . [V,E] -> [*pos,V] in float32. As in `product`: else a [*pos,V] would be transposed."""
    return jnp.einsum("...e,ve->...v", features, kernel, preferred_element_type=jnp.float32)


def _logits_backward(saved, gradient):
    features, kernel = saved
    of_features = jnp.einsum("...v,ve->...e", gradient, kernel, preferred_element_type=jnp.float32)
    of_kernel = jnp.einsum("...e,...v->ev", features, gradient, preferred_element_type=jnp.float32).T
    return of_features.astype(features.dtype), of_kernel.astype(kernel.dtype)


_logits.defvjp(lambda features, kernel: (_logits(features, kernel), (features, kernel)), _logits_backward)


def prepared_head(kernel: Float[Array, "V E"], bias: Float[Array, " V"] | None, compute: str) -> Float[Array, "_ V"]:
    """The weights of `vocabulary_logits` for products of few rows: [E,V], which on CPUs is twice as fast as [V,E].

    In float32 the bias is one more row, [E+1,V], which spares a pass over the logits.
    """
    if bias is not None and compute == "float32":
        kernel = jnp.concatenate([kernel, bias[:, None]], axis=-1)
    return kernel.T.astype(compute)


def preparing(module) -> Callable:
    """`Translator.prepare` of a module with a method `prepare` that returns what its head reads as `prepared`."""

    return lambda params: {**params, DECODING: {"head": module.apply(params, method="prepare")}}
