"""How time grows: with sentences, beam and length, as curves with a fitted exponent; compilations with the corpus;
memory with the file.

Random sentences on forced lengths, so that a curve varies one size only; sizes and systems take turns as everywhere.
An exponent is fitted in each round, so that its interval is paired too. The beam's curve is without the encoder, which
all hypotheses of a sentence share.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.benchmarks.decoding import memory
from experiments.benchmarks.decoding.systems import System
from experiments.benchmarks.decoding.work import SPECIALS, Work, forced
from experiments.core import measure
from seqkd_jax.config import SearchConfig
from seqkd_jax.decoding import Decoding, translate_ids
from seqkd_jax.types import EOS
from seqkd_jax.utils import progress


class Sizes(NamedTuple):
    """What is varied, and what stands still meanwhile."""

    sentences: tuple[int, ...] = (32, 64, 128, 256)
    beam: tuple[int, ...] = (1, 2, 4, 8, 16)
    length: tuple[int, ...] = (8, 16, 32, 64, 128)
    corpus: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)
    corpus_tokens: int = 60  # the longest sentence of the corpus
    lines: tuple[int, ...] = (1024, 2048, 4096, 8192, 16384)  # of a file
    line_tokens: int = 8  # of its translations
    source_tokens: int = 24
    target_tokens: int = 16
    rows: int = 32
    at_beam: int = 5


SMOKE = Sizes((4, 8), (1, 2), (4, 8), (4, 8), 12, (8, 16), source_tokens=8, target_tokens=4, rows=4, at_beam=2)


def curves(
    work: Work, systems: Mapping[str, System], sizes: Sizes, rounds: int, seed: int,
    advance: Callable[[int], object], pause: float,
) -> dict:  # fmt: skip
    """{"sentences" | "beam" | "length": {system: {"sizes", "seconds": intervals, "exponent": interval}}}."""
    rules = replace(forced(work.rules, sizes.target_tokens), beam=sizes.at_beam)
    many = random_sentences(work, max(sizes.sentences), sizes.source_tokens, seed)
    few = many[: sizes.rows]
    points = {
        "sentences": {size: (many[:size], rules) for size in sizes.sentences},
        "beam": {size: (few, _at_beam(rules, size)) for size in sizes.beam},
        "length": {size: (few, forced(rules, size)) for size in sizes.length},
    }
    found = {}
    for axis, settings in points.items():
        runs = {}
        for name, system in systems.items():
            for size, (sentences, at) in settings.items():
                jobs = system.prepare(sentences, sizes.rows, at)
                measure.time_jobs(system.run, jobs)  # compiles, warms up
                spared = _encoder_alone(system, jobs) if axis == "beam" else 0.0
                runs[name, size] = partial(_seconds, system, jobs, spared)
        timed = measure.interleave(runs, rounds, seed, advance, pause)
        found[axis] = {name: _curve(list(settings), [timed[name, size] for size in settings]) for name in systems}
    return found


def _at_beam(rules: SearchConfig, beam: int) -> SearchConfig:
    return replace(rules, beam=beam, stop="first_k_finished" if beam == 1 else rules.stop)


def _encoder_alone(system: System, jobs) -> float:
    """Seconds that the encoder takes, the median of three; 0 where it cannot be run apart."""
    if not system.encode:
        return 0.0
    return sorted(sum(measure.time_jobs(system.encode, jobs).seconds) for _ in range(3))[1]


def _seconds(system: System, jobs, spared: float) -> measure.Timed:
    """One run; spared: seconds of it that do not count (more than it took, where the machine was disturbed)."""
    timed = measure.time_jobs(system.run, jobs)
    total = sum(timed.seconds)
    return timed._replace(seconds=[seconds * (1 - spared / total) for seconds in timed.seconds])


def _curve(sizes: list[int], runs: list[list[measure.Timed]]) -> dict:
    """One system's curve; runs: for each size, one of each round. A disturbed round has no exponent."""
    seconds = [[sum(run.seconds) for run in of_size] for of_size in runs]
    rounds = [round_ for round_ in zip(*seconds, strict=True) if min(round_) > 0]
    exponents = [measure.exponent(sizes, round_) for round_ in rounds]
    return {
        "sizes": sizes,
        "seconds": [measure.interval(values)._asdict() for values in seconds],
        "exponent": measure.interval(exponents)._asdict() if exponents else None,
        "rounds_left_out": len(seconds[0]) - len(rounds),
    }


def compilations(work: Work, decoder: str, sizes: Sizes, seed: int) -> dict:
    """{"sizes", "compilations"}: programs compiled until a corpus of each size was decoded; each contains the last.

    Lengths are drawn evenly, from 2 tokens. The translator is a copy, so that it shares no program made before.
    """
    step = work.model.model.step
    fresh = work.model.model._replace(step=lambda *arguments: step(*arguments))
    drawn = random_sentences(work, max(sizes.corpus), sizes.corpus_tokens, seed)
    lengths = np.random.default_rng(seed).integers(2, sizes.corpus_tokens + 1, len(drawn))
    corpus = [[*ids[: length - 1], EOS] for ids, length in zip(drawn, lengths, strict=True)]
    rules = replace(_at_beam(work.rules, 1), max_length_a=1.0, max_length_b=0.0, min_length_a=0.0, min_length_b=0.0)
    progress.count_compilations()
    counts, before = [], progress.compilations()
    for size in sizes.corpus:
        for _ in translate_ids(fresh, work.model.params, corpus[:size], Decoding(rules, decoder)):
            pass
        counts.append(progress.compilations() - before)
    return {"sizes": list(sizes.corpus), "compilations": counts}


def file_memory(work: Work, sizes: Sizes, seed: int, scratch: Path) -> dict:
    """{"lines", "bytes"}: the peak memory of `seqkd translate` over files of so many lines."""
    drawn = random_sentences(work, min(1024, max(sizes.lines)), sizes.source_tokens, seed)
    texts = [work.model.vocabularies.source.decode(ids[:-1]) for ids in drawn]
    files = [list(islice(cycle(texts), count)) for count in sizes.lines]
    peaks = [memory.of_a_file(work.model.directory, lines, sizes.line_tokens, scratch) for lines in files]
    return {"lines": list(sizes.lines), "bytes": peaks}


def random_sentences(work: Work, count: int, tokens: int, seed: int) -> list[list[int]]:
    """Random source ids, EOS included, none of the special entries."""
    size = work.model.vocabularies.source.size
    ids = np.random.default_rng(seed).integers(len(SPECIALS), size, (count, tokens - 1))
    return [[*row, EOS] for row in ids.tolist()]
