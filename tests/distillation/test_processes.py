"""Two processes of one command share what is decoded: a corpus of the same bytes, an evaluation of the same text."""

import json

import jax
import pytest
from processes import python, results

from seqkd_jax import checkpoint, models
from seqkd_jax.config import LSTMConfig, VocabularyConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.utils import files

WORDS = ["red", "green", "blue", "black"]
LINES = [f"{one} {two}" for one in WORDS for two in WORDS]
CODE = """
import json
from pathlib import Path
import seqkd_jax as kd
directory = Path({directory!r})
lines = (directory / "lines").read_text().splitlines()
model = kd.load(directory / "model")
search = kd.SearchConfig(beam=2, max_length_a=0, max_length_b=5)
common = dict(references=[line.upper() for line in lines], languages=("en", "de"), search=search, shard_lines=2)
made = kd.distill(model, lines, directory / name, described={{}}, **common)
(directory / f"{{name}}-{{index}}.json").write_text(json.dumps(made.card))
corpus = kd.Corpus(lines, common["references"], None, "test")
found = kd.evaluate(model, corpus, search=search, repetitions=1, compare=[directory / "model"])
(directory / f"{{name}}-{{index}}-evaluated.json").write_text(json.dumps([found.results, found.outputs]))
"""


@pytest.fixture
def directory(tmp_path):
    capitals = [word.upper() for word in WORDS]
    config = VocabularyConfig(kind="words", size=8, joint=False, tokenizer="pretokenised")
    vocabularies = vocabulary.learn(WORDS, capitals, config)
    model = LSTMConfig(layers=1, size=4)
    params = jax.jit(models.build(model, vocabularies.source.size, vocabularies.target.size).init)(jax.random.key(0))
    checkpoint.save(tmp_path / "model", params, model_config=model, vocabularies=vocabularies, metadata={})
    files.write_lines(tmp_path / "lines", LINES)
    return tmp_path


def measured(path):
    """An evaluation but for what is measured by a clock."""
    results, outputs = json.loads(path.read_text())
    return {key: value for key, value in results.items() if "seconds" not in key and "second" not in key}, outputs


@pytest.mark.slow
def test_two_processes_distil_and_evaluate_as_one(directory, tmp_path):
    code = CODE.format(directory=str(directory))
    exec(code, {"name": "one", "index": 0})
    with python(2, f"name = 'two'\n{code}") as started:
        ended = results(started, 400)
    assert [one.status for one in ended] == [0, 0], ended
    for name in ("two", "two.n-best"):
        written = {path.name: path.read_bytes() for path in (directory / name).iterdir()}
        alone = {path.name: path.read_bytes() for path in (directory / name.replace("two", "one")).iterdir()}
        assert written == alone
    for index in (0, 1):
        assert (directory / f"two-{index}.json").read_text() == (directory / "one-0.json").read_text()
        evaluated = directory / f"two-{index}-evaluated.json"
        assert measured(evaluated) == measured(directory / "one-0-evaluated.json")
        assert evaluated.read_text() == (directory / "two-0-evaluated.json").read_text(), "all return one result"
    assert not [path for path in directory.iterdir() if path.name.startswith(".")]
