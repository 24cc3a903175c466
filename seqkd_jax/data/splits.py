"""Splits that share no text: pairs held out of a corpus, and how much of a split is in training.

Two lines are the same if they are so with each run of white space as one space; case counts. A blank line is the same
as no other.
"""

from collections.abc import Iterable

import numpy as np

from seqkd_jax.data.corpus import Corpus, take
from seqkd_jax.types import UserError
from seqkd_jax.utils import progress


def hold_out(corpus: Corpus, count: int, seed: int = 0) -> tuple[Corpus, Corpus]:
    """(the rest, about `count` random pairs), both in corpus order: a validation split for a corpus that has none.

    No source and no target is in both. Pairs that share one, with each other or over other pairs, are a group, which
    is held out whole or stays; one of more than a hundredth of `count` stays if the smaller ones suffice, so that no
    line dominates. If all that fit are less than half of `count`, single pairs are held out, those with the rarest
    lines first, and what shares a line with them is in neither part. A pair with a blank line stays. Logs the numbers.
    UserError: `count` is not between 0 and the number of pairs, or no pair would be left on one side.
    """
    total = len(corpus.sources)
    if not 0 < count < total:
        raise UserError(
            f"{corpus.name}: cannot hold out {count:,} of {total:,} pairs; each part needs at least one pair"
        )
    lines = np.stack([_numbers(corpus.sources), _numbers(corpus.targets)])
    blank = np.array([not (pair[0].strip() and pair[1].strip()) for pair in zip(*corpus[:2], strict=True)])
    order = np.random.default_rng(seed).permutation(total)
    held = _whole_groups(_groups(lines), blank, order, count)
    if 2 * held.sum() < count:
        rarity = np.sum([np.bincount(numbers)[numbers] for numbers in lines], axis=0)
        rest = order[~(held | blank)[order]]
        rest = rest[np.argsort(rarity[rest], kind="stable")]
        held[rest[: count - held.sum()]] = True
    shared = np.any([np.isin(numbers, numbers[held]) for numbers in lines], axis=0)
    if shared.all() or not held.any():
        raise UserError(
            f"{corpus.name}: cannot hold out {count:,} of {total:,} pairs so that no source and no target is on both "
            "sides: too many pairs share one; hold out fewer, or give a validation split"
        )
    asked = f" ({count:,} were asked for)" if held.sum() != count else ""
    left_out = (shared & ~held).sum()
    neither = f"; {left_out:,} that share a line with them are left out of training" if left_out else ""
    progress.log(
        f"{corpus.name}: {held.sum():,} of {total:,} pairs{asked} are held out, by content: no source and no target is "
        f"on both sides{neither}"
    )
    return take(corpus, np.flatnonzero(~shared)), take(corpus, np.flatnonzero(held))


def _numbers(lines: Iterable[str]) -> np.ndarray:
    """A number [N] for each line, the same for the same lines."""
    known: dict[str | int, int] = {}
    return np.array([known.setdefault(_same(line) or row, len(known)) for row, line in enumerate(lines)], np.int64)


def _same(line: str) -> str:
    return " ".join(line.split())


def _groups(lines: np.ndarray) -> np.ndarray:
    """The group [N] of each pair of numbered lines [2,N]: union-find over the lines, targets after sources."""
    lines = np.stack([lines[0], lines[1] + lines[0].max() + 1])
    found, parent = lines[0].copy(), np.arange(lines.max() + 1).tolist()

    def root(line: int) -> int:
        while parent[line] != line:
            parent[line] = line = parent[parent[line]]
        return line

    shared = (np.bincount(lines.ravel())[lines] > 1).any(axis=0)  # most pairs share no line
    for source, target in lines[:, shared].T.tolist():
        parent[root(source)] = root(target)
    found[shared] = [root(source) for source in lines[0, shared].tolist()]
    return np.unique(found, return_inverse=True)[1]


def _whole_groups(groups: np.ndarray, blank: np.ndarray, order: np.ndarray, count: int) -> np.ndarray:
    """Which pairs [N] are held out: the groups of the first pairs in this order that fit into `count`."""
    sizes = np.bincount(groups)
    chosen, left = np.zeros(len(sizes), bool), count
    kept = np.bincount(groups[blank], minlength=len(sizes)) > 0
    for most in (max(1, count // 100), count):
        for group in groups[order]:
            if sizes[group] <= min(most, left) and not chosen[group] and not kept[group]:
                chosen[group] = True
                left -= sizes[group]
            if not left:
                break
    return chosen[groups]


def warn_of_overlap(corpus: Corpus, training: Corpus) -> None:
    """One line if sources of a corpus that is measured on are in training, with their share."""
    wanted = {_same(line) for line in corpus.sources} - {""}
    trained = {
        (source, _same(target))
        for source, target in zip(map(_same, training.sources), training.targets, strict=True)
        if source in wanted
    }
    sources, total = {source for source, _ in trained}, len(corpus.sources)
    shared = sum(_same(line) in sources for line in corpus.sources)
    whole = sum((_same(s), _same(t)) in trained for s, t in zip(corpus.sources, corpus.targets, strict=True))
    if shared:
        progress.log(
            f"{corpus.name}: {shared:,} of its {total:,} sources ({shared / total:.1%}) are also in training, "
            f"{whole:,} ({whole / total:.1%}) with the same target: what is measured on them is too good; take them "
            "out of one of the two, or give --hold-out to `seqkd distill` and `seqkd train` alike"
        )
