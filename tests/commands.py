"""Commands run in the process of the tests, and a corpus and options that let them end in a moment."""

import numpy as np
import pytest

from seqkd_jax.cli import main

WORDS = ["red", "green", "blue", "black", "white"]
SMALL_MODEL = ["--lstm.layers", "1", "--lstm.size", "8"]
SMALL_RUN = ["--batch.buckets", "1", "--batch.tokens", "256", "--devices", "1", "--max-steps", "4"]
SMALL_RUN += ["--validate-every", "2"]
SEARCH = ["--beam", "2", "--max-length-a", "0", "--max-length-b", "6"]
WORD_VOCABULARY = ["--vocab.kind", "words", "--vocab.tokenizer", "pretokenised", "--vocab.no-joint"]


def write_corpus(directory):
    """Files train, valid and test of some English words and, in capitals, their German; returns the directory."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 60), ("valid", 8), ("test", 8)):
        lines = [" ".join(draw.choice(WORDS, size=draw.integers(2, 6))) for _ in range(count)]
        (directory / f"{split}.en").write_text("".join(f"{line}\n" for line in lines))
        (directory / f"{split}.de").write_text("".join(f"{line.upper()}\n" for line in lines))
    return directory


def seqkd(*arguments):
    """Run a command in this process; its exit code."""
    with pytest.raises(SystemExit) as caught:
        main.main([str(argument) for argument in arguments])
    return caught.value.code or 0


def fails(capfd, *arguments):
    """Run a command that must fail as the user's mistake; the one line it says."""
    capfd.readouterr()
    assert seqkd(*arguments) == 2
    said = capfd.readouterr().err.splitlines()
    assert len([line for line in said if line.startswith("seqkd: error: ")]) == 1, said
    assert not any("Traceback" in line for line in said)
    return said[-1]
