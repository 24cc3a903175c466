"""Places that are not local: a version is read whole and published whole; a URL is no path anywhere."""

import contextlib
import dataclasses
import shutil
import sys
import typing
from pathlib import Path

import fsspec
import pytest
from commands import fails

import seqkd_jax as kd
from seqkd_jax.checkpoint import run_config
from seqkd_jax.cli import main
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, integrity, remote, settings, urls

URL = "memory://bucket/run"


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv(remote.SETTING, str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()


def write(directory, text):
    for name in ("best/params", "best/name", "last/params"):
        files.write_text(directory / name, f"{text} {name}")
    files.write_text(directory / "same", "same")
    return directory


def content(directory):
    return {name: (directory / name).read_text() for name in files.tree(directory)}


def test_what_is_published_is_read_back_whole_or_in_part(store, tmp_path):
    first, second = (write(tmp_path / name, name) for name in ("one", "two"))
    remote.publish(first, URL)
    assert content(remote.local(URL)) == content(first)
    assert content(remote.local(f"{URL}/best")) == content(first / "best")
    assert remote.local(f"{URL}/best/name").read_text() == "one best/name"
    assert integrity.whole(URL, content) == content(first)
    remote.publish(second, URL)
    assert integrity.whole(Path(URL), content) == content(second), "pathlib drops a slash"
    assert len(store.find("/bucket")) == 1 + 4, "of the version before nothing is left"
    (second / "same").unlink()
    remote.publish(second, URL)
    assert not (remote.local(URL) / "same").exists()


def test_a_directory_that_was_copied_is_read_as_it_is(store, tmp_path):
    store.pipe({"/data/train.en": b"a\n", "/data/train.de": b"b\n"})
    assert content(remote.local("memory://data")) == {"train.en": "a\n", "train.de": "b\n"}
    assert remote.local("memory://data/train.de").read_text() == "b\n"
    store.pipe({"/data/train.de": b"c\n"})
    assert remote.local("memory://data/train.de").read_text() == "c\n"
    with pytest.raises(UserError, match="memory://none: there is no such file or directory"):
        remote.local("memory://none")


@pytest.mark.parametrize("fails_at", range(1, 9))
def test_a_publication_that_fails_at_any_call_leaves_the_version_before(store, tmp_path, monkeypatch, fails_at):
    """The calls are those to the store; a file is cut, as by a kill, before the error."""
    first, second = (write(tmp_path / name, name) for name in ("one", "two"))
    remote.publish(first, URL)
    left = fails_at

    def cut(call):
        def called(self, *arguments):
            nonlocal left
            left -= 1
            if not left:
                if call.__name__ == "put_file":
                    with store.open(arguments[1], "wb") as file:
                        file.write(b"cut")
                raise OSError("connection lost")
            return call(self, *arguments)

        return called

    for name in ("cat_file", "put_file", "pipe_file", "rm_file"):
        monkeypatch.setattr(type(store), name, cut(getattr(type(store), name)))
    try:
        remote.publish(second, URL)
        done = True
    except UserError as error:
        assert str(error).startswith(f"{URL}: connection lost")
        done = False
    monkeypatch.undo()
    monkeypatch.setenv(remote.SETTING, str(tmp_path / "other"))
    assert content(remote.local(URL)) == content(second if done else first)
    assert done == (fails_at > 5)  # the marker was read, three files and the marker were put
    remote.publish(second, URL)
    assert content(remote.local(URL)) == content(second), "the next one mends all"


def test_what_is_replaced_while_it_is_read_is_read_again(store, tmp_path, monkeypatch):
    first, second = (write(tmp_path / name, name) for name in ("one", "two"))
    remote.publish(first, URL)
    fetch, published = type(store).get_file, []

    def get_file(*arguments):
        if not published:
            published.append(remote.publish(second, URL))
        return fetch(*arguments)

    monkeypatch.setattr(type(store), "get_file", get_file)
    assert content(remote.local(URL)) == content(second)


def test_a_new_version_takes_the_place_of_one_that_no_process_reads(store, tmp_path):
    """This process reads one; another that read one has ended."""
    remote.publish(write(tmp_path / "one", "one"), URL)
    first = remote.local(URL)
    ended = first.with_name("0123456789abcdef")
    write(ended, "ended")
    remote.publish(write(tmp_path / "two", "two"), URL)
    second = remote.local(URL)
    assert sorted(first.parent.iterdir()) == sorted([first, second]) and content(first)["same"] == "same"
    shutil.rmtree(second)  # by the user
    assert content(remote.local(URL)) == content(tmp_path / "two")


def test_a_damaged_object_is_never_used(store, tmp_path):
    remote.publish(write(tmp_path / "one", "one"), URL)
    damaged = next(path for path in store.find("/bucket") if "objects" in path)
    store.pipe_file(damaged, b"x")
    with pytest.raises(UserError, match=f"{URL}: a file that its seqkd.json names is missing or damaged"):
        remote.local(URL)


@pytest.mark.parametrize(
    "marker", [b"{", b"[]", b'{"format": 1, "files": {"../x": "a"}}', b'{"format": 1, "files": {"x": "../y"}}']
)
def test_a_hostile_marker_is_one_line(store, marker):
    store.pipe_file("/bucket/run/seqkd.json", marker)
    with pytest.raises(UserError, match=r"^memory://bucket/run, seqkd.json: [^\n]*$"):
        remote.local(URL)


def test_work_goes_on_on_another_machine(store, tmp_path, monkeypatch):
    with remote.published(URL) as directory:
        write(directory, "one")
        remote.saved(directory)
        assert remote.given(directory / "best") == f"{URL}/best"
        with pytest.raises(UserError, match="another process works for it"), remote.published(URL):
            pass
        files.write_text(directory / "same", "more")
    with remote.published(URL) as directory:
        assert (directory / "same").read_text() == "more", "it stays"
    monkeypatch.setenv(remote.SETTING, str(tmp_path / "other"))
    with pytest.raises(KeyboardInterrupt), remote.published(URL) as directory:
        assert (directory / "same").read_text() == "more", "it was fetched"
        files.write_text(directory / "same", "not published")
        raise KeyboardInterrupt
    assert (remote.local(URL) / "same").read_text() == "more"
    with remote.published(URL) as directory:
        assert (directory / "same").read_text() == "not published", "it goes on from there"
    monkeypatch.setenv(remote.SETTING, str(tmp_path / "cache"))
    with remote.published(URL) as directory:
        assert (directory / "same").read_text() == "not published", "the other machine was later"


@pytest.mark.parametrize("call", range(5))
def test_what_a_killed_publication_left_is_removed_by_the_next(store, monkeypatch, call):
    """An object that was put before the marker is named by none."""

    def killed_after(count):
        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt), remote.published(URL) as directory:
            write(directory, f"text {count}")
            put, left = type(store).put_file, [count]

            def put_file(*arguments):
                if not left[0]:
                    raise KeyboardInterrupt
                left[0] -= 1
                return put(*arguments)

            patch.setattr(type(store), "put_file", put_file)

    killed_after(call)
    killed_after(max(call - 1, 0))
    with remote.published(URL) as directory:
        write(directory, "last")
    assert len(store.find("/bucket")) == 1 + 4


def test_a_place_that_cannot_be_written_is_said_before_the_work(store, monkeypatch):
    def refuse(*_):
        raise FileNotFoundError("The specified bucket does not exist")

    monkeypatch.setattr(type(store), "pipe_file", refuse)
    with pytest.raises(UserError, match=f"^{URL}: The specified bucket does not exist"), remote.published(URL):
        pytest.fail("the work began")


def test_errors_name_a_place_as_the_user_does(store):
    with pytest.raises(UserError) as raised, remote.published(URL) as directory:
        raise UserError(f"{directory / 'best'}: is damaged; {directory}.n-best: is local")
    assert str(raised.value) == f"{URL}/best: is damaged; {directory}.n-best: is local"


def test_errors_and_records_name_what_is_read_by_its_url(store, tmp_path):
    """Not by the copy, nor with one slash, as pathlib has it."""
    remote.publish(write(tmp_path / "one", "one"), URL)

    def read(path):
        raise UserError(f"{path / 'best'}: is damaged, in {Path(URL)}; {path.name}x")

    with pytest.raises(UserError, match=f"^{URL}/best: is damaged, in {URL}; [0-9a-f]+x$"):
        integrity.whole(Path(URL), read)
    named = settings.to_json({"checkpoint": (Path(URL), Path("a"))})
    assert named == {"checkpoint": [URL, "a"]}
    before = run_config.describe("evaluate", {"checkpoint": [str(Path(URL)), "a"]}, {})
    run_config.write(tmp_path / "config.json", before)
    assert run_config.is_same_job(tmp_path / "config.json", {**before, "settings": named}), "0.4.0 wrote one slash"


def test_killed_between_a_publication_and_its_mark_nothing_is_fetched(store, monkeypatch):
    with remote.published(URL) as directory:
        write(directory, "one")
    (directory.parent / "published.json").unlink()
    monkeypatch.setattr(type(store), "get_file", lambda *_: pytest.fail("fetched"))
    with remote.published(URL) as directory:
        assert (directory.parent / "published.json").exists()


def test_an_error_at_a_save_does_not_end_the_work(store, monkeypatch, capsys):
    with remote.published(URL) as directory:
        write(directory, "one")
        with monkeypatch.context() as patch:
            patch.setattr(type(store), "put_file", lambda *_: 1 / 0)
            remote.saved(directory)
        assert "division by zero; see whether it is right and can be reached; the next save" in capsys.readouterr().err
    assert content(remote.local(URL))["same"] == "same"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("gs://bucket/run", "needs a package that is not installed: pip install gcsfs"),
        ("s3://bucket/run", "needs a package that is not installed: pip install s3fs"),
        ("nonsense://x", "there is no scheme nonsense; known are "),
        ("file:///data/run", "is on this machine; name its path, /data/run"),
    ],
)
def test_what_cannot_be_reached_is_one_line(url, said, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    for path in (url, Path(url)):
        with pytest.raises(UserError, match=f"^{url}: {said}"):
            remote.local(path)


def test_a_file_system_that_connects_at_once_is_named(monkeypatch):
    def unknown(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr("fsspec.core.url_to_fs", unknown)
    with pytest.raises(UserError, match="^ftp://host/x: Name or service not known; see whether it is right"):
        remote.require_known("ftp://host/x")


def test_several_processes_that_would_publish_are_refused_before_they_meet(capfd):
    several = "--coordinator", "127.0.0.1:1", "--processes", "2", "--process", "1"
    said = fails(capfd, "train", "--out", URL, "--corpus.path", "toy", *several)
    assert f"{URL}: several processes write to a file system that they share; name a path" in said


@pytest.mark.parametrize(
    "words", [["vocab", "--corpus.path", "toy", "--out", URL], ["verify", "x", "--checkpoint", URL]]
)
def test_a_command_refuses_what_is_lost_when_it_ends(words, store, monkeypatch, capfd):
    """With the arguments of its process; a program that gives them shares its memory."""
    monkeypatch.setattr(sys, "argv", ["seqkd", *words])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 2
    assert f"{URL}: is in memory, which ends with the command; name another place" in capfd.readouterr().err
    assert not store.find("/")


@pytest.mark.parametrize("path", ["a", "/a/b", "a:b", "./gs:/x", "C:/x", "kd=2", "toy", "", "user/data"])
def test_paths_are_paths(path):
    assert not urls.is_url(path) and remote.local(path) == Path(path)


def path_options():
    """(command, option): every option that names files."""
    named = {"compare", "train_on", "path", "source_file", "target_file", "file"}  # of type text
    for command, (kind, _) in main.COMMANDS.items():
        for name, option, hint in _fields(kind, ""):
            if "Path" in str(hint) or name in named:
                yield command, name, option


def _fields(kind, inside):
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from _fields(hint, "" if name in ("pairs", "config") else f"{name}.")
        else:
            yield name, f"{inside}{name}", hint


NEEDED = {
    "train": {"out": "o", "corpus.path": "toy"},
    "translate": {"checkpoint": "c"},
    "distill": {"out": "o", "checkpoint": "c", "corpus.path": "toy"},
    "evaluate": {"checkpoint": "c", "corpus.path": "toy"},
    "score": {"checkpoint": "c", "source": "s", "target": "t"},
    "modes": {"checkpoint": "c"},
    "average": {"checkpoints": "a", "out": "o"},
    "select": {"checkpoint": "c", "out": "o", "replica": "0"},
    "prune": {"checkpoint": "c", "out": "o"},
    "import": {"directory": "d", "out": "o"},
    "export": {"checkpoint": "c", "out": "o"},
    "vocab": {"out": "o", "corpus.path": "toy"},
    "verify": {"directories": "d"},
}
POSITIONAL = {"checkpoints", "directory", "directories", "file"}


@pytest.mark.parametrize(("command", "name", "option"), list(path_options()))
def test_a_url_is_never_taken_for_a_path(command, name, option, tmp_path, monkeypatch, capfd):
    """Of every option that names files: no directory called `nowhere:` is made, and the error names a place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(remote.SETTING, str(tmp_path / "cache"))
    given = {**NEEDED[command], option: "nowhere://bucket/x"}
    if option in ("corpus.source_file", "corpus.target_file"):
        other = {"corpus.source_file": "corpus.target_file", "corpus.target_file": "corpus.source_file"}[option]
        given = {other: "nowhere://bucket/y", **{key: value for key, value in given.items() if key != "corpus.path"}}
    if name == "n_best":
        given.pop("checkpoint")
    if name == "teacher":
        given["loss.name"] = "word_kd"
    words = []
    for key, value in given.items():
        flag = {"config_file": "config", "checkpoint": "checkpoint"}.get(key, key).replace("_", "-")
        positional = key in POSITIONAL or (key == "checkpoint" and command in ("select", "prune", "export"))
        words += [value] if positional else [f"--{flag}", value]
    said = fails(capfd, command, *words)
    assert "nowhere://" in said, said
    assert not [path for path in tmp_path.iterdir() if ":" in path.name]


@pytest.mark.parametrize("option", [["--status"], ["--part", "1/2", "--checkpoint", "c", "--source-only", "s"]])
def test_a_part_of_a_job_and_its_status_are_local(option, store, capfd):
    said = fails(capfd, "distill", *option, "--out", f"{URL}/kd")
    assert f"{URL}/kd: is not local, and --out with {option[0]} must be" in said
    with pytest.raises(UserError, match="is not local"):
        kd.distill_status(f"{URL}/kd")
    assert not store.find("/")
