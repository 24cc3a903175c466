"""SIGTERM during a block."""

import os
import signal
import threading

import pytest

from seqkd_jax import distributed
from seqkd_jax.training.preemption import stop_signal


def preempt():
    os.kill(os.getpid(), signal.SIGTERM)


def test_the_block_is_told_and_ends_in_143_when_it_has_ended():
    before, done = signal.getsignal(signal.SIGTERM), []
    with pytest.raises(SystemExit) as stopped, stop_signal(instead_of=KeyError) as came:
        assert not came()
        preempt()
        assert came()
        done.append("the rest of the block")
    assert stopped.value.code == 143 and done
    assert signal.getsignal(signal.SIGTERM) is before


def test_without_a_signal_nothing_happens():
    before = signal.getsignal(signal.SIGTERM)
    with stop_signal(instead_of=KeyError) as came:
        pass
    assert not came() and signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(KeyError), stop_signal(instead_of=KeyError):
        raise KeyError


@pytest.mark.parametrize(("raised", "seen"), [(KeyError, SystemExit), (ValueError, ValueError)])
def test_only_what_it_stands_for_is_replaced(raised, seen):
    """Another error says more than that there was a signal, too."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(seen), stop_signal(instead_of=KeyError):
        preempt()
        raise raised
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_another_thread_signals_are_left_to_the_main_one():
    found = []

    def run():
        with stop_signal(instead_of=KeyError) as came:
            found.append(came())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [False]


def test_a_process_that_stopped_leaves_when_all_have_stopped(monkeypatch):
    """Process 0 may be saving meanwhile: who leaves with a status ends the others."""
    done = []
    monkeypatch.setattr(distributed, "count", lambda: 2)
    monkeypatch.setattr(distributed, "stopping", lambda: True)
    monkeypatch.setattr(distributed, "barrier", lambda name: done.append("all are here"))
    with pytest.raises(SystemExit) as stopped, stop_signal(instead_of=KeyError):
        done.append("the block")
    assert stopped.value.code == 75 and done == ["the block", "all are here"]
