"""Forced passes over given translations, in batches: their log-probabilities, and the attention of their tokens."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from io import TextIOBase

import jax
import numpy as np

from seqkd_jax.decoding.buckets import FORCED_BUCKETS, Ids, Shape, in_order, padded, rows_of, width_of
from seqkd_jax.decoding.search import attention_weights, sequence_log_probs
from seqkd_jax.decoding.translator import Translation
from seqkd_jax.types import BOS, EOS, System, Translator
from seqkd_jax.utils import devices, files, programs


def force_score(
    translator: Translator,
    params,
    pairs: Iterable[tuple[Ids, Ids]],
    *,
    buckets: Sequence[int] = FORCED_BUCKETS,
    batch_tokens: int = 1024,
    chunk: int = 2048,
    progress: Callable[[int], object] | None = None,
    count: int = 0,
) -> Iterator[float]:
    """log p(target | source) in nats, EOS included, for each pair in order. Sources end with EOS, targets do not.

    No pair is dropped; an empty target has the probability of EOS. The mean over the tokens of a corpus is the sum of
    the results divided by the sum of len(target) + 1. count: devices of this process that share the work, 0: all.
    UserError: a side of more than 4,096 ids.
    """
    ready = devices.on_each(params, devices.local(count))

    def shape_of(pair) -> Shape:
        width = width_of(max(len(pair[0]), len(pair[1]) + 1), buckets)
        return Shape(rows_of(width, batch_tokens), width, width)

    def run(shape: Shape, batch, device: int):
        sources, targets = zip(*batch, strict=True)
        labels = [[*target, EOS] for target in targets]
        target_in = padded([[BOS, *target] for target in targets], shape)
        weights = padded([np.ones(len(row)) for row in labels], shape).astype(np.float32)
        arrays = padded(sources, shape, EOS), target_in, padded(labels, shape), weights
        return _compiled_score(translator, shape)(ready[device], *arrays)

    size = lambda pair: (len(pair[0]), len(pair[1]))  # noqa: E731
    for result in in_order(pairs, size, shape_of, run, chunk, progress, devices=len(ready)):
        yield float(result)


def force_attention(
    translator: Translator,
    params,
    pairs: Iterable[tuple[Ids, Ids]],
    *,
    layer: int | None = None,
    heads: tuple[int, ...] | None = None,
    buckets: Sequence[int] = FORCED_BUCKETS,
    batch_tokens: int = 1024,
    chunk: int = 2048,
) -> Iterator[np.ndarray]:
    """The attention weights [len(target), len(source)] of each pair, in order; a row sums to 1.

    Sources end with EOS, targets too if it was produced. layer, heads: as in search.attention_weights, from 1.
    """
    ready = devices.on_each(params, devices.local(0))

    def shape_of(pair) -> Shape:
        width = width_of(max(map(len, pair)), buckets)
        return Shape(rows_of(width, batch_tokens), width, width)

    def run(shape: Shape, batch, device: int):
        sources, targets = zip(*batch, strict=True)
        weights = _compiled_attention(translator, layer, heads, shape)
        extents = np.zeros((2, shape.rows), np.int32)
        extents[:, : len(batch)] = [list(map(len, side)) for side in (targets, sources)]
        return weights(ready[device], padded(sources, shape, EOS), padded(targets, shape)), *extents

    size = lambda pair: (len(pair[0]), len(pair[1]))  # noqa: E731
    for weights, height, width in in_order(pairs, size, shape_of, run, chunk, None, devices=len(ready)):
        yield weights[:height, :width]


def record_attention(
    system: System,
    translations: Iterable[Translation],
    stream: TextIOBase,
    *,
    layer: int | None = None,
    heads: tuple[int, ...] | None = None,
    buckets: Sequence[int] = FORCED_BUCKETS,
    batch_tokens: int = 1024,
    chunk: int = 2048,
) -> Iterator[Translation]:
    """Pass translations on unchanged, and write the attention of each best hypothesis, one JSON object a line.

    {"line", "source": pieces, "target": pieces, "weights": [[...]]}: a row for each target piece; EOS is the piece
    `</s>`. The weights are those of a forced pass, whatever decoder chose the hypotheses; layer and heads as in
    `force_attention`.
    """
    vocabularies = system.vocabularies
    waiting: deque[tuple[Translation, list[str], list[str]]] = deque()  # read, not yet yielded

    def pairs() -> Iterator[tuple[list[int], list[int]]]:
        for translation in translations:
            best, end = translation.hypotheses[0], vocabularies.target.entries[EOS]
            source = [*vocabularies.source.encode(translation.source), EOS]
            target = [*best.tokens, EOS] if best.finished else best.tokens
            names = [vocabularies.target.entries[piece] for piece in target]
            waiting.append((translation, [*vocabularies.source.split(translation.source), end], names))
            yield source, target

    matrices = force_attention(
        system.translator,
        system.params,
        pairs(),
        layer=layer,
        heads=heads,
        buckets=buckets,
        batch_tokens=batch_tokens,
        chunk=chunk,
    )
    for line, weights in enumerate(matrices, start=1):
        translation, source, target = waiting.popleft()
        rows = weights.astype(np.float64).round(6).tolist()
        stream.write(files.json_line({"line": line, "source": source, "target": target, "weights": rows}))
        yield translation


@cache
def _compiled_score(translator: Translator, shape: Shape):
    score = jax.jit(partial(sequence_log_probs, translator))
    return programs.announced(score, lambda *_: f"the scores for width {shape.width}")


@cache
def _compiled_attention(translator: Translator, layer: int | None, heads: tuple[int, ...] | None, shape: Shape):
    def weights(params, source, targets):
        return attention_weights(translator, params, source, targets[:, None], layer=layer, heads=heads)[:, 0]

    return programs.announced(jax.jit(weights), lambda *_: f"the attention for width {shape.width}")
