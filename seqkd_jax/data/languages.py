"""The languages of a corpus, by the names of its files, which name those of a distilled corpus; their English names."""

import re
from pathlib import Path
from typing import Any

from seqkd_jax.config import CorpusConfig
from seqkd_jax.data import text

NO_LANGUAGES = ("txt", "tok", "bpe", "raw", "src", "tgt", "trg", "tsv", "csv")  # endings that look like languages

_ENGLISH = """ar arabic, bg bulgarian, bn bengali, ca catalan, cs czech, da danish, de german, el greek, en english,
    es spanish, et estonian, fa persian, fi finnish, fr french, ga irish, he hebrew, hi hindi, hr croatian,
    hu hungarian, id indonesian, is icelandic, it italian, ja japanese, ko korean, lt lithuanian, lv latvian, nl dutch,
    no norwegian, pl polish, pt portuguese, ro romanian, ru russian, sk slovak, sl slovenian, sr serbian, sv swedish,
    sw swahili, ta tamil, th thai, tr turkish, uk ukrainian, ur urdu, vi vietnamese, zh chinese"""
NAMES: dict[str, str] = dict(re.findall(r"(\w+) (\w+)", _ENGLISH))  # code -> its English name, in small letters


def of(config: CorpusConfig) -> tuple[str, str]:
    """Source and target language of a corpus: as they are set; of two files, unless they are, by their names.

    The names are taken apart at their dots, from the end, until they differ: those of train.en.gz and train.ja.gz are
    en and ja, those of en/train.txt and ja/train.txt too.
    """
    given = config.source, config.target
    if not config.source_file or given != (CorpusConfig.source, CorpusConfig.target):
        return given
    sides = zip(_parts(config.source_file), _parts(config.target_file), strict=False)
    differing = next((pair for pair in sides if pair[0] != pair[1]), given)
    return differing if all(re.fullmatch(r"[A-Za-z][\w-]*", language) for language in differing) else given


def in_json(value: Any) -> tuple[str, str] | None:
    """Source and target language in a card or in metadata; None for what is no pair of names."""
    pair = isinstance(value, list) and len(value) == 2 and all(isinstance(name, str) and name for name in value)
    return (value[0], value[1]) if pair else None


def of_file(name: str) -> str | None:
    """The language in which the name of a file of lines ends; None if it ends in none."""
    last = _parts(name)[0]
    return last if re.fullmatch("[a-z]{2,3}([-_][A-Za-z]{2,4})?", last) and last not in NO_LANGUAGES else None


def _parts(name: str) -> list[str]:
    """The parts of a file's name, then the names of the directories that it is in; from the end."""
    path = Path(name)
    parts = [part for part in path.name.split(".") if f".{part}" not in text.SUFFIXES]
    return [*reversed(parts), *reversed(path.parts[:-1])]
