"""Similarities against loops over rows, maps against configurations that are known."""

import importlib
import sys
import warnings

import numpy as np
import pytest

from seqkd_jax.evaluation.representations import (
    ROWS,
    cosine_matrix,
    distances,
    embed,
    similarities,
    similarity,
    tsne,
)
from seqkd_jax.types import UserError


def vectors(seed=0, examples=2 * ROWS + 5, width=7):
    return np.random.default_rng(seed).normal(size=(examples, width)).astype(np.float32)


def cosine(a, b):
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return a @ b / lengths if lengths else 0.0


def slow_similarity(a, b):
    """Abnar et al. 2020: the mean over examples of the cosine of the two models' rows."""
    return np.mean([cosine(x, y) for x, y in zip(a.astype(np.float64), b.astype(np.float64), strict=True)])


def between(points):
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


def test_cosine_matrix_is_the_cosine_of_every_pair():
    given = vectors(examples=9)
    expected = [[cosine(x, y) for y in given.astype(np.float64)] for x in given.astype(np.float64)]
    found = cosine_matrix(given)
    assert found.dtype == np.float32, "a thousand examples in 4 MB: maps hold a hundred models"
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_zero_vector_has_cosine_zero_with_all():
    given = vectors(examples=5)
    given[2] = 0
    found = cosine_matrix(given)
    assert not found[2].any() and not found[:, 2].any()
    assert np.isfinite(found).all()
    assert similarity(found, found) == pytest.approx(4 / 5), "its row counts as unlike, not as not-a-number"


def test_similarities_are_the_definition_in_a_loop():
    matrices = [cosine_matrix(vectors(seed, width=3 + seed)) for seed in range(4)]
    found = similarities(matrices)
    expected = [[slow_similarity(a, b) for b in matrices] for a in matrices]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(found, similarities(np.stack(matrices)))
    assert similarity(matrices[0], matrices[1]) == pytest.approx(expected[0][1], rel=1e-12)


def test_a_model_is_like_itself_turned_and_scaled():
    given = vectors(1).astype(np.float64)
    turned = given @ np.linalg.qr(np.random.default_rng(2).normal(size=(7, 7)))[0]
    wider = np.concatenate([turned * 3.0, np.zeros((len(given), 4))], axis=1)
    own = cosine_matrix(given)
    assert similarity(own, own) == pytest.approx(1.0, abs=1e-12)
    assert similarity(own, cosine_matrix(turned)) == pytest.approx(1.0, abs=1e-12), "axes are a model's own affair"
    assert similarity(own, cosine_matrix(wider)) == pytest.approx(1.0, abs=1e-12), "and so is the width"
    assert similarity(own, cosine_matrix(vectors(3))) < 0.9


def test_distances_worked_by_hand():
    found = distances(np.array([[1.0, 0.9, 0.6], [0.9, 1.0, 0.8], [0.6, 0.8, 1.0]]))
    np.testing.assert_allclose(found, [[0, 0.25, 1], [0.25, 0, 0.5], [1, 0.5, 0]], atol=1e-12)


def test_a_planar_configuration_is_found_again():
    importlib.import_module("sklearn.manifold")  # what it warns of while it loads is not ours
    wanted = between(np.random.default_rng(4).normal(size=(12, 2)))
    wanted /= wanted.max()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # scikit-learn renames arguments and changes defaults from 1.7 to 1.9
        found = embed(wanted)
    np.testing.assert_allclose(between(found), wanted, atol=1e-3)


def test_a_map_has_one_orientation():
    wanted = between(np.random.default_rng(5).normal(size=(10, 2)) * [3.0, 1.0])
    found = embed(wanted)
    np.testing.assert_array_equal(found, embed(wanted), "the same distances must give the same map")
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-9)
    spread = found.T @ found
    assert spread[0, 0] > spread[1, 1] and abs(spread[0, 1]) < 1e-9, "the widest direction is the first axis"
    assert (found.max(axis=0) >= -found.min(axis=0) * 0.99).all(), "the outermost point is on the positive side"
    np.testing.assert_allclose(embed(wanted, seed=6), found, atol=0.01), "another start must not turn the map"


def test_a_symmetric_map_has_one_orientation_too():
    """Corners of a rectangle are equally far out; rounding in the scaling must not choose among them."""
    corners = np.array([[2.0, 1.0], [-2.0, 1.0], [2.0, -1.0], [-2.0, -1.0]])
    for seed in range(5):
        np.testing.assert_allclose(embed(between(corners), seed), corners, atol=0.02, err_msg="the first is positive")


def test_order_of_models_does_not_matter_to_the_map():
    wanted = between(np.random.default_rng(7).normal(size=(8, 2)) * [2.0, 1.0])
    order = np.random.default_rng(8).permutation(8)
    np.testing.assert_allclose(embed(wanted[np.ix_(order, order)]), embed(wanted)[order], atol=0.01)


@pytest.mark.parametrize("models", [1, 3])
def test_one_model_and_equal_models_are_one_point(models):
    own = cosine_matrix(vectors(9, examples=20))
    turned = [cosine_matrix(vectors(9, examples=20)[:, np.roll(np.arange(7), i)]) for i in range(models - 1)]
    found = distances(similarities([own, *turned]))
    assert found.shape == (models, models) and not found.any(), "rounding must not be scaled up to a distance of 1"
    np.testing.assert_array_equal(embed(found), np.zeros((models, 2)))


def test_two_models_lie_on_the_first_axis():
    found = embed(np.array([[0.0, 1.0], [1.0, 0.0]]))
    np.testing.assert_allclose(found, [[0.5, 0], [-0.5, 0]], atol=1e-3)


def test_a_map_without_scikit_learn_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(UserError, match=r"pip install 'seqkd_jax\[studies\]'"):
        embed(np.array([[0.0, 1.0], [1.0, 0.0]]))


def test_bad_input_is_named():
    given = vectors(examples=4)
    given[3, 1] = np.nan
    with pytest.raises(UserError, match="example 3 is not finite"):
        cosine_matrix(given)
    with pytest.raises(UserError, match=r"matrix 1 is \(5, 5\), matrix 0 \(4, 4\)"):
        similarities([np.eye(4), np.eye(5)])
    with pytest.raises(UserError, match="nothing to compare"):
        similarities([])


def test_neighbours_stay_neighbours_under_tsne():
    """Three groups far apart; of few vectors the principal axes; always the same points."""
    centres = np.repeat(10 * np.eye(3, 7), 6, axis=0)
    found = tsne((centres + vectors(examples=18, width=7) / 10).astype(np.float32))
    group = np.arange(18) // 6
    apart = between(found)
    assert apart[group[:, None] == group].max() < apart[group[:, None] != group].min()
    np.testing.assert_array_equal(found, tsne((centres + vectors(examples=18, width=7) / 10).astype(np.float32)))
    assert tsne(vectors(examples=3)).shape == (3, 2) and not tsne(np.ones((6, 4), np.float32)).any()
