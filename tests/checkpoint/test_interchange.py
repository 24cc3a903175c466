"""Every kind of model out as safetensors and in again, bit for bit; the file read without the package; refusals."""

import json
import os
import shutil
import struct
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from damage import damage_some
from marian_models import random_checkpoint

from seqkd_jax import checkpoint, models
from seqkd_jax.checkpoint import arrays, interchange, tensor_files
from seqkd_jax.checkpoint.interchange import export_tensors, import_tensors
from seqkd_jax.cli import main
from seqkd_jax.config import (
    CNNConfig,
    LSTMConfig,
    MLPConfig,
    SequenceLSTMConfig,
    SequenceTransformerConfig,
    TransformerConfig,
)
from seqkd_jax.data import vocabulary
from seqkd_jax.marian import import_marian
from seqkd_jax.types import UserError

TINY = {
    "lstm": LSTMConfig(layers=1, size=4),
    "transformer": TransformerConfig(encoder_layers=1, decoder_layers=1, width=4, heads=2, feed_forward=4),
    "sequence_lstm": SequenceLSTMConfig(layers=1, size=4, reads="every"),
    "sequence_transformer": SequenceTransformerConfig(layers=1, width=4, heads=2, feed_forward=4),
    "cnn": CNNConfig((4, 4, 4), (4, 4, 4), groups=2),
    "mlp": MLPConfig((4, 2)),
}
WORDS = vocabulary.words(["dog", "cat", "sees"])


def made(path, kind):
    classifies = kind in ("cnn", "mlp")
    vocabularies = vocabulary.labels(None if classifies else WORDS, ["0", "1"]) if kind in models.READERS else WORDS
    return random_checkpoint(path, TINY[kind], vocabularies)


@pytest.mark.parametrize("kind", models.MODELS)
def test_every_model_comes_back_bit_for_bit(tmp_path, kind):
    before = made(tmp_path / "before", kind)
    out = export_tensors(before, tmp_path / "out")
    assert sorted(path.name for path in out.iterdir() if path.name != "SHA256SUMS") == [
        "README.md", "config.json", "model.safetensors", "vocabulary"
    ]  # fmt: skip
    after = import_tensors(out, tmp_path / "after")
    assert checkpoint.fingerprint(after) == checkpoint.fingerprint(before)
    one, other = (arrays.named_leaves(arrays.host(checkpoint.load(path).params)) for path in (before, after))
    assert {name: leaf.tobytes() for name, leaf in one.items()} == {n: leaf.tobytes() for n, leaf in other.items()}
    assert checkpoint.load(after).metadata["imported"]["from"] == "safetensors"


def test_the_file_is_read_without_the_package(tmp_path):
    """The names are those of checkpoint.json; the bytes are those of the arrays."""
    before = made(tmp_path / "before", "lstm")
    data = (export_tensors(before, tmp_path / "out") / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    leaves = arrays.named_leaves(arrays.host(checkpoint.load(before).params))
    assert header.pop("__metadata__") == {"format": "np"}
    assert header.keys() == leaves.keys() == checkpoint.read_record(before)["params"].keys()
    for name, about in header.items():
        first, last = about["data_offsets"]
        found = np.frombuffer(body[first:last], "<f4").reshape(about["shape"])
        np.testing.assert_array_equal(found, leaves[name], name)


def test_types_are_kept_and_narrower_ones_are_widened(tmp_path):
    halves = {"a": np.arange(6).astype(jnp.bfloat16).reshape(2, 3), "b/c": np.array(1.5, np.float16)}
    tensor_files.write(tmp_path / "x.safetensors", halves, {})
    found = tensor_files.read(tmp_path / "x.safetensors")
    assert {n: (x.dtype, x.shape, x.tobytes()) for n, x in found.items()} == {
        name: (x.dtype, x.shape, x.tobytes()) for name, x in halves.items()
    }
    out = export_tensors(made(tmp_path / "before", "lstm"), tmp_path / "out")
    (out / "SHA256SUMS").unlink()  # the weights are changed on purpose
    weights = tensor_files.read(out / "model.safetensors")
    tensor_files.write(out / "model.safetensors", {n: x.astype(jnp.bfloat16) for n, x in weights.items()}, {})
    loaded = checkpoint.load(import_tensors(out, tmp_path / "narrow"))
    for name, leaf in arrays.named_leaves(arrays.host(loaded.params)).items():
        np.testing.assert_array_equal(leaf, weights[name].astype(jnp.bfloat16).astype(np.float32), name)
    for kind in (np.float64, np.uint8):  # to round is for whoever made them, whole numbers would be quantised weights
        tensor_files.write(out / "model.safetensors", {n: x.astype(kind) for n, x in weights.items()}, {})
        with pytest.raises(UserError, match=rf"is {np.dtype(kind)}\[.*expected float32"):
            import_tensors(out, tmp_path / "wide")
    tensor_files.write(out / "model.safetensors", {n: x * np.nan for n, x in weights.items()}, {})
    with pytest.raises(UserError, match="model.safetensors: .* not finite"):
        import_tensors(out, tmp_path / "wide")


def changed(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    "values, said",
    [
        ({"format": 1}, "format is 1"),
        ({"model": None}, "model is None"),
        ({"model": {"kind": "bart"}}, "unknown model kind 'bart'"),
        ({"model": {"kind": "lstm", "size": 10**15}}, "lstm.size is 1000"),
        ({"model": {"kind": "lstm", "size": "4"}}, "lstm.size is '4'"),
        ({"model": {"kind": "lstm", "layers": 1, "size": 8}}, r"model.safetensors: .*expected float32\["),
        ({"vocabulary": "0123456789abcdef"}, "made with vocabulary 0123456789ab"),
        ({"vocabulary": 7}, "vocabulary is 7"),
        ({"metadata": []}, r"metadata is \[\]"),
    ],
)
def test_a_changed_description_is_refused_by_name(tmp_path, values, said):
    out = export_tensors(made(tmp_path / "before", "lstm"), tmp_path / "out")
    (out / "SHA256SUMS").unlink()
    changed(out / "config.json", **values)
    with pytest.raises(UserError, match=said) as error:
        import_tensors(out, tmp_path / "after")
    assert "\n" not in str(error.value) and not (tmp_path / "after").exists()


def test_a_damaged_export_is_refused_but_its_card_may_be_edited(tmp_path):
    out = export_tensors(made(tmp_path / "before", "lstm"), tmp_path / "out")
    (out / "README.md").write_text("license: mit")
    import_tensors(out, tmp_path / "after")
    data = bytearray((out / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (out / "model.safetensors").write_bytes(data)
    with pytest.raises(UserError, match="model.safetensors: damaged.*delete SHA256SUMS if the change is meant"):
        import_tensors(out, tmp_path / "again")


def test_damages_are_one_line(tmp_path, monkeypatch):
    """Seeded, of a directory without hashes: named in one line, or still a model of ours."""
    whole = export_tensors(made(tmp_path / "before", "lstm"), tmp_path / "whole")
    (whole / "SHA256SUMS").unlink()
    monkeypatch.setattr(interchange.checkpoint, "save", lambda out, params, **options: out)  # only reading is tried
    refused = 0
    for seed in range(40):
        directory = shutil.copytree(whole, tmp_path / f"{seed}")
        damage_some(directory, np.random.default_rng(seed))
        try:
            import_tensors(directory, tmp_path / "after")
        except UserError as error:
            refused += 1
            assert str(directory) in str(error) and "\n" not in str(error) and len(str(error)) < 500, seed
    assert refused > 15


def test_a_directory_of_another_form_is_named(tmp_path):
    out = export_tensors(made(tmp_path / "before", "lstm"), tmp_path / "out")
    with pytest.raises(UserError, match="a model in another form.*`seqkd import`"):
        checkpoint.load(out)
    with pytest.raises(UserError, match="--from safetensors"):
        import_marian(out, tmp_path / "after")
    with pytest.raises(UserError, match="--from hf"):
        import_tensors(Path(__file__).parents[1] / "fixtures" / "marian" / "random", tmp_path / "after")


def header(entries, data=b"1234"):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        struct.pack("<Q", 2**63),
        struct.pack("<Q", 90 * 2**20) + b"{}",
        header(b"[" * 100_000),
        header(b'{"a":' * 100_000),
        header(b'{"a": 1e999999}'),
        header(b"\xff\xfe"),
        header({"a": {**F32, "shape": [10**12]}}),
        header({"a": {**F32, "shape": [2**63, 2**63]}}),
        header({"a": {**F32, "shape": [10**30]}}),
        header({"a": {**F32, "shape": [-1]}}),
        header({"a": {**F32, "shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}}, b""),
        header({"a": {**F32, "shape": [1] * 100}}),
        header({"a": F32, "b": F32}),
        header({"a": {**F32, "data_offsets": [0, 10**15]}}),
        header({"a": {**F32, "data_offsets": [4, 0]}}),
        header({"a": {**F32, "dtype": "F99"}}),
        header({"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}),
        header({"a": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}}),
        header({"a": F32}, b"12345"),
    ],
    ids=range(21),
)
def test_a_hostile_header_is_one_line(tmp_path, data):
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(UserError, match="x.safetensors: damaged") as error:
        tensor_files.read(tmp_path / "x.safetensors")
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_a_file_of_a_terabyte_is_not_read(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(header({"a": F32}))
    os.truncate(path, 1 << 40)  # sparse: it takes no room
    with pytest.raises(UserError, match="x.safetensors: damaged"):
        tensor_files.read(path)


def test_what_cannot_be_exported_is_refused(tmp_path):
    shapes = checkpoint.param_shapes(TINY["mlp"], (0, 2), 2)
    two = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    classes = vocabulary.labels(None, ["0", "1"])
    about = {"model_config": TINY["mlp"], "vocabularies": classes, "metadata": {}}
    checkpoint.save(tmp_path / "two", two, replicas=2, **about)
    with pytest.raises(UserError, match="extract one with `seqkd select`"):
        export_tensors(tmp_path / "two", tmp_path / "out")
    broken = jax.tree.map(lambda leaf: leaf[0] * np.nan, two)
    checkpoint.save(tmp_path / "broken", broken, **about)
    with pytest.raises(UserError, match="not finite"):
        export_tensors(tmp_path / "broken", tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UserError, match="thesis.tex"):
        export_tensors(made(tmp_path / "before", "mlp"), tmp_path / "mine")


def test_commands(tmp_path, capfd):
    def seqkd(*arguments):
        with pytest.raises(SystemExit) as caught:
            main.main([str(argument) for argument in arguments])
        return caught.value.code or 0, capfd.readouterr()

    before = made(tmp_path / "before", "sequence_lstm")
    code, said = seqkd("export", "--to", "safetensors", before, "--out", tmp_path / "out")
    assert (code, said.out) == (0, f"{tmp_path / 'out'}\n")
    code, said = seqkd("import", "--from", "safetensors", tmp_path / "out", "--out", tmp_path / "after")
    assert (code, said.out) == (0, f"{tmp_path / 'after'}\n")
    code, said = seqkd("import", "--from", "safetensors", tmp_path / "none", "--out", tmp_path / "other")
    assert code == 2 and "none/config.json: no such file" in said.err
