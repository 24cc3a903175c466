"""What stands in files is data: JSON within bounds, and names that are no paths, in every reader."""

import json
import os
import signal

import pytest
from damage import edit, reseal

from seqkd_jax.checkpoint import run_config, tensor_files
from seqkd_jax.config import VocabularyConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.decoding import Decoding
from seqkd_jax.distillation import nbest
from seqkd_jax.training import run_state
from seqkd_jax.types import UserError
from seqkd_jax.utils import exits, files, progress
from seqkd_jax.utils.untrusted import inside, parse_json, require_form

NAMES = ["../victim.txt", "../../../.ssh/id", "/etc/passwd", "a/b", "", ".", "..", ".hidden", "a\\b", "a\0b", "a\nb"]
NAMES += ["x" * 5000, "ü" * 200, None, 3, ["a"], {"a": 1}]
LINES = ["a b c", "b c d"]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:20])
def test_a_name_is_a_bare_one(tmp_path, name):
    with pytest.raises(UserError, match=r"^where: .* is not the bare name of a file; .* never paths$") as caught:
        inside(tmp_path, name, "where")
    assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)
    assert inside(tmp_path, "Ärger 1.txt", "where") == tmp_path / "Ärger 1.txt"


def save_vocabulary(directory):
    config = VocabularyConfig(kind="words", size=9, joint=False, tokenizer="pretokenised")
    vocabulary.write(vocabulary.learn(LINES, LINES, config), directory)


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:20])
def test_a_vocabulary_names_no_paths(tmp_path, name):
    """The file of that path is one that would be read, and written where the vocabulary is copied to."""
    made = tmp_path / "a" / "b" / "made"
    save_vocabulary(made)
    (tmp_path / "a" / "victim.txt").write_bytes((made / "source.txt").read_bytes())
    edit(made, lambda value: value.update(source=name), "vocabulary.json")
    with pytest.raises(UserError, match=r"vocabulary.json.*(bare name|source is)"):
        vocabulary.load(made)
    if isinstance(name, str):
        found = vocabulary.learn(LINES, LINES, VocabularyConfig(kind="words", size=9, tokenizer="pretokenised"))
        with pytest.raises(UserError, match="bare name"):
            vocabulary.save(found._replace(source=found.source._replace(name=name)), tmp_path / "a" / "b" / "copied")


@pytest.mark.parametrize("target", ["/dev/zero", "../secret", "nowhere"])
def test_a_link_leads_to_what_was_written(tmp_path, target):
    """Or it is refused; the hub's cache is of links to files, whose hashes fit."""
    (tmp_path / "secret").write_text("secret")
    save_vocabulary(tmp_path / "made")
    content = (tmp_path / "made" / "target.txt").rename(tmp_path / "blob")
    (tmp_path / "made" / "target.txt").symlink_to(content)
    assert vocabulary.load(tmp_path / "made").target.data == content.read_bytes()
    (tmp_path / "made" / "target.txt").unlink()
    (tmp_path / "made" / "target.txt").symlink_to(target)
    with pytest.raises(UserError, match=r"target.txt: damaged"):
        vocabulary.load(tmp_path / "made")
    reseal(tmp_path / "made")
    with pytest.raises(UserError, match=r"target.txt"):
        vocabulary.load(tmp_path / "made")


NOT_JSON = {
    "deep": b"[" * 100_000,
    "too deep": b"[" * 65 + b"]" * 65,
    "digits": b"9" * 5000,
    "65 bits": b"[18446744073709551616]",
    "negative": b"[-18446744073709551616]",
    "infinite": b"[1e999]",
    "NaN": b"[NaN]",
    "Infinity": b"[-Infinity]",
    "twice": b'{"a": 1, "b": 2, "a": 3}',
    "half a character": b'["\\ud800"]',
    "half in a key": b'{"\\udfff": 1}',
    "not UTF-8": b'["\xff"]',
    "mark": b"\xef\xbb\xbf[]",
    "empty": b"",
    "rest": b"[] []",
    "NUL": b'["\0"]',
}


@pytest.mark.parametrize("data", NOT_JSON.values(), ids=NOT_JSON)
def test_json_that_could_do_harm_is_one_line(tmp_path, data):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a.json, line 1: not JSON"):
        files.read_json(path)
    path.write_bytes(b"1\n" + data + b"\n")
    with pytest.raises(UserError, match=r"a.json, line 2: not JSON"):
        files.read_jsonl(path)


def test_json_of_ours_is_read():
    value = {"a": [1, -(2**63), 1.5, True, None, "ü\0"], "b": {}}
    for _ in range(30):
        value = [{"": value}]
    assert parse_json(json.dumps(value).encode()) == value


def test_what_is_no_file_of_ours_is_one_line(tmp_path):
    with pytest.raises(UserError, match="/dev/zero: is a pipe or a device"):
        files.read_bytes("/dev/zero", 1000)
    (tmp_path / "large").write_bytes(b"x" * 1001)
    with pytest.raises(UserError, match="large: has more than 1,000 bytes"):
        files.read_bytes(tmp_path / "large", 1000)
    for name in ("x" * 5000, "a\0b", tmp_path):
        with pytest.raises(UserError, match=r"^[^\n]+$"):
            files.read_json(name)


FORM = {"a": int, "b?": float, "c": [{"d": (str, type(None))}], "e?": [int, str], "f?": {...: bool}}
FITS = {"a": 1, "b": 2, "c": [{"d": "x"}, {"d": None, "more": 1}], "e": [1, "x"], "f": {"g": True}, "others": []}
MISFITS = [
    (3, "it is 3: it must be an object"),
    ({"a": True}, "lacks c"),
    ({"a": True, "c": []}, "a is True: it must be a whole number"),
    ({"a": 1.5, "c": []}, "a is 1.5: it must be a whole number"),
    ({"a": 1, "c": {}}, "c is {}: it must be a list"),
    ({"a": 1, "c": [{"d": ""}, {"d": 2}]}, "c[1].d is 2: it must be text or null"),
    ({"a": 1, "c": [], "b": "x"}, "b is 'x': it must be a number"),
    ({"a": 1, "c": [], "e": [1]}, "e is [1]: it must be a list"),
    ({"a": 1, "c": [], "f": {"g": True, "h": 1}}, "f.h is 1: it must be true or false"),
    ({"a": "x" * 5000, "c": []}, "..."),
]


@pytest.mark.parametrize(("value", "reason"), MISFITS, ids=lambda case: str(case)[:30])
def test_a_value_of_another_form_is_named(value, reason):
    assert require_form(FITS, FORM, "path", "remedy") is FITS
    with pytest.raises(UserError, match=r"^path: damaged, .{1,200}; remedy$") as caught:
        require_form(value, FORM, "path", "remedy")
    assert reason in str(caught.value)


READERS = {
    "a": files.read_bytes,
    "a.json": files.read_json,
    "a.jsonl": files.read_jsonl,
    "model.safetensors": tensor_files.read,
    "config.json": run_config.require_replaceable,
    "metrics.jsonl": lambda path: run_state._cut_back(
        path.parent, run_state.RunState((), 1), {"bytes": 1, "sha256": ""}
    ),
    "shard-00000.jsonl.gz": lambda path: nbest.checked(nbest.NBest(path.parent, {}, {}, [], {}, Decoding(), 1), 0),
}


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_is_not_waited_for(tmp_path, name):
    """Nobody may ever write to it."""

    def waited(*_):
        pytest.fail("the pipe is waited for")

    os.mkfifo(tmp_path / name)
    before = signal.signal(signal.SIGALRM, waited)
    signal.setitimer(signal.ITIMER_REAL, 2)
    try:
        with pytest.raises(UserError, match=f"{name}: is "):
            READERS[name](tmp_path / name)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("say", [progress.log, lambda text: exits.report("seqkd", text, 2)])
def test_what_is_said_moves_no_cursor(say, capfd):
    """A value out of a file may be in it."""
    say("selection a\nb\x1b[2J\0\x9b1A\u202e, not 最良 é")
    said = capfd.readouterr().err
    assert said.endswith(r"selection a b\x1b[2J\x00\x9b1A\u202e, not 最良 é" + "\n") and said.count("\n") == 1
