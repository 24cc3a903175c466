"""Translate ids or lines of text: one n-best list for each sentence, in order.

No sentence is dropped or merged. An empty one gives an empty translation without a search. One that is longer than
every bucket gets a bucket of its own, wider by a power of two. A search is compiled once for each shape that occurs;
parameters are arguments, so the checkpoints of one model share its programs.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import zip_longest
from typing import Annotated, Any, NamedTuple, get_args

import jax
import numpy as np

from seqkd_jax.config import ONE_TRANSLATION, Devices, Overlong, Positive, SearchConfig, Tokens
from seqkd_jax.data.tokenizers import Vocabulary
from seqkd_jax.decoding.buckets import (
    LONGEST,
    SOURCE_BUCKETS,
    Ids,
    Shape,
    in_order,
    padded,
    rows_of,
    width_of,
)
from seqkd_jax.decoding.search import DECODERS, POOLS, Request, attended, length_limits
from seqkd_jax.decoding.unknown import replace_unknown, require_words
from seqkd_jax.types import EOS, PAD, Hypotheses, System, Translator, UserError
from seqkd_jax.utils import devices, programs
from seqkd_jax.utils.progress import log
from seqkd_jax.utils.settings import Range, Settings

PREFIX_BUCKETS = (0, 4, 16)


@dataclass(frozen=True)
class Decoding(Settings):
    """How sentences are decoded: the rules, the decoder, the shapes of batches."""

    search: SearchConfig = SearchConfig()
    """The rules."""
    decoder: str = "engine"
    """An entry of search.DECODERS."""
    source_buckets: tuple[Annotated[int, Range(1, LONGEST)], ...] = SOURCE_BUCKETS
    """Widths that sources are padded to, EOS included; beyond the widest, its doubles."""
    batch_tokens: Tokens = 1024
    """Source positions decoded at a time, padding included: rows = batch_tokens / width, at least 1."""
    chunk: Positive = 2048
    """Sentences read ahead, to be sorted by length."""
    devices: Devices = 0
    """Devices of this process that share the work, 0: all. The results are the same."""


class Hypothesis(NamedTuple):
    """One translation of one sentence."""

    tokens: list[int]  # ids without EOS
    text: str
    score: float  # log-probability under the length rule, nats
    log_prob: float  # plain sum, nats
    finished: bool  # False: cut at the length limit


class Translation(NamedTuple):
    """A line and its hypotheses, best first: from one to the beam (fewer than the beam where fewer exist)."""

    source: str
    hypotheses: list[Hypothesis]

    @property
    def text(self) -> str:
        """The text of the best hypothesis."""
        return self.hypotheses[0].text


class Sentence(NamedTuple):
    """A sentence to translate."""

    number: int  # its place in the input, from 0
    ids: Ids  # with EOS
    prefix: Ids  # ids that its translation begins with


def translate_ids(
    translator: Translator,
    params,
    sentences: Iterable[Ids],
    decoding: Decoding,
    *,
    prefixes: Iterable[Ids] | None = None,
    progress: Callable[[int], object] | None = None,
) -> Iterator[Hypotheses]:
    """The n-best list of each sentence: Hypotheses of NumPy arrays [K,T], [K], [K], [K]; T varies with the sentence.

    params: those of the model, or from `prepare`. Sentences are source ids that end with EOS; an empty one (no ids, or
    EOS alone) gives one empty hypothesis of score 0. prefixes: for each sentence target ids that its translation
    begins with; they count towards score and length. progress: called with the number of sentences of each finished
    batch. UserError: invalid rules, an unknown decoder, a sentence of more than 4,096 ids, NaN scores.
    """
    numbered = _numbered(sentences, prefixes, 0)
    for hypotheses, _ in _translate(translator, params, numbered, decoding, progress, False, 0):
        yield hypotheses


def translate_lines(
    system: System,
    lines: Iterable[str],
    decoding: Decoding,
    *,
    prefixes: Iterable[str] | None = None,
    n_best: int | None = None,
    unknown_from_source: bool = False,
    dictionary: Mapping[str, str] | None = None,
    progress: Callable[[int], object] | None = None,
    first: int = 0,
    overlong: Overlong = "fail",
) -> Iterator[Translation]:
    """The translations of lines of text, one for each line, in order; line ends are removed.

    prefixes: for each line a text that its translation begins with. n_best: hypotheses kept of each beam; None: all.
    unknown_from_source: each <unk> becomes the source word that it attends to most, or that word's entry in
    `dictionary` (see `unknown`); UserError if the vocabulary is not of words or the model has no attention. progress:
    as in `translate_ids`. first: the number of the first line, from 0; errors name lines by it, samples depend on it.
    overlong: a line of more than 4,096 tokens is an error, which follows the translations of the lines before it; or it
    gets an empty translation, and a warning.
    """
    translator, params, vocabularies = system
    require_overlong(overlong)
    if unknown_from_source:
        require_words(vocabularies)
    waiting: deque[str] = deque()  # read, not yet yielded

    def encoded() -> Iterator[list[int]]:
        for number, line in enumerate(lines, start=first + 1):
            line = line.rstrip("\r\n")
            waiting.append(line)
            ids = [*vocabularies.source.encode(line), EOS]
            if len(ids) > LONGEST:
                if overlong == "fail":
                    raise UserError(f"{_too_long(number, line, len(ids))}; split it, or give --overlong empty")
                log(f"{_too_long(number, line, len(ids))}: its translation is empty")
                ids = [EOS]
            yield ids

    given = None if prefixes is None else (vocabularies.target.encode(text.rstrip("\r\n")) for text in prefixes)
    sentences = _numbered(encoded(), given, first)
    results = _translate(translator, params, sentences, decoding, progress, unknown_from_source, first)
    for hypotheses, positions in results:
        source = waiting.popleft()
        texts = []
        for slot in range(len(hypotheses.scores))[:n_best]:
            if hypotheses.scores[slot] == -np.inf:
                break  # no more hypotheses are possible
            ids = without_ends(hypotheses.tokens[slot])
            if positions is not None and ids:
                text = replace_unknown(vocabularies, source, ids, positions[slot, : len(ids)].tolist(), dictionary)
            else:
                text = vocabularies.target.decode(ids)
            numbers = float(hypotheses.scores[slot]), float(hypotheses.log_probs[slot]), bool(hypotheses.finished[slot])
            texts.append(Hypothesis(ids, text, *numbers))
        yield Translation(source, texts)


def require_overlong(overlong: str) -> None:
    """UserError unless it says what becomes of a line that is too long."""
    if overlong not in get_args(Overlong):
        raise UserError(f"overlong is {overlong!r}: it must be one of {', '.join(get_args(Overlong))}")


def overlong_lines(vocabulary: Vocabulary, lines: Iterable[str]) -> list[int]:
    """The places, from 0, of the lines that are too long to be translated."""
    # No normalisation of Unicode makes UTF-8 text more than 11 times as long, and a token has a byte at least.
    sized = ((place, line, len(line.encode("utf-8", "surrogatepass"))) for place, line in enumerate(lines))
    long = ((place, line) for place, line, size in sized if 11 * (size + 1) > LONGEST)
    return [place for place, line in long if len(vocabulary.encode(line)) + 1 > LONGEST]


def require_translatable(vocabulary: Vocabulary, lines: Sequence[str], of: str, remedy: str) -> None:
    """UserError if a line is too long to be translated. of: what the lines are; remedy: what to do about such a one."""
    found = overlong_lines(vocabulary, lines)
    if found:
        count = len(vocabulary.encode(lines[found[0]])) + 1
        more = f" (and {len(found) - 1:,} more lines)" if len(found) > 1 else ""
        raise UserError(f"{of}, {_too_long(found[0] + 1, lines[found[0]], count)}{more}; {remedy}")


def _too_long(number: int, line: str, count: int) -> str:
    return f"line {number} ({line[:30]!r} …) has {count:,} tokens, more than {LONGEST:,}"


class Prepared(NamedTuple):
    """Parameters ready for decoding, with what Translator.prepare adds to them."""

    params: tuple[Any, ...]  # on each device


def prepare(translator: Translator, params, count: int = 0) -> Prepared:
    """Prepare parameters for decoding on `count` devices of this process, 0: all.

    The functions here do it themselves; before many short calls, do it once.
    """
    if isinstance(params, Prepared):
        return params
    chosen = devices.of_a_thread_each(devices.local(count))
    ready = _compiled_preparation(translator)(jax.device_put(params, chosen[0]))
    return Prepared(devices.on_each(ready, chosen))


@cache
def _compiled_preparation(translator: Translator):
    return programs.announced(jax.jit(translator.prepare), lambda _: "the preparation of the weights")


def compile_searches(translator: Translator, params, sentences: Iterable[Ids], decoding: Decoding) -> float:
    """Compile the programs that `translate_ids` needs for these sentences; returns the seconds that it took."""
    start = time.perf_counter()
    ready = prepare(translator, params, decoding.devices)
    for shape in sorted({shape for shape, _ in requests(sentences, decoding)}):
        request = _request(decoding.search, shape, [])  # fill rows only: the program ends before its first step
        search = _search(translator, decoding, shape, False)
        jax.block_until_ready([search(own, request) for own in ready.params])
    return time.perf_counter() - start


def requests(sentences: Iterable[Ids], decoding: Decoding) -> list[tuple[Shape, Request]]:
    """Every search of `translate_ids` for these sentences: its shape and what it is given beside the parameters."""
    found = []

    def note(shape: Shape, batch, device: int):
        found.append((shape, _request(decoding.search, shape, batch)))
        return ()

    deque(_in_batches(_numbered(sentences, None, 0), decoding, note), maxlen=0)
    return found


def compiled_searches() -> int:
    """The number of search programs made in this process: one for each (model, rules, decoder, shape)."""
    return _compiled_search.cache_info().currsize


def without_ends(tokens: np.ndarray) -> list[int]:
    """The ids of one hypothesis [T] without EOS and PAD."""
    return tokens[(tokens != PAD) & (tokens != EOS)].tolist()


def _translate(
    translator, params, sentences: Iterable[Sentence], decoding: Decoding, progress, attention: bool, first: int
) -> Iterator[tuple[Hypotheses, np.ndarray | None]]:
    """(Hypotheses [K,...], attended positions [K,T] or None) of each sentence, in order."""
    decoding.validate()
    decoder = decoding.decoder
    if decoder not in DECODERS:
        raise UserError(f"translate: no decoder is called {decoder!r}; there are {', '.join(sorted(DECODERS))}")
    ready = prepare(translator, params, decoding.devices)

    def run(shape: Shape, batch, device: int):
        request = _request(decoding.search, shape, batch)
        return _search(translator, decoding, shape, attention)(ready.params[device], request)

    results = _in_batches(sentences, decoding, run, progress, first, len(ready.params))
    for number, result in enumerate(results, start=first + 1):
        hypotheses, positions = result or (_empty(1 if decoder in ONE_TRANSLATION else decoding.search.beam), None)
        if np.isnan(hypotheses.scores).any():
            raise UserError(
                f"translate: sentence {number} has NaN scores; the weights are damaged, use another checkpoint"
            )
        if hypotheses.scores[0] == -np.inf:
            raise UserError(
                f"translate: the rules allow no translation of sentence {number}; lower --min-length-a or "
                "--min-length-b"
            )
        yield hypotheses, positions


def _in_batches(sentences: Iterable[Sentence], decoding: Decoding, run: Callable, *how):
    """`buckets.in_order` of sentences. how: progress, first, devices."""
    size = lambda sentence: (len(sentence.ids),)  # noqa: E731
    shape_of = lambda sentence: _search_shape(sentence, decoding)  # noqa: E731
    return in_order(sentences, size, shape_of, run, decoding.chunk, *how)


def _numbered(sentences: Iterable[Ids], prefixes: Iterable[Ids] | None, first: int) -> Iterator[Sentence]:
    if prefixes is None:
        yield from (Sentence(number, ids, ()) for number, ids in enumerate(sentences, start=first))
        return
    for number, (ids, prefix) in enumerate(zip_longest(sentences, prefixes), start=first):
        if ids is None or prefix is None:
            missing = "sentence" if ids is None else "prefix"
            raise UserError(
                f"translate: there is no {missing} {number + 1}; give one prefix for each sentence, empty for none"
            )
        yield Sentence(number, ids, prefix)


def _search(translator: Translator, decoding: Decoding, shape: Shape, attention: bool):
    """The compiled search. The seed of samples is in the request, so all seeds share one program."""
    return _compiled_search(translator, replace(decoding.search, sample_seed=0), decoding.decoder, shape, attention)


@cache
def _compiled_search(translator: Translator, config: SearchConfig, decoder: str, shape: Shape, attention: bool):
    """(params, Request) -> (Hypotheses, attended positions [B,K,T] or None), one program on each device."""
    slots = {"slots": shape.slots} if decoder in POOLS else {}
    decode = DECODERS[decoder](translator, config, shape.steps, **slots)

    def search(params, request: Request):
        hypotheses = decode(params, request)
        return hypotheses, attended(translator, params, request.source, hypotheses.tokens) if attention else None

    return programs.announced(jax.jit(search), lambda *_: f"the search for width {shape.width}")


def _search_shape(sentence: Sentence, decoding: Decoding) -> Shape | None:
    """The shape of a sentence's search; None for an empty sentence. UserError: its prefix leaves no room."""
    config, length, given = decoding.search, len(sentence.ids), len(sentence.prefix)
    if given and (length < 2 or given >= length_limits(config, np.array([length - 1]))[1][0]):
        remedy = "is empty: leave" if length < 2 else "allows no more: raise max_length_a or max_length_b, or leave"
        raise UserError(
            f"translate: sentence {sentence.number + 1} has a prefix of {given} tokens but {remedy} the prefix out"
        )
    if length < 2:
        return None
    width = width_of(length, decoding.source_buckets)
    steps = int(length_limits(config, np.array([width - 1]))[1][0])
    slots = rows_of(width, decoding.batch_tokens)
    if decoding.decoder in POOLS and config.beam == 1 and slots > 1:
        slots *= 2  # a step of so few rows is bound by reading the weights
    return Shape(slots * POOLS.get(decoding.decoder, 1), width, steps, width_of(given, PREFIX_BUCKETS), slots)


def _request(config: SearchConfig, shape: Shape, sentences: Sequence[Sentence]) -> Request:
    """The sentences as arrays; a fill row is EOS alone with maximum length 0."""
    shortest, longest = np.zeros((2, shape.rows), np.int32)
    draws = np.zeros((shape.rows, 2), np.uint32)
    n = len(sentences)
    shortest[:n], longest[:n] = length_limits(config, np.array([len(sentence.ids) - 1 for sentence in sentences]))
    draws[:, 0], draws[:n, 1] = config.sample_seed, [sentence.number for sentence in sentences]
    source = padded([sentence.ids for sentence in sentences], shape, EOS)
    prefix = np.full((shape.rows, shape.prefix), PAD, np.int32)
    for row, sentence in zip(prefix, sentences, strict=False):
        row[: len(sentence.prefix)] = sentence.prefix
    return Request(source, shortest, longest, prefix, draws)


def _empty(beam: int) -> Hypotheses:
    """The translation of an empty sentence: one empty hypothesis of probability 1."""
    only = np.arange(beam) == 0
    scores = np.where(only, 0.0, -np.inf).astype(np.float32)
    return Hypotheses(np.full((beam, 1), PAD, np.int32), scores, scores, only)
