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
    live: ModelConfig | None = None  # a teacher that runs in every update; the student learns from it and from labels
    top_k: int = 0  # entries that are kept of that teacher instead
    target: float | None = None  # how many times as fast as PyTorch an update is to be

    @property
    def translates(self) -> bool:
        """It reads a source, and predicts a target."""
        return not isinstance(self.model, SequenceTransformerConfig)


LANGUAGE_MODEL = SequenceTransformerConfig(
    6, 192, heads=6, feed_forward=768, reads="every", tied=True,
    dropout=0.0, embedding_dropout=0.0, attention_dropout=0.0,
)  # fmt: skip
STUDENT = TransformerConfig(3, 3, 256, dropout=0.0)
SUBJECTS = {
    "lstm": Subject(
        "LSTM 2×512 with attention and input feeding, 8,000 entries",
        LSTMConfig(2, 512, dropout=0.0), 8000, rows=64, steps=20, target=1.3,
    ),
    "transformer": Subject(
        "Transformer 3+3×256, 8,000 entries", STUDENT, 8000, rows=64, steps=20, target=1.0
    ),
    "language-model": Subject(
        "language model, Transformer 6×192, 9,925 words", LANGUAGE_MODEL, 9925, rows=64, steps=24, target=1.0
    ),
    "word-kd": Subject(
        "the same, taught word by word by an LSTM of width 256", LANGUAGE_MODEL, 9925, rows=64, steps=24, teacher=256
    ),
}  # fmt: skip
# Of one student and its teacher: what Word-KD costs beside likelihood.
TAUGHT = Subject(
    "Transformer 3+3×256 taught by a Transformer 3+3×512, 8,000 entries", STUDENT, 8000, rows=64, steps=20,
    live=TransformerConfig(3, 3, 512, heads=8, feed_forward=2048, dropout=0.0), top_k=16,
)  # fmt: skip
# Compiled, not run: the memory of head and loss.
LARGE = TAUGHT._replace(
    about="the same with 32,000 entries, 128 sentences of 32 positions", entries=32_000, rows=128, steps=32
)


def tiny(subject: Subject) -> Subject:
    """The same in a size that measures nothing."""
    small = {
        LSTMConfig: {"layers": 2, "size": 8},
        TransformerConfig: {"encoder_layers": 1, "decoder_layers": 2, "width": 8, "heads": 2, "feed_forward": 16},
        SequenceTransformerConfig: {"layers": 2, "width": 8, "heads": 2, "feed_forward": 16},
    }
    model, live = (config and replace(config, **small[type(config)]) for config in (subject.model, subject.live))
    assert model is not None
    teacher, top_k = 8 if subject.teacher else 0, min(subject.top_k, 3)
    return subject._replace(model=model, live=live, entries=50, rows=3, steps=5, teacher=teacher, top_k=top_k)


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
