"""Import of damaged and of hostile directories: one line that names the file, never a traceback."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from damage import damage_some

from seqkd_jax.marian import import_marian, load
from seqkd_jax.types import UserError

FIXTURES = Path(__file__).parents[1] / "fixtures" / "marian"
MADE = ("expected.json", "logits.npz")  # beside the model, for other tests


@pytest.mark.parametrize("name", ["random", "fine-tuned"])
def test_damages_are_one_line(tmp_path, monkeypatch, name):
    """Seeded: a damage is named in one line, or leaves a directory that is still one of a model."""

    def used(out, params, vocabularies, **options):
        vocabularies.source.encode(">>deu<< the old <term> dog")
        vocabularies.target.decode(range(30))
        return out

    monkeypatch.setattr(load.checkpoint, "save", used)  # only reading is tried
    monkeypatch.setattr(load.progress, "log", lambda line: None)
    refused = 0
    for seed in range(40):
        directory = tmp_path / f"{seed}"
        shutil.copytree(FIXTURES / name, directory, ignore=shutil.ignore_patterns(*MADE))
        damage_some(directory, np.random.default_rng(seed))
        try:
            import_marian(directory, tmp_path / "out")
        except UserError as error:
            refused += 1
            assert str(directory) in str(error) and "\n" not in str(error) and len(str(error)) < 500, seed
    assert refused > 15


@pytest.mark.parametrize(
    "file, content, said",
    [
        ("config.json", b"[" * 100_000, "config.json, line 1: not JSON"),
        ("config.json", b"7", "config.json: damaged"),
        ("config.json", {"d_model": 10**30}, "config.json.*not JSON.*64 bits"),
        ("config.json", {"d_model": 10**12}, "config.json: d_model is 1000000000000: it must be a whole number from 1"),
        ("config.json", {"d_model": "16"}, "config.json: d_model is '16'"),
        ("config.json", {"encoder_layers": 10**9}, "config.json: encoder_layers is 1000000000"),
        ("config.json", {"dropout": "a lot"}, "config.json: dropout is 'a lot'"),
        ("config.json", {"activation_function": ["relu"]}, r"activation_function is \['relu'\]"),
        ("config.json", {"vocab_size": 10**12, "decoder_vocab_size": 10**12}, "take the model's own"),
        ("config.json", {"vocab_size": None}, "vocab_size is None"),
        ("vocab.json", b"[]", "vocab.json: damaged"),
        ("vocab.json", {"a": 1.0}, "vocab.json: damaged, a is 1.0"),
        ("vocab.json", {"a": [0]}, "vocab.json: damaged"),
        ("vocab.json", {"a": -1}, "each of them once"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {"content": "a"}}}, "'x' is no id"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"0": {"content": "new"}}}, "each of them once"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"0": {"content": "new", "special": 1}}}, "special is 1"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"1": {"content": "</s>"}}}, "'</s>' is 0 in vocab.json"),
        ("added_tokens.json", b"[]", "added_tokens.json: damaged"),
        ("added_tokens.json", b'{"new": 10000}', "each of them once"),
        ("added_tokens.json", b'{"new": 275}', "'new' has id 275.*resize_token_embeddings"),
        ("source.spm", b"", "source.spm: not a sentencepiece model"),
        ("source.spm", b"\xff" * 1000, "source.spm: not a sentencepiece model"),
        ("target.spm", None, "target.spm: no such file"),
        ("model.safetensors", b"PK\x03\x04", "model.safetensors: damaged"),
        ("model.safetensors", None, "model.safetensors: no such file"),
    ],
)
def test_hostile_files_are_named(tmp_path, file, content, said):
    """content: what the file holds, or JSON values to change in it; None: it is missing."""
    directory = Path(shutil.copytree(FIXTURES / "random", tmp_path / "copy"))
    if content is None:
        (directory / file).unlink()
    elif isinstance(content, dict):
        content = json.dumps({**json.loads((directory / file).read_text()), **content}).encode()
    if content is not None:
        (directory / file).write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        import_marian(directory, tmp_path / "out")
    assert "\n" not in str(error.value) and str(directory) in str(error.value) and not (tmp_path / "out").exists()
