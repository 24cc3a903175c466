"""Decoders behind one interface, so that the measurement never learns which it times; here our own.

A system is built once for a model and takes ids to ids: text is tokenised apart. Ours go through `translate_ids`, what
a user calls: padding, transfer and fetching count, as they do inside the peers.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from seqkd_jax.checkpoint import Checkpoint
from seqkd_jax.config import SearchConfig
from seqkd_jax.decoding import SOURCE_BUCKETS, Decoding, prepare, translate_ids, without_ends
from seqkd_jax.decoding.buckets import width_of

Sentences = Sequence[Sequence[int]]  # source ids, EOS included


class Job(NamedTuple):
    """What one call of a system gets."""

    places: list[int]  # of its sentences among those of `prepare`, in the order of its outputs
    inputs: Any  # as the system wants them


class System(NamedTuple):
    """A decoder with its weights loaded."""

    prepare: Callable[
        [Sentences, int, SearchConfig], list[Job]
    ]  # (sentences, rows of a batch, rules); rows 1: one job each
    run: Callable[[Job], list[list[int]]]  # the best hypothesis of each of its sentences, our target ids without EOS


class Missing(Exception):
    """Why a system cannot be had here: one line."""


def ours(decoder: str, model: Checkpoint) -> System:
    """One of our decoders. A job is all sentences of one width (rows 1: one sentence), decoded in batches of `rows`."""
    params = prepare(model.model, model.params)  # as the peers do when they load

    def jobs(sentences: Sentences, rows: int, rules: SearchConfig) -> list[Job]:
        groups = defaultdict(list)
        for place, ids in enumerate(sentences):
            groups[width_of(len(ids), SOURCE_BUCKETS)].append(place)
        made = []
        for width, places in sorted(groups.items()):
            decoding = Decoding(rules, decoder, (width,), batch_tokens=rows * width, chunk=len(places))
            for part in [places] if rows > 1 else [[place] for place in places]:
                made.append(Job(part, ([sentences[place] for place in part], decoding)))
        return made

    def run(job: Job) -> list[list[int]]:
        found = translate_ids(model.model, params, *job.inputs)
        return [without_ends(hypotheses.tokens[0]) for hypotheses in found]

    return System(jobs, run)


def sorted_batches(sentences: Sentences, rows: int) -> list[list[int]]:
    """Places of the sentences in batches of at most so many, of similar lengths."""
    places = sorted(range(len(sentences)), key=lambda place: len(sentences[place]))
    return [places[first : first + rows] for first in range(0, len(places), rows)]


def in_order(jobs: Sequence[Job], outputs: Sequence[Sequence[list[int]]]) -> list[list[int]]:
    """The outputs of all jobs in the order of the sentences."""
    places = [place for job in jobs for place in job.places]
    rows = dict(zip(places, (ids for output in outputs for ids in output), strict=True))
    return [rows[place] for place in range(len(rows))]


def agreement(outputs: Mapping[str, Sequence], reference: str) -> dict[str, dict]:
    """For each other system: how many sentences differ from the reference's, and the share of identical tokens.

    A token is identical that stands at the same place; the share is of the longer of the two outputs.
    """
    found = {}
    for name, made in outputs.items():
        if name != reference:
            pairs = list(zip(made, outputs[reference], strict=True))
            longest = sum(max(len(a), len(b)) for a, b in pairs)
            same = sum(x == y for a, b in pairs for x, y in zip(a, b, strict=False))
            found[name] = {
                "sentences": len(pairs),
                "sentences_that_differ": sum(list(a) != list(b) for a, b in pairs),
                "identical_tokens": same / longest if longest else 1.0,
                "tokens": sum(len(a) for a, _ in pairs),
                "reference_tokens": sum(len(b) for _, b in pairs),
            }
    return found
