"""Agreement sentences: what is read is what the file says, and bad input gets one line that names file and row."""

import csv
import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.abnar_2020 import accuracy, sentences
from experiments.abnar_2020.sentences import Prefixes, Sentences
from seqkd_jax.data import toy
from seqkd_jax.data.toy.lexicon import VERB_FORMS
from seqkd_jax.types import UserError

COLUMNS = (
    "sentence subj_idx verb_idx verb_pos verb inflected_verb distance n_intervening n_attractors homogeneous subj_tag"
)
ROWS = (
    "the cat near NNS sleeps .|1|4|VBZ|sleeps|sleep|3|1|1|1|NN",
    "old dogs in the JJ park run .|1|6|VBP|run|runs|5|1|1|1|NNS",
    "the NN of a town VBZ old .|1|5|VBZ|is|are|4|1|0|1|NN",
    '" keys open " doors|1|2|VBP|open|opens|1|0|0|1|NNS',  # quotation marks are tokens like any other
)
LINZEN_COLUMNS = (
    "sentence orig_sentence pos_sentence subj verb subj_pos has_rel has_nsubj verb_pos subj_index verb_index "
    "n_intervening last_intervening n_diff_intervening distance max_depth all_nouns nouns_up_to_verb"
)


def write(path, rows, columns=COLUMNS):
    lines = [columns.replace(" ", "\t"), *(row.replace("|", "\t") for row in rows)]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def split_files(directory):
    for split, rows in {"train": ROWS, "valid": ROWS[:1], "test": ROWS[1:]}.items():
        write(directory / f"{split}.tsv", rows)
    return directory


def made(words, verb, plural, forms) -> Sentences:
    """Sentences with the subject first and nothing between that counts."""
    verb = np.array(verb, np.int32)
    zeros = np.zeros_like(verb)
    return Sentences([text.split() for text in words], zeros, verb, np.array(plural), forms, verb, zeros, zeros, "made")


def linzen_row(text, subject, verb, tag, form, intervening=0, attractors=0) -> dict:
    """A row of the published table; places from 1. Quotation marks, as here in the original, are doubled by csv."""
    return dict.fromkeys(LINZEN_COLUMNS.split(), "na") | {
        "sentence": text,
        "orig_sentence": f'" {text} "',
        "verb": form,
        "verb_pos": tag,
        "subj_index": subject,
        "verb_index": verb,
        "n_intervening": intervening,
        "n_diff_intervening": attractors,
        "distance": verb - subject,
    }


LINZEN_ROWS = [
    linzen_row("the keys to the car are old", 2, 6, "VBP", "are", 1, 1),
    linzen_row("the car stops", 2, 3, "VBZ", "stops"),
    linzen_row("the cars stop", 2, 3, "VBP", "stop"),
    linzen_row("he carries", 1, 2, "VBZ", "carries"),
    linzen_row("they carry", 1, 2, "VBP", "carry"),
    linzen_row('" it leans', 2, 3, "VBZ", "leans"),  # nobody leans in the plural: no other form
]


def write_linzen(path, rows):
    """As the published file was written: Python's csv module, tabs, quotes where a cell needs them, CR LF."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, LINZEN_COLUMNS.split(), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_the_toy_language_has_its_own_labels():
    counts = {"train": 60, "valid": 20, "test": 40}
    parts = sentences.load(None, seed=3, counts=counts)
    assert list(parts) == ["train", "valid", "test"]
    for split, part in parts.items():
        examples = toy.sample_pairs(3, counts[split], split)
        assert [" ".join(words) for words in part.words] == [example.source for example in examples]
        wanted = [
            (e.subject_index, e.verb_index, e.verb_plural, e.distance, e.intervening, e.attractors) for e in examples
        ]
        found = zip(part.subject, part.verb, part.plural, part.distance, part.intervening, part.attractors, strict=True)
        assert [tuple(row) for row in found] == wanted
        assert {array.dtype for array in part if isinstance(array, np.ndarray)} == {np.dtype(np.int32), np.dtype(bool)}
        for words, verb, plural, (form, other) in zip(part.words, part.verb, part.plural, part.forms, strict=True):
            assert words[verb] == form
            (entry, number), (other_entry, other_number) = VERB_FORMS[form], VERB_FORMS[other]
            assert (number, other_number) == (plural, not plural)
            assert entry == other_entry, f"{form} and {other} are two verbs"
    again = sentences.load(None, 3, {"train": 10, "valid": 1, "test": 1})
    assert again["train"].words == parts["train"].words[:10]


def test_a_table_says_what_its_file_says(tmp_path):
    read = sentences.read_tsv(write(tmp_path / "train.tsv", ROWS))
    rows = [row.split("|") for row in ROWS]
    assert read.words == [row[0].split() for row in rows]
    assert read.forms == [(row[4], row[5]) for row in rows]
    assert read.plural.tolist() == [row[3] == "VBP" for row in rows]
    for array, column in ((read.subject, 1), (read.verb, 2), (read.distance, 6), (read.intervening, 7)):
        assert array.tolist() == [int(row[column]) for row in rows] and array.dtype == np.int32
    assert read.attractors.tolist() == [1, 1, 0, 0]


def test_columns_may_stand_in_any_order_and_a_subject_may_be_unknown(tmp_path):
    columns = "n_attractors verb distance sentence verb_idx verb_pos n_intervening inflected_verb subj_idx"
    path = write(tmp_path / "rows.tsv", ["2|run|7|the dogs run|2|VBP|3|runs|-1"], columns)
    read = sentences.read_tsv(path)
    assert read.subject.tolist() == [-1] and read.distance.tolist() == [7] and read.attractors.tolist() == [2]
    assert read.words == [["the", "dogs", "run"]] and read.forms == [("run", "runs")]


GOOD = "the dogs run .|1|2|VBP|run|runs|1|0|0|1|NNS"


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ("the dogs run .|1|2|VBP|run|runs|1|0|0|1", "10 cells, expected 11"),
        (GOOD + "|more", "12 cells, expected 11"),
        ("", "cells, expected 11"),
        ("the dogs run .|one|2|VBP|run|runs|1|0|0|1|NNS", "subj_idx is 'one'"),
        ("the dogs run .|1|2.0|VBP|run|runs|1|0|0|1|NNS", "verb_idx is '2.0'"),
        ("the dogs run .|1|4|VBP|run|runs|3|0|0|1|NNS", "verb_idx 4 lies outside its 4 tokens"),
        ("the dogs run .|9|2|VBP|run|runs|1|0|0|1|NNS", "subj_idx 9 lies outside"),
        ("the dogs run .|1|-1|VBP|run|runs|1|0|0|1|NNS", "verb_idx is '-1'"),
        ("|0|1|VBP|run|runs|1|0|0|1|NNS", "verb_idx 1 lies outside its 0 tokens"),
        ("the dogs run .|1|2|VBD|run|runs|1|0|0|1|NNS", "verb_pos is 'VBD', expected VBZ or VBP"),
        ("the dogs run .|1|2|VBP|run|runs|2|0|0|1|NNS", "distance 2 do not agree"),
        ("the dogs run .|3|2|VBP|run|runs|1|0|0|1|NNS", "a subject stands before its verb"),
        ("the dogs run .|2|2|VBP|run|runs|0|0|0|1|NNS", "a subject stands before its verb"),
        ("the dogs run .|1|2|VBP|run|runs|1|x|0|1|NNS", "n_intervening is 'x'"),
        ("the dogs run .|1|2|VBP|run|runs|1|99999999999|0|1|NNS", "n_intervening is '99999999999'"),
        ("the dogs run .|1|2|VBP|run|runs|1|0||1|NNS", "n_attractors is ''"),
        ("the dogs run .|1|2|VBP|run|runs|1|0|1|1|NNS", "n_attractors is 1, more than all nouns between"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, wanted):
    path = write(tmp_path / "train.tsv", [GOOD, row, GOOD])
    with pytest.raises(UserError) as caught:
        sentences.read_tsv(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line 3: ") and wanted in message and "\n" not in message, message


def test_a_bad_file_is_named(tmp_path):
    path = write(tmp_path / "train.tsv", [GOOD], COLUMNS.replace("verb_pos", "tag"))
    with pytest.raises(UserError, match=r"train.tsv, line 1: no column verb_pos; there are sentence, subj_idx, .*tag"):
        sentences.read_tsv(path)
    path.write_text("")
    with pytest.raises(UserError, match="train.tsv: an empty file"):
        sentences.read_tsv(path)
    with pytest.raises(UserError, match="train.tsv: no rows"):
        sentences.read_tsv(write(path, []))
    path.write_bytes(b"sentence\xff\n")
    with pytest.raises(UserError, match="train.tsv, line 1: not UTF-8"):
        sentences.read_tsv(path)
    with pytest.raises(UserError, match=r"nowhere.tsv: No such file"):
        sentences.read_tsv(tmp_path / "nowhere.tsv")


def test_a_directory_has_a_file_for_each_split(tmp_path):
    parts = sentences.load(split_files(tmp_path), seed=1, counts=None)
    assert {split: len(part.words) for split, part in parts.items()} == {"train": 4, "valid": 1, "test": 3}
    assert parts["test"].words[0] == ROWS[1].split("|")[0].split()


def test_a_path_without_sentences_is_named(tmp_path):
    with pytest.raises(UserError, match="holds neither train.tsv.*agr_50_mostcommon_10K.tsv"):
        sentences.load(tmp_path, 1, None)
    with pytest.raises(UserError, match="away: no such file or directory"):
        sentences.load(tmp_path / "away", 1, None)
    (split_files(tmp_path) / "valid.tsv").unlink()
    with pytest.raises(UserError, match="valid.tsv: No such file"):
        sentences.load(tmp_path, 1, None)


@pytest.mark.parametrize("name", sentences.LINZEN)
def test_the_published_table_counts_from_1_and_its_inflections_are_found(tmp_path, name):
    read = sentences.read_linzen(write_linzen(tmp_path / name, LINZEN_ROWS))
    assert read.words == [row["sentence"].split() for row in LINZEN_ROWS], "csv's quotes must go"
    assert [words[verb] for words, verb in zip(read.words, read.verb, strict=True)] == [form for form, _ in read.forms]
    assert [words[place] for words, place in zip(read.words, read.subject, strict=True)][:3] == ["keys", "car", "cars"]
    assert read.plural.tolist() == [True, False, True, False, True, False]
    assert read.intervening.tolist() == read.attractors.tolist() == [1, 0, 0, 0, 0, 0]
    assert [other for _, other in read.forms] == ["is", "stop", "stops", "carry", "carries", ""]
    known = {word for words in read.words for word in words} | {"is"}
    assert sentences.scorable(read, known).tolist() == [True] * 5 + [False], "without another form there is no score"


def test_the_published_table_is_split_by_a_seeded_permutation(tmp_path):
    rows = [linzen_row(f"w{number} sleeps", 1, 2, "VBZ", "sleeps") for number in range(234)]
    path = write_linzen(tmp_path / sentences.LINZEN[1], rows)
    parts = sentences.load(tmp_path, seed=5, counts=None)
    assert {split: len(part.words) for split, part in parts.items()} == {"train": 23, "valid": 2, "test": 209}
    first = {split: [words[0] for words in part.words] for split, part in parts.items()}
    assert sorted(sum(first.values(), [])) == sorted(row["sentence"].split()[0] for row in rows), (
        "each row in one split"
    )
    assert first["train"] != [f"w{number}" for number in range(23)], "the file's order must not decide"
    same, other = (sentences.load(path, seed, None) for seed in (5, 6))
    assert same["train"].words == parts["train"].words != other["train"].words
    with pytest.raises(UserError, match="99 rows are too few"):
        sentences.load(write_linzen(path, rows[:99]), 5, None)


def test_a_damaged_published_file_is_named(tmp_path):
    path = write_linzen(tmp_path / sentences.LINZEN[1], LINZEN_ROWS)
    whole = path.read_bytes()
    damaged = bytes(255 - byte if place > 60 else byte for place, byte in enumerate(whole))
    for content in (whole[:-20], damaged, b"plain text"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"10K.tsv.gz: (no whole|does not begin as a) gzip file"):
            sentences.load(path, 1, None)
    with pytest.raises(UserError, match=r"away.gz: No such file"):
        sentences.read_linzen(tmp_path / "away.gz")
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + gzip.decompress(whole)))
    assert sentences.read_linzen(path).words == [row["sentence"].split() for row in LINZEN_ROWS], "a mark of order"
    lines = gzip.decompress(whole).decode().splitlines(keepends=True)
    path.write_bytes(gzip.compress("".join([*lines[:2], '"open\n', *lines[2:]]).encode()))
    with pytest.raises(UserError, match=r"line 3: 17 cells, expected 18"):
        sentences.read_linzen(path)
    write_linzen(path, [LINZEN_ROWS[0], LINZEN_ROWS[0] | {"verb_index": 0}])
    with pytest.raises(UserError, match=r"line 3: verb_index 0 lies outside its 7 tokens; the first is number 1"):
        sentences.read_linzen(path)


REGULAR = """run runs, pass passes, fix fixes, waltz waltzes, reach reaches, push pushes, carry carries, say says,
    undergo undergoes, radio radios, see sees"""


@pytest.mark.parametrize("pair", REGULAR.split(","))
def test_the_third_person_follows_the_rules_of_spelling(pair):
    base, form = pair.split()
    assert sentences.third_person(base) == form


def test_inflections_need_both_forms_in_the_corpus_unless_they_are_irregular():
    verbs = ["tell", "tells", "adds", "add", "have", "dies", "die", "die", "dy"]
    plural = [True, False, False, False, True, False, True, True, True]
    found = sentences.inflections(verbs, plural)
    assert found["tell", True] == "tells" and found["tells", False] == "tell"
    assert ("adds", False) not in found and ("add", False) not in found, "`add` was no plural in this corpus"
    assert found["dies", False] == "die", "the more frequent plural has the form that two could have"
    assert found["has", False] == "have" and found["was", False] == "were" and found["do", True] == "does"


def strata_files(directory, counts=(1, 2, 3, 4)):
    folder = directory / "linzen_strata"
    folder.mkdir()
    for count in counts:
        (folder / f"attractors_{count}.tsv").write_text(f"VBZ\tthe man with {count} dogs\nVBP\tmen of town {count}\n")
    return folder


def test_strata_are_read_by_their_number_of_attractors(tmp_path):
    assert sentences.strata(tmp_path) == {} and sentences.strata(None) == {}
    folder = strata_files(tmp_path)
    found = sentences.strata(tmp_path)
    assert list(found) == [1, 2, 3, 4]
    for count, prefixes in found.items():
        assert prefixes.words == [["the", "man", "with", str(count), "dogs"], ["men", "of", "town", str(count)]]
        assert prefixes.plural.tolist() == [False, True] and prefixes.attractors.tolist() == [count] * 2
    (folder / "attractors_5.tsv").write_text("of more than four nothing is counted, nor read\n")
    data = tmp_path / "all.tsv"
    data.write_text("one file instead of its directory\n")
    assert list(sentences.strata(data)) == [1, 2, 3, 4], "they lie beside it"
    (folder / "attractors_2.tsv").unlink()
    with pytest.raises(UserError, match="attractors_2.tsv: No such file"):
        sentences.strata(tmp_path)


@pytest.mark.parametrize("line", ["the men", "VBD\tthe men", "VBP\t", "VBP the men", "VBP\tthe\tmen", ""])
def test_a_bad_line_of_the_strata_is_named(tmp_path, line):
    path = strata_files(tmp_path) / "attractors_3.tsv"
    path.write_text(f"VBP\tthe men\n{line}\n")
    with pytest.raises(UserError, match=r"attractors_3.tsv, line 2: .*expected VBZ or VBP, a tab"):
        sentences.strata(tmp_path)
    path.write_text("")
    with pytest.raises(UserError, match=r"attractors_3.tsv: an empty file"):
        sentences.strata(tmp_path)


def random_sentences(seed, count) -> Sentences:
    random = np.random.default_rng(seed)
    words = [" ".join(random.choice(["a", "b"], random.integers(2, 6))) for _ in range(count)]
    verb = [int(random.integers(1, len(text.split()))) for text in words]
    plural = random.random(count) < 0.5
    forms = [(words[row].split()[verb[row]], "c") for row in range(count)]
    return made(words, verb, plural, forms)


def test_leaked_prefixes_stand_before_the_verb_of_a_training_row():
    train = made(["the man sleeps now", "men run"], [2, 1], [False, True], [("sleeps", "sleep"), ("run", "runs")])
    words = [text.split() for text in ("the man", "the", "the man sleeps", "men", "man", "the woman")]
    prefixes = Prefixes(words, np.array([True, False] * 3), np.arange(6, dtype=np.int32), "prefixes")
    left, dropped = sentences.drop_leaked(prefixes, train)
    assert dropped == 2
    assert left.words == [words[row] for row in (1, 2, 4, 5)], (
        "`the` begins a training sentence, but no verb follows it"
    )
    assert left.plural.tolist() == [False, True, True, False] and left.attractors.tolist() == [1, 2, 4, 5]
    none, dropped = sentences.drop_leaked(left._replace(words=[["men"]] * 4), train)
    assert dropped == 4 and none.words == [] and none.plural.shape == none.attractors.shape == (0,)


def test_unseen_rows_are_those_that_a_search_does_not_find():
    train, test = random_sentences(0, 12), random_sentences(1, 40)
    wanted = []
    for row, words in enumerate(test.words):
        before = words[: test.verb[row]]
        wanted.append(not any(before == other[: train.verb[place]] for place, other in enumerate(train.words)))
    found = sentences.unseen(test, train)
    assert found.dtype == bool and found.tolist() == wanted
    assert 0 < found.sum() < 40, "this test needs rows of both kinds: choose other seeds"


def test_scorable_rows_have_their_verb_in_place_and_two_known_forms():
    texts = ["dogs run", "dogs VBP", "dogs bark", "dogs is", "dogs eat", "dogs hop", "dogs et"]
    forms = [("run", "runs"), ("bark", "barks"), ("bark", "bark-s"), ("Is", "Are"), ("eat", ""), ("hop", "hops")]
    rows = made(texts, [1] * 7, [True] * 7, [*forms, ("et", "et")])
    known = {"run", "runs", "bark", "barks", "Is", "Are", "eat", "", "hops", "et"}
    wanted = [True, False, False, False, False, False, False]
    assert sentences.scorable(rows, known).tolist() == wanted
    assert sentences.scorable(rows, known.__contains__).tolist() == wanted
    assert sentences.scorable(rows, lambda word: True).tolist() == [True, False, True, False, False, True, False]


def test_verb_forms_have_one_number():
    forms = [("run", "runs"), ("is", "are"), ("lie", "lies"), ("lie", "lie"), ("bark", ""), ("runs", "run")]
    train = made(["x y"] * 6, [1] * 6, [True, False, True, False, True, False], forms)
    assert sentences.verb_forms(train) == {
        "are": True,
        "bark": True,
        "is": False,
        "lies": False,
        "run": True,
        "runs": False,
    }
    assert all(isinstance(plural, bool) for plural in sentences.verb_forms(train).values())


def test_the_paper_scores_up_to_4_nouns_between_and_a_distance_of_16():
    rows = made(["x y"] * 4, [1] * 4, [True] * 4, [("y", "z")] * 4)
    distance, intervening = np.array([16, 17, 3, 3], np.int32), np.array([4, 0, 5, 4], np.int32)
    rows = rows._replace(distance=distance, intervening=intervening)
    assert accuracy.distance_rows(rows.distance, rows.intervening).tolist() == [True, False, False, True]


def test_sentences_are_taken_by_index_or_by_mask():
    rows = random_sentences(2, 5)
    taken = sentences.take(rows, np.array([3, 0]))
    assert taken.words == [rows.words[3], rows.words[0]] and taken.forms == [rows.forms[3], rows.forms[0]]
    assert taken.verb.tolist() == rows.verb[[3, 0]].tolist() and taken.name == rows.name
    assert sentences.take(rows, np.array([True, False, False, True, False])).words == [rows.words[0], rows.words[3]]


def test_reading_sentences_needs_no_jax():
    check = "import sys, experiments.abnar_2020.sentences; sys.exit('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], cwd=Path(__file__).parents[2])
    assert done.returncode == 0, "sentences.py imports jax: see which of its imports does"
