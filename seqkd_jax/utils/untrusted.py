"""What stands in files is data, and may be anything: JSON within bounds, names that are no paths. Imports no jax.

A file may be damaged, or made to do harm. What it holds is checked before it is used: `parse_json` and `inside`.
"""

import json
import math
from pathlib import Path
from typing import Any

from seqkd_jax.types import UserError

MOST_BYTES = 1 << 28  # of a JSON file; the largest of ours are n-best lists and outputs of some megabytes
MOST_DEPTH = 64  # of lists and objects in each other
MOST_NAME = 255  # bytes of a file's name, as file systems have it


def parse_json(data: bytes) -> Any:
    """A JSON value of UTF-8 text. ValueError for what we never write and what other code could stumble over.

    These are: NaN and infinities, integers of more than 64 bits, keys that stand twice, half characters (lone
    surrogates), and lists and objects in more than MOST_DEPTH of each other.
    """
    if len(data) > MOST_BYTES:
        raise ValueError(f"{len(data):,} bytes, more than {MOST_BYTES:,}")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
    except RecursionError:
        raise ValueError("lists and objects in too many of each other") from None
    todo = [(value, 1)]
    while todo:
        inner, depth = todo.pop()
        if isinstance(inner, dict | list):
            if depth > MOST_DEPTH:
                raise ValueError(f"lists and objects in more than {MOST_DEPTH} of each other")
            held = [*inner.keys(), *inner.values()] if isinstance(inner, dict) else inner
            todo.extend((item, depth + 1) for item in held)
        elif isinstance(inner, str):
            inner.encode("utf-8")  # UnicodeEncodeError is a ValueError
        elif isinstance(inner, float) and not math.isfinite(inner):
            raise ValueError("a number that is not finite")
        elif isinstance(inner, int) and abs(inner) >= 1 << 64:
            raise ValueError("an integer of more than 64 bits")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in made if names.count(name) > 1)
        raise ValueError(f"the key {twice[:40]!r} stands twice")
    return made


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def inside(directory: Path, name: Any, named_in: Path | str) -> Path:
    """The path of a file of this name in a directory. UserError, which names the file `named_in` where the name stands,
    for a name that is no bare one: a path, empty, of more than 255 bytes, one that begins with a dot, or with a
    character that cannot be printed.
    """
    bare = isinstance(name, str) and 0 < len(name.encode("utf-8", "replace")) <= MOST_NAME
    if not bare or name[0] == "." or not name.isprintable() or set(name) & set("/\\"):
        raise UserError(f"{named_in}: {shown(name)} is not the bare name of a file; names inside files are never paths")
    return directory / name


def require_form(value: Any, form: Any, path: Path | str, remedy: str) -> Any:
    """The value. UserError, naming the file, the place in it and the remedy, if it is not of this form.

    form: a type, or a tuple of types, of a value (an int is a float, a bool is neither); [form]: a list of any number
    of those; [form, form]: a list of just these; {"name": form}: an object that has these keys, "name?" if it need not,
    and any others; {...: form}: an object of any keys.
    """
    if reason := _misfit(value, form, ""):
        raise UserError(f"{path}: damaged, {reason}; {remedy}")
    return value


def _misfit(value: Any, form: Any, name: str) -> str:
    """Why a value is not of a form; "" if it is."""
    if isinstance(form, dict) and isinstance(value, dict):
        lacking = [key for key in form if key is not ... and key[-1] != "?" and key not in value]
        if lacking:
            return f"{name or 'it'} lacks {', '.join(lacking)}"
        forms = {key: form[...] for key in value} if ... in form else {key.removesuffix("?"): form[key] for key in form}
        inner = (_misfit(value[key], forms[key], f"{name}.{key}".lstrip(".")) for key in forms if key in value)
        return next(filter(None, inner), "")
    if isinstance(form, list) and isinstance(value, list) and len(form) in (1, len(value)):
        inner = (_misfit(item, form[place % len(form)], f"{name}[{place}]") for place, item in enumerate(value))
        return next(filter(None, inner), "")
    kinds = form if isinstance(form, tuple) else (form,)
    if not isinstance(form, dict | list) and _is_any(value, kinds):
        return ""
    words = {dict: "an object", list: "a list"}.get(type(form)) or " or ".join(KINDS[kind] for kind in kinds)
    return f"{name or 'it'} is {shown(value)}: it must be {words}"


KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}
KINDS |= {dict: "an object", list: "a list"}


def _is_any(value: Any, kinds: tuple) -> bool:
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, kinds) or (isinstance(value, int) and float in kinds)


def printable(text: str) -> str:
    """A text as one line of a terminal: a line break is a space, another character that cannot be printed its escape.

    Text out of a file could otherwise move the cursor, and write over what was said before.
    """
    line = " ".join(text.splitlines())
    return "".join(one if one.isprintable() or one.isspace() else ascii(one)[1:-1] for one in line)


def shown(value: Any) -> str:
    """A value of any length, on one line of at most 100 characters."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
