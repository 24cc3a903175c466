"""The quiet log is quiet, the bar is a bar, and compilations are counted."""

import io
import sys

import jax
import numpy as np
import pytest

from seqkd_jax.utils import progress


class Clock:
    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_quiet_log(clock, capsys):
    def slow():
        for item in range(100):
            clock.now += 1.0
            yield item

    assert list(progress.track(slow(), 100, "translate", "sentences")) == list(range(100))
    out, err = capsys.readouterr()
    assert out == "", "progress belongs on stderr: stdout is for results"
    lines = err.splitlines()
    assert len(lines) == 4, lines  # after 30, 60 and 90 s, and the end
    assert lines[0] == "translate: 30/100 sentences, 1.00 sentences/s, 1m10s left"
    assert lines[-1] == "translate: done, 100/100 sentences, 1.00 sentences/s in 1m40s"


def test_unknown_total_and_early_stop(clock, capsys):
    items = progress.track(iter(range(10)), None, "read", "lines")
    next(items), next(items)
    items.close()
    clock.now = 1.0
    assert capsys.readouterr().err == "read: stopped, 1 lines, 1,000,000,000 lines/s in 0.0s\n"


def test_counter_in_units_of_its_own(clock, capsys):
    with progress.counter(1000, "train", "tokens") as advance:
        for _ in range(4):
            clock.now += 0.5
            advance(250)
    assert capsys.readouterr().err == "train: done, 1,000/1,000 tokens, 500 tokens/s in 2.0s\n"


def test_nothing_is_told_where_stderr_is_closed(monkeypatch, capsys):
    """print(file=None) would put it among the results."""
    monkeypatch.setattr(sys, "stderr", None)
    assert list(progress.track(range(3), 3, "train", "items")) == [0, 1, 2]
    progress.log("said to nobody")
    assert capsys.readouterr().out == ""


def test_bar_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    with progress.counter(2, "outer", "steps") as advance:
        progress.log("a [line] beside the bar")
        list(progress.track(range(3), 3, "inner", "items"))  # a second bar would fight for the cursor
        advance(2)
    shown = terminal.getvalue()
    assert "outer" in shown and "2/2 steps" in shown and "━" in shown
    assert "a [line] beside the bar" in shown and "inner: done, 3/3 items" in shown
    assert progress._bars == []


def test_a_bar_that_ends_by_an_error_is_taken_down(monkeypatch, capsys):
    with pytest.raises(RuntimeError), progress.counter(2, "broken", "steps"):
        raise RuntimeError
    assert "broken: stopped" in capsys.readouterr().err


@pytest.mark.parametrize(("seconds", "text"), [(4.24, "4.2s"), (65, "1m05s"), (7380, "2h03m")])
def test_duration(seconds, text):
    assert progress.duration(seconds) == text


def test_compilations_are_counted_by_name():
    progress.count_compilations()
    progress.count_compilations()  # twice must not count twice

    @jax.jit
    def a_rare_name(x):
        return x * 2

    before = progress.compilations()
    a_rare_name(np.float32(1))
    a_rare_name(np.float32(2))
    new = progress.compiled()[before:]
    assert [name for name, _ in new] == ["jit(a_rare_name)"] and new[0][1] > 0
    a_rare_name(np.ones(3, np.float32))
    assert progress.compilations() == before + 2
