"""What a model says of examples: decisions, penultimate vectors, confidence at every label, and what it would teach.

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
from seqkd_jax import batches
from seqkd_jax.base import Model
from seqkd_jax.config import BatchConfig
from seqkd_jax.models.layers import read_positions

BATCH = BatchConfig(tokens=0, sentences=256, buckets=3)  # of decisions
CHUNK = 1024  # examples whose distributions over the vocabulary are held at a time


class Labels(NamedTuple):
    """What a model says at the labels of N examples."""

    nats: np.ndarray  # float64 [N], summed over an example's labels
    count: np.ndarray  # int [N] labels
    confidence: np.ndarray  # [M] probability of the most probable class at every label of every example
    correct: np.ndarray  # bool [M] whether that was the label


class SoftTargets(NamedTuple):
    """What a model would teach at the labels of examples."""

    entropy: np.ndarray  # [M] nats, of its distribution at every label of every example
    right: np.ndarray  # bool [M] whether the label is its most probable class


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


def at_labels(model: Model, params, encoded: batches.Encoded, config: BatchConfig, shapes) -> Labels:
    """Loss and confidence at every label of a corpus; config, shapes: of training, to share its shapes."""
    plan = batches.make_plan(encoded, config, shapes)
    count = batches.labels_of(encoded)
    nats = np.zeros(len(count))
    confidence, correct = [], []
    for rows, batch in batches.eval_batches(encoded, plan):
        values = [np.asarray(value)[: len(rows)] for value in _measures(model)(params, batch)]
        real = np.asarray(batch.weights)[: len(rows)] > 0
        nats[rows] = (values[0].astype(np.float64) * real).sum(axis=1)
        confidence.append(values[1][real])
        correct.append(values[2][real])
    return Labels(nats, count, np.concatenate(confidence), np.concatenate(correct))


def soft_targets(
    model: Model, params, encoded: batches.Encoded, config: BatchConfig, shapes, temperature: float, dropout: bool
) -> SoftTargets:
    """The model's distributions, its logits divided by `temperature`, at the labels; config, shapes: of training.

    dropout: with its dropout on, as one draw of it.
    """
    plan = batches.make_plan(encoded, config, shapes)
    entropy, right = [], []
    for index, (_, batch) in enumerate(batches.eval_batches(encoded, plan)):
        keys = jax.random.split(jax.random.key(index), len(batch.labels)) if dropout else None
        found, correct = _entropy(model)(params, batch, keys, np.float32(temperature))
        real = batch.weights > 0
        entropy.append(np.asarray(found)[real])
        right.append(np.asarray(correct)[real])
    return SoftTargets(np.concatenate(entropy), np.concatenate(right))


@functools.cache
def _reader(model: Model) -> Callable:
    def read(params, inputs):
        features = model.features(params, inputs, None)
        return features[:, 0] if features.shape[1] == 1 else read_positions(features, inputs, "last")[:, 0]

    return jax.jit(read)


@functools.cache
def _log_probs(model: Model) -> Callable:
    return jax.jit(lambda params, features: jax.nn.log_softmax(model.head(params, features)))


@functools.cache
def _measures(model: Model) -> Callable:
    def measures(params, batch):
        log_probs = jax.nn.log_softmax(model.head(params, model.features(params, batch.inputs, None)))
        nats = -jnp.take_along_axis(log_probs, batch.labels[..., None], axis=-1)[..., 0]
        return nats, jnp.exp(log_probs.max(axis=-1)), log_probs.argmax(axis=-1) == batch.labels

    return jax.jit(measures)


@functools.cache
def _entropy(model: Model) -> Callable:
    def entropy(params, batch, keys, temperature):
        logits = model.head(params, model.features(params, batch.inputs, keys)) / temperature
        log_probs = jax.nn.log_softmax(logits)
        return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1), logits.argmax(axis=-1) == batch.labels

    return jax.jit(entropy)
