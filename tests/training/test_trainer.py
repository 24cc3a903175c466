"""Any model on an encoded corpus: language models, classifiers and images, their teachers, what a batch looks like."""

import dataclasses

import jax
import numpy as np
import pytest

from seqkd_jax import checkpoint, models
from seqkd_jax.config import (
    BatchConfig,
    LossConfig,
    LSTMConfig,
    MLPConfig,
    OptimiserConfig,
    SequenceLSTMConfig,
    SequenceTransformerConfig,
    TrainConfig,
)
from seqkd_jax.data import batches, shaping, vocabulary
from seqkd_jax.training import compatibility, run_state, train_step, trainer
from seqkd_jax.training.trainer import Run
from seqkd_jax.types import BOS, EOS, Batch, UserError
from seqkd_jax.utils import files, programs

WORDS = vocabulary.words([f"w{index}" for index in range(12)])
CLASSES = vocabulary.labels(WORDS, ("even", "odd"))
BATCH = BatchConfig(tokens=0, sentences=8, buckets=2)
CONFIG = TrainConfig(
    optimiser=OptimiserConfig(learning_rate=0.03, schedule="constant", warmup_steps=0), epochs=6, batch=BATCH
)
LSTM = SequenceLSTMConfig(1, 8, dropout=0.0, input_dropout=0.0)


def lines(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(4, 16, rng.integers(2, 7)).tolist() for _ in range(count)]


def parity(count=64, seed=0):
    """Sequences whose class is the parity of their last word: learnable by what reads the end."""
    ids = lines(count, seed)
    return batches.classified([np.array([*line, EOS], np.int32) for line in ids], [line[-1] % 2 for line in ids])


def run(config=CONFIG, model=LSTM, teacher=None, **options):
    return Run(model, CLASSES, config, teacher=teacher, **options)


def train(run, directory, train=None, valid=None):
    return trainer.train_model(run, train or parity(), valid or parity(24, 1), directory)


def test_batches_of_a_language_model():
    encoded = batches.sequences([[5, 6, 7], [8]])
    plan = batches.make_plan(encoded, BATCH, [batches.Shape(8, 4, 8)])
    _, made = next(batches.eval_batches(encoded, plan))
    assert made.inputs[0].tolist() == [BOS, 5, 6, 7, 0, 0, 0, 0]
    assert made.labels[0].tolist() == [5, 6, 7, EOS, 0, 0, 0, 0]
    assert made.weights.sum(1).tolist() == [4, 2, 0, 0, 0, 0, 0, 0], "EOS counts, fill does not"


def test_batches_of_a_classifier():
    encoded = batches.classified([np.array([5, 6, EOS]), np.array([7, EOS])], [1, 0])
    _, made = next(batches.eval_batches(encoded, batches.make_plan(encoded, BATCH)))
    assert made.inputs[:2].tolist() == [[5, 6, EOS, 0], [7, EOS, 0, 0]]
    assert made.labels[:2].tolist() == [[1], [0]], "a class is one label at one position"
    assert made.weights[:, 0].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]


def test_batches_of_images():
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28)).astype(np.uint8)
    encoded = batches.classified(list(images), [4, 1, 9])
    plan = batches.make_plan(encoded, BATCH)
    _, made = next(batches.eval_batches(encoded, plan))
    assert made.inputs.shape == (8, 28, 28) and made.inputs.dtype == np.uint8
    np.testing.assert_array_equal(made.inputs[:3], images)
    assert made.labels[:3, 0].tolist() == [4, 1, 9]
    assert len(plan.shapes) == 1


def test_a_validation_loss_is_of_examples_alike(tmp_path):
    """Whatever weights the corpus has: it is nats of a label."""
    once = dataclasses.replace(CONFIG, epochs=1)
    plain = parity(24, 1)
    weighted = plain._replace(weights=np.linspace(0, 2, 24, dtype=np.float32))
    corpora = {"plain": plain, "weighted": weighted}
    found = [train(run(once), tmp_path / name, valid=valid).replicas[0].history for name, valid in corpora.items()]
    assert found[0] == found[1]


def test_a_run_starts_from_weights_of_its_model_and_vocabulary_alone(tmp_path):
    first = train(run(dataclasses.replace(CONFIG, epochs=1)), tmp_path / "first").best
    other = SequenceLSTMConfig(1, 6, dropout=0.0, input_dropout=0.0)
    with pytest.raises(UserError, match="sequence_lstm.size is 6, the start has 8; leave out what differs"):
        train(run(model=other)._replace(start=first), tmp_path / "other")
    words = vocabulary.labels(vocabulary.words([f"v{index}" for index in range(12)]), ("even", "odd"))
    with pytest.raises(UserError, match=words.fingerprint[:12]):
        train(run()._replace(start=first, vocabularies=words), tmp_path / "words")


def test_bleu_of_what_does_not_translate_is_refused(tmp_path):
    with pytest.raises(UserError, match="validate_bleu: this model is not validated by translating"):
        train(run(dataclasses.replace(CONFIG, validate_bleu=True)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_vocabularies_of_classifiers_are_kept(tmp_path):
    for made in (CLASSES, vocabulary.labels(None, "0123456789"), WORDS):
        vocabulary.save(made, tmp_path / made.fingerprint)
        found = vocabulary.load(tmp_path / made.fingerprint)
        assert found.fingerprint == made.fingerprint
        assert (found.source.size, found.target.size) == (made.source.size, made.target.size)
    assert CLASSES.target.encode("odd") == [1]
    assert WORDS.source.encode("w0 w11 other") == [4, 15, 1]
    with pytest.raises(UserError, match="no class named 'both'; the classes are even, odd"):
        CLASSES.target.encode("both")


@pytest.mark.parametrize("replicas", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_classifier_learns(tmp_path, replicas, capfd):
    """And says how many of its decisions are right."""
    found = train(run(dataclasses.replace(CONFIG, replicas=replicas)), tmp_path)
    for replica in found.replicas:
        assert replica.history[-1]["loss"] < 0.3, f"parity of the last word was not learned: {replica.history}"
    loaded, valid = checkpoint.load_all(tmp_path / "last"), parity(24, 1)
    for replica, model in zip(found.replicas, loaded, strict=True):
        _, made = next(batches.eval_batches(valid, batches.make_plan(valid, BATCH, [batches.Shape(24, 8, 1)])))
        logits = model.model.head(
            model.params, model.model.features(model.params, jax.numpy.asarray(made.inputs), None)
        )
        right = np.argmax(logits, axis=-1) == made.labels
        assert replica.history[-1]["accuracy"] == pytest.approx(right.mean())
    said = capfd.readouterr().err.splitlines()[-1]
    assert f"accuracy {max(entry['accuracy'] for entry in found.replicas[-1].history):.1%} at update" in said
    assert "examples/s" in said


def test_a_language_model_learns(tmp_path):
    model = SequenceTransformerConfig(1, 16, 2, 32, reads="every", tied=True, dropout=0.0)
    pattern = [[4 + (start + step) % 12 for step in range(6)] for start in range(12)] * 4
    encoded = batches.sequences(pattern)
    found = train(Run(model, WORDS, CONFIG), tmp_path, encoded, encoded)
    assert found.replicas[0].history[-1]["perplexity"] < 3, (
        "of seven labels one is a free choice among twelve: 12**(1/7) is 1.4"
    )


def test_a_start_that_bars_an_entry(tmp_path):
    """As an imported model bars its padding: the loss is a usual one, and a label that is barred is refused."""
    model = SequenceTransformerConfig(1, 8, 2, 16, reads="every", tied=True, dropout=0.0)
    loss = LossConfig(label_smoothing=0.1)
    once = Run(model, WORDS, dataclasses.replace(CONFIG, max_steps=1, log_every=1, loss=loss))
    start = models.build(model, WORDS.source.size, WORDS.target.size).init(jax.random.key(0))
    start["params"]["output_bias"] = start["params"]["output_bias"].at[5].set(-1e9)
    options = {"model_config": model, "vocabularies": WORDS, "metadata": {}}
    once = once._replace(start=checkpoint.save(tmp_path / "start", start, **options))
    encoded = batches.sequences([[4, 6, 7], [8, 9]])
    found = train(once, tmp_path / "tuned", encoded, encoded)
    first = next(line for line in files.read_jsonl(tmp_path / "tuned" / "metrics.jsonl") if "gradient_norm" in line)
    assert first["loss"] < 5 and found.replicas[0].history[-1]["loss"] < 5
    barred = batches.sequences([[4, 5]])
    for name, corpora in (("training", (barred, encoded)), ("validation", (encoded, barred))):
        with pytest.raises(UserError, match=f"the {name} corpus has entry 5 .* the model of .*start can never produce"):
            train(once, tmp_path / name, *corpora)


def test_a_usual_start_costs_no_program(tmp_path):
    """That it bars nothing is seen at its weights: each fine-tuning of a study would compile one more."""
    programs.count()
    model = SequenceTransformerConfig(1, 8, 2, 16, reads="every", tied=True, dropout=0.0)
    params = models.build(model, WORDS.source.size, WORDS.target.size).init(jax.random.key(0))
    start = checkpoint.save(tmp_path / "start", params, model_config=model, vocabularies=WORDS, metadata={})
    encoded, before = batches.sequences([[4, 6, 7], [8, 9]]), len(programs.built())
    train(
        Run(model, WORDS, dataclasses.replace(CONFIG, max_steps=1), start=start), tmp_path / "tuned", encoded, encoded
    )
    assert "jit(barred_entries)" not in [program.name for program in programs.built()[before:]]


def weights(directory, replica=None):
    return checkpoint.load(directory, replica=replica).params


def same(found, expected, message):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-4, atol=2e-5, err_msg=message)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Two seeds of a teacher."""
    directory = tmp_path_factory.mktemp("teachers")
    return train(run(dataclasses.replace(CONFIG, replicas=2)), directory).best


# Without biases: a key's bias changes no softmax, so its gradient is rounding, of which Adam makes steps of full size.
STUDENT = SequenceTransformerConfig(1, 8, 2, 16, biases=False, dropout=0.1)
SOFT = dataclasses.replace(CONFIG, epochs=2, loss=LossConfig("word_kd", alpha=1.0), replicas=2)


@pytest.mark.parametrize(
    ("kind", "teacher_cache_gib"), [pytest.param("one", 0.0, marks=pytest.mark.slow), ("each", 4.0)]
)
def test_students_of_one_teacher_or_of_their_own(tmp_path, teachers, kind, teacher_cache_gib):
    """Cached or in the step, for all or for each: the students are those of solo runs under that teacher."""
    options = {"model": STUDENT, "teacher": teachers, "teacher_cache_gib": teacher_cache_gib}
    many = train(run(SOFT, teachers=kind, **options), tmp_path / "many")
    for place in range(2):
        own = checkpoint.select(teachers, place if kind == "each" else 0, tmp_path / f"teacher-{place}")
        config = dataclasses.replace(SOFT, replicas=1, seed=place)
        alone = train(run(config, **{**options, "teacher": own}), tmp_path / f"alone-{place}")
        same(
            weights(many.best, place),
            weights(alone.best),
            f"student {place}, {kind}, teacher_cache_gib {teacher_cache_gib}",
        )


def test_what_cannot_teach(tmp_path, teachers, monkeypatch):
    three = dataclasses.replace(SOFT, replicas=3)
    with pytest.raises(UserError, match="holds 2 teachers for 3 students"):
        train(run(three, STUDENT, teachers, teachers="each"), tmp_path / "three")
    other = run(SOFT, STUDENT, teachers)._replace(vocabularies=vocabulary.labels(WORDS, ("odd", "even")))
    with pytest.raises(UserError, match="vocabulary"):
        train(other, tmp_path / "other")
    language_model = SequenceTransformerConfig(1, 8, 2, 16, reads="every", tied=True)
    encoded = batches.sequences(lines(8))
    with (
        monkeypatch.context() as patch,
        pytest.raises(UserError, match="its first seed cannot teach, because it diverged"),
    ):
        patch.setattr(checkpoint, "defect", lambda found: "diverged")
        train(run(SOFT, STUDENT, teachers), tmp_path / "diverged")
    with pytest.raises(UserError, match="vocabulary"):
        train(Run(language_model, WORDS, SOFT, teacher=teachers), tmp_path / "lm", encoded, encoded)


def test_a_teacher_of_another_kind_is_refused():
    with pytest.raises(
        UserError, match="t: holds a lstm, which cannot teach a sequence_transformer; name one that reads"
    ):
        compatibility.require_readable(STUDENT, LSTMConfig(), "t")


def test_students_of_the_same_teacher_share_its_most_probable_entries(tmp_path, teachers, monkeypatch):
    """Beside the run if no place is named, or there; the second run asks the teacher nothing."""
    loss = dataclasses.replace(SOFT.loss, name="word_kd_top_k", top_k=2)
    student = run(dataclasses.replace(SOFT, loss=loss, replicas=1), STUDENT, teachers)
    train(student, tmp_path / "one")
    cache = tmp_path / "one.teacher-top-k"
    assert {path.name for path in cache.iterdir()} == {".lock", "description.json", "shard-00000"}
    monkeypatch.setattr(trainer.teacher_top_k, "_made", lambda *_: pytest.fail("asked again"))
    train(student._replace(teacher_cache=cache), tmp_path / "two")
    same(weights(tmp_path / "one" / "best"), weights(tmp_path / "two" / "best"), "the second student")


def test_a_run_shorter_than_an_epoch_does_not_cache_its_teacher(tmp_path, teachers, monkeypatch):
    """Which would be asked about the whole corpus."""
    monkeypatch.setattr(trainer.teacher_cache, "with_features", lambda *_: pytest.fail("cached"))
    config = dataclasses.replace(SOFT, max_steps=1)
    train(run(config, STUDENT, teachers, teachers="each"), tmp_path)


def test_a_teacher_with_dropout_on_is_not_cached(tmp_path, teachers, monkeypatch):
    monkeypatch.setattr(trainer.teacher_cache, "with_features", lambda *_: pytest.fail("its features are not fixed"))
    config = dataclasses.replace(SOFT, loss=dataclasses.replace(SOFT.loss, teacher_dropout=True))
    train(run(config, STUDENT, teachers, teachers="each"), tmp_path)


def test_another_corpus_is_another_run(tmp_path):
    """Weights learned under one vocabulary must not be saved beside another."""
    one = run(dataclasses.replace(CONFIG, epochs=1))
    train(one, tmp_path)
    train(one, tmp_path)
    turned = parity()._replace(targets=parity().targets[::-1])
    with pytest.raises(UserError, match="holds a run with another training corpus"):
        train(one, tmp_path, turned)
    others = {
        "vocabulary": one._replace(vocabularies=vocabulary.labels(WORDS, ("odd", "even"))),
        "model": one._replace(model=dataclasses.replace(one.model, dropout=0.25)),
        "choice of batch shapes": one._replace(shapes=(batches.Shape(8, 40, 1),)),
    }
    for what, other in others.items():
        with pytest.raises(UserError, match=f"holds a run with another {what}"):
            train(other, tmp_path)


def test_a_run_of_an_older_version_keeps_its_batches(tmp_path, monkeypatch):
    """Of 0.4.0, where three shapes were the default and were chosen by another rule."""

    def made(buckets):
        batch = BatchConfig(tokens=0, sentences=8, buckets=buckets)
        return run(dataclasses.replace(CONFIG, batch=batch, max_steps=1))

    new, make, before = made(None), batches.make_plan, tmp_path / "before"
    with monkeypatch.context() as older:
        older.setattr(batches, "make_plan", lambda *given: make(*given[:3], shaping.FORMER))
        train(made(3), before)
    train(new, before)
    train(new, tmp_path / "new")
    train(new, tmp_path / "new")
    rules = [trainer._plan(new, parity(), tmp_path / name).rule for name in ("before", "new", "none")]
    assert rules == [shaping.FORMER, shaping.RULE, shaping.RULE]
    assert run_state.with_buckets_of_run(before, new.config).batch.buckets == 3
    with pytest.raises(UserError, match="holds a run with batch.buckets=3, not 2"):
        train(made(2), before)


def test_a_tuple_in_a_configuration_comes_back(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (16, 28, 28)).astype(np.uint8)
    encoded = batches.classified(list(images), [0, 1] * 8)
    config = dataclasses.replace(CONFIG, epochs=1)
    numbered = Run(MLPConfig((8, 4)), vocabulary.labels(None, ("a", "b")), config)
    found = checkpoint.load(train(numbered, tmp_path, encoded, encoded).best)
    assert found.model_config == MLPConfig((8, 4))
    assert files.read_json(tmp_path / "best" / "checkpoint.json")["replicas"] == 1


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_run_starts_from_the_weights_that_it_is_given(tmp_path, replicas):
    """At a rate of 0 they are what it ends with, of every replica."""
    still = dataclasses.replace(CONFIG.optimiser, learning_rate=0.0)
    start = train(run(dataclasses.replace(CONFIG, epochs=1)), tmp_path / "start").best
    config = dataclasses.replace(CONFIG, epochs=1, optimiser=still, replicas=replicas, seed=5)
    found = train(run(config, start=start), tmp_path / "tuned")
    for place in range(replicas) if replicas > 1 else [None]:
        jax.tree.map(np.testing.assert_array_equal, weights(found.best, place), weights(start))


def test_a_teacher_s_dropout_is_on_if_it_is_asked_for(tmp_path):
    """And it is drawn anew at every update."""
    model = models.build(SequenceLSTMConfig(1, 8, dropout=0.5, input_dropout=0.5), 16, 4)
    student = models.build(LSTM, 16, 4)
    devices = tuple(jax.local_devices()[:1])
    teacher = train_step.Teacher(model, model.init(jax.random.key(1)))
    arranged = train_step.arrange(Batch(np.full((4, 3), 7, np.int32), np.ones((4, 1), np.int32), np.ones((4, 1))), 1, 1)

    def after(dropout, step):
        config = dataclasses.replace(CONFIG, loss=LossConfig("word_kd", alpha=1.0, teacher_dropout=dropout), replicas=1)
        update = train_step.update_for(student, config, devices, teacher)
        state = train_step.start_state(student, config)._replace(step=np.int32(step))
        known = train_step.replicate(teacher.params, devices)
        _, metrics = update(train_step.replicate(state, devices), *arranged, train_step.settings(config, 0.1), known)
        return float(metrics.loss_sum)

    assert after(False, 0) == after(False, 1)
    assert len({after(False, 0), after(True, 0), after(True, 1)}) == 3
