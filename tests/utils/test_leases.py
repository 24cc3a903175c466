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
    read, write = os.pipe()
    children = []
    for _ in range(6):
        children.append(os.fork())
        if not children[-1]:
            with leases.attempt(lock) as lease:
                os.write(write, b"y" if lease else b"n")
                time.sleep(0.3 if lease else 0)
            os._exit(0)
    for child in children:
        os.waitpid(child, 0)
    assert sorted(os.read(read, 100)) == sorted(b"nnnnny") and list(tmp_path.iterdir()) == []


def test_a_paused_owner_notices_and_takes_nothing_from_its_successor(lock, tmp_path):
    with leases.attempt(lock) as paused:
        assert paused
        os.utime(lock, (time.time() - 70,) * 2)  # it was stopped for so long
        with leases.attempt(lock) as successor:
            assert successor and successor.held() and not paused.held()
            assert not taken(lock)
            leases._release(paused._replace(descriptor=os.dup(paused.descriptor)))
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
