"""Sampling against exact probabilities: what a token is drawn from, and how often whole sentences come."""

from functools import cache

import jax
import numpy as np
import pytest
from reference import reference_enumeration, reference_may_follow
from tiny import TINY, next_log_probs, parameters

from seqkd_jax.config import SearchConfig
from seqkd_jax.decoding import Decoding, translate_ids
from seqkd_jax.decoding.search import DECODERS, Request, sequence_log_probs
from seqkd_jax.decoding.search.sampling import narrowed
from seqkd_jax.types import BOS, EOS, PAD, UNK, UserError

V, ROWS, WIDTH = 6, 4, 4
NARROWINGS = {
    "as it is": {},
    "temperature": {"sample_temperature": 0.6},
    "top k": {"sample_top_k": 2},
    "top p": {"sample_top_p": 0.9},
    "all": {"sample_temperature": 1.7, "sample_top_k": 3, "sample_top_p": 0.9},
}


@cache
def compiled(config, steps):
    return jax.jit(DECODERS["sample"](TINY, config, steps))


def requests(source, longest, shortest=0, first=0, prefix=None, seed=0):
    """A request of these sentences, numbered from `first`."""
    rows = len(source)
    prefix = np.zeros((rows, 0), np.int32) if prefix is None else prefix
    shortest, longest = (np.broadcast_to(np.int32(limit), rows) for limit in (shortest, longest))
    draws = np.stack([np.full(rows, seed), first + np.arange(rows)], axis=-1).astype(np.uint32)
    return Request(source, shortest, longest, prefix, draws)


def sources(seed, rows=ROWS):
    source = np.random.default_rng(seed).integers(4, V, (rows, WIDTH)).astype(np.int32)
    source[:, -1] = EOS
    source[::2, 1:3] = EOS, PAD
    source[::2, 3] = PAD
    return source


def sample(config, params, request, steps):
    return jax.device_get(compiled(config, steps)(params, request))


def reference_narrowed(config, log_probs):
    """Log-probabilities that are drawn from [V], float64: divided, sorted, cut, renormalised, written out."""
    order = sorted(range(len(log_probs)), key=lambda token: -log_probs[token])
    weight = {token: np.exp(log_probs[token] / config.sample_temperature) for token in order}
    kept = order[: config.sample_top_k or None]
    total, reached, nucleus = sum(weight[token] for token in kept), 0.0, []
    for token in kept:
        if reached < config.sample_top_p or config.sample_top_p == 1:
            nucleus.append(token)
        reached += weight[token] / total
    mass = sum(weight[token] for token in nucleus)
    return np.array([np.log(weight[token] / mass) if token in nucleus and mass else -np.inf for token in range(V)])


@pytest.mark.parametrize("name", NARROWINGS)
def test_what_is_drawn_from(name):
    """Support and probabilities, over peaked and flat distributions of which the rules forbid a part."""
    config = SearchConfig(**NARROWINGS[name])
    program = jax.jit(lambda log_probs: narrowed(config, log_probs))
    cut = 0
    for seed in range(30):
        random = np.random.default_rng(seed)
        logits = random.normal(scale=(0.3, 1, 4)[seed % 3], size=V)
        log_probs = logits - np.log(np.exp(logits).sum())
        log_probs[[PAD, BOS]] = -np.inf
        with np.errstate(divide="ignore"):
            expected = reference_narrowed(config, log_probs)
        found, ids = program(log_probs.astype(np.float32))
        probabilities = np.zeros(V)
        probabilities[np.asarray(ids)] = jax.nn.softmax(found)
        np.testing.assert_array_equal(probabilities > 0, expected > -np.inf, err_msg=f"support, seed {seed}")
        np.testing.assert_allclose(probabilities, np.exp(expected), rtol=1e-4, atol=1e-7)
        cut += (expected[[UNK, EOS, 4, 5]] == -np.inf).any()
    assert cut or name in ("as it is", "temperature")


def test_a_nucleus_is_never_empty_and_stops_where_p_is_reached():
    logits = np.log(np.array([1e-9, 0.1, 1e-9, 0.2, 0.3, 0.4], np.float32))
    for p, support in ((1e-6, {5}), (0.35, {5}), (0.45, {5, 4}), (0.75, {5, 4, 3}), (0.95, {5, 4, 3, 1})):
        found, ids = narrowed(SearchConfig(sample_top_p=p), jax.numpy.asarray(logits))
        assert set(np.asarray(ids)[np.asarray(found) > -np.inf].tolist()) == support, p
    assert len(narrowed(SearchConfig(sample_top_k=100), jax.numpy.asarray(logits))[0]) == V


@pytest.mark.parametrize("name", NARROWINGS)
def test_sentences_come_as_often_as_they_should(name):
    """All sentences of at most 3 tokens, their exact probability beside their frequency among 12,000 samples."""
    config = SearchConfig(beam=500, forbid_unk=True, **NARROWINGS[name])
    params, rounds = parameters(5, V, spread=0.3), 6
    source = np.repeat(sources(1)[1:2], ROWS, axis=0)
    counts = {}
    for round_ in range(rounds):
        hypotheses = sample(config, params, requests(source, 3, shortest=1, first=round_ * ROWS), 3)
        for tokens in hypotheses.tokens.reshape(-1, 3).tolist():
            ids = tuple(token for token in tokens if token != PAD)
            counts[ids] = counts.get(ids, 0) + 1
    ask = next_log_probs(params, source[0][source[0] != PAD])

    def drawn_from(prefix):
        free = [reference_may_follow(config, prefix, token, 1) for token in range(V)]
        with np.errstate(divide="ignore"):
            return reference_narrowed(config, np.where(free, ask(prefix), -np.inf))

    draws = rounds * ROWS * config.beam
    assert sum(counts.values()) == draws
    statistic, freedom, expected_of_all = 0.0, -1, 0.0
    for ids, _, log_prob, _ in reference_enumeration(drawn_from, config, 1, 3):
        expected = draws * np.exp(log_prob)
        expected_of_all += expected
        if expected == 0:
            assert tuple(ids) not in counts, f"{ids} was cut, but came"
        elif expected >= 5:
            statistic += (counts.get(tuple(ids), 0) - expected) ** 2 / expected
            freedom += 1
    assert expected_of_all == pytest.approx(draws) and freedom >= 3
    limit = freedom + 4 * np.sqrt(2 * freedom)
    assert statistic < limit, f"chi-square {statistic:.1f} of {freedom} degrees of freedom: the frequencies are off"


def test_a_sample_depends_on_its_number_not_on_its_neighbours():
    """Bitwise: in any order and company, with fill rows; and another number, another sample."""
    config, params, source = SearchConfig(beam=3), parameters(2, V), sources(3)
    together = sample(config, params, requests(source, 6), 6)
    order = np.array([2, 0, 3, 1])
    one = requests(source, 6)
    shuffled = sample(config, params, one._replace(source=source[order], draws=one.draws[order]), 6)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[order], b), together, shuffled)
    alone = one._replace(max_length=np.where(np.arange(ROWS) == 2, 6, 0).astype(np.int32), source=source[::-1].copy())
    alone.source[2] = source[2]
    found = sample(config, params, alone, 6)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[2], b[2]), together, found)
    assert (found.tokens[0] == PAD).all() and (found.scores[0] == -np.inf).all() and not found.finished[0].any()
    renumbered = sample(config, params, requests(source, 6, first=100), 6)
    reseeded = sample(SearchConfig(beam=3), params, requests(source, 6, seed=1), 6)
    for other in (renumbered, reseeded):
        assert (other.tokens != together.tokens).any(axis=(1, 2)).all()


def test_few_samples_are_the_first_of_many():
    params, source = parameters(2, V), sources(3)
    few, many = (sample(SearchConfig(beam=beam), params, requests(source, 6), 6).tokens.tolist() for beam in (3, 8))
    for row in range(ROWS):
        left = list(many[row])
        for tokens in few[row]:
            assert tokens in left, f"row {row}: {tokens} is not among the samples of a wider beam"
            left.remove(tokens)


def test_the_same_number_in_a_stream_gives_the_same_samples():
    """Whatever the chunk and the sentences around it."""
    config = SearchConfig(beam=2, max_length_a=1.0, max_length_b=2.0)
    random = np.random.default_rng(0)
    items = [[*random.integers(4, V, random.integers(1, 7)).tolist(), EOS] for _ in range(9)]
    options = dict(decoder="sample", source_buckets=(4, 8), batch_tokens=16)
    whole = list(translate_ids(TINY, parameters(0, V), items, Decoding(config, **options)))
    chunked = list(translate_ids(TINY, parameters(0, V), items, Decoding(config, chunk=2, **options)))
    others = list(
        translate_ids(TINY, parameters(0, V), [[5, EOS]] * 4 + items[4:5] + [[EOS]], Decoding(config, **options))
    )
    for one, other in zip(whole + whole[4:5], chunked + others[4:5], strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    repeated = list(translate_ids(TINY, parameters(0, V), items[:1] * 9, Decoding(config, **options)))
    assert len({result.tokens.tobytes() for result in repeated}) > 1, "equal sentences must not share their samples"


def test_what_is_reported_is_the_models_own_probability():
    """Whatever the narrowing; sorted under the length rule."""
    config = SearchConfig(beam=4, length_rule="power", **NARROWINGS["all"])
    params, source = parameters(7, V, eos_bias=0.5), sources(4)
    found = sample(config, params, requests(source, 6, shortest=1), 6)
    rescore = jax.jit(lambda *arguments: sequence_log_probs(TINY, *arguments))
    for slot in range(config.beam):
        labels = found.tokens[:, slot]
        target_in = np.concatenate([np.full((ROWS, 1), BOS, np.int32), labels[:, :-1]], axis=1)
        expected = rescore(params, source, target_in, labels, (labels != PAD).astype(np.float32))
        np.testing.assert_allclose(found.log_probs[:, slot], expected, rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(found.scores[:, slot], expected / (labels != PAD).sum(-1), rtol=2e-5)
        np.testing.assert_array_equal(found.finished[:, slot], (labels == EOS).any(-1))
    assert (np.diff(found.scores) <= 0).all() and (np.diff(found.log_probs) > 0).any()


def test_cold_sampling_is_greedy():
    most_probable = jax.jit(DECODERS["greedy"](TINY, SearchConfig(), 6))
    for seed in range(4):
        params, request = parameters(seed, V), requests(sources(seed), 6)
        cold = sample(SearchConfig(beam=2, sample_temperature=1e-4), params, request, 6)
        one = sample(SearchConfig(beam=2, sample_top_k=1), params, request, 6)
        greedy = most_probable(params, request)
        for found in (cold, one):
            np.testing.assert_array_equal(found.tokens, np.repeat(greedy.tokens, 2, axis=1))
            np.testing.assert_allclose(found.log_probs, np.repeat(greedy.log_probs, 2, axis=1), rtol=1e-6)


def test_the_rules_hold():
    """Least and greatest length, no <unk>, and what the translation must begin with."""
    config = SearchConfig(beam=16, forbid_unk=True, sample_temperature=3.0)
    given = np.array([[4, 5], [5, PAD], [PAD, PAD], [UNK, 4]], np.int32)
    found = sample(config, parameters(1, V), requests(sources(1), [6, 5, 4, 6], [3, 2, 0, 3], prefix=given), 6)
    for row, (shortest, longest) in enumerate(((3, 6), (2, 5), (0, 4), (3, 6))):
        prefix = given[row][given[row] != PAD].tolist()
        for tokens in found.tokens[row]:
            ids = tokens[tokens != PAD].tolist()
            assert ids[: len(prefix)] == prefix and UNK not in ids[len(prefix) :] and BOS not in ids
            assert len(ids) <= longest and (EOS in ids or len(ids) == longest) and len(ids) - (EOS in ids) >= shortest


def test_a_sample_that_has_no_way_on_is_impossible():
    """Two words, neither of which may come twice, and no end before the third; others may end sooner."""
    config = SearchConfig(beam=4, forbid_unk=True, no_repeat_ngram=1, length_rule="power")
    found = sample(config, parameters(1, V), requests(sources(1), 6, [3, 0, 3, 2]), 6)
    for row in (0, 2):
        assert (found.scores[row] == -np.inf).all() and not found.finished[row].any()
        assert (found.tokens[row] == PAD).all(), "an impossible slot has no tokens"
    for row in (1, 3):
        assert np.isfinite(found.scores[row]).all() and found.finished[row].all()


@pytest.mark.parametrize(
    "field, value", [("temperature", 0.0), ("temperature", -1.0), ("top_k", -1), ("top_p", 0.0), ("top_p", 1.1)]
)
def test_what_cannot_be_drawn_from_is_refused(field, value):
    with pytest.raises(UserError, match=f"sample_{field} is {value}"):
        DECODERS["sample"](TINY, SearchConfig(**{f"sample_{field}": value}), 4)
