"""Which test examples each arm has right: answers.npz beside results.json, and the paired intervals that follow.

A few kilobytes an arm, so that two arms can be compared example by example for as long as their results are kept, not
their checkpoints. An arm is stored as bits, for each test set [R, N / 8], in the order of the test rows.
"""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.abnar_2020 import accuracy, claims
from experiments.abnar_2020.tasks import Task
from seqkd_jax.types import UserError
from seqkd_jax.utils import files

FILE = "answers.npz"
Answers = dict[str, dict[str, np.ndarray]]  # arm -> test set -> bool [R,N], of the seeds that count


def of_arm(task: Task, said: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What an arm has right, from its predictions; without gold strata: 64,000 examples, narrow intervals unpaired."""
    names = [name for name in task.tests if not name.startswith("gold_")]
    return {name: said[f"decisions_{name}"] == task.tests[name].truth for name in names}


def save(path: Path, answers: Answers) -> str:
    """The file, written whole; returns its SHA-256, by which results.json knows it."""
    packed = {
        f"{arm}|{name}": np.packbits(right, axis=1)
        for arm, found in sorted(answers.items())
        for name, right in found.items()
    }
    stream = io.BytesIO()
    np.savez_compressed(stream, **packed)
    files.write_bytes(path, stream.getvalue())
    return files.sha256_bytes(stream.getvalue())


def load(path: Path, expected: str, task: Task) -> Answers:
    """What `save` was given, on the same test sets; UserError unless it is the file that it returned `expected` for."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    if files.sha256_bytes(data) != expected:
        raise UserError(
            f"{path}: missing, or not of the results.json beside it; bring back the one that was written with it, or "
            "take the entry `answers` out of results.json: intervals are wider then"
        )
    answers: Answers = {}
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        for key in stored.files:
            arm, name = key.rsplit("|", 1)
            count = len(task.tests[name].truth)
            answers.setdefault(arm, {})[name] = np.unpackbits(stored[key], axis=1, count=count).astype(bool)
    return answers


def differences(setup: str, strata: Mapping[str, np.ndarray], answers: Answers) -> dict[str, dict]:
    """results["differences"]: paired intervals of the comparisons that claims ask for, where both arms are there."""
    found: dict[str, dict] = {}
    for first, second, metric in claims.comparisons(setup):
        if first in answers and second in answers:
            pair = answers[first], answers[second]
            found.setdefault(f"{first} | {second}", {})[metric] = _difference(strata, *pair, metric)
    return found


def _difference(strata: Mapping[str, np.ndarray], first: dict, second: dict, metric: str) -> dict:
    name = metric.removeprefix("accuracy_") if metric.startswith("accuracy_") else "test"
    binned = {accuracy.MACRO[bins]: bins for bins in ("distance", "attractors")}
    if metric not in binned:
        return accuracy.difference(first[name], second[name])
    counted = accuracy.selections(strata["distance"], strata["intervening"], strata["attractors"])
    rows, bins, groups = counted[binned[metric]]
    return accuracy.difference(first[name][:, rows], second[name][:, rows], bins, groups)
