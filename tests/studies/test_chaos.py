"""Kills of real runs: nothing is lost; and what is lost is found. Commands of a moment stand for those of seconds."""

import json
import subprocess
import sys

import pytest

from experiments.chaos import kills, lives, runs, tables
from experiments.chaos.__main__ import select, shares
from experiments.chaos.content import content
from experiments.chaos.kills import KILL, TERM, Seen
from experiments.core import report
from experiments.core.pages import RESULTS, ROOT
from seqkd_jax.types import UserError
from seqkd_jax.utils import files

WRITES = """
import sys, time
from pathlib import Path
from seqkd_jax.utils import files

out = Path(sys.argv[1], "out")
out.mkdir(parents=True, exist_ok=True)
for number in range(20):
    if not (out / f"{number}.txt").exists():
        time.sleep(0.01)
        WRITE
with files.new_directory(out / "best", ["*.txt"]) as directory:
    files.write_text(directory / "all.txt", "".join((out / f"{number}.txt").read_text() for number in range(20)))
"""
WHOLE = 'files.write_text(out / f"{number}.txt", f"{number} whole")'
IN_PARTS = """with open(out / f"{number}.txt", "w") as file:
            for part in (number, "in", "parts"):
                print(part, file=file, flush=True)
                time.sleep(0.01)"""


def bench(tmp_path, write):
    def command(out):
        return "-c", WRITES.replace("WRITE", write), out

    return lives.Bench(runs.Experiment("short", command, 1), tmp_path, 0)


def test_killed_runs_come_to_what_a_run_comes_to_that_is_left_alone(tmp_path, monkeypatch):
    """Also if the killing itself is stopped, and goes on."""
    one, draw = bench(tmp_path, WHOLE), kills.draw

    def stopped(*arguments):
        if (tmp_path / "short/life.json").exists():
            raise KeyboardInterrupt
        return draw(*arguments)

    monkeypatch.setattr(kills, "draw", stopped)
    with pytest.raises(KeyboardInterrupt):
        lives.run(one, 4)
    first = files.read_json(tmp_path / "short/life.json")
    monkeypatch.undo()
    lives.run(one, 4)
    found = tables.collect(one)
    assert lives.over(one)[0]["kills"][: len(first)] == first
    assert found["kills"] == found["resumes"] == 4 == sum(found["by"].values()) == sum(found["phases"].values())
    assert not found["faults"] and found["equal"] == found["lives"] >= 1


def test_what_is_lost_is_found_and_kept(tmp_path):
    one = bench(tmp_path, IN_PARTS)
    lives.run(one, 4)
    fault = tables.collect(one)["faults"][0]
    assert fault.startswith("differs in out/") and ".txt" in fault
    assert "differs" in (tmp_path / "short/failures/0000/said.txt").read_text()
    assert (tmp_path / "short/failures/0000/life/out").is_dir()


@pytest.mark.parametrize(
    "action, status, said, fault",
    [
        (lives.ALONE, 0, "done", None),
        (lives.ALONE, 1, "", "status 1"),
        (lives.ALONE, 0, "Traceback (most recent call last)", "a traceback"),
        (KILL, -9, "", None),
        (KILL, -9, "seqkd: error: damaged", "another error"),
        (KILL, 2, "seqkd: error: damaged", "status 2"),
        (TERM, 143, "seqkd: error: stopped by SIGTERM", None),
        (TERM, 143, "seqkd: error: damaged", "another error"),
        (lives.LEFT, 75, "seqkd: error: process 1 is gone", None),
        (kills.FULL, 2, "seqkd: error: out/last: No space left on device", None),
        (kills.FULL, 2, "seqkd: error: out/last: damaged", "another error"),
        (kills.FULL, 2, "", "without an error"),
    ],
)
def test_how_a_process_may_end(action, status, said, fault):
    if fault is None:
        lives._require_fitting(action, status, said)
    else:
        with pytest.raises(lives.Fault, match=fault):
            lives._require_fitting(action, status, said)


@pytest.mark.parametrize(
    "changes, after, told",
    [
        (0, {"out"}, "starting"),
        (3, {"out", "out/metrics.jsonl"}, "training"),
        (3, {"out", "out/.last.0123456789abcdef.new"}, "writing last/"),
        (3, {"out/.last.0123456789abcdef.new", "out/.best.0123456789abcdef.old"}, "replacing best/"),
        (3, {"out.n-best/shard-00001.jsonl.gz"}, "between a shard and its hash"),
        (3, {"out.n-best/shard-00001.jsonl.gz", "out.n-best/shard-00001.jsonl.json"}, "training"),
        (3, {"old/.best.0123456789abcdef.new"}, "training"),
    ],
)
def test_what_the_disk_says_of_a_moment(changes, after, told):
    before = {"old/.best.0123456789abcdef.new"}
    assert kills.phase(Seen(changes, frozenset(before), frozenset(after), False), "training") == told


def test_content_has_no_times(tmp_path):
    for seconds, directory in ((1.5, "stage-0123456789ab"), (2.5, "stage-ba9876543210")):
        root = tmp_path / str(seconds)
        files.write_json(root / directory / "results.json", {"bleu": [{"value": 30, "words_per_second": seconds}]})
        files.write_text(root / directory / "train.en", "red\n")
    one, other = (content(tmp_path / name) for name in ("1.5", "2.5"))
    assert one == other and sorted(one) == ["stage/results.json", "stage/train.en"]
    files.write_text(root / directory / "train.en", "green\n")
    assert content(root) != one


def test_every_kill_has_an_experiment():
    wanted = shares(1000, runs.EXPERIMENTS)
    assert sum(wanted) == 1000 and min(wanted) > 0
    assert len({one.slug for one in runs.EXPERIMENTS}) == len(runs.EXPERIMENTS)
    assert {one.name.partition(",")[0] for one in select(["train", "study"])} == {"train", "study"}
    with pytest.raises(UserError, match="--only translate: no experiment begins with that"):
        select(["translate"])


def test_the_committed_table_is_that_of_its_results():
    for path in sorted((ROOT / RESULTS / "chaos").glob("results.json")):
        results = files.read_json(path)
        assert path.with_name("table.md").read_text("utf-8") == report.to_markdown(tables.sections(results))
        assert tables.total(results["experiments"], "kills") >= 1000
        assert not any(found["faults"] for found in results["experiments"])


@pytest.mark.slow
def test_fifty_kills_lose_nothing(tmp_path):
    command = [sys.executable, "-m", "experiments.chaos", "--kills", "50", "--work", "work", "--out", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert tables.total(results["experiments"], "kills") >= 50
