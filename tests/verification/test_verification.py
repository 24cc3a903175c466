"""Every damage to every kind of directory is found, what is not finished is none, and nothing is changed."""

import json
import os
import shutil
import sys

import jax
import numpy as np
import pytest
from commands import fails, seqkd
from damage import KINDS, damage, edit
from distilling import make_teacher, spell_backwards
from updates import CONFIG, MODEL, VOCABULARIES, save

import seqkd_jax as kd
from experiments.core import stages
from seqkd_jax import checkpoint
from seqkd_jax.checkpoint import interchange, record, run_config
from seqkd_jax.data import vocabulary
from seqkd_jax.training import run_state
from seqkd_jax.utils import files

LINES = ["a b", "c", "", "d e f", "g h", "a a", "b"]
PARAMS = jax.tree.map(
    lambda leaf: np.full(leaf.shape, 0.5, leaf.dtype), jax.eval_shape(lambda: MODEL.init(jax.random.key(0)))
)


def write_run(run, finished=True, step=2):
    """A training run as it is left, without training."""
    described = run_config.describe("train", {"seed": 3}, {"vocabulary": VOCABULARIES})
    run_config.write(run / "config.json", described)
    history = ({"step": 2, "loss": 1.5},)
    state = run_state.RunState((run_state.Replica(CONFIG.seed, 1.5, 2, history=history),), step, finished=finished)
    about = run_state.metadata(CONFIG, {"training corpus": "a" * 64}, state._replace(position=(1, 0)))
    for number in range(step):
        files.append(run / "metrics.jsonl", files.json_line({"step": number + 1, "loss": 1.5}))
    save(run / "best", PARAMS, metadata={**about, "step": 2})
    about |= {"metrics": run_state.metrics_mark(run), "described": True}
    save(run / "last", PARAMS, metadata=about, state=PARAMS)


def write_evaluation(out):
    with files.new_directory(out, ("results.json", "config.json", "*.txt")) as directory:
        files.write_lines(directory / "beam1.txt", LINES)
        files.write_json(directory / "results.json", {"sentences": len(LINES)})
        run_config.write(directory / "config.json", run_config.describe("evaluate", {}, {"checkpoint": "a" * 64}))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """One directory of each kind."""
    root = tmp_path_factory.mktemp("original")
    write_run(root / "run")
    save(root / "checkpoint", PARAMS, metadata={})
    interchange.export_tensors(root / "checkpoint", root / "exported")
    vocabulary.write(VOCABULARIES, root / "vocabulary")
    write_evaluation(root / "evaluation")
    with pytest.MonkeyPatch.context() as patch:
        spell_backwards(patch)
        teacher = kd.LoadedTranslator(make_teacher(root / "teacher"))
        options = {"shard_lines": 3, "filters": kd.FilterConfig(deduplicate=True), "marian": True}
        kd.distill(teacher, LINES, root / "corpus", references=LINES, beam=3, **options)
    shutil.move(root / "corpus.n-best", root / "lists")
    shutil.rmtree(root / "teacher")

    def make(path):
        files.write_lines(path / "lines.txt", LINES)

    for name in ("data", "training"):
        stages.stage(name, {"seed": 1}, {}, make, root / "study" / "stages")
    return root


@pytest.fixture
def copied(original, tmp_path):
    return shutil.copytree(original, tmp_path / "copied")


OBJECTS = ["run", "checkpoint", "exported", "vocabulary", "evaluation", "corpus", "lists", "study"]


def content(root):
    """Of all files but locks."""
    return {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file() and "/." not in str(path)}


def test_whole_directories_are_told_as_such_and_nothing_is_changed(original):
    before = content(original)
    found = kd.verify(original, complete=True)
    assert [one for one in found.objects if one.state != "whole"] == [] and found.damages == []
    told = {os.path.relpath(one.object, original): one for one in found.objects}
    assert {*OBJECTS, "run/best", "run/last"} < told.keys() and len(told) == len(OBJECTS) + 4
    assert told["run"].result == "finished, 2 updates" and told["corpus"].result == "7 lines"
    assert told["lists"].result == "7 lines in 3 shards" and told["run/last"].kind == "checkpoint"
    assert sum(one.files for one in found.objects) == len(before)
    assert content(original) == before


@pytest.mark.parametrize("name", OBJECTS)
def test_every_damage_is_found(copied, name, monkeypatch):
    """Of every file by every kind of damage, at random places; the file is named."""
    draw, weights = np.random.default_rng(0), name in ("checkpoint", "exported")
    if not weights:  # they are read where nothing else tells a damage
        monkeypatch.setattr(checkpoint, "verify_at", lambda path, directory: (record.read_at(path, directory), None))
    for path in content(copied / name):
        if name == "run" and path.parent != copied / name and path.name != "checkpoint.json":
            continue  # of a checkpoint, which has a turn of its own
        for kind in KINDS:
            if name == "exported" and path.name == files.SUMS and kind == "remove":
                continue  # so it is read on purpose, and told
            before = path.read_bytes()
            damage(path, kind, draw)
            found = kd.verify(copied / name, complete=True)
            assert found.damages, f"{kind} of {path}"
            assert all("\n" not in one and str(copied) in one for one in found.damages)
            path.write_bytes(before)
    assert kd.verify(copied / name, complete=True).damages == []


def test_each_damaged_file_has_a_line(copied):
    (copied / "vocabulary" / "more").write_text("x")
    damage(copied / "vocabulary" / "vocabulary.json", "append", np.random.default_rng(0))
    found = kd.verify(copied / "vocabulary")
    assert len(found.damages) == 2 and found.objects[0].state == "damaged"


def drop_last_line(path):
    path.write_bytes(path.read_bytes().rstrip(b"\n").rpartition(b"\n")[0] + b"\n")


def swap_first_lines(path):
    first, second, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([second, first, *others]))


def rehash(root):
    """Hashes that fit the files, as somebody writes them who changes a corpus on purpose."""
    hashes = {name: files.sha256_file(root / name) for name in files.tree(root)}
    edit(root, lambda card: card.update(files={name: hashes[name] for name in card["files"]}), "card.json")


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("train.target", drop_last_line, "train.target: has 6 lines, the card says 7"),
        ("train.source", swap_first_lines, "train.source: is not the source lines whose hash the card has"),
        ("scores.tsv", drop_last_line, "scores.tsv: has 6 rows, the card says 7 lines"),
        ("scores.tsv", swap_first_lines, "scores.tsv: line 1 is not the names of its columns"),
        ("filtered/lines.txt", swap_first_lines, "lines.txt: is not the numbers of lines, from 1, in their order"),
        ("filtered/lines.txt", drop_last_line, "lines.txt: has 5 lines, the card says 6"),
        ("filtered/train.target", swap_first_lines, "train.target: is not those lines of train.target that lines.txt"),
        ("n-best.txt", swap_first_lines, "n-best.txt: hypothesis 0 of line 1 is not its target"),
    ],
)
def test_counts_and_order_of_a_corpus_whose_hashes_fit(copied, file, change, said):
    change(copied / "corpus" / file)
    rehash(copied / "corpus")
    (damage,) = kd.verify(copied / "corpus").damages
    assert said in damage


def test_what_is_not_finished_is_no_damage(tmp_path, copied):
    write_run(tmp_path / "going", finished=False, step=300)
    files.append(tmp_path / "going" / "metrics.jsonl", '{"step": 301, "lo')
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "metrics.jsonl").write_text("")
    for path in (copied / "lists").glob("shard-00001*"):
        path.unlink()
    (copied / "study" / "stages" / "more-0123456789ab.partial").mkdir()
    going = [tmp_path / "going", tmp_path / "begun", copied / "lists", copied / "study"]
    found = kd.verify(*going)
    told = {os.path.basename(one.object): (one.state, one.result) for one in found.objects}
    assert found.damages == []
    assert told["going"] == ("unfinished", "not finished, update 300 of 600")
    assert told["begun"] == ("unfinished", "not finished, last/ was not saved yet")
    assert told["lists"] == ("incomplete", "incomplete, 4 lines in 2 shards; shard 1 is missing")
    assert told["study"] == ("unfinished", "2 stages are finished, not more-0123456789ab")
    assert len(kd.verify(*going, complete=True).damages) == 4


def test_a_shard_that_is_gone_from_the_lists_of_a_corpus_is_a_damage(copied):
    """Lists on their own may lack what nobody has made yet; those that a corpus is made of were whole."""
    (copied / "lists").rename(copied / "corpus.n-best")
    (copied / "corpus.n-best" / "shard-00001.jsonl.gz").unlink()
    (damage,) = kd.verify(copied / "corpus.n-best").damages
    assert damage.endswith(f"shard-00001.jsonl.gz: is missing, and {copied / 'corpus'} is made of it")
    swap_first_lines(copied / "corpus" / "train.source")
    assert kd.verify(copied / "corpus.n-best").damages == [], "that corpus is of other lines"


def test_a_state_that_was_saved_and_is_gone_is_a_damage(copied):
    run = copied / "run"
    shutil.rmtree(run / "last")
    lines = [{"step": 2, "loss": 1.0}, {"validation": True, "step": 2}, {"step": 3, "loss": 1.0}]
    files.write_text(run / "metrics.jsonl", "".join(map(files.json_line, lines[:2])))
    assert kd.verify(run).damages == [], "killed between its first validation and its first save"
    files.append(run / "metrics.jsonl", files.json_line(lines[2]))
    assert kd.verify(run).damages == [f"{run / 'last'}: is gone, metrics.jsonl goes on after it was saved"]


def test_what_a_run_did_not_write_is_named_and_damages_nothing(copied):
    for name in (".lock", "metrics.csv", "train.log"):
        (copied / "run" / name).write_text("x")
    found = kd.verify(copied / "run")
    assert found.damages == [] and found.objects[0].result == "finished, 2 updates; not of the run: train.log"


def test_parts_that_do_not_belong_together(copied):
    run = copied / "run"
    shutil.rmtree(run / "best")
    assert "best: is missing, and last/ says that update 2 was the best" in kd.verify(run).damages[0]
    save(run / "best", PARAMS, metadata={"inputs": {"training corpus": "b" * 64}, "step": 2})
    assert "best: is of another run than last/" in kd.verify(run).damages[0]
    save(run / "best", PARAMS, metadata={"inputs": {"training corpus": "a" * 64}, "step": 1})
    assert "best: is of update 1, but last/ says that update 2 was the best" in kd.verify(run).damages[0]


def test_a_corpus_of_another_teacher(original, tmp_path):
    found = kd.verify(original / "corpus", original / "lists", checkpoints=[original / "checkpoint"])
    assert [" of another teacher (" in one for one in found.damages] == [True, True]


def test_shards_that_changed_places(copied):
    """Each has its own hash."""
    for suffix in ("gz", "json"):
        first, second = (copied / "lists" / f"shard-0000{number}.jsonl.{suffix}" for number in (0, 1))
        first.rename(copied / "aside")
        second.rename(first)
        (copied / "aside").rename(second)
    found = kd.verify(copied / "lists").damages
    assert len(found) == 2 and all("other lines or another place" in one for one in found)


def test_weights_that_are_not_finite(tmp_path):
    save(tmp_path / "one", jax.tree.map(lambda leaf: leaf * np.nan, PARAMS), metadata={})
    assert "has values that are not finite" in kd.verify(tmp_path / "one").damages[0]


def test_links_that_lead_out_are_not_followed(copied, tmp_path):
    """What they lead to is the right file, and is not read all the same."""
    for path in (copied / "corpus" / "train.target", copied / "run" / "best"):
        moved = path.rename(tmp_path / path.name)
        path.symlink_to(moved)
    found = kd.verify(copied / "corpus", copied / "run")
    assert [" a link that leads out of " in one for one in found.damages] == [True, True]


def test_a_directory_of_an_older_version_has_no_hashes(copied):
    edit(copied / "checkpoint", lambda record: record.pop("sha256sums"))
    (copied / "checkpoint" / files.SUMS).unlink()
    (one,) = kd.verify(copied / "checkpoint").objects
    assert one.result == "whole; no SHA256SUMS: a version before 0.3.0 wrote it"


@pytest.mark.parametrize("kind", ["missing", "file", "foreign"])
def test_what_is_none_of_ours_is_refused(tmp_path, kind, capfd):
    if kind == "file":
        (tmp_path / kind).write_text("x")
    if kind == "foreign":
        (tmp_path / kind / "inner").mkdir(parents=True)
    assert str(tmp_path / kind) in fails(capfd, "verify", tmp_path / kind)


def test_the_command(copied, capfd, monkeypatch):
    assert seqkd("verify", copied / "corpus", copied / "run") == 0
    told = json.loads(capfd.readouterr().out)
    assert told["damages"] == 0 and [one["kind"] for one in told["objects"]][:2] == ["distilled corpus", "training run"]
    (copied / "corpus" / "scores.tsv").unlink()
    (copied / "vocabulary" / "vocabulary.json").unlink()
    said = fails(capfd, "verify", copied / "corpus", copied / "vocabulary")
    assert "error: 2 damages, the first: " in said and "scores.tsv: it is missing" in said
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    capfd.readouterr()
    assert seqkd("verify", copied) == 2
    table = capfd.readouterr().out.splitlines()
    assert table[0].split() == ["kind", "files", "bytes", "result"] and "scores.tsv: it is missing" in table[-2]
