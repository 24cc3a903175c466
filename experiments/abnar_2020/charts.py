"""What the report draws of this study beside `plots.PLOTS`: what teachers hand on, and training curves."""

import math
from collections.abc import Callable, Sequence

from experiments.abnar_2020 import effects
from experiments.abnar_2020.effects import Comparison
from experiments.abnar_2020.tables import COLUMNS, EFFECTS, ordered
from experiments.core.charts import Axis, Chart, Mark, Series
from experiments.core.intervals import mean


def gains(results: dict) -> list[Chart]:
    """Each taught model above the same model alone, in the measures that the findings tell of: a chart each."""
    charts = []
    taught = [arm for arm in ordered(results) if arm["teacher"] is not None]
    for heading in EFFECTS[results["setup"]]:
        here, paper = [], []
        for arm in taught:
            name, metric = arm["arm"], COLUMNS[results["setup"]][heading]
            found = effects.difference(results, Comparison(name, arm["student"], metric))
            if found.estimate is None:
                continue
            size, interval, _ = found.estimate
            sure = f", 95% interval {interval[0]:+.4f} to {interval[1]:+.4f}" if interval else ""
            here.append(Mark(size, name, f"{name}: {size:+.4f} {heading}{sure}", interval))
            paper += [Mark(one, name, f"{name}, paper: {one:+.4f} {heading}", hollow=True) for one in found.published]
        series = [Series(told, marks) for told, marks in (("here", here), ("paper", paper)) if marks]
        if here:
            about = (
                f"{heading} of each taught model minus that of the same model trained alone; lines: 95% intervals over "
                "seeds and test examples. The arrow leads from the teacher to its student."
            )
            rows, axis = [str(mark.y) for mark in here], Axis(f"{heading} gained", zero=True)
            charts.append(Chart(f"What teachers hand on: {heading}", about, axis, rows, series))
    return charts


def training_curves(results: dict) -> list[Chart]:
    """Validation loss by update, the mean over the seeds that came to it."""
    series = []
    for place, arm in enumerate(ordered(results)):
        losses: dict[int, list[float]] = {}
        for seed in arm["training"].get("replicas", ()):
            for entry in seed["history"]:
                if entry.get("loss") is not None and math.isfinite(
                    float(entry["loss"])
                ):  # a record holds "nan" as text
                    losses.setdefault(entry["step"], []).append(entry["loss"])
        marks = [
            Mark(
                step, mean(found), f"{arm['arm']}, update {step:,}: {mean(found):.4g} nats, mean of {len(found)} seeds"
            )
            for step, found in sorted(losses.items())
        ]
        if marks:
            series.append(Series(arm["arm"], marks, joined=True, look=place))
    if not series:
        return []
    about = "Loss of the labels on the validation set, the mean over seeds."
    return [Chart("Training", about, Axis("update"), Axis("validation loss, nats (log scale)", log=True), series)]


CHARTS: dict[str, Callable[[dict], Sequence[Chart]]] = {"gains": gains, "training": training_curves}
