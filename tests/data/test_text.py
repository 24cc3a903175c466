"""Lines of text: as they stand in the file, compressed or not; what is no UTF-8 text gets one line with the remedy."""

import bz2
import gzip
import io
import lzma
import os
import random
import re
import subprocess
import sys
import threading
from types import SimpleNamespace

import pyarrow
import pytest

from seqkd_jax.config import CorpusConfig
from seqkd_jax.data import corpus, text
from seqkd_jax.data.text import read_lines
from seqkd_jax.decoding.unknown import read_dictionary
from seqkd_jax.types import UserError

PACK = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: pyarrow.Codec("zstd").compress(content, asbytes=True),
}
LINES = [f"Zeile {number} über allem" for number in range(300)]
CONTENT = "".join(f"{line}\n" for line in LINES).encode()


def test_lines_stream_from_standard_input(monkeypatch):
    class Endless(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            buffer[:2] = b"a\n"
            return 2

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BufferedReader(Endless(), 4)))
    lines = read_lines("-")
    assert [next(lines) for _ in range(5)] == ["a"] * 5, "a line must come out before the input ends"


def test_lines_are_never_merged_or_dropped(tmp_path, monkeypatch):
    content = "\ufeffa\n\n \n\u2028\nb\r\n\r\n\ufeffc"
    wanted = ["a", "", " ", "\u2028", "b", "", "\ufeffc"]
    (tmp_path / "in").write_bytes(content.encode())
    assert list(read_lines(tmp_path / "in")) == wanted
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content.encode())))
    assert list(read_lines("-")) == wanted
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"a\n\xff")))
    with pytest.raises(UserError, match="standard input, line 2: not UTF-8"):
        list(read_lines("-"))
    with pytest.raises(UserError, match="none: No such file"):
        list(read_lines(tmp_path / "none"))
    with pytest.raises(UserError, match="directory"):
        list(read_lines(tmp_path))
    (tmp_path / "empty").write_bytes(b"")
    assert list(read_lines(tmp_path / "empty")) == [], "nothing to translate is no error"


@pytest.mark.parametrize("suffix", PACK)
def test_compressed_text_is_read_as_it_was(suffix, tmp_path, monkeypatch):
    """By the first bytes, whatever the name; as two members, as `cat` makes them; of standard input."""
    packed = PACK[suffix](CONTENT)
    for name in (f"a{suffix}", "a"):
        (tmp_path / name).write_bytes(packed + packed)
        assert list(read_lines(tmp_path / name)) == LINES * 2
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(packed)))
    assert list(read_lines("-")) == LINES


@pytest.mark.parametrize("suffix", PACK)
def test_damaged_compressed_text_is_one_line(suffix, tmp_path):
    """Cut anywhere, or a bit flipped, unless its lines are the same; Zstandard has no checksum here, so it is cut."""
    draw, packed = random.Random(0), PACK[suffix](CONTENT)
    damaged = [b"", b"plain text\n", *(packed[: draw.randrange(len(packed))] for _ in range(20))]
    for _ in range(0 if suffix == ".zst" else 20):
        flipped = bytearray(packed)
        flipped[draw.randrange(len(packed))] ^= 1 << draw.randrange(8)
        damaged.append(bytes(flipped))
    path, refused = tmp_path / f"a{suffix}", 0
    for content in damaged:
        path.write_bytes(content)
        try:
            assert list(read_lines(path)) == LINES
        except UserError as error:
            refused += 1
            assert re.fullmatch(rf".*/a{suffix}: (no whole|does not begin as a) \w+ file.*copy it again.*", str(error))
    assert refused > 0.9 * len(damaged)


@pytest.mark.parametrize("suffix", PACK)
def test_a_damaged_member_does_not_end_the_text(suffix, tmp_path):
    """Tools that work in parallel write many; what begins none is an error, zeros at the end are none."""
    packed = PACK[suffix](CONTENT)
    for place in range(4):
        second = bytearray(packed)
        second[place] ^= 4
        (tmp_path / "a").write_bytes(packed + bytes(second))
        with pytest.raises(UserError, match="a: no whole"):
            list(read_lines(tmp_path / "a"))
    if suffix in (".gz", ".xz"):
        (tmp_path / "a").write_bytes(packed + bytes(8))
        assert list(read_lines(tmp_path / "a")) == LINES


def test_every_form_of_a_corpus_may_be_compressed(tmp_path):
    pairs = {"train.en": ["a", "b"], "train.de": ["c", "d"], "t.tsv": ["a\tc", "b\td"]}
    pairs["j.jsonl"] = ['{"en": "a", "de": "c"}', '{"en": "b", "de": "d"}']
    for (name, lines), suffix in zip(pairs.items(), PACK, strict=True):
        (tmp_path / f"{name}{suffix}").write_bytes(PACK[suffix]("".join(f"{line}\n" for line in lines).encode()))
    two = CorpusConfig(source_file=str(tmp_path / "train.en.gz"), target_file=str(tmp_path / "train.de.bz2"))
    paths = [CorpusConfig(str(path)) for path in (tmp_path, tmp_path / "t.tsv.xz", tmp_path / "j.jsonl.zst")]
    for config in (two, *paths):
        assert corpus.load_split(config, "train")[:2] == (["a", "b"], ["c", "d"])
    (tmp_path / "words.gz").write_bytes(gzip.compress(b"cat|||Katze\n"))
    assert read_dictionary(tmp_path / "words.gz") == {"cat": "Katze"}


NOT_TEXT = [
    ("hello\nü".encode("utf-16"), "line 1: is UTF-16, not UTF-8; convert it: ", "iconv -f UTF-16 -t UTF-8"),
    ("hello\nü".encode("utf-16-le"), "line 1: is UTF-16LE, not UTF-8", "iconv -f UTF-16LE -t UTF-8"),
    ("hello\nü".encode("utf-16-be"), "line 1: is UTF-16BE, not UTF-8", "iconv -f UTF-16BE -t UTF-8"),
    ("hello\nü".encode("utf-32"), "line 1: is UTF-32, not UTF-8", "iconv -f UTF-32 -t UTF-8"),
    (
        "hello\nü".encode("latin-1"),
        "line 2: not UTF-8: byte 1 of the line is 0xfc; convert it, if it is",
        "iconv -f ISO-8859-1 -t UTF-8",
    ),
    ("„a“ ü\n".encode("cp1252"), "line 1: not UTF-8: byte 1 of the line is 0x84", "iconv -f WINDOWS-1252 -t UTF-8"),
    ("hello\nü\n".encode() + b"a\xff\n", "line 3: .*though lines before it are", "iconv -c -f UTF-8 -t UTF-8"),
    ("hello\nü\na\0b\n".encode(), "line 3: holds a NUL byte", r"tr -d '\000'"),
]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize(("content", "said", "convert"), NOT_TEXT, ids=[convert for *_, convert in NOT_TEXT])
def test_the_advice_for_other_encodings_works(content, said, convert, packed, tmp_path):
    """The command of the message is run, and what it makes is read; a blank in the name is quoted."""
    path = tmp_path / f"my text.en{'.gz' * packed}"
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(UserError, match=said) as error:
        list(read_lines(path))
    command = str(error.value).split("`")[1]
    assert convert in command and "\n" not in str(error.value)
    subprocess.run(["sh", "-c", command], check=True)
    lines = list(read_lines(tmp_path / "my text.utf8.en"))
    assert lines in (["hello", "ü"], ["„a“ ü"], ["hello", "ü", "a"], ["hello", "ü", "ab"])


@pytest.mark.parametrize("content", [b"PK\x03\x04\x14\0\0", b"7z\xbc\xaf\x27\x1c\0\x04", b"PAR1\x15\0\xff"])
def test_what_is_no_text_at_all_is_named(content, tmp_path):
    (tmp_path / "a.en").write_bytes(content)
    with pytest.raises(UserError, match="a.en, line 1: is a .*, expected text; unpack it"):
        list(read_lines(tmp_path / "a.en"))


def test_a_line_has_an_end(tmp_path, monkeypatch):
    """Not the memory's: a megabyte of an archive may hold gigabytes."""
    monkeypatch.setattr(text, "LONGEST", 1000)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b"ok\n" + b"a" * 10**6))
    with pytest.raises(UserError, match="bomb.gz, line 2: is longer than 1,000 bytes"):
        list(read_lines(tmp_path / "bomb.gz"))


def test_nothing_but_a_mark_is_an_empty_file(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b"\xef\xbb\xbf")
    with pytest.raises(UserError, match="a.tsv: the file is empty"):
        corpus.load_split(CorpusConfig(str(tmp_path / "a.tsv")), "train")


def test_pairs_may_come_from_pipes(tmp_path):
    """As the shell makes of <(zcat a.gz): a file without a size."""
    paths = [tmp_path / "en", tmp_path / "de"]
    for path in paths:
        os.mkfifo(path)
        threading.Thread(target=path.write_text, args=("a\nb\n",), daemon=True).start()
    found = corpus.load_split(CorpusConfig(source_file=str(paths[0]), target_file=str(paths[1])), "train")
    assert found[:2] == (["a", "b"], ["a", "b"])
    os.mkfifo(tmp_path / "a.tsv")
    threading.Thread(target=(tmp_path / "a.tsv").write_text, args=("a\tb\n",), daemon=True).start()
    assert corpus.load_split(CorpusConfig(str(tmp_path / "a.tsv")), "train")[:2] == (["a"], ["b"])


def test_a_name_with_a_nul_is_one_line():
    with pytest.raises(UserError, match="no name of a file, it holds a NUL"):
        corpus.load_split(CorpusConfig(source_file="a\0b", target_file="c"), "train")
