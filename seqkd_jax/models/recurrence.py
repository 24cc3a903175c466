"""A scan over time whose weight gradients are one matrix product over all steps.

Reverse mode through `lax.scan` adds a weight gradient of full size to an accumulator at every step, which for a 2x500
LSTM moves megabytes a step. Here every use of a weight is `linear(name, x)`, so the backward scan only has to return
the gradient of each product's output. The gradient of the weight is one large product of the stacked inputs and these
gradients after the loop, as in cuDNN's recurrent kernels.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from seqkd_jax.models.layers import over_positions, product


class Weight(NamedTuple):
    """One product of a scan's body: x @ kernel + bias, in the type of x."""

    kernel: jax.Array  # [I,O] with x [B,I] or [B,K,I]; or [B,I,O], one matrix for each row (attention), with x [B,K,I]
    bias: jax.Array | None = None  # [O]


def apply_weight(weight: Weight, x):
    """x @ kernel + bias: `linear` outside a scan."""
    found = product(x, weight.kernel) if weight.kernel.ndim == 2 else x @ weight.kernel
    return found if weight.bias is None else found + jnp.expand_dims(weight.bias, tuple(range(found.ndim - 1)))


@jax.custom_vjp
def _probed(weight, x, probe):
    """apply_weight. The probe is not read; its gradient is the gradient of the output."""
    return apply_weight(weight, x)


def _probed_backward(weight, gradient):
    backwards = jnp.swapaxes(weight.kernel, -1, -2)
    return None, product(gradient, backwards) if backwards.ndim == 2 else gradient @ backwards, gradient


_probed.defvjp(lambda weight, x, probe: (apply_weight(weight, x), weight), _probed_backward)


def _weight_gradient(weight: Weight, x, gradient) -> Weight:
    """The gradient of a weight from the inputs [T,B,(K,)I] and output gradients [T,B,(K,)O] of all steps."""
    if weight.kernel.ndim == 3:
        kernel = jnp.einsum("tbki,tbko->bio", x, gradient, preferred_element_type=jnp.float32)
    else:
        kernel = over_positions(x, gradient, weight.kernel.dtype)
    bias = None if weight.bias is None else gradient.reshape(-1, gradient.shape[-1]).sum(0).astype(weight.bias.dtype)
    return Weight(kernel.astype(weight.kernel.dtype), bias)


def scan_products(body: Callable, weights: dict[str, Weight], carry, xs):
    """`lax.scan` of `body(linear, carry, x) -> (carry, y)`; `linear(name, x)` applies `weights[name]`, each name once.

    Values and gradients equal those of the plain scan up to rounding. The body must not close over anything that is
    differentiated.
    """

    @jax.custom_vjp
    def run(weights, carry, xs):
        return jax.lax.scan(lambda c, x: body(lambda name, v: apply_weight(weights[name], v), c, x), carry, xs)

    def forward(weights, carry, xs):
        def probed(probes, carry, xs):
            def step(carry, scanned):
                (x, probe), seen = scanned, {}

                def linear(name, v):
                    seen[name] = v
                    return _probed(weights[name], v, probe[name])

                carry, y = body(linear, carry, x)
                return carry, (y, seen)

            carry, (ys, seen) = jax.lax.scan(step, carry, (xs, probes))
            return (carry, ys), seen

        probes = _zero_probes(body, weights, carry, xs)
        outputs, pullback, seen = jax.vjp(probed, probes, carry, xs, has_aux=True)
        return outputs, (pullback, seen, weights)

    def backward(residuals, gradient):
        pullback, seen, weights = residuals
        probes, carry, xs = pullback(gradient)
        return {name: _weight_gradient(w, seen[name], probes[name]) for name, w in weights.items()}, carry, xs

    run.defvjp(forward, backward)
    return run(weights, carry, xs)


def _zero_probes(body, weights, carry, xs):
    """Zeros [T,...] in the shape of the output of every product in the body."""

    def outputs(weights, carry, x):
        products = {}

        def linear(name, v):
            products[name] = apply_weight(weights[name], v)
            return products[name]

        body(linear, carry, x)
        return products

    first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), xs)
    steps = jax.tree.leaves(xs)[0].shape[0]
    shapes = jax.eval_shape(outputs, weights, carry, first)
    return jax.tree.map(lambda s: jnp.zeros((steps, *s.shape), s.dtype), shapes)


@jax.custom_vjp
def lstm_cell(gates, cell):
    """One LSTM update from the pre-activations [...,4E] and the cell [...,E]; returns (hidden, cell).

    Gates are ordered input, forget, output, transform. The gradient is written out: JAX's keeps twice as much of every
    step.
    """
    return _lstm_cell(gates, cell)[0]


def _lstm_cell(gates, before):
    i, f, o, g = jnp.split(gates, 4, axis=-1)
    i, f, o, g = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jax.nn.sigmoid(o), jnp.tanh(g)
    cell = f * before + i * g
    squashed = jnp.tanh(cell)
    return (o * squashed, cell), (i, f, o, g, before, squashed)


def _lstm_cell_backward(saved, gradients):
    i, f, o, g, before, squashed = saved
    of_hidden, of_cell = gradients
    of_cell = of_cell + of_hidden * o * (1 - squashed * squashed)
    of_gates = (
        of_cell * g * i * (1 - i),
        of_cell * before * f * (1 - f),
        of_hidden * squashed * o * (1 - o),
        of_cell * i * (1 - g * g),
    )
    return jnp.concatenate(of_gates, axis=-1), of_cell * f


lstm_cell.defvjp(_lstm_cell, _lstm_cell_backward)


def lstm_layer(x, kernel, bias, mask, *, reverse=False, recurrent_mask=None):
    """One LSTM layer over time-major x [T,B,I]; padding does not change the state. Returns states, last (h, c).

    kernel [I+E,4E]; mask [T,B,1], True where there is a word. recurrent_mask [B,E]: multiplies the hidden state
    that enters the next step.
    """
    inputs, width = x.shape[-1], kernel.shape[-1] // 4
    gates = apply_weight(Weight(kernel[:inputs], bias), x)
    zeros = jnp.zeros((*x.shape[1:-1], width), x.dtype)

    def body(linear, carry, scanned):
        gates, mask = scanned
        (before, cell_before), kept = carry
        fed = before if kept is None else before * kept
        hidden, cell = lstm_cell(gates + linear("recurrent", fed), cell_before)
        hidden, cell = jnp.where(mask, hidden, before), jnp.where(mask, cell, cell_before)
        return ((hidden, cell), kept), hidden

    xs = (gates, mask)
    if reverse:
        xs = jax.tree.map(lambda a: a[::-1], xs)
    weights = {"recurrent": Weight(kernel[inputs:])}
    (last, _), states = scan_products(body, weights, ((zeros, zeros), recurrent_mask), xs)
    return (states[::-1] if reverse else states), last
