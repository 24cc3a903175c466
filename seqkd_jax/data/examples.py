"""A corpus as ids, and the layout of its batches: pairs, sequences, classified sequences, images. NumPy only."""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from seqkd_jax.data.shaping import Shape
from seqkd_jax.types import BOS, EOS, PAD, Batch, TopK, UserError


class Encoded(NamedTuple):
    """A corpus as ids."""

    sources: list[np.ndarray]  # ids, EOS at the end; or images [28,28]; of a language model nothing that is read
    targets: list[np.ndarray]  # ids without BOS and EOS, or one class
    weights: np.ndarray  # [N] float32
    # Of each its T labels: [T,E], or [T,R,E], features of a teacher, or of R teachers (see training.teacher_cache); or
    # [T], or [T,R], of a type with the fields of a TopK (see training.teacher_top_k)
    teacher_features: list[np.ndarray] | None = None
    form: str = "pairs"  # an entry of FORMS: the layout of its batches


def fingerprint(encoded: Encoded) -> str:
    """SHA-256 of all ids, their order, weights and form; teacher features do not enter."""
    digest = hashlib.sha256(encoded.form.encode())
    for arrays in (encoded.sources, encoded.targets, [encoded.weights]):
        for array in arrays:
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def sequences(ids: Sequence[Sequence[int]]) -> Encoded:
    """Sequences of ids, without BOS and EOS, for a language model."""
    nothing = np.array([EOS], np.int32)
    targets = [np.asarray(sequence, np.int32) for sequence in ids]
    return Encoded([nothing] * len(targets), targets, np.ones(len(targets), np.float32), form="language_model")


def classified(inputs: Sequence[np.ndarray], classes: Sequence[int]) -> Encoded:
    """Inputs of a classifier and their classes: ids (with EOS, if the model expects one) or images [28,28].

    UserError without any example.
    """
    if not len(inputs):
        raise UserError("no example to classify: the file is empty, or every example was dropped")
    targets = [np.array([label], np.int32) for label in classes]
    form = "classes" if inputs[0].ndim == 1 else "images"
    return Encoded(list(inputs), targets, np.ones(len(targets), np.float32), form=form)


def make_batch(encoded: Encoded, shape: Shape, rows: np.ndarray) -> Batch:
    """These sentences in one batch, padded on the right. A row of fill has the source EOS and weight 0."""
    return FORMS[encoded.form].batch(encoded, shape, rows)


def _pairs(encoded: Encoded, shape: Shape, rows: np.ndarray) -> Batch:
    """(source [B,S], target_in [B,T]) and the target with EOS [B,T]."""
    language_model = _language_model(encoded, shape, rows)
    return language_model._replace(inputs=(_sources(encoded, shape, rows), language_model.inputs))


def _language_model(encoded: Encoded, shape: Shape, rows: np.ndarray) -> Batch:
    """BOS and the target [B,T]; the target and EOS [B,T]."""
    target_in, labels, weights = _empty(shape)
    target_in[:, 0] = BOS
    for place, row in enumerate(rows):
        y = encoded.targets[row]
        target_in[place, 1 : len(y) + 1] = y
        labels[place, : len(y)] = y
        labels[place, len(y)] = EOS
        weights[place, : len(y) + 1] = encoded.weights[row]
    return Batch(target_in, labels, weights, _teacher_features(encoded, shape, rows))


def _classes(encoded: Encoded, shape: Shape, rows: np.ndarray) -> Batch:
    """The source [B,S] and its class [B,1]."""
    return _with_class(encoded, shape, rows, _sources(encoded, shape, rows))


def _images(encoded: Encoded, shape: Shape, rows: np.ndarray) -> Batch:
    """The images [B,...] as they are, black ones as fill, and the class [B,1] of each."""
    fill = [np.zeros_like(encoded.sources[0])] * (shape.rows - len(rows))
    return _with_class(encoded, shape, rows, np.stack([encoded.sources[row] for row in rows] + fill))


def _with_class(encoded: Encoded, shape: Shape, rows: np.ndarray, inputs: np.ndarray) -> Batch:
    shape = shape._replace(target=1)
    _, labels, weights = _empty(shape)
    for place, row in enumerate(rows):
        labels[place], weights[place] = encoded.targets[row], encoded.weights[row]
    return Batch(inputs, labels, weights, _teacher_features(encoded, shape, rows))


class Form(NamedTuple):
    """The layout of a batch. Features, a teacher's too, have the position axes of the labels."""

    batch: Callable[[Encoded, Shape, np.ndarray], Batch]
    predicts_eos: bool = False  # a label more than the target has ids
    fixed_inputs: bool = False  # inputs are of one size, which needs no width


FORMS = {
    "pairs": Form(_pairs, predicts_eos=True),
    "language_model": Form(_language_model, predicts_eos=True),
    "classes": Form(_classes),
    "images": Form(_images, fixed_inputs=True),
}


def labels_of(encoded: Encoded) -> np.ndarray:
    """The number of positions [N] that each sentence has labels for."""
    targets = np.fromiter(map(len, encoded.targets), np.int64, len(encoded.targets))
    return targets + FORMS[encoded.form].predicts_eos


def _sources(encoded: Encoded, shape: Shape, rows: np.ndarray) -> np.ndarray:
    source = np.full((shape.rows, shape.source), PAD, np.int32)
    source[len(rows) :, 0] = EOS
    for place, row in enumerate(rows):
        source[place, : len(encoded.sources[row])] = encoded.sources[row]
    return source


def _empty(shape: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Target in, labels and weights of a batch without sentences."""
    size = shape.rows, shape.target
    return np.full(size, PAD, np.int32), np.full(size, PAD, np.int32), np.zeros(size, np.float32)


def _teacher_features(encoded: Encoded, shape: Shape, rows: np.ndarray) -> np.ndarray | TopK | None:
    if encoded.teacher_features is None:
        return None
    first = encoded.teacher_features[0]
    found = np.zeros((shape.rows, shape.target, *first.shape[1:]), first.dtype)
    for place, row in enumerate(rows):
        found[place, : len(encoded.teacher_features[row])] = encoded.teacher_features[row]
    if found.dtype.names:
        return TopK(found["entries"].astype(np.int32), found["probabilities"].copy())
    return found


def lengths(encoded: Encoded) -> tuple[np.ndarray, np.ndarray]:
    """Widths that the sentences need: sources as they are, targets with EOS."""
    widths = (1 if FORMS[encoded.form].fixed_inputs else len(source) for source in encoded.sources)
    return np.fromiter(widths, np.int64, len(encoded.sources)), labels_of(encoded)
