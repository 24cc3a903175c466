"""The numbers of Abnar, Dehghani & Zuidema 2020 as data: what the measured ones stand beside.

No PDF was at hand. Each number has a status: verified in the authors' own sheets or logs, or printed in a figure of
their blog post; from memory (a dagger wherever it is printed: treat it as unverified); read off a figure (a double
dagger; within about 0.001 for mu); or rounded, from logs whose labels are off by one (a section sign). They are written
as printed, shares of 1. Rows whose mean is verified while the deviation differs between the paper and the sheets are
named in NOTES.
"""

from typing import NamedTuple

from experiments.abnar_2020.arms import Arm
from experiments.core.report import DAGGER

VERIFIED, MEMORY, FIGURE, LOGS = "verified", "from memory", "read off a figure", "from logs, about"
ORIGINAL = {"perplexity": "perplexity_batches", "a_gold": "a"}  # the form in which the paper has it
MARKS = {VERIFIED: "", MEMORY: DAGGER, FIGURE: "‡", LOGS: "§"}


class Number(NamedTuple):
    """A published mean, and its standard deviation over seeds where that is known; both as printed."""

    printed: str
    deviation: str | None
    status: str

    @property
    def value(self) -> float:
        return float(self.printed)

    @property
    def short(self) -> str:
        """The mean alone, with its mark."""
        return self.printed + MARKS[self.status]

    def __str__(self) -> str:
        deviation = f" ± {self.deviation}" if self.deviation else ""
        return f"{self.printed}{deviation}{MARKS[self.status]}"


def number(setup: str, arm: str, metric: str) -> Number | None:
    """What the paper says of an arm, if need be by the original's form of the metric; None if nothing is known."""
    known = PUBLISHED.get(setup, {}).get(arm, {})
    return known.get(metric) or known.get(ORIGINAL.get(metric, ""))


def verified(printed: str, deviation: str | None = None) -> Number:
    """Read in a source, or exact in the authors' sheets."""
    return Number(printed, deviation, VERIFIED)


def memory(printed: str, deviation: str | None = None) -> Number:
    """From memory, not verified."""
    return Number(printed, deviation, MEMORY)


def figure(printed: str, deviation: str | None = None) -> Number:
    """Read off a figure."""
    return Number(printed, deviation, FIGURE)


# Language models trained alone: perplexity as the mean over batches, D, A.
LM_ALONE = {
    "Transformer": (memory("57.50", "0.1199"), verified("0.9417", "0.0017"), verified("0.9191", "0.0018")),
    "Small Transformer": (memory("55.31", "0.0847"), verified("0.9467", "0.0012"), verified("0.9261", "0.0020")),
    "LSTM": (memory("56.68", "0.0906"), memory("0.9510", "0.0012"), memory("0.9400", "0.0024")),
    "Small LSTM": (memory("58.05", "0.1141"), memory("0.9491", "0.0006"), verified("0.9366", "0.0015")),
}

# Taught language models, means of three students: a row is a teacher, a cell D and A. All from the authors' sheets.
LM_STUDENTS = ("LSTM", "Small LSTM", "Transformer", "Small Transformer")
LM_TAUGHT = {
    "LSTM": (("0.9492", "0.9275"), ("0.9462", "0.9224"), ("0.9492", "0.9296"), ("0.9472", "0.9201")),
    "Small LSTM": (("0.9490", "0.9310"), ("0.9475", "0.9272"), ("0.9501", "0.9316"), ("0.9479", "0.9233")),
    "Transformer": (("0.9439", "0.9083"), ("0.9396", "0.8985"), ("0.9380", "0.8956"), ("0.9364", "0.8828")),
    "Small Transformer": (("0.9499", "0.9257"), ("0.9460", "0.9157"), ("0.9467", "0.9195"), ("0.9456", "0.9131")),
}
LM_TAUGHT_PERPLEXITY = {  # of Transformer students
    Arm("Transformer", "LSTM").label: figure("57.0"),
    Arm("Transformer", "Small LSTM").label: figure("59.1"),
}

# Classifiers trained alone: mu, D, A, expected calibration error.
CLASSIFICATION_ALONE = {
    "Transformer": (
        memory("0.954", "0.0016"),
        verified("0.901", "0.0037"),
        verified("0.717", "0.0244"),
        figure("0.055"),
    ),
    "Transformer-seq": (
        figure("0.964", "0.0010"),
        memory("0.909", "0.0037"),
        memory("0.742", "0.0121"),
        figure("0.0446"),
    ),
    "UTransformer-seq": (
        memory("0.969", "0.0004"),
        verified("0.932", "0.0055"),
        verified("0.806", "0.0153"),
        figure("0.0367"),
    ),
    "LSTM": (figure("0.977", "0.0001"), memory("0.970", "0.0003"), memory("0.928", "0.0007"), figure("0.028")),
}

# Taught classifiers: a row is a teacher. mu off the figure; D and A from the authors' logs, where they are known.
CLASSIFICATION_STUDENTS = ("Transformer", "Transformer-seq", "UTransformer-seq", "LSTM")
CLASSIFICATION_MU = {
    "LSTM": ("0.9597", "0.972", "0.975", "0.976"),
    "UTransformer-seq": ("0.957", "0.968", "0.9688", "0.974"),
    "Transformer-seq": ("0.9555", "0.963", "0.9635", "0.969"),
    "Transformer": ("0.9555", "0.960", "0.961", "0.968"),
}
CLASSIFICATION_D_A = {
    "UTransformer-seq": (("0.9117", "0.7788"), ("0.9261", "0.7829"), ("0.9288", "0.8036"), ("0.9509", "0.8447")),
    "Transformer": (("0.905", "0.72"), ("0.899", "0.70"), ("0.900", "0.69"), ("0.928", "0.76")),
}
CLASSIFICATION_LSTM_TEACHER_ECE = ("0.048", "0.036", "0.034", "0.034")

# Digits: (accuracy, calibration error) on clean, scaled and translated images; printed in the blog post's figure.
IMAGES = {
    Arm("CNN").label: (("0.992 0.0009", "0.962 0.0021", "0.981 0.0003"), ("0.011", "0.060", "0.028")),
    Arm("MLP").label: (("0.985 0.0011", "0.794 0.0154", "0.373 0.0151"), ("0.015", "0.175", "0.564")),
    Arm("CNN", "CNN").label: (("0.991", "0.951 0.0046", "0.978"), ("0.014", "0.068", "0.033")),
    Arm("CNN", "MLP").label: (("0.990", "0.955 0.0065", "0.976"), ("0.013", "0.054", "0.030")),
    Arm("MLP", "CNN").label: (("0.988 0.0005", "0.904 0.0073", "0.510 0.0148"), ("0.013", "0.109", "0.432")),
    Arm("MLP", "MLP").label: (("0.985 0.0015", "0.839 0.0096", "0.395 0.0069"), ("0.015", "0.155", "0.555")),
}

# Mean cosine of corresponding rows, of an LSTM and the Transformer that it taught: an example in the authors' notebook,
# of a set-up that is not told.
SIMILARITY_EXAMPLE = verified("0.9218")

NOTES = {
    "lm": (
        "the authors' sheets give the LSTM's D as 0.9501 ± 0.0018 and the deviation of its A as 0.0034, and the "
        "deviation of the Small LSTM's D as 0.0010; they hold three runs, the paper has four (from memory)",
        "the paper's perplexity is the mean over batches of exp(mean loss of the batch); its four digits are from "
        "memory, and a figure of the authors has the LSTM at 55.5 to 56.2, the Small Transformer at 55.5 to 56, the "
        "Small LSTM at 58.4 to 58.9: by that one, which of the first two is best cannot be told",
    ),
    "classification": (
        "the authors' logs give mu of the UTransformer-seq's students as 0.9586, 0.9692 (without one broken run of "
        "0.3517), 0.9702 and 0.9750, where the figure shows 0.957, 0.968, 0.9688 and 0.974",
        "the paper's calibration errors are of a million bins",
        "§ about, from logs whose labels are off by one, where mu is 0.957 (Transformer), 0.960, 0.963 and 0.969",
    ),
    "images": (
        "the number of bins behind the paper's calibration errors is not known",
        "the test images are the validation set, too, as in the paper: no checkpoint is chosen by them",
    ),
}


def _lm() -> dict[str, dict[str, Number]]:
    found = {arm: dict(zip(("perplexity_batches", "d", "a"), row, strict=True)) for arm, row in LM_ALONE.items()}
    for teacher, row in LM_TAUGHT.items():
        for student, (d, a) in zip(LM_STUDENTS, row, strict=True):
            found[Arm(student, teacher).label] = {"d": verified(d), "a": verified(a)}
    for arm, perplexity in LM_TAUGHT_PERPLEXITY.items():
        found[arm]["perplexity_batches"] = perplexity
    return found


def _classification() -> dict[str, dict[str, Number]]:
    names = ("mu", "d", "a", "ece_original")
    found = {arm: dict(zip(names, row, strict=True)) for arm, row in CLASSIFICATION_ALONE.items()}
    for teacher, row in CLASSIFICATION_MU.items():
        for place, (student, mu) in enumerate(zip(CLASSIFICATION_STUDENTS, row, strict=True)):
            cell = found[Arm(student, teacher).label] = {"mu": figure(mu)}
            if teacher in CLASSIFICATION_D_A:
                status = LOGS if teacher == "Transformer" else VERIFIED
                cell["d"], cell["a"] = (Number(one, None, status) for one in CLASSIFICATION_D_A[teacher][place])
            if teacher == "LSTM":
                cell["ece_original"] = figure(CLASSIFICATION_LSTM_TEACHER_ECE[place])
    return found


def _images() -> dict[str, dict[str, Number]]:
    sets, found = ("", "_scaled", "_translated"), {}
    for arm, (accuracies, errors) in IMAGES.items():
        cell = {f"accuracy{name}": verified(*text.split()) for name, text in zip(sets, accuracies, strict=True)}
        found[arm] = cell | {f"ece{name}": verified(text) for name, text in zip(sets, errors, strict=True)}
    return found


PUBLISHED = {"lm": _lm(), "classification": _classification(), "images": _images()}  # setup -> arm -> metric
