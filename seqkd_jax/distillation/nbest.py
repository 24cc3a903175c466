"""The teacher's n-best lists of a whole corpus, in shards that are written atomically: a killed run resumes."""

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from seqkd_jax import checkpoint
from seqkd_jax.decoding import Decoding, Translation, translate_lines
from seqkd_jax.types import Translator, UserError
from seqkd_jax.utils import files, progress, settings

FORMAT = 1  # of the shards


class NBest(NamedTuple):
    """The n-best lists of a corpus: their directory, and what they were made with."""

    directory: Path
    settings: dict  # for the card: all that decides their content, beside the lines
    identity: dict  # of the same, to compare
    shards: list[Sequence[str]]  # the source lines of each
    teacher: dict  # for the card: where the checkpoint was, its model


class Candidate(NamedTuple):
    """One hypothesis as it stands in a shard."""

    text: str
    score: float  # under the length rule, nats
    log_prob: float  # nats
    finished: bool
    tokens: int  # ids, EOS not counted


def n_best(
    directory: Path | str,
    teacher: checkpoint.Checkpoint[Translator] | checkpoint.Ensemble,
    lines: Sequence[str],
    decoding: Decoding,
    *,
    shard_lines: int = 1000,
    part: tuple[int, int] = (0, 1),
    name: str = "n-best",
) -> NBest:
    """The teacher's n-best lists of source lines, in `directory`; called again, it makes only the missing shards.

    A shard is trusted if its hash is the one written after it and its identity, a hash of the teacher's weights, the
    rules and the lines, is ours: a truncated or foreign shard is made again. part (i, n): only every n-th shard from
    the i-th, so that n processes can share the work; the bytes are those of one process.
    """
    decoding, system = replace(decoding, chunk=shard_lines), teacher.system
    decoding.validate(lambda name: "shard_lines" if name == "chunk" else name)
    made = {
        "format": FORMAT,
        "checkpoint": teacher.fingerprint,  # of the weights that decode, not of what is there now
        **({} if teacher.replica is None else {"replica": teacher.replica}),
    }
    identity = {**made, "decoding": settings.identity(replace(decoding, chunk=Decoding.chunk))}
    told = {
        **made,
        "search": settings.to_json(decoding.search),
        "decoder": decoding.decoder,
        "source_buckets": list(decoding.source_buckets),
        "batch_tokens": decoding.batch_tokens,
    }
    shards = [lines[start : start + shard_lines] for start in range(0, len(lines), shard_lines)]
    found = NBest(Path(directory), told, identity, shards, {"path": teacher.name, "model": teacher.config_json})
    mine = range(part[0], len(shards), part[1])
    todo = [number for number in mine if _whole(found, number) is None]
    if len(todo) < len(shards):
        progress.log(f"{name}: {len(shards) - len(todo)} of {len(shards)} shards need no decoding")
    total, left = (sum(len(shards[number]) for number in part) for part in (mine, todo))
    with progress.counter(total, name, "sentences", done=total - left) as advance:
        for number in todo:
            first = shard_lines * number
            lists = translate_lines(system, shards[number], decoding, progress=advance, first=first)
            _write_shard(found, number, lists)
    return found


def read_n_best(found: NBest) -> Iterator[list[Candidate]]:
    """The list of each line, in order, best first. UserError: a shard is missing, damaged or made otherwise."""
    for number in range(len(found.shards)):
        data = _whole(found, number)
        if data is None:
            raise UserError(
                f"{_shard(found, number)}: missing, damaged or made with other settings; run `seqkd distill` again"
            )
        for row in gzip.decompress(data).decode("utf-8").splitlines():
            yield [Candidate(**hypothesis) for hypothesis in json.loads(row)["hypotheses"]]


def _shard(found: NBest, number: int) -> Path:
    return found.directory / f"shard-{number:05d}.jsonl.gz"


def _identity(found: NBest, number: int) -> str:
    first = len(found.shards[0]) * number
    return files.sha256_json([found.identity, first, list(found.shards[number])])


def _write_shard(found: NBest, number: int, lists: Iterator[Translation]) -> None:
    """Write the shard, then the file with its hash: a kill between the two leaves a shard that is made again."""
    rows = []
    for source, hypotheses in lists:
        candidates = [
            Candidate(files.one_line(h.text), h.score, h.log_prob, h.finished, len(h.tokens)) for h in hypotheses
        ]
        row = {"source": source, "hypotheses": [candidate._asdict() for candidate in candidates]}
        rows.append(json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n")  # ASCII: no other line breaks in it
    data = gzip.compress("".join(rows).encode("utf-8"), mtime=0)
    checksum = {"identity": _identity(found, number), "sha256": files.sha256_bytes(data), "lines": len(rows)}
    files.write_bytes(_shard(found, number), data)
    files.write_json(_shard(found, number).with_suffix(".json"), checksum)


def _whole(found: NBest, number: int) -> bytes | None:
    """The content of a shard that can be trusted, or None."""
    path = _shard(found, number)
    try:
        data = path.read_bytes()
        checksum = files.read_json(path.with_suffix(".json"))
    except (FileNotFoundError, UserError):
        return None
    lines = len(found.shards[number])
    expected = {"identity": _identity(found, number), "sha256": files.sha256_bytes(data), "lines": lines}
    return data if checksum == expected else None
