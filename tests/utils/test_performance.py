"""FLOPs and bytes against counts made by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqkd_jax.utils import performance

ROWS, WIDTH, LENGTH = 3, 8, 5
PRODUCT = 2 * ROWS * WIDTH * WIDTH  # FLOPs of [ROWS,WIDTH] @ [WIDTH,WIDTH]
weights = jax.ShapeDtypeStruct((WIDTH, WIDTH), np.float32)
inputs = jax.ShapeDtypeStruct((ROWS, WIDTH), np.float32)


def chain(weights, hidden):
    def body(hidden, _):
        return jnp.tanh(hidden @ weights), None

    return jnp.sum(jax.lax.scan(body, hidden, None, length=LENGTH)[0])


def test_a_product_and_batched_products():
    assert performance.count_flops(jnp.matmul, inputs, weights) == PRODUCT
    left = jax.ShapeDtypeStruct((7, 2, 3, 4), np.float32)
    right = jax.ShapeDtypeStruct((7, 2, 4, 5), np.float32)
    assert performance.count_flops(jnp.matmul, left, right) == 2 * 7 * 2 * 3 * 4 * 5


def test_two_contracted_axes():
    left = jax.ShapeDtypeStruct((3, 4, 5), np.float32)
    right = jax.ShapeDtypeStruct((4, 5, 6), np.float32)
    assert performance.count_flops(lambda a, b: jnp.einsum("ijk,jkl->il", a, b), left, right) == 2 * 3 * 4 * 5 * 6


def test_a_scan_counts_its_length():
    assert performance.count_flops(chain, weights, inputs) == LENGTH * PRODUCT


def test_a_gradient_is_three_times_the_product():
    """Forward, gradient of the weights, gradient of the hidden state, the first one included."""
    assert performance.count_flops(jax.grad(chain, argnums=(0, 1)), weights, inputs) == 3 * LENGTH * PRODUCT


def test_recomputation_counts():
    again = jax.grad(jax.checkpoint(chain), argnums=(0, 1))
    assert performance.count_flops(again, weights, inputs) == 4 * LENGTH * PRODUCT


def test_through_jit_custom_vjp_and_vmap():
    @jax.custom_vjp
    def product(hidden, weights):
        return hidden @ weights

    product.defvjp(lambda h, w: (h @ w, (h, w)), lambda kept, g: (g @ kept[1].T, kept[0].T @ g))
    assert performance.count_flops(jax.jit(product), inputs, weights) == PRODUCT
    assert (
        performance.count_flops(jax.grad(lambda h, w: jnp.sum(product(h, w)), (0, 1)), inputs, weights) == 3 * PRODUCT
    )
    stacked = jax.ShapeDtypeStruct((4, ROWS, WIDTH), np.float32)
    assert performance.count_flops(jax.vmap(product, (0, None)), stacked, weights) == 4 * PRODUCT


def test_a_branch_counts_its_dearest_side_and_a_while_loop_one_turn():
    def branch(hidden, weights):
        return jax.lax.cond(jnp.sum(hidden) > 0, lambda: hidden @ weights @ weights, lambda: hidden @ weights)

    def loop(hidden, weights):
        return jax.lax.while_loop(lambda h: jnp.sum(h) > 0, lambda h: h @ weights, hidden)

    assert performance.count_flops(branch, inputs, weights) == 2 * PRODUCT
    assert performance.count_flops(loop, inputs, weights) == PRODUCT


def test_a_convolution():
    images = jax.ShapeDtypeStruct((2, 8, 8, 3), np.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 3, 16), np.float32)

    def convolve(images, kernel):
        return jax.lax.conv_general_dilated(images, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    assert performance.count_flops(convolve, images, kernel) == 2 * (2 * 6 * 6 * 16) * (3 * 3 * 3)


def test_devices_add_up():
    mapped = jax.pmap(lambda w, x: jax.lax.psum(x @ w, "d"), "d", in_axes=(None, 0), out_axes=None)
    count = jax.local_device_count()
    stacked = np.zeros((count, ROWS, WIDTH), np.float32)
    assert performance.count_flops(mapped, np.zeros((WIDTH, WIDTH), np.float32), stacked) == count * PRODUCT


def test_residuals_are_what_the_backward_pass_reads():
    """tanh stores its slope, or its output and 1 - output; the product stores its input: two or three arrays a step."""
    step = ROWS * WIDTH * 4
    found = performance.residual_bytes(chain, weights, inputs)
    assert found in (2 * LENGTH * step, 3 * LENGTH * step), f"{found} bytes; the weights must not be among them"


def test_the_peak_is_a_rate_of_this_machine():
    found = performance.matrix_peak(size=128, repeats=3)
    assert 1e8 < found < 1e16, f"{found:.3g} FLOP/s is no machine's"
    assert performance.matrix_peak(size=128, repeats=3) == found, "measured once a process"


def test_the_bandwidth_is_a_rate_of_this_machine():
    found = performance.memory_bandwidth(megabytes=1, repeats=3)
    assert 1e7 < found < 1e14, f"{found:.3g} bytes/s is no machine's"
    assert performance.memory_bandwidth(megabytes=1, repeats=3) == found, "measured once a process"


def test_bytes_read_are_those_of_arrays_that_are_used_and_of_rows_that_are_looked_up():
    table, ids = jax.ShapeDtypeStruct((50, WIDTH), np.float32), jax.ShapeDtypeStruct((ROWS,), np.int32)
    unused = jax.ShapeDtypeStruct((1000,), np.float32)
    found = performance.bytes_read(
        lambda table, weights, ids, unused: table[ids] @ weights, table, weights, ids, unused
    )
    assert found == 4 * (ROWS * WIDTH + WIDTH * WIDTH + ROWS)
    tied = performance.bytes_read(lambda table, ids: table[ids] @ table.T, table, ids)
    assert tied == 4 * (50 * WIDTH + ROWS), "a table that is also used whole is read once"


@pytest.mark.parametrize("dtype, size", [(np.float32, 4), (np.float16, 2)])
def test_bytes_of_a_tree(dtype, size):
    tree = {"a": jax.ShapeDtypeStruct((3, 4), dtype), "b": [np.zeros(5, dtype)]}
    assert performance.tree_bytes(tree) == 17 * size
