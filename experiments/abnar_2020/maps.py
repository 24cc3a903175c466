"""The last stages of the study: vectors of each arm on the mapped examples, and the map of all.

How similar models are to each other and to what taught them, where they lie on a plane, and the learning paths of some.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.abnar_2020 import predictions
from experiments.abnar_2020.arms import Arm
from experiments.abnar_2020.study import END, Study, lesson, lesson_of, read_arrays, teaches, training
from seqkd_jax import checkpoint
from seqkd_jax.evaluation import representations
from seqkd_jax.utils import files


def vectors(study: Study, arm: Arm) -> Path:
    """Penultimate vectors of the mapped examples: of each seed at its end, and along its path if that is shown."""
    run, shown = training(study, arm), arm in study.scale.paths

    def make(directory: Path) -> None:
        arrays = {}
        places = {END: run / END} | ({path.name: path for path in run.glob("epoch-*")} if shown else {})
        if shown:
            places[f"epoch-{_epochs(run):04d}"] = run / END
        for place, checkpoints in places.items():
            for index, found in enumerate(checkpoint.load_all(checkpoints)):
                said = predictions.vectors(found.model, found.params, study.task.mapped)
                arrays[f"{place}.{index}"] = said.astype(np.float32)
        np.savez_compressed(directory / "vectors.npz", **arrays)

    return study.stage(f"vectors-{arm.key}", [study.task.tested_on, shown], {"run": run}, make)


def _epochs(run: Path) -> int:
    """How many a run took."""
    return checkpoint.read_record(run / END)["metadata"]["run"]["position"][0]


def drawn_map(study: Study, arms: tuple[Arm, ...], left_out: Mapping[Arm, set[int]]) -> Path:
    """Similarity of all models, their map, and learning paths in a map of their own. left_out: diverged replicas."""
    teachers = [arm for arm in arms if teaches(study, arm)]
    inputs = {arm.key: vectors(study, arm) for arm in arms}
    inputs |= {f"lesson of {arm.key}": lesson(study, arm) for arm in teachers}
    first = {arm: study.scale.config(arm, study.seeds).seed for arm in arms}

    def make(directory: Path) -> None:
        ends, paths = [], []
        for arm in arms:
            arrays = read_arrays(inputs[arm.key] / "vectors.npz")
            for key in sorted(arrays, key=lambda key: (int(key.rsplit(".", 1)[1]), _epoch(key))):
                place, index = key.rsplit(".", 1)
                if int(index) in left_out.get(arm, ()):
                    continue
                entry = {"arm": arm.label, "seed": first[arm] + int(index)}
                matrix = representations.cosine_matrix(arrays[key])
                if place == END:
                    ends.append((int(index), entry, matrix))
                else:
                    paths.append(({**entry, "epoch": _epoch(key)}, matrix))
        lessons = {
            arm.student: {
                place: representations.cosine_matrix(vectors)
                for place, vectors in enumerate(lesson_of(study, arm)["vectors"])
                if place not in left_out.get(arm, ()) and (study.scale.teachers == "each" or place == 0)
            }
            for arm in teachers
        }
        to_teachers = {arm.label: _to_teachers(study, arm, ends, lessons) for arm in arms}
        told = _mapped([(entry, matrix) for (_, entry, matrix) in ends], paths, len(study.task.mapped.targets))
        files.write_json(directory / "map.json", {**told, "to_teachers": to_teachers})

    settings: list = [[arm.label, sorted(left_out.get(arm, ()))] for arm in arms]
    if study.scale.teachers == "one":
        settings.append("one")
    return study.stage("map", settings, inputs, make)


def _to_teachers(study: Study, arm: Arm, ends: list, lessons: Mapping[str, Mapping[int, np.ndarray]]) -> dict:
    """Teacher -> of each model of an arm, how similar it is to what taught it; alone, to all that teach others."""
    own = [(place, matrix) for place, entry, matrix in ends if entry["arm"] == arm.label]
    taught_by = {arm.teacher} if arm.teacher else lessons.keys() - {arm.student}
    said = {}
    for teacher, known in lessons.items():
        if teacher not in taught_by or not known:
            continue
        pairs = [[(matrix, other) for other in known.values()] for _, matrix in own]
        if arm.teacher:
            pairs = [[(matrix, known[place if study.scale.teachers == "each" else 0])] for place, matrix in own]
        said[teacher] = [float(np.mean([representations.similarity(*pair) for pair in of])) for of in pairs]
    return said


def _epoch(key: str) -> int:
    """Of an array's name; -1: the end."""
    return -1 if key.startswith(END) else int(key.split(".")[0].removeprefix("epoch-"))


def _mapped(ends: list, paths: list, examples: int) -> dict:
    """What results.json says of representations. ends, paths: (what it is, cosine matrix)."""
    similar = representations.similarities([matrix for _, matrix in ends])
    told = {
        "examples": examples,
        "models": [entry for entry, _ in ends],
        "similarity": similar.round(6).tolist(),
        "map": representations.embed(representations.distances(similar)).tolist(),
        "paths": [],
    }
    if not paths:
        return told
    distances = representations.distances(representations.similarities([matrix for _, matrix in paths]))
    points = representations.embed(distances).tolist()
    walked: dict[tuple, dict] = {}
    for (entry, _), point in zip(paths, points, strict=True):
        path = walked.setdefault((entry["arm"], entry["seed"]), {**entry, "epochs": [], "points": []})
        path.pop("epoch", None)
        path["epochs"].append(entry["epoch"])
        path["points"].append(point)
    return {**told, "paths": list(walked.values())}
