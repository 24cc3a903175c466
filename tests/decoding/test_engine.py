"""The engine against the simple search, whose results it must give; and what it promises beside them: less work."""

import jax
import numpy as np
import pytest
from searches import ROWS, STEPS, as_list, compiled, limits, request, sources
from tiny import TINY, parameters

from seqkd_jax import models
from seqkd_jax.config import LSTMConfig, SearchConfig, TransformerConfig
from seqkd_jax.decoding.search import PROFILES, engine, greedy_rules, named_rules
from seqkd_jax.models import caches

POOL = 2 * ROWS  # slots 3: they are refilled several times, and not evenly; the simple search takes ROWS at a time
VOCABULARY = 9


def simply(params, asked, config, model, steps):
    """What the simple search finds, by the program that the tests of that search compile."""
    search, rows = compiled("beam", config, steps, model), range(0, len(asked.source), ROWS)
    parts = [search(params, jax.tree.map(lambda leaf: leaf[first : first + ROWS], asked)) for first in rows]  # noqa: B023
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *jax.device_get(parts))


def pool(seed, vocabulary=VOCABULARY):
    """Sentences that may have 1 to STEPS tokens, and two fill rows."""
    asked = request(sources(seed, vocabulary, POOL), *limits(0, STEPS, POOL))
    longest = np.random.default_rng(seed).integers(1, STEPS + 1, POOL).astype(np.int32)
    longest[-2:] = 0
    return asked._replace(max_length=longest, min_length=np.minimum(asked.min_length, np.maximum(longest - 1, 0)))


def assert_same(params, asked, config, slots, model=TINY, steps=STEPS):
    slow = simply(params, asked, config, model, steps)
    fast = jax.device_get(compiled("engine", config, steps, model, slots)(params, asked))
    for row in range(len(asked.source)):
        wanted, found = as_list(slow, row), as_list(fast, row)
        assert [(ids, finished) for ids, *_, finished in found] == [(ids, finished) for ids, *_, finished in wanted], (
            f"row {row} of {config}, {slots} slots: the engine must give what the simple search gives"
        )
        for place in (1, 2):
            numbers = ([hypothesis[place] for hypothesis in list_] for list_ in (found, wanted))
            np.testing.assert_allclose(*numbers, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("beam", "slots"), [(1, 3), (4, 1), (4, 3), (4, None)])
def test_same_as_the_simple_search_however_many_slots(beam, slots):
    config = SearchConfig(beam=beam, length_rule="power", length_alpha=0.7)
    for seed in range(6):
        assert_same(parameters(seed, VOCABULARY, eos_bias=seed / 3), pool(seed), config, slots)


def test_fill_rows_may_stand_anywhere():
    asked = pool(1)
    longest = asked.max_length.copy()
    longest[[0, 1, 2, 5]], longest[-1] = 0, STEPS
    asked = asked._replace(max_length=longest, min_length=np.zeros_like(longest))
    assert_same(parameters(1, VOCABULARY), asked, SearchConfig(beam=4, length_rule="power", length_alpha=0.7), 3)


@pytest.mark.parametrize("rules", sorted(PROFILES))
def test_same_under_every_named_rule(rules):
    config = named_rules(SearchConfig(beam=3), rules)
    for seed in range(3):
        assert_same(parameters(seed, VOCABULARY, eos_bias=1.0), pool(seed), config, 3)


@pytest.mark.parametrize("rules", ["fairseq", "kim_rush", "t5x"])
def test_greedy_rules_make_it_greedy_whatever_the_rules_were(rules):
    config = named_rules(SearchConfig(beam=3), rules)
    slow, fast = compiled("greedy", config), compiled("engine", greedy_rules(config), STEPS, TINY, 3)
    for seed in range(3):
        params, asked = parameters(seed, VOCABULARY, eos_bias=1.0), pool(seed)
        wanted, found = jax.device_get((slow(params, asked), fast(params, asked)))
        np.testing.assert_array_equal(found.tokens, wanted.tokens)
        np.testing.assert_array_equal(found.finished, wanted.finished)
        np.testing.assert_allclose(found.log_probs, wanted.log_probs, rtol=1e-4)


@pytest.mark.parametrize(
    "constraint", [{"no_repeat_ngram": 2}, {"coverage_penalty": 0.4}, {"forbid_unk": True}], ids=lambda c: next(iter(c))
)
def test_same_under_constraints(constraint):
    config = SearchConfig(beam=3, **constraint)
    for seed in range(3):
        assert_same(parameters(seed, VOCABULARY), pool(seed), config, 3)


def test_same_with_prefixes():
    for seed in range(3):
        asked = pool(seed)
        prefix = np.random.default_rng(seed).integers(4, VOCABULARY, (POOL, 2)).astype(np.int32)
        prefix[::3] = 0  # none
        prefix[asked.max_length <= 2] = 0  # no room
        assert_same(parameters(seed, VOCABULARY), asked._replace(prefix=prefix), SearchConfig(beam=3), 3)


@pytest.mark.parametrize(
    "config",
    [LSTMConfig(2, 12, init_scale=0.8), TransformerConfig(1, 2, 12, heads=2, feed_forward=16)],
    ids=["lstm", "transformer"],
)
def test_same_with_the_models(config):
    """A refilled slot must not see what the sentence before left in it, caches least of all."""
    size = 700  # blocks of the vocabulary, not one
    model = models.build(config, size, size)
    params = jax.tree.map(lambda leaf: 3 * leaf, jax.jit(model.init)(jax.random.key(0)))
    for seed in range(3):
        assert_same(params, pool(seed, size), SearchConfig(beam=3), 3, model)


def test_same_when_every_block_of_the_caches_is_in_use_and_places_are_used_again(monkeypatch):
    """Long sentences beside short ones, whose slots are refilled: places become free in another order than they were
    taken in."""
    steps, slots = 24, 4
    model = models.build(TransformerConfig(0, 1, 12, heads=2, feed_forward=16), VOCABULARY, VOCABULARY)
    params = jax.tree.map(lambda leaf: 3 * leaf, jax.jit(model.init)(jax.random.key(0)))
    monkeypatch.setattr(caches, "LEAST", 1)
    assert len(model.caches(slots, 2, steps)[0]) == 2
    for seed in range(2):
        longest = np.random.default_rng(seed).integers(1, steps + 1, 2 * ROWS).astype(np.int32)
        longest[seed] = steps
        asked = request(sources(seed, VOCABULARY, 2 * ROWS), longest - 1, longest)
        assert_same(params, asked, SearchConfig(beam=2), slots, model, steps)


def test_an_ensemble_has_slots_too():
    model = models.ensemble((TINY, TINY))
    params = parameters(0, VOCABULARY), parameters(1, VOCABULARY)
    assert_same(params, pool(0), SearchConfig(beam=3), 3, model)


def test_slots_are_refilled_as_they_become_free():
    """Rows that are stepped: not slots x steps x batches, as when a batch waits for its longest sentence."""
    stepped = []

    def counted(params, token, *rest):
        jax.debug.callback(lambda _: stepped.append(len(token)), token[0, 0])
        return TINY.step(params, token, *rest)

    asked = pool(5)._replace(max_length=np.array([9, 1, 1, 1, 1, 9, 1, 1, 1, 1, 1, 0], np.int32))
    config = SearchConfig(beam=2, min_length_b=8)  # every sentence takes what it may have
    asked = asked._replace(min_length=np.maximum(asked.max_length - 1, 0))
    jax.block_until_ready(jax.jit(engine(TINY._replace(step=counted), config, STEPS, 2))(parameters(0, 9), asked))
    jax.effects_barrier()
    assert 14 <= len(stepped) <= 9 + 9, (  # 27 tokens by two slots
        f"{len(stepped)} steps of 2 slots for 27 tokens, of which one slot can hold 18 while the other takes the rest"
    )
