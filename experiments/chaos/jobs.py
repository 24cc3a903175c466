"""Experiments at the same time, each in a process that starts and kills the processes of its runs."""

import concurrent.futures
import multiprocessing
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.chaos import lives, processes
from experiments.chaos.lives import Bench
from experiments.chaos.runs import EXPERIMENTS

FRESH = 0.25  # share of the processes that are started from scratch


def run_all(benches: Sequence[Bench], wanted: Sequence[int], jobs: int) -> None:
    """Every experiment, some at the same time, those with the most kills first; each in a process without threads."""
    order = sorted(zip(benches, wanted, strict=True), key=lambda one: -one[1])
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, context, initializer=_prepare) as pool:
        asked = [pool.submit(_run, bench.experiment.name, bench.work, bench.seed, count) for bench, count in order]
        try:
            for done in concurrent.futures.as_completed(asked):
                done.result()
        except BaseException:
            for process in multiprocessing.active_children():
                while process.is_alive():  # again, should Python drop what the signal raises
                    process.terminate()
                    process.join(10)
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _prepare() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that it ends what it has started
    processes.prepare()


def _run(name: str, work: Path, seed: int, wanted: int) -> None:
    (experiment,) = (one for one in EXPERIMENTS if one.name == name)
    lives.run(Bench(experiment, work, seed, FRESH), wanted)
