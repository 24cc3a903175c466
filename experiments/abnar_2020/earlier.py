"""Arms of an earlier results.json beside those that were made here: made on another machine, or their checkpoints gone.

What the earlier report says of one arm is taken as it stands, with what it has right where that was kept, so that it
can be compared with arms of here example by example. What else the report says of two arms holds where both are as they
were there: taken, or with the same values here. Vectors are not kept: maps show what was made here.
Settings, seeds and data are compared, not the code that trained: of that the commits tell.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from experiments.abnar_2020 import answers, effects, results
from experiments.abnar_2020.answers import Answers
from experiments.abnar_2020.study import Study
from seqkd_jax.base import UserError
from seqkd_jax.run_record import plain


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
            _same(entry["training"][key], plain(value), f"{path}: {name} has another {key}")
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


def joined(made: Study, present: tuple[dict, Answers], past: tuple[dict, Answers]) -> tuple[dict, Answers]:
    """What `present`, as results.collect has it, says, and what `past`, as `read` has it, says of arms beside those."""
    (here, right), (there, right_before) = present, past
    own, before = ({entry["arm"]: entry for entry in told["arms"]} for told in (here, there))
    source = {"commit": there["commit"], "finished": there["finished"]}
    taken = {name: {"reported": source, **entry} for name, entry in before.items() if name not in own}

    def as_it_was(name: str | None) -> bool:
        """Whether an arm was taken, or has the same values here in all that both reports measured of it alone."""
        if name is None or name not in own:
            return True
        then, now = (of.get(name, {}).get("metrics", {}) for of in (before, own))
        shared = (then.keys() & now.keys()) - {"agreement"}
        return bool(shared) and all(then[metric]["values"] == now[metric]["values"] for metric in shared)

    for name, entry in taken.items():
        if not as_it_was(entry["teacher"]):  # the agreement would be read as one with the teacher that was made since
            metrics = {key: value for key, value in entry["metrics"].items() if key != "agreement"}
            taken[name] = {**entry, "metrics": metrics}
    right = {name: right_before[name] for name in taken if name in right_before} | right
    differences = here["differences"] | answers.differences(made.scale.setup, made.task.strata, right)
    for pair, metrics in (there.get("differences") or {}).items():
        if all(map(as_it_was, pair.split(" | "))):
            differences[pair] = metrics | differences.get(pair, {})
    arms = own | taken
    found = {
        **here,
        "arms": [arms[arm.label] for arm in made.scale.arms if arm.label in arms],
        "differences": differences,
        "representations": _representations(here, there, taken, as_it_was),
    }
    return found, right


def _representations(
    here: dict, there: dict, taken: Iterable[str], as_it_was: Callable[[str | None], bool]
) -> dict | None:
    """Those of here; how alike the models of an arm are that was taken; how similar arms are to what taught them."""
    before = there.get("representations")
    if not before:
        return here["representations"]
    own = here["representations"] or {"models": [], "similarity": [], "map": [], "paths": [], "to_teachers": {}}
    towards = dict(own["to_teachers"])
    for name, known in before["to_teachers"].items():
        if as_it_was(name):
            kept = {teacher: similar for teacher, similar in known.items() if as_it_was(teacher)}
            towards[name] = kept | towards.get(name, {})
    return {**own, "within": {name: effects.alike(there, name) for name in taken}, "to_teachers": towards}
