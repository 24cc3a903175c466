"""Text whose words have no spaces between: every number that counts words, against `sacrebleu -tok` at a shell."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import TINY
from unspaced import ENGLISH, REFERENCES, TOKENIZERS, nearly

import seqkd_jax as kd
from seqkd_jax import checkpoint
from seqkd_jax.api import translating
from seqkd_jax.config import FilterConfig, LSTMConfig, MetricConfig, TrainConfig, VocabularyConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.decoding import Hypothesis, Translation
from seqkd_jax.distillation import SELECTIONS, Candidate, choose, nbest
from seqkd_jax.distillation.distilled_corpus import apply_filters
from seqkd_jax.distillation.selection import Choice
from seqkd_jax.evaluation import evaluation, likelihood, metrics, tokenization
from seqkd_jax.training import trainer
from seqkd_jax.types import UserError
from seqkd_jax.utils import files

NONSENSE = {"zh": "一二三四五六七八九十", "ja": "あいうえおかきくけこ", "th": "กขฃคฅฆงจฉ", "km": "កខគឃងចឆជឈ"}
VOCABULARIES = vocabulary.learn(ENGLISH, ENGLISH, VocabularyConfig(size=60))


@pytest.fixture(autouse=True)
def without_mecab(monkeypatch):
    """Whether or not it is installed here."""
    monkeypatch.setattr(metrics, "available", lambda tokenize: tokenize not in metrics.EXTRAS)


@pytest.fixture
def stand_in(monkeypatch):
    """The search is replaced: a function that takes the hypotheses of each line, best first."""

    def given(lists):
        def decode(system, lines, *_, progress=None, **__):
            for line, texts in zip(lines, lists, strict=True):
                scored = [Hypothesis([5], text, -float(place), -1.0, True) for place, text in enumerate(texts)]
                yield Translation(line, scored)

        for module in (trainer, evaluation, nbest, translating):
            monkeypatch.setattr(module, "translate_lines", decode)
        monkeypatch.setattr(evaluation, "compile_searches", lambda *_: 0.0)
        monkeypatch.setattr(metrics, "SAMPLES", 50)
        monkeypatch.setattr(evaluation, "prepare", lambda translator, params, count: params)
        monkeypatch.setattr(likelihood, "of_references", lambda *_: likelihood.Likelihood(-1.0, 1))

    return given


def loaded(stored=None):
    metadata = {} if stored is None else {"metric": {"tokenize": stored}}
    return kd.LoadedTranslator(checkpoint.Checkpoint(TINY, {}, LSTMConfig(), VOCABULARIES, metadata, Path("model")))


def pairs(language, named=None):
    return kd.Corpus(ENGLISH, REFERENCES[language], None, "test", ("en", named or language))


def validated(corpus, tmp_path, **options):
    """--validate-bleu."""
    run = trainer.Run(LSTMConfig(), VOCABULARIES, TrainConfig(metric=options.get("metric", MetricConfig())))
    tokenize = trainer._tokenizer(run, corpus, tmp_path)
    return trainer._greedy_bleu(VOCABULARIES, corpus, tokenize, None, None)["bleu"], tokenize


def evaluated(corpus, tmp_path, **options):
    """`evaluate`, its intervals and its signature."""
    results = kd.evaluate(loaded(), corpus, beam=1, repetitions=0, **options).results
    assert results["bleu_low_beam1"] <= results["bleu_beam1"] <= results["bleu_high_beam1"]
    assert 0.9 < results["length_ratio_beam1"] < 1 and results["bleu_low_beam1"] > 0
    return results["bleu_beam1"], results["signature"].split("tok:")[1].split("|")[0]


def compared(corpus, tmp_path, **options):
    """`evaluate --compare FILE`: the paired bootstrap."""
    files.write_lines(tmp_path / "other", nearly(corpus.targets))
    found = kd.evaluate(loaded(), corpus, beam=1, repetitions=0, compare=[tmp_path / "other"], **options)
    row = found.results["compared"][str(tmp_path / "other")]
    assert row["delta"] == 0 and row["p_value"] == 1
    return row["bleu"], found.results["signature"].split("tok:")[1].split("|")[0]


def distilled(corpus, tmp_path, **options):
    """`distill`: the selection and the card."""
    found = kd.distill(
        loaded(), corpus.sources, tmp_path / "kd", references=corpus.targets, languages=corpus.languages,
        selection="kim_rush", beam=2, **options,
    )  # fmt: skip
    card = json.loads((tmp_path / "kd" / "card.json").read_text())
    assert card["similarity_tokenizer"] in card["signature"] and card["length_units"] == ["words", "characters"]
    assert "target characters per source word" in (tmp_path / "kd" / "README.md").read_text()
    return found.card["bleu"], card["similarity_tokenizer"]


@pytest.fixture(scope="module", params=REFERENCES)
def at_a_shell(request, tmp_path_factory):
    """A language, and the BLEU of its outputs that the command `sacrebleu` prints."""
    directory, references = tmp_path_factory.mktemp("shell"), REFERENCES[request.param]
    for name, lines in (("outputs", nearly(references)), ("references", references)):
        files.write_lines(directory / name, lines)
    command = [sys.executable, "-m", "sacrebleu", directory / "references", "-i", directory / "outputs"]
    options = ["-tok", TOKENIZERS[request.param], "-b", "-w", "8"]
    done = subprocess.run([*command, *options], capture_output=True, check=True, text=True)
    return request.param, float(done.stdout)


@pytest.mark.parametrize("place", [validated, evaluated, compared, distilled])
def test_bleu_is_that_of_sacrebleu(at_a_shell, place, stand_in, tmp_path):
    language, expected = at_a_shell
    stand_in([[output, NONSENSE[language]] for output in nearly(REFERENCES[language])])
    found, tokenize = place(pairs(language), tmp_path)
    assert tokenize == TOKENIZERS[language]
    assert found == pytest.approx(expected, abs=1e-6) and found > 50


@pytest.mark.parametrize("place", [validated, evaluated, compared, distilled])
def test_a_tokenizer_that_is_asked_for_is_used_or_refused(place, stand_in, tmp_path, monkeypatch):
    stand_in([[output] for output in nearly(REFERENCES["zh"])])
    assert place(pairs("zh"), tmp_path, metric=MetricConfig("char"))[1] == "char"
    monkeypatch.setattr(metrics, "_sentence_metric", lambda tokenize: files.sha256_file("not there"))
    stand_in(())
    with pytest.raises(UserError, match="metric.tokenize is ko-mecab.*not there"):
        place(pairs("zh"), tmp_path / "again", metric=MetricConfig("ko-mecab"))


@pytest.mark.parametrize("selection", [name for name, rule in SELECTIONS.items() if rule.needs_reference])
@pytest.mark.parametrize("language", REFERENCES)
def test_selections_do_not_tie(selection, language):
    for reference, output in zip(REFERENCES[language], nearly(REFERENCES[language]), strict=True):
        listed = [
            Candidate(text, -float(place), -1.0, True, 9) for place, text in enumerate([NONSENSE[language], output])
        ]
        assert choose(listed, selection, reference).index == 1
        assert choose(listed, selection, reference, TOKENIZERS[language]).index == 1


@pytest.mark.parametrize("stored, warned", [(None, False), ("char", False), ("13a", True)])
@pytest.mark.parametrize("language", REFERENCES)
def test_minimum_bayes_risk_compares_parts_of_sentences(language, stored, warned, stand_in, capfd):
    lines = REFERENCES[language]
    lists = [[NONSENSE[language], line, line[:-2], line[1:]] for line in lines]
    stand_in(lists)
    found = loaded(stored).translate(ENGLISH, mbr="bleu")
    best = [one.text for one in found]
    assert best == ([NONSENSE[language]] * 4 if warned else lines)
    assert capfd.readouterr().err.count("mostly of a script without") == warned, "once, not for each sentence"


def test_what_a_run_was_trained_with_is_kept_and_used(stand_in, tmp_path, monkeypatch):
    corpus = pairs("zh", "de")
    seen = []
    monkeypatch.setattr(checkpoint, "save", lambda *_, metadata, **__: seen.append(metadata) or tmp_path)
    run = trainer.Run(LSTMConfig(), VOCABULARIES, TrainConfig())
    trainer._save(run._replace(tokenize="char"), tmp_path, {}, metadata={"step": 1})
    assert seen == [{"step": 1, "metric": {"tokenize": "char"}}] and "metric" in checkpoint.OF_RUN
    monkeypatch.setattr(checkpoint, "read_record", lambda last: {"metadata": seen[0]})
    (tmp_path / "last").mkdir()
    assert trainer._tokenizer(run, corpus, tmp_path) == "char", "a resumed run keeps its own"
    stand_in([[output] for output in nearly(corpus.targets)])
    for stored, used in (("char", "char"), ("auto", "zh"), (None, "zh")):
        assert f"tok:{used}|" in kd.evaluate(loaded(stored), corpus, beam=1, repetitions=0).results["signature"]
    one, other = loaded("char").checkpoint, loaded("zh").checkpoint
    assert checkpoint.Ensemble((one, one)).metric.tokenize == "char"
    assert checkpoint.Ensemble((one, other)).metric.tokenize == tokenization.AUTO
    with pytest.raises(UserError, match="model: metadata.metric.tokenize is 'moses'"):
        kd.evaluate(loaded("moses"), corpus, beam=1)


def filtered(sources, targets, limit):
    choices = [
        Choice(candidate, candidate, 0, None) for candidate in (Candidate(t, -1.0, -1.0, True, 1) for t in targets)
    ]
    return apply_filters(sources, choices, FilterConfig(max_length_ratio=limit))[0]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("language", REFERENCES)
def test_length_ratios_keep_good_pairs_and_drop_others(language, turned):
    sources, targets = ENGLISH * 10, [*REFERENCES[language] * 9, *REFERENCES[language][:3], REFERENCES[language][3] * 9]
    sources, targets = (targets, sources) if turned else (sources, targets)
    assert filtered(sources, targets, 4.0) == list(range(39)), "all but the last, which is 9 times too long"
    mixed = filtered([*sources, *ENGLISH], [*targets, "Der Koch", *ENGLISH[1:]], 4.0)
    assert mixed == [*range(39), 41, 42, 43], "pairs of scripts with spaces have a measure of their own"


def test_length_ratios_of_scripts_with_spaces_are_what_they_were():
    random = np.random.default_rng(0)
    sources, targets = ([" ".join(["w"] * random.integers(1, 60)) for _ in range(300)] for _ in range(2))
    for limit in (1.0, 1.5, 3.0, 7.0):
        lengths = [sorted((len(s.split()), len(t.split()))) for s, t in zip(sources, targets, strict=True)]
        assert filtered(sources, targets, limit) == [i for i, (a, b) in enumerate(lengths) if b / a <= limit]
    assert filtered(["A name (王)"] * 9 + ["x " * 9], ["A name (王)"] * 9 + ["y"], 4.0) == list(range(9))


def test_speed_names_its_unit(stand_in, monkeypatch):
    stand_in([["x"]] * 4)
    for corpus, unit in ((pairs("zh"), "words"), (pairs("zh")._replace(sources=REFERENCES["zh"]), "characters")):
        assert kd.evaluate(loaded(), corpus, beam=1, repetitions=0).results["source_unit"] == unit
    clock = iter([0.0, 2.0])
    monkeypatch.setattr(evaluation.time, "perf_counter", lambda: next(clock))
    assert evaluation.words_per_second(iter, REFERENCES["zh"], 1) == 53 / 2
