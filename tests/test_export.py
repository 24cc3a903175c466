"""The compiled parts of both models lower for TPU and CUDA, with no such device here."""

import jax
import jax.export
import numpy as np
import pytest

from seqkd_jax import models, train
from seqkd_jax.base import Batch
from seqkd_jax.config import LSTMConfig, OptimiserConfig, SearchConfig, TrainConfig, TransformerConfig
from seqkd_jax.search import Request, beam_search

V, B, S, T = 19, 4, 6, 5
PLATFORMS = "tpu", "cuda"
CONFIGS = {
    "lstm": LSTMConfig(layers=2, size=8),
    "transformer": TransformerConfig(encoder_layers=1, decoder_layers=1, width=8, heads=2, feed_forward=16),
}


def abstract(*shape, dtype=np.int32):
    return jax.ShapeDtypeStruct(shape, dtype)


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_training_step_exports(kind):
    """Word-KD with a teacher and a moving average: all there is in an update."""
    model = models.build(CONFIGS[kind], V, V)
    config = TrainConfig(optimiser=OptimiserConfig(clip_norm=1.0))
    devices = tuple(jax.local_devices()[:1])
    update = train.make_update(model, "word_kd", train.static_rule(config.optimiser), True, model, devices)
    state = jax.eval_shape(lambda: train.start_state(model, config))
    state = state._replace(average=state.params)
    source, target, weights = abstract(1, 1, B, S), abstract(1, 1, B, T), abstract(1, 1, B, T, dtype=np.float32)
    arguments = state, Batch((source, target), target, weights), abstract(1, 1, B), train.settings(config, 1e-3)
    exported = jax.export.export(jax.jit(update), platforms=PLATFORMS)(*arguments, state.params)
    assert set(exported.platforms) == set(PLATFORMS)
    assert [leaf.shape for leaf in exported.out_avals[1:3]] == [leaf.shape for leaf in jax.tree.leaves(state)[1:3]]


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_search_exports(kind):
    model = models.build(CONFIGS[kind], V, V)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    search = jax.jit(beam_search(model, SearchConfig(beam=3), T))
    draws = jax.ShapeDtypeStruct((B, 2), np.uint32)
    request = Request(abstract(B, S), abstract(B), abstract(B), abstract(B, 2), draws)
    exported = jax.export.export(search, platforms=PLATFORMS)(params, request)
    assert set(exported.platforms) == set(PLATFORMS)
    assert [leaf.shape for leaf in exported.out_avals] == [(B, 3, T), (B, 3), (B, 3), (B, 3)]
