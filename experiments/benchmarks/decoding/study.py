"""One model under every system: agreement first, then cases (beam x rows), memory and growth; a dict of JSON values."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from experiments.benchmarks.decoding import agreement, costs, growth, memory, registry, systems, worker
from experiments.benchmarks.decoding.systems import Job, System, in_order
from experiments.benchmarks.decoding.work import Work, rules_of
from experiments.core import measure
from seqkd_jax import models
from seqkd_jax.config import SearchConfig
from seqkd_jax.utils import performance, progress


class Plan(NamedTuple):
    """What is measured of every model."""

    peers: tuple[str, ...]
    beams: tuple[int, ...]
    batches: tuple[int, ...]
    rounds: int
    latency_sentences: int  # of those with rows 1
    seed: int
    memory: bool
    growth: growth.Sizes | None
    growth_rounds: int
    pause: float = measure.PAUSE


class Case(NamedTuple):
    """One beam and one number of rows; its sentences are those of the work, at rows 1 some of them."""

    rules: SearchConfig
    rows: int
    sentences: list[list[int]]
    words: int  # of their sources
    jobs: dict[str, list[Job]]


def model_results(work: Work, plan: Plan, scratch: Path) -> dict:
    """Everything about one model. UserError: no system decodes it, or no peer's file can be made."""
    loading, built, missing = {}, {}, {}
    for name in registry.entries(plan.peers):
        start = time.perf_counter()
        try:
            system = worker.start(name, plan.peers, work.model, scratch)
        except systems.Missing as error:
            missing[name] = str(error)
            continue
        if system:
            built[name], loading[name] = system, time.perf_counter() - start
    for name, reason in missing.items():
        progress.log(f"{work.name}: without {name}: {reason}")
    results = {
        "model": work.name,
        "kind": models.kind_of(work.model.model_config),
        "parameters": models.parameter_count(work.model.model),
        "random": bool(work.model.metadata.get("random")),
        "sentences": len(work.sentences),
        "source_tokens": sum(map(len, work.sentences)),
        "missing": missing,
        "load_seconds": loading,
        "tokenising": _tokenising(work),
        "cases": [],
    }
    base = next(iter(built))  # ours: the engine where there is one
    results |= {"base": base, "typical_rows": _typical(plan.batches)}
    for beam in plan.beams:
        for rows in plan.batches:
            results["cases"].append(_case(work, plan, built, beam, rows, base))
    if plan.memory:
        results["memory"] = _memory(work, plan, built, scratch)
    if plan.growth:
        results["growth"] = _growth(work, plan, built, base, scratch)
    for system in built.values():
        system.close()
    return results


def _case(work: Work, plan: Plan, built: Mapping[str, System], beam: int, rows: int, base: str) -> dict:
    case = _prepare(work, plan, built, beam, rows)
    name = f"{work.name}: beam {beam}, rows {rows}"
    made, starts = {}, {}
    for system, jobs in case.jobs.items():
        made[system], starts[system] = _first(built[system], jobs)
    agreed = _agreement(made, name)
    with progress.counter(plan.rounds * len(built), name, "runs") as advance:
        runs = {system: partial(measure.time_jobs, built[system].run, jobs) for system, jobs in case.jobs.items()}
        timed = measure.interleave(runs, plan.rounds, plan.seed, advance, plan.pause)
    lengths = [len(ids) + 1 for ids in made[base]]
    needed = costs.needed(work.model, [len(ids) for ids in case.sentences], lengths, beam, rows)
    totals = {system: [sum(run.seconds) for run in found] for system, found in timed.items()}
    row = {"beam": beam, "rows": rows, "sentences": len(case.sentences), "flops": needed.flops, "bytes": needed.bytes}
    row["agreement"] = agreed
    if work.references is not None and len(case.sentences) == len(work.sentences):
        row["bleu"] = {system: _bleu(work, outputs) for system, outputs in made.items()}
    row["systems"] = {
        system: {
            **starts[system],
            **_speeds(case, made[system], timed[system], needed),
            **_phases(built[system], jobs, totals[system]),
            "padding_waste": costs.padding_waste(jobs, case.sentences),
        }
        for system, jobs in case.jobs.items()
    }
    row["speed_ups"] = {
        system: measure.ratio(totals[system], totals[base])._asdict() for system in totals if system != base
    }
    if rows > 1 and rows == _typical(plan.batches) and beam == max(plan.beams):
        row["steps"] = _steps(work, case)
    return row


def _prepare(work: Work, plan: Plan, built: Mapping[str, System], beam: int, rows: int) -> Case:
    rules, count = rules_of(work, beam), plan.latency_sentences if rows == 1 else len(work.sentences)
    places = _spread(len(work.sentences), count)
    sentences = [work.sentences[place] for place in places]
    words = sum(len(work.lines[place].split()) if work.lines else len(work.sentences[place]) - 1 for place in places)
    jobs = {name: system.prepare(sentences, rows, rules) for name, system in built.items()}
    return Case(rules, rows, sentences, words, jobs)


def _spread(total: int, count: int) -> list[int]:
    """At most `count` places at even distances."""
    count = min(total, count)
    return [number * total // count for number in range(count)]


def _first(system: System, jobs: Sequence[Job]) -> tuple[list[list[int]], dict]:
    """The outputs, and what the first pass and the second took: compilation is in the first, warm-up in both."""
    known, seconds = system.compiled()
    first = measure.time_jobs(system.run, jobs)
    compilations, compiling = system.compiled()
    start = {
        "first_seconds": sum(first.seconds),
        "compilations": compilations - known,
        "compile_seconds": compiling - seconds,
        "warm_up_seconds": sum(measure.time_jobs(system.run, jobs).seconds),
    }
    return in_order(jobs, first.outputs), start


def _agreement(made: Mapping[str, Sequence], name: str) -> dict:
    """How the outputs agree with those of the simple search, which is never missing."""
    found = agreement.compare(made, systems.REFERENCE)
    for system, entry in found.items():
        same = f"{entry['sentences'] - entry['sentences_that_differ']} of {entry['sentences']} sentences"
        progress.log(f"{name}: {system}: {same} as {systems.REFERENCE}, {entry['identical_tokens']:.2%} of tokens")
    return found


def _bleu(work: Work, outputs: Sequence[Sequence[int]]) -> float:
    from seqkd_jax.evaluation import metrics

    vocabularies = work.model.vocabularies
    texts = [vocabularies.target.decode(ids) for ids in outputs]
    references = metrics.metric_references(vocabularies, work.references)
    return metrics.score(texts, references, vocabularies.metric_tokenizer).bleu


def _speeds(case: Case, outputs: Sequence, timed: Sequence[measure.Timed], needed: costs.Needed) -> dict:
    """Medians with intervals over the rounds: seconds, rates, latencies at rows 1, shares of the machine's limits."""
    totals, tokens = [sum(run.seconds) for run in timed], sum(len(ids) for ids in outputs)
    amounts = {"sentences": len(case.sentences), "source_words": case.words, "target_tokens": tokens}

    def over_rounds(function: Callable[[float], float]) -> dict:
        return measure.interval([function(total) for total in totals])._asdict()

    found = {"seconds": over_rounds(float), "target_tokens": tokens}
    found |= {f"{what}_per_second": over_rounds(lambda total, n=n: n / total) for what, n in amounts.items()}
    if case.rows == 1:
        for name, share in (("p50", 0.5), ("p95", 0.95)):
            values = [measure.quantile(run.seconds, share) for run in timed]
            found[f"{name}_seconds"] = measure.interval(values)._asdict()
    found["share_of_peak"] = over_rounds(lambda total: needed.flops / total / performance.matrix_peak())
    found["share_of_bandwidth"] = over_rounds(lambda total: needed.bytes / total / performance.memory_bandwidth())
    return found


def _phases(system: System, jobs: Sequence[Job], totals: Sequence[float]) -> dict:
    """Seconds of encoding and transfer where they can be run apart (median of 3), and of the rest: decoding."""
    found: dict = {"encode_seconds": None, "transfer_seconds": None, "decode_seconds": None}
    if system.encode:
        measure.time_jobs(system.encode, jobs)
        found["encode_seconds"] = _median3(lambda: sum(measure.time_jobs(system.encode, jobs).seconds))
        if system.transfer:
            found["transfer_seconds"] = _median3(lambda: sum(map(system.transfer, jobs)))
        apart = found["encode_seconds"] + (found["transfer_seconds"] or 0)
        found["decode_seconds"] = max(measure.interval(totals).median - apart, 0.0)
    return found


def _median3(run: Callable[[], float]) -> float:
    return sorted(run() for _ in range(3))[1]


def _typical(batches: Sequence[int]) -> int:
    """The rows at which what is measured once is measured."""
    return 32 if 32 in batches else max(batches)


def _steps(work: Work, case: Case) -> dict:
    """Rows stepped by our decoders, and the share of them that was spent on finished or filling rows."""
    found = {}
    for name, decoder in systems.OURS.items():
        if name in case.jobs:
            steps = costs.steps(work.model, decoder, case.sentences, case.rows, case.rules)
            found[name] = steps and {**steps._asdict(), "waste": steps.waste}
    return found


def _tokenising(work: Work) -> dict | None:
    """Seconds to turn the lines into ids with our vocabulary; all systems are given ids, so none is charged for it."""
    if work.lines is None:
        return None
    encode = work.model.vocabularies.source.encode
    seconds = _median3(lambda: sum(measure.time_jobs(encode, work.lines).seconds))
    return {"lines": len(work.lines), "encode_seconds": seconds}


def _memory(work: Work, plan: Plan, built: Mapping[str, System], scratch: Path) -> dict:
    rows, beam = _typical(plan.batches), max(plan.beams)
    owners = {name: peer for peer in plan.peers for name in registry.PEERS[peer]}
    found = {"rows": rows, "beam": beam, "systems": {}}
    with progress.counter(len(built), f"{work.name}: memory", "processes") as advance:
        for name in built:
            arguments = owners.get(name), work.model, scratch, work.sentences, rows, rules_of(work, beam)
            found["systems"][name] = memory.peak(name, *arguments)
            advance(1)
    return found


def _growth(work: Work, plan: Plan, built: Mapping[str, System], base: str, scratch: Path) -> dict:
    shown = {name: system for name, system in built.items() if name in systems.OURS or name.endswith("float32")}
    points = sum(map(len, (plan.growth.sentences, plan.growth.beam, plan.growth.length)))
    with progress.counter(points * plan.growth_rounds * len(shown), f"{work.name}: growth", "runs") as advance:
        found = growth.curves(work, shown, plan.growth, plan.growth_rounds, plan.seed, advance, plan.pause)
    compiled = growth.compilations(work, systems.OURS[base], plan.growth, plan.seed)
    found = {"rows": plan.growth.rows, "at_beam": plan.growth.at_beam, "curves": found, "compilations": compiled}
    return found | ({"file_memory": growth.file_memory(work, plan.growth, plan.seed, scratch)} if plan.memory else {})
