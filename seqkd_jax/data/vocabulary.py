"""Text to ids and back.

Four kinds (`tokenizers`): subwords that sentencepiece learns from raw text; the most frequent words of tokenised text
with <unk> for the rest (Kim & Rush 2016); Marian's, imported: subwords of two sentencepiece models whose ids are
their places in one list; and the classes of a classifier. Every checkpoint stores the fingerprint of both sides, so
that another vocabulary is refused.
"""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from seqkd_jax.config import VocabularyConfig
from seqkd_jax.data import scripts
from seqkd_jax.data.tokenizers import (
    SPECIALS,
    Added,
    Vocabulary,
    class_list,
    mapped_subwords,
    most_frequent,
    subwords,
    tokenizer,
    train_sentencepiece,
    word_list,
)
from seqkd_jax.types import BOS, EOS, PAD, UNK, UserError
from seqkd_jax.utils import files, integrity, progress, settings
from seqkd_jax.utils.untrusted import inside, require_form

DESCRIPTION = "vocabulary.json"
FORMAT = 1  # of it
FORM = {"config": dict, "source": str, "target": str, "fingerprint": str}
HOLDS = (DESCRIPTION, "*.model", "*.spm", "*.txt", "entries.json", "added.json")
PHRASE = 10  # characters; few words of a script without spaces have more, most of its sentences do
WORDS, CLASSES, NOTHING = "source.txt", "classes.txt", "nothing.txt"  # files of `words` and `labels`
MODEL = ".model"  # ends the names of sentencepiece models
ENTRIES = "entries.json"  # of a vocabulary of kind marian: the text of each id, both sides' the same
ADDED = "added.json"  # of a vocabulary of kind marian, if it has any: the fields of each added token


class Vocabularies(NamedTuple):
    """Both sides of a translator; the same object twice if joint."""

    source: Vocabulary
    target: Vocabulary
    joint: bool
    config: VocabularyConfig
    fingerprint: str  # SHA-256 over both

    @property
    def tokenised(self) -> bool:
        """The text that it reads and writes is tokens with spaces between: that of a vocabulary of words."""
        return self.config.kind == "words"


def learn(sources: Iterable[str], targets: Iterable[str], config: VocabularyConfig) -> Vocabularies:
    """Vocabularies of training text: a function of the text and the configuration, nothing else.

    A corpus too small for `config.size` gives fewer entries. UserError: no text, a size too small, words of raw text.
    """
    config.validate()
    if config.kind in ("marian", "labels"):
        maker = {"marian": "`seqkd import` makes it", "labels": "vocabulary.labels makes it"}[config.kind]
        raise UserError(
            f"vocabulary kind {config.kind} cannot be learned from text: {maker}; choose sentencepiece or words"
        )
    if config.kind == "words":
        split = tokenizer(config.tokenizer)
        source, target = (most_frequent(text, split, config.size) for text in (sources, targets))
        _warn_of_phrases(source[len(SPECIALS) :] + target[len(SPECIALS) :])
        return _together(word_list(WORDS, source, config), word_list("target.txt", target, config), config)
    if config.joint:
        both = subwords(f"joint{MODEL}", train_sentencepiece(chain(sources, targets), config))
        return _together(both, both, config)
    source, target = (train_sentencepiece(text, config) for text in (sources, targets))
    return _together(subwords(f"source{MODEL}", source), subwords(f"target{MODEL}", target), config)


def _warn_of_phrases(learned: Sequence[str]) -> None:
    """One line if words are whole phrases, because their script has no spaces and nothing else split the text."""
    words = [word for word in learned if scripts.is_unspaced(word)]
    if words and statistics.median(map(len, words)) > PHRASE:
        progress.log(
            f"vocabulary of words: those of a script without spaces are whole phrases, such as {words[0]!r}; split the "
            "text into words first, or choose subwords, or the tokenizer char"
        )


def mapped(source: bytes, target: bytes, entries: Sequence[str], added: Sequence[Added] = ()) -> Vocabularies:
    """Marian's vocabularies: two sentencepiece models, and the entries, of which a piece's id is its place.

    A piece that is no entry is UNK. added: entries that are found whole in a text. UserError: the entries do not begin
    with SPECIALS, an added token is no entry, or a model is damaged.
    """
    config = VocabularyConfig(kind="marian", size=len(entries))
    about = tuple(entries), tuple(added)
    return _together(
        mapped_subwords("source.spm", source, *about), mapped_subwords("target.spm", target, *about), config
    )


def words(entries: Sequence[str]) -> Vocabularies:
    """One vocabulary of white-space tokens for both sides, as a language model has it; SPECIALS are put before them."""
    config = VocabularyConfig(kind="words", size=len(entries) + len(SPECIALS), tokenizer="pretokenised")
    both = word_list(WORDS, [*SPECIALS, *entries], config)
    return _together(both, both, config)


def labels(read: Vocabularies | None, classes: Sequence[str]) -> Vocabularies:
    """The vocabularies of a classifier: the source side of `read` (None if it reads no text) and its classes, from 0.

    UserError for an imported vocabulary (`seqkd import`): it belongs to a translator.
    """
    if read is not None and read.config.kind == "marian":
        raise UserError(
            "a classifier cannot read the vocabulary of an imported translator; learn words or subwords for it"
        )
    source, split = (class_list(NOTHING, []), "pretokenised") if read is None else (read.source, read.config.tokenizer)
    config = VocabularyConfig(kind="labels", size=len(classes), tokenizer=split)
    return _together(source, class_list(CLASSES, list(classes)), config)


def write(vocabularies: Vocabularies, directory: Path | str) -> None:
    """Write a directory of its own, whole or not at all; an older one is replaced."""
    with files.new_directory(directory, HOLDS) as temporary:
        save(vocabularies, temporary, {integrity.SEALED: True})


def save(vocabularies: Vocabularies, directory: Path | str, more: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Write the vocabularies into a directory as plain files, vocabulary.json last; other files in it stay.

    more: further entries of vocabulary.json.
    """
    directory = Path(directory)
    for name, data in {side.name: side.data for side in (vocabularies.source, vocabularies.target)}.items():
        files.write_bytes(inside(directory, name, directory / DESCRIPTION), data)
    if vocabularies.config.kind == "marian":
        files.write_json(directory / ENTRIES, vocabularies.source.entries)
        if vocabularies.source.added:
            files.write_json(directory / ADDED, [token._asdict() for token in vocabularies.source.added])
    description = {
        "format": FORMAT,
        "fingerprint": vocabularies.fingerprint,
        "source": vocabularies.source.name,
        "target": vocabularies.target.name,
        "sizes": [vocabularies.source.size, vocabularies.target.size],
        "special_ids": {"pad": PAD, "unk": UNK, "bos": BOS, "eos": EOS},
        "config": settings.to_json(vocabularies.config),
        **more,
    }
    files.write_json(directory / DESCRIPTION, description)


def load(directory: Path | str) -> Vocabularies:
    """The vocabularies that `save` wrote. UserError: a file is missing, damaged, or of another format."""
    path = Path(directory) / DESCRIPTION
    description = integrity.read_description(path, FORMAT, FORM, "learn it again with `seqkd vocab`", HOLDS)
    config = settings.from_json(VocabularyConfig, description["config"], lambda name: f"{path}: {name}")
    marian = _entries(path.parent) if config.kind == "marian" else ((), ())
    found = [inside(path.parent, description[side], path) for side in ("source", "target")]
    sides = {file: _from_bytes(file, files.read_bytes(file), config, *marian) for file in dict.fromkeys(found)}
    vocabularies = _together(sides[found[0]], sides[found[1]], config)
    require_same(description["fingerprint"], vocabularies, f"{path} (a file beside it was changed)")
    return vocabularies


def _entries(directory: Path) -> tuple[tuple[str, ...], tuple[Added, ...]]:
    """The entries of a vocabulary of kind marian, and its added tokens."""
    again, path = "import the model again", directory / ENTRIES
    entries = require_form(files.read_json(path), [str], path, again)
    path = directory / ADDED
    if not path.exists():
        return tuple(entries), ()
    form = {"text": str, **{name: bool for name in Added._fields[1:]}}
    tokens = require_form(files.read_json(path), [form], path, again)
    return tuple(entries), tuple(Added(*(token[name] for name in Added._fields)) for token in tokens)


def warn_of_unknown(vocabularies: Vocabularies, sources: Iterable[str], targets: Iterable[str]) -> None:
    """One line if more than a thousandth of the characters of a text has no subword; a word may be unknown."""
    config, told = vocabularies.config, []
    if config.kind not in ("sentencepiece", "marian"):
        return
    for name, side, lines in (("sources", vocabularies.source, sources), ("targets", vocabularies.target, targets)):
        unknown, total = Counter(), 0
        for line in lines:
            total += len("".join(line.split()))
            for piece, token in zip(side.split(line), side.encode(line), strict=True):
                unknown.update(piece if token == UNK else "")
        if unknown.total() > total / 1000:
            some = " ".join(character for character, _ in unknown.most_common(5))
            told.append(f"{unknown.total() / total:.1%} of the characters of the {name} ({some})")
    if told:
        remedy = "learn one with --vocab.byte-fallback"
        if config.character_coverage < 1:
            remedy += " or a higher --vocab.character-coverage"
        if config.kind == "marian":
            remedy = "an imported model has no other: leave such text out"
        progress.log(f"validation: {' and '.join(told)} are <unk> in this vocabulary; {remedy}")


def require_same(expected: str, vocabularies: Vocabularies, where: Path | str) -> None:
    """UserError unless the vocabularies have the expected fingerprint; `where` names what was made with that one."""
    if vocabularies.fingerprint != expected:
        wanted, found = " ".join(expected.split())[:12], vocabularies.fingerprint[:12]
        raise UserError(
            f"{where}: made with vocabulary {wanted}, but the one given is {found}; use the vocabulary saved "
            "beside it, or make it again with this one"
        )


def _together(source: Vocabulary, target: Vocabulary, config: VocabularyConfig) -> Vocabularies:
    fingerprint = files.sha256_json([source.fingerprint, target.fingerprint])
    return Vocabularies(source, target, source.name == target.name, config, fingerprint)


def _from_bytes(file: Path, data: bytes, config: VocabularyConfig, entries: tuple, added: tuple) -> Vocabulary:
    name = file.name
    try:
        if config.kind == "marian":
            return mapped_subwords(name, data, entries, added)
        if name.endswith(MODEL):
            return subwords(name, data)
        lines = data.decode("utf-8").removesuffix("\n").split("\n")
        if name in (CLASSES, NOTHING):
            return class_list(name, lines if data else [])
        return word_list(name, lines, config)
    except UserError as error:  # it begins with the name of the file
        raise UserError(f"{file.parent}/{error}") from None
    except (RuntimeError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: damaged ({error}); learn it again with `seqkd vocab`") from None
