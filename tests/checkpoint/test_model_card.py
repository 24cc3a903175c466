"""Model cards: what the checkpoint and its run hold, nothing else; the header is YAML of texts and lists of texts."""

import json

import jax
import numpy as np
import pytest

from seqkd_jax import checkpoint
from seqkd_jax.checkpoint import model_card
from seqkd_jax.config import LSTMConfig
from seqkd_jax.data import vocabulary

WORDS = vocabulary.words(["dog", "cat"])
CONFIG = LSTMConfig(layers=1, size=4)
FORM = model_card.Form({"library_name": "transformers", "tags": ["translation"]}, "Call it.", ["It is small."])
HISTORY = [{"step": 5, "loss": 2.5, "bleu": 1.0}, {"step": 10, "loss": 1.25, "perplexity": 3.49034, "bleu": 31.5}]
METADATA = {
    "config": {"loss": {"name": "word_kd", "alpha": 0.5}},
    "inputs": {"teacher": "abcdef0123456789ff", "start": "none"},
    "step": 10,
    "metric": {"tokenize": "zh"},
    "run": {"replicas": [{"seed": 7, "history": HISTORY}]},
}


def card(path, metadata, **values):
    params = jax.tree.map(
        lambda x: np.zeros(x.shape, x.dtype), checkpoint.param_shapes(CONFIG, (WORDS.source.size,) * 2)
    )
    checkpoint.save(path, params, model_config=CONFIG, vocabularies=WORDS, metadata=metadata)
    return model_card.text(checkpoint.load(path), "student", FORM._replace(**values))


def header(text):
    """The header's fields; each value is JSON, which YAML contains."""
    _, inside, _ = text.split("---\n", 2)
    found, name = {}, ""
    for line in inside.splitlines():
        if line.startswith("- "):
            found.setdefault(name, []).append(json.loads(line[2:]))
        else:
            name, _, value = line.partition(":")
            found |= {name: json.loads(value)} if value else {}
    return found


def test_a_trained_model(tmp_path):
    ran_on = {"platform": "cpu", "devices": 4, "processes": 2}
    text = card(tmp_path / "best", METADATA | {"ran_on": ran_on})
    assert header(text) == {"library_name": "transformers", "tags": ["translation"]}
    for said in (
        "# student\n",
        "updates of its run: 10",
        "trained on cpu, devices 4 and processes 2",
        "loss: word_kd (alpha 0.5)",
        "teacher of the loss: checkpoint `abcdef0123456789`",
        "seed: 7",
        "validation of these weights: loss 1.25, perplexity 3.49, bleu 31.5; BLEU is sacrebleu's with tokenizer zh",
        "Call it.",
        "- It is small.",
    ):
        assert said in text
    assert "weights at the start" not in text and "None" not in text and "license:" not in text


@pytest.mark.parametrize("best, told", [(10, True), (5, False)])
def test_one_of_several_seeds(tmp_path, best, told):
    """Its weights in best/ may be older than the checkpoint: then the validation of that update is not theirs."""
    other = {"seed": 6, "best_step": 10, "history": []}
    replicas = [other, {"seed": 7, "best_step": best, "history": HISTORY}]
    text = card(tmp_path / "best", METADATA | {"run": {"replicas": replicas}, "replica": 1})
    assert "seed: 7" in text and ("bleu 31.5" in text) == told and "seed: 6" not in text


def test_languages_and_the_corpus_of_its_run(tmp_path):
    """no is Norwegian, not false; a path of the machine is not told; a distilled corpus says how it was made."""
    distilled = tmp_path / "kd"
    distilled.mkdir()
    teacher = {"model": {"kind": "transformer"}, "fingerprint": "f" * 64}
    made = {"selection": "kim_rush", "teacher": teacher, "decoding": {"search": {"beam": 5}}}
    (distilled / "card.json").write_text(json.dumps(made))
    run = {
        "format": 1,
        "command": "train",
        "settings": {"pairs": {"corpus": {"path": str(distilled)}}, "train_on": []},
        "inputs": {
            "vocabulary": {"fingerprint": WORDS.fingerprint},
            "training corpus": {"name": f"{distilled}, split train", "pairs": 12_345, "fingerprint": "a" * 64},
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(run))
    text = card(tmp_path / "best", METADATA | {"languages": ["en", "no"]})
    assert header(text)["language"] == ["en", "no"] and "from `en` to `no`" in text
    assert "training corpus: kd, split train, 12,345 pairs, `aaaaaaaaaaaaaaaa`" in text and str(tmp_path) not in text
    assert "distilled targets: selection kim_rush, beam 5, teacher transformer `ffffffffffffffff`" in text
    (distilled / "card.json").write_text(json.dumps({**made, "teacher": {"sha256": "e" * 64}, "decoding": None}))
    run["settings"]["pairs"]["corpus"]["path"] = str(distilled / "filtered")
    (tmp_path / "config.json").write_text(json.dumps(run))
    text = card(tmp_path / "best", METADATA)
    assert "distilled targets: selection kim_rush, teacher of another toolkit `eeeeeeeeeeeeeeee`" in text
    run["inputs"]["vocabulary"]["fingerprint"] = "another"
    (tmp_path / "config.json").write_text(json.dumps(run))
    assert "corpus" not in card(tmp_path / "best", METADATA), "the config.json is of another run"


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"step": "x", "inputs": {}, "run": []},
        {"run": {"replicas": [7]}, "replica": "0", "config": {"loss": "plain"}},
        {"languages": ["a\n---\nlicense: mit", "b"], "imported": {"from": "hf`\n# A title"}},
        {"average_of": {"a": "1", "b": "2"}, "imported": 5},
        {"average_of": 7, "config": {"loss": {"name": "nll", "alpha": 0.5}}},
        {"run": {"replicas": [{"seed": None, "history": {}}]}, "made_of": {"teacher": "none"}},
    ],
)
def test_any_metadata_gives_a_card(tmp_path, metadata):
    """Of older versions, of averages, or changed by somebody: no line of it becomes a heading or a field."""
    text = card(tmp_path / "best", metadata)
    assert header(text) == {"library_name": "transformers", "tags": ["translation"]}
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# student", "## Model", "## Training", "## Use", "## Limits"
    ]  # fmt: skip
