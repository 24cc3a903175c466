"""The table of what each hypothesis reads in the caches, against lists of what it has read."""

import jax
import numpy as np

from seqkd_jax.decoding.search.past import extended, reordered, unwritten

ROWS, BEAM, STEPS = 3, 2, 6


def test_each_hypothesis_reads_what_its_ancestors_wrote_and_nothing_else():
    """Sentences of any length up to STEPS follow each other in the slots; STEPS places are enough."""
    random, lineage, step = np.random.default_rng(0), unwritten(ROWS, BEAM, STEPS), jax.jit(extended)
    pasts = [[[] for _ in range(BEAM)] for _ in range(ROWS)]  # the entries of each hypothesis
    entries = np.full((ROWS, STEPS, BEAM), -1)  # what was written at each place
    ages, most = np.zeros(ROWS, int), []
    for number in range(60):
        lives = np.array([bool(random.integers(5)) or age == 0 for age in ages])
        lineage, past = step(lineage, lives)
        place, used, own = jax.device_get(past)
        written = number * 100 + np.arange(ROWS * BEAM).reshape(ROWS, BEAM)
        entries[:, place] = written
        for row in range(ROWS):
            for k in range(BEAM):
                pasts[row][k] = [*pasts[row][k], written[row, k]]
                if lives[row]:
                    assert sorted(entries[row][own[row, k]]) == pasts[row][k], f"step {number}, row {row}, {k}"
                    assert not own[row, k, used:].any() and place < used
        most.append(used <= max(age for age, one in zip(ages, lives, strict=True) if one) + 1 if lives.any() else True)
        parents = random.integers(0, BEAM, (ROWS, BEAM))
        lineage = lineage._replace(ancestors=reordered(lineage.ancestors, parents))
        pasts = [[pasts[row][parent] for parent in parents[row]] for row in range(ROWS)]
        ages += 1
        again = (ages == STEPS) | ~lives  # the slot is refilled
        lineage = lineage._replace(began=np.where(again, lineage.step, lineage.began).astype(np.int32))
        for row in np.flatnonzero(again):
            pasts[row], ages[row] = [[] for _ in range(BEAM)], 0
    assert np.mean(most) > 0.5, "mostly only as many places are in use as the oldest sentence has tokens"
