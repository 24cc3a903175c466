"""N-best lists of other toolkits, in the very forms that they print, through the same selection, filters and card."""

import bz2
import gzip
import json
import math

import pytest
from distilling import make_teacher, spell_backwards

import seqkd_jax as kd
from seqkd_jax.distillation.nbest import Candidate
from seqkd_jax.distillation.nbest_files import FORMS, open_lists

SOURCES = ["the lamp is red", "", "a cat"]
REFERENCES = ["die Lampe ist rot", "", "eine Katze"]

# marian-decoder --n-best: src/translator/output_printer.h
MARIAN = """\
0 ||| die Lampe rot ||| F0= -2.5 ||| -0.625
0 ||| die Lampe ist rot ||| F0= -3.5 ||| -0.7
1 |||  ||| F0= -0.01 ||| -0.01
2 ||| Katze ||| F0= -1.5 ||| -0.75
2 ||| eine Katze ||| F0= -2.25 ||| -0.75
"""
MARIAN_ALIGNED = """\
0 ||| die Lampe rot ||| 0-0 1-1 3-2 ||| WordScores= -1 -1 -0.5 ||| F0= -2.5 ||| -0.625
0 ||| die Lampe ist rot ||| 0-0 1-1 2-2 3-3 ||| WordScores= -1 -1 -1 -0.5 ||| F0= -3.5 ||| -0.7
2 ||| Katze ||| 1-0 ||| WordScores= -1.5 ||| F0= -1.5 ||| -0.75
2 ||| eine Katze ||| 0-0 1-1 ||| WordScores= -1.25 -1 ||| F0=-2.25 ||| -0.75
"""
# moses -n-best-list FILE 2 -print-alignment-info-in-n-best
MOSES = """\
0 ||| die Lampe rot  ||| LexicalReordering0= -0.5 0 0 LM0= -20.1 ||| -2.5 ||| 0=0 1=1 3=2
0 ||| die Lampe ist rot  ||| LexicalReordering0= -0.5 0 0 Distortion0= 0 LM0= -21.5 ||| -3.5 ||| 0-3=0-3
2 ||| Katze  ||| LexicalReordering0= 0 0 0 Distortion0= 0 LM0= -9.1 WordPenalty0= -1 ||| -1.5 |||
2 ||| eine Katze  ||| LexicalReordering0= 0 0 0 Distortion0= 0 LM0= -12.1 WordPenalty0= -2 ||| -2.25 ||| 0-1=0-1
"""
# fairseq-generate --nbest 2, its sentences by length: fairseq_cli/generate.py
FAIRSEQ = """\
2026-11-29 10:00:00 | INFO | fairseq_cli.generate | loading model(s) from model.pt
S-2\ta cat
T-2\teine Katze
H-2\t-0.5\tKat@@ ze
D-2\t-0.5\tKatze
P-2\t-0.2500 -0.5000 -0.7500
H-2\t-1.0\teine Kat@@ ze
D-2\t-1.0\teine Katze
P-2\t-1.0000 -1.0000 -1.0000 -1.0000
S-0\tthe lamp is red
T-0\tdie Lampe ist rot
H-0\t-0.25\tdie Lampe rot
D-0\t-0.25\tdie Lampe rot
P-0\t-0.2500 -0.2500 -0.2500 -0.2500
H-0\t-0.75\tdie Lampe ist rot
D-0\t-0.75\tdie Lampe ist rot
P-0\t-0.7500 -0.7500 -0.7500 -0.7500 -0.7500
2026-11-29 10:00:01 | INFO | fairseq_cli.generate | NOTE: hypothesis and token scores are output in base 2
Generate test with beam=2: BLEU4 = 60.65, 100.0/80.0/60.0/40.0 (BP=1.000, ratio=1.000, syslen=6, reflen=6)
"""
JSONL = "".join(
    json.dumps(row) + "\n"
    for row in (
        {"hypotheses": [{"text": "die Lampe rot", "score": -1}, {"text": "die Lampe ist rot", "score": -2.5}]},
        {"line": 2, "source": "", "hypotheses": []},
        {"line": 3, "hypotheses": [{"text": "Katze", "score": -1.5}, {"text": "eine\u2028Katze", "score": -2.0}]},
    )
)
GIVEN = {"marian": (MARIAN, MARIAN_ALIGNED, MOSES), "fairseq": (FAIRSEQ,), "jsonl": (JSONL,)}
FILES = [(form, text) for form, texts in GIVEN.items() for text in texts]


def written(tmp_path, text):
    (tmp_path / "lists").write_text(text, encoding="utf-8")
    return tmp_path / "lists"


def test_there_is_a_file_of_every_form():
    assert GIVEN.keys() == FORMS.keys()


@pytest.mark.parametrize(("form", "text"), FILES, ids=["marian", "aligned", "moses", "fairseq", "jsonl"])
def test_every_form_gives_the_same_corpus(tmp_path, form, text):
    lists = open_lists(written(tmp_path, text), SOURCES)
    assert lists.form == form and [len(candidates) for candidates in lists.read()] == [2, 1, 2]
    given = {"references": REFERENCES, "languages": ("en", "de")}
    best = kd.distill_n_best(tmp_path / "lists", SOURCES, tmp_path / "best", **given)
    assert best.corpus.targets == ["die Lampe rot", "", "Katze"] and best.card["teacher"]["form"] == form
    given["filters"] = kd.FilterConfig(deduplicate=True)
    chosen = kd.distill_n_best(tmp_path / "lists", SOURCES, tmp_path / "oracle", selection="chrf", **given)
    assert chosen.corpus.targets == ["die Lampe ist rot", "eine Katze"], "empty pairs are dropped"
    assert chosen.card["bleu"] == pytest.approx(100) and chosen.card["changed"] == 2
    assert f"form {form}, SHA-256 `{lists.sha256[:16]}" in (tmp_path / "oracle" / "README.md").read_text()


def test_what_is_read_of_each_form(tmp_path):
    def first(text):
        return next(open_lists(written(tmp_path, text), SOURCES).read())[0]

    assert first(MARIAN) == Candidate("die Lampe rot", -0.625, -2.5, True, None)
    assert first(MARIAN.replace("F0= -2.5", "F0= -2 F1= -3")).log_prob is None, (
        "of an ensemble, their weights are not told"
    )
    assert first(MOSES) == Candidate("die Lampe rot", -2.5, None, True, None)
    bits = math.log(2)
    assert first(FAIRSEQ) == Candidate("die Lampe rot", -0.25 * bits, pytest.approx(-bits), True, 3)
    hypotheses = "".join(line for line in FAIRSEQ.splitlines(keepends=True) if line.startswith("H"))
    assert first(hypotheses) == Candidate("die Lampe rot", -0.25 * bits, None, True, None)
    by_kind = "".join(sorted(FAIRSEQ.splitlines(keepends=True)))  # as `sort` makes it: whose the tokens are is not told
    assert first(by_kind) == Candidate("die Lampe rot", -0.25 * bits, None, True, None)
    row = {"text": "x", "score": -1.0, "log_prob": -2.0, "tokens": 1, "finished": False}
    assert first(JSONL.replace('{"text": "die Lampe rot", "score": -1}', json.dumps(row))) == Candidate(**row)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_lists_may_be_compressed(tmp_path, compress):
    (tmp_path / "lists").write_bytes(compress(MARIAN.encode()))
    assert len(list(open_lists(tmp_path / "lists", SOURCES).read())) == 3


def swapped(text, one, other):
    rows = text.splitlines(keepends=True)
    rows[one], rows[other] = rows[other], rows[one]
    return "".join(rows)


WRONG = {
    "an id missing": (
        MARIAN_ALIGNED.partition("\n2 |||")[0],
        "at its end: there is no list with id 2, for source line 3",
    ),
    "the first id missing": (MARIAN[MARIAN.index("1 |||") :], "line 1: there is no list with id 0, for source line 1"),
    "ids from 1": (
        MARIAN_ALIGNED.replace("\n2", "\n3").replace("0 |||", "1 |||", 2),
        "line 1: there is no list with id 0",
    ),
    "ids out of order": (swapped(MARIAN, 0, 4), "line 1: there is no list with id 0, for source line 1"),
    "an id twice": (MARIAN + MARIAN[: MARIAN.index("\n") + 1], "line 6: id 0 follows 2"),
    "too many": (MARIAN + "3 ||| x ||| F0= -1 ||| -1\n", "line 6: id 3 is of source line 4, but there are 3"),
    "a huge id": (MARIAN + f"{'9' * 5000} ||| x ||| F0= -1 ||| -1\n", "line 6: is not `id |||"),
    "no score": (MARIAN.replace("||| -0.7\n", "||| many\n"), "line 2: score is 'many'"),
    "a NaN": (MARIAN.replace("||| -0.7\n", "||| nan\n"), "line 2: score is 'nan'"),
    "no features": ("0 ||| a ||| -1\n", "line 1: is not `id ||| text ||| features ||| score`"),
    "another line": (MARIAN.replace("0 ||| die Lampe ist", "die Lampe ist"), "line 2: is not `id |||"),
    "fairseq: one missing": (FAIRSEQ.replace("-2\t", "-1\t"), "there is no H- or D-line with id 2, for source line 3"),
    "fairseq: too many": (FAIRSEQ.replace("H-0", "H-7"), "line 12: id 7 is of source line 8, but there are 3"),
    "fairseq: one less": (FAIRSEQ.replace("D-0\t-0.75\tdie Lampe ist rot\n", ""), "line 13: the D-lines of id 0"),
    "fairseq: no text": (FAIRSEQ.replace("H-2\t-1.0\teine Kat@@ ze", "H-2\t-1.0"), "line 7: is not H-2, a score and"),
    "fairseq: no score": (FAIRSEQ.replace("H-2\t-1.0", "H-2\tx"), "line 7: score is 'x'"),
    "fairseq: no number": (FAIRSEQ.replace("H-2\t-1.0", "H2\t-1.0"), "line 7: is not H-, a number, a tab"),
    "fairseq: no tokens": (FAIRSEQ.replace("-0.2500 -0.5000", "-0.2500 x"), "line 6: score is 'x'"),
    "jsonl: an empty list": (
        JSONL.replace('[{"text": "die Lampe rot"', '[], "x": [{"text": "die Lampe rot"'),
        "line 1: the list is empty",
    ),
    "jsonl: one missing": (JSONL.splitlines()[0] + "\n", "at its end: there is no list with id 2"),
    "jsonl: one twice": (JSONL + JSONL.splitlines()[0], "line 4: is of source line 4, but there are 3"),
    "jsonl: another line": (JSONL.replace('"line": 2', '"line": 1'), 'line 2: "line" is 1'),
    "jsonl: another source": (JSONL.replace('"source": ""', '"source": "x"'), "line 2: \"source\" is 'x'"),
    "jsonl: no list": (JSONL.replace('"hypotheses": []', '"hypotheses": 5'), 'line 2: "hypotheses" must be a list'),
    "jsonl: no text": (JSONL.replace('"Katze"', "5"), "line 3: \"text\" is '5'"),
    "jsonl: half a character": (JSONL.replace('"Katze"', '"\\ud800"'), 'line 3: "text" holds half a character'),
    "jsonl: no score": (JSONL.replace('"score": -1.5', '"points": 1'), "line 3: score is 'None'"),
    "jsonl: a text for a score": (JSONL.replace("-1.5", '"x"'), "line 3: score is 'x'"),
    "jsonl: cut": (JSONL[:-9], "line 3: not JSON"),
    "jsonl: no object": ("{}\n[]\n", 'line 1: "hypotheses" must'),
    "nothing": ("", "holds no n-best lists"),
    "prose": ("the lamp\nis red\n", "holds no n-best lists"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_fault_is_one_line_with_file_and_line(tmp_path, fault):
    text, said = WRONG[fault]
    with pytest.raises(kd.UserError) as caught:
        kd.distill_n_best(written(tmp_path, text), SOURCES, tmp_path / "kd")
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "lists")) and said in message and "\n" not in message
    assert not (tmp_path / "kd").exists()


def test_ours_in_the_form_of_marian_give_the_identical_corpus(tmp_path, monkeypatch):
    spell_backwards(monkeypatch)
    teacher = kd.LoadedTranslator(make_teacher(tmp_path / "teacher"))
    sources = ["a b", "", "c |||", "||| d", "e ||| f", "|||", "0-0", "g h a b"]
    given = {"references": [line[::-1] for line in sources], "languages": ("en", "de"), "selection": "sacrebleu"}
    given |= {"metric": kd.MetricConfig("none")}
    given |= {"filters": kd.FilterConfig(drop_worst=0.3, drop_unfinished=True), "marian": True}
    ours = kd.distill(teacher, sources, tmp_path / "ours", **given)
    again = kd.distill_n_best(tmp_path / "ours" / "n-best.txt", sources, tmp_path / "again", **given)
    for name in ours.card["files"]:
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
    differs = {name for name in ours.card if ours.card[name] != again.card[name]}
    assert differs <= {"teacher", "decoding"}
    assert (
        (tmp_path / "ours" / "n-best.txt")
        .read_text()
        .startswith("0 ||| b a ||| F0= -1.5 Tokens= 2 Finished= 1 ||| -1.0\n")
    )


def test_other_lists_are_another_job(tmp_path):
    kd.distill_n_best(written(tmp_path, MARIAN), SOURCES, tmp_path / "kd")
    kd.distill_n_best(tmp_path / "lists", SOURCES, tmp_path / "kd")
    with pytest.raises(kd.UserError, match="holds a corpus with another teacher"):
        kd.distill_n_best(written(tmp_path, MOSES), SOURCES, tmp_path / "kd")
    kd.distill_n_best(tmp_path / "lists", SOURCES, tmp_path / "kd", overwrite=True)
