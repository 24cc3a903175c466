"""Marian directories: what transformers computed of the fixtures, refusals by name, and the way back.

tests/fixtures/make_marian.py made them; tests/peers/test_peers.py runs the comparison live.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from marian_models import HF, LIMIT, forced_logits, random_checkpoint, to_ours, translated

from seqkd_jax import checkpoint
from seqkd_jax.checkpoint import arrays, tensor_files
from seqkd_jax.cli import main
from seqkd_jax.config import LSTMConfig, SearchConfig, TransformerConfig, VocabularyConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.marian import export_marian, import_marian
from seqkd_jax.marian.layout import NEVER
from seqkd_jax.types import BOS, EOS, PAD, UNK, UserError

FIXTURES = Path(__file__).parents[1] / "fixtures" / "marian"
NAMES = ("random", "trained", "fine-tuned")
OURS = TransformerConfig(2, 1, 16, heads=2, feed_forward=24, norm="post", activation="gelu", dropout=0.0)
RULES = {  # as make_marian.py names them; all but the first without forced_eos_token_id
    "hf": HF,
    "at_limit=ranked": dataclasses.replace(HF, at_limit="ranked"),
    "stop=bound": dataclasses.replace(HF, at_limit="ranked", stop="bound"),
    "stop=first_k_finished": dataclasses.replace(HF, at_limit="ranked", stop="first_k_finished"),
    "length_alpha=0": dataclasses.replace(HF, at_limit="ranked", length_alpha=0.0),
}


@pytest.fixture(scope="module", params=NAMES)
def imported(request, tmp_path_factory):
    """(the directory, the checkpoint made of it, what transformers computed)."""
    directory = FIXTURES / request.param
    out = import_marian(directory, tmp_path_factory.mktemp("imported") / request.param)
    return directory, checkpoint.load(out), json.loads((directory / "expected.json").read_text())


def test_logits(imported):
    directory, loaded, expected = imported
    ids = to_ours(directory, loaded.vocabularies)
    order = [ids[index] for index in range(len(ids))]
    with np.load(directory / "logits.npz") as logits:
        pairs = zip(expected["sources"][2:], expected["targets"][2:], logits.values(), strict=False)
        for source, target, wanted in pairs:
            found = forced_logits(loaded, [ids[i] for i in source], [ids[i] for i in target])
            np.testing.assert_allclose(found[:, order], wanted[:, : len(ids)], rtol=0, atol=1e-4)
            assert found[:, PAD].max() < NEVER / 2
            assert found.shape[1] == len(ids) + 1, "an entry for each text, and BOS; none for padding"


def test_greedy(imported):
    directory, loaded, expected = imported
    ids = to_ours(directory, loaded.vocabularies)
    sources = [[ids[i] for i in source] for source in expected["sources"]]
    config = SearchConfig(beam=1, **LIMIT)
    found = [tokens for tokens, _ in translated(loaded, sources, config, "greedy")]
    assert found == [[ids[i] for i in target] for target in expected["greedy"]]


@pytest.mark.parametrize(
    "rules", [*list(RULES)[:2], *(pytest.param(name, marks=pytest.mark.slow) for name in list(RULES)[2:])]
)
def test_beam_5(imported, rules):
    """The same tokens for at least 99% of sentences, ties the others: their scores are equal to rounding."""
    directory, loaded, expected = imported
    ids = to_ours(directory, loaded.vocabularies)
    sources = [[ids[i] for i in source] for source in expected["sources"]]
    same = []
    for (tokens, score), wanted in zip(translated(loaded, sources, RULES[rules]), expected[rules], strict=True):
        same.append(tokens == [ids[i] for i in wanted["ids"]])
        assert score == pytest.approx(wanted["score"], rel=1e-5, abs=1e-4), "not a tie: another rule or another model"
    assert np.mean(same) >= 0.99


def test_text(imported):
    """Encoding and decoding are MarianTokenizer's."""
    directory, loaded, expected = imported
    ids, (source, target) = to_ours(directory, loaded.vocabularies), loaded.vocabularies[:2]
    assert [[*source.encode(line), EOS] for line in expected["lines"]] == [
        [ids[i] for i in line] for line in expected["sources"]
    ]
    assert [target.decode([ids[i] for i in line]) for line in expected["greedy"]] == expected["text"]
    assert source.split(expected["lines"][0])[0] == ">>deu<<" and UNK in source.encode(expected["lines"][1])
    assert source.encode("</s> <pad> ") and not {PAD, BOS, EOS} & set(source.encode("</s> <pad> <s>"))
    assert source.encode("  ") == [] == source.split("\t") and target.decode([]) == ""
    assert "<unk>" in target.decode([UNK, *target.encode("der"), UNK])
    assert len(source.split("a cat")) == len(source.encode("a cat"))


def weights(directory):
    return {name: x for path in directory.glob("*.safetensors") for name, x in tensor_files.read(path).items()}


def test_the_way_back(imported, tmp_path):
    """The same tensors, without rows that have no text, and the same files of text; what is imported again is equal."""
    directory, loaded, _ = imported
    export_marian(loaded.directory, tmp_path / "back", max_positions=160)
    before, after = weights(directory), weights(tmp_path / "back")
    before = {name: tensor for name, tensor in before.items() if "embed_tokens" not in name and "lm_head" not in name}
    assert before.keys() == after.keys()
    read = lambda path: json.loads(path.read_text()) if path.exists() else {}  # noqa: E731
    ids = read(directory / "vocab.json") | read(directory / "added_tokens.json")
    rows = [ids[name] for name in read(tmp_path / "back" / "vocab.json")]
    for name, tensor in before.items():
        if name in ("model.shared.weight", "final_logits_bias"):
            tensor = tensor[rows] if name[0] == "m" else tensor[:, rows]
        np.testing.assert_array_equal(tensor, after[name], name)
    for name in ("source.spm", "target.spm"):
        assert (directory / name).read_bytes() == (tmp_path / "back" / name).read_bytes()
    assert sorted(ids) == sorted(read(tmp_path / "back" / "vocab.json"))
    old, new = (read(path / "config.json") for path in (directory, tmp_path / "back"))
    left = {"forced_eos_token_id"}
    if rows != sorted(ids.values()):  # <pad> is the last again, and there is no padding
        left |= {"pad_token_id", "decoder_start_token_id", "vocab_size", "decoder_vocab_size"}
    same = (old.keys() & new.keys()) - left
    assert {name: old[name] for name in same} == {name: new[name] for name in same}
    again = checkpoint.load(import_marian(tmp_path / "back", tmp_path / "again"))
    assert checkpoint.fingerprint(tmp_path / "again") == checkpoint.fingerprint(loaded.directory)
    assert again.vocabularies.fingerprint == loaded.vocabularies.fingerprint


@pytest.fixture(scope="module")
def learned():
    lines = ["the old man sees the dog .", "a dog sleeps and the man sees it ."]
    return vocabulary.learn(lines, lines, VocabularyConfig(size=60))


@pytest.mark.parametrize("positions", ["tensor2tensor", "vaswani"])
def test_ours_there_and_back(learned, tmp_path, positions):
    """The start token's embedding, the unused entries' logits and the positions survive: the same log-probabilities."""
    config = TransformerConfig(**{**vars(OURS), "positions": positions, "scale_embeddings": positions == "vaswani"})
    ours = checkpoint.load(random_checkpoint(tmp_path / "ours", config, learned))
    export_marian(ours.directory, tmp_path / "hf")
    back = checkpoint.load(import_marian(tmp_path / "hf", tmp_path / "back"))
    assert back.model_config.positions == positions
    names = {"<blank>": PAD, "<start>": BOS, **{name: i for i, name in enumerate(learned.source.entries) if i > 3}}
    order = [PAD, UNK, BOS, EOS, *(names[name] for name in back.vocabularies.source.entries[4:])]
    line, logits = "the man sees a dog", []
    for loaded in (ours, back):
        source, target = loaded.vocabularies[:2]
        logits.append(forced_logits(loaded, [*source.encode(line), EOS], [*target.encode("a dog"), EOS]))
        assert target.decode(target.encode(line)) == line
    wanted, found = logits[0][:, order], logits[1]
    np.testing.assert_allclose(found[:, 4:], wanted[:, 4:], rtol=0, atol=1e-4)
    np.testing.assert_allclose(found[:, [UNK, EOS]], wanted[:, [UNK, EOS]], rtol=0, atol=1e-4)
    assert found[:, [PAD, BOS]].max() < NEVER / 2, "their logits are those of <blank> and <start> now"


@pytest.fixture
def copy(tmp_path):
    return Path(shutil.copytree(FIXTURES / "random", tmp_path / "copy"))


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    "values, said",
    [
        ({"model_type": "bart"}, "model_type is 'bart'"),
        ({"normalize_before": True}, "normalize_before"),
        ({"normalize_embedding": True}, "normalize_embedding"),
        ({"add_final_layer_norm": True}, "add_final_layer_norm"),
        ({"static_position_embeddings": False}, "static_position_embeddings"),
        ({"share_encoder_decoder_embeddings": False}, "share_encoder_decoder_embeddings"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"activation_function": "gelu_new"}, "activation_function is 'gelu_new'"),
        ({"decoder_ffn_dim": 64}, "ffn_dim"),
        ({"decoder_attention_heads": 4}, "attention_heads"),
        ({"decoder_layerdrop": 0.1}, "decoder_layerdrop"),
        ({"decoder_start_token_id": 0}, "decoder_start_token_id"),
        ({"decoder_vocab_size": 9}, "decoder_vocab_size"),
        ({"vocab_size": 9}, "vocab_size"),
        ({"eos_token_id": 5}, "eos_token_id"),
        ({"encoder_layers": 3}, "model.encoder.layers.2.self_attn.q_proj"),
        ({"encoder_layers": 1}, "model.encoder.layers.1"),
        ({"encoder_ffn_dim": 48, "decoder_ffn_dim": 48}, "fc1"),
    ],
)
def test_unsupported_options_are_refused_by_name(copy, tmp_path, values, said):
    change(copy / "config.json", **values)
    with pytest.raises(UserError, match=said) as error:
        import_marian(copy, tmp_path / "out")
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_files_that_cannot_be_read_are_refused(copy, tmp_path):
    def refused(said):
        with pytest.raises(UserError, match=said):
            import_marian(copy, tmp_path / "out")

    change(copy / "tokenizer_config.json", separate_vocabs=True)
    refused("tokenizer_config.json: separate_vocabs is True")
    change(copy / "tokenizer_config.json", separate_vocabs=False, eos_token={"content": "</s>"})
    tensors = safetensors.numpy.load_file(copy / "model.safetensors")
    positions = np.random.default_rng(0).normal(size=(160, 16)).astype(np.float32)
    changes = (
        ({"model.decoder.embed_positions.weight": positions}, "learned positions"),
        ({"lm_head.weight": tensors["model.shared.weight"] + 1}, "only shared embeddings"),
        ({"model.encoder.layernorm_embedding.weight": positions[0]}, "layernorm_embedding"),
    )
    for more, said in changes:
        safetensors.numpy.save_file(tensors | more, copy / "model.safetensors")
        refused(said)
    (copy / "model.safetensors").write_bytes(b"damaged")
    refused("damaged")
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    refused("pickled")
    (copy / "model.safetensors.index.json").write_text("{}")
    refused("lacks weight_map")
    for name in ("../model.safetensors", "/etc/passwd", "", ".", "a\0b", "model.safetensors\n"):
        (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"final_logits_bias": name}}))
        refused("index.json: .* is not the bare name of a file")
    (copy / "config.json").unlink()
    refused("config.json: no such file")


@pytest.fixture
def read(monkeypatch):
    """What an import would save, without saving it: (parameters, vocabularies)."""
    saved = []

    def save(out, params, vocabularies, **options):
        saved.append((params["params"], vocabularies))
        return Path(out)

    monkeypatch.setattr(checkpoint, "save", save)
    return lambda directory: (import_marian(directory, "unused"), saved.pop())[1]


@pytest.fixture
def tuned(tmp_path):
    return Path(shutil.copytree(FIXTURES / "fine-tuned", tmp_path / "tuned"))


def test_what_older_versions_wrote_of_added_tokens(tuned, read):
    """added_tokens.json and special_tokens_map.json: the same vocabulary, but for what only newer files say."""
    config = json.loads((tuned / "tokenizer_config.json").read_text())
    for token in config["added_tokens_decoder"].values():
        token |= {"single_word": False, "lstrip": False, "rstrip": False}
    (tuned / "tokenizer_config.json").write_text(json.dumps(config))
    _, new = read(tuned)
    assert [token.text for token in new.source.added] == ["<term>", "<term2>", "Kubernetes", "gnu", "<br>", "<ctx>"]
    assert [token.text for token in new.source.added if token.special] == ["<ctx>"]
    for name in ("added_tokens_decoder", "extra_special_tokens"):
        config.pop(name)
    (tuned / "tokenizer_config.json").write_text(json.dumps(config))
    specials = ["<eop>", {"content": "<ctx>", "lstrip": False}]  # the first has no id: text, as any other
    (tuned / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": specials}))
    _, old = read(tuned)
    assert old.fingerprint == new.fingerprint


def test_padded_rows_are_left_out(copy, read, capfd):
    """Whatever they hold; with a bias of the padded length, or of the tokenizer's as pad_to_multiple_of leaves it."""
    plain = arrays.sha256(read(copy)[0])
    assert "left out" not in capfd.readouterr().err
    tensors = tensor_files.read(copy / "model.safetensors")
    table, bias = tensors["model.shared.weight"], tensors["final_logits_bias"]
    tensors["model.shared.weight"] = np.concatenate([table, np.full((5, table.shape[1]), 7, np.float32)])
    change(copy / "config.json", vocab_size=len(table) + 5, decoder_vocab_size=len(table) + 5)
    for more in (0, 5):
        tensors["final_logits_bias"] = np.concatenate([bias, np.full((1, more), 9, np.float32)], axis=1)
        tensor_files.write(copy / "model.safetensors", tensors, {})
        assert arrays.sha256(read(copy)[0]) == plain
        assert "5 rows of the vocabulary have no text and are left out" in capfd.readouterr().err
    change(copy / "config.json", vocab_size=len(table) + 2000, decoder_vocab_size=len(table) + 2000)
    with pytest.raises(UserError, match="take the model's own"):
        read(copy)


@pytest.mark.parametrize("kind", [np.float16, jnp.bfloat16], ids=["float16", "bfloat16"])
def test_narrow_weights(copy, read, kind):
    """Rounded weights are read exactly; a bias of -inf, which is what -1e9 is in float16, is finite afterwards."""
    tensors = tensor_files.read(copy / "model.safetensors")
    tensors["final_logits_bias"][0, -1] = -1e9
    with np.errstate(over="ignore"):
        narrow = {name: tensor.astype(kind) for name, tensor in tensors.items()}
    tensor_files.write(copy / "model.safetensors", narrow, {})
    found, _ = read(copy)
    wide = {name: tensor.astype(np.float32) for name, tensor in narrow.items()}
    wide["final_logits_bias"] = np.maximum(wide["final_logits_bias"], NEVER)
    tensor_files.write(copy / "model.safetensors", wide, {})
    wanted, _ = read(copy)
    assert arrays.sha256(found) == arrays.sha256(wanted)
    assert np.isfinite(found["output_bias"]).all()


@pytest.mark.parametrize(
    "name, value",
    [("final_logits_bias", np.nan), ("final_logits_bias", np.inf), ("model.encoder.layers.0.fc1.bias", -np.inf)],
)
def test_values_that_are_not_finite_are_refused(copy, tmp_path, name, value):
    tensors = tensor_files.read(copy / "model.safetensors")
    tensors[name].reshape(-1)[3] = value
    tensor_files.write(copy / "model.safetensors", tensors, {})
    with pytest.raises(UserError, match=f"{name}.* not "):
        import_marian(copy, tmp_path / "out")


def test_quantised_weights_are_refused(copy, read):
    tensors = tensor_files.read(copy / "model.safetensors")
    name = "model.encoder.layers.0.fc1.weight"
    tensor_files.write(copy / "model.safetensors", tensors | {name: tensors[name].astype(np.int8)}, {})
    with pytest.raises(UserError, match=f"{name} is int8; quantised weights are not supported"):
        read(copy)


def test_rules_that_transformers_would_translate_with_are_told(copy, read, capfd):
    """A checkpoint holds none of them; a forced first token is refused, as in config.json."""
    read(copy)
    assert capfd.readouterr().err == ""
    change(copy / "config.json", num_beams=6, length_penalty=1.0)
    change(copy / "generation_config.json", no_repeat_ngram_size=3, repetition_penalty=None)
    read(copy)
    (line,) = capfd.readouterr().err.splitlines()
    assert "with num_beams 6, no_repeat_ngram_size 3; a checkpoint holds no rules of search" in line
    change(copy / "generation_config.json", forced_bos_token_id=5)
    with pytest.raises(UserError, match="generation_config.json: forced_bos_token_id is 5"):
        read(copy)


def test_what_transformers_would_never_write_is_told(copy, read, capfd):
    """But for <pad>, which no checkpoint writes either."""
    names = {index: name for name, index in json.loads((copy / "vocab.json").read_text()).items()}
    pad = json.loads((copy / "config.json").read_text())["pad_token_id"]
    change(copy / "generation_config.json", bad_words_ids=[[pad], [5], [6, 7]])
    read(copy)
    (line,) = capfd.readouterr().err.splitlines()
    assert f"never writes {f'{names[5]}, {names[6]} {names[7]}'!r} (bad_words_ids)" in line
    change(copy / "generation_config.json", bad_words_ids=[5])
    with pytest.raises(UserError, match=r"generation_config.json: damaged, bad_words_ids\[0\] is 5"):
        read(copy)


def test_a_language_token_that_is_not_read_is_told_once(copy, read, capfd):
    def told(*lines):
        source = read(copy)[1].source
        for line in lines:
            assert source.encode(line) and source.split(line)
        return [line for line in capfd.readouterr().err.splitlines() if "<<" in line]

    assert told(">>deu<< a dog", "a dog", "a << b >> c", "a >>quote<< of a dog") == []
    (line,) = told(">>xyz<< a dog", ">>abc<< a dog", " >>deu<< a dog")
    assert line == "'>>xyz<<' begins a line, but the model has no such language token and reads <unk>: it knows >>deu<<"
    for text in (" >>deu<< a dog", ">>deu<< >>deu<< a dog"):
        (line,) = told(text, text)
        assert line.startswith(">>deu<< stands inside a line and is read as text")
    names = json.loads((copy / "vocab.json").read_text())
    (copy / "vocab.json").write_text(json.dumps({{">>deu<<": "deu"}.get(name, name): i for name, i in names.items()}))
    (line,) = told(">>deu<< a dog")
    assert line.endswith("it knows none, leave it out")


def test_what_marian_cannot_express_is_refused(learned, tmp_path):
    words = vocabulary.learn(["a b"], ["a b"], VocabularyConfig(kind="words", size=6, tokenizer="pretokenised"))
    for config, vocabularies, said in (
        (LSTMConfig(1, 8), learned, "of kind lstm"),
        (TransformerConfig(**{**vars(OURS), "norm": "pre"}), learned, "norm is pre"),
        (TransformerConfig(**{**vars(OURS), "tied": "target"}), learned, "tied is target"),
        (TransformerConfig(**{**vars(OURS), "biases": False}), learned, "biases is False"),
        (OURS, words, "kind words"),
    ):
        random_checkpoint(tmp_path / "model", config, vocabularies)
        with pytest.raises(UserError, match=said):
            export_marian(tmp_path / "model", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_vocabulary_is_saved_and_fingerprinted(imported, tmp_path):
    both = imported[1].vocabularies
    vocabulary.save(both, tmp_path)
    added = ["added.json"] if both.source.added else []
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *added, "entries.json", "source.spm", "target.spm", "vocabulary.json"
    ]  # fmt: skip
    assert vocabulary.load(tmp_path).fingerprint == both.fingerprint
    entries = json.loads((tmp_path / "entries.json").read_text())
    (tmp_path / "entries.json").write_text(json.dumps([*entries[:4], *entries[:3:-1]]))
    with pytest.raises(UserError, match=both.fingerprint[:12]):
        vocabulary.load(tmp_path)
    with pytest.raises(UserError, match="must begin with <pad>"):
        vocabulary.mapped(both.source.data, both.target.data, entries[1:])
    with pytest.raises(UserError, match="not a sentencepiece model"):
        vocabulary.mapped(b"damaged", both.target.data, entries)
    with pytest.raises(UserError, match="seqkd import"):
        vocabulary.learn(["a"], ["a"], VocabularyConfig(kind="marian"))


def test_commands(tmp_path, capfd):
    def seqkd(*arguments):
        with pytest.raises(SystemExit) as caught:
            main.main([str(argument) for argument in arguments])
        return caught.value.code or 0

    assert seqkd("import", "--from", "hf", FIXTURES / "random", "--out", tmp_path / "teacher") == 0
    assert capfd.readouterr().out == f"{tmp_path / 'teacher'}\n"
    assert seqkd("export", "--to", "hf", tmp_path / "teacher", "--out", tmp_path / "hf") == 0
    assert capfd.readouterr().out == f"{tmp_path / 'hf'}\n"
    assert seqkd("import", "--from", "hf", tmp_path / "none", "--out", tmp_path / "other") == 2
    assert "none: no such directory; `hf download" in capfd.readouterr().err
