"""The benchmark of decoding: its systems against each other, and the command at tiny sizes."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments.benchmarks import workers
from experiments.benchmarks.decoding import __main__ as command
from experiments.benchmarks.decoding import costs, systems, work
from seqkd_jax import checkpoint, models
from seqkd_jax.config import LSTMConfig, SearchConfig, TransformerConfig, VocabularyConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.decoding.search import named_rules
from seqkd_jax.types import EOS

INSTALL = "pip install 'seqkd_jax[peers]'"


def test_outputs_are_compared_token_by_token():
    outputs = {"a": [[4, 5, 6], [7], []], "b": [[4, 9, 6], [7], []], "c": [[4, 5], [7, 8], []]}
    found = systems.agreement(outputs, "a")
    assert set(found) == {"b", "c"} and found["b"]["sentences_that_differ"] == 1
    assert found["b"]["identical_tokens"] == 3 / 4
    assert found["c"]["identical_tokens"] == 3 / 5, "what is missing or too much is not identical"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The random model of a smoke run, with sentences of two widths."""
    found = work.from_random(work.SMOKE, 5, 0, tmp_path_factory.mktemp("random"))
    return found._replace(sentences=[*found.sentences, [*range(5, 25), EOS]])


def test_forced_lengths_are_kept_and_special_entries_never_produced(tiny):
    outputs = systems.ours("beam", "float32", tiny.model)(tiny.sentences, 4, work.rules_of(tiny, 2))()
    assert {len(ids) for ids in outputs} == {work.SMOKE.target_tokens}
    assert min(min(ids) for ids in outputs) >= len(work.SPECIALS)
    assert any(len(set(ids)) > 1 for ids in outputs), "one token over and over is too easy to agree on"


def test_batches_hold_every_sentence_once_and_outputs_return_to_their_places():
    sentences = [[9] * size for size in (3, 1, 2, 5, 4)]
    batches = systems.sorted_batches(sentences, 2)
    assert batches == [[1, 2], [0, 4], [3]]
    outputs = [[[len(sentences[place])] for place in batch] for batch in batches]
    assert systems.in_place(batches, outputs) == [[3], [1], [2], [5], [4]]


def test_needed_arithmetic_grows_with_sentences_and_beam(tiny):
    def needed(sentences, beam):
        return costs.needed(tiny.model, [8] * sentences, [6] * sentences, beam, 4)

    assert needed(8, 2)[0] == 2 * needed(4, 2)[0]
    product = 2 * 60 * 16 * 6 * 4  # FLOPs of the product with the vocabulary, for each hypothesis
    assert needed(4, 3)[0] - needed(4, 2)[0] > product
    assert needed(4, 2)[1] < 2 * needed(2, 2)[1], "weights are read once a batch"


def lstm_checkpoint(directory, **options):
    """A random LSTM whose outputs have different lengths, and a file of sentences beside it."""
    lines = ["a b c d e f g h", "h g f e d c b a", "a c e g", "b d f h"]
    vocabularies = vocabulary.learn(lines, lines, VocabularyConfig(size=40, kind="words", tokenizer="pretokenised"))
    config, sizes = LSTMConfig(2, 16, **options), (vocabularies.source.size, vocabularies.target.size)
    params = jax.device_get(jax.jit(models.build(config, *sizes).init)(jax.random.key(3)))
    params = jax.tree.map(lambda leaf: np.array(6 * leaf), params)
    params["params"]["output_bias"][EOS] -= 1.5
    checkpoint.save(directory, params, model_config=config, vocabularies=vocabularies, metadata={})
    (directory.parent / "input").write_text("a b c\nd e f g h a b\nh\n\nc c c d\nb a\n")
    return directory


def test_real_sentences_are_drawn_by_the_seed_without_empty_ones(tmp_path):
    directory, source = lstm_checkpoint(tmp_path / "lstm" / "best"), tmp_path / "lstm" / "input"
    draw = lambda seed: work.from_checkpoint(directory, source, source, 2, seed)  # noqa: E731
    assert draw(1).lines == draw(1).lines == draw(1).references != draw(3).lines
    assert len(draw(1).lines) == 2 and "" not in draw(1).lines
    assert draw(1).name == "lstm", "the run is named, not which of its checkpoints"


def lacking(package):
    __import__(package)


def test_what_is_not_installed_is_said():
    told = []
    workers._serve(SimpleNamespace(send=told.append), lacking, ("no_such_package",))
    assert isinstance(told[0], workers.Missing) and str(told[0]).startswith("no_such_package is not installed")


def run(tmp_path, *arguments):
    """The command at tiny sizes -> (results, table)"""
    assert command.main(["--smoke", "--rounds", "2", "--out", str(tmp_path / "out"), *arguments]) == 0
    return json.loads((tmp_path / "out" / "results.json").read_text()), (tmp_path / "out" / "table.md").read_text()


def test_a_smoke_run_on_real_sentences_without_peers(tmp_path, capsys):
    directory, source = lstm_checkpoint(tmp_path / "lstm"), str(tmp_path / "input")
    given = ["--checkpoint", str(directory), "--input", source, "--references", source, "--peers"]
    results, table = run(tmp_path, *given, "--no-starts", "--no-growth")
    assert {"command", "commit", "versions", "peer_versions", "devices", "host_cpu", "threads"} <= set(results)
    assert set(results["data"]) == {"input", "references"}
    (model,) = results["models"]
    assert model["sentences"] == 5, "the empty line is left out"
    (of_beam,) = model["beams"]
    assert of_beam["beam"] == 2 and [case["rows"] for case in of_beam["cases"]] == [1, 4]
    ours = {systems.BASE, systems.ROUNDED, f"{systems.BASE}, one device", systems.REFERENCE}
    for case in of_beam["cases"]:
        assert set(case["systems"]) == ours
        assert case["agreement"][systems.BASE]["identical_tokens"] == 1
        assert (case["rows"] == 1) == ("p95_seconds" in case["systems"][systems.BASE])
    assert of_beam["best_rows"] == dict.fromkeys(ours, 4)
    assert 0 <= of_beam["idle_share"] < 1 and "of the engine's slots" in table
    assert 0 <= of_beam["cases"][-1]["bleu"][systems.REFERENCE] <= 100
    assert table in capsys.readouterr().out and "A smoke run" in table
    assert "1,051.3" in table and f"{systems.BASE}, lstm" in table, "the paper's Table 2 must stand beside ours"
    assert (tmp_path / "out" / "plots" / "throughput.png").is_file()


@pytest.mark.slow
def test_a_smoke_run_of_the_random_model_with_starts_and_growth(tmp_path):
    results, table = run(tmp_path, "--peers")
    (model,) = results["models"]
    for case in model["beams"][0]["cases"]:
        assert case["target_tokens"][systems.REFERENCE] == case["sentences"] * work.SMOKE.target_tokens
    for found in model["starts"].values():
        assert set(found["seconds_to_first_translation"]) == {"empty", "filled"}
        assert 0 < found["bytes"]["before"] < found["bytes"]["first"] < 2**34
    curves = model["growth"]["curves"]
    assert set(curves) == {"length", "sentences", "beam", "devices"} and set(curves["devices"]) == {systems.BASE}
    assert "what grows" in table and (tmp_path / "out" / "plots" / "growth.png").is_file()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--checkpoint", "x"], "--checkpoint DIR and --input FILE belong together"),
        (["--input", "x"], "--checkpoint DIR and --input FILE belong together"),
        (["--references", "x"], "--references are those of --input"),
        (["--checkpoint", "nowhere", "--input", "x"], "nowhere: no such checkpoint"),
        (["--batches", "0"], "--batches is 0: it must be a whole number from 1"),
        (["--sentences", "-1"], "--sentences is -1: it must be a whole number from 0"),
    ],
)
def test_a_wrong_input_is_one_line_and_exit_status_2(arguments, words, tmp_path, capsys):
    assert command.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert errors[-1].startswith("error: ") and words in errors[-1]
    assert not (tmp_path / "out").exists()


# Peers


@pytest.mark.peers
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_ctranslate2_decodes_every_transformer(tmp_path, norm):
    """Pre-norm, untied tables, too: written as CTranslate2's own model."""
    pytest.importorskip("ctranslate2", reason=INSTALL)
    from experiments.benchmarks.decoding import peers

    config = TransformerConfig(2, 2, 16, heads=2, feed_forward=32, norm=norm, activation="gelu", tied="none")
    tiny = work.from_random(work.SMOKE, 6, 1, tmp_path)
    vocabularies, size = tiny.model.vocabularies, tiny.model.vocabularies.source.size
    params = jax.tree.map(lambda leaf: 2 * leaf, jax.jit(models.build(config, size, size).init)(jax.random.key(2)))
    checkpoint.save(tmp_path / "other", params, model_config=config, vocabularies=vocabularies, metadata={})
    model, tiny = checkpoint.load(tmp_path / "other"), tiny._replace(rules=named_rules(SearchConfig(), work.RULES))
    for beam in (1, 3):
        asked = tiny.sentences, 4, work.rules_of(tiny, beam)
        ours = systems.ours("beam", "float32", model)(*asked)()
        for each_core in (True, False):
            assert peers.ctranslate2("float32", each_core, model, tmp_path / "files")(*asked)() == ours
    peers.ctranslate2("int8", True, model, tmp_path / "files")
    assert len({tuple(ids) for ids in ours}) > 3, "outputs must differ, or nothing is shown"


@pytest.mark.peers
def test_peers_decode_the_same_tokens(tmp_path):
    pytest.importorskip("ctranslate2", reason=INSTALL)
    (model,) = run(tmp_path, "--no-growth")[0]["models"]
    assert not model["missing"] and len(model["starts"]) == 8
    (of_beam,) = model["beams"]
    for case in of_beam["cases"]:
        for name, found in case["agreement"].items():
            if "int8" not in name:
                assert found["sentences_that_differ"] == 0, f"{name}, rows {case['rows']}: {found}"


@pytest.mark.peers
@pytest.mark.parametrize("rules", [{}, {"length_rule": "power", "min_length_b": 2.0}])
def test_the_lstm_in_pytorch_gives_the_same_tokens(rules, tmp_path):
    pytest.importorskip("torch", reason=INSTALL)
    from experiments.benchmarks.decoding.opennmt import open_nmt

    model = checkpoint.load(lstm_checkpoint(tmp_path / "lstm"))
    draw = np.random.default_rng(0)
    sentences = [[*draw.integers(4, 12, draw.integers(1, 8)).tolist(), EOS] for _ in range(40)]
    for beam in (1, 3):
        asked = sentences, 16, SearchConfig(beam=beam, stop="first_k_finished", **rules)
        ours, theirs = systems.ours("beam", "float32", model)(*asked)(), open_nmt(False, model, tmp_path)(*asked)()
        assert len({len(ids) for ids in ours}) > 3, "lengths must differ, or nothing is tested"
        assert ours == theirs, f"beam {beam}"


@pytest.mark.peers
def test_a_peer_that_cannot_hold_the_model_says_why(tmp_path):
    pytest.importorskip("torch", reason=INSTALL)
    from experiments.benchmarks.decoding.opennmt import open_nmt

    model = checkpoint.load(lstm_checkpoint(tmp_path / "lstm", bidirectional=True))
    with pytest.raises(workers.Missing, match="one direction"):
        open_nmt(False, model, tmp_path)
