"""Lines of text files, compressed or not: every file of the user's is read through `read_lines`.

gzip, bzip2, xz and Zstandard are known by the first bytes, and are read as streams. Text is UTF-8, and what is not is
an error that names file, line and a command that converts it.
"""

import bz2
import contextlib
import gzip
import io
import json
import lzma
import re
import shlex
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from seqkd_jax.types import UserError
from seqkd_jax.utils import remote

STDIN = "standard input"
LONGEST = 1 << 24  # bytes of a line; a longer one is no sentence, and would fill the memory


class Codec(NamedTuple):
    """A form of compression."""

    name: str
    suffix: str
    begins: re.Pattern  # the first bytes
    stream: Callable[[io.BufferedReader], Any]  # compressed -> a stream of what it holds
    command: str  # that writes what it holds to standard output


class _Members(io.RawIOBase):
    """What the members of a bzip2 or xz file hold, one after the other.

    The files of the standard library end without a word at a member whose beginning is damaged.
    """

    def __init__(self, stream: io.BufferedReader, new: Callable[[], Any]):
        self._stream, self._new, self._member = stream, new, None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            member, packed = self._member, b""
            if member is None or member.eof:
                packed = (member and member.unused_data) or self._stream.read(1 << 16)
                if not packed:
                    return 0
                packed = packed.lstrip(b"\0")  # which may stand between members, to fill up
                member = self._member = self._new() if packed else None
                if member is None:
                    continue
            elif member.needs_input and not (packed := self._stream.read(1 << 16)):
                raise EOFError("it ends before its end mark")
            found = member.decompress(packed, len(buffer))
            if found:
                buffer[: len(found)] = found
                return len(found)


def _bzip2(stream: io.BufferedReader) -> Any:
    return _Members(stream, bz2.BZ2Decompressor)


def _xz(stream: io.BufferedReader) -> Any:
    return _Members(stream, lzma.LZMADecompressor)


def _zstd(stream: io.BufferedReader) -> Any:
    import pyarrow  # imported late: it is slow; the standard library has Zstandard from Python 3.14 on

    return pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, mode="r"), "zstd")


CODECS = (
    Codec("gzip", ".gz", re.compile(rb"\x1f\x8b"), lambda stream: gzip.GzipFile(fileobj=stream), "gzip -dc"),
    Codec("bzip2", ".bz2", re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), _bzip2, "bzip2 -dc"),
    Codec("xz", ".xz", re.compile(rb"\xfd7zXZ\x00"), _xz, "xz -dc"),
    Codec("Zstandard", ".zst", re.compile(rb"(?s)\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), _zstd, "zstd -dc"),
)
SUFFIXES = ("", *(codec.suffix for codec in CODECS))  # that a text file may have behind its own
# By their first bytes; the marks of UTF-32 before those of UTF-16, with which they begin
ENCODINGS = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
ARCHIVES = {b"PK\x03\x04": "a ZIP archive", b"7z\xbc\xaf\x27\x1c": "a 7z archive", b"PAR1": "a Parquet file"}


def find(path: Path) -> Path | None:
    """The text file of this name, or a compressed one with a suffix behind it; None if there is none."""
    candidates = (path.with_name(path.name + suffix) for suffix in SUFFIXES)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def uncompressed(path: Path) -> Path:
    """The name without the suffix of a compression."""
    return path.with_suffix("") if path.suffix in SUFFIXES else path


def read_lines(path: Path | str) -> Iterator[str]:
    """The lines of a file, or of standard input ("-"), compressed or not, one at a time.

    Only a line feed ends a line, so that U+2028 and similar characters cannot misalign the two sides; a carriage
    return before it is removed. A file may begin with a byte order mark.
    UserError: no such file, a damaged archive, a line that is not UTF-8, holds a NUL or more than LONGEST bytes.
    """
    name = STDIN if str(path) == "-" else str(path)
    codec, number, beyond_ascii = None, 0, False
    try:
        with _opened(path) as raw:
            codec = _codec(raw.peek(16), name)
            stream = io.BufferedReader(codec.stream(raw)) if codec else raw
            for number, line in enumerate(iter(partial(stream.readline, LONGEST + 1), b""), 1):
                try:
                    text = line.decode("utf-8")
                    wrong = b"\0" in line or len(line) > LONGEST
                except UnicodeDecodeError as error:
                    text, wrong = "", error
                if wrong:
                    reason, convert = _defect(line, number, wrong, beyond_ascii)
                    remedy = f": {_command(convert, name, codec)}" if convert else ""
                    raise UserError(f"{name}, line {number}: {reason}{remedy}")
                beyond_ascii = beyond_ascii or not line.isascii()
                if number == 1 and text.startswith("\ufeff"):
                    text = text[1:]
                    if not text:
                        return  # the mark alone is no line
                yield text.removesuffix("\n").removesuffix("\r")
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"{name}: {error.strerror}") from None
        packed = codec.name if codec else "text"
        raise UserError(f"{name}: no whole {packed} file, after line {number}: {error}; copy it again") from None


def json_object(line: str, where: str, keys: str) -> dict:
    """The JSON object in a line. UserError for anything else. keys: what it must hold, for the message."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON: {error.msg}, column {error.colno}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
        raise UserError(f"{where}: not JSON that can be read: {error}") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: not a JSON object with {keys}")
    return row


def whole_characters(text: str, where: str) -> str:
    """The text, which JSON may have given half a character: then a UserError, since no file of text can hold that."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError(f"{where} holds half a character (a lone surrogate, \\ud800 to \\udfff)")
    return text


@contextlib.contextmanager
def _opened(path: Path | str) -> Iterator[io.BufferedReader]:
    """The bytes of a file, or of standard input, which stays open."""
    if "\0" in str(path):
        raise UserError(f"{str(path)!r}: no name of a file, it holds a NUL")
    if str(path) != "-":
        with open(remote.local(path), "rb") as stream:
            yield stream
        return
    if sys.stdin is None:
        raise UserError("standard input is closed; give a file name")
    stream: Any = sys.stdin.buffer
    yield stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)


def _codec(first: bytes, name: str) -> Codec | None:
    """The compression of what begins so; None for none. UserError if the name says that there is one."""
    found = next((codec for codec in CODECS if codec.begins.match(first)), None)
    named = next((codec for codec in CODECS if name.endswith(codec.suffix)), None)
    if named and not found:
        raise UserError(
            f"{name}: does not begin as a {named.name} file; copy it again, or drop {named.suffix} from its name"
        )
    return found


def _defect(line: bytes, number: int, error: UnicodeDecodeError | bool, beyond_ascii: bool) -> tuple[str, str]:
    """What is wrong with a line, and the command that converts the file (empty: none does)."""
    if number == 1:
        archive = next((kind for mark, kind in ARCHIVES.items() if line.startswith(mark)), None)
        if archive:
            return f"is {archive}, expected text; unpack it", ""
        encoding = next((name for mark, name in ENCODINGS.items() if line.startswith(mark)), None)
        # Latin letters in UTF-16 without a mark: of each two bytes one is 0.
        encoding = encoding or ("UTF-16LE" if re.match(rb"([^\0]\0){2}", line) else None)
        encoding = encoding or ("UTF-16BE" if re.match(rb"(\0[^\0]){2}", line) else None)
        if encoding:
            return f"is {encoding}, not UTF-8; convert it", f"iconv -f {encoding} -t UTF-8"
    if len(line) > LONGEST:
        return f"is longer than {LONGEST:,} bytes; give a text with one sentence a line", ""
    if not isinstance(error, UnicodeDecodeError):
        return "holds a NUL byte, which no text does; drop such bytes", r"tr -d '\000'"
    found = f"not UTF-8: byte {error.start + 1} of the line is 0x{line[error.start]:02x}"
    if beyond_ascii:
        return f"{found}, though lines before it are UTF-8; drop such bytes", "iconv -c -f UTF-8 -t UTF-8"
    latin = "WINDOWS-1252" if re.search(rb"[\x80-\x9f]", line) else "ISO-8859-1"
    return f"{found}; convert it, if it is Latin-1 (else see iconv -l)", f"iconv -f {latin} -t UTF-8"


def _command(convert: str, name: str, codec: Codec | None) -> str:
    """What to type to convert a file."""
    if name == STDIN:
        return f"`… | {convert} | seqkd …`"
    plain = uncompressed(Path(name)) if codec else Path(name)
    new = shlex.quote(str(plain.with_name(f"{plain.stem}.utf8{plain.suffix}")))  # the suffix says what it holds
    old = shlex.quote(name)
    return f"`{codec.command} {old} | {convert} > {new}`" if codec else f"`{convert} < {old} > {new}`"
