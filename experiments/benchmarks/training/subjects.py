"""What is trained: models of the studies' sizes, the batch, the loss; and tiny ones, to show that the command works."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from seqkd_jax.config import LSTMConfig, ModelConfig, SequenceTransformerConfig, TransformerConfig
from seqkd_jax.types import Batch


class Subject(NamedTuple):
    """One update: Adam, gradients clipped by their norm, no dropout (every library draws its masks differently)."""

    about: str
    model: ModelConfig
    entries: int  # of the vocabulary, or of each
    rows: int  # sentences
    steps: int  # positions of a sentence, of source and target alike; none of them padding
    teacher: int = 0  # width of the cached features of a teacher, whose distribution alone is learnt; 0: no teacher

    @property
    def translates(self) -> bool:
        """It reads a source, and predicts a target."""
        return not isinstance(self.model, SequenceTransformerConfig)


LANGUAGE_MODEL = SequenceTransformerConfig(
    6, 192, heads=6, feed_forward=768, reads="every", tied=True,
    dropout=0.0, embedding_dropout=0.0, attention_dropout=0.0,
)  # fmt: skip
SUBJECTS = {
    "lstm": Subject(
        "LSTM 2×512 with attention and input feeding, 8,000 entries",
        LSTMConfig(2, 512, dropout=0.0), 8000, rows=64, steps=20,
    ),
    "transformer": Subject(
        "Transformer 3+3×256, 8,000 entries", TransformerConfig(3, 3, 256, dropout=0.0), 8000, rows=64, steps=20
    ),
    "language-model": Subject(
        "language model, Transformer 6×192, 9,925 words", LANGUAGE_MODEL, 9925, rows=64, steps=24
    ),
    "word-kd": Subject(
        "the same, taught word by word by an LSTM of width 256", LANGUAGE_MODEL, 9925, rows=64, steps=24, teacher=256
    ),
}  # fmt: skip


def tiny(subject: Subject) -> Subject:
    """The same in a size that measures nothing."""
    small = {
        LSTMConfig: {"layers": 2, "size": 8},
        TransformerConfig: {"encoder_layers": 1, "decoder_layers": 2, "width": 8, "heads": 2, "feed_forward": 16},
        SequenceTransformerConfig: {"layers": 2, "width": 8, "heads": 2, "feed_forward": 16},
    }
    model = replace(subject.model, **small[type(subject.model)])
    return subject._replace(model=model, entries=50, rows=3, steps=5, teacher=8 if subject.teacher else 0)


def batch(subject: Subject, seed: int) -> Batch:
    """Random ids, and random features of a teacher."""
    draw, shape = np.random.default_rng(seed), (subject.rows, subject.steps)
    source, inputs, labels = (draw.integers(4, subject.entries, shape).astype(np.int32) for _ in range(3))
    features = draw.normal(size=(*shape, subject.teacher)).astype(np.float32) if subject.teacher else None
    return Batch((source, inputs) if subject.translates else inputs, labels, np.ones(shape, np.float32), features)


def teacher_kernel(subject: Subject, seed: int) -> np.ndarray:
    """The teacher's head [V,E], random, so that its distribution is neither even nor sharp."""
    draw = np.random.default_rng((seed, 1))
    return (draw.normal(size=(subject.entries, subject.teacher)) * 2 / subject.teacher**0.5).astype(np.float32)
