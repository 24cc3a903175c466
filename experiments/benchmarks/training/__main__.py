"""The command: every subject under every system, interleaved."""

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import tyro

from experiments.benchmarks import benchmark
from experiments.benchmarks.training import ours
from experiments.benchmarks.training.subjects import SUBJECTS, Subject, tiny
from experiments.core import measure
from experiments.core.report import interval, speed_up
from experiments.core.tables import Section, Table
from seqkd_jax.config import Positive
from seqkd_jax.types import UserError
from seqkd_jax.utils import progress

OURS, AT_ONCE, PYTORCH = "seqkd_jax", "seqkd_jax, all positions at once", "PyTorch"
LOGITS = 4  # bytes


@dataclass(frozen=True, kw_only=True)
class Options(benchmark.Options):
    """Training speed beside PyTorch, of models of the same sizes on the same cores."""

    only: Annotated[tuple[Literal[tuple(SUBJECTS)], ...], tyro.conf.arg()] = ()
    """What to train; nothing: all of them."""
    updates: Positive = 2
    """Updates in one repetition."""
    peers: bool = True
    """Beside PyTorch (`pip install torch`); otherwise ours alone."""


def measure_all(options: Options) -> dict:
    """Every subject's updates. UserError: PyTorch is not installed."""
    if options.peers and importlib.util.find_spec("torch") is None:
        raise UserError("PyTorch is not installed: `pip install torch`, or --no-peers for ours alone")
    found = {}
    for name in options.only or SUBJECTS:
        progress.log(f"{name}: {SUBJECTS[name].about}")
        found[name] = _measured(tiny(SUBJECTS[name]) if options.smoke else SUBJECTS[name], options)
    return {"settings": {"updates": options.updates}, "subjects": found}


def _measured(subject: Subject, options: Options) -> dict:
    """Seconds of an update under each system, by round, and what else is known of it."""
    systems = {OURS: ours.update(subject, options.seed, True), AT_ONCE: ours.update(subject, options.seed, False)}
    if options.peers:
        from experiments.benchmarks.training import pytorch

        systems[PYTORCH] = pytorch.update(subject, options.seed)
    losses = {name: [system.run(), system.run()] for name, system in systems.items()}  # threads, caches, allocators
    runs = {
        name: lambda run=system.run: measure.time_jobs(lambda _: run(), range(options.updates))
        for name, system in systems.items()
    }
    pause = 0.0 if options.smoke else measure.PAUSE
    timed = measure.interleave(runs, options.rounds, options.seed, pause=pause)
    seconds = {name: [sum(one.seconds) / options.updates for one in rounds] for name, rounds in timed.items()}
    jax.clear_caches()
    return {
        "about": subject.about,
        "positions": subject.rows * subject.steps,
        "logits_bytes": LOGITS * subject.rows * subject.steps * subject.entries,
        "flops": systems[AT_ONCE].flops,  # the last block may be filled up: in blocks there are a few more
        "systems": {
            name: {
                "parameters": system.parameters,
                "temporary_bytes": system.temporary_bytes,
                "compile_seconds": system.compile_seconds,
                "first_losses": losses[name],
                "seconds": seconds[name],
            }
            for name, system in systems.items()
        },
        "speed_ups": {
            name: measure.ratio(seconds[name], seconds[OURS])._asdict() for name in systems if name != OURS
        },
    }  # fmt: skip


def sections(results: dict) -> list[Section]:
    """One table: a row for each subject and system."""
    peak, rows = results["machine"]["matrix_flops_per_second"], []
    mib = lambda size: "–" if size is None else f"{size / 2**20:,.0f}"  # noqa: E731
    for subject in results["subjects"].values():
        for name, system in subject["systems"].items():
            rate = measure.interval([subject["positions"] / seconds for seconds in system["seconds"]])
            share = subject["flops"] / subject["positions"] * rate.median / peak
            rows.append(
                [f"{subject['about']}: {name}", interval(rate._asdict()), f"{share:.0%}"]
                + [f"{system['parameters']:,}", mib(subject["logits_bytes"]), mib(system["temporary_bytes"])]
                + ["–" if (seconds := system.get("compile_seconds")) is None else f"{seconds:.1f}"]
                + [speed_up(subject["speed_ups"].get(name))]
            )
    head = [
        "",
        "target tokens/s",
        "of the peak",
        "parameters",
        "logits, MiB",
        "temporary, MiB",
        "compiled in, s",
        "seqkd_jax is",
    ]
    return [Section(table=Table(head, rows))]


BENCHMARK = benchmark.Benchmark("training_speed", Options, measure_all, sections)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 an error that the user can mend."""
    return benchmark.main(BENCHMARK, "experiments.benchmarks.training", arguments)


if __name__ == "__main__":
    sys.exit(main())
