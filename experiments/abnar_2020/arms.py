"""Who teaches whom: every arm of the paper is a student, and a teacher or none.

The grids of the paper are all pairs of its models; a scale may leave pairs out. A scale may also have ways: arms that
differ from the plain one of the same models in one thing, which tells what an effect comes from.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

Half = Literal["A", "B"]


class Way(NamedTuple):
    """In what an arm differs from the plain one of the same models."""

    about: str  # for people
    learns: Half | None = None  # the half of the training examples that it learns from; None: all
    teacher: str = ""  # the way of its teacher
    # Which checkpoint of its teacher teaches: best, end or epoch-<n>; "matched": of each seed the kept one whose
    # validation loss is nearest to that at the end of the student's architecture alone; "": as in the scale.
    teaching: str = ""
    temperature: float | None = None  # of the soft targets; None: as in the scale
    dropout: float | None = None  # of the model; None: as in the scale
    scaling: Literal["inverse"] | None = None  # of the teacher's term by T; None: as in the scale
    batch_norm: bool = False  # of the model; False: as in the scale


PLAIN = Way("")
MATCHED = "matched"


class Arm(NamedTuple):
    """One line of the results."""

    student: str
    teacher: str | None = None  # None: trained alone, on the labels
    way: str = ""  # a name among the scale's ways; "": the plain arm

    @property
    def label(self) -> str:
        """As it stands in tables."""
        models = self.student if self.teacher is None else f"{self.teacher} → {self.student}"
        return f"{models} ({self.way})" if self.way else models

    @property
    def key(self) -> str:
        """A name for files and logs."""
        plain = self.label.lower().replace(" → ", "-to-").replace(" ", "-")
        return plain.replace("(", "").replace(")", "")

    @property
    def names(self) -> tuple[str, str]:
        """Those that --only knows."""
        return self.key, self.label


def grid(students: Sequence[str], teachers: Sequence[str] | None = None) -> tuple[Arm, ...]:
    """Each model alone, then each pair of a teacher and a student."""
    return (*map(Arm, students), *(Arm(student, teacher) for teacher in teachers or students for student in students))
