"""Training by several processes: the run of one process with as many devices, written once, resumed by any number."""

import dataclasses
import functools
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import processes
import pytest
import training_runs
from commands import write_corpus
from updates import CONFIG, fit

from seqkd_jax import distributed
from seqkd_jax.training.processes import over_devices, require_same_run
from seqkd_jax.types import UserError

TESTS = Path(__file__).parent.parent
PATH = os.pathsep.join(map(str, (TESTS.parent, TESTS)))


def by_processes(count, devices, code):
    """How the processes of some code ended; it may use training_runs."""
    code = f"from pathlib import Path\nimport training_runs\n{code}"
    with processes.python(count, code, devices, PYTHONPATH=PATH) as started:
        return processes.results(started, 600)


SHAPES = [(2, 1), (2, 2), (4, 1)]  # processes, devices of each
SLOW = [pytest.param(*shape, [*training_runs.CASES, "text"], marks=pytest.mark.slow) for shape in SHAPES]


@pytest.mark.parametrize(("count", "devices", "cases"), [(2, 1, ["dropout and accumulation"]), *SLOW])
def test_the_same_devices_give_the_same_bits_in_any_number_of_processes(tmp_path, count, devices, cases):
    """Dropout, accumulation, averages, replicas, Word-KD with and without recorded features, validation by BLEU."""
    several, one = tmp_path / "several", tmp_path / "one"
    for directory in (several, one):
        directory.mkdir()
        write_corpus(directory)
    ended = by_processes(count, devices, f"training_runs.train_all({cases}, Path({str(several)!r}))")
    assert [result.status for result in ended] == [0] * count, ended
    training_runs.train_all(cases, one, count * devices)
    assert training_runs.left(several) == training_runs.left(one) != {}


KILLS = [("update", 1), ("update", 0), ("validation", 0), ("save", 0)]


@pytest.mark.parametrize(
    ("moment", "victim"), [("SIGTERM", 1), *(pytest.param(*kill, marks=pytest.mark.slow) for kill in KILLS)]
)
@pytest.mark.parametrize("then", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_that_loses_a_process_goes_on_with_any_number_to_the_same_weights(tmp_path, moment, victim, then):
    run, whole = tmp_path / "run", tmp_path / "whole"
    ended = by_processes(2, 1, f"training_runs.interrupted(Path({str(run)!r}), {moment!r}, {victim})")
    killed = 75 if moment == "SIGTERM" else -signal.SIGKILL
    assert [result.status for result in ended] == [killed if i == victim else 75 for i in range(2)], ended
    config = dataclasses.replace(CONFIG, devices=2)
    if then == 1:
        fit(run, config)
    else:
        code = f"training_runs.interrupted(Path({str(run)!r}), 'never', 0)"
        assert [result.status for result in by_processes(then, 1, code)] == [0, 0]
    fit(whole, config)
    assert training_runs.left(tmp_path)["run"] == training_runs.left(tmp_path)["whole"]


def test_processes_add_up_as_one_does():
    """In the order of the devices, and from 0.0 on: -0.0 of all of them is 0.0."""
    numbers = np.random.default_rng(0).normal(size=(4, 1001)).astype(np.float32)
    numbers[:, :7] = -0.0
    sums = numbers, numbers[:, 0], np.ones((4, 2, 3), np.float32)
    added = []
    for processes_each in (1, 2):
        held = tuple(SimpleNamespace(platform="cpu", process_index=i // 2 * (processes_each - 1)) for i in range(4))
        added.append(jax.pmap(functools.partial(over_devices, devices=held), "devices", out_axes=None)(sums))
    for one, several in zip(*map(jax.tree.leaves, added), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(several).tobytes()
    assert not np.array_equal(added[0][0], numbers[::-1].sum(0)), "the test needs numbers whose order matters"


def test_the_norm_of_what_processes_add_up_is_that_of_one():
    """XLA sees each gradient, not slices of the flat sum, along which it would add their squares in another order."""
    held = tuple(SimpleNamespace(platform="cpu", process_index=i) for i in range(2))
    added = jax.pmap(lambda sums: over_devices(sums, held), "devices", devices=jax.devices()[:2])
    assert "optimization_barrier" in str(jax.make_jaxpr(added)(np.ones((2, 3, 4), np.float32)))


def as_another(monkeypatch, said):
    """This process is no longer process 0; `said` is what that says, in order."""
    monkeypatch.setattr(distributed, "first", lambda: False)
    monkeypatch.setattr(distributed, "agreed", lambda value: next(said))


def test_other_processes_write_nothing_and_learn_what_process_0_measures(tmp_path, monkeypatch):
    config, said = dataclasses.replace(CONFIG, keep=1, keep_path=True, validate_every=2), []
    agreed = distributed.agreed
    with monkeypatch.context() as patch:
        patch.setattr(distributed, "agreed", lambda value: said.append(agreed(value)) or said[-1])
        first = fit(tmp_path / "first", config, log=["csv"], described={})
    as_another(monkeypatch, iter(said))
    never = {"validate": lambda params: pytest.fail("validated"), "save": lambda *_, **__: pytest.fail("saved")}
    other = fit(tmp_path / "other", config, log=["csv"], described={}, **never)
    assert (other.steps, other.replicas) == (first.steps, first.replicas)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("own", "config", "message"),
    [
        ({"training corpus": "b" * 64}, {}, "training corpus than process 0: bbbbbbbbbbbb, not aaaaaaaaaaaa; give all"),
        ({"number of devices": "3"}, {}, "number of devices than process 0: 3, not 4"),
        ({"version of jax": "0.0.1"}, {}, "version of jax than process 0: 0.0.1, not "),
        ({}, {"seed": 4}, "seed than process 0: 4, not 3"),
    ],
)
def test_processes_that_would_train_different_runs_are_refused(tmp_path, monkeypatch, own, config, message):
    """One wrong corpus would show nowhere else: the gradients of different ones are added up all the same."""
    given, same = [], {"training corpus": "a" * 64}
    monkeypatch.setattr(distributed, "count", lambda: 2)
    monkeypatch.setattr(distributed, "gathered", lambda value: given.append(value) or [given[0], value])
    require_same_run(CONFIG, same)
    with pytest.raises(UserError, match=f"^process 1 has another {message}"):
        fit(tmp_path / "run", dataclasses.replace(CONFIG, **config), inputs=same | own)
    assert not (tmp_path / "run").exists()
