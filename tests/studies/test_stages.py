"""Stages: made once, whole, by identity; killed and damaged ones."""

import dataclasses
import errno
import json
import multiprocessing
import os
import sys
import threading
import time
from typing import Annotated

import processes
import pytest

from experiments.core import stages
from experiments.core.study import Headline, Workspace, evaluate_arms, main
from experiments.kim_rush_2016.scale import rows
from experiments.kim_rush_2016.scales import named
from experiments.kim_rush_2016.study import STUDY
from seqkd_jax.config import SearchConfig
from seqkd_jax.types import UserError
from seqkd_jax.utils import files
from seqkd_jax.utils.settings import Range


class Counted:
    """A `make` that counts its calls and can fail after its first file."""

    def __init__(self, text="made", fail=False):
        self.text, self.fail, self.calls, self.found = text, fail, 0, None

    def __call__(self, directory):
        self.calls += 1
        self.found = sorted(path.name for path in directory.iterdir())
        (directory / "part.txt").write_text("part")
        if self.fail:
            raise RuntimeError("killed")
        (directory / "inner").mkdir(exist_ok=True)
        (directory / "inner" / "result.txt").write_text(self.text)


def test_made_once_and_then_found(tmp_path):
    make = Counted()
    first = stages.stage("data", {"seed": 1}, {}, make, tmp_path)
    again = stages.stage("data", {"seed": 1}, {}, make, tmp_path)
    assert first == again and make.calls == 1
    manifest = stages.read_manifest(first)
    assert set(manifest["files"]) == {"part.txt", "inner/result.txt"}
    assert manifest["settings"] == {"seed": 1} and manifest["seconds"] >= 0
    assert {"command", "commit", "versions", "inputs"} <= set(manifest)
    assert first.name.startswith("data-") and len(first.name) == len("data-") + 12


def test_identity_is_settings_inputs_and_version(tmp_path):
    file = tmp_path / "input.txt"
    file.write_text("one")

    def made(settings, **options):
        return stages.stage("s", settings, {"file": file}, Counted(), tmp_path / "root", **options)

    first = made({"a": 1, "b": 2})
    assert made({"b": 2, "a": 1}) == first, "the order of keys must not matter"
    assert made({"a": 1, "b": 3}) != first
    assert made({"a": 1, "b": 2}, version=2) != first
    file.write_text("two")
    assert made({"a": 1, "b": 2}) != first


def test_a_changed_result_upstream_makes_another_stage(tmp_path):
    def downstream(text):
        above = stages.stage("above", {"text": text}, {}, Counted(text), tmp_path)
        return stages.stage("below", {}, {"above": above}, Counted(), tmp_path)

    assert downstream("x") == downstream("x")
    assert downstream("x") != downstream("y")


def test_a_part_of_a_stage_is_an_input_too(tmp_path):
    above = stages.stage("above", {}, {}, Counted(), tmp_path)
    whole = stages.content_hash(above)
    assert stages.content_hash(above / "inner") != whole
    other = stages.stage("above", {"other": 1}, {}, Counted("other"), tmp_path)
    same = stages.stage("above", {"other": 2}, {}, Counted(), tmp_path)
    assert stages.content_hash(other / "inner") != stages.content_hash(above / "inner"), "another content"
    assert stages.content_hash(other / "part.txt") == stages.content_hash(above / "part.txt"), "what is beside it"
    assert stages.content_hash(same / "inner") == stages.content_hash(above / "inner"), "where it lies"
    with pytest.raises(UserError, match="no such input"):
        stages.content_hash(tmp_path / "absent")


def test_a_field_that_is_added_to_the_settings_makes_no_other_stage(tmp_path):
    added = [("added", Annotated[int, Range(0, 9)], 3)]
    newer = dataclasses.make_dataclass("SearchConfig", added, bases=(SearchConfig,), frozen=True)
    make = Counted()
    stages.stage("s", [SearchConfig(beam=3), "x"], {}, make, tmp_path)
    stages.stage("s", [newer(beam=3), "x"], {}, make, tmp_path)
    assert make.calls == 1
    stages.stage("s", [newer(beam=3, added=4), "x"], {}, make, tmp_path)
    stages.stage("s", [SearchConfig(beam=4), "x"], {}, make, tmp_path)
    assert make.calls == 3


def test_a_killed_stage_starts_clean_or_goes_on(tmp_path):
    for resumable, found in ((False, []), (True, ["part.txt"])):
        root = tmp_path / str(resumable)
        with pytest.raises(RuntimeError):
            stages.stage("s", {}, {}, Counted(fail=True), root, resumable=resumable)
        with pytest.raises(stages.NotMade):
            stages.stage("s", {}, {}, None, root)
        make = Counted()
        directory = stages.stage("s", {}, {}, make, root, resumable=resumable)
        assert make.found == found
        assert stages.read_manifest(directory)["resumed"] is resumable
        assert [path.name for path in root.iterdir() if path.name.endswith(".partial")] == []


def test_a_resumed_stage_tells_of_all_its_parts(tmp_path, monkeypatch):
    """Which commits made it, and how long it took in all: of a killed run until it last wrote."""
    clock, commits = iter([1000.0, 2000.0]), iter(["one", "two", "two", "two"])
    monkeypatch.setattr(stages.time, "time", lambda: next(clock))
    monkeypatch.setattr(stages, "commit", lambda: next(commits))

    def killed(directory):
        (directory / "part.txt").write_text("half")
        os.utime(directory / "part.txt", (1030.0, 1030.0))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        stages.stage("s", {}, {}, killed, tmp_path, resumable=True)
    manifest = stages.read_manifest(stages.stage("s", {}, {}, Counted(), tmp_path, resumable=True))
    assert manifest["commits"] == ["one", "two"] and 30 <= manifest["seconds"] < 40
    assert not any((tmp_path / stages.PARTS).iterdir()), "of a finished stage its manifest tells"


def test_a_manifest_before_the_renaming_does_not_count(tmp_path):
    """Killed between writing the manifest and renaming: made again, and the old manifest is not hashed into the new."""
    with pytest.raises(RuntimeError):
        stages.stage("s", {}, {}, Counted(fail=True), tmp_path, resumable=True)
    (work,) = tmp_path.glob("*.partial")
    (work / "manifest.json").write_text("{}")
    directory = stages.stage("s", {}, {}, Counted(), tmp_path, resumable=True)
    assert "manifest.json" not in stages.read_manifest(directory)["files"]


def test_a_record_after_the_renaming_goes_when_the_stage_is_found(tmp_path, monkeypatch):
    """Killed between the renaming and the removal of the record of its parts: the next run removes it."""
    with monkeypatch.context() as killed:
        killed.setattr(stages.Path, "unlink", lambda path, missing_ok=False: path.exists() and os._exit(9))
        if not (child := os.fork()):
            stages.stage("s", {}, {}, Counted(), tmp_path)
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert [*(tmp_path / stages.PARTS).iterdir()], "the child was to leave a record"
    stages.stage("s", {}, {}, None, tmp_path)
    assert [*(tmp_path / stages.PARTS).iterdir()], "who only looks removes nothing"
    stages.stage("s", {}, {}, Counted(fail=True), tmp_path)
    assert not [*(tmp_path / stages.PARTS).iterdir()]


def test_leftovers_of_killed_writers_are_dropped(tmp_path):
    def make(directory):
        (directory / ".half.new").write_text("half")
        (directory / "whole").write_text("whole")

    directory = stages.stage("s", {}, {}, make, tmp_path)
    assert sorted(path.name for path in directory.iterdir()) == ["manifest.json", "whole"]


@pytest.mark.parametrize("resumable", [False, True])
def test_a_stage_on_a_full_disk_is_named_and_made_again(tmp_path, resumable):
    def full(directory):
        (directory / "part.txt").write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left") as raised:
        stages.stage("s", {}, {}, full, tmp_path, resumable=resumable)
    assert raised.value.filename.startswith(f"{tmp_path}/s-")
    directory = stages.stage("s", {}, {}, Counted(), tmp_path, resumable=resumable)
    assert (directory / "part.txt").read_text() == "part"


@pytest.mark.parametrize(
    "damage, said", [("change", "has changed"), ("remove", "is missing"), ("add", "not in its manifest")]
)
def test_damage_is_named(tmp_path, monkeypatch, damage, said):
    directory = stages.stage("s", {}, {}, Counted(), tmp_path)
    result = directory / "inner" / "result.txt"
    if damage == "change":
        result.write_text("other")
    elif damage == "remove":
        result.unlink()
    else:
        (directory / "new.txt").write_text("new")
    monkeypatch.setattr(stages, "_verified", set())  # as in another process
    with pytest.raises(UserError, match=f"damaged.*{said}.*delete the directory"):
        stages.stage("s", {}, {}, Counted(), tmp_path)


@pytest.mark.parametrize(
    "files_of_it", [3, [], {"../../victim": "0" * 64}, {"/etc/passwd": "0" * 64}, {"": ""}, {"whole": 3}, {"a\0b": ""}]
)
def test_a_manifest_names_no_paths(tmp_path, files_of_it):
    """What it lists is compared with what is there, before anything of that name is read."""
    directory = stages.stage("s", {}, {}, lambda path: (path / "whole").write_text("x"), tmp_path)
    manifest = {**stages.read_manifest(directory), "files": files_of_it}
    del manifest["sha256"]  # as of a version before 0.4.0
    (directory / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"^[^\n]*(damaged|never paths)[^\n]*delete [^\n]*to make it again$"):
        stages.verify(directory)


@pytest.mark.parametrize("parts", ["{", "3", "[3]", '[{"commit": "x"}]', '[{"commit": 1, "started": 2}]'])
def test_damaged_records_of_an_unfinished_stage_are_one_line(tmp_path, parts):
    def killed(path):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stages.stage("s", {}, {}, killed, tmp_path, resumable=True)
    (record,) = (tmp_path / stages.PARTS).iterdir()
    record.write_text(parts)
    with pytest.raises(UserError, match=rf"{record.name}[^\n]*(damaged|not JSON)[^\n]*delete it[^\n]*$"):
        stages.stage("s", {}, {}, killed, tmp_path, resumable=True)


def test_a_directory_without_manifest_is_refused(tmp_path):
    directory = stages.stage("s", {}, {}, Counted(), tmp_path)
    (directory / "manifest.json").unlink()
    with pytest.raises(UserError, match="not a finished stage"):
        stages.stage("s", {}, {}, Counted(), tmp_path)


def test_two_at_once_make_it_once(tmp_path):
    calls = []

    def slow(directory):
        calls.append(1)
        time.sleep(0.2)
        (directory / "x").write_text("x")

    found = []
    threads = [
        threading.Thread(target=lambda: found.append(stages.stage("s", {}, {}, slow, tmp_path))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 and found[0] == found[1]


def _make_and_die(root):
    def make(directory):
        (directory / "shard").write_text("shard")
        os._exit(9)

    stages.stage("s", {}, {}, make, root, resumable=True)


TWO = """
from experiments.core import stages
from seqkd_jax.types import UserError

def alone(directory):  # a stage that is asked for inside is process 0's, too
    inner = stages.stage("inner", {}, {}, lambda to: (to / "by.txt").write_text(str(count)), ROOT)
    (directory / "by.txt").write_text(f"{index} of {distributed.count()}")

def together(directory):
    (directory / f"{index}.txt").write_text(f"{index} of {distributed.count()}")

above = stages.stage("alone", {}, {}, alone, ROOT)
made = stages.stage("together", {}, {"above": above}, together, ROOT, together=True)
again = stages.stage("together", {}, {"above": above}, None, ROOT, together=True)
names = {file.name: file.read_text() for file in (*above.glob("*.txt"), *made.glob("*.txt"))}
assert names == {"by.txt": "0 of 1", "0.txt": "0 of 2", "1.txt": "1 of 2"}, names
assert again == made and set(stages.read_manifest(made)["files"]) == {"0.txt", "1.txt"}
try:
    stages.stage("none", {}, {}, None, ROOT)
except stages.NotMade:
    pass
else:
    raise AssertionError("process 0 decides that a stage is not there")
stages.stage("other", {"index": index}, {}, together, ROOT)
"""


def test_of_two_processes_one_makes_a_stage_or_both_together(tmp_path):
    code = f"from pathlib import Path\nROOT = Path({str(tmp_path)!r})\n{TWO}"
    with processes.python(2, code) as started:
        first, second = processes.results(started)
    assert (first.status, second.status) == (2, 2), first.err + second.err
    assert "give all processes the same command, code and data" in second.err
    assert not list(tmp_path.glob("other-*"))


def test_the_lock_goes_with_its_process(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_make_and_die, args=(tmp_path,))
    process.start()
    process.join(120)
    assert process.exitcode == 9, "the child did not reach its death"
    make = Counted()
    stages.stage("s", {}, {}, make, tmp_path, resumable=True)
    assert make.found == ["shard"]


def test_one_line_for_each_stage(tmp_path, capsys, monkeypatch):
    for _ in range(2):
        stages.stage("vocabulary", {}, {}, Counted(), tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "starts" in lines[0] and "made in" in lines[1]
    monkeypatch.setattr(stages, "_told", set())  # as in another process
    for _ in range(2):
        stages.stage("vocabulary", {}, {}, Counted(), tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "done before" in lines[0]


def test_provenance_names_what_ran(monkeypatch):
    monkeypatch.setattr(
        "sys.argv", ["study", "--data=/home/me/corpus", "--out", "/home/me/runs/one", "--name=a=b", "a b"]
    )
    found = stages.provenance()
    assert found["command"].endswith(" --data=corpus --out one --name=a=b 'a b'")
    assert found["command"] and found["commit"] and "jax" in found["versions"]
    assert os.sep not in found["command"], "a machine's paths do not belong into results"


def test_arms_that_are_asked_for_are_made_first(tmp_path):
    """So that what another process makes meanwhile is found, and reported in the order of the arms."""
    first, second, third, *_ = arms = rows(named("smoke"))
    there = set()

    def evaluate(workspace, arm):
        if workspace.make:
            there.update({arm, first})  # the latter by somebody else
        if arm not in there:
            raise stages.NotMade
        return arm.key

    study, workspace = STUDY._replace(evaluate=evaluate), Workspace(None, None, tmp_path)
    evaluated = evaluate_arms(study, workspace, arms, [third])
    assert list(evaluated.items()) == [(first, first.key), (third, third.key)]


TELLING_NOTHING = {
    "required": (),
    "claims": lambda results: [],
    "sections": lambda results: [],
    "plots": {},
    "charts": {},
    "headline": lambda results: Headline("", "", ""),
    "findings": lambda results: (),
    "samples": lambda workspace, evaluated: "",
}


def test_the_recorded_command_makes_every_arm_that_is_reported(tmp_path, monkeypatch):
    """Arms that earlier commands made are reported, too; the last command alone would not make them."""
    first, second, third, *_ = every = rows(named("smoke"))
    there = set()

    def evaluate(workspace, arm):
        if not workspace.make and arm not in there:
            raise stages.NotMade
        there.add(arm)

    def recorded(*arguments):
        monkeypatch.setattr(sys, "argv", ["study", *arguments])
        assert main(stubbed, [*arguments, "--out", str(tmp_path)]) == 0
        command = files.read_json(tmp_path / "results.json")["command"]
        return command[command.index("--") :] if "--" in command else ""

    stubbed = STUDY._replace(
        load=lambda scale, data: None,
        size=lambda workspace: "",
        arms=lambda scale: every,
        needs=lambda scale, row: {first: (), second: [first]}.get(row, ()),
        evaluate=evaluate,
        collect=lambda workspace, evaluated, out: {"data": {}, "arms": [{"arm": "an arm"}]},
        **TELLING_NOTHING,
    )
    assert recorded("--only", second.arm.name) == f"--only '{second.arm.name}'", "one command made all: as it was given"
    assert recorded("--only", third.key, "--pruning") == f"--pruning --only {second.key} {third.key}"
    assert recorded(f"--only={first.key}") == f"--only {second.key} {third.key}"
    recorded("--only", *(row.key for row in every))
    assert "--only" not in recorded("--pruning", "--only", second.key), "all of them: none has to be named"


def test_a_command_of_several_scales_knows_the_arms_of_all(tmp_path, monkeypatch, capsys):
    """A scale without an arm that is asked for is left out; a name that none has is an error before any work. What is
    recorded beside the results of a scale is the command for that scale."""
    first, second, *_ = rows(named("smoke"))
    scales = {name: dataclasses.replace(named("smoke"), name=name) for name in ("a", "b")}
    made = []

    def evaluate(workspace, row):
        if not workspace.make:
            raise stages.NotMade

    stubbed = STUDY._replace(
        scales=lambda options: scales,
        load=lambda scale, data: made.append(scale.name),
        size=lambda workspace: "",
        arms=lambda scale: [first] if scale.name == "a" else [first, second],
        needs=lambda scale, row: (),
        evaluate=evaluate,
        collect=lambda workspace, evaluated, out: {"data": {}, "arms": [{"arm": "an arm"}]},
        **TELLING_NOTHING,
    )

    def run(*arguments):
        made.clear()
        monkeypatch.setattr(sys, "argv", ["study", *arguments])
        return main(stubbed, [*arguments, "--out", str(tmp_path)]), list(made)

    assert run("--only", "gru") == (2, []) and "--only gru: no arm" in capsys.readouterr().err
    assert run("--scale", "both", "--only", second.key) == (0, ["b"])
    found = files.read_json(tmp_path / "b" / "results.json")["command"]
    assert found.endswith(f"--scale b --only {second.key}") and "both" not in found
    assert run() == (0, ["a", "b"])
    found = files.read_json(tmp_path / "a" / "results.json")["command"]
    assert found.endswith("--scale a")
