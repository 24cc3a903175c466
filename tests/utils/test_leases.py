"""Locks with owner and heartbeat: one owner at a time, dead ones succeeded by one, paused ones that notice."""

import errno
import fcntl
import json
import os
import signal
import threading
import time

import pytest

from seqkd_jax.utils import leases


@pytest.fixture
def lock(tmp_path):
    return tmp_path / "shard-00000.lock"


def left_by_another_machine(lock, age, number="a" * 16):
    """The lock of an owner elsewhere, whose last heartbeat is so many seconds old."""
    owner = leases.Owner("elsewhere", 7, "2026-01-01T00:00:00+00:00", "another kernel", number)
    lock.write_text(json.dumps(owner._asdict()))
    os.utime(lock, (time.time() - age,) * 2)


def taken(lock):
    with leases.attempt(lock) as lease:
        return lease is not None


def test_one_at_a_time_and_nothing_is_left(lock, tmp_path, monkeypatch):
    with leases.attempt(lock) as lease:
        assert lease and lease.held() and not taken(lock)
        last = leases.holder(lock)
        assert last and last.owner.pid == os.getpid() and not last.is_dead()
    assert list(tmp_path.iterdir()) == [] and leases.holder(lock) is None
    monkeypatch.setattr(leases, "FIRST_LOOK", 0.01)
    inside, most = [], []

    def work():
        with leases.waited(lock, "works"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.002)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8 and list(tmp_path.iterdir()) == []


def test_a_killed_owner_of_this_machine_is_succeeded_at_once(lock, tmp_path):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        with leases.attempt(lock):
            os.write(write, b"x")
            time.sleep(60)
        os._exit(1)
    os.read(read, 1)
    assert not taken(lock)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert taken(lock) and list(tmp_path.iterdir()) == []


def test_who_has_no_successor_leaves_no_file(lock, tmp_path):
    """As the lock of a job: it is removed when its owner is dead, also one that had not written who it is."""
    for content in ("", "{"):
        lock.write_text(content)
        assert leases.alive(lock) is None and list(tmp_path.iterdir()) == []
    with open(lock, "w") as beginning:
        fcntl.flock(beginning, fcntl.LOCK_EX)
        assert leases.alive(lock) and lock.exists(), "a living one that is about to write was robbed"
    lock.unlink()
    left_by_another_machine(lock, 50)
    assert leases.alive(lock) and lock.exists()
    left_by_another_machine(lock, 70)
    assert leases.alive(lock) is None and list(tmp_path.iterdir()) == []
    with leases.attempt(lock):
        assert leases.alive(lock) and lock.exists()


def test_who_was_removed_before_its_flock_makes_its_lock_again(lock, monkeypatch):
    removed = []

    def flocked(descriptor):
        if not removed:
            removed.append(leases.alive(lock))
        return wait_for_flock(descriptor)

    wait_for_flock = leases._flocked
    monkeypatch.setattr(leases, "_flocked", flocked)
    with leases.attempt(lock) as lease:
        assert removed == [None] and lease and lease.held()


@pytest.mark.parametrize(("age", "dead"), [(0, False), (50, False), (70, True)])
@pytest.mark.parametrize("content", ["another machine's", "not yet written", "names a path"])
def test_elsewhere_a_heartbeat_says_who_lives(lock, tmp_path, age, dead, content):
    left_by_another_machine(lock, age, number="../../../../x" if content == "names a path" else "a" * 16)
    if content == "not yet written":
        lock.write_text("")
        os.utime(lock, (time.time() - age,) * 2)
    assert taken(lock) == dead
    assert list(tmp_path.iterdir()) == ([] if dead else [lock])


def test_a_file_system_without_locks_has_heartbeats(lock, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with leases.attempt(lock) as lease:
        assert lease and not taken(lock), "that it has no flock does not say that it is dead"
        os.utime(lock, (time.time() - 70,) * 2)
        assert taken(lock) and not lease.held()


def test_of_many_that_take_over_a_dead_lock_one_wins(lock, tmp_path):
    """Each round the dead owner is another one, twice in a chain that was taken over before."""
    together = threading.Barrier(8)
    winners = []

    def attempt():
        for age in range(61, 81):
            if together.wait() == 0:
                left_by_another_machine(lock, age)
                if age % 2:
                    left_by_another_machine(leases._successor(lock, "a" * 16), age, "b" * 16)
            together.wait()
            with leases.attempt(lock) as lease:
                if lease is not None:
                    winners.append((age, lease.held()))
                together.wait()

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(winners) == [(age, True) for age in range(61, 81)]
    assert list(tmp_path.iterdir()) == []


def test_of_many_processes_that_take_over_one_wins(lock, tmp_path):
    left_by_another_machine(lock, 70)
    (read, write), (wait, go) = os.pipe(), os.pipe()
    children = []
    for _ in range(6):
        children.append(os.fork())
        if not children[-1]:
            with leases.attempt(lock) as lease:
                os.write(write, b"y" if lease else b"n")
                if lease:
                    os.read(wait, 1)  # until all have tried
            os._exit(0)
    said = b"".join(os.read(read, 1) for _ in children)
    os.write(go, b"x" * len(children))
    for child in children:
        os.waitpid(child, 0)
    assert sorted(said) == sorted(b"nnnnny") and list(tmp_path.iterdir()) == []


def test_a_paused_owner_notices_and_takes_nothing_from_its_successor(lock, tmp_path):
    with leases.attempt(lock) as paused:
        assert paused
        os.utime(lock, (time.time() - 70,) * 2)  # it was stopped for so long
        with leases.attempt(lock) as successor:
            assert successor and successor.held() and not paused.held()
            assert not taken(lock)
            leases._release(paused._replace(descriptor=os.dup(paused.descriptor), directory=os.dup(paused.directory)))
            assert successor.held(), "what is given back by one that lost it stays with its successor"
    assert list(tmp_path.iterdir()) == []


def test_who_seemed_dead_and_comes_back_keeps_its_lock(lock, tmp_path, monkeypatch):
    """Its heartbeat comes between the look of another and the successor that this one creates."""
    create = leases._create
    with leases.attempt(lock) as owner:
        assert owner
        os.utime(lock, (time.time() - 70,) * 2)
        monkeypatch.setattr(leases, "_create", lambda *given: (owner.beat(), create(*given))[1])
        assert not taken(lock) and owner.held()
        assert list(tmp_path.iterdir()) == [lock]


def test_a_chain_that_was_released_meanwhile_is_nobodys(lock, tmp_path, monkeypatch):
    """A slow one succeeds an owner whose lock was taken over, released and taken anew since it looked."""
    left_by_another_machine(lock, 70)
    create = leases._create

    def slow(path, file):
        monkeypatch.setattr(leases, "_create", create)
        assert taken(lock)
        left_by_another_machine(lock, 0, "c" * 16)
        return create(path, file)

    monkeypatch.setattr(leases, "_create", slow)
    assert not taken(lock)
    assert list(tmp_path.iterdir()) == [lock]


def test_the_heart_beats(lock, monkeypatch):
    monkeypatch.setattr(leases, "BEAT", 0.01)
    with leases.attempt(lock):
        os.utime(lock, (0, 0))
        end = time.monotonic() + 5
        while lock.stat().st_mtime == 0 and time.monotonic() < end:
            time.sleep(0.01)
        assert lock.stat().st_mtime > 0


def test_a_full_disk_leaves_the_lock_without_an_owner(lock, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", full)
    with leases.attempt(lock) as lease:
        assert lease and lease.held() and lock.read_bytes() == b"" and not taken(lock)


def test_a_directory_that_was_moved_keeps_no_lock(tmp_path):
    """As of lists that are put in their place while another process still holds a shard."""
    (tmp_path / "one").mkdir()
    with leases.attempt(tmp_path / "one" / "shard-00000.lock") as lease:
        (tmp_path / "one").rename(tmp_path / "two")
        assert lease and not lease.held()
        assert [path.name for path in (tmp_path / "two").iterdir()] == ["shard-00000.lock"]
    assert list((tmp_path / "two").iterdir()) == []


def test_the_clock_of_a_file_system_is_asked_once_in_a_heartbeat_for_many_looks(lock, tmp_path, monkeypatch):
    """To ask writes a file. Only the clock itself says that an owner is dead."""
    asked, ask = [], leases.temporary.new_file
    monkeypatch.setattr(leases.temporary, "new_file", lambda path: asked.append(path) or ask(path))
    monkeypatch.setattr(leases, "_clocks", {})
    for number in range(3):
        left_by_another_machine(tmp_path / f"shard-{number}.lock", 0)
    for _ in range(10):
        assert not any(leases.holder(tmp_path / f"shard-{number}.lock").is_dead() for number in range(3))
    assert len(asked) == 1
    for device in leases._clocks:  # the clock was set back by two minutes since it was asked
        leases._clocks[device] = leases._Clock(time.monotonic(), time.time() + 120)
    assert not leases.holder(tmp_path / "shard-0.lock").is_dead() and len(asked) == 2


def test_who_is_killed_while_it_asks_the_clock_leaves_what_the_next_removes(lock, tmp_path):
    if not (child := os.fork()):
        with leases.temporary.new_file(tmp_path / leases.CLOCK):
            os._exit(0)
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 1
    leases.clear(tmp_path)
    assert not list(tmp_path.iterdir())
    left_by_another_machine(lock, 50)
    assert leases.alive(lock) and list(tmp_path.iterdir()) == [lock], "the clock leaves nothing itself"
