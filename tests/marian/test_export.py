"""The compiled parts of all models lower for TPU and CUDA, with no such device here."""

import jax
import jax.export
import numpy as np
import pytest

from seqkd_jax import models
from seqkd_jax.config import (
    CNNConfig,
    LSTMConfig,
    MLPConfig,
    OptimiserConfig,
    SearchConfig,
    SequenceLSTMConfig,
    SequenceTransformerConfig,
    TrainConfig,
    TransformerConfig,
)
from seqkd_jax.decoding.search import DECODERS, Request
from seqkd_jax.training import train_step
from seqkd_jax.types import Batch

V, B, S, T = 19, 4, 6, 5
PLATFORMS = "tpu", "cuda"
TRANSLATORS = {
    "lstm": LSTMConfig(layers=2, size=8),
    "transformer": TransformerConfig(encoder_layers=1, decoder_layers=1, width=8, heads=2, feed_forward=16),
}
READERS = {
    "sequence_lstm": SequenceLSTMConfig(layers=1, size=8, reads="every"),
    "sequence_transformer": SequenceTransformerConfig(layers=1, width=8, heads=2, feed_forward=16, reads="last"),
    "cnn": CNNConfig((4, 4, 4), (4, 4, 4), groups=2),
    "mlp": MLPConfig((8, 4)),
}


def abstract(*shape, dtype=np.int32):
    return jax.ShapeDtypeStruct(shape, dtype)


def inputs_and_labels(kind):
    """A batch's inputs, and how many labels a row has."""
    if kind in TRANSLATORS:
        return (abstract(1, 1, B, S), abstract(1, 1, B, T)), T
    if kind in ("cnn", "mlp"):
        return abstract(1, 1, B, 28, 28, dtype=np.uint8), 1
    return abstract(1, 1, B, S), S if READERS[kind].reads == "every" else 1


@pytest.mark.parametrize("kind", [*TRANSLATORS, *READERS])
def test_the_training_step_exports(kind):
    """Word-KD with a teacher and a moving average: all there is in an update."""
    model = models.build((TRANSLATORS | READERS)[kind], V, V)
    config = TrainConfig(optimiser=OptimiserConfig(clip_norm=1.0))
    devices = tuple(jax.local_devices()[:1])
    update = train_step.make_update(model, "word_kd", train_step.static_rule(config.optimiser), True, model, devices)
    state = jax.eval_shape(lambda: train_step.start_state(model, config))
    state = state._replace(average=state.params)
    inputs, count = inputs_and_labels(kind)
    labels, weights = abstract(1, 1, B, count), abstract(1, 1, B, count, dtype=np.float32)
    arguments = state, Batch(inputs, labels, weights), abstract(1, 1, B), train_step.settings(config, 1e-3)
    exported = jax.export.export(jax.jit(update), platforms=PLATFORMS)(*arguments, state.params)
    assert set(exported.platforms) == set(PLATFORMS)
    assert [leaf.shape for leaf in exported.out_avals[1:3]] == [leaf.shape for leaf in jax.tree.leaves(state)[1:3]]


@pytest.mark.parametrize("decoder", ["beam", "engine", "sample"])
@pytest.mark.parametrize("kind", TRANSLATORS)
def test_the_search_exports(kind, decoder):
    model = models.build(TRANSLATORS[kind], V, V)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    search = jax.jit(DECODERS[decoder](model, SearchConfig(beam=3), T))
    draws = jax.ShapeDtypeStruct((B, 2), np.uint32)
    request = Request(abstract(B, S), abstract(B), abstract(B), abstract(B, 2), draws)
    exported = jax.export.export(search, platforms=PLATFORMS)(params, request)
    assert set(exported.platforms) == set(PLATFORMS)
    assert [leaf.shape for leaf in exported.out_avals] == [(B, 3, T), (B, 3), (B, 3), (B, 3)]
