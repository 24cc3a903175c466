"""Shards that processes and machines share: each is decoded once, by whoever lives, and the bytes are those of one."""

import json
import os
import random
import shutil
import signal
import threading
import time
from dataclasses import replace

import pytest
from distilling import make_teacher, spell_backwards
from faults import killed_before

import seqkd_jax as kd
from seqkd_jax import distillation
from seqkd_jax.config import SearchConfig
from seqkd_jax.decoding import Decoding
from seqkd_jax.distillation import job, ledger, nbest, reuse
from seqkd_jax.utils import files, leases

LINES = [f"{word} {other}" for word in "abcd" for other in "efgh"]  # 6 shards of 3 lines at most
BEAM = 3


@pytest.fixture
def decoded(monkeypatch):
    monkeypatch.setattr(leases, "FIRST_LOOK", 0.01)
    return spell_backwards(monkeypatch)


@pytest.fixture
def teacher(tmp_path):
    return kd.LoadedTranslator(make_teacher(tmp_path / "teacher"))


@pytest.fixture
def slow(decoded, monkeypatch, tmp_path):
    """A search that takes a moment a line and tells its lines to a file, which forked processes share."""

    def decode(system, lines, decoding, **options):
        for translation in decoded(system, lines, decoding, **options):
            time.sleep(0.004)
            files.append(tmp_path / "decoded", f"{translation.source}\n")
            yield translation

    monkeypatch.setattr(nbest, "translate_lines", decode)
    return lambda: (tmp_path / "decoded").read_text().splitlines()


def distil(teacher, out, sources=LINES, **options):
    return kd.distill(teacher, sources, out, **{"beam": BEAM, "shard_lines": 3, "languages": ("en", "de"), **options})


def content(*directories):
    return [{name: (one / name).read_bytes() for name in files.tree(one)} for one in directories]


def both(tmp_path, name="kd"):
    """The corpus and its lists, but for the place of config.json's settings."""
    corpus, lists = content(tmp_path / name, tmp_path / f"{name}.n-best")
    return [{key: data for key, data in corpus.items() if key not in ("config.json", "SHA256SUMS")}, lists]


def at_once(count, work):
    """Do `work` in so many threads, which are to it what processes are; the errors."""
    errors, start = [], threading.Barrier(count)

    def run():
        start.wait()
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


@pytest.mark.parametrize("before", ["nothing", "the same job, killed", "another job, which may go"])
def test_several_at_once_decode_each_shard_once_and_one_writes_the_corpus(
    tmp_path, teacher, decoded, slow, monkeypatch, before
):
    distil(teacher, tmp_path / "alone")
    options = {}
    if before == "the same job, killed":
        decoded.kill_at(LINES[7])
        with pytest.raises(KeyboardInterrupt):
            distil(teacher, tmp_path / "kd")
        decoded.kill_at(None)
    elif before == "another job, which may go":
        distil(teacher, tmp_path / "kd", beam=2)
        options["overwrite"] = True
    (tmp_path / "decoded").unlink()
    cards, written = [], []
    write = job.write_corpus
    monkeypatch.setattr(job, "write_corpus", lambda *a, **o: (written.append(1), write(*a, **o))[1])
    assert not at_once(4, lambda: cards.append(distil(teacher, tmp_path / "kd", **options).card))
    assert sorted(slow()) == sorted(LINES[6:] if "killed" in before else LINES)
    assert len(written) == 1 and len(cards) == 4 and all(card == cards[0] for card in cards)
    assert both(tmp_path) == both(tmp_path, "alone")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".", "kd.n-best.next"))]


def forked(work):
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return child


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_a_process_that_is_killed_leaves_its_shard_to_the_others(tmp_path, teacher, slow, kills):
    """SIGKILL to one of two at random moments, from before the first shard to the writing of the corpus."""
    distil(teacher, tmp_path / "alone")
    draw, ends = random.Random(0), []
    for number in range(kills):
        name = f"kd{number}"
        victim, other = (forked(lambda name=name: distil(teacher, tmp_path / name)) for _ in range(2))
        time.sleep(draw.uniform(0, 0.1))
        os.kill(victim, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == 0
        ends.append(os.waitstatus_to_exitcode(os.waitpid(victim, 0)[1]))
        assert both(tmp_path, name) == both(tmp_path, "alone")
    assert -signal.SIGKILL in ends
    most = (kills + 1) * len(LINES) + kills * 3
    assert len(slow()) <= most, "at most the shard of each that was killed is decoded again"


@pytest.mark.parametrize("calls", [4, pytest.param(150, marks=pytest.mark.slow)])
def test_killed_before_any_call_another_process_ends_complete(tmp_path, teacher, decoded, calls):
    distil(teacher, tmp_path / "alone", LINES[:5])
    draw = random.Random(1)
    for number in sorted(draw.sample(range(1, 900), calls)):
        killed = killed_before(number, lambda: distil(teacher, tmp_path / "kd", LINES[:5]))
        distil(teacher, tmp_path / "kd", LINES[:5])
        assert both(tmp_path) == both(tmp_path, "alone"), number
        assert not list(tmp_path.glob("kd.n-best/*.lock")) and not list(tmp_path.glob(".*.lock"))
        for directory in (tmp_path / "kd", tmp_path / "kd.n-best"):
            shutil.rmtree(directory)
        if not killed:
            break


def elsewhere(path, age):
    """The lock of a process on another machine, whose last heartbeat is so many seconds old."""
    owner = leases.Owner("elsewhere", 7, "2026-01-01T00:00:00+00:00", "another kernel", "a" * 16)
    path.write_text(json.dumps(owner._asdict()))
    os.utime(path, (time.time() - age,) * 2)


def test_a_shard_of_a_living_process_is_waited_for_and_of_a_dead_one_taken_over(
    tmp_path, teacher, decoded, monkeypatch
):
    lists = tmp_path / "kd.n-best"
    lists.mkdir()
    elsewhere(lists / "shard-00001.lock", 70)
    elsewhere(lists / "shard-00002.lock", 0)

    def pauses():
        assert decoded.seen == LINES[:6] + LINES[9:], "what nobody holds comes first"
        yield from (0, 0)
        elsewhere(lists / "shard-00002.lock", 70)
        yield 0
        pytest.fail("the dead one is waited for")

    monkeypatch.setattr(leases, "pauses", pauses)
    distil(teacher, tmp_path / "kd")
    assert decoded.seen == LINES[:6] + LINES[9:] + LINES[6:9]
    assert not list(lists.glob("*.lock"))


def paused_in_its_second_shard(monkeypatch, directory, meanwhile):
    """The next job that makes directory/kd stands still there, for longer than a minute, while others do something."""
    decode, paused = nbest.translate_lines, []

    def pausing(system, lines, decoding, **options):
        yield from decode(system, lines, decoding, **options)
        if lines[0] == LINES[3] and not paused:
            paused.append(1)
            for lock in [*directory.glob(".kd.*.lock"), *directory.glob("kd.n-best/*.lock")]:
                os.utime(lock, (time.time() - 70,) * 2)
            meanwhile()

    monkeypatch.setattr(nbest, "translate_lines", pausing)


@pytest.mark.parametrize("then", [{}, {"part": (2, 3)}])
def test_a_paused_process_leaves_its_shard_to_its_successor(tmp_path, teacher, slow, decoded, monkeypatch, capfd, then):
    """It stands still within a shard for longer than a minute; another makes everything and the corpus, or a part."""
    distil(teacher, tmp_path / "alone")
    written, write = [], ledger.write_shard
    monkeypatch.setattr(ledger, "write_shard", lambda *given: (written.append(given[1]), write(*given))[1])

    paused_in_its_second_shard(monkeypatch, tmp_path, lambda: distil(teacher, tmp_path / "kd", **then))
    distil(teacher, tmp_path / "kd")
    assert sorted(written) == list(range(6))
    assert "shard-00001.jsonl.gz: another process took it over while this one was paused" in capfd.readouterr().err
    assert both(tmp_path) == both(tmp_path, "alone")


def test_another_job_is_refused_while_one_is_at_work(tmp_path, teacher, decoded, monkeypatch):
    """A third process, of other rules, may not take the directory in which two make lists beside older ones."""
    distil(teacher, tmp_path / "kd", beam=2)
    distil(teacher, tmp_path / "alone")
    decode, said = nbest.translate_lines, []

    def interrupting(system, lines, decoding, **options):
        yield from decode(system, lines, decoding, **options)
        for options in ({"beam": 1}, {"beam": 2}, {"sources": LINES[:5]}):
            with pytest.raises(kd.UserError) as refused:
                distil(**{"teacher": teacher, "out": tmp_path / "kd", "overwrite": True, **options})
            said.append(str(refused.value))

    with monkeypatch.context() as patch:
        patch.setattr(nbest, "translate_lines", interrupting)
        distil(teacher, tmp_path / "kd", overwrite=True)
    expected = f"{tmp_path / 'kd'}: process {os.getpid()} of "
    assert len(said) == 18 and all(one.startswith(expected) and "name another directory" in one for one in said)
    assert both(tmp_path) == both(tmp_path, "alone")
    assert not list(tmp_path.glob(".kd*"))


def test_a_job_that_another_took_over_while_it_was_paused_writes_nothing(tmp_path, teacher, decoded, monkeypatch):
    distil(teacher, tmp_path / "alone", beam=1)
    meanwhile = {"beam": 1, "overwrite": True}
    paused_in_its_second_shard(monkeypatch, tmp_path, lambda: distil(teacher, tmp_path / "kd", **meanwhile))
    with pytest.raises(kd.UserError, match="kd.n-best: another job took it over while this process was paused"):
        distil(teacher, tmp_path / "kd")
    assert both(tmp_path) == both(tmp_path, "alone")


def test_lists_that_a_killed_process_left_beside_a_finished_corpus_go_to_their_place(
    tmp_path, teacher, decoded, monkeypatch
):
    distil(teacher, tmp_path / "alone")
    distil(teacher, tmp_path / "kd", beam=2)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(job, "put_in_place", killed)
        distil(teacher, tmp_path / "kd", overwrite=True)
    assert (tmp_path / "kd.n-best.next").is_dir()
    elsewhere(tmp_path / "kd.n-best.next" / "shard-00002.lock", 70)
    distil(teacher, tmp_path / "kd")
    assert both(tmp_path) == both(tmp_path, "alone") and not (tmp_path / "kd.n-best.next").exists()


def test_nobody_waits_while_a_corpus_is_encoded(tmp_path, teacher, decoded, monkeypatch):
    """That is long for a large one; the lock is for what stands in directories."""
    free = []

    def require(*_):
        with leases.attempt(tmp_path / ".kd.lock") as lease:
            free.append(lease is not None)

    monkeypatch.setattr(kd.api.distilling, "require_translatable", require)
    distil(teacher, tmp_path / "kd")
    assert free == [True]


# ---------------------------------------------------------------- parts


def test_parts_make_their_shards_and_what_is_left_is_said(tmp_path, teacher, decoded, capfd):
    distil(teacher, tmp_path / "alone")
    decoded.seen.clear()
    for number in (3, 1):  # on machines that share no file system
        made = distil(teacher, tmp_path / str(number) / "kd", part=(number, 3))
        assert made.card == {} and not (tmp_path / str(number) / "kd").exists()
        said = capfd.readouterr().err
        assert f"part {number}/3 are complete; 4 of all 6 are not there yet" in said, said
    assert decoded.seen == LINES[6:9] + LINES[15:] + LINES[:3] + LINES[9:12]
    shutil.copytree(tmp_path / "3" / "kd.n-best", tmp_path / "kd.n-best")
    shutil.copytree(tmp_path / "1" / "kd.n-best", tmp_path / "kd.n-best", dirs_exist_ok=True)
    distil(teacher, tmp_path / "kd", part=(2, 3))
    assert "all others are there too: the same command without --part writes the corpus" in capfd.readouterr().err
    decoded.seen.clear()
    distil(teacher, tmp_path / "kd")
    assert decoded.seen == [] and both(tmp_path) == both(tmp_path, "alone")
    for part in ((0, 3), (4, 3), (1, 0)):
        with pytest.raises(kd.UserError, match=f"part {part[0]}/{part[1]}: there is no such part; they are 1/"):
            distil(teacher, tmp_path / "kd", part=part)


# ---------------------------------------------------------------- status


def test_status_says_what_is_complete_held_and_damaged(tmp_path, teacher, decoded):
    assert kd.distill_status(tmp_path / "kd") == {
        "out": str(tmp_path / "kd"),
        "corpus": "missing",
        "lists": str(tmp_path / "kd.n-best"),
        **dict.fromkeys(("shards", "lines")),
        **dict.fromkeys(("complete", "lines_complete"), 0),
        **dict.fromkeys(("held", "damaged"), []),
    }
    decoded.kill_at(LINES[10])
    with pytest.raises(KeyboardInterrupt):
        distil(teacher, tmp_path / "kd")
    lists = tmp_path / "kd.n-best"
    elsewhere(lists / "shard-00003.lock", 70)
    (lists / "shard-00001.jsonl.gz").write_bytes(b"damaged")
    before = content(tmp_path)
    with leases.attempt(lists / "shard-00004.lock"):
        told = kd.distill_status(tmp_path / "kd")
    assert content(tmp_path) == before
    assert (told["corpus"], told["shards"], told["lines"]) == ("missing", 6, 16)
    assert (told["complete"], told["lines_complete"]) == (2, 6)
    assert [(one["shard"], one["alive"]) for one in told["held"]] == [(3, False), (4, True)]
    assert told["held"][0]["host"] == "elsewhere" and 69 < told["held"][0]["heartbeat_seconds"] < 75
    assert [one["path"] for one in told["damaged"]] == [str(lists / "shard-00001.jsonl.gz")]
    decoded.kill_at(None)
    distil(teacher, tmp_path / "kd")
    told = kd.distill_status(tmp_path / "kd")
    assert (told["corpus"], told["complete"], told["held"], told["damaged"]) == ("complete", 6, [], [])


# ---------------------------------------------------------------- reuse

CHANGED = {
    "appended": ([*LINES, "x y", "y"], ["x y", "y"]),
    "inserted": ([*LINES[:2], "x y", *LINES[2:]], ["x y"]),
    "at the start": (["x", "y", *LINES], ["x", "y"]),
    "changed": ([*LINES[:4], "x", *LINES[5:9], "y", *LINES[10:]], ["x", "y"]),
    "in another order": (LINES[::-1], []),
    "fewer": (LINES[3:11:2], []),
}


@pytest.mark.parametrize("change", CHANGED)
def test_a_corpus_with_new_lines_decodes_only_those(tmp_path, teacher, decoded, change):
    lines, new = CHANGED[change]
    distil(teacher, tmp_path / "fresh", lines)
    distil(teacher, tmp_path / "kd")
    decoded.seen.clear()
    with pytest.raises(kd.UserError, match="other source lines.*--overwrite, which decodes only lines that are new"):
        distil(teacher, tmp_path / "kd", lines)
    distil(teacher, tmp_path / "kd", lines, overwrite=True)
    assert decoded.seen == new
    assert both(tmp_path) == both(tmp_path, "fresh")


def test_other_sizes_of_shards_need_no_decoding_and_a_damaged_one_is_not_read(tmp_path, teacher, decoded):
    distil(teacher, tmp_path / "fresh", shard_lines=5)
    distil(teacher, tmp_path / "kd")
    (tmp_path / "kd.n-best" / "shard-00003.jsonl.gz").write_bytes(b"damaged")
    decoded.seen.clear()
    distil(teacher, tmp_path / "kd", shard_lines=5, overwrite=True)
    assert decoded.seen == LINES[9:12] and both(tmp_path) == both(tmp_path, "fresh")


def test_lists_that_were_replaced_meanwhile_lend_no_line(tmp_path, teacher, decoded):
    """As by another process, which has put in place what this one is making too: its lines stand elsewhere."""
    distil(teacher, tmp_path / "kd")
    distil(teacher, tmp_path / "other", LINES[::-1])
    rules = Decoding(SearchConfig(beam=BEAM))
    lists = distillation.plan(tmp_path / "new", teacher.checkpoint, LINES, rules, shard_lines=3)
    found = reuse.earlier(lists, range(6), tmp_path / "kd.n-best")
    assert found.count == len(LINES)
    shutil.rmtree(tmp_path / "kd.n-best")
    (tmp_path / "other.n-best").rename(tmp_path / "kd.n-best")
    assert found.rows(0) == {}


def test_another_teacher_or_another_beam_reuses_nothing(tmp_path, teacher, decoded):
    distil(teacher, tmp_path / "kd")
    other = kd.LoadedTranslator(make_teacher(tmp_path / "other", "1" * 64))
    for changed in ({"beam": 2}, {"teacher": other}, {"batch_tokens": 7}):
        decoded.seen.clear()
        distil(**{"teacher": teacher, "out": tmp_path / "kd", "overwrite": True, **changed})
        assert decoded.seen == LINES


def test_a_sample_is_reused_only_at_its_number(tmp_path, teacher, decoded):
    """It is drawn by the number of its line."""
    rules = replace(Decoding(SearchConfig(beam=BEAM)), decoder="sample")
    lists = distillation.plan(tmp_path / "old", teacher.checkpoint, LINES, rules, shard_lines=3)
    lists.directory.mkdir()
    distillation.make(lists, teacher.checkpoint)
    decoded.seen.clear()
    decoded.firsts.clear()
    lines = [LINES[0], "x", *LINES[2:6], *LINES[7:10], "y"]
    changed = distillation.plan(tmp_path / "new", teacher.checkpoint, lines, rules, shard_lines=4)
    changed.directory.mkdir()
    distillation.make(changed, teacher.checkpoint, other=tmp_path / "old")
    assert decoded.seen == ["x", *LINES[7:10], "y"]
    assert decoded.firsts == [1, 6, 8], "each run of lines is drawn by its own numbers"
