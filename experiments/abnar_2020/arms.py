"""Who teaches whom: every arm of the paper is a student, and a teacher or none.

The grids of the paper are all pairs of its models; a scale may leave pairs out.
"""

from collections.abc import Sequence
from typing import NamedTuple

from seqkd_jax.types import UserError


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


def grid(students: Sequence[str], teachers: Sequence[str] | None = None) -> tuple[Arm, ...]:
    """Each model alone, then each pair of a teacher and a student."""
    pairs = [Arm(student, teacher) for teacher in teachers or students for student in students]
    return (*map(Arm, students), *pairs)


def select(arms: Sequence[Arm], names: Sequence[str]) -> tuple[Arm, ...]:
    """The arms of these labels or keys; all if none is named; UserError for one not there."""
    if not names:
        return tuple(arms)
    for name in names:
        if not any(name in (arm.label, arm.key) for arm in arms):
            raise UserError(f"no arm is called {name!r}; there are {', '.join(arm.key for arm in arms)}")
    return tuple(arm for arm in arms if {arm.label, arm.key} & set(names))


def with_teachers(arms: Sequence[Arm], named: Sequence[Arm]) -> tuple[Arm, ...]:
    """The arms that are named, and their teachers."""
    teachers = {Arm(arm.teacher) for arm in named if arm.teacher is not None}
    return tuple(arm for arm in arms if arm in named or arm in teachers)
