"""The scan with deferred weight gradients against the plain scan."""

import jax
import jax.numpy as jnp
import numpy as np

from seqkd_jax.models.recurrence import Weight, apply_weight, lstm_cell, scan_products

T, B, K, E, S = 4, 3, 2, 5, 6


def arrays(seed=0):
    random = np.random.default_rng(seed)
    draw = lambda *shape: random.normal(size=shape).astype(np.float32)  # noqa: E731
    weights = {
        "recurrent": Weight(draw(2 * E, E), draw(E)),
        "keys": Weight(draw(B, E, S)),
        "values": Weight(draw(B, S, E)),
    }
    return weights, draw(B, K, E), draw(T, B, K, E)


def body(linear, carry, x):
    hidden = jnp.tanh(linear("recurrent", jnp.concatenate([x, carry], -1)))
    context = linear("values", jax.nn.softmax(linear("keys", hidden)))
    return hidden + context, jnp.sin(context)


def plain(body, weights, carry, xs):
    return jax.lax.scan(lambda c, x: body(lambda name, v: apply_weight(weights[name], v), c, x), carry, xs)


def total(scan):
    def scalar(weights, carry, xs):
        last, ys = scan(body, weights, carry, xs)
        return jnp.sum(last * 0.3) + jnp.sum(ys**2)

    return jax.jit(jax.value_and_grad(scalar, (0, 1, 2)))


def test_values_and_gradients_are_those_of_the_plain_scan():
    for seed in range(3):
        found, expected = total(scan_products)(*arrays(seed)), total(plain)(*arrays(seed))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def test_no_weight_gradient_is_summed_inside_the_backward_loop():
    """What the module is for: no carry of a loop has the shape of a weight."""
    jaxpr = jax.make_jaxpr(jax.grad(lambda w, c, x: jnp.sum(scan_products(body, w, c, x)[1])))(*arrays())
    carried = set()

    def visit(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "scan":
                first = equation.params["num_consts"]
                carried.update(v.aval.shape for v in equation.invars[first : first + equation.params["num_carry"]])
            for parameter in equation.params.values():
                inner = getattr(parameter, "jaxpr", parameter)
                if hasattr(inner, "eqns"):
                    visit(inner)

    visit(jaxpr.jaxpr)
    assert carried, "no scan found: has the structure of the program changed?"
    assert not carried & {(2 * E, E), (B, E, S), (B, S, E)}, f"weight gradients are accumulated step by step: {carried}"


def test_a_cell_has_the_gradients_that_jax_finds():
    def written_plainly(gates, cell):
        i, f, o, g = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(cell), cell

    gates, cell, hidden_pulled, cell_pulled = (
        2 * jax.random.normal(jax.random.key(place), (B, K, size)) for place, size in enumerate([4 * E, E, E, E])
    )
    (found, pull), (expected, pull_theirs) = (jax.vjp(cell_of, gates, cell) for cell_of in (lstm_cell, written_plainly))
    pulled = hidden_pulled, cell_pulled
    for one, other in zip((*found, *pull(pulled)), (*expected, *pull_theirs(pulled)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
