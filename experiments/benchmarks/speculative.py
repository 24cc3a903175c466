"""Speculative decoding: how much of each student's drafts a Transformer accepts, and what that gains.

    python -m experiments.benchmarks.speculative --checkpoint TEACHER --drafts STUDENT ... --input FILE [--out DIR]

Every student drafts for the same teacher, whose translations are those of its own greedy search. A round accepts the
drafted tokens up to the first that the teacher would not choose. What is accepted of a student's drafts says how near
it is to its teacher on the teacher's own outputs, position by position.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import tyro

from experiments.benchmarks import benchmark
from experiments.benchmarks.decoding import work
from experiments.core import measure
from experiments.core.report import interval, speed_up
from experiments.core.tables import Section, Table
from seqkd_jax import checkpoint
from seqkd_jax.config import ComputeType, Positive, SearchConfig
from seqkd_jax.decoding import Decoding, prepare, requests, translate_ids, without_ends
from seqkd_jax.decoding.search import counting_speculative
from seqkd_jax.types import EOS, UserError
from seqkd_jax.utils import devices, files, program_cache, progress

GREEDY, ENGINE = "greedy", "engine"  # of the teacher alone


@dataclass(frozen=True, kw_only=True)
class Options(benchmark.Options):
    """How much of each student's drafts a Transformer accepts, and what that gains."""

    checkpoint: Path | None = None
    """The Transformer that translates."""
    drafts: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="DIR ...")] = ()
    """The models that draft for it; a directory of a run is named in the tables."""
    input: Path | None = None
    """A file of source sentences."""
    sentences: Positive = 500
    """At most so many, drawn by the seed."""
    singles: Positive = 100
    """Of these, so many are translated one at a time."""
    rows: Positive = 32
    """Sentences in a batch."""
    tokens: Annotated[tuple[Positive, ...], tyro.conf.arg(metavar="D ...")] = (2, 4, 8)
    """Tokens that are drafted in a round."""
    compute: ComputeType | None = None
    """Type of matrix products and activations of all models; None: that of the training."""


class Subject(NamedTuple):
    """A way of translating."""

    name: str
    system: Any  # types.System
    decoder: str
    rules: SearchConfig
    draft: str = ""  # the run that drafts


def measure_all(options: Options) -> dict:
    """Acceptance of every draft, and seconds of every way. UserError for what cannot be measured."""
    if not (options.checkpoint and options.input and options.drafts):
        raise UserError("name the model (--checkpoint DIR), those that draft (--drafts DIR ...) and --input FILE")
    devices.make_cpu_devices(1)
    program_cache.keep()
    count = 8 if options.smoke else options.sentences
    drawn = work.from_checkpoint(options.checkpoint, options.input, None, count, options.seed)
    subjects = _subjects(options, work.rules_of(drawn, 1))
    singles = drawn.sentences[:: -(-len(drawn.sentences) // min(options.singles, count))]
    seconds, outputs, rounds = {}, {}, {}
    for rows, sentences in ((1, singles), (options.rows, drawn.sentences)):
        runs = {one.name: _prepared(one, sentences, rows) for one in subjects}
        for name, run in runs.items():
            outputs[name, rows] = run()
            progress.log(f"{rows} at a time: {name}")
        timed = {name: partial(measure.time_jobs, lambda _, run=run: run(), [0]) for name, run in runs.items()}
        pause = 0.0 if options.smoke else measure.PAUSE
        found = measure.interleave(timed, options.rounds, options.seed, pause=pause)
        seconds[rows] = {name: [sum(one.seconds) for one in of_round] for name, of_round in found.items()}
    rounds = {one.name: _rounds(one, drawn.sentences, options.rows) for one in subjects if one.draft}
    tokens = {str(rows): sum(len(ids) + 1 for ids in outputs[GREEDY, rows]) for rows in seconds}
    return {
        "data": {"input": files.sha256_file(options.input)},
        "settings": {"rows": options.rows, "compute": options.compute},
        "teacher": drawn.name,
        "sentences": len(drawn.sentences),
        "singles": len(singles),
        "tokens": tokens,
        "ways": [_told(one, seconds, outputs, rounds) for one in subjects],
    }


def _subjects(options: Options, rules: SearchConfig) -> list[Subject]:
    assert options.checkpoint
    load = partial(checkpoint.load_translator, compute=options.compute)
    teacher = load(options.checkpoint)
    found = [Subject(name, teacher.system, name, rules) for name in (GREEDY, ENGINE)]
    for path in options.drafts:
        name = path.absolute().parent.name if path.name in ("best", "last") else path.name
        system = checkpoint.drafted(teacher, load(path))
        found += [
            Subject(f"{name} drafts {count}", system, "speculative", replace(rules, draft_tokens=count), name)
            for count in options.tokens
        ]
    return found


def _decoding(one: Subject, count: int, rows: int) -> Decoding:
    return Decoding(one.rules, one.decoder, batch_tokens=1 if rows == 1 else rows * 32, chunk=count)


def _prepared(one: Subject, sentences: Sequence[Sequence[int]], rows: int):
    """A function that translates the sentences, in batches or one call each; its first call compiles."""
    params, parts = prepare(one.system.translator, one.system.params), [sentences]
    if rows == 1:
        parts = [[sentence] for sentence in sentences]

    def run() -> list[list[int]]:
        found = (
            hypotheses
            for part in parts
            for hypotheses in translate_ids(one.system.translator, params, part, _decoding(one, len(part), rows))
        )
        return [without_ends(hypotheses.tokens[0]) for hypotheses in found]

    return run


def _rounds(one: Subject, sentences: Sequence[Sequence[int]], rows: int) -> dict[str, int]:
    """The sums over all sentences of rounds, and of the tokens that these gave."""
    (params,) = prepare(one.system.translator, one.system.params, 1).params
    total = {"rounds": 0, "tokens": 0}
    for shape, request in requests(sentences, _decoding(one, len(sentences), rows)):
        search = jax.jit(counting_speculative(one.system.translator, one.rules, shape.steps))
        hypotheses, rounds = jax.device_get(search(params, request))
        tokens = hypotheses.tokens[:, 0]
        ends = np.any(tokens == EOS, axis=1)
        total["rounds"] += int(rounds.sum())
        total["tokens"] += sum(len(without_ends(row)) for row in tokens) + int(ends[request.max_length > 0].sum())
    return total


def _told(one: Subject, seconds: dict, outputs: dict, rounds: dict) -> dict:
    """What results.json says of a way of translating."""
    same = [
        sum(a == b for a, b in zip(outputs[one.name, rows], outputs[GREEDY, rows], strict=True)) for rows in seconds
    ]
    found = {
        "name": one.name,
        "seconds": {str(rows): of[one.name] for rows, of in seconds.items()},
        "speed": {str(rows): measure.ratio(of[GREEDY], of[one.name])._asdict() for rows, of in seconds.items()},
        "same": dict(zip(map(str, seconds), same, strict=True)),
    }
    if one.draft:
        total = rounds[one.name]
        given = total["tokens"] / total["rounds"]
        found |= {"draft": one.draft, "drafted": one.rules.draft_tokens, **total, "tokens_per_round": given}
        found["accepted"] = (given - 1) / one.rules.draft_tokens
    return found


def sections(results: dict) -> list[Section]:
    """A row for each way."""
    rows, lines = [str(1), str(results["settings"]["rows"])], []
    for way in results["ways"]:
        cells = ["–", "–"]
        if "draft" in way:
            cells = [f"{way['accepted']:.1%}", f"{way['tokens_per_round']:.2f}"]
        rates = [results["tokens"][row] / np.asarray(way["seconds"][row]) for row in rows]
        speeds = [interval(measure.interval(rate.tolist())._asdict()) for rate in rates]
        gains = ["–" if way["name"] == GREEDY else speed_up(way["speed"][row]) for row in rows]
        same = f"{way['same'][rows[1]]:,} of {results['sentences']:,}"
        lines.append([way["name"], *cells, speeds[0], gains[0], speeds[1], gains[1], same])
    each, together = "one at a time, tokens/s", f"{rows[1]} at a time, tokens/s"
    head = ["", "accepted", "tokens a round", each, f"{GREEDY} is 1", together, f"{GREEDY} is 1", "the same outputs"]
    notes = [
        f"{results['teacher']}, one device; {results['sentences']:,} sentences, {results['singles']:,} one at a time",
        "accepted: the share of drafted tokens that the teacher keeps, a round cut short by the end of a sentence "
        "included; tokens a round: those and the teacher's own choice after them",
    ]
    return [Section(table=Table(head, lines, notes=notes))]


BENCHMARK = benchmark.Benchmark("speculative_decoding", Options, measure_all, sections)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 an error that the user can mend."""
    return benchmark.main(BENCHMARK, "experiments.benchmarks.speculative", arguments)


if __name__ == "__main__":
    sys.exit(main())
