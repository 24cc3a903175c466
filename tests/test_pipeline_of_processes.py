"""The whole method by several processes of several devices: train, distil, train the student, evaluate."""

import processes
import pytest

from seqkd_jax import checkpoint
from seqkd_jax.data import corpus
from seqkd_jax.utils import files

CORPUS = ["--corpus.path", "corpus"]
TRAIN = ["--batch.tokens", 1024, "--batch.buckets", 2, "--max-steps", 60, "--validate-every", 30, "--validate-bleu"]
TRAIN += ["--optimiser.schedule", "constant", "--optimiser.warmup-steps", 0, "--optimiser.learning-rate", 0.01]
STEPS = (
    ["train", *CORPUS, *TRAIN, "--parts", 4, "--vocab.size", 100, "--lstm.layers", 2, "--lstm.size", 64]
    + ["--out", "teacher"],
    ["distill", *CORPUS, "--checkpoint", "teacher/best", "--beam", 5, "--out", "distilled"],
    ["train", *CORPUS, *TRAIN, "--parts", 4, "--train-on", "distilled", "--vocabulary", "teacher/best"]
    + ["--lstm.layers", 1, "--lstm.size", 32, "--out", "student"],
    ["evaluate", *CORPUS, "--checkpoint", "student/best", "--out", "evaluation"],
)


def pipeline(directory, count, devices):
    """Make it in `directory`, by so many processes of so many devices."""
    directory.mkdir()
    for split, number in (("train", 400), ("valid", 40), ("test", 40)):
        pairs = corpus.toy_pairs(number, split, 1)
        for language, lines in (("en", pairs.sources), ("de", pairs.targets)):
            files.write_text(directory / "corpus" / f"{split}.{language}", "".join(f"{line}\n" for line in lines))
    start = f"import os; os.chdir({str(directory)!r}); from seqkd_jax.cli.main import main; main()"
    for step in STEPS:
        each = [["-c", start, *step, *own] for own in (processes.options(count) if count > 1 else [[]])]
        with processes.commands(each, devices) as started:
            for ended in processes.results(started, 600):
                assert ended.status == 0, (step[0], ended.err)


@pytest.mark.slow
def test_two_processes_of_two_devices_are_one_of_one(tmp_path):
    pipeline(tmp_path / "one", 1, 1)
    pipeline(tmp_path / "four", 2, 2)
    one, four = tmp_path / "one", tmp_path / "four"
    for model in ("teacher", "student"):
        hashes = [checkpoint.read_record(made / model / "best")["params_sha256"] for made in (one, four)]
        assert hashes[0] == hashes[1], f"the {model}s differ: an update with --parts depends on the devices"
    corpora = [contents(made / "distilled") for made in (one, four)]
    assert corpora[0] == corpora[1] != {}, "the same teacher distilled another corpus"
    for beam in ("beam1.txt", "beam5.txt"):
        assert (one / "evaluation" / beam).read_bytes() == (four / "evaluation" / beam).read_bytes()
    (words, numbers), (other_words, other_numbers) = (measures(made / "evaluation") for made in (one, four))
    assert words == other_words and numbers == pytest.approx(other_numbers, rel=1e-6)


def contents(directory):
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def measures(directory):
    """What is no number, and the numbers, without times. Scores are equal up to their last bits: a sentence has other
    neighbours in a batch.
    """
    found = {name: of for name, of in files.read_json(directory / "results.json").items() if "second" not in name}
    numbers = {name: of for name, of in found.items() if isinstance(of, int | float)}
    return {name: of for name, of in found.items() if name not in numbers}, numbers
