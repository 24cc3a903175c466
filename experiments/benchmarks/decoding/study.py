"""One model under every system: agreement, throughput and latency, starts and memory, growth; a dict of JSON values."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from experiments.benchmarks.benchmark import Kept, cores
from experiments.benchmarks.decoding import costs, systems
from experiments.benchmarks.decoding.systems import BASE, REFERENCE, SYSTEMS
from experiments.benchmarks.decoding.work import Work, forced, random_sentences, rules_of
from experiments.benchmarks.workers import Missing, Worker
from experiments.core import measure
from seqkd_jax import models
from seqkd_jax.utils import performance, progress

STARTS = 3  # of each system and cache
FIXED = {"length": 24, "sentences": 32, "beam": 5}  # what does not grow


class Growth(NamedTuple):
    """Along which sizes the growth of time is measured, on random sentences; one size changes, the others stay."""

    length: tuple[int, ...] = (8, 16, 32, 64, 128)
    sentences: tuple[int, ...] = (32, 64, 128, 256)
    beam: tuple[int, ...] = (1, 2, 5, 10)
    source_tokens: int = 24
    rows: int = 32


class Plan(NamedTuple):
    """What is measured of every model."""

    peers: Sequence[str]
    beams: Sequence[int]
    batches: Sequence[int]
    singles: int  # sentences that are decoded one at a time
    rounds: int
    seed: int
    starts: bool  # and memory
    growth: Growth | None
    pause: float


def model_results(work: Work, plan: Plan, scratch: Path, kept: Kept) -> dict:
    """Everything about one model. kept: parts that are there are not measured again."""
    workers, missing = {}, {}
    for name, system in SYSTEMS.items():
        if not system.peer or system.peer in plan.peers:
            try:
                worker = systems.start(name, work.model, scratch)
            except Missing as error:
                missing[name] = str(error)
                progress.log(f"{work.name}: without {name}: {error}")
                continue
            if worker:
                workers[name] = worker
    results = {
        "model": work.name,
        "kind": models.kind_of(work.model.model_config),
        "parameters": models.parameter_count(work.model.model),
        "random": work.lines is None,
        "sentences": len(work.sentences),
        "missing": missing,
        "base": BASE,
        "against": {name: SYSTEMS[name].against for name in workers if name != BASE},
        "beams": [
            kept.part(f"{work.name}: beam {beam}", partial(_beam, work, plan, workers, beam)) for beam in plan.beams
        ],
    }
    if plan.growth:
        grown = partial(_growth, work, plan, plan.growth, workers, scratch)
        results["growth"] = kept.part(f"{work.name}: growth", grown)
    for worker in workers.values():
        worker.close()
    if plan.starts:
        started = {name: partial(_starts, work, plan, name, scratch) for name in workers}
        results["starts"] = {name: kept.part(f"{work.name}: start of {name}", one) for name, one in started.items()}
    return results


def _beam(work: Work, plan: Plan, workers: Mapping[str, Worker], beam: int) -> dict:
    """Every system at every number of rows, all interleaved; rows 1: single sentences, at even distances."""
    rules, total, cases = rules_of(work, beam), len(work.sentences), {}
    runs = {}
    for rows in plan.batches:
        count = min(total, plan.singles) if rows == 1 else total
        places = [number * total // count for number in range(count)]
        sentences = [work.sentences[place] for place in places]
        told = {name: worker.ask("prepare", (beam, rows), sentences, rows, rules) for name, worker in workers.items()}
        made = {name: found["outputs"] for name, found in told.items()}
        cases[rows] = case = {"rows": rows, "sentences": count, "agreement": systems.agreement(made, REFERENCE)}
        lengths = [len(ids) + 1 for ids in made[REFERENCE]]
        case["flops"], case["bytes"] = costs.needed(work.model, list(map(len, sentences)), lengths, beam, rows)
        case["source_words"] = sum(_words(work, place) for place in places)
        case["first"] = {name: found["first"] for name, found in told.items()}
        case["target_tokens"] = {name: sum(map(len, outputs)) for name, outputs in made.items()}
        if work.references is not None and count == total:
            case["bleu"] = {name: _bleu(work, outputs) for name, outputs in made.items()}
        for name, found in case["agreement"].items():
            same = f"{found['sentences'] - found['sentences_that_differ']} of {found['sentences']} sentences"
            progress.log(f"{work.name}: beam {beam}, rows {rows}: {name}: {same} as {REFERENCE}")
        runs |= {(name, rows): partial(_run, worker, (beam, rows)) for name, worker in workers.items()}
    timed = _interleaved(runs, plan, f"{work.name}: beam {beam}")
    seconds = {key: [sum(one.seconds) for one in rounds] for key, rounds in timed.items()}
    others = [name for name in workers if name != BASE]
    for rows, case in cases.items():
        case["systems"] = {name: _numbers(case, name, timed[name, rows]) for name in workers}
        case["speed_ups"] = {
            name: measure.ratio(seconds[name, rows], seconds[SYSTEMS[name].against, rows])._asdict() for name in others
        }
    batched = [rows for rows in plan.batches if rows > 1] or plan.batches
    rate = lambda name, rows: cases[rows]["systems"][name]["target_tokens_per_second"]["median"]  # noqa: E731
    best = {name: max(batched, key=partial(rate, name)) for name in workers}
    at_best = {}
    for name in others:
        own = SYSTEMS[name].against
        at_best[name] = measure.ratio(seconds[name, best[name]], seconds[own, best[own]])._asdict()
    found = {"beam": beam, "cases": list(cases.values()), "best_rows": best, "speed_ups_at_best": at_best}
    return {**found, "idle_share": workers[BASE].ask("idle", work.sentences, best[BASE], rules)}


def _run(worker: Worker, key) -> measure.Timed:
    return measure.Timed(worker.ask("run", key), [])


def _interleaved(runs: Mapping, plan: Plan, name: str) -> dict:
    with progress.counter(plan.rounds * len(runs), name, "runs") as advance:
        return measure.interleave(runs, plan.rounds, plan.seed, advance, plan.pause)


def _numbers(case: Mapping, name: str, timed: Sequence[measure.Timed]) -> dict:
    """What is said of a system: seconds, rates, shares of what the machine can do, latencies of single sentences."""
    totals = [sum(one.seconds) for one in timed]
    rates = {"sentences": case["sentences"], "source_words": case["source_words"]}
    rates["target_tokens"] = case["target_tokens"][name]
    shares = {
        "peak": case["flops"] / performance.matrix_peak(),
        "bandwidth": case["bytes"] / performance.memory_bandwidth(),
    }
    found = {
        "seconds": _interval(totals),
        **{f"{what}_per_second": _interval([amount / one for one in totals]) for what, amount in rates.items()},
        **{f"share_of_{what}": _interval([least / one for one in totals]) for what, least in shares.items()},
    }
    if case["rows"] == 1:
        for name_of_share, share in (("p50", 0.5), ("p95", 0.95)):
            found[f"{name_of_share}_seconds"] = _interval([measure.quantile(one.seconds, share) for one in timed])
    return found


def _words(work: Work, place: int) -> int:
    return len(work.lines[place].split()) if work.lines else len(work.sentences[place]) - 1


def _interval(values: Sequence[float]) -> dict:
    return measure.interval(values)._asdict()


def _bleu(work: Work, outputs: Sequence[Sequence[int]]) -> float:
    from seqkd_jax.evaluation import metrics, tokenization

    vocabularies = work.model.vocabularies
    texts = [vocabularies.target.decode(ids) for ids in outputs]
    tokenize = tokenization.resolve(tokenization.AUTO, vocabularies, work.references)
    return metrics.score(texts, metrics.metric_references(vocabularies, work.references, tokenize), tokenize).bleu


def _starts(work: Work, plan: Plan, name: str, scratch: Path) -> dict:
    """A new process of a system, several times: seconds to the first translation of one sentence; peaks of memory."""
    beam, rows = max(plan.beams), 32 if 32 in plan.batches else max(plan.batches)
    what = name, work.model, scratch, work.sentences, rows, rules_of(work, beam)
    found = []
    for _ in range(STARTS):
        with tempfile.TemporaryDirectory(dir=scratch) as cache:
            os.chmod(cache, 0o700)
            found.append(
                [systems.fresh(*what, Path(cache)) for _ in ("empty", "filled")][: 1 if SYSTEMS[name].peer else 2]
            )
    seconds = [[one["seconds_to_first_translation"] for one in column] for column in zip(*found, strict=True)]
    return {
        "beam": beam,
        "rows": rows,
        "seconds_to_first_translation": dict(zip(("empty", "filled"), map(_interval, seconds), strict=False)),
        "bytes": found[0][0]["bytes"],
    }


def _growth(work: Work, plan: Plan, growth: Growth, workers: Mapping[str, Worker], scratch: Path) -> dict:
    """{what grows: {system: {"sizes", "seconds": intervals, "exponent": interval}}}; exponents are fitted by round."""
    found = {}
    sentences = random_sentences(work.model, max(growth.sentences), growth.source_tokens, plan.seed)

    def prepared(worker: Worker, name: str, **sizes: int) -> partial:
        at = {**FIXED, **sizes}
        rules = forced(rules_of(work, at["beam"]), at["length"])
        worker.ask("prepare", (name, *at.values()), sentences[: at["sentences"]], growth.rows, rules)
        return partial(_run, worker, (name, *at.values()))

    for axis in ("length", "sentences", "beam"):
        sizes = getattr(growth, axis)
        runs = {
            (name, size): prepared(worker, axis, **{axis: size}) for name, worker in workers.items() for size in sizes
        }
        found[axis] = _curves(_interleaved(runs, plan, f"{work.name}: time by {axis}"), sizes)
    counts = sorted({*(2**power for power in range(cores().bit_length()) if 2**power <= cores()), cores()})
    each = {count: systems.start(BASE, work.model, scratch, count) for count in counts}
    most = {"sentences": max(growth.sentences)}
    runs = {(BASE, count): prepared(worker, "devices", **most) for count, worker in each.items() if worker}
    found["devices"] = _curves(_interleaved(runs, plan, f"{work.name}: time by devices"), counts)
    for worker in each.values():
        worker.close()
    return {"at": {**FIXED, "rows": growth.rows}, "curves": found}


def _curves(timed: Mapping[tuple[str, int], Sequence[measure.Timed]], sizes: Sequence[int]) -> dict:
    curves = {}
    for name in dict.fromkeys(name for name, _ in timed):
        seconds = [[sum(one.seconds) for one in timed[name, size]] for size in sizes]
        curves[name] = {"sizes": list(sizes), "seconds": list(map(_interval, seconds))}
        if len(sizes) > 1:
            exponents = [measure.exponent(sizes, round_) for round_ in zip(*seconds, strict=True)]
            curves[name]["exponent"] = _interval(exponents)
    return curves
