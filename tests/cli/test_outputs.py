"""What another job left at --out is never replaced without --overwrite: one rule, for every command that writes."""

import json
import os
import shutil
import signal
import sys
import threading
import time

import fsspec
import jax
import numpy as np
import pytest
from commands import SEARCH, SMALL_MODEL, SMALL_RUN, WORD_VOCABULARY, WORDS, fails, seqkd, write_corpus

import seqkd_jax as kd
from seqkd_jax import checkpoint, models
from seqkd_jax.cli import main, outputs
from seqkd_jax.config import LSTMConfig, VocabularyConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.distillation import ledger
from seqkd_jax.utils import exits, remote

CONFIG = LSTMConfig(layers=1, size=8)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A corpus, two checkpoints a and b of its words, two of two replicas, one and two as safetensors."""
    directory = write_corpus(tmp_path_factory.mktemp("made"))
    capitals = [word.upper() for word in WORDS]
    config = VocabularyConfig(kind="words", size=9, joint=False, tokenizer="pretokenised")
    vocabularies = vocabulary.learn(WORDS, capitals, config)
    init = jax.jit(models.build(CONFIG, vocabularies.source.size, vocabularies.target.size).init)
    parts = {"model_config": CONFIG, "vocabularies": vocabularies, "metadata": {}}
    for name, seed in (("a", 0), ("b", 1)):
        one, two = init(jax.random.key(seed)), init(jax.random.key(seed + 5))
        checkpoint.save(directory / name, one, **parts)
        checkpoint.save(directory / f"{name}-two", jax.tree.map(lambda *x: np.stack(x), one, two), replicas=2, **parts)
        assert seqkd("export", "--to", "safetensors", directory / name, "--out", directory / f"{name}-tensors") == 0
        lines = (directory / "train.en").read_text().splitlines()
        (directory / f"{name}.en").write_text("".join(f"{line}\n" for line in lines[: 8 - seed]))
    (directory / "b.tsv").write_text("".join(f"{word} again\t{word}\n" for word in WORDS))
    (directory / "a.tsv").write_text("".join(f"{word}\t{word}\n" for word in WORDS))
    return directory


# command -> its arguments for job a; those of job b say b in their place
COMMANDS = {
    "average": ["{a}"],
    "select": ["{a}-two", "--replica", "0"],
    "prune": ["{a}"],
    "import": ["{a}-tensors", "--from", "safetensors"],
    "export": ["{a}", "--to", "safetensors"],
    "vocab": ["--corpus.path", "{a}.tsv", "--vocab.kind", "words", "--vocab.tokenizer", "pretokenised"],
    "translate": ["--checkpoint", "{a}", "{a}.en", *SEARCH],
    "evaluate": ["--checkpoint", "{a}", "--corpus.path", "{data}", "--repetitions", "0", *SEARCH],
    "score": ["--checkpoint", "{a}", "--source", "{data}/test.en", "--target", "{data}/test.de"],
    "modes": ["--checkpoint", "{a}", "{a}.en", "--beam", "2", "--max-length-a", "0", "--max-length-b", "6"],
    "distill": ["--checkpoint", "{a}", "--source-only", "{a}.en", *SEARCH],
}


def content(path):
    if path.is_file():
        return path.read_bytes()
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_every_command_is_looked_at():
    """`train` refuses another run since 0.1.0 (test_run_state); `verify` writes nothing."""
    assert COMMANDS.keys() | {"train", "verify"} == main.COMMANDS.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_result_of_another_job_stays(made, tmp_path, capfd, command):
    out = tmp_path / "out"

    def arguments(job):
        return [command, *(word.format(a=made / job, data=made) for word in COMMANDS[command]), "--out", out]

    assert seqkd(*arguments("a")) == 0
    before = content(out)
    if command not in ("score", "modes"):  # it leaves nothing that says of what its numbers are
        assert seqkd(*arguments("a")) == 0, "the same job may be given again"
    assert "--overwrite" in fails(capfd, *arguments("b"))
    assert content(out).keys() == before.keys() if isinstance(before, dict) else content(out) == before
    assert fails(capfd, *arguments("b")) and seqkd(*arguments("b"), "--overwrite") == 0
    assert content(out) != before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".") and not path.name.endswith(".lock")]


def test_devices_hold_nothing(made, capfd):
    translate = "translate", "--checkpoint", made / "a", made / "a.en", *SEARCH, "--out", "/dev/null"
    assert seqkd(*translate) == 0


def test_what_came_from_standard_input_is_another_job(tmp_path):
    (tmp_path / "out").write_text("hours of work\n")
    with pytest.raises(exits.UserError, match="out: is there already; .*--overwrite"):
        outputs.require_free(tmp_path / "out", False)
    outputs.require_free(tmp_path / "out", True)
    outputs.require_free(tmp_path / "none", False)
    (tmp_path / "empty").mkdir()
    outputs.require_free(tmp_path / "empty", False)


def test_a_setting_that_is_new_makes_no_other_job(tmp_path):
    described = {
        "format": 1,
        "command": "evaluate",
        "settings": {"beam": 5, "new": 1},
        "inputs": {"corpus": {"fingerprint": "x"}},
    }
    (tmp_path / "config.json").write_text(json.dumps({**described, "settings": {"beam": 5}, "versions": {}}))
    outputs.require_free(tmp_path, False, tmp_path / "config.json", described)
    for changed in ({"settings": {"beam": 4}}, {"inputs": {"corpus": {"fingerprint": "y"}}}, {"command": "translate"}):
        with pytest.raises(exits.UserError, match="of another job, or of other settings"):
            outputs.require_free(tmp_path, False, tmp_path / "config.json", {**described, **changed})


def test_what_is_lost_is_said(tmp_path, capfd):
    def interrupted():
        with outputs.stream(tmp_path / "out") as stream:
            stream.write("one\n")
            raise exits.UserError("line 2 is too long")

    assert exits.exit_status(interrupted) == 2
    assert f"{tmp_path / 'out'}: not written, it appears whole or not at all" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def test_sigterm_ends_a_command_in_one_line_and_143(capfd):
    before = signal.getsignal(signal.SIGTERM)

    def run():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            print("cleaned up", file=sys.stderr)
        return 0

    assert exits.exit_status(run, program="seqkd") == 143
    assert capfd.readouterr().err == "cleaned up\nseqkd: error: stopped by SIGTERM\n"
    assert signal.getsignal(signal.SIGTERM) is before
    found = []
    thread = threading.Thread(target=lambda: found.append(exits.exit_status(lambda: 0)))
    thread.start()
    thread.join()
    assert found == [0]


def test_sigterm_to_distill_says_what_was_kept(made, tmp_path, monkeypatch, capfd):
    """Stopped at its second shard; the same command then makes only what is left."""
    write = ledger.write_shard

    def stopped(found, number, rows):
        if number == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        write(found, number, rows)

    command = ["distill", "--checkpoint", made / "a", "--source-only", made / "a.en", *SEARCH, "--shard-lines", 3]
    monkeypatch.setattr(ledger, "write_shard", stopped)
    assert seqkd(*command, "--out", tmp_path / "kd") == 143
    said = capfd.readouterr().err
    assert f"1 of 3 shards are complete and kept in {tmp_path / 'kd.n-best'}" in said
    assert said.splitlines()[-1] == "seqkd: error: stopped by SIGTERM"
    monkeypatch.setattr(ledger, "write_shard", write)
    assert seqkd(*command, "--out", tmp_path / "kd") == 0
    assert "1 of 3 shards need no decoding" in capfd.readouterr().err


def test_results_are_published_and_read_from_there(made, tmp_path, capfd, monkeypatch):
    """A checkpoint that is published is the teacher of a corpus that is; the same command finds it complete."""
    monkeypatch.setenv(remote.SETTING, str(tmp_path / "cache"))
    fsspec.filesystem("memory").store.clear()
    assert seqkd("average", made / "a", "--out", "memory://b/averaged") == 0
    assert capfd.readouterr().out.splitlines() == ["memory://b/averaged"]
    distill = ["distill", "--checkpoint", "memory://b/averaged", "--source-only", made / "a.en", *SEARCH]
    assert seqkd(*distill, "--out", "memory://b/kd") == 0 and seqkd(*distill, "--out", tmp_path / "kd") == 0
    shutil.rmtree(tmp_path / "cache")  # as on another machine
    assert seqkd(*distill, "--out", "memory://b/kd") == 0
    assert "is complete, nothing is done" in capfd.readouterr().err
    published = remote.local("memory://b/kd")
    assert (published / "train.target").read_bytes() == (tmp_path / "kd" / "train.target").read_bytes()
    described = json.loads((published / "config.json").read_text())["settings"]
    assert (described["out"], described["checkpoint"]) == ("memory://b/kd", ["memory://b/averaged"])
    assert "- teacher: `memory://b/averaged`" in (published / "README.md").read_text()


def test_a_run_is_published_at_each_save_and_goes_on_elsewhere(tmp_path, capfd, monkeypatch):
    """What is published in the middle of a run is what `verify` calls not finished; another machine resumes it."""
    monkeypatch.setenv(remote.SETTING, str(tmp_path / "cache"))
    fsspec.filesystem("memory").store.clear()
    saved, states = remote.saved, []

    def save(directory):
        saved(directory)
        states.append(kd.verify(remote.local("memory://b/run")).objects[0].result)
        if len(states) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(remote, "saved", save)
    data = write_corpus(tmp_path)
    words = [*WORD_VOCABULARY, "--vocab.size", 9, *SMALL_MODEL, *SMALL_RUN]
    run = ["train", "--corpus.path", data, *words, "--out", "memory://b/run"]
    assert seqkd(*run) == 130
    shutil.rmtree(tmp_path / "cache")  # as on another machine
    assert seqkd(*run) == 0
    assert "memory://b/run/best" in capfd.readouterr().out
    assert states[0].startswith("not finished, update 2 of ") and states[-1] == "finished, 4 updates"
    published = kd.verify(remote.local("memory://b/run"), complete=True)
    assert published.damages == [] and [one.kind for one in published.objects] == ["training run", *["checkpoint"] * 2]
