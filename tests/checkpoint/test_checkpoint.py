"""Checkpoints: what goes in comes out, on any number of devices, or one line says why not; and the files under them."""

import dataclasses
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from damage import as_before, edit, reseal

import seqkd_jax
from seqkd_jax import checkpoint, models
from seqkd_jax.config import LSTMConfig, TransformerConfig, VocabularyConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.types import UserError
from seqkd_jax.utils import programs

CONFIG = LSTMConfig(layers=1, size=4)
LINES = ["a b c", "b c d", "c d e a"]
REPLICATED = jax.sharding.NamedSharding(jax.sharding.Mesh(jax.devices(), ("G",)), jax.sharding.PartitionSpec())


@pytest.fixture(scope="module")
def vocabularies():
    return vocabulary.learn(LINES, LINES, VocabularyConfig(kind="words", size=9, joint=False, tokenizer="pretokenised"))


def random_params(vocabularies, config=CONFIG, seed=0):
    """NumPy parameters of the right shapes; nothing is compiled."""
    model = models.build(config, vocabularies.source.size, vocabularies.target.size)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: draw.normal(size=leaf.shape).astype(leaf.dtype), shapes)


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert left.dtype == right.dtype and left.shape == right.shape
        np.testing.assert_array_equal(np.asarray(left), np.asarray(right))


@pytest.fixture
def saved(tmp_path, vocabularies):
    params = random_params(vocabularies)
    path = tmp_path / "teacher"
    checkpoint.save(path, params, model_config=CONFIG, vocabularies=vocabularies, metadata={"step": 7})
    return path


@pytest.mark.parametrize("config", [CONFIG, TransformerConfig(1, 1, 8, 2, 8)], ids=models.kind_of)
def test_round_trip(tmp_path, vocabularies, config):
    params = random_params(vocabularies, config)
    path = checkpoint.save(
        tmp_path / "x", params, model_config=config, vocabularies=vocabularies, metadata={"step": 7, "loss": 1.5}
    )
    loaded = checkpoint.load(path)
    assert_same(loaded.params, params)
    assert loaded.model_config == config
    assert loaded.metadata == {"step": 7, "loss": 1.5}
    assert loaded.vocabularies.fingerprint == vocabularies.fingerprint
    assert loaded.vocabularies.source.encode("a b zzz") == vocabularies.source.encode("a b zzz")
    assert loaded.model is models.build(config, vocabularies.source.size, vocabularies.target.size)


def test_four_devices_to_one_and_back(tmp_path, vocabularies):
    params = random_params(vocabularies)
    on_four = jax.device_put(params, REPLICATED)
    assert all(len(leaf.devices()) == 4 for leaf in jax.tree.leaves(on_four))
    path = checkpoint.save(tmp_path / "x", on_four, model_config=CONFIG, vocabularies=vocabularies, metadata={})
    on_one = checkpoint.load(path).params
    assert all(len(leaf.devices()) == 1 for leaf in jax.tree.leaves(on_one))
    assert_same(on_one, params)
    again = checkpoint.load(path, sharding=REPLICATED).params
    assert all(len(leaf.devices()) == 4 and leaf.is_fully_replicated for leaf in jax.tree.leaves(again))
    assert_same(again, params)


def test_a_value_that_was_not_reduced_is_refused(tmp_path, vocabularies):
    params = random_params(vocabularies)
    split = jax.sharding.NamedSharding(REPLICATED.mesh, jax.sharding.PartitionSpec("G"))
    state = {"sum": jax.device_put(np.arange(8.0, dtype=np.float32), split)}
    with pytest.raises(ValueError, match="sum is not replicated"):
        checkpoint.save(
            tmp_path / "x", params, model_config=CONFIG, vocabularies=vocabularies, metadata={}, state=state
        )
    assert not (tmp_path / "x").exists()


class State(NamedTuple):
    params: dict
    optimiser: tuple
    step: np.ndarray
    extra: dict


def test_state_comes_back_in_structure_dtype_and_sharding(tmp_path, vocabularies):
    params = random_params(vocabularies)
    moments = optax.ScaleByAdamState(np.int32(3), params, params)
    state = State(
        jax.device_put(params, REPLICATED),
        (moments, optax.EmptyState()),
        np.int64(2**40),  # 64 bits survive although jax has 32
        {"half": jax.device_put(np.arange(3).astype(jnp.bfloat16)), "none": None, "no/slash": np.float64(0.1)},
    )
    path = checkpoint.save(
        tmp_path / "x", params, model_config=CONFIG, vocabularies=vocabularies, metadata={}, state=state
    )
    restored = checkpoint.load_state(path, state)
    assert_same(restored, state)
    assert jax.tree.leaves(restored.params)[0].sharding == REPLICATED
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state.params)
    assert_same(checkpoint.load_state(path, state._replace(params=shapes)).params, params)
    with pytest.raises(UserError, match="optimiser.*another run.*|another run.*optimiser"):
        checkpoint.load_state(path, state._replace(optimiser=optax.EmptyState()))
    with pytest.raises(UserError, match="step is int64.*expected int32"):
        checkpoint.load_state(path, state._replace(step=np.int32(1)))


def test_no_state(saved):
    with pytest.raises(UserError, match="no training state"):
        checkpoint.load_state(saved, {})


def test_nothing_is_compiled(tmp_path, vocabularies):
    params = random_params(vocabularies)
    programs.count()
    before = len(programs.built())
    path = checkpoint.save(
        tmp_path / "x", params, model_config=CONFIG, vocabularies=vocabularies, metadata={}, state=params
    )
    checkpoint.load(path)
    checkpoint.load_state(path, jax.device_put(params))
    checkpoint.average([path])
    assert programs.built()[before:] == []


def test_average(tmp_path, vocabularies):
    trees = [random_params(vocabularies, seed=seed) for seed in range(3)]
    paths = [
        checkpoint.save(tmp_path / str(i), tree, model_config=CONFIG, vocabularies=vocabularies, metadata={})
        for i, tree in enumerate(trees)
    ]
    mean = checkpoint.average(paths).params
    expected = jax.tree.map(lambda *leaves: np.mean(np.float64(leaves), axis=0).astype(np.float32), *trees)
    jax.tree.map(np.testing.assert_array_equal, mean, expected)
    other = LSTMConfig(layers=1, size=5)
    stranger = checkpoint.save(
        tmp_path / "stranger",
        random_params(vocabularies, other),
        model_config=other,
        vocabularies=vocabularies,
        metadata={},
    )
    with pytest.raises(UserError, match="another model"):
        checkpoint.average([*paths, stranger])
    others = [tmp_path / f"run-{seed}" for seed in (1, 2)]
    inputs = {"training corpus": "a", "start": "none"}
    for seed, path in zip((1, 2), others, strict=True):
        found = checkpoint.load(paths[0])
        parts = {"model_config": found.model_config, "vocabularies": found.vocabularies}
        checkpoint.save(path, found.params, metadata={"inputs": inputs, "config": {"seed": seed}}, **parts)
    with pytest.raises(UserError, match="of another run"):
        checkpoint.average(others)
    many = tmp_path / "many"
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), trees[0], trees[1])
    checkpoint.save(many, stacked, metadata={"inputs": inputs, "config": {"seed": 1}}, replicas=2, **parts)
    taken = [checkpoint.select(many, place, tmp_path / f"place-{place}") for place in range(2)]
    with pytest.raises(UserError, match="of another run"):
        checkpoint.average(taken)
    broken = jax.tree.map(lambda leaf: np.stack([leaf, leaf * np.nan]), trees[0])
    replicas = [{"diverged": place, "best_step": 3} for place in (0, 6)]  # validated before, as end/ and last/ are then
    checkpoint.save(many, broken, metadata={"run": {"replicas": replicas}}, replicas=2, **parts)
    with pytest.raises(UserError, match="replica 1 has weights that are not finite"):
        checkpoint.select(many, 1, tmp_path / "broken")
    with pytest.raises(UserError, match="at least one"):
        checkpoint.average([])


def test_fingerprint_is_of_the_content(tmp_path, vocabularies):
    def made(name, seed, metadata):
        params = random_params(vocabularies, seed=seed)
        path = tmp_path / name
        return checkpoint.fingerprint(
            checkpoint.save(path, params, model_config=CONFIG, vocabularies=vocabularies, metadata=metadata)
        )

    assert made("a", 0, {"step": 1}) == made("b", 0, {"step": 2})
    assert made("c", 1, {"step": 1}) != made("a", 0, {"step": 1})


def test_another_compute_than_that_of_the_training(saved):
    """It is the same weights, told apart by `compute` and the configuration."""
    plain, other = checkpoint.load_translator(saved), checkpoint.load_translator(saved, compute="bfloat16_products")
    assert (plain.compute, other.compute) == (None, "bfloat16_products")
    assert checkpoint.load_translator(saved, compute="float32").compute is None, "it was trained with that"
    assert other.model_config == dataclasses.replace(plain.model_config, compute="bfloat16_products")
    assert other.fingerprint == plain.fingerprint and other.model is not plain.model
    kernels = [leaf for leaf in jax.tree.leaves(other.model.prepare(other.params)) if leaf.dtype == "bfloat16"]
    assert kernels and {leaf.ndim for leaf in kernels} == {2}


def test_missing_and_not_a_checkpoint(tmp_path, saved):
    with pytest.raises(UserError, match="nowhere: no such checkpoint"):
        checkpoint.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="not a checkpoint.*did you mean .*teacher"):
        checkpoint.load(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="not a checkpoint.*seqkd train"):
        checkpoint.load(tmp_path / "empty")


def test_a_checkpoint_of_an_older_version_has_the_same_fingerprint(saved):
    """One from before a field with a default was added; its configuration is spelled out in the file."""
    before = checkpoint.fingerprint(saved)
    record = checkpoint.read_record(saved)
    assert record["model"]["input_feeding"] is True and record["model"]["dropout"] == CONFIG.dropout
    edit(saved, lambda record: record["model"].pop("input_feeding"))
    assert checkpoint.fingerprint(saved) == before
    found = checkpoint.load(saved)
    assert found.model_config == CONFIG and found.fingerprint == before
    edit(saved, lambda record: record["model"].update(dropout=0.25))
    assert checkpoint.fingerprint(saved) != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.update(format=99), "format 99, this version reads 1"),
        (lambda record: record["model"].update(size=8), "do not fit the configuration.*expected float32"),
        (lambda record: record["model"].update(kind="rnn"), "unknown model kind 'rnn'.*lstm"),
        (lambda record: record["model"].update(moe=3), "lstm.moe: there is no such setting"),
        (lambda record: record["model"].update(size="big"), "lstm.size is 'big': it must be a whole number"),
        (lambda record: record.update(params_sha256="0" * 64), "damaged.*hash"),
        (lambda record: record.update(vocabulary="0" * 64), "vocabular"),
        (lambda record: record.pop("params_sha256"), "damaged, it lacks params_sha256; bring back a copy"),
    ],
)
def test_a_changed_record_is_refused(saved, change, message):
    edit(saved, change)
    with pytest.raises(UserError, match=message) as caught:
        checkpoint.load(saved)
    assert "\n" not in str(caught.value) and saved.name in str(caught.value)


def test_a_field_added_since_takes_its_default(saved):
    edit(saved, lambda record: record["model"].pop("compute"))
    assert checkpoint.load(saved).model_config == CONFIG


def test_another_vocabulary_is_refused(saved):
    other = vocabulary.learn(
        ["x y"], ["x y"], VocabularyConfig(kind="words", size=6, joint=False, tokenizer="pretokenised")
    )
    shutil.rmtree(saved / "vocabulary")
    vocabulary.save(other, saved / "vocabulary")
    reseal(saved)
    with pytest.raises(UserError, match=other.fingerprint[:12]):
        checkpoint.load(saved)


def test_wrong_parameters_cannot_be_saved(tmp_path, vocabularies):
    params = random_params(vocabularies, LSTMConfig(layers=1, size=5))
    with pytest.raises(UserError, match="cannot save"):
        checkpoint.save(tmp_path / "x", params, model_config=CONFIG, vocabularies=vocabularies, metadata={})
    half = jax.tree.map(lambda leaf: leaf.astype(np.float16), random_params(vocabularies))
    with pytest.raises(UserError, match="float16.*expected float32"):
        checkpoint.save(tmp_path / "x", half, model_config=CONFIG, vocabularies=vocabularies, metadata={})


@pytest.mark.parametrize("lost", ["params/d", "params/manifest.ocdbt", "params"])
def test_lost_files_are_one_line(saved, lost):
    path = saved / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    for seal in (lambda directory: None, reseal, as_before):
        seal(saved)
        with pytest.raises(UserError, match=f"{saved}.*(damaged|missing|lacks)") as caught:
            checkpoint.load(saved)
        assert "\n" not in str(caught.value)


def test_killed_while_replacing(saved, vocabularies):
    """Between the two renames of a replacement the directory is gone, and its content is beside it."""
    params = random_params(vocabularies)
    saved.rename(saved.with_name(f".teacher.{'0' * 16}.old"))
    saved.with_name(f".teacher.{'1' * 16}.new").mkdir()  # half a new one
    assert_same(checkpoint.load(saved).params, params)
    second = random_params(vocabularies, seed=1)
    checkpoint.save(saved, second, model_config=CONFIG, vocabularies=vocabularies, metadata={"step": 8})
    assert_same(checkpoint.load(saved).params, second)
    assert [path.name for path in saved.parent.iterdir()] == ["teacher"]


def test_replaced_while_it_is_read(saved, vocabularies, monkeypatch):
    """A run puts a new best/ in its place between a reader's look at the record and at the weights."""
    second, read = random_params(vocabularies, seed=1), checkpoint.arrays.read

    def replaced_before(*arguments):
        monkeypatch.setattr(checkpoint.arrays, "read", read)
        checkpoint.save(saved, second, model_config=CONFIG, vocabularies=vocabularies, metadata={"step": 8})
        return read(*arguments)

    monkeypatch.setattr(checkpoint.arrays, "read", replaced_before)
    found = checkpoint.load(saved)
    assert_same(found.params, second)
    assert found.metadata == {"step": 8}, "the new record with the new weights"


def test_a_checkpoint_that_is_being_moved_is_read(saved, vocabularies, monkeypatch):
    """For an instant, when a new one takes its place, there is none of that name."""
    read = checkpoint.read_record

    def gone_at_first(directory):
        monkeypatch.setattr(checkpoint, "read_record", read)
        raise UserError(f"{directory}: no such checkpoint")

    monkeypatch.setattr(checkpoint, "read_record", gone_at_first)
    assert_same(checkpoint.load(saved).params, random_params(vocabularies))
    with pytest.raises(UserError, match="no such"):
        checkpoint.load(saved.with_name("nowhere"))


def test_a_failed_save_leaves_the_old_one(saved, vocabularies):
    with pytest.raises(TypeError):
        checkpoint.save(
            saved,
            random_params(vocabularies, seed=1),
            model_config=CONFIG,
            vocabularies=vocabularies,
            metadata={"not JSON": {1, 2}},
        )
    assert_same(checkpoint.load(saved).params, random_params(vocabularies))
    assert [path.name for path in saved.parent.iterdir()] == ["teacher"]


@pytest.mark.parametrize(
    "error",
    [MemoryError("no room"), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes")],
)
def test_too_little_memory_is_not_a_damaged_file(saved, monkeypatch, error):
    def restore(*_):
        raise Exception("orbax failed") from error

    monkeypatch.setattr(checkpoint.arrays.ocp.StandardCheckpointer, "restore", restore)
    with pytest.raises(MemoryError, match="no room|Out of memory"):
        checkpoint.load(saved)


def test_the_version_is_that_of_the_code_that_runs(monkeypatch):
    """Not that of another one that is installed, such as an older checkout."""
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0")
    assert checkpoint.versions()["seqkd_jax"] == seqkd_jax.__version__ and checkpoint.versions()["jax"] == "0.0"
