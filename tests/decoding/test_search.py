"""The search against enumeration, against a beam search in plain Python, and against its own promises."""

import jax
import numpy as np
import pytest
from reference import reference_beam_search, reference_enumeration
from searches import ALONE, ROWS, STEPS, WIDTH, as_list, assert_same, compiled, limits, request, sources
from tiny import TINY, WITHOUT_ATTENTION, next_log_probs, parameters

from seqkd_jax.config import SearchConfig
from seqkd_jax.decoding.search import DECODERS, attended, length_limits, length_penalty, sequence_log_probs
from seqkd_jax.types import BOS, EOS, PAD, UNK, Hypotheses, UserError

RULES = {"none": 1.0, "power": 1.5, "gnmt": 2.0}  # exponents large enough for the stop bound to matter


def decode(config, params, source, shortest, longest, decoder="beam", steps=STEPS):
    return jax.device_get(compiled(decoder, config, steps)(params, request(source, shortest, longest)))


def configuration(beam, rule="none", stop="bound", **others):
    return SearchConfig(beam=beam, length_rule=rule, length_alpha=RULES[rule], stop=stop, **others)


@pytest.mark.parametrize("stop", ["bound", "first_k_finished"])
@pytest.mark.parametrize("rule", RULES)
def test_small_beams_are_those_of_the_plain_search(rule, stop):
    """Row by row, with a limit of its own each, over models that end early, late and never, and minimum lengths."""
    config = configuration(3, rule, stop)
    seen_finished, seen_cut = 0, 0
    for seed in range(20):
        spread, eos_bias = (0.5, 1.5, 1.5, 3.0, 4.0)[seed % 5], (-2.0, 0.5, 2.0, 4.0)[seed % 4]
        params = parameters(seed, vocabulary=9, spread=spread, eos_bias=eos_bias)
        source = sources(seed, 9)
        random = np.random.default_rng(seed)
        longest = random.integers(1, 2 * STEPS, ROWS).clip(max=STEPS).astype(np.int32)
        shortest = (random.integers(0, 4, ROWS) * (seed % 2)).clip(max=longest - 1).astype(np.int32)
        hypotheses = decode(config, params, source, shortest, longest)
        for row in range(ROWS):
            ask = next_log_probs(params, source[row][source[row] != PAD])
            expected = reference_beam_search(ask, config, shortest[row], longest[row])
            assert_same(as_list(hypotheses, row), expected, f"{rule}, {stop}, seed {seed}, row {row}")
            seen_finished += sum(h[3] for h in expected)
            seen_cut += sum(not h[3] for h in expected)
    assert seen_finished > 50 and seen_cut > 20, "the examples no longer cover both ends: change eos_bias"


@pytest.mark.parametrize("forbid_unk", [False, True])
def test_a_beam_wider_than_the_vocabulary(forbid_unk):
    """V = 6 < 2K = 10, of which 3 or 4 may be chosen: the first steps have fewer candidates than slots."""
    config = configuration(5, "gnmt", forbid_unk=forbid_unk)
    for seed in range(6):
        params, source = parameters(seed, vocabulary=6), sources(seed, 6)
        longest = 1 + np.arange(ROWS, dtype=np.int32)
        hypotheses = decode(config, params, source, np.minimum(2, longest - 1), longest)
        for row in range(ROWS):
            ask = next_log_probs(params, source[row][source[row] != PAD])
            expected = reference_beam_search(ask, config, min(2, longest[row] - 1), longest[row])
            found = as_list(hypotheses, row)
            assert_same(found, expected, f"seed {seed}, row {row}")
            assert not forbid_unk or all(UNK not in ids for ids, *_ in found)


@pytest.mark.parametrize("rule", RULES)
def test_a_saturated_beam_enumerates(rule):
    """With more slots than hypotheses nothing is pruned: all of them come out, in order, and no others."""
    config = configuration(128, rule)
    params, source = parameters(3, vocabulary=6, spread=0.7), sources(3, 6)
    shortest, longest = limits(0, 4)
    shortest[1], longest[2] = 2, 3
    hypotheses = decode(config, params, source, shortest, longest, steps=4)
    for row in range(3):
        ask = next_log_probs(params, source[row][source[row] != PAD])
        expected = reference_enumeration(ask, config, shortest[row], longest[row])
        found = as_list(hypotheses, row)
        assert len(expected) < config.beam and sorted(h[0] for h in found) == sorted(h[0] for h in expected)
        assert_same(found, expected, f"{rule}, row {row}")


@pytest.mark.parametrize("rule, stop", [("none", "bound"), ("power", "first_k_finished"), ("gnmt", "first_k_finished")])
def test_one_beam_is_greedy(rule, stop):
    config = configuration(1, rule, stop)
    for seed in range(8):
        params, source = parameters(seed, 9, eos_bias=2.0), sources(seed, 9)
        arguments = params, source, *limits(seed % 3, STEPS - seed % 2)
        beam, greedy = decode(config, *arguments), decode(config, *arguments, decoder="greedy")
        np.testing.assert_array_equal(beam.tokens, greedy.tokens)
        np.testing.assert_array_equal(beam.finished, greedy.finished)
        np.testing.assert_allclose(beam.log_probs, greedy.log_probs, rtol=1e-6)
        np.testing.assert_allclose(beam.scores, greedy.scores, rtol=1e-6)


def test_one_beam_under_the_bound_and_a_length_rule_is_not_greedy():
    """The common rule goes on after the greedy hypothesis ended while a longer one may still score better."""
    config = configuration(1, "power")
    differ = 0
    for seed in range(8):
        arguments = parameters(seed, 9, eos_bias=2.0), sources(seed, 9), *limits(0, STEPS)
        beam, greedy = decode(config, *arguments), decode(config, *arguments, decoder="greedy")
        assert (beam.scores >= greedy.scores - 1e-6)[greedy.finished].all()
        differ += (beam.tokens != greedy.tokens).any(axis=(1, 2)).sum()
    assert differ > 0


@pytest.mark.parametrize("decoder, config", [("beam", configuration(3, "gnmt")), ("greedy", configuration(1))])
def test_neighbours_order_and_fill_rows_change_nothing(decoder, config):
    """Bitwise: at one program shape a sentence's result is a function of the sentence."""
    params, source = parameters(1, 9), sources(1, 9)
    shortest, longest = limits(0, STEPS)
    together = decode(config, params, source, shortest, longest, decoder)
    order = np.random.default_rng(0).permutation(ROWS)
    shuffled = decode(config, params, source[order], shortest, longest, decoder)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[order], b), together, shuffled)
    for row in range(ROWS):
        fill = np.full_like(source, PAD)
        fill[:, 0], fill[row] = EOS, source[row]
        room = np.where(np.arange(ROWS) == row, longest, 0).astype(np.int32)
        alone = decode(config, params, fill, shortest, room, decoder)
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[row], b[row]), together, alone)  # noqa: B023
        others = np.arange(ROWS) != row
        assert (alone.tokens[others] == PAD).all() and (alone.scores[others] == -np.inf).all()
        assert not alone.finished[others].any() and not np.isnan(alone.log_probs).any()


def test_the_batch_is_as_padded_and_as_long_as_you_like():
    """A wider source and more steps are another program: equal to rounding."""
    config = configuration(3, "power")
    params, source = parameters(2, 9), sources(2, 9)
    narrow = decode(config, params, source, *limits(0, STEPS))
    wide = decode(config, params, np.pad(source, ((0, 2), (0, 3))), *limits(0, STEPS, ROWS + 2), steps=STEPS + 4)
    np.testing.assert_array_equal(wide.tokens[:ROWS, :, :STEPS], narrow.tokens)
    np.testing.assert_allclose(wide.scores[:ROWS], narrow.scores, rtol=1e-5)


def test_forced_decoding_gives_the_same_log_probabilities():
    """`head(features)` over the tokens = what the search added up, for every hypothesis, unfinished ones too."""
    config = configuration(3, "gnmt")
    rescore = jax.jit(lambda *arguments: sequence_log_probs(TINY, *arguments))
    for seed in range(4):
        params, source = parameters(seed, 9, eos_bias=1.0), sources(seed, 9)
        hypotheses = decode(config, params, source, *limits(1, STEPS))
        for slot in range(config.beam):
            labels = hypotheses.tokens[:, slot]
            target_in = np.concatenate([np.full((ROWS, 1), BOS, np.int32), labels[:, :-1]], axis=1)
            found = rescore(params, source, target_in, labels, (labels != PAD).astype(np.float32))
            possible = hypotheses.scores[:, slot] > -np.inf
            np.testing.assert_allclose(found[possible], hypotheses.log_probs[possible, slot], rtol=2e-5, atol=2e-5)
            lengths = (labels != PAD).sum(-1)
            penalty = np.array([length_penalty(config, int(n)) for n in lengths])
            np.testing.assert_allclose((found / penalty)[possible], hypotheses.scores[possible, slot], rtol=2e-5)


def test_lists_are_sorted_and_without_repetition():
    """So that the first n of a list are its n best."""
    config = configuration(3, "gnmt")
    for seed in range(6):
        hypotheses = decode(config, parameters(seed, 9), sources(seed, 9), *limits(0, STEPS))
        for row in range(ROWS):
            found = as_list(hypotheses, row)
            for part in ([h for h in found if h[3]], [h for h in found if not h[3]]):
                assert [h[1] for h in part] == sorted((h[1] for h in part), reverse=True)
            assert [h[3] for h in found] == sorted((h[3] for h in found), reverse=True), "finished ones come first"
            assert len({tuple(h[0]) for h in found}) == len(found) > 0


def test_a_nan_is_not_hidden():
    params = parameters(0, 9)
    params["bias"] = params["bias"] * np.float32("nan")
    hypotheses = decode(configuration(3, "gnmt"), params, sources(0, 9), *limits(0, STEPS))
    assert np.isnan(hypotheses.scores[:, 0]).all()


def test_attended_is_the_word_of_the_greatest_weight():
    params, source = parameters(5, 9), sources(5, 9)
    source[:, 1] = np.where(source[:, 1] == PAD, EOS, source[:, 1])
    source[:, 0] = np.maximum(source[:, 0], EOS + 1)  # a word at least
    hypotheses = decode(configuration(3, "gnmt"), params, source, *limits(0, STEPS))
    positions = np.asarray(jax.jit(lambda *arguments: attended(TINY, *arguments))(params, source, hypotheses.tokens))
    for row, found in zip(source, positions, strict=True):
        words = row[row > EOS]
        assert (found < len(words)).all(), "padding or EOS was taken for a word"
        scores = params["source"][words] @ params["target"][BOS]  # the hidden state begins at zero
        assert (found[:, 0] == scores.argmax()).all()
    with pytest.raises(UserError, match="attention"):
        jax.eval_shape(lambda *arguments: attended(WITHOUT_ATTENTION, *arguments), params, source, hypotheses.tokens)


def test_length_limits():
    config = SearchConfig(max_length_a=1.5, max_length_b=2.2, min_length_a=0.5, min_length_b=0.1)
    shortest, longest = length_limits(config, np.array([0, 1, 3, 10]))
    assert longest.tolist() == [2, 3, 6, 17] and shortest.tolist() == [1, 1, 2, 6]
    assert shortest.dtype == longest.dtype == np.int32
    whole = SearchConfig(max_length_a=1.15, max_length_b=0, min_length_a=0.29, min_length_b=0)
    assert [limit.tolist() for limit in length_limits(whole, np.array([100]))] == [[29], [115]]
    tight = SearchConfig(max_length_a=0.0, max_length_b=0.0)
    assert [limit.tolist() for limit in length_limits(tight, np.array([7]))] == [[0], [1]]


@pytest.mark.parametrize("decoder", sorted(DECODERS))
@pytest.mark.parametrize(
    "wrong, word",
    [
        (SearchConfig(beam=0), "beam"),
        (SearchConfig(length_alpha=-0.5), "length_alpha"),
        (SearchConfig(min_length_a=2.0), "min_length_a"),
        (SearchConfig(coverage_penalty=-0.1), "coverage_penalty"),
        (SearchConfig(no_repeat_ngram=-1), "no_repeat_ngram"),
    ],
)
def test_wrong_rules_are_refused_in_one_line(decoder, wrong, word):
    with pytest.raises(UserError, match=word) as caught:
        DECODERS[decoder](TINY, wrong, STEPS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("decoder", ALONE)
def test_every_decoder_keeps_the_contract(decoder):
    """Shapes and types, and a result for every row that has room."""
    hypotheses = decode(configuration(1), parameters(0, 9), sources(0, 9), *limits(0, STEPS), decoder=decoder)
    assert isinstance(hypotheses, Hypotheses)
    assert hypotheses.tokens.shape == (ROWS, 1, STEPS) and hypotheses.tokens.dtype == np.int32
    assert hypotheses.scores.shape == hypotheses.log_probs.shape == hypotheses.finished.shape == (ROWS, 1)
    assert (hypotheses.scores > -np.inf).all() and (hypotheses.log_probs <= 0).all()


@pytest.mark.parametrize("decoder, config", [("beam", configuration(3)), ("greedy", configuration(1))])
def test_the_loop_ends_when_all_sentences_are_done(decoder, config):
    steps = []

    def counted(*arguments):
        jax.debug.callback(lambda: steps.append(1))
        return TINY.step(*arguments)

    search = jax.jit(DECODERS[decoder](TINY._replace(step=counted), config, STEPS))
    for eos_bias, longest, expected in [(30.0, STEPS, {1, 2, 3}), (-30.0, 4, {4}), (0.0, 0, {0})]:
        steps.clear()
        jax.block_until_ready(search(parameters(0, 9, eos_bias=eos_bias), request(sources(0, 9), *limits(0, longest))))
        jax.effects_barrier()
        assert len(steps) in expected, (
            f"EOS bias {eos_bias}, at most {longest} tokens: the model took {len(steps)} steps"
        )


def test_the_memory_is_not_tiled():
    """In the jaxpr of a beam search the encoder's values [B,S,E] enter the loop as they are; only the state has K."""
    config = configuration(3, "gnmt")
    params, source = parameters(0, 9, width=7), sources(0, 9)
    text = str(jax.make_jaxpr(DECODERS["beam"](TINY, config, STEPS))(params, request(source, *limits(0, STEPS))))
    assert f"f32[{ROWS},{WIDTH},7]" in text
    assert f"f32[{ROWS},3,{WIDTH},7]" not in text and f"f32[{ROWS * 3},{WIDTH},7]" not in text
