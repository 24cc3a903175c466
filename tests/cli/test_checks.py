"""Options of a command looked at together."""

from dataclasses import replace
from pathlib import Path

import jax
import pytest
from commands import fails, seqkd

from seqkd_jax import checkpoint, models
from seqkd_jax.cli import checks, main, options
from seqkd_jax.config import CorpusConfig, LossConfig, LSTMConfig, TrainConfig, TransformerConfig, VocabularyConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.evaluation import metrics
from seqkd_jax.types import UserError
from seqkd_jax.utils import files

OUT, CHECKPOINT = Path("o"), (Path("c"),)
PAIRS = options.Pairs(CorpusConfig("toy"))


def test_defaults_are_not_refused():
    checks.train(options.Train(OUT, PAIRS))
    checks.translate(options.Translate(CHECKPOINT))
    checks.distill(options.Distill(OUT, CHECKPOINT, pairs=PAIRS))
    checks.evaluate(options.Evaluate(CHECKPOINT, PAIRS))
    checks.vocab(options.Vocab(OUT, PAIRS))


def test_what_an_option_is_for_lets_it_pass():
    """Each of these is refused below, where that is missing."""
    transformer = options.Train(OUT, PAIRS, model="transformer", transformer=TransformerConfig(width=16))
    checks.train(transformer)
    checks.train(options.Train(OUT, PAIRS, vocab=VocabularyConfig(size=9)))
    soft = options.Train(OUT, PAIRS, config=replace(TrainConfig(), loss=LossConfig("word_kd", temperature=2.0)))
    checks.train(replace(soft, teacher=Path("t")))
    top_k = replace(TrainConfig(), loss=LossConfig("word_kd_top_k", top_k=8))
    checks.train(options.Train(OUT, PAIRS, config=top_k, teacher=Path("t"), teacher_cache=Path("c")))
    sampled = options.Translate(CHECKPOINT, decoder="sample")
    checks.translate(replace(sampled, search=replace(sampled.search, sample_top_k=5)))
    drafted = options.Translate(CHECKPOINT, decoder="speculative", draft=Path("d"))
    checks.translate(replace(drafted, search=replace(drafted.search, draft_tokens=5)))
    searched = options.Evaluate(CHECKPOINT, PAIRS)
    checks.evaluate(replace(searched, search=replace(searched.search, length_rule="power", length_alpha=0.6)))
    checks.distill(options.Distill(OUT, CHECKPOINT, source_only=Path("f")))


@pytest.mark.parametrize(
    "command, said",
    [
        (["shortlist", "--out", "o"], "shortlist: there is no such command; there are train, "),
        (
            ["evaluate", "--checkpoint", "c", "--compare", "a", "--compare=b"],
            "--compare is given twice: name all its values after one, --compare A B",
        ),
        (["train", "--out", "o", "--train-on", "gold", "--train_on", "kd"], "--train-on is given twice: name all its"),
        (["translate", "--checkpoint", "c", "--decoder", "greedy", "--n-best", "2"], "finds one translation"),
        (["translate", "--checkpoint", "c", "--decoder", "greedy", "--mbr", "chrf"], "finds one translation"),
        (
            ["translate", "--checkpoint", "c", "--decoder", "greedy", "--beam", "3"],
            "--beam has no effect with --decoder",
        ),
        (
            ["modes", "--checkpoint", "c", "--max-length-b", "-4096"],
            "--max-length-a and --max-length-b: the greatest length 1.5x+-4096.0 can be below 0: raise one",
        ),
        (
            ["distill", "--checkpoint", "c", "--out", "o", "--source-only", "f", "--selection", "mbr", "--beam", "1"],
            "--selection mbr chooses among --beam hypotheses, and 1 leaves no choice: raise the beam",
        ),
        *(
            (
                ["distill", "--n-best", "f", "--out", "o", "--source-only", "f", name, value],
                f"{name} has no effect with --n-best",
            )
            for name, value in (("--compute", "bfloat16"), ("--devices", "2"))
        ),
        (["translate", "--checkpoint", "c", "--decoder", "speculative"], "--draft DIR and --decoder speculative"),
        (["translate", "--checkpoint", "c", "--draft", "d"], "--draft DIR and --decoder speculative"),
        (["translate", "--checkpoint", "c", "--draft-tokens", "5"], "--draft-tokens needs `seqkd translate --decoder"),
        (["translate", "--checkpoint", "c", "--mbr-weights", "probability"], "--mbr-weights needs --mbr"),
        (["translate", "--checkpoint", "c", "--metric.tokenize", "zh", "--mbr", "chrf"], "needs --mbr bleu: add that"),
        (
            ["evaluate", "--checkpoint", "c", "--metric.tokenize", "moses"],
            "invalid choice 'moses' for argument '--metric.tokenize'",
        ),
        (
            ["distill", "--checkpoint", "c", "--out", "o", "--source-only", "f", "--metric.tokenize", "zh"],
            "--metric.tokenize needs references, and --source-only has none",
        ),
        (["translate", "--checkpoint", "c", "--prefix-file", "-"], "are both standard input"),
        (["translate", "--checkpoint", "c", "--sample-top-k", "5"], "--sample-top-k needs `seqkd translate --decoder"),
        (["distill", "--checkpoint", "c", "--out", "o", "--sample-seed", "1"], "--sample-seed needs `seqkd translate"),
        (["evaluate", "--checkpoint", "c", "--sample-temperature", "0.5"], "--sample-temperature needs"),
        (["translate", "--checkpoint", "c", "--length-alpha", "0.6"], "--length-alpha needs --length-rule"),
        (
            ["distill", "--checkpoint", "c", "--out", "o", "--source-only", "f", "--hold-out", "5"],
            "--source-only and a corpus exclude each other",
        ),
        (["train", "--out", "o", "--transformer.width", "16"], "--transformer.… has no effect with --model lstm"),
        (
            ["train", "--out", "o", "--model", "transformer", "--lstm.size", "8"],
            "--lstm.… has no effect",
        ),
        (
            ["train", "--out", "o", "--vocabulary", "v", "--vocab.size", "9"],
            "--vocab.… has no effect",
        ),
        (["train", "--out", "o", "--loss.temperature", "2"], "--loss.temperature needs --loss.name word_kd"),
        (["train", "--out", "o", "--teacher", "t"], "--teacher has no effect with --loss.name nll"),
        (["train", "--out", "o", "--loss.top-k", "8"], "--loss.top-k needs --loss.name word_kd_top_k"),
        (["train", "--out", "o", "--teacher-cache", "c"], "--teacher-cache needs --loss.name word_kd_top_k"),
        (["train", "--out", "o", "--loss.name", "word_kd"], "--loss.name word_kd needs a teacher: name its checkpoint"),
        (
            ["train", "--out", "o", "--model", "transformer", "--vocab.no-joint"],
            "--transformer.tied is all, which needs",
        ),
        (["train", "--out", "o", "--teachers", "each"], "--teachers needs --teacher: add that, or omit it"),
        (["train", "--out", "o", "--teacher-cache-gib", "1"], "--teacher-cache-gib needs --teacher"),
        (
            ["distill", "--checkpoint", "c", "--out", "o", "--source-only", "f", "--selection", "chrf"],
            "needs references",
        ),
        (["distill", "--out", "o", "--corpus.path", "toy"], "--checkpoint and --n-best: give one of them"),
        (["distill", "--checkpoint", "c", "--out", "o", "--corpus.path", "toy", "--part", "3"], "--part 3: is not I/N"),
        (
            ["distill", "--checkpoint", "c", "--out", "o", "--corpus.path", "toy", "--part", "0/8"],
            "--part 0/8: there is no such part; they are 1/8 to 8/8",
        ),
        (
            ["distill", "--n-best", "l", "--out", "o", "--corpus.path", "toy", "--part", "1/8"],
            "--part has no effect with --n-best",
        ),
        (
            ["distill", "--checkpoint", "c", "--n-best", "l", "--out", "o", "--corpus.path", "toy"],
            "--checkpoint and --n-best: give one of them",
        ),
        (
            ["distill", "--n-best", "l", "--out", "o", "--corpus.path", "toy", "--beam", "3"],
            "--beam has no effect with",
        ),
        (
            ["distill", "--n-best", "l", "--out", "o", "--corpus.path", "toy", "--overlong", "empty"],
            "--overlong has no",
        ),
        (["translate", "--checkpoint", "c", "--dictionary", "d"], "--dictionary needs --replace-unknown"),
        (["translate", "--checkpoint", "c", "--attention-head", "1"], "need --attention FILE"),
        (["translate", "--checkpoint", "c", "--read-ahead", "1", "--devices", "2"], "--devices 2 has no effect with"),
        (["train", "--out", "o"], "--corpus.path is empty: it must name a directory"),
        (["train", "--out", "o", "--train-on", "kd"], "--corpus.path is empty"),
        (["distill", "--checkpoint", "c", "--out", "o"], "--corpus.path is empty"),
        (["evaluate", "--checkpoint", "c", "--corpus.source", "fr"], "or `toy`, the toy language"),
        (["vocab", "--out", "o"], "--corpus.source-file and --corpus.target-file"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_read(capfd, command, said):
    """No checkpoint or corpus of these commands exists; the error is of the options all the same."""
    assert said in fails(capfd, *command)


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--corpus.path", "toy", "--out", "o"],
        ["evaluate", "--corpus.path", "toy", "--checkpoint", "c"],
        ["distill", "--corpus.path", "toy", "--checkpoint", "c", "--out", "o"],
        ["translate", "--checkpoint", "c", "--mbr", "bleu"],
    ],
)
def test_a_tokenizer_that_is_not_there_is_said_before_anything_is_read(command, capfd, monkeypatch):
    monkeypatch.setattr(metrics, "_sentence_metric", lambda tokenize: files.read_json("MeCab"))
    said = fails(capfd, *command, "--metric.tokenize", "ja-mecab")
    assert "--metric.tokenize is ja-mecab, which cannot be used here" in said and 'install "sacrebleu[ja]"`' in said


def test_what_the_file_of_a_run_holds_is_no_option_without_effect():
    """An override, such as of the model, must not be refused for the settings that the file has for the other one."""
    stored = options.Train(OUT, PAIRS, lstm=LSTMConfig(size=9), vocab=VocabularyConfig(size=9), config_file=Path("c"))
    checks.train(replace(stored, model="transformer", vocabulary=Path("v"), given=("--model", "--vocabulary")))
    with pytest.raises(UserError, match="--lstm.… has no effect with --model transformer"):
        checks.train(replace(stored, model="transformer", given=("--model", "--lstm.size")))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A checkpoint of a Transformer that nobody trained."""
    known = vocabulary.words(["red", "green"])
    model = TransformerConfig(1, 1, 8, 2, 16)
    params = models.build(model, known.source.size, known.target.size).init(jax.random.key(0))
    out = tmp_path_factory.mktemp("start") / "best"
    return checkpoint.save(out, params, model_config=model, vocabularies=known, metadata={})


def test_a_start_brings_its_model(start, monkeypatch):
    """Only what is given can differ from it."""
    seen = []
    monkeypatch.setitem(main.COMMANDS, "train", (options.Train, seen.append))
    assert seqkd("train", "--out", "o", "--start", start, "--transformer.dropout", "0.5", "--seed", 3) == 0
    assert (seen[0].model, seen[0].config.seed) == ("transformer", 3)
    assert seen[0].transformer == TransformerConfig(1, 1, 8, 2, 16, dropout=0.5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            ["--transformer.width", "16", "--transformer.norm", "post"],
            "--transformer.width is 16, the start has 8; --transformer.norm is post, the start has pre; leave out",
        ),
        (["--model", "lstm"], "--model is lstm, the start has transformer; leave out what differs, or the start"),
        (["--lstm.size", "9"], "--lstm.… has no effect with --model transformer, that of --start"),
    ],
)
def test_what_differs_from_the_start_is_told_before_the_corpus_is_read(start, capfd, given, said):
    assert said in fails(capfd, "train", "--out", "o", "--start", start, "--corpus.path", "nowhere", *given)


@pytest.mark.parametrize(
    "given",
    [
        ["--corpus.path", "data"],
        ["--corpus.path", "c", "--train-on", "data"],
        ["--corpus.path", "c", "--vocabulary", "./data"],
        ["--corpus.path", "c", "--loss.name", "word_kd", "--teacher", "data"],
    ],
)
def test_what_is_read_is_not_written_to(tmp_path, monkeypatch, capfd, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert "is the directory of --" in fails(capfd, "train", "--out", "data", *given)
    assert not list((tmp_path / "data").iterdir())


@pytest.mark.parametrize(
    "command",
    [["average"], ["select", "--replica", "0"], ["prune"], ["import", "--from", "safetensors"], ["export"]],
)
def test_a_checkpoint_is_not_replaced_by_what_is_made_of_it(start, capfd, command):
    before = checkpoint.fingerprint(start)
    said = fails(capfd, *command, start, "--out", start.parent / "." / start.name, "--overwrite")
    assert "which is read; name another" in said and checkpoint.fingerprint(start) == before


@pytest.mark.parametrize("command", ["train", "translate", "distill", "evaluate"])
def test_help_is_shown_whatever_the_file_of_settings_is(command, capfd):
    assert seqkd(command, "--config", "/nowhere", "--help") == 0
    assert "--config" in capfd.readouterr().out


@pytest.mark.parametrize(
    "command",
    [
        ["translate", "--checkpoint", "{start}", "nowhere"],
        ["train", "--out", "o", "--start", "{start}", "--devices", "99", "--corpus.path", "toy"],
        ["train", "--out", "o", "--corpus.path", "toy", "--loss.name", "word_kd", "--teacher", "nowhere"],
        ["score", "--checkpoint", "{start}", "--source", "nowhere", "--target", "nowhere"],
    ],
)
def test_an_error_of_options_is_all_that_is_said(start, capfd, command):
    """No work was begun, so none is said to have stopped."""
    assert seqkd(*(word.format(start=start) for word in command)) == 2
    said = capfd.readouterr().err
    assert "error: " in said and "stopped" not in said
