"""A Transformer learns subject-verb agreement from an LSTM (Abnar et al. 2020), on sentences of the toy language.

    python examples/classifier_taught_by_an_lstm.py

A classifier reads a sentence up to its verb and says whether the verb is singular or plural. An LSTM is trained on the
labels; so is a Transformer; another Transformer learns from the LSTM's distributions alone. For each the script prints
its accuracy on test sentences, its accuracy on those in which a noun of the other number stands between subject and
verb, and how often it decides as the LSTM does. The three hundred sentences are few on purpose: with more, all are
right. The taught Transformer decides as its teacher does, where that is wrong too. Under a minute on two CPU cores. It
writes to runs/examples/classifier, and continues there when it is run again.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from seqkd_jax import checkpoint
from seqkd_jax.config import (
    BatchConfig,
    LossConfig,
    OptimiserConfig,
    SequenceLSTMConfig,
    SequenceTransformerConfig,
    TrainConfig,
    VocabularyConfig,
)
from seqkd_jax.data import examples, toy, vocabulary
from seqkd_jax.training.trainer import Run, train_model
from seqkd_jax.types import EOS, PAD

LABELS = ("singular", "plural")


def before_the_verb(example):
    """The words of a toy sentence before its main verb, whose number they decide."""
    return " ".join(example.source.split()[: example.verb_index])


def main():
    """Train an LSTM, a Transformer, and a Transformer taught by the LSTM; print how they decide."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/examples/classifier"), help="directory for checkpoints")
    parser.add_argument("--sentences", type=int, default=300, help="training sentences")
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()

    splits = {"train": given.sentences, "valid": 500, "test": 2000}
    sentences = {split: toy.sample_pairs(0, count, split) for split, count in splits.items()}
    words = VocabularyConfig(kind="words", size=400, tokenizer="pretokenised")
    texts = [before_the_verb(example) for example in sentences["train"]]
    known = vocabulary.labels(vocabulary.learn(texts, texts, words), LABELS)

    def encoded(split):
        ids = [np.array([*known.source.encode(before_the_verb(example)), EOS]) for example in sentences[split]]
        label = [known.target.encode(LABELS[example.verb_plural])[0] for example in sentences[split]]
        return examples.classified(ids, label)

    data = {split: encoded(split) for split in splits}
    batch = BatchConfig(tokens=0, sentences=64, buckets=1)
    optimiser = OptimiserConfig(learning_rate=3e-3, schedule="cosine", warmup_steps=50, clip_norm=1.0)
    alone = TrainConfig(epochs=given.epochs, batch=batch, optimiser=optimiser, seed=1)
    # The teacher's distribution alone, at temperature 1, as in the paper; the label is in no loss.
    taught = replace(alone, loss=LossConfig("word_kd", alpha=1.0))
    lstm = SequenceLSTMConfig(layers=2, size=32, dropout=0.1, input_dropout=0.1)
    transformer = SequenceTransformerConfig(layers=2, width=32, feed_forward=128)

    def trained(model, config, name, teacher=None):
        run = Run(model, known, config, teacher=teacher)
        return train_model(run, data["train"], data["valid"], given.out / name, name).best

    teacher = trained(lstm, alone, "lstm")
    runs = {
        "LSTM": teacher,
        "Transformer": trained(transformer, alone, "transformer"),
        "LSTM -> Transformer": trained(transformer, taught, "lstm-to-transformer", teacher),
    }

    chosen = {name: decisions(checkpoint.load(directory), data["test"]) for name, directory in runs.items()}
    labels = np.array([row[0] for row in data["test"].targets])
    misled = np.array([example.attractors > 0 for example in sentences["test"]])
    print(f"{'':20} accuracy  with attractors  decides as the LSTM")
    for name, classes in chosen.items():
        right, same = classes == labels, classes == chosen["LSTM"]
        print(f"{name:20} {right.mean():8.3f}  {right[misled].mean():15.3f}  {same.mean():19.3f}")


def decisions(classifier, test):
    """The class [N] that a classifier gives each test sentence."""
    ids = np.full((len(test.sources), max(map(len, test.sources))), PAD, np.int32)
    for row, source in zip(ids, test.sources, strict=True):
        row[: len(source)] = source
    model = classifier.model
    logits = jax.jit(lambda params, ids: model.head(params, model.features(params, ids, None)))(classifier.params, ids)
    return np.asarray(logits[:, 0].argmax(-1))


if __name__ == "__main__":
    main()
