"""The contract that every entry of models.TRANSLATORS keeps; a new model needs one small configuration in CASES."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.core.dry_run import decoding_step
from seqkd_jax.config import LSTMConfig, SequenceLSTMConfig, SequenceTransformerConfig, TransformerConfig
from seqkd_jax.decoding.search.past import extended, nothing_own, reordered, with_beam_axis
from seqkd_jax.models import TRANSLATORS, build, kind_of, parameter_count
from seqkd_jax.models.layers import (
    ACTIVATION_TYPES,
    LEVELS,
    OPERAND_TYPES,
    dropout,
    fold_keys,
    gelu,
    normalised,
    prepared_head,
    product,
    vocabulary_logits,
)
from seqkd_jax.types import BOS, EOS, PAD, Translator, UserError

SOURCE_SIZE, TARGET_SIZE, B, S, T, K = 19, 19, 3, 6, 5, 2

TRANSFORMER = TransformerConfig(encoder_layers=1, decoder_layers=2, width=16, heads=2, feed_forward=24, dropout=0.3)
CASES = {
    "lstm": LSTMConfig(layers=2, size=12),
    "lstm, both ways": LSTMConfig(layers=2, size=12, bidirectional=True, input_feeding=False),
    "lstm, no attention": LSTMConfig(layers=1, size=12, attention=False, start_from_encoder=False),
    "transformer": dataclasses.replace(TRANSFORMER, attention_dropout=0.2, activation_dropout=0.2),
    "transformer, post": dataclasses.replace(
        TRANSFORMER, norm="post", activation="swish", tied="none", biases=False, output_bias=True
    ),
}
TOLERANCE = {"float32": 2e-5, "bfloat16": 0.06, "bfloat16_products": 0.03}  # absolute, on features of about unit size


def over(*fast):
    """Parametrise over cases and compute types; those not in `fast` are slow, since each compiles programs."""
    every = [(case, compute) for case in CASES for compute in TOLERANCE]
    marks = {pair: [] if pair in fast else [pytest.mark.slow] for pair in every}
    return pytest.mark.parametrize(("case", "compute"), [pytest.param(*pair, marks=marks[pair]) for pair in every])


FIRST = ("lstm", "transformer")  # of each kind; the others are variants
float32, bfloat16, products = ([(case, compute) for case in FIRST] for compute in TOLERANCE)
variants = [(case, "float32") for case in CASES]
cases = pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case in FIRST else [pytest.mark.slow]) for case in CASES]
)


class Subject(NamedTuple):
    """A model, its parameters, and its functions compiled."""

    model: Translator
    params: dict
    features: object
    start: object
    step: object


@functools.cache
def subject(case, compute="float32") -> Subject:
    model = build(dataclasses.replace(CASES[case], compute=compute), SOURCE_SIZE, TARGET_SIZE)
    params = jax.jit(model.init)(jax.random.key(1))
    return Subject(model, params, jax.jit(model.features), jax.jit(model.start), jax.jit(model.step))


def inputs(seed=0, rows=B):
    """Random source [B,S] with padding, and target_in [B,T]."""
    rng = np.random.default_rng(seed)
    source = rng.integers(EOS + 1, SOURCE_SIZE, (rows, S))
    for row, length in enumerate(rng.integers(2, S + 1, rows)):
        source[row, length - 1] = EOS
        source[row, length:] = PAD
    target_in = rng.integers(EOS + 1, TARGET_SIZE, (rows, T))
    target_in[:, 0] = BOS
    return source.astype(np.int32), target_in.astype(np.int32)


def assert_close(actual, expected, compute="float32", message=""):
    actual, expected = np.asarray(actual, np.float32), np.asarray(expected, np.float32)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[compute], err_msg=message)


def pad(x, columns):
    return np.pad(x, ((0, 0), (0, columns)), constant_values=PAD)


def before_first(model, state):
    """The state with a beam axis, empty caches, and the table of own entries, with room to spare."""
    return with_beam_axis(state, K), model.caches(B, K, T + 2), nothing_own(B, K, K * (T + 2))


def row_keys(seed, rows=B):
    return jax.random.split(jax.random.key(seed), rows)


def test_every_model_is_held_to_the_contract():
    missing = set(TRANSLATORS) - {kind_of(config) for config in CASES.values()}
    assert not missing, f"add a small configuration of {missing} to CASES in tests/models/test_models.py"


@over(*variants, *bfloat16)
def test_steps_repeated_equal_features(case, compute):
    """With K hypotheses a sentence, of different tokens, exchanged half-way as a search does."""
    s = subject(case, compute)
    source, _ = inputs()
    targets = np.stack([inputs(seed)[1] for seed in range(1, K + 1)], axis=1)  # [B,K,T]
    memory, state = s.start(s.params, source)
    (state, caches, own), stepped, exchanged = before_first(s.model, state), [], np.tile(np.arange(K)[::-1], (B, 1))
    for t in range(T):
        if t == 2:
            state, own = reordered((state, own), exchanged)
            targets, stepped = targets[:, ::-1], [x[:, ::-1] for x in stepped]
        own, past = extended(own)
        features, _, state, caches = s.step(s.params, targets[:, :, t], memory, state, caches, past)
        stepped.append(np.asarray(features, np.float32))
    for k in range(K):
        full = s.features(s.params, (source, targets[:, k]), None)
        assert_close(
            np.stack(stepped, axis=2)[:, k], full, compute, "step repeated differs from features (cached = full)"
        )


@cases
def test_padding_changes_nothing(case):
    s = subject(case)
    source, target_in = inputs()
    expected = s.features(s.params, (source, target_in), None)
    wide = s.features(s.params, (pad(source, 3), pad(target_in, 2)), None)
    assert_close(wide[:, :T], expected, message="features depend on PAD columns: mask them in the model")
    stepped = []
    for padded in (source, pad(source, 3)):
        memory, state = s.start(s.params, padded)
        state, caches, own = before_first(s.model, state)
        stepped.append(s.step(s.params, target_in[:, :K], memory, state, caches, extended(own)[1]))
    assert_close(stepped[1][0], stepped[0][0], message="a step depends on PAD columns")
    if stepped[0][1] is not None:
        assert_close(np.asarray(stepped[0][1]).sum(-1), np.ones((B, K)), message="attention does not sum to 1")
        assert_close(stepped[1][1][..., :S], stepped[0][1], message="attention depends on PAD columns")
        assert not np.asarray(stepped[1][1])[..., S:].any(), "attention falls on PAD"


@cases
def test_the_memory_of_fewer_columns_may_be_padded_with_zeros(case):
    """A step reads the same: so the search encodes short sentences apart from longer ones."""
    s = subject(case)
    source, target_in = inputs()
    (narrow, state), (wide, _) = s.start(s.params, source), s.start(s.params, pad(source, 3))

    def padded(leaf, of):
        return np.pad(leaf, [(0, size - own) for own, size in zip(leaf.shape, of.shape, strict=True)])

    stepped = []
    for memory in (jax.tree.map(padded, narrow, wide), wide):
        of_beam, caches, own = before_first(s.model, state)
        stepped.append(s.step(s.params, target_in[:, :K], memory, of_beam, caches, extended(own)[1]))
    assert_close(stepped[0][0], stepped[1][0], message="a step reads columns that the mask excludes")


@over(*float32)
def test_neighbours_change_nothing(case, compute):
    """Bitwise, at one program shape; and a row of padding only, as in the last batch, is finite and does no harm."""
    s = subject(case, compute)
    source, target_in = inputs()
    keys = row_keys(0)
    other_source, other_target = inputs(7)
    other_source[1:], other_target[1:] = PAD, PAD
    other_source[0], other_target[0] = source[2], target_in[2]
    other_keys = row_keys(5).at[0].set(keys[2])
    for mine, theirs in ((None, None), (keys, other_keys)):
        a = np.asarray(s.features(s.params, (source, target_in), mine), np.float32)
        b = np.asarray(s.features(s.params, (other_source, other_target), theirs), np.float32)
        assert np.isfinite(a).all() and np.isfinite(b).all(), "a row of padding only must give finite features"
        np.testing.assert_array_equal(a[2], b[0], "a row's features depend on the other rows")


@cases
def test_dropout_is_keyed_by_row(case):
    s = subject(case)
    source, target_in = inputs()
    plain = s.features(s.params, (source, target_in), None)
    keys = row_keys(0)
    whole = np.asarray(s.features(s.params, (source, target_in), keys))
    np.testing.assert_array_equal(
        plain, s.features(s.params, (source, target_in), None), "keys=None is not deterministic"
    )
    np.testing.assert_array_equal(whole, s.features(s.params, (source, target_in), keys))
    part = s.features(s.params, (source[1:], target_in[1:]), keys[1:])
    assert_close(
        part, whole[1:], message="a row's dropout depends on the batch it is in: derive masks from the row's key only"
    )
    again = np.asarray(s.features(s.params, (source, target_in), keys.at[0].set(jax.random.key(9))))
    np.testing.assert_array_equal(again[1:], whole[1:])
    assert np.abs(again[0] - whole[0]).max() > 1e-3, "another key must give another mask"
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(whole, np.asarray(plain), strict=True)), (
        "keys given, no dropout"
    )
    same = s.features(s.params, (source[[0, 0, 0]], target_in[[0, 0, 0]]), keys)
    assert np.abs(same[0] - same[1]).max() > 1e-3, "equal sentences with unequal keys must get unequal masks"


@over(*float32, *bfloat16)
def test_the_head_gives_float32(case, compute):
    s = subject(case, compute)
    logits = jax.eval_shape(s.model.head, s.params, s.features(s.params, inputs(), None))
    assert logits.shape == (B, T, TARGET_SIZE) and logits.dtype == np.float32


@over(("lstm", "float32"), ("transformer, post", "float32"), ("transformer, post", "bfloat16"), *products)
def test_prepared_parameters_give_the_same(case, compute):
    s = subject(case, compute)
    prepared, features = s.model.prepare(s.params), s.features(s.params, inputs(), None)
    head = jax.jit(s.model.head)
    assert_close(head(prepared, features), head(s.params, features))
    np.testing.assert_array_equal(s.features(prepared, inputs(), None), features)


@over(*float32, *bfloat16, *products)
def test_types(case, compute):
    """Float32 parameters; features in the type of activations; a state that a loop can carry."""
    s = subject(case, compute)
    wrong = {leaf.dtype for leaf in jax.tree.leaves(s.params)} - {np.dtype("float32")}
    assert not wrong, f"parameters must be float32 whatever the compute type, found {wrong}"
    activations = ACTIVATION_TYPES[compute]
    assert s.features(s.params, inputs(), None).dtype == activations
    step, *arguments = decoding_step(s.model, s.params, jax.ShapeDtypeStruct((B, S), np.int32), K, T)
    memory, before = arguments[2], arguments[3:5]
    assert {leaf.shape[0] for leaf in jax.tree.leaves((memory, before))} == {B}
    features, attention, *after = jax.eval_shape(s.model.step, *arguments)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), before)
    assert features.shape[:2] == (B, K) and features.dtype == activations
    assert attention is None or attention.shape == (B, K, S)


def test_a_rounded_head_keeps_its_bias():
    """To 16 bits, in two rows."""
    kernel, bias = jnp.zeros((50, 8)), jax.random.normal(jax.random.key(0), (50,))
    prepared = jax.jit(prepared_head, static_argnums=2)(kernel, bias, "bfloat16_products")
    logits = vocabulary_logits(jnp.ones((3, 8)), kernel, bias, "bfloat16_products", prepared)
    np.testing.assert_allclose(logits, np.broadcast_to(bias, (3, 50)), rtol=2**-16)


@over(*bfloat16, *products)
def test_other_types_are_close_to_float32(case, compute):
    s, low = subject(case), subject(case, compute)
    expected = s.features(s.params, inputs(), None)
    assert_close(low.features(s.params, inputs(), None), expected, compute, f"{compute} strays from float32")


@pytest.mark.parametrize("case", FIRST)
def test_only_products_with_weights_read_bfloat16(case):
    """Every product with a weight does, whichever way it is taken; sums and all other products are float32."""
    s = subject(case, "bfloat16_products")

    def loss(params):
        return s.model.head(params, s.model.features(params, inputs(), None)).sum()

    dots = [
        tuple(str(variable.aval.dtype) for variable in (*equation.invars, *equation.outvars))
        for equation in equations(jax.make_jaxpr(jax.grad(loss))(s.params).jaxpr)
        if equation.primitive.name == "dot_general"
    ]
    assert set(dots) == {("bfloat16", "bfloat16", "float32"), ("float32",) * 3}
    paths = jax.tree_util.tree_leaves_with_path(s.params)
    weights = sum(leaf.ndim == 2 and "embedding" not in str(path) for path, leaf in paths)
    assert dots.count(("bfloat16", "bfloat16", "float32")) >= 3 * weights  # forward, of the input, of the weight


def equations(jaxpr):
    """All equations of a program, those of inner programs included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                yield from equations(getattr(inner, "jaxpr", inner))


def sizes(jaxpr):
    """Sizes of all intermediate arrays of a program."""
    return (variable.aval.size for equation in equations(jaxpr) for variable in equation.outvars)


@cases
def test_the_memory_is_never_tiled(case):
    """No array of a step has K times the size of the memory's largest leaf (long sources, few steps, a wide beam)."""
    s, beam, length = subject(case), 16, 64
    step, *arguments = decoding_step(s.model, s.params, jax.ShapeDtypeStruct((B, length), np.int32), beam, 2)
    program = jax.make_jaxpr(step)(*arguments)
    largest = max(leaf.size for leaf in jax.tree.leaves(arguments[2]))
    if largest >= B * length:  # without attention there is nothing to tile
        assert max(sizes(program.jaxpr)) < beam * largest, "a step copies the memory for every hypothesis"


@over(*float32)
def test_every_parameter_is_trained(case, compute):
    """Gradients with dropout on: finite, float32, and none is zero throughout."""
    s = subject(case, compute)
    source, target_in = inputs()

    def loss(params):
        features = s.model.features(params, (source, target_in), row_keys(0))
        return -jax.nn.log_softmax(s.model.head(params, features))[..., 5].mean()

    for path, gradient in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(s.params)):
        name = jax.tree_util.keystr(path)
        assert gradient.dtype == np.float32 and np.isfinite(gradient).all(), name
        assert np.abs(gradient).max() > 0, f"{name} has no gradient: it is not used"


@cases
def test_parameters_are_counted_without_allocating_them(case):
    s = subject(case)
    assert parameter_count(s.model) == sum(leaf.size for leaf in jax.tree.leaves(s.params))
    assert build(CASES[case], SOURCE_SIZE, TARGET_SIZE) is s.model, "equal configurations must share one model"


@pytest.mark.parametrize("compute", TOLERANCE)
@pytest.mark.parametrize(("into", "out"), [(7, 4), (4, 7), (5, 5)])
def test_products_have_the_gradients_that_jax_finds(into, out, compute):
    """They only say which factor comes first; whichever that is, over any position axes, in the types of JAX's own."""
    types = ACTIVATION_TYPES[compute], OPERAND_TYPES[compute], ACTIVATION_TYPES[compute]
    x, kernel, pulled = (
        jax.random.normal(jax.random.key(place), shape).astype(types[place])
        for place, shape in enumerate([(2, 3, into), (into, out), (2, 3, out)])
    )

    def logits(x, kernel):
        return vocabulary_logits(x, kernel.T, None, compute)

    plain = {product: lambda x, kernel: x @ kernel.astype(x.dtype)}
    plain[logits] = lambda x, kernel: jnp.einsum("abi,io->abo", x, kernel, preferred_element_type=jnp.float32)
    for ours, theirs in plain.items():
        (found, pull), (expected, pull_theirs) = (jax.vjp(function, x, kernel) for function in (ours, theirs))
        given = pulled.astype(found.dtype)
        for one, other in zip((found, *pull(given)), (expected, *pull_theirs(given)), strict=True):
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            pair = (np.asarray(leaf, np.float64) for leaf in (one, other))
            np.testing.assert_allclose(*pair, atol=TOLERANCE[compute], rtol=TOLERANCE[compute], err_msg=str(ours))


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.999])
def test_dropout_is_unbiased(rate):
    x = jax.numpy.ones((4, 101, 251))  # an odd number of elements a row
    y = np.asarray(jax.jit(dropout, static_argnums=1)(x, rate, row_keys(3, 4)))
    kept = 1 - round(rate * LEVELS) / LEVELS
    np.testing.assert_allclose(np.unique(y), [0, 1 / kept], rtol=1e-6)
    deviation = np.sqrt((1 - kept) / kept / x[0].size)
    assert np.abs(y.mean(axis=(1, 2)) - 1).max() < 5 * deviation
    assert all((y[0] != y[row]).any() for row in range(1, 4)), "rows with unequal keys share a mask"
    halves = (y[:, :, 0:-1:2] != 0) & (y[:, :, 1::2] != 0)  # both halves of one 32-bit draw
    assert abs(halves.mean() - kept**2) < 6 * np.sqrt(kept**2 / halves.size)


def test_dropout_without_keys_or_rate_is_the_identity():
    x = jax.numpy.ones((2, 3))
    assert dropout(x, 0.5, None) is x and dropout(x, 0.0, row_keys(0, 2)) is x
    assert fold_keys(None, 3) is None


@pytest.mark.parametrize(
    "config, said",
    [
        (LSTMConfig(layers=0), "layers is 0"),
        (LSTMConfig(size=0), "size is 0"),
        (LSTMConfig(dropout=-0.1), "dropout is -0.1"),
        (LSTMConfig(dropout=1.0), "dropout is 1.0"),
        (TransformerConfig(heads=0), "heads is 0"),
        (SequenceLSTMConfig(layers=-1), "layers is -1"),
        (SequenceTransformerConfig(heads=0), "heads is 0"),
    ],
)
def test_numbers_that_are_no_model_are_said(config, said):
    with pytest.raises(UserError, match=said):
        build(config, 11, 11)


def test_programs_of_64_bits_are_refused_by_name():
    with jax.enable_x64(True), pytest.raises(UserError, match="JAX_ENABLE_X64 is on"):
        build(LSTMConfig(layers=3, size=5), 11, 11)


def test_a_norm_has_the_gradients_that_jax_finds():
    """Also far from zero."""
    x, scale, bias, pulled = (
        jax.random.normal(jax.random.key(place), shape)
        for place, shape in enumerate([(2, 3, 7), (7,), (7,), (2, 3, 7)])
    )

    def plain(x, scale, bias):
        mean = x.mean(-1, keepdims=True)
        return (x - mean) / jnp.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-5) * scale[None, None] + bias[
            None, None
        ]

    for far in (0.0, 30.0):
        (found, pull), (expected, pull_theirs) = (jax.vjp(f, x + far, scale, bias) for f in (normalised, plain))
        for one, other in zip((found, *pull(pulled)), (expected, *pull_theirs(pulled)), strict=True):
            np.testing.assert_allclose(one, other, atol=2e-5)


def test_gelu_is_that_of_jax_with_its_gradient():
    x, theirs = jnp.linspace(-12, 12, 997), functools.partial(jax.nn.gelu, approximate=False)
    (found, pull), (expected, pull_theirs) = (jax.vjp(function, x) for function in (gelu, theirs))
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_allclose(pull(jnp.ones_like(x))[0], pull_theirs(jnp.ones_like(x))[0], atol=2e-6)
