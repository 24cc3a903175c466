"""config.json: every run writes it, and the same command started from it does the same again."""

import json
import os
import shutil

import jax
import pytest
from commands import SEARCH, SMALL_MODEL, SMALL_RUN, WORD_VOCABULARY, fails, seqkd, write_corpus

from seqkd_jax import api, checkpoint
from seqkd_jax.cli import main, options
from seqkd_jax.config import CorpusConfig, LSTMConfig
from seqkd_jax.utils import settings

WRITTEN = "config.json"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    arguments = [*WORD_VOCABULARY, "--vocab.size", 9, *SMALL_MODEL, *SMALL_RUN, "--log-every", 1, "--seed", 5]
    assert seqkd("train", "--out", out, "--corpus.path", data, *arguments) == 0
    return out


def weights(run):
    return checkpoint.read_record(run / "last")["params_sha256"]


def changed(path, to, change):
    """A file that was edited on purpose."""
    content = json.loads(path.read_text())
    del content["sha256"]
    change(content)
    to.write_text(json.dumps(content))
    return to


def test_a_run_says_everything_it_was_started_with(run, data):
    content = json.loads((run / WRITTEN).read_text())
    assert content["command"] == "train" and {"jax", "python"} <= set(content["versions"])
    given = content["settings"]
    assert given["config"]["optimiser"]["b2"] == 0.98, "defaults are spelled out"
    assert given["config"]["seed"] == 5 and given["lstm"]["size"] == 8
    assert given["pairs"]["corpus"] == settings.to_json(CorpusConfig(str(data)))
    assert given["out"] == str(run) and "given" not in given
    assert content["inputs"]["training corpus"]["pairs"] == 60
    fingerprint = checkpoint.load(run / "best").vocabularies.fingerprint
    assert content["inputs"]["vocabulary"] == {"sizes": [9, 9], "fingerprint": fingerprint}


def test_train_from_the_file_is_the_same_run(run, tmp_path):
    assert seqkd("train", "--config", run / WRITTEN, "--out", tmp_path / "again") == 0
    assert (tmp_path / "again" / "metrics.jsonl").read_text() == (run / "metrics.jsonl").read_text()
    assert weights(tmp_path / "again") == weights(run)
    before, after = (json.loads((where / WRITTEN).read_text()) for where in (run, tmp_path / "again"))
    assert before["settings"] | {"out": str(tmp_path / "again")} == after["settings"]
    assert before["inputs"] == after["inputs"]


def test_options_beside_the_file_override_it(run, tmp_path):
    assert seqkd("train", f"--config={run / WRITTEN}", "--out", tmp_path / "other", "--seed", 6) == 0
    assert weights(tmp_path / "other") != weights(run)
    given = json.loads((tmp_path / "other" / WRITTEN).read_text())["settings"]
    assert given["config"]["seed"] == 6 and given["config"]["log_every"] == 1


def test_the_file_alone_resumes_its_own_run(run):
    before = (run / "last" / "checkpoint.json").stat().st_mtime_ns
    assert seqkd("train", "--config", run / WRITTEN) == 0
    assert (run / "last" / "checkpoint.json").stat().st_mtime_ns == before


def test_a_refused_run_leaves_the_file_of_the_one_that_is_there(run, capfd):
    before = (run / WRITTEN).read_text()
    assert "holds a run with seed=5, not 6" in fails(capfd, "train", "--config", run / WRITTEN, "--seed", 6)
    assert (run / WRITTEN).read_text() == before


def test_a_file_of_another_kind_is_not_replaced(run, data, tmp_path, capfd):
    """Such as the config.json of a Marian model, in a directory that --out names."""
    foreign = tmp_path / "config.json"
    foreign.write_text('{"model_type": "marian"}')
    said = fails(capfd, "train", "--config", run / WRITTEN, "--out", tmp_path)
    assert str(foreign) in said and "is not the settings of a run" in said
    beside = tmp_path / "t.config.json"
    beside.write_text("notes")
    said = fails(capfd, "translate", "--checkpoint", run / "best", data / "test.en", "--out", tmp_path / "t")
    assert str(beside) in said and not (tmp_path / "t").exists()
    assert foreign.read_text() == '{"model_type": "marian"}' and beside.read_text() == "notes"
    assert not (tmp_path / "last").exists()


def test_another_corpus_or_vocabulary_is_refused_unless_named(run, data, tmp_path, capfd):
    moved = shutil.copytree(data, tmp_path / "data")
    content = changed(run / WRITTEN, tmp_path / "c", lambda c: c["settings"]["pairs"]["corpus"].update(path=str(moved)))
    with open(moved / "train.de", "a") as target, open(moved / "train.en", "a") as source:
        target.write("RED\n")
        source.write("red\n")
    command = ["train", "--config", content, "--out", tmp_path / "out"]
    said = fails(capfd, *command)
    assert "inputs.training corpus was" in said and "--corpus.…" in said and str(content) in said
    assert not (tmp_path / "out").exists()
    assert seqkd(*command, "--corpus.path", moved, "--max-steps", 1) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(format=9), "is of format 9, this version reads 1"),
        (lambda c: c.update(command="distill"), "is of `seqkd distill`, not of train"),
        (lambda c: c.pop("inputs"), "lacks inputs"),
        (lambda c: c.update(setings={}), "'setings': there is no such key"),
        (lambda c: c.update(settings=[]), "settings is []"),
        (lambda c: c["settings"].update(outt="x"), "settings.outt: there is no such setting"),
        (lambda c: c["settings"]["config"].update(epoch=3), "settings.config.epoch: there is no such setting"),
        (lambda c: c["settings"]["lstm"].update(layers="2"), "settings.lstm.layers is '2': it must be a whole number"),
        (lambda c: c["settings"]["lstm"].update(layers=0), "settings.lstm.layers is 0"),
        (lambda c: c["settings"].update(model="rnn"), "settings.model is 'rnn': it must be one of lstm, transformer"),
        (lambda c: c["settings"].pop("out"), "settings.out: is missing"),
        (lambda c: c["inputs"].update(vocabulary=3), "inputs.vocabulary is 3: it must be an object"),
    ],
)
def test_a_damaged_or_foreign_file_is_one_line(run, tmp_path, capfd, change, said):
    content = changed(run / WRITTEN, tmp_path / "c", change)
    line = fails(capfd, "train", "--config", content)
    assert said in line and str(content) in line


def test_an_edit_that_is_not_told_is_refused(run, data, tmp_path, capfd):
    """Whatever it is: a value, a space, the last line's end. Without the key sha256 an edit is meant."""
    written = (run / WRITTEN).read_bytes()
    damaged = shutil.copytree(run, tmp_path / "run") / WRITTEN
    for data in (
        written.replace(b'"seed": 5', b'"seed": 4'),
        written + b"\n",
        written[:-1],
        written.replace(b"  ", b" "),
    ):
        damaged.write_bytes(data)
        for command in (["--config", damaged], ["--config", run / WRITTEN, "--out", damaged.parent]):
            assert str(damaged) in fails(capfd, "train", *command)
        assert damaged.read_bytes() == data
    content = changed(run / WRITTEN, damaged, lambda content: None)
    assert seqkd("train", "--config", content, "--out", damaged.parent) == 0
    assert damaged.read_bytes().count(b"sha256") == 1, "it is written anew"


def test_what_is_no_file_is_one_line(tmp_path, capfd):
    assert "no such file" in fails(capfd, "train", "--config", tmp_path / "none")
    for text in ("", "{", "9" * 5000, "[" * 100_000):
        (tmp_path / "c").write_text(text)
        assert "not JSON" in fails(capfd, "train", "--config", tmp_path / "c")
    named = f"{tmp_path}: is a directory; name a config.json that a run wrote, such as {tmp_path / 'config.json'}"
    assert named in fails(capfd, "train", "--config", tmp_path)
    assert seqkd("train", "--config") == 2


def test_distill_evaluate_and_translate_from_the_file(run, data, tmp_path, capfd):
    best, corpus = ["--checkpoint", run / "best"], ["--corpus.path", data, *SEARCH]
    assert seqkd("distill", *best, *corpus, "--out", tmp_path / "d") == 0
    assert seqkd("distill", "--config", tmp_path / "d" / WRITTEN, "--out", tmp_path / "d2") == 0
    assert (tmp_path / "d" / "card.json").read_text() == (tmp_path / "d2" / "card.json").read_text()
    assert seqkd("evaluate", *best, *corpus, "--repetitions", 0, "--out", tmp_path / "e") == 0
    assert seqkd("evaluate", "--config", tmp_path / "e" / WRITTEN, "--out", tmp_path / "e2") == 0
    found = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("e", "e2")]
    first, again = ({key: value for key, value in results.items() if "seconds" not in key} for results in found)
    assert first == again and "bleu_beam2" in first
    assert seqkd("translate", *best, data / "test.en", "--rules", "marian", *SEARCH, "--out", tmp_path / "t") == 0
    written = tmp_path / "t.config.json"
    assert seqkd("translate", "--config", written, "--out", tmp_path / "t2") == 0
    assert (tmp_path / "t").read_text() == (tmp_path / "t2").read_text()
    assert json.loads(written.read_text())["settings"]["search"]["at_limit"] == "ranked", "the rules are spelled out"
    other = changed(written, tmp_path / "c", lambda c: c["inputs"]["checkpoint"].update(fingerprint="0" * 64))
    assert "inputs.checkpoint was 000000000000" in fails(capfd, "translate", "--config", other)
    assert seqkd("translate", "--config", other, *best) == 0
    assert seqkd("translate", "--config", written, "--out", os.devnull) == 0
    assert not os.path.exists(f"{os.devnull}.config.json")


def test_what_may_be_given_several_times_is_replaced_not_added(run, data, tmp_path):
    both = ["--checkpoint", run / "best", "--checkpoint", run / "last"]
    assert seqkd("translate", *both, data / "test.en", *SEARCH, "--out", tmp_path / "t") == 0
    given = ["translate", "--config", str(tmp_path / "t.config.json")]
    assert main._parse(given, "seqkd").checkpoint == (run / "best", run / "last")
    assert main._parse([*given, "--checkpoint", "c"], "seqkd").checkpoint == (options.Path("c"),)
    assert "--read-ahead" in main._parse([*given, "--read_ahead", "9"], "seqkd").given, "tyro reads _ as -"
    twice = ["translate", "--config", str(tmp_path / "none"), *given[1:]]
    assert main._parse(twice, "seqkd").config_file == tmp_path / "t.config.json", "of two files the last is read"
    ruled = main._parse([*given, "--rules", "t5x"], "seqkd")
    assert ruled.checkpoint == (run / "best", run / "last") and ruled.search.eos_among == "all"
    assert ruled.search.beam == 2, "what the file says beside the rules holds"


def test_a_run_from_python_starts_again_on_the_command_line(run, data, tmp_path):
    splits = [api.load_split(CorpusConfig(str(data)), split) for split in ("train", "valid")]
    config = main._parse(["train", "--config", str(run / WRITTEN)], "seqkd").config
    vocabularies = api.load_vocabulary(run / "best")
    model = LSTMConfig(1, 8)
    api.train(*splits, tmp_path / "python", model=model, config=config, vocabularies=vocabularies)
    named = ["--corpus.path", data, "--vocabulary", run / "best"]
    assert seqkd("train", "--config", tmp_path / "python" / WRITTEN, "--out", tmp_path / "again", *named) == 0
    assert weights(tmp_path / "again") == weights(tmp_path / "python") == weights(run)
    jax.clear_caches()
