"""Whatever is killed or fails, and whoever else writes: the old or the new is there, whole; nothing else changes."""

import errno
import itertools
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from seqkd_jax.types import UserError
from seqkd_jax.utils import exits, files
from tests import faults

MARK = "mark.json"
HOLDS = (MARK, "part")


def fill(directory, text):
    with files.new_directory(directory, HOLDS) as path:
        files.write_text(path / MARK, text)
        (path / "part").write_text(text)


def stream(path, text):
    with files.new_file(path) as out:
        out.write(text)


def content(path):
    """What a reader finds, checked to be whole; "": nothing."""
    found = files.existing(path)
    if found.is_dir():
        assert files.verify(found, "")
        texts = {(found / name).read_text() for name in HOLDS}
        assert len(texts) == 1, "of two writers"
        return texts.pop()
    return found.read_text() if found.exists() else ""


WRITERS = {"file": files.write_text, "stream": stream, "directory": fill}
CASES = [("file", ""), ("file", "old"), ("stream", "old"), ("directory", ""), ("directory", "old"), ("removed", "old")]
NEIGHBOURS = (".it.new", ".it.old", ".it.0123.new", "it.new")


def case(name):
    """How a place is filled, what is done to it with the text "new", and what it holds then."""
    if name == "removed":
        return fill, lambda path, _: files.remove(path), ""
    return WRITERS[name], WRITERS[name], "new"


def place(tmp_path, write, old):
    """A place with the old content, if there is one, and with neighbours that are somebody else's."""
    tmp_path.mkdir()
    for name in NEIGHBOURS:
        (tmp_path / name).write_text("mine")
    if old:
        write(tmp_path / "it", old)
    return tmp_path / "it"


def names(path):
    return {entry.name for entry in path.parent.iterdir()} - set(NEIGHBOURS)


def neighbours_kept(path):
    return all((path.with_name(name)).read_text() == "mine" for name in NEIGHBOURS)


# A process of its own is killed, without the threads of JAX, which a fork would not survive.
KILLS = """
import itertools, os, sys
from pathlib import Path
from tests.utils.test_faults import *
os.fsync = os.fstat  # a call, too, and a fast one
(write, work, new), old, root = case(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
for number in itertools.count(1):
    path = place(root / str(number), write, old)
    killed = faults.killed_before(number, lambda: work(path, "new"))
    assert content(path) in ((old, new) if killed else (new,)), (number, content(path))
    write(path, "newer")
    assert content(path) == "newer" and names(path) == {"it"} and neighbours_kept(path), (number, names(path))
    if not killed:
        break
assert number > 5, number
"""


@pytest.mark.parametrize("writer, old", CASES)
def test_killed_at_every_call_the_old_or_the_new_is_there(tmp_path, writer, old):
    """And the next writer takes away what the killed one left."""
    command = [sys.executable, "-c", KILLS, writer, old, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr


CODES = (errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT, errno.EFBIG)


@pytest.mark.parametrize("writer, old", CASES)
def test_where_every_call_fails_the_old_or_the_new_is_there(tmp_path, monkeypatch, capsys, writer, old):
    """And one line names the file."""
    monkeypatch.setattr(os, "fsync", os.fstat)  # as above
    write, work, new = case(writer)
    for number in itertools.count(1):
        path, code = place(tmp_path / str(number), write, old), CODES[number % len(CODES)]
        failed, raised = faults.fails_before(number, lambda: work(path, "new"), OSError(code, os.strerror(code)))  # noqa: B023
        assert content(path) in ((old, new) if raised else (new,)) and neighbours_kept(path)
        if raised:
            assert exits.exit_status(lambda: (_ for _ in ()).throw(raised)) == 2  # noqa: B023
            told = capsys.readouterr().err
            assert told.startswith(f"error: {path}") and told.count("\n") == 1 and ".new" not in told, told
        write(path, "newer")
        assert content(path) == "newer" and names(path) == {"it"} and neighbours_kept(path), (number, names(path))
        if not failed:
            break
    assert number > 5


# Links, other people's files, other processes


def linked(path, target):
    target.write_text("precious")
    path.symlink_to(target)
    return path


@pytest.mark.parametrize("name", [".lock", "metrics.jsonl"])
@pytest.mark.parametrize("there", [True, False])
def test_links_in_our_directories_are_not_written_through(tmp_path, name, there):
    """Nor emptied; what they lead to may also be missing."""
    path, target = tmp_path / name, tmp_path / "elsewhere"
    path.symlink_to(target)
    if there:
        target.write_text("precious")
    with pytest.raises(UserError, match=f"^{path}: is a link or no file, and would be written to; delete it$"):
        if name == ".lock":
            with files.locked(tmp_path):
                pytest.fail("held by a link")
        files.append(path, "a line")
    assert target.exists() == there and (not there or target.read_text() == "precious")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/null")])
def test_only_files_are_locked_and_appended_to(tmp_path, make):
    make(tmp_path / ".lock")
    with pytest.raises(UserError, match="is a link or no file"), files.locked(tmp_path):
        pass
    with pytest.raises(UserError, match="is a link or no file"):
        files.append(tmp_path / ".lock", "a line")


def test_a_lock_keeps_what_is_in_its_file(tmp_path):
    (tmp_path / ".lock").write_text("a note")
    with files.locked(tmp_path), pytest.raises(UserError, match="another process is writing"), files.locked(tmp_path):
        pass
    with files.locked(tmp_path):
        assert (tmp_path / ".lock").read_text() == "a note"


def test_who_holds_a_directory_clears_it_up(tmp_path):
    """A killed removal of a checkpoint that is never written again would take up the disk."""
    (tmp_path / ".step-0000002.0123456789abcdef.new").mkdir()
    (tmp_path / ".notes.new").write_text("mine")
    with files.new_file(tmp_path / "other"), files.locked(tmp_path):
        left = sorted(path.name for path in tmp_path.iterdir())
    assert len(left) == 3 and left[:1] == [".lock"] and left[1] == ".notes.new" and left[2].startswith(".other.")


def test_a_link_or_a_second_name_is_replaced_not_written_through(tmp_path):
    """A file of ours takes the place of its own name alone."""
    target, second = tmp_path / "precious", tmp_path / "second"
    linked(tmp_path / "link", target)
    second.hardlink_to(target)
    for name in ("link", "second"):
        files.write_text(tmp_path / name, "ours")
        assert (tmp_path / name).read_text() == "ours" and not (tmp_path / name).is_symlink()
    assert target.read_text() == "precious"


def test_of_a_link_only_itself_is_removed(tmp_path):
    fill(tmp_path / "it", "old")
    for target in ("it", "it/part", "absent"):
        (tmp_path / "link").symlink_to(tmp_path / target)
        files.remove(tmp_path / "link")
    assert content(tmp_path / "it") == "old" and names(tmp_path / "it") == {"it"}


def test_a_link_that_is_named_as_output_stays_and_its_file_is_written(tmp_path):
    linked(tmp_path / "it", tmp_path / "elsewhere")
    stream(tmp_path / "it", "new")
    assert (tmp_path / "it").is_symlink() and (tmp_path / "elsewhere").read_text() == "new"


@pytest.mark.parametrize("writer", WRITERS)
def test_neighbours_that_look_like_ours_are_kept(tmp_path, writer):
    """Files, directories and links; also where nothing is in the place yet."""
    write, work, new = case(writer)
    for number, make in enumerate([Path.mkdir, lambda path: linked(path, path.with_name("precious"))]):
        path = place(tmp_path / str(number), write, "")
        for name in (".it.0123456789abcde.old", ".it.0123456789ABCDEF.new", ".its.0123456789abcdef.new"):
            make(path.with_name(name))
        made = {name for name in names(path) if name != "it"}
        for text in ("first", "second"):
            write(path, text)
            assert content(path) == text and names(path) == {"it", *made} and neighbours_kept(path)


def test_what_version_0_2_0_left_aside_is_read_and_kept(tmp_path):
    """As `.it.old`; a user's own copy may have that name, also one of the same kind."""
    fill(tmp_path / "it", "old")
    (tmp_path / "it").rename(tmp_path / ".it.old")
    assert content(tmp_path / "it") == "old"
    for text in ("new", "newer"):
        fill(tmp_path / "it", text)
        assert content(tmp_path / "it") == text and content(tmp_path / ".it.old") == "old"


@pytest.mark.parametrize("writer", ["stream", "directory"])
def test_what_another_process_is_writing_is_left_to_it(tmp_path, writer):
    """Both come to their end; the last takes the place."""
    opened = files.new_file if writer == "stream" else lambda path: files.new_directory(path, HOLDS)

    def put(out, text):
        out.write(text) if writer == "stream" else [files.write_text(out / name, text) for name in HOLDS]

    with opened(tmp_path / "it") as first:
        with opened(tmp_path / "it") as second:
            put(second, "second")
        assert content(tmp_path / "it") == "second"
        put(first, "first")
    assert content(tmp_path / "it") == "first" and names(tmp_path / "it") == {"it"}


def test_a_file_is_as_open_to_others_as_open_makes_it(tmp_path):
    """And as one that it replaces; so are directories."""
    before = os.umask(0o027)
    try:
        for name, write in WRITERS.items():
            write(tmp_path / name, "text")
        modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in WRITERS]
        assert modes == [0o640, 0o640, 0o750]
        for name, write in WRITERS.items():
            (tmp_path / name).chmod(0o700)
            write(tmp_path / name, "text")
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o700
        (tmp_path / "link").symlink_to("/dev/null")  # open to everybody
        files.write_text(tmp_path / "link", "text")
        assert stat.S_IMODE((tmp_path / "link").stat().st_mode) == 0o640
    finally:
        os.umask(before)


# What a person is told


@pytest.mark.parametrize("name", ["it", "new/place/it", "link"])
def test_where_nothing_can_be_written_is_said_before_the_work(tmp_path, monkeypatch, name):
    """Of a read-only file system, too. Root may write everywhere, so the system's answer is a stand-in's."""
    (tmp_path / "link").symlink_to(tmp_path / "new" / "place")
    monkeypatch.setattr(files.os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(UserError, match=f"{name}: cannot be written, {tmp_path} is read-only or somebody else's"):
        files.require_replaceable(tmp_path / name, HOLDS)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_directory_that_vanishes_is_named(tmp_path, writer):
    """Not the temporary name."""
    path, write = tmp_path / "gone" / "it", WRITERS[writer]

    def vanish():
        os.rename(tmp_path / "gone", tmp_path / "away")

    path.parent.mkdir()
    faults.before_call(8, vanish)
    try:
        with pytest.raises(OSError) as raised:
            write(path, "text")
    finally:
        sys.setprofile(None)
    assert files.describe_error(raised.value) == f"{path}: No such file or directory"


def test_a_directory_that_was_removed_while_it_was_filled_is_not_taken_for_whole(tmp_path):
    """The rest of its files would make it anew."""
    with pytest.raises(OSError, match="No such file") as raised, files.new_directory(tmp_path / "it", HOLDS) as path:
        files.write_text(path / "part", "text")
        shutil.rmtree(path)
        files.write_text(path / MARK, "text")
    assert files.describe_error(raised.value) == f"{tmp_path / 'it'}: No such file or directory"
    assert not list(tmp_path.iterdir())


REALLY = """
import errno, os, resource, subprocess, sys
from pathlib import Path
from tests.utils.test_faults import *
from seqkd_jax.utils import exits

def refused(write, path, text, said):
    assert exits.exit_status(lambda: write(path, text) or 0) == 2
    assert content(path) == "old" and names(path) == {"it"}, names(path)
    print(said, path)

def mount(options):
    subprocess.run(["mount", "-t", "tmpfs", *options, "none", sys.argv[1]], check=True)

mount(["-o", "size=64k"])
for name, write in WRITERS.items():
    path = Path(sys.argv[1]) / name / "it"
    write(path, "old")
    refused(write, path, "x" * 200_000, "No space left on device")
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, -1))
    refused(write, path, "x" * 10_000, "File too large")
    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
mount(["-o", "remount,ro"])
for name, write in WRITERS.items():
    refused(write, Path(sys.argv[1]) / name / "it", "new", "")
"""


def test_a_disk_that_is_really_full_and_one_that_is_read_only(tmp_path):
    """A small file system of its own, in a namespace of its own; and a limit of the size of files."""
    command = ["unshare", "-r", "-m", sys.executable, "-c", REALLY, str(tmp_path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=100)
    except FileNotFoundError:
        pytest.skip("there is no `unshare` here")
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip("this system does not let us mount")
    assert done.returncode == 0, done.stderr
    wanted, told = done.stdout.splitlines(), done.stderr.splitlines()
    assert len(wanted) == len(told) == 9, done.stderr
    for line, error in zip(wanted, told, strict=True):
        said, path = line.rsplit(" ", 1)
        assert error.startswith(f"error: {path}") and said in error, error
    assert sum("read-only" in error.lower() for error in told) == 3
