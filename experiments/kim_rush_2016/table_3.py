"""Table 3: the best student pruned, retrained on Seq-KD data, then fine-tuned on Seq-Inter data (`--pruning`).

Its rows are arms like the others, made by the same stages; here stand which ways of pruning a scale has, what
results.json says of them as `pruned`, a list with a dict for each training run, and how a person reads that.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from experiments.core.claims import Claim, Part, judged
from experiments.core.intervals import estimate, mean, of_seeds
from experiments.core.plots import COLOURS, MARKERS, pyplot
from experiments.core.study import Workspace
from experiments.core.tables import Section, Table, mean_and_deviation
from experiments.kim_rush_2016 import evaluations, pipeline
from experiments.kim_rush_2016.arms import BEAMS, BEST, NAMED
from experiments.kim_rush_2016.published import TABLE_3, Pruned
from experiments.kim_rush_2016.rows import Row, label
from experiments.kim_rush_2016.scale import Scale
from seqkd_jax import checkpoint, pruning
from seqkd_jax.config import PruningConfig
from seqkd_jax.evaluation import metrics
from seqkd_jax.utils import files, settings

WHOLE = tuple(
    PruningConfig(share, rule, embeddings)
    for rule in ("class_blind", "class_uniform")
    for embeddings in (True, False)
    for share in (0.5, 0.8, 0.85, 0.9)
)
FEWER = {"smoke": (PruningConfig(0.5), PruningConfig(0.8))}  # of scales that do not have the whole of it
CLAIMED = 0.8  # share of the weights
LOSS = 0.4  # BLEU at beam 5; so much less than the teacher the paper's abstract reports of a student pruned by CLAIMED
PROGRAMS = 2  # more than without it: a pruned run's initial state and its update


def added(scale: Scale) -> Scale:
    """The scale with the arms of table 3."""
    most = scale.max_compilations and scale.max_compilations + PROGRAMS
    return replace(scale, pruning=FEWER.get(scale.name, WHOLE), max_compilations=most)


# Made


def entries(workspace: Workspace, whole: Mapping[Row, Path], pruned: Mapping[Row, Path]) -> list[dict]:
    """results.json's `pruned`: each pruned student, after what it was pruned from."""
    compared, found = files.read_json(_compared(workspace, whole, pruned) / "compared.json"), []
    first = {_whole_of(row): whole[_whole_of(row)] for row in pruned}
    for row, path in {**first, **pruned}.items():
        weights = pipeline.trained(workspace, row)
        results, loaded = files.read_json(path / "results.json"), checkpoint.load(weights)
        found.append(
            {
                "arm": row.arm.name,
                "model": label(row.model),
                "corpus": row.arm.corpus,
                "pruning": settings.to_json(row.arm.pruning) if row.arm.pruning else None,
                "parameters": results["parameters"],
                "nonzero": pruning.nonzero(loaded.params),
                "bytes": pruning.size(weights),
                **{name: results[name] for name in ("bleu_beam1", "bleu_beam5", "signature")},
                "seed": loaded.metadata["config"]["seed"],
                "outputs": {beam: evaluations.output_name(row, beam) for beam in BEAMS},
                "compared": compared.get(row.key),
            }
        )
    return found


def _whole_of(row: Row) -> Row:
    """The row that this one was pruned from, under the same model and seed."""
    return row._replace(arm=NAMED[BEST])


def _compared(workspace: Workspace, whole: Mapping[Row, Path], pruned: Mapping[Row, Path]) -> Path:
    """The paired bootstrap over test sentences of each pruned row against what it was pruned from."""
    pairs = {row: _whole_of(row) for row in pruned}
    given = {row.key: path for row, path in pruned.items()} | {best.key: whole[best] for best in pairs.values()}

    def make(directory: Path) -> None:
        outputs = {key: files.read_json(path / "outputs.json") for key, path in given.items()}
        tokenize, compared = pipeline.tokenizer(workspace), {}
        for row, best in pairs.items():
            own, other = outputs[row.key], outputs[best.key]
            for beam in BEAMS:
                of_beam = metrics.paired_bootstrap(other[beam], {row.key: own[beam]}, own["references"], tokenize)
                compared.setdefault(row.key, {})[beam] = of_beam[row.key]
        files.write_json(directory / "compared.json", compared)

    return workspace.stage("pruned-compared", list(BEAMS), given, make)


# Read off results.json


def sections(results: dict) -> list[Section]:
    """The table beside the paper's; a line for each arm, with the mean of its seeds."""
    lines = _lines(results)
    if not lines:
        return []
    rows = [[write(seeds) for _, write in COLUMNS] for seeds in lines]
    count = max(map(len, lines))
    notes = [
        "Pruned N: the best student without N percent of its weights, those of least magnitude, retrained on Seq-KD "
        "data; + Seq-Inter: then fine-tuned on Seq-Inter data. Class-blind and of all weights, unless the arm says "
        "otherwise; biases are not pruned. Both at the paper's rates, a fifth and a tenth of the first; how long is "
        "not published: here as long as other fine-tuning",
        "bytes: of the weights in the checkpoint; of a pruned one a bit for each weight, and those that are left",
        "Δ: against the student that was pruned; "
        + (f"mean ± sd of {count} seeds" if count > 1 else "[95% interval over test sentences]; one seed"),
        "paper: En–De 2×500, from secondary texts",
    ]
    return [Section("Pruning (table 3)", table=Table([name for name, _ in COLUMNS], rows, 2, notes))]


def _lines(results: dict) -> list[list[dict]]:
    """The entries of each arm of each model: its seeds."""
    lines: dict[tuple, list[dict]] = {}
    for entry in results.get("pruned", ()):
        lines.setdefault((entry["model"], entry["arm"]), []).append(entry)
    return list(lines.values())


def claims(results: dict) -> list[Claim]:
    """Whether pruning costs the best student of each model next to nothing. Not corrected yet.

    The interval is over seeds and test sentences; that of sentences is the mean of the seeds', which is wider than of
    all seeds together.
    """
    text = f"pruned by {CLAIMED:.0%} and retrained, the best student loses less than {LOSS:g} BLEU at beam 5"
    found = []
    for seeds in _lines(results):
        line = of_paper(seeds)
        if line and line.share == CLAIMED:
            costs, of_sentences = deltas(seeds, "beam5"), [entry["compared"]["beam5"] for entry in seeds]
            ends = (mean([one[f"delta_{end}"] for one in of_sentences]) + LOSS for end in ("low", "high"))
            size = mean(costs) + LOSS
            measured = estimate(size, of_seeds(costs), tuple(ends))
            printed = _of_whole(line)
            part = Part(measured, f"{mean(costs):+.2f}", len(costs), f"{printed:+.1f}", [printed + LOSS])
            found.append(judged(seeds[0]["model"], text, [part]))
    return found


def _mean(name: str) -> Callable[[Sequence[dict]], float]:
    return lambda seeds: statistics.fmean(entry[name] for entry in seeds)


def deltas(seeds: Sequence[dict], beam: str) -> list[float]:
    """BLEU of each seed above that of what it was pruned from; [] for what was not pruned."""
    return [entry["compared"][beam]["delta"] for entry in seeds if entry["compared"]]


def _delta(beam: str) -> Callable[[Sequence[dict]], str]:
    def cell(seeds: Sequence[dict]) -> str:
        found = deltas(seeds, beam)
        if not found:
            return "–"
        if len(found) > 1:
            return mean_and_deviation(found, "{:+.1f}".format)
        of_sentences = seeds[0]["compared"][beam]
        return f"{found[0]:+.1f} [{of_sentences['delta_low']:+.1f}, {of_sentences['delta_high']:+.1f}]"

    return cell


def of_paper(seeds: Sequence[dict]) -> Pruned | None:
    """The paper's line beside an arm: class-blind, of all weights, after Seq-Inter."""
    how = seeds[0]["pruning"]
    if how is None:
        return TABLE_3[0]
    as_printed = how["rule"] == "class_blind" and how["embeddings"] and seeds[0]["corpus"] == "seq_inter"
    return next((line for line in TABLE_3 if as_printed and line.share == how["share"]), None)


def _paper(write: Callable[[Pruned], str]) -> Callable[[Sequence[dict]], str]:
    def cell(seeds: Sequence[dict]) -> str:
        line = of_paper(seeds)
        return "–" if line is None else write(line)

    return cell


def _of_whole(line: Pruned) -> float:
    return line.bleu_beam5 - TABLE_3[0].bleu_beam5


COLUMNS: tuple[tuple[str, Callable[[Sequence[dict]], str]], ...] = (
    ("model", lambda seeds: seeds[0]["model"]),
    ("arm", lambda seeds: seeds[0]["arm"]),
    ("pruned", lambda seeds: f"{seeds[0]['pruning']['share']:.0%}" if seeds[0]["pruning"] else "0%"),
    ("non-zero parameters", lambda seeds: f"{_mean('nonzero')(seeds):,.0f}"),
    ("paper", _paper(lambda line: f"{line.parameters:g}m")),
    ("bytes", lambda seeds: f"{_mean('bytes')(seeds):,.0f}"),
    ("K=1", lambda seeds: f"{_mean('bleu_beam1')(seeds):.1f}"),
    ("Δ", _delta("beam1")),
    ("K=5", lambda seeds: f"{_mean('bleu_beam5')(seeds):.1f}"),
    ("Δ", _delta("beam5")),
    ("paper", _paper(lambda line: f"{line.bleu_beam5:.1f}")),
    ("Δ", _paper(lambda line: f"{_of_whole(line):+.1f}" if line.share else "–")),
)


def plot(results: dict):
    """What pruning costs in BLEU at beam 5, by share, after Seq-Inter: the paper's, and a line for each way."""
    ways: dict[str, list[tuple[float, float]]] = {}
    for seeds in _lines(results):
        how = seeds[0]["pruning"]
        if how and seeds[0]["corpus"] == "seq_inter":
            words = [
                seeds[0]["model"],
                how["rule"].replace("_", "-"),
                *([] if how["embeddings"] else ["no embeddings"]),
            ]
            found = how["share"], statistics.fmean(deltas(seeds, "beam5"))
            ways.setdefault(", ".join(words), [(0.0, 0.0)]).append(found)
    if not ways:
        return None
    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    ways = {"the paper, En–De 2×500": [(line.share, _of_whole(line)) for line in TABLE_3], **ways}
    for place, (name, points) in enumerate(ways.items()):
        shares, costs = zip(*sorted(points), strict=True)
        line = {"color": COLOURS[place + 1], "marker": MARKERS[place], "linestyle": "-" if place else "--"}
        axes.plot([100 * share for share in shares], costs, label=name, linewidth=1, markersize=5, **line)
    axes.axhline(0, color="#cccccc", linewidth=0.8, zorder=0)
    axes.set_xlabel("weights that are pruned, percent")
    axes.set_ylabel("BLEU at beam 5, against the whole student")
    axes.legend(frameon=False, fontsize=8)
    return figure
