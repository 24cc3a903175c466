"""Damage done to directories: by accident, which SHA256SUMS tells, and on purpose, with a SHA256SUMS that fits."""

import json

from seqkd_jax.utils import files

KINDS = ("flip", "cut", "empty", "append", "remove")


def damage(path, kind, draw):
    """One kind of damage to a file, at a place that `draw` (numpy's Generator) chooses."""
    data = path.read_bytes()
    if kind == "remove" or not data:
        path.unlink()
    elif kind == "flip":
        place = draw.integers(len(data))
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << draw.integers(8))]) + data[place + 1 :])
    else:
        path.write_bytes({"cut": data[: draw.integers(len(data))], "empty": b"", "append": data + b"\n"}[kind])


VALUES = (None, True, -1, 10**12, 2**63, 1e308, "", "x", [], {}, [1], {"a": 1}, "../../etc/passwd", "\0", "a\nb")


def damage_some(directory, draw):
    """Damage to one of the files of a directory: a kind of KINDS, or another value at a place in its JSON."""
    paths = [directory / name for name in files.tree(directory) if name not in (files.SUMS, "README.md")]
    path = paths[draw.integers(len(paths))]
    if path.suffix != ".json" or draw.random() < 0.6:
        damage(path, KINDS[draw.integers(len(KINDS))], draw)
        return
    value = json.loads(path.read_text())
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = keys[draw.integers(len(keys))]
    inner = value[key]
    if isinstance(inner, dict) and inner and draw.random() < 0.7:
        inner[list(inner)[draw.integers(len(inner))]] = VALUES[draw.integers(len(VALUES))]
    else:
        value[key] = VALUES[draw.integers(len(VALUES))]
    path.write_text(json.dumps(value))


def reseal(directory):
    """A SHA256SUMS that fits what is in the directory now, as somebody who changed it on purpose would write it."""
    names = [name for name in files.tree(directory) if name != files.SUMS]
    lines = [f"{files.sha256_file(directory / name)}  {name}\n" for name in names]
    (directory / files.SUMS).write_text("".join(lines))


def edit(directory, change, name="checkpoint.json"):
    """Change the JSON object in a file, on purpose."""
    value = json.loads((directory / name).read_text())
    change(value)
    (directory / name).write_text(json.dumps(value))
    reseal(directory)


def as_before(directory, name="checkpoint.json"):
    """As a version before 0.3.0 wrote the directory: without hashes."""
    edit(directory, lambda value: value.pop("sha256sums"), name)
    (directory / files.SUMS).unlink()
