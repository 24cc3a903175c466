"""The command: what is asked for to work and plan, each model under every system."""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.benchmarks import benchmark
from experiments.benchmarks.decoding import plots, study, tables, work
from experiments.core import measure
from seqkd_jax import checkpoint
from seqkd_jax.config import Count, Positive
from seqkd_jax.types import UserError
from seqkd_jax.utils import files

SMOKE = {"beams": (2,), "batches": (1, 4), "growth": study.Growth((4, 8), (2, 4), (1, 2), 8, rows=4)}


@dataclass(frozen=True, kw_only=True)
class Options(benchmark.Options):
    """Decoding speed beside peers, on the same weights; without a checkpoint, of a random Marian-shaped model."""

    checkpoint: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="DIR ...")] = ()
    """Checkpoints to time, each under every system that can decode it."""
    input: Path | None = None
    """A file of source sentences for the checkpoints."""
    references: Path | None = None
    """Their translations: adds BLEU."""
    peers: tuple[Literal["ctranslate2", "hf", "opennmt"], ...] = ("ctranslate2", "hf", "opennmt")
    """Beside which others; `--peers` alone: none. CTranslate2 and Hugging Face decode Transformers, opennmt LSTMs."""
    beams: Annotated[tuple[Positive, ...], tyro.conf.arg(metavar="K ...")] = (1, 5)
    """Beams to time; 1 is greedy."""
    batches: Annotated[tuple[Positive, ...], tyro.conf.arg(metavar="ROWS ...")] = (1, 8, 32, 128)
    """Sentences in a batch; 1 gives latencies."""
    sentences: Count = 1000
    """At most so many sentences of the input, drawn by the seed; 0: all. Random ones: an eighth as many."""
    singles: Positive = 200
    """Sentences that are decoded one at a time."""
    starts: bool = True
    """Measure new processes, of each system: seconds to the first translation, peak memory."""
    growth: bool = True
    """Measure how time grows with sentences, their length, beam and devices (of the first model)."""


def measure_all(options: Options) -> dict:
    """Every model. UserError for what cannot be measured."""
    if bool(options.checkpoint) != bool(options.input):
        raise UserError("--checkpoint DIR and --input FILE belong together; leave out both for the random model")
    if options.references and not options.input:
        raise UserError("--references are those of --input: name both or neither")
    if not (options.beams and options.batches):
        raise UserError("--beams and --batches: name at least one number each")
    small, pause = (SMOKE, 0.0) if options.smoke else ({}, measure.PAUSE)
    sizes = {"beams": options.beams, "batches": options.batches, "growth": study.Growth()} | small
    sentences = 8 if options.smoke else options.sentences
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        drawn = options.input, options.references, sentences, options.seed
        works = [work.from_checkpoint(directory, *drawn) for directory in options.checkpoint]
        shape = work.SMOKE if options.smoke else work.Synthetic()
        works = works or [work.from_random(shape, max(sentences // 8, 4), options.seed, Path(scratch))]
        data = {name: files.sha256_file(path) for name in ("input", "references") if (path := getattr(options, name))}
        same = {name: getattr(options, name) for name in ("peers", "singles", "rounds", "seed", "starts")}
        for number, one in enumerate(works):
            plan = study.Plan(**same, pause=pause, **sizes)
            grown = plan.growth if options.growth and number == 0 else None
            read = {**data, "model": checkpoint.fingerprint(one.model.directory)}
            kept = benchmark.kept(BENCHMARK.name, options, read)
            found.append(study.model_results(one, plan._replace(growth=grown), Path(scratch), kept))
    rules = work.RULES if options.checkpoint else "forced lengths"
    return {"data": data, "settings": {"peers": list(options.peers), "rules": rules}, "models": found}


BENCHMARK = benchmark.Benchmark("decoding_speed", Options, measure_all, tables.sections, plots.of_models)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 an error that the user can mend."""
    return benchmark.main(BENCHMARK, "experiments.benchmarks.decoding", arguments)


if __name__ == "__main__":
    sys.exit(main())
