"""Several seeds at once against one after the other: seconds of an update, interleaved, on the present backend.

    python -m experiments.benchmarks.replicas [--replicas 3] [--rounds 9] [--out DIR]

For each model of the small agreement study one update of R replicas is timed as `vmap` (all replicas in every product),
as `map` (one after the other within the step) and as R solo updates, on the same batch shape. What is faster on a
backend is what `train_step.FASTER` names for it.
"""

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import jax
import numpy as np

from experiments.abnar_2020.scales import SCALES
from experiments.abnar_2020.setups import Scale
from experiments.benchmarks import benchmark
from experiments.core import measure
from experiments.core.tables import Section, Table
from seqkd_jax import models
from seqkd_jax.config import Positive, TrainConfig
from seqkd_jax.training import train_step
from seqkd_jax.types import Batch
from seqkd_jax.utils import progress
from seqkd_jax.utils.settings import Range

SCALED = (SCALES["classification", "small"], SCALES["lm", "small"], SCALES["images", "small"])
LENGTHS = {"classification": 16, "lm": 28, "images": 1}
WORDS = 10_004
WAYS = ("solo", "vmap", "map")


@dataclass(frozen=True, kw_only=True)
class Options(benchmark.Options):
    """Several seeds at once against one after the other."""

    replicas: Annotated[int, Range(2, 2**10)] = 3
    """Seeds."""
    updates: Positive = 3
    """Updates in one repetition."""


def measure_all(options: Options) -> dict:
    """Every model of the small study; a smoke run has the first classifier alone."""
    found = []
    for scale, name in subjects(options):
        progress.log(f"{scale.setup}: {name}")
        found.append({"setup": scale.setup, "model": name, "seconds": seconds_of(scale, name, options)})
        jax.clear_caches()
    return {"replicas": options.replicas, "models": found}


def subjects(options: Options) -> list[tuple[Scale, str]]:
    """The scales and the names of their models that are timed."""
    every = [(scale, name) for scale in SCALED for name in scale.models]
    return every[:1] if options.smoke else every


def seconds_of(scale: Scale, name: str, options: Options) -> dict[str, float]:
    """Median seconds of an update of all replicas, by way."""
    config = replace(scale.training[name], devices=1)
    many = replace(config, replicas=options.replicas)
    ways = {way: _step(scale, name, replace(many, replicas_by=way), 1) for way in ("vmap", "map")}
    ways["solo"] = _step(scale, name, config, options.replicas)
    updates = range(options.updates)
    runs = {way: lambda step=step: measure.time_jobs(lambda _: step(), updates) for way, step in ways.items()}
    found = measure.interleave(runs, options.rounds, options.seed, pause=0.0 if options.smoke else measure.PAUSE)
    return {way: statistics.median(statistics.mean(timed.seconds) for timed in rounds) for way, rounds in found.items()}


def _step(scale: Scale, name: str, config: TrainConfig, times: int) -> Callable[[], None]:
    """A closure that makes one update, `times` over, and waits for it; compiled."""
    sizes = {"classification": (WORDS, 2), "lm": (WORDS, WORDS), "images": (0, 10)}[scale.setup]
    model = models.build(scale.models[name], *sizes)
    devices = train_step.devices(1)
    update = train_step.update_for(model, config, devices)
    arguments = (*train_step.arrange(_batch(scale, config), 1, 1), train_step.settings(config, 1e-3), None)
    states = [train_step.replicate(train_step.start_state(model, config), devices) for _ in range(times)]

    def step() -> None:
        for place, state in enumerate(states):
            states[place], metrics = update(state, *arguments)
            jax.block_until_ready(metrics)

    step()
    step()
    return step


def _batch(scale: Scale, config: TrainConfig) -> Batch:
    rng, rows = np.random.default_rng(0), config.batch.sentences
    length = LENGTHS[scale.setup]
    if scale.setup == "images":
        inputs, classes = rng.integers(0, 256, (rows, 28, 28)).astype(np.uint8), 10
    else:
        inputs, classes = rng.integers(4, WORDS, (rows, length)).astype(np.int32), 2
    shape = (rows, length) if scale.setup == "lm" else (rows, 1)
    labels = rng.integers(0, WORDS if scale.setup == "lm" else classes, shape).astype(np.int32)
    return Batch(inputs, labels, np.ones(shape, np.float32))


def sections(results: dict) -> list[Section]:
    """One table: a row for each model."""
    rows = []
    for found in results["models"]:
        seconds = found["seconds"]
        ratios = [f"{seconds['solo'] / seconds[way]:.2f}" for way in ("vmap", "map")]
        rows.append([found["setup"], found["model"], *(f"{1000 * seconds[way]:.0f}" for way in WAYS), *ratios])
    solo = f"solo × {results['replicas']}, ms"
    head = ["set-up", "model", solo, "vmap, ms", "map, ms", "vmap: times as fast", "map: times as fast"]
    return [Section(table=Table(head, rows, left=2))]


BENCHMARK = benchmark.Benchmark("replicas", Options, measure_all, sections)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 an error that the user can mend."""
    return benchmark.main(BENCHMARK, "experiments.benchmarks.replicas", arguments)


if __name__ == "__main__":
    sys.exit(main())
