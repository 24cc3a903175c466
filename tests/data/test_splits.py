"""Validation pairs held out by content, and the warning of splits that overlap."""

import random

import numpy as np
import pytest

from seqkd_jax.data.corpus import Corpus
from seqkd_jax.data.splits import hold_out, warn_of_overlap
from seqkd_jax.types import UserError


def test_hold_out_is_a_seeded_part():
    whole = Corpus([str(i) for i in range(20)], [f"t{i}" for i in range(20)], [float(i) for i in range(20)], "c")
    rest, held = hold_out(whole, 5, seed=1)
    assert (len(rest.sources), len(held.sources)) == (15, 5)
    assert sorted(rest.sources + held.sources, key=int) == whole.sources
    for part in (rest, held):
        assert part.targets == [f"t{s}" for s in part.sources] and part.weights == [float(s) for s in part.sources]
        assert part.sources == sorted(part.sources, key=int)
    assert hold_out(whole, 5, seed=1)[1] == held != hold_out(whole, 5, seed=2)[1]
    for count in (0, 20):
        with pytest.raises(UserError, match="hold out"):
            hold_out(whole, count)


def made(*pairs):
    return Corpus([source for source, _ in pairs], [target for _, target in pairs], None, "c")


def parts(corpus, count, seed=0):
    """What `hold_out` gives as sets of pairs, after checking that no line is on both sides."""
    rest, held = hold_out(corpus, count, seed)
    for side in (0, 1):
        shared = {" ".join(line.split()) for line in rest[side]} & {" ".join(line.split()) for line in held[side]}
        assert not shared - {""}, shared
    return rest, held


def test_no_line_is_on_both_sides(capfd):
    """Repeated pairs, several translations of a source, several sources of a translation, and chains of these."""
    repeated = made(*[(f"the lamp {i}", f"die Lampe {i}") for i in range(50)] * 5)
    rest, held = parts(repeated, 50)
    assert len(held.sources) == 50 and len(rest.sources) == 200
    assert capfd.readouterr().err == (
        "c: 50 of 250 pairs are held out, by content: no source and no target is on both sides\n"
    )
    chains = made(*(pair for i in range(9) for pair in [(f"a{i}", f"x{i}"), (f"b{i}", f"x{i}"), (f"b{i}", f"y{i}")]))
    rest, held = parts(chains, 4)
    assert len(held.sources) == 3 and len(rest.sources) == 24
    assert "3 of 27 pairs (4 were asked for) are held out" in capfd.readouterr().err


@pytest.mark.parametrize("seed", range(20))
def test_no_line_is_on_both_sides_of_random_corpora(seed):
    draw = random.Random(seed)
    lines = draw.choice([5, 20, 100, 1000])
    pairs = [(f"s{draw.randrange(lines)}", f" t {draw.randrange(lines)}") for _ in range(100)]
    pairs += [("", "t 1"), ("s1", " ")]
    try:
        rest, held = parts(made(*pairs), 10, seed)
    except UserError as error:
        assert "so that no source and no target is on both sides" in str(error) and lines == 5
        return
    assert 1 <= len(held.sources) <= 10 and rest.sources
    assert all(source.strip() and target.strip() for source, target in zip(held.sources, held.targets, strict=True))


def test_a_frequent_line_stays_in_training():
    """Half of the corpus is one target: that half is not held out, and the number is as asked for."""
    pairs = [(f"indeed {i}", "Ja.") for i in range(500)] + [(f"sentence {i}", f"Satz {i}") for i in range(500)]
    rest, held = parts(made(*pairs), 100)
    assert len(held.sources) == 100 and len(rest.sources) == 900 and "Ja." not in held.targets


def test_where_all_pairs_hang_together_some_are_left_out(capfd):
    """Every line is like its neighbours': the rarest are held out, and what is like them is in neither part."""
    ring = made(*(pair for i in range(100) for pair in [(f"s{i}", f"t{i}"), (f"s{i}", f"t{(i + 1) % 100}")]))
    rest, held = parts(ring, 10)
    assert len(held.sources) == 10 and 150 < len(rest.sources) < 190
    assert parts(ring, 10)[1] == held != parts(ring, 10, seed=1)[1]
    said = capfd.readouterr().err.splitlines()[0]
    assert "10 of 200 pairs are held out, by content" in said
    assert f"; {190 - len(rest.sources)} that share a line with them are left out of training" in said
    with pytest.raises(UserError, match="c: cannot hold out 3 of 30 pairs so that no source and no target is on both"):
        hold_out(made(*((f"s{i}", "Ja.") for i in range(30))), 3)


def test_the_same_line_is_one_with_the_same_words():
    """White space does not count, case does."""
    spaced = made(("a  b ", "x"), ("a b", "y"), ("A b", "z"), ("c", "u"))
    assert {tuple(sorted(parts(spaced, 1, seed)[1].sources)) for seed in range(20)} == {("A b",), ("c",)}


def test_what_has_no_line_twice_is_held_out_as_ever():
    """As version 0.2 did: runs on such a corpus go on."""
    whole = made(*((f"s{i}", f"t{i}") for i in range(50)))
    chosen = np.sort(np.random.default_rng(3).permutation(50)[:7])
    assert hold_out(whole, 7, 3)[1].sources == [f"s{i}" for i in chosen]


def test_an_overlap_is_told_with_its_share(capfd):
    training = made(("a", "x"), ("b  b", "y"), ("c", "z"), ("", ""))
    warn_of_overlap(made(("d", "x"), ("C", "z"), ("", "")), training)
    assert not capfd.readouterr().err
    warn_of_overlap(made(("a", "x"), ("b b ", "other"), ("d", "u"), ("b b", "y")), training)
    said = "c: 3 of its 4 sources (75.0%) are also in training, 2 (50.0%) with the same target: what is measured"
    assert capfd.readouterr().err.startswith(said)
