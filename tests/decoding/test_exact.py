"""The exact search against enumeration, and what it says where a limit stops it."""

import functools
import itertools

import jax
import numpy as np
import pytest
from tiny import TINY, next_log_probs, parameters

from seqkd_jax import models
from seqkd_jax.config import ExactConfig, LSTMConfig, TransformerConfig
from seqkd_jax.decoding.modes import SAME, modes_of_ids
from seqkd_jax.decoding.search import sequence_log_probs
from seqkd_jax.decoding.search.exact import NOTHING, Known, exact_search
from seqkd_jax.types import BOS, EOS, PAD, UNK, UserError

V, T, WIDTH = 7, 5, 6
MODELS = {
    "tiny": TINY,
    "lstm": models.build(LSTMConfig(2, 8), V, V),
    "transformer": models.build(TransformerConfig(1, 2, 8, heads=2, feed_forward=16), V, V),
}
SPREAD = {"lstm": 30, "transformer": 1.6}
TOKENS = [UNK, *range(4, V)]
# Every translation of at most T tokens, EOS included, and every prefix of fewer than T.
PREFIXES = [list(prefix) for length in range(T) for prefix in itertools.product(TOKENS, repeat=length)]


def sharp(name, seed, ends=0.0):
    """Parameters whose distributions are not flat; a greater `ends` makes EOS more probable."""
    if name == "tiny":
        return parameters(seed, V, spread=1.3, eos_bias=ends)
    return jax.tree.map(lambda leaf: SPREAD[name] * leaf, MODELS[name].init(jax.random.key(seed)))


def sentences(seed, count):
    draw = np.random.default_rng(seed)
    return [[*draw.integers(4, V, length).tolist(), EOS] for length in draw.integers(1, WIDTH, count)]


def padded(rows):
    return np.array([[*row, *[PAD] * (WIDTH - len(row))] for row in rows], np.int32)


@functools.cache
def scorer(name):
    return jax.jit(functools.partial(sequence_log_probs, MODELS[name]))


def enumerated(name, params, source):
    """log p of each of PREFIXES, as a complete translation and as a prefix."""
    rows = len(PREFIXES)
    target_in, labels, complete, begun = np.zeros((4, rows, T), np.int32)
    for row, prefix in enumerate(PREFIXES):
        target_in[row, : len(prefix) + 1] = [BOS, *prefix]
        labels[row, : len(prefix) + 1] = [*prefix, EOS]
        complete[row, : len(prefix) + 1] = 1
        begun[row, : len(prefix)] = 1
    sources = np.repeat(padded([source]), rows, axis=0)
    arrays = target_in, labels
    return [np.asarray(scorer(name)(params, sources, *arrays, w.astype(np.float32))) for w in (complete, begun)]


def search(name, params, rows, known=None, longest=T, nodes=10_000):
    known = known or [NOTHING] * len(rows)
    return exact_search(MODELS[name], params, padded(rows), [longest] * len(rows), known, T, nodes)


@pytest.mark.parametrize("name", MODELS)
def test_it_finds_the_mode_among_all_translations(name):
    """And it is proven, unless a prefix at the limit is more probable: then translations beyond that may be, too."""
    proven = []
    for seed in range(4):
        params, rows = sharp(name, seed, ends=1.0), sentences(seed, 3)
        for found, source in zip(search(name, params, rows), rows, strict=True):
            complete, begun = enumerated(name, params, source)
            best = int(np.argmax(complete))
            assert list(found.tokens) == [*PREFIXES[best], EOS]
            assert found.log_prob == pytest.approx(complete[best], abs=1e-4)
            assert found.nodes >= np.sum(begun > found.log_prob)
            assert found.bound == found.log_prob or max(complete[best], -50) < found.bound <= 0
            proven.append((found.bound == found.log_prob, len(found.tokens)))
    # The examples have empty modes and others, and some that cannot be proven.
    assert (True, 1) in proven and {proved for proved, _ in proven} == {True, False}, proven
    assert any(proved and length > 1 for proved, length in proven) or name == "transformer", proven


@pytest.mark.parametrize("name", MODELS)
def test_from_the_mode_on_it_expands_what_is_more_probable_and_nothing_else(name):
    """No prefix that could become the mode is dropped, and none that could not is expanded."""
    params, rows = sharp(name, 1, ends=1.0), sentences(1, 3)
    for source in rows:
        complete, begun = enumerated(name, params, source)
        best = int(np.argmax(complete))
        known = Known((*PREFIXES[best], EOS), float(complete[best]))
        found = search(name, params, [source], [known])[0]
        assert found.tokens == known.tokens
        assert found.nodes == np.sum(begun > known.log_prob)


def test_a_limit_of_nodes_leaves_the_mode_between_what_was_found_and_the_bound():
    params, rows = sharp("lstm", 1), sentences(1, 6)
    whole = search("lstm", params, rows)
    most = max(found.nodes for found in whole) // 2
    for found, mode in zip(search("lstm", params, rows, nodes=most), whole, strict=True):
        assert found.nodes == min(mode.nodes, most)
        assert found.log_prob <= mode.log_prob <= mode.bound <= found.bound
        assert found == mode if mode.nodes <= most else found.bound > found.log_prob
    assert most < max(found.nodes for found in whole)


def test_a_result_does_not_depend_on_the_neighbours():
    """Nor does the number of prefixes, nor what is found where a limit stops the search."""
    params, rows = sharp("transformer", 2), sentences(2, 40)
    for nodes in (9, 10_000):
        together = search("transformer", params, rows, nodes=nodes)
        for one, other in zip(search("transformer", params, rows[:3], nodes=nodes), together, strict=False):
            assert one[::3] == other[::3]
            np.testing.assert_allclose(one[1:3], other[1:3], rtol=1e-5)


def test_it_starts_from_the_beam_search_and_says_what_that_missed():
    """Sentences of ids, in order; an empty one has an empty translation."""
    errors, exact = 0, ExactConfig(beam=1, nodes=500, max_length_a=0, max_length_b=T)
    for seed in range(6):
        params = parameters(seed, V, eos_bias=1.0)
        rows = [[EOS], *sentences(seed, 5)]
        found = list(modes_of_ids(TINY, params, rows, exact))
        assert found[0][0] == ((EOS,), 0.0, 0.0, 0)
        for (best, beam), source in zip(found[1:], rows[1:], strict=True):
            complete, _ = enumerated("tiny", params, source)
            assert best.log_prob == pytest.approx(np.max(complete), abs=1e-4)
            assert beam <= best.log_prob
            errors += beam < best.log_prob - SAME
            ask = next_log_probs(params, source)
            greedy, token = [], BOS
            while token != EOS and len(greedy) < T:
                token = max([*TOKENS, EOS], key=lambda one: ask(greedy)[one])
                greedy.append(token)
            assert (beam > -np.inf) == (token == EOS)
    assert errors > 2


def test_damaged_weights_are_named():
    params = sharp("tiny", 0)
    params["bias"][5] = np.nan
    with pytest.raises(UserError, match="NaN scores"):
        search("tiny", params, sentences(0, 1))
