"""Losses against float64 NumPy, against optax, and at their edges."""

import itertools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seqkd_jax.config import LossConfig
from seqkd_jax.losses import LOSSES, LossArguments, arguments_from, over_positions, top_k
from seqkd_jax.types import UserError

POSITIONS, V, K = (3, 4), 7, 3  # K: of a TopK
ARGUMENTS = [
    LossArguments(alpha=0.5, temperature=1.0, scale=1.0, label_smoothing=0.0),
    LossArguments(alpha=0.9, temperature=2.0, scale=4.0, label_smoothing=0.1),
    LossArguments(alpha=0.3, temperature=0.5, scale=1.0, label_smoothing=0.3),
    LossArguments(alpha=1.0, temperature=5.0, scale=0.04, label_smoothing=0.0),
]


@cache
def compiled(name: str, bars: bool = False, k: int = K):
    """(sum, weight sum), gradient by the student, gradient by the teacher's logits."""
    loss = LOSSES[name]
    lifted = over_positions(loss, bars)

    def of_logits(student, teacher, labels, weights, arguments):
        taught = top_k(teacher, k, arguments.temperature) if loss.top_k else teacher
        return lifted(student, taught, labels, weights, arguments)

    return jax.jit(jax.value_and_grad(of_logits, argnums=(0, 1), has_aux=True))


def run(name, student, teacher, labels, weights, arguments, bars=False, k=K):
    (total, weight), (by_student, by_teacher) = compiled(name, bars, k)(student, teacher, labels, weights, arguments)
    return float(total), float(weight), np.asarray(by_student), np.asarray(by_teacher)


def example(seed=0, spread=3.0):
    random = np.random.default_rng(seed)
    student, teacher = (random.normal(scale=spread, size=(*POSITIONS, V)).astype(np.float32) for _ in range(2))
    labels = random.integers(0, V, POSITIONS).astype(np.int32)
    weights = random.choice([0.0, 1.0, 0.25], POSITIONS).astype(np.float32)
    return student, teacher, labels, weights


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def nll(x, _, gold, arguments):
    return -(gold @ log_softmax(x)), np.exp(log_softmax(x)) - gold


def word_kd(x, y, gold, arguments):
    alpha, temperature, scale, _ = arguments
    log_p, log_p_t, q_t = log_softmax(x), log_softmax(x / temperature), np.exp(log_softmax(y / temperature))
    value = (1 - alpha) * -(gold @ log_p) + alpha * scale * -(q_t @ log_p_t)
    return value, (1 - alpha) * (np.exp(log_p) - gold) + alpha * scale / temperature * (np.exp(log_p_t) - q_t)


def word_kd_top_k(x, y, gold, arguments):
    """word_kd of two distributions in which all entries but the teacher's k best are one."""
    alpha, temperature, scale, _ = arguments
    p, q, best = (
        np.exp(log_softmax(x / temperature)),
        np.exp(log_softmax(y / temperature)),
        np.argsort(-y, kind="stable")[:K],
    )
    rest = np.setdiff1d(np.arange(len(x)), best)
    p_rest, log_p = p[rest].sum(), log_softmax(x / temperature)
    least = np.log(1e-37) + log_p.max()  # of the student's rest; see terms.LEAST
    log_p_rest = np.logaddexp.reduce(log_p[rest]) if len(rest) else -np.inf
    value, slope = -(q[best] @ log_p[best]), p.copy()
    slope[best] -= q[best]
    if len(rest):
        value -= q[rest].sum() * max(log_p_rest, least)
        slope[rest] -= q[rest].sum() * p[rest] / p_rest if log_p_rest > least else 0.0
    value = (1 - alpha) * -(gold @ log_softmax(x)) + alpha * scale * value
    return value, (1 - alpha) * (np.exp(log_softmax(x)) - gold) + alpha * scale / temperature * slope


def with_slope(measure):
    """A loss whose teacher's term is (log p, log q) -> its value and its slope by p, of which the gradient follows."""

    def loss(x, y, gold, arguments):
        alpha, temperature, scale, _ = arguments
        log_p, log_q = log_softmax(x / temperature), log_softmax(y / temperature)
        value, slope = measure(log_p, log_q)
        by_logits = np.exp(log_p) * (slope - np.exp(log_p) @ slope) / temperature
        hard, of_hard = nll(x, None, gold, arguments)
        return (1 - alpha) * hard + alpha * scale * value, (1 - alpha) * of_hard + alpha * scale * by_logits

    return loss


def reverse_kl(log_p, log_q):
    log_q = np.maximum(log_q, log_q.max() + np.log(1e-37))  # see terms.LEAST
    return np.exp(log_p) @ (log_p - log_q), log_p - log_q


def jensen_shannon(log_p, log_q):
    log_m = np.logaddexp(log_p, log_q) - np.log(2)
    return (np.exp(log_p) @ (log_p - log_m) + np.exp(log_q) @ (log_q - log_m)) / 2, (log_p - log_m) / 2


def total_variation(log_p, log_q):
    p, q = np.exp(log_p), np.exp(log_q)
    return abs(p - q).sum() / 2, np.sign(p - q) / 2


def top_1_ranking(log_p, log_q):
    """Its ranking, pair by pair."""
    p = np.exp(log_p)
    theirs, ours = (np.argsort(-log_probs, kind="stable")[:5] for log_probs in (log_q, log_p))
    value, slope = 0.0, np.zeros(len(p))
    for above, below in [*((theirs[0], t) for t in theirs), *itertools.product(theirs, ours)]:
        if log_q[above] > log_q[below] and log_p[below] > log_p[above]:
            value += p[below] - p[above]
            slope[below] += 1
            slope[above] -= 1
    return value, slope


def tie_kd(x, y, gold, arguments):
    """Word-KD and the ranking of the first entries."""
    whole, slope = word_kd(x, y, gold, arguments)
    ranking, of_ranking = with_slope(top_1_ranking)(x, y, gold, arguments)
    hard, of_hard = nll(x, None, gold, arguments)
    return whole + ranking - (1 - arguments.alpha) * hard, slope + of_ranking - (1 - arguments.alpha) * of_hard


# Of one position in float64: (student, teacher, gold distribution, arguments) -> value, gradient by the student.
REFERENCES = {
    "nll": nll,
    "word_kd": word_kd,
    "word_kd_top_k": word_kd_top_k,
    "reverse_kl": with_slope(reverse_kl),
    "jensen_shannon": with_slope(jensen_shannon),
    "total_variation": with_slope(total_variation),
    "tie_kd": tie_kd,
}


def reference(name, student, teacher, labels, weights, arguments):
    """Value and gradient in float64, written out position by position."""
    total, gradient = 0.0, np.zeros(student.shape)
    for place in np.ndindex(labels.shape):
        gold = np.full(student.shape[-1], arguments.label_smoothing / student.shape[-1])
        gold[labels[place]] += 1 - arguments.label_smoothing
        logits = student[place].astype(np.float64), teacher[place].astype(np.float64)
        value, slope = REFERENCES[name](*logits, gold, arguments)
        total += weights[place] * value
        gradient[place] = weights[place] * slope
    return total, gradient


def test_every_loss_has_a_reference():
    assert set(REFERENCES) == set(LOSSES), "add the loss's value and gradient, in float64, to REFERENCES above"


@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize("name", REFERENCES)
def test_value_and_gradient_are_the_float64_reference(name, arguments):
    for seed in range(3):
        data = example(seed)
        total, weight, by_student, by_teacher = run(name, *data, arguments)
        expected, gradient = reference(name, *data, arguments)
        np.testing.assert_allclose(total, expected, rtol=2e-6)
        np.testing.assert_allclose(by_student, gradient, rtol=2e-5, atol=2e-6)
        assert weight == data[3].sum()
        assert not by_teacher.any(), "the teacher is a constant: nothing may flow into it"


def test_numbers_worked_by_hand():
    """Two entries carry mass: student p = (1/4, 3/4), teacher q = (1/2, 1/2), gold is the second, alpha = 1/4."""
    student, teacher, labels, weights = one_position(label=1)
    student[..., :2] = [0.0, np.log(3.0)]
    teacher[..., :2] = 0.0
    total, weight, by_student, _ = run("word_kd", student, teacher, labels, weights, LossArguments(0.25, 1.0, 1.0, 0.0))
    gold, soft = np.log(4 / 3), 0.5 * np.log(4) + 0.5 * np.log(4 / 3)
    assert total == pytest.approx(0.75 * gold + 0.25 * soft, rel=1e-6)
    assert weight == 1.0
    expected = np.zeros_like(student)
    expected[1, 2, :2] = [0.125, -0.125]  # 3/4 (p - gold) + 1/4 (p - q) = 3/4 (1/4, -1/4) + 1/4 (-1/4, 1/4)
    np.testing.assert_allclose(by_student, expected, atol=1e-6)


def one_position(label):
    """Only position [1, 2] counts, and only the entries that the caller sets have mass."""
    student, teacher = (np.full((*POSITIONS, V), -1e4, np.float32) for _ in range(2))
    labels, weights = np.full(POSITIONS, label, np.int32), np.zeros(POSITIONS, np.float32)
    weights[1, 2] = 1.0
    return student, teacher, labels, weights


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_sister_functions_in_optax(arguments):
    student, teacher, labels, weights = example(4)
    nll, word_kd = in_optax(student, teacher, labels, weights, arguments)
    assert run("nll", *example(4), arguments)[0] == pytest.approx(float(nll), rel=2e-6)
    assert run("word_kd", *example(4), arguments)[0] == pytest.approx(float(word_kd), rel=2e-6)


@jax.jit
def in_optax(student, teacher, labels, weights, arguments):
    alpha, temperature, scale, smoothing = arguments
    gold = optax.softmax_cross_entropy(student, optax.smooth_labels(jax.nn.one_hot(labels, V), smoothing))
    q = jax.nn.softmax(teacher / temperature)
    kl = optax.kl_divergence(jax.nn.log_softmax(student / temperature), q)
    soft = kl - jnp.sum(q * jnp.log(q), axis=-1)  # cross-entropy = KL divergence + the teacher's entropy
    return jnp.sum(weights * gold), jnp.sum(weights * ((1 - alpha) * gold + alpha * scale * soft))


@pytest.mark.parametrize("name", LOSSES)
def test_alpha_zero_is_nll(name):
    """With label smoothing, which is the gold term's alone."""
    data, arguments = example(5), LossArguments(0.0, 3.0, 9.0, 0.2)
    assert run(name, *data, arguments)[0] == pytest.approx(run("nll", *data, arguments)[0], rel=1e-6)
    np.testing.assert_allclose(run(name, *data, arguments)[2], run("nll", *data, arguments)[2], atol=1e-7)


TAUGHT = [name for name, loss in LOSSES.items() if loss.needs_teacher]


@pytest.mark.parametrize("name", TAUGHT)
def test_label_smoothing_does_not_reach_the_teachers_term(name):
    rough, smooth = (LossArguments(1.0, 2.0, 4.0, mass) for mass in (0.0, 0.3))
    assert run(name, *example(5), rough)[0] == run(name, *example(5), smooth)[0]


@pytest.mark.parametrize("name", TAUGHT)
def test_a_student_that_is_its_teacher_learns_nothing_more(name):
    """The divergences are 0 there; cross-entropies are the teacher's entropy."""
    student, _, labels, weights = example(6)
    total, _, gradient, _ = run(name, student, student, labels, weights, LossArguments(1.0, 2.0, 4.0, 0.0))
    entropy = reference("word_kd", student, student, labels, weights, LossArguments(1.0, 2.0, 4.0, 0.0))[0]
    known = {"word_kd": entropy, "tie_kd": entropy, "word_kd_top_k": total}
    assert total == pytest.approx(known.get(name, 0.0), rel=1e-6, abs=1e-5)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


def test_of_all_entries_top_k_is_word_kd():
    for arguments in ARGUMENTS:
        whole, kept = (run(name, *example(12), arguments, k=V) for name in ("word_kd", "word_kd_top_k"))
        assert kept[0] == pytest.approx(whole[0], rel=1e-6)
        np.testing.assert_allclose(kept[2], whole[2], rtol=1e-5, atol=1e-6)


def test_a_certain_teacher_is_the_gold_label():
    student, _, labels, weights = example(6)
    teacher = (1e4 * np.eye(V)[labels]).astype(np.float32)
    arguments = LossArguments(1.0, 1.0, 1.0, 0.0)
    soft, hard = (run(name, student, teacher, labels, weights, arguments) for name in ("word_kd", "nll"))
    assert soft[0] == pytest.approx(hard[0], rel=1e-6)
    np.testing.assert_allclose(soft[2], hard[2], atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("never", [-np.inf, -1e9, "the least of the type"])
@pytest.mark.parametrize("name", REFERENCES)
def test_barred_entries_are_as_if_the_vocabulary_had_them_not(name, never, dtype):
    """The student bars two of nine; the teacher one of these, and one that the student can produce."""
    random, dtype = np.random.default_rng(3), jnp.dtype(dtype)
    student, teacher = (random.normal(scale=3, size=(*POSITIONS, V + 2)).astype(dtype) for _ in range(2))
    least = jnp.finfo(dtype).min if isinstance(never, str) else never
    with np.errstate(over="ignore"):  # -1e9 in float16 is -inf
        student[..., [0, 5]] = teacher[..., [5, 8]] = np.asarray(least).astype(dtype)
    kept = [entry for entry in range(V + 2) if entry not in (0, 5)]
    _, _, labels, weights = example(3)
    for arguments in ARGUMENTS:
        labelled = np.int32(kept)[labels], weights
        found, _, gradient, _ = run(name, student, teacher, *labelled, arguments, bars=True, k=V + 2)
        without = [np.maximum(logits[..., kept].astype(np.float64), -1e9) for logits in (student, teacher)]
        if dtype == jnp.float16:  # its least is a number like others to NumPy
            without[1][..., -1] = -1e9
        known = "word_kd" if LOSSES[name].top_k else name  # of all entries
        expected, slope = reference(known, *without, labels, weights, arguments)
        assert found == pytest.approx(expected, rel=5e-6)
        close = {"rtol": 1e-7, "atol": 2e-6} if dtype == "float32" else {"rtol": 1e-2, "atol": 2e-2}
        np.testing.assert_allclose(gradient[..., kept].astype(float), slope, **close)
        assert not gradient[..., [0, 5]].any(), "a barred entry must stay as it is"


@pytest.mark.parametrize("name", LOSSES)
def test_where_nothing_is_barred_looking_for_it_changes_nothing(name):
    for arguments in ARGUMENTS:
        plain, masked = (run(name, *example(3), arguments, bars=bars) for bars in (False, True))
        assert masked[0] == pytest.approx(plain[0], rel=1e-6)
        np.testing.assert_allclose(masked[2], plain[2], atol=1e-6)


@pytest.mark.parametrize("bars", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_weight_zero_counts_nothing_whatever_stands_there(name, bars):
    student, teacher, labels, weights = example(7)
    clean = run(name, student, teacher, labels, weights, ARGUMENTS[1], bars)
    assert (weights == 0).any()
    for rubbish in (np.inf, np.nan, 3e38):
        student[weights == 0] = teacher[weights == 0] = rubbish
        dirty = run(name, student, teacher, labels, weights, ARGUMENTS[1], bars)
        assert dirty[:2] == clean[:2], f"{rubbish} under weight 0 changed the sum"
        np.testing.assert_array_equal(dirty[2], clean[2], err_msg=f"{rubbish} under weight 0 reached the gradient")


@pytest.mark.parametrize("name", REFERENCES)
def test_extreme_logits_stay_finite_and_exact(name):
    student, teacher, labels, weights = example(8)
    for offset, spread in ((1e4, 1.0), (-1e4, 1.0), (0.0, 1e4), (0.0, 1e30), (1e30, 1.0)):
        data = (student * spread + offset).astype(np.float32), (teacher * spread - offset).astype(np.float32)
        for arguments in ARGUMENTS:
            total, _, gradient, _ = run(name, *data, labels, weights, arguments)
            expected, slope = reference(name, *data, labels, weights, arguments)
            np.testing.assert_allclose(total, expected, rtol=1e-5, atol=1e-9, err_msg=f"logits {offset} + {spread} x")
            np.testing.assert_allclose(gradient, slope, rtol=2e-4, atol=1e-5, err_msg=f"logits {offset} + {spread} x")


def test_bfloat16_logits_are_cast_before_the_loss():
    student, teacher, labels, weights = example(9)
    half = [np.asarray(logits, jnp.bfloat16) for logits in (student, teacher)]
    total, _, gradient, _ = run("word_kd", *half, labels, weights, ARGUMENTS[1])
    expected, slope = reference(
        "word_kd", *[logits.astype(np.float32) for logits in half], labels, weights, ARGUMENTS[1]
    )
    assert total == pytest.approx(expected, rel=2e-6), "the sum must be formed in float32"
    np.testing.assert_allclose(gradient.astype(np.float32), slope, rtol=1e-2, atol=1e-4)
    assert gradient.dtype == jnp.bfloat16


@pytest.mark.parametrize("convention, power", [("hinton", 2), ("none", 0), ("inverse", -2)])
def test_temperature_conventions(convention, power):
    """The teacher's gradient is T^power / T (p_T - q_T); under `hinton` it keeps its size (Hinton et al. 2015)."""
    data = example(10, spread=1.0)
    for temperature in (1.0, 2.0, 50.0):
        config = LossConfig("word_kd", alpha=1.0, temperature=temperature, temperature_scaling=convention)
        arguments = arguments_from(config)
        assert arguments.scale == pytest.approx(temperature**power)
        _, _, gradient, _ = run("word_kd", *data, arguments)
        student, teacher, _, weights = (array.astype(np.float64) for array in data)
        p, q = (np.exp(log_softmax(logits / temperature)) for logits in (student, teacher))
        np.testing.assert_allclose(
            gradient, weights[..., None] * temperature ** (power - 1) * (p - q), rtol=1e-3, atol=1e-6 * arguments.scale
        )
    if convention == "hinton":  # the limit of large T: differences of centred logits / V
        centred = student - student.mean(-1, keepdims=True) - teacher + teacher.mean(-1, keepdims=True)
        np.testing.assert_allclose(gradient, weights[..., None] * centred / V, atol=0.02)


def test_new_settings_do_not_compile_again():
    data = example(11)
    run("word_kd", *data, ARGUMENTS[0])
    before = compiled("word_kd")._cache_size()
    for arguments in ARGUMENTS:
        run("word_kd", *data, arguments)
    assert compiled("word_kd")._cache_size() == before, "alpha, T, scale and smoothing must be traced"


def test_one_position_axis_and_no_teacher():
    student, _, labels, weights = example(13)
    total, weight = jax.jit(over_positions(LOSSES["nll"]))(student[0], None, labels[0], weights[0], ARGUMENTS[0])
    expected, _ = reference("nll", student[:1], student[:1], labels[:1], weights[:1], ARGUMENTS[0])
    assert (float(total), float(weight)) == (pytest.approx(expected, rel=2e-6), weights[0].sum())


def test_a_missing_teacher_is_named():
    student, _, labels, weights = example()
    with pytest.raises(UserError, match="word_kd.*teacher"):
        jax.jit(over_positions(LOSSES["word_kd"]))(student, None, labels, weights, ARGUMENTS[0])


@pytest.mark.parametrize(
    "field, value",
    [("alpha", -0.1), ("alpha", 1.5), ("temperature", 0.0), ("temperature", float("nan")), ("label_smoothing", 1.0)],
)
def test_settings_out_of_range_are_named(field, value):
    with pytest.raises(UserError, match=f"{field} is {value}"):
        LossConfig(**{field: value}).validate()
