"""Sentence pairs, sequences and images as batches of few static shapes. NumPy only; between corpus and training.

Every shape costs one compilation, so there are few: at most `config.buckets`, chosen over the lengths of the corpus so
that the fewest cells are padding. A batch holds sentences of one shape; missing rows are filled with weight 0. The
order is a function of (data_seed, epoch) and the place in it is a value, `Position`: save it, restore it, and the rest
of the batches is the same.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from seqkd_jax.base import BOS, EOS, PAD, Batch, UserError
from seqkd_jax.config import BatchConfig
from seqkd_jax.corpus import Corpus
from seqkd_jax.vocab import Vocabularies

ROUND = 4  # widths of sequences are multiples of this
ROWS = 8  # rows under a budget of tokens are multiples of this
CANDIDATES = 24  # widths considered for each side


class Encoded(NamedTuple):
    """A corpus as ids."""

    sources: list[np.ndarray]  # ids, EOS at the end; or images [28,28]; of a language model nothing that is read
    targets: list[np.ndarray]  # ids without BOS and EOS, or one class
    weights: np.ndarray  # [N] float32
    # [T,E] each, or [T,R,E]: a teacher's, or R teachers', features at its T labels; see `recorded`
    teacher_features: list[np.ndarray] | None = None
    form: str = "pairs"  # of FORMS: what a batch of it looks like


def fingerprint(encoded: Encoded) -> str:
    """SHA-256 of all ids, their order, weights and form; not of what a teacher found."""
    digest = hashlib.sha256(encoded.form.encode())
    for arrays in (encoded.sources, encoded.targets, [encoded.weights]):
        for array in arrays:
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


class Dropped(NamedTuple):
    """What became of the pairs of a corpus."""

    empty: int  # one side or both
    overlong: int
    kept: int

    def __str__(self) -> str:
        return f"{self.kept:,} pairs; dropped: {self.empty:,} empty, {self.overlong:,} overlong"


class Shape(NamedTuple):
    """The static shape of a batch: one compilation."""

    rows: int  # B
    source: int  # S, EOS included
    target: int  # T, labels with EOS


class Position(NamedTuple):
    """The place of the next batch."""

    epoch: int = 0  # from 0
    batch: int = 0  # within the epoch, from 0


START = Position()


class Plan(NamedTuple):
    """The shapes, and which sentence goes to which."""

    shapes: tuple[Shape, ...]  # from small to large
    buckets: np.ndarray  # [N] int32: index into shapes
    batches_per_epoch: int
    tokens: int  # source and target ids of all sentences, EOS counted


def encode_corpus(
    corpus: Corpus, vocabularies: Vocabularies, config: BatchConfig, keep_all: bool = False
) -> tuple[Encoded, Dropped]:
    """Ids of the pairs that can be trained on, and the counts of the rest. keep_all: for evaluation, drop nothing.

    Lengths are counted in ids without BOS and EOS. UserError if no pair is left.
    """
    sources, targets, rows, empty, overlong = [], [], [], 0, 0
    for row, (source, target) in enumerate(zip(corpus.sources, corpus.targets, strict=True)):
        source_ids, target_ids = vocabularies.source.encode(source), vocabularies.target.encode(target)
        if not keep_all and not (source_ids and target_ids):
            empty += 1
        elif not keep_all and (len(source_ids) > config.max_source or len(target_ids) > config.max_target):
            overlong += 1
        else:
            sources.append(np.array([*source_ids, EOS], np.int32))
            targets.append(np.array(target_ids, np.int32))
            rows.append(row)
    if not rows:
        raise UserError(
            f"{corpus.name}: no usable pair left of {len(corpus.sources):,} ({empty:,} empty, {overlong:,} longer than "
            f"{config.max_source} source or {config.max_target} target ids: max_source, max_target)"
        )
    weights = np.ones(len(rows), np.float32)
    if corpus.weights is not None:
        weights = np.asarray(corpus.weights, np.float32)[rows]
    return Encoded(sources, targets, weights), Dropped(empty, overlong, len(rows))


def sequences(ids: Sequence[Sequence[int]]) -> Encoded:
    """Sequences of ids, without BOS and EOS, for a language model."""
    nothing = np.array([EOS], np.int32)
    targets = [np.asarray(sequence, np.int32) for sequence in ids]
    return Encoded([nothing] * len(targets), targets, np.ones(len(targets), np.float32), form="language_model")


def classified(inputs: Sequence[np.ndarray], classes: Sequence[int]) -> Encoded:
    """What a classifier reads, and the class of each: ids with what should stand at their end, or images [28,28].

    UserError without any example.
    """
    if not len(inputs):
        raise UserError("there is no example to classify: an empty file, or everything in it was left out")
    targets = [np.array([label], np.int32) for label in classes]
    form = "classes" if inputs[0].ndim == 1 else "images"
    return Encoded(list(inputs), targets, np.ones(len(targets), np.float32), form=form)


def make_plan(encoded: Encoded, config: BatchConfig, shapes: Sequence[Shape] | None = None) -> Plan:
    """Put every sentence into a shape. Without `shapes`, at most `config.buckets` are chosen that pad least.

    With `shapes` (those of training, for validation) no new ones are made, unless a sentence fits none: then one more.
    """
    _check(config)
    if not len(encoded.targets):
        raise UserError("there is no example to make batches of: an empty file, or everything in it was left out")
    source, target = _lengths(encoded)
    chosen = _choose_shapes(source, target, config) if shapes is None else _sorted(shapes)
    buckets = _smallest_fit(source, target, chosen)
    if (over := buckets < 0).any():
        chosen = _sorted([*chosen, _shape(int(_up(source[over]).max()), int(_up(target[over]).max()), config)])
        buckets = _smallest_fit(source, target, chosen)
    counts = np.bincount(buckets, minlength=len(chosen))
    batches = sum(-(-int(count) // shape.rows) for count, shape in zip(counts, chosen, strict=True))
    return Plan(chosen, buckets, batches, int(source.sum() + target.sum()))


def padding_share(plan: Plan) -> float:
    """The share of source and target cells of an epoch that hold no id, filled rows included; in [0, 1)."""
    return 1 - plan.tokens / sum(shape.rows * (shape.source + shape.target) for shape, _ in _in_order(plan))


def describe(plan: Plan) -> str:
    """One line for the output: shapes (rows x source x target), batches, padding."""
    shapes = ", ".join("x".join(map(str, shape)) for shape in plan.shapes)
    return (
        f"{len(plan.shapes)} batch shape(s) {shapes} (rows x source x target); "
        f"{plan.batches_per_epoch:,} batches an epoch, {padding_share(plan):.1%} padding"
    )


def train_batches(
    encoded: Encoded, plan: Plan, config: BatchConfig, position: Position = START
) -> Iterator[tuple[Position, Batch]]:
    """Batches without end from `position` on, each with the position after it. UserError: the plan has no such one."""
    epoch, start = position
    if not (epoch >= 0 and 0 <= start < plan.batches_per_epoch):
        raise UserError(
            f"{position}: no such place in the data, an epoch has {plan.batches_per_epoch} batches; "
            "it was saved with another corpus, vocabulary or batch configuration"
        )
    while True:
        order = _epoch_order(plan, config.data_seed, epoch)
        for index in range(start, len(order)):
            last = index + 1 == len(order)
            after = Position(epoch + 1, 0) if last else Position(epoch, index + 1)
            yield after, make_batch(encoded, *order[index])
        epoch, start = epoch + 1, 0


def eval_batches(encoded: Encoded, plan: Plan) -> Iterator[tuple[np.ndarray, Batch]]:
    """Every sentence once, shape by shape in the order of the corpus.

    With each batch the indices of its sentences, first row first; the rows after them are fill.
    """
    for shape, rows in _in_order(plan):
        yield rows, make_batch(encoded, shape, rows)


def make_batch(encoded: Encoded, shape: Shape, rows: np.ndarray) -> Batch:
    """These sentences in one batch, padded on the right. A row of fill has the source EOS and weight 0."""
    return FORMS[encoded.form].batch(encoded, shape, rows)


def _pairs(encoded: Encoded, shape: Shape, rows: np.ndarray) -> Batch:
    """(source [B,S], target_in [B,T]) and the target with EOS [B,T]."""
    language_model = _language_model(encoded, shape, rows)
    return language_model._replace(inputs=(_sources(encoded, shape, rows), language_model.inputs))


def _language_model(encoded: Encoded, shape: Shape, rows: np.ndarray) -> Batch:
    """BOS and the target [B,T]; the target and EOS [B,T]."""
    target_in, labels, weights = _empty(shape)
    target_in[:, 0] = BOS
    for place, row in enumerate(rows):
        y = encoded.targets[row]
        target_in[place, 1 : len(y) + 1] = y
        labels[place, : len(y)] = y
        labels[place, len(y)] = EOS
        weights[place, : len(y) + 1] = encoded.weights[row]
    return Batch(target_in, labels, weights, _teacher_features(encoded, shape, rows))


def _classes(encoded: Encoded, shape: Shape, rows: np.ndarray) -> Batch:
    """The source [B,S] and its class [B,1]."""
    return _with_class(encoded, shape, rows, _sources(encoded, shape, rows))


def _images(encoded: Encoded, shape: Shape, rows: np.ndarray) -> Batch:
    """The images [B,...] as they are, black ones as fill, and the class [B,1] of each."""
    fill = [np.zeros_like(encoded.sources[0])] * (shape.rows - len(rows))
    return _with_class(encoded, shape, rows, np.stack([encoded.sources[row] for row in rows] + fill))


def _with_class(encoded: Encoded, shape: Shape, rows: np.ndarray, inputs: np.ndarray) -> Batch:
    shape = shape._replace(target=1)
    _, labels, weights = _empty(shape)
    for place, row in enumerate(rows):
        labels[place], weights[place] = encoded.targets[row], encoded.weights[row]
    return Batch(inputs, labels, weights, _teacher_features(encoded, shape, rows))


class Form(NamedTuple):
    """What a batch of a corpus looks like. Features, and a teacher's, have the position axes of the labels."""

    batch: Callable[[Encoded, Shape, np.ndarray], Batch]
    predicts_eos: bool = False  # a label more than the target has ids
    fixed_inputs: bool = False  # inputs are of one size, which needs no width


FORMS = {
    "pairs": Form(_pairs, predicts_eos=True),
    "language_model": Form(_language_model, predicts_eos=True),
    "classes": Form(_classes),
    "images": Form(_images, fixed_inputs=True),
}


def labels_of(encoded: Encoded) -> np.ndarray:
    """The number of positions [N] that each sentence has labels for."""
    targets = np.fromiter(map(len, encoded.targets), np.int64, len(encoded.targets))
    return targets + FORMS[encoded.form].predicts_eos


def _sources(encoded: Encoded, shape: Shape, rows: np.ndarray) -> np.ndarray:
    source = np.full((shape.rows, shape.source), PAD, np.int32)
    source[len(rows) :, 0] = EOS
    for place, row in enumerate(rows):
        source[place, : len(encoded.sources[row])] = encoded.sources[row]
    return source


def _empty(shape: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Target in, labels and weights of a batch without sentences."""
    size = shape.rows, shape.target
    return np.full(size, PAD, np.int32), np.full(size, PAD, np.int32), np.zeros(size, np.float32)


def _teacher_features(encoded: Encoded, shape: Shape, rows: np.ndarray) -> np.ndarray | None:
    if encoded.teacher_features is None:
        return None
    first = encoded.teacher_features[0]
    found = np.zeros((shape.rows, shape.target, *first.shape[1:]), first.dtype)
    for place, row in enumerate(rows):
        found[place, : len(encoded.teacher_features[row])] = encoded.teacher_features[row]
    return found


def _epoch_order(plan: Plan, data_seed: int, epoch: int) -> list[tuple[Shape, np.ndarray]]:
    """The batches of an epoch: sentences shuffled, gathered by shape, batches shuffled."""
    random = np.random.default_rng((data_seed, epoch))
    batches = _in_order(plan, random.permutation(len(plan.buckets)))
    return [batches[index] for index in random.permutation(len(batches))]


def _in_order(plan: Plan, order: np.ndarray | None = None) -> list[tuple[Shape, np.ndarray]]:
    order = np.arange(len(plan.buckets)) if order is None else order
    batches = []
    for index, shape in enumerate(plan.shapes):
        rows = order[plan.buckets[order] == index]
        batches += [(shape, rows[start : start + shape.rows]) for start in range(0, len(rows), shape.rows)]
    return batches


def _smallest_fit(source: np.ndarray, target: np.ndarray, shapes: tuple[Shape, ...]) -> np.ndarray:
    """[N] int32: the first shape that holds each sentence, -1 if none does."""
    buckets = np.full(len(source), -1, np.int32)
    for index in reversed(range(len(shapes))):
        buckets[(source <= shapes[index].source) & (target <= shapes[index].target)] = index
    return buckets


def _choose_shapes(source: np.ndarray, target: np.ndarray, config: BatchConfig) -> tuple[Shape, ...]:
    """At most `config.buckets` nested shapes with the fewest cells in all batches, filled rows included.

    Dynamic programming over (source, target) widths: best[j] is the cost of all sentences that fit widths j, when j is
    the last of k shapes; the sentences between widths i and j cost whole batches of j's shape.
    """
    widths = [(s, t) for s in _candidates(source) for t in _candidates(target)]
    shapes = [_shape(s, t, config) for s, t in widths]
    s, t = np.array(widths).T
    inside = np.array([np.count_nonzero((source <= a) & (target <= b)) for a, b in widths])
    rows, cells = np.array([shape.rows for shape in shapes]), s + t
    nested = (s[:, None] <= s) & (t[:, None] <= t)
    step = -(-(inside - inside[:, None]) // rows) * rows * cells  # [i, j]: from i to j
    step = np.where(nested, step, np.inf)
    best, parents = -(-inside // rows) * rows * cells.astype(float), []
    costs = [best[-1]]  # the last candidate holds every sentence
    for _ in range(1, min(config.buckets, len(widths))):
        through = best[:, None] + step
        parents.append(through.argmin(0))
        best = through.min(0)
        costs.append(best[-1])
    last, chosen = len(widths) - 1, {len(widths) - 1}
    for parent in reversed(parents[: int(np.argmin(costs))]):
        last = int(parent[last])
        chosen.add(last)
    return _sorted(shapes[index] for index in chosen)


def _candidates(lengths: np.ndarray) -> list[int]:
    """Widths to consider: every multiple of ROUND that rounds a length, thinned by quantiles; the largest is in it."""
    widths = np.unique(_up(lengths))
    if len(widths) > CANDIDATES:
        widths = np.unique(_up(np.quantile(lengths, np.linspace(0, 1, CANDIDATES), method="higher")))
    return widths.tolist()


def _shape(source: int, target: int, config: BatchConfig) -> Shape:
    return Shape(config.sentences or max(config.tokens // target // ROWS * ROWS, ROWS), source, target)


def _sorted(shapes: Iterable[Shape]) -> tuple[Shape, ...]:
    """From small to large, so that the first that fits wastes least."""
    return tuple(sorted(set(shapes), key=lambda shape: (shape.source + shape.target, shape)))


def _up(lengths: np.ndarray) -> np.ndarray:
    """Multiples of ROUND; a side that is 1 everywhere (a class, an image, no source) is no sequence and stays 1."""
    return lengths if lengths.max() == 1 else -(-lengths // ROUND) * ROUND


def _lengths(encoded: Encoded) -> tuple[np.ndarray, np.ndarray]:
    """Widths that the sentences need: sources as they are, targets with EOS."""
    widths = (1 if FORMS[encoded.form].fixed_inputs else len(source) for source in encoded.sources)
    return np.fromiter(widths, np.int64, len(encoded.sources)), labels_of(encoded)


def _check(config: BatchConfig) -> None:
    if min(config.tokens, config.sentences) < 0 or (config.tokens > 0) == (config.sentences > 0):
        raise UserError(
            f"batch tokens {config.tokens} and sentences {config.sentences}: exactly one must be positive, the other 0"
        )
    if config.buckets < 1:
        raise UserError(f"buckets {config.buckets}: at least 1")
    if config.data_seed < 0:
        raise UserError(f"data_seed {config.data_seed}: must not be negative")
