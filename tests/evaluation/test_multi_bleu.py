"""BLEU as the paper has it, beside a reimplementation of multi-bleu.perl: one loop a line, as that script has it."""

import math
import random
from collections import Counter

import pytest

from seqkd_jax.evaluation import metrics


def of_the_script(outputs, references):
    """The number that multi-bleu.perl prints, before it is rounded."""
    correct, total, own, theirs = [0] * 5, [0] * 5, 0, 0
    for output, reference in zip(outputs, references, strict=True):
        words, wanted = output.split(), reference.split()
        own, theirs = own + len(words), theirs + len(wanted)
        for order in range(1, 5):
            found, known = (
                Counter(tuple(line[place : place + order]) for place in range(len(line) - order + 1))
                for line in (words, wanted)
            )
            total[order] += sum(found.values())
            correct[order] += sum(min(count, known[ngram]) for ngram, count in found.items())
    if not own or not all(correct[1:]):
        return 0.0
    penalty = math.exp(1 - theirs / own) if own < theirs else 1.0
    return 100 * penalty * math.exp(sum(math.log(correct[order] / total[order]) for order in range(1, 5)) / 4)


def test_it_is_that_of_the_script_in_a_thousand_cases():
    """Also of short outputs, empty ones, and those without a match of four words, of which the script makes 0."""
    draw, zeros = random.Random(0), 0
    words = ["Ein", "ein", "Mann", ",", ".", "<unk>", "geht", "&quot;", "über", "a-b"]
    for _ in range(1000):
        count, references, outputs = draw.randint(1, 5), [], []
        for _ in range(count):
            reference = [draw.choice(words) for _ in range(draw.randint(1, 12))]
            kept = [draw.choice(words) if draw.random() < 0.25 else word for word in reference]
            references.append(" ".join(reference))
            outputs.append(" ".join(kept[: draw.randint(0, 14)] + draw.choices(words, k=draw.randint(0, 2))))
        wanted = of_the_script(outputs, references)
        zeros += wanted == 0
        assert metrics.multi_bleu(outputs, references) == pytest.approx(wanted, abs=1e-9)
    assert 50 < zeros < 950, "both kinds of cases are drawn"
