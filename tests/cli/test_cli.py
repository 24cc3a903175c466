"""The commands from end to end on a corpus of a few words, their exit codes, and the one line that every error is."""

import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import jax
import numpy as np
import pytest
from commands import SEARCH, SMALL_MODEL, SMALL_RUN, WORD_VOCABULARY, fails, seqkd, write_corpus

from seqkd_jax import api, checkpoint, models
from seqkd_jax.cli import inputs, main, options
from seqkd_jax.config import CorpusConfig, LSTMConfig, SearchConfig, SequenceLSTMConfig, VocabularyConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.decoding.search import PROFILES, named_rules
from seqkd_jax.evaluation import evaluation, metrics
from seqkd_jax.types import UserError
from seqkd_jax.utils import exits


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def teacher(data, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "teacher"
    arguments = [*WORD_VOCABULARY, "--vocab.size", 9, *SMALL_MODEL, *SMALL_RUN, "--keep", 2]
    assert seqkd("train", "--out", run, "--corpus.path", data, *arguments) == 0
    return run


@pytest.fixture(scope="module")
def distilled(data, teacher, tmp_path_factory):
    out = tmp_path_factory.mktemp("distilled") / "corpus"
    assert seqkd("distill", "--checkpoint", teacher / "best", "--corpus.path", data, "--out", out, *SEARCH) == 0
    return out


def test_train_writes_checkpoints_and_says_what_it_did(data, teacher, capfd):
    assert {"best", "last", "metrics.jsonl", "step-0000002", "step-0000004"} <= set(os.listdir(teacher))
    arguments = [*WORD_VOCABULARY, "--vocab.size", 9, *SMALL_MODEL, *SMALL_RUN, "--keep", 2]
    before = (teacher / "last" / "checkpoint.json").stat().st_mtime_ns
    assert seqkd("train", "--out", teacher, "--corpus.path", data, *arguments) == 0
    out, err = capfd.readouterr()
    assert out == f"{teacher / 'best'}\n"
    assert " of them compiled" in err and "4 updates" in err and "target tokens/s" in err and "parameters" in err
    assert (teacher / "last" / "checkpoint.json").stat().st_mtime_ns == before, "a finished run is not trained again"


def test_coreutils_check_what_the_commands_wrote(data, teacher, distilled, tmp_path):
    best = teacher / "best"
    assert seqkd("average", best, "--out", tmp_path / "average") == 0
    assert seqkd("export", "--to", "safetensors", best, "--out", tmp_path / "exported") == 0
    assert seqkd("vocab", "--corpus.path", data, *WORD_VOCABULARY, "--vocab.size", 9, "--out", tmp_path / "words") == 0
    for place in (best, teacher / "last", distilled, *tmp_path.iterdir()):
        checked = subprocess.run(
            ["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=place, capture_output=True, text=True
        )
        listed = {line.removesuffix(": OK") for line in checked.stdout.splitlines()}
        found = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
        assert checked.returncode == 0 and listed == found - {"SHA256SUMS"}, (place, checked)


def test_the_first_line_of_a_run_says_what_it_reads(data, teacher, tmp_path, capfd):
    """Which corpus, how many pairs, which languages: of every command that reads one."""
    best, pairs, out = ["--checkpoint", teacher / "best"], ["--corpus.path", data], ["--out", tmp_path / "o"]
    run = ["--out", teacher, *WORD_VOCABULARY, "--vocab.size", 9, *SMALL_MODEL, *SMALL_RUN, "--keep", 2]
    said = "corpus {0}, split {1} (text files {1}.en and {1}.de): {2} pairs, en to de"
    whole, test = said.format(data, "train", 60), said.format(data, "test", 8)
    for command, said in (
        (["train", *pairs, *run], whole),
        (["evaluate", *best, *pairs, *SEARCH, "--repetitions", 0], test),
        (["distill", *best, *pairs, *SEARCH, *out], whole),
        (["vocab", *pairs, *out, "--vocab.size", 60], whole),
    ):
        capfd.readouterr()
        assert seqkd(*command) == 0
        assert capfd.readouterr().err.splitlines()[0].startswith(said), command[0]
        shutil.rmtree(tmp_path / "o", ignore_errors=True)


def test_train_warns_of_splits_that_overlap_training(tmp_path, monkeypatch, capfd):
    """The validation and the test split, with all that is trained on: also with the parts of --train-on."""

    def stop(*_):
        raise UserError("stopped")

    monkeypatch.setattr(api.training, "train_translator", stop)
    for name, lines in (("train", "a\nb\n"), ("valid", "c\nb\n"), ("test", "d\ne\nf\n")):
        (tmp_path / f"{name}.en").write_text(lines)
        (tmp_path / f"{name}.de").write_text(lines.upper())
    (tmp_path / "kd.tsv").write_text("c\tother\nd\tD\n")
    command = ["train", "--out", tmp_path / "o", "--corpus.path", tmp_path, *WORD_VOCABULARY, *SMALL_MODEL]
    assert seqkd(*command) == 2
    warnings = [line for line in capfd.readouterr().err.splitlines() if "in training" in line]
    assert len(warnings) == 1 and warnings[0].startswith(
        f"{tmp_path}, split valid: 1 of its 2 sources (50.0%) are also"
    )
    assert seqkd(*command, "--train-on", "gold", tmp_path / "kd.tsv") == 2
    warnings = [line for line in capfd.readouterr().err.splitlines() if "in training" in line]
    assert "split test: 1 of its 3 sources (33.3%) are also in training, 1 (33.3%) with" in warnings[0]
    assert "split valid: 2 of its 2 sources (100.0%) are also in training, 1 (50.0%) with" in warnings[1]


def test_translate_text(teacher, tmp_path, capfd):
    (tmp_path / "in").write_bytes(b"red blue\n\ngreen unheard of\r\nwhite")
    assert seqkd("translate", "--checkpoint", teacher / "best", tmp_path / "in", *SEARCH) == 0
    out, err = capfd.readouterr()
    lines = out.split("\n")
    assert len(lines) == 5 and lines[1] == "" and lines[-1] == "", "each line gives a line, the empty one an empty one"
    assert "4 sentences" in err
    assert seqkd("translate", "--checkpoint", teacher / "best", tmp_path / "in", *SEARCH, "--out", tmp_path / "o") == 0
    assert (tmp_path / "o").read_text() == out


def test_translate_n_best_from_standard_input(teacher, capfd, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"red\n\xc3\xbc\n"), encoding="ascii"))
    assert seqkd("translate", "--checkpoint", teacher / "best", "--n-best", 2, *SEARCH) == 0
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [row["source"] for row in rows] == ["red", "ü"] and [row["line"] for row in rows] == [1, 2]
    for row in rows:
        assert len(row["hypotheses"]) == 2
        assert row["hypotheses"][0]["score"] >= row["hypotheses"][1]["score"]
        loaded = checkpoint.load_translator(teacher / "best").vocabularies.target  # of words
        counts = [len(loaded.encode(h["text"])) for h in row["hypotheses"]]
        assert [h["tokens"] for h in row["hypotheses"]] == counts, "for --n-best, whose filter goes by tokens"


def test_translate_by_an_ensemble_samples_and_minimum_bayes_risk(data, teacher, tmp_path, capfd):
    """Everything at once, in order; --attention records what was chosen in the end."""
    both = ["--checkpoint", teacher / "best", "--checkpoint", teacher / "step-0000002"]
    arguments = ["--decoder", "sample", "--mbr", "chrf", "--n-best", 2, "--attention", tmp_path / "seen", *SEARCH]
    assert seqkd("translate", *both, data / "test.en", *arguments) == 0
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    seen = [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()]
    assert [row["source"].split() for row in rows] == [row["source"][:-1] for row in seen] and len(rows) == 8
    for row, attention in zip(rows, seen, strict=True):
        best = row["hypotheses"][0]
        assert attention["target"] == best["text"].split() + ["</s>"] * best["finished"]
        weights = np.array(attention["weights"])
        assert weights.shape == (len(attention["target"]), len(attention["source"]))
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-4)
    again = ["translate", *both, data / "test.en", *arguments, "--sample-seed", 1]
    assert "seen: is there already; name another with --attention" in fails(capfd, *again)
    assert seqkd(*again, "--overwrite") == 0
    assert [json.loads(line) for line in capfd.readouterr().out.splitlines()] != rows
    said = fails(capfd, "translate", *both, data / "test.en", *arguments, "--overwrite", "--attention-layer", 1)
    assert "leave layer and heads out" in said
    assert "--attention FILE" in fails(capfd, "translate", *both, data / "test.en", "--attention-head", 1)
    assert "no decoder is called" in fails(capfd, "translate", *both, data / "test.en", "--decoder", "best")


def test_an_ensemble_is_scored_evaluated_and_distilled(data, teacher, tmp_path, capfd):
    both = ["--checkpoint", teacher / "best", "--checkpoint", teacher / "step-0000002"]
    pairs = ["--source", data / "test.en", "--target", data / "test.de"]
    found = []
    for members in (both, both[:2], both[2:]):
        assert seqkd("score", *members, *pairs) == 0
        found.append([float(line) for line in capfd.readouterr().out.splitlines()])
    ensemble, *members = np.array(found)
    assert (ensemble >= np.mean(members, axis=0) - 2e-6).all(), (
        "a mean of probabilities is at least their geometric mean"
    )
    for member in members:
        assert np.abs(ensemble - member).max() > 1e-5, "one of the members spoke alone"
    corpus = ["--corpus.path", data, *SEARCH]
    assert seqkd("evaluate", *both, *corpus, "--repetitions", 0) == 0
    name = f"{teacher / 'best'} + {teacher / 'step-0000002'}"
    assert json.loads(capfd.readouterr().out)["checkpoint"] == name
    assert seqkd("distill", *both, *corpus, "--out", tmp_path / "corpus") == 0
    card = json.loads((tmp_path / "corpus" / "card.json").read_text())
    assert card["teacher"]["path"] == name and card["teacher"]["model"]["kind"] == "ensemble"


def test_translate_replaces_unknown_words(teacher, tmp_path, capfd):
    """Of samples, since one of 16 has an unknown word whatever the teacher has learnt."""
    (tmp_path / "in").write_text("red zebra\n")
    (tmp_path / "dictionary").write_text("zebra|||Zebra\nred|||Rot\n")
    command = ["translate", "--checkpoint", teacher / "best", tmp_path / "in", *SEARCH]
    command += ["--decoder", "sample", "--beam", 16, "--n-best", 16]
    assert seqkd(*command) == 0
    before = capfd.readouterr().out
    assert seqkd(*command, "--replace-unknown", "--dictionary", tmp_path / "dictionary") == 0
    after = capfd.readouterr().out
    assert "<unk>" in before and "<unk>" not in after
    assert {"Rot", "Zebra"} & set(re.findall(r"\w+", after)), "the dictionary's words"


def test_distill(data, teacher, distilled, capfd):
    assert (distilled / "train.en").read_text() == (data / "train.en").read_text()
    assert len((distilled / "train.de").read_text().splitlines()) == 60
    card = json.loads((distilled / "card.json").read_text())
    assert card["selection"] == "best" and card["lines"] == 60
    described = (distilled / "README.md").read_text().rstrip()
    capfd.readouterr()
    assert seqkd("distill", "--checkpoint", teacher / "best", "--corpus.path", data, "--out", distilled, *SEARCH) == 0
    assert described in capfd.readouterr().err, "it is said line by line"


def test_distill_nearest_to_the_reference_uses_the_same_lists(data, teacher, distilled, tmp_path, capfd):
    out = tmp_path / "inter"
    distilled.with_name("corpus.n-best").rename(tmp_path / "inter.n-best")
    try:
        arguments = ["--selection", "kim_rush", *SEARCH]
        code = seqkd("distill", "--checkpoint", teacher / "best", "--corpus.path", data, "--out", out, *arguments)
    finally:
        (tmp_path / "inter.n-best").rename(distilled.with_name("corpus.n-best"))
    assert code == 0
    card = json.loads((out / "card.json").read_text())
    assert card["selection"] == "kim_rush" and card["decoding"]["search"]["beam"] == 2
    assert "need no decoding" in capfd.readouterr().err


def test_distill_source_only(data, teacher, tmp_path, capfd):
    arguments = ["--checkpoint", teacher / "best", "--source-only", data / "test.en", *SEARCH]
    assert seqkd("distill", *arguments, "--out", tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / "card.json").read_text())["bleu"] is None
    assert "needs references" in fails(capfd, "distill", *arguments, "--selection", "chrf", "--out", tmp_path / "other")


def test_student_of_everything(data, teacher, distilled, tmp_path, capfd):
    """Mixed corpora, Word-KD, the teacher's vocabulary, and another start: the whole axis of the table at once."""
    arguments = ["--corpus.path", data, *SMALL_MODEL, *SMALL_RUN, "--train-on", f"{distilled}=0.5", "gold"]
    knowledge = ["--loss.name", "word_kd", "--teacher", teacher / "best", "--start", teacher / "best"]
    assert seqkd("train", "--out", tmp_path / "student", *arguments, *knowledge) == 0
    student, taught = checkpoint.load(tmp_path / "student" / "best"), checkpoint.load(teacher / "best")
    assert student.vocabularies.fingerprint == taught.vocabularies.fingerprint
    assert student.metadata["step"] in (2, 4)
    mixed = options.Train(
        out=tmp_path,
        train_on=(f"{distilled}=0.5", "gold"),
        pairs=options.Pairs(CorpusConfig(path=str(data))),
    )
    found = inputs.training_corpus(mixed, lambda: inputs.load_pairs(mixed.pairs, "train"))
    targets = [(where / "train.de").read_text().splitlines() for where in (distilled, data)]
    assert list(found.targets) == targets[0] + targets[1] and list(found.weights) == [0.5] * 60 + [1.0] * 60
    gold = checkpoint.read_record(teacher / "best")["metadata"]["inputs"]["training corpus"]
    assert student.metadata["inputs"]["training corpus"] != gold


def test_bleu_of_greedy_translations_picks_the_best(data, teacher, tmp_path, capfd):
    arguments = ["--vocabulary", teacher / "best", *SMALL_MODEL, *SMALL_RUN, "--validate-bleu", "--max-steps", 60]
    arguments += ["--epochs", 30, "--validate-every", 20, "--optimiser.learning-rate", "0.03", "--lstm.size", 32]
    assert seqkd("train", "--out", tmp_path / "run", "--corpus.path", data, *arguments) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    logged = [line["bleu"] for line in lines if "bleu" in line]
    assert len(logged) == 3 and max(logged) > 0, "the test needs a model that has learned something"
    capfd.readouterr()
    greedy = ["--checkpoint", tmp_path / "run" / "best", data / "valid.en", "--beam", 1]
    assert seqkd("translate", *greedy) == 0
    outputs = capfd.readouterr().out.splitlines()
    references = (data / "valid.de").read_text().splitlines()
    assert metrics.score(outputs, references, "none").bleu == pytest.approx(max(logged))


def test_evaluate_and_compare(data, teacher, tmp_path, capfd):
    arguments = ["--checkpoint", teacher / "best", "--corpus.path", data, *SEARCH, "--repetitions", 0]
    others = ["--compare", teacher / "last", data / "test.de"]
    assert seqkd("evaluate", *arguments, *others, "--out", tmp_path / "results") == 0
    results = json.loads(capfd.readouterr().out)
    assert results == json.loads((tmp_path / "results" / "results.json").read_text())
    assert {"bleu_beam1", "bleu_beam2", "chrf_beam2", "perplexity", "mode_probability", "signature"} <= set(results)
    assert results["fingerprint"] == checkpoint.fingerprint(teacher / "best")
    assert results["compared"][str(data / "test.de")]["bleu"] == pytest.approx(100.0)
    assert len((tmp_path / "results" / "beam2.txt").read_text().splitlines()) == 8


def test_each_system_that_is_compared_is_reported(data, teacher, capfd):
    """Also the one that is evaluated, under the same name, and a name that was given before."""
    best, words = str(teacher / "best"), str(data / "test.de")
    arguments = ["--checkpoint", best, "--corpus.path", data, *SEARCH, "--repetitions", 0]
    assert seqkd("evaluate", *arguments, "--compare", best, words, words) == 0
    compared = json.loads(capfd.readouterr().out)["compared"]
    assert list(compared) == [best, words, f"{words} (2)"]
    same = {key: value for key, value in compared[best].items() if key != "bleu"}
    assert same == {"delta": 0.0, "p_value": 1.0, "delta_low": 0.0, "delta_high": 0.0}
    assert compared[words] == compared[f"{words} (2)"] and compared[words]["bleu"] == pytest.approx(100)


def test_what_is_compared_is_looked_at_first(data, teacher, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(evaluation, "evaluate", lambda *_, **__: pytest.fail("translated"))
    arguments = ["--checkpoint", teacher / "best", "--corpus.path", data, *SEARCH]
    assert "nowhere" in fails(capfd, "evaluate", *arguments, "--compare", tmp_path / "nowhere")
    lines = (data / "train.de").read_text().splitlines()
    otherwise = vocabulary.learn(lines, lines, VocabularyConfig(kind="words", size=30, tokenizer="13a"))
    for name, config, said in (
        ("words", LSTMConfig(layers=1, size=4), "uses a different tokenizer from"),
        ("classifier", SequenceLSTMConfig(1, 8), "does not translate"),
    ):
        params = jax.jit(models.build(config, otherwise.source.size, otherwise.target.size).init)(jax.random.key(0))
        parts = {"model_config": config, "vocabularies": otherwise, "metadata": {}}
        made = checkpoint.save(tmp_path / name, params, **parts)
        assert said in fails(capfd, "evaluate", *arguments, "--compare", made)
    (tmp_path / "short").write_text("RED\n")
    assert "has 1 lines" in fails(capfd, "evaluate", *arguments, "--compare", tmp_path / "short")


def test_a_classifier_does_not_translate(data, teacher, tmp_path, capfd):
    config = SequenceLSTMConfig(1, 8)
    vocabularies = vocabulary.labels(checkpoint.load(teacher / "best").vocabularies, ("bad", "good"))
    sizes = vocabularies.source.size, vocabularies.target.size
    params = jax.jit(models.build(config, *sizes).init)(jax.random.key(0))
    made = checkpoint.save(tmp_path / "c", params, model_config=config, vocabularies=vocabularies, metadata={})
    for command in (["translate", data / "test.en"], ["evaluate", "--corpus.path", data]):
        said = fails(capfd, command[0], "--checkpoint", made, *command[1:], *SEARCH)
        assert "holds a sequence_lstm, which does not translate" in said


def test_score(data, teacher, tmp_path, capfd):
    arguments = ["--checkpoint", teacher / "best", "--source", data / "test.en"]
    assert seqkd("score", *arguments, "--target", data / "test.de") == 0
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 8 and all(float(line) < 0 for line in out.splitlines())
    tokens = sum(len(line.split()) + 1 for line in (data / "test.de").read_text().splitlines())
    perplexity = np.exp(-sum(map(float, out.splitlines())) / tokens)
    assert float(err.split("perplexity ")[1].split()[0]) == pytest.approx(perplexity, rel=1e-3)
    assert "8 lines but" in fails(capfd, "score", *arguments, "--target", data / "train.de")
    (tmp_path / "empty").write_text("")
    nothing = ["--source", tmp_path / "empty", "--target", tmp_path / "empty"]
    assert "empty: has no line" in fails(capfd, "score", *arguments[:2], *nothing)


def test_modes(teacher, tmp_path, capfd):
    (tmp_path / "in").write_text("red green\n\nblue\n")
    limits = "--beam", "2", "--max-length-a", "0", "--max-length-b", "6", "--nodes", "40"
    assert seqkd("modes", "--checkpoint", teacher / "best", tmp_path / "in", *limits) == 0
    printed, told = capfd.readouterr()
    rows = [json.loads(line) for line in printed.splitlines()]
    assert [row["source"] for row in rows] == ["red green", "", "blue"]
    assert rows[1]["log_prob"] == 0 and rows[1]["proven"] and rows[1]["nodes"] == 0 and rows[1]["text"] == ""
    for row in rows:
        assert row["proven"] == (row["bound"] == row["log_prob"]) and row["nodes"] <= 40
        assert row["beam_log_prob"] is None or row["beam_log_prob"] <= row["log_prob"]
    proven = sum(row["proven"] for row in rows if row["source"])
    mean = np.mean(np.exp([row["log_prob"] for row in rows if row["source"]]))
    assert f"3 lines, 1 of them blank: {proven} modes are proven" in told and f"mean probability {mean:.4f};" in told


def test_average(teacher, tmp_path, capfd):
    steps = sorted(teacher.glob("step-*"))
    assert seqkd("average", *steps, "--out", tmp_path / "mean") == 0
    found = checkpoint.load(tmp_path / "mean")
    assert list(found.metadata["average_of"]) == [str(step) for step in steps]
    assert found.metadata["metric"] == checkpoint.load(steps[0]).metadata["metric"] == {"tokenize": "none"}
    assert found.metadata["languages"] == ["en", "de"]
    jax.tree.map(np.testing.assert_array_equal, found.params, checkpoint.average(steps).params)
    assert "is named twice" in fails(capfd, "average", *steps, steps[0], "--out", tmp_path / "twice")
    checkpoint.average([tmp_path / "mean", steps[0]])  # refused if it did not say that it is of the same run


def test_several_seeds_and_one_of_them(data, teacher, tmp_path, capfd):
    arguments = ["--vocabulary", teacher / "best", *SMALL_MODEL, *SMALL_RUN, "--replicas", 2, "--max-steps", 2]
    assert seqkd("train", "--out", tmp_path / "many", "--corpus.path", data, *arguments) == 0
    (tmp_path / "in").write_text("red blue\n")
    translate = "translate", "--checkpoint", tmp_path / "many" / "best", tmp_path / "in", *SEARCH
    assert "holds 2 replicas (seeds trained together); extract one with `seqkd select`" in fails(capfd, *translate)
    assert seqkd("select", tmp_path / "many" / "best", "--replica", 1, "--out", tmp_path / "one") == 0
    assert capfd.readouterr().out.splitlines()[-1] == str(tmp_path / "one")
    assert seqkd("translate", "--checkpoint", tmp_path / "one", tmp_path / "in", *SEARCH) == 0
    assert len(capfd.readouterr().out.splitlines()) == 1
    taught = [*arguments, "--loss.name", "word_kd", "--teacher", tmp_path / "many" / "best", "--teachers", "each"]
    assert seqkd("train", "--out", tmp_path / "taught", "--corpus.path", data, *taught) == 0
    of_run = checkpoint.read_record(tmp_path / "taught" / "best")["metadata"]["inputs"]
    assert of_run["way of teaching"] == "each"


def test_nothing_else_is_overwritten(data, teacher, capfd):
    """By a slip in --out: the corpus, or the weights that are measured."""
    pairs = "--corpus.path", data
    for command in (
        ("vocab", "--out", data, *pairs),
        ("evaluate", "--checkpoint", teacher / "best", "--out", teacher, *pairs),
        ("distill", "--checkpoint", teacher / "best", "--out", data, *pairs),
        ("average", teacher / "best", "--out", teacher),
    ):
        assert "holds other files" in fails(capfd, *command)
    assert (data / "train.en").exists() and (teacher / "best" / "checkpoint.json").exists()


def test_another_corpus_is_another_run(data, teacher, tmp_path, capfd):
    for split in ("train", "valid", "test"):
        for language in ("en", "de"):
            lines = (data / f"{split}.{language}").read_text().splitlines(keepends=True)
            (tmp_path / f"{split}.{language}").write_text("".join(lines[::-1]))
    arguments = [*WORD_VOCABULARY, "--vocab.size", 9, *SMALL_MODEL, *SMALL_RUN, "--keep", 2]
    said = fails(capfd, "train", "--out", teacher, "--corpus.path", tmp_path, *arguments)
    assert "holds a run with another training corpus" in said


def test_vocab_is_used_by_train(data, tmp_path, capfd):
    command = ["vocab", "--out", tmp_path / "v", "--corpus.path", data, *WORD_VOCABULARY]
    assert "did you mean --vocab.size?" in fails(capfd, *command, "--size", 7), "the options are those of train"
    assert seqkd(*command, "--vocab.size", 7) == 0
    assert "7 and 7 entries" in capfd.readouterr().err
    loaded = inputs.vocabularies(options.Train(out=tmp_path, vocabulary=tmp_path / "v"), lambda: None)
    assert loaded.source.size == 7


def test_held_out_pairs_are_the_same_for_every_command(data):
    pairs = options.Pairs(dataclasses.replace(options.Pairs().corpus, path=str(data)), hold_out=5)
    train, valid = inputs.load_pairs(pairs, "train"), inputs.load_pairs(pairs, "valid")
    assert (len(train.sources), len(valid.sources)) == (55, 5)
    assert sorted(train.sources + valid.sources) == sorted((data / "train.en").read_text().splitlines())
    assert inputs.load_pairs(pairs, "valid") == valid


def test_mistakes_are_one_line(data, teacher, tmp_path, capfd):
    best = teacher / "best"
    assert "no such checkpoint" in fails(capfd, "translate", "--checkpoint", tmp_path / "none", "in")
    assert "did you mean" in fails(capfd, "translate", "--checkpoint", teacher, "in")
    assert "No such file" in fails(capfd, "translate", "--checkpoint", best, tmp_path / "none")
    assert "raise the beam" in fails(capfd, "translate", "--checkpoint", best, "--n-best", 9, "in")
    assert "--replace-unknown" in fails(capfd, "translate", "--checkpoint", best, "--dictionary", "d", "in")
    (tmp_path / "latin").write_bytes(b"red\nbl\xfcu\n")
    assert "latin, line 2: not UTF-8" in fails(capfd, "translate", "--checkpoint", best, tmp_path / "latin")
    assert "one of best, kim_rush" in fails(
        capfd, "distill", "--checkpoint", best, "--corpus.path", data, "--out", tmp_path / "o", "--selection", "worst"
    )
    assert "at least one checkpoint" in fails(capfd, "average", "--out", tmp_path / "o")
    run = ["train", "--out", tmp_path / "o", "--corpus.path", data]
    assert "one of nll" in fails(capfd, *run, "--loss.name", "kl")
    assert "has no effect" in fails(capfd, *run, "--teacher", best)
    assert "needs a teacher" in fails(capfd, *run, *SMALL_MODEL, "--loss.name", "word_kd")
    assert "no such file" in fails(capfd, *run, "--train-on", "nowhere")
    assert "no weight" in fails(capfd, *run, "--train-on", "gold=much")
    assert not (tmp_path / "o").exists() or not (tmp_path / "o" / "best").exists()


def test_wrong_arguments_and_help(capfd):
    for wrong in (
        [],
        ["fly"],
        ["train"],
        ["train", "--out", "x", "--bogus", "1"],
        ["train", "--out", "x", "--seed", "a"],
    ):
        assert seqkd(*wrong) == 2, wrong
    capfd.readouterr()
    for command in main.COMMANDS:
        assert seqkd(command, "--help") == 0
        shown = capfd.readouterr().out
        assert "--out" in shown or command in ("evaluate", "verify")
    assert seqkd("--version") == 0


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (UserError("mend\nthis"), 2, "seqkd: error: mend this\n"),
        (FileNotFoundError(2, "No such file or directory", "/x"), 2, "seqkd: error: /x: No such file or directory\n"),
        (KeyboardInterrupt(), 130, "seqkd: error: interrupted\n"),
    ],
)
def test_exit_codes(raised, code, said, capfd):
    def run():
        raise raised

    assert exits.exit_status(run, program="seqkd") == code
    assert capfd.readouterr().err == said


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        exits.exit_status(lambda: 1 // 0)


def python(code, **arguments):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, **arguments)


@pytest.mark.parametrize(
    "code",
    [
        "from seqkd_jax.utils import exits; sys.exit(exits.exit_status(lambda: print('x\\n' * 10**6) or 0))",
        # as in --help
        "from seqkd_jax.cli import main; main._parse = lambda *_: sys.exit(print('x\\n' * 10**6)); main.main([])",
    ],
)
def test_a_reader_that_goes_away_is_no_error(code):
    code = f"import sys; {code}"
    program = f"{sys.executable} -c {json.dumps(code)} | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=300)
    assert done.stdout == "x\n141\n" and done.stderr == ""


def test_help_needs_no_accelerator():
    done = python("import sys; from seqkd_jax.cli import main; print({'jax', 'datasets', 'numpy'} & set(sys.modules))")
    assert done.stdout == "set()\n", done


def test_named_rules_set_what_is_not_given(monkeypatch, capfd):
    """--rules is read first, whatever the order; what is given beside it holds, even where it is the default."""
    seen = []
    monkeypatch.setitem(main.COMMANDS, "translate", (options.Translate, seen.append))
    arguments = [
        "translate",
        "--checkpoint",
        "c",
        "--beam",
        7,
        "--length-alpha",
        "1.0",
        "--rules",
        "t5x",
        "--no-forbid-unk",
    ]
    assert seqkd(*arguments) == 0
    expected = named_rules(SearchConfig(beam=7), "t5x")
    assert seen[0].search == dataclasses.replace(expected, length_alpha=1.0) and expected.length_alpha == 0.6
    assert seen[0].checkpoint == (Path("c"),), "read twice, it would be an ensemble with itself"
    assert seqkd("translate", "--checkpoint", "c", "--rules", "marian", "file") == 0
    assert seen[1].search == named_rules(SearchConfig(), "marian") and seen[1].file == "file"
    names = get_args(get_args(options.Rules)[0])
    assert sorted(names) == sorted(PROFILES), "arguments.Rules lists the names of search.PROFILES"


def test_translate_begins_with_the_prefix(teacher, tmp_path, capfd):
    (tmp_path / "in").write_text("red blue\ngreen\n\n")
    (tmp_path / "prefixes").write_text("WHITE RED\n\n\n")
    arguments = ["--checkpoint", teacher / "best", tmp_path / "in", *SEARCH, "--prefix-file", tmp_path / "prefixes"]
    assert seqkd("translate", *arguments) == 0
    lines = capfd.readouterr().out.split("\n")
    assert lines[0].startswith("WHITE RED") and len(lines) == 4
    (tmp_path / "prefixes").write_text("WHITE RED\n")
    assert "prefixes: has 1 lines, " in fails(capfd, "translate", *arguments)
    (tmp_path / "prefixes").write_text("RED RED RED RED RED RED\n\n\n")
    assert "sentence 1 has a prefix of 6 tokens" in fails(capfd, "translate", *arguments)
