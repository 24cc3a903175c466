"""Plots of the study's results: what `PLOTS` names.

Each function takes the dict of results.json and gives a figure. Colour and marker belong to an arm, the kind of line to
its model, so that it looks the same in every plot.
"""

import math
from collections.abc import Callable

from experiments.core.plots import COLOURS, MARKERS, pyplot

LINES = ("-", "--", ":")


def bleu(results: dict):
    """BLEU at beam 1 (hollow) and 5 (filled) by arm, with 95% intervals of the test sentences where there are any."""
    figure, axes, places = _by_arm(results)
    for place, arm in zip(places, results["arms"], strict=True):
        colour = look_of(results, arm)["color"]
        axes.plot([arm["bleu_beam1"], arm["bleu_beam5"]], [place, place], color=colour, linewidth=1, zorder=1)
        for beam, shift, face in (("beam1", -0.18, "white"), ("beam5", 0.18, colour)):
            if f"bleu_low_{beam}" in arm:
                interval = [arm[f"bleu_low_{beam}"], arm[f"bleu_high_{beam}"]]
                axes.plot(interval, [place + shift] * 2, color=colour, linewidth=0.8, alpha=0.5, zorder=0)
            axes.plot(arm[f"bleu_{beam}"], place, "o", color=colour, markerfacecolor=face, markersize=6, zorder=2)
    axes.set_xlabel("BLEU; thin lines: 95% of bootstrap resamples")
    _beam_legend(axes)
    return figure


def mode_probability(results: dict):
    """The mean probability that a model gives its own greedy output, by arm, on a logarithmic axis."""
    figure, axes, places = _by_arm(results)
    values = [max(100 * arm["mode_probability"], 1e-6) for arm in results["arms"]]
    low, high = min(values) / 2, max(values) * 3
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    for place, arm, value in zip(places, results["arms"], values, strict=True):
        colour = look_of(results, arm)["color"]
        axes.plot([low, value], [place, place], color=colour, linewidth=1)
        axes.plot(value, place, "o", color=colour, markersize=6)
        axes.annotate(f"{value:.2g}%", (value, place), (6, 0), textcoords="offset points", va="center", fontsize=8)
    ticks = [tick for tick in _log_ticks(low, high) if tick <= 100]
    axes.set_xticks(ticks, [f"{tick:g}%" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("p(t = ŷ), mean over test sentences (log scale)")
    return figure


def training_curves(results: dict):
    """Validation loss by update: arms trained from random weights on the left, fine-tuned ones on the right."""
    drawn = [arm for arm in results["arms"] if arm.get("training", {}).get("history")]
    panels = {
        "trained from random weights": [arm for arm in drawn if arm["training"]["start"] is None],
        "fine-tuned from another arm": [arm for arm in drawn if arm["training"]["start"] is not None],
    }
    figure, both = pyplot.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
    for axes, (title, arms) in zip(both, panels.items(), strict=True):
        for arm in arms:
            steps, losses = zip(*((entry["step"], entry["loss"]) for entry in arm["training"]["history"]), strict=True)
            axes.plot(steps, losses, linewidth=1, markersize=3.5, label=_name(results, arm), **look_of(results, arm))
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("update")
        axes.grid(axis="y", alpha=0.3)
    both[0].set_ylabel("validation loss on references, nats a token")
    arm_legend(figure)
    return figure


def quality_and_speed(results: dict):
    """BLEU against source words a second: greedy (hollow) and beam 5 (filled), joined for each arm."""
    figure, axes = pyplot.subplots(figsize=(7.5, 4), layout="constrained")
    timed = [arm for arm in results["arms"] if arm["source_words_per_second_beam1"]]
    for arm in timed:
        look = look_of(results, arm)
        speeds = [arm[f"source_words_per_second_{beam}"] for beam in ("beam1", "beam5")]
        values = [arm[f"bleu_{beam}"] for beam in ("beam1", "beam5")]
        axes.plot(speeds, values, linewidth=0.8, alpha=0.5, zorder=1, **{**look, "marker": ""})
        axes.plot(speeds[0], values[0], markerfacecolor="white", markersize=6, zorder=2, **look)
        axes.plot(speeds[1], values[1], markersize=6, linewidth=0.8, zorder=2, label=_name(results, arm), **look)
    axes.set_xscale("log")
    ticks = _log_ticks(*axes.get_xlim())
    axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("source words/s (log scale); hollow: beam 1, filled: beam 5")
    axes.set_ylabel("BLEU")
    axes.grid(alpha=0.3)
    arm_legend(figure)
    return figure


PLOTS: dict[str, Callable] = {
    "bleu": bleu,
    "mode_probability": mode_probability,
    "training_curves": training_curves,
    "quality_and_speed": quality_and_speed,
}


def _by_arm(results: dict):
    """A figure with one line for each arm, the first at the top, and the lines' places."""
    places = range(len(results["arms"]))
    figure, axes = pyplot.subplots(figsize=(7, 1.2 + 0.32 * len(places)), layout="constrained")
    axes.set_yticks(places, [_name(results, arm) for arm in results["arms"]])
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.3)
    return figure, axes, places


def _name(results: dict, arm: dict) -> str:
    """The arm, with its model where the same arm stands under several."""
    several = sum(other["arm"] == arm["arm"] for other in results["arms"]) > 1
    return f"{arm['arm']} ({arm['model']})" if several else arm["arm"]


def look_of(results: dict, arm: dict) -> dict:
    """Colour, marker and line of an arm."""
    place = list(dict.fromkeys(other["arm"] for other in results["arms"])).index(arm["arm"])
    same = list(dict.fromkeys(other["model"] for other in results["arms"] if other["arm"] == arm["arm"]))
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": LINES[same.index(arm["model"]) % len(LINES)],
    }


def arm_legend(figure) -> None:
    """What is drawn, once, at the right."""
    named = {label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if named:
        figure.legend(named.values(), named.keys(), loc="outside right center", frameon=False, fontsize=8)


def _beam_legend(axes) -> None:
    marks = [axes.plot([], [], "o", color="#444444", markerfacecolor=face)[0] for face in ("white", "#444444")]
    axes.figure.legend(marks, ["beam 1", "beam 5"], loc="outside upper right", ncols=2, frameon=False, fontsize=8)


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten inside the range; powers alone where there are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high / low < 1000 else (1,)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    return [tick for tick in ticks if low <= tick <= high]
