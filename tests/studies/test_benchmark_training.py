"""The benchmarks of training: that what they time is the same work, the commands at tiny sizes, committed results."""

import json
from pathlib import Path

import pytest

from experiments.benchmarks import benchmark, replicas
from experiments.benchmarks.devices import training as devices
from experiments.benchmarks.training import __main__ as command
from experiments.benchmarks.training.subjects import SUBJECTS, tiny
from seqkd_jax.utils import files

RESULTS = Path(__file__).parents[2] / "experiments" / "results" / "benchmarks"


def test_the_command_at_tiny_sizes(tmp_path, capsys):
    arguments = ["--smoke", "--no-peers", "--rounds", "6", "--updates", "1", "--only", "word-kd"]
    assert command.main([*arguments, "--out", str(tmp_path)]) == 0
    table = (tmp_path / "table.md").read_text("utf-8")
    assert table in capsys.readouterr().out and "A smoke run" in table
    (found,) = json.loads((tmp_path / "results.json").read_text("utf-8"))["subjects"].values()
    assert set(found["systems"]) == {command.OURS, command.AT_ONCE, command.ROUNDED}
    assert found["flops"] > 0 and found["speed_ups"][command.AT_ONCE]["median"] > 0
    assert not (tmp_path / benchmark.PARTS).exists(), "they go when the results are there"
    losses = [system["first_losses"] for system in found["systems"].values()]
    assert all(system["compile_seconds"] > 0 for system in found["systems"].values())
    assert losses[0] == pytest.approx(losses[1]), "blocks must not change what is learnt"


def test_a_killed_benchmark_keeps_what_it_has_measured(tmp_path):
    """The same command measures the rest; another one, or a damaged part, measures anew."""
    measured = []

    def measure(options, data="a"):
        kept = benchmark.kept("some", options, {"data": data})
        return {name: kept.part(name, lambda name=name: measured.append(name) or {name: 1.5}) for name in "xyz"}

    options = benchmark.Options(out=tmp_path)
    assert measure(options) == measure(options) == {name: {name: 1.5} for name in "xyz"}
    assert measured == ["x", "y", "z"]
    measure(options, "b")
    measure(benchmark.Options(out=tmp_path, rounds=8), "b")
    assert measured == ["x", "y", "z"] * 3
    (tmp_path / benchmark.PARTS / f"{files.sha256_json('y')[:16]}.json").write_text("{")
    measure(benchmark.Options(out=tmp_path, rounds=8), "b")
    assert measured == [*["x", "y", "z"] * 3, "y"]


@pytest.mark.slow
def test_what_distilling_costs_at_tiny_sizes(tmp_path):
    arguments = ["--smoke", "--no-peers", "--rounds", "6", "--updates", "1", "--only", "distilling", "memory"]
    assert command.main([*arguments, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert set(found["distilling"]["seconds"]) == {command.LIKELIHOOD, command.TEACHER, command.WORD_KD, command.TOP_K}
    assert all(memory["peak"] > memory["temporary"] > 0 for memory in found["memory"]["systems"].values())
    targets = [line for line in (tmp_path / "table.md").read_text("utf-8").splitlines() if "at most" in line]
    assert len(targets) == 4, "Word-KD, from the most probable entries, and two of memory"


def test_a_target_is_reached_where_its_interval_says_so():
    def verdicts(least):
        around = [{"median": m, "low": m - 0.1, "high": m + 0.1} for m in (0.8, 1.0, 1.2)]
        return [command._verdict(ratio, 1.0, least) for ratio in around]

    assert verdicts(True) == ["no", "not shown", "yes"] and verdicts(False) == ["yes", "not shown", "no"]
    assert command._verdict({"median": 2.0, "low": None, "high": None}, 1.0, True) == "too few rounds"


@pytest.mark.slow
def test_replicas_at_tiny_sizes(tmp_path):
    arguments = ["--smoke", "--replicas", "2", "--rounds", "1", "--updates", "1"]
    assert replicas.main([*arguments, "--out", str(tmp_path)]) == 0
    (found,) = json.loads((tmp_path / "results.json").read_text("utf-8"))["models"]
    assert set(found["seconds"]) == set(replicas.WAYS) and min(found["seconds"].values()) > 0


@pytest.mark.slow
def test_devices_at_tiny_sizes(tmp_path):
    assert devices.main(["--smoke", "--rounds", "2", "--updates", "1", "--out", str(tmp_path)]) == 0
    (found,) = json.loads((tmp_path / "results.json").read_text("utf-8"))["subjects"].values()
    losses = found["losses"]
    assert losses == pytest.approx(dict.fromkeys(devices.WAYS, losses[devices.BASE]))


@pytest.mark.parametrize(
    ("module", "option", "least"),
    [
        (command, "rounds", 1),
        (command, "seed", 0),
        (command, "updates", 1),
        (devices, "updates", 1),
        (replicas, "replicas", 2),
    ],
)
def test_what_cannot_be_timed(tmp_path, capsys, module, option, least):
    status = module.main([f"--{option}", str(least - 1), "--out", str(tmp_path / "none")])
    error = capsys.readouterr().err
    assert status == 2 and error.startswith(f"error: --{option} is {least - 1}: it must be a whole number from {least}")
    assert not (tmp_path / "none").exists()


def test_results_of_another_benchmark_are_refused(capsys):
    assert command.main(["--render", str(RESULTS / "replicas")]) == 2
    assert "no results.json of training_speed" in capsys.readouterr().err


@pytest.mark.peers
@pytest.mark.parametrize("name", SUBJECTS)
def test_pytorch_does_the_same_work(name):
    from experiments.benchmarks.training import ours, pytorch

    subject = tiny(SUBJECTS[name])
    mine, theirs = ours.update(subject, 0, True), pytorch.update(subject, 0)
    # Apart from biases: PyTorch's LSTM has two where one does, and a Transformer's last norms.
    assert theirs.parameters == pytest.approx(mine.parameters, rel=0.1), "another model"
    for one in (mine, theirs):
        losses = [one.run() for _ in range(30)]
        assert losses[-1] < losses[0] - 0.01, "it does not learn its batch"
        assert losses[0] == pytest.approx(3.9, abs=0.8), "log 50 = 3.9 nats is what a random start has"
