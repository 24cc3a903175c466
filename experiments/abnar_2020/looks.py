"""How models look in every plot: colour, line and marker by name, so that plots of different setups agree.

Colour belongs to the student and the kind of line (or the hatch) to its teacher. On the map of representations, where
colour has to show what students of one teacher share, the marker belongs to the student and colour to the teacher.
"""

from typing import NamedTuple

from matplotlib.lines import Line2D

from experiments.abnar_2020.tables import names, students, teachers


class Look(NamedTuple):
    """Of one model: as a student its colour and marker, as a teacher its line, hatch and colour."""

    colour: str
    marker: str
    line: str | tuple
    hatch: str


_RECURRENT = Look("#1f77b4", "o", "--", "////")
_FIRST = Look("#d62728", "^", ":", "....")
_SECOND = Look("#ff7f0e", "v", (0, (5, 1, 1, 1, 1, 1)), "xxxx")
LOOKS = {
    "LSTM": _RECURRENT,
    "CNN": _RECURRENT,
    "Small LSTM": Look("#17becf", "D", "-.", "\\\\\\\\"),
    "Transformer": _FIRST,
    "MLP": _FIRST,
    "Small Transformer": _SECOND,
    "Transformer-seq": _SECOND,
    "UTransformer-seq": Look("#9467bd", "s", "-.", "\\\\\\\\"),
}
OTHERS = (  # of models that the paper does not have, in order
    Look("#2ca02c", "P", (0, (8, 2)), "++++"),
    Look("#8c564b", "X", (0, (3, 3, 1, 3)), "oooo"),
    Look("#e377c2", "h", (0, (1, 3)), "----"),
)
ALONE = Look("#555555", "o", "-", "")  # no teacher


def look(results: dict, model: str | None) -> Look:
    """That of a model, None being no teacher."""
    if model is None:
        return ALONE
    others = [name for name in names(results) if name not in LOOKS]
    return LOOKS[model] if model in LOOKS else OTHERS[others.index(model) % len(OTHERS)]


def line(results: dict, arm: dict) -> dict:
    """Colour by student, line by teacher."""
    return {"color": look(results, arm["student"]).colour, "linestyle": look(results, arm["teacher"]).line}


def legend(figure, results: dict) -> None:
    """Colours of students and lines of teachers, once, at the right; and what the bars are."""
    handles = [Line2D([], [], color=look(results, name).colour, label=name) for name in students(results)]
    for teacher in teachers(results):
        text = "trained alone" if teacher is None else f"taught by {teacher}"
        handles.append(Line2D([], [], color="#000000", linestyle=look(results, teacher).line, label=text))
    handles.append(mark("95% interval over\ntest examples", "|", "#000000"))
    outside(figure, handles)


def outside(figure, handles: list) -> None:
    """A legend at the right of everything."""
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=8, handlelength=3)


def mark(name: str, marker: str, colour: str, face: str | None = None) -> Line2D:
    """A line of a legend that shows a marker, or nothing but its text if that is empty."""
    return Line2D([], [], linestyle="", marker=marker, color=colour, markerfacecolor=face or colour, label=name)
