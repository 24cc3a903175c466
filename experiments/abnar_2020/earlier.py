"""Arms of an earlier results.json beside those that were made here: made on another machine, or their checkpoints gone.

What the earlier report says of one arm is taken as it stands, with what it has right where that was kept, so that it
can be compared with arms of here example by example. What else the report says of two arms holds where both are as they
were there: taken, or with the same values here. Vectors are not kept: the map is that of one of the two reports.
Settings, seeds and data are compared, not the code that trained: of that the commits tell.
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from experiments.abnar_2020 import answers, effects, results
from experiments.abnar_2020.answers import Answers
from experiments.abnar_2020.study import Study
from seqkd_jax.training.run_state import plain
from seqkd_jax.types import UserError


def read(made: Study, path: Path) -> tuple[dict, Answers]:
    """An earlier results.json, and what its arms have right, as far as that was kept beside it.

    UserError unless it is of the study that `made` is: settings, seeds, data, models.
    """
    found = results.read(path)
    here = results.identity(made)
    _same({key: found.get(key) for key in here}, here, f"{path}: results of another study")
    known = {arm.label: arm for arm in made.scale.arms}
    for entry in found["arms"]:
        name = entry["arm"]
        if name not in known:
            raise UserError(f"{path}: it has an arm {name!r}, and scale {made.scale.name} has none of that name")
        for key, value in results.settings(made, known[name]).items():
            _same((entry.get("training") or {}).get(key) or {}, plain(value), f"{path}: {name} has another {key}")
    if not found.get("answers"):  # written before they were kept
        return found, {}
    return found, answers.load(path.with_name(answers.FILE), found["answers"], made.task)


def _same(there: Mapping, here: Mapping, said: str) -> None:
    """UserError that begins as `said` unless two settings are alike."""
    for key in sorted(there.keys() | here.keys()):
        if there.get(key) != here.get(key):
            raise UserError(
                f"{said}: {key} {there.get(key)}, here {here.get(key)}; leave out --earlier, or make it anew"
            )


def joined(
    made: Study, present: tuple[dict, Answers], past: tuple[dict, Answers], asked: Collection[str]
) -> tuple[dict, Answers]:
    """What `present`, as results.collect has it, says, and what `past`, as `read` has it, says of arms beside those.

    asked: the arms that are reported as made here, by label. Any other that both have stands as it did: a teacher that
    was trained anew to teach one arm more must not take the place of the one that the other arms are compared with.
    """
    (here, right), (there, right_before) = present, past
    own, before = ({entry["arm"]: entry for entry in told["arms"]} for told in (here, there))

    def same(name: str) -> bool:
        """Whether an arm has the same values in both reports, in all that both measured of it alone."""
        then, now = (of.get(name, {}).get("metrics", {}) for of in (before, own))
        shared = (then.keys() & now.keys()) - {"agreement"}
        return bool(shared) and all(then[metric]["values"] == now[metric]["values"] for metric in shared)

    left = {name for name in own.keys() & before.keys() if name not in asked and not same(name)}
    own = {
        name: {**entry, "teacher_made_anew": True} if entry["teacher"] in left else entry
        for name, entry in own.items()
        if name not in left
    }
    source = {"commit": there["commit"], "finished": there["finished"]}
    taken = {name: {"reported": source, **entry} for name, entry in before.items() if name not in own}

    def as_it_was(name: str | None) -> bool:
        """Whether an arm was taken, or has the same values here."""
        return name is None or name not in own or same(name)

    for name, entry in taken.items():
        if not as_it_was(entry["teacher"]):  # the agreement would be read as one with the teacher that was made since
            metrics = {key: value for key, value in entry["metrics"].items() if key != "agreement"}
            taken[name] = {**entry, "metrics": metrics}
    right = {name: right_before[name] for name in taken if name in right_before} | {
        name: answered for name, answered in right.items() if name in own
    }
    differences = {pair: metrics for pair, metrics in here["differences"].items() if left.isdisjoint(pair.split(" | "))}
    differences |= answers.differences(made.scale.setup, made.task.strata, right)
    for pair, metrics in (there.get("differences") or {}).items():
        if all(map(as_it_was, pair.split(" | "))):
            differences[pair] = metrics | differences.get(pair, {})
    arms = own | taken
    found = {
        **here,
        "arms": [arms[arm.label] for arm in made.scale.arms if arm.label in arms],
        "differences": differences,
        "representations": _representations(here, there, own, as_it_was),
    }
    return found, right


def _representations(here: dict, there: dict, own: Collection[str], as_it_was: Callable[[str | None], bool]) -> dict:
    """How similar arms are to what taught them; how alike the models of an arm are; the map that shows more of them."""
    reports = []
    for told, stays in ((here, lambda name: name in own), (there, as_it_was)):
        reports.append(_only(told.get("representations") or NOTHING, stays))
    mine, before = reports
    towards = {name: known for name, known in mine["to_teachers"].items() if name in own}
    for name, known in before["to_teachers"].items():
        if as_it_was(name):
            kept = {teacher: similar for teacher, similar in known.items() if as_it_was(teacher)}
            towards[name] = kept | towards.get(name, {})
    drawn = max(reports, key=lambda found: len(found["models"]))
    names = {entry["arm"] for told in (here, there) for entry in told["arms"]}
    within = {name: effects.alike({"representations": mine if name in own else before}, name) for name in sorted(names)}
    shown = {model["arm"] for model in drawn["models"]}
    return {**drawn, "within": {name: of for name, of in within.items() if name not in shown}, "to_teachers": towards}


NOTHING: dict = {"models": [], "similarity": [], "map": [], "paths": [], "to_teachers": {}}


def _only(found: dict, stays: Callable[[str], bool]) -> dict:
    """Representations without the models of arms that do not stay."""
    kept = [place for place, model in enumerate(found["models"]) if stays(model["arm"])]
    return {
        **found,
        **{key: [found[key][place] for place in kept] for key in ("models", "map")},
        "similarity": [[found["similarity"][row][column] for column in kept] for row in kept],
        "paths": [path for path in found["paths"] if stays(path["arm"])],
    }
