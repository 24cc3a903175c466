"""Places that are not local, through fsspec: read into a cache, and published as whole versions. Imports no jax.

A published directory has a form that an object store can replace at once:

  seqkd.json         the marker: of each file of the version its relative name and its SHA-256
  objects/<SHA-256>  the files

`publish` puts the objects that are new, then the marker, then removes those that only the version before named: a
writer that is killed anywhere leaves the old version or the new one. `local` reads the marker, here or in a directory
above, then the objects that it names, and compares each with its hash. A directory without a marker, such as one that
was copied there, is read as it is; its SHA256SUMS is checked by whoever reads it, as that of a local one.

Results that go to such a place are made in a local working directory, which stays; see `published`.
"""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from seqkd_jax.types import UserError
from seqkd_jax.utils import files, locks, progress, temporary
from seqkd_jax.utils.sums import sha256_file
from seqkd_jax.utils.untrusted import parse_json, require_form
from seqkd_jax.utils.urls import as_url, is_url

SETTING = "SEQKD_REMOTE"  # an environment variable: another directory for what is fetched, and for working directories
MARKER = "seqkd.json"
OBJECTS = "objects"
FORMAT = 1  # of the marker
ABOVE = 2  # directories above a place in which its marker may be, such as RUN of RUN/best
TRIES = 5  # to read one version while others are published
STORES = ("gs", "gcs", "s3", "s3a", "az", "abfs", "memory")  # a single object is replaced at once
PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "s3a": "s3fs", "az": "adlfs", "abfs": "adlfs"}
PACKAGES |= dict.fromkeys(("http", "https"), "aiohttp") | {"hf": "huggingface_hub"}


class Place(NamedTuple):
    """A place on a file system of fsspec."""

    system: Any
    path: str
    url: str


class Gone(Exception):
    """What a marker names is not there: another version has been published, or it is damaged."""


def local(path: Path | str) -> Path:
    """The path of a local copy of what a URL names, a directory or a file; a path that is local is returned as it is.

    UserError: there is no such place, it cannot be reached, a package is missing, or a file is damaged.
    """
    if not is_url(path):
        return Path(path)
    place = _place(as_url(path))
    for _ in range(TRIES):
        with _naming(place.url), contextlib.suppress(Gone):
            copy = _fetched(place)
            _copies[copy] = _copies[Path(place.url)] = place.url
            return copy
    raise UserError(f"{place.url}: a file that its {MARKER} names is missing or damaged; publish it again")


_copies: dict[Path, str] = {}  # local copy, and what pathlib makes of a URL -> the URL


def _fetched(place: Place) -> Path:
    """Fetch what is there, unless this version is in the cache."""
    wanted = _published_files(place) or _plain_files(place)
    version = files.sha256_json({name: known for name, (_, known, _) in wanted.items()})
    target = cache() / "fetched" / files.sha256_bytes(place.url.encode())[:16] / version[:16]
    while not locks.share(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.new_directory(target) as filled:
            _get(place, wanted, filled)
            try:
                os.rename(filled, target)
            except OSError:
                if not target.is_dir():  # else another process was faster
                    raise
        progress.log(f"{place.url}: {len(wanted):,} file{'s' * (len(wanted) != 1)} fetched to {target}")
        _remove_others(target)
    return target / next(iter(wanted)) if list(wanted) == [place.path.rpartition("/")[2]] else target


def _remove_others(target: Path) -> None:
    """Remove the copies of other versions that no process has read, and what killed processes left beside them."""
    temporary.clear_all(target.parent)
    for other in target.parent.iterdir():
        if other != target and re.fullmatch("[0-9a-f]{16}", other.name):
            with contextlib.suppress(OSError), locks.alone_with(other):
                temporary.dispose(other, other)


Wanted = dict[str, tuple[str, str, bool]]  # relative name -> where it is, what changes with it, is that its SHA-256?


def _get(place: Place, wanted: Wanted, into: Path) -> None:
    """Fetch files into a directory. Gone: one is missing, or does not have its hash."""
    for name, (where, known, is_hash) in wanted.items():
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            place.system.get_file(where, str(target))
        except FileNotFoundError:
            raise Gone from None
        if is_hash and sha256_file(target) != known:
            raise Gone


def _published_files(place: Place) -> Wanted:
    """The files of a published directory, or of a part of one; none if there is no marker."""
    base, inner = place.path, ""
    for _ in range(ABOVE + 1):
        if listed := _marker(place._replace(path=base)):
            prefix = f"{inner}/" if inner else ""
            found = {name.removeprefix(prefix): digest for name, digest in listed.items() if name.startswith(prefix)}
            if inner in listed:
                found = {inner.rpartition("/")[2]: listed[inner]}
            return {name: (f"{base}/{OBJECTS}/{digest}", digest, True) for name, digest in found.items()}
        base, _, last = base.rpartition("/")
        inner = f"{last}/{inner}".rstrip("/")
        if not base:
            break
    return {}


def _plain_files(place: Place) -> Wanted:
    """The files at a place that was not published. UserError if there is none."""
    system, path = place.system, place.path
    if system.isfile(path):
        return {path.rpartition("/")[2]: (path, str(system.ukey(path)), False)}
    listed = system.find(path, detail=True)
    found = {name[len(path) :].lstrip("/"): (name, repr(info), False) for name, info in listed.items()}
    if not found:
        raise UserError(f"{place.url}: there is no such file or directory")
    _require_names(found, place.url)
    return found


def _marker(place: Place) -> dict[str, str]:
    """Relative name -> SHA-256 of what is published at a place; empty if nothing is."""
    try:
        data = place.system.cat_file(f"{place.path}/{MARKER}")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return {}
    where, remedy = f"{place.url}, {MARKER}", "publish it again"
    try:
        value = parse_json(data)
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error}); {remedy}") from None
    listed = require_form(value, {"format": int, "files": {...: str}}, where, remedy)["files"]
    _require_names(listed, where)
    if not all(re.fullmatch("[0-9a-f]{64}", digest) for digest in listed.values()):
        raise UserError(f"{where}: damaged, it has what is no SHA-256; {remedy}")
    return listed


def _require_names(names: Any, where: str) -> None:
    """UserError for a relative name that leads out of a directory, or that no file here may have."""
    for name in names:
        if re.search(r"[\x00-\x1f\x7f\\]", name) or {"", ".", ".."} & set(name.split("/")):
            raise UserError(f"{where}: {name!r:.80} is not the name of a file in a directory")


def publish(directory: Path, url: str, noted: Path | None = None) -> str:
    """Put a directory to a place as its new version, at once and whole; returns what identifies the version.

    noted: a file that names what was put before the marker, so that the next publication from here removes what a
    killed one left.
    """
    place = _place(as_url(url))
    with _naming(place.url):
        before = _marker(place)
        listed = _content(directory)
        known = set(before.values())
        old = known | set(files.read_json(noted) if noted and noted.exists() else ())
        if noted and not known.issuperset(listed.values()):
            files.write_json(noted, sorted(old | set(listed.values())))
        for name, digest in listed.items():
            if digest not in known:
                place.system.put_file(str(directory / name), f"{place.path}/{OBJECTS}/{digest}")
                known.add(digest)
        if listed != before:
            marker = files.json_text({"format": FORMAT, "files": listed}).encode("utf-8")
            place.system.pipe_file(f"{place.path}/{MARKER}", marker)
        for digest in old - set(listed.values()):
            with contextlib.suppress(Exception):  # of any store; what is left harms nobody
                place.system.rm_file(f"{place.path}/{OBJECTS}/{digest}")
        if noted:
            files.remove(noted)
    return files.sha256_json(listed)


def _content(directory: Path) -> dict[str, str]:
    """Relative name -> SHA-256 of each file in a directory."""
    return {name: sha256_file(directory / name) for name in files.tree(directory)}


_working: dict[Path, tuple[str, Callable[[], None]]] = {}  # working directory -> its URL, and what publishes it


@contextlib.contextmanager
def published(url: str) -> Iterator[Path]:
    """The local working directory of results that go to a URL, where they are published when the block ends.

    It stays, so that the same command goes on there. If another machine has published since, its version is fetched
    first. UserError: a place where nothing can be replaced at once, or another process that works for it.
    """
    url = as_url(url)
    scheme = url.partition(":")[0]
    if scheme not in STORES:
        raise UserError(f"{url}: results can be published to {', '.join(STORES[:-1])}; name one, or a local directory")
    home = cache() / "work" / files.sha256_bytes(url.encode())[:16]
    directory, mark = home / (url.rpartition("/")[2] or "result"), home / "published.json"
    home.mkdir(parents=True, exist_ok=True)

    def busy() -> None:
        raise UserError(f"{url}: another process works for it, in {directory}; wait for it, or name another place")

    def save() -> None:
        files.write_json(mark, {"url": url, "version": publish(directory, url, home / "putting.json")})

    with locks.alone(home / ".lock", busy):
        _require_writable(_place(url))
        _bring_up_to_date(_place(url), directory, mark)
        progress.log(f"{url}: the work is done in {directory}, and published from there")
        _working[directory] = url, save
        try:
            with named():
                yield directory
                save()
        finally:
            del _working[directory]


def _require_writable(place: Place) -> None:
    """UserError, before hours of work, for a bucket that is not there or may not be written to."""
    probe = f"{place.path}/{OBJECTS}/probe"
    with _naming(place.url):
        place.system.pipe_file(probe, b"")
        with contextlib.suppress(Exception):  # of any store: who may write may be refused to remove
            place.system.rm_file(probe)


def _bring_up_to_date(place: Place, directory: Path, mark: Path) -> None:
    """Replace a working directory by what is published, if that is not what was published from here."""
    with _naming(place.url):
        listed = _marker(place)
        version = files.sha256_json(listed)
        if not listed or (mark.exists() and directory.exists() and files.read_json(mark).get("version") == version):
            return
        if directory.exists() and _content(directory) == listed:  # killed between the publication and the mark
            files.write_json(mark, {"url": place.url, "version": version})
            return
        wanted = {name: (f"{place.path}/{OBJECTS}/{digest}", digest, True) for name, digest in listed.items()}
        with temporary.new_directory(directory) as filled:
            try:
                _get(place, wanted, filled)
            except Gone:
                raise UserError(f"{place.url}: is being replaced, or is damaged; give the command again") from None
            files.remove(directory)
            os.rename(filled, directory)
    files.write_json(mark, {"url": place.url, "version": version})
    progress.log(f"{place.url}: what is published there was fetched to {directory}")


def saved(directory: Path) -> None:
    """Publish a working directory now; nothing for another. An error is told, and does not end the work."""
    if directory in _working:
        url, save = _working[directory]
        try:
            save()
        except UserError as error:
            progress.log(f"{error}; the next save is published again")


def given(text: Path | str) -> str:
    """A path, or a message with paths, as the user calls them: what is in a working directory or a copy, by its URL."""
    text = str(text)
    for directory, url in [*_copies.items(), *((directory, url) for directory, (url, _) in _working.items())]:
        own = re.escape(str(directory)) + r"(?![\w.-])"  # n-best lists beside a working directory are not at the URL
        text = re.sub(own, lambda _, url=url: url, text)
    return text


@contextlib.contextmanager
def named() -> Iterator[None]:
    """Have errors name places as the user does; see `given`."""
    try:
        yield
    except UserError as error:
        error.args = tuple(given(str(line)) for line in error.args)
        raise


def cache() -> Path:
    """The directory of what is fetched and of working directories: SEQKD_REMOTE, or one in the user's cache."""
    if setting := os.environ.get(SETTING):
        return Path(setting).expanduser().absolute()
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not root.is_absolute():
        root = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return root / "seqkd_jax" / "remote"


def require_known(url: str) -> None:
    """UserError, before anything is read or made, for a scheme that is unknown, or whose package is not installed."""
    _place(as_url(url))


def _place(url: str) -> Place:
    """A place, through fsspec. UserError: an unknown scheme, or a package that is not installed."""
    from fsspec.core import url_to_fs  # imported late: only who names a URL pays for it

    scheme = url.partition(":")[0]
    if scheme == "file":
        raise UserError(f"{url}: is on this machine; name its path, {url.removeprefix('file://')}")
    try:
        system, path = url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        package = PACKAGES.get(scheme, " ".join(str(error).split()))
        raise UserError(f"{url}: needs a package that is not installed: pip install {package}") from None
    except ValueError:
        raise UserError(f"{url}: there is no scheme {scheme}; known are {', '.join(sorted(PACKAGES))}") from None
    except OSError as error:  # some connect at once
        raise UserError(f"{url}: {_reason(error)}") from None
    return Place(system, str(path).rstrip("/"), url)


@contextlib.contextmanager
def _naming(url: str) -> Iterator[None]:
    """Have the errors of file systems, which have no common base, name the place in one line."""
    try:
        yield
    except (UserError, Gone, MemoryError):
        raise
    except Exception as error:
        raise UserError(f"{url}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"{reason}; see whether it is right and can be reached"
