"""Files and directories appear whole or not at all, and nobody's data go because of a slip."""

import errno
import os
import subprocess

import pytest

from seqkd_jax.types import UserError
from seqkd_jax.utils import files

MARK = "mark.json"
HOLDS = (MARK, "*.txt")
OLD = ".a.0123456789abcdef.old"  # where `a` steps aside


def made(directory, text="new"):
    with files.new_directory(directory, HOLDS) as path:
        files.write_text(path / MARK, text)
    return directory


def everything(directory):
    """But for SHA256SUMS."""
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.name != files.SUMS)


def test_a_directory_is_replaced_by_one_of_its_kind(tmp_path):
    made(tmp_path / "a")
    made(tmp_path / "a", "newer")
    assert (tmp_path / "a" / MARK).read_text() == "newer"
    (tmp_path / "b").mkdir()
    made(tmp_path / "b")
    assert everything(tmp_path) == ["a", f"a/{MARK}", "b", f"b/{MARK}"], "nothing may be left beside them"


@pytest.mark.parametrize("in_place", [True, False])
def test_who_holds_a_directory_clears_up_what_stepped_aside_in_it(tmp_path, in_place):
    """A writer was killed after it put the new one in place, or before; a run that is over writes no other."""
    made(tmp_path / "a", "old").rename(tmp_path / OLD)
    made(tmp_path / "b", "new").rename(tmp_path / "a") if in_place else None
    (tmp_path / ".a.old").mkdir()  # of somebody else
    with files.locked(tmp_path):
        assert everything(tmp_path) == [".a.old", ".lock", "a", f"a/{MARK}"]
        assert (tmp_path / "a" / MARK).read_text() == ("new" if in_place else "old")


@pytest.mark.parametrize("inside", ["thesis.tex", "best/checkpoint.json"])
def test_other_things_are_not_replaced(tmp_path, inside):
    files.write_text(tmp_path / "data" / inside, "years of work")
    with pytest.raises(UserError, match=f"data: holds other files .{inside.split('/')[0]}.*name a new directory"):
        made(tmp_path / "data")
    assert (tmp_path / "data" / inside).read_text() == "years of work"


def test_what_a_directory_of_its_kind_never_holds_is_not_replaced(tmp_path):
    """A study's results, and stages with everything that was trained, are in a directory with a results.json, too."""
    made(tmp_path / "a")
    (tmp_path / "a" / "text.txt").write_text("of this kind")
    made(tmp_path / "a")
    files.write_text(tmp_path / "a" / "stages" / "weights", "hours of work")
    with pytest.raises(UserError, match="a: holds other files .stages."):
        made(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "text.txt").write_text("somebody's")
    with pytest.raises(UserError, match="b: holds other files .text.txt."):
        made(tmp_path / "b")


def test_where_one_works_is_not_replaced(tmp_path, monkeypatch):
    made(tmp_path / "here")
    (tmp_path / "here" / "below").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "here")
    for place in ("here", "here/below"):
        monkeypatch.chdir(tmp_path / place)
        for name in ("here", "link"):
            with pytest.raises(UserError, match="is the current directory"):
                files.require_replaceable(tmp_path / name, HOLDS)
    with pytest.raises(UserError, match="^/: is the current directory"):
        files.require_replaceable("/", HOLDS)


@pytest.mark.parametrize("write", [files.write_text, lambda path, text: files.write_bytes(path, text.encode())])
def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path, monkeypatch, write):
    write(tmp_path / "a", "old")
    monkeypatch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        write(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    """Also more than once, and after a kill."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "a")
    for text in ("first", "second"):
        made(tmp_path / "link", text)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "disk" / "a" / MARK).read_text() == text
    assert everything(tmp_path / "disk") == ["a", f"a/{MARK}"]
    (tmp_path / "disk" / "a").rename(tmp_path / "disk" / OLD)
    assert (files.existing(tmp_path / "link") / MARK).read_text() == "second"
    made(tmp_path / "link", "third")
    assert everything(tmp_path / "disk") == ["a", f"a/{MARK}"]


def test_a_file_is_not_replaced_by_a_directory(tmp_path):
    (tmp_path / "a").write_text("text")
    with pytest.raises(UserError, match="is a file"):
        made(tmp_path / "a")
    assert everything(tmp_path) == ["a"]


def test_a_failed_writer_leaves_what_was_there(tmp_path):
    made(tmp_path / "a", "old")
    with pytest.raises(RuntimeError), files.new_directory(tmp_path / "a", HOLDS) as path:
        files.write_text(path / MARK, "half")
        raise RuntimeError
    assert (tmp_path / "a" / MARK).read_text() == "old" and everything(tmp_path) == ["a", f"a/{MARK}"]


@pytest.mark.parametrize("moved", [True, False])
def test_a_killed_writer_is_cleared_up_after(tmp_path, moved):
    """Killed with the old directory aside: before the new one was in its place, or after."""
    made(tmp_path / "a", "old").rename(tmp_path / OLD)
    if moved:
        made(tmp_path / "b", "new").rename(tmp_path / "a")
    wanted = "new" if moved else "old"
    assert (files.existing(tmp_path / "a") / MARK).read_text() == wanted
    assert (files.recover(tmp_path / "a") / MARK).read_text() == wanted
    assert everything(tmp_path) == ["a", f"a/{MARK}"]


def test_what_takes_its_place_is_on_the_disk_before(tmp_path, monkeypatch):
    """A power cut must not leave a name without its content: all of it is synced, then renamed, then the parent."""
    seen, sync, rename = [], os.fsync, os.rename

    def synced(descriptor):
        seen.append(os.stat(descriptor).st_ino)
        sync(descriptor)

    def renamed(old, new):
        seen.append("renamed")
        rename(old, new)

    monkeypatch.setattr(files.os, "fsync", synced)
    monkeypatch.setattr(files.os, "rename", renamed)
    with files.new_directory(tmp_path / "a", HOLDS) as path:
        (path / MARK).write_text("new")  # not by a function that syncs
        (path / "part").mkdir()
        wanted = {entry.stat().st_ino for entry in (path, path / MARK, path / "part")}
    place, sums = seen.index("renamed"), (tmp_path / "a" / files.SUMS).stat().st_ino
    assert set(seen[:place]) == wanted | {sums} and seen[place + 1 :] == [tmp_path.stat().st_ino]


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with files.new_file(path) as stream:
        stream.write("ä\n")
        assert not path.exists()
    assert path.read_bytes() == "ä\n".encode()
    with pytest.raises(RuntimeError), files.new_file(path) as stream:
        stream.write("half")
        raise RuntimeError
    assert path.read_bytes() == "ä\n".encode() and everything(tmp_path) == ["new", "new/file.txt"]


def test_a_directory_is_no_file_to_write(tmp_path):
    """Said before the work whose result would have no place."""
    with pytest.raises(UserError, match="is a directory; name a file"), files.new_file(tmp_path):
        pytest.fail("the work would be done first")
    with pytest.raises(UserError, match="is a directory; name a file"):
        files.write_text(tmp_path, "text")
    assert everything(tmp_path) == []


def test_a_pipe_stays_a_pipe(tmp_path):
    """And /dev/null a device."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with files.new_file(pipe) as stream:
        stream.write("text\n")
    assert os.read(reader, 10) == b"text\n" and pipe.is_fifo()
    os.close(reader)


def test_json_lines_without_the_last_if_it_has_no_end(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text(files.json_line({"a": 1}) + files.json_line([2]) + '{"a": ')
    assert files.read_jsonl(path) == [{"a": 1}, [2]]
    path.write_text('{"a": 1}\n{"a"\n')
    with pytest.raises(UserError, match="line 2: not JSON"):
        files.read_jsonl(path)


def test_no_json_is_said_with_its_line(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1,\n "b"}')
    with pytest.raises(UserError, match="a.json, line 2: not JSON"):
        files.read_json(path)
    with pytest.raises(UserError, match="no such file"):
        files.read_json(tmp_path / "b.json")
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.json_text(float("nan"))


def test_a_tree_is_hashed_by_names_and_contents(tmp_path):
    for name in ("one", "two"):
        files.write_text(tmp_path / name / "a", "x")
        files.write_text(tmp_path / name / "b/c", "y")
    assert files.tree(tmp_path / "one") == ["a", "b/c"]
    first = files.sha256_tree(tmp_path / "one")
    assert first == files.sha256_tree(tmp_path / "two")
    (tmp_path / "two/.half.new").mkdir()
    (tmp_path / "two/.half.new/file").write_text("unfinished")
    assert first == files.sha256_tree(tmp_path / "two"), "what a killed writer left does not count"
    files.write_text(tmp_path / "two/b/c", "z")
    assert first != files.sha256_tree(tmp_path / "two")
    (tmp_path / "one/a").rename(tmp_path / "one/d")
    assert first != files.sha256_tree(tmp_path / "one")


def test_what_is_removed_is_gone(tmp_path):
    files.write_text(tmp_path / "folder/inside/file", "x")
    files.write_text(tmp_path / "file", "x")
    for name in ("folder", "file", "nothing"):
        files.remove(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_what_is_removed_does_not_come_back(tmp_path):
    """A writer was killed before it had cleared the directory that it had replaced."""
    for there in (["a", OLD], [OLD]):
        for name in there:
            files.write_text(tmp_path / name / "file", name)
        files.remove(tmp_path / "a")
        assert not files.existing(tmp_path / "a").exists(), "a reader would find the one before"
    assert list(tmp_path.iterdir()) == []


def test_what_the_system_refuses_is_one_line():
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError) as raised, files.naming("out/best"):
        raise full
    told = "out/best: No space left on device; free some space and give the same command again"
    assert files.describe_error(raised.value) == told
    missing = FileNotFoundError(errno.ENOENT, "No such file or directory", "x")
    assert files.describe_error(missing) == "x: No such file or directory"


# SHA256SUMS


def summed(directory):
    with files.new_directory(directory, (MARK, "part")) as path:
        for name in (MARK, "part/ä b", "part/deep/x"):
            files.write_text(path / name, name)
    return directory


def test_coreutils_agree_on_the_sums(tmp_path):
    directory = summed(tmp_path / "a")
    done = subprocess.run(["sha256sum", "-c", "--strict", files.SUMS], cwd=directory, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == f"{MARK}: OK\npart/deep/x: OK\npart/ä b: OK\n", done
    assert files.verify(directory, "make it again") and not files.verify(tmp_path, "make it again")


def linked(path):
    """A link takes the place, to the same outside."""
    outside = next(parent for parent in path.parents if parent.name == "a").with_name("outside")
    path.symlink_to(path.rename(outside))


DAMAGES = {
    "a bit flipped": ("part/ä b", lambda path: path.write_bytes(b"p`rt/\xc3\xa4 b"), "does not have the hash"),
    "cut": ("part/deep/x", lambda path: path.write_bytes(b"part"), "does not have the hash"),
    "gone": (MARK, lambda path: path.unlink(), "is missing"),
    "one more": ("part/deep/y", lambda path: path.write_text("y"), "SHA256SUMS does not list it"),
    "a link to another file": (MARK, lambda path: path.unlink() or path.symlink_to("part/ä b"), "have the hash"),
    "a link to nothing": (MARK, lambda path: path.unlink() or path.symlink_to("nothing"), "is no file"),
    "a linked folder": ("part/deep", linked, "no folder that is not a link"),
    "a pipe": ("part/pipe", os.mkfifo, "is no file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_differs_from_the_sums_is_named(tmp_path, damage):
    name, harm, said = DAMAGES[damage]
    path = summed(tmp_path / "a") / name
    harm(path)
    with pytest.raises(UserError, match=f"^{path}.*: damaged, .*{said}.*; make it again$"):
        files.verify(tmp_path / "a", "make it again")


@pytest.mark.parametrize(
    "name", ["../b", "/etc/passwd", "part/../../b", "part//x", ".", "", "a\0b", "a\tb", "a\\b", "part/deep/", "a\rb"]
)
def test_sums_name_only_files_below(tmp_path, name):
    """Whoever wrote them must not have another file read, and nothing may stand in them that we would not write."""
    sums = summed(tmp_path / "a") / files.SUMS
    sums.write_bytes(f"{'0' * 64}  {name}\n".encode() + sums.read_bytes())
    with pytest.raises(UserError, match=f"{sums}: damaged, line 1.*; make it again$"):
        files.verify(tmp_path / "a", "make it again")


def test_damaged_sums_are_refused(tmp_path):
    """A bit of each byte, and each cut."""
    sums = made(tmp_path / "a") / files.SUMS
    whole = sums.read_bytes()
    cuts = [whole[:end] for end in range(len(whole))]
    flips = [whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in range(len(whole))]
    for damaged in (*cuts, *flips):
        sums.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged"):
            files.verify(tmp_path / "a", "make it again")
    sums.unlink()
    sums.symlink_to(tmp_path / "b")
    with pytest.raises(UserError, match=f"{sums}: damaged, it is no file"):
        files.verify(tmp_path / "a", "make it again")


def test_files_that_are_links_are_compared(tmp_path):
    """As in the cache of the Hugging Face hub."""
    directory, blobs = summed(tmp_path / "a"), tmp_path / "blobs"
    blobs.mkdir()
    for number, name in enumerate(files.tree(directory)):
        (directory / name).symlink_to((directory / name).rename(blobs / str(number)))
    assert files.verify(directory, "make it again")
    (blobs / "1").write_text("x")
    with pytest.raises(UserError, match="does not have the hash"):
        files.verify(directory, "make it again")


def test_hidden_files_and_those_that_nobody_reads_do_not_count(tmp_path):
    directory = summed(tmp_path / "a")
    for name in (".DS_Store", ".cache/of/a hub", f".{MARK}.new", "part/._x"):
        files.write_text(directory / name, "not ours")
    assert files.verify(directory, "")
    (directory / "part" / "deep" / "x").unlink()
    assert files.verify(directory, "", only=[MARK, "part/ä*"])
    with pytest.raises(UserError, match="missing"):
        files.verify(directory, "", only=["part/*"])


def test_names_that_sums_cannot_have_are_refused(tmp_path):
    for name in ("two\nlines", "back\\slash", os.fsdecode(b"\xff")):
        refused = pytest.raises(UserError, match="choose another name")
        with refused, files.new_directory(tmp_path / "a", (MARK, "*")) as path:
            (path / name).write_text("x")
    assert everything(tmp_path) == []


def test_sums_are_part_of_no_identity(tmp_path):
    """They follow from the rest, and directories of older versions have none."""
    directory = summed(tmp_path / "a")
    before = files.sha256_tree(directory)
    (directory / files.SUMS).unlink()
    assert files.sha256_tree(directory) == before and files.tree(directory) == [MARK, "part/deep/x", "part/ä b"]
