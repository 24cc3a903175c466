"""What the report draws of this study: `CHARTS` has the names of `plots.PLOTS`, and takes their places there."""

from collections.abc import Callable, Sequence

from experiments.core.charts import Axis, Chart, Mark, Series
from experiments.core.report import DAGGER
from experiments.kim_rush_2016 import scales
from experiments.kim_rush_2016.arms import BEAMS
from experiments.kim_rush_2016.comparisons import difference, over_sentences
from experiments.kim_rush_2016.published import Published
from experiments.kim_rush_2016.tables import percent, reference_of

NAMES = {"beam1": "greedy", "beam5": "beam 5"}


def gains(results: dict) -> list[Chart]:
    """BLEU above the arm without a teacher's help, beside the paper's."""
    compared = [
        (arm, other)
        for arm in results["arms"]
        if (other := reference_of(results, arm)) is not None and other is not arm and arm["arm"] != other["arm"]
    ]
    if not compared:
        return []
    series = []
    for beam in BEAMS:
        marks = []
        for arm, other in compared:
            delta, interval, p_value = difference(arm, other, beam)
            drawn = interval or over_sentences(arm, other, beam)
            over = "seeds and test sentences" if interval else "test sentences"
            sure = "" if drawn is None else f", 95% interval over {over} {drawn[0]:+.1f} to {drawn[1]:+.1f}"
            chance = "" if p_value is None else f", p = {p_value:.3f}"
            text = f"{_name(results, arm)}, {NAMES[beam]}: {delta:+.1f} BLEU{sure}{chance}; against {other['arm']}"
            marks.append(Mark(delta, _name(results, arm), text, drawn))
        series.append(Series(f"here, {NAMES[beam]}", marks))
    arms = [arm for arm, _ in compared]
    series += _printed(results, arms, "delta_beam1", "BLEU", lambda value: f"{value:+.1f}", "greedy")
    about = (
        "BLEU of each arm minus that of the same model without a teacher. Lines: 95% intervals over seeds and test "
        "sentences; of arms with one seed over test sentences alone, which says nothing of another training."
    )
    axis = Axis("BLEU gained", zero=True)
    return [Chart("Gains by arm", about, axis, [_name(results, arm) for arm in arms], series)]


def quality_and_speed(results: dict) -> list[Chart]:
    """Each arm greedily and with a beam of 5."""
    timed = [arm for arm in results["arms"] if arm["source_words_per_second_beam1"]]
    series = []
    for arm in timed:
        marks = []
        for beam in BEAMS:
            speed, bleu = arm[f"source_words_per_second_{beam}"], arm[f"bleu_{beam}"]
            text = f"{_name(results, arm)}, {NAMES[beam]}: {bleu:.1f} BLEU at {speed:,.0f} source words a second"
            marks.append(Mark(speed, bleu, text, hollow=beam == "beam1"))
        series.append(Series(_name(results, arm), marks, joined=True, look=results["arms"].index(arm)))
    if not series:
        return []
    about = "Up is better, right is faster. Hollow: greedy, filled: a beam of 5; a line joins the two of an arm."
    speed, bleu = Axis("source words a second (log scale)", log=True), Axis("BLEU")
    return [Chart("Quality against speed", about, speed, bleu, series)]


def mode_probability(results: dict) -> list[Chart]:
    """How sure each arm is of its own output."""
    arms, marks = results["arms"], []
    for arm in arms:
        share = arm["mode_probability"]
        marks.append(Mark(100 * share, _name(results, arm), f"{_name(results, arm)}: {percent(share)}"))
    series = [Series("here", marks)]
    series += _printed(results, arms, "mode_probability", "", lambda value: f"{value:.1f}%", "")
    about = "The mean probability that a model gives its own greedy output: how much of its mass is at one translation."
    axis = Axis("p(t = ŷ), mean over test sentences (log scale)", log=True, unit="%")
    return [Chart("Probability of the greedy output", about, axis, [_name(results, arm) for arm in arms], series)]


def training_curves(results: dict) -> list[Chart]:
    """Validation loss by update, of arms from random weights and of fine-tuned ones."""
    drawn = [arm for arm in results["arms"] if arm.get("training", {}).get("history")]
    panels = {
        "Training from random weights": [arm for arm in drawn if arm["training"]["start"] is None],
        "Fine-tuning of another arm": [arm for arm in drawn if arm["training"]["start"] is not None],
    }
    about = (
        "Loss on the references of the validation set. Students of Seq-KD do not model references, so their loss is "
        "higher while their translations are better."
    )
    charts = []
    for title, arms in panels.items():
        series = [
            Series(
                _name(results, arm),
                [
                    Mark(
                        entry["step"],
                        entry["loss"],
                        f"{_name(results, arm)}, update {entry['step']:,}: {entry['loss']:.3f} nats a token",
                    )
                    for entry in arm["training"]["history"]
                ],
                joined=True,
                look=results["arms"].index(arm),
            )
            for arm in arms
        ]
        if series:
            charts.append(Chart(title, about, Axis("update"), Axis("validation loss, nats a token"), series))
    return charts


CHARTS: dict[str, Callable[[dict], Sequence[Chart]]] = {
    "bleu": gains,
    "quality_and_speed": quality_and_speed,
    "mode_probability": mode_probability,
    "training_curves": training_curves,
}


def _printed(
    results: dict, arms: Sequence[dict], cell: str, unit: str, write: Callable[[float], str], how: str
) -> list[Series]:
    """The paper's numbers, a series for each of its tables that stand beside these models."""
    marks: dict[str, list[Mark]] = {}
    printed = scales.named(results["scale"]).published
    for arm in arms:
        tables: Sequence[Published] = printed.get(arm["model"], ())
        for table in tables:
            row = table.rows.get(arm["arm"])
            value = None if row is None else getattr(row, cell)
            if row is None or value is None:
                continue
            pair = table.label.partition(" ")[0]
            told = f"{write(value)} {unit}".strip() + f" {DAGGER} from memory" * (cell in row.from_memory)
            text = f"{_name(results, arm)}, paper {table.label}: {told}"
            marks.setdefault(pair, []).append(Mark(value, _name(results, arm), text, hollow=True))
    return [Series(f"paper, {pair}" + f", {how}" * bool(how), found) for pair, found in marks.items()]


def _name(results: dict, arm: dict) -> str:
    """The arm, with its model where the same arm stands under several."""
    several = sum(other["arm"] == arm["arm"] for other in results["arms"]) > 1
    return f"{arm['arm']} ({arm['model']})" if several else arm["arm"]
