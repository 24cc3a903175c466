"""Who teaches whom: every arm of the paper is a student, and a teacher or none.

The grids of the paper are all pairs of its models; a scale may leave pairs out.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Arm(NamedTuple):
    """One line of the results."""

    student: str
    teacher: str | None = None  # None: trained alone, on the labels

    @property
    def label(self) -> str:
        """As it stands in tables."""
        return self.student if self.teacher is None else f"{self.teacher} → {self.student}"

    @property
    def key(self) -> str:
        """A name for files and logs."""
        return self.label.lower().replace(" → ", "-to-").replace(" ", "-")

    @property
    def names(self) -> tuple[str, str]:
        """Those that --only knows."""
        return self.key, self.label


def grid(students: Sequence[str], teachers: Sequence[str] | None = None) -> tuple[Arm, ...]:
    """Each model alone, then each pair of a teacher and a student."""
    return (*map(Arm, students), *(Arm(student, teacher) for teacher in teachers or students for student in students))
