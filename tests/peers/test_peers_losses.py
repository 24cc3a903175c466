"""Losses beside PyTorch, whose gradient is that of the plain formula. Run by `make test-peers`."""

import jax
import numpy as np
import pytest

from seqkd_jax.losses import LOSSES, LossArguments, over_positions, top_k

pytestmark = pytest.mark.peers
POSITIONS, V = (4, 5), 23
ARGUMENTS = (LossArguments(0.5, 1.0, 1.0, 0.1), LossArguments(0.9, 2.0, 4.0, 0.0))


def ranking(p, q):
    """The first entries, pair by pair (Zhang et al. 2023)."""
    theirs, ours = q.topk(5).indices, p.topk(5).indices
    pairs = [(theirs[0], below) for below in theirs]
    pairs += [(above, below) for above in theirs for below in ours if q[above] > q[below]]
    return sum((p[below] - p[above]).clamp(min=0) for above, below in pairs)


# (torch, log p, log q) -> the teacher's term at one position
TERMS = {
    "word_kd": lambda torch, p, q: -(q.exp() * p).sum(),
    "word_kd_top_k": lambda torch, p, q: -(q.exp() * p).sum(),  # of all entries
    "reverse_kl": lambda torch, p, q: torch.nn.functional.kl_div(q, p, reduction="sum", log_target=True),
    "jensen_shannon": lambda torch, p, q: (
        sum(
            torch.nn.functional.kl_div(((p.exp() + q.exp()) / 2).log(), own, reduction="sum", log_target=True)
            for own in (p, q)
        )
        / 2
    ),
    "total_variation": lambda torch, p, q: (p.exp() - q.exp()).abs().sum() / 2,
    "tie_kd": lambda torch, p, q: -(q.exp() * p).sum() + ranking(p.exp(), q.exp()),
}


@pytest.mark.parametrize("name", TERMS)
def test_values_and_gradients_are_those_of_pytorch(name):
    torch = pytest.importorskip("torch")
    assert set(TERMS) == {name for name, loss in LOSSES.items() if loss.needs_teacher}
    random = np.random.default_rng(0)
    student, teacher = (random.normal(scale=2, size=(*POSITIONS, V)).astype(np.float32) for _ in range(2))
    labels, weights = random.integers(0, V, POSITIONS), random.choice([0.0, 0.5, 1.0], POSITIONS).astype(np.float32)
    for arguments in ARGUMENTS:
        alpha, temperature, scale, smoothing = arguments
        theirs, total = torch.tensor(student, dtype=torch.float64, requires_grad=True), 0.0
        for place in np.ndindex(POSITIONS):
            label = torch.tensor(labels[place])
            gold = torch.nn.functional.cross_entropy(theirs[place], label, label_smoothing=smoothing)
            wanted = torch.tensor(teacher[place], dtype=torch.float64)
            log_p, log_q = (torch.log_softmax(logits / temperature, -1) for logits in (theirs[place], wanted))
            term = TERMS[name](torch, log_p, log_q)
            total += float(weights[place]) * ((1 - alpha) * gold + alpha * scale * term)
        total.backward()
        taught = top_k(jax.numpy.asarray(teacher), V, temperature) if LOSSES[name].top_k else teacher
        of = jax.jit(jax.value_and_grad(over_positions(LOSSES[name]), has_aux=True))
        (found, _), gradient = of(student, taught, labels, weights, arguments)
        assert float(found) == pytest.approx(total.item(), rel=1e-5)
        np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=1e-4, atol=1e-6)
