"""The quiet log is quiet, the bar is a bar, and what stands between the units is named and in no rate."""

import io
import subprocess
import sys
import threading

import pytest

from seqkd_jax.utils import progress

LATER = progress._later  # conftest puts one in its place that says nothing


class Clock:
    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.fixture
def waiting(monkeypatch):
    """What the quiet log would say, and after how many seconds; no thread waits for it."""
    waiting = []
    monkeypatch.setattr(progress, "_later", lambda seconds, said: waiting.append((seconds, said)) or (lambda: None))
    return waiting


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    return terminal


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
    assert capsys.readouterr().err == "read: stopped, 1 lines in 0.0s\n", "in no time there is no rate"


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


def test_bar_on_a_terminal(monkeypatch, terminal):
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.counter(2, "outer", "steps") as advance:
        progress.log("a [line] beside the bar")
        list(progress.track(range(3), 3, "inner", "items"))  # a second bar would fight for the cursor
        advance(2)
    shown = terminal.getvalue()
    assert "outer" in shown and "2/2 steps" in shown and "━" in shown
    assert "a [line] beside the bar" in shown and "inner: done, 3/3 items" in shown
    assert progress._bars == [] and progress._running == []


def train(clock, total=1000, done=0, validate_every=0):
    """A counter whose units take 2 s, after 15 minutes of compiling; yields after each unit."""
    with progress.counter(total, "train", "updates", done=done) as advance:
        for unit in range(total - done):
            if unit == 0:
                with progress.phase("compiling the training step for 32 x 20", compiling=True):
                    clock.now += 900.0
            clock.now += 2.0
            advance(1)
            if validate_every and unit % validate_every == validate_every - 1:
                with progress.phase("validating"):
                    clock.now += 10.0
            yield


def lines_of(capsys):
    return capsys.readouterr().err.splitlines()


def test_compiling_is_in_no_estimate(clock, waiting, capsys):
    """It said 16h04m left while the first program of a run of half an hour was compiled."""
    running = train(clock)
    next(running)
    first = lines_of(capsys)
    assert first == ["train: 1/1,000 updates, 0.50 updates/s, 33m18s left"], "999 updates of 2 s"
    list(running)
    assert lines_of(capsys)[-1].endswith("1,000/1,000 updates, 0.50 updates/s in 48m20s, 15m00s of it for programs")


def test_validating_is_in_the_time_left_but_in_no_rate(monkeypatch, clock, waiting, capsys):
    monkeypatch.setattr(progress, "LOG_EVERY", 0.0)
    list(train(clock, validate_every=10))
    *lines, _ = lines_of(capsys)
    assert lines[500] == "train: 501/1,000 updates, 0.50 updates/s, 24m56s left", "3 s each, all in all"


def test_the_rate_is_the_present_one(clock, capsys):
    """What was slow an hour ago does not decide what is left."""
    with progress.counter(10_000, "translate", "sentences") as advance:
        for seconds in [36.0] * 100 + [1.0] * 600:
            clock.now += seconds
            advance(1)
    *_, present, end = lines_of(capsys)
    assert present == "translate: 700/10,000 sentences, 1.00 sentences/s, 2h35m left"
    assert end == "translate: done, 700/10,000 sentences, 0.17 sentences/s in 1h10m"


def test_after_resuming_it_counts_from_where_it_was(clock, waiting, capsys):
    list(train(clock, total=1000, done=900))
    first, *_, last = lines_of(capsys)
    assert first == "train: 901/1,000 updates, 0.50 updates/s, 3m18s left", "the rate is of this process"
    assert last.startswith("train: done, 1,000/1,000 updates, 0.50 updates/s in 18m20s")


def test_what_lasts_is_named_in_the_log(clock, waiting, capsys):
    """And what is quick is not: a log of sixty programs would be noise."""
    list(train(clock, total=1, validate_every=1))
    compiling, validating = waiting
    assert compiling == (progress.SAID_AFTER, "train: compiling the training step for 32 x 20 …")
    assert validating == (progress.LOG_EVERY, "train: validating …")
    with progress.phase("compiling the search for width 16", compiling=True):
        pass
    assert waiting[-1] == (progress.SAID_AFTER, "compiling the search for width 16 …"), "without a counter too"


def test_a_phase_that_lasts_is_logged_once_and_a_quick_one_not(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_later", LATER)
    monkeypatch.setattr(progress, "SAID_AFTER", 0.0)
    said = threading.Event()
    monkeypatch.setattr(progress, "log", lambda message: (print(message, file=sys.stderr), said.set()))
    with progress.phase("compiling it", compiling=True):
        assert said.wait(10)
    with progress.phase("validating"):
        pass
    assert lines_of(capsys) == ["compiling it …"]


def test_phases_are_named_at_the_bar(monkeypatch, terminal, clock):
    monkeypatch.setattr(sys, "stderr", terminal)
    list(train(clock, total=3, validate_every=3))
    shown = terminal.getvalue()
    assert "0/3 updates, compiling the training step for 32 x 20 …" in shown
    assert "3/3 updates, validating …" in shown
    assert "3/3 updates, 0.50 updates/s in 15m16s, 15m00s of it for programs" in shown
    assert "-:--" not in shown


def test_a_counter_inside_another_is_a_phase_of_it(clock, capsys):
    """Of the teacher's features, say, which training reads before its first update."""
    with progress.counter(10, "train", "updates") as advance:
        with progress.counter(5, "features", "sentences") as inner:
            clock.now += 500.0
            inner(5)
        for _ in range(5):
            clock.now += 10.0
            advance(1)
    assert lines_of(capsys)[0] == "features: 5/5 sentences, 0.01 sentences/s, 0.0s left"


def test_a_bar_that_ends_by_an_error_is_taken_down(monkeypatch, capsys):
    with pytest.raises(RuntimeError), progress.counter(2, "broken", "steps"):
        raise RuntimeError
    assert "broken: stopped" in capsys.readouterr().err


@pytest.mark.parametrize(("seconds", "text"), [(4.24, "4.2s"), (65, "1m05s"), (7380, "2h03m")])
def test_duration(seconds, text):
    assert progress.duration(seconds) == text


@pytest.mark.parametrize("stderr", ["2> /dev/full", "2>&1 | true"])
def test_a_job_goes_on_though_nobody_can_read_what_it_says(stderr, tmp_path):
    code = "from seqkd_jax.utils import progress\nfor n in range(999): progress.log('said')\nopen('done', 'w').close()"
    subprocess.run(["sh", "-c", f'"$0" -c "$1" {stderr}', sys.executable, code], cwd=tmp_path, check=True)
    assert (tmp_path / "done").exists()
