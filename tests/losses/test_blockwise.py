"""Head and loss in blocks are head and loss at once, and keep the logits of one block only."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from updates import CONFIG, MODEL, assert_close, batch

from seqkd_jax.config import LossConfig
from seqkd_jax.losses import LOSSES, LossArguments, blockwise, over_positions
from seqkd_jax.training import train_step

slow = pytest.mark.slow
V, WIDTH = 17, 6
HARD = LossArguments(alpha=0.0, temperature=1.0, scale=1.0, label_smoothing=0.1)


def lines(rows, length, seed=0):
    """Parameters (one of which the head does not read), features, and (labels, weights)."""
    rng = np.random.default_rng(seed)
    params = {"head": jnp.asarray(rng.normal(size=(V, WIDTH)), jnp.float32), "below": jnp.ones(3)}
    features = jnp.asarray(rng.normal(size=(rows, length, WIDTH)), jnp.float32)
    weights = (np.arange(length) < rng.integers(1, length + 1, (rows, 1))).astype(np.float32)
    labels = rng.integers(0, V, (rows, length)).astype(np.int32)
    return params, features, (jnp.asarray(labels), jnp.asarray(weights))


def head(params, features):
    return features @ params["head"].T


def of_logits(logits, others, constants):
    return over_positions(LOSSES["nll"])(logits, None, *others, constants)


def value_and_gradient(params, features, others):
    def of(params, features):
        total, weights = blockwise.summed(head, of_logits, params, features, others, HARD)
        return 3 * total, weights  # the gradient is scaled by what is done with the sum

    return jax.jit(jax.value_and_grad(of, (0, 1), has_aux=True))(params, features)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of at most that many positions of V entries."""

    def limit(positions):
        monkeypatch.setitem(blockwise.LOGITS, jax.default_backend(), positions * V)
        train_step.make_update.cache_clear()

    yield limit
    train_step.make_update.cache_clear()


@pytest.mark.parametrize("positions", [1, 4, 10, 34])
def test_blocks_are_all_at_once(small_blocks, positions):
    """5 x 7 positions: blocks that they fill, and blocks that are filled up."""
    given = lines(5, 7)
    whole = value_and_gradient(*given)
    small_blocks(positions)
    assert_close(value_and_gradient(*given), whole, f"in blocks of {positions}")


def test_barred_entries_in_blocks(small_blocks):
    params, features, (labels, weights) = lines(5, 7)
    never = jnp.where(jnp.arange(V) == 4, -jnp.inf, 0.0)[None, None]

    def barring(params, features):
        logits = features @ params["head"].T
        return logits + (never if logits.ndim == 3 else never[0])

    def of(params, head):
        bars = over_positions(LOSSES["nll"], bars=True)
        others = jnp.where(labels == 4, 5, labels), weights
        return blockwise.summed(head, lambda x, o, c: bars(x, None, *o, c), params, features, others, HARD)[0]

    whole = jax.jit(jax.value_and_grad(lambda params: of(params, barring)))(params)
    assert np.isfinite(whole[0]) and not whole[1]["head"][4].any() and whole[1]["head"][5].any()
    small_blocks(4)
    assert_close(jax.jit(jax.value_and_grad(lambda params: of(params, barring)))(params), whole, "in blocks of 4")


def test_without_a_gradient(small_blocks):
    given = lines(3, 5)
    whole = blockwise.summed(head, of_logits, *given, HARD)
    small_blocks(4)
    assert_close(blockwise.summed(head, of_logits, *given, HARD), whole, "the sum alone")


def test_what_is_kept_is_a_block(small_blocks):
    def kept():
        made = lines(32, 64)
        found = jax.jit(jax.grad(lambda p, f: blockwise.summed(head, of_logits, p, f, made[2], HARD)[0], (0, 1)))
        return found.lower(*made[:2]).compile().memory_analysis().temp_size_in_bytes

    logits = 32 * 64 * V * 4
    assert kept() >= logits, "the logits of all positions are not kept even at once: this test measures nothing"
    small_blocks(64)
    assert kept() < logits, "more than all logits are kept, although blocks have 64 of 2,048 positions"


@pytest.mark.parametrize(
    ("replicas", "by", "each", "dropout"),
    [
        (2, "map", True, False),
        pytest.param(1, "map", False, False, marks=slow),
        pytest.param(2, "map", False, False, marks=slow),
        pytest.param(2, "vmap", False, True, marks=slow),
    ],
)
def test_an_update_in_blocks_is_the_update(small_blocks, replicas, by, each, dropout):
    """Of a student and its teacher, of one seed and of two: teachers' logits in blocks too, or given beforehand."""
    loss = LossConfig("word_kd", alpha=0.5, teacher_dropout=dropout)
    config = dataclasses.replace(CONFIG, replicas=replicas, replicas_by=by, loss=loss)
    stacked = train_step.start_state(MODEL, dataclasses.replace(CONFIG, seed=40, replicas=2)).params
    params = stacked if each else jax.tree.map(lambda leaf: leaf[0], stacked)
    teacher = train_step.Teacher(MODEL, params, each)

    def updated():
        devices = tuple(jax.local_devices()[:2])
        state = train_step.replicate(train_step.start_state(MODEL, config), devices)
        arranged = train_step.arrange(batch(0), 2, 1)
        return train_step.update_for(MODEL, config, devices, teacher)(
            state, *arranged, train_step.settings(config, 0.5), params
        )

    whole = updated()
    small_blocks(2)
    assert_close(updated(), whole, "in blocks of a few positions")
