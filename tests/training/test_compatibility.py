"""What is known of a run before a corpus is read or anything is learned."""

import dataclasses

import jax
import pytest

from seqkd_jax import api, checkpoint, models
from seqkd_jax.config import (
    LossConfig,
    LSTMConfig,
    SequenceLSTMConfig,
    TrainConfig,
    TransformerConfig,
    VocabularyConfig,
)
from seqkd_jax.data import vocabulary
from seqkd_jax.data.corpus import Corpus
from seqkd_jax.training import compatibility
from seqkd_jax.types import UserError

WORDS, OTHERS = (vocabulary.words([f"{letter}{index}" for index in range(6)]) for letter in "wv")
MODEL = TransformerConfig(1, 1, 8, 2, 16, dropout=0.2)
SOFT = TrainConfig(loss=LossConfig("word_kd"))


def save(directory, model, replicas=1):
    built = models.build(model, WORDS.source.size, WORDS.target.size)
    params = built.init(jax.random.key(0))
    stacked = params if replicas == 1 else jax.tree.map(lambda leaf: jax.numpy.stack([leaf] * replicas), params)
    parts = {"model_config": model, "vocabularies": WORDS, "metadata": {}, "replicas": replicas}
    return checkpoint.save(directory, stacked, **parts)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return save(tmp_path_factory.mktemp("start") / "best", MODEL)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A teacher of three seeds."""
    return save(tmp_path_factory.mktemp("three") / "best", LSTMConfig(1, 4), replicas=3)


def test_the_model_is_that_of_the_start(start):
    assert compatibility.model_of_run(None, TrainConfig(), start=start) == MODEL
    assert compatibility.model_of_run(None, TrainConfig()) == LSTMConfig()
    tuned = dataclasses.replace(MODEL, dropout=0.0, attention_dropout=0.5, compute="bfloat16")
    assert compatibility.model_of_run(tuned, TrainConfig(), start=start) == tuned, "what training may change"


def test_a_difference_from_the_start_is_told_field_by_field(start):
    other = dataclasses.replace(MODEL, width=16, heads=4, norm="post", dropout=0.5)
    with pytest.raises(UserError) as told:
        compatibility.model_of_run(other, TrainConfig(), start=start, named=lambda name: f"--{name}")
    assert str(told.value) == (
        f"{start}: is another model than this run trains: --transformer.width is 16, the start has 8; "
        "--transformer.heads is 4, the start has 2; --transformer.norm is post, the start has pre; "
        "leave out what differs, or the start"
    )
    with pytest.raises(UserError, match="model is lstm, the start has transformer; leave out"):
        compatibility.model_of_run(LSTMConfig(), TrainConfig(), start=start)


@pytest.mark.parametrize(("separate", "tied"), [(True, "target"), (False, "all")])
def test_two_vocabularies_of_one_size_are_not_tied_to_each_other(separate, tied):
    lines = ["red green blue"], ["rot gruen blau"]
    known = vocabulary.learn(*lines, VocabularyConfig(kind="words", size=7, tokenizer="pretokenised"))
    known = known if separate else WORDS
    model = TransformerConfig(1, 1, 8, 2, 16, tied=tied)
    assert known.source.size == known.target.size
    assert compatibility.model_of_run(model, TrainConfig(), vocabularies=known) == model
    if separate:
        model = dataclasses.replace(model, tied="all")
        with pytest.raises(UserError, match="transformer.tied is all, which needs one vocabulary .* set it to target"):
            compatibility.model_of_run(model, TrainConfig(), vocabularies=known)


@pytest.mark.parametrize(
    ("config", "options", "said"),
    [
        (TrainConfig(epochs=0), {}, "epochs is 0"),
        (TrainConfig(devices=99), {}, "devices=99, but this process has"),
        (SOFT, {}, "loss 'word_kd' needs a teacher"),
        (TrainConfig(), {"teacher": "start"}, "loss 'nll' reads no teacher: leave the teacher out, or"),
        (TrainConfig(), {"start": "nowhere"}, "nowhere: no such checkpoint"),
        (TrainConfig(), {"start": "three"}, "holds 3 seeds, and a run starts from one; extract it with `seqkd select`"),
        (SOFT, {"teacher": "nowhere"}, "nowhere: no such checkpoint"),
        (dataclasses.replace(SOFT, replicas=2), {"teacher": "three", "teachers": "each"}, "3 teachers for 2 students"),
        (SOFT, {"teacher": "classifier"}, "holds a sequence_lstm, which cannot teach a lstm"),
        (
            SOFT,
            {"teacher": "start", "vocabularies": OTHERS},
            "word_kd compares distributions entry by entry.*seqkd distill",
        ),
        (TrainConfig(), {"start": "start", "vocabularies": OTHERS}, "vocabulary"),
    ],
)
def test_what_does_not_fit_is_said_at_once(tmp_path, monkeypatch, start, three, config, options, said):
    """By the command's first step and by the public function alike: nothing is learned, nothing is written."""
    places = {"start": start, "three": three, "nowhere": tmp_path / "nowhere"}
    if "classifier" in options.values():
        places["classifier"] = save(tmp_path / "classifier", SequenceLSTMConfig(1, 4))
    options = {name: places[value] if value in list(places) else value for name, value in options.items()}
    with pytest.raises(UserError, match=said):
        compatibility.model_of_run(None, config, **options)
    monkeypatch.setattr(api.training, "learn_vocabulary", lambda *_: pytest.fail("learned"))
    corpus = Corpus(["w0 w1"], ["w2"], None, "c")
    with pytest.raises(UserError, match=said):
        api.train(corpus, corpus, tmp_path / "out", config=config, **options)
    assert not (tmp_path / "out").exists()
