"""Similarity of models' representations of the same examples, and a map of the models (Abnar et al. 2020).

In: the penultimate features of every model on one fixed set of examples. `cosine_matrix` forgets the model's own axes
(the examples' angles to each other stay), `similarities` compares such matrices, `distances` and `embed` lay the models
out on a plane. A learning path is a model at several checkpoints: put all of them into one map.

A zero vector has cosine 0 with everything, itself included: an example that a model gives no direction is not alike.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Num

from seqkd_jax.types import UserError

SEED = 12345  # of Abnar et al.'s maps
STARTS = 4  # of the scaling: scikit-learn's default when the paper was written
TIE = 0.01  # relative; two points this near in distance from the middle are equally far out
EQUAL = 1e-12  # distances below are rounding: rows that differ by e relatively have a cosine of 1 - e^2/2
ROWS = 32  # compared at a time: 150 models of 1000 examples then take 77 MB beside the matrices themselves


def cosine_matrix(vectors: Num[np.ndarray, "N E"]) -> Float[np.ndarray, "N N"]:
    """The cosine of every pair of examples, float32. Raises UserError on a vector that is not finite."""
    vectors = vectors.astype(np.float64)
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise UserError(
            f"representations: the vector of example {int(bad.argmax())} is not finite; the model may have diverged"
        )
    directions = _directions(vectors)
    return (directions @ directions.T).astype(np.float32)


def similarity(a: Float[np.ndarray, "N N"], b: Float[np.ndarray, "N N"]) -> float:
    """The mean over examples of the cosine of corresponding rows of two models' cosine matrices."""
    return float(similarities([a, b])[0, 1])


def similarities(
    matrices: Sequence[Float[np.ndarray, "N N"]] | Float[np.ndarray, "M N N"],
) -> Float[np.ndarray, "M M"]:
    """`similarity` of every two models, float64, symmetric. Raises UserError on unequal numbers of examples."""
    if not len(matrices) or not len(matrices[0]):
        raise UserError("representations: nothing to compare; a cosine matrix of at least one example is needed")
    examples = len(matrices[0])
    for i, matrix in enumerate(matrices):
        if matrix.shape != (examples, examples):
            raise UserError(
                f"representations: matrix {i} is {matrix.shape}, matrix 0 ({examples}, {examples}): give all models "
                "the same examples"
            )
    total = np.zeros((len(matrices), len(matrices)))
    for first in range(0, examples, ROWS):
        part = np.empty((len(matrices), min(ROWS, examples - first), examples))
        for i, matrix in enumerate(matrices):
            part[i] = _directions(matrix[first : first + ROWS].astype(np.float64))
        part = part.reshape(len(matrices), -1)
        total += part @ part.T  # one sum over the rows and over the columns of their cosines
    return (total + total.T) / (2 * examples)


def distances(similarities: Float[np.ndarray, "M M"]) -> Float[np.ndarray, "M M"]:
    """1 - similarity, divided by the largest: from 0 to 1, zero diagonal. All zero where the models are equal."""
    found = 1.0 - similarities.astype(np.float64)
    found = np.where(found < EQUAL, 0.0, found)
    np.fill_diagonal(found, 0.0)
    largest = found.max()
    return found / largest if largest > 0 else found


def embed(distances: Float[np.ndarray, "M M"], seed: int = SEED) -> Float[np.ndarray, "M 2"]:
    """Points on a plane whose distances are near the given ones: metric multidimensional scaling by SMACOF.

    Random starts, drawn from `seed`, of which the best is kept. Turned to a fixed orientation: centred, the widest
    direction first, the outermost point of either axis on its positive side. The same input gives the same map. The
    unit is that of the distances. Raises UserError where scikit-learn, an extra, is not installed.
    """
    try:
        from sklearn.manifold import smacof  # heavy, and only maps need it
    except ImportError as error:
        raise UserError("maps need scikit-learn: run pip install 'seqkd_jax[studies]'") from error

    if not distances.any():  # one model, or equal ones; SMACOF divides by their distances
        return np.zeros((len(distances), 2))
    # `MDS` of precomputed distances is this function. The arguments of `MDS` change their names from 1.8 on; these do
    # not, and those whose defaults have changed are given.
    stress: Any = False  # scikit-learn infers `str` from its default, and documents a bool
    result = smacof(distances, n_init=STARTS, max_iter=3000, eps=1e-9, random_state=seed, normalized_stress=stress)
    return _oriented(result[0])


def tsne(vectors: Num[np.ndarray, "N E"], seed: int = SEED) -> Float[np.ndarray, "N 2"]:
    """Points on a plane where neighbours stay neighbours: t-SNE (van der Maaten & Hinton 2008).

    It starts from the first two principal axes; of fewer than five vectors, or equal ones, these are the points. Raises
    UserError where scikit-learn, an extra, is not installed.
    """
    vectors = vectors.astype(np.float64)
    if len(vectors) < 5 or not (vectors != vectors[0]).any():
        centred = vectors - vectors.mean(axis=0)
        axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
        return np.pad(centred @ axes.T, ((0, 0), (0, 2 - len(axes))))
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise UserError("maps need scikit-learn: run pip install 'seqkd_jax[studies]'") from error
    perplexity = min(10.0, (len(vectors) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed, method="exact").fit_transform(vectors)


def _directions(vectors):
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)


def _oriented(points):
    points = points - points.mean(axis=0)
    _, axes = np.linalg.eigh(points.T @ points)
    points = points @ axes[:, ::-1]  # eigh sorts upwards
    outermost = np.abs(points).max(axis=0)
    for axis in (0, 1):
        # Of points that are about equally far out, the first: their order is the caller's, the last digits are not.
        first = np.argmax(np.abs(points[:, axis]) >= (1 - TIE) * outermost[axis])
        points[:, axis] *= -1.0 if points[first, axis] < 0 else 1.0
    return points
