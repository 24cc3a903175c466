"""Compiled programs that are kept between processes: JAX's compilation cache, in the user's cache directory.

JAX finds a program by a hash of its code (so another version of ours finds its own), its options and its version. The
directory adds what is missing there: the instructions of this CPU. A file holds the hash of its content and gets its
name when it is whole, so that processes share the directory without a lock, and a damaged program is compiled again.
The least recently used go when there is no room. Whoever can write into the directory can run code: it is the user's
own, and not used if others may write.
"""

import contextlib
import functools
import hashlib
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from seqkd_jax.utils import progress
from seqkd_jax.utils.files import describe_error

SETTING = "SEQKD_COMPILED_PROGRAMS"  # an environment variable: another directory, or none
MOST = 2**30  # bytes, unless jax_compilation_cache_max_size is set
SUFFIX = ".program"
MOST_REFUSED = 3
REFUSED = "refused"  # a file: XLA loads no program on this machine
SHA256 = 32  # bytes


def keep() -> None:
    """Keep compiled programs from now on, and use those that are there. Each job calls it before it compiles.

    A compilation cache that the user has configured for JAX stays as it is, and so does one that is switched off. What
    cannot be used is said in one line, and everything is compiled.
    """
    import jax  # imported late: only who computes pays for it
    from jaxlib import version

    setting = functools.partial(getattr, jax.config)
    most = setting("jax_compilation_cache_max_size")
    if setting("jax_compilation_cache_dir") is not None or not setting("jax_enable_compilation_cache") or most == 0:
        return
    root = place()
    if root is None:
        return
    directory = root / _machine(jax.__version__, version.__version__)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
    except OSError as error:
        _say(describe_error(error))
        return
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        _say(f"{directory}: others can write there")
        return
    if (directory / REFUSED).exists():
        return
    _install(_Programs(directory, MOST if most < 0 else most))


def place() -> Path | None:
    """The directory of kept programs, of all versions; None: they are not kept."""
    setting = os.environ.get(SETTING, "")
    if setting == "none":
        return None
    if setting:
        return Path(setting).expanduser().absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():
        try:
            cache = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
        except RuntimeError:  # a user without a home
            return None
    return cache / "seqkd_jax" / "programs"


def _machine(*versions: str) -> str:
    """The name of a directory whose programs this machine can run."""
    described = [platform.machine(), *versions, *_cpu()]
    return f"jax-{versions[0]}-{hashlib.sha256(repr(described).encode()).hexdigest()[:16]}"


def _cpu() -> list[str]:
    """What decides the code that is generated for this CPU: its model and its instructions."""
    decides = ("vendor_id", "cpu family", "model", "stepping", "flags", "Features", "CPU ")
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux: no two machines share programs
        return [platform.platform(), platform.processor(), platform.node()]
    return sorted({line for line in lines if line.startswith(decides)})


def _install(programs: "_Programs") -> None:
    """Make JAX read and write these programs. It has no public way to name a cache other than its own."""
    import jax

    try:
        from jax._src import cache_key, compilation_cache

        jax_s_own = compilation_cache.get_file_cache
        of_options = cache_key._hash_serialized_compile_options
    except (ImportError, AttributeError):  # what is not public may change
        _say(f"JAX {jax.__version__} takes no other cache", "set JAX_COMPILATION_CACHE_DIR for its own")
        return

    def of_any_device(digest, options, **_) -> object:
        return of_options(digest, options, strip_device_assignment=True)  # as JAX does for GPUs

    # A program of one device is loaded by the others, which otherwise would compile it again.
    cache_key._hash_serialized_compile_options = of_any_device
    path = str(programs.directory)
    compilation_cache.get_file_cache = lambda other: (programs, path) if other == path else jax_s_own(other)
    jax.config.update("jax_compilation_cache_dir", path)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")  # files beside the programs, without a bound


@functools.cache  # once in a process: each job calls keep
def _say(why: str, remedy: str = f"name another directory in {SETTING}, or none") -> None:
    progress.log(f"compiled programs are not kept: {why}; {remedy}")


class _File(NamedTuple):
    used: float  # when, by the clock of the file system
    size: int
    path: Path


class _Programs:
    """What JAX asks of a cache: `get` and `put`. No error of the file system leaves it."""

    def __init__(self, directory: Path, most: int):
        self.directory = self._path = directory
        self.most = most
        self.size: int | None = None  # bytes of all versions; None: not looked at
        self.works = True
        self.given: set[str] = set()  # keys whose program was found when it was last asked for
        self.refused = 0

    def get(self, key: str) -> bytes | None:
        """The program of this key, compressed as JAX has it; None if it is not there or damaged."""
        path = self._file(key)
        self.given.discard(key)
        if self.refused >= MOST_REFUSED:
            return None
        try:
            data = path.read_bytes()
            value = data[SHA256:]
            if hashlib.sha256(value).digest() != data[:SHA256]:
                path.unlink(missing_ok=True)
                return None
        except OSError:  # most often it is not there
            return None
        with contextlib.suppress(OSError):  # a directory that can only be read
            os.utime(path)
        self.given.add(key)
        return value

    def put(self, key: str, value: bytes) -> None:
        """Keep a program."""
        if key in self.given:  # it was loaded, and XLA did not take it
            self._note_refused()
        if not self.works or len(value) > self.most:
            return
        try:
            if self.size is None:
                self.size = sum(file.size for file in self._files())
            self.size += SHA256 + len(value)
            if self.size > self.most:
                self._make_room(SHA256 + len(value))
            self._write(self._file(key), hashlib.sha256(value).digest() + value)
        except OSError as error:
            self.works = False
            _say(f"{self.directory}: {error.strerror or error}")

    def _file(self, key: str) -> Path:
        return self.directory / f"{key}{SUFFIX}"

    def _write(self, path: Path, data: bytes) -> None:
        number, name = tempfile.mkstemp(SUFFIX, ".new-", self.directory)
        try:
            with open(number, "wb") as file:
                file.write(data)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _files(self) -> list[_File]:
        """The programs of all versions, those that were used least recently first."""
        found = []
        for path in self.directory.parent.glob(f"*/*{SUFFIX}"):
            try:
                status = path.lstat()
            except OSError:  # another process has removed it
                continue
            found.append(_File(status.st_mtime, status.st_size, path))
        return sorted(found)

    def _make_room(self, needed: int) -> None:
        """Remove programs until a tenth is free beside what is needed."""
        files = self._files()
        size = sum(file.size for file in files) + needed
        for file in files:
            if size <= 0.9 * self.most:
                break
            file.path.unlink(missing_ok=True)
            size -= file.size
        self.size = size

    def _note_refused(self) -> None:
        """On some CPUs XLA refuses what it has compiled on the very machine (openxla/xla, issue 44565)."""
        self.refused += 1
        if self.refused == MOST_REFUSED:
            self.works = False
            with contextlib.suppress(OSError):
                (self.directory / REFUSED).touch()
            _say("XLA does not load them again on this machine", f"remove {self.directory / REFUSED} to try it again")
