"""Training on every core of a CPU: one device with all threads against a device for each core, interleaved.

    python -m experiments.benchmarks.devices.training [--rounds 9] [--updates 2] [--out DIR]

Each way of using the cores runs in a process of its own, which waits while another is measured.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

import jax

from experiments.benchmarks import benchmark, workers
from experiments.benchmarks.training.subjects import SUBJECTS, Subject, batch, tiny
from experiments.core import measure
from experiments.core.report import interval, speed_up
from experiments.core.tables import Section, Table
from seqkd_jax import models
from seqkd_jax.config import Positive, TrainConfig
from seqkd_jax.training import train_step
from seqkd_jax.utils import progress

TRAINED = ("transformer", "lstm")
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"


class Way(NamedTuple):
    """A way of using the cores."""

    each_core: bool = False  # a device for each core; otherwise one device
    flags: str = ""  # of XLA


BASE = "one device"
WAYS = {
    BASE: Way(),
    "a device for each core": Way(each_core=True),
    "a device of one thread for each core": Way(each_core=True, flags=ONE_THREAD),
}


@dataclass(frozen=True, kw_only=True)
class Options(benchmark.Options):
    """Training on one device against a device for each core of a CPU."""

    updates: Positive = 2
    """Updates in one repetition."""


def measure_all(options: Options) -> dict:
    """Every subject's updates, each way."""
    found = {}
    for name in TRAINED[:1] if options.smoke else TRAINED:
        subject = tiny(SUBJECTS[name]) if options.smoke else SUBJECTS[name]
        progress.log(f"{name}: {subject.about}")
        found[name] = _measured(subject, options)
    return {"settings": {"updates": options.updates}, "subjects": found}


def _measured(subject: Subject, options: Options) -> dict:
    """Seconds of an update by way and round, and the loss after the same number of updates."""
    with ExitStack() as running:
        runs = {name: _start(running, name, subject, options) for name in WAYS}
        pause = 0.0 if options.smoke else measure.PAUSE
        timed = measure.interleave(runs, options.rounds, options.seed, pause=pause)
    seconds = {name: [one.seconds[0] / options.updates for one in rounds] for name, rounds in timed.items()}
    return {
        "about": subject.about,
        "positions": subject.rows * subject.steps,
        "seconds": seconds,
        "losses": {name: rounds[-1].outputs[0] for name, rounds in timed.items()},
        "speed_ups": {
            name: measure.ratio(seconds[BASE], seconds[name])._asdict() for name in seconds if name != BASE
        },
    }  # fmt: skip


def _start(running: ExitStack, name: str, subject: Subject, options: Options) -> Callable[[], measure.Timed]:
    """A process that trains one way; what it returns makes the updates of one repetition there."""
    worker = workers.start(name, _updates, WAYS[name], subject, options.seed, options.updates)
    running.callback(worker.close)

    def run() -> measure.Timed:
        seconds, loss = worker.ask("run")
        return measure.Timed([seconds], [loss])

    run()  # compiles
    return run


def _updates(way: Way, subject: Subject, seed: int, updates: int) -> dict[str, Callable]:
    """What such a process answers: so many updates for each request."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {way.flags}".strip()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", benchmark.cores() if way.each_core else 1)
    config, model = TrainConfig(), models.build(subject.model, subject.entries, subject.entries)
    devices = train_step.devices(0)
    update = train_step.update_for(model, config, devices)
    state = train_step.replicate(train_step.start_state(model, config), devices)
    arguments = (*train_step.arrange(batch(subject, seed), len(devices), 1), train_step.settings(config, 1e-3), None)

    def run() -> tuple[float, float]:
        nonlocal state
        start, loss = time.perf_counter(), 0.0
        for _ in range(updates):
            state, metrics = update(state, *arguments)
            loss = float(metrics.loss_sum) / float(metrics.weight)
        return time.perf_counter() - start, loss

    return {"run": run}


def sections(results: dict) -> list[Section]:
    """A row for each subject and way."""
    rows = []
    for subject in results["subjects"].values():
        for name, seconds in subject["seconds"].items():
            rate = measure.interval([subject["positions"] / one for one in seconds])
            faster = speed_up(subject["speed_ups"].get(name))
            rows.append([subject["about"], name, interval(rate._asdict()), f"{subject['losses'][name]:.6f}", faster])
    head = ["", "trained on", "target tokens/s", "loss at the end", "against one device"]
    return [Section(table=Table(head, rows, left=2))]


BENCHMARK = benchmark.Benchmark("devices_training", Options, measure_all, sections)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 an error that the user can mend."""
    return benchmark.main(BENCHMARK, "experiments.benchmarks.devices.training", arguments)


if __name__ == "__main__":
    sys.exit(main())
