"""Where the data of scenario 1 come from: the embedded language, files for each split, or Linzen et al.'s file.

The first stage of scenario 1, as `digits` is of scenario 2. NumPy only.
"""

from collections.abc import Mapping
from pathlib import Path
from sys import intern

import numpy as np

from experiments.abnar_2020.sentence_files import read_linzen, read_prefixes, read_tsv
from experiments.abnar_2020.sentences import Prefixes, Sentences, take
from seqkd_jax.data import toy
from seqkd_jax.data.toy.lexicon import VERB_FORMS
from seqkd_jax.types import UserError

SPLITS = ("train", "valid", "test")
TRAIN, VALID = 0.10, 0.01  # shares of Linzen et al.'s file; the rest is for testing
LINZEN = ("agr_50_mostcommon_10K.tsv", "agr_50_mostcommon_10K.tsv.gz")


def load(data: Path | None, seed: int, counts: Mapping[str, int] | None) -> dict[str, Sentences]:
    """The sentences of the splits train, valid and test.

    data: None for the embedded language, so many sentences of each split as `counts` says; a directory with train.tsv,
    valid.tsv and test.tsv; or Linzen et al.'s published file, or a directory that holds it, which is split here, 10%
    train, 1% valid, 89% test, by a permutation drawn from `seed`. The sizes are those of Abnar et al. 2020, the rows
    are not: their shuffle cannot be reproduced. UserError if something is missing or a row is not what it should be.
    """
    if data is None:
        return {split: _embedded(seed, counts[split], split) for split in SPLITS}
    published = _published(data)
    return _split(read_linzen(published), seed) if published else {s: read_tsv(data / f"{s}.tsv") for s in SPLITS}


def strata(data: Path | None) -> dict[int, Prefixes]:
    """Linzen et al.'s prefixes by their number of attractors, 1 to 4.

    They lie in linzen_strata, attractors_1.tsv and so on, in the directory of the data or beside the file that these
    are. Empty if that folder is missing, or for the embedded language (None).
    """
    if data is None:
        return {}
    folder = (data.parent if data.is_file() else data) / "linzen_strata"
    if not folder.is_dir():
        return {}
    return {count: read_prefixes(folder / f"attractors_{count}.tsv", count) for count in range(1, 5)}


def _embedded(seed: int, count: int, split: str) -> Sentences:
    examples = toy.sample_pairs(seed, count, split)
    words = [list(map(intern, example.source.split())) for example in examples]
    spelled = {entry: form for form, entry in VERB_FORMS.items()}
    forms = []
    for example, tokens in zip(examples, words, strict=True):
        verb, plural = VERB_FORMS[tokens[example.verb_index]]
        forms.append((spelled[verb, plural], spelled[verb, not plural]))
    places = [[getattr(example, name) for example in examples] for name in ("subject_index", "verb_index")]
    counts = [[getattr(example, name) for example in examples] for name in ("distance", "intervening", "attractors")]
    integers = [np.array(values, np.int32) for values in places + counts]
    plural = np.array([example.verb_plural for example in examples], bool)
    name = f"embedded language, split {split}"
    return Sentences(words, *integers[:2], plural, forms, *integers[2:], name)


def _published(data: Path) -> Path | None:
    """Linzen et al.'s file, or None for a directory with a file for each split. UserError if it is neither."""
    if data.is_file():
        return data
    if not data.is_dir():
        raise UserError(f"{data}: no such file or directory")
    if any((data / f"{split}.tsv").is_file() for split in SPLITS):
        return None
    found = next((data / name for name in LINZEN if (data / name).is_file()), None)
    if found is None:
        raise UserError(f"{data}: holds neither train.tsv, valid.tsv and test.tsv nor {LINZEN[0]}, plain or as .gz")
    return found


def _split(sentences: Sentences, seed: int) -> dict[str, Sentences]:
    total = len(sentences.words)
    ends = int(TRAIN * total), int(TRAIN * total) + int(VALID * total)
    if not 0 < ends[0] < ends[1]:
        raise UserError(f"{sentences.name}: {total} rows are too few for a split of 10%, 1% and 89%; it takes 100")
    rows = np.split(np.random.default_rng(seed).permutation(total), ends)
    parts = {split: take(sentences, part) for split, part in zip(SPLITS, rows, strict=True)}
    return {split: part._replace(name=f"{part.name}, split {split}") for split, part in parts.items()}
