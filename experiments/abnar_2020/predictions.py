"""What a model says of examples: decisions, penultimate vectors, and its distribution at every label.

Each function is compiled once for a model and a shape. What is [N] or [N,...] is in the order of the examples, what is
[M], one for each label, in that of the batches.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.abnar_2020.tasks import Test
from seqkd_jax.config import BatchConfig
from seqkd_jax.data import batches
from seqkd_jax.models.layers import read_positions
from seqkd_jax.types import Model
from seqkd_jax.utils import programs

BATCH = BatchConfig(tokens=0, sentences=256, buckets=3)  # of decisions
CHUNK = 1024  # examples whose distributions over the vocabulary are held at a time


class Labels(NamedTuple):
    """What a model says at the labels of N examples."""

    nats: np.ndarray  # float64 [N], summed over an example's labels
    count: np.ndarray  # int [N] labels
    confidence: np.ndarray  # [M] probability of the most probable class at every label of every example
    correct: np.ndarray  # bool [M] whether that was the label
    entropy: np.ndarray  # [M] nats, of the distribution at every label


def vectors(model: Model, params, encoded: batches.Encoded) -> np.ndarray:
    """Penultimate features [N,E]: of the last position that was read."""
    plan = batches.make_plan(encoded, BATCH)
    found = None
    for rows, batch in batches.eval_batches(encoded, plan):
        features = np.asarray(_reader(model)(params, batch.inputs))
        if found is None:
            found = np.empty((len(encoded.targets), features.shape[-1]), features.dtype)
        found[rows] = features[: len(rows)]
    return found


def decisions(model: Model, params, test: Test) -> np.ndarray:
    """The decision [N] on each example."""
    found, log_probs = vectors(model, params, test.encoded), _log_probs(model)
    chosen = np.empty(len(found), np.int64)
    for first in range(0, len(found), CHUNK):
        rows = slice(first, min(first + CHUNK, len(found)))
        part = np.zeros((CHUNK, found.shape[1]), found.dtype)
        part[: rows.stop - first] = found[rows]
        scores = np.asarray(log_probs(params, part))[: rows.stop - first]
        if isinstance(test.choices, tuple):
            scores = np.stack([np.logaddexp.reduce(scores[:, ids], axis=1) for ids in test.choices], axis=1)
        elif test.choices is not None:
            scores = np.take_along_axis(scores, test.choices[rows], axis=1)
        chosen[rows] = scores.argmax(axis=1)
    return chosen


def at_labels(
    model: Model,
    params,
    encoded: batches.Encoded,
    config: BatchConfig,
    shapes,
    temperature: float = 1.0,
    dropout: bool = False,
) -> Labels:
    """What the model's distributions, its logits divided by `temperature`, are at every label of a corpus.

    config, shapes: of training, to share its shapes. dropout: with the model's dropout on, one draw of it.
    """
    plan = batches.make_plan(encoded, config, shapes)
    count = batches.labels_of(encoded)
    nats = np.zeros(len(count))
    found = []
    for index, (rows, batch) in enumerate(batches.eval_batches(encoded, plan)):
        keys = jax.random.split(jax.random.key(index), len(batch.labels)) if dropout else None
        at, *others = map(np.asarray, _measures(model)(params, batch, keys, np.float32(temperature)))
        real = np.asarray(batch.weights) > 0
        nats[rows] = (at.astype(np.float64) * real).sum(axis=1)[: len(rows)]
        found.append([values[real] for values in others])
    return Labels(nats, count, *map(np.concatenate, zip(*found, strict=True)))


@functools.cache
def _reader(model: Model) -> Callable:
    def read(params, inputs):
        features = model.features(params, inputs, None)
        return features[:, 0] if features.shape[1] == 1 else read_positions(features, inputs, "last")[:, 0]

    return programs.announced(jax.jit(read), lambda _, inputs: f"the vectors for {programs.shapes(inputs)}")


@functools.cache
def _log_probs(model: Model) -> Callable:
    log_probs = jax.jit(lambda params, features: jax.nn.log_softmax(model.head(params, features)))
    return programs.announced(log_probs, lambda _, features: f"the distributions for {programs.shapes(features)}")


@functools.cache
def _measures(model: Model) -> Callable:
    def measures(params, batch, keys, temperature):
        logits = model.head(params, model.features(params, batch.inputs, keys)) / temperature
        log_probs = jax.nn.log_softmax(logits)
        nats = -jnp.take_along_axis(log_probs, batch.labels[..., None], axis=-1)[..., 0]
        entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
        return nats, jnp.exp(log_probs.max(axis=-1)), logits.argmax(axis=-1) == batch.labels, entropy

    return programs.announced(
        jax.jit(measures), lambda _, batch, *__: f"the measures for {programs.shapes(batch.labels)}"
    )
