"""Several seeds at once against one after the other: updates a second, interleaved, on the present backend.

  python -m experiments.benchmarks.replicas [--replicas 3] [--rounds 7] [--out FILE]

For each model of the small agreement study one update of R replicas is timed as `vmap` (all replicas in every product),
as `map` (one after the other within the step) and as R solo updates, on the same batch shape. What wins on a backend
is what `train.FASTER` names for it.
"""

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
import tyro

from experiments.abnar_2020.scales import SCALES, Scale
from experiments.core import measure, report, stages
from experiments.core.command import exit_status
from seqkd_jax import models
from seqkd_jax.config import TrainConfig
from seqkd_jax.training import train_step
from seqkd_jax.types import Batch, require_at_least
from seqkd_jax.utils import files, performance, progress

SCALED = (SCALES["classification", "small"], SCALES["lm", "small"], SCALES["images", "small"])
LENGTHS = {"classification": 16, "lm": 28, "images": 1}
WORDS = 10_004


@dataclass(frozen=True)
class Command:
    """Several seeds at once against one after the other."""

    replicas: int = 3
    """Seeds."""
    rounds: int = 7
    """Interleaved repetitions; medians are told."""
    updates: int = 3
    """Updates in one repetition."""
    out: Path | None = None
    """Also write the results there, as JSON."""


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 an error that the user can mend."""
    command = tyro.cli(Command, args=arguments, prog="python -m experiments.benchmarks.replicas", description=__doc__)
    return exit_status(lambda: _run(command), "nothing was written")


def _run(command: Command) -> int:
    require_at_least(command, "--{}".format, replicas=2, rounds=1, updates=1)
    stages.commit()
    rows, told = [], []
    for scale in SCALED:
        for name in scale.models:
            progress.log(f"{scale.setup}: {name}")
            seconds = _time(scale, name, command)
            told.append({"setup": scale.setup, "model": name, "seconds": seconds})
            ratios = [f"{seconds['solo'] / seconds[way]:.2f}" for way in ("vmap", "map")]
            each = [f"{1000 * seconds[way]:.0f}" for way in ("solo", "vmap", "map")]
            rows.append([scale.setup, name, *each, *ratios])
            jax.clear_caches()
    head = ["set-up", "model", "solo × R, ms", "vmap, ms", "map, ms", "vmap: times as fast", "map: times as fast"]
    print("\n".join(report.markdown(head, rows, left=2)))
    print(f"\n{command.replicas} replicas, medians of {command.rounds} interleaved rounds")
    if command.out:
        results = {"study": "replicas", **report.what_ran({}), "replicas": command.replicas, "models": told}
        files.write_json(command.out, {**results, "rounds": command.rounds, "peak": performance.matrix_peak()})
    return 0


def _time(scale: Scale, name: str, command: Command) -> dict[str, float]:
    """Median seconds of an update of all replicas, by way."""
    config = replace(scale.training[name], devices=1)
    many = replace(config, replicas=command.replicas)
    ways = {way: _step(scale, name, replace(many, replicas_by=way), 1) for way in ("vmap", "map")}
    ways["solo"] = _step(scale, name, config, command.replicas)
    updates = range(command.updates)
    runs = {way: lambda step=step: measure.time_jobs(lambda _: step(), updates) for way, step in ways.items()}
    found = measure.interleave(runs, command.rounds, seed=0)
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


if __name__ == "__main__":
    sys.exit(main())
