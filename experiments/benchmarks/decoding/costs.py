"""What the work needs, whoever does it: FLOPs, and bytes that must be read.

Counted on our model's traced programs at the mean sentence of the work, so that all systems are held to one number: the
encoder once a sentence, then for each target token one step of K hypotheses and the product with the vocabulary. Bytes:
weights once a batch in the encoder and once a step, memory and past states once a step. Top-k, softmax, cache writes
and reordering count nothing, since a decoder is free to make them cheap.
"""

import math
from collections.abc import Sequence

import jax
import numpy as np

from experiments.core.dry_run import decoding_step
from seqkd_jax.checkpoint import Checkpoint
from seqkd_jax.utils import performance


def needed(
    model: Checkpoint, source_tokens: Sequence[int], target_tokens: Sequence[int], beam: int, rows: int
) -> tuple[float, float]:
    """(FLOPs, bytes) to translate sentences of these lengths (EOS included) in batches of `rows`."""
    sentences = len(source_tokens)
    width, steps = round(np.mean(source_tokens)), float(np.mean(target_tokens))
    rows = min(rows, sentences)
    source = jax.ShapeDtypeStruct((rows, width), np.int32)
    past = steps / 2  # half of it is there on average

    def count(of, places):
        step = decoding_step(model.model, model.params, source, beam, math.ceil(places))
        return sentences / rows * (of(model.model.start, model.params, source) + steps * of(*step))

    # A place has the entries of all hypotheses: all are read, and each hypothesis needs its own.
    return count(performance.count_flops, past / beam), count(performance.bytes_read, past)
