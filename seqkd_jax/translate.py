"""Sentences in, n-best out, in the original order: for distillation, evaluation, benchmarks and the command line alike.

Sentences are read a chunk at a time, sorted by length within it, and decoded in batches whose shape (rows, source
width, steps) follows from the sentence alone: what comes out does not depend on neighbours or on how work was split.
No sentence is dropped or merged: an empty one gives an empty translation without being decoded, and one that is longer
than every bucket gets a bucket of its own, a power of two wider. A search is compiled once for each shape that occurs;
parameters are arguments, so every checkpoint of one model shares its programs.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from io import TextIOBase
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from seqkd_jax.base import BOS, EOS, PAD, Hypotheses, Translator, UserError
from seqkd_jax.config import SearchConfig
from seqkd_jax.search import DECODERS, attended, length_limits, sequence_log_probs
from seqkd_jax.vocab import replace_unknown

Ids = Sequence | np.ndarray
Item = TypeVar("Item")
SOURCE_BUCKETS = (8, 16, 24, 32, 48, 64, 96, 128)  # widths, EOS included


class Hypothesis(NamedTuple):
    """One translation of one sentence."""

    tokens: list[int]  # ids without EOS
    text: str
    score: float  # log-probability under the length rule, nats
    log_prob: float  # plain sum, nats
    finished: bool  # False: cut at the length limit


class Translation(NamedTuple):
    """A line and its hypotheses, best first: at least one, at most the beam (fewer where fewer are possible)."""

    source: str
    hypotheses: list[Hypothesis]

    @property
    def text(self) -> str:
        """The best hypothesis."""
        return self.hypotheses[0].text


class Shape(NamedTuple):
    """The static shape of a program."""

    rows: int
    width: int  # of the source (when scoring: of the target too), EOS included
    steps: int  # the longest translation, EOS included


def translate_ids(
    translator: Translator,
    params,
    sentences: Iterable[Ids],
    config: SearchConfig,
    *,
    decoder: str = "beam",
    source_buckets: Sequence[int] = SOURCE_BUCKETS,
    batch_tokens: int = 1024,
    chunk: int = 2048,
    progress: Callable[[int], object] | None = None,
) -> Iterator[Hypotheses]:
    """The n-best list of each sentence: Hypotheses of NumPy arrays [K,T], [K], [K], [K]; T varies with the sentence.

    Sentences are source ids that end with EOS. An empty one (nothing, or EOS alone) gives one empty hypothesis of
    score 0. batch_tokens: source positions in a batch, padding included; rows = batch_tokens / width, at least 1.
    chunk: sentences read ahead, to be sorted by length. progress is told how many were done, batch by batch.
    Raises UserError for rules that make no sense, and for NaN scores.
    """
    options = (decoder, source_buckets, batch_tokens, chunk, progress)
    for hypotheses, _ in _translate(translator, params, sentences, config, *options, attention=False):
        yield hypotheses


def translate_lines(
    translator: Translator,
    params,
    vocabularies,
    lines: Iterable[str],
    config: SearchConfig,
    *,
    n_best: int | None = None,
    unknown_from_source: bool = False,
    dictionary: Mapping[str, str] | None = None,
    decoder: str = "beam",
    source_buckets: Sequence[int] = SOURCE_BUCKETS,
    batch_tokens: int = 1024,
    chunk: int = 2048,
    progress: Callable[[int], object] | None = None,
) -> Iterator[Translation]:
    """The translations of lines of text, one for each line, in order; line ends are removed.

    n_best: keep so many hypotheses of the beam; None: all. unknown_from_source: each <unk> becomes the source word that
    it attends to most, or that word's entry in `dictionary` (see vocab.replace_unknown); UserError if the vocabulary is
    not of words or the model has no attention. Other options as in `translate_ids`.
    """
    waiting: deque[str] = deque()  # read, not yet yielded

    def encoded() -> Iterator[list[int]]:
        for line in lines:
            line = line.rstrip("\r\n")
            waiting.append(line)
            yield [*vocabularies.source.encode(line), EOS]

    options = (decoder, source_buckets, batch_tokens, chunk, progress)
    results = _translate(translator, params, encoded(), config, *options, attention=unknown_from_source)
    for hypotheses, positions in results:
        source = waiting.popleft()
        texts = []
        for slot in range(len(hypotheses.scores))[:n_best]:
            if hypotheses.scores[slot] == -np.inf:
                break  # no more hypotheses are possible
            ids = without_ends(hypotheses.tokens[slot])
            if unknown_from_source and ids:
                text = replace_unknown(vocabularies, source, ids, positions[slot, : len(ids)].tolist(), dictionary)
            else:
                text = vocabularies.target.decode(ids)
            numbers = float(hypotheses.scores[slot]), float(hypotheses.log_probs[slot]), bool(hypotheses.finished[slot])
            texts.append(Hypothesis(ids, text, *numbers))
        yield Translation(source, texts)


def force_score(
    translator: Translator,
    params,
    pairs: Iterable[tuple[Ids, Ids]],
    *,
    buckets: Sequence[int] = SOURCE_BUCKETS,
    batch_tokens: int = 1024,
    chunk: int = 2048,
    progress: Callable[[int], object] | None = None,
) -> Iterator[float]:
    """log p(target | source) in nats, EOS included, for each pair in order. Sources end with EOS, targets do not.

    No pair is dropped; an empty target has the probability of EOS. Divide the sum by the sum of len(target) + 1 for the
    token mean over a corpus.
    """
    params = _on_one_device(params)

    def shape_of(pair) -> Shape:
        width = _width(max(len(pair[0]), len(pair[1]) + 1), buckets)
        return Shape(_rows(width, batch_tokens), width, width)

    def run(shape: Shape, batch):
        sources, targets = zip(*batch, strict=True)
        labels = [[*target, EOS] for target in targets]
        target_in = _padded([[BOS, *target] for target in targets], shape)
        weights = _padded([np.ones(len(row)) for row in labels], shape).astype(np.float32)
        arrays = _padded(sources, shape, EOS), target_in, _padded(labels, shape), weights
        return _compiled_score(translator, shape)(params, *arrays)

    size = lambda pair: (len(pair[0]), len(pair[1]))  # noqa: E731
    for result in _in_order(pairs, size, shape_of, run, chunk, progress):
        yield float(result)


def compile_searches(
    translator: Translator,
    params,
    sentences: Iterable[Ids],
    config: SearchConfig,
    *,
    decoder: str = "beam",
    source_buckets: Sequence[int] = SOURCE_BUCKETS,
    batch_tokens: int = 1024,
) -> float:
    """Compile what `translate_ids` will need for these sentences, for a benchmark to keep it out; returns seconds."""
    start = time.perf_counter()
    params = _on_one_device(params)
    shapes = {_search_shape(len(ids), config, source_buckets, batch_tokens) for ids in sentences if len(ids) > 1}
    for shape in sorted(shapes):
        arrays = _search_arrays(config, shape, [])  # fill rows only: compiled, and done after no step
        jax.block_until_ready(_compiled_search(translator, config, decoder, shape, False)(params, *arrays))
    return time.perf_counter() - start


def compiled_searches() -> int:
    """How many search programs this process has made: one for each (model, rules, decoder, shape)."""
    return _compiled_search.cache_info().currsize


def without_ends(tokens: np.ndarray) -> list[int]:
    """The ids of one hypothesis [T] without EOS and PAD."""
    return tokens[(tokens != PAD) & (tokens != EOS)].tolist()


def write_text(translations: Iterable[Translation], stream: TextIOBase) -> int:
    """The best hypothesis of each line on a line of its own, as they come; returns the number of lines."""
    count = 0
    for translation in translations:
        stream.write(" ".join(translation.text.splitlines()) + "\n")  # a line break inside would shift all that follow
        count += 1
    return count


def write_jsonl(translations: Iterable[Translation], stream: TextIOBase, first_line: int = 1) -> int:
    """One object a line: {"line", "source", "hypotheses": [{"text", "score", "log_prob", "finished"}, ...]}.

    Returns their number. Lines count from first_line; hypotheses are best first, their scores in nats.
    """
    count = 0
    for count, (source, hypotheses) in enumerate(translations, start=1):
        rows = [{name: getattr(h, name) for name in ("text", "score", "log_prob", "finished")} for h in hypotheses]
        row = {"line": first_line + count - 1, "source": source, "hypotheses": rows}
        stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
    return count


def _translate(
    translator, params, sentences, config, decoder, source_buckets, batch_tokens, chunk, progress, *, attention
) -> Iterator[tuple[Hypotheses, np.ndarray | None]]:
    """(Hypotheses [K,...], attended positions [K,T] or None) of each sentence, in order."""
    if decoder not in DECODERS:
        raise UserError(f"translate: no decoder is called {decoder!r}; there are {', '.join(sorted(DECODERS))}")
    params = _on_one_device(params)

    def run(shape: Shape, batch):
        search = _compiled_search(translator, config, decoder, shape, attention)
        return search(params, *_search_arrays(config, shape, batch))

    def shape_of(ids) -> Shape | None:
        return _search_shape(len(ids), config, source_buckets, batch_tokens) if len(ids) > 1 else None

    results = _in_order(sentences, len, shape_of, run, chunk, progress)
    for number, result in enumerate(results, start=1):
        hypotheses, positions = result or (_empty(1 if decoder == "greedy" else config.beam), None)
        if np.isnan(hypotheses.scores).any():
            raise UserError(
                f"translate: sentence {number} has NaN scores; the weights are damaged, use another checkpoint"
            )
        yield hypotheses, positions


def _in_order(
    items: Iterable[Item],
    size: Callable[[Item], Any],
    shape_of: Callable[[Item], Shape | None],
    run: Callable[[Shape, list[Item]], Any],
    chunk: int,
    progress: Callable[[int], object] | None,
) -> Iterator[Any]:
    """One result for each item, in order, made in batches of one shape and similar size; no shape: the result is None.

    run dispatches a batch and returns arrays with a leading axis of rows; all batches of a chunk are dispatched before
    the first is waited for, which keeps the device busy.
    """
    items = iter(items)
    while present := list(islice(items, chunk)):
        groups: dict[Shape | None, list[int]] = {}
        for index in sorted(range(len(present)), key=lambda i: size(present[i])):
            groups.setdefault(shape_of(present[index]), []).append(index)
        results: list[Any] = [None] * len(present)
        without_shape = groups.pop(None, [])
        running = []
        for shape, members in groups.items():
            for first in range(0, len(members), shape.rows):
                batch = members[first : first + shape.rows]
                running.append((batch, run(shape, [present[i] for i in batch])))
        for batch, output in running:
            output = jax.device_get(output)
            for row, index in enumerate(batch):
                results[index] = jax.tree.map(lambda leaf, row=row: leaf[row], output)
            if progress:
                progress(len(batch))
        if progress and without_shape:
            progress(len(without_shape))
        yield from results


@cache
def _compiled_search(translator: Translator, config: SearchConfig, decoder: str, shape: Shape, attention: bool):
    """(params, source, min_length, max_length) -> (Hypotheses, attended positions [B,K,T] or None), one program."""
    decode = DECODERS[decoder](translator, config, shape.steps)

    def search(params, source, min_length, max_length):
        hypotheses = decode(params, source, min_length, max_length)
        return hypotheses, attended(translator, params, source, hypotheses.tokens) if attention else None

    return jax.jit(search)


@cache
def _compiled_score(translator: Translator, shape: Shape):
    del shape  # one program a shape, as above
    return jax.jit(partial(sequence_log_probs, translator))


def _search_shape(length: int, config: SearchConfig, source_buckets: Sequence[int], batch_tokens: int) -> Shape:
    width = _width(length, source_buckets)
    steps = int(length_limits(config, np.array([width - 1]))[1][0])
    return Shape(_rows(width, batch_tokens), width, steps)


def _width(length: int, buckets: Sequence[int]) -> int:
    """The narrowest bucket that holds the length; beyond the widest, that one doubled until it does."""
    fitting = [width for width in buckets if width >= length]
    width = min(fitting) if fitting else max(buckets)
    while width < length:
        width *= 2
    return width


def _rows(width: int, batch_tokens: int) -> int:
    return max(1, batch_tokens // width)


def _search_arrays(config: SearchConfig, shape: Shape, sentences: Sequence[Ids]):
    """(source [B,S], min_length [B], max_length [B]); fill rows are an EOS with room for no token."""
    shortest, longest = np.zeros((2, shape.rows), np.int32)
    n = len(sentences)
    shortest[:n], longest[:n] = length_limits(config, np.array([len(ids) - 1 for ids in sentences]))
    return _padded(sentences, shape, EOS), shortest, longest


def _padded(rows: Sequence[Ids], shape: Shape, fill: int = PAD) -> np.ndarray:
    """int32 [rows, width], PAD on the right; rows that are missing begin with `fill`."""
    array = np.full((shape.rows, shape.width), PAD, np.int32)
    array[len(rows) :, 0] = fill
    for row, ids in zip(array, rows, strict=False):
        row[: len(ids)] = ids
    return array


def _empty(beam: int) -> Hypotheses:
    """The translation of an empty sentence: one empty hypothesis, certain."""
    only = np.arange(beam) == 0
    scores = np.where(only, 0.0, -np.inf).astype(np.float32)
    return Hypotheses(np.full((beam, 1), PAD, np.int32), scores, scores, only)


def _on_one_device(params):
    """Weights that are replicated, or still in NumPy, as arrays of the first device: moved once, one program each."""
    return jax.device_put(params, jax.local_devices()[0])
