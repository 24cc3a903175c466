"""A distilled corpus as a job: what is refused before the first line is decoded, and what need not be made again."""

import functools
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from seqkd_jax import distributed
from seqkd_jax.config import CorpusConfig
from seqkd_jax.data.corpus import Corpus, require_pairs
from seqkd_jax.distillation.distilled_corpus import HOLDS, Recipe, card_of, write_corpus
from seqkd_jax.distillation.earlier_results import is_complete, put_in_place, read_card
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
) -> dict:
    """Write the corpus, unless it is there already and complete; returns its card, an empty one of a part.

    Any number of processes may be given the same job, those of one command (`distributed`) or others: one at a time
    looks what is there, and of those whose lists are complete one writes the corpus and the others find it. claim:
    begins the lists; make: completes them; returns them, and the places of the lines that are too long. described: see
    `write_corpus`. part: only that of the lists is made.
    UserError: `out` holds a corpus of another job, which `overwrite` lets go.
    """
    before, wanted = _version(out), card_of(lists, recipe)
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

    with alone():
        if is_done():
            progress.log(f"{out}: is complete, nothing is done")
            return read_card(files.existing(out))
        claimed = claim()
    made, overlong = make(claimed)
    if part:
        progress.log(_left(made, part))
        return {}
    with alone():
        if is_done():
            progress.log(f"{out}: another process has written it")
            return read_card(files.existing(out))
        card = write_corpus(out, made, recipe, described=described, overlong=overlong)
        if isinstance(lists, NBest) and isinstance(made, NBest):
            put_in_place(made, lists.directory)
    return card


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
