"""A full disk behind standard output or error, and too little memory, are one line and exit status 2."""

import errno
import io
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from seqkd_jax.cli import main
from seqkd_jax.types import UserError
from seqkd_jax.utils import exits

FULL = "error: standard output: No space left on device; free some space and give the same command again\n"


def python(code, shell, **environment):
    """Run code in a process that imports little, with a redirection or limit of the shell."""
    command = f"ulimit -c 0; {shell.format('exec ' + sys.executable + ' -c ' + chr(34) + '$0' + chr(34))}"
    return subprocess.run(
        ["bash", "-c", command, code], capture_output=True, text=True, timeout=100, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("run", ["exits.say('out/best') or 0", "exits.say('line' * 10**6) or 0"])
def test_a_full_standard_output_is_one_line(run, unbuffered):
    code = f"import sys; from seqkd_jax.utils import exits; sys.exit(exits.exit_status(lambda: {run}))"
    done = python(code, "{} > /dev/full", PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (2, FULL)


def test_lines_that_are_translated_into_a_full_disk_are_one_line():
    code = """if True:
        import sys
        from seqkd_jax.cli import outputs
        from seqkd_jax.utils import exits
        def run():
            with outputs.stream(None) as stream:
                stream.writelines(f'line {i}\\n' for i in range(3))
            return 0
        sys.exit(exits.exit_status(run))"""
    done = python(code, "{} > /dev/full")
    assert (done.returncode, done.stderr) == (2, FULL)


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["train", "--help"]])
def test_help_into_a_full_disk_is_one_line(arguments):
    done = python(f"from seqkd_jax.cli import main; main.main({arguments})", "{} > /dev/full")
    assert (done.returncode, done.stderr) == (2, f"seqkd: {FULL}")


@pytest.mark.parametrize("arguments", [["vocab", "--size", "9"], ["vocab", "--vocab.size", "x", "--out", "y"]])
def test_wrong_arguments_are_one_line_whatever_the_locale(monkeypatch, capfd, arguments):
    """The box that tyro draws has other lines where standard output is not UTF-8, as in a cron job."""
    told = []
    for encoding in ("utf-8", "ascii"):
        output = io.TextIOWrapper(io.BytesIO(), encoding)
        output.fileno = lambda: 1
        monkeypatch.setattr(sys, "stdout", output)
        with pytest.raises(SystemExit):
            main.main(arguments)
        told.append(capfd.readouterr().err)
    assert told[0] == told[1] and told[0].count("\n") == 1 and "--" * 5 not in told[0], told


def test_a_full_standard_error_keeps_the_exit_status():
    code = "import sys; from seqkd_jax.utils import exits; sys.exit(exits.exit_status(lambda: open('absent')))"
    assert python(code, "{} 2> /dev/full").returncode == 2
    done = python(code, "{} 2>&-")
    assert (done.returncode, done.stdout) == (2, ""), "not into the data"


SHORT = {
    "numpy": (lambda: np.zeros(2**50), "Unable to allocate 8.00 PiB"),
    "XLA": (lambda: jnp.zeros(2**44).block_until_ready(), "RESOURCE_EXHAUSTED: Out of memory allocating"),
    "Python": (lambda: (_ for _ in ()).throw(MemoryError()), "out of memory; "),
    "a thread": (lambda: (_ for _ in ()).throw(RuntimeError("can't start new thread")), "can't start new thread"),
    "the system": (lambda: (_ for _ in ()).throw(OSError(errno.ENOMEM, "Cannot allocate memory")), "Cannot allocate"),
}


@pytest.mark.parametrize("of", SHORT)
@pytest.mark.parametrize(
    "command, remedy", [("train", "lower --batch.tokens"), ("translate", "--batch-tokens or --beam")]
)
def test_too_little_memory_is_one_line(monkeypatch, capfd, of, command, remedy):
    work, said = SHORT[of]
    monkeypatch.setattr(main, "_parse", lambda *_: None)
    monkeypatch.setattr(main, "_run", lambda _: work())
    with pytest.raises(SystemExit) as caught:
        main.main([command])
    told = capfd.readouterr().err
    assert caught.value.code == 2 and told.count("\n") == 1 and told.startswith("seqkd: error: out of memory")
    assert said in told and remedy in told


def test_another_error_of_the_runtime_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="our bug"):
        exits.exit_status(lambda: (_ for _ in ()).throw(RuntimeError("our bug")))


def test_a_limited_address_space_is_one_line():
    """JAX's threads would end the process: `terminate called after throwing an instance of 'std::system_error'`."""
    done = python(
        "from seqkd_jax.cli import main; main.main(['translate', '--checkpoint', 'x'])", "ulimit -v 900000; {}"
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "seqkd: error: the address space of this process is limited to 0.9 GiB" in done.stderr


@pytest.mark.parametrize("gib, warns", [(np.inf, False), (1000, False), (2.5, True)])
def test_more_address_space_is_a_warning_or_nothing(monkeypatch, capfd, gib, warns):
    limit = exits.resource.RLIM_INFINITY if gib == np.inf else int(gib * 2**30)
    monkeypatch.setattr(exits.resource, "getrlimit", lambda _: (limit, limit))
    monkeypatch.setattr(exits.os, "sched_getaffinity", lambda _: {0, 1})
    exits.require_address_space()
    assert capfd.readouterr().err.count("warning: ") == warns
    monkeypatch.setattr(exits.os, "sched_getaffinity", lambda _: range(64))
    if gib == 2.5:
        with pytest.raises(UserError, match="JAX takes 17.2 GiB"):
            exits.require_address_space()


STOPPED = """
import signal, sys, time
from seqkd_jax.utils import exits

def replaced():
    try:
        signal.raise_signal(signal.NUMBER)
    except BaseException:
        raise RuntimeError("of a package") from None

def imported():
    import stopped_inside
    time.sleep(10)

class Finalised:
    def __del__(self):
        signal.raise_signal(signal.NUMBER)

def dropped():
    Finalised()
    time.sleep(10)

sys.exit(exits.exit_status(WHERE))
"""
# An extension module prints a traceback and makes an ImportError of it.
INSIDE = "import signal\ntry: signal.raise_signal(signal.NUMBER)\nexcept BaseException: print('traceback')\n"


@pytest.mark.parametrize("where", ["replaced", "imported", "dropped"])
@pytest.mark.parametrize(
    "number, status, line", [("SIGTERM", 143, "stopped by SIGTERM"), ("SIGINT", 130, "interrupted")]
)
def test_a_signal_is_one_line_whatever_a_package_makes_of_it(tmp_path, number, status, line, where):
    (tmp_path / "stopped_inside.py").write_text(INSIDE.replace("NUMBER", number))
    code = STOPPED.replace("NUMBER", number).replace("WHERE", where)
    paths = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}
    )
    assert (done.returncode, done.stdout, done.stderr) == (status, "", f"error: {line}\n")


def test_a_hook_that_was_added_meanwhile_stays(monkeypatch):
    """Such as that of `checkpoint.arrays`, which leaves out what tensorstore reports after an error."""
    told = []
    before = told.append
    monkeypatch.setattr(sys, "unraisablehook", before)

    def run():
        inner = sys.unraisablehook
        sys.unraisablehook = added = lambda what: inner(what)
        run.added = added
        return 0

    handlers = [signal.getsignal(number) for number in exits.STOPS]
    assert exits.exit_status(run) == 0 and sys.unraisablehook is run.added
    assert [signal.getsignal(number) for number in exits.STOPS] == handlers, "a handler outlives its command"
    left = SimpleNamespace(exc_type=KeyboardInterrupt)
    sys.unraisablehook(left)
    assert told == [left], "what is no longer stopped for goes to the hook that was there before"
    monkeypatch.setattr(sys, "unraisablehook", before)
    assert exits.exit_status(lambda: 0) == 0 and sys.unraisablehook is before
