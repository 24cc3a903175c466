"""What the benchmarks share: options, what is noted of the machine, and the files that they write.

A `Benchmark` is a value and `main(benchmark)` its command, `python -m experiments.benchmarks.NAME`. Systems take turns
in rounds (`experiments.core.measure`); results.json holds what was measured, and table.md and plots are made from it
alone, also later (--render). A long one keeps its parts as they are measured (`Kept`), so that the same command goes on
after a kill.
"""

import importlib.metadata
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from experiments.core import report, stages
from experiments.core.results import NAME, named, reading
from experiments.core.tables import Section
from seqkd_jax.cli.main import errors_in_one_line
from seqkd_jax.config import Positive, Seed
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, programs, progress, settings
from seqkd_jax.utils.exits import exit_status
from seqkd_jax.utils.settings import Settings

PEERS = ("torch", "transformers", "ctranslate2")  # packages whose versions are noted
PARTS = "parts"  # of what is being measured
VARIABLES = (
    "GLIBC_TUNABLES", "JAX_DEFAULT_MATMUL_PRECISION", "KMP_BLOCKTIME", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "XLA_FLAGS"
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options(Settings):
    """What every benchmark takes."""

    rounds: Positive = 9
    """Interleaved repetitions; from 6 on there are 95% intervals, and thus speed-ups."""
    seed: Seed = 0
    """Of random weights and data, and of the order of the systems in a round."""
    out: Path | None = None
    """Where results.json, table.md and plots go (default: runs/BENCHMARK)."""
    smoke: bool = False
    """Tiny sizes: shows that the command works here, measures nothing."""
    render: Path | None = None
    """A directory with results.json: write its table and plots anew, and measure nothing."""


class Kept(NamedTuple):
    """What a command has measured, in a directory beside its results until these are there."""

    directory: Path
    identity: dict  # of the code, the options, the machine and what is read

    def part(self, name: str, measure: Callable[[], Any]) -> Any:
        """The JSON value of a part: what an earlier process of the same command measured, or what is measured now."""
        path = self.directory / f"{files.sha256_json(name)[:16]}.json"
        try:
            found = files.read_json(path)
            if found["identity"] == self.identity and found["name"] == name:
                progress.log(f"{name}: measured before")
                return found["value"]
        except (UserError, KeyError, TypeError):  # none, or a damaged one
            pass
        value = measure()
        files.write_json(path, {"name": name, "identity": self.identity, "value": value})
        return json.loads(files.json_text(value))


def kept(benchmark: str, options: Options, data: Mapping[str, str]) -> Kept:
    """Of a benchmark under these options. data: hashes of what it reads."""
    given = {name: value for name, value in settings.to_json(options).items() if name not in ("out", "render")}
    ran = {name: report.what_ran(data)[name] for name in ("commit", "versions", "devices", "host_cpu", "data")}
    return Kept((options.out or Path("runs", benchmark)) / PARTS, {"options": given, **ran})


class Benchmark(NamedTuple):
    """One benchmark. `results` is the dict of results.json."""

    name: str  # in results.json
    options: type[Options]
    measure: Callable[[Any], dict]  # options -> what results.json holds beside what `_noted` gives; "data": hashes
    sections: Callable[[dict], list[Section]]
    plots: Callable[[dict], Mapping[str, bytes | None]] = lambda results: {}  # as `core.plots.drawn` gives them


def main(benchmark: Benchmark, command: str, arguments: Sequence[str] | None = None) -> int:
    """Run a benchmark's command. Exit status: 0 done, 2 an error that the user can mend."""
    program = f"python -m {command.removesuffix('.__main__')}"
    with errors_in_one_line(program):
        options = tyro.cli(benchmark.options, args=arguments, prog=program)
    return exit_status(
        lambda: _run(benchmark, options), interrupted="interrupted; the same command measures what is missing"
    )


def _run(benchmark: Benchmark, options: Options) -> int:
    if options.render:
        name, results = named(options.render / NAME)
        if name != benchmark.name:
            raise UserError(f"{options.render}: no results.json of {benchmark.name}; name one that it has written")
        with reading(options.render / NAME):
            return _write(benchmark, results, options.render)
    options.validate(lambda name: f"--{name.replace('_', '-')}")
    stages.commit()  # of the code that is loaded now, whatever changes meanwhile
    programs.count()
    load = list(os.getloadavg()) if hasattr(os, "getloadavg") else None
    measured = benchmark.measure(options)
    noted = _noted(options, load, measured.pop("data", {}), measured.pop("settings", {}))
    return _write(
        benchmark, {"study": benchmark.name, **noted, **measured}, options.out or Path("runs", benchmark.name)
    )


def _noted(options: Options, load: list[float] | None, data: dict, told: dict) -> dict:
    """What ran where, and what the machine can do."""
    from seqkd_jax.utils import performance

    installed = {found.name for found in importlib.metadata.distributions()}
    environment = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    return {
        **report.what_ran(data),
        "peer_versions": {name: importlib.metadata.version(name) for name in PEERS if name in installed},
        "threads": {"cores": cores(), "environment": environment},
        "load_average_before": load,
        "settings": {"rounds": options.rounds, "seed": options.seed, "smoke": options.smoke, **told},
        "machine": {
            "matrix_flops_per_second": performance.matrix_peak(),
            "memory_bytes_per_second": performance.memory_bandwidth(),
        },
    }


def cores() -> int:
    """Cores that this process may use: the threads that every system gets."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def table(benchmark: Benchmark, results: dict) -> str:
    """table.md."""
    return report.to_markdown([heading(results), *benchmark.sections(results)])


def _write(benchmark: Benchmark, results: dict, out: Path) -> int:
    told, drawn = table(benchmark, results), benchmark.plots(results)  # both before anything is written
    files.write_json(out / NAME, results)
    files.remove(out / PARTS)
    files.write_text(out / "table.md", told)
    if drawn:
        from experiments.core import plots

        plots.write(drawn, out / "plots")
    print(f"{told}\nresults, table and plots: {out}")
    return 0


def heading(results: dict) -> Section:
    """The benchmark's name, and what ran where."""
    machine, given = results["machine"], results["settings"]
    versions = results["versions"] | results["peer_versions"]
    shown = ", ".join(f"{name} {versions[name]}" for name in ("jax", "jaxlib", *PEERS) if name in versions)
    measured = f"{machine['matrix_flops_per_second'] / 1e9:,.0f} GFLOP/s in float32 matrix products"
    if "memory_bytes_per_second" in machine:
        measured += f", {machine['memory_bytes_per_second'] / 1e9:,.1f} GB/s of memory"
    points = [
        f"`{results['command']}`, commit {report.short_commit(results)}",
        f"{', '.join(results['devices'])}; {results['host_cpu']}; measured {measured}",
        shown,
        f"{given['rounds']} interleaved rounds; medians, in brackets 95% intervals by order statistics; ratios are "
        "paired by round",
    ]
    if given.get("smoke"):
        points.append("A smoke run: tiny sizes, the numbers mean nothing.")
    return Section(results["study"].replace("_", " ").capitalize(), points=points)
