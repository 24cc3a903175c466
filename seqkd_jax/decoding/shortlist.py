"""A lexical shortlist: of the vocabulary, only what the sources at hand are likely to need. Optional, and not exact.

Learned from a parallel corpus: the most frequent target entries, and for every source entry those that go with it most.
A search then multiplies with a part of the vocabulary and normalises over that part, so results change a little, and
depend on the sentences that are decoded together: what it costs in BLEU must be measured.
"""

import io
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seqkd_jax.types import PAD, UserError
from seqkd_jax.utils import files

SPECIALS = 4  # ids that every list begins with
FORMAT = 1
SIZES = tuple(base << shift for shift in range(20) for base in (256, 384))  # of lists; each is a program of its own
BLOCK = 20_000  # pairs counted at a time


class Shortlist(NamedTuple):
    """What may be produced, as target ids."""

    frequent: np.ndarray  # [F] int32, whatever the source
    partners: np.ndarray  # [V,N] int32, of each source id the best first; PAD: no more
    size: int  # of the target vocabulary
    fingerprint: str  # of the vocabularies


def learn(
    pairs: Iterable[tuple[Sequence[int], Sequence[int]]], vocabularies, frequent: int = 100, partners: int = 30
) -> Shortlist:
    """The shortlist of a corpus of ids: its `frequent` commonest target entries, and `partners` of each source entry.

    Partners t of s are ranked by n(s,t)^2 / (n(s) n(t)), n the number of pairs with them: by how exclusively they
    belong together, since entries that occur everywhere are among the frequent ones. UserError: there is no pair.
    """
    sizes = vocabularies.source.size, vocabularies.target.size
    totals, together = [np.zeros(size, np.int64) for size in sizes], (np.zeros(0, np.int64), np.zeros(0, np.int64))
    block: list[np.ndarray] = []
    for source, target in pairs:
        ids = [np.unique(np.asarray(side, np.int64)) for side in (source, target)]
        ids = [side[side >= SPECIALS] for side in ids]
        for total, side in zip(totals, ids, strict=True):
            total[side] += 1
        block.append((ids[0][:, None] * sizes[1] + ids[1]).reshape(-1))
        if len(block) == BLOCK:
            together, block = _merged(together, block), []
    keys, counts = _merged(together, block)
    if not len(keys):
        raise UserError("shortlist: no sentence pair with words on both sides; give the training corpus")
    sources, targets = keys // sizes[1], keys % sizes[1]
    strength = counts.astype(np.float64) ** 2 / (totals[0][sources] * totals[1][targets])
    order = np.lexsort((targets, -strength, sources))
    sources, targets = sources[order], targets[order]
    rank = np.arange(len(sources)) - np.searchsorted(sources, sources)
    kept = rank < partners
    table = np.full((sizes[0], partners), PAD, np.int32)
    table[sources[kept], rank[kept]] = targets[kept]
    commonest = np.argsort(-totals[1], kind="stable")[:frequent].astype(np.int32)
    return Shortlist(commonest[totals[1][commonest] > 0], table, sizes[1], vocabularies.fingerprint)


def words(shortlist: Shortlist, sources: Iterable[Sequence[int]]) -> np.ndarray | None:
    """The target ids [W] int32 that these sources share, ascending, the special ones first, PAD after them.

    W is one of few sizes. None: so many that the whole vocabulary is as cheap.
    """
    present = np.unique(np.concatenate([np.zeros(0, np.int64), *(np.asarray(ids, np.int64) for ids in sources)]))
    chosen = np.union1d(shortlist.partners[present], shortlist.frequent)
    chosen = np.concatenate([np.arange(SPECIALS), chosen[chosen >= SPECIALS]]).astype(np.int32)
    size = next(size for size in sorted(SIZES) if size >= len(chosen))
    if size >= shortlist.size:
        return None
    return np.pad(chosen, (0, size - len(chosen)), constant_values=PAD)


def save(shortlist: Shortlist, path: Path | str) -> None:
    """One .npz file, written whole or not at all."""
    content = io.BytesIO()
    np.savez_compressed(content, format=FORMAT, **shortlist._asdict())
    files.write_bytes(path, content.getvalue())


def load(path: Path | str, vocabularies) -> Shortlist:
    """The shortlist of these vocabularies. UserError: no such file, damaged, or of others."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; make one with `seqkd shortlist`")
    try:
        with np.load(path, allow_pickle=False) as stored:
            if int(stored["format"]) != FORMAT:
                raise UserError(f"{path}: shortlist format {stored['format']}, this version reads {FORMAT}")
            found = Shortlist(stored["frequent"], stored["partners"], int(stored["size"]), str(stored["fingerprint"]))
    except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: no shortlist ({error}); make one with `seqkd shortlist`") from None
    if found.fingerprint != vocabularies.fingerprint:
        raise UserError(f"{path}: a shortlist of another vocabulary; make one with `seqkd shortlist` for this model")
    return found


def _merged(known: tuple[np.ndarray, np.ndarray], block: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Keys and counts, those of a block of keys added."""
    keys, places = np.unique(np.concatenate([known[0], *block]), return_inverse=True)
    counts = np.bincount(places[len(known[0]) :], minlength=len(keys))
    counts[places[: len(known[0])]] += known[1]
    return keys, counts
