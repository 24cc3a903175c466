"""One model under every system: agreement first, then cases (beam x rows), memory and growth; a dict of JSON values."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from experiments.benchmarks.decoding import costs
from experiments.benchmarks.decoding.systems import Job, Missing, agreement, in_order
from experiments.benchmarks.decoding.work import Work, forced, random_sentences, rules_of
from experiments.benchmarks.decoding.worker import BASE, REFERENCE, SYSTEMS, Worker, peak_memory, start
from experiments.core import measure
from seqkd_jax import models
from seqkd_jax.utils import performance, progress

LATENCIES = 32  # sentences that are decoded one at a time


class Growth(NamedTuple):
    """Random sentences on which the length of the translations is varied."""

    length: tuple[int, ...] = (8, 16, 32, 64, 128)
    source_tokens: int = 24
    rows: int = 32
    beam: int = 5


class Plan(NamedTuple):
    """What is measured of every model."""

    peers: Sequence[str]
    beams: Sequence[int]
    batches: Sequence[int]
    rounds: int
    seed: int
    memory: bool
    growth: Growth | None
    pause: float

    @property
    def rows(self) -> int:
        """The rows at which what is measured once is measured."""
        return 32 if 32 in self.batches else max(self.batches)


def model_results(work: Work, plan: Plan, scratch: Path) -> dict:
    """Everything about one model."""
    loading, workers, missing = {}, {}, {}
    for name, entry in SYSTEMS.items():
        if not entry.peer or entry.peer in plan.peers:
            before = time.perf_counter()
            try:
                worker = start(name, work.model, scratch)
            except Missing as error:
                missing[name] = str(error)
                progress.log(f"{work.name}: without {name}: {error}")
                continue
            if worker:
                workers[name], loading[name] = worker, time.perf_counter() - before
    results = {
        "model": work.name,
        "kind": models.kind_of(work.model.model_config),
        "parameters": models.parameter_count(work.model.model),
        "random": work.lines is None,
        "sentences": len(work.sentences),
        "source_tokens": sum(map(len, work.sentences)),
        "missing": missing,
        "load_seconds": loading,
        "base": BASE,
        "typical_rows": plan.rows,
        "cases": [_case(work, plan, workers, beam, rows) for beam in plan.beams for rows in plan.batches],
    }
    if plan.memory:
        beam = max(plan.beams)
        what = work.model, scratch, work.sentences, plan.rows, rules_of(work, beam)
        peaks = {name: peak_memory(name, *what) for name in workers}
        results["memory"] = {"rows": plan.rows, "beam": beam, "systems": peaks}
    if plan.growth:
        curves = {"length": _growth(work, plan, plan.growth, workers)}
        results["growth"] = {"rows": plan.growth.rows, "at_beam": plan.growth.beam, "curves": curves}
    for worker in workers.values():
        worker.close()
    return results


def _case(work: Work, plan: Plan, workers: Mapping[str, Worker], beam: int, rows: int) -> dict:
    """One beam and one number of rows; at rows 1 some of the sentences, at even distances."""
    total, name = len(work.sentences), f"{work.name}: beam {beam}, rows {rows}"
    count = min(total, LATENCIES) if rows == 1 else total
    places = [number * total // count for number in range(count)]
    sentences = [work.sentences[place] for place in places]
    words = sum(len(work.lines[place].split()) if work.lines else len(work.sentences[place]) - 1 for place in places)
    jobs = {system: worker.prepare(sentences, rows, rules_of(work, beam)) for system, worker in workers.items()}
    first = {system: _first(worker, jobs[system]) for system, worker in workers.items()}
    made = {system: in_order(jobs[system], timed.outputs) for system, (timed, _) in first.items()}
    agreed = agreement(made, REFERENCE)
    for system, found in agreed.items():
        same = f"{found['sentences'] - found['sentences_that_differ']} of {found['sentences']} sentences"
        progress.log(f"{name}: {system}: {same} as {REFERENCE}, {found['identical_tokens']:.2%} of tokens")
    with progress.counter(plan.rounds * len(workers), name, "runs") as advance:
        runs = {system: partial(measure.time_jobs, workers[system].run, jobs[system]) for system in workers}
        timed = measure.interleave(runs, plan.rounds, plan.seed, advance, plan.pause)
    lengths = [len(ids) + 1 for ids in made[REFERENCE]]
    flops, read = costs.needed(work.model, [len(ids) for ids in sentences], lengths, beam, rows)
    totals = {system: [sum(run.seconds) for run in found] for system, found in timed.items()}
    row = {"beam": beam, "rows": rows, "sentences": count, "flops": flops, "bytes": read, "agreement": agreed}
    if work.references is not None and count == total:
        row["bleu"] = {system: _bleu(work, outputs) for system, outputs in made.items()}
    row["systems"] = {}
    for system in workers:
        tokens = sum(map(len, made[system]))
        rates = {"sentences": count, "source_words": words, "target_tokens": tokens}
        shares = {"peak": flops / performance.matrix_peak(), "bandwidth": read / performance.memory_bandwidth()}
        row["systems"][system] = {
            **first[system][1],
            "target_tokens": tokens,
            "seconds": _interval(totals[system]),
            **{f"{what}_per_second": _interval([n / s for s in totals[system]]) for what, n in rates.items()},
            **{f"share_of_{what}": _interval([least / s for s in totals[system]]) for what, least in shares.items()},
        }
        for name, share in (("p50", 0.5), ("p95", 0.95)) if rows == 1 else ():
            latencies = [measure.quantile(run.seconds, share) for run in timed[system]]
            row["systems"][system][f"{name}_seconds"] = _interval(latencies)
    row["speed_ups"] = {
        system: measure.ratio(totals[system], totals[BASE])._asdict() for system in totals if system != BASE
    }
    return row


def _interval(values: Sequence[float]) -> dict:
    return measure.interval(values)._asdict()


def _first(worker: Worker, jobs: Sequence[Job]) -> tuple[measure.Timed, dict]:
    """The first pass, and what it took with compilation; then a second pass to warm up."""
    before = len(worker.built())
    first = measure.time_jobs(worker.run, jobs)
    built = worker.built()[before:]
    measure.time_jobs(worker.run, jobs)
    told = {"compilations": len(built), "compile_seconds": sum(program.seconds for program in built)}
    if loaded := sum(program.loaded for program in built):  # from a cache of the user: then these are no compilations
        told["loaded_programs"] = loaded
    return first, {"first_seconds": sum(first.seconds), **told}


def _bleu(work: Work, outputs: Sequence[Sequence[int]]) -> float:
    from seqkd_jax.evaluation import metrics, tokenization

    vocabularies = work.model.vocabularies
    texts = [vocabularies.target.decode(ids) for ids in outputs]
    tokenize = tokenization.resolve(tokenization.AUTO, vocabularies, work.references)
    return metrics.score(texts, metrics.metric_references(vocabularies, work.references, tokenize), tokenize).bleu


def _growth(work: Work, plan: Plan, sizes: Growth, workers: Mapping[str, Worker]) -> dict:
    """{system: {"sizes", "seconds": intervals, "exponent": interval}} by length; exponents are fitted in each round."""
    sentences = random_sentences(work.model, sizes.rows, sizes.source_tokens, plan.seed)
    runs = {}
    for name, worker in workers.items():
        for length in sizes.length:
            jobs = worker.prepare(sentences, sizes.rows, forced(rules_of(work, sizes.beam), length))
            measure.time_jobs(worker.run, jobs)  # compiles, warms up
            runs[name, length] = partial(measure.time_jobs, worker.run, jobs)
    with progress.counter(plan.rounds * len(runs), f"{work.name}: time by length", "runs") as advance:
        timed = measure.interleave(runs, plan.rounds, plan.seed, advance, plan.pause)
    curves = {}
    for name in workers:
        seconds = [[sum(run.seconds) for run in timed[name, length]] for length in sizes.length]
        exponents = [measure.exponent(sizes.length, round_) for round_ in zip(*seconds, strict=True)]
        curve = {"sizes": list(sizes.length), "seconds": list(map(_interval, seconds))}
        curves[name] = curve | {"exponent": _interval(exponents)}
    return curves
