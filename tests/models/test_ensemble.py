"""An ensemble against the mean of its members' probabilities in float64, and as a Translator like any other."""

import dataclasses

import jax
import numpy as np
import pytest
from reference import reference_beam_search
from tiny import TINY, WITHOUT_ATTENTION, next_log_probs, parameters

from seqkd_jax import checkpoint, models
from seqkd_jax.config import LSTMConfig, SearchConfig, TransformerConfig, VocabularyConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.decoding import Decoding, force_score, translate_ids, without_ends
from seqkd_jax.decoding.search.past import extended, nothing_own, reordered, with_beam_axis
from seqkd_jax.models import ensemble
from seqkd_jax.types import BOS, EOS, PAD, UserError

V, B, S, T, K = 11, 3, 5, 4, 2
CONFIG = SearchConfig(beam=3, length_rule="gnmt", max_length_a=1.0, max_length_b=3.0)
OPTIONS = dict(source_buckets=(8,), batch_tokens=24)
CONFIGS = (
    LSTMConfig(layers=1, size=8),
    TransformerConfig(encoder_layers=1, decoder_layers=1, width=8, heads=2, feed_forward=8, tied="none"),
    LSTMConfig(layers=1, size=6, attention=False),
)


def inputs(seed=0):
    random = np.random.default_rng(seed)
    source = random.integers(EOS + 1, V, (B, S)).astype(np.int32)
    source[0, 4], source[1, 2], source[1, 3:] = EOS, EOS, PAD
    target = random.integers(EOS + 1, V, (B, T)).astype(np.int32)
    target[:, 0] = BOS
    return source, target


@pytest.fixture(scope="module")
def mixed():
    """An LSTM, a Transformer and an LSTM without attention, with random weights; and their ensemble."""
    members = tuple(models.build(config, V, V) for config in CONFIGS)
    model = ensemble(members)
    return members, model, jax.jit(model.init)(jax.random.key(0))


def mean_log_probs(*asks):
    """log of the mean probability of several `ask` (see reference.py), plainly."""
    return lambda prefix: np.log(np.mean([np.exp(ask(prefix)) for ask in asks], axis=0))


def test_head_is_the_log_of_the_mean_probability(mixed):
    members, model, params = mixed
    features = jax.jit(lambda p, x: model.features(p, x, None))(params, inputs())
    found = jax.jit(model.head)(params, features)
    logits = [np.asarray(m.head(p, f), np.float64) for m, p, f in zip(members, params, features, strict=True)]
    probabilities = [np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in logits]
    assert found.dtype == np.float32 and found.shape == (B, T, V)
    np.testing.assert_allclose(found, np.log(np.mean(probabilities, axis=0)), rtol=1e-5, atol=1e-5)


def test_a_member_that_is_sure_does_not_overflow():
    """Logits of thousands: the mean of (1, 0) and (0, 1) is 1/2 each, and what both exclude stays -inf or tiny."""
    model = ensemble((TINY, TINY))
    params = tuple({"output": np.zeros((V, 6), np.float32), "bias": np.zeros(V, np.float32)} for _ in range(2))
    params[0]["bias"][4], params[1]["bias"][5] = 5000, 5000
    found = jax.jit(model.head)(params, (np.zeros((1, 6), np.float32),) * 2)[0]
    np.testing.assert_allclose(found[4:6], np.log(0.5), rtol=1e-6)
    assert (np.delete(found, [4, 5]) < -4000).all() and np.isfinite(found).all()


def test_steps_repeated_equal_features(mixed):
    """With a beam axis, reordered half-way; attention is the mean of the members' that have one."""
    members, model, params = mixed
    source, target = inputs()
    memory, state = jax.jit(model.start)(params, source)
    state, caches, own = with_beam_axis(state, K), model.caches(B, K, T), nothing_own(B, K, K * T)
    step, stepped, exchanged = jax.jit(model.step), [], np.tile(np.arange(K)[::-1], (B, 1))
    for t in range(T):
        state, own = reordered((state, own), exchanged)
        own, past = extended(own)
        token = np.repeat(target[:, t : t + 1], K, axis=1)
        features, attention, state, caches = step(params, token, memory, state, caches, past)
        stepped.append(features)
    full = jax.jit(lambda p, x: model.features(p, x, None))(params, (source, target))
    for member, expected in enumerate(full):
        found = np.stack([np.asarray(features[member])[:, 1] for features in stepped], axis=1)
        np.testing.assert_allclose(found, expected, atol=2e-5)
    token, parts = np.full((B, K), 5), zip(members, params, memory, state, caches, strict=True)
    alone = [jax.jit(member.step)(part, token, *read, past)[1] for member, part, *read in parts]
    _, attention, *_ = step(params, token, memory, state, caches, past)
    assert alone[2] is None
    np.testing.assert_allclose(attention, (alone[0] + alone[1]) / 2, atol=1e-6)
    np.testing.assert_allclose(np.asarray(attention).sum(-1), 1, rtol=1e-5)


def test_dropout_has_keys_of_its_own_in_each_member(mixed):
    config = LSTMConfig(layers=1, size=8, dropout=0.5)
    member = models.build(config, V, V)
    params = jax.jit(member.init)(jax.random.key(0))
    model = ensemble((member, member))
    dropped = jax.jit(model.features)((params, params), inputs(), jax.random.split(jax.random.key(1), B))
    assert np.abs(dropped[0] - dropped[1]).max() > 1e-3


def test_search_under_an_ensemble_is_that_of_the_mean():
    """Beam search and forced scores, sentence by sentence, against plain Python over the mean of two NumPy nets."""
    both = tuple(parameters(seed, V, eos_bias=1.0) for seed in (1, 2))
    model = ensemble((TINY, WITHOUT_ATTENTION))
    random = np.random.default_rng(0)
    items = [[*random.integers(4, V, n).tolist(), EOS] for n in (1, 2, 3, 3, 5, 7)]
    found = list(translate_ids(model, both, items, Decoding(CONFIG, **OPTIONS)))
    alone = list(translate_ids(TINY, both[0], items, Decoding(CONFIG, **OPTIONS)))
    differ, pairs = 0, []
    for ids, hypotheses, other in zip(items, found, alone, strict=True):
        ask = mean_log_probs(*(next_log_probs(params, ids) for params in both))
        expected = reference_beam_search(ask, CONFIG, 0, len(ids) - 1 + 3)
        assert [without_ends(row) for row in hypotheses.tokens] == [[i for i in h[0] if i != EOS] for h in expected]
        np.testing.assert_allclose(hypotheses.scores, [h[1] for h in expected], rtol=3e-5, atol=3e-5)
        differ += not np.array_equal(hypotheses.tokens, other.tokens)
        pairs += [(ids, h[0][:-1], h[2]) for h in expected if h[3]]
    assert differ > 2, "the second member changes nothing: take other seeds"
    scores = list(force_score(model, both, [pair[:2] for pair in pairs], buckets=(16,)))
    np.testing.assert_allclose(scores, [pair[2] for pair in pairs], rtol=3e-5, atol=3e-5)


def test_equal_members_share_one_translator_and_count_nothing():
    assert ensemble((TINY, WITHOUT_ATTENTION)) is ensemble((TINY, WITHOUT_ATTENTION)), "every call would compile again"
    params = parameters(3, V)
    item = [[5, 6, 7, EOS]]
    twice = next(translate_ids(ensemble((TINY, TINY)), (params, params), item, Decoding(CONFIG, **OPTIONS)))
    once = next(translate_ids(TINY, params, item, Decoding(CONFIG, **OPTIONS)))
    np.testing.assert_array_equal(twice.tokens, once.tokens)
    np.testing.assert_allclose(twice.scores, once.scores, rtol=1e-5, err_msg="an ensemble of one model is that model")


WORDS = VocabularyConfig(kind="words", size=V, joint=False, tokenizer="pretokenised")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Three checkpoints: two kinds of model with one vocabulary, then one with another."""
    directory = tmp_path_factory.mktemp("saved")
    for name, config, text in (("a", CONFIGS[0], "r s t"), ("b", CONFIGS[1], "r s t"), ("c", CONFIGS[0], "r s u")):
        vocabularies = vocabulary.learn([text], [text], WORDS)
        size = vocabularies.source.size
        params = jax.jit(models.build(config, size, size).init)(jax.random.key(ord(name)))
        checkpoint.save(directory / name, params, model_config=config, vocabularies=vocabularies, metadata={"n": name})
    return directory


def test_checkpoints_load_as_an_ensemble(saved):
    a, b = (checkpoint.load(saved / name) for name in "ab")
    both = checkpoint.load_translators([saved / "a", saved / "b"])
    assert both.system.translator is ensemble((a.model, b.model))
    jax.tree.map(np.testing.assert_array_equal, both.system.params, (a.params, b.params))
    assert both.name == f"{saved / 'a'} + {saved / 'b'}"
    assert [member.metadata for member in both.members] == [{"n": "a"}, {"n": "b"}]
    prints = {a.fingerprint, b.fingerprint, both.fingerprint}
    assert len(prints) == 3, "an ensemble is another teacher than its members"
    assert a.fingerprint == checkpoint.fingerprint(saved / "a")
    assert [member["kind"] for member in both.config_json["members"]] == ["lstm", "transformer"]
    mixed = both._replace(members=(both.members[0], dataclasses.replace(both.members[1], compute="bfloat16")))
    assert (both.compute, mixed.compute) == (None, "bfloat16"), "the first may have been trained with it"


def test_one_checkpoint_is_itself(saved):
    one = checkpoint.load_translators([saved / "a"])
    assert one.directory == saved / "a" and one.name == str(saved / "a")
    assert one.system.translator is checkpoint.load(saved / "a").model


def test_what_is_no_ensemble_is_refused(saved):
    with pytest.raises(UserError, match=rf"{saved / 'c'}.*{saved / 'a'}.*one vocabulary"):
        checkpoint.load_translators([saved / "a", saved / "b", saved / "c"])
    with pytest.raises(UserError, match="--checkpoint"):
        checkpoint.load_translators([])
