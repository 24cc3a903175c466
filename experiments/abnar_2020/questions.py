"""What this study asks beyond the paper's claims: which of two explanations do controls speak for?

Each question is a list of contrasts, differences of two arms in the measures of its set-up, with their intervals as
`effects` has them. Beside each stands the effect that so many seeds would have shown: what an interval that holds zero
says nothing about.
"""

from collections.abc import Sequence
from typing import NamedTuple

from experiments.abnar_2020 import effects
from experiments.abnar_2020.arms import MATCHED, Arm
from experiments.abnar_2020.effects import Comparison
from experiments.core.intervals import Estimate, detectable
from experiments.core.tables import Section, Table


class Contrast(NamedTuple):
    """One arm minus another."""

    text: str  # what it tells
    first: Arm
    second: Arm


class Question(NamedTuple):
    """A question, and what answers it."""

    text: str
    metrics: Sequence[str]
    contrasts: Sequence[Contrast]


T, S, LSTM, SMALL = "Transformer", "Transformer-seq", "LSTM", "Small LSTM"
METRICS = {"perplexity": "PPL", "mu": "mu", "d": "D", "a": "A", "a_gold": "A, gold", "ece": "ECE"}
METRICS |= {"accuracy": "clean", "accuracy_scaled": "scaled", "accuracy_translated": "translated"}
LITTLE = "Why is what the LSTM hands on to classifiers so little?"
SOFTER = ("temperature 2", "temperature 4", "teacher with dropout 0.6", "teacher of one epoch")


def _softer(student: str) -> list[Contrast]:
    """Softer targets, against those of the plain teacher, and against none."""
    plain = Arm(student, LSTM)
    others = (("the plain teacher", plain), ("alone", Arm(student)))
    return [
        Contrast(f"{way}, against {what}", plain._replace(way=way), other) for way in SOFTER for what, other in others
    ]


def _taught(teacher: str, way: str) -> Arm:
    return Arm(T, teacher, way)


CLASSIFIERS = (
    Question(
        "What does the LSTM hand on to classifiers?",
        ("mu", "a", "a_gold", "ece"),
        [Contrast("against the same model alone", Arm(name, LSTM), Arm(name)) for name in (T, S, "UTransformer-seq")],
    ),
    Question(LITTLE, ("mu", "a", "a_gold"), [*_softer(T), *_softer(S)]),
    Question(
        "Does it hand on more of sentences that it has not seen?",
        ("mu", "a", "a_gold"),
        [
            Contrast(
                "the LSTM has not seen them, against one that has",
                _taught(LSTM, "cross-fit"),
                _taught(LSTM, "same half"),
            ),
            Contrast("the LSTM has not seen them, against alone", _taught(LSTM, "cross-fit"), Arm(T, way="half B")),
            Contrast("the LSTM has seen them, against alone", _taught(LSTM, "same half"), Arm(T, way="half B")),
            Contrast(
                "neither teacher has seen them: LSTM against Transformer",
                _taught(LSTM, "cross-fit"),
                _taught(T, "cross-fit"),
            ),
            Contrast(
                "a Transformer that has not seen them, against alone", _taught(T, "cross-fit"), Arm(T, way="half B")
            ),
            Contrast("against alone with the labels of both halves", _taught(LSTM, "cross-fit"), Arm(T)),
        ],
    ),
)


def _bias(student: str) -> Question:
    """Teachers with the LSTM's bias that are worse, as good, or better language models than the student alone."""
    alone, matched = Arm(student), Arm(student, LSTM, MATCHED)
    without = {"its like": Arm(student, student)}  # teachers without the bias
    without |= {"the Transformer": Arm(student, T)} if student != T else {}
    teachers = {
        "a worse language model": Arm(student, SMALL),
        "an LSTM of the student's own loss": matched,
        "the LSTM": Arm(student, LSTM),
    }
    against = [
        Contrast(f"{teacher} as the teacher, against {what}", arm, other)
        for teacher, arm in teachers.items()
        for what, other in {"alone": alone, **without}.items()
    ]
    return Question(
        f"Is a bias handed on to the {student}, or a better language model?",
        ("perplexity", "d", "a", "a_gold"),
        [
            *(Contrast(f"the {name} alone, against the student alone", Arm(name), alone) for name in (SMALL, LSTM)),
            *against,
            Contrast("the LSTM as the teacher, against one of the student's own loss", teachers["the LSTM"], matched),
            *(Contrast(f"{what} as the teacher, against alone", arm, alone) for what, arm in without.items()),
        ],
    )


LANGUAGE_MODELS = (_bias("Small Transformer"), _bias(T))
IMAGES = (
    Question(
        "What does the CNN hand on?",
        ("accuracy", "accuracy_scaled", "accuracy_translated"),
        [
            Contrast("against alone", Arm("MLP", "CNN"), Arm("MLP")),
            Contrast("against an MLP as the teacher", Arm("MLP", "CNN"), Arm("MLP", "MLP")),
            Contrast("a CNN taught by an MLP, against alone", Arm("CNN", "MLP"), Arm("CNN")),
            Contrast("a CNN taught by a CNN, against alone", Arm("CNN", "CNN"), Arm("CNN")),
        ],
    ),
    Question(
        "What do the deviations from the original code come to?",
        ("accuracy", "accuracy_scaled", "accuracy_translated"),
        [
            *(
                Contrast(
                    "the teacher's term divided by T², not multiplied",
                    Arm("MLP", by, "inverse scaling"),
                    Arm("MLP", by),
                )
                for by in ("CNN", "MLP")
            ),
            *(Contrast("batch normalisation", Arm(name, way="batch norm"), Arm(name)) for name in ("CNN", "MLP")),
            Contrast("batch normalisation, of both", Arm("MLP", "CNN", "batch norm"), Arm("MLP", "CNN")),
            Contrast(
                "taught, both with batch normalisation", Arm("MLP", "CNN", "batch norm"), Arm("MLP", way="batch norm")
            ),
        ],
    ),
)
QUESTIONS: dict[str, tuple[Question, ...]] = {
    "classification": CLASSIFIERS,
    "lm": LANGUAGE_MODELS,
    "images": IMAGES,
}
ABOUT = (
    "difference: the first arm minus the second, with its 95% interval over seeds, and over test examples where those "
    "are known; seen: the difference that would have been found in 80% of such runs"
)


def comparisons(setup: str) -> list[tuple[str, str, str]]:
    """(A, B, metric) of all contrasts."""
    return [
        (contrast.first.label, contrast.second.label, metric)
        for question in QUESTIONS[setup]
        for contrast in question.contrasts
        for metric in question.metrics
    ]


def sections(results: dict) -> list[Section]:
    """A table for each question of which an arm and its opposite are there."""
    found = []
    for question in QUESTIONS[results["setup"]]:
        rows = [row for contrast in question.contrasts for row in _rows(results, question, contrast)]
        if rows:
            head = ["arm", "against", "what it tells", "measure", "here", "difference [95% interval]", "seen", "paper"]
            found.append(Section(question.text, table=Table(head, rows, 5, [ABOUT])))
    return found


def _rows(results: dict, question: Question, contrast: Contrast) -> list[list[str]]:
    rows = []
    for metric in question.metrics:
        part = effects.difference(results, Comparison(contrast.first.label, contrast.second.label, metric))
        if part.estimate is None:
            continue
        digits = 2 if metric == "perplexity" else 4
        paper = ", ".join(f"{effect:+.{digits}f}" for effect in part.published) or "–"
        least = detectable(part.estimate.interval, part.seeds)
        seen = "–" if least is None else f"{least:.{digits}f}"
        names = [contrast.first.label, contrast.second.label, contrast.text, METRICS[metric], part.text]
        rows.append([*names, told(part.estimate, digits), seen, paper])
    return rows


def told(found: Estimate, digits: int) -> str:
    """A difference with its interval."""
    ends = ", ".join(f"{end:+.{digits}f}" for end in found.interval or ())
    return f"{found.size:+.{digits}f}" + (f" [{ends}]" if ends else "")
