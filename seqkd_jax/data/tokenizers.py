"""The kinds of vocabularies: each has functions from text to ids and back, and the bytes of its file.

To add a kind: a function here that gives a Vocabulary, its name in VocabularyConfig, its line in `learn` and `load`.
"""

import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from seqkd_jax.config import VocabularyConfig
from seqkd_jax.types import BOS, EOS, PAD, UNK, UserError
from seqkd_jax.utils import files, progress

SPECIALS = ("<pad>", "<unk>", "<s>", "</s>")  # in the order of their ids


class Added(NamedTuple):
    """A token that was added to Marian's vocabulary after training, and is found whole wherever it stands."""

    text: str
    special: bool = False  # in decoded text a space follows it
    lstrip: bool = False  # spaces before it are dropped
    rstrip: bool = False  # spaces behind it are dropped
    single_word: bool = False  # only between spaces


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
    added: tuple[Added, ...] = ()  # of Marian's: entries that are found whole


# Subwords


def train_sentencepiece(lines: Iterable[str], config: VocabularyConfig) -> bytes:
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
            character_coverage=config.character_coverage,
            byte_fallback=config.byte_fallback,
            # Text comes back as it was, but for runs of spaces: BLEU is counted on it.
            normalization_rule_name="identity",
            max_sentence_length=1 << 16,  # bytes; longer lines teach nothing
            num_threads=1,
            minloglevel=2,
            unk_surface=SPECIALS[UNK],
            pad_id=PAD,
            unk_id=UNK,
            bos_id=BOS,
            eos_id=EOS,
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split()).rpartition("] ")[2]  # after the place in their source
        if needed := re.search(r"required_chars\. \d+ vs (\d+)", reason):
            raise UserError(
                f"vocabulary size {config.size}: the special entries and the characters of the text are "
                f"{needed[1]} already{', 256 bytes counted' * config.byte_fallback}; raise --vocab.size, or lower "
                "--vocab.character-coverage"
            ) from None
        raise UserError(f"vocabulary size {config.size}, {config.algorithm}: sentencepiece failed: {reason}") from None
    return model.getvalue()


def _processor(data: bytes) -> Any:
    """A sentencepiece model, which the constructor would take for none if it were empty; RuntimeError if damaged."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(data)
    return processor


def subwords(name: str, data: bytes) -> Vocabulary:
    """That of a sentencepiece model; UserError if its special ids are others, RuntimeError if it is damaged."""
    processor = _processor(data)
    size = processor.get_piece_size()
    ids = processor.pad_id(), processor.unk_id(), processor.bos_id(), processor.eos_id()
    if ids != (PAD, UNK, BOS, EOS):
        raise UserError(f"{name}: its special ids are {ids}; they must be {(PAD, UNK, BOS, EOS)}")

    def decode(tokens: Iterable) -> str:
        return processor.decode([int(token) for token in tokens if token not in (PAD, BOS, EOS)])

    def encode(out_type: type, line: str) -> list:
        return processor.encode(line, out_type=out_type) if line.strip() else []  # a blank line has no ids

    entries, fingerprint = tuple(processor.id_to_piece(list(range(size)))), files.sha256_bytes(data)
    return Vocabulary(name, size, partial(encode, int), decode, partial(encode, str), entries, data, fingerprint)


# Subwords that have the ids of a list


LANGUAGE = re.compile(r">>[^<>\s]+<<")  # how opus-mt names the target language at the beginning of a source


def mapped_subwords(name: str, data: bytes, entries: tuple[str, ...], added: tuple[Added, ...] = ()) -> Vocabulary:
    """One side of Marian's vocabularies; splits and joins text as transformers' MarianTokenizer does.

    The names of special entries in a text are text, not these entries. A language token that is not read as one is
    told once.
    """
    if entries[: len(SPECIALS)] != SPECIALS:
        raise UserError(f"{name}: its entries must begin with {' '.join(SPECIALS)}, not {' '.join(entries[:4])}")
    try:
        processor = _processor(data)
    except RuntimeError:
        raise UserError(f"{name}: not a sentencepiece model; copy the file again") from None
    ids = {piece: index for index, piece in enumerate(entries) if piece not in SPECIALS}
    if unknown := [token.text for token in added if token.text not in ids]:
        raise UserError(f"{name}: the added token {unknown[0]!r} is not among the entries; import the model again")
    specials = {ids[token.text] for token in added if token.special}
    languages = [name for name in ids if LANGUAGE.fullmatch(name)]
    whole = {token.text: token for token in added}
    longest_first = re.compile(f"({'|'.join(sorted(map(re.escape, whole), key=len, reverse=True))})")
    told: list[str] = []  # the language token that was warned of

    def pieces(text: str) -> list[str]:
        end = text.find("<<") + 2 if text.startswith(">>") and "<<" in text else 0
        first, rest = text[:end], text[end:]  # first: >>language<<
        if "<<" in text and not told:
            unknown = bool(first) and first not in ids
            unread = first if unknown else next((name for name in languages if name in rest), "")
            if unread:
                told.append(unread)
                progress.log(_not_read_as_language(unread, unknown, languages))
        return [*([first] if first else []), *processor.encode(rest, out_type=str)]

    def split(line: str) -> list[str]:
        if not line.strip():
            return []
        parts = _split_at_added(longest_first.split(line), whole) if whole else [line]
        return [piece for part in parts for piece in ([part] if part in whole else pieces(part))]

    def encode(line: str) -> list[int]:
        return [ids.get(piece, UNK) for piece in split(line)]

    def decode(tokens: Iterable) -> str:
        text, found = "", []
        for token in (int(token) for token in tokens if token not in (PAD, BOS, EOS)):
            if token == UNK or token in specials:
                text, found = f"{text}{processor.decode_pieces(found)}{entries[token]} ", []
            else:
                found.append(entries[token])
        return (text + processor.decode_pieces(found)).replace("\u2581", " ").strip()

    of_added = [list(map(list, added))] if added else []  # without any the fingerprint is that of older versions
    fingerprint = files.sha256_json([files.sha256_bytes(data), entries, *of_added])
    return Vocabulary(name, len(entries), encode, decode, split, entries, data, fingerprint, added)


def _split_at_added(parts: list[str], added: Mapping[str, Added]) -> list[str]:
    """A line that was cut at added tokens, after the options of these, as transformers' PreTrainedTokenizer has them.

    A single_word beside other text is no token: it stays with the text on its left, or else with that on its right.
    """
    parts = [part for part in parts if part]
    for place, part in enumerate(parts):  # of the list as it is by then
        if part not in added:
            continue
        token = added[part]
        left, right = parts[place - 1] if place else "", parts[place + 1] if place + 1 < len(parts) else ""
        if token.rstrip and right:
            parts[place + 1] = right.lstrip()
        if token.lstrip and left:
            parts[place - 1] = left.rstrip()
        if token.single_word and left and left[-1] != " ":
            parts[place - 1 : place + 1] = parts[place - 1] + part, ""
        elif token.single_word and right and right[0] != " ":
            parts[place : place + 2] = "", part + parts[place + 1]
    return [part for part in parts if part]


def _not_read_as_language(token: str, unknown: bool, languages: list[str]) -> str:
    """The warning about a language token that the model does not know, or that does not begin its line."""
    if not unknown:
        return f"{token} stands inside a line and is read as text: a language token must be the first of its line"
    known = f"it knows {', '.join(languages[:10])}" if languages else "it knows none, leave it out"
    more = f" and {len(languages) - 10:,} more" if len(languages) > 10 else ""
    return f"{token[:40]!r} begins a line, but the model has no such language token and reads <unk>: {known}{more}"


# Words


def most_frequent(lines: Iterable[str], split: Callable[[str], list[str]], size: int) -> list[str]:
    """The special entries and the most frequent words; of equally frequent ones the first by code point."""
    counts = Counter(word for line in _some(lines) for word in split(line) if word not in SPECIALS)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return [*SPECIALS, *ranked[: size - len(SPECIALS)]]


def word_list(name: str, entries: list[str], config: VocabularyConfig) -> Vocabulary:
    """That of these words, SPECIALS first; what is none of them is UNK."""
    if tuple(entries[: len(SPECIALS)]) != SPECIALS or len(set(entries)) != len(entries):
        raise UserError(f"{name}: must begin with {' '.join(SPECIALS)} and hold no word twice")
    split = tokenizer(config.tokenizer)
    # A special entry's name in running text is an unknown word: no text may write an EOS into a sentence.
    ids = {word: index for index, word in enumerate(entries) if word not in SPECIALS}
    data = _one_a_line(name, entries)

    def encode(line: str) -> list[int]:
        return [ids.get(word, UNK) for word in split(line)]

    def decode(tokens: Iterable) -> str:
        return " ".join(entries[token] for token in tokens if token not in (PAD, BOS, EOS))

    fingerprint = files.sha256_json([config.tokenizer, entries])
    return Vocabulary(name, len(entries), encode, decode, split, tuple(entries), data, fingerprint)


def class_list(name: str, entries: list[str]) -> Vocabulary:
    """That of classes: their ids are their places, no entry is special."""
    if len(set(entries)) != len(entries):
        raise UserError(f"{name}: holds a class twice")
    ids = {label: index for index, label in enumerate(entries)}
    data = _one_a_line(name, entries)

    def encode(line: str) -> list[int]:
        if line not in ids:
            raise UserError(f"{name}: no class named {line!r}; the classes are {', '.join(entries)}")
        return [ids[line]]

    def decode(tokens: Iterable) -> str:
        return " ".join(entries[int(token)] for token in tokens)

    fingerprint = files.sha256_json(["labels", entries])
    return Vocabulary(name, len(entries), encode, decode, lambda line: [line], tuple(entries), data, fingerprint)


def _one_a_line(name: str, entries: list[str]) -> bytes:
    """The content of a file of entries. UserError for one that would be two lines of it."""
    broken = next((entry for entry in entries if "\n" in entry), None)
    if broken is not None:
        raise UserError(
            f"{name}: {broken!r} has a line break inside, and its file has an entry a line; make it one line"
        )
    return "".join(f"{entry}\n" for entry in entries).encode("utf-8")


def tokenizer(name: str) -> Callable[[str], list[str]]:
    """One line -> words. The names beside `pretokenised` are sacrebleu's tokenizers."""
    if name == "refuse_raw":
        raise UserError(
            "a vocabulary of words needs tokenised text: set its tokenizer to `pretokenised` if spaces separate the "
            "words already, or to `13a`, `intl` or `char` to apply sacrebleu's"
        )
    if name == "pretokenised":
        return str.split
    from sacrebleu import BLEU

    tokenize, unknown = BLEU(tokenize=name).tokenizer, SPECIALS[UNK]

    def split(line: str) -> list[str]:
        # An unknown word of a teacher's output stays one, and is not taken apart into "<", "unk" and ">".
        if unknown not in line:
            return tokenize(line).split()
        parts = [tokenize(part).split() for part in re.split(rf"(?<!\S){re.escape(unknown)}(?!\S)", line)]
        return [word for part in parts for word in (unknown, *part)][1:]

    return split


def _some(lines: Iterable[str]) -> Iterable[str]:
    """The lines that are not blank; UserError if there is none."""
    found = False
    for line in lines:
        if line.strip():
            found = True
            yield line
    if not found:
        raise UserError("no text to learn a vocabulary from: every line is blank")
