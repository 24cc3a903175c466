"""Corpora: every form gives the same pairs, and bad input one line that names file, line and remedy."""

import json
from dataclasses import replace

import datasets
import pytest

from seqkd_jax.config import CorpusConfig
from seqkd_jax.data import corpus
from seqkd_jax.data.corpus import Corpus
from seqkd_jax.types import UserError

# What str.splitlines would split, quotes, an empty side, an emoji; nothing but a line feed ends a line.
SOURCES = ['a "quoted" one', "line\u2028separator\x0bfeed\x0c\x85\x1c", "", "NA", "\U0001f600 ß", " spaced "]
TARGETS = ["eins", "zwei\rdrei", "vier", "null", '"', "sechs"]
CONFIG = CorpusConfig()


@pytest.fixture(autouse=True)
def quiet(tmp_path, monkeypatch):
    """No cache of the user's is touched and no network is asked."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def write(path, *lines, end="\n"):
    path.write_bytes("".join(line + end for line in lines).encode("utf-8"))
    return path


def parquet(path, columns):
    datasets.Dataset.from_dict(columns).to_parquet(str(path))
    return path


def parallel(directory, split="train", end="\n"):
    write(directory / f"{split}.en", *SOURCES, end=end)
    write(directory / f"{split}.de", *TARGETS, end=end)


def tsv(directory):
    write(directory / "train.tsv", *map("\t".join, zip(SOURCES, TARGETS, strict=True)))


def tsv_with_names(directory):
    rows = [f"{t}\t{i}\t{s}" for i, (s, t) in enumerate(zip(SOURCES, TARGETS, strict=True))]
    write(directory / "train.tsv", "de\tid\ten", *rows)


def jsonl(directory):
    rows = [{"en": s, "de": t, "id": i} for i, (s, t) in enumerate(zip(SOURCES, TARGETS, strict=True))]
    write(directory / "train.jsonl", *(json.dumps(row, ensure_ascii=i % 2) for i, row in enumerate(rows)), "")


def jsonl_translation(directory):
    rows = [{"translation": {"en": s, "de": t}} for s, t in zip(SOURCES, TARGETS, strict=True)]
    write(directory / "train.jsonl", *map(json.dumps, rows))


def parquet_columns(directory):
    parquet(directory / "train.parquet", {"de": TARGETS, "en": SOURCES, "id": list(range(6))})


def parquet_shards(directory):
    """As a repository of the hub has them: two shards in data/, a `translation` column."""
    (directory / "data").mkdir()
    rows = [{"en": s, "de": t} for s, t in zip(SOURCES, TARGETS, strict=True)]
    parquet(directory / "data" / "train-00000-of-00002.parquet", {"translation": rows[:2]})
    parquet(directory / "data" / "train-00001-of-00002.parquet", {"translation": rows[2:]})


FORMS = [parallel, tsv, tsv_with_names, jsonl, jsonl_translation, parquet_columns, parquet_shards]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_form_gives_the_same_pairs(tmp_path, form, capfd):
    form(tmp_path)
    capfd.readouterr()  # what writing them said
    found = corpus.load_split(replace(CONFIG, path=str(tmp_path)), "train")
    assert not capfd.readouterr().err, "reading is quiet: no bars, no warnings"
    assert found[:3] == (SOURCES, [target.replace("\r", " ") for target in TARGETS], None)
    for file in tmp_path.glob("train.*"):
        if form is not parallel:
            assert corpus.load_split(replace(CONFIG, path=str(file)), "train")[:3] == found[:3]
            with pytest.raises(UserError, match="no split 'valid'"):
                corpus.load_split(replace(CONFIG, path=str(file)), "valid")


def test_the_toy_language_is_asked_for_by_name(monkeypatch, tmp_path):
    """It is never the default, nor in the place of a directory of its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(corpus.TOY_PAIRS, "valid", 3)
    toy = replace(CONFIG, path="toy")
    with pytest.raises(UserError, match="path is empty: it must name a directory.* or `toy`"):
        corpus.load_split(CONFIG, "valid")
    assert corpus.describe(corpus.load_split(toy, "valid")) == "toy language, split valid: 3 pairs, en to de"
    with pytest.raises(UserError, match="fr and de: the toy language has en, de"):
        corpus.load_split(replace(toy, source="fr"), "valid")
    with pytest.raises(UserError, match="toy: no such file or directory"):
        corpus.load_split(replace(toy, path="./toy"), "valid")
    (tmp_path / "toy").mkdir()
    with pytest.raises(UserError, match="toy: no split 'valid'.* the toy language is hidden by this directory"):
        corpus.load_split(toy, "valid")
    parallel(tmp_path / "toy", "valid")
    assert corpus.load_split(toy, "valid").sources == SOURCES


def test_toy_pairs(monkeypatch):
    """The first sentences are the same however many are drawn, and no source is in two splits."""
    monkeypatch.setitem(corpus.TOY_PAIRS, "valid", 20)
    found = corpus.load_split(replace(CONFIG, path="toy"), "valid")
    assert len(found.sources) == len(found.targets) == 20
    assert corpus.toy_pairs(9, "valid").sources == found.sources[:9] != corpus.toy_pairs(9, "valid", seed=1).sources
    assert not set(found.sources) & set(corpus.toy_pairs(50, "train").sources)


def test_two_named_files_and_windows_line_ends(tmp_path):
    parallel(tmp_path, "mine", end="\r\n")
    path = tmp_path / "mine.en"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().removesuffix(b"\r\n"))  # byte order mark, no last line end
    config = CorpusConfig(source_file=str(path), target_file=str(tmp_path / "mine.de"))
    found = corpus.load_split(config, "train")
    assert found.sources == SOURCES and len(found.targets) == len(TARGETS)
    with pytest.raises(UserError, match="no split 'test'"):
        corpus.load_split(config, "test")
    with pytest.raises(UserError, match="belong together"):
        corpus.load_split(replace(config, target_file=""), "train")
    with pytest.raises(UserError, match="both name the corpus"):
        corpus.load_split(replace(config, path=str(tmp_path)), "train")


HEADERS = [
    "en\tde",
    "de\ten",
    "source\ttarget",
    "tgt\tsrc",
    "EN\tDE",
    "German\tEnglish",
    "id\tTarget\tSource",
    "en\ttrg",
]


@pytest.mark.parametrize("header", HEADERS)
def test_columns_are_found_by_the_names_of_languages_or_sides(header, tmp_path, capfd):
    """In a TSV's header, which is no pair, as keys of JSONL and in Parquet; the form found is told."""
    names = header.split("\t")
    first = {"en", "source", "src", "english"}
    cells = ["a" if name.lower() in first else "7" if name == "id" else "b" for name in names]
    write(tmp_path / "a.tsv", header, "\t".join(cells))
    write(tmp_path / "a.jsonl", json.dumps(dict(zip(names, cells, strict=True))))
    parquet(tmp_path / "a.parquet", {name: [cell] for name, cell in zip(names, cells, strict=True)})
    capfd.readouterr()
    pair = [name for name in names if name.lower() in first] + [
        name for name in names if name.lower() not in {"id", *first}
    ]
    said = {"tsv": "TSV with a header: ", "jsonl": "JSONL with keys ", "parquet": "Parquet with columns "}
    for suffix, form in said.items():
        found = corpus.load_split(replace(CONFIG, path=str(tmp_path / f"a.{suffix}")), "train")
        assert found[:2] == (["a"], ["b"]), suffix
        assert corpus.describe(found) == f"{tmp_path}/a.{suffix} ({form}{', '.join(pair)}): 1 pairs, en to de"
    assert not capfd.readouterr().err


def test_a_first_pair_is_no_header(tmp_path, capfd):
    """Also where it could be one: that is told, with the remedy."""
    for first, told in (
        ("source\tQuelle", ""),
        ("English\tEnglisch", ""),
        ("no\tja", "line 1: no and ja are read as a pair"),
    ):
        path = write(tmp_path / "a.tsv", first, "c\td")
        found = corpus.load_split(replace(CONFIG, path=str(path)), "train")
        assert found[:2] == ([first.split("\t")[0], "c"], [first.split("\t")[1], "d"])
        assert corpus.describe(found) == f"{path} (TSV without a header): 2 pairs, en to de"
        said = capfd.readouterr().err
        assert told in said and said.count("\n") == bool(told)
    path = write(tmp_path / "a.tsv", "source\tsrc\ttarget", "a\tb\tc")
    with pytest.raises(UserError, match="a.tsv, line 1: columns source, src may all be 'en'; name them with --corpus"):
        corpus.load_split(replace(CONFIG, path=str(path)), "train")


def test_the_form_of_a_split_in_a_directory(tmp_path):
    parallel(tmp_path)
    tsv_path = write(tmp_path / "valid.tsv", "a\tb")
    described = [
        corpus.describe(corpus.load_split(replace(CONFIG, path=str(tmp_path)), split)) for split in ("train", "valid")
    ]
    assert described[0] == f"{tmp_path}, split train (text files train.en and train.de): 6 pairs, en to de"
    assert described[1] == f"{tmp_path}, split valid ({tsv_path.name}, TSV without a header): 1 pairs, en to de"


@pytest.mark.parametrize("name", ["valid", "validation", "dev", "val"])
def test_names_of_the_validation_split(tmp_path, name):
    parallel(tmp_path, name)
    assert corpus.load_split(replace(CONFIG, path=str(tmp_path)), "valid").sources == SOURCES


def test_line_ends_in_cells_become_spaces(tmp_path):
    path = parquet(tmp_path / "a.parquet", {"en": ["a\nb\r\nc"], "de": ["d\re"]})
    assert corpus.load_split(replace(CONFIG, path=str(path)), "train")[:2] == (["a b c"], ["d e"])


def test_an_edited_parquet_file_is_read_anew(tmp_path):
    for text in ("first", "other"):
        path = parquet(tmp_path / "a.parquet", {"en": [text], "de": ["x"]})
        assert corpus.load_split(replace(CONFIG, path=str(path)), "train").sources == [text]


def test_weights(tmp_path):
    names = write(tmp_path / "a.tsv", "en\tde\tweight", "a\tb\t0.5", "c\td\t2")
    rows = write(tmp_path / "a.jsonl", '{"en":"a","de":"b","weight":0.5}', '{"en":"c","de":"d","weight":2}')
    table = parquet(tmp_path / "a.parquet", {"en": ["a", "c"], "de": ["b", "d"], "weight": [0.5, 2.0]})
    for path in (names, rows, table):
        assert corpus.load_split(replace(CONFIG, path=str(path)), "train")[:3] == (["a", "c"], ["b", "d"], [0.5, 2.0])
    write(names, "en\tde\tweight", "a\tb\t-1")
    write(rows, '{"en":"a","de":"b","weight":0.5}', '{"en":"c","de":"d"}')
    parquet(table, {"en": ["a"], "de": ["b"], "weight": [float("nan")]})
    for path, problem in ((names, "line 2.*'-1'"), (rows, "line 2.*every line"), (table, "row 1.*'nan'")):
        with pytest.raises(UserError, match=problem):
            corpus.load_split(replace(CONFIG, path=str(path)), "train")


BAD_FILES = [
    ("train.tsv", b"a\tb\nc\n", r"train.tsv, line 2: 1 column\(s\), expected 2"),
    ("train.tsv", b"a\tb\nc\td\te\n", r"train.tsv, line 2: 3 column\(s\), expected 2"),
    ("train.tsv", b"a\tb\tc\n", r"train.tsv, line 1: 3 column\(s\) \(a, b, c\)"),
    ("train.tsv", b"en\tfr\na\tb\n", "line 1: no column 'de', found: en, fr"),
    ("train.tsv", b"en\tde\n", "no usable pair"),
    ("train.tsv", b"a\tb\nc\t\xff\n", "train.tsv, line 2: not UTF-8: byte 3 of the line is 0xff"),
    ("train.tsv", b"", "train.tsv: the file is empty"),
    ("train.jsonl", b'{"en":"a","de":"b"}\n\n{"en":"a",}\n', "train.jsonl, line 3: not JSON: .*column 11"),
    ("train.jsonl", b"[" * 100_000, "line 1: not JSON that can be read"),
    ("train.jsonl", b'{"id":' + b"1" * 5000 + b"}", "line 1: not JSON that can be read"),
    ("train.jsonl", b'{"en":"a","de":"b","weight":' + b"1" * 400 + b"}", "line 1: weight is '1111.*a number from 0"),
    ("train.jsonl", b'{"en":"a"}\n', "train.jsonl, line 1: no column 'de', found: en"),
    ("train.jsonl", b'{"en":"a","de":null}\n', "line 1: 'de' is null, expected a string"),
    ("train.jsonl", b'{"en":"a","de":"\\ud800"}\n', "line 1: 'de' holds half a character"),
    ("train.jsonl", b"[1]\n", "line 1: not a JSON object"),
    ("train.jsonl", b"\n \n", "no usable pair"),
    ("train.parquet", b"nothing of the kind", "train.parquet: not Parquet: "),
    ("train.parquet", b"", "train.parquet: the file is empty"),
    ("train.csv", b"a,b\n", "no split 'train': expected train.en and train.de, or .*; found train.csv"),
]


@pytest.mark.parametrize("name, content, problem", BAD_FILES)
def test_bad_files_get_one_line(tmp_path, name, content, problem, capfd):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=problem) as error:
        corpus.load_split(replace(CONFIG, path=str(tmp_path)), "train")
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
    assert not capfd.readouterr().err, "the error is the one line; nothing beside it"


BAD_PAIRS = [
    (b"a\nb\nc\n", b"d\ne", "train.de has 2 lines but .*train.en has 3: line 3 of train.en"),
    (b"a\n", b"d\n\n", "train.en has 1 lines but .*train.de has 2: line 2 of train.de"),
    (b"a\nb\n", b"d\n\xc3(\n", "train.de, line 2: not UTF-8: byte 1 of the line is 0xc3"),
    (b"a\nb\n\xe4", b"d\n", "train.en, line 3: not UTF-8"),
    (b"", b"d\n", "train.en: the file is empty"),
    (b"a\n", None, "train.de: no such file, though train.en exists"),
    (None, None, "no split 'train': .*found nothing"),
]


@pytest.mark.parametrize("source, target, problem", BAD_PAIRS)
def test_bad_pairs_of_files_get_one_line(tmp_path, source, target, problem):
    for language, content in (("en", source), ("de", target)):
        if content is not None:
            (tmp_path / f"train.{language}").write_bytes(content)
    with pytest.raises(UserError, match=problem) as error:
        corpus.load_split(replace(CONFIG, path=str(tmp_path)), "train")
    assert "\n" not in str(error.value)


def test_parquet_cells_and_columns_are_checked(tmp_path):
    path = parquet(tmp_path / "a.parquet", {"en": ["a", None], "de": ["b", "c"]})
    with pytest.raises(UserError, match="a.parquet, row 2: 'en' is None"):
        corpus.load_split(replace(CONFIG, path=str(path)), "train")
    with pytest.raises(UserError, match="no column 'fr', found: en, de"):
        corpus.load_split(replace(CONFIG, path=str(path), target="fr"), "train")
    with pytest.raises(UserError, match="both 'en'"):
        corpus.load_split(replace(CONFIG, path=str(path), target="en"), "train")


@pytest.mark.parametrize("path", ["no/such/corpus", "/no", "none.tsv", "tests/none"])
def test_a_mistyped_path_does_not_ask_the_network(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests").mkdir()
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(UserError, match=f"{path}: no such file or directory"):
        corpus.load_split(replace(CONFIG, path=path), "train")


@pytest.fixture
def on_the_hub(monkeypatch):
    """Data sets as load_dataset gives them, made here."""
    features = datasets.Features({"translation": datasets.Translation(("de", "en"))})
    rows = {"translation": [{"en": s, "de": t} for s, t in zip(SOURCES, TARGETS, strict=True)]}
    translation = datasets.Dataset.from_dict(rows, features=features)
    columns = datasets.Dataset.from_dict({"en": SOURCES, "de": TARGETS, "extra": [1] * 6})
    hub = {
        ("wmt/wmt14", "de-en"): datasets.DatasetDict(train=translation, validation=translation.select([0, 1])),
        ("bentrevett/multi30k", None): datasets.DatasetDict(train=columns, test=columns.select([2])),
    }

    def load_dataset(path, name=None):
        assert not datasets.is_progress_bar_enabled()
        if (path, name) not in hub:
            raise ValueError(f"Config name is missing.\nPick one of: {[n for p, n in hub if p == path]}")
        return hub[path, name]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


def test_hub_with_a_translation_feature(on_the_hub):
    config = CorpusConfig(path="wmt/wmt14", hub_config="de-en")
    found = corpus.load_split(config, "train")
    assert found.sources == SOURCES and found.targets[0] == TARGETS[0]
    assert corpus.load_split(config, "valid").sources == SOURCES[:2]
    turned = corpus.load_split(replace(config, source="de", target="en"), "train")
    assert turned.targets == SOURCES
    assert datasets.is_progress_bar_enabled(), "bars are off for the load only"
    with pytest.raises(UserError, match="wmt/wmt14: no split 'test'; it has train, validation"):
        corpus.load_split(config, "test")
    with pytest.raises(UserError, match="no column 'fr', found: (de, en|en, de)"):
        corpus.load_split(replace(config, target="fr"), "train")
    with pytest.raises(UserError, match="wmt/wmt14: .*Config name is missing. Pick one of: .'de-en'"):
        corpus.load_split(replace(config, hub_config=""), "train")


def test_hub_with_named_columns(on_the_hub):
    config = CorpusConfig(path="bentrevett/multi30k")
    assert corpus.load_split(config, "train").sources == SOURCES
    assert corpus.load_split(config, "test")[:2] == ([SOURCES[2]], [TARGETS[2]])


GOLD = Corpus(["a", "b"], ["A", "B"], None, "gold")
DISTILLED = Corpus(["a", "b"], ["A'", "B'"], [1.0, 0.5], "distilled")


def test_mix():
    assert corpus.mix([(GOLD, 1.0)]) == GOLD
    assert corpus.mix([(GOLD, 1.0), (GOLD, 1.0)]).weights is None
    mixed = corpus.mix([(GOLD, 0.5), (DISTILLED, 2.0)])
    assert mixed[:3] == (["a", "b"] * 2, ["A", "B", "A'", "B'"], [0.5, 0.5, 2.0, 1.0])
    assert mixed.name == "0.5 x gold + 2 x distilled"
    for weight in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="gold: weight"):
            corpus.mix([(GOLD, weight)])
    with pytest.raises(UserError, match="at least one"):
        corpus.mix([])


def test_fingerprint_is_of_the_content():
    assert corpus.fingerprint(GOLD) == corpus.fingerprint(GOLD._replace(name="other"))
    others = [
        GOLD._replace(weights=[1.0, 1.0]),
        GOLD._replace(sources=["b", "a"]),
        GOLD._replace(sources=GOLD.targets, targets=GOLD.sources),
        GOLD._replace(sources=["ab", ""]),
        DISTILLED,
    ]
    assert len({corpus.fingerprint(one) for one in [GOLD, *others]}) == len(others) + 1


def test_missing_shards_and_columns_named_twice_are_said(tmp_path):
    """Half a corpus, or one that is read twice over, would be trained on without a word."""
    parquet_shards(tmp_path)
    (tmp_path / "data" / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(UserError, match="found 1 of 2 shards"):
        corpus.load_split(CorpusConfig(str(tmp_path), "en", "de"), "train")
    (tmp_path / "twice.tsv").write_text("en\tde\ten\tde\na\tb\tc\td\n")
    with pytest.raises(UserError, match="twice.tsv, line 1: 2 columns are named 'en'"):
        corpus.load_split(CorpusConfig(str(tmp_path / "twice.tsv"), "en", "de"), "train")


@pytest.mark.parametrize("name", ["a[1]", "all*", "zip::b", "x?", "{a}"])
def test_names_of_parquet_files_are_no_patterns(tmp_path, name):
    """Nor addresses: `datasets` would read other files, or none."""
    for place, line in ((name, "ours"), ("all of it", "another's"), ("a1", "another's"), ("b", "another's")):
        (tmp_path / place).mkdir()
        made = parquet(tmp_path / "made.parquet", {"en": [line], "de": [line]})
        made.rename(tmp_path / place / "train-00000-of-00001.parquet")
    assert corpus.load_split(replace(CONFIG, path=str(tmp_path / name)), "train").sources == ["ours"]
