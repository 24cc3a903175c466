"""The teacher cache: a fixed teacher's features, computed once for a corpus, before training.

Word-KD reads the teacher's distribution at every label in every epoch. The teacher has neither dropout nor updates, so
its features (the head's input, E numbers a label; its logits would be V) are the same each time: after one pass only
its head runs in the training step. The update is the same to rounding.
"""

import functools
from collections.abc import Callable
from itertools import pairwise

import jax
import numpy as np

from seqkd_jax.data.batches import Encoded, Plan, eval_batches, labels_of
from seqkd_jax.training.train_step import Teacher
from seqkd_jax.types import Model, Translator
from seqkd_jax.utils import programs, progress

GIBIBYTE = 2**30


def size(teacher: Teacher, encoded: Encoded, plan: Plan) -> int:
    """Bytes that the features of all labels take."""
    params = members(teacher)
    _, batch = next(eval_batches(encoded, plan))
    features = jax.eval_shape(model_of(teacher).features, params[0], batch.inputs, None)
    return len(params) * int(labels_of(encoded).sum()) * features.shape[-1] * features.dtype.itemsize


def with_features(teacher: Teacher, encoded: Encoded, plan: Plan, name: str, kept_as: str = "") -> Encoded:
    """The corpus with the teacher's features beside it, [T,E] a sentence; of one teacher a replica [T,R,E].

    All are views of one array. Compiled once for a model and a shape. kept_as: a hash of teacher, corpus and plan: the
    features stay in memory for the next run of this process that gives the same; "": they do not stay.
    """
    ends = np.cumsum([0, *labels_of(encoded)])
    if kept_as in _kept:
        cache = _kept[kept_as]
    else:
        _kept.clear()  # first, since there may be no room for two
        cache = _computed(teacher, encoded, plan, ends, name)
        if kept_as:
            _kept[kept_as] = cache
    return encoded._replace(teacher_features=[cache[start:end] for start, end in pairwise(ends)])


_kept: dict[str, np.ndarray] = {}  # one at most


def _computed(teacher: Teacher, encoded: Encoded, plan: Plan, ends: np.ndarray, name: str) -> np.ndarray:
    """The features of all labels, those of a sentence between its two ends."""
    compute, on_device = _compiled_features(model_of(teacher)), jax.device_put(members(teacher))
    cache = np.empty(0)
    with progress.counter(len(encoded.targets), f"{name}: teacher's features", "sentences") as advance:
        for rows, batch in eval_batches(encoded, plan):
            of_each = [np.asarray(compute(params, batch.inputs)) for params in on_device]
            features = np.stack(of_each, axis=-2) if teacher.each else of_each[0]
            if not cache.size:
                cache = np.empty((ends[-1], *features.shape[2:]), features.dtype)
            for place, row in enumerate(rows):
                cache[ends[row] : ends[row + 1]] = features[place, : ends[row + 1] - ends[row]]
            advance(len(rows))
    return cache


def model_of(teacher: Teacher) -> Model | Translator:
    """Its model, which a teacher has until all that is read of it is in the batches."""
    assert teacher.model is not None, "nothing more can be computed of this teacher"
    return teacher.model


def members(teacher: Teacher) -> list:
    """The parameters of each teacher."""
    if not teacher.each:
        return [teacher.params]
    count = len(jax.tree.leaves(teacher.params)[0])
    return [jax.tree.map(lambda leaf, place=place: leaf[place], teacher.params) for place in range(count)]


@functools.cache
def _compiled_features(model: Model | Translator) -> Callable:
    features = jax.jit(lambda params, inputs: model.features(params, inputs, None))
    return programs.announced(features, lambda _, inputs: f"the teacher's features for {programs.shapes(inputs)}")
