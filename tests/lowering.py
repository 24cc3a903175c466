"""What a jitted program must be to run on TPU and CUDA, checked without such a device: it is traced and lowered.

A program is refused by the name of what cannot run there: a call back to the host, numbers of 64 bits, a custom call
that the compiler of the platform does not have.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import jax

PLATFORMS = "tpu", "cuda"
MAKES = re.compile(r"\bjax\.(jit|pmap)\b")
CALLBACKS = {"pure_callback", "io_callback", "debug_callback", "debug_print"}
# Orthogonal starts: the only custom calls of a model
QR = {"tpu": {"Qr", "ProductOfElementaryHouseholderReflectors"}, "cuda": {"cusolver_geqrf_ffi", "cusolver_orgqr_ffi"}}
CALLS = {"Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape"}  # of the program of several devices


def assert_lowers(program, *arguments, together=True):
    """Lower a jitted program for both platforms; AssertionError that names what cannot run there.

    together: as one module, in half the time; otherwise one for each, as it is on such a machine.
    """
    traced = program.trace(*arguments)
    equations = list(_equations(traced.jaxpr.jaxpr))
    callbacks = {equation.primitive.name for equation in equations} & CALLBACKS
    assert not callbacks, f"calls back to the host: {', '.join(sorted(callbacks))}"
    types = {str(getattr(variable.aval, "dtype", "")) for equation in equations for variable in equation.outvars}
    wide = {name for name in types if re.search("64|128", name)}
    assert not wide, f"numbers of 64 bits: {', '.join(sorted(wide))}"
    for platforms in [PLATFORMS] if together else [(platform,) for platform in PLATFORMS]:
        text = traced.lower(lowering_platforms=platforms).as_text()
        unknown = set(re.findall(r"custom_call @([\w.$]+)", text)) - CALLS.union(*(QR[name] for name in platforms))
        assert not unknown, f"custom calls that {' and '.join(platforms)} do not have: {', '.join(sorted(unknown))}"


def _equations(jaxpr) -> Iterator:
    """Every equation of a program, those of its loops, branches and functions too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
            if _is_program(inner):
                yield from _equations(getattr(inner, "jaxpr", inner))


def _is_program(value) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")


def compiling(package: Path) -> dict[str, str]:
    """place::function -> source, of every function of a package that makes a compiled program."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))}
    return {
        f"{path.relative_to(package.parent).as_posix()}::{getattr(part, 'name', 'of the module')}": source
        for path, text in texts.items()
        if MAKES.search(text)
        for part in ast.parse(text).body
        if MAKES.search(source := ast.unparse(part))
    }
