"""Vocabularies, the training of a translation model, and its pruning."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from seqkd_jax import checkpoint, distributed, models, pruning
from seqkd_jax.api.places import publishing
from seqkd_jax.api.translating import require_list
from seqkd_jax.checkpoint import run_config
from seqkd_jax.config import ModelConfig, PruningConfig, TrainConfig, VocabularyConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.data.corpus import Corpus, require_pairs
from seqkd_jax.data.splits import warn_of_overlap
from seqkd_jax.data.vocabulary import Vocabularies
from seqkd_jax.training import records
from seqkd_jax.training.compatibility import model_of_run
from seqkd_jax.training.loop import Summary
from seqkd_jax.training.trainer import Run, train_translator
from seqkd_jax.types import UserError
from seqkd_jax.utils import program_cache, progress, remote, settings


def load_vocabulary(path: Path | str) -> Vocabularies:
    """The vocabularies of a checkpoint, or of a directory that `seqkd vocab` wrote. UserError: missing or damaged.

    shared = kd.load_vocabulary("teacher/best")
    print(shared.source.size, shared.fingerprint)
    """
    return checkpoint.load_vocabularies(path)


def learn_vocabulary(corpus: Corpus, config: VocabularyConfig = VocabularyConfig()) -> Vocabularies:
    """Learn the vocabularies of both sides of a training corpus. UserError: no text, too small a size, raw words.

    corpus = kd.load_split(kd.CorpusConfig("data"), "train")
    vocabularies = kd.learn_vocabulary(corpus, kd.VocabularyConfig(size=8000))
    """
    return vocabulary.learn(corpus.sources, corpus.targets, config)


@publishing
def train(
    corpus: Corpus,
    valid: Corpus,
    out: Path | str,
    *,
    model: ModelConfig | None = None,
    config: TrainConfig = TrainConfig(),
    vocabularies: Vocabularies | None = None,
    start: Path | str | None = None,
    teacher: Path | str | None = None,
    teachers: Literal["one", "each"] = "one",
    teacher_cache_gib: float = 4.0,
    teacher_cache: Path | str | None = None,
    log: Sequence[str] = (),
    described: Mapping[str, Any] | None = None,
) -> Summary:
    """Train a teacher or a student in directory `out`; called again with the same arguments, it resumes.

    out: a URL such as gs://bucket/run is published to at each save; see docs/devices-and-hosts.md.

    model: None for that of the start, else LSTMConfig(). vocabularies: None for those of the teacher, else of the
    start, else learned from the corpus. start: checkpoint of the same model to start from; None: random parameters.
    teacher: checkpoint whose distribution the loss reads (loss word_kd). teachers: of a teacher with several replicas,
    the first teaches all students, or each its own.
    teacher_cache_gib: keep the teacher's features of the corpus in memory if they need no more (GiB); 0: never.
    teacher_cache: directory of the teacher's most probable entries (loss word_kd_top_k), which several students share;
    None: OUT.teacher-top-k.
    log: records of the metrics beside metrics.jsonl: csv, tensorboard, wandb (if their packages are installed).
    described: the content of config.json, which the command line gives; None: these arguments.
    Several processes call it alike, after seqkd_jax.distributed has joined them: process 0 alone writes.
    Returns the paths of the best and the last checkpoint, the validations and the speed (target tokens/s).
    UserError: an invalid setting, another run in `out`, a start or teacher that does not fit, a loss not finite.

        corpus, valid = (kd.load_split(kd.CorpusConfig("data"), split) for split in ("train", "valid"))
        teacher = kd.train(corpus, valid, "teacher", model=kd.LSTMConfig(size=500))
        word_kd = kd.TrainConfig(kd.LossConfig("word_kd"))
        student = kd.train(corpus, valid, "student", config=word_kd, teacher=teacher.best)
    """
    distributed.start()
    for split in (corpus, valid):
        require_pairs(split)
    if teachers not in ("one", "each"):
        raise UserError(f"teachers is {teachers!r}: it must be one or each")
    if not teacher_cache_gib >= 0:
        raise UserError(f"teacher_cache_gib is {teacher_cache_gib}: it must be a number from 0")
    if teachers == "each" and teacher is None:
        raise UserError("teachers is each, but no teacher is named: name it, or leave teachers out")
    records.require(require_list("log", log))
    model = model_of_run(model, config, vocabularies=vocabularies, start=start, teacher=teacher, teachers=teachers)
    program_cache.keep()
    warn_of_overlap(valid, corpus)
    if vocabularies is None:
        shared = teacher or start
        vocabularies = load_vocabulary(shared) if shared else learn_vocabulary(corpus)
    vocabulary.warn_of_unknown(vocabularies, valid.sources, valid.targets)
    size = models.parameter_count(models.build(model, vocabularies.source.size, vocabularies.target.size))
    progress.log(f"{models.kind_of(model)}: {size:,} parameters; vocabulary {vocabularies.fingerprint[:12]}")
    if described is None:
        sources = {"start": start, "teacher": teacher, "teachers": teachers, "teacher_cache_gib": teacher_cache_gib}
        sources |= {"log": list(log), **({"teacher_cache": teacher_cache} if teacher_cache else {})}
        kind = models.kind_of(model)
        given = {"out": remote.given(out), "model": kind, kind: model, "config": config, **sources}
        read = training_inputs(corpus, valid, vocabularies, start, teacher)
        described = run_config.describe("train", settings.to_json(given), read)
    run = Run(
        model=model,
        vocabularies=vocabularies,
        config=config,
        start=Path(start) if start else None,
        teacher=Path(teacher) if teacher else None,
        teachers=teachers,
        teacher_cache_gib=teacher_cache_gib,
        teacher_cache=Path(teacher_cache) if teacher_cache else None,
        log=tuple(log),
        described=described,
    )
    return train_translator(run, corpus, valid, Path(out))


@publishing
def prune(path: Path | str, out: Path | str, config: PruningConfig = PruningConfig()) -> Path:
    """Write the checkpoint at `path` to `out` with its weights of least magnitude set to zero; returns `out`.

    A zero takes one bit on the disk. A run that starts from the result keeps these weights at exactly zero, and so do
    its checkpoints. UserError: not a checkpoint of one model, an invalid setting, or one that is pruned already, of
    which weights would come back.

        small = kd.prune("student/best", "pruned", kd.PruningConfig(share=0.8))
        again = kd.train(seq_kd, valid, "retrained", start=small)
    """
    return pruning.prune(path, out, config)


def training_inputs(
    corpus: Corpus,
    valid: Corpus,
    vocabularies: Vocabularies,
    start: Path | str | None = None,
    teacher: Path | str | None = None,
) -> dict[str, Any]:
    """What `train` reads, by the names that config.json has for it."""
    checkpoints = {"start": start, "teacher": teacher}
    return {
        "training corpus": corpus,
        "validation corpus": valid,
        "vocabulary": vocabularies,
        **{name: checkpoint.fingerprint(path) for name, path in checkpoints.items() if path},
    }
