"""The teacher's n-best lists of a whole corpus, in shards that are written atomically: a killed run resumes."""

import contextlib
import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from seqkd_jax import checkpoint
from seqkd_jax.config import Overlong
from seqkd_jax.decoding import Decoding, Translation, translate_lines
from seqkd_jax.types import Translator, UserError
from seqkd_jax.utils import files, progress, settings

FORMAT = 1  # of the shards


class Candidate(NamedTuple):
    """One hypothesis of an n-best list, as it stands in a shard. None: another toolkit did not say."""

    text: str
    score: float  # under the length rule, nats
    log_prob: float | None  # nats
    finished: bool
    tokens: int | None  # ids, EOS not counted


class NBest(NamedTuple):
    """The n-best lists of a corpus: their directory, and what they were made with."""

    directory: Path
    settings: dict  # for the card: all that decides their content, beside the lines
    identity: dict  # of the same, to compare
    shards: list[Sequence[str]]  # the source lines of each
    teacher: dict  # for the card: where the checkpoint was, its model
    decoding: Decoding
    shard_lines: int

    @property
    def sources(self) -> list[str]:
        """The source lines, in order."""
        return [line for shard in self.shards for line in shard]

    @property
    def card(self) -> dict:
        """What a card says of them: the teacher, and how it decoded."""
        rules = {key: self.settings[key] for key in ("search", "decoder", "source_buckets", "batch_tokens")}
        replica = {"replica": self.settings["replica"]} if "replica" in self.settings else {}
        teacher = {**self.teacher, "fingerprint": self.settings["checkpoint"], **replica}
        return {"teacher": teacher, "decoding": rules}

    def read(self) -> Iterator[list[Candidate]]:
        """See `read_n_best`."""
        return read_n_best(self)


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

    part (i, n): only every n-th shard from the i-th, so that n processes can share the work; the bytes are those of one
    process.
    """
    found = plan(directory, teacher, lines, decoding, shard_lines=shard_lines)
    make(found, teacher, part=part, name=name)
    return found


def plan(
    directory: Path | str,
    teacher: checkpoint.Checkpoint[Translator] | checkpoint.Ensemble,
    lines: Sequence[str],
    decoding: Decoding,
    *,
    shard_lines: int = 1000,
) -> NBest:
    """What `make` is to make; nothing is read or written."""
    decoding = replace(decoding, chunk=shard_lines)
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
    described = {"path": teacher.name, "model": teacher.config_json}
    return NBest(Path(directory), told, identity, shards, described, decoding, shard_lines)


def make(
    found: NBest,
    teacher: checkpoint.Checkpoint[Translator] | checkpoint.Ensemble,
    *,
    part: tuple[int, int] = (0, 1),
    name: str = "n-best",
    overlong: Overlong = "fail",
    other: Path | None = None,
) -> None:
    """Make the shards that are missing. part: see `n_best`. overlong: see `translate_lines`.

    A shard is trusted if its hash is the one written after it and its identity, a hash of the teacher's weights, the
    rules and the lines, is ours: any other is named and made again. other: a directory whose shards are taken where
    they are ours. However the work ends before its time, what is kept is said.
    """
    mine, todo = range(part[0], len(found.shards), part[1]), []
    for number in mine:
        data, reason = _checked(found, number)
        if data is None and not _taken(found, number, other):
            todo.append(number)
            if reason:
                progress.log(f"{_shard(found, number)}: {reason}; it is made again")
    if len(todo) < len(mine):
        progress.log(f"{name}: {len(mine) - len(todo)} of {len(mine)} shards need no decoding")
    total, left = (sum(len(found.shards[number]) for number in numbers) for numbers in (mine, todo))
    made = len(mine) - len(todo)
    try:
        with progress.counter(total, name, "sentences", done=total - left) as advance:
            for number in todo:
                lists = translate_lines(
                    teacher.system,
                    found.shards[number],
                    found.decoding,
                    progress=advance,
                    first=found.shard_lines * number,
                    overlong=overlong,
                )
                _write_shard(found, number, lists)
                made += 1
    except BaseException:  # whatever ends it: a signal, a full disk, an error
        kept = (
            f"{made} of {len(mine)} shards are complete and kept in {found.directory}: the same command continues there"
        )
        progress.log(f"{name}: stopped; {kept if made else 'no shard is complete'}")
        raise


def read_n_best(found: NBest) -> Iterator[list[Candidate]]:
    """The list of each line, in order, best first. UserError: a shard is missing, damaged or made otherwise."""
    for number in range(len(found.shards)):
        data, reason = _checked(found, number)
        if data is None:
            raise UserError(f"{_shard(found, number)}: {reason or 'missing'}; run `seqkd distill` again")
        for row in gzip.decompress(data).decode("utf-8").splitlines():
            yield [Candidate(**hypothesis) for hypothesis in json.loads(row)["hypotheses"]]


def foreign(found: NBest) -> bool:
    """Whether there is a shard in the directory that is not of these lists, as far as the files with hashes say."""
    for path in found.directory.glob("shard-[0-9]*.jsonl.json"):
        number = int(path.name[len("shard-") :].partition(".")[0])
        with contextlib.suppress(UserError):  # damaged: it is made again
            checksum = files.read_json(path)
            ours = number < len(found.shards) and isinstance(checksum, dict)
            if not ours or checksum.get("identity") != _identity(found, number):
                return True
    return False


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


def _checked(found: NBest, number: int) -> tuple[bytes | None, str]:
    """The content of a shard that can be trusted; or None and why not, "" if it was not made yet."""
    path = _shard(found, number)
    checksum_file = path.with_suffix(".json")
    files.require_file(path)
    try:
        data = path.read_bytes()
        checksum = files.read_json(checksum_file)
    except FileNotFoundError:
        return None, ""
    except UserError:  # it was killed before the hash was written, or that is damaged
        return None, f"damaged, its hash in {checksum_file.name} is missing or damaged"
    if not isinstance(checksum, dict) or checksum.get("sha256") != files.sha256_bytes(data):
        return None, f"damaged, it does not have the hash in {checksum_file.name}"
    written = {"identity": checksum.get("identity"), "sha256": checksum["sha256"], "lines": checksum.get("lines")}
    if files.read_bytes(checksum_file) != files.json_text(written).encode("utf-8"):
        return None, f"damaged, {checksum_file.name} is not as it was written"
    if (written["identity"], written["lines"]) != (_identity(found, number), len(found.shards[number])):
        return None, "of another teacher, other rules or other source lines"
    return data, ""


def _taken(found: NBest, number: int, other: Path | None) -> bool:
    """Copy a shard from another directory, if it is there and ours."""
    if other is None or _checked(found._replace(directory=other), number)[0] is None:
        return False
    for path in (_shard(found, number), _shard(found, number).with_suffix(".json")):
        files.write_bytes(path, (other / path.name).read_bytes())
    return True
