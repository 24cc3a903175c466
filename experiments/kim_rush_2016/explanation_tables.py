"""What results.json's `explanation` says as tables and a plot: a line for each arm, the mean of its seeds."""

import statistics
from collections.abc import Callable, Sequence

from experiments.core.plots import pyplot
from experiments.core.tables import Section, Table, mean_and_deviation
from experiments.kim_rush_2016.claims import percent
from experiments.kim_rush_2016.explanation import BEAMS, SEARCHED, lines
from experiments.kim_rush_2016.plots import arm_legend, look_of

Cell = Callable[[Sequence[dict]], str]


def _over_seeds(value: Callable[[dict], float | None], write: Callable[[float], str]) -> Cell:
    """The mean over the seeds that have a value, and their standard deviation."""

    def cell(seeds: Sequence[dict]) -> str:
        found = [number for number in map(value, seeds) if number is not None]
        return mean_and_deviation(found, write) if found else "–"

    return cell


def _named(name: str, write: Callable[[float], str]) -> Cell:
    return _over_seeds(lambda one: one[name], write)


def _of_beam(name: str, beam: int, write: Callable[[float], str]) -> Cell:
    return _over_seeds(lambda one: one[name][str(beam)], write)


_whole, _tenths, _one, _two = "{:.0%}".format, "{:.1%}".format, "{:.1f}".format, "{:.2f}".format
SEARCH: tuple[tuple[str, Cell], ...] = (
    ("proven", _named("proven", _whole)),
    ("p(mode)", _named("mode", percent)),
    *((f"p(K={beam})", _of_beam("searched", beam, percent)) for beam in (1, 5)),
    *((f"errors K={beam}", _of_beam("errors", beam, _tenths)) for beam in SEARCHED),
    ("empty", _named("empty", _whole)),
    ("BLEU of modes", _named("bleu_mode", _one)),
    ("of K=5", _named("bleu_beam5", _one)),
)
MASS: tuple[tuple[str, Cell], ...] = (
    ("p(best found)", _named("known", percent)),
    *((f"missed K={beam}", _of_beam("missed", beam, _tenths)) for beam in (1, 5)),
    *((f"mass K={beam}", _of_beam("mass", beam, percent)) for beam in (5, 35)),
    ("K=1 is K=5", _named("greedy_is_beam", _whole)),
    ("H references", _named("entropy_references", _two)),
    ("H own", _named("entropy_own", _two)),
    ("PPL references", _named("perplexity_references", _two)),
    ("PPL teacher", _named("perplexity_teacher", _two)),
)
ORACLE: tuple[tuple[str, Cell], ...] = (
    *((f"first K={beam}", _of_beam("first", beam, _one)) for beam in (1, 5)),
    *((f"oracle K={beam}", _of_beam("oracle", beam, _one)) for beam in BEAMS),
)
NOTES = {
    "search": (
        "proven: sentences whose mode is proven by exact search; all other columns are of these alone, so of easier "
        "sentences, and of others for each arm",
        "p(mode), p(K): mean probability of the mode and of the outputs of greedy search and a beam; errors: outputs "
        "that are not the mode; empty: modes without a token",
    ),
    "mass": (
        "over all sentences; p(best found): of the most probable translation that a search found, at most that of the "
        "mode; missed: outputs that are less probable than that; mass: of all finished translations of a list",
        "H: mean entropy of the next token in nats, along references and along the model's own greedy outputs; PPL: "
        "perplexity of references, and of the teacher's outputs (K=5) for the same test sources",
        "paper: the teacher's outputs have 1.3 and 2.8 percent of its mass at K=1 and K=5 (En–De); at K=1 Seq-KD's "
        "have 16.9 percent, the baseline's 0.9 (2×500)",
    ),
    "oracle": (
        "mean sentence BLEU, by the rule of Seq-Inter: of the first of each list, and of the nearest to the reference "
        "in it, which no model finds without the reference",
    ),
}


def sections(results: dict) -> list[Section]:
    """Exact modes and search errors; mass and entropy; oracles."""
    if not results.get("explanation"):
        return []
    count = max(entry["sentences"] for entry in results["explanation"])
    several = any(len(seeds) > 1 for seeds in lines(results).values())
    of = f"{count:,} test sentences; " + ("mean ± sd of seeds" if several else "one seed")
    return [
        _section(results, "The mode, found exactly", SEARCH, [of, *NOTES["search"]]),
        _section(results, "Where the mass is", MASS, NOTES["mass"]),
        _section(results, "The best translation in a list", ORACLE, NOTES["oracle"]),
    ]


def _section(results: dict, title: str, columns: Sequence[tuple[str, Cell]], notes: Sequence[str]) -> Section:
    rows = [[model, arm, *(write(seeds) for _, write in columns)] for (model, arm), seeds in lines(results).items()]
    return Section(title, table=Table(["model", "arm", *(name for name, _ in columns)], rows, 2, notes))


def plot(results: dict):
    """Search errors by beam, mass and oracle by the length of the list; a line for each arm."""
    found = lines(results)
    if not found:
        return None
    figure, every = pyplot.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    panels = (
        ("missed", SEARCHED, 100, "sentences with a more probable translation, percent"),
        ("mass", BEAMS, 100, "mass of the n-best list, percent"),
        ("oracle", BEAMS, 1, "sentence BLEU of the nearest to the reference"),
    )
    arms = {(arm["model"], arm["arm"]): arm for arm in results["arms"]}
    for axes, (name, beams, unit, text) in zip(every, panels, strict=True):
        for (model, arm), seeds in found.items():
            values = [unit * statistics.fmean(one[name][str(beam)] for one in seeds) for beam in beams]
            drawn = look_of(results, arms[model, arm])
            axes.plot(beams, values, linewidth=1, markersize=4, label=f"{arm} ({model})", **drawn)
        axes.set_xscale("log")
        axes.set_xticks(beams, [str(beam) for beam in beams])
        axes.minorticks_off()
        axes.set_xlabel("beam K")
        axes.set_ylabel(text)
        axes.grid(alpha=0.3)
    arm_legend(figure)
    return figure
