"""Names of places that are not local, SCHEME://..., and how they are told from paths. Imports no jax."""

import os
import re
from pathlib import Path

from seqkd_jax.types import UserError

FORM = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)  # pathlib leaves one slash; a drive is one letter


def is_url(path: Path | str | None) -> bool:
    """Whether a path has a scheme, such as gs://bucket/run: it is never taken for a local one."""
    return path is not None and FORM.fullmatch(os.fspath(path)) is not None


def as_url(path: Path | str) -> str:
    """A URL with the two slashes of which pathlib drops one; file:// has three."""
    match = FORM.fullmatch(os.fspath(path))
    assert match is not None, path
    scheme, rest = match.groups()
    return f"{scheme.lower()}://{'/' * (scheme.lower() == 'file')}{rest.rstrip('/')}"


def shown(path: Path | str) -> str:
    """A path or a URL as the user writes it, with the slash that pathlib drops."""
    return as_url(path) if is_url(path) else str(path)


def require_local(path: Path | str | None, what: str = "a path") -> None:
    """UserError for a URL where only what is local will do. what: what is wanted there."""
    if path is not None and is_url(path):
        raise UserError(
            f"{as_url(path)}: is not local, and {what} must be; name a local one, and copy from or to there"
        )
