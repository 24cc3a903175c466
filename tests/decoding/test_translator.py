"""Translation of streams: order, empty and overlong lines, batches that leave no trace, programs counted, files."""

import io
import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from reference import reference_beam_search
from tiny import TINY, WITHOUT_ATTENTION, next_log_probs, parameters

from seqkd_jax.config import SearchConfig, VocabularyConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.decoding import (
    Decoding,
    Hypothesis,
    Translation,
    compile_searches,
    compiled_searches,
    force_score,
    translate_ids,
    translate_lines,
    without_ends,
    write_jsonl,
    write_text,
)
from seqkd_jax.decoding.search import length_limits
from seqkd_jax.types import EOS, PAD, UNK, System, UserError
from seqkd_jax.utils import programs

LETTERS = "_?^$abcdefgh"  # the id of a letter is its place
CONFIG = SearchConfig(beam=3, length_rule="gnmt", max_length_a=1.0, max_length_b=3.0)
OPTIONS = dict(source_buckets=(4, 8), batch_tokens=24)  # 6 rows of 4, 3 of 8, 1 of 16 and of 32
PARAMS = parameters(0, vocabulary=len(LETTERS))


class Letters:
    """A vocabulary of single letters; spaces are nothing."""

    def encode(self, line):
        return [max(LETTERS.find(letter), UNK) for letter in line if letter != " "]

    def decode(self, ids):
        return "".join(LETTERS[i] for i in ids)


class LetterVocabularies:
    source = target = Letters()


SPELLING = System(TINY, PARAMS, LetterVocabularies)


def sentences(count, seed=0, longest=7):
    random = np.random.default_rng(seed)
    return [[*random.integers(4, len(LETTERS), random.integers(1, longest + 1)).tolist(), EOS] for _ in range(count)]


def assert_equal_lists(found, expected):
    for one, other in zip(found, expected, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)


def test_every_sentence_is_translated_as_if_alone_and_in_order():
    items = sentences(23)
    found = list(translate_ids(TINY, PARAMS, items, Decoding(CONFIG, **OPTIONS)))
    assert len(found) == len(items)
    for ids, hypotheses in zip(items, found, strict=True):
        shortest, longest = length_limits(CONFIG, np.array([len(ids) - 1]))
        expected = reference_beam_search(next_log_probs(PARAMS, ids), CONFIG, int(shortest[0]), int(longest[0]))
        assert [without_ends(row) for row in hypotheses.tokens] == [[i for i in h[0] if i != EOS] for h in expected]
        np.testing.assert_allclose(hypotheses.scores, [h[1] for h in expected], rtol=3e-5, atol=3e-5)


@pytest.mark.parametrize("decoder", ["beam", "greedy"])
def test_how_the_work_is_split_leaves_no_trace(decoder):
    """Bitwise the same for any chunk, any company and any order."""
    items = sentences(23)
    whole = list(translate_ids(TINY, PARAMS, items, Decoding(CONFIG, decoder=decoder, **OPTIONS)))
    for chunk in (1, 5):
        split = translate_ids(TINY, PARAMS, items, Decoding(CONFIG, decoder=decoder, chunk=chunk, **OPTIONS))
        assert_equal_lists(split, whole)
    backwards = list(translate_ids(TINY, PARAMS, items[::-1], Decoding(CONFIG, decoder=decoder, **OPTIONS)))
    assert_equal_lists(backwards[::-1], whole)


def test_lines_are_never_dropped_merged_or_reordered():
    """Empty ones, blank ones, overlong ones, line ends of both kinds."""
    lines = ["abc\n", "\n", "", "hgfedcba" * 3 + "\r\n", "   \n", "a", "abc"]
    found = list(translate_lines(SPELLING, lines, Decoding(CONFIG, chunk=4, **OPTIONS)))
    assert [translation.source for translation in found] == [line.rstrip("\r\n") for line in lines]
    for blank in (1, 2, 4):
        assert found[blank].hypotheses == [Hypothesis([], "", 0.0, 0.0, True)]
    assert found[0].hypotheses == found[6].hypotheses and found[0].text
    assert max(len(h.tokens) for h in found[3].hypotheses) > 8, "a line longer than all buckets was not translated"
    alone = list(translate_lines(SPELLING, lines[3:4], Decoding(CONFIG, **OPTIONS)))
    assert alone[0] == found[3]


def test_n_best_keeps_the_first_of_the_list():
    lines = ["abc", "", "hgf"]
    everything = list(translate_lines(SPELLING, lines, Decoding(CONFIG, **OPTIONS)))
    two = list(translate_lines(SPELLING, lines, Decoding(CONFIG, **OPTIONS), n_best=2))
    assert [t.hypotheses[:2] for t in everything] == [t.hypotheses for t in two]
    assert [len(t.hypotheses) for t in two] == [2, 1, 2]


def test_programs_are_shared_and_counted():
    """One for each shape: another corpus, chunk or checkpoint of the same model adds none."""
    config = SearchConfig(beam=2)
    items = sentences(9, longest=7)
    programs.count()
    before = compiled_searches()
    assert compile_searches(TINY, PARAMS, items, Decoding(config, **OPTIONS)) > 0
    assert compiled_searches() == before + 2, "lengths up to 8 fill two buckets"
    built = len(programs.built())
    with jax.log_compiles(False), jax.check_tracer_leaks(False):
        for seed in range(3):
            params = parameters(seed, vocabulary=len(LETTERS))
            list(translate_ids(TINY, params, sentences(5 + seed, seed), Decoding(config, chunk=3 + seed, **OPTIONS)))
            list(translate_ids(TINY, jax.device_put(params), items, Decoding(config, **OPTIONS)))
    assert compiled_searches() == before + 2
    assert len(programs.built()) == built, "what compile_searches made must be what translate_ids asks for"
    list(translate_ids(TINY, PARAMS, sentences(3, longest=3), Decoding(config, source_buckets=(4,), batch_tokens=24)))
    assert compiled_searches() == before + 2, "the same bucket under another list is the same program"


def test_another_seed_needs_no_other_program():
    items, before = sentences(6, longest=7), compiled_searches()
    drawn = [
        [
            found.tokens.tolist()
            for found in translate_ids(TINY, PARAMS, items, Decoding(config, decoder="sample", **OPTIONS))
        ]
        for config in (SearchConfig(beam=2, sample_seed=seed) for seed in (1, 2, 1))
    ]
    assert drawn[0] == drawn[2] and drawn[0] != drawn[1]
    assert compiled_searches() == before + 2, "one a bucket: the seed is an argument"


def test_nothing_is_read_before_it_is_needed():
    """A stream: one chunk is read, then its translations come, before the next is read."""
    read = []

    def stream():
        for number in range(10):
            read.append(number)
            yield "abc"

    translations = translate_lines(SPELLING, stream(), Decoding(CONFIG, chunk=3, **OPTIONS))
    assert not read
    next(translations)
    assert len(read) == 3
    assert len(list(translations)) == 9


def test_progress_counts_every_sentence():
    counted = []
    items = [*sentences(11), [EOS], []]
    list(translate_ids(TINY, PARAMS, items, Decoding(CONFIG, chunk=7, **OPTIONS), progress=counted.append))
    assert sum(counted) == len(items) and len(counted) > 2


def test_unknown_words_can_be_replaced_by_what_was_attended_to():
    words = vocabulary.learn(
        ["a b c d"], ["a b c d"], VocabularyConfig(kind="words", size=20, tokenizer="pretokenised")
    )
    params = parameters(0, vocabulary=8)
    params["bias"][UNK] += 12
    lines = ["a strange b", "", "d c"]
    system = System(TINY, params, words)
    plain = list(translate_lines(system, lines, Decoding(CONFIG, **OPTIONS)))
    found = list(translate_lines(system, lines, Decoding(CONFIG, **OPTIONS), unknown_from_source=True))
    dictionary = {word: f"<{word}>" for line in lines for word in line.split()}
    options = dict(unknown_from_source=True, dictionary=dictionary)
    looked_up = list(translate_lines(system, lines, Decoding(CONFIG, **OPTIONS), **options))
    replaced = 0
    for line, *three in zip(lines, plain, found, looked_up, strict=True):
        for before, after, entry in zip(*(t.hypotheses for t in three), strict=True):
            assert before.tokens == after.tokens and before[2:] == after[2:], "replacing must change the text only"
            texts = (h.text.split() for h in (before, after, entry))
            for token, old, new, translated in zip(before.tokens, *texts, strict=True):
                assert new in line.split() and translated == f"<{new}>" if token == UNK else new == old == translated
                replaced += token == UNK
    assert replaced > 3 and "strange" in " ".join(h.text for h in found[0].hypotheses)
    with pytest.raises(UserError, match="attention"):
        list(
            translate_lines(
                System(WITHOUT_ATTENTION, params, words), lines, Decoding(CONFIG, **OPTIONS), unknown_from_source=True
            )
        )


def test_references_are_scored_in_order():
    """By the NumPy net, token by token; no pair is dropped, the empty and the overlong included."""
    sources, targets = sentences(9, 1), [ids[:-1] for ids in sentences(9, 2)]
    pairs = [*zip(sources, targets, strict=True), ([EOS], [5]), ([4, EOS], []), ([4, EOS], [5, 6] * 6)]
    counted = []
    options = dict(buckets=(4, 8), batch_tokens=24, chunk=5, progress=counted.append)
    found = list(force_score(TINY, PARAMS, pairs, **options))
    expected = []
    for source, target in pairs:
        ask, labels = next_log_probs(PARAMS, source), [*target, EOS]
        expected.append(sum(ask(labels[:t])[label] for t, label in enumerate(labels)))
    np.testing.assert_allclose(found, expected, rtol=3e-5)
    assert sum(counted) == len(pairs)


def test_a_finished_hypothesis_is_scored_as_the_search_scored_it():
    items = sentences(7)
    found = list(translate_ids(TINY, PARAMS, items, Decoding(CONFIG, **OPTIONS)))
    cases = [(ids, h, k) for ids, h in zip(items, found, strict=True) for k in range(3) if h.finished[k]]
    again = force_score(TINY, PARAMS, [(ids, without_ends(h.tokens[k])) for ids, h, k in cases], buckets=(8, 16))
    np.testing.assert_allclose(list(again), [h.log_probs[k] for _, h, k in cases], rtol=3e-5)


def test_prefixes_of_all_lengths_in_order():
    """As the plain search has them; those of others change nothing."""
    items, random = sentences(9), np.random.default_rng(0)
    prefixes = [random.integers(4, len(LETTERS), n % 4 if len(ids) > 1 else 0).tolist() for n, ids in enumerate(items)]
    config = SearchConfig(beam=3, max_length_a=1.0, max_length_b=5.0)
    found = list(translate_ids(TINY, PARAMS, items, Decoding(config, **OPTIONS), prefixes=prefixes))
    for ids, given, hypotheses in zip(items, prefixes, found, strict=True):
        expected = reference_beam_search(next_log_probs(PARAMS, ids), config, 0, len(ids) - 1 + 5, given)
        assert [without_ends(row) for row in hypotheses.tokens] == [[i for i in h[0] if i != EOS] for h in expected]
        np.testing.assert_allclose(hypotheses.scores, [h[1] for h in expected], rtol=3e-5, atol=3e-5)
    lines = translate_lines(SPELLING, ["abc", "de"], Decoding(config, **OPTIONS), prefixes=["gg\n", ""])
    first, second = lines
    assert all(h.text.startswith("gg") for h in first.hypotheses) and len(second.hypotheses) == 3
    for wrong, word in (([[5]] * 8, "no prefix 9"), ([[5]] * 10, "no sentence 10"), ([[5] * 20] * 9, "max_length")):
        with pytest.raises(UserError, match=word):
            list(translate_ids(TINY, PARAMS, items, Decoding(config, **OPTIONS), prefixes=wrong))
    with pytest.raises(UserError, match="sentence 1 has a prefix of 1 tokens but is empty"):
        list(translate_ids(TINY, PARAMS, [[EOS]], Decoding(config, **OPTIONS), prefixes=[[5]]))


def test_errors_are_one_line():
    broken = PARAMS | {"bias": PARAMS["bias"] * np.float32("nan")}
    with pytest.raises(UserError, match="NaN.*checkpoint"):
        list(translate_ids(TINY, broken, sentences(2), Decoding(CONFIG, **OPTIONS)))
    with pytest.raises(UserError, match="beam, .*greedy"):
        list(translate_ids(TINY, PARAMS, sentences(2), Decoding(CONFIG, decoder="bean", **OPTIONS)))
    with pytest.raises(UserError, match="no translation of sentence .*lower --min-length-a"):
        tight = SearchConfig(beam=2, no_repeat_ngram=1, min_length_b=12.0, max_length_a=0.0, max_length_b=14.0)
        list(translate_ids(TINY, PARAMS, sentences(2), Decoding(tight, **OPTIONS)))
    with pytest.raises(UserError, match="beam is 0"):
        list(translate_ids(TINY, PARAMS, sentences(2), Decoding(SearchConfig(beam=0), **OPTIONS)))


def test_a_line_that_is_a_book_is_refused_by_its_number():
    """Before any sentence of its chunk is decoded: memory grows as the square of the tokens."""
    book = [5] * 5000 + [EOS]
    with pytest.raises(UserError, match="sentence 8 has 5,001 tokens, more than 4,096; split"):
        list(translate_ids(TINY, PARAMS, [*sentences(7), book], Decoding(CONFIG, chunk=3, **OPTIONS)))
    with pytest.raises(UserError, match="sentence 2 has 5,001 tokens"):
        list(force_score(TINY, PARAMS, [([5, EOS], [5]), ([5, EOS], book)]))
    lines, decoding = ["a", "b" * 5000], Decoding(CONFIG, **OPTIONS)
    with pytest.raises(UserError, match="line 12 .*has 5,001 tokens.*--overlong empty"):
        list(translate_lines(SPELLING, lines, decoding, first=10))


def test_what_comes_before_an_error_of_the_input_is_translated():
    """Whoever reads the lines as they come loses none; the line is named."""

    def lines(last):
        yield from ("a b", "c", "")
        if isinstance(last, UserError):
            raise last
        yield last
        yield "d"

    decoding = Decoding(CONFIG, chunk=3, **OPTIONS)
    whole = list(translate_lines(SPELLING, lines("d"), decoding))
    for last, said in (("b" * 5000, "line 4 "), (UserError("not UTF-8"), "not UTF-8")):
        for chunk in (1, 3, 100):
            translations = translate_lines(SPELLING, lines(last), replace(decoding, chunk=chunk))
            assert [next(translations) for _ in range(3)] == whole[:3]
            with pytest.raises(UserError, match=said):
                next(translations)


def test_an_overlong_line_may_have_an_empty_translation(capfd):
    found = list(translate_lines(SPELLING, ["a", "b" * 5000, "a"], Decoding(CONFIG, **OPTIONS), overlong="empty"))
    assert [translation.text for translation in found] == [found[0].text, "", found[0].text] and found[0].text
    assert "line 2 ('bbbbbbbbbbbbbbbbbbbbbbbbbbbbbb' …) has 5,001 tokens" in capfd.readouterr().err


def test_lines_of_a_later_part_are_sampled_as_in_the_whole():
    lines = ["ab c", "d", "efg", "h a b"]
    decoding = Decoding(SearchConfig(beam=3, sample_seed=5), "sample", **OPTIONS)
    whole = list(translate_lines(SPELLING, lines, decoding))
    assert whole[2:] == list(translate_lines(SPELLING, lines[2:], decoding, first=2))
    assert whole[2:] != list(translate_lines(SPELLING, lines[2:], decoding))


def test_files():
    best = Hypothesis([4, 5], "a “b”\u2028c\nd", -1.5, -3.0, True)
    second = best._replace(text="x", score=-2.0, finished=False)
    translations = [Translation("A", [best, second]), Translation("", [Hypothesis([], "", 0.0, 0.0, True)])]
    text, rows = io.StringIO(), io.StringIO()
    assert write_text(translations, text) == write_jsonl(iter(translations), rows) == 2
    assert text.getvalue() == "a “b” c d\n\n", "one line a translation, whatever it holds"
    first, empty = [json.loads(row) for row in rows.getvalue().split("\n")[:-1]]
    assert first["line"] == 1 and first["source"] == "A"
    numbers = {"score": -1.5, "log_prob": -3.0, "tokens": 2, "finished": True}
    assert first["hypotheses"][0] == {"text": best.text, **numbers}
    assert first["hypotheses"][1]["finished"] is False
    assert empty["line"] == 2 and empty["hypotheses"][0]["text"] == ""


def test_the_longest_sentence_of_a_bucket_has_room():
    """Static steps of a bucket are at least the limit of every sentence in it: nothing is cut by its bucket."""
    config = SearchConfig(beam=1, max_length_a=2.0, max_length_b=1.0)
    params = PARAMS | {"bias": PARAMS["bias"] - 50 * (np.arange(len(LETTERS)) == EOS).astype(np.float32)}
    for hypotheses, ids in zip(
        translate_ids(TINY, params, items := sentences(9), Decoding(config, **OPTIONS)), items, strict=True
    ):
        assert (hypotheses.tokens[0] != PAD).sum() == 2 * (len(ids) - 1) + 1 and not hypotheses.finished[0]
