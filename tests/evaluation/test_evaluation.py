"""Evaluation: p(t=y^) against NumPy, scores and tests of significance against sacrebleu, speed."""

import json
import math
import types
from collections import Counter

import numpy as np
import pytest
import sacrebleu
from sacrebleu.metrics import BLEU
from tiny import TINY, log_prob, next_log_probs, parameters

from seqkd_jax import distributed
from seqkd_jax.config import BatchConfig, SearchConfig, VocabularyConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.data.corpus import Corpus
from seqkd_jax.decoding import Decoding, Hypothesis, Translation, compiled_searches
from seqkd_jax.evaluation import evaluation, metrics
from seqkd_jax.types import BOS, EOS, PAD, System, UserError
from seqkd_jax.utils import programs

WORDS = ["a", "b", "c", "d", "e", "f", "g", "h"]
VOCABULARIES = vocabulary.learn(
    WORDS, WORDS, VocabularyConfig(kind="words", size=12, joint=False, tokenizer="pretokenised")
)
PARAMS = parameters(1, vocabulary=12)
SYSTEM = System(TINY, PARAMS, VOCABULARIES)
SEARCH = SearchConfig(beam=3, max_length_a=1.0, max_length_b=3.0)
BATCH = BatchConfig(tokens=32, buckets=2, max_source=4, max_target=4)
OPTIONS = {"source_buckets": (8,), "batch_tokens": 24}


def lines(count, seed=0, longest=6):
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(1, longest + 1))) for _ in range(count)]


def corpus(count=9, weights=None):
    return Corpus(lines(count), lines(count, seed=1), weights, "test")


def in_ids(vocabulary, text):
    return [*vocabulary.encode(text), EOS]


def greedy(source, most):
    """(text, probability, finished): the argmax at each step."""
    ask = next_log_probs(PARAMS, in_ids(VOCABULARIES.source, source))
    ids, total = [], 0.0
    while len(ids) < most and EOS not in ids:
        log_probs = np.array(ask(ids))
        log_probs[[PAD, BOS]] = -np.inf
        ids.append(int(np.argmax(log_probs)))
        total += log_probs[ids[-1]]
    return VOCABULARIES.target.decode(ids), math.exp(total), ids[-1] == EOS


@pytest.fixture(scope="module")
def measured():
    data = corpus()._replace(sources=[*lines(8), ""])
    programs.count()
    counted = []
    arguments = dict(batch=BATCH, tokenize="none", repetitions=2, timed_sentences=4)
    passes = evaluation.words_per_second

    def watched(*arguments):
        before = len(programs.built()), compiled_searches()
        speed = passes(*arguments)
        counted.append((len(programs.built()) - before[0], compiled_searches() - before[1]))
        return speed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "words_per_second", watched)
        found = evaluation.evaluate(SYSTEM, data, Decoding(SEARCH, **OPTIONS), **arguments)
    return types.SimpleNamespace(data=data, found=found, compiled_while_timed=counted)


def test_the_row_of_an_arm(measured):
    results, outputs, references, _ = measured.found
    assert set(outputs) == {"beam1", "beam3"}
    assert references == measured.data.targets
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    for key, texts in outputs.items():
        assert len(texts) == 9 and texts[-1] == ""
        bleu = BLEU(tokenize="none").corpus_score(texts, [references]).score
        assert results[f"bleu_{key}"] == pytest.approx(bleu)
        assert results[f"chrf_{key}"] == pytest.approx(sacrebleu.corpus_chrf(texts, [references]).score)
        assert results[f"bleu_low_{key}"] <= results[f"bleu_high_{key}"]
        assert results[f"source_words_per_second_{key}"] > 0
        assert results[f"compile_seconds_{key}"] > 0
    assert results["signature"] == f"nrefs:1|case:mixed|eff:no|tok:none|smooth:exp|version:{sacrebleu.__version__}"
    assert results["perplexity"] > 1 and results["sentences"] == 9


def test_the_probability_of_the_mode_is_that_of_the_greedy_output(measured):
    results, outputs, *_ = measured.found
    sources = measured.data.sources[:-1]  # the empty one is left out
    expected = [greedy(source, len(source.split()) + 3) for source in sources]
    assert outputs["beam1"][:-1] == [text for text, _, _ in expected]
    probabilities = [probability if finished else 0.0 for _, probability, finished in expected]
    assert results["mode_probability"] == pytest.approx(np.mean(probabilities), rel=1e-4)
    assert measured.found.probabilities["beam1"][:-1] == pytest.approx(probabilities, rel=1e-4)
    assert measured.found.probabilities["beam1"][-1] is None, "the source is empty"
    assert results["unfinished_beam1"] == sum(not finished for _, _, finished in expected)
    assert 0 < results["unfinished_beam1"] < len(sources), "the example must have cut and finished outputs"
    pairs = [
        (in_ids(VOCABULARIES.source, source), in_ids(VOCABULARIES.target, text))
        for source, text in zip(sources, outputs["beam3"], strict=False)
    ]
    best = [np.exp(log_prob(PARAMS, *pair)) for pair in pairs]
    shorter = [len(target) <= len(source) - 1 + 3 for source, target in pairs]  # has its EOS within the limit
    finished = results["unfinished_beam3"] == len(shorter) - sum(shorter)
    assert finished and 0 < sum(shorter) < len(shorter), "the example must have cut and finished outputs"
    expected = [probability if ended else 0.0 for probability, ended in zip(best, shorter, strict=True)]
    assert results["mode_probability_beam3"] == pytest.approx(np.mean(expected), rel=1e-4)


def test_a_sentence_beyond_all_bounds_is_said_before_anything_is_decoded(monkeypatch):
    monkeypatch.setattr(evaluation, "compile_searches", lambda *_: pytest.fail("it was decoded"))
    endless = "a " * 5000
    for side, data in (("sources", (["a", endless], ["a", "b"])), ("references", (["a", "b"], ["a", endless]))):
        given = Corpus(*data, None, "test")
        with pytest.raises(UserError, match=f"test, {side}: sentence 2 has 5,001 tokens"):
            evaluation.evaluate(SYSTEM, given, Decoding(SEARCH), batch=BatchConfig(), tokenize="none")


def test_nothing_is_compiled_while_the_clock_runs(measured):
    assert measured.compiled_while_timed == [(0, 0), (0, 0)]


def test_speed_is_words_over_the_median_pass(monkeypatch):
    clock = iter([0.0, 2.0, 10.0, 14.0, 20.0, 29.0])  # passes of 2, 4 and 9 seconds
    monkeypatch.setattr(evaluation.time, "perf_counter", lambda: next(clock))
    assert evaluation.words_per_second(iter, ["a b  c", "", "d e f g h"], 3) == 2.0
    assert evaluation.words_per_second(iter, ["a"], 0) is None


def systems(count=60):
    random = np.random.default_rng(3)
    references = lines(count, seed=2, longest=12)

    def noisy(rate):
        keep = lambda word: word if random.random() > rate else random.choice(WORDS)  # noqa: E731
        return [" ".join(map(keep, line.split())) for line in references]

    found = {"baseline": noisy(0.5), "better": noisy(0.2), "alike": noisy(0.5)}
    return found | {"equal": list(found["baseline"])}, references


def bootstrap(texts, references):
    others = {name: lines for name, lines in texts.items() if name != "baseline"}
    return metrics.paired_bootstrap(texts["baseline"], others, references, "13a")


def test_paired_bootstrap_is_sacrebleus_and_its_interval_agrees():
    texts, references = systems()
    found = bootstrap(texts, references)
    assert set(found) == {"better", "alike", "equal"}
    assert found["equal"] == {**found["equal"], "delta": 0.0, "p_value": 1.0, "delta_low": 0.0, "delta_high": 0.0}
    base = metrics._resampled_bleu(texts["baseline"], references, "13a")
    for name in ("better", "alike"):
        samples = metrics._resampled_bleu(texts[name], references, "13a") - base
        row = found[name]
        assert row["delta"] == pytest.approx(row["bleu"] - metrics.score(texts["baseline"], references, "13a").bleu)
        assert row["delta_low"] < row["delta"] < row["delta_high"]
        # Koehn's test by hand on our resamples: how often the centred difference exceeds the one observed.
        centred = np.abs(samples) - np.abs(samples).mean()
        by_hand = (np.sum(centred > abs(row["delta"])) + 1) / (len(samples) + 1)
        assert row["p_value"] == pytest.approx(by_hand, abs=0.002)
    assert found["better"]["p_value"] < 0.05 < found["alike"]["p_value"]


def test_the_environment_does_not_choose_the_seed(monkeypatch):
    texts, references = systems(20)
    expected = bootstrap(texts, references)
    monkeypatch.setenv("SACREBLEU_SEED", "7")
    assert bootstrap(texts, references) == expected
    assert metrics.os.environ["SACREBLEU_SEED"] == "7"


def test_the_interval_is_of_sacrebleus_resamples():
    texts, references = systems()
    score = BLEU(tokenize="13a").corpus_score(texts["better"], [references], n_bootstrap=metrics.SAMPLES)
    samples = metrics._resampled_bleu(texts["better"], references, "13a")
    assert samples.mean() == pytest.approx(score._mean, abs=1e-3)
    low, high = metrics.confidence_interval(texts["better"], references, "13a")
    assert (high - low) / 2 == pytest.approx(score._ci, rel=0.05)
    assert low < score.score < high


def test_resampled_scores_are_those_of_the_resampled_text():
    """And the resamples are the same for every system."""
    texts, references = systems()
    found = metrics.resampled(texts["better"], references, "13a")
    assert all(samples.shape == (metrics.SAMPLES,) for samples in found.values())
    for place, counts in list(enumerate(metrics.resamples(len(references))))[:3]:
        assert counts.sum() == len(references)
        drawn = np.repeat(np.arange(len(references)), counts.astype(int))
        both = [[lines[i] for i in drawn] for lines in (texts["better"], references)]
        expected = {**metrics.score(*both, "13a")._asdict(), "recall": metrics.recall(*both, "13a")}
        assert {name: samples[place] for name, samples in found.items()} == pytest.approx(expected)


def test_recall_is_the_share_of_the_references_n_grams():
    """Against counts by hand; words too many cost it nothing, and BLEU much."""
    texts, references = systems(30)
    outputs = [*texts["better"][:-1], ""]

    def n_grams(line, order):
        words = line.split()
        return Counter(zip(*(words[i:] for i in range(order)), strict=False))

    shares = []
    for order in (1, 2, 3, 4):
        wanted, had = ([n_grams(line, order) for line in lines] for lines in (references, outputs))
        shares.append(sum((a & b).total() for a, b in zip(wanted, had, strict=True)) / sum(a.total() for a in wanted))
    recall = metrics.recall(outputs, references, "none")
    assert recall == pytest.approx(100 * np.prod(shares) ** 0.25)
    longer = [line + " and so on" for line in outputs]
    assert metrics.recall(longer, references, "none") == pytest.approx(recall)
    assert metrics.score(longer, references, "none").bleu < metrics.score(outputs, references, "none").bleu - 5
    assert metrics.recall([""] * 30, references, "none") == 0.0
    endless = metrics.recall(["a b c d " * 3000], ["a b c d"], "none")
    assert endless == pytest.approx(100.0), "the brevity penalty that is not wanted underflows there"


def test_sentence_metrics_are_sacrebleus():
    hypotheses, reference = ["The cat sat, here.", "the dog", ""], "The cat sat on it, here."
    expected = [sacrebleu.sentence_bleu(hypothesis, [reference]).score for hypothesis in hypotheses]
    assert metrics.sentence_bleu(hypotheses, reference, "13a") == pytest.approx(expected)
    expected = [sacrebleu.sentence_chrf(hypothesis, [reference]).score for hypothesis in hypotheses]
    assert metrics.sentence_chrf(hypotheses, reference, "13a") == pytest.approx(expected)
    assert metrics.tokenise("sat, here.", "13a") == ["sat", ",", "here", "."]
    assert metrics.tokenise("sat, here.", "none") == ["sat,", "here."]


def test_what_cannot_be_compared_is_named():
    with pytest.raises(UserError, match="2 outputs for 1 references"):
        metrics.score(["a", "b"], ["a"], "13a")
    assert metrics.paired_bootstrap(["x"], {}, ["x"], "13a") == {}


def test_what_no_resample_tells_apart_is_no_difference():
    """Other strings, but the same to BLEU: sacrebleu's formula would call that significant."""
    references = ["a b c d", "e f g h"]
    one, two = ["a b c d", "e f g x"], ["a  b c d", "e f g x "]
    found = metrics.paired_bootstrap(one, {"two": two}, references, "none")["two"]
    assert (found["delta"], found["p_value"], found["delta_low"], found["delta_high"]) == (0, 1, 0, 0)


@pytest.mark.parametrize("lines", [0, 1, 5, 6])
def test_several_processes_share_the_lines_and_all_have_all_translations(monkeypatch, lines):
    def decode(given):
        return [Translation(line, [Hypothesis([5], line[::-1], -0.1, -1 / 3, True)]) for line in given]

    def say(own, **_):
        said.append(own)
        raise KeyboardInterrupt  # until all have said what is theirs

    sources, said = [f"line {number}" for number in range(lines)], []
    monkeypatch.setattr(distributed, "count", lambda: 3)
    monkeypatch.setattr(distributed, "gathered", say)
    for index in range(3):
        monkeypatch.setattr(distributed, "index", lambda index=index: index)
        with pytest.raises(KeyboardInterrupt):
            evaluation.by_all_processes(decode, sources)
    monkeypatch.setattr(distributed, "gathered", lambda own, **_: json.loads(json.dumps(said)))
    assert evaluation.by_all_processes(decode, sources) == decode(sources)
    assert sum(map(len, said)) == lines
