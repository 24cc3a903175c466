"""Beside transformers (PyTorch) and CTranslate2 on the same weights, both ways. Run by `make test-peers`.

Tokens must be equal for at least 99% of the sentences; where they differ the scores must not, beyond rounding: a tie.
"""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from marian_models import HF, LIMIT, forced_logits, random_checkpoint, to_ours, translated

from seqkd_jax import checkpoint
from seqkd_jax.checkpoint import arrays
from seqkd_jax.checkpoint.interchange import export_tensors
from seqkd_jax.config import SearchConfig, TransformerConfig, VocabularyConfig
from seqkd_jax.data import toy, vocabulary
from seqkd_jax.marian import export_marian, import_marian
from seqkd_jax.types import EOS

pytestmark = pytest.mark.peers
LINES, REFERENCES = toy.lines(toy.sample_pairs(3, 200, "test"))
RANKED = dataclasses.replace(HF, at_limit="ranked")  # what peers.generate does without forced_eos_token_id
POST = TransformerConfig(2, 2, 32, heads=4, feed_forward=64, norm="post", dropout=0.0)


@pytest.fixture(scope="module")
def peers():
    """The generator of the fixtures, which knows how to ask transformers."""
    from fixtures import make_marian

    make_marian.torch.set_num_threads(1)
    return make_marian


def assert_agreement(peers, model, directory, loaded) -> dict:
    """Assert that transformers and we agree; returns {line: greedy tokens with EOS} for other comparisons."""
    tokenizer = peers.MarianTokenizer.from_pretrained(directory)
    ids, vocabularies = to_ours(directory, loaded.vocabularies), loaded.vocabularies
    sources = tokenizer(LINES)["input_ids"]
    targets = tokenizer(text_target=REFERENCES)["input_ids"]
    ours = [[ids[i] for i in source] for source in sources]
    assert ours == [[*vocabularies.source.encode(line), EOS] for line in LINES], "the tokenizers differ"

    named = [i for i in sorted(ids) if i != model.config.pad_token_id]  # those that are produced
    order = [ids[i] for i in named]
    for place in range(3):
        wanted = peers.forced_logits(model, sources[place : place + 1], targets[place : place + 1])[0][:, named]
        found = forced_logits(loaded, ours[place], [ids[i] for i in targets[place]])
        np.testing.assert_allclose(found[:, order], wanted, rtol=0, atol=1e-4)

    wanted = [[ids[i] for i in tokens] for tokens, _ in peers.generate(model, sources, num_beams=1)]
    greedy = [tokens for tokens, _ in translated(loaded, ours, SearchConfig(beam=1, **LIMIT), "greedy")]
    assert greedy == wanted
    theirs = peers.generate(model, sources, num_beams=5)
    same = []
    for (tokens, score), (wanted, their_score) in zip(translated(loaded, ours, RANKED), theirs, strict=True):
        same.append(tokens == [ids[i] for i in wanted])
        assert score == pytest.approx(their_score, abs=1e-4), "not a tie: another rule or another model"
    print(f"beam 5: {sum(same)} of {len(same)} equal; greedy: all; mean length {np.mean([len(t) for t in greedy]):.1f}")
    assert np.mean(same) >= 0.99
    for tokens in greedy[:50]:
        back = {ours: theirs for theirs, ours in ids.items()}
        text = tokenizer.decode([back[i] for i in tokens if i != EOS])
        assert vocabularies.target.decode(tokens) == text
    return {line: tokens for line, tokens in zip(LINES, greedy, strict=True)}


def ctranslated(directory, out, loaded) -> list[list[str]]:
    """Greedy tokens of CTranslate2 for LINES, as its entries' names."""
    import ctranslate2

    ctranslate2.converters.TransformersConverter(str(directory)).convert(str(out))
    translator = ctranslate2.Translator(str(out), "cpu", compute_type="float32", inter_threads=1, intra_threads=1)
    entries = loaded.vocabularies.source.entries
    sources = [[*(entries[i] for i in loaded.vocabularies.source.encode(line)), "</s>"] for line in LINES]
    extra = [[name] for name in ("<blank>", "<start>")]
    options = {"beam_size": 1, "max_decoding_length": LIMIT["max_length_b"], "return_end_token": True}
    known = [[name] for [name] in extra if name in (out / "shared_vocabulary.json").read_text()]
    found = translator.translate_batch(sources, **options, suppress_sequences=known or None, min_decoding_length=0)
    return [result.hypotheses[0] for result in found]


@pytest.mark.parametrize(
    "seed, options",
    [
        (1, {}),
        (1, {"activation_function": "gelu", "scale_embedding": False, "encoder_layers": 1, "decoder_layers": 2}),
        (7, {"activation_function": "relu", "d_model": 24, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40}),
    ],
)
def test_theirs_with_random_weights(peers, tmp_path, seed, options):
    tokenizer = peers.make_tokenizer(tmp_path / "hf")
    model = peers.make_model(len(tokenizer.get_vocab()), seed, **options)
    model.save_pretrained(tmp_path / "hf")
    loaded = checkpoint.load(import_marian(tmp_path / "hf", tmp_path / "ours"))
    assert_agreement(peers, model, tmp_path / "hf", loaded)


def test_theirs_trained_and_back_and_ctranslate2(peers, tmp_path):
    tokenizer = peers.make_tokenizer(tmp_path / "hf")
    model = peers.make_model(len(tokenizer.get_vocab()), scale=0.3)
    peers.train(model, tokenizer, 300)
    model.save_pretrained(tmp_path / "hf")
    loaded = checkpoint.load(import_marian(tmp_path / "hf", tmp_path / "ours"))
    greedy = assert_agreement(peers, model, tmp_path / "hf", loaded)
    export_marian(tmp_path / "ours", tmp_path / "back", max_positions=160)
    back = peers.MarianMTModel.from_pretrained(tmp_path / "back").eval()
    assert {n: t.tolist() for n, t in model.state_dict().items()} == {
        n: t.tolist() for n, t in back.state_dict().items()
    }
    entries = loaded.vocabularies.target.entries
    for directory in ("hf", "back"):
        found = ctranslated(tmp_path / directory, tmp_path / f"{directory}-ct2", loaded)
        assert found == [[entries[i] for i in tokens] for tokens in greedy.values()]


def random_lines(count):
    """Pieces of text, added tokens and spaces in any order."""
    random = np.random.default_rng(0)
    parts = ["<term>", "<term2>", "Kubernetes", "gnu", "<br>", "<ctx>", ">>deu<<", " ", "  ", "dog", " the", ",", "2"]
    return ["".join(random.choice(parts, random.integers(1, 9))) for _ in range(count)]


def test_fine_tuned_and_back(peers, tmp_path):
    """Added tokens and padding: the same ids of any text, the same translations; and again after export."""
    tokenizer = peers.make_tokenizer(tmp_path / "hf")
    model = peers.make_model(len(tokenizer.get_vocab()), scale=0.3)
    peers.train(model, tokenizer, 300)
    peers.fine_tune(model, tokenizer, 100)
    tokenizer.save_pretrained(tmp_path / "hf")
    model.save_pretrained(tmp_path / "hf", max_shard_size="30KB")
    loaded = checkpoint.load(import_marian(tmp_path / "hf", tmp_path / "ours"))
    assert_agreement(peers, model, tmp_path / "hf", loaded)
    export_marian(tmp_path / "ours", tmp_path / "back", max_positions=160)
    back = peers.MarianMTModel.from_pretrained(tmp_path / "back").eval()
    greedy = assert_agreement(peers, back, tmp_path / "back", loaded)
    entries, found = loaded.vocabularies.target.entries, ctranslated(tmp_path / "back", tmp_path / "ct2", loaded)
    assert found == [[entries[i] for i in tokens] for tokens in greedy.values()]
    source = loaded.vocabularies.source
    for directory in ("hf", "back"):
        theirs = peers.MarianTokenizer.from_pretrained(tmp_path / directory)
        ids = to_ours(tmp_path / directory, loaded.vocabularies)
        for line in random_lines(500):
            found = theirs(line)["input_ids"]
            assert [*source.encode(line), EOS] == [ids[i] for i in found], line
            text = theirs.decode(found[:-1], use_source_tokenizer=False)  # version 5 takes the source's for targets too
            assert loaded.vocabularies.target.decode(source.encode(line)) == text, line


@pytest.fixture(scope="module")
def vocabularies():
    return vocabulary.learn(*toy.lines(toy.sample_pairs(0, 300)), VocabularyConfig(size=150))


def test_safetensors_of_ours_in_torch(vocabularies, tmp_path):
    """Names, shapes, types and bits are those that torch reads."""
    from safetensors.torch import load_file

    ours = checkpoint.load(random_checkpoint(tmp_path / "ours", POST, vocabularies))
    theirs = load_file(export_tensors(tmp_path / "ours", tmp_path / "out") / "model.safetensors")
    leaves = arrays.named_leaves(arrays.host(ours.params))
    assert theirs.keys() == leaves.keys()
    for name, leaf in leaves.items():
        found = theirs[name].numpy()
        assert (found.dtype, found.shape, found.tobytes()) == (leaf.dtype, leaf.shape, leaf.tobytes()), name


def trained_checkpoint(path, vocabularies):
    """Ours, after some updates on the toy language, by the command."""
    vocabulary.save(vocabularies, path / "vocabulary")
    model = ["--model", "transformer", "--transformer.norm", "post", "--transformer.dropout", "0"]
    model += ["--transformer.encoder-layers", "1", "--transformer.decoder-layers", "1", "--transformer.width", "32"]
    model += ["--transformer.heads", "2", "--transformer.feed-forward", "64", "--transformer.activation", "swish"]
    run = ["--out", path / "run", "--corpus.path", "toy", "--max-steps", "300", "--batch.buckets", "1"]
    run += ["--optimiser.learning-rate", "5e-3"]
    command = ["train", *run, "--vocabulary", path / "vocabulary", *model, "--devices", "1"]
    subprocess.run([sys.executable, "-m", "seqkd_jax.cli.main", *map(str, command)], check=True)
    return path / "run" / "best"


@pytest.mark.parametrize("kind", ["random", "random, their positions", "trained"])
def test_ours_and_ctranslate2(peers, vocabularies, tmp_path, kind):
    """Our start token is not zero, our unused entries count in the softmax, our frequencies are not theirs."""
    if kind == "trained":
        ours = trained_checkpoint(tmp_path, vocabularies)
    else:
        theirs = {"positions": "vaswani", "output_bias": True} if "their" in kind else {}
        ours = random_checkpoint(tmp_path / "ours", dataclasses.replace(POST, **theirs), vocabularies)
    export_marian(ours, tmp_path / "hf")
    model = peers.MarianMTModel.from_pretrained(tmp_path / "hf").eval()
    loaded = checkpoint.load(ours)
    greedy = assert_agreement(peers, model, tmp_path / "hf", loaded)
    entries = loaded.vocabularies.target.entries
    found = ctranslated(tmp_path / "hf", tmp_path / "ct2", loaded)
    assert found == [[entries[i] for i in tokens] for tokens in greedy.values()]
