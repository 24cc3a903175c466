"""The benchmark of decoding: its systems against each other, and the command at tiny sizes."""

import json

import jax
import numpy as np
import pytest

from experiments.benchmarks.decoding import __main__ as command
from experiments.benchmarks.decoding import agreement, costs, growth, memory, peers, registry, systems, work, worker
from experiments.core import measure
from seqkd_jax import checkpoint, models
from seqkd_jax.config import LSTMConfig, SearchConfig, TransformerConfig, VocabularyConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.decoding.search import named_rules
from seqkd_jax.types import EOS

# What is made of times and outputs


def test_a_disturbed_round_has_no_exponent():
    """Seconds without the encoder's can come out negative where the encoder alone was disturbed."""
    at = lambda seconds: [measure.Timed([each], []) for each in seconds]  # noqa: E731
    curve = growth._curve([8, 16], [at([1.0, -0.1, 2.0]), at([2.0, 2.0, 4.0])])
    assert curve["exponent"]["median"] == pytest.approx(1.0) and curve["rounds_left_out"] == 1
    assert growth._curve([8, 16], [at([-1.0]), at([2.0])])["exponent"] is None


def test_outputs_are_compared_token_by_token():
    outputs = {"a": [[4, 5, 6], [7], []], "b": [[4, 9, 6], [7], []], "c": [[4, 5], [7, 8], []]}
    found = agreement.compare(outputs, "a")
    assert found["b"]["sentences_that_differ"] == found["b"]["first_that_differs"] == 1
    assert found["b"]["identical_tokens"] == 3 / 4
    assert found["c"]["identical_tokens"] == 3 / 5, "what is missing or too much is not identical"
    assert agreement.compare({"a": [[1]], "b": [[1]]}, "a")["b"]["first_that_differs"] is None


# Work and systems


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The random model of a smoke run, with sentences of two widths."""
    found = work.from_random(work.SMOKE, 5, 0, tmp_path_factory.mktemp("random"))
    return found._replace(sentences=[*found.sentences, [*range(5, 25), EOS]])


def test_forced_lengths_are_kept_and_special_entries_never_produced(tiny):
    (job, _) = systems.ours("beam", tiny.model).prepare(tiny.sentences, 4, work.rules_of(tiny, 2))
    outputs = systems.ours("beam", tiny.model).run(job)
    assert {len(ids) for ids in outputs} == {work.SMOKE.target_tokens}
    assert min(min(ids) for ids in outputs) >= len(work.SPECIALS)
    assert any(len(set(ids)) > 1 for ids in outputs), "one token over and over is too easy to agree on"


def test_jobs_hold_every_sentence_once_and_outputs_return_to_their_places(tiny):
    system, rules = systems.ours("beam", tiny.model), work.rules_of(tiny, 1)
    found = {}
    for rows in (1, 4):
        jobs = system.prepare(tiny.sentences, rows, rules)
        assert sorted(place for job in jobs for place in job.places) == list(range(len(tiny.sentences)))
        found[rows] = systems.in_order(jobs, [system.run(job) for job in jobs])
    assert found[1] == found[4]


def test_padding_counts_filled_rows_and_widths(tiny):
    jobs = systems.ours("beam", tiny.model).prepare(tiny.sentences, 4, work.rules_of(tiny, 1))
    assert sum(job.positions for job in jobs) == 2 * 4 * 16 + 4 * 32
    assert costs.padding_waste(jobs, tiny.sentences) == 1 - (5 * 8 + 21) / 256


def test_steps_spent_on_fill_rows_are_counted(tiny):
    """Five sentences in batches of four: three rows of the second batch only fill it."""
    found = costs.steps(tiny.model, "beam", tiny.sentences[:5], 4, work.rules_of(tiny, 2))
    steps = work.SMOKE.target_tokens
    assert found == (2 * 4 * steps, 5 * steps)
    assert found.waste == 3 / 8


def test_needed_arithmetic_grows_with_sentences_and_beam(tiny):
    def needed(sentences, beam):
        return costs.needed(tiny.model, [8] * sentences, [6] * sentences, beam, 4)

    assert needed(8, 2).flops == 2 * needed(4, 2).flops
    vocabulary = 2 * 60 * 16 * 6 * 4  # FLOPs of the product with the vocabulary, for each hypothesis
    assert needed(4, 3).flops - needed(4, 2).flops > vocabulary
    assert needed(4, 2).bytes < 2 * needed(2, 2).bytes, "weights are read once a batch"


def test_real_sentences_are_drawn_by_the_seed_without_empty_ones(tiny, tmp_path):
    (tmp_path / "in").write_text("\n".join(["ab cd", "", *(f"a{letter} b" for letter in "cdefgh")]) + "\n")

    def draw(seed):
        return work.from_checkpoint(tiny.model.directory, tmp_path / "in", None, 4, seed, SearchConfig()).lines

    assert draw(1) == draw(1) != draw(2)
    assert len(draw(1)) == 4
    assert "" not in draw(1)


def lstm_checkpoint(directory, **options):
    """A random LSTM whose outputs have different lengths."""
    lines = ["a b c d e f g h", "h g f e d c b a", "a c e g", "b d f h"]
    vocabularies = vocabulary.learn(lines, lines, VocabularyConfig(size=40, kind="words", tokenizer="pretokenised"))
    config, sizes = LSTMConfig(2, 16, **options), (vocabularies.source.size, vocabularies.target.size)
    params = jax.device_get(jax.jit(models.build(config, *sizes).init)(jax.random.key(3)))
    params = jax.tree.map(lambda leaf: np.array(6 * leaf), params)
    params["params"]["output_bias"][EOS] -= 1.5
    checkpoint.save(directory, params, model_config=config, vocabularies=vocabularies, metadata={})
    (directory.parent / "input").write_text("a b c\nd e f g h a b\nh\n\nc c c d\nb a\n")
    return directory


# The command


@pytest.fixture
def run(tmp_path, capsys):
    """A function: arguments -> (exit status, results or None, standard output, standard error)."""

    def call(*arguments):
        out = tmp_path / "out"
        status = command.main(["--smoke", "--no-memory", "--out", str(out), *arguments])
        results = json.loads((out / "results.json").read_text()) if status == 0 else None
        return status, results, *capsys.readouterr()

    return call


@pytest.mark.parametrize("growth", ["--no-growth", pytest.param("--growth", marks=pytest.mark.slow)])
def test_a_smoke_run_without_peers(run, tmp_path, growth):
    status, results, output, _ = run("--peers", "none", growth)
    assert status == 0
    assert {"command", "commit", "versions", "peer_versions", "devices", "host_cpu", "threads"} <= set(results)
    (model,) = results["models"]
    assert {(case["beam"], case["rows"]) for case in model["cases"]} == {(1, 1), (1, 4), (2, 1), (2, 4)}
    for case in model["cases"]:
        found = case["systems"][systems.REFERENCE]
        assert found["target_tokens"] == case["sentences"] * work.SMOKE.target_tokens
        assert (case["rows"] == 1) == ("p95_seconds" in found)
    if growth == "--growth":
        assert set(model["growth"]["curves"]) == {"sentences", "beam", "length"}
        assert (tmp_path / "out" / "plots" / "growth.png").is_file()
    assert (tmp_path / "out" / "table.md").read_text() in output
    assert "1,051.3" in output, "the paper's Table 2 must stand beside ours"


@pytest.mark.slow
def test_a_missing_peer_is_said_and_no_error(run, monkeypatch):
    def missing(model, scratch):
        raise ModuleNotFoundError("No module named 'ctranslate2'", name="ctranslate2")

    def here(name, peers, model, scratch):  # not in a process of its own, where nothing can be replaced
        built, lost = registry.build((name,), peers, model, scratch)
        if lost:
            raise systems.Missing(lost[name])
        return built.get(name)

    monkeypatch.setattr(worker, "start", here)
    monkeypatch.setitem(registry.PEERS, "ctranslate2", {"CTranslate2": registry.Entry(missing, "transformer")})
    status, results, output, _ = run("--peers", "ctranslate2", "--no-growth")
    assert status == 0
    assert results["models"][0]["missing"]["CTranslate2"].startswith("ctranslate2 is not installed")
    assert "Missing: CTranslate2: ctranslate2 is not installed" in output


@pytest.mark.slow
def test_a_checkpoint_with_references_has_bleu_and_a_plot(run, tmp_path):
    directory = lstm_checkpoint(tmp_path / "lstm")
    source = str(tmp_path / "input")
    arguments = ["--checkpoint", str(directory), "--input", source, "--references", source, "--peers", "none"]
    status, results, output, _ = run(*arguments, "--no-growth")
    assert status == 0
    (model,) = results["models"]
    assert model["sentences"] == 5, "the empty line is left out"
    assert 0 <= model["cases"][-1]["bleu"][systems.REFERENCE] <= 100
    assert set(results["data"]) == {"input", "references"}
    assert (tmp_path / "out" / "plots" / "quality_and_speed.png").is_file()
    assert "seqkd_jax" in output.split("Table 2")[1]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--peers", "marian"], "--peers marian: there is no such peer"),
        (["--checkpoint", "x"], "--checkpoint needs --input"),
        (["--input", "x"], "--input needs --checkpoint"),
        (["--references", "x"], "--references are those of --input"),
        (["--checkpoint", "nowhere", "--input", "x"], "nowhere: no such checkpoint"),
        (["--rules", "hf"], "--rules hf: the peers follow ctranslate2 alone; give --peers none"),
        (["--rounds", "0"], "--rounds 0: must be 1 or more"),
        (["--batches", "0"], "--batches 0: must be 1 or more"),
    ],
)
def test_a_wrong_input_is_one_line_and_exit_status_2(arguments, words, tmp_path, capsys):
    assert command.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert errors[-1].startswith("error: ")
    assert words in errors[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_memory_is_that_of_a_process_of_its_own(tiny, tmp_path):
    arguments = tiny.model, tmp_path, tiny.sentences, 4, work.rules_of(tiny, 2)
    found = memory.peak(systems.REFERENCE, None, *arguments)
    assert 0 < found["before"] < found["first"] < 2**34


# Peers


@pytest.mark.peers
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_ctranslate2_decodes_what_marian_cannot_hold(tmp_path, norm):
    """Pre-norm, untied tables: written as CTranslate2's own model."""
    pytest.importorskip("ctranslate2", reason="pip install 'seqkd_jax[peers]'")
    config = TransformerConfig(2, 2, 16, heads=2, feed_forward=32, norm=norm, activation="gelu", tied="none")
    tiny = work.from_random(work.SMOKE, 6, 1, tmp_path)
    vocabularies, size = tiny.model.vocabularies, tiny.model.vocabularies.source.size
    params = jax.tree.map(lambda leaf: 2 * leaf, jax.jit(models.build(config, size, size).init)(jax.random.key(2)))
    checkpoint.save(tmp_path / "other", params, model_config=config, vocabularies=vocabularies, metadata={})
    model, rules = checkpoint.load(tmp_path / "other"), named_rules(SearchConfig(beam=3), "ctranslate2")
    made = {}
    for name, system in {
        "ours": systems.ours("beam", model),
        "theirs": peers.ctranslate2("float32", model, tmp_path / "files"),
    }.items():
        jobs = system.prepare(tiny.sentences, 4, rules)
        made[name] = systems.in_order(jobs, [system.run(job) for job in jobs])
    assert made["theirs"] == made["ours"]
    peers.ctranslate2("int8", model, tmp_path / "files")
    assert len({tuple(ids) for ids in made["ours"]}) > 3, "outputs must differ, or nothing is shown"


@pytest.mark.peers
def test_peers_decode_the_same_tokens(run):
    pytest.importorskip("ctranslate2", reason="pip install 'seqkd_jax[peers]'")
    status, results, *_ = run("--no-growth")
    assert status == 0
    (model,) = results["models"]
    assert {"CTranslate2 float32", "CTranslate2 int8", "Hugging Face generate"} <= set(model["load_seconds"])
    for case in model["cases"]:
        for name in ("CTranslate2 float32", "Hugging Face generate"):
            found = case["agreement"][name]
            assert found["sentences_that_differ"] == 0, f"{name}, beam {case['beam']}, rows {case['rows']}: {found}"


@pytest.mark.peers
@pytest.mark.parametrize("rules", [{}, {"stop": "first_k_finished"}, {"length_rule": "power"}])
def test_the_lstm_in_pytorch_gives_the_same_tokens(rules, tmp_path):
    pytest.importorskip("torch", reason="pip install 'seqkd_jax[peers]'")
    model = checkpoint.load(lstm_checkpoint(tmp_path / "lstm"))
    draw = np.random.default_rng(0)
    sentences = [[*draw.integers(4, 12, draw.integers(1, 8)).tolist(), EOS] for _ in range(40)]
    built, _ = registry.build(list(registry.entries(["opennmt"])), ["opennmt"], model, tmp_path)
    for beam in (1, 3):
        found = {}
        for name in (systems.REFERENCE, "PyTorch as OpenNMT-py"):
            jobs = built[name].prepare(sentences, 16, SearchConfig(beam=beam, **rules))
            found[name] = systems.in_order(jobs, [built[name].run(job) for job in jobs])
        assert len({len(ids) for ids in found[systems.REFERENCE]}) > 3, "lengths must differ, or nothing is tested"
        assert found[systems.REFERENCE] == found["PyTorch as OpenNMT-py"], f"beam {beam}"


@pytest.mark.peers
def test_a_peer_that_cannot_hold_the_model_says_why(tmp_path):
    pytest.importorskip("torch", reason="pip install 'seqkd_jax[peers]'")
    model = checkpoint.load(lstm_checkpoint(tmp_path / "lstm", bidirectional=True))
    _, missing = registry.build(["PyTorch as OpenNMT-py"], ["opennmt"], model, tmp_path)
    assert "one direction" in missing["PyTorch as OpenNMT-py"]
