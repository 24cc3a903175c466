"""The measurements of an accelerator: what is measured in which time, what is left out and why; parts at toy size."""

import json
from types import SimpleNamespace

import jax
import pytest

from experiments.accelerator import __main__ as command
from experiments.accelerator import parts, plan, seeds, speed, tables
from experiments.kim_rush_2016 import pipeline
from seqkd_jax.utils import files

MACHINE = {
    "devices": ["gpu Some Card"],
    "jax": "0",
    "matrix_flops_per_second": {"float32": 2e12, "bfloat16": 4e12},
    "memory_bytes_per_second": 1e9,
}
RATE = {"median": 100.0, "low": 90.0, "high": 110.0}
TRAINED = {"about": "a model", "tokens_per_second": RATE, "share_of_peak": RATE, "start_seconds": 1.0, "commit": "c"}


def told(tmp_path, minutes=1.0):
    return plan.Told(minutes, 0, False, None, tmp_path)


def launches(failing=(), result=TRAINED, machine=MACHINE):
    """A launch that writes a result at once, or fails as it is told; and the names that it was asked for."""
    asked = []

    def launch(told, part, seconds):
        asked.append(part.name)
        if part.name in failing:
            return failing[part.name]
        found = machine if part is parts.MACHINE else result if part.name.startswith("train") else {"commit": "c"}
        files.write_json(told.out / "parts" / f"{part.name}.json", found)
        return ""

    return launch, asked


@pytest.fixture(autouse=True)
def few_parts(monkeypatch):
    kept = [part for part in parts.PARTS if part.name.startswith("train") and "lstm" in part.name]
    monkeypatch.setattr(plan, "PARTS", kept)


LSTM = ["train-lstm-4x1000-float32", "train-lstm-4x1000-bfloat16"]


def test_what_fails_is_told_and_the_next_begins(tmp_path, capsys):
    failing = {LSTM[0]: "the memory of the card is too small", f"{LSTM[1]}-pytorch": "torch is not installed"}
    launch, asked = launches(failing)
    assert plan.run(told(tmp_path), launch) == 0
    assert asked == ["machine", *LSTM, f"{LSTM[1]}-pytorch"], "a peer is not asked for where ours is missing"
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert set(results["parts"]) == {LSTM[1]}
    assert results["left_out"] == {**failing, f"{LSTM[0]}-pytorch": f"without {LSTM[0]} it says nothing"}
    table = (tmp_path / "table.md").read_text("utf-8")
    assert table in capsys.readouterr().out and "gpu Some Card" in table
    assert "the memory of the card is too small" in table and "100 [90.0, 110]" in table


def test_the_same_command_goes_on(tmp_path):
    first, _ = launches({LSTM[1]: "it had not ended after 9s"})
    plan.run(told(tmp_path), first)
    second, asked = launches()
    plan.run(told(tmp_path), second)
    assert asked == ["machine", LSTM[1], f"{LSTM[1]}-pytorch"], "what was measured stays, what failed is tried again"
    elsewhere, asked = launches(machine=MACHINE | {"devices": ["gpu Another Card"]})
    plan.run(told(tmp_path), elsewhere)
    assert len(asked) == 5, "another card is measured anew"


def test_without_time_nothing_begins(tmp_path):
    launch, asked = launches()
    assert plan.run(told(tmp_path, minutes=0.01), launch) == 1
    assert asked == ["machine"]
    left_out = json.loads((tmp_path / "results.json").read_text("utf-8"))["left_out"]
    assert set(left_out) == {part.name for part in plan.PARTS} and "it needs 15s" in left_out[LSTM[0]]


def test_no_part_takes_the_time_of_all_at_toy_size_either(tmp_path):
    """One that did not end took all minutes, again each time: the command came to no other part."""
    limits = {}

    def launch(told, part, seconds):
        limits[part.name] = seconds
        files.write_json(told.out / "parts" / f"{part.name}.json", MACHINE | {"devices": ["cpu"], **TRAINED})
        return "it had not ended" if part.name == LSTM[0] else ""

    plan.run(told(tmp_path, minutes=10.0), launch)
    assert 590 / len(plan.PARTS) < limits[LSTM[0]] < 610 / len(plan.PARTS) and LSTM[1] in limits


def test_a_peer_that_is_not_installed_is_not_begun(tmp_path):
    """To find out in a process of its own took half a minute of two, again each time."""
    lacking = parts.Part("peer", "speed.nonsense", packages=("no_such_package",))
    assert plan.in_a_process(told(tmp_path), lacking, 60).startswith("no_such_package must be installed: pip install")
    assert not list(tmp_path.iterdir())


def test_a_part_is_a_process_which_may_fail_or_last(tmp_path):
    """A part that is not there fails in its process; one that has no time is ended."""
    wrong = parts.Part("nonsense", "speed.nonsense")
    assert plan.in_a_process(told(tmp_path), wrong, 60).startswith("--part nonsense: there is none of that name")
    assert plan.in_a_process(told(tmp_path), parts.MACHINE, 0.2) == "it had not ended after 0s"


def test_every_part_names_what_is_there():
    import importlib

    for part in parts.EVERY.values():
        module, _, function = part.function.partition(".")
        assert callable(getattr(importlib.import_module(f"experiments.accelerator.{module}"), function))
    assert set(parts.SUBJECTS) == set(speed.SUBJECTS) and set(parts.DECODERS.values()) <= set(speed.systems.SYSTEMS)


def test_a_round_has_as_many_calls_as_fit():
    calls = []
    assert len(speed.seconds_of(lambda: calls.append(0), 0.02)) == speed.ROUNDS
    assert len(calls) > 2 * speed.ROUNDS
    assert len(speed.seconds_of(lambda: None, 0.0)) == 1, "one round at least"


def test_outputs_are_compared_with_those_of_the_simple_search():
    beams = lambda *outputs: {"beams": {"beam1": {"outputs": list(outputs), "tokens": 1}}}  # noqa: E731
    found = tables.compared({"decode-simple": beams([1, 2], [3]), "decode-engine": beams([1, 2], [4, 5])})
    assert found["decode-engine"]["beams"]["beam1"] == {"tokens": 1, "identical_tokens": 0.5}


def job(tmp_path):
    return speed.Job(0.01, 0, True, tmp_path / "work", None)


def test_an_update_at_toy_size(tmp_path):
    found = speed.training("transformer-base", "bfloat16", job(tmp_path))
    assert found["tokens_per_second"]["median"] > 0 and found["flops"] > 0 and found["share_of_peak"]["median"] > 0
    jax.clear_caches()


@pytest.mark.slow
def test_the_command_at_toy_size(tmp_path, monkeypatch, capsys):
    """All parts, each in its process; peers are not installed here. Then nothing but the seeds is measured again."""
    monkeypatch.setattr(plan, "PARTS", parts.PARTS)
    assert command.main(["--minutes", "30", "--out", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    missing = {part.name for part in parts.PARTS if part.after or "ctranslate2" in part.name or "face" in part.name}
    assert set(results["parts"]) == {part.name for part in parts.PARTS} - set(results["left_out"])
    assert set(results["left_out"]) <= missing and all("installed" in told for told in results["left_out"].values())
    assert results["parts"]["decode-engine"]["beams"]["beam5"]["identical_tokens"] == 1
    assert "Toy sizes: the numbers mean nothing." in capsys.readouterr().out


def test_seeds_are_measured_anew_on_other_data(tmp_path, monkeypatch):
    """Also where the distilled corpus is the same, and only what they are tested on has changed."""
    gold, corpus = tmp_path / "gold", tmp_path / "corpus"
    for directory in (gold, corpus):
        files.write_text(directory / "text", "a")
    monkeypatch.setattr(pipeline, "data", lambda workspace: gold)
    monkeypatch.setattr(pipeline, "learned_vocabulary", lambda workspace: corpus)
    monkeypatch.setattr(pipeline, "seq_kd", lambda workspace: corpus)
    monkeypatch.setattr(pipeline, "CORPORA", dict.fromkeys(("gold", "seq_kd"), lambda workspace: corpus))
    monkeypatch.setattr(pipeline, "read", lambda *_: SimpleNamespace(sources=["a"]))
    monkeypatch.setattr(seeds, "Clock", lambda job: SimpleNamespace(left=lambda: 0.0))
    tested = []

    def students(workspace, first, count, directory):
        tested.append((gold / "text").read_text())
        files.write_json(directory / "results.json", [{"Baseline": 1.0, "Seq-KD": 2.0}] * count)

    monkeypatch.setattr(seeds, "_students", students)
    job = SimpleNamespace(data=None, toy=True, root=tmp_path / "stages")
    for text in ("a", "a", "b"):
        files.write_text(gold / "text", text)
        seeds.main_comparison(job)
    assert tested == ["a", "b"]
