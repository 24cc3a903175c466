"""Train a translation model on a corpus of text: `train_model` with vocabularies, and BLEU for validation.

A student of Word-KD is this with a teacher; of Seq-KD this with another corpus; Seq-Inter is this from another start.
"""

from pathlib import Path
from typing import Any, Literal, NamedTuple

from seqkd_jax.config import ModelConfig, SearchConfig, TrainConfig
from seqkd_jax.data import batches, vocabulary
from seqkd_jax.data.corpus import Corpus
from seqkd_jax.decoding import Decoding, require_length, translate_lines
from seqkd_jax.evaluation import metrics
from seqkd_jax.training import loop, trainer
from seqkd_jax.utils import progress


class Run(NamedTuple):
    """What to train, on what, from where."""

    model: ModelConfig
    vocabularies: vocabulary.Vocabularies
    train: Corpus
    valid: Corpus
    config: TrainConfig
    shapes: tuple | None = None  # batch shapes shared with other runs; None: chosen from the lengths
    start: Path | None = None  # checkpoint to start from; None: at random
    teacher: Path | None = None  # checkpoint whose distribution the loss reads
    teachers: Literal["one", "each"] = "one"  # see train_model.Run
    record_gib: float = 4.0  # a teacher's features of the whole corpus are kept in memory if they take no more


def train_translator(run: Run, directory: Path, name: str = "train") -> loop.Summary:
    """Train, or go on training, in `directory`; see `fit.fit` for what it leaves there."""
    encoded, dropped = batches.encode_corpus(run.train, run.vocabularies, run.config.batch)
    valid, not_scored = batches.encode_corpus(run.valid, run.vocabularies, run.config.batch)
    progress.log(f"{name}: {dropped}")
    if run.config.validate_bleu:
        for number, line in enumerate(run.valid.sources, start=1):  # not after an epoch
            require_length(number, len(run.vocabularies.source.encode(line)) + 1, f"{run.valid.name}: ")
    if not_scored.empty or not_scored.overlong:
        progress.log(f"{name}, validation loss: {not_scored}")
    given = trainer.Run(**{**run._asdict(), "train": encoded, "valid": valid})

    def bleu(model, params: Any) -> dict:
        """Of greedy translations."""
        greedy = Decoding(SearchConfig(beam=1))
        lines = translate_lines(model, params, run.vocabularies, run.valid.sources, greedy)
        outputs = [translation.text for translation in lines]
        references = metrics.metric_references(run.vocabularies, run.valid.targets)
        return {"bleu": metrics.score(outputs, references, run.vocabularies.metric_tokenizer).bleu}

    return trainer.train_model(given, directory, name, bleu if run.config.validate_bleu else None)
