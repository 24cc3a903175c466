"""Distillation: lists that survive a kill and trust nothing else, the choice among them, the corpus and its card."""

import gzip
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from distilling import VOCABULARIES, WORDS, make_teacher, spell_backwards

from seqkd_jax import checkpoint, distillation
from seqkd_jax.config import CorpusConfig, FilterConfig, SearchConfig
from seqkd_jax.data.corpus import load_split, mix
from seqkd_jax.decoding import Decoding, Hypothesis, Translation, translate_lines
from seqkd_jax.distillation import SELECTIONS, Candidate, choose, kim_rush, n_best, nbest, read_n_best
from seqkd_jax.distillation.distilled_corpus import apply_filters
from seqkd_jax.distillation.selection import Choice
from seqkd_jax.evaluation import metrics
from seqkd_jax.types import UserError
from seqkd_jax.utils import files

SEARCH = SearchConfig(beam=3, max_length_a=1.0, max_length_b=3.0)
DECODING = Decoding(SEARCH)
LINES = ["a b", "c", "", "d e f", "g h", "a a", "b"]  # 3 shards of 3 lines at most


@pytest.fixture
def teacher(tmp_path):
    return make_teacher(tmp_path / "teacher")


@pytest.fixture
def decoded(monkeypatch):
    """Replaces the search by one that spells the source backwards, and keeps the lines it was given."""
    return spell_backwards(monkeypatch)


def make(directory, teacher, lines=LINES, decoding=DECODING, **options):
    return n_best(directory, teacher, lines, decoding, shard_lines=3, **options)


def content(directory):
    return {name: (directory / name).read_bytes() for name in files.tree(directory)}


# ---------------------------------------------------------------- lists


def test_lists_come_back_in_order(tmp_path, teacher, decoded):
    found = make(tmp_path / "lists", teacher)
    read = list(read_n_best(found))
    assert [candidates[0].text for candidates in read] == [line[::-1] for line in LINES]
    assert read[0] == [Candidate("b a", -1.0, -1.5, True, 2), Candidate("a", -2.0, -2.0, False, 1)]
    rows = gzip.decompress((tmp_path / "lists" / "shard-00001.jsonl.gz").read_bytes()).decode().splitlines()
    assert json.loads(rows[0])["source"] == "d e f"
    assert decoded.firsts == [0, 3, 6], "errors must name the corpus's lines, not the shard's"


@pytest.mark.parametrize("line", [LINES[0], LINES[1], LINES[3], LINES[5], LINES[6]])
def test_a_killed_run_goes_on_where_it_was(tmp_path, teacher, decoded, capsys, line):
    make(tmp_path / "whole", teacher)
    decoded.kill_at(line)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "lists", teacher)
    done = LINES.index(line) // 3 * 3
    assert len(content(tmp_path / "lists") if done else {}) == done // 3 * 2
    decoded.kill_at(None)
    decoded.seen.clear()
    make(tmp_path / "lists", teacher)
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"done, {done}/{len(LINES)} sentences" in said, "it counts from where it was; this decoder tells no progress"
    assert decoded.seen == LINES[done:], "whole shards must not be decoded again"
    assert content(tmp_path / "lists") == content(tmp_path / "whole")


def _truncate(shard, voucher):
    shard.write_bytes(shard.read_bytes()[:-7])


def _flip(shard, voucher):
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(bytes(data))


def _swap(shard, voucher):
    for path in (shard, voucher):
        shutil.copy(path.with_name(path.name.replace("00001", "00000")), path)


def _other_lines(shard, voucher):
    """A shard with a line lost, and the hash of what is left: only the count betrays it."""
    data = gzip.compress(b"".join(gzip.decompress(shard.read_bytes()).splitlines(keepends=True)[:-1]))
    shard.write_bytes(data)
    record = json.loads(voucher.read_text()) | {"sha256": files.sha256_bytes(data), "lines": 2}
    voucher.write_text(json.dumps(record))


DAMAGE = {
    "truncated": _truncate,
    "one bit": _flip,
    "empty": lambda shard, voucher: shard.write_bytes(b""),
    "lost": lambda shard, voucher: shard.unlink(),
    "no hash": lambda shard, voucher: voucher.unlink(),
    "half a hash": lambda shard, voucher: voucher.write_text(voucher.read_text()[:20]),
    "another shard's": _swap,
    "a line short": _other_lines,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_shard_is_made_again_and_never_read(tmp_path, teacher, decoded, damage):
    found = make(tmp_path / "lists", teacher)
    expected = content(tmp_path / "lists")
    damage(tmp_path / "lists" / "shard-00001.jsonl.gz", tmp_path / "lists" / "shard-00001.jsonl.json")
    with pytest.raises(UserError, match="shard-00001.*run `seqkd distill` again"):
        list(read_n_best(found))
    decoded.seen.clear()
    make(tmp_path / "lists", teacher)
    assert decoded.seen == LINES[3:6]
    assert content(tmp_path / "lists") == expected


def test_other_settings_other_weights_or_other_lines_are_another_list(tmp_path, teacher, decoded):
    directory = tmp_path / "lists"
    make(directory, teacher)

    def again(expected, **changes):
        decoded.seen.clear()
        make(directory, **{"teacher": teacher, **changes})
        assert decoded.seen == expected

    again([])
    again(LINES, decoding=Decoding(SearchConfig(beam=2)))
    again(LINES, decoding=replace(DECODING, batch_tokens=7))  # the shape of a program can change the last digit
    again(LINES, teacher=make_teacher(tmp_path / "other", "1" * 64))
    again(LINES)
    changed = [*LINES[:4], "g", *LINES[5:]]
    again(changed[3:6], lines=changed)
    again([], lines=changed)
    again(LINES, lines=LINES, teacher=replace(teacher, replica=1))  # another seed of one directory
    again(LINES, lines=LINES, teacher=replace(teacher, compute="bfloat16_products"))
    again(changed, lines=changed)
    moved = make_teacher(tmp_path / "moved")
    again([], lines=changed, teacher=moved)  # the same weights elsewhere


def test_a_shard_of_equal_lines_elsewhere_is_another(tmp_path, teacher, decoded):
    """Samples are drawn by a line's place in the corpus."""
    directory, lines = tmp_path / "lists", [*LINES[:3], *LINES[:3]]
    make(directory, teacher, lines)
    for path in sorted(directory.glob("shard-00000*")):
        path.with_name(path.name.replace("00000", "00001")).write_bytes(path.read_bytes())
    decoded.seen.clear()
    make(directory, teacher, lines)
    assert decoded.seen == lines[3:]


def test_lists_are_of_the_weights_that_were_read(tmp_path, teacher, decoded):
    """Not of those that a training run has put in their place since."""
    make_teacher(teacher.directory, "2" * 64)
    make(tmp_path / "lists", teacher)
    decoded.seen.clear()
    make(tmp_path / "lists", teacher)
    assert decoded.seen == []
    make(tmp_path / "lists", make_teacher(teacher.directory, "2" * 64))
    assert decoded.seen == LINES, "the new weights must not vouch for lists of the old ones"


def test_several_processes_share_the_work(tmp_path, teacher, decoded):
    whole = make(tmp_path / "whole", teacher)
    first = make(tmp_path / "shared", teacher, part=(1, 2))
    assert decoded.seen[len(LINES) :] == [*LINES[:3], *LINES[6:]]
    with pytest.raises(UserError, match="shard-00001"):
        list(read_n_best(first))
    make(tmp_path / "shared", teacher, part=(2, 2))
    assert content(tmp_path / "shared") == content(tmp_path / "whole")
    assert list(read_n_best(first)) == list(read_n_best(whole))


def test_a_real_search(tmp_path, teacher):
    decoding = Decoding(SEARCH, source_buckets=(4,), batch_tokens=24)
    found = make(tmp_path / "lists", teacher, decoding=decoding)
    expected = translate_lines(teacher.system, LINES, decoding)
    for candidates, translation in zip(read_n_best(found), expected, strict=True):
        assert [candidate.text for candidate in candidates] == [h.text for h in translation.hypotheses]
        assert [candidate.score for candidate in candidates] == [h.score for h in translation.hypotheses]
        assert [candidate.tokens for candidate in candidates] == [len(h.tokens) for h in translation.hypotheses]


# ---------------------------------------------------------------- choice


def slow_kim_rush(hypothesis, reference):
    """The rule as its authors' Lua has it: a loop over orders, matches crossed off a list."""
    if not hypothesis:
        return 0.0
    smooth, bleu = 1, 1.0
    for n in (1, 2, 3, 4):
        left = [reference[i : i + n] for i in range(len(reference) - n + 1)]
        total = correct = 0
        for i in range(len(hypothesis) - n + 1):
            total += 1
            if hypothesis[i : i + n] in left:
                left.remove(hypothesis[i : i + n])
                correct += 1
        if total > 0:
            if correct == 0:
                smooth = smooth * 0.5
                correct = smooth
            bleu = bleu * (correct / total)
    return bleu**0.25 * math.exp(1 - max(1, len(reference) / len(hypothesis)))


@pytest.mark.parametrize(
    "hypothesis, reference, expected",
    [
        ("a b c d", "a b c d", 1.0),
        ("a", "a", 1.0),  # orders 2 to 4 are skipped, the root stays the fourth of 1
        ("x", "a", 0.5**0.25),  # one order without a match: 1/2
        ("x y", "a b", (0.5 / 2 * 0.25 / 1) ** 0.25),  # 1/2 of 2 words, then 1/4 of one pair
        ("a b", "a b c d", math.exp(-1)),  # 1 - 4/2
        ("a b c d", "a b", (2 / 4 * 1 / 3 * (1 / 2) / 2 * (1 / 4) / 1) ** 0.25),  # no penalty for length
        ("a a a", "a b", (1 / 3 * (1 / 2) / 2 * (1 / 4) / 1) ** 0.25),  # clipped: one a
        ("w x y z", "a b c d", (0.5 / 4 * 0.25 / 3 * 0.125 / 2 * 0.0625 / 1) ** 0.25),
        ("", "a b", 0.0),
        ("a", "", 0.5**0.25),
    ],
)
def test_kim_rush_by_hand(hypothesis, reference, expected):
    assert kim_rush([hypothesis], reference, "none") == [pytest.approx(expected, rel=1e-12)]
    assert slow_kim_rush(hypothesis.split(), reference.split()) == pytest.approx(expected, rel=1e-12)


def test_kim_rush_against_a_slow_one():
    random = np.random.default_rng(0)
    for _ in range(300):
        *hypotheses, reference = (list(random.choice(WORDS[:4], random.integers(0, 9))) for _ in range(4))
        found = kim_rush([" ".join(words) for words in hypotheses], " ".join(reference), "none")
        assert found == pytest.approx([slow_kim_rush(words, reference) for words in hypotheses], rel=1e-12)


def test_kim_rush_counts_words_of_tokenised_text():
    assert kim_rush(["Ja, gut."], "Ja , gut .", "13a") == [1.0]
    assert kim_rush(["Ja, gut."], "Ja , gut .", "none") != [1.0]


def candidates(*texts, scores=None, finished=None):
    scores = scores or [-float(place) for place in range(len(texts))]
    finished = finished or [True] * len(texts)
    return [Candidate(*row, tokens=len(row[0].split())) for row in zip(texts, scores, scores, finished, strict=True)]


@pytest.mark.parametrize("selection", SELECTIONS)
def test_every_rule_takes_the_certain_case(selection):
    """The contract of SELECTIONS: the reference itself wins, but `best` looks at nothing but the order.

    It is also what most of the list agrees on, which `mbr` chooses.
    """
    listed = candidates("the dog ran", "a cat sat on the mat", "a cat sat on the")
    choice = choose(listed, selection, "a cat sat on the mat", "13a")
    assert choice.index == (0 if selection == "best" else 1)
    assert choice.candidate is listed[choice.index] and choice.first is listed[0]
    assert (choice.similarity is None) == (selection == "best")


@pytest.mark.parametrize("selection", SELECTIONS)
def test_ties_go_to_the_better_score_and_finished_ones_first(selection):
    twice = candidates("x y", "a b", "a b", "a b", scores=[-1.0, -4.0, -2.0, -2.0])
    assert choose(twice, selection, "a b", "13a").index == (0 if selection == "best" else 2)
    cut = candidates("a b", "x y", finished=[False, True])
    assert choose(cut, selection, "a b", "13a").index == 1, "a cut hypothesis must not win over a finished one"
    all_cut = candidates("x y", "a b", finished=[False, False])
    assert choose(all_cut, selection, "a b", "13a").index == (1 if SELECTIONS[selection].needs_reference else 0)


def test_a_rule_that_is_not_there_and_a_missing_reference():
    with pytest.raises(UserError, match="'gleu'.*the rules are best, kim_rush"):
        choose(candidates("a"), "gleu")
    with pytest.raises(UserError, match="'chrf' needs references.*'best' or 'mbr'"):
        choose(candidates("a"), "chrf")
    assert choose(candidates("a"), "best").index == choose(candidates("a"), "mbr").index == 0


def test_mbr_chooses_what_the_list_agrees_on_and_reads_no_reference():
    listed = candidates("the dog ran", "a cat sat on the mat", "a cat sat on the", "sat on the mat")
    choices = [choose(listed, "mbr", reference) for reference in (None, "the dog ran")]
    assert [choice.index for choice in choices] == [1, 1]
    chrf = [metrics.sentence_chrf([listed[1].text], other.text, "")[0] for other in listed]
    assert choices[0].similarity == pytest.approx(np.mean(chrf))


# ---------------------------------------------------------------- corpus


@pytest.fixture
def found(tmp_path, teacher, monkeypatch):
    """Lists as a teacher might give them, an empty line and a cut hypothesis among them."""
    listed = {
        "a b": candidates("x y", "a b", scores=[-1.0, -3.0]),
        "c": candidates("c", "d"),
        "": candidates(""),
        "d e f": candidates("d e f g", finished=[False]),
        "g h": candidates("g\u2028h"),
    }

    def stub(system, lines, decoding, **options):
        for line in lines:
            yield Translation(line, [Hypothesis([5] * c.tokens, *c[:4]) for c in listed[line]])

    monkeypatch.setattr(nbest, "translate_lines", stub)
    return make(tmp_path / "lists", teacher, ["a b", "c", "", "d e f", "g h", "c"])


REFERENCES = ["a b", "d", "", "d e f", "g h", "c"]


def write(tmp_path, found, selection="best", references=REFERENCES, **options):
    recipe = distillation.Recipe(("en", "de"), selection, references, VOCABULARIES, tokenize="none", **options)
    card = distillation.write_corpus(tmp_path / "kd", found, recipe)
    return card, {name: data.decode("utf-8") for name, data in content(tmp_path / "kd").items()}


def test_every_line_stands_where_it_stood(tmp_path, found):
    card, written = write(tmp_path, found)
    assert written["train.en"] == "a b\nc\n\nd e f\ng h\nc\n"
    assert written["train.de"] == "x y\nc\n\nd e f g\ng h\nc\n", "a line break inside a hypothesis must become a space"
    table = [row.split("\t") for row in written["scores.tsv"].splitlines()]
    assert table[0] == ["line", "index", "score", "log_prob", "tokens", "finished", "similarity"]
    assert [row[0] for row in table[1:]] == ["1", "2", "3", "4", "5", "6"]
    assert table[4][5] == "0" and table[1][6] == ""
    assert set(card["files"]) == {"train.en", "train.de", "scores.tsv"}
    assert json.loads(written["card.json"]) == card


def test_the_card_of_the_oracle(tmp_path, found):
    card, written = write(tmp_path, found, "kim_rush")
    assert written["train.de"] == "a b\nd\n\nd e f g\ng h\nc\n"
    assert card["lines"] == 6 and card["empty_sources"] == 1 and card["empty_targets"] == 0
    assert card["unfinished"] == 1
    assert card["changed"] == 2 and card["changed_share"] == pytest.approx(2 / 5)
    assert card["length_ratio_to_sources"] == pytest.approx(10 / 9)
    assert card["length_ratio_to_references"] == pytest.approx(10 / 9)
    texts, first = ["a b", "d", "d e f g", "g h", "c"], ["x y", "c", "d e f g", "g h", "c"]
    against = [line for line in REFERENCES if line]
    assert card["bleu"] == pytest.approx(metrics.score(texts, against, "none").bleu)
    assert card["bleu_of_first"] == pytest.approx(metrics.score(first, against, "none").bleu)
    assert "tok:none" in card["signature"] and card["similarity_tokenizer"] == "none"
    assert card["mean_log_prob_per_token"] == pytest.approx((-3 - 1) / (3 + 2 + 4 + 3 + 2))
    assert card["teacher"]["fingerprint"] == checkpoint.fingerprint(tmp_path / "teacher")
    assert card["teacher"]["path"] == str(tmp_path / "teacher")
    assert card["decoding"]["search"]["beam"] == 3
    for words in ("kim_rush", "unfinished (cut at the length limit): 1", "2 (40.0%)", "beam 3", "Validation"):
        assert words in written["README.md"]


def test_source_only_text(tmp_path, found):
    card, written = write(tmp_path, found, references=None)
    assert card["bleu"] is None and "BLEU" not in written["README.md"]
    with pytest.raises(UserError, match="needs references"):
        write(tmp_path, found, "chrf", references=None)
    assert content(tmp_path / "kd")["card.json"].decode() == written["card.json"], (
        "a failed run must leave the old corpus"
    )


def test_filters_make_a_copy_and_are_counted(tmp_path, found):
    filters = FilterConfig(drop_unfinished=True, deduplicate=True)
    card, written = write(tmp_path, found, filters=filters)
    assert written["train.de"].count("\n") == 6
    assert written["filtered/train.en"] == "a b\nc\ng h\n"
    assert written["filtered/train.de"] == "x y\nc\ng h\n"
    assert written["filtered/lines.txt"] == "1\n2\n5\n"
    counts = {"empty": 1, "unfinished": 1, "duplicate": 1, "length_ratio": 0, "worst_score": 0}
    assert card["filters"]["dropped"] == counts and card["filters"]["kept"] == 3
    assert "3 pairs; dropped: empty 1, unfinished 1, duplicate 1" in written["README.md"]


def test_each_filter_alone():
    listed = candidates("a b c d", "b", "c", "d e", scores=[-5.0, -6.0, -2.0, -1.0], finished=[True, True, False, True])
    sources, choices = ["a", "b", "c", "d e"], [Choice(candidate, candidate, 0, None) for candidate in listed]
    sources, choices = [*sources, "b", "f", ""], [*choices, choices[1], choices[1]._replace(), choices[2]]
    everything = [0, 1, 2, 3, 4, 5]  # the empty source goes in any case

    def kept(**settings):
        found, counts = apply_filters(sources, choices, FilterConfig(**settings))
        assert len(found) + sum(counts.values()) == len(sources)
        return found

    assert kept() == everything
    assert kept(drop_unfinished=True) == [0, 1, 3, 4, 5]
    assert kept(deduplicate=True) == [0, 1, 2, 3, 5]
    assert kept(max_length_ratio=3.9) == [1, 2, 3, 4, 5]
    assert kept(max_length_ratio=4.0) == everything
    # Log-probability per token, EOS counted where it was reached: -1, -3, -2, -1/3, -3, -3.
    assert kept(drop_worst=0.5) == [0, 2, 3]


def test_line_counts_must_agree(tmp_path, found):
    with pytest.raises(UserError, match="5 references for 6 source lines"):
        write(tmp_path, found, references=REFERENCES[1:])


def test_nothing_to_distil(tmp_path, teacher, decoded):
    nothing = make(tmp_path / "lists", teacher, ["", " "])
    with pytest.raises(UserError, match="every source line is blank"):
        write(tmp_path, nothing, references=None)


def test_a_student_can_mix_it_with_gold_text(tmp_path, found):
    write(tmp_path, found)
    distilled = load_split(CorpusConfig(path=str(tmp_path / "kd"), source="en", target="de"), "train")
    assert distilled.sources == ["a b", "c", "", "d e f", "g h", "c"]
    assert distilled.targets == ["x y", "c", "", "d e f g", "g h", "c"]
    gold = distilled._replace(targets=REFERENCES)
    mixed = mix([(gold, 0.5), (distilled, 1.0)])
    assert mixed.weights == [0.5] * 6 + [1.0] * 6 and mixed.targets == gold.targets + distilled.targets
