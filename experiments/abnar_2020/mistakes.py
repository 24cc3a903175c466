"""Are a student's mistakes its teacher's? By example, against the overlap that accuracies alone would give. NumPy only.

Two models that err independently share mistakes by chance: of a student's mistakes the teacher then makes a share that
is its own rate of errors. Error consistency (Geirhos, Meding & Wichmann 2020) is Cohen's kappa of being right: 0 by
chance, 1 if both err on the same examples. Some examples are hard for every model, so that the same student alone is
the other thing to compare with.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool

MEASURES = ("shared", "expected", "consistency")


def overlap(student: Bool[np.ndarray, " N"], teacher: Bool[np.ndarray, " N"]) -> dict[str, float]:
    """Of two models that are right or wrong on N examples.

    shared: the share of the student's mistakes that the teacher makes too; expected: that by chance; consistency:
    kappa. Without a mistake of the student shared is expected; where one model has all alike, consistency is 0.
    """
    wrong = ~teacher.astype(bool)
    expected = float(wrong.mean())
    shared = float(wrong[~student].mean()) if not student.all() else expected
    right = float(student.mean()), float(teacher.mean())
    alike, by_chance = float((student == teacher).mean()), right[0] * right[1] + (1 - right[0]) * (1 - right[1])
    consistency = (alike - by_chance) / (1 - by_chance) if by_chance < 1 else 0.0
    return {"shared": shared, "expected": expected, "consistency": consistency}


def with_own(students: Bool[np.ndarray, "R N"], teachers: Bool[np.ndarray, "_ N"]) -> dict[str, list[float]]:
    """Measure -> a number for each student with its own teacher; one teacher may have taught all."""
    pairs = zip(students, np.broadcast_to(teachers, students.shape), strict=True)
    return _listed([overlap(*pair) for pair in pairs])


def with_all(models: Bool[np.ndarray, "R N"], teachers: Bool[np.ndarray, "Q N"]) -> dict[str, list[float]]:
    """Measure -> a number for each model, the mean over all teachers: for models that none of these taught."""
    each = [_listed([overlap(model, teacher) for teacher in teachers]) for model in models]
    return {name: [float(np.mean(found[name])) for found in each] for name in MEASURES}


def of_arms(
    correct: Mapping[str, np.ndarray],
    taught_by: Mapping[str, tuple[str, np.ndarray]],
    teachers: Mapping[str, np.ndarray],
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Arm -> teacher -> measure -> a number for each seed.

    correct: arm -> right or wrong, [R,N]. taught_by: taught arm -> its teacher's name and how that decided when it
    taught. teachers: name -> the same of each that taught others; models alone are compared with all of them but their
    own architecture.
    """
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for arm, own in correct.items():
        if arm in taught_by:
            name, teacher = taught_by[arm]
            found[arm] = {name: with_own(own, teacher)}
        else:
            others = {name: with_all(own, teacher) for name, teacher in teachers.items() if name != arm}
            found |= {arm: others} if others else {}
    return found


def _listed(pairs: list[dict[str, float]]) -> dict[str, list[float]]:
    return {name: [pair[name] for pair in pairs] for name in MEASURES}
