"""The command: every subject under every system, interleaved."""

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

import jax
import tyro

from experiments.benchmarks import benchmark
from experiments.benchmarks.training import ours
from experiments.benchmarks.training.subjects import LARGE, SUBJECTS, TAUGHT, Subject, tiny
from experiments.core import measure
from experiments.core.report import interval, speed_up
from experiments.core.tables import Section, Table
from seqkd_jax.config import Positive
from seqkd_jax.types import UserError
from seqkd_jax.utils import progress

OURS, AT_ONCE, PYTORCH = "seqkd_jax", "seqkd_jax, all positions at once", "PyTorch"
ROUNDED, AUTOCAST = "seqkd_jax, bfloat16 products", "PyTorch, autocast to bfloat16"
AGAINST = {AUTOCAST: ROUNDED}  # whose speed is compared with another of ours than OURS
LIKELIHOOD, TEACHER, WORD_KD, TOP_K = "likelihood", "the teacher's forward pass", "Word-KD", "Word-KD from top"
DISTILLING, MEMORY = "distilling", "memory"  # parts, beside the subjects
LOGITS = 4  # bytes


@dataclass(frozen=True, kw_only=True)
class Options(benchmark.Options):
    """Training speed beside PyTorch, of models of the same sizes on the same cores."""

    only: Annotated[tuple[Literal[(*SUBJECTS, DISTILLING, MEMORY)], ...], tyro.conf.arg()] = ()
    """What to measure; nothing: all of it."""
    updates: Positive = 2
    """Updates in one repetition."""
    peers: bool = True
    """Beside PyTorch (`pip install torch`); otherwise ours alone."""


def measure_all(options: Options) -> dict:
    """Every part. UserError: PyTorch is not installed."""
    if options.peers and importlib.util.find_spec("torch") is None:
        raise UserError("PyTorch is not installed: `pip install torch`, or --no-peers for ours alone")
    size: Callable[[Subject], Subject] = tiny if options.smoke else lambda subject: subject
    parts, found = options.only or (*SUBJECTS, DISTILLING, MEMORY), {}
    kept = benchmark.kept(BENCHMARK.name, replace(options, only=()), {})
    for name in (part for part in parts if part in SUBJECTS):
        progress.log(f"{name}: {SUBJECTS[name].about}")
        found[name] = kept.part(name, partial(_measured, size(SUBJECTS[name]), options))
    results = {"settings": {"updates": options.updates}, "subjects": found}
    if DISTILLING in parts:
        progress.log(f"{DISTILLING}: {TAUGHT.about}")
        results[DISTILLING] = kept.part(DISTILLING, partial(_distilling, size(TAUGHT), options))
    if MEMORY in parts:
        progress.log(f"{MEMORY}: {LARGE.about}")
        ways = {OURS: True, AT_ONCE: False}
        found = {name: ours.memory(size(LARGE), in_blocks) for name, in_blocks in ways.items()}
        results[MEMORY] = {"about": LARGE.about, "systems": found}
    return results


def _measured(subject: Subject, options: Options) -> dict:
    """Seconds of an update under each system, by round, and what else is known of it."""
    rounded = subject._replace(model=replace(subject.model, compute="bfloat16_products"))
    systems = {OURS: ours.update(subject, options.seed, True), AT_ONCE: ours.update(subject, options.seed, False)}
    systems[ROUNDED] = ours.update(rounded, options.seed, True)
    if options.peers:
        from experiments.benchmarks.training import pytorch

        systems |= {PYTORCH: pytorch.update(subject, options.seed), AUTOCAST: pytorch.update(rounded, options.seed)}
    losses, seconds = _timed({name: system.run for name, system in systems.items()}, options)
    return {
        "about": subject.about,
        "target": subject.target,
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
            name: measure.ratio(seconds[name], seconds[AGAINST.get(name, OURS)])._asdict()
            for name in systems
            if name != OURS
        },
    }  # fmt: skip


def _distilling(subject: Subject, options: Options) -> dict:
    """Seconds of an update by likelihood and of two by Word-KD, and of the teacher's forward pass, by round."""
    runs = {LIKELIHOOD: ours.update(subject, options.seed).run, TEACHER: ours.forward(subject, options.seed)}
    for name, loss in ((WORD_KD, "word_kd"), (TOP_K, "word_kd_top_k")):
        runs[name] = ours.update(subject, options.seed, loss=loss).run
    _, seconds = _timed(runs, options)
    both = [student + teacher for student, teacher in zip(seconds[LIKELIHOOD], seconds[TEACHER], strict=True)]
    return {
        "about": subject.about,
        "top_k": subject.top_k,
        "seconds": seconds,
        "word_kd": measure.ratio(seconds[WORD_KD], both)._asdict(),
        "word_kd_top_k": measure.ratio(seconds[TOP_K], seconds[LIKELIHOOD])._asdict(),
    }


def _timed(systems: Mapping[str, Callable[[], float]], options: Options) -> tuple[dict, dict]:
    """What each gives the first two times, which are not timed, and its seconds by round."""
    first = {name: [run(), run()] for name, run in systems.items()}  # threads, caches, allocators
    runs = {
        name: lambda run=run: measure.time_jobs(lambda _: run(), range(options.updates))
        for name, run in systems.items()
    }
    pause = 0.0 if options.smoke else measure.PAUSE
    timed = measure.interleave(runs, options.rounds, options.seed, pause=pause)
    jax.clear_caches()
    return first, {name: [sum(one.seconds) / options.updates for one in rounds] for name, rounds in timed.items()}


def sections(results: dict) -> list[Section]:
    """The targets, and a row for each subject and system."""
    return [section for section in (_targets(results), _speed(results)) if section.table and section.table.rows]


def _targets(results: dict) -> Section:
    """What was to be reached, and whether the interval says that it is."""
    wanted = []  # what, ratio, target, whether the ratio is to be at least that
    for subject in results["subjects"].values():
        if subject.get("target") and PYTORCH in subject["speed_ups"]:
            ratio = subject["speed_ups"][PYTORCH]
            wanted.append((f"{subject['about']}: speed, PyTorch's is 1", ratio, subject["target"], True))
            if AUTOCAST in subject["speed_ups"]:
                both = f"{subject['about']}: speed with products of bfloat16, PyTorch's is 1"
                wanted.append((both, subject["speed_ups"][AUTOCAST], subject["target"], True))
    if DISTILLING in results:
        found = results[DISTILLING]
        both = f"{found['about']}: time of an update, that of the student and the teacher's forward pass are 1"
        alone = f"the same from its {found['top_k']} most probable entries: time, an update by likelihood is 1"
        wanted += [(both, found["word_kd"], 1.1, False), (alone, found["word_kd_top_k"], 1.05, False)]
    if MEMORY in results:
        blocks, whole = (results[MEMORY]["systems"][name] for name in (OURS, AT_ONCE))
        for kind in ("peak", "temporary"):
            value = blocks[kind] / whole[kind]
            ratio = {"median": value, "low": value, "high": value}  # of the compiled program: exact
            told = f"{results[MEMORY]['about']}: {kind} memory, all positions at once are 1"
            wanted.append((told, ratio, 0.4, False))
    rows = [
        [what, interval(ratio, "{:.2f}".format), f"{'at least' if least else 'at most'} {target:g}"]
        + [_verdict(ratio, target, least)]
        for what, ratio, target, least in wanted
    ]
    return Section("Targets", table=Table(["", "ratio", "target", "reached"], rows))


def _verdict(ratio: Mapping, target: float, least: bool) -> str:
    if ratio["low"] is None:
        return "too few rounds"
    reached, missed = ratio["low"] >= target, ratio["high"] < target
    if not least:
        reached, missed = ratio["high"] <= target, ratio["low"] > target
    return "yes" if reached else "no" if missed else "not shown"


def _speed(results: dict) -> Section:
    """A row for each subject and system."""
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
        "ours is",
    ]
    note = f"ours is {OURS}, beside {AUTOCAST} {ROUNDED}"
    return Section("Speed", table=Table(head, rows, notes=[note]))


BENCHMARK = benchmark.Benchmark("training_speed", Options, measure_all, sections)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 an error that the user can mend."""
    return benchmark.main(BENCHMARK, "experiments.benchmarks.training", arguments)


if __name__ == "__main__":
    sys.exit(main())
