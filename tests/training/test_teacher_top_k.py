"""The teacher's most probable entries: what is kept of a corpus, in files, and what is learned from it."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from test_teacher_cache import CONFIG, ENCODED, PLAN, SIZES, STUDENT

from seqkd_jax import models
from seqkd_jax.config import LossConfig, LSTMConfig, OptimiserConfig, TrainConfig
from seqkd_jax.data import batches
from seqkd_jax.training import compatibility, teacher_top_k, train_step
from seqkd_jax.types import UserError

V, K = SIZES[1], 4
MODEL = models.build(LSTMConfig(1, 6, dropout=0.3), *SIZES)
PARAMS = jax.jit(MODEL.init)(jax.random.key(5))
TEACHER = train_step.Teacher(MODEL, PARAMS)
OF = teacher_top_k.Of("teacher", K, 1.0)


@pytest.fixture(autouse=True)
def few_sentences(monkeypatch):
    monkeypatch.setattr(teacher_top_k, "SHARD", 12)  # 3 shards


def kept(directory, of=OF, teacher=TEACHER):
    return teacher_top_k.with_top_k(directory, teacher, of, ENCODED, PLAN, "test")


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def first_update(loss, encoded, teacher):
    config = TrainConfig(loss=loss, optimiser=OptimiserConfig(name="sgd", clip_norm=0.0), devices=1)
    devices = train_step.devices(1)
    update = train_step.update_for(STUDENT, config, devices, teacher)
    state = train_step.replicate(train_step.start_state(STUDENT, config), devices)
    _, batch = next(batches.train_batches(encoded, PLAN, CONFIG))
    arranged = train_step.arrange(batch, 1, 2)
    state, metrics = update(state, *arranged, train_step.settings(config, 0.5), teacher.params)
    return float(metrics.loss_sum), jax.tree.map(np.asarray, state.params)


def test_an_update_from_all_entries_is_word_kd(tmp_path):
    loss = LossConfig("word_kd_top_k", alpha=0.7, temperature=2.0, top_k=V)
    encoded = kept(tmp_path / "all", OF._replace(k=V, temperature=2.0))
    found, params = first_update(loss, encoded, train_step.Teacher(None, ()))
    live, expected = first_update(dataclasses.replace(loss, name="word_kd"), ENCODED, TEACHER)
    assert found == pytest.approx(live, rel=1e-6)
    for one, other in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_what_is_kept_is_the_teachers_best(tmp_path):
    """Of one teacher, and of two in their order; the rest is what is left."""
    stacked = jax.tree.map(lambda leaf: np.stack([leaf, 2 * np.asarray(leaf)]), PARAMS)
    (one, two) = kept(tmp_path / "1"), kept(tmp_path / "2", teacher=train_step.Teacher(MODEL, stacked, each=True))
    for rows, batch in batches.eval_batches(ENCODED, PLAN):
        logits = MODEL.head(PARAMS, MODEL.features(PARAMS, batch.inputs, None))
        p = np.asarray(jax.nn.softmax(logits), np.float64)
        for place, row in enumerate(rows):
            found, labels = one.teacher_features[row], len(ENCODED.targets[row]) + 1
            assert found.shape == (labels,) and two.teacher_features[row].shape == (labels, 2)
            best = np.sort(p[place, :labels], axis=-1)[:, : -K - 1 : -1]
            np.testing.assert_allclose(found["probabilities"][:, :K], best, rtol=1e-5)
            np.testing.assert_allclose(found["probabilities"][:, K], 1 - best.sum(-1), atol=1e-6)
            of_entries = np.take_along_axis(p[place, :labels], found["entries"].astype(int), -1)
            np.testing.assert_allclose(of_entries, best, rtol=1e-5)
            np.testing.assert_array_equal(two.teacher_features[row][:, 0], found)


def test_what_is_there_is_read_and_what_is_missing_or_damaged_is_made_again(tmp_path, monkeypatch, capsys):
    kept(tmp_path / "c")
    whole = contents(tmp_path / "c")
    assert len([name for name in whole if name.startswith("shard-")]) == 3
    with monkeypatch.context() as patch:
        patch.setattr(teacher_top_k, "_made", lambda *_: pytest.fail("computed again"))
        kept(tmp_path / "c")
    (tmp_path / "c" / "shard-00000").unlink()
    (tmp_path / "c" / "shard-00001").write_bytes(whole["shard-00001"][:-1])
    damaged = bytearray(whole["shard-00002"])
    damaged[-5] ^= 1
    (tmp_path / "c" / "shard-00002").write_bytes(damaged)
    (tmp_path / "c" / ".shard-00001.0123456789abcdef.new").write_bytes(b"of a killed process")
    kept(tmp_path / "c")
    assert contents(tmp_path / "c") == whole
    (tmp_path / "c" / ".lock").unlink()  # a copy
    kept(tmp_path / "c")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / ".lock").touch()  # all that a killed process had made
    assert len(kept(tmp_path / "begun").teacher_features or ()) == len(ENCODED.targets)
    assert capsys.readouterr().err.count("damaged; it is made again") == 2


def test_a_signed_shard_with_ids_that_do_not_exist_is_not_read(tmp_path):
    kept(tmp_path / "c")
    whole, path = contents(tmp_path / "c"), tmp_path / "c" / "shard-00000"
    data = bytearray(whole["shard-00000"][teacher_top_k.HEADER :])
    data[:2] = b"\xff\xff"
    header = json.dumps({"sha256": teacher_top_k.files.sha256_bytes(bytes(data))}).encode()
    path.write_bytes(header.ljust(teacher_top_k.HEADER - 1) + b"\n" + data)
    kept(tmp_path / "c")
    assert contents(tmp_path / "c") == whole


@pytest.mark.parametrize(
    ("change", "said"),
    [({"k": 5}, "another k"), ({"teacher": "x"}, "another teacher"), ({"temperature": 2.0}, "another temperature")],
)
def test_a_directory_of_something_else_is_refused(tmp_path, change, said):
    kept(tmp_path / "c")
    whole = contents(tmp_path / "c")
    with pytest.raises(UserError, match=f"was made with {said}; delete the directory, or name another one"):
        kept(tmp_path / "c", OF._replace(**change))
    assert contents(tmp_path / "c") == whole


def test_a_directory_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        kept(tmp_path)
    (tmp_path / "notes").unlink()
    (tmp_path / "description.json").write_text('{"format": 1, "sha256": "0"}')
    with pytest.raises(UserError, match="description.json: damaged; delete the directory"):
        kept(tmp_path)


def test_what_does_not_fit_the_loss_is_said():
    config = TrainConfig(loss=LossConfig("word_kd_top_k", top_k=V + 1))
    with pytest.raises(UserError, match=f"loss.top_k is {V + 1}: it must not exceed {V}"):
        compatibility.require_top_k(config, V)
    config = TrainConfig(loss=LossConfig("word_kd_top_k", teacher_dropout=True))
    with pytest.raises(UserError, match="leave teacher_dropout out, or use the loss word_kd"):
        compatibility.require_teacher(config, True)
