"""Options of a command looked at together."""

from dataclasses import replace
from pathlib import Path

import pytest
from commands import fails

from seqkd_jax.cli import checks, options
from seqkd_jax.config import LossConfig, TrainConfig, TransformerConfig, VocabularyConfig

OUT, CHECKPOINT = Path("o"), (Path("c"),)


def test_defaults_are_not_refused():
    checks.train(options.Train(OUT))
    checks.translate(options.Translate(CHECKPOINT))
    checks.distill(options.Distill(CHECKPOINT, OUT))
    checks.evaluate(options.Evaluate(CHECKPOINT))


def test_what_an_option_is_for_lets_it_pass():
    """Each of these is refused below, where that is missing."""
    transformer = options.Train(OUT, model="transformer", transformer=TransformerConfig(width=16))
    checks.train(transformer)
    checks.train(options.Train(OUT, vocab=VocabularyConfig(size=9)))
    soft = options.Train(OUT, config=replace(TrainConfig(), loss=LossConfig("word_kd", temperature=2.0)))
    checks.train(replace(soft, teacher=Path("t")))
    sampled = options.Translate(CHECKPOINT, decoder="sample")
    checks.translate(replace(sampled, search=replace(sampled.search, sample_top_k=5)))
    searched = options.Evaluate(CHECKPOINT)
    checks.evaluate(replace(searched, search=replace(searched.search, length_rule="power", length_alpha=0.6)))
    checks.distill(options.Distill(CHECKPOINT, OUT, source_only=Path("f")))


@pytest.mark.parametrize(
    "command, said",
    [
        (
            ["translate", "--checkpoint", "c", "--n-best", "-1"],
            "--n-best is -1: it must be a whole number from 0 to 4,096",
        ),
        (["translate", "--checkpoint", "c", "--read-ahead", "-1"], "--read-ahead is -1"),
        (["translate", "--checkpoint", "c", "--batch-tokens", "0"], "--batch-tokens is 0"),
        (["distill", "--checkpoint", "c", "--out", "o", "--shard-lines", "0"], "--shard-lines is 0"),
        (
            ["distill", "--checkpoint", "c", "--out", "o", "--filters.drop-worst", "5"],
            "--filters.drop-worst is 5.0: it must be a number from 0 to below 1",
        ),
        (
            ["distill", "--checkpoint", "c", "--out", "o", "--filters.drop-worst", "-0.1"],
            "--filters.drop-worst is -0.1",
        ),
        (
            ["distill", "--checkpoint", "c", "--out", "o", "--filters.max-length-ratio", "0.5"],
            "from 1 to 1e+09, or 0",
        ),
        (["evaluate", "--checkpoint", "c", "--repetitions", "-1"], "--repetitions is -1"),
        (["translate", "--checkpoint", "c", "--decoder", "greedy", "--n-best", "2"], "gives one translation"),
        (["translate", "--checkpoint", "c", "--decoder", "greedy", "--mbr", "chrf"], "gives one translation"),
        (["translate", "--checkpoint", "c", "--mbr-weights", "probability"], "--mbr-weights is for --mbr"),
        (["translate", "--checkpoint", "c", "--prefix-file", "-"], "are both standard input"),
        (["translate", "--checkpoint", "c", "--sample-top-k", "5"], "--sample-top-k is for `seqkd translate --decoder"),
        (["distill", "--checkpoint", "c", "--out", "o", "--sample-seed", "1"], "--sample-seed is for `seqkd translate"),
        (["evaluate", "--checkpoint", "c", "--sample-temperature", "0.5"], "--sample-temperature is for"),
        (["translate", "--checkpoint", "c", "--length-alpha", "0.6"], "--length-alpha is for --length-rule"),
        (
            ["distill", "--checkpoint", "c", "--out", "o", "--source-only", "f", "--hold-out", "5"],
            "--source-only is instead of a corpus",
        ),
        (["train", "--out", "o", "--transformer.width", "16"], "--transformer.… is given, but --model lstm"),
        (["train", "--out", "o", "--model", "transformer", "--lstm.size", "8"], "--lstm.… is given, but --model t"),
        (["train", "--out", "o", "--vocabulary", "v", "--vocab.size", "9"], "--vocab.… says how to learn"),
        (["train", "--out", "o", "--loss.temperature", "2"], "--loss.temperature is for --loss.name word_kd"),
        (["train", "--out", "o", "--teacher", "t"], "--teacher is given, but loss nll reads none"),
        (
            ["distill", "--checkpoint", "c", "--out", "o", "--source-only", "f", "--selection", "chrf"],
            "needs references",
        ),
        (["translate", "--checkpoint", "c", "--dictionary", "d"], "--dictionary is for --replace-unknown"),
        (["translate", "--checkpoint", "c", "--attention-head", "1"], "are for --attention FILE"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_read(capfd, command, said):
    """No checkpoint or corpus of these commands exists; the error is of the options all the same."""
    assert said in fails(capfd, *command)
