"""The command: what is asked for to work and plan, then results.json, table.md and plots, and the tables printed."""

import dataclasses
import importlib.metadata
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments.core.command import exit_status
from seqkd_jax.config import SearchConfig
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, progress

COMMON = "ctranslate2"  # the rules that all peers can follow


@dataclass(frozen=True)
class Command:
    """Decoding speed beside peers, on the same weights; without a checkpoint, of a random Marian-shaped model."""

    checkpoint: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="DIR ...")] = ()
    """Checkpoints to time, each under every system that can decode it."""
    input: Path | None = None
    """A file of source sentences for the checkpoints."""
    references: Path | None = None
    """Their translations: adds BLEU, and the plot of quality against speed."""
    rules: str = COMMON
    """Named rules of the checkpoints' search (of search.PROFILES); others than the default without peers."""
    random: bool = False
    """Time the random model too, beside checkpoints."""
    peers: str = "ctranslate2,hf,opennmt"
    """Which, with commas between, or none: ctranslate2 (float32 and int8), hf, opennmt (for LSTMs)."""
    out: Path = Path("runs/decoding_speed")
    """Where results.json, table.md and plots go."""
    beams: Annotated[tuple[int, ...], tyro.conf.arg(metavar="K ...")] = (1, 5)
    """Beams to time; 1 is greedy."""
    batches: Annotated[tuple[int, ...], tyro.conf.arg(metavar="ROWS ...")] = (1, 8, 32, 128)
    """Sentences in a batch; 1 gives latencies."""
    sentences: int = 256
    """At most so many sentences of the input, drawn by the seed; 0: all. The random model has half as many."""
    latency_sentences: int = 32
    """So many of them, at even distances, one at a time."""
    rounds: int = 11
    """Interleaved repetitions; from 6 on there are intervals, and thus speed-ups."""
    seed: int = 0
    """Of the drawn sentences, the random model and the order of systems in a round."""
    memory: bool = True
    """Measure peak memory, each system in a process of its own."""
    growth: bool = True
    """Measure how time and compilations grow (of the first model)."""
    smoke: bool = False
    """Tiny sizes: shows that the command works here, measures nothing."""


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 an error that the user can mend."""
    command = tyro.cli(Command, args=arguments, prog="python -m experiments.benchmarks.decoding")
    return exit_status(lambda: _run(command), "nothing was written")


def _check(command: Command) -> None:
    """UserError for what cannot be measured."""
    from experiments.benchmarks.decoding import registry

    if registry.chosen(command.peers) and command.rules != COMMON:
        raise UserError(f"--rules {command.rules}: the peers follow {COMMON} alone; give --peers none, or leave it out")
    if command.checkpoint and command.input is None:
        raise UserError("--checkpoint needs --input FILE, a source sentence a line")
    if command.input is not None and not command.checkpoint:
        raise UserError("--input needs --checkpoint DIR; the random model translates random sentences")
    if command.references is not None and command.input is None:
        raise UserError("--references are those of --input; name both or neither")
    least = {"beams": 1, "batches": 1, "rounds": 1, "sentences": 0, "latency_sentences": 1}
    for name, smallest in least.items():
        value = getattr(command, name)
        values = value if isinstance(value, tuple) else (value,)
        if not values or min(values) < smallest:
            raise UserError(f"--{name.replace('_', '-')} {' '.join(map(str, values))}: must be {smallest} or more")


def _smoked(command: Command) -> Command:
    return dataclasses.replace(command, beams=(1, 2), batches=(1, 4), sentences=8, latency_sentences=2, rounds=2)


def _run(command: Command) -> int:
    _check(command)
    command = _smoked(command) if command.smoke else command
    from experiments.benchmarks.decoding import growth, peers, plots, registry, render, study, work
    from experiments.core import measure, report, stages
    from seqkd_jax.decoding.search import named_rules
    from seqkd_jax.utils import performance

    stages.commit()
    progress.count_compilations()
    names, sizes = registry.chosen(command.peers), growth.SMOKE if command.smoke else growth.Sizes()
    plan = study.Plan(
        peers=names, beams=command.beams, batches=command.batches, rounds=command.rounds,
        latency_sentences=command.latency_sentences, seed=command.seed, memory=command.memory, growth=None,
        growth_rounds=min(command.rounds, 7), pause=0.0 if command.smoke else measure.PAUSE,
    )  # fmt: skip
    data, found, load = {}, [], list(os.getloadavg()) if hasattr(os, "getloadavg") else None
    with tempfile.TemporaryDirectory() as scratch:
        made = []
        for directory in command.checkpoint:
            rules = named_rules(SearchConfig(), command.rules)
            chosen = command.input, command.references, command.sentences, command.seed, rules
            made.append(work.from_checkpoint(directory, *chosen))
        if command.random or not command.checkpoint:
            shape, count = (work.SMOKE if command.smoke else work.Synthetic()), max(command.sentences // 2, 1)
            made.append(work.from_random(shape, count, command.seed, Path(scratch)))
        for number, one in enumerate(made):
            grown = sizes if command.growth and number == 0 else None
            found.append(study.model_results(one, plan._replace(growth=grown), Path(scratch)))
    for name in ("input", "references"):
        if getattr(command, name):
            data[name] = files.sha256_file(getattr(command, name))
    results = {
        "study": "decoding_speed",
        **report.what_ran(data),
        "peer_versions": _versions(),
        "threads": _threads(peers.cores()),
        "load_average_before": load,
        "settings": {
            "rounds": plan.rounds,
            "seed": plan.seed,
            "peers": list(names),
            "rules": command.rules if made[0].lines else "forced lengths",
            "smoke": command.smoke,
        },
        "machine": {
            "matrix_flops_per_second": performance.matrix_peak(),
            "memory_bytes_per_second": performance.memory_bandwidth(),
        },
        "models": found,
    }
    files.write_json(command.out / "results.json", results)
    files.write_text(command.out / "table.md", render.report(results))
    plots.draw_models(results, command.out / "plots")
    print(render.report(results))
    print(f"results, table and plots: {command.out}")
    return 0


def _versions() -> dict[str, str]:
    """Of the peers that are installed."""
    found = {}
    for package in ("ctranslate2", "transformers", "torch"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _threads(cores: int) -> dict:
    """How many each may use, and what in the environment could change that."""
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "KMP_BLOCKTIME", "XLA_FLAGS", "JAX_DEFAULT_MATMUL_PRECISION")
    variables += ("GLIBC_TUNABLES",)
    return {"cores": cores, "environment": {name: os.environ[name] for name in variables if name in os.environ}}


if __name__ == "__main__":
    sys.exit(main())
