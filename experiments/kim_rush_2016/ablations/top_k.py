"""Word-KD from the teacher's k most probable entries: what they take, and how far the gradient is from the whole one's.

Of the trained baseline under the teacher, at every label of the validation set: the gradient of the teacher's term by
the student's logits, with all entries and with k of them, all others taken as one.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.core.study import Workspace
from experiments.core.tables import Section, Table
from experiments.kim_rush_2016 import pipeline
from experiments.kim_rush_2016.arms import BASELINE, NAMED
from experiments.kim_rush_2016.rows import Row
from seqkd_jax import checkpoint
from seqkd_jax.config import LossConfig
from seqkd_jax.data import batches
from seqkd_jax.losses import LOSSES, arguments_from, over_positions, top_k
from seqkd_jax.training.teacher_top_k import entries_type
from seqkd_jax.utils import files

TAUGHT = arguments_from(LossConfig("word_kd", alpha=1.0))


def measured(workspace: Workspace, counts: Sequence[int]) -> list[dict]:
    """For each k, and for all entries: bytes a label, the teacher's mass in the rest, errors of value and gradient."""
    scale = workspace.scale
    baseline = Row(NAMED[BASELINE], scale.models["student"][0])
    inputs = {
        "student": pipeline.trained(workspace, baseline),
        "teacher": pipeline.trained(workspace, scale.teacher_row),
        "data": pipeline.data(workspace),
        "vocabulary": pipeline.learned_vocabulary(workspace),
    }

    def make(directory) -> None:
        student, teacher = (checkpoint.load(inputs[name]) for name in ("student", "teacher"))
        valid = pipeline.read(workspace, inputs["data"], "valid")
        encoded, _ = batches.encode_corpus(valid, student.vocabularies, scale.batch)
        plan = batches.make_plan(encoded, scale.batch, pipeline.shapes(workspace))
        size = student.vocabularies.target.size
        kept = [*(count for count in counts if count < size), size]
        sums = jax.jit(partial(_sums, student.model, teacher.model, kept))
        of_batches = [sums(student.params, teacher.params, batch) for _, batch in batches.eval_batches(encoded, plan)]
        total = jax.tree.map(lambda *parts: np.sum(np.array(parts, np.float64), axis=0), *of_batches)
        files.write_json(directory / "top_k.json", [_entry(k, size, total, place) for place, k in enumerate(kept)])

    return files.read_json(workspace.stage("top-k-error", list(counts), inputs, make) / "top_k.json")


def _sums(student_model, teacher_model, kept, student_params, teacher_params, batch) -> dict:
    """Over the labels of a batch: of each k its value, the mass in the rest, and products with the whole gradient."""
    logits, taught = (
        model.head(params, model.features(params, batch.inputs, None)).astype(jnp.float32)
        for model, params in ((student_model, student_params), (teacher_model, teacher_params))
    )

    def found(name, teacher):
        of = jax.value_and_grad(over_positions(LOSSES[name]), has_aux=True)
        (value, _), gradient = of(logits, teacher, batch.labels, batch.weights, TAUGHT)
        return value, gradient

    whole, gradient = found("word_kd", taught)
    each = []
    for k in kept:
        known = top_k(taught, k, 1.0)
        value, of_k = found("word_kd_top_k", known)
        products = [jnp.sum(jnp.square(of_k - gradient)), jnp.sum(of_k * gradient), jnp.sum(jnp.square(of_k))]
        each.append([value, jnp.sum(known.probabilities[..., -1] * batch.weights), *products])
    return {"labels": jnp.sum(batch.weights), "value": whole, "square": jnp.sum(jnp.square(gradient)), "each": each}


def _entry(k: int, size: int, total: dict, place: int) -> dict:
    value, rest, apart, product, square = total["each"][place]
    return {
        "k": k,
        "bytes": entries_type(k, size).itemsize,
        "rest": float(rest / total["labels"]),
        "value": float(value / total["labels"]),
        "whole": float(total["value"] / total["labels"]),
        "gradient_error": float(np.sqrt(apart / total["square"])),
        "cosine": float(product / np.sqrt(square * total["square"])),
    }


def section(results: dict) -> list[Section]:
    """The table, if it was measured."""
    found = results.get("top_k")
    if not found:
        return []
    head = ["k", "bytes a label", "mass in the rest", "nats a label", "error of the gradient", "cosine"]
    rows = [
        [f"{one['k']:,}", f"{one['bytes']:,}", f"{one['rest']:.3f}", f"{one['value']:.4f}"]
        + [f"{one['gradient_error']:.3f}", f"{one['cosine']:.4f}"]
        for one in found
    ]
    notes = [
        "of the baseline under its teacher, at the labels of the validation set; nats: of the teacher's term, "
        f"{found[0]['whole']:.4f} with the live loss; error: of the gradient by the student's logits, relative to the "
        "whole one's; cosine: with that",
    ]
    return [Section("What the k entries take, and what they leave out", table=Table(head, rows, 1, notes))]
