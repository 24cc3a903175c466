"""Plots as PNG files: throughput by the size of the batch, time by length.

Each takes a model of results.json and gives a figure, or None if it has nothing to show. Bands are the intervals.
"""

from collections.abc import Callable, Mapping, Sequence

from experiments.benchmarks.decoding.systems import SYSTEMS
from experiments.benchmarks.decoding.tables import rows
from experiments.core.plots import COLOURS, MARKERS, drawn, pyplot


def of_models(results: Mapping) -> dict[str, bytes | None]:
    """The plots of every model that has something to show; numbered where there are several."""
    found: dict[str, bytes | None] = {}
    for number, model in enumerate(results["models"], start=1):
        found |= drawn(PLOTS, model, f"_{number}" if len(results["models"]) > 1 else "")
    return found


def throughput(model: Mapping):
    """Target tokens/s by rows, a panel for each beam."""
    beams = [of_beam["beam"] for of_beam in model["beams"]]
    size = (4.5 * len(beams), 3.4)
    figure, panels = pyplot.subplots(1, len(beams), figsize=size, layout="constrained", squeeze=False)
    for axes, beam in zip(panels[0], beams, strict=True):
        found = [(case["rows"], system, of) for at, case, system, of in rows(model) if at == beam]
        for name in dict.fromkeys(system for _, system, _ in found):
            points = [(at, of["target_tokens_per_second"]) for at, system, of in found if system == name]
            _line(axes, name, *zip(*points, strict=True))
        _logarithmic(axes, sorted({at for at, *_ in found}), "sentences in a batch", "target tokens/s")
        axes.set_title(f"beam {beam}", fontsize=9)
    return _with_legend(figure)


def growth(model: Mapping):
    """Seconds by the length of translations, the number of sentences, the beam."""
    if "growth" not in model:
        return None
    shown = [axis for axis in model["growth"]["curves"] if axis != "devices"]
    size = (4.2 * len(shown), 3.4)
    figure, panels = pyplot.subplots(1, len(shown), figsize=size, layout="constrained", squeeze=False)
    for axes, axis in zip(panels[0], shown, strict=True):
        for system, curve in model["growth"]["curves"][axis].items():
            _line(axes, system, curve["sizes"], curve["seconds"])
        _logarithmic(axes, curve["sizes"], axis, "seconds")
    return _with_legend(figure)


PLOTS: dict[str, Callable] = {"throughput": throughput, "growth": growth}


def _line(axes, system: str, sizes: Sequence, intervals: Sequence[Mapping]) -> None:
    place = list(SYSTEMS).index(system)  # colour and marker belong to a system, in every plot
    look = {"color": COLOURS[place], "marker": MARKERS[place]}
    axes.plot(sizes, [of["median"] for of in intervals], linewidth=1, markersize=4, label=system, **look)
    if all(of["low"] is not None for of in intervals):
        low, high = ([of[end] for of in intervals] for end in ("low", "high"))
        axes.fill_between(sizes, low, high, color=look["color"], alpha=0.15, linewidth=0)


def _logarithmic(axes, sizes: Sequence[int], x: str, y: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(list(sizes), [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _with_legend(figure):
    """What is drawn, named once, at the right."""
    named = {label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named.keys(), loc="outside right center", frameon=False, fontsize=8)
    return figure
