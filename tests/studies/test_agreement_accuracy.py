"""Accuracies of the agreement task against loops, hand-worked bins and a bootstrap that resamples every example."""

import json
import time

import numpy as np
import pytest

from experiments.abnar_2020 import accuracy
from experiments.abnar_2020.accuracy import (
    ATTRACTORS,
    DISTANCES,
    POOLED,
    agreement_metrics,
    agreement_with,
    batch_perplexity,
    by_bins,
    corpus_perplexity,
    difference,
    macro,
    mean_with_interval,
)
from seqkd_jax.types import UserError

RESAMPLES = 4000  # of the slow bootstrap
# A 2.5% quantile of B draws of a normal distribution has a standard error of sqrt(0.025 * 0.975 / B) / 0.0584 sd.
QUANTILE_ERROR = np.sqrt(0.025 * 0.975 * (1 / accuracy.RESAMPLES + 1 / RESAMPLES)) / 0.0584


def example(seed=0, seeds=3, examples=400):
    """Correctness [R,N] with easy and hard examples, so that seeds agree more than by chance; bins 1 to 4, uneven."""
    random = np.random.default_rng(seed)
    ease = random.beta(3, 1, examples)
    return random.random((seeds, examples)) < ease, random.choice([1, 2, 3, 4], examples, p=[0.7, 0.2, 0.07, 0.03])


def slow_bootstrap(statistic, strata, seed=1):
    """statistic(rows) on RESAMPLES draws of row numbers, with repetition, as many of every stratum as it has."""
    random = np.random.default_rng(seed)
    members = [np.flatnonzero(strata == one) for one in np.unique(strata)]
    return np.array(
        [statistic(np.concatenate([random.choice(rows, len(rows)) for rows in members])) for _ in range(RESAMPLES)]
    )


def assert_same_interval(found, resampled):
    tolerance = 4 * QUANTILE_ERROR * resampled.std()
    for name, expected in zip(("low", "high"), np.percentile(resampled, [2.5, 97.5]), strict=True):
        assert abs(found[name] - expected) < tolerance, f"{name} {found[name]}, with every example resampled {expected}"
    assert found["low"] <= found["mean"] <= found["high"]


def test_mean_and_its_spread_over_seeds():
    correct = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]], bool)
    found = mean_with_interval(correct)
    assert found["values"] == [0.75, 0.25, 0.5]
    assert (found["mean"], found["sd"]) == (0.5, pytest.approx(0.25))
    assert mean_with_interval(correct[:1])["sd"] is None, "one seed has no spread"
    json.dumps(found)  # plain numbers only


def test_the_interval_is_that_of_a_bootstrap_over_examples():
    correct, bins = example()
    assert_same_interval(
        mean_with_interval(correct), slow_bootstrap(lambda rows: correct[:, rows].mean(), np.zeros_like(bins))
    )


def test_seeds_are_resampled_jointly():
    """Three copies of one seed say no more than one; three independent seeds do."""
    one = example(2, seeds=1)[0]
    copies = mean_with_interval(np.repeat(one, 3, axis=0))
    single = mean_with_interval(one)
    assert (copies["low"], copies["high"]) == (pytest.approx(single["low"]), pytest.approx(single["high"]))
    random = np.random.default_rng(3).random((3, one.shape[1])) < one.mean()
    found = mean_with_interval(random)
    assert found["high"] - found["low"] < 0.75 * (single["high"] - single["low"])


def test_macro_worked_by_hand():
    bins = np.array([1, 1, 1, 1, 2, 2, 9, 10, 10, 17])
    correct = np.array([[1, 1, 1, 0, 1, 0, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 0, 0, 0, 1]], bool)
    found = macro(correct, bins, DISTANCES)
    # 1: .75, 1; 2: .5, 1; 9: 1, 0; 10: .5, 0; 17 is in no bin
    assert found["values"] == [pytest.approx(2.75 / 4), pytest.approx(0.5)]
    assert (found["mean"], found["empty"]) == (pytest.approx(2.375 / 4), 12)
    pooled = macro(correct, bins, POOLED)
    # 9-10: 2/3, 0
    assert pooled["values"] == [pytest.approx((0.75 + 0.5 + 2 / 3) / 3), pytest.approx(2 / 3)]
    assert pooled["empty"] == len(POOLED) - 3
    rows = by_bins(correct, bins, POOLED)
    assert list(rows) == ["1", "2", "3", "4", "5", "6", "7", "8", "9-10", "11-12", "13-16"]
    assert (rows["9-10"]["n"], rows["9-10"]["mean"]) == (3, pytest.approx(1 / 3))
    assert rows["9-10"]["sd"] == pytest.approx(np.std([2 / 3, 0], ddof=1))
    assert rows["3"] == {"n": 0, "mean": None, "sd": None, "low": None, "high": None}
    assert 0.5 <= rows["1"]["low"] < 0.875 < rows["1"]["high"] <= 1.0
    assert set(rows["1"]) == {"n", "mean", "sd", "low", "high"}
    json.dumps([found, rows])


def test_bins_are_the_examples_in_them():
    correct, bins = example(4)
    rows = by_bins(correct, bins, (1, 2, (3, 4)))
    for label, members in {"1": [1], "2": [2], "3-4": [3, 4]}.items():
        inside = correct[:, np.isin(bins, members)]
        assert (rows[label]["n"], rows[label]["mean"]) == (inside.shape[1], pytest.approx(inside.mean()))
        assert rows[label]["sd"] == pytest.approx(inside.mean(axis=1).std(ddof=1))
        strata = np.zeros(inside.shape[1])
        assert_same_interval(
            rows[label], slow_bootstrap(lambda chosen, inside=inside: inside[:, chosen].mean(), strata)
        )


def test_the_macro_interval_is_that_of_a_stratified_bootstrap():
    correct, bins = example(5)

    def average(rows):
        return np.mean([correct[:, rows[bins[rows] == one]].mean() for one in (1, 2, 3, 4)])

    assert_same_interval(macro(correct, bins, (1, 2, 3, 4)), slow_bootstrap(average, bins))


@pytest.mark.parametrize("binned", [False, True])
def test_a_difference_is_paired_over_examples(binned):
    (a, bins), (b, _) = example(6, seeds=3), example(6, seeds=2)
    b[:, ::7] = False  # the same examples, a worse model
    groups = (1, 2, (3, 4))
    strata = np.minimum(bins, 3) if binned else np.zeros_like(bins)

    def average(rows):
        parts = [rows[strata[rows] == one] for one in np.unique(strata)]
        return np.mean([a[:, part].mean() - b[:, part].mean() for part in parts])

    found = difference(a, b, bins, groups) if binned else difference(a, b)
    assert found["mean"] == pytest.approx(average(np.arange(len(bins))))
    assert_same_interval(found, slow_bootstrap(average, strata))
    if binned:
        means = [macro(one, bins, groups)["mean"] for one in (a, b)]
        assert found["mean"] == pytest.approx(means[0] - means[1])


def test_a_model_does_not_differ_from_itself():
    correct, bins = example(7)
    found = difference(correct, correct[::-1])
    assert found["mean"] == 0 and found["high"] == -found["low"] < 3 / correct.shape[1], (
        "pairing must take the examples' own difficulty out, up to what so many examples can show"
    )
    assert difference(correct, ~correct, bins, (1, 2))["mean"] != 0


def test_a_million_examples_cost_no_more_than_a_count():
    random = np.random.default_rng(8)
    correct = random.random((4, 900_000)) < 0.95
    distance = np.minimum(random.geometric(0.6, 900_000), 16)
    start = time.process_time()
    macro(correct, distance, DISTANCES)
    assert time.process_time() - start < 2.0, "1000 resamples of a bin are one multinomial draw each, not 900,000 draws"


def test_the_same_seed_gives_the_same_interval(monkeypatch):
    correct, bins = example(9)
    assert macro(correct, bins, (1, 2)) == macro(correct, bins, (1, 2))
    first = macro(correct, bins, (1, 2))
    monkeypatch.setattr(accuracy, "SEED", 1)
    assert macro(correct, bins, (1, 2))["low"] != first["low"]


def agreement_example(seed=10, examples=600):
    random = np.random.default_rng(seed)
    distance = np.minimum(random.geometric(0.3, examples), 20)
    intervening = random.integers(0, 7, examples)
    attractors = np.where(random.random(examples) < 0.5, intervening, random.integers(0, intervening + 1))
    gold = {count: random.random((2, 60 // count)) < 0.8 for count in (1, 2, 3, 4, 5)}
    return random.random((2, examples)) < 0.9, distance, intervening, attractors, random.random(examples) < 0.3, gold


def test_agreement_metrics_are_the_papers_in_a_loop():
    correct, distance, intervening, attractors, seen, gold = agreement_example()
    metrics, bins = agreement_metrics(correct, distance, intervening, attractors, seen, gold)
    by_distance, by_attractors = {}, {}
    for i in range(correct.shape[1]):
        if intervening[i] <= 4 and distance[i] <= 16:
            by_distance.setdefault(int(distance[i]), []).append(correct[:, i])
            if intervening[i] == attractors[i]:
                by_attractors.setdefault(int(attractors[i]), []).append(correct[:, i])
    assert metrics["mu"]["mean"] == pytest.approx(correct.mean())
    assert metrics["d"]["values"] == pytest.approx(np.mean([np.mean(rows, axis=0) for rows in by_distance.values()], 0))
    assert metrics["a"]["values"] == pytest.approx(
        np.mean([np.mean(rows, axis=0) for rows in by_attractors.values()], 0)
    )
    for key, rows in by_distance.items():
        assert bins["distance"][str(key)]["n"] == len(rows)
        assert bins["distance"][str(key)]["mean"] == pytest.approx(np.mean(rows))
    for key, rows in by_attractors.items():
        assert bins["attractors"][str(key)]["mean"] == pytest.approx(np.mean(rows))
    pooled = by_distance.get(9, []) + by_distance.get(10, [])
    assert bins["distance_pooled"]["9-10"]["mean"] == pytest.approx(np.mean(pooled))
    expected = [np.mean(by_attractors[0]), *(gold[count].mean() for count in (1, 2, 3, 4))]
    assert metrics["a_gold"]["mean"] == pytest.approx(np.mean(expected)), "bin 0 is the test's, 1 to 4 are gold"
    assert [bins["gold_attractors"][str(k)]["mean"] for k in ATTRACTORS] == pytest.approx(expected)
    assert bins["gold_attractors"]["2"]["n"] == 30
    assert metrics["mu_unseen"]["mean"] == pytest.approx(correct[:, ~seen].mean())
    json.dumps([metrics, bins])


def test_metrics_without_gold_strata_or_leaks_have_none():
    correct, distance, intervening, attractors, seen, _ = agreement_example(11)
    for given in (None, np.ones_like(seen)):
        metrics, bins = agreement_metrics(correct, distance, intervening, attractors, given)
        assert set(metrics) == {"mu", "d", "d_pooled", "a"}
        assert set(bins) == {"distance", "distance_pooled", "attractors"}
    gold = {1: np.ones((2, 3), bool), 3: np.zeros((2, 0), bool)}
    metrics, bins = agreement_metrics(correct, distance, intervening, attractors, seen, gold)
    assert metrics["a_gold"]["empty"] == 3 and bins["gold_attractors"]["3"]["n"] == 0


def test_agreement_with_one_teacher_or_one_a_seed():
    decisions = np.array([[0, 1, 1, 0], [1, 1, 1, 0]])
    assert agreement_with(decisions, np.array([[0, 1, 0, 0]]))["values"] == [0.75, 0.5]
    assert agreement_with(decisions, decisions[::-1])["values"] == [0.75, 0.75]


def test_perplexities_in_a_loop():
    random = np.random.default_rng(12)
    tokens = random.integers(3, 30, 200)
    nats = tokens * random.normal(4, 0.3, 200)
    assert corpus_perplexity(nats, tokens) == pytest.approx(np.exp(nats.sum() / tokens.sum()))
    batches = [slice(first, first + 64) for first in (0, 64, 128)]  # 8 sentences are left over
    expected = np.mean([np.exp(nats[one].sum() / tokens[one].sum()) for one in batches])
    assert batch_perplexity(nats, tokens) == pytest.approx(expected)
    assert batch_perplexity(nats, tokens, batch=1) == pytest.approx(np.exp(nats / tokens).mean())
    assert batch_perplexity(nats[:5], tokens[:5]) == pytest.approx(corpus_perplexity(nats[:5], tokens[:5]))
    assert batch_perplexity(nats, tokens) != batch_perplexity(nats[::-1], tokens[::-1]), "the order is part of it"


def test_bad_input_is_named():
    correct, bins = example()
    with pytest.raises(UserError, match=r"correct is \(3, 0\)"):
        mean_with_interval(correct[:, :0])
    with pytest.raises(UserError, match="correct is of float64"):
        mean_with_interval(correct * 1.0)
    with pytest.raises(UserError, match=r"bins are \(10,\) for 400"):
        macro(correct, bins[:10], DISTANCES)
    with pytest.raises(UserError, match="no example is in any of the bins 5, 6-7"):
        macro(correct, bins, (5, (6, 7)))
    with pytest.raises(UserError, match="400 and 399 examples"):
        difference(correct, correct[:, 1:])
    with pytest.raises(UserError, match="give both"):
        difference(correct, correct, bins)
    with pytest.raises(UserError, match="gold stratum 2 has 1 seeds, the test 3"):
        accuracy.with_gold(correct, bins, {2: correct[:1]})
    with pytest.raises(UserError, match="gold stratum 0"):
        accuracy.with_gold(correct, bins, {0: correct})
    with pytest.raises(UserError, match=r"\(2, 400\)"):
        agreement_with(correct, correct[:2])
    with pytest.raises(UserError, match="at least one token"):
        corpus_perplexity([1.0, 2.0], [3, 0])


def test_a_thin_bin_in_which_all_is_right_is_not_certain():
    """Of 14 right answers the bootstrap would say that none is ever wrong; Wilson's interval goes down to 0.78."""
    correct, bins = np.ones((2, 5014), bool), np.repeat([1, 2], [5000, 14])
    correct[0, 0] = False
    rows = by_bins(correct, bins, (1, 2))
    assert rows["2"]["mean"] == rows["2"]["high"] == 1 and 0.75 < rows["2"]["low"] < 0.95
    assert rows["1"]["low"] > 0.999
    found = macro(correct, bins, (1, 2))
    assert 0.85 < found["low"] < 0.98 <= found["mean"] <= found["high"] <= 1
    apart = difference(correct, np.ones((3, 5014), bool), bins, (1, 2))
    assert apart["low"] < -0.02 and apart["high"] > 0.02, "what 14 examples do not show"
    correct[:, -1] = False
    other = np.ones((3, 5014), bool)
    other[:, -1] = False
    apart = difference(correct, other, bins, (1, 2))
    assert apart["low"] < -0.02 and apart["high"] > 0.02, "wrong on the same one is no more certain than on none"
