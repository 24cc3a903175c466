"""What the tests of training share: a model, settings and batches that are trained in a moment, a run, and a kill."""

import functools
import itertools

import jax
import numpy as np

from seqkd_jax import checkpoint, models
from seqkd_jax.config import LSTMConfig, OptimiserConfig, TrainConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.data.batches import Position
from seqkd_jax.training import loop, train_step
from seqkd_jax.types import BOS, Batch

V, ROWS, S, T = 11, 6, 5, 4
MODEL = models.build(LSTMConfig(layers=2, size=8, dropout=0.3), V, V)
SGD = OptimiserConfig(name="sgd", learning_rate=0.5, schedule="constant", warmup_steps=0, clip_norm=1.0)
CONFIG = TrainConfig(optimiser=SGD, epochs=2, devices=1, log_every=1, seed=3)


def batch(seed):
    rng = np.random.default_rng(seed)
    source, labels = rng.integers(3, V, (ROWS, S)), rng.integers(3, V, (ROWS, T))
    target_in = np.concatenate([np.full((ROWS, 1), BOS), labels[:, :-1]], axis=1)
    weights = (np.arange(T) < rng.integers(1, T + 1, (ROWS, 1))).astype(np.float32)
    return Batch((source.astype(np.int32), target_in.astype(np.int32)), labels.astype(np.int32), weights)


def assert_close(found, expected, message):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-6, atol=3e-6, err_msg=message)


def stream(position, bad=None):
    """Three batches an epoch, a function of the position; `bad` names an update whose weights are infinite."""
    epoch, index = position
    while True:
        after = Position(epoch, index + 1) if index < 2 else Position(epoch + 1, 0)
        made = batch(10 * epoch + index)
        yield after, made._replace(weights=np.full_like(made.weights, np.inf)) if bad == 3 * epoch + index + 1 else made
        epoch, index = after


def killed_at(batches, index):
    """The same batches, and in the place of number `index`, counted from 0, a kill."""

    def until(position):
        yield from itertools.islice(batches(position), index)
        raise KeyboardInterrupt

    return until


VOCABULARIES = vocabulary.words([f"w{index}" for index in range(V - 4)])
save = functools.partial(
    checkpoint.save, model_config=LSTMConfig(layers=2, size=8, dropout=0.3), vocabularies=VOCABULARIES
)


def validate(params):
    return {"loss": float(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(params)))}


def fit(directory, config=CONFIG, data=stream, *, validate=validate, save=save, **options):
    return loop.fit(MODEL, loop.Data(data, 3), config, directory, validate=validate, save=save, **options)


def final(directory, config=CONFIG):
    """The training state that a run left."""
    return checkpoint.load_state(directory / "last", jax.eval_shape(lambda: train_step.start_state(MODEL, config)))
