"""Tables, results and plots, from made-up results."""

import random

import pytest

from experiments.core.plots import draw_all, pyplot
from experiments.kim_rush_2016 import plots, published, tables
from experiments.kim_rush_2016.arms import ARMS, against

P_VALUES = {"beam1": 0.004, "beam5": 0.03}
SIGNATURE = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"


def made_up(students=("2×100",), seeds=(1,)):
    """Results of every arm with numbers that mean nothing."""
    draw = random.Random(0)
    rows = []
    for arm in ARMS:
        for model in students if arm.role == "student" else ("2×500",):
            greedy = 20 + 10 * draw.random()
            compared = {beam: {"p_value": p, "delta_low": 0.1, "delta_high": 2.0} for beam, p in P_VALUES.items()}
            rows.append(
                {
                    "arm": arm.name,
                    "model": model,
                    "against": against(arm),
                    "parameters": 7_917_804 if arm.role == "student" else 47_289_004,
                    "bleu_beam1": greedy,
                    "bleu_beam5": greedy + 2 * draw.random(),
                    "bleu_low_beam1": greedy - 1,
                    "bleu_high_beam1": greedy + 1,
                    "chrf_beam5": 50.0,
                    "perplexity": 5 + 20 * draw.random(),
                    "mode_probability": 10 ** (-4 + 3 * draw.random()),
                    "source_words_per_second_beam1": 1000 + 900 * draw.random(),
                    "source_words_per_second_beam5": 300 + 200 * draw.random(),
                    "signature": SIGNATURE,
                    "seed": seeds[len(rows) % len(seeds)],
                    "significance": {against(arm): compared},
                    "training": {
                        "start": arm.start,
                        "history": [{"step": 100 * i, "loss": 2 + 3 / (i + draw.random())} for i in range(1, 6)],
                    },
                }
            )
    return {"study": "kim_rush_2016", "scale": "multi30k", "arms": rows}


def cells(results):
    """model, arm -> the other cells of the table."""
    (section,) = tables.sections(results)
    return {(model, arm): others for model, arm, *others in section.table.rows}


def notes(results):
    return "; ".join(tables.sections(results)[0].table.notes)


def test_every_arm_has_a_row_beside_the_paper():
    """With several of its tables where several stand beside a model."""
    results = made_up()
    found = cells(results)
    assert [name for _, name in found] == [row["arm"] for row in results["arms"]]
    seq_kd = found["2×100 (7.9M)", "Seq-KD"]
    arms = {row["arm"]: row for row in results["arms"]}
    delta = arms["Seq-KD"]["bleu_beam1"] - arms["Baseline"]["bleu_beam1"]
    assert seq_kd[0] == f"{arms['Seq-KD']['bleu_beam1']:.1f}"
    assert seq_kd[1] == f"{delta:+.1f}**" and seq_kd[4].endswith("*") and not seq_kd[4].endswith("**")
    assert seq_kd[2] == "+4.2 / +2.2†" and found["2×100 (7.9M)", "All three"][2] == "+4.1 / +3.6"
    assert seq_kd[7] == "22.7 / 125.4†" and seq_kd[9] == "16.9% / 6.9%†"
    assert found["2×500 (47.3M)", "Teacher"][1:3] == ["–", "–"], "the teacher is not compared with itself"


def test_the_notes_say_what_a_reader_must_know():
    one = notes(made_up())
    assert SIGNATURE in one and "one seed (1)" in one and "from memory" in one and "En–De 2×500 / Th–En 2×100" in one
    assert "seeds: 1, 2" in notes(made_up(seeds=(1, 2)))


def test_no_mark_without_a_bootstrap():
    results = made_up()
    for row in results["arms"]:
        row["significance"] = {}
    assert "*" not in "".join(cell for row in cells(results).values() for cell in row)


@pytest.mark.parametrize("percent, text", [(0, "0%"), (12.345, "12.3%"), (0.456, "0.46%"), (0.0123, "0.0123%")])
def test_small_percentages_keep_their_digits(percent, text):
    assert tables.percent(percent / 100) == text


def test_published_deltas_are_those_of_the_printed_bleu():
    """But one, which the paper prints so."""
    for table in (published.EN_DE_500, published.EN_DE_300, published.TH_EN_100):
        base = table.rows["Baseline"]
        for name, row in table.rows.items():
            for beam in ("beam1", "beam5"):
                delta = getattr(row, f"delta_{beam}")
                found = getattr(row, f"bleu_{beam}") - getattr(base, f"bleu_{beam}")
                if delta is not None and (table.label, name, beam) != ("En–De 2×500", "Baseline + Seq-Inter", "beam1"):
                    assert found == pytest.approx(delta, abs=0.051), (table.label, name, beam)
            assert row.from_memory <= published.ALL


def test_plots_are_drawn_and_the_same_twice(tmp_path):
    results = made_up(students=("2×500", "2×300"))
    first, again = (draw_all(plots.PLOTS, results, tmp_path / name) for name in ("one", "two"))
    assert [path.stem for path in first] == list(plots.PLOTS)
    for left, right in zip(first, again, strict=True):
        assert left.read_bytes() == right.read_bytes(), f"{left.name} differs from run to run"
        assert left.stat().st_size > 5000


def test_plots_do_without_curves_and_times(tmp_path):
    results = made_up()
    for row in results["arms"]:
        row["training"]["history"] = []
        row["source_words_per_second_beam1"] = None
        row["mode_probability"] = 0.0
    assert len(draw_all(plots.PLOTS, results, tmp_path)) == len(plots.PLOTS)


def test_labels_do_not_overlap():
    """The names of the arms, and the numbers beside the dots, at the size they are drawn in."""
    results = made_up(students=("2×500", "2×300"))
    for draw in (plots.bleu, plots.mode_probability):
        figure = draw(results)
        figure.canvas.draw()
        (axes,) = figure.axes
        boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
        boxes += [text.get_window_extent() for text in axes.texts]
        for place, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[place + 1 :]), "make the figure taller"
        pyplot.close(figure)
