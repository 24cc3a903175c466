"""Readers and what nobody would write: any bytes are pairs or one line, never a traceback."""

import gzip
import io
import json
import random

import datasets
import pytest

from seqkd_jax.config import CorpusConfig
from seqkd_jax.data import corpus
from seqkd_jax.types import UserError

VALUES = ['"a"', "1", "null", "true", "[]", "{}", "1e999", "NaN", '"\\ud800"', '"\\u0000"', '""', "1" * 5000, "-1"]
VALUES += ["[" * 990 + "]" * 990, '{"a":' * 60 + "1" + "}" * 60, "0.5", '[1,"b"]', '"' + "x" * 50]
KEYS = ["en", "de", "source", "target", "weight", "translation", "id", "src", ""]
CELLS = ["a", "en", "de", "source", "", "0.5", "x y"]
BYTES = [b"\0", b"\xff", b"\xef\xbb\xbf", b"\r\n", b"\r", b"\n", b"\t", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh91AY&SY"]
BYTES += [b"\xfd7zXZ\0", b"\xff\xfe", b"PK\3\4", "\u2028".encode(), b"\x85", b'"', b"en\tde\n", b"source\ttarget\n"]
COLUMNS = ["a", 1, None, ["x"], {"en": "a", "de": "b"}, b"x", float("nan"), True]


def json_value(draw, depth=0):
    if depth > 2 or draw.random() < 0.6:
        return draw.choice(VALUES)
    return (
        "{" + ",".join(f'"{draw.choice(KEYS)}":{json_value(draw, depth + 1)}' for _ in range(draw.randrange(4))) + "}"
    )


def jsonl(draw):
    return "".join(
        draw.choice(['{"en":"a b","de":"c"}'] * 5 + [json_value(draw)]) + "\n" for _ in range(draw.randrange(4))
    )


def tsv(draw):
    row = lambda: "\t".join(draw.choice(CELLS) for _ in range(draw.choice([2, 2, 2, 3])))  # noqa: E731
    return "".join(f"{row()}\n" for _ in range(draw.randrange(4)))


def damaged(draw, content):
    """The bytes with up to three places changed: something put in, something cut, a bit flipped."""
    content = bytearray(content)
    for _ in range(draw.randrange(4)):
        place, way = draw.randrange(len(content) + 1), draw.random()
        if way < 0.4:
            content[place:place] = draw.choice(BYTES)
        elif way < 0.6:
            del content[place : place + draw.randrange(9)]
        elif place < len(content):
            content[place] ^= 1 << draw.randrange(8)
    return bytes(content)


def is_pairs_or_one_line(path):
    """Whether what is there is pairs; if not, it must be a UserError of one line."""
    try:
        found = corpus.load_split(CorpusConfig(str(path)), "train")
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
        return False
    corpus.require_pairs(found)
    assert not any(mark in line for side in found[:2] for line in side for mark in "\n\r\0")
    return True


@pytest.mark.parametrize("name", ["train.tsv", "train.jsonl", "train.en"])
def test_any_bytes_are_pairs_or_one_line(name, tmp_path):
    draw, taken = random.Random(name), 0
    make = {"train.tsv": tsv, "train.jsonl": jsonl, "train.en": lambda _: "a\nb\nc\n"}[name]
    for number in range(150):
        content = damaged(draw, make(draw).encode())
        packed = damaged(draw, gzip.compress(content)) if number % 5 == 0 else content
        (tmp_path / name).write_bytes(packed)
        if name == "train.en":
            (tmp_path / "train.de").write_bytes(damaged(draw, b"a\nb\nc\n"))
        taken += is_pairs_or_one_line(tmp_path)
    assert 10 < taken < 140


def test_any_columns_are_pairs_or_one_line(tmp_path):
    draw, bars = random.Random(0), datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    for number in range(20):
        rows, content = draw.randrange(1, 3), io.BytesIO()
        columns = {name: [draw.choice(COLUMNS)] * rows for name in draw.sample(KEYS[:-1], draw.randrange(2, 6))}
        columns |= {"en": ["a"] * rows} if number % 2 else {}
        datasets.Dataset.from_dict(columns).to_parquet(content)
        changed = damaged(draw, content.getvalue()) if number % 3 == 0 else content.getvalue()
        (tmp_path / "train.parquet").write_bytes(changed)
        is_pairs_or_one_line(tmp_path)
    if bars:
        datasets.enable_progress_bars()


def test_depths_that_can_be_read_but_hardly_told(tmp_path):
    for depth in range(900, 1000, 7):
        row = json.dumps({"de": "a"})[:-1] + ', "en": ' + "[" * depth + "]" * depth + "}"
        (tmp_path / "train.jsonl").write_text(row)
        assert not is_pairs_or_one_line(tmp_path)
