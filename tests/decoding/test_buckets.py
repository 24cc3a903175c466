"""Batches: which program a group of sentences gets, and how many sentences each has."""

import pytest

from seqkd_jax.decoding.buckets import Shape, in_order


@pytest.mark.parametrize(
    ("shape", "count", "wanted"),
    [
        (Shape(512, 16, 32, 0, 64), 1, [(1, 1, 1)]),
        (Shape(512, 16, 32, 0, 64), 8, [(8, 8, 8)]),
        (Shape(512, 16, 32, 0, 64), 9, [(9, 512, 64)]),
        (Shape(512, 16, 32, 0, 64), 128, [(128, 512, 64)]),  # its slots are refilled once
        (Shape(512, 16, 32, 0, 64), 400, [(200, 512, 64), (200, 512, 64)]),  # for two devices
        (Shape(512, 16, 32, 0, 64), 1025, [(342, 512, 64), (342, 512, 64), (341, 512, 64)]),
        (Shape(128, 64, 104, 0, 16), 2, [(2, 8, 8)]),
        (Shape(96, 80, 124, 0, 12), 2, [(2, 96, 12)]),
        (Shape(48, 8, 16, 0, 6), 1, [(1, 48, 6)]),
        (Shape(64, 16, 32, 0, 64), 1, [(1, 64, 64)]),  # it does not refill slots
    ],
)
def test_few_sentences_do_not_pay_for_a_pool_and_batches_have_equal_size(shape, count, wanted):
    """(sentences, rows, slots) of each batch."""
    seen = []

    def run(given, batch, _):
        seen.append((len(batch), given.rows, given.slots))
        return ()

    assert len(list(in_order([[5]] * count, lambda ids: (len(ids),), lambda _: shape, run, 10_000))) == count
    assert seen == wanted
