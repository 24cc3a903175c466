"""Sequence-level distillation (Kim & Rush 2016) of two text files, with the public API only.

    python examples/distil_two_text_files.py

The script writes a corpus of the toy language to two text files, one sentence a line, and from there on does what it
would do with yours: hold pairs out for validation, train a teacher, write the teacher's translations of the training
sources, train a student on them and another one on the original text, and compare both. Two minutes of training show
the direction of the effect; `make demo` trains on seven times as many pairs and shows its size.
It writes to runs/examples/distil, and continues there when it is run again.
"""

import argparse
from pathlib import Path

import seqkd_jax as kd
from seqkd_jax.data import toy  # for the two files alone


def sample(count, split):
    """Sentence pairs of the toy language with sources of at most 15 words: one width, so few programs to compile."""
    pairs = toy.sample_pairs(0, 2 * count, split)
    return [pair for pair in pairs if len(pair.source.split()) <= 15][:count]


def main():
    """Write the two files, train and distil; print BLEU of teacher, baseline and student."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/examples/distil"), help="directory to write")
    parser.add_argument("--pairs", type=int, default=3000, help="sentence pairs in the two files")
    parser.add_argument("--tested", type=int, default=200, help="test sentences")
    parser.add_argument("--epochs", type=int, default=4, help="of the students; the teacher takes twice as many")
    parser.add_argument("--sizes", type=int, nargs=2, default=(96, 32), help="width of teacher and students")
    given = parser.parse_args()

    given.out.mkdir(parents=True, exist_ok=True)
    files = {"en": given.out / "train.en", "de": given.out / "train.de"}
    for path, lines in zip(files.values(), toy.lines(sample(given.pairs, "train")), strict=True):
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    # From here on as with your own files.
    corpus = kd.load_split(kd.CorpusConfig(source_file=str(files["en"]), target_file=str(files["de"])), "train")
    train, valid = kd.hold_out(corpus, given.pairs // 20)
    test = kd.Corpus(*toy.lines(sample(given.tested, "test")), None, "test set")
    words = kd.VocabularyConfig(kind="words", size=400, tokenizer="pretokenised")  # for raw text leave this out
    vocabularies = kd.learn_vocabulary(train, words)

    large, small = (kd.LSTMConfig(layers=1, size=size, dropout=0.0, init_scale=0.4) for size in given.sizes)

    def config(rate, epochs):
        optimiser = kd.OptimiserConfig(learning_rate=rate, schedule="cosine", warmup_steps=50)
        batch = kd.BatchConfig(tokens=0, sentences=32, buckets=1)
        return kd.TrainConfig(epochs=epochs, batch=batch, optimiser=optimiser)

    settings = {"config": config(1e-2, 2 * given.epochs), "vocabularies": vocabularies}
    run = kd.train(train, valid, given.out / "teacher", model=large, **settings)
    teacher = kd.load(run.last)
    distilled = kd.distill(teacher, train.sources, given.out / "seq_kd", references=train.targets, beam=5)

    settings["config"] = config(2e-2, given.epochs)
    baseline = kd.train(train, valid, given.out / "baseline", model=small, **settings)
    student = kd.train(distilled.corpus, valid, given.out / "student", model=small, **settings)

    print(f"{'':10} BLEU, greedily  p(mode)")
    for name, path in {"teacher": run.last, "baseline": baseline.last, "Seq-KD": student.last}.items():
        found = kd.evaluate(kd.load(path), test, beam=1, repetitions=0).results
        print(f"{name:10} {found['bleu_beam1']:14.1f}  {found['mode_probability']:7.1%}")
    print()
    for translation in kd.load(student.last).translate(test.sources[:3], beam=1):
        print(f"{translation.source}  ->  {translation.text}")


if __name__ == "__main__":
    main()
