"""What `seqkd evaluate` prints: a table at a terminal, JSON elsewhere."""

import json
import os
import pty
import sys
from types import SimpleNamespace

import pytest

from seqkd_jax import api
from seqkd_jax.cli import commands, inputs, options, table
from seqkd_jax.config import CorpusConfig

MEASURES = {
    "bleu": 33.14,
    "bleu_low": 31.0,
    "bleu_high": 35.26,
    "chrf": 55.5,
    "length_ratio": 1.0123,
    "unfinished": 1200,
}
MEASURES |= {"mode_probability": 0.25, "source_words_per_second": 1234.5}
RESULTS = {f"{name}_beam{beam}": value for beam in (1, 5) for name, value in MEASURES.items()}
RESULTS |= {"checkpoint": "student/best", "corpus": "data, split test", "sentences": 1000, "perplexity": 4.567}
RESULTS |= {"reference_tokens": 12345, "source_unit": "words", "signature": "nrefs:1|tok:zh", "chrf_signature": "nc:6"}
COMPARED = {"bleu": 32.0, "delta": -1.14, "p_value": 0.031, "delta_low": -2.3, "delta_high": 0.1}
EXPECTED = """\
student/best on data, split test: 1,000 sentences

                beam 1               beam 5
BLEU (95%)      33.1 (31.0 to 35.3)  33.1 (31.0 to 35.3)
chrF            55.5                 55.5
length ratio    1.012                1.012
unfinished      1,200                1,200
p(t=y)          0.2500               0.2500
source words/s  1,234                1,234

perplexity 4.57 of 12,345 reference tokens

compared with  BLEU  difference (95%)     p
baseline/best  32.0  -1.1 (-2.3 to +0.1)  0.0310

BLEU nrefs:1|tok:zh
chrF nc:6
"""


@pytest.fixture
def evaluate(monkeypatch, tmp_path):
    """The command with its evaluation done."""
    found = SimpleNamespace(results=RESULTS | {"compared": {"baseline/best": COMPARED}}, outputs={})
    monkeypatch.setattr(api, "load", lambda *_, **__: SimpleNamespace(checkpoint=SimpleNamespace(fingerprint="")))
    monkeypatch.setattr(api, "evaluate", lambda *_, **__: found)
    monkeypatch.setattr(inputs, "load_pairs", lambda *_: None)
    monkeypatch.setattr(inputs, "describe", lambda *_: {})
    return lambda: commands.evaluate(options.Evaluate((tmp_path,), options.Pairs(CorpusConfig("toy"))))


def test_a_table_at_a_terminal(evaluate, monkeypatch):
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        evaluate()
    shown = os.read(ours, 1 << 16).decode().replace("\r\n", "\n")
    os.close(ours)
    assert shown == EXPECTED


def test_json_into_a_pipe_or_a_file(evaluate, monkeypatch, tmp_path):
    with open(tmp_path / "results", "w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        evaluate()
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        evaluate()
    with os.fdopen(reader) as piped:
        for text in (piped.read(), (tmp_path / "results").read_text()):
            assert json.loads(text) == RESULTS | {"compared": {"baseline/best": COMPARED}}


def test_what_was_not_measured_has_no_row():
    one = {name: value for name, value in RESULTS.items() if not name.endswith("beam5")}
    shown = table.of_results(one | {"source_words_per_second_beam1": None})
    assert "beam 5" not in shown and "words/s" not in shown and "compared" not in shown
    assert "source characters/s" in table.of_results(RESULTS | {"source_unit": "characters"})


def test_the_status_of_distilling(tmp_path, capfd):
    """JSON in a pipe, of --out alone; for a person who makes which shard."""
    commands.distill(options.Distill(tmp_path / "kd", status=True))
    told = json.loads(capfd.readouterr().out)
    assert told["corpus"] == "missing" and told["complete"] == 0
    held = {"shard": 3, "host": "node7", "pid": 12, "since": "2026-01-01", "heartbeat_seconds": 75.0, "alive": False}
    told |= {"shards": 6, "lines": 5500, "complete": 2, "lines_complete": 2000, "held": [held]}
    told |= {"damaged": [{"path": "shard-00001.jsonl.gz", "reason": "damaged"}]}
    assert (
        table.of_status(told)
        == f"""\
{tmp_path}/kd: the corpus is missing

{tmp_path}/kd.n-best: 2 of 6 shards are complete, 2,000 of 5,500 sentences

shard  owner                since       heartbeat
00003  process 12 of node7  2026-01-01  1m15s      dead

shard-00001.jsonl.gz: damaged
"""
    )
