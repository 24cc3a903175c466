"""Minimum Bayes risk against the double sum written out, and its promises about ties, repetition and cut hypotheses."""

import math

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from seqkd_jax.decoding import Hypothesis, Translation
from seqkd_jax.distillation import mbr
from seqkd_jax.types import UserError

LETTERS = ["a", "b", "c", "d", "e", "f"]


def translation(*hypotheses):
    """From (text, log-probability) or (text, log-probability, finished)."""
    filled = [(*hypothesis, True)[:3] for hypothesis in hypotheses]
    return Translation("source", [Hypothesis([], text, log_prob, log_prob, done) for text, log_prob, done in filled])


def reordered(one, *options):
    (found,) = mbr.by_expected_utility([one], *options)
    assert sorted(found.hypotheses) == sorted(one.hypotheses) and found.source == one.source
    return [hypothesis.text for hypothesis in found.hypotheses]


def random_translation(seed, size=9):
    random = np.random.default_rng(seed)
    texts = [" ".join(random.choice(LETTERS, random.integers(1, 6))) for _ in range(size)]
    return translation(*zip(texts, np.sort(random.uniform(-4, -1, size))[::-1].tolist(), strict=True))


def metric(utility, hypothesis, reference):
    scorer = CHRF() if utility == "chrf" else BLEU(tokenize="13a", effective_order=True)
    return scorer.sentence_score(hypothesis, [reference]).score


@pytest.mark.parametrize("weights", mbr.WEIGHTS)
@pytest.mark.parametrize("utility", mbr.UTILITIES)
def test_the_order_is_that_of_the_double_sum(utility, weights):
    changed = 0
    for seed in range(5):
        one = random_translation(seed)
        expected = []
        for hypothesis in one.hypotheses:
            total = mass = 0.0
            for judge in one.hypotheses:
                weight = 1.0 if weights == "uniform" else math.exp(judge.log_prob)
                total += weight * metric(utility, hypothesis.text, judge.text)
                mass += weight
            expected.append(total / mass)
        found = mbr.expected_utilities(
            [h.text for h in one.hypotheses], mbr.WEIGHTS[weights](np.array([h.log_prob for h in one.hypotheses])),
            utility, "13a",
        )  # fmt: skip
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        order = sorted(range(len(expected)), key=lambda index: -round(expected[index], 9))
        assert reordered(one, utility, weights) == [one.hypotheses[index].text for index in order]
        changed += order[0] != 0
    assert changed, "the examples no longer show a choice that differs from the model's"


def test_consensus_beats_the_mode():
    """The most probable one stands alone; two that share their words together hold more mass."""
    one = translation(("x y z w", math.log(0.4)), ("a b c d", math.log(0.35)), ("a b c e", math.log(0.25)))
    assert reordered(one, "bleu", "probability")[0] == "a b c d"
    assert reordered(translation(("x", math.log(0.9)), ("a", math.log(0.1))), "chrf", "probability")[0] == "x"


def test_samples_count_as_often_as_they_come():
    one = translation(("b", -1.0), ("a", -2.0), ("a", -2.0))
    assert reordered(one, "chrf") == ["a", "a", "b"]
    assert reordered(translation(("b", -1.0), ("a", -2.0)), "chrf") == ["b", "a"], "a tie is the model's to decide"


def test_a_cut_hypothesis_neither_judges_nor_wins():
    one = translation(("b", -5.0), ("a", -1.0, False), ("a", -2.0, False), ("c", -6.0))
    assert reordered(one, "chrf") == ["b", "c", "a", "a"]
    assert reordered(translation(("b", -1.0, False), ("a", -2.0, False), ("a", -3.0, False)), "chrf")[0] == "a"


def test_huge_and_tiny_probabilities_and_empty_texts():
    one = translation(("a", -1e4), ("b", -1e4 - 50), ("", -2e4))
    assert reordered(one, "chrf", "probability")[0] == "a"
    assert reordered(translation(("", 0.0)), "bleu", "probability") == [""]


def test_only_the_metric_of_different_pairs_is_computed(monkeypatch):
    asked = []

    def utility(hypotheses, reference, tokenize):
        asked.append((tuple(hypotheses), reference, tokenize))
        return [float(hypothesis == reference) for hypothesis in hypotheses]

    monkeypatch.setitem(mbr.UTILITIES, "same", utility)
    found = mbr.expected_utilities(["a", "b", "a", "a"], np.ones(4), "same", "none")
    np.testing.assert_allclose(found, [0.75, 0.25, 0.75, 0.75])
    assert asked == [(("a", "b"), "a", "none"), (("a", "b"), "b", "none")]


def test_wrong_names_are_refused():
    with pytest.raises(UserError, match="no utility named 'ter'"):
        reordered(translation(("a", -1.0)), "ter")
    with pytest.raises(UserError, match="no weights named 'all'"):
        reordered(translation(("a", -1.0)), "chrf", "all")
