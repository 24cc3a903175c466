"""The table of what each hypothesis reads in the caches, against lists of what it has read."""

import jax
import numpy as np

from seqkd_jax.decoding.search.past import extended, nothing_own, reordered

ROWS, BEAM, STEPS = 3, 2, 6


def test_each_hypothesis_reads_what_its_ancestors_wrote_and_nothing_else():
    """Sentences of any length up to STEPS follow each other in the slots; K entries a step are enough."""
    random, step = np.random.default_rng(0), jax.jit(extended)
    own = np.asarray(nothing_own(ROWS, BEAM, BEAM * STEPS))
    pasts = [[[] for _ in range(BEAM)] for _ in range(ROWS)]  # what each hypothesis has read
    entries = np.full((ROWS, BEAM * STEPS), -1)  # what was written
    ages = np.zeros(ROWS, int)
    for number in range(60):
        own, past = jax.device_get(step(own))
        written = number * 100 + np.arange(ROWS * BEAM).reshape(ROWS, BEAM)
        np.put_along_axis(entries, past.place, written, axis=1)
        in_use = 0
        for row in range(ROWS):
            for k in range(BEAM):
                pasts[row][k] = [*pasts[row][k], written[row, k]]
                found = entries[row][past.own[row, k]]
                assert sorted(found) == pasts[row][k], f"step {number}, row {row}, hypothesis {k} reads {found}"
            in_use = max(in_use, len(set(pasts[row][0]) | set(pasts[row][1])))
        assert not past.own[:, :, past.used :].any(), f"step {number}: an entry beyond those in use is read"
        assert past.place.max() < in_use + BEAM, f"step {number}: free entries are taken from the lowest"
        parents = random.integers(0, BEAM, (ROWS, BEAM))
        own = np.asarray(reordered(past.own, parents))
        pasts = [[pasts[row][parent] for parent in parents[row]] for row in range(ROWS)]
        ages += 1
        again = (ages == STEPS) | (random.random(ROWS) < 0.2)  # the slot is refilled
        own = own & ~again[:, None, None]
        for row in np.flatnonzero(again):
            pasts[row], ages[row] = [[] for _ in range(BEAM)], 0
