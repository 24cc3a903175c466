"""Programs are counted, and compiling them is said."""

from pathlib import Path

import jax
import numpy as np
from lowering import compiling

import seqkd_jax
from seqkd_jax.utils import programs, progress

# What the training loop announces itself, and the yardsticks, which are compiled in no time.
ANNOUNCED = {
    "seqkd_jax/training/train_step.py::data_parallel",
    "seqkd_jax/training/parts.py::programs",
    "seqkd_jax/training/train_step.py::_make_start",
    "seqkd_jax/utils/performance.py::matrix_peak",
    "seqkd_jax/utils/performance.py::memory_bandwidth",
}


def test_programs_are_counted_by_name():
    programs.count()
    programs.count()  # twice must not count twice

    @jax.jit
    def a_rare_name(x):
        return x * 2

    before = len(programs.built())
    a_rare_name(np.float32(1))
    a_rare_name(np.float32(2))
    (new,) = programs.built()[before:]
    assert new.name == "jit(a_rare_name)" and new.seconds > 0
    a_rare_name(np.ones(3, np.float32))
    assert len(programs.built()) == before + 2


def test_the_summary_tells_compiled_from_loaded():
    made = [programs.Program("jit(f)", 2.0, False), programs.Program("jit(g)", 0.1, True)]
    assert programs.summary(made) == "2 programs, 1 of them compiled in 2.0s"
    assert programs.summary(made[1:]) == "1 programs, none of them compiled"


def test_the_first_call_of_each_shape_is_said(monkeypatch):
    said = []
    monkeypatch.setattr(progress, "_later", lambda seconds, message: said.append(message) or (lambda: None))
    double = programs.announced(lambda x: 2 * x, lambda x: f"the product for {programs.shapes((x, x))}")
    assert [double(np.ones(size)).sum() for size in (2, 2, 3)] == [4, 4, 6]
    assert said == ["compiling the product for 2 …", "compiling the product for 3 …"]


def test_every_program_of_the_library_is_announced():
    """A person sees what is being compiled, wherever that is."""
    for place, source in compiling(Path(seqkd_jax.__file__).parent).items():
        assert place in ANNOUNCED or "programs.announced(" in source, f"{place} compiles and does not say so"
