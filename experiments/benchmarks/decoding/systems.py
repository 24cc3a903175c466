"""Decoders behind one interface, so that the measurement never learns which it times; here our own.

A system is built once for a model and takes ids to ids: text is tokenised apart. Ours go through `translate_ids`, what
a user calls: padding, transfer and fetching count, as they do inside the peers.
"""

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from seqkd_jax.checkpoint import Checkpoint
from seqkd_jax.config import SearchConfig
from seqkd_jax.decoding import SOURCE_BUCKETS, Decoding, translate_ids, without_ends
from seqkd_jax.decoding import prepare as prepare_params
from seqkd_jax.decoding.buckets import width_of
from seqkd_jax.decoding.search import DECODERS, length_limits
from seqkd_jax.types import PAD

Sentences = Sequence[Sequence[int]]  # source ids, EOS included


class Job(NamedTuple):
    """What one call of a system gets."""

    places: list[int]  # of its sentences among those of `prepare`, in the order of its outputs
    inputs: Any  # as the system wants them
    positions: int  # source positions it computes, padding included; 0: the system does not tell


class System(NamedTuple):
    """A decoder with its weights loaded."""

    prepare: Callable[
        [Sentences, int, SearchConfig], list[Job]
    ]  # (sentences, rows in a batch, rules); rows 1: one each
    run: Callable[[Job], list[list[int]]]  # the best hypothesis of each of its sentences, our target ids without EOS
    encode: Callable[[Job], object] | None = None  # the encoder alone, waited for; None: cannot be run apart
    transfer: Callable[[Job], float] | None = None  # seconds for inputs to the device and outputs back; None: not apart
    compiled: Callable[[], tuple[int, float]] = lambda: (0, 0.0)  # programs compiled so far, and seconds
    close: Callable[[], None] = lambda: None


class Missing(Exception):
    """Why a system cannot be had here: one line."""


OURS = {"seqkd_jax engine": "engine", "seqkd_jax simple": "beam"}  # name -> in DECODERS; speed-ups are of the first
REFERENCE = "seqkd_jax simple"  # what all outputs are compared with


def in_order(jobs: Sequence[Job], outputs: Sequence[Sequence[list[int]]]) -> list[list[int]]:
    """The outputs of all jobs in the order of the sentences."""
    places = [place for job in jobs for place in job.places]
    rows = dict(zip(places, (ids for output in outputs for ids in output), strict=True))
    return [rows[place] for place in range(len(rows))]


def sorted_batches(sentences: Sentences, rows: int) -> list[list[int]]:
    """Places of the sentences in batches of at most so many, of similar lengths."""
    places = sorted(range(len(sentences)), key=lambda place: len(sentences[place]))
    return [places[first : first + rows] for first in range(0, len(places), rows)]


def ours(decoder: str, model: Checkpoint) -> System:
    """One of our decoders. A job is all sentences of one width (rows 1: one sentence), decoded in batches of `rows`."""
    if decoder not in DECODERS:
        raise Missing(f"this version has no decoder {decoder!r}")
    params = prepare_params(model.model, model.params)  # as the peers do when they load

    def prepare(sentences: Sentences, rows: int, rules: SearchConfig) -> list[Job]:
        groups = defaultdict(list)
        for place, ids in enumerate(sentences):
            groups[width_of(len(ids), SOURCE_BUCKETS)].append(place)
        jobs = []
        for width, members in sorted(groups.items()):
            parts = [members] if rows > 1 else [[place] for place in members]
            for part in parts:
                batches = -(-len(part) // rows)
                inputs = [sentences[place] for place in part], rows, width, rules
                jobs.append(Job(part, inputs, batches * rows * width))
        return jobs

    def run(job: Job) -> list[list[int]]:
        sentences, rows, width, rules = job.inputs
        decoding = Decoding(rules, decoder, (width,), batch_tokens=rows * width, chunk=len(sentences))
        found = translate_ids(model.model, params, sentences, decoding)
        return [without_ends(hypotheses.tokens[0]) for hypotheses in found]

    return System(prepare, run, functools.partial(_encode, model), _transfer)


def _padded(job: Job) -> list[np.ndarray]:
    """The job's batches as our decoders pad them: int32 [rows, width] each."""
    sentences, rows, width, _ = job.inputs
    batches = []
    for places in sorted_batches(sentences, rows):
        batch = np.full((rows, width), PAD, np.int32)
        for row, place in zip(batch, places, strict=False):
            row[: len(sentences[place])] = sentences[place]
        batches.append(batch)
    return batches


def _encode(model: Checkpoint, job: Job) -> None:
    *_, width, rules = job.inputs
    steps = int(length_limits(rules, np.array([width - 1]))[1][0])
    found = [_compiled_start(model.model, steps)(model.params, batch) for batch in _padded(job)]
    jax.block_until_ready(found)


@functools.cache
def _compiled_start(translator, steps: int):
    def encode_alone(params, source):
        return translator.start(params, source, steps)[0]  # the first state is zeros, or follows from the memory

    return jax.jit(encode_alone)


def _transfer(job: Job) -> float:
    """Seconds for source ids to go there and hypotheses (tokens, two scores, one flag) to come back."""
    _, rows, width, rules = job.inputs
    steps, batches = int(length_limits(rules, np.array([width - 1]))[1][0]), _padded(job)
    scores = np.zeros((rows, rules.beam), np.float32)
    hypotheses = np.zeros((rows, rules.beam, steps), np.int32), scores, scores, scores > 0
    results = jax.block_until_ready(jax.device_put([hypotheses] * len(batches)))
    start = time.perf_counter()
    jax.block_until_ready(jax.device_put(batches))
    jax.device_get(results)
    return time.perf_counter() - start
