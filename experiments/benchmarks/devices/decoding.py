"""Decoding on every core of a CPU: one device with all threads against a device for each core, interleaved.

    python -m experiments.benchmarks.devices.decoding --checkpoint DIR ... --input FILE [--forced] [--out DIR]

Each way of using the cores runs in a process of its own, which waits while another is measured. It decodes all
sentences at once, and some of them one at a time. The n-best lists of all ways are compared byte for byte.
"""

import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from experiments.benchmarks import benchmark
from experiments.core import measure
from experiments.core.report import interval, speed_up
from experiments.core.tables import Section, Table
from seqkd_jax import checkpoint
from seqkd_jax.config import Count, Positive, SearchConfig
from seqkd_jax.data.corpus import read_lines
from seqkd_jax.decoding import Decoding, compile_searches, prepare, translate_lines
from seqkd_jax.types import EOS, UserError
from seqkd_jax.utils import devices, files, program_cache, progress

BASE, EACH = "one device", "a device for each core"
WAYS = {BASE: 1, EACH: 0}  # devices, 0: as many as cores
FORCED = {"min_length_a": 1.0, "min_length_b": 2.0, "max_length_a": 1.0, "max_length_b": 2.0}


@dataclass(frozen=True, kw_only=True)
class Options(benchmark.Options):
    """Decoding on one device against a device for each core of a CPU."""

    checkpoint: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="DIR ...")] = ()
    """Checkpoints to time."""
    input: Path | None = None
    """A file of source sentences."""
    beams: Annotated[tuple[Positive, ...], tyro.conf.arg(metavar="K ...")] = (5, 1)
    """Beams to time."""
    sentences: Count = 1000
    """The first so many sentences of the input; 0: all."""
    singles: Positive = 20
    """Sentences that are also decoded one at a time."""
    forced: bool = False
    """Every translation is two tokens longer than its source: for a model that is not trained to end."""


def measure_all(options: Options) -> dict:
    """Every checkpoint and beam, each way."""
    if not options.checkpoint or options.input is None:
        raise UserError("name --checkpoint DIR and --input FILE")
    found = []
    for directory in options.checkpoint:
        described = checkpoint.load_translator(directory)
        for beam in options.beams:
            progress.log(f"{directory}, beam {beam}")
            about = {"checkpoint": described.fingerprint, "model": described.config_json, "beam": beam}
            found.append(about | _measured(directory, beam, options))
    data = {"input": files.sha256_file(options.input)}
    settings = {"sentences": options.sentences, "singles": options.singles, "forced": options.forced}
    return {"data": data, "settings": settings, "models": found}


def _measured(directory: Path, beam: int, options: Options) -> dict:
    """Seconds by way and round, of all sentences and of a single one; tokens, and the hash of the n-best lists."""
    with ExitStack() as running:
        runs = {name: _start(running, count, directory, beam, options) for name, count in WAYS.items()}
        pause = 0.0 if options.smoke else measure.PAUSE
        timed = measure.interleave(runs, options.rounds, options.seed, pause=pause)
    seconds = {name: [one.seconds[0] for one in rounds] for name, rounds in timed.items()}
    singles = {name: [one.seconds[1] / options.singles for one in rounds] for name, rounds in timed.items()}
    outputs = {one.outputs[0] for rounds in timed.values() for one in rounds}
    return {
        "tokens": timed[BASE][0].outputs[1],
        "lists": sorted(outputs),  # one hash: every way found the same
        "seconds": seconds,
        "seconds_of_a_single_sentence": singles,
        "speed_up": measure.ratio(seconds[BASE], seconds[EACH])._asdict(),
        "speed_up_of_a_single_sentence": measure.ratio(singles[BASE], singles[EACH])._asdict(),
    }


def _start(running: ExitStack, count: int, directory: Path, beam: int, options: Options) -> Callable[[], measure.Timed]:
    """A process that decodes one way; what it returns decodes everything once there."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(there, count, directory, beam, options), daemon=True)
    process.start()
    there.close()
    running.callback(process.join)
    running.callback(here.close)  # which ends it

    def run() -> measure.Timed:
        try:
            here.send(None)
            return measure.Timed(*here.recv())
        except (EOFError, OSError):
            raise UserError("a process that decodes has ended; its message is above") from None

    run()  # compiles
    return run


def _serve(pipe: Any, count: int, directory: Path, beam: int, options: Options) -> None:
    """Decode everything once for each request, until the other end is closed."""
    devices.make_cpu_devices(count)
    program_cache.keep()
    lines = list(read_lines(str(options.input)))[: options.sentences or None]
    system = checkpoint.load_translator(directory).system
    system = system._replace(params=prepare(system.translator, system.params))
    decoding = Decoding(SearchConfig(beam=beam, **(FORCED if options.forced else {})))
    compile_searches(
        system.translator, system.params, ([*system.vocabularies.source.encode(line), EOS] for line in lines), decoding
    )
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        start = time.perf_counter()
        found = list(translate_lines(system, lines, decoding))
        middle = time.perf_counter()
        for line in lines[: options.singles]:
            list(translate_lines(system, [line], decoding))
        end = time.perf_counter()
        tokens = sum(len(one.hypotheses[0].tokens) for one in found)
        lists = [[hypothesis._asdict() for hypothesis in one.hypotheses] for one in found]
        pipe.send(([middle - start, end - middle], [files.sha256_json(lists), tokens]))


def sections(results: dict) -> list[Section]:
    """A row for each model, beam and way."""
    rows = []
    for one in results["models"]:
        for name, seconds in one["seconds"].items():
            rate = measure.interval([one["tokens"] / second for second in seconds])
            single = measure.interval([1000 * second for second in one["seconds_of_a_single_sentence"][name]])
            faster = speed_up(one["speed_up"] if name == EACH else None)
            quicker = speed_up(one["speed_up_of_a_single_sentence"] if name == EACH else None)
            about = f"{one['model']['kind']}, {one['checkpoint'][:12]}"
            row = [about, str(one["beam"]), name, interval(rate._asdict()), faster, interval(single._asdict()), quicker]
            rows.append(row)
    head = [
        "",
        "beam",
        "decoded on",
        "target tokens/s",
        "against one device",
        "ms for a single sentence",
        "against one",
    ]
    same = all(len(one["lists"]) == 1 for one in results["models"])
    points = [
        f"{results['settings']['sentences']:,} sentences at a time; n-best lists (tokens, text, scores) of both ways: "
        f"{'equal, byte for byte' if same else 'NOT equal'}"
    ]
    if results["settings"]["forced"]:
        points.append("Every translation is two tokens longer than its source: the model is not trained to end.")
    return [Section(points=points, table=Table(head, rows, left=3))]


BENCHMARK = benchmark.Benchmark("devices_decoding", Options, measure_all, sections)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 an error that the user can mend."""
    return benchmark.main(BENCHMARK, "experiments.benchmarks.devices.decoding", arguments)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    sys.exit(main())
