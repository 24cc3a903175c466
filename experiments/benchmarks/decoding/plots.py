"""Plots as PNG files: throughput, growth, and quality against speed where BLEU is known.

Each takes a model of results.json and gives a figure, or None if it has nothing to show. Bands are the intervals.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from experiments.core.plots import COLOURS, MARKERS, draw_all, pyplot


def draw_models(results: Mapping, directory: Path) -> list[Path]:
    """PNG files: throughput and growth of each model that has them, quality against speed where BLEU is known."""
    several = len(results["models"]) > 1
    drawn = [
        draw_all(PLOTS, model, directory, f"_{number}" if several else "")
        for number, model in enumerate(results["models"], start=1)
    ]
    return [path for paths in drawn for path in paths]


def throughput(model: Mapping):
    """Target tokens/s by rows, a panel for each beam."""
    beams = sorted({case["beam"] for case in model["cases"]})
    figure, panels = pyplot.subplots(
        1, len(beams), figsize=(4.5 * len(beams), 3.4), layout="constrained", squeeze=False
    )
    for axes, beam in zip(panels[0], beams, strict=True):
        cases = [case for case in model["cases"] if case["beam"] == beam]
        for system in cases[0]["systems"]:
            rates = [case["systems"][system]["target_tokens_per_second"] for case in cases]
            _line(axes, model, system, [case["rows"] for case in cases], rates)
        _logarithmic(axes, sorted({case["rows"] for case in cases}))
        axes.set_title(f"beam {beam}", fontsize=9)
        axes.set_xlabel("sentences in a batch")
    panels[0][0].set_ylabel("target tokens/s")
    _legend(figure)
    return figure


def _bounded(axes, sizes, values, what: str, unit: str) -> None:
    """What must not grow with the size, from 0 up."""
    axes.plot(sizes, values, "o-", color="#000000", markersize=4)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=45)
    axes.set_ylim(0, max(*values, 1) * 1.3)
    axes.set_xlabel(what)
    axes.set_ylabel(unit)


def growth(model: Mapping):
    """Seconds by sentences, beam and length, and compilations by the corpus."""
    if "growth" not in model:
        return None
    found = model["growth"]
    figure, panels = pyplot.subplots(1, 5, figsize=(17, 3.2), layout="constrained")
    labels = {"sentences": "sentences", "beam": "beam (without the encoder)", "length": "target tokens"}
    for axes, (axis, curves) in zip(panels, found["curves"].items(), strict=False):
        for system, curve in curves.items():
            _line(axes, model, system, curve["sizes"], curve["seconds"])
        _logarithmic(axes, curve["sizes"])
        exponents = [curve["exponent"] for curve in curves.values()]
        told = ", ".join(f"{exponent['median']:.2f}" if exponent else "–" for exponent in exponents)
        axes.set_title(f"exponent {told}", fontsize=8)
        axes.set_xlabel(labels[axis])
    panels[0].set_ylabel("seconds")
    compiled = found["compilations"]
    _bounded(panels[3], compiled["sizes"], compiled["compilations"], "sentences of the corpus", "programs compiled")
    if "file_memory" in found:
        peaks = [size / 2**20 for size in found["file_memory"]["bytes"]]
        _bounded(panels[4], found["file_memory"]["lines"], peaks, "lines of the file", "peak memory, MiB")
    else:
        panels[4].set_visible(False)
    _legend(figure)
    return figure


def quality_and_speed(model: Mapping):
    """BLEU against source words/s at the rows at which outputs were scored: beam 1 hollow, others filled."""
    scored = [case for case in model["cases"] if case["rows"] == model["typical_rows"] and "bleu" in case]
    if not scored:
        return None
    figure, axes = pyplot.subplots(figsize=(6.5, 3.8), layout="constrained")
    for case in scored:
        for system, bleu in case["bleu"].items():
            look = _look(model, system) | ({"markerfacecolor": "white"} if case["beam"] == 1 else {})
            speed = case["systems"][system]["source_words_per_second"]["median"]
            axes.plot(speed, bleu, linestyle="", label=None if case["beam"] == 1 else system, markersize=6, **look)
    axes.set_xscale("log")
    axes.set_xlabel(f"source words/s, rows {model['typical_rows']} (log scale); hollow: beam 1")
    axes.set_ylabel("BLEU")
    axes.grid(alpha=0.3)
    _legend(figure)
    return figure


PLOTS: dict[str, Callable] = {"throughput": throughput, "growth": growth, "quality_and_speed": quality_and_speed}


def _look(model: Mapping, system: str) -> dict:
    """Colour and marker belong to a system, in every plot of a model."""
    place = list(model["load_seconds"]).index(system)
    return {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}


def _line(axes, model: Mapping, system: str, sizes: Sequence, intervals: Sequence[Mapping]) -> None:
    look = _look(model, system)
    axes.plot(sizes, [of["median"] for of in intervals], linewidth=1, markersize=4, label=system, **look)
    if all(of["low"] is not None for of in intervals):
        low, high = ([of[end] for of in intervals] for end in ("low", "high"))
        axes.fill_between(sizes, low, high, color=look["color"], alpha=0.15, linewidth=0)


def _logarithmic(axes, sizes: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(list(sizes), [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.grid(alpha=0.3)


def _legend(figure) -> None:
    """What is drawn, once, at the right."""
    named = {label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if named:
        figure.legend(named.values(), named.keys(), loc="outside right center", frameon=False, fontsize=8)
