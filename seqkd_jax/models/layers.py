"""Functions that several models use: dropout keyed by row, attention weights, vocabulary logits, selected positions.

Every sentence has its own key, so its masks do not depend on its batch, device or microbatch, and training with dropout
has the same objective on any number of devices.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

from seqkd_jax.types import PAD, UserError

DECODING = "decoding"  # name of the collection beside `params` that holds weights in the layout for decoding
# compute -> the type of activations, and that in which a product reads them and its weights; sums are float32.
ACTIVATION_TYPES = {"float32": "float32", "bfloat16": "bfloat16", "bfloat16_products": "float32"}
OPERAND_TYPES = {"float32": "float32", "bfloat16": "bfloat16", "bfloat16_products": "bfloat16"}
LEVELS = 2**16  # a mask compares 16 random bits with round(rate * LEVELS): rates are rounded to 1/65536


def fold_keys(keys: Key[Array, "B"] | None, site: int) -> Key[Array, "B"] | None:
    """Keys [B] for one dropout site (or group of sites), derived from the rows' keys; None stays None."""
    return None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, site))(keys)


def dropout(x: Float[Array, "B *pos"], rate: float, keys: Key[Array, "B"] | None) -> Float[Array, "B *pos"]:
    """Inverted dropout; the mask of a row depends on its key only. keys None: identity.

    The rate is static, in [0, 1). Kept values are divided by the rounded probability of being kept, so the expectation
    is exact.
    """
    dropped = min(round(rate * LEVELS), LEVELS - 1)
    if keys is None or dropped == 0:
        return x
    size = math.prod(x.shape[1:])

    def draw(key):
        # Two 16-bit numbers from each 32 bits; for uint16 jax would hash once for each number.
        bits = jax.random.bits(key, (-(-size // 2),), jnp.uint32)
        return jax.lax.bitcast_convert_type(bits, jnp.uint16).reshape(-1)[:size].reshape(x.shape[1:])

    return jnp.where(jax.vmap(draw)(keys) >= dropped, x * (LEVELS / (LEVELS - dropped)), jnp.zeros((), x.dtype))


@jax.custom_vjp
def product(x: Shaped[Array, "*pos I"], kernel: Shaped[Array, "I O"]) -> Shaped[Array, "*pos O"]:
    """x . kernel in the type of x. Both are read in the kernel's type, and the sums are float32.

    The gradients equal JAX's to rounding; that of the kernel is one product over all positions in a row. JAX would
    contract several position axes. On CPUs XLA then transposes a factor in memory and fuses into that transposition
    the sum over all layers above in a residual stream.
    """
    return summed("...i,io->...o", x, kernel).astype(x.dtype)


def summed(axes: str, x: Shaped[Array, "..."], kernel: Shaped[Array, "..."]) -> Float[Array, "..."]:
    """The einsum of x, read in the type of the kernel, with the kernel; sums are float32."""
    return jnp.einsum(axes, x.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32)


def _product_backward(saved, gradient):
    x, kernel = saved
    return summed("...o,io->...i", gradient, kernel).astype(x.dtype), over_positions(x, gradient, kernel.dtype)


product.defvjp(lambda x, kernel: (product(x, kernel), (x, kernel)), _product_backward)


def attention_weights(scores, mask):
    """Softmax over the last axis in float32. A row that is masked completely gets uniform weights, not NaN."""
    return jax.nn.softmax(jnp.where(mask, scores.astype(jnp.float32), jnp.finfo(jnp.float32).min), axis=-1)


def over_positions(x: Shaped[Array, "*pos I"], y: Shaped[Array, "*pos O"], dtype: Any) -> Shaped[Array, "I O"]:
    """The sum over all positions of the outer products of x and y: read and returned in `dtype`, summed in float32."""
    x, y = (each.reshape(-1, each.shape[-1]).astype(dtype) for each in (x, y))
    return jax.lax.dot_general(x, y, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32).astype(dtype)


@jax.custom_vjp
def normalised(
    x: Float[Array, "*pos E"], scale: Float[Array, " E"], bias: Float[Array, " E"]
) -> Float[Array, "*pos E"]:
    """A layer norm over the last axis: (x - mean) / deviation * scale + bias, with an epsilon of 1e-5 (float32).

    The gradients equal JAX's to rounding. They are written out because JAX keeps more and makes more passes of it.
    """
    return _normalised(x, scale, bias)[0]


def _normalised(x, scale, bias):
    scale, bias = (jnp.expand_dims(each, tuple(range(x.ndim - 1))) for each in (scale, bias))
    mean = x.mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.square(x - mean).mean(-1, keepdims=True) + 1e-5)
    return (x - mean) * (inverse * scale) + bias, (x, mean, inverse, scale)


def _normalised_backward(saved, gradient):
    x, mean, inverse, scale = saved
    standard, positions = (x - mean) * inverse, tuple(range(x.ndim - 1))
    scaled = gradient * scale
    along = (scaled * standard).mean(-1, keepdims=True)
    of_x = inverse * (scaled - scaled.mean(-1, keepdims=True) - standard * along)
    return of_x, (gradient * standard).sum(positions), gradient.sum(positions)


normalised.defvjp(_normalised, _normalised_backward)


@jax.custom_vjp
def gelu(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """x times the normal distribution function of x (Hendrycks & Gimpel 2016), with its gradient written out.

    By erf, which on CPUs costs less than the erfc of `jax.nn.gelu`; the two differ by rounding.
    """
    return _gelu(x)[0]


def _gelu(x):
    share = 0.5 * (1.0 + jax.lax.erf(x * math.sqrt(0.5)))
    return x * share, (x, share)


def _gelu_backward(saved, gradient):
    x, share = saved
    density = jnp.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    return (gradient * (share + x * density),)


gelu.defvjp(_gelu, _gelu_backward)


def read_positions(x: Float[Array, "B T E"], inputs: Int[Array, "B T"], reads: str) -> Float[Array, "B P E"]:
    """The positions of x that the model reads: `every` one, the `last` that is not padding, or the `first`."""
    if reads == "every":
        return x
    if reads == "first":
        return x[:, :1]
    last = jnp.maximum(jnp.sum(inputs != PAD, axis=1) - 1, 0)
    return jax.vmap(lambda row, place: row[place])(x, last)[:, None]


def require_tied(name: str, config, source_size: int, target_size: int) -> None:
    """UserError if the output weights are tied to embeddings of another size."""
    if config.tied and source_size != target_size:
        sizes = f"{source_size} and {target_size} entries"
        raise UserError(f"{name}: tied needs one vocabulary, not two of {sizes}; set tied to False")


def vocabulary_logits(
    features: Float[Array, "*pos E"],
    kernel: Float[Array, "V E"],
    bias: Float[Array, " V"] | None,
    compute: str,
    prepared: Float[Array, "_ V"] | None = None,
) -> Float[Array, "*pos V"]:
    """features . kernel + bias in float32.

    prepared: the same weights from `prepared_head`, used instead.
    """
    if prepared is not None:
        if rows := prepared.shape[0] - features.shape[-1]:  # of the bias
            features, bias = jnp.concatenate([features, jnp.ones_like(features[..., :rows])], axis=-1), None
        logits = summed("...e,ev->...v", features, prepared)
    else:
        logits = _logits(features, kernel.astype(OPERAND_TYPES[compute]))
    return logits if bias is None else logits + jnp.expand_dims(bias, tuple(range(logits.ndim - 1)))


@jax.custom_vjp
def _logits(features, kernel):
    """[*pos,E] . [V,E] -> [*pos,V] in float32. As in `product` no [*pos,V] is transposed."""
    return summed("...e,ve->...v", features, kernel)


def _logits_backward(saved, gradient):
    features, kernel = saved
    return summed("...v,ve->...e", gradient, kernel).astype(features.dtype), over_positions(
        gradient, features, kernel.dtype
    )


_logits.defvjp(lambda features, kernel: (_logits(features, kernel), (features, kernel)), _logits_backward)


def prepared_head(kernel: Float[Array, "V E"], bias: Float[Array, " V"] | None, compute: str) -> Float[Array, "_ V"]:
    """The weights of `vocabulary_logits` for products of few rows: [E,V], which on CPUs is twice as fast as [V,E].

    The bias is an additional row, which saves a pass over the logits. Where it is rounded, what that leaves of it is a
    second row. With compute="bfloat16" it is apart.
    """
    operands = OPERAND_TYPES[compute]
    rows = [kernel.T.astype(operands)]
    if bias is not None and ACTIVATION_TYPES[compute] == "float32":
        parts = [bias]
        if operands != "float32":
            rounded = jax.lax.reduce_precision(bias, exponent_bits=8, mantissa_bits=7)
            parts = [rounded, bias - rounded]
        rows += [part[None].astype(operands) for part in parts]
    return jnp.concatenate(rows)


def preparing(module) -> Callable:
    """`Translator.prepare` of a module whose method `prepare` returns its collection DECODING.

    The weights of products get the type in which these read them, which a loop would otherwise do at every step.
    """
    operands = OPERAND_TYPES[module.config.compute]

    def typed(path, leaf):
        return leaf.astype(operands) if path[-1].key.endswith(("kernel", "attention", "combine")) else leaf

    def prepare(params):
        ready = module.apply(params, method="prepare")
        return {**jax.tree_util.tree_map_with_path(typed, params), DECODING: ready}

    return prepare
