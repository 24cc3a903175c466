"""Train a translation model on a corpus: ties corpus, vocabulary, batches, validation and checkpoints to `fit.fit`.

A student of Word-KD is this with a teacher; of Seq-KD this with another corpus; Seq-Inter is this from another start.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from seqkd_jax import batches, checkpoint, evaluate, fit, models, progress, recorded, train, translate, vocab
from seqkd_jax.base import Translator, UserError
from seqkd_jax.config import ModelConfig, SearchConfig, TrainConfig
from seqkd_jax.corpus import Corpus


class Run(NamedTuple):
    """What to train, on what, from where."""

    model: ModelConfig
    vocabularies: vocab.Vocabularies
    train: Corpus
    valid: Corpus
    config: TrainConfig
    shapes: tuple | None = None  # batch shapes shared with other runs; None: chosen from the lengths
    start: Path | None = None  # checkpoint to start from; None: at random
    teacher: Path | None = None  # checkpoint whose distribution the loss reads
    record_gib: float = 4.0  # a teacher's features of the whole corpus are kept in memory if they take no more


def train_translator(run: Run, directory: Path, name: str = "train") -> fit.Summary:
    """Train, or go on training, in `directory`; see `fit.fit` for what it leaves there."""
    encoded, dropped = batches.encode_corpus(run.train, run.vocabularies, run.config.batch)
    plan = batches.make_plan(encoded, run.config.batch, run.shapes)
    valid, _ = batches.encode_corpus(run.valid, run.vocabularies, run.config.batch)
    progress.log(f"{name}: {dropped}; {batches.describe(plan)}")
    teacher = _teacher(run)

    def stream(position: batches.Position):
        corpus = encoded
        if teacher and _worth_recording(run, teacher, encoded, plan):
            corpus = recorded.with_features(teacher.model, teacher.params, encoded, plan, name)
        return batches.train_batches(corpus, plan, run.config.batch, position)

    model = models.build(run.model, run.vocabularies.source.size, run.vocabularies.target.size)
    return fit.fit(
        model,
        fit.Data(stream, plan.batches_per_epoch),
        run.config,
        directory,
        validate=_validation(run, model, valid, batches.make_plan(valid, run.config.batch, plan.shapes)),
        save=partial(checkpoint.save, model_config=run.model, vocabularies=run.vocabularies),
        params=_start(run),
        teacher=teacher,
        name=name,
    )


def _validation(run: Run, model: Translator, valid: batches.Encoded, plan: batches.Plan) -> Callable[[Any], dict]:
    """params -> loss (nats a token of the references), perplexity and, if asked for, BLEU of greedy translations."""
    scored = list(batches.eval_batches(valid, plan))

    def validate(params) -> dict:
        found = evaluate.likelihood(model, params, scored)
        entry = {"loss": found.nats / found.tokens, "perplexity": math.exp(min(found.nats / found.tokens, 100.0))}
        if run.config.validate_bleu:
            greedy = translate.Decoding(SearchConfig(beam=1))
            lines = translate.translate_lines(model, params, run.vocabularies, run.valid.sources, greedy)
            outputs = [translation.text for translation in lines]
            references = evaluate.metric_references(run.vocabularies, run.valid.targets)
            entry["bleu"] = evaluate.score(outputs, references, run.vocabularies.metric_tokenizer).bleu
        return entry

    return validate


def _start(run: Run) -> Any:
    """Parameters to start from; their model must be the one to train."""
    if run.start is None:
        return None
    found = _load(run.start, run)
    if found.model_config != dataclasses.replace(run.model, dropout=found.model_config.dropout):
        raise UserError(f"{run.start}: cannot start from {found.model_config}; this run trains {run.model}")
    return found.params


def _teacher(run: Run) -> train.Teacher | None:
    if run.teacher is None:
        return None
    found = _load(run.teacher, run)
    return train.Teacher(found.translator, found.params)


def _worth_recording(run: Run, teacher: train.Teacher, encoded: batches.Encoded, plan: batches.Plan) -> bool:
    """Whether one pass of the teacher pays: more than one epoch, and room for what it finds."""
    gib = recorded.size(teacher.model, teacher.params, encoded, plan) / recorded.GIBIBYTE
    return run.config.epochs > 1 and gib <= run.record_gib


def _load(directory: Path, run: Run) -> checkpoint.Checkpoint:
    found = checkpoint.load(directory)
    vocab.require_same(found.vocabularies.fingerprint, run.vocabularies, directory)
    return found
