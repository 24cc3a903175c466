"""A job's result is never replaced by another's without a word, nor made twice; and every check comes first."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from damage import damage_some, reseal
from distilling import make_teacher, spell_backwards

import seqkd_jax as kd
from seqkd_jax.data.corpus import load_split
from seqkd_jax.utils import files

LINES = ["a b", "c", "", "d e f", "g h", "a a", "b"]  # 3 shards of 3 lines at most
REFERENCES = ["b a", "c", "", "f e", "h g", "a", "b"]


@pytest.fixture
def decoded(monkeypatch):
    return spell_backwards(monkeypatch)


@pytest.fixture
def teacher(tmp_path):
    return kd.LoadedTranslator(make_teacher(tmp_path / "teacher"))


@pytest.fixture
def distil(tmp_path, teacher, decoded):
    """Distils into kd/; options override those of the first corpus."""

    def distil(sources=LINES, teacher=teacher, **options):
        decoded.seen.clear()
        given = {"references": REFERENCES, "languages": ("en", "ja"), "beam": 3, "shard_lines": 3, **options}
        return kd.distill(teacher, sources, tmp_path / "kd", **given)

    return distil


def content(directory):
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


OTHERS = {
    "another teacher (": {"teacher": "other"},
    "other source lines (": {"sources": LINES[:5], "references": REFERENCES[:5]},
    "other references (": {"references": REFERENCES[::-1]},
    "beam 3, not 2": {"beam": 2},
    "batch_tokens 1024, not 7": {"batch_tokens": 7},
    "selection best, not kim_rush": {"selection": "kim_rush"},
    "languages en-ja, not en-de": {"languages": ("en", "de")},
}


@pytest.mark.parametrize("said", OTHERS)
def test_the_result_of_another_job_is_refused_by_what_differs(tmp_path, distil, decoded, said):
    distil()
    before, options = content(tmp_path), dict(OTHERS[said])
    if "teacher" in options:
        options["teacher"] = kd.LoadedTranslator(make_teacher(tmp_path / "other", "1" * 64))
        before = content(tmp_path)
    with pytest.raises(kd.UserError, match=f"kd: holds a corpus with .*{re.escape(said)}.*--overwrite"):
        distil(**options)
    assert content(tmp_path) == before and decoded.seen == []
    decoded.kill_at("d e f" if options.get("batch_tokens") else None)
    if options.get("batch_tokens"):
        with pytest.raises(KeyboardInterrupt):
            distil(**options, overwrite=True)
        assert before.items() <= content(tmp_path).items(), "nothing goes before the new one is complete"
        decoded.kill_at(None)
    distil(**options, overwrite=True)
    new = kd.load_split(kd.CorpusConfig(str(tmp_path / "kd"), *options.get("languages", ("en", "ja"))), "train")
    assert new.sources == options.get("sources", LINES)
    assert sorted(path.name for path in tmp_path.glob("kd*")) == ["kd", "kd.n-best"], "no list is left behind"
    distil(**options)
    assert decoded.seen == []


def test_a_corpus_tells_in_what_it_was_computed(tmp_path, teacher, distil):
    distil(teacher=teacher._replace(checkpoint=dataclasses.replace(teacher.checkpoint, compute="bfloat16")))
    assert "`, computed in bfloat16\n" in (tmp_path / "kd" / "README.md").read_text(encoding="utf-8")
    with pytest.raises(kd.UserError, match="compute bfloat16, not the teacher's own; name another"):
        distil()


def test_what_a_card_says_is_told_in_short(tmp_path, distil):
    distil()
    card = json.loads((tmp_path / "kd" / "card.json").read_text(encoding="utf-8"))
    card["selection"] = "x" * 3000
    (tmp_path / "kd" / "card.json").write_text(json.dumps(card), encoding="utf-8")
    reseal(tmp_path / "kd")
    with pytest.raises(kd.UserError, match="selection xxx") as error:
        distil()
    assert len(str(error.value)) < 600


def test_lists_alone_are_refused_too_and_shards_that_fit_are_kept(tmp_path, distil, decoded):
    """The job of the lists was stopped before there was a corpus; or the corpus was removed."""
    distil()
    shutil.rmtree(tmp_path / "kd")
    before = content(tmp_path)
    with pytest.raises(kd.UserError, match="kd.n-best: holds n-best lists of beam 3, not 4; .*--overwrite"):
        distil(beam=4)
    with pytest.raises(kd.UserError, match="shard_lines 3, not 2"):
        distil(shard_lines=2)
    changed = [*LINES[:4], "g", *LINES[5:]]
    with pytest.raises(kd.UserError, match="other source lines"):
        distil(changed)
    assert content(tmp_path) == before
    distil(changed, overwrite=True)
    assert decoded.seen == ["g"]
    (tmp_path / "kd.n-best" / "lists.json").unlink()  # as a version before 0.3.0 left it
    shutil.rmtree(tmp_path / "kd")
    with pytest.raises(kd.UserError, match="lists of another teacher, other rules or other source lines"):
        distil()
    distil(changed)
    assert decoded.seen == []


def test_a_finished_corpus_is_not_made_again_and_what_is_missing_is_added(tmp_path, distil, decoded, capfd):
    distil(references=None)
    shutil.rmtree(tmp_path / "kd.n-best")  # to save space
    before = content(tmp_path / "kd")
    distil(references=None)
    assert decoded.seen == [] and content(tmp_path / "kd") == before and "is complete" in capfd.readouterr().err
    distil()
    assert json.loads((tmp_path / "kd" / "card.json").read_text())["bleu"] is not None
    filters = kd.FilterConfig(deduplicate=True)
    assert distil(filters=filters, marian=True).directory == tmp_path / "kd" / "filtered"
    assert (tmp_path / "kd" / "n-best.txt").exists() and decoded.seen == []
    with pytest.raises(kd.UserError, match="other filters"):
        distil(filters=kd.FilterConfig(drop_unfinished=True))
    with pytest.raises(kd.UserError, match="holds a corpus with filters"):
        distil()


def test_a_damaged_corpus_or_list_is_named(tmp_path, distil):
    distil()
    for name in ("train.ja", "card.json", "README.md"):
        path = tmp_path / "kd" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-2] + b"x\n")
        with pytest.raises(kd.UserError, match=f"kd/{name}: damaged, .*--overwrite"):
            distil()
        with pytest.raises(kd.UserError, match=f"{name}: damaged.*if it was changed on purpose, remove .*SHA256SUMS"):
            load_split(kd.CorpusConfig(str(tmp_path / "kd"), "en", "ja"), "train")
        path.write_bytes(whole)
    (tmp_path / "kd" / "SHA256SUMS").unlink()
    assert load_split(kd.CorpusConfig(str(tmp_path / "kd"), "en", "ja"), "train").sources == LINES
    shutil.rmtree(tmp_path / "kd")
    lists = tmp_path / "kd.n-best" / "lists.json"
    lists.write_text(lists.read_text().replace("beam", "bean"))
    with pytest.raises(kd.UserError, match="lists.json is damaged.*--overwrite"):
        distil()


def test_a_corpus_of_an_older_version_is_told_apart_too(tmp_path, distil, decoded):
    """Its card says neither lines nor languages, and it has no SHA256SUMS."""
    distil()
    directory = tmp_path / "kd"
    card = json.loads((directory / "card.json").read_text())
    for name in ("inputs", "languages"):
        del card[name]
    (directory / "card.json").write_text(json.dumps(card))
    (directory / "SHA256SUMS").unlink()
    (tmp_path / "kd.n-best" / "lists.json").unlink()
    before = content(tmp_path)
    for said, options in OTHERS.items():
        said = "languages en-ja, not en-de" if "languages" in options else said.partition(" (")[0]
        if "teacher" not in options and "other references" not in said:
            with pytest.raises(kd.UserError, match=f"kd: holds a corpus with .*{re.escape(said)}"):
                distil(**options)
    with pytest.raises(kd.UserError, match="other references"):
        distil(references=REFERENCES[::-1])
    assert content(tmp_path) == before
    distil()
    assert decoded.seen == [] and "inputs" in json.loads((directory / "card.json").read_text())


def test_filtered_pairs_are_read_only_whole(tmp_path, distil):
    made = distil(filters=kd.FilterConfig(drop_unfinished=True))
    assert len(made.corpus.sources) == 6
    files.write_text(tmp_path / "kd" / "filtered" / "train.ja", "x\n" * 6)
    with pytest.raises(kd.UserError, match="filtered/train.ja: damaged"):
        made.corpus  # noqa: B018


def test_an_overlong_line_is_said_before_the_first_is_decoded(tmp_path, distil, decoded):
    """faults.md: a job of 40 lines died at line 34, when its shard was reached."""
    book = "a " * 5000
    lines = [*LINES[:5], book, "b", book]
    with pytest.raises(kd.UserError, match=r"source lines, line 6 \('a a a .*5,001 tokens.*1 more line.*--overlong"):
        distil(lines, references=None)
    assert decoded.seen == [] and not list(tmp_path.glob("kd*"))
    made = distil(lines, references=None, overlong="empty", filters=kd.FilterConfig(deduplicate=True))
    assert made.card["overlong_sources"] == 2 and made.card["lines"] == 8 and made.card["filters"]["kept"] == 5
    assert made.card["mean_log_prob_per_token"] == pytest.approx(-1.5 * 5 / (9 + 5)), (
        "of the lines that were translated"
    )
    assert (tmp_path / "kd" / "train.ja").read_text().split("\n")[5:] == ["", "b", "", ""]
    assert "over-long sources without a target 2" in (tmp_path / "kd" / "README.md").read_text()


def test_blank_text_leaves_nothing_behind(tmp_path, distil):
    with pytest.raises(kd.UserError, match="all are blank"):
        distil(["", " "], references=None)
    assert not list(tmp_path.glob("kd*"))


def test_what_is_kept_is_said_however_it_ends(tmp_path, distil, decoded, capfd):
    for by in (KeyboardInterrupt, kd.UserError("x"), SystemExit(143)):
        decoded.kill_at("g h", by)
        with pytest.raises(BaseException):  # noqa: B017
            distil()
        assert f"stopped; 1 of 3 shards are complete and kept in {tmp_path / 'kd.n-best'}" in capfd.readouterr().err
    decoded.kill_at(None)
    distil()
    assert decoded.seen == LINES[3:]


def test_names_of_files_follow_from_the_teacher(tmp_path, decoded):
    english = kd.LoadedTranslator(make_teacher(tmp_path / "t", metadata={"languages": ["en", "th"]}))
    made = kd.distill(english, LINES, tmp_path / "named")
    assert made.languages == ("en", "th") and made.card["languages"] == ["en", "th"]
    assert "train.th" in (tmp_path / "named" / "README.md").read_text()
    unknown = kd.LoadedTranslator(make_teacher(tmp_path / "t"))
    assert kd.distill(unknown, LINES, tmp_path / "unknown").languages == ("source", "target")


@pytest.mark.parametrize("what", ["the corpus", "its lists", "a corpus that was sealed again"])
def test_no_damage_passes_silently_or_ends_in_a_traceback(tmp_path, distil, what):
    """Each job ends in the same corpus, or in one line that names a file; a corpus that was changed is not read."""
    options = {"selection": "chrf", "filters": kd.FilterConfig(deduplicate=True), "marian": True}
    distil(**options)
    whole, draw = content(tmp_path / "kd"), np.random.default_rng(0)
    names = ("kd", "kd.n-best")
    for name in names:
        shutil.copytree(tmp_path / name, tmp_path / f"{name}.whole")
    for _ in range(8 if what == "its lists" else 20):
        for name in names:
            shutil.rmtree(tmp_path / name, ignore_errors=True)
            shutil.copytree(tmp_path / f"{name}.whole", tmp_path / name)
        damage_some(tmp_path / names[what == "its lists"], draw)
        if "lists" in what:
            shutil.rmtree(tmp_path / "kd")
        if "sealed" in what:
            reseal(tmp_path / "kd")
        damaged = content(tmp_path / "kd")
        try:
            distil(**options)
            assert content(tmp_path / "kd") == (damaged if "sealed" in what else whole)
        except kd.UserError as error:
            assert "\n" not in str(error) and str(tmp_path / "kd") in str(error)
        if "lists" not in what:
            try:
                load_split(kd.CorpusConfig(str(tmp_path / "kd"), "en", "ja"), "train")
                assert "sealed" in what or damaged == whole
            except kd.UserError as error:
                assert "\n" not in str(error) and str(tmp_path / "kd") in str(error)
