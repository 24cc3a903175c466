"""What a model gives to references, against the model asked word by word in float64."""

import math

import jax
import numpy as np
import pytest
from tiny import TINY, log_prob, next_log_probs, parameters

from seqkd_jax.config import BatchConfig, VocabularyConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.data.batches import encode_corpus, eval_batches, make_plan
from seqkd_jax.data.corpus import Corpus
from seqkd_jax.evaluation import likelihood
from seqkd_jax.losses import blockwise
from seqkd_jax.models import ensemble
from seqkd_jax.types import EOS, System, UserError

WORDS = ["a", "b", "c", "d", "e", "f", "g", "h"]
VOCABULARIES = vocabulary.learn(
    WORDS, WORDS, VocabularyConfig(kind="words", size=12, joint=False, tokenizer="pretokenised")
)
PARAMS = parameters(1, vocabulary=12)
BATCH = BatchConfig(tokens=32, buckets=2, max_source=4, max_target=4)


def corpus(weights=None, count=9):
    random = np.random.default_rng(0)
    lines = [" ".join(random.choice(WORDS, random.integers(1, 7))) for _ in range(2 * count)]
    return Corpus(lines[:count], lines[count:], weights, "test")


@pytest.mark.parametrize("batch", [BATCH, BatchConfig(tokens=0, sentences=3, buckets=1)])
def test_perplexity_is_the_token_mean_over_the_corpus(batch):
    """Whatever the batches; overlong pairs count, corpus weights do not."""
    data = corpus(weights=[0.5] * 9)
    found = likelihood.of_references(System(TINY, PARAMS, VOCABULARIES), data, batch)
    expected = 0.0
    for source, target in zip(data.sources, data.targets, strict=True):
        ids = [*VOCABULARIES.source.encode(source), EOS], [*VOCABULARIES.target.encode(target), EOS]
        expected += log_prob(PARAMS, *ids)
    tokens = sum(len(line.split()) + 1 for line in data.targets)
    assert found.tokens == tokens
    assert found.nats == pytest.approx(-expected, rel=1e-5)
    assert found.mean == pytest.approx(-expected / tokens, rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(-expected / tokens), rel=1e-5)


def test_an_entry_that_is_barred_leaves_a_finite_perplexity():
    """Masked by -inf, of which a smoothing of 0 makes no number."""
    params = {**PARAMS, "bias": np.where(np.arange(12) == 0, -np.inf, PARAMS["bias"]).astype(np.float32)}
    found = likelihood.of_references(System(TINY, params, VOCABULARIES), corpus(), BATCH)
    never = {**PARAMS, "bias": np.where(np.arange(12) == 0, -1e4, PARAMS["bias"]).astype(np.float32)}
    assert found == likelihood.of_references(System(TINY, never, VOCABULARIES), corpus(), BATCH)


@pytest.mark.parametrize("system", [(TINY, PARAMS), (ensemble((TINY, TINY)), (PARAMS, parameters(2, vocabulary=12)))])
def test_in_blocks_of_positions_it_is_the_same(monkeypatch, system):
    """A batch of 32 labels in blocks of three, the last one filled up; at once there is one block."""
    (model, params), batch = system, BatchConfig(tokens=32, buckets=1)
    whole = likelihood.of_references(System(model, params, VOCABULARIES), corpus(), batch)
    monkeypatch.setitem(blockwise.LOGITS, jax.default_backend(), 3 * 12)
    another = model._replace(head=lambda *given: model.head(*given))  # what was compiled before has one block
    found = likelihood.of_references(System(another, params, VOCABULARIES), corpus(), batch)
    assert found.tokens == whole.tokens
    assert found.nats == pytest.approx(whole.nats, rel=1e-6)


def test_a_model_without_any_idea_has_perplexity_v():
    nothing = {name: value * 0 for name, value in PARAMS.items()}
    found = likelihood.of_references(System(TINY, nothing, VOCABULARIES), corpus(), BATCH)
    assert found.perplexity == pytest.approx(12, rel=1e-5)


def test_entropy_is_the_mean_over_tokens():
    """Of the next token, EOS among them; an entry that is barred adds nothing."""
    barred = {**PARAMS, "bias": np.where(np.arange(12) == 0, -np.inf, PARAMS["bias"]).astype(np.float32)}
    for params in (PARAMS, barred):
        data, found = corpus(), []
        for source, target in zip(data.sources, data.targets, strict=True):
            ask = next_log_probs(params, [*VOCABULARIES.source.encode(source), EOS])
            ids = VOCABULARIES.target.encode(target)
            for length in range(len(ids) + 1):
                log_probs = ask(ids[:length])
                found.append(-sum(math.exp(one) * one for one in log_probs if one > -math.inf))
        system = System(TINY, params, VOCABULARIES)
        batches = likelihood.batches_of_all(system, data, BATCH)
        assert likelihood.entropy(TINY, params, batches) == pytest.approx(np.mean(found), rel=1e-5)


def test_batches_of_fill_alone_are_an_error():
    encoded, _ = encode_corpus(corpus(), VOCABULARIES, BATCH, keep_all=True)
    _, batch = next(eval_batches(encoded, make_plan(encoded, BATCH)))
    with pytest.raises(UserError, match="no reference token to score"):
        likelihood.of_batches(TINY, PARAMS, [batch._replace(weights=np.zeros_like(batch.weights))])
