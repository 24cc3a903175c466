"""The benchmark of training: that what it times is the same work, and the command at tiny sizes."""

import json

import pytest

from experiments.benchmarks import replicas
from experiments.benchmarks.training import __main__ as command
from experiments.benchmarks.training.subjects import SUBJECTS, tiny


def test_the_command_at_tiny_sizes(tmp_path, capsys):
    arguments = ["--smoke", "--no-torch", "--rounds", "6", "--updates", "1", "--only", "word-kd"]
    assert command.main([*arguments, "--out", str(tmp_path)]) == 0
    table = (tmp_path / "table.md").read_text("utf-8")
    assert table in capsys.readouterr().out and "A smoke run" in table
    (found,) = json.loads((tmp_path / "results.json").read_text("utf-8"))["subjects"].values()
    assert set(found["systems"]) == {command.OURS, command.AT_ONCE}
    assert found["flops"] > 0 and found["speed_ups"][command.AT_ONCE]["median"] > 0
    losses = [system["first_losses"] for system in found["systems"].values()]
    assert losses[0] == pytest.approx(losses[1]), "blocks must not change what is learnt"


@pytest.mark.parametrize(
    ("module", "option", "least"),
    [(command, "rounds", 1), (command, "seed", 0), (replicas, "rounds", 1), (replicas, "replicas", 2)],
)
def test_what_cannot_be_timed(tmp_path, capsys, module, option, least):
    said = module.main([f"--{option}", str(least - 1), "--out", str(tmp_path / "none")])
    error = capsys.readouterr().err
    assert said == 2 and error == f"error: --{option} is {least - 1}: it must be at least {least}\n"
    assert not (tmp_path / "none").exists()


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
