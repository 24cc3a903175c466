"""Sentence pairs, sequences and images as batches of few static shapes. NumPy only.

  examples  a corpus as ids, and the layout of its batches      shapes  the static shapes, chosen from the lengths alone

A batch holds sentences of one shape; missing rows are filled with weight 0. The order is a function of (data_seed,
epoch) and the place in it is a value, `Position`: save it, restore it, and the rest of the batches is the same.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from seqkd_jax.config import BatchConfig
from seqkd_jax.data import shaping
from seqkd_jax.data.corpus import Corpus
from seqkd_jax.data.examples import Encoded, classified, fingerprint, labels_of, lengths, make_batch, sequences
from seqkd_jax.data.shaping import Shape
from seqkd_jax.data.vocabulary import Vocabularies
from seqkd_jax.types import EOS, Batch, UserError
from seqkd_jax.utils import files

__all__ = [
    "START",
    "Dropped",
    "Encoded",
    "Plan",
    "Position",
    "Shape",
    "choice",
    "classified",
    "describe",
    "encode_corpus",
    "eval_batches",
    "few_shapes",
    "fingerprint",
    "labels_of",
    "make_batch",
    "make_plan",
    "padding_share",
    "sequences",
    "train_batches",
]


class Dropped(NamedTuple):
    """Counts of the pairs that were kept and dropped."""

    empty: int  # one side or both
    overlong: int
    kept: int

    def __str__(self) -> str:
        return f"{self.kept:,} pairs; dropped: {self.empty:,} empty, {self.overlong:,} overlong"


class Position(NamedTuple):
    """The place of the next batch."""

    epoch: int = 0  # from 0
    batch: int = 0  # within the epoch, from 0


START = Position()
FEW = 3  # shapes for a corpus that is read only a few times
SHOWN = 4  # shapes that are named one by one


class Plan(NamedTuple):
    """The shapes, and which sentence goes to which."""

    shapes: tuple[Shape, ...]  # from small to large
    buckets: np.ndarray  # [N] int32: index into shapes
    batches_per_epoch: int
    tokens: int  # source and target ids of all sentences, EOS counted
    rule: shaping.Rule = shaping.RULE


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
            f"{config.max_source} source or {config.max_target} target ids; raise "
            "--batch.max-source or --batch.max-target)"
        )
    weights = np.ones(len(rows), np.float32)
    if corpus.weights is not None:
        weights = np.asarray(corpus.weights, np.float32)[rows]
    return Encoded(sources, targets, weights), Dropped(empty, overlong, len(rows))


def make_plan(
    encoded: Encoded, config: BatchConfig, shapes: Sequence[Shape] | None = None, rule: shaping.Rule = shaping.RULE
) -> Plan:
    """Assign every sentence to a shape. Without `shapes`, those are chosen that need least work: `shaping.choose`.

    With `shapes` (those of training, for validation) no new ones are made, unless a sentence fits none: then one more.
    """
    config.validate()
    if not len(encoded.targets):
        raise UserError("no example to batch: the file is empty, or every example was dropped")
    source, target = lengths(encoded)
    chosen = shaping.choose(source, target, config, rule) if shapes is None else shaping.in_order(shapes)
    buckets = shaping.assign(source, target, chosen, rule)
    if (over := buckets < 0).any():
        chosen = shaping.in_order([*chosen, shaping.holding(source[over], target[over], config, rule)])
        buckets = shaping.assign(source, target, chosen, rule)
    counts = np.bincount(buckets, minlength=len(chosen))
    batches = sum(-(-int(count) // shape.rows) for count, shape in zip(counts, chosen, strict=True))
    return Plan(chosen, buckets, batches, int(source.sum() + target.sum()), rule)


def few_shapes(config: BatchConfig) -> BatchConfig:
    """For a corpus that is read only a few times, as in evaluation: where no number of shapes is given, FEW."""
    return config if config.buckets else dataclasses.replace(config, buckets=FEW)


def choice(plan: Plan) -> str:
    """SHA-256 of the shapes and of the rule by which sentences are assigned to them: with the corpus, all batches."""
    shapes = [list(shape) for shape in plan.shapes]
    return files.sha256_json(shapes if plan.rule == shaping.FORMER else [shapes, plan.rule._asdict()])


def padding_share(plan: Plan) -> float:
    """The share of source and target cells of an epoch that hold no id, filled rows included; in [0, 1)."""
    return 1 - plan.tokens / sum(shape.rows * (shape.source + shape.target) for shape, _ in _in_order(plan))


def describe(plan: Plan) -> str:
    """One line for the output: shapes (rows x source x target), batches, padding."""
    shapes = ["x".join(map(str, shape)) for shape in plan.shapes]
    shown = ", ".join(shapes) if len(shapes) <= SHOWN else f"from {shapes[0]} to {shapes[-1]}"
    return (
        f"{len(shapes)} batch shape(s) {shown} (rows x source x target); "
        f"{plan.batches_per_epoch:,} batches an epoch, {padding_share(plan):.1%} padding"
    )


def train_batches(
    encoded: Encoded, plan: Plan, config: BatchConfig, position: Position = START
) -> Iterator[tuple[Position, Batch]]:
    """An endless stream of batches from `position` on, each with the position after it. UserError: no such position."""
    epoch, start = position
    if not (epoch >= 0 and 0 <= start < plan.batches_per_epoch):
        raise UserError(
            f"{position}: no such position in the data, an epoch has {plan.batches_per_epoch} batches; "
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
