"""The languages of a corpus, by name: of its files, its card, its teacher; never those that were not named."""

import json

import pytest
from commands import SEARCH, fails, seqkd, write_corpus

from seqkd_jax import checkpoint
from seqkd_jax.cli import inputs, options
from seqkd_jax.config import CorpusConfig, LSTMConfig, VocabularyConfig
from seqkd_jax.data import corpus, languages, vocabulary


@pytest.mark.parametrize(
    ("source", "target", "found"),
    [
        ("train.en", "train.ja", ("en", "ja")),
        ("data/train.en.gz", "data/train.zh-CN.gz", ("en", "zh-CN")),
        ("europarl.de-en.de", "europarl.de-en.en", ("de", "en")),
        ("train.en.tok", "train.cs.tok", ("en", "cs")),
        ("en/train.txt", "ja/train.txt", ("en", "ja")),
        ("en.txt", "ja.txt", ("en", "ja")),
        ("source.txt", "target.txt", ("source", "target")),
        ("1.txt", "2.txt", ("en", "de")),
    ],
)
def test_two_files_name_them(source, target, found):
    assert languages.of(CorpusConfig(source_file=source, target_file=target)) == found
    given = CorpusConfig(source="fr", target="th", source_file=source, target_file=target)
    assert languages.of(given) == ("fr", "th"), "what is set holds"


def test_a_corpus_of_two_files_has_them(tmp_path):
    for name in ("c.en", "c.ja"):
        (tmp_path / name).write_text("a\n")
    config = CorpusConfig(source_file=str(tmp_path / "c.en"), target_file=str(tmp_path / "c.ja"))
    assert corpus.load_split(config, "train").languages == ("en", "ja")


@pytest.mark.parametrize(
    ("name", "found"), [("mono.en", "en"), ("a/mono.zh-CN.xz", "zh-CN"), ("mono.txt", None), ("x", None), ("-", None)]
)
def test_one_file_may_name_its_own(name, found):
    assert languages.of_file(name) == found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Checkpoints of a run that knew its languages, and of one that did not; files of text."""
    directory = write_corpus(tmp_path_factory.mktemp("made"))
    words = (directory / "train.en").read_text().split()
    config = VocabularyConfig(kind="words", size=9, joint=False, tokenizer="pretokenised")
    parts = {"vocabularies": vocabulary.learn(words, words, config), "model_config": LSTMConfig(layers=1, size=4)}
    from jax import jit, random

    from seqkd_jax import models

    params = jit(models.build(LSTMConfig(layers=1, size=4), 9, 9).init)(random.key(0))
    checkpoint.save(directory / "known", params, **parts, metadata={"languages": ["en", "th"]})
    checkpoint.save(directory / "unknown", params, **parts, metadata={"languages": "enth"})
    lines = (directory / "train.en").read_text().splitlines(keepends=True)[:6]
    for name in ("mono.en", "pair.en", "pair.ja"):
        (directory / name).write_text("".join(lines))
    return directory


@pytest.mark.parametrize(
    ("teacher", "given", "found"),
    [
        ("known", ["--source-only", "mono.en"], ("en", "th")),
        ("unknown", ["--source-only", "mono.en"], ("en", "target")),
        ("unknown", ["--source-only", "mono.en", "--corpus.target", "de"], ("en", "de")),
        ("known", ["--source-only", "mono.en", "--corpus.target", "km"], ("en", "km")),
        ("known", ["--corpus.source-file", "pair.en", "--corpus.target-file", "pair.ja"], ("en", "ja")),
    ],
)
def test_a_distilled_corpus_is_called_by_them(made, tmp_path, capfd, teacher, given, found):
    paths = [made / word if word.startswith(("mono", "pair")) else word for word in given]
    assert seqkd("distill", "--checkpoint", made / teacher, *paths, *SEARCH, "--out", tmp_path / "kd") == 0
    assert {path.name for path in (tmp_path / "kd").glob("train.*")} == {f"train.{language}" for language in found}
    assert json.loads((tmp_path / "kd" / "card.json").read_text())["languages"] == list(found)
    assert f"`train.{found[1]}` holds a teacher's translation" in (tmp_path / "kd" / "README.md").read_text()
    assert ("the target language is not known" in capfd.readouterr().err) == (found[1] == "target")
    command = options.Train(out=tmp_path, train_on=(str(tmp_path / "kd"),), pairs=options.Pairs(CorpusConfig("toy")))
    assert inputs.training_corpus(command, lambda: None).languages == found, "its own card names them"
    told = f"is en to {found[1]}, but validation text is en to de; name a corpus of the same languages"
    assert (told in capfd.readouterr().err) == (found[1] not in ("de", "target"))


def test_languages_of_a_card_are_no_paths(made, tmp_path, capfd):
    (tmp_path / "kd").mkdir()
    (tmp_path / "kd" / "card.json").write_text(json.dumps({"languages": ["en", "../../etc/passwd"]}))
    said = fails(capfd, "train", "--out", tmp_path / "run", "--corpus.path", made, "--train-on", tmp_path / "kd")
    assert "card.json: '../../etc/passwd' is not the bare name of a file" in said
