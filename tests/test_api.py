"""The public API: a teacher, its distilled corpus, a student and their evaluation, from Python as by the commands."""

import inspect
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from commands import seqkd

import seqkd_jax as kd
from seqkd_jax import api, checkpoint, models
from seqkd_jax.decoding import force_score
from seqkd_jax.distillation import nbest
from seqkd_jax.evaluation import evaluation
from seqkd_jax.types import EOS

WORDS = ["red", "green", "blue", "black", "white"]
MODEL = kd.LSTMConfig(layers=1, size=8)
CONFIG = kd.TrainConfig(batch=kd.BatchConfig(tokens=256, buckets=1), max_steps=4, validate_every=2, keep=1, devices=1)
SEARCH = kd.SearchConfig(beam=2, max_length_a=0.0, max_length_b=6.0)
FUNCTIONS = [name for name in kd.__all__ if inspect.isfunction(getattr(kd, name))]


def pairs(count, seed):
    draw = np.random.default_rng(seed)
    lines = [" ".join(draw.choice(WORDS, size=draw.integers(2, 6))) for _ in range(count)]
    return kd.Corpus(lines, [line.upper() for line in lines])


TRAIN, VALID, TEST = pairs(60, 0), pairs(8, 1), pairs(8, 2)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    words = kd.VocabularyConfig(kind="words", size=9, joint=False, tokenizer="pretokenised")
    out = tmp_path_factory.mktemp("runs") / "teacher"
    vocabularies = kd.learn_vocabulary(TRAIN, words)
    return kd.train(TRAIN, VALID, out, model=MODEL, config=CONFIG, vocabularies=vocabularies)


@pytest.fixture(scope="module")
def distilled(teacher, tmp_path_factory):
    out = tmp_path_factory.mktemp("distilled") / "seq_kd"
    return kd.distill(kd.load(teacher.best), TRAIN.sources, out, references=TRAIN.targets, search=SEARCH)


def test_translations_are_those_of_the_command(teacher, tmp_path, capfd):
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in TEST.sources))
    rules = ["--beam", 3, "--max-length-a", 0, "--max-length-b", 6]
    assert seqkd("translate", "--checkpoint", teacher.best, tmp_path / "in", "--n-best", 2, *rules) == 0
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    translations = kd.load(teacher.best).translate(TEST.sources, beam=3, search=SEARCH, n_best=2)
    assert [row["source"] for row in rows] == [translation.source for translation in translations] == TEST.sources
    for row, translation in zip(rows, translations, strict=True):
        assert translation.text == translation.hypotheses[0].text and len(translation.hypotheses) == 2
        for told, hypothesis in zip(row["hypotheses"], translation.hypotheses, strict=True):
            ours = hypothesis._asdict() | {"tokens": len(hypothesis.tokens)}  # the lists of a student need no ids
            assert told == {name: ours[name] for name in told}


def test_translate_is_stream_and_ranks_by_expected_utility(teacher):
    student = kd.load(teacher.best)
    lines = iter(TEST.sources)
    first = next(student.stream(lines, search=SEARCH, read_ahead=2))
    assert first == student.translate(TEST.sources, search=SEARCH)[0] and len(list(lines)) == 6, "read ahead by two"
    ranked = student.translate(TEST.sources, search=SEARCH, mbr="chrf", mbr_weights="probability", n_best=1)
    assert [len(translation.hypotheses) for translation in ranked] == [1] * 8
    assert student.translate.__func__ is api.LoadedTranslator.translate
    options = [list(inspect.signature(method).parameters) for method in (student.translate, student.stream)]
    assert options[1] == [*options[0], "read_ahead", "progress"], "translate takes every option of stream but these"


def test_scores_are_those_of_forced_decoding(teacher):
    loaded = kd.load(teacher.best)
    translator, params, vocabularies = loaded.checkpoint.system
    ids = [
        ([*vocabularies.source.encode(a), EOS], vocabularies.target.encode(b)) for a, b in zip(*TEST[:2], strict=True)
    ]
    assert loaded.score(TEST.sources, TEST.targets) == list(force_score(translator, params, ids))
    with pytest.raises(kd.UserError, match="8 sources for 7 targets"):
        loaded.score(TEST.sources, TEST.targets[1:])


def test_several_paths_are_an_ensemble(teacher):
    paths = teacher.best, teacher.last
    both = kd.load(*paths)
    assert isinstance(both.checkpoint, kd.Ensemble) and isinstance(kd.load(teacher.best).checkpoint, kd.Checkpoint)
    assert both.checkpoint.fingerprint == checkpoint.load_translators(paths).fingerprint
    assert len(both.translate(TEST.sources[:2], search=SEARCH)) == 2


def test_a_student_of_the_distilled_corpus_and_its_evaluation(teacher, distilled, tmp_path):
    assert distilled.corpus.sources == TRAIN.sources and distilled.card["lines"] == 60
    translations = kd.load(teacher.best).translate(TRAIN.sources, search=SEARCH)
    assert distilled.corpus.targets == [translation.text for translation in translations]
    student = kd.train(distilled.corpus, VALID, tmp_path / "student", model=MODEL, config=CONFIG, start=teacher.best)
    loaded = kd.load(student.best, compute="float32")
    assert loaded.checkpoint.vocabularies.fingerprint == kd.load_vocabulary(teacher.best).fingerprint, "the start's"
    (tmp_path / "lines.txt").write_text("".join(f"{line}\n" for line in TEST.targets))
    compare = [teacher.best, tmp_path / "lines.txt"]
    found = kd.evaluate(loaded, TEST, search=SEARCH, compare=compare, repetitions=0)
    assert set(found.results["compared"]) == set(map(str, compare)) and set(found.outputs) == {"beam1", "beam2"}
    assert found.results["compared"][str(compare[1])]["bleu"] == pytest.approx(100)
    assert found.results["compute"] == "float32", "that of the systems that it is compared with too"
    assert found.results["fingerprint"] == loaded.checkpoint.fingerprint and found.results["perplexity"] > 1


def test_what_the_user_can_correct_is_a_user_error(teacher, distilled, tmp_path):
    with pytest.raises(kd.UserError, match="no such checkpoint"):
        kd.load(tmp_path / "nowhere")
    with pytest.raises(kd.UserError, match="--checkpoint"):
        kd.load()
    with pytest.raises(kd.UserError, match="has no replica 3"):
        kd.load(teacher.best, replica=3)
    with pytest.raises(kd.UserError, match="name one checkpoint"):
        kd.load(teacher.best, teacher.last, replica=0)
    with pytest.raises(kd.UserError, match="decoder is called 'bean'"):
        kd.load(teacher.best).translate(["red"], decoder="bean")
    with pytest.raises(kd.UserError, match="holds a run with another training corpus"):
        kd.train(VALID, VALID, teacher.best.parent, model=MODEL, config=CONFIG, start=teacher.best)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"selection": "nearest"}, "selection 'nearest': no such rule"),
        ({"selection": "kim_rush"}, "needs references"),
        ({"references": TRAIN.targets[1:]}, "has 60 sources, 59 targets"),
        ({"references": []}, "has 60 sources, 0 targets"),
        ({"languages": ("en", "en")}, "source and target are both 'en'"),
        ({"languages": ("en", "../de")}, "'../de' cannot end the name of a file"),
        ({"filters": kd.FilterConfig(drop_worst=1.0)}, "drop_worst is 1.0"),
        ({"sources": ["red\ngreen"]}, "number 1 has a line break inside"),
        ({"shard_lines": 0}, "shard_lines is 0"),
    ],
)
def test_distill_refuses_before_it_translates_and_writes_nothing(teacher, tmp_path, given, said):
    with pytest.raises(kd.UserError, match=re.escape(said)):
        kd.distill(kd.load(teacher.best), out=tmp_path / "out", search=SEARCH, **{"sources": TRAIN.sources, **given})
    assert not list(tmp_path.iterdir())


def test_an_overlong_line_is_found_before_the_first_is_decoded(teacher, tmp_path, monkeypatch):
    """Of every job that has its lines before it begins; faults.md's died when the shard of the line was reached."""
    loaded, book = kd.load(teacher.best), "red " * 5000
    for name in ("translate_lines", "force_score"):
        monkeypatch.setattr(api.translating, name, lambda *_, **__: pytest.fail("decoded"))
    monkeypatch.setattr(nbest, "translate_lines", lambda *_, **__: pytest.fail("decoded"))
    monkeypatch.setattr(evaluation, "translate_lines", lambda *_, **__: pytest.fail("decoded"))
    long = kd.Corpus([*TEST.sources, book], [*TEST.targets, "RED"])
    for job in (
        lambda: kd.distill(loaded, long.sources, tmp_path / "out", search=SEARCH),
        lambda: kd.evaluate(loaded, long, search=SEARCH),
        lambda: kd.evaluate(loaded, long, search=SEARCH, compare=[teacher.last]),
        lambda: kd.evaluate(loaded, long._replace(sources=long.targets, targets=long.sources), search=SEARCH),
        lambda: loaded.score(long.sources, long.targets),
        lambda: loaded.score(long.targets, long.sources),
    ):
        with pytest.raises(kd.UserError, match=r"(line|sentence) 9.* has 5,001 tokens, more than 4,096"):
            job()
    assert not list(tmp_path.iterdir())


def test_wrong_arguments_are_refused_before_anything_is_written(teacher, tmp_path):
    loaded, out, unchecked = kd.load(teacher.best), tmp_path / "out", inspect.unwrap  # tests check types at each call
    for job, given in ((kd.distill, (loaded, ["red"], out)), (kd.LoadedTranslator.stream, (loaded, ["red"]))):
        with pytest.raises(kd.UserError, match="overlong is 'drop': it must be one of fail, empty"):
            unchecked(job)(*given, overlong="drop")
    with pytest.raises(kd.UserError, match="n_best is 0"):
        loaded.translate(["red"], n_best=0)
    with pytest.raises(kd.UserError, match="read_ahead is 0"):
        loaded.stream(["red"], read_ahead=0)
    with pytest.raises(kd.UserError, match="repetitions is -1"):
        kd.evaluate(loaded, TEST, repetitions=-1)
    with pytest.raises(kd.UserError, match="batch_tokens is 0"):
        kd.evaluate(loaded, TEST, batch_tokens=0)
    with pytest.raises(kd.UserError, match="no sentence to evaluate"):
        kd.evaluate(loaded, kd.Corpus([], []))
    with pytest.raises(kd.UserError, match="has 8 sources, 7 targets"):
        kd.evaluate(loaded, TEST._replace(targets=TEST.targets[1:]))
    with pytest.raises(kd.UserError, match="pair 2: weight is 'nan'"):
        kd.train(kd.Corpus(["red", "red"], ["RED", "RED"], [1.0, float("nan")]), VALID, out, model=MODEL, config=CONFIG)
    with pytest.raises(kd.UserError, match="teachers is 'both'"):
        unchecked(kd.train)(TRAIN, VALID, out, model=MODEL, config=CONFIG, teacher=teacher.best, teachers="both")
    with pytest.raises(kd.UserError, match="teacher_cache_gib is nan"):
        kd.train(TRAIN, VALID, out, model=MODEL, config=CONFIG, teacher_cache_gib=float("nan"))
    with pytest.raises(kd.UserError, match="split is 'dev': it must be one of train, valid, test"):
        unchecked(kd.load_split)(kd.CorpusConfig(str(tmp_path)), "dev")
    with pytest.raises(TypeError, match="model is 'lstm': it must be one of LSTMConfig"):
        unchecked(models.kind_of)("lstm")
    for one_text in (
        lambda: loaded.translate("red green"),
        lambda: loaded.translate(["red"], prefixes="RED"),
        lambda: loaded.score("red", "RED"),
        lambda: kd.distill(loaded, "red green", out, search=SEARCH),
        lambda: kd.evaluate(loaded, TEST, compare=str(teacher.best)),
        lambda: kd.train(kd.Corpus("abc", "ABC"), VALID, out, model=MODEL, config=CONFIG),
    ):
        with pytest.raises(TypeError, match="not one text"):
            one_text()
    for read_once in (
        lambda: unchecked(kd.distill)(loaded, iter(["red"]), out, search=SEARCH),
        lambda: unchecked(kd.distill)(loaded, ["red"], out, references=(text for text in ["RED"]), search=SEARCH),
        lambda: unchecked(kd.LoadedTranslator.score)(loaded, iter(["red"]), ["RED"]),
    ):
        with pytest.raises(TypeError, match="is read only once"):
            read_once()
    for languages in ("de", ("de",), ("en", "de", "fr")):
        with pytest.raises(kd.UserError, match="is not a pair; give two such as"):
            unchecked(kd.distill)(loaded, ["red"], out, languages=languages, search=SEARCH)
    assert not out.exists()


def test_every_name_is_there_and_explains_itself():
    assert kd.__all__ == api.__all__ == sorted(kd.__all__) and set(kd.__all__) < set(dir(kd))
    assert {"load", "train", "distill", "evaluate"} <= set(FUNCTIONS)
    methods = [kd.load_split, kd.hold_out, kd.named_rules]  # of other modules, with their docstrings
    for name in kd.__all__:
        public = getattr(kd, name)
        assert public.__doc__ and not public.__doc__.startswith(f"{name}("), f"{name} has no docstring"
        if inspect.isfunction(public):
            kinds = {parameter.kind for parameter in inspect.signature(public).parameters.values()}
            assert inspect.Parameter.VAR_KEYWORD not in kinds, f"{name}: name its options"
            assert "kd." in public.__doc__ or public in methods, f"{name}: add an example to its docstring"
    with pytest.raises(AttributeError, match="no attribute 'trains'"):
        kd.trains  # noqa: B018


def test_the_package_alone_imports_nothing_heavy():
    code = "import sys, seqkd_jax; dir(seqkd_jax); print({'jax', 'numpy', 'datasets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout == "set()\n", done


def test_the_package_runs_as_the_command():
    def run(*arguments):
        command = [sys.executable, "-m", "seqkd_jax", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=100)

    assert run("--help").stdout.startswith("usage: python -m seqkd_jax")
    missing = run("score", "--checkpoint", "nowhere", "--source", "a", "--target", "b")
    assert missing.returncode == 2 and missing.stderr.startswith("python -m seqkd_jax: error: nowhere: no such")
