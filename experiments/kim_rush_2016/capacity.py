"""How many of the right translations a student of each size holds, on the toy language, whose p(t|s) is known.

    python -m experiments.kim_rush_2016.capacity [--sizes 8 16 32] [--arms Baseline Seq-KD] [--seeds 3] [--render DIR]

Kim & Rush conjecture that a small student has no room for all modes of p(t|s), and gains by modelling the teacher's
mode alone. All right translations of a source are scored, so nothing here is estimated from samples or from a beam.
Writes capacity.json, table.md and plots/capacity.png. Stages are those of the study, so a stopped command goes on.
"""

import math
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from experiments.core import report, stages
from experiments.core.plots import COLOURS, MARKERS, drawn, pyplot
from experiments.core.plots import write as write_plots
from experiments.core.results import reading
from experiments.core.study import Workspace
from experiments.core.tables import Section, Table, mean_and_deviation
from experiments.kim_rush_2016 import pipeline
from experiments.kim_rush_2016.arms import BASELINE, NAMED, TEACHER
from experiments.kim_rush_2016.rows import Row, label
from experiments.kim_rush_2016.scale import Scale
from experiments.kim_rush_2016.scales import SCALES
from seqkd_jax import checkpoint, models
from seqkd_jax.cli.main import errors_in_one_line
from seqkd_jax.config import LSTMConfig, Positive
from seqkd_jax.data import toy
from seqkd_jax.decoding import force_score, translate_lines
from seqkd_jax.types import EOS, System
from seqkd_jax.utils import files, program_cache
from seqkd_jax.utils.exits import exit_status
from seqkd_jax.utils.settings import Range, Settings

PROGRAM = "python -m experiments.kim_rush_2016.capacity"
STUDENTS = (BASELINE, "Seq-KD", "Word-KD")
RECORD = "capacity.json"
SEED = 11  # of the data: other sentences than those of scale smoke
KEPT = 0.5  # a translation is kept if the model gives it at least this share of its true probability


@dataclass(frozen=True, kw_only=True)
class Command(Settings):
    """Students of several sizes on the toy language, against the known p(t|s)."""

    sizes: tuple[Annotated[int, Range(1, 4096)], ...] = (8, 16, 32, 64, 128)
    """Widths of the students' two layers; the teacher's is 128."""
    arms: tuple[Literal["Baseline", "Seq-KD", "Word-KD"], ...] = STUDENTS
    """Of the students."""
    seeds: Positive = 3
    """Of each student; all have the same teacher."""
    sources: Positive = 200
    """Test sources whose right translations are scored."""
    out: Path = Path("runs/kim_rush_2016/capacity")
    """Where results go, and stages in OUT/stages."""
    render: Path | None = None
    """A directory with capacity.json: write its table and plot anew; train nothing."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 an error that the user can mend."""
    with errors_in_one_line(PROGRAM):
        command = tyro.cli(Command, args=arguments, prog=PROGRAM)

    def run() -> int:
        command.validate(lambda name: f"--{name}")
        if command.render:
            results = files.read_json(command.render / RECORD)
            with reading(command.render / RECORD):
                write(command.render, results)
        else:
            program_cache.keep()
            write(command.out, measure(command))
        return 0

    return exit_status(run, interrupted="interrupted; the same command goes on")


# Made


def scale(sizes: Iterable[int], toy_pairs: tuple[int, int, int] | None = None) -> Scale:
    """Scale smoke on other sentences, with students of these sizes.

    One rule for all students: weights from U(-3/√size, 3/√size), 5 epochs with Adam at 0.01.
    """
    (smoke,) = SCALES["smoke"]
    students = tuple(LSTMConfig(2, size, dropout=0.0, init_scale=3 / math.sqrt(size)) for size in sizes)
    training = {role: replace(config, seed=1) for role, config in smoke.training.items()}
    optimiser = replace(training["student"].optimiser, learning_rate=1e-2)
    training["student"] = replace(training["student"], optimiser=optimiser)
    chosen = {"models": {**smoke.models, "student": students}, "training": training, "seed": SEED}
    return replace(smoke, name="capacity", toy=toy_pairs or smoke.toy, **chosen)


def measure(command: Command) -> dict:
    """What capacity.json says: an entry for each training run, the teacher first."""
    chosen = scale(command.sizes)
    workspace = Workspace(chosen, None, command.out / "stages")
    students = [
        Row(NAMED[name], model, place)
        for name in command.arms
        for place in range(command.seeds)
        for model in chosen.models["student"]
    ]
    rows = [chosen.teacher_row, *students]
    entries = [files.read_json(against_truth(workspace, row, command.sources) / "truth.json") for row in rows]
    counts = files.read_json(pipeline.data(workspace) / "counts.json")
    sources = pipeline.read(workspace, pipeline.data(workspace), "test").sources[: command.sources]
    return {
        **report.what_ran({split: count["sha256"] for split, count in counts.items()}),
        "commits": _commits(workspace, rows),
        "sources": len(sources),
        "truth": {
            "translations": statistics.fmean(len(toy.translations(source)) for source in sources),
            "effective": math.exp(statistics.fmean(map(toy.entropy, sources))),
            "mode": statistics.fmean(toy.mode(source)[1] for source in sources),
        },
        "runs": [
            {"arm": row.arm.name, "model": label(row.model), "size": row.model.size, "seed": 1 + row.place, **entry}
            for row, entry in zip(rows, entries, strict=True)
        ],
    }


def _commits(workspace: Workspace, rows: Iterable[Row]) -> list[str]:
    """Of the code that trained."""
    manifests = (stages.read_manifest(pipeline.training(workspace, row)) for row in rows)
    return list(dict.fromkeys(commit for manifest in manifests for commit in manifest["commits"]))


def against_truth(workspace: Workspace, row: Row, count: int) -> Path:
    """truth.json of a row: its p(t|s) beside the true one, over the right translations of so many test sources."""
    given, weights = pipeline.data(workspace), pipeline.trained(workspace, row)

    def make(directory: Path) -> None:
        loaded = checkpoint.load_translator(weights)
        sources = pipeline.read(workspace, given, "test").sources[:count]
        files.write_json(directory / "truth.json", {
            "parameters": models.parameter_count(loaded.model),
            **divergence(loaded.system, sources),
            "greedy_right": _greedy_right(workspace, loaded.system, sources),
        })  # fmt: skip

    return workspace.stage(f"truth-{row.key}", [count, KEPT], {"data": given, "checkpoint": weights}, make)


def divergence(system: System, sources: Sequence[str]) -> dict[str, float]:
    """Means over sources: KL(truth || model) in nats, the mass on right translations, and how many of these are held.

    kept: the share of right translations with at least half of their true probability; kept_mass: that of their true
    probability. effective: exp of the mean entropy of the model among right translations, as if so many were equally
    probable. mode: the probability of the truly most probable one.
    """
    vocabularies = system.vocabularies
    truths = [toy.translations(source) for source in sources]
    pairs = [
        ([*vocabularies.source.encode(source), EOS], vocabularies.target.encode(target))
        for source, truth in zip(sources, truths, strict=True)
        for target in truth
    ]
    scores = iter(force_score(system.translator, system.params, pairs, batch_tokens=4096))
    found: dict[str, list[float]] = {name: [] for name in ("kl", "right", "kept", "kept_mass", "entropy", "mode")}
    for truth in truths:
        p, log_q = np.array(list(truth.values())), np.array([next(scores) for _ in truth])
        q, kept = np.exp(log_q), log_q >= np.log(KEPT * p)
        among = np.exp(log_q - np.logaddexp.reduce(log_q))
        values = {
            "kl": np.sum(p * (np.log(p) - log_q)),
            "right": np.sum(q),
            "kept": np.mean(kept),
            "kept_mass": np.sum(p[kept]),
            "entropy": -np.sum(among * np.log(np.maximum(among, 1e-300))),
            "mode": q[0],
        }
        for name, value in values.items():
            found[name].append(float(value))
    means = {name: statistics.fmean(values) for name, values in found.items()}
    entropy = means.pop("entropy")
    return {**means, "effective": math.exp(entropy)}


def _greedy_right(workspace: Workspace, system: System, sources: Sequence[str]) -> float:
    """The share of greedy outputs that are right translations."""
    greedy = replace(pipeline.searches(workspace.scale)["beam1"], decoder="greedy")
    outputs = [translation.text for translation in translate_lines(system, sources, greedy)]
    return statistics.fmean(toy.is_right(*pair) for pair in zip(sources, outputs, strict=True))


# Read off capacity.json


def write(directory: Path, results: dict) -> None:
    """The record, its table and its plot; the table is printed, too."""
    table, plots = report.to_markdown(sections(results)), drawn({"capacity": plot}, results)
    files.write_json(directory / RECORD, results)
    files.write_text(directory / "table.md", table)
    write_plots(plots, directory / "plots")
    print(f"{table}\nrecord, table and plot: {directory}")


def lines(results: dict) -> dict[tuple[str, str], list[dict]]:
    """(arm, model) -> its seeds, in the order of the record."""
    found: dict[tuple[str, str], list[dict]] = {}
    for run in results["runs"]:
        found.setdefault((run["arm"], run["model"]), []).append(run)
    return found


def sections(results: dict) -> list[Section]:
    """What the record is of, and a line for each arm and size, with the mean of its seeds."""
    truth, seeds = results["truth"], max(map(len, lines(results).values()))
    rows = [
        [arm, model, f"{runs[0]['parameters']:,}", *(_cell(runs, name, write) for name, (_, write) in MEASURES.items())]
        for (arm, model), runs in lines(results).items()
    ]
    rows.append(["the truth", "–", "–", "0", "100%", "100%", "100%", f"{truth['effective']:.1f}"])
    rows[-1] += [f"{truth['mode']:.1%}", "–"]
    notes = [
        f"over the right translations of {results['sources']} test sources, {truth['translations']:.1f} of each; "
        + (f"mean ± sd of {seeds} seeds, of the teacher one" if seeds > 1 else "one seed"),
        "KL: of the truth from the model, nats a sentence; right: the model's mass on right translations",
        f"kept: right translations with at least {KEPT:.0%} of their true probability, and how much of the true mass "
        "they have; effective: as if so many right translations were equally probable",
        "mode: the model's probability of the truly most probable translation; greedy: outputs that are right",
        "a demonstration: the language and the teacher's settings are those of scale smoke, which were chosen in sight "
        "of the effect; sizes, rate, initialisation and seeds of the students were fixed before this run, the only one",
    ]
    head = ["arm", "model", "parameters", *(name for name, _ in MEASURES.values())]
    text = [f"`{results['command']}`, commit `{report.short_commit(results)}`, finished {results['finished'][:10]}."]
    return [Section("Right translations that a student of each size holds", text, table=Table(head, rows, 2, notes))]


def _cell(runs: Sequence[dict], name: str, write: Callable[[float], str]) -> str:
    return mean_and_deviation([run[name] for run in runs], write)


def _percent(value: float) -> str:
    return f"{value:.1%}"


MEASURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "kl": ("KL", "{:.2f}".format),
    "right": ("right", _percent),
    "kept": ("kept", _percent),
    "kept_mass": ("their mass", _percent),
    "effective": ("effective", "{:.1f}".format),
    "mode": ("mode", _percent),
    "greedy_right": ("greedy", _percent),
}
PANELS = {  # measure -> label of the axis, and what the truth has
    "kl": ("KL from the truth, nats a sentence", lambda truth: None),
    "right": ("mass on right translations", lambda truth: 1.0),
    "kept_mass": ("true mass of the translations that are kept", lambda truth: 1.0),
    "effective": ("effective number of right translations", lambda truth: truth["effective"]),
}


def plot(results: dict):
    """Each measure by size, a line for each arm: the mean, and every seed as a dot; dashed: the teacher."""
    figure, every = pyplot.subplots(2, 2, figsize=(8.5, 6.2), layout="constrained")
    sizes = sorted({run["size"] for run in results["runs"]})
    for axes, (name, (text, of_truth)) in zip(every.flat, PANELS.items(), strict=True):
        for place, arm in enumerate(dict.fromkeys(run["arm"] for run in results["runs"])):
            runs = [run for run in results["runs"] if run["arm"] == arm]
            look = {"color": COLOURS[2 * place], "label": arm}
            if arm == TEACHER:
                axes.axhline(runs[0][name], linestyle="--", linewidth=1, **look)
                continue
            own = sorted({run["size"] for run in runs})
            means = [statistics.fmean(run[name] for run in runs if run["size"] == size) for size in own]
            axes.plot(own, means, marker=MARKERS[place], markersize=4, linewidth=1, **look)
            axes.plot(
                [run["size"] for run in runs], [run[name] for run in runs], ".", markersize=3, color=look["color"]
            )
        truth = of_truth(results["truth"])
        if truth is not None:
            axes.axhline(truth, color="#999999", linewidth=0.8, linestyle=":", label="the truth")
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [f"2×{size}" for size in sizes])
        axes.minorticks_off()
        axes.set_ylabel(text)
        axes.grid(alpha=0.3)
    every.flat[1].legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    sys.exit(main())
