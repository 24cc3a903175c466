"""A fixed teacher's features, computed once for a corpus; after batches, before training.

Word-KD reads the teacher's distribution at every label in every epoch. The teacher has neither dropout nor updates, so
its features (the head's input, E numbers a label; its logits would be V) are the same each time: after one pass only
its head runs in the training step. The update is the same to rounding.
"""

import functools
from collections.abc import Callable
from itertools import pairwise

import jax
import numpy as np

from seqkd_jax import progress
from seqkd_jax.base import Model, Translator
from seqkd_jax.batches import Encoded, Plan, eval_batches, eval_rows

GIBIBYTE = 2**30


def size(model: Model | Translator, params, encoded: Encoded, plan: Plan) -> int:
    """Bytes that the features of all labels take."""
    features = jax.eval_shape(model.features, params, next(eval_batches(encoded, plan)).inputs, None)
    return sum(len(target) + 1 for target in encoded.targets) * features.shape[-1] * features.dtype.itemsize


def with_features(model: Model | Translator, params, encoded: Encoded, plan: Plan, name: str) -> Encoded:
    """The corpus with the teacher's features beside it, all in one array. Compiled once for a model and a shape."""
    compute = _compiled_features(model)
    ends = np.cumsum([0, *(len(target) + 1 for target in encoded.targets)])
    kept = None
    with progress.counter(len(encoded.targets), f"{name}: teacher's features", "sentences") as advance:
        for batch, rows in zip(eval_batches(encoded, plan), eval_rows(plan), strict=True):
            features = np.asarray(compute(params, batch.inputs))
            if kept is None:
                kept = np.empty((ends[-1], features.shape[-1]), features.dtype)
            for place, row in enumerate(rows):
                kept[ends[row] : ends[row + 1]] = features[place, : ends[row + 1] - ends[row]]
            advance(len(rows))
    return encoded._replace(taught=[kept[start:end] for start, end in pairwise(ends)])


@functools.cache
def _compiled_features(model: Model | Translator) -> Callable:
    return jax.jit(lambda params, inputs: model.features(params, inputs, None))
