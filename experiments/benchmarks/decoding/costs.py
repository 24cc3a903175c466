"""What the work needs, whoever does it: FLOPs, and bytes that must be read.

Counted on our model's traced programs at the mean sentence of the work, so that all systems are held to one number: the
encoder once a sentence, then for each target token one step of K hypotheses and the product with the vocabulary. Bytes:
weights once a batch in the encoder and once a step, memory and past states once a step. Top-k, softmax, cache writes
and reordering count nothing, since a decoder is free to make them cheap.
"""

import math
from collections.abc import Sequence
from functools import partial

import jax
import numpy as np

from seqkd_jax.checkpoint import Checkpoint
from seqkd_jax.utils import performance


def needed(
    model: Checkpoint, source_tokens: Sequence[int], target_tokens: Sequence[int], beam: int, rows: int
) -> tuple[float, float]:
    """(FLOPs, bytes) to translate sentences of these lengths (EOS included) in batches of `rows`."""
    sentences = len(source_tokens)
    width, steps = round(np.mean(source_tokens)), float(np.mean(target_tokens))
    rows = min(rows, sentences)
    encode = partial(_encode, model.model, math.ceil(steps / 2))  # of the past, half is there on average
    source = jax.ShapeDtypeStruct((rows, width), np.int32)
    memory, state = jax.eval_shape(encode, model.params, source)
    state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((rows, beam, *leaf.shape[1:]), leaf.dtype), state)
    token = jax.ShapeDtypeStruct((rows, beam), np.int32)
    step, start = (partial(_step, model.model), model.params, token, memory, state), (encode, model.params, source)
    count = lambda of: sentences / rows * (of(*start) + steps * of(*step))  # noqa: E731
    return count(performance.count_flops), count(performance.bytes_read)


def _encode(translator, steps, params, source):
    return translator.start(params, source, steps)


def _step(translator, params, token, memory, state):
    features, *_ = translator.step(params, token, memory, state, None)
    return translator.head(params, features)
