"""Replacement of unknown words after decoding (Luong et al. 2015), for vocabularies of words."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from seqkd_jax.data.corpus import read_lines
from seqkd_jax.data.vocabulary import Vocabularies
from seqkd_jax.types import BOS, EOS, PAD, UNK, UserError


def replace_unknown(
    vocabularies: Vocabularies,
    source: str,
    ids: Sequence[int],
    positions: Sequence[int],
    dictionary: Mapping[str, str] | None = None,
) -> str:
    """Decode words; each <unk> becomes the source word that it attends to most, or that word's entry in dictionary.

    ids and positions [T]: target ids without EOS, and the most attended source position of each; a position beyond the
    last word (that of EOS) stands for the last word. UserError for subwords, whose unknown pieces are not words.
    """
    require_words(vocabularies)
    words = vocabularies.source.split(source)
    decoded = []
    for token, position in zip(ids, positions, strict=True):
        if token == UNK and words:
            word = words[min(position, len(words) - 1)]
            decoded.append((dictionary or {}).get(word, word))
        elif token not in (PAD, BOS, EOS):
            decoded.append(vocabularies.target.decode([token]))
    return " ".join(decoded)


def require_words(vocabularies: Vocabularies) -> None:
    """UserError for vocabularies of subwords, whose unknown pieces are not words."""
    if vocabularies.config.kind != "words":
        raise UserError("replacing <unk> needs word vocabularies (kind words); this model has subwords")


def read_dictionary(path: Path | str) -> dict[str, str]:
    """Read a dictionary for `replace_unknown`: one `source|||target` a line, as in Kim & Rush's code."""
    entries = {}
    for number, line in enumerate(read_lines(path), 1):
        source, separator, target = line.partition("|||")
        if not separator:
            raise UserError(f"{path}, line {number}: no `|||` between source word and target word")
        entries[source.strip()] = target.strip()
    return entries
