"""Plots of one set-up's results: what `PLOTS` names.

Each function takes the dict of results.json and gives a figure, or None if the results do not hold what it shows.
Colour belongs to the student and the kind of line (or the hatch) to its teacher. On the map of representations, where
colour has to show what students of one teacher share, the marker belongs to the student and colour to the teacher.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from experiments.abnar_2020.published import number
from experiments.abnar_2020.tables import COLUMNS, EFFECTS, metrics, names, plain, students, teachers
from experiments.core.intervals import mean
from experiments.core.plots import pyplot


class Style(NamedTuple):
    """Of one model, by name, so that plots of different set-ups agree: as a student its colour and marker, as a teacher
    its line, hatch and colour.
    """

    colour: str
    marker: str
    line: str | tuple
    hatch: str


_RECURRENT = Style("#1f77b4", "o", "--", "////")
_FIRST = Style("#d62728", "^", ":", "....")
_SECOND = Style("#ff7f0e", "v", (0, (5, 1, 1, 1, 1, 1)), "xxxx")
STYLES = {
    "LSTM": _RECURRENT,
    "CNN": _RECURRENT,
    "Small LSTM": Style("#17becf", "D", "-.", "\\\\\\\\"),
    "Transformer": _FIRST,
    "MLP": _FIRST,
    "Small Transformer": _SECOND,
    "Transformer-seq": _SECOND,
    "UTransformer-seq": Style("#9467bd", "s", "-.", "\\\\\\\\"),
}
OTHERS = (  # of models that the paper does not have, in order
    Style("#2ca02c", "P", (0, (8, 2)), "++++"),
    Style("#8c564b", "X", (0, (3, 3, 1, 3)), "oooo"),
    Style("#e377c2", "h", (0, (1, 3)), "----"),
)
ALONE = Style("#555555", "o", "-", "")  # no teacher
EPOCHS = {0: "o", 1: "s", 2: "^", 4: "D"}  # of learning paths, marked
METRICS = {  # of the grid: setup -> metric -> title
    "lm": {"d": "D", "a": "A", "a_gold": "A, gold"},
    "classification": {"mu": "mu", "d": "D", "a": "A", "a_gold": "A, gold"},
    "images": {"accuracy": "clean", "accuracy_scaled": "scaled", "accuracy_translated": "translated"},
}


def style(results: dict, model: str | None) -> Style:
    """That of a model, None being no teacher."""
    if model is None:
        return ALONE
    others = [name for name in names(results) if name not in STYLES]
    return STYLES[model] if model in STYLES else OTHERS[others.index(model) % len(OTHERS)]


def line(results: dict, arm: dict) -> dict:
    """Colour by student, line by teacher."""
    return {"color": style(results, arm["student"]).colour, "linestyle": style(results, arm["teacher"]).line}


def legend(figure, results: dict) -> None:
    """Colours of students and lines of teachers, once, at the right; and what the bars are."""
    handles = [Line2D([], [], color=style(results, name).colour, label=name) for name in students(results)]
    for teacher in teachers(results):
        text = "trained alone" if teacher is None else f"taught by {teacher}"
        handles.append(Line2D([], [], color="#000000", linestyle=style(results, teacher).line, label=text))
    handles.append(mark("95% interval over\ntest examples", "|", "#000000"))
    outside(figure, handles)


def outside(figure, handles: list) -> None:
    """A legend at the right of everything."""
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=8, handlelength=3)


def mark(name: str, marker: str, colour: str, face: str | None = None) -> Line2D:
    """A line of a legend that shows a marker, or nothing but its text if that is empty."""
    return Line2D([], [], linestyle="", marker=marker, color=colour, markerfacecolor=face or colour, label=name)


def by_distance(results: dict):
    """Accuracy by the distance between subject and verb: a panel for each teacher, the students alone in each."""
    return _by_bin(results, {"distance": "distance between subject and verb"}, spread=0.18)


def by_attractors(results: dict):
    """Accuracy by the number of attractors: as estimated on the test sentences above, as given below."""
    return _by_bin(
        results, {"attractors": "attractors (estimated)", "gold_attractors": "attractors (gold)"}, spread=0.05
    )


def _by_bin(results: dict, kinds: dict[str, str], spread: float):
    """spread: how far apart the students' intervals stand."""
    shown = {kind: name for kind, name in kinds.items() if any(_bins(arm, kind) for arm in results["arms"])}
    if not shown:
        return None
    cells = [(kind, teacher) for kind in shown for teacher in teachers(results)]
    columns = 3 if len(cells) in (5, 6) and len(shown) == 1 else len(cells) // len(shown)
    rows = math.ceil(len(cells) / columns)
    figure, panels = pyplot.subplots(
        rows, columns, figsize=(3.1 * columns + 1, 2.6 * rows + 0.4), sharey=True, layout="constrained", squeeze=False
    )
    for axes, (kind, teacher) in zip(panels.flat, cells, strict=False):
        for arm in plain(results):
            if arm["teacher"] in (None, teacher) and _bins(arm, kind):
                place = students(results).index(arm["student"]) - (len(students(results)) - 1) / 2
                shift = None if arm["teacher"] != teacher else spread * place
                _line(axes, _bins(arm, kind), line(results, arm), shift)
        axes.set_title("trained alone" if teacher is None else f"taught by {teacher}", fontsize=9)
        axes.set_xlabel(shown[kind])
        axes.grid(axis="y", alpha=0.3)
    for axes in panels.flat[len(cells) :]:
        axes.set_visible(False)
    for row in panels:
        row[0].set_ylabel("accuracy")
    legend(figure, results)
    return figure


def _bins(arm: dict, kind: str) -> dict[str, dict]:
    found = (arm.get("bins") or {}).get(kind) or {}
    return {name: one for name, one in found.items() if one.get("mean") is not None}


def _line(axes, bins: dict[str, dict], drawn: dict, shift: float | None) -> None:
    """A line through the bins with their intervals, beside those of other lines; faint and without if shift is None."""
    places, means = [int(name) for name in bins], [one["mean"] for one in bins.values()]
    if shift is None:
        axes.plot(places, means, linewidth=0.9, alpha=0.4, **drawn)
        return
    shifted = [place + shift for place in places]
    axes.plot(shifted, means, linewidth=1.5, **drawn)
    ends = [(place, one["low"], one["high"]) for place, one in zip(shifted, bins.values(), strict=True)]
    known = [(place, low, high) for place, low, high in ends if low is not None and high is not None]
    if known:
        axes.vlines(*zip(*known, strict=True), color=drawn["color"], linewidth=0.8, alpha=0.4)
    axes.set_xticks(places if len(places) < 10 else [place for place in places if place % 4 == 0 or place == 1])


def calibration(results: dict):
    """Reliability diagrams, teachers by students: accuracy by confidence; bars: the share of examples in a bin."""
    drawn = {(arm["teacher"], arm["student"]): arm for arm in plain(results) if _counted(arm)}
    if not drawn:
        return None
    shape = len(teachers(results)), len(students(results))
    size = 2.1 * shape[1] + 0.5, 2.1 * shape[0] + 0.3
    figure, panels = pyplot.subplots(
        *shape, figsize=size, sharex=True, sharey=True, layout="constrained", squeeze=False
    )
    least = min(one["low"] for arm in drawn.values() for one in _counted(arm))
    for row, teacher in zip(panels, teachers(results), strict=True):
        for axes, student in zip(row, students(results), strict=True):
            if (teacher, student) in drawn:
                _reliability(axes, drawn[teacher, student], style(results, student).colour)
            else:
                axes.text(0.5, 0.5, "no result", transform=axes.transAxes, fontsize=7, ha="center")
            axes.set_title(student if teacher is None else f"{teacher} → {student}", fontsize=6.5)
            axes.tick_params(labelsize=7)
    panels[0][0].set_xlim(least, 1)
    panels[0][0].set_ylim(0, 1)
    figure.supxlabel("confidence (bars: share of examples, the fullest bin full height)", fontsize=9)
    figure.supylabel("accuracy", fontsize=9)
    return figure


def _counted(arm: dict) -> list[dict]:
    return [one for one in arm.get("reliability") or () if one["n"]]


def _reliability(axes, arm: dict, colour: str) -> None:
    bins, most = _counted(arm), max(one["n"] for one in _counted(arm))
    lows, widths = zip(*((one["low"], one["high"] - one["low"]) for one in bins), strict=True)
    shares = [one["n"] / most for one in bins]
    axes.bar(lows, shares, widths, align="edge", color="#000000", alpha=0.08, linewidth=0)
    axes.plot([0, 1], [0, 1], color="#000000", linewidth=0.6)
    points = zip(*((one["confidence"], one["accuracy"]) for one in bins), strict=True)
    axes.plot(*points, ".-", color=colour, linewidth=1, markersize=4)
    error = _mean(arm, "ece")
    if error is not None:
        axes.text(0.06, 0.92, f"ECE {error:.3f}", transform=axes.transAxes, fontsize=7, va="top")


def _mean(arm: dict, metric: str, key: str = "mean") -> float | None:
    return ((arm.get("metrics") or {}).get(metric) or {}).get(key)


def grid(results: dict):
    """Teachers by students, a panel for each measure: the mean, coloured by its gain over the student alone."""
    rows, columns, known = teachers(results), students(results), metrics(results)
    shown = {metric: title for metric, title in METRICS[results["setup"]].items() if metric in known}
    if len(rows) < 2 or not shown:
        return None
    size = (0.95 * len(columns) + 1.3) * len(shown) + 0.5, 0.5 * len(rows) + 1.9
    figure, panels = pyplot.subplots(1, len(shown), figsize=size, layout="constrained", squeeze=False, sharey=True)
    for axes, (metric, title) in zip(panels[0], shown.items(), strict=True):
        _heat(figure, axes, results, metric)
        axes.set_title(title, fontsize=9)
        axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right", rotation_mode="anchor")
    panels[0][0].set_yticks(range(len(rows)), [name or "none" for name in rows])
    panels[0][0].set_ylabel("teacher")
    figure.supxlabel("student; colour: gain over the student alone", fontsize=9)
    return figure


def _heat(figure, axes, results: dict, metric: str) -> None:
    values = {(arm["teacher"], arm["student"]): _mean(arm, metric) for arm in plain(results)}
    values = {place: value for place, value in values.items() if value is not None}
    missing = math.nan  # leaves a cell white
    gains = [
        [values.get((teacher, name), missing) - values.get((None, name), missing) for name in students(results)]
        for teacher in teachers(results)
    ]
    reach = max((abs(gain) for row in gains for gain in row if not math.isnan(gain)), default=0.0) or 0.01
    image = axes.imshow(gains, cmap="RdBu", vmin=-1.4 * reach, vmax=1.4 * reach, aspect="auto")
    for place, teacher in enumerate(teachers(results)):
        for column, student in enumerate(students(results)):
            value = values.get((teacher, student))
            axes.text(column, place, "–" if value is None else f"{value:.3f}", ha="center", va="center", fontsize=8)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, format="%+.2f" if reach >= 0.02 else "%+.3f")
    bar.ax.set_ylim(-reach, reach)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)


def accuracy(results: dict):
    """Digits: accuracy of every arm on clean, scaled and translated images, each seed, the paper's as a short line."""
    if results["setup"] != "images" or not results["arms"]:
        return None
    arms = plain(results)
    width = 0.85 / len(arms)
    figure, axes = pyplot.subplots(figsize=(8.5, 3.6), layout="constrained")
    for column, metric in enumerate(METRICS["images"]):
        for place, arm in enumerate(arms):
            found, printed = (arm.get("metrics") or {}).get(metric) or {}, number("images", arm["arm"], metric)
            centre = column + (place - (len(arms) - 1) / 2) * width
            if found.get("mean") is not None:
                axes.bar(centre, found["mean"], 0.85 * width, **_filling(results, arm))
            seeds = [value for value in found.get("values") or () if value is not None]
            axes.plot([centre] * len(seeds), seeds, ".", color="#000000", markersize=4)
            if printed:
                reach = [centre - 0.42 * width, centre + 0.42 * width]
                axes.plot(reach, [printed.value] * 2, color="#000000", linewidth=2, solid_capstyle="butt")
    axes.set_xticks(range(len(METRICS["images"])), list(METRICS["images"].values()))
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("accuracy")
    axes.grid(visible=False)
    handles: list = [Patch(label=arm["arm"], **_filling(results, arm)) for arm in arms]
    handles.append(Line2D([], [], color="#000000", linewidth=2, label="the paper's"))
    outside(figure, [*handles, mark("a seed", ".", "#000000")])
    return figure


def _filling(results: dict, arm: dict) -> dict:
    colour, hatch = style(results, arm["student"]).colour, style(results, arm["teacher"]).hatch
    return {"facecolor": "white" if hatch else colour, "edgecolor": colour, "hatch": hatch}


def representations(results: dict):
    """The map of the models' representations: near means similar."""
    found = results.get("representations") or {}
    if not found.get("map"):
        return None
    arms = {arm["arm"]: arm for arm in results["arms"]}
    shown = [arms[model["arm"]] for model in found["models"]]
    figure, axes = pyplot.subplots(figsize=(6.8, 4.6), layout="constrained")
    for arm, point in zip(shown, found["map"], strict=True):
        drawn = {"color": style(results, arm["teacher"]).colour, "markersize": 6 if arm["teacher"] else 9}
        edge = {"markeredgecolor": "white", "markeredgewidth": 0.6}
        if arm.get("way"):  # of the controls: hollow
            edge = {"markeredgecolor": drawn["color"], "markerfacecolor": "none"}
        axes.plot(*point, style(results, arm["student"]).marker, alpha=0.9, **drawn, **edge)
    of, by = ({arm[role] for arm in shown} for role in ("student", "teacher"))
    handles = [mark("student:", "", "#000000")]
    handles += [mark(name, style(results, name).marker, "#000000") for name in students(results) if name in of]
    handles += [mark("taught by:", "", "#000000")]
    named = [(name, style(results, name).colour) for name in (None, *names(results)) if name in by]
    handles += [mark(name or "nobody (larger)", "o", colour) for name, colour in named]
    handles += [mark("controls", "o", "#000000", face="none")] if results.get("ways") else []
    outside(figure, handles)
    _bare(axes)
    return figure


def learning_paths(results: dict):
    """Learning paths on one map: from the random weights to the end, epochs 0, 1, 2 and 4 marked."""
    found = results.get("representations") or {}
    if not found.get("paths"):
        return None
    arms = {arm["arm"]: arm for arm in results["arms"]}
    figure, axes = pyplot.subplots(figsize=(7.2, 4.8), layout="constrained")
    for path in found["paths"]:
        drawn = line(results, arms[path["arm"]])
        walked = sorted(zip(path["epochs"], path["points"], strict=True))
        axes.plot(*zip(*(point for _, point in walked), strict=True), linewidth=1.2, **drawn)
        for epoch, point in walked:
            if epoch in EPOCHS:
                axes.plot(*point, EPOCHS[epoch], color=drawn["color"], markerfacecolor="white", markersize=5)
        axes.plot(*walked[-1][1], "*", color=drawn["color"], markersize=11, markeredgecolor="white")
    shown = dict.fromkeys(path["arm"] for path in found["paths"])
    handles = [Line2D([], [], label=name, **line(results, arms[name])) for name in shown]
    handles += [mark(f"epoch {epoch}", marker, "#000000", face="white") for epoch, marker in EPOCHS.items()]
    outside(figure, [*handles, mark("the last epoch", "*", "#000000")])
    _bare(axes)
    return figure


def _bare(axes) -> None:
    """A map: only distances mean something."""
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.margins(0.08)
    axes.spines[:].set_visible(True)


def variation(results: dict):
    """How far seeds lie from their mean, of each student alone and after each teacher: a panel for each measure."""
    shown = {metric: title for title in EFFECTS[results["setup"]] if (metric := COLUMNS[results["setup"]][title])}
    arms = sorted(plain(results), key=lambda arm: students(results).index(arm["student"]))
    if not any(len(_values(arm, metric)) > 1 for arm in arms for metric in shown):
        return None
    size = 3.2 * len(shown) + 1.6, 0.26 * len(arms) + 1.3
    figure, panels = pyplot.subplots(1, len(shown), figsize=size, layout="constrained", squeeze=False, sharey=True)
    for axes, (metric, title) in zip(panels[0], shown.items(), strict=True):
        for place, arm in enumerate(arms):
            values = _values(arm, metric)
            if len(values) > 1:
                middle, deviation = mean(values), _mean(arm, metric, "sd")
                drawn = {"color": style(results, arm["student"]).colour, "markersize": 5}
                face = "none" if arm["teacher"] else drawn["color"]
                axes.plot([one - middle for one in values], [place] * len(values), "o", markerfacecolor=face, **drawn)
                axes.plot([-deviation, deviation], [place] * 2, color=drawn["color"], linewidth=1, alpha=0.5)
        axes.axvline(0, color="#000000", linewidth=0.6)
        axes.set_title(title, fontsize=9)
        axes.set_yticks(range(len(arms)), [arm["arm"] for arm in arms], fontsize=7)
    panels[0][0].invert_yaxis()
    figure.supxlabel("seeds minus their mean; line: their standard deviation; hollow: taught", fontsize=9)
    return figure


def _values(arm: dict, metric: str) -> list[float]:
    found = ((arm.get("metrics") or {}).get(metric) or {}).get("values") or ()
    return [value for value in found if value is not None]


PLOTS: dict[str, Callable] = {
    "accuracy_by_distance": by_distance,
    "accuracy_by_attractors": by_attractors,
    "accuracy": accuracy,
    "grid": grid,
    "calibration": calibration,
    "variation": variation,
    "representations": representations,
    "learning_paths": learning_paths,
}
