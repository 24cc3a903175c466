"""Text to ids and back. After the corpus is read and before it is batched.

Four kinds: subwords that sentencepiece learns from raw text; the most frequent words of tokenised text with <unk>
for the rest (Kim & Rush 2016); from elsewhere, Marian's: subwords of two sentencepiece models whose ids are their
places in one list; and the classes of a classifier. A `Vocabulary` is a NamedTuple of functions beside the bytes of its
file; their hash is its fingerprint, which every checkpoint carries, so that another vocabulary is refused by name.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from seqkd_jax import files
from seqkd_jax.base import BOS, EOS, PAD, UNK, UserError
from seqkd_jax.config import VocabularyConfig

SPECIALS = ("<pad>", "<unk>", "<s>", "</s>")  # in the order of their ids
FORMAT = 1  # of vocabulary.json
WORDS, CLASSES, NOTHING = "source.txt", "classes.txt", "nothing.txt"  # files of `words` and `labels`
ENTRIES = "entries.json"  # of a vocabulary of kind marian: the text of each id, both sides' the same


class Vocabulary(NamedTuple):
    """One language's, or one shared by both. Two are the same if their fingerprints are."""

    name: str  # of its file
    size: int  # entries, the four special ones included
    encode: Callable[[str], list[int]]  # one line -> ids without BOS and EOS; what is unknown is UNK
    decode: Callable[[Iterable], str]  # ids -> one line; PAD, BOS and EOS are dropped, UNK is written <unk>
    split: Callable[[str], list[str]]  # one line -> its tokens as text, one for each id of `encode`
    entries: tuple[str, ...]  # the text of each id
    data: bytes  # content of its file
    fingerprint: str  # SHA-256 of all that decides its ids


class Vocabularies(NamedTuple):
    """Both sides of a translator; the same object twice if joint."""

    source: Vocabulary
    target: Vocabulary
    joint: bool
    config: VocabularyConfig
    fingerprint: str  # SHA-256 over both
    metric_tokenizer: str  # what sacrebleu must apply: "13a", or "none" because the text is tokens already


def learn(sources: Iterable[str], targets: Iterable[str], config: VocabularyConfig) -> Vocabularies:
    """Vocabularies of training text: a function of the text and the configuration, nothing else.

    A corpus too small for `config.size` gives fewer entries. UserError: no text, a size too small, words of raw text.
    """
    if config.size <= len(SPECIALS):
        raise UserError(f"vocabulary size {config.size}: must exceed {len(SPECIALS)}, the number of special entries")
    if config.kind in ("marian", "labels"):
        maker = {"marian": "`seqkd import` takes it over", "labels": "vocab.labels makes it"}[config.kind]
        raise UserError(f"vocabulary kind {config.kind} cannot be learned: {maker}; learn sentencepiece or words")
    if config.kind == "words":
        split = _tokenizer(config.tokenizer)
        source, target = (_most_frequent(text, split, config.size) for text in (sources, targets))
        return _together(_words("source.txt", source, config), _words("target.txt", target, config), config)
    if config.joint:
        both = _sentencepiece("joint.model", _train_sentencepiece(chain(sources, targets), config))
        return _together(both, both, config)
    source, target = (_train_sentencepiece(text, config) for text in (sources, targets))
    return _together(_sentencepiece("source.model", source), _sentencepiece("target.model", target), config)


def mapped(source: bytes, target: bytes, entries: Sequence[str]) -> Vocabularies:
    """Marian's vocabularies: two sentencepiece models, and the entries, of which a piece's id is its place.

    A piece that is no entry is UNK. UserError: the entries do not begin with SPECIALS, or a model is damaged.
    """
    config = VocabularyConfig(kind="marian", size=len(entries))
    sides = (("source.spm", source), ("target.spm", target))
    return _together(*(_mapped(name, model, tuple(entries)) for name, model in sides), config)


def words(entries: Sequence[str]) -> Vocabularies:
    """One vocabulary of white-space tokens for both sides, as a language model has it; SPECIALS are put before them."""
    config = VocabularyConfig(kind="words", size=len(entries) + len(SPECIALS), tokenizer="pretokenised")
    both = _words(WORDS, [*SPECIALS, *entries], config)
    return _together(both, both, config)


def labels(source: Vocabulary | None, classes: Sequence[str]) -> Vocabularies:
    """The vocabularies of a classifier: what it reads, None if that is no text, and its classes, counted from 0."""
    config = VocabularyConfig(kind="labels", size=len(classes), tokenizer="pretokenised")
    target = _labels(CLASSES, list(classes))
    return _together(_labels(NOTHING, []) if source is None else source, target, config)


def save(vocabularies: Vocabularies, directory: Path | str) -> None:
    """Write the vocabularies into a directory as plain files, vocabulary.json last; other files in it stay."""
    directory = Path(directory)
    for name, data in {side.name: side.data for side in (vocabularies.source, vocabularies.target)}.items():
        files.write_bytes(directory / name, data)
    if vocabularies.config.kind == "marian":
        files.write_json(directory / ENTRIES, vocabularies.source.entries)
    description = {
        "format": FORMAT,
        "fingerprint": vocabularies.fingerprint,
        "source": vocabularies.source.name,
        "target": vocabularies.target.name,
        "sizes": [vocabularies.source.size, vocabularies.target.size],
        "special_ids": {"pad": PAD, "unk": UNK, "bos": BOS, "eos": EOS},
        "config": asdict(vocabularies.config),
    }
    files.write_json(directory / "vocabulary.json", description)


def load(directory: Path | str) -> Vocabularies:
    """The vocabularies that `save` wrote. UserError: a file is missing, damaged, or of another format."""
    path = Path(directory) / "vocabulary.json"
    description = files.read_json(path)
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise UserError(f"{path}: not a vocabulary of format {FORMAT}; learn it again with `seqkd vocab`")
    try:
        config = VocabularyConfig(**description["config"])
        names = description["source"], description["target"]
        data = {name: (path.parent / name).read_bytes() for name in names}
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: lacks or misnames {error}; learn it again with `seqkd vocab`") from None
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; {path} names it") from None
    entries = tuple(files.read_json(path.parent / ENTRIES)) if config.kind == "marian" else ()
    sides = {name: _from_bytes(name, content, config, entries, path.parent) for name, content in data.items()}
    vocabularies = _together(*(sides[name] for name in names), config)
    require_same(description["fingerprint"], vocabularies, f"{path} (a file beside it was changed)")
    return vocabularies


def require_same(expected: str, vocabularies: Vocabularies, where: Path | str) -> None:
    """UserError unless the vocabularies have the expected fingerprint; `where` names what was made with that one."""
    if vocabularies.fingerprint != expected:
        raise UserError(
            f"{where}: made with vocabulary {expected[:12]}, but this one is {vocabularies.fingerprint[:12]}; "
            "use the vocabulary saved beside it, or make it again with this one"
        )


def replace_unknown(
    vocabularies: Vocabularies,
    source: str,
    ids: Sequence[int],
    positions: Sequence[int],
    dictionary: Mapping[str, str] | None = None,
) -> str:
    """Decode words, each <unk> replaced by the source word it attends to most (Luong et al. 2015), or by its entry.

    ids and positions [T]: target ids without EOS and the most attended source position of each; beyond the last word
    (EOS is a position too) the last word is meant. UserError for subwords, whose unknown pieces are not words.
    """
    if vocabularies.config.kind != "words":
        raise UserError("UNK replacement needs word vocabularies (kind words); subwords leave it nothing to do")
    words = vocabularies.source.split(source)
    decoded = []
    for token, position in zip(ids, positions, strict=True):
        if token == UNK and words:
            word = words[min(position, len(words) - 1)]
            decoded.append((dictionary or {}).get(word, word))
        elif token not in (PAD, BOS, EOS):
            decoded.append(vocabularies.target.decode([token]))
    return " ".join(decoded)


def read_dictionary(path: Path | str) -> dict[str, str]:
    """A dictionary for `replace_unknown`: one `source|||target` a line, as in Kim & Rush's code."""
    entries = {}
    for number, line in enumerate(_lines_of(Path(path)), 1):
        source, separator, target = line.partition("|||")
        if not separator:
            raise UserError(f"{path}, line {number}: no `|||` between source and target word")
        entries[source.strip()] = target.strip()
    return entries


def _together(source: Vocabulary, target: Vocabulary, config: VocabularyConfig) -> Vocabularies:
    fingerprint = files.sha256_json([source.fingerprint, target.fingerprint])
    tokenizer = "none" if config.kind == "words" else "13a"
    return Vocabularies(source, target, source.name == target.name, config, fingerprint, tokenizer)


def _from_bytes(name: str, data: bytes, config: VocabularyConfig, entries: tuple, directory: Path) -> Vocabulary:
    try:
        if config.kind == "marian":
            return _mapped(name, data, entries)
        lines = data.decode("utf-8").removesuffix("\n").split("\n") if config.kind in ("words", "labels") else []
        if name in (CLASSES, NOTHING):
            return _labels(name, lines if data else [])
        if lines:
            return _words(name, lines, config)
        return _sentencepiece(name, data)
    except (RuntimeError, UnicodeDecodeError) as error:
        raise UserError(f"{directory / name}: damaged ({error}); learn it again with `seqkd vocab`") from None


# Subwords


def _train_sentencepiece(lines: Iterable[str], config: VocabularyConfig) -> bytes:
    """A sentencepiece model. One thread: the result of several depends on their number."""
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(_some(lines)),
            model_writer=model,
            model_type=config.algorithm,
            vocab_size=config.size,
            hard_vocab_limit=False,  # a small corpus may have fewer subwords
            character_coverage=1.0,
            byte_fallback=False,
            # Text comes back as it was, but for runs of spaces: BLEU is counted on it.
            normalization_rule_name="identity",
            max_sentence_length=1 << 16,  # bytes; longer lines teach nothing
            num_threads=1,
            minloglevel=2,
            unk_surface=SPECIALS[UNK],
            **{f"{name}_id": index for name, index in (("pad", PAD), ("unk", UNK), ("bos", BOS), ("eos", EOS))},
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split()).rpartition("] ")[2]  # after the place in their source
        raise UserError(f"vocabulary size {config.size}, {config.algorithm}: sentencepiece refuses: {reason}") from None
    return model.getvalue()


def _sentencepiece(name: str, data: bytes) -> Vocabulary:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    size = processor.get_piece_size()
    ids = processor.pad_id(), processor.unk_id(), processor.bos_id(), processor.eos_id()
    if ids != (PAD, UNK, BOS, EOS):
        raise UserError(f"{name}: its special ids are {ids}, they must be {(PAD, UNK, BOS, EOS)}")

    def decode(tokens: Iterable) -> str:
        return processor.decode([int(token) for token in tokens if token not in (PAD, BOS, EOS)])

    def encode(out_type: type, line: str) -> list:
        return processor.encode(line, out_type=out_type) if line.strip() else []  # a blank line has no ids

    entries, fingerprint = tuple(processor.id_to_piece(list(range(size)))), files.sha256_bytes(data)
    return Vocabulary(name, size, partial(encode, int), decode, partial(encode, str), entries, data, fingerprint)


# Subwords that have the ids of a list


def _mapped(name: str, data: bytes, entries: tuple[str, ...]) -> Vocabulary:
    """One side of Marian's vocabularies; splits and joins text as transformers' MarianTokenizer does."""
    import sentencepiece

    if entries[: len(SPECIALS)] != SPECIALS:
        raise UserError(f"{name}: its entries must begin with {' '.join(SPECIALS)}, not {' '.join(entries[:4])}")
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    except RuntimeError:
        raise UserError(f"{name}: no sentencepiece model; take the file of the same name again") from None
    ids = {piece: index for index, piece in enumerate(entries) if piece not in SPECIALS}

    def split(line: str) -> list[str]:
        if not line.strip():
            return []
        end = line.find("<<") + 2 if line.startswith(">>") and "<<" in line else 0
        return [*([line[:end]] if end else []), *processor.encode(line[end:], out_type=str)]  # first: >>language<<

    def encode(line: str) -> list[int]:
        return [ids.get(piece, UNK) for piece in split(line)]

    def decode(tokens: Iterable) -> str:
        text, pieces = "", []
        for token in (int(token) for token in tokens if token not in (PAD, BOS, EOS)):
            if token == UNK:
                text, pieces = f"{text}{processor.decode_pieces(pieces)}{SPECIALS[UNK]} ", []
            else:
                pieces.append(entries[token])
        return (text + processor.decode_pieces(pieces)).replace("\u2581", " ").strip()

    fingerprint = files.sha256_json([files.sha256_bytes(data), entries])
    return Vocabulary(name, len(entries), encode, decode, split, entries, data, fingerprint)


# Words


def _most_frequent(lines: Iterable[str], split: Callable[[str], list[str]], size: int) -> list[str]:
    """The special entries and the most frequent words; of equally frequent ones the first by code point."""
    counts = Counter(word for line in _some(lines) for word in split(line) if word not in SPECIALS)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return [*SPECIALS, *ranked[: size - len(SPECIALS)]]


def _words(name: str, entries: list[str], config: VocabularyConfig) -> Vocabulary:
    if tuple(entries[: len(SPECIALS)]) != SPECIALS or len(set(entries)) != len(entries):
        raise UserError(f"{name}: must begin with {' '.join(SPECIALS)} and hold no word twice")
    split = _tokenizer(config.tokenizer)
    # A special entry's name in running text is an unknown word: no text may write an EOS into a sentence.
    ids = {word: index for index, word in enumerate(entries) if word not in SPECIALS}
    data = "".join(f"{word}\n" for word in entries).encode("utf-8")

    def encode(line: str) -> list[int]:
        return [ids.get(word, UNK) for word in split(line)]

    def decode(tokens: Iterable) -> str:
        return " ".join(entries[token] for token in tokens if token not in (PAD, BOS, EOS))

    fingerprint = files.sha256_json([config.tokenizer, entries])
    return Vocabulary(name, len(entries), encode, decode, split, tuple(entries), data, fingerprint)


def _labels(name: str, entries: list[str]) -> Vocabulary:
    """Classes: their ids are their places, no entry is special."""
    if len(set(entries)) != len(entries):
        raise UserError(f"{name}: holds a class twice")
    ids = {label: index for index, label in enumerate(entries)}
    data = "".join(f"{label}\n" for label in entries).encode("utf-8")

    def encode(line: str) -> list[int]:
        if line not in ids:
            raise UserError(f"{name}: no class is called {line!r}; there are {', '.join(entries)}")
        return [ids[line]]

    def decode(tokens: Iterable) -> str:
        return " ".join(entries[int(token)] for token in tokens)

    fingerprint = files.sha256_json(["labels", entries])
    return Vocabulary(name, len(entries), encode, decode, lambda line: [line], tuple(entries), data, fingerprint)


def _tokenizer(name: str) -> Callable[[str], list[str]]:
    """One line -> words. The names beside `pretokenised` are sacrebleu's tokenizers."""
    if name == "refuse_raw":
        raise UserError(
            "vocabulary of words: say how the text is tokenised: tokenizer `pretokenised` if words are already "
            "separated by spaces, or `13a`, `intl`, `char` to apply sacrebleu's; raw text is refused"
        )
    if name == "pretokenised":
        return str.split
    from sacrebleu import BLEU

    tokenize = BLEU(tokenize=name).tokenizer
    return lambda line: tokenize(line).split()


def _some(lines: Iterable[str]) -> Iterable[str]:
    """The lines that are not blank; UserError if there is none."""
    found = False
    for line in lines:
        if line.strip():
            found = True
            yield line
    if not found:
        raise UserError("no text to learn a vocabulary from: every line is blank; give a training corpus with text")


def _lines_of(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
