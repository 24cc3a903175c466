"""The teacher's n-best lists of a whole corpus, in shards that are written atomically and read back only whole.

A shard is a gzipped file of JSON lines, and a file with its hash and its identity, which is a hash of all that decides
its content: the teacher's weights, the rules, the lines, and the number of the first (samples are drawn by it).
"""

import contextlib
import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from seqkd_jax import checkpoint
from seqkd_jax.config import Overlong
from seqkd_jax.decoding import Decoding, Translation, translate_lines
from seqkd_jax.types import Translator, UserError
from seqkd_jax.utils import files, settings

FORMAT = 1  # of the shards
SAMPLE = "sample"  # the decoder whose results depend on a line's number


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
        given = {name: self.settings[name] for name in ("replica", "compute") if name in self.settings}
        teacher = {**self.teacher, "fingerprint": self.settings["checkpoint"], **given}
        return {"teacher": teacher, "decoding": rules}

    def read(self) -> Iterator[list[Candidate]]:
        """See `read_n_best`."""
        return read_n_best(self)


def plan(
    directory: Path | str,
    teacher: checkpoint.Checkpoint[Translator] | checkpoint.Ensemble,
    lines: Sequence[str],
    decoding: Decoding,
    *,
    shard_lines: int = 1000,
) -> NBest:
    """What `ledger.make` is to make; nothing is read or written."""
    decoding = replace(decoding, chunk=shard_lines)
    decoding.validate(lambda name: "shard_lines" if name == "chunk" else name)
    made_by = teacher.fingerprint, teacher.replica, teacher.compute  # the weights that decode, not what is there now
    made = _made_by(*made_by)
    told = {
        **made,
        "search": settings.to_json(decoding.search),
        "decoder": decoding.decoder,
        "source_buckets": list(decoding.source_buckets),
        "batch_tokens": decoding.batch_tokens,
    }
    shards = [lines[start : start + shard_lines] for start in range(0, len(lines), shard_lines)]
    described = {"path": teacher.name, "model": teacher.config_json}
    identity = identity_of(*made_by, decoding)
    return NBest(Path(directory), told, identity, shards, described, decoding, shard_lines)


def _made_by(fingerprint: str, replica: int | None, compute: str | None) -> dict:
    given = {"replica": replica, "compute": compute}
    given = {name: value for name, value in given.items() if value is not None}
    return {"format": FORMAT, "checkpoint": fingerprint, **given}


def identity_of(fingerprint: str, replica: int | None, compute: str | None, decoding: Decoding) -> dict:
    """What identifies n-best lists, beside their lines: the teacher and its rules, not how the work is split.

    fingerprint: of the teacher's weights. replica: which seed of a checkpoint of several; None: it holds one. compute:
    in place of the teacher's own; None: that.
    """
    rules = replace(decoding, chunk=Decoding.chunk, devices=Decoding.devices)
    return {**_made_by(fingerprint, replica, compute), "decoding": settings.identity(rules)}


def read_n_best(found: NBest) -> Iterator[list[Candidate]]:
    """The list of each line, in order, best first. UserError: a shard is missing, damaged or made otherwise."""
    for number in range(len(found.shards)):
        data, reason = checked(found, number)
        if data is None:
            raise UserError(f"{shard_file(found, number)}: {reason or 'missing'}; run `seqkd distill` again")
        for row in rows_of(data):
            yield [Candidate(**hypothesis) for hypothesis in json.loads(row)["hypotheses"]]


def foreign(found: NBest) -> bool:
    """Whether there is a shard in the directory that is not of these lists, as far as the files with hashes say."""
    for path in found.directory.glob("shard-[0-9]*.jsonl.json"):
        number = number_of(path)
        with contextlib.suppress(UserError):  # damaged: it is made again
            checksum = files.read_json(path)
            ours = number < len(found.shards) and isinstance(checksum, dict)
            if not ours or checksum.get("identity") != _identity(found, number):
                return True
    return False


def shard_file(found: NBest, number: int) -> Path:
    """Where a shard is, or is to be."""
    return found.directory / f"shard-{number:05d}.jsonl.gz"


def shard_files(directory: Path) -> list[Path]:
    """The shards in a directory, whole or not, in order."""
    return sorted(directory.glob("shard-[0-9]*.jsonl.gz"), key=number_of)


def number_of(path: Path) -> int:
    """The number of a shard, by the name of one of its files."""
    return int(path.name.removeprefix("shard-").partition(".")[0])


def rows_of(data: bytes) -> list[str]:
    """The JSON lines of a shard, without their ends."""
    return gzip.decompress(data).decode("utf-8").splitlines()


def decoded(
    found: NBest,
    teacher: checkpoint.Checkpoint[Translator] | checkpoint.Ensemble,
    number: int,
    places: Sequence[int],
    progress: Callable[[float], object],
    overlong: Overlong,
) -> Iterator[tuple[int, str]]:
    """(place, row) of these lines of a shard, as the teacher translates them. progress, overlong: see translate_lines.

    Lines are passed on together, whatever stands between them: nothing but a sample depends on the number of a line.
    """
    first = found.shard_lines * number
    for run in _runs(places) if found.decoding.decoder == SAMPLE else [places] if places else []:
        lines = [found.shards[number][place] for place in run]
        lists = translate_lines(
            teacher.system, lines, found.decoding, progress=progress, first=first + run[0], overlong=overlong
        )
        yield from zip(run, map(_row, lists), strict=True)


def _runs(places: Sequence[int]) -> list[list[int]]:
    """Places that follow each other, together."""
    runs: list[list[int]] = []
    for place in places:
        if runs and place == runs[-1][-1] + 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    return runs


def _row(translation: Translation) -> str:
    source, hypotheses = translation
    candidates = [Candidate(files.one_line(h.text), h.score, h.log_prob, h.finished, len(h.tokens)) for h in hypotheses]
    row = {"source": source, "hypotheses": [candidate._asdict() for candidate in candidates]}
    return json.dumps(row, ensure_ascii=True, allow_nan=False)  # ASCII: no other line breaks in it


def write_shard(found: NBest, number: int, rows: Sequence[str]) -> None:
    """Write the shard, then the file with its hash: a kill between the two leaves a shard that is made again."""
    data = gzip.compress("".join(f"{row}\n" for row in rows).encode("utf-8"), mtime=0)
    checksum = {"identity": _identity(found, number), "sha256": files.sha256_bytes(data), "lines": len(rows)}
    files.write_bytes(shard_file(found, number), data)
    files.write_json(shard_file(found, number).with_suffix(".json"), checksum)


def checked(found: NBest, number: int) -> tuple[bytes | None, str]:
    """The content of a shard that can be trusted; or None and why not, "" if it was not made yet.

    It is trusted if its hash is the one written after it and its identity is ours.
    """
    data, told = sealed(shard_file(found, number))
    if isinstance(told, str):
        return None, told
    if (told["identity"], told["lines"]) != (_identity(found, number), len(found.shards[number])):
        return None, "of another teacher, other rules or other source lines"
    return data, ""


def sealed(path: Path) -> tuple[bytes, dict] | tuple[None, str]:
    """The content of a shard and what its file of hashes says, if they fit; else None and why not, as in `checked`."""
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
    return data, written


def shard_identity(lists: dict, first: int, lines: Sequence[str]) -> str:
    """The identity of a shard of these lines. lists: see `identity_of`; first: the number of its first line, from 0."""
    return files.sha256_json([lists, first, list(lines)])


def _identity(found: NBest, number: int) -> str:
    return shard_identity(found.identity, len(found.shards[0]) * number, found.shards[number])
