"""results.json of anybody: damaged, old or hostile ones are one line, and what they hold is text."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from experiments.abnar_2020 import study as abnar
from experiments.benchmarks import benchmark
from experiments.benchmarks.replicas import BENCHMARK
from experiments.core import outputs, pages, report
from experiments.core.study import main
from experiments.core.tables import Section, Table
from experiments.kim_rush_2016 import capacity
from experiments.kim_rush_2016 import study as kim_rush
from experiments.kim_rush_2016.ablations import study as ablations
from experiments.report.__main__ import main as write_report
from seqkd_jax.types import UserError
from seqkd_jax.utils import files

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / pages.RESULTS
KIM_RUSH = kim_rush.STUDY, "kim_rush_2016/smoke"
ABNAR = abnar.STUDY, "abnar_2020/classification"
ABLATIONS = ablations.STUDY, "kim_rush_2016.ablations/multi30k"


def without(*path):
    """The results lack what stands there."""

    def change(results):
        for key in path[:-1]:
            results = results[key]
        del results[path[-1]]

    return change


def with_(value, *path):
    """The results have this value there."""

    def change(results):
        for key in path[:-1]:
            results = results[key]
        results[path[-1]] = value

    return change


DAMAGED = [
    (*KIM_RUSH, with_(["a"], "arms")),
    (*KIM_RUSH, with_([], "arms")),
    (*KIM_RUSH, without("scale")),
    (*KIM_RUSH, without("commit")),
    (*KIM_RUSH, with_([], "versions")),
    (*KIM_RUSH, with_([1, 2], "deviations")),
    (*KIM_RUSH, with_(["x"], "distilled")),
    (*KIM_RUSH, with_("an arm of another version", "arms", 3, "arm")),
    (*KIM_RUSH, with_("x", "arms", 3, "bleu_beam1")),
    (*KIM_RUSH, with_(None, "arms", 3, "by_seed")),
    (*KIM_RUSH, with_([1e308, -1e308, 1e308], "arms", 3, "by_seed", "bleu_beam1")),
    (*KIM_RUSH, with_({"lines": []}, "speed")),
    (*KIM_RUSH, with_("../../elsewhere", "arms", 3, "outputs", "beam1")),
    (*ABNAR, without("quirks")),  # as results were before it was recorded
    (*ABNAR, with_("x", "setup")),
    (*ABNAR, with_([], "arms", 0, "metrics")),
    (*ABLATIONS, with_("$\\frac{$", "arms", 1, "value")),
]


def copied(name, change, to):
    """The results of a committed run, changed, in a directory of their own."""
    results = json.loads((RESULTS / name / "results.json").read_text(encoding="utf-8"))
    change(results)
    to.mkdir(parents=True, exist_ok=True)
    (to / "results.json").write_text(json.dumps(results), encoding="utf-8")
    if (RESULTS / name / outputs.DIRECTORY).is_dir():
        shutil.copytree(RESULTS / name / outputs.DIRECTORY, to / outputs.DIRECTORY)
    return results


@pytest.mark.parametrize(("study", "name", "change"), DAMAGED)
def test_damaged_results_are_one_line_and_nothing_is_written(study, name, change, tmp_path, capsys):
    copied(name, change, tmp_path)
    before = files.sha256_tree(tmp_path)
    assert main(study, ["--render", str(tmp_path)]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"error: {tmp_path / 'results.json'}: ") and "\n" not in said, said
    assert said.endswith("make the results anew, or bring back a copy")
    assert files.sha256_tree(tmp_path) == before, "a part of them was written"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("kim_rush_2016/smoke", with_(["kim_rush_2016"], "study")),
        ("kim_rush_2016/smoke", with_([1], "devices")),
        ("kim_rush_2016/smoke", with_("../../elsewhere", "arms", 3, "outputs", "beam1")),
        ("benchmarks/decoding/lstm", without("machine")),
        ("benchmarks/decoding/lstm", with_([1], "models")),
    ],
)
def test_a_page_of_damaged_results_is_one_line(name, change, tmp_path, capsys):
    copied(name, change, tmp_path)
    assert write_report([str(tmp_path)]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"error: {tmp_path / 'results.json'}: ") and "\n" not in said, said
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("kim_rush_2016/smoke", without("data")),
        ("kim_rush_2016/smoke", with_("x", "arms", 0, "training")),
        ("benchmarks/replicas", with_(["replicas"], "study")),
        ("benchmarks/replicas", without("machine")),
    ],
)
def test_pages_of_damaged_results_are_one_line(name, change, tmp_path):
    copied(name, change, tmp_path / pages.RESULTS / name)
    with pytest.raises(UserError, match=str(tmp_path / pages.RESULTS / name / "results.json")):
        pages.written(tmp_path)


def test_a_benchmark_that_cannot_be_drawn_is_one_line_and_nothing_is_written(tmp_path, capsys):
    copied("benchmarks/replicas", with_(True, "rendered"), tmp_path)
    before = files.sha256_tree(tmp_path)
    undrawable = BENCHMARK._replace(plots=lambda results: results["curves"])
    assert benchmark.main(undrawable, "experiments.benchmarks.replicas", ["--render", str(tmp_path)]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"error: {tmp_path / 'results.json'}: ") and "\n" not in said, said
    assert files.sha256_tree(tmp_path) == before


def test_a_damaged_record_of_capacity_is_one_line(tmp_path, capsys):
    (tmp_path / capacity.RECORD).write_text("[1]")
    assert capacity.main(["--render", str(tmp_path)]) == 2
    said = capsys.readouterr().err.strip()
    assert str(tmp_path / capacity.RECORD) in said and "\n" not in said


def test_a_name_in_results_leads_to_no_other_file(tmp_path):
    """Not even if they have its hash."""
    run, secret = tmp_path / "run", tmp_path / "secret.txt"
    secret.write_text("a secret\n")
    hashes = {"../../secret.txt": hashlib.sha256(secret.read_bytes()).hexdigest()}
    (run / outputs.DIRECTORY).mkdir(parents=True)
    for name in (*hashes, str(secret)):
        with pytest.raises(UserError, match=r"results\.json: .* names inside files are never paths"):
            outputs.read(run, {"outputs": {name: hashes["../../secret.txt"]}})


HOSTILE = "<script>alert(1)</script>\n## A heading\r| a cell"


def test_text_of_results_is_text_in_markdown():
    """No HTML, no line and no cell of its own; code stays code whatever backticks it holds."""
    table = Table([HOSTILE, "x|y"], [[HOSTILE, "a|b"]], notes=[HOSTILE])
    written = report.to_markdown([Section(HOSTILE, [HOSTILE], [HOSTILE], table)])
    assert "<script" not in written.replace("\\<script", "") and "\n## A" not in written and "\r" not in written
    rows = [line for line in written.splitlines() if line.startswith("|")]
    assert len(rows) == 3 and {len(row.replace("\\|", "").split("|")) for row in rows} == {4}
    assert report.to_markdown([Section(text=["p < 0.05 and `a*b <i>` *"])]) == "p < 0.05 and `a*b <i>` \\*\n"
    assert report.code("seqkd train") == "`seqkd train`"
    command = report.code("x` <b> ``")
    assert command == "``` x` <b> `` ```" and report.to_markdown([Section(text=[command])]) == f"{command}\n"
