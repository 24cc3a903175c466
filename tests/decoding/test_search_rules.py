"""The rules of other toolkits, and constraints: against a beam search in plain Python under the same rules."""

from dataclasses import fields, replace
from typing import get_args, get_type_hints

import jax
import numpy as np
import pytest
from reference import reference_beam_search, reference_may_follow
from searches import ALONE, ROWS, STEPS, as_list, assert_same, compiled, request, sources
from tiny import WITHOUT_ATTENTION, next_log_probs, parameters

from seqkd_jax import models
from seqkd_jax.config import LSTMConfig, SearchConfig, TransformerConfig
from seqkd_jax.decoding.search import DECODERS, PROFILES, named_rules
from seqkd_jax.decoding.search.rules import RULES
from seqkd_jax.types import EOS, PAD, UNK, UserError

V = 9
EXAMPLES = [(seed, (1.5, 0.5, 3.0, 2.0)[seed % 4], (-1.0, 0.5, 2.0, 3.0, 5.0)[seed % 5]) for seed in range(8)]


def examples(config):
    """Models, sources and limits of all sorts: yields (what, params, source, shortest, longest)."""
    for seed, spread, eos_bias in EXAMPLES:
        random = np.random.default_rng(seed)
        longest = random.integers(2, 2 * STEPS, ROWS).clip(max=STEPS).astype(np.int32)
        shortest = (random.integers(0, 3, ROWS) * (seed % 2)).clip(min=int(config.min_length_b), max=longest - 1)
        params = parameters(seed, vocabulary=V, spread=spread, eos_bias=eos_bias)
        yield f"seed {seed}", params, sources(seed, V), shortest.astype(np.int32), longest


def assert_as_the_reference(config, prefix=None, decoder="beam"):
    """Every row of every example; returns all that was found."""
    everything = []
    for what, params, source, shortest, longest in examples(config):
        asked = request(source, shortest, longest, prefix)
        hypotheses = jax.device_get(compiled(decoder, config)(params, asked))
        for row in range(ROWS):
            ask = next_log_probs(params, source[row][source[row] != PAD])
            given = () if prefix is None else prefix[row][prefix[row] != PAD].tolist()
            rules = (
                config if decoder != "greedy" else replace(config, beam=1, stop="first_k_finished", ended="replaced")
            )
            expected = reference_beam_search(ask, rules, shortest[row], longest[row], given)
            found = as_list(hypotheses, row)
            assert_same(found, expected, f"{what}, row {row}, {config}")
            everything.append(found)
    return everything


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_profiles_are_those_of_the_plain_search(name):
    found = assert_as_the_reference(named_rules(SearchConfig(beam=3), name))
    assert sum(h[3] for hypotheses in found for h in hypotheses) > 40
    if name in ("hf", "fairseq"):
        assert all(h[3] for hypotheses in found for h in hypotheses), "at the limit each gets its EOS"


def random_rules(seed):
    """Rules drawn from all there are, in every combination."""
    random = np.random.default_rng(seed)
    hints = get_type_hints(SearchConfig)
    chosen = {rule: random.choice(get_args(hints[rule])).item() for rule in RULES if get_args(hints[rule])}
    chosen |= {"length_alpha": float(random.uniform(0.3, 2.0)), "length_counts_eos": bool(random.integers(2))}
    chosen |= {"no_repeat_ngram": int(random.integers(4)), "coverage_penalty": float(random.choice([0.0, 0.4, 2.0]))}
    return SearchConfig(beam=int(random.integers(1, 5)), forbid_unk=bool(random.integers(2)), **chosen)


@pytest.mark.parametrize("seed", range(8))
def test_any_rules_together_are_those_of_the_plain_search(seed):
    random = np.random.default_rng(seed)
    prefix = random.integers(EOS + 1, V, (ROWS, 3)).astype(np.int32)
    prefix = np.where(np.arange(3) < random.integers(0, 2, (ROWS, 1)), prefix, PAD) if seed % 2 else None
    assert_as_the_reference(random_rules(seed), prefix)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 160))
def test_many_more_rules_together(seed):
    assert_as_the_reference(random_rules(seed))


def test_every_pair_of_profiles_differs_somewhere():
    """So that a difference between toolkits has a name: the best translation, or the list, of some sentence."""
    found = {name: [] for name in PROFILES}
    for name in PROFILES:
        config = named_rules(SearchConfig(beam=3), name)
        for _, params, source, shortest, longest in examples(SearchConfig()):
            found[name].append(jax.device_get(compiled("beam", config)(params, request(source, shortest, longest))))
    names = sorted(PROFILES)
    for name in names:
        for other in names[: names.index(name)]:
            pairs = zip(found[name], found[other], strict=True)
            assert any((a.tokens[:, 0] != b.tokens[:, 0]).any() for a, b in pairs), f"{name} and {other} never differ"


def ladder(*log_probs):
    """An `ask` that gives the same log-probabilities whatever came before: by id, the rest impossible."""
    row = np.full(8, -np.inf)
    row[EOS : EOS + len(log_probs)] = log_probs
    return lambda prefix: row


def test_rules_worked_by_hand():
    """p(EOS) = 0.3, p(a) = 0.6, p(b) = 0.1 at every step, at most 3 tokens, beam 1: what each rule makes of it."""
    ask = ladder(np.log(0.3), np.log(0.6), np.log(0.1))
    best = lambda **rules: reference_beam_search(ask, SearchConfig(beam=1, **rules), 0, 3)[0]  # noqa: E731
    a = EOS + 1
    assert best()[0] == [a, a, a] and not best()[3], "EOS is never the best candidate"
    assert best(at_limit="forced_eos")[0] == [a, a, EOS]
    assert best(at_limit="free_eos")[:3] == ([a, a, EOS], pytest.approx(np.log(0.36)), pytest.approx(np.log(0.36)))
    assert best(eos_among="all")[0] == [EOS], "it is among two candidates"
    power = best(eos_among="all", length_rule="power")
    assert power[0] == [a, a, EOS] and power[1] == pytest.approx(np.log(0.36 * 0.3) / 3)
    without = best(eos_among="all", length_rule="power", length_counts_eos=False)
    assert without[0] == [a, a, EOS] and without[1] == pytest.approx(np.log(0.36 * 0.3) / 2)


def test_named_rules_are_the_whole_of_the_rules():
    """Whatever the configuration was; and what no rule is stays."""
    odd = SearchConfig(beam=7, length_rule="gnmt", ended="removed", keep="first", no_repeat_ngram=3, max_length_b=5.0)
    for name in PROFILES:
        found = named_rules(odd, name)
        assert {rule: getattr(found, rule) for rule in RULES} == {
            rule: getattr(named_rules(SearchConfig(), name), rule) for rule in RULES
        }
        assert (found.beam, found.no_repeat_ngram, found.max_length_b) == (7, 3, 5.0)
        assert set(PROFILES[name]) <= {field.name for field in fields(SearchConfig)}
    with pytest.raises(UserError, match="kim_rush.*t5x"):
        named_rules(odd, "opennmt")


@pytest.mark.parametrize("decoder", sorted(set(ALONE) - {"sample"}))
def test_no_ngram_comes_twice(decoder):
    size = 3 if decoder == "engine" else 1
    config = SearchConfig(beam=3, no_repeat_ngram=size)
    for hypotheses in assert_as_the_reference(config, decoder=decoder):
        for ids, *_ in hypotheses:
            ngrams = [tuple(ids[i : i + size]) for i in range(len(ids) - size + 1)]
            assert len(set(ngrams)) == len(ngrams)


def test_an_ngram_longer_than_any_translation_bars_nothing():
    plain, config = SearchConfig(beam=3), SearchConfig(beam=3, no_repeat_ngram=STEPS + 1)
    for _, params, source, shortest, longest in examples(plain):
        asked = request(source, shortest, longest)
        found = (compiled("beam", rules)(params, asked) for rules in (plain, config))
        jax.tree.map(np.testing.assert_array_equal, *found)


@pytest.mark.parametrize("decoder", sorted(set(ALONE) - {"sample"}))
def test_coverage_counts(decoder):
    config = SearchConfig(beam=3, length_rule="gnmt", coverage_penalty=1.0)
    with_it = assert_as_the_reference(config, decoder=decoder)
    if decoder == "beam":
        without = assert_as_the_reference(replace(config, coverage_penalty=0.0))
        changed = sum(a[0][0] != b[0][0] for a, b in zip(with_it, without, strict=True))
        assert changed > 3, "coverage never changes the choice: take other examples"


@pytest.mark.parametrize("decoder", ALONE)
def test_coverage_without_attention_is_refused_by_name(decoder):
    limits = np.zeros(ROWS, np.int32), np.full(ROWS, STEPS, np.int32)
    with pytest.raises(UserError, match="--coverage-penalty.*(attention|decoder)") as caught:
        search = jax.jit(DECODERS[decoder](WITHOUT_ATTENTION, SearchConfig(beam=2, coverage_penalty=0.5), STEPS))
        search(parameters(0, V), request(sources(0, V), *limits))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("decoder", sorted(set(ALONE) - {"sample"}))
def test_prefixes_are_obeyed(decoder):
    """Of any length, none too; even where rules would bar a token: <unk>, an early repetition."""
    random = np.random.default_rng(0)
    prefix = random.integers(EOS + 1, V, (ROWS, 4)).astype(np.int32)
    prefix[0], prefix[1, 2:], prefix[2, :2] = PAD, PAD, UNK
    config = SearchConfig(beam=3, forbid_unk=True, no_repeat_ngram=1, length_rule="gnmt")
    for row, found in enumerate(assert_as_the_reference(config, prefix, decoder)):
        given = prefix[row % ROWS][prefix[row % ROWS] != PAD].tolist()
        assert all(ids[: len(given)] == given[: len(ids)] for ids, *_ in found)


SMALL = {
    "lstm": LSTMConfig(layers=1, size=6),
    "transformer": TransformerConfig(encoder_layers=1, decoder_layers=1, width=8, heads=2, feed_forward=8),
}


@pytest.fixture(scope="module", params=SMALL)
def small(request):
    """A real model and its random weights, sharpened."""
    model = models.build(SMALL[request.param], V, V)
    params = jax.jit(model.init)(jax.random.key(0))
    return model, jax.tree.map(lambda leaf: np.asarray(leaf) * 4, params)


@pytest.mark.parametrize("decoder", sorted(DECODERS))
def test_every_decoder_obeys_every_constraint_or_refuses_it(decoder, small):
    """Contract: over real models, by what may follow what; a refusal is one line that names the constraint."""
    model, params = small
    prefix = np.array([[5, 6], [7, PAD], [PAD, PAD]] * (ROWS // 3), np.int32)
    shortest, longest = np.full(ROWS, 3, np.int32), np.full(ROWS, STEPS, np.int32)
    config = SearchConfig(beam=2, no_repeat_ngram=2, coverage_penalty=0.3, forbid_unk=True, at_limit="forced_eos")
    try:
        if decoder == "speculative":
            model, params = models.drafted(model, model), (params, jax.tree.map(np.negative, params))
        search = compiled(decoder, config, STEPS, model)
        hypotheses = jax.device_get(search(params, request(sources(1, V), shortest, longest, prefix)))
    except UserError as error:
        names = "no_repeat_ngram", "coverage_penalty", "prefix", "at_limit", "forbid_unk", "draft"
        assert any(name in str(error) for name in names) and "\n" not in str(error)
        return
    for row in range(ROWS):
        start = prefix[row][prefix[row] != PAD].tolist()
        found = as_list(hypotheses, row)
        assert found
        for ids, *_ in found:
            for t, token in enumerate(ids):
                allowed = reference_may_follow(config, ids[:t], token, 3, STEPS, start)
                assert allowed, f"{decoder} broke a constraint: token {t} of {ids}"


def test_padding_needs_no_attention():
    """Coverage is of the sentence: a wider batch changes nothing but rounding."""
    config = SearchConfig(beam=3, coverage_penalty=1.0)
    for _, params, source, shortest, longest in list(examples(config))[:3]:
        found = [
            jax.device_get(compiled("beam", config)(params, request(wide, shortest, longest)))
            for wide in (source, np.pad(source, ((0, 0), (0, 3))))
        ]
        np.testing.assert_array_equal(found[0].tokens, found[1].tokens)
        np.testing.assert_allclose(found[0].scores, found[1].scores, rtol=1e-4)


def test_limits_that_hold_for_every_sentence_are_taken():
    """One token at least, twice the source at most: no contradiction, since a source has a token."""
    SearchConfig(min_length_b=1, max_length_a=2, max_length_b=0).validate()
    for wrong in ({"min_length_b": 3, "max_length_a": 2, "max_length_b": 0}, {"min_length_a": 2, "max_length_a": 1}):
        with pytest.raises(UserError, match="the least length .* can exceed the greatest"):
            SearchConfig(**wrong).validate()
    with pytest.raises(UserError, match="sample_seed is -1"):
        SearchConfig(sample_seed=-1).validate()
