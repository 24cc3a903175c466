"""Where results go, and what stands there already: one rule for every command.

The result of a job is made again, or left as it is, by the same job. That of another job is refused, unless --overwrite
says that it may go; then it goes when the new one is complete. `train` and `distill` resume and have their own check.
"""

import contextlib
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from seqkd_jax.types import UserError
from seqkd_jax.utils import exits, files, progress, temporary


def require_free(
    path: Path | None, overwrite: bool, config: Path | None = None, described: Any = None, option: str = "--out"
) -> None:
    """UserError if a file or a directory is there and is not of the job described; asked before anything is computed.

    config: where the job that left it wrote its settings; None: it wrote none. option: what names the path. Devices and
    pipes hold nothing.
    """
    from seqkd_jax.checkpoint import run_config

    if path is None or overwrite or not (path.is_file() or (path.is_dir() and any(path.iterdir()))):
        return
    remedy = f"name another with {option}, or replace it with --overwrite"
    if config is None:
        raise UserError(f"{path}: is there already; {remedy}")
    if not run_config.is_same_job(config, described):
        raise UserError(f"{path}: is the result of another job, or of other settings; {remedy}")


def write_directory(
    out: Path, overwrite: bool, holds: Sequence[str], write: Callable[[Path], Any], identity: Callable[[Path], str]
) -> Path:
    """`write` a directory; one that is there stays if it is the same. UserError if it is another, unless overwritten.

    holds: see files.require_replaceable. identity: what must be equal, such as the fingerprint of a checkpoint.
    """
    files.require_replaceable(out, holds)
    found = files.existing(out)
    if overwrite or not found.is_dir() or not any(found.iterdir()):
        write(out)
        return out
    with temporary.new_directory(out) as beside:
        write(beside / out.name)
        try:
            same = identity(beside / out.name) == identity(found)
        except UserError:  # it is damaged, or no result of this command
            same = False
    if not same:
        raise UserError(f"{out}: holds something else; name another with --out, or replace it with --overwrite")
    progress.log(f"{out}: is there already, the same")
    return out


@contextlib.contextmanager
def stream(path: Path | None) -> Iterator[io.TextIOBase]:
    """A stream of UTF-8 lines: a file that appears whole at the end, or standard output, line by line."""
    if path is not None:
        try:
            with files.new_file(path) as file:
                yield file
        except BaseException:
            if not path.exists() or path.is_file():  # no device or pipe
                progress.log(f"{path}: not written, it appears whole or not at all")
            raise
        return
    if sys.stdout is None:
        raise UserError("standard output is closed: name a file with --out")
    with files.naming(exits.OUTPUT):
        sys.stdout.flush()
        with open(sys.stdout.fileno(), "w", encoding="utf-8", newline="\n", buffering=1, closefd=False) as file:
            yield file
