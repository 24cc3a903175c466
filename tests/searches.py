"""What the tests of the search share: sentences, requests, compiled decoders of the model of tiny.py, comparisons."""

from functools import cache

import jax
import numpy as np
from tiny import TINY

from seqkd_jax.decoding.search import DECODERS, Request
from seqkd_jax.types import EOS, PAD

ALONE = sorted(set(DECODERS) - {"speculative"})  # decoders that need no draft; that one: test_speculative.py
ROWS, WIDTH, STEPS = 6, 5, 9  # one shape for nearly all tests; what varies are values


@cache
def compiled(decoder, config, steps=STEPS, model=TINY, *slots):
    return jax.jit(DECODERS[decoder](model, config, steps, *slots))


def sources(seed, vocabulary, rows=ROWS):
    """Random sentences of ids that end with EOS, [B,S] padded on the right."""
    random = np.random.default_rng(seed)
    source = random.integers(EOS + 1, vocabulary, (rows, WIDTH)).astype(np.int32)
    for row, length in zip(source, random.integers(1, WIDTH + 1, rows), strict=True):
        row[length - 1 :] = PAD
        row[length - 1] = EOS
    return source


def limits(shortest, longest, rows=ROWS):
    return np.full(rows, shortest, np.int32), np.full(rows, longest, np.int32)


def request(source, shortest, longest, prefix=None):
    prefix = np.zeros((len(source), 0), np.int32) if prefix is None else prefix
    return Request(source, shortest, longest, prefix, np.zeros((len(source), 2), np.uint32))


def as_list(hypotheses, row):
    """The hypotheses of a sentence as the references write them; checks that slots are well formed."""
    found = []
    for tokens, score, log_prob, finished in zip(*(leaf[row] for leaf in hypotheses), strict=True):
        ids = tokens[tokens != PAD].tolist()
        assert (tokens[len(ids) :] == PAD).all(), f"PAD inside {tokens}"
        if score == -np.inf:
            assert not ids and not finished and log_prob == -np.inf, "an impossible slot has -inf and no tokens"
        else:
            assert bool(finished) == (ids[-1] == EOS) and EOS not in ids[:-1]
            found.append((ids, float(score), float(log_prob), bool(finished)))
    return found


def assert_same(found, expected, what):
    assert [f[0] for f in found] == [e[0] for e in expected], f"{what}: other hypotheses than the reference"
    assert [f[3] for f in found] == [e[3] for e in expected], f"{what}: other `finished`"
    np.testing.assert_allclose([f[1:3] for f in found], [e[1:3] for e in expected], rtol=3e-5, atol=3e-5, err_msg=what)
