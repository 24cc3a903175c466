"""What the work needs, whoever does it: arithmetic and bytes; and what our batches waste of it.

Counted on our model's traced programs at the mean sentence of the work, so that all systems are held to one number: the
encoder once a sentence, then for each target token one step of K hypotheses and the product with the vocabulary. Bytes
are those that must be read: weights once a batch in the encoder and once a step, memory and past states once a step.
Top-k, softmax, cache writes and reordering count nothing: they are what a decoder is free to make cheap.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from experiments.benchmarks.decoding.systems import Job, System, ours
from seqkd_jax.checkpoint import Checkpoint
from seqkd_jax.config import SearchConfig
from seqkd_jax.utils import performance


class Needed(NamedTuple):
    """Over all sentences of the work."""

    flops: float
    bytes: float


def needed(
    model: Checkpoint, source_tokens: Sequence[int], target_tokens: Sequence[int], beam: int, rows: int
) -> Needed:
    """What translating sentences of these lengths (EOS included) takes in batches of `rows`."""
    sentences = len(source_tokens)
    width, steps = round(np.mean(source_tokens)), float(np.mean(target_tokens))
    rows = min(rows, sentences)
    encode = partial(_encode, model.model, math.ceil(steps / 2))  # of the past, half is there on average
    source = jax.ShapeDtypeStruct((rows, width), np.int32)
    memory, state = jax.eval_shape(encode, model.params, source)
    state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((rows, beam, *leaf.shape[1:]), leaf.dtype), state)
    token = jax.ShapeDtypeStruct((rows, beam), np.int32)
    step = partial(_step, model.model), model.params, token, memory, state
    start = encode, model.params, source
    batches = sentences / rows
    flops = performance.count_flops(*start) + steps * performance.count_flops(*step)
    read = performance.bytes_read(*start) + steps * performance.bytes_read(*step)
    return Needed(batches * flops, batches * read)


def _encode(translator, steps, params, source):
    return translator.start(params, source, steps)


def _step(translator, params, token, memory, state):
    features, *_ = translator.step(params, token, memory, state, None)
    return translator.head(params, features)


def padding_waste(jobs: Sequence[Job], sentences: Sequence[Sequence[int]]) -> float | None:
    """The share of the source positions that are padding; None: the system does not tell."""
    positions = sum(job.positions for job in jobs)
    return 1 - sum(map(len, sentences)) / positions if positions else None


class Steps(NamedTuple):
    """Rows that were stepped, summed over the steps of the loop."""

    computed: int
    needed: int  # what the sentences need when each is decoded alone

    @property
    def waste(self) -> float:
        """The share that was spent on rows that had finished, or that only fill the batch."""
        return 1 - self.needed / self.computed


def steps(model: Checkpoint, decoder: str, sentences: Sequence, rows: int, rules: SearchConfig) -> Steps | None:
    """How many rows one of our decoders steps, counted by a program of its own as it runs; None: it cannot tell."""
    alone = _stepped(ours("beam", _counting(model)), sentences, 1, rules)
    together = _stepped(ours(decoder, _counting(model)), sentences, rows, rules)
    return Steps(together, alone) if together >= alone > 0 else None


_rows_stepped = [0]  # a callback has nowhere else to count to


def _counting(model: Checkpoint) -> Checkpoint:
    """The model, whose step tells how many rows it computes."""

    def add(rows: int) -> None:
        _rows_stepped[0] += rows

    def step(params, token, *arguments):
        jax.debug.callback(partial(add, token.shape[0]))
        return model.model.step(params, token, *arguments)

    return model._replace(model=model.model._replace(step=step))


def _stepped(system: System, sentences: Sequence, rows: int, rules: SearchConfig) -> int:
    jax.effects_barrier()
    _rows_stepped[0] = 0
    for job in system.prepare(sentences, rows, rules):
        system.run(job)
    jax.effects_barrier()
    return _rows_stepped[0]
