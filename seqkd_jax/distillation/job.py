"""A distilled corpus as a job: what is refused before the first line is decoded, and what need not be made again."""

import contextlib
import functools
import glob
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seqkd_jax import distributed
from seqkd_jax.config import CorpusConfig
from seqkd_jax.data.corpus import Corpus, require_pairs
from seqkd_jax.distillation.distilled_corpus import HOLDS, Recipe, card_of, write_corpus
from seqkd_jax.distillation.earlier_results import is_complete, put_in_place, read_card, settle
from seqkd_jax.distillation.nbest import NBest, shard_file
from seqkd_jax.distillation.nbest_files import GivenLists
from seqkd_jax.distillation.selection import require_rule
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, leases, progress

Lists = NBest | GivenLists


def require_distillable(out: Path, sources: Sequence[str], recipe: Recipe) -> None:
    """UserError for arguments that no corpus can be made of."""
    files.require_replaceable(out, HOLDS)
    require_rule(recipe.selection, recipe.references is not None)
    targets = sources if recipe.references is None else recipe.references
    require_pairs(Corpus(list(sources), list(targets), None, "source lines"))
    recipe.filters.validate()
    if isinstance(recipe.languages, str) or len(recipe.languages) != 2:
        raise UserError(f"languages: {recipe.languages!r} is not a pair; give two such as ('en', 'de')")
    CorpusConfig(source=recipe.languages[0], target=recipe.languages[1]).validate()
    for language in recipe.languages:
        if os.path.basename(language) != language or not language:
            raise UserError(f"languages: {language!r} cannot end the name of a file; give two such as 'en' and 'de'")
    for number, line in enumerate(sources, start=1):
        if "\n" in line or "\r" in line:
            raise UserError(f"source lines: number {number} has a line break inside; make it one line")
    if not any(line.strip() for line in sources):
        raise UserError("source lines: all are blank; there is nothing to distil")


def make_corpus(
    out: Path,
    lists: Lists,
    claim: Callable[[], Lists],
    make: Callable[[Lists], tuple[Lists, Sequence[int]]],
    recipe: Recipe,
    *,
    overwrite: bool,
    described: Mapping[str, Any],
    part: tuple[int, int] | None = None,
    require: Callable[[], object] = lambda: None,
) -> dict:
    """Write the corpus, unless it is there already and complete; returns its card, an empty one of a part.

    Any number of processes may be given the same job, those of one command (`distributed`) or others: one at a time
    looks what is there, and of those whose lists are complete one writes the corpus and the others find it. claim:
    begins the lists; make: completes them; returns them, and the places of the lines that are too long. described: see
    `write_corpus`. part: only that of the lists is made. require: raises for lines that cannot be distilled; it may
    take long, and nobody waits for it.
    UserError: `out` holds a corpus of another job, which `overwrite` lets go, or another job is at work for it.
    """
    before, wanted, job = _version(out), card_of(lists, recipe), _identity(lists)
    out.parent.mkdir(parents=True, exist_ok=True)
    if distributed.count() > 1:
        _require_one_directory(out.parent)
    alone = functools.partial(leases.waited, out.with_name(f".{out.name}.lock"), f"looks at {out} or writes it")

    def is_done() -> bool:
        if overwrite and _version(out) == before:
            return False
        try:
            return is_complete(out, wanted, described)
        except UserError:
            if not overwrite:
                raise
            return False

    def found(how: str) -> dict:
        progress.log(f"{out}: {how}")
        if isinstance(lists, NBest) and not any(other != job for other, _ in others):
            settle(lists)
        return read_card(files.existing(out))

    with contextlib.ExitStack() as work:
        with alone():
            others = _others(out)
            if is_done():
                return found("is complete, nothing is done")
            work.enter_context(_at_work(out, job, others))
        require()
        with alone():
            claimed = claim()
        made, overlong = make(claimed)
        if part:
            progress.log(_left(made, part))
            return {}
        with alone():
            others = _others(out)
            if is_done():
                return found("another process has written it")
            if any(other != job for other, _ in others):
                raise UserError(f"{out}: another job took it over while this process was paused")
            card = write_corpus(out, made, recipe, described=described, overlong=overlong)
            if isinstance(lists, NBest) and isinstance(made, NBest):
                put_in_place(made, lists.directory)
    return card


def _identity(lists: Lists) -> str:
    """What tells the lists of one job from those of another."""
    own = [lists.identity, lists.shard_lines] if isinstance(lists, NBest) else lists.card
    return files.sha256_json([own, list(lists.sources)])[:16]


def _others(out: Path) -> list[tuple[str, leases.Holder]]:
    """The identity of each job that processes make for `out`, and who; what dead ones left is removed."""
    found = []
    leases.clear(out.parent)
    for path in out.parent.glob(f".{glob.escape(out.name)}.*.lock"):
        named = re.fullmatch(r"([0-9a-f]{16})-[0-9a-f]{16}", path.name[len(out.name) + 2 : -len(".lock")])
        holder = leases.alive(path) if named else None
        if named and holder:
            found.append((named[1], holder))
    return found


@contextlib.contextmanager
def _at_work(out: Path, job: str, others: Sequence[tuple[str, leases.Holder]]) -> Iterator[None]:
    """This process is at work for `out`, which a lock file of its own says. UserError if another job is.

    Two jobs would replace each other's lists.
    """
    for other, holder in others:
        if other != job:
            raise UserError(
                f"{out}: {holder.owner} makes a corpus of another teacher, other rules or other lines for it; wait "
                "until that ends, or name another directory with --out"
            )
    with leases.attempt(out.with_name(f".{out.name}.{job}-{secrets.token_hex(8)}.lock")):  # nobody else has its name
        yield


def _require_one_directory(directory: Path) -> None:
    """UserError unless all processes of this command have the same directory: they share work by its files."""
    name = distributed.agreed(f".{secrets.token_hex(8)}.token")
    if distributed.first():
        files.write_text(directory / name, "is the directory shared?")
    distributed.barrier("a file that shows whether the directory is shared")
    seen = distributed.gathered((directory / name).exists())
    if distributed.first():
        files.remove(directory / name)
    if not all(seen):
        who = ", ".join(str(number) for number, sees in enumerate(seen) if not sees)
        raise UserError(
            f"{directory}: is not the same directory for all processes, process {who} has another; name one that all "
            "share, or use --part"
        )


def _left(lists: Lists, part: tuple[int, int]) -> str:
    """What is left after a part of the lists was made."""
    assert isinstance(lists, NBest)  # no others have parts
    numbers = range(len(lists.shards))
    missing = sum(not shard_file(lists, number).with_suffix(".json").exists() for number in numbers)
    rest = (
        f"{missing} of all {len(numbers)} are not there yet; when they are" if missing else "all others are there too"
    )
    return (
        f"{lists.directory}: the shards of part {part[0]}/{part[1]} are complete; {rest}: the same command without "
        "--part writes the corpus"
    )


def _version(directory: Path) -> tuple[int, int, int] | None:
    """What tells a directory from one that replaces it; None if there is none."""
    try:
        status = os.stat(files.existing(directory))
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino, status.st_ctime_ns
