"""A fixed teacher's most probable entries at every label, computed once, in files that several runs share.

A directory holds what is known of one teacher on one corpus. description.json says of which. A shard is of SHARD
sentences: a line of JSON with the SHA-256 of what follows, and an array over their labels. It is written whole or not
at all, so after a kill the same command makes what is missing; a damaged one is made again. One process makes them,
others wait. They are read from the files as they are needed, not kept in memory.
"""

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from seqkd_jax import losses
from seqkd_jax.data.batches import Encoded, Plan, eval_batches, fingerprint, labels_of
from seqkd_jax.losses import blockwise
from seqkd_jax.training.teacher_cache import members, model_of
from seqkd_jax.training.train_step import Teacher
from seqkd_jax.types import Model, Translator, UserError
from seqkd_jax.utils import files, integrity, locks, programs, progress, temporary
from seqkd_jax.utils.untrusted import parse_json

NAME = "teacher-top-k"
DESCRIPTION = "description.json"
FORMAT = 1
SHARD = 4096  # sentences
HEADER = 128  # bytes of a shard's line
REMEDY = "delete the directory, or name another one"


class Of(NamedTuple):
    """What is kept, and of which teacher."""

    teacher: str  # fingerprint of its checkpoint
    k: int
    temperature: float


class _Shard(NamedTuple):
    path: Path
    first: int  # sentence
    last: int  # the sentence after its last
    shape: tuple[int, ...]  # [labels], or [labels,R] of one teacher a replica
    kind: np.dtype  # with the fields of a TopK
    entries: int  # V


def with_top_k(directory: Path, teacher: Teacher, of: Of, encoded: Encoded, plan: Plan, name: str) -> Encoded:
    """The corpus with the teacher's most probable entries beside it, [T] a sentence; of one teacher a replica [T,R].

    They are read from `directory`, where those that are missing are made. UserError: it holds something else.
    """
    ends = np.cumsum([0, *labels_of(encoded)])
    shards = _shards(directory, teacher, of.k, encoded, plan, ends)
    with _held(directory):
        _require_own(directory, _description(of, encoded, shards[0]))
        found = [_read(shard) for shard in shards]
        done = sum(shard.last - shard.first for shard, array in zip(shards, found, strict=True) if array is not None)
        if done < len(encoded.targets):
            what = f"{name}: teacher's top {of.k}"
            with progress.counter(len(encoded.targets), what, "sentences", done=done) as advance:
                for number, shard in enumerate(shards):
                    if found[number] is None:
                        found[number] = _write(shard, _made(shard, teacher, of, encoded, plan))
                        advance(shard.last - shard.first)
    arrays = [array for array in found if array is not None]
    labels, size = int(ends[-1]), sum(array.nbytes for array in arrays)
    kept = 1 - sum(float(np.sum(array["probabilities"][..., -1], dtype=np.float64)) for array in arrays) / sum(
        array.size for array in arrays
    )
    progress.log(
        f"{name}: the teacher's {of.k} most probable entries at {labels:,} labels, {kept:.2%} of its mass, are "
        f"{size / 2**20:,.1f} MiB in {directory}"
    )
    return encoded._replace(
        teacher_features=[
            array[ends[row] - ends[shard.first] : ends[row + 1] - ends[shard.first]]
            for shard, array in zip(shards, arrays, strict=True)
            for row in range(shard.first, shard.last)
        ]
    )


@contextlib.contextmanager
def _held(directory: Path) -> Iterator[None]:
    """The directory, made if it is missing, for this process alone; waits while another one makes it."""
    holds = [".lock", DESCRIPTION]  # the lock comes first, but may be missing in a copy
    if not (directory / ".lock").exists():
        holds.reverse()
    files.require_replaceable(directory, (*holds, "shard-*", ".*.new"))
    directory.mkdir(parents=True, exist_ok=True)

    def busy() -> None:
        progress.log(f"{directory}: another process makes the teacher's entries; waiting for it")

    with files.naming(directory), locks.alone(directory / ".lock", busy):
        temporary.clear_all(directory)
        yield


def _shards(directory: Path, teacher: Teacher, k: int, encoded: Encoded, plan: Plan, ends: np.ndarray) -> list[_Shard]:
    params = members(teacher)[0]
    _, batch = next(eval_batches(encoded, plan))
    features = jax.eval_shape(model_of(teacher).features, params, batch.inputs, None)
    entries = jax.eval_shape(model_of(teacher).head, params, features).shape[-1]
    kind = entries_type(k, entries)
    each = (len(members(teacher)),) * teacher.each
    bounds = [*range(0, len(encoded.targets), SHARD), len(encoded.targets)]
    return [
        _Shard(directory / f"shard-{number:05}", first, last, (int(ends[last] - ends[first]), *each), kind, entries)
        for number, (first, last) in enumerate(pairwise(bounds))
    ]


def entries_type(k: int, entries: int) -> np.dtype:
    """What is kept of one label: k of so many entries."""
    ids = "<u2" if entries <= 2**16 else "<i4"
    return np.dtype([("entries", ids, (k,)), ("probabilities", "<f4", (k + 1,))])


def _description(of: Of, encoded: Encoded, shard: _Shard) -> dict:
    """What decides the content of the files."""
    return {
        "format": FORMAT,
        **of._asdict(),
        "corpus": fingerprint(encoded),
        "replicas": list(shard.shape[1:]),
        "shard": SHARD,
    }


def _require_own(directory: Path, description: dict) -> None:
    """Write the description, or compare it with the one that is there; UserError: they differ, or it is damaged."""
    path = directory / DESCRIPTION
    if not path.exists():
        if any(directory.glob("shard-*")):
            raise UserError(f"{path}: is missing; {REMEDY}")
        files.write_json(path, integrity.signed(description))
        return
    found = integrity.read_object(path, FORMAT, {integrity.SIGNATURE: str}, REMEDY)
    if not integrity.unchanged(path, found):
        raise UserError(f"{path}: damaged; {REMEDY}")
    differing = [name for name, value in description.items() if found.get(name) != value]
    if differing:
        raise UserError(f"{directory}: was made with another {', '.join(differing)}; {REMEDY}")


def _made(shard: _Shard, teacher: Teacher, of: Of, encoded: Encoded, plan: Plan) -> np.ndarray:
    """The array of a shard, computed."""
    rows = slice(shard.first, shard.last)
    part = Encoded(encoded.sources[rows], encoded.targets[rows], encoded.weights[rows], form=encoded.form)
    ends = np.cumsum([0, *labels_of(part)])
    compute, params = compiled_top_k(model_of(teacher), of.k), jax.device_put(members(teacher))
    made = np.zeros(shard.shape, shard.kind)
    for sentences, batch in eval_batches(part, plan._replace(buckets=plan.buckets[rows])):
        of_each = [compute(own, batch.inputs, np.float32(of.temperature)) for own in params]
        for field in shard.kind.names or ():
            arrays = [np.asarray(getattr(top_k, field)) for top_k in of_each]
            array = np.stack(arrays, axis=2) if teacher.each else arrays[0]
            for place, row in enumerate(sentences):
                made[field][ends[row] : ends[row + 1]] = array[place, : ends[row + 1] - ends[row]]
    return made


@functools.cache
def compiled_top_k(model: Model | Translator, k: int) -> Callable:
    """(params, inputs, temperature) -> TopK at every position of a batch, of a model without dropout."""

    def kept(params, inputs, temperature):
        features = model.features(params, inputs, None)
        return blockwise.mapped(model.head, lambda logits: losses.top_k(logits, k, temperature), params, features)

    return programs.announced(
        jax.jit(kept), lambda _, inputs, temperature: f"the teacher's top {k} for {programs.shapes(inputs)}"
    )


def _write(shard: _Shard, array: np.ndarray) -> np.ndarray:
    """Write a shard; returns the array as it is read."""
    data = array.tobytes()
    header = json.dumps({integrity.SIGNATURE: hashlib.sha256(data).hexdigest()}).encode()
    files.write_bytes(shard.path, header.ljust(HEADER - 1) + b"\n" + data)
    return _mapped(shard)


def _read(shard: _Shard) -> np.ndarray | None:
    """The array of a shard, if its file is there, and to the byte what was written."""
    path, size = shard.path, HEADER + shard.kind.itemsize * int(np.prod(shard.shape))
    files.require_file(path)
    if not path.exists():
        return None
    with path.open("rb") as file:
        try:
            header: Any = parse_json(file.read(HEADER))
        except ValueError:
            header = None
        whole = isinstance(header, dict) and path.stat().st_size == size
        whole = whole and header.get(integrity.SIGNATURE) == hashlib.file_digest(file, "sha256").hexdigest()
    array = _mapped(shard) if whole else None
    if array is None or not array["entries"].max(initial=0) < shard.entries or array["entries"].min(initial=0) < 0:
        progress.log(f"{path}: damaged; it is made again")
        return None
    return array


def _mapped(shard: _Shard) -> np.ndarray:
    return np.memmap(shard.path, shard.kind, "r", HEADER, shard.shape)
