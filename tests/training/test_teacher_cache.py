"""Word-KD with cached features is Word-KD with the teacher inside the step."""

import jax
import numpy as np
import pytest

from seqkd_jax import models
from seqkd_jax.config import (
    BatchConfig,
    LossConfig,
    LSTMConfig,
    OptimiserConfig,
    TrainConfig,
    TransformerConfig,
    VocabularyConfig,
)
from seqkd_jax.data import batches, corpus, vocabulary
from seqkd_jax.training import teacher_cache, train_step

PAIRS = corpus.toy_pairs(30, "train", 1)
CONFIG = BatchConfig(tokens=0, sentences=8, buckets=2)
WORDS = vocabulary.learn(
    PAIRS.sources, PAIRS.targets, VocabularyConfig("words", 200, joint=False, tokenizer="pretokenised")
)
ENCODED, _ = batches.encode_corpus(PAIRS, WORDS, CONFIG)
PLAN = batches.make_plan(ENCODED, CONFIG)
SIZES = WORDS.source.size, WORDS.target.size
STUDENT = models.build(LSTMConfig(1, 6, dropout=0.2), *SIZES)
TEACHERS = {
    "lstm": LSTMConfig(1, 10, dropout=0.3),
    "transformer": TransformerConfig(1, 1, 8, heads=2, feed_forward=8, tied="target"),
}


@pytest.fixture(params=TEACHERS)
def teacher(request):
    model = models.build(TEACHERS[request.param], *SIZES)
    return train_step.Teacher(model, jax.jit(model.init)(jax.random.key(5)))


def after_three_updates(encoded, teacher):
    config = TrainConfig(loss=LossConfig("word_kd"), optimiser=OptimiserConfig(name="sgd", clip_norm=0.0), devices=1)
    devices = train_step.devices(1)
    rule = train_step.static_rule(config.optimiser)
    update = train_step.make_update(STUDENT, "word_kd", rule, False, teacher.model, devices)
    state, losses = train_step.replicate(train_step.start_state(STUDENT, config), devices), []
    known = train_step.replicate(teacher.params, devices)
    for _, (_, batch) in zip(range(3), batches.train_batches(encoded, PLAN, CONFIG), strict=False):
        state, metrics = update(state, *train_step.arrange(batch, 1, 2), train_step.settings(config, 0.5), known)
        losses.append(np.asarray(metrics.loss_sum).item() / np.asarray(metrics.weight).item())
    return losses, jax.tree.map(np.asarray, state.params)


def test_updates_are_those_with_the_teacher_in_the_step(teacher):
    encoded = teacher_cache.with_features(teacher, ENCODED, PLAN, "test")
    losses, params = after_three_updates(encoded, teacher)
    expected_losses, expected = after_three_updates(ENCODED, teacher)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-6)
    for found, wanted in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    other = [features + 1.0 for features in encoded.teacher_features]
    assert after_three_updates(encoded._replace(teacher_features=other), teacher)[0] != losses, (
        "the step must read what it is given"
    )


def test_features_stay_in_memory_for_the_next_run_that_reads_the_same(teacher):
    first = teacher_cache.with_features(teacher, ENCODED, PLAN, "test", "one")
    again = teacher_cache.with_features(teacher, ENCODED, PLAN, "test", "one")
    assert again.teacher_features[0].base is first.teacher_features[0].base
    teacher_cache.with_features(teacher, ENCODED, PLAN, "test", "another")
    assert list(teacher_cache._kept) == ["another"], "there may be no room for two"
    teacher_cache.with_features(teacher, ENCODED, PLAN, "test")
    assert not teacher_cache._kept, "a run that does not ask for it leaves nothing"


def test_size_is_what_is_kept_and_each_sentence_has_its_own(teacher):
    encoded = teacher_cache.with_features(teacher, ENCODED, PLAN, "test")
    assert teacher_cache.size(teacher, ENCODED, PLAN) == sum(found.nbytes for found in encoded.teacher_features)
    for place in (0, 7, len(ENCODED.targets) - 1):
        one = ENCODED._replace(
            sources=[ENCODED.sources[place]], targets=[ENCODED.targets[place]], weights=ENCODED.weights[:1]
        )
        _, batch = next(batches.eval_batches(one, batches.make_plan(one, CONFIG, PLAN.shapes)))
        alone = teacher.model.features(teacher.params, batch.inputs, None)[0, : len(ENCODED.targets[place]) + 1]
        np.testing.assert_allclose(encoded.teacher_features[place], alone, rtol=1e-5, atol=1e-6)
