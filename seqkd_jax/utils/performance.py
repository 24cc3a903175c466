"""The cost of a computation (FLOPs, bytes) and the measured peak of the machine.

FLOPs are those of matrix products and convolutions, counted exactly on the traced program; the yardsticks are a chain
of matrix products and a pass over memory, timed on the same machine. So "share of peak" says how much of the time is
arithmetic that is needed, "share of bandwidth" how much is reading what must be read.
"""

import functools
import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

CHAIN = 4  # products in a timed program


@functools.cache
def matrix_peak(size: int = 0, repeats: int = 7, dtype: str = "float32") -> float:
    """FLOP/s of one device on matrix products of size x size: the median over repeats; measured once a process.

    size 0: 1024 on a CPU, 8192 elsewhere. The default precision of `dtype` counts, as it does in training.
    """
    size = size or (1024 if jax.default_backend() == "cpu" else 8192)
    factors = (np.random.default_rng(0).normal(size=(2, size, size)) / math.sqrt(size)).astype(np.float32)
    left, right = jax.device_put((factors[0].astype(dtype), factors[1].astype(dtype)), jax.local_devices()[0])

    @jax.jit
    def matrix_chain(left, right):
        for _ in range(CHAIN):
            left = left @ right
        return left

    jax.block_until_ready(matrix_chain(left, right))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(matrix_chain(left, right))
        seconds.append(time.perf_counter() - start)
    return 2 * CHAIN * size**3 / statistics.median(seconds)


@functools.cache
def memory_bandwidth(megabytes: int = 0, repeats: int = 7) -> float:
    """Bytes/s of one device, read and written, changing an array in place: the median over repeats; once a process.

    megabytes 0: 256 on a CPU, more than its caches hold; 2048 elsewhere.
    """
    megabytes = megabytes or (256 if jax.default_backend() == "cpu" else 2048)
    array = jax.device_put(np.ones(megabytes * 2**18, np.float32), jax.local_devices()[0])

    @functools.partial(jax.jit, donate_argnums=0)
    def negate_in_place(array):
        return -array

    array = jax.block_until_ready(negate_in_place(array))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        array = jax.block_until_ready(negate_in_place(array))
        seconds.append(time.perf_counter() - start)
    return 2 * array.nbytes / statistics.median(seconds)


def bytes_read(function: Callable, *arguments: Any) -> int:
    """Bytes of its arguments that one call must read, each once: all of an array, or what a look-up takes from it.

    Traced, neither compiled nor run; arguments as in `count_flops`. An array that is not used counts nothing.
    """
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    whole, looked_up = set(), {}
    for equation in jaxpr.eqns:
        inputs = [variable for variable in equation.invars if not hasattr(variable, "val")]
        if equation.primitive.name == "gather":
            result = equation.outvars[0]
            looked_up[inputs[0]] = looked_up.get(inputs[0], 0) + _size(result) * result.aval.dtype.itemsize
            inputs = inputs[1:]
        whole.update(inputs)
    whole.update(variable for variable in jaxpr.outvars if not hasattr(variable, "val"))
    sizes = {variable: _size(variable) * variable.aval.dtype.itemsize for variable in jaxpr.invars}
    return sum(size if var in whole else min(size, looked_up.get(var, 0)) for var, size in sizes.items())


def count_flops(function: Callable, *arguments: Any) -> float:
    """FLOPs of the matrix products in one call, over all devices; traced, neither compiled nor run.

    Arguments: arrays or jax.ShapeDtypeStructs. A multiply-add is two. A scan counts its length, a branch its dearest
    side, a while loop one turn, because nothing says how many there will be.
    """
    return _of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of_jaxpr(jaxpr) -> float:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation) -> float:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2.0 * _size(equation.outvars[0]) * math.prod(shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = parameters["dimension_numbers"].rhs_spec[0]  # which axis of the kernel has the output features
        return 2.0 * _size(equation.outvars[0]) * math.prod(kernel) / kernel[outputs]
    inner = [_of_jaxpr(jaxpr) for jaxpr in _inner(parameters)]
    if name == "cond":
        return max(inner)
    return sum(inner) * _times(name, parameters)


def _inner(parameters: dict) -> list:
    """The programs inside an equation, whatever its primitive: jit, scan, while, custom_vjp, remat, shard_map, ..."""
    values = [value for parameter in parameters.values() for value in _as_tuple(parameter)]
    values = [getattr(value, "jaxpr", value) for value in values]  # closed -> open
    return [value for value in values if hasattr(value, "eqns")]


def _as_tuple(value: Any) -> tuple:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _times(name: str, parameters: dict) -> int:
    """How often, over all devices, the program inside runs."""
    if name == "scan":
        return parameters["length"]
    if name == "shard_map":
        return parameters["mesh"].size
    if name == "xla_pmap":  # older JAX; there pmap is not a shard_map
        return parameters["global_axis_size"]
    return 1


def _size(variable) -> int:
    return math.prod(variable.aval.shape)


class Memory(NamedTuple):
    """Bytes on one device while training."""

    parameters: int
    gradients: int  # twice the parameters when accumulating: the sum, and the microbatch's own
    optimiser: int  # its moments
    average: int  # moving average of the weights
    teacher: int
    activations: int  # what the backward pass reads; an estimate, the compiler may share, fuse or recompute

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


def residual_bytes(loss: Callable, params: Any, batch: Any) -> int:
    """Bytes that the forward pass stores for the backward pass of (params, batch) -> loss, as traced."""
    closed = jax.make_jaxpr(lambda params, batch: jax.tree.leaves(jax.vjp(lambda p: loss(p, batch), params)[1]))(
        params, batch
    )
    given = {*closed.jaxpr.invars, *closed.jaxpr.constvars}  # weights and batch: there anyway
    stored = {var for var in closed.jaxpr.outvars if not hasattr(var, "val")} - given  # a literal has a value
    return sum(_size(var) * var.aval.dtype.itemsize for var in stored)


def tree_bytes(tree: Any) -> int:
    """Bytes of the arrays, or ShapeDtypeStructs, of a tree."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
