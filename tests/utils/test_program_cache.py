"""Compiled programs are kept: a second process compiles nothing, and nothing about the cache can fail or falsify a job.

Each test has a cache of its own, in a directory of its own; JAX's settings are put back afterwards.
"""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from commands import seqkd
from jax.experimental.compilation_cache import compilation_cache
from updates import MODEL, save

from seqkd_jax.utils import program_cache, programs

CHANGED = ("compilation_cache_dir", "persistent_cache_min_compile_time_secs", "persistent_cache_enable_xla_caches")
CHANGED += ("compilation_cache_max_size", "enable_compilation_cache")


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """The root of a cache that no job has used."""
    from jax._src import cache_key
    from jax._src import compilation_cache as internal

    before = {f"jax_{name}": getattr(jax.config, f"jax_{name}") for name in CHANGED}
    monkeypatch.setattr(internal, "get_file_cache", internal.get_file_cache)
    name = "_hash_serialized_compile_options"
    monkeypatch.setattr(cache_key, name, getattr(cache_key, name))
    monkeypatch.setenv(program_cache.SETTING, str(tmp_path / "programs"))
    jax.config.update("jax_compilation_cache_dir", None)
    forget()
    programs.count()
    yield tmp_path / "programs"
    for name, value in before.items():
        jax.config.update(name, value)
    forget()


def forget():
    """As in another process: no program is in memory."""
    compilation_cache.reset_cache()
    jax.clear_caches()


@jax.jit
def program(x):
    return jax.numpy.tanh(x @ x).sum(axis=0)


def run(scale=1.0):
    """Its result, and whether each program was loaded that was built for it."""
    before = len(programs.built())
    found = np.asarray(program((scale * np.arange(144, dtype=np.float32)).reshape(12, 12) / 100))
    return found, [one.loaded for one in programs.built()[before:] if one.name == "jit(program)"]


def files_of(cache):
    return sorted(cache.glob("*/*.program"))


def test_what_was_compiled_once_is_loaded_and_gives_the_same_bits(cache):
    program_cache.keep()
    compiled, loaded = run()
    assert loaded == [False] and files_of(cache)
    forget()
    again, loaded = run()
    assert loaded == [True]
    assert again.tobytes() == compiled.tobytes()


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "foreign"])
def test_a_damaged_program_is_compiled_again_and_replaced(cache, damage):
    program_cache.keep()
    compiled, _ = run()
    for path in files_of(cache):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 32
        path.write_bytes({"flipped": data, "cut": data[:99], "empty": b"", "foreign": b"\x80\x04." * 99}[damage])
    forget()
    again, loaded = run()
    assert loaded == [False] and again.tobytes() == compiled.tobytes()
    forget()
    assert run()[1] == [True], "the damaged file is gone for good"


def test_the_user_s_own_cache_is_left_alone(cache, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    program_cache.keep()
    run()
    assert not cache.exists() and jax.config.jax_compilation_cache_dir == str(tmp_path / "own")
    assert jax.config.jax_persistent_cache_min_compile_time_secs == before


@pytest.mark.parametrize("how", ["none", "disabled", "no room at all"])
def test_it_can_be_switched_off(cache, monkeypatch, how):
    if how == "none":
        monkeypatch.setenv(program_cache.SETTING, "none")
    elif how == "disabled":
        jax.config.update("jax_enable_compilation_cache", False)
    else:
        jax.config.update("jax_compilation_cache_max_size", 0)
    program_cache.keep()
    run()
    assert not cache.exists() and jax.config.jax_compilation_cache_dir is None


def test_the_place_is_the_user_s_cache_directory(monkeypatch, tmp_path):
    monkeypatch.delenv(program_cache.SETTING)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert program_cache.place() == tmp_path / "seqkd_jax" / "programs"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the standard
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert program_cache.place() == tmp_path / ".cache" / "seqkd_jax" / "programs"


def test_another_cpu_or_version_has_a_directory_of_its_own(monkeypatch):
    here = program_cache._machine("0.10.2", "0.10.2")
    assert here == program_cache._machine("0.10.2", "0.10.2") != program_cache._machine("0.10.2", "0.10.3")
    monkeypatch.setattr(program_cache, "_cpu", lambda: ["flags : fpu sse2"])
    assert program_cache._machine("0.10.2", "0.10.2") != here


def test_it_is_bounded_and_the_least_recently_used_go(tmp_path):
    kept = program_cache._Programs(tmp_path / "new", 1000)
    old = tmp_path / "old" / f"z{program_cache.SUFFIX}"
    for directory in (old.parent, kept.directory):
        directory.mkdir()
    old.write_bytes(bytes(400))  # of an older version
    other = old.with_name("notes.txt")
    other.write_bytes(bytes(10_000))
    for number, key in enumerate("abc"):
        kept.put(key, bytes(168))
        os.utime(kept._file(key), (number, number))
    os.utime(old, (-1, -1))
    assert kept.get("a") == bytes(168)  # the clock says now: it was used
    kept.put("d", bytes(268))
    assert not old.exists() and kept.get("b") is not None and other.exists(), "what is not a program is not ours"
    kept.put("e", bytes(268))
    assert [key for key in "abcde" if kept.get(key)] == ["b", "d", "e"], "c was never used, then a"
    kept.put("f", bytes(2000))
    assert kept.get("f") is None, "there is no room for it, whatever goes"


def test_a_full_disk_is_said_once_and_fails_nothing(cache, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(program_cache._Programs, "_write", full)
    program_cache.keep()
    found, loaded = run()
    run(2.0)
    assert loaded == [False] and np.isfinite(found).all()
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"compiled programs are not kept: {cache}") and "No space left" in said
    assert said.endswith("name another directory in SEQKD_COMPILED_PROGRAMS, or none")


@pytest.mark.parametrize("fault", ["a file", "open to others"])
def test_a_directory_that_cannot_be_used_is_said_and_left(cache, capsys, fault):
    if fault == "a file":
        cache.write_text("notes")
    else:
        program_cache.keep()
        (directory,) = cache.iterdir()
        assert directory.stat().st_mode & 0o077 == 0
        directory.chmod(0o777)
        jax.config.update("jax_compilation_cache_dir", None)
    for _ in range(2):  # the command, and its job
        program_cache.keep()
    assert jax.config.jax_compilation_cache_dir is None
    (said,) = capsys.readouterr().err.splitlines()
    assert str(cache) in said and ("others can write there" in said or fault == "a file")


def test_a_machine_that_refuses_its_programs_stops_asking(cache, capsys):
    """XLA does so on some CPUs, with a line of its own for each program."""
    kept = program_cache._Programs(cache / "here", 10**6)
    kept.directory.mkdir(parents=True)
    for key in "abc":
        kept.put(key, b"program")
        assert kept.get(key)
        kept._file(key).unlink()  # another process needed room
        assert kept.get(key) is None
    for key in "abc":
        kept.put(key, b"program")
        assert kept.get(key)
        kept.put(key, b"program")  # as JAX does after it could not load what it got
    assert kept.get("a") is None and (kept.directory / program_cache.REFUSED).exists()
    assert "XLA does not load them again on this machine" in capsys.readouterr().err


def test_importing_changes_nothing():
    code = "import seqkd_jax.api, jax; print(jax.config.jax_compilation_cache_dir)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None"]


def test_the_second_translate_compiles_nothing(cache, tmp_path, capfd):
    """In another process, with the same bytes."""
    draw = np.random.default_rng(0)
    shapes = jax.eval_shape(MODEL.init, jax.eval_shape(lambda: jax.random.key(0)))
    params = jax.tree.map(lambda leaf: draw.normal(size=leaf.shape).astype(np.float32), shapes)
    save(tmp_path / "model", params, metadata={})
    (tmp_path / "input").write_text("w1 w2\nw3 w4 w5\n")
    arguments = ["translate", str(tmp_path / "input"), "--checkpoint", str(tmp_path / "model")]
    arguments += ["--decoder", "greedy", "--beam", "1", "--max-length-a", "0", "--max-length-b", "4"]
    assert seqkd(*arguments, "--out", tmp_path / "first") == 0
    assert "none of them" not in capfd.readouterr().err.splitlines()[-1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION")}
    environment["PYTHONPATH"] = str(Path(__file__).parent.parent.parent)
    command = [sys.executable, "-m", "seqkd_jax", *arguments, "--out", str(tmp_path / "second")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1].endswith(" programs, none of them compiled"), done.stderr
    assert (tmp_path / "second").read_bytes() == (tmp_path / "first").read_bytes()


def test_a_jax_without_that_private_function_keeps_nothing_and_fails_nothing(cache, monkeypatch, capfd):
    from jax._src import compilation_cache as internal

    monkeypatch.delattr(internal, "get_file_cache")
    program_cache.keep()
    assert run()[1] == [False]
    assert "takes no other cache; set JAX_COMPILATION_CACHE_DIR" in capfd.readouterr().err
    assert not files_of(cache)


def test_a_program_is_compiled_for_one_device_and_loaded_by_the_others(cache):
    program_cache.keep()
    before = len(programs.built())
    given = np.arange(49, dtype=np.float32).reshape(7, 7) / 100
    found = [np.asarray(program(jax.device_put(given, device))) for device in jax.local_devices()]
    built = [one.loaded for one in programs.built()[before:] if one.name == "jit(program)"]
    assert built == [False, *[True] * (len(found) - 1)]
    assert all((one == found[0]).all() for one in found)
