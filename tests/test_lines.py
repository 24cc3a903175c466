"""Files of lines: one line for each text, for every reader, whatever the texts hold; over all that write such files."""

import gzip
import io
import json
from types import SimpleNamespace

import pytest
from tiny import TINY

from seqkd_jax import api, checkpoint, distillation
from seqkd_jax.cli import commands, inputs, options
from seqkd_jax.config import CorpusConfig, FilterConfig, LSTMConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.data.corpus import read_lines
from seqkd_jax.decoding import Decoding, Hypothesis, Translation, write_jsonl, write_text
from seqkd_jax.distillation import nbest
from seqkd_jax.types import UserError
from seqkd_jax.utils import files

# Line ends of Unix, Windows and old Macs, of Unicode and of `str.splitlines`; NUL, which readers refuse; an order mark.
TEXTS = [
    "a\nb",
    "c\r\nd",
    "e\rf\r",
    "g\u2028h\u2029i",
    "j\x85k\x0bl\x0cm",
    "n\x1co\x1dp\x1eq",
    "r\x00s\ufefft",
    "",
    "u\n",
]
LINES = ["a b", "c d", "e f", "g h i", "j k l m", "n o p q", "r s\ufefft", "", "u"]


def hypotheses():
    return [Translation(text, [Hypothesis([5], text, -1.0, -1.0, True)]) for text in TEXTS]


def translated(directory, monkeypatch):
    """`seqkd translate`."""
    with files.new_file(directory / "out") as stream:
        write_text(hypotheses(), stream)
    return [directory / "out"]


def evaluated(directory, monkeypatch):
    """`seqkd evaluate --out`."""
    outputs = {"beam1": TEXTS, "beam5": TEXTS}
    monkeypatch.setattr(api, "load", lambda *_, **__: SimpleNamespace(checkpoint=SimpleNamespace(fingerprint="")))
    monkeypatch.setattr(api, "evaluate", lambda *_, **__: SimpleNamespace(results={}, outputs=outputs))
    monkeypatch.setattr(inputs, "load_pairs", lambda *_: None)
    monkeypatch.setattr(inputs, "describe", lambda *_: {})
    pairs = options.Pairs(CorpusConfig("toy"))
    commands.evaluate(options.Evaluate(checkpoint=(directory,), pairs=pairs, out=directory / "results"))
    return [directory / "results" / f"{name}.txt" for name in outputs]


def lists(directory, monkeypatch):
    """N-best lists, as a teacher might give them."""
    monkeypatch.setattr(nbest, "translate_lines", lambda *_, **__: iter(hypotheses()))
    vocabularies = vocabulary.words(["a"])
    teacher = checkpoint.Checkpoint(TINY, {}, LSTMConfig(), vocabularies, {}, directory, fingerprint="f")
    return distillation.n_best(directory / "lists", teacher, TEXTS, Decoding()), vocabularies


def distilled(directory, monkeypatch):
    """`seqkd distill`, what its filters leave, and the lists in Marian's form."""
    found, vocabularies = lists(directory, monkeypatch)
    filters = FilterConfig(drop_unfinished=True)
    recipe = distillation.Recipe(("en", "ja"), vocabularies=vocabularies, filters=filters, marian=True)
    distillation.write_corpus(directory / "kd", found, recipe)
    for side in ("en", "ja"):
        assert list(read_lines(directory / "kd" / "filtered" / f"train.{side}")) == [line for line in LINES if line]
    shown = (directory / "kd" / "n-best.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split(" ||| ")[:2] for line in shown] == [[str(number), text] for number, text in enumerate(LINES)]
    return [directory / "kd" / "train.en", directory / "kd" / "train.ja"]


@pytest.mark.parametrize("writer", [translated, evaluated, distilled])
def test_one_line_for_each_text(writer, tmp_path, monkeypatch, capfd):
    for path in writer(tmp_path, monkeypatch):
        assert list(read_lines(path)) == LINES
        assert path.read_bytes().count(b"\n") == len(TEXTS)
        assert path.read_text(encoding="utf-8").splitlines() == LINES, "for readers that know other line ends too"


def test_a_json_line_is_one_line_and_keeps_its_text(tmp_path, monkeypatch):
    stream = io.StringIO()
    write_jsonl(hypotheses(), stream)
    rows = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [row["source"] for row in rows] == [row["hypotheses"][0]["text"] for row in rows] == TEXTS
    lists(tmp_path, monkeypatch)
    (shard,) = (tmp_path / "lists").glob("*.gz")
    rows = [json.loads(line) for line in gzip.decompress(shard.read_bytes()).decode("utf-8").splitlines()]
    assert [row["source"] for row in rows] == TEXTS and [row["hypotheses"][0]["text"] for row in rows] == LINES


def test_an_entry_of_a_vocabulary_is_one_line():
    """It is not changed: it would be another word or class."""
    for make in (lambda: vocabulary.words(["a", "b\nc"]), lambda: vocabulary.labels(None, ("good", "b\nc"))):
        with pytest.raises(UserError, match=r"'b\\nc' has a line break inside"):
            make()
