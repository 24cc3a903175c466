"""Speculative decoding: the output of greedy search, whatever the draft proposes."""

import functools

import jax
import numpy as np
import pytest

from seqkd_jax import models
from seqkd_jax.config import LSTMConfig, SearchConfig, TransformerConfig
from seqkd_jax.decoding.search import Request, counting_speculative, greedy, speculative
from seqkd_jax.models.drafted import drafted
from seqkd_jax.models.ensemble import ensemble
from seqkd_jax.types import EOS, UserError

V, B, S, T = 17, 6, 7, 12
VERIFIER = models.build(TransformerConfig(1, 1, 16, heads=2, feed_forward=32), V, V)
DRAFTS = {
    "transformer": models.build(TransformerConfig(1, 1, 8, heads=2, feed_forward=16), V, V),
    "lstm": models.build(LSTMConfig(1, 8), V, V),
}
RULES = {
    "plain": SearchConfig(beam=1),
    "three": SearchConfig(beam=1, draft_tokens=3, min_length_b=4.0),
    "one": SearchConfig(beam=1, draft_tokens=1, no_repeat_ngram=2),
    "longer than the translation": SearchConfig(beam=1, draft_tokens=15, at_limit="free_eos", length_rule="power"),
    "coverage": SearchConfig(beam=1, coverage_penalty=0.3, at_limit="forced_eos", forbid_unk=True),
}


def sharp(model, seed):
    """Parameters whose distributions are not flat."""
    return jax.tree.map(lambda leaf: 3 * leaf, model.init(jax.random.key(seed)))


def request(seed, prefix=0):
    draw = np.random.default_rng(seed)
    source = draw.integers(4, V, (B, S)).astype(np.int32)
    for row, length in zip(source, draw.integers(1, S, B), strict=True):
        row[length], row[length + 1 :] = EOS, 0
    most = draw.integers(1, T + 1, B).astype(np.int32)
    most[-1] = 0  # a fill row
    least, given = np.minimum(4, most - 1).clip(0), draw.integers(4, V, (B, prefix)).astype(np.int32)
    return Request(source, least.astype(np.int32), most, given, np.zeros((B, 2), np.uint32))


@functools.cache
def compiled(search, model, rules):
    return jax.jit(search(model, rules, T))


def assert_is_greedy(model, params, rules, asked):
    ours = compiled(speculative, model, rules)(params, asked)
    plain = compiled(greedy, model, rules)(params, asked)
    np.testing.assert_array_equal(ours.tokens, plain.tokens)
    np.testing.assert_array_equal(ours.finished, plain.finished)
    np.testing.assert_allclose(ours.log_probs, plain.log_probs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours.scores, plain.scores, rtol=1e-4, atol=1e-4)
    return ours


@pytest.mark.parametrize(("rules", "draft"), [*((rules, "transformer") for rules in RULES), ("three", "lstm")])
def test_the_output_is_that_of_greedy_search(rules, draft):
    model = drafted(VERIFIER, DRAFTS[draft])
    for seed in range(4):
        params = sharp(VERIFIER, seed), sharp(DRAFTS[draft], seed + 10)
        found = assert_is_greedy(model, params, RULES[rules], request(seed, prefix=2 * (rules == "three")))
        assert (np.asarray(found.tokens)[-1] == 0).all(), "a fill row has no translation"


def test_a_draft_that_is_always_right_and_an_ensemble():
    params = sharp(VERIFIER, 0)
    assert_is_greedy(drafted(VERIFIER, VERIFIER), (params, params), RULES["plain"], request(0))
    both = ensemble((VERIFIER, VERIFIER))
    own = (params, sharp(VERIFIER, 1)), sharp(DRAFTS["lstm"], 2)
    assert_is_greedy(drafted(both, DRAFTS["lstm"]), own, RULES["three"], request(1))


def test_rounds_are_as_few_as_the_draft_is_right():
    """Of D + 1 tokens each where the draft is the verifier."""
    rules, params, asked = SearchConfig(beam=1, draft_tokens=3), sharp(VERIFIER, 0), request(0)
    asked = asked._replace(max_length=np.full(B, T, np.int32), min_length=np.full(B, T - 1, np.int32))
    search = jax.jit(counting_speculative(drafted(VERIFIER, VERIFIER), rules, T))
    _, rounds = search((params, params), asked)
    np.testing.assert_array_equal(rounds, np.full(B, T // 4))
    _, rounds = search((params, params), asked._replace(max_length=np.zeros(B, np.int32)))
    np.testing.assert_array_equal(rounds, 0)


def test_what_cannot_verify_is_refused():
    with pytest.raises(UserError, match=r"--draft .*only a Transformer can verify.*use --decoder greedy"):
        drafted(DRAFTS["lstm"], VERIFIER)
    with pytest.raises(UserError, match="speculative decoding needs a draft"):
        speculative(VERIFIER, SearchConfig(beam=1), T)
