"""Checks of distilled corpora and of n-best lists."""

import gzip
import itertools
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from seqkd_jax.checkpoint import run_config
from seqkd_jax.config import SearchConfig
from seqkd_jax.data.distilled import CARD, HOLDS, MARIAN
from seqkd_jax.data.text import read_lines
from seqkd_jax.decoding import Decoding
from seqkd_jax.distillation import distilled_corpus, nbest
from seqkd_jax.distillation.earlier_results import LISTS
from seqkd_jax.distillation.nbest_files import open_lists
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, integrity, settings
from seqkd_jax.utils.untrusted import inside, parse_json, require_form
from seqkd_jax.verification.outcome import Damaged, Outcome, Verified, examine, require, require_sums

REMEDY = "distil again"
COUNT = {"lines": int, "languages?": [str, str], "teacher": dict, "inputs?": dict, "files?": {...: str}}
COUNT |= {"filters?": {"kept?": int}, "selection": str}
ROW = {"source": str, "hypotheses": [{"text": str, "score": float}]}
SHARD = r"shard-([0-9]{5,})\.jsonl\.(gz|json)"
RULES = {"search": dict, "decoder": str, "source_buckets": [int], "batch_tokens": int}
LISTED = {
    "teacher": {"fingerprint": str},
    "decoding": RULES,
    "lines?": int,
    "inputs": {"source lines": str, "shard_lines": int},
}
CHECKSUM = {"identity": str, "sha256": str, "lines": int}


def check_corpus(directory: Path, teacher: str | None) -> Iterator[Verified]:
    """A distilled corpus: all hashes; as many lines on both sides as the card says, in its order; its filtered/."""
    yield examine(directory, "distilled corpus", lambda path: _corpus(path, teacher))


def _corpus(path: Path, teacher: str | None) -> Outcome:
    sealed = require_sums(path, (*HOLDS, "filtered/*"))  # a user may put other splits beside the training split
    card = integrity.read_description(path / CARD, distilled_corpus.FORMAT, COUNT, REMEDY)
    for name, digest in card.get("files", {}).items():
        require(files.sha256_file(_inside(path, name)) == digest, path / name, f"does not have the hash in {CARD}")
    if (path / settings.CONFIG_FILE).exists():
        run_config.content(path / settings.CONFIG_FILE)
    names = card.get("languages") or [one.removeprefix("train.") for one in card.get("files", {}) if "train." in one]
    sides = [inside(path, f"train.{language}", path / CARD) for language in names[:2]]
    pairs = [list(read_lines(side)) for side in sides]
    for side, lines in zip(sides, pairs, strict=True):
        require(len(lines) == card["lines"], side, f"has {len(lines):,} lines, the card says {card['lines']:,}")
    own = card.get("inputs", {}).get("source lines")
    require(own in (None, files.sha256_file(sides[0])), sides[0], "is not the source lines whose hash the card has")
    chosen = _scores(path / "scores.tsv", card["lines"])
    if "filters" in card:
        _filtered(path / "filtered", sides, pairs, card["filters"].get("kept"))
    if card.get("marian"):
        lists = open_lists(path / MARIAN, pairs[0]).read()
        for number, (place, listed, target) in enumerate(zip(chosen, lists, pairs[1], strict=True), start=1):
            fits = place < len(listed) and listed[place].text == target
            require(fits, path / MARIAN, f"hypothesis {place} of line {number:,} is not its target")
    _require_teacher(path / CARD, card["teacher"], teacher)
    return Outcome("whole", f"{card['lines']:,} lines" + ("" if sealed else "; no SHA256SUMS"))


def _inside(path: Path, name: str) -> Path:
    """The file of a card's list, which may be in filtered/."""
    inner = name.removeprefix("filtered/")
    return inside(path / "filtered" if inner != name else path, inner, path / CARD)


def _scores(path: Path, count: int) -> list[int]:
    """The place of each line's target in its n-best list, from 0: there is a row for each line, numbered from 1."""
    header, *rows = list(read_lines(path)) or [""]
    require(header.startswith("line\t"), path, "line 1 is not the names of its columns")
    require(len(rows) == count, path, f"has {len(rows):,} rows, the card says {count:,} lines")
    found = [re.match(rf"{number}\t([0-9]{{1,9}})\t", row) for number, row in enumerate(rows, start=1)]
    require(all(found), path, "its rows are not those of line 1, 2, ... with an index from 0")
    return [int(match[1]) for match in found if match]


def _filtered(folder: Path, sides: list[Path], pairs: list[list[str]], kept: int | None) -> None:
    """filtered/ holds the lines that its lines.txt names, in order."""
    listed = folder / "lines.txt"
    numbers = list(read_lines(listed))
    places = [int(number) - 1 for number in numbers if re.fullmatch("[1-9][0-9]{0,11}", number)]
    ordered = all(one < other for one, other in itertools.pairwise(places))
    fits = len(places) == len(numbers) and ordered and (not places or places[-1] < len(pairs[0]))
    require(fits, listed, "is not the numbers of lines, from 1, in their order")
    require(kept in (None, len(places)), listed, f"has {len(places):,} lines, the card says {kept}")
    for side, lines in zip(sides, pairs, strict=True):
        same = list(read_lines(folder / side.name)) == [lines[place] for place in places]
        require(same, folder / side.name, f"is not those lines of {side.name} that {listed.name} names")


def _require_teacher(path: Path, described: dict, teacher: str | None) -> None:
    own = described.get("fingerprint") or described.get("sha256")
    if teacher is not None and own != teacher:
        raise UserError(f"{path}: of another teacher ({str(own)[:12]}, not {teacher[:12]})")


def check_lists(directory: Path, teacher: str | None) -> Iterator[Verified]:
    """N-best lists: every shard has its hash, all are there, and they are of the source lines of lists.json."""
    yield examine(directory, "n-best lists", lambda path: _lists(path, directory, teacher))


def _lists(path: Path, directory: Path, teacher: str | None) -> Outcome:
    described = files.read_json(path / LISTS)
    require_form(described, LISTED, path / LISTS, REMEDY)
    require(integrity.unchanged(path / LISTS, described), path / LISTS, "does not have its sha256")
    _require_teacher(path / LISTS, described["teacher"], teacher)
    size, wanted = described["inputs"]["shard_lines"], described["inputs"]["source lines"]
    require(size > 0, path / LISTS, f"shard_lines is {size}")
    identity = _identity(described, path / LISTS)
    numbers = sorted({int(name[1]) for one in path.iterdir() if (name := re.fullmatch(SHARD, one.name))})
    shards, damages = {}, []
    for number in numbers:
        try:
            shards[number] = _shard(path, number, size, identity)
        except FileNotFoundError:  # it is being written, or its writer was killed
            continue
        except UserError as error:
            damages.append(str(error))
    if damages:
        raise Damaged(damages)
    told = f"{sum(map(len, shards.values())):,} lines in {len(shards):,} shards"
    first = next(number for number in itertools.count() if number not in shards)
    lines = described.get("lines", 1 + max(shards, default=0) * size)  # before 0.4.0 their number is not told
    if first * size < lines:
        corpus = _made_of(directory, described, {number * size: sources for number, sources in shards.items()})
        require(corpus is None, path / f"shard-{first:05d}.jsonl.gz", f"is missing, and {corpus} is made of it")
        return Outcome("incomplete", f"incomplete, {told}; shard {first} is missing")
    if files.sha256_json(list(shards.values())) == wanted:
        return Outcome("whole", told)
    if "lines" not in described and len(shards[first - 1]) == size:
        return Outcome("incomplete", f"incomplete, {told}")
    raise UserError(f"{path / LISTS}: is of other source lines than the shards")


def _made_of(directory: Path, described: dict, present: dict[int, list[str]]) -> Path | None:
    """The distilled corpus beside lists, if it was made of them: then none of their shards was left to be made.

    described: lists.json. present: the source lines of the shards that are there, by the number of the first.
    """
    corpus = directory.with_name(directory.name.removesuffix(".n-best"))
    path = files.existing(corpus)
    try:
        card = integrity.read_description(path / CARD, distilled_corpus.FORMAT, COUNT, REMEDY)
        sources = list(read_lines(inside(path, f"train.{card['languages'][0]}", path / CARD)))
    except (OSError, UserError, KeyError):  # there is none, or what is wrong with it is told of itself
        return None
    told = [[one["teacher"].get("fingerprint"), one.get("decoding")] for one in (card, described)]
    same = all(sources[first : first + len(lines)] == lines for first, lines in present.items())
    return corpus if told[0] == told[1] and same and described.get("lines", len(sources)) == len(sources) else None


def _identity(described: dict, path: Path) -> dict:
    """What identifies the teacher and the rules of these lists, of which lists.json says all."""
    teacher, rules = described["teacher"], described["decoding"]
    search = settings.from_json(SearchConfig, rules["search"], lambda name: f"{path}: decoding.search.{name}")
    decoding = Decoding(search, rules["decoder"], tuple(rules["source_buckets"]), rules["batch_tokens"])
    return nbest.identity_of(teacher["fingerprint"], teacher.get("replica"), teacher.get("compute"), decoding)


def _shard(directory: Path, number: int, size: int, identity: dict) -> list[str]:
    """The source lines of a shard, which has its hash and is at its place; FileNotFoundError if a file is missing."""
    path = directory / f"shard-{number:05d}.jsonl.gz"
    described, data = path.with_suffix(".json"), path.read_bytes()
    if not described.exists():
        raise FileNotFoundError(described)
    checksum = require_form(files.read_json(described), CHECKSUM, described, REMEDY)
    as_written = files.json_text({name: checksum[name] for name in CHECKSUM}).encode("utf-8")
    require(files.read_bytes(described) == as_written, described, "is not as it was written")
    require(files.sha256_bytes(data) == checksum["sha256"], path, f"does not have the hash in {described.name}")
    try:
        rows = [parse_json(row) for row in gzip.decompress(data).splitlines()]
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    require_form(rows, [ROW], path, REMEDY)
    require(len(rows) == checksum["lines"], path, f"has {len(rows):,} lines, {described.name} says otherwise")
    sources = [row["source"] for row in rows]
    own = nbest.shard_identity(identity, size * number, sources)
    require(own == checksum["identity"], described, "is of another teacher, other rules, other lines or another place")
    return sources
