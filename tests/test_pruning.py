"""Which weights are pruned, against a stable sort in NumPy; what was pruned stays zero, bit for bit, to the end."""

import dataclasses
import functools
import shutil

import jax
import numpy as np
import pytest
from commands import seqkd
from damage import edit
from updates import CONFIG, MODEL, fit, killed_at, save, stream

import seqkd_jax as kd
from seqkd_jax import checkpoint, models, pruning
from seqkd_jax.checkpoint import sparse
from seqkd_jax.config import OptimiserConfig, PruningConfig, SequenceTransformerConfig, TransformerConfig
from seqkd_jax.data import batches, vocabulary
from seqkd_jax.training import trainer
from seqkd_jax.types import UserError

ADAM = OptimiserConfig(learning_rate=0.01, schedule="constant", warmup_steps=0)


def random_params(seed=0, model=MODEL):
    """Small whole numbers, so that many magnitudes are equal, in the arrays of a model; nothing is compiled."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: draw.integers(-9, 10, leaf.shape).astype(leaf.dtype), shapes)


def by_sorting(params, share, rule, embeddings):
    """The mask, by a stable sort of all weights in the order of their names."""
    flat = {name: leaf for name, leaf in sorted(checkpoint.arrays.named_leaves(params).items()) if leaf.ndim > 1}
    weights = {name: leaf for name, leaf in flat.items() if embeddings or "embedding" not in name}
    keys = [(name, place) for name, leaf in weights.items() for place in range(leaf.size)]
    groups = [keys] if rule == "class_blind" else [[key for key in keys if key[0] == name] for name in weights]
    mask = {name: np.zeros(leaf.shape, bool) for name, leaf in weights.items()}
    for group in groups:
        ordered = sorted(group, key=lambda key: abs(weights[key[0]].flat[key[1]]))
        for name, place in ordered[: round(share * len(group))]:
            mask[name].flat[place] = True
    return mask


@pytest.mark.parametrize("embeddings", [True, False])
@pytest.mark.parametrize("rule", list(pruning.RULES))
@pytest.mark.parametrize("kind", ["lstm", "transformer"])
def test_the_least_weights_go(kind, rule, embeddings):
    model = MODEL if kind == "lstm" else models.build(TransformerConfig(1, 1, 8, 2, 8, tied="none"), 9, 9)
    params = random_params(model=model)
    for share in (0.5, 0.8, 0.85, 0.9):
        pruned = pruning.choose(params, PruningConfig(share, rule, embeddings))
        expected = by_sorting(params, share, rule, embeddings)
        assert pruned.keys() == expected.keys()
        for name in expected:
            np.testing.assert_array_equal(pruned[name], expected[name], err_msg=f"{name} at {share}")
        left = checkpoint.arrays.named_leaves(pruning.applied(params, pruned))
        for name, leaf in checkpoint.arrays.named_leaves(params).items():
            np.testing.assert_array_equal(left[name], np.where(pruned.get(name, False), 0, leaf))


def test_published_sizes():
    """Table 3 of Kim & Rush 2016: what is left of a 2x500 student, which has 84m parameters."""
    config = kd.LSTMConfig(2, 500)
    shapes = jax.tree.leaves(checkpoint.param_shapes(config, (50_004, 50_004)))
    weights = sum(int(np.prod(leaf.shape)) for leaf in shapes if len(leaf.shape) > 1)
    others = sum(int(np.prod(leaf.shape)) for leaf in shapes) - weights
    left = [(weights - round(share * weights) + others) / 1e6 for share in (0, 0.5, 0.8, 0.85, 0.9)]
    assert all(abs(found - printed) < 1 for found, printed in zip(left, (84, 42, 17, 13, 8), strict=True)), left


@pytest.fixture
def saved(tmp_path):
    return save(tmp_path / "whole", random_params(), metadata={"languages": ["en", "de"], "step": 3})


def masks_equal(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_a_pruned_checkpoint_comes_back_bit_for_bit_and_is_small(saved, tmp_path, capfd):
    config = PruningConfig(0.8)
    small = kd.prune(saved, tmp_path / "small", config)
    params = random_params()
    expected = pruning.choose(params, config)
    loaded = checkpoint.load(small)
    assert masks_equal(loaded.pruned, expected)
    for leaf, wanted in zip(*map(jax.tree.leaves, (loaded.params, pruning.applied(params, expected))), strict=True):
        assert np.asarray(leaf).tobytes() == wanted.tobytes()
    count = pruning.size(small)
    assert count == sum(path.stat().st_size for path in (small / "params").iterdir())
    tensors = sum(array.nbytes for array in sparse.tensor_files.read(small / "params" / sparse.FILE).values())
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert tensors < 4 * total * 0.4, "a bit for each weight, and a fifth of them"
    assert loaded.metadata["languages"] == ["en", "de"] and loaded.metadata["pruning"]["share"] == 0.8
    assert "step" not in loaded.metadata and checkpoint.read_record(saved).get("pruned") is None
    assert f"{count:,} bytes of weights" in capfd.readouterr().err


def test_several_replicas_share_a_mask(tmp_path):
    pruned = pruning.choose(random_params(), PruningConfig(0.5))
    many = [pruning.applied(random_params(seed), pruned) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *many)
    save(tmp_path / "many", stacked, metadata={}, replicas=2, pruned=pruned)
    checkpoint.select(tmp_path / "many", 1, tmp_path / "one")
    for loaded in (checkpoint.load(tmp_path / "one"), checkpoint.load_all(tmp_path / "many")[1]):
        assert masks_equal(loaded.pruned, pruned)
        jax.tree.map(np.testing.assert_array_equal, loaded.params, many[1])


def test_what_is_not_zero_is_not_saved_as_pruned(tmp_path):
    params = random_params()
    pruned = pruning.choose(params, PruningConfig(0.5))
    with pytest.raises(ValueError, match="a weight that is pruned is not zero"):
        save(tmp_path / "x", params, metadata={}, pruned=pruned)
    zero = pruning.applied(params, pruned)
    name = next(name for name, mask in pruned.items() if mask.any())
    leaf = checkpoint.arrays.named_leaves(zero)[name]
    leaf[pruned[name]] = -0.0
    with pytest.raises(ValueError, match="is not zero"):
        save(tmp_path / "x", zero, metadata={}, pruned=pruned)
    with pytest.raises(ValueError, match="there is no array other"):
        save(tmp_path / "x", params, metadata={}, pruned={"other": np.zeros(3, bool)})
    assert not (tmp_path / "x").exists()


def rewritten(directory, change):
    """A change to the arrays of the sparse file, sealed as somebody would who did it on purpose."""
    path = directory / "params" / sparse.FILE
    tensors = sparse.tensor_files.read(path)
    change(tensors)
    sparse.tensor_files.write(path, tensors, {})
    edit(directory, lambda record: None)


COMBINE = "params/combine"


def swapped(tensors):
    """Another mask, with as many weights, of which those that are read are the same."""
    bits = np.unpackbits(tensors[COMBINE + sparse.KEPT], bitorder="little")
    tensors[COMBINE + sparse.KEPT] = np.packbits(bits[::-1], bitorder="little")


HARMS = {
    "a mask is gone": (lambda t: t.pop(COMBINE + sparse.KEPT), "params/combine is missing"),
    "values are gone": (lambda t: t.pop(COMBINE + sparse.VALUES), "combine:values is missing"),
    "a value too few": (
        lambda t: t.update({COMBINE + sparse.VALUES: t[COMBINE + sparse.VALUES][1:]}),
        "combine:values is float32",
    ),
    "another type": (
        lambda t: t.update({COMBINE + sparse.VALUES: t[COMBINE + sparse.VALUES].astype(np.float64)}),
        "combine:values is float64",
    ),
    "bits beyond the end": (
        lambda t: t.update({"params/output_kernel:kept": t["params/output_kernel:kept"][:-1]}),
        "output_kernel:kept is uint8",
    ),
    "an array too many": (lambda t: t.update({"../../x": np.zeros(1, np.float32)}), "has no array ../../x"),
    "another mask": (swapped, "other weights are pruned than when it was saved"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_mask_that_was_changed_is_one_line(saved, tmp_path, harm):
    change, said = HARMS[harm]
    small = kd.prune(saved, tmp_path / "small")
    rewritten(small, change)
    with pytest.raises(UserError, match=said) as caught:
        checkpoint.load(small)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_marks_beyond_the_last_weight_are_refused(tmp_path):
    shapes = {"odd": jax.ShapeDtypeStruct((3, 3), np.float32)}
    params, pruned = {"odd": np.zeros((3, 3), np.float32)}, {"odd": np.ones((3, 3), bool)}
    sparse.write(tmp_path / "params", params, pruned)
    assert masks_equal(sparse.read(tmp_path / "params", shapes)[1], pruned)
    tensors = sparse.tensor_files.read(tmp_path / "params" / sparse.FILE)
    tensors["odd:kept"] = np.array([0, 128], np.uint8)
    sparse.tensor_files.write(tmp_path / "params" / sparse.FILE, tensors, {})
    with pytest.raises(UserError, match="marks weights beyond its 9"):
        sparse.read(tmp_path / "params", shapes)


def test_pruning_twice_goes_on_or_is_refused(saved, tmp_path):
    half = kd.prune(saved, tmp_path / "half", PruningConfig(0.5))
    more = checkpoint.load(kd.prune(half, tmp_path / "more", PruningConfig(0.9)))
    assert masks_equal(more.pruned, checkpoint.load(kd.prune(saved, tmp_path / "at once", PruningConfig(0.9))).pruned)
    for config in (PruningConfig(0.4), PruningConfig(0.6, "class_uniform", embeddings=False)):
        with pytest.raises(UserError, match="is pruned already, and .* would come back"):
            kd.prune(half, tmp_path / "less", config)
    with pytest.raises(UserError, match="share is 1.0: it must be a number from above 0 to below 1"):
        kd.prune(saved, tmp_path / "nothing", PruningConfig(1.0))


def zeros_are_exact(directory, pruned):
    """Of a checkpoint: its mask is this one, and what is pruned is +0.0 in every replica."""
    record = checkpoint.read_record(directory)
    assert record["pruned"] == sparse.describe(pruned), f"{directory.name} has another mask"
    for one in checkpoint.load_all(directory):
        for name, leaf in checkpoint.arrays.named_leaves(one.params).items():
            assert not np.asarray(leaf)[pruned.get(name, np.zeros(leaf.shape, bool))].view(np.uint32).any(), name


CASES = {
    "adam, its average, clipped, replicas": {"optimiser": ADAM, "average_decay": 0.9, "replicas": 2},
    "parts of two devices": {"parts": 2, "devices": 2},
    "accumulation": {"accumulate": 2},
    "adafactor": {"optimiser": dataclasses.replace(ADAM, name="adafactor")},
}
FAST = "adam, its average, clipped, replicas"


@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.slow] * (case != FAST)) for case in CASES])
def test_what_is_pruned_stays_zero_through_training_and_resuming(tmp_path, case):
    config = dataclasses.replace(CONFIG, **CASES[case])
    params = jax.tree.map(lambda leaf: np.asarray(leaf / 50, np.float32), random_params())
    pruned = pruning.choose(params, PruningConfig(0.7))
    start = {"params": pruning.applied(params, pruned), "pruned": pruned}
    start["save"] = functools.partial(save, pruned=pruned)
    whole = fit(tmp_path / "whole", config, **start)
    zeros_are_exact(whole.best, pruned)
    zeros_are_exact(whole.last, pruned)
    trained = checkpoint.load_all(whole.last)[0].params
    for name, leaf in checkpoint.arrays.named_leaves(trained).items():
        before = checkpoint.arrays.named_leaves(start["params"])[name]
        assert (np.asarray(leaf) != before)[~pruned.get(name, np.zeros(leaf.shape, bool))].any(), f"{name}: not trained"
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "killed", config, killed_at(stream, 5), **start)
    fit(tmp_path / "killed", config, **start)
    zeros_are_exact(tmp_path / "killed" / "last", pruned)
    assert (
        checkpoint.read_record(tmp_path / "killed" / "last")["params_sha256"]
        == (checkpoint.read_record(whole.last)["params_sha256"])
    )


LANGUAGE_MODEL = SequenceTransformerConfig(1, 8, 2, 16, reads="every", tied=True, dropout=0.0)


def test_a_run_that_starts_from_a_pruned_checkpoint_keeps_its_mask(tmp_path, capfd):
    """So do its checkpoints, and those of a run that starts from them; the directory is of this mask alone."""
    words, encoded = vocabulary.words(["a", "b"]), batches.sequences([[4, 5, 4], [5, 4]])
    params = random_params(model=models.build(LANGUAGE_MODEL, words.source.size, words.target.size))
    about = {"model_config": LANGUAGE_MODEL, "vocabularies": words, "metadata": {}}
    whole = checkpoint.save(tmp_path / "whole", params, **about)
    half = kd.prune(whole, tmp_path / "half", PruningConfig(0.5))
    pruned = checkpoint.load(half).pruned
    config = dataclasses.replace(CONFIG, max_steps=1)

    def train(start, out):
        return trainer.train_model(trainer.Run(LANGUAGE_MODEL, words, config, start=start), encoded, encoded, out)

    for start, out in ((half, tmp_path / "first"), (tmp_path / "first" / "best", tmp_path / "second")):
        zeros_are_exact(train(start, out).best, pruned)
    count = f"{sparse.describe(pruned)['weights']:,} weights"
    assert f"{count} of {half} are pruned and stay zero" in capfd.readouterr().err
    for start in (kd.prune(whole, tmp_path / "other", PruningConfig(0.5, "class_uniform")), whole):
        with pytest.raises(UserError, match="holds a run with another mask .*; use another directory") as caught:
            train(start, tmp_path / "first")
        assert "\n" not in str(caught.value)
    capfd.readouterr()
    assert seqkd("verify", tmp_path / "second") == 0
    assert capfd.readouterr().out.count(f"{count} are pruned") == 2


def test_only_checkpoints_of_one_mask_are_averaged(saved, tmp_path):
    half = kd.prune(saved, tmp_path / "half", PruningConfig(0.5))
    with pytest.raises(UserError, match="half: has other pruned weights than"):
        checkpoint.average([saved, half])
    again = shutil.copytree(half, tmp_path / "again")
    assert seqkd("average", half, again, "--out", tmp_path / "mean") == 0
    zeros_are_exact(tmp_path / "mean", checkpoint.load(half).pruned)
