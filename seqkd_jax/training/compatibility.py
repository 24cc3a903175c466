"""What can be known of a run before a corpus is read or anything is learned: its model, and what does not fit together.

Of checkpoints only checkpoint.json is read.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from seqkd_jax import checkpoint, models
from seqkd_jax.checkpoint.record import config_from_json
from seqkd_jax.config import LSTMConfig, ModelConfig, TrainConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.losses import require_loss
from seqkd_jax.training import parts, train_step
from seqkd_jax.types import UserError
from seqkd_jax.utils import settings
from seqkd_jax.utils.settings import Named


def model_of_run(
    model: ModelConfig | None,
    config: TrainConfig,
    *,
    vocabularies: vocabulary.Vocabularies | None = None,
    start: Path | str | None = None,
    teacher: Path | str | None = None,
    teachers: Literal["one", "each"] = "one",
    named: Named = str,
) -> ModelConfig:
    """The model of a run: as given, None: that of the start, else the default.

    vocabularies: None: those of the teacher or the start, or still to be learned. named: what the user calls a field.
    UserError: a setting out of its range, devices that are not there, a start of another model, a teacher that cannot
    teach this student, one that no loss reads or none for a loss that reads it.
    """
    config.validate()
    parts.microbatches(config, len(train_step.devices(config.devices)))
    require_teacher(config, teacher is not None)
    records = {}  # checkpoint.json of the start and of the teacher
    if start is not None:
        records[str(start)] = checkpoint.read_record(start)
        model = _of_start(model, start, records[str(start)], named)
    model = LSTMConfig() if model is None else model
    if vocabularies is not None:
        require_top_k(config, vocabularies.target.size, named)
    if start is None and vocabularies is not None:
        one = vocabularies.joint or vocabularies.config.kind == "marian"  # two splitters, but one list of entries
        require_tieable(model, one, named)
    if teacher is not None:
        record = records[str(teacher)] = checkpoint.read_record(teacher)
        replicas = record.get("replicas", 1)
        if teachers == "each" and replicas != config.replicas > 1:
            raise UserError(
                f"{teacher}: holds {replicas} teachers for {config.replicas} students; train as many, or let one "
                "teach all"
            )
        require_readable(model, config_from_json(record["model"], teacher), teacher)
    if teacher is not None and vocabularies is not None:
        _require_one_vocabulary(records[str(teacher)]["vocabulary"], vocabularies, teacher, config.loss.name)
    for path in dict.fromkeys(str(path) for path in (teacher, start) if path is not None):
        found = records[path]["vocabulary"]
        if vocabularies is not None:
            vocabulary.require_same(found, vocabularies, path)
        elif found != records[str(teacher or start)]["vocabulary"]:
            raise UserError(f"{path}: has another vocabulary than {teacher}; a student reads what its teacher reads")
    return model


def model_of(directory: Path | str) -> ModelConfig:
    """The configuration of a checkpoint's model."""
    return config_from_json(checkpoint.read_record(directory)["model"], directory)


def require_teacher(config: TrainConfig, has_teacher: bool) -> None:
    """UserError for a loss that lacks its teacher, or a teacher that no loss reads."""
    needed = require_loss(config.loss.name).needs_teacher
    if needed and not has_teacher:
        raise UserError(f"loss {config.loss.name!r} needs a teacher: give its checkpoint")
    if has_teacher and not needed:
        raise UserError(f"loss {config.loss.name!r} reads no teacher: leave the teacher out, or use the loss word_kd")
    if config.loss.teacher_dropout and require_loss(config.loss.name).top_k:
        raise UserError(
            f"loss {config.loss.name!r} reads what was computed of the teacher before training, without dropout: leave "
            "teacher_dropout out, or use the loss word_kd"
        )


def require_top_k(config: TrainConfig, entries: int, named: Named = str) -> None:
    """UserError for more entries of a teacher's distribution than the target vocabulary has."""
    if require_loss(config.loss.name).top_k and config.loss.top_k > entries:
        most = f"it must not exceed {entries:,}, the entries of the vocabulary"
        raise UserError(f"{named('loss.top_k')} is {config.loss.top_k}: {most}")


def require_tieable(model: ModelConfig, one: bool, named: Named = str) -> None:
    """UserError for one embedding of two vocabularies: of equal size, it would tie words that are unrelated."""
    if getattr(model, "tied", None) == "all" and not one:
        raise UserError(
            f"{named('transformer.tied')} is all, which needs one vocabulary for both languages, and these are two: "
            "set it to target, or learn a joint one"
        )


def _require_one_vocabulary(found: str, vocabularies: vocabulary.Vocabularies, teacher: Path | str, loss: str) -> None:
    """UserError for a teacher of other entries: there are no pairs of probabilities to compare."""
    if found != vocabularies.fingerprint:
        raise UserError(
            f"{teacher}: has another vocabulary than its student, and {loss} compares distributions entry by entry: "
            "give the student that of its teacher, or distil sequences (`seqkd distill`), which hands on text"
        )


def require_readable(student: ModelConfig, teacher: ModelConfig, where: Path | str) -> None:
    """UserError for a teacher that does not read what its student reads."""
    theirs, ours = models.kind_of(teacher), models.kind_of(student)
    if (theirs in models.TRANSLATORS) != (ours in models.TRANSLATORS):
        raise UserError(f"{where}: holds a {theirs}, which cannot teach a {ours}; name one that reads the same")


def _of_start(model: ModelConfig | None, start: Path | str, record: dict, named: Named) -> ModelConfig:
    """The model of a run that has a start; UserError that names all fields in which a given one differs."""
    theirs = config_from_json(record["model"], start)
    if (replicas := record.get("replicas", 1)) > 1:
        raise UserError(f"{start}: holds {replicas} seeds, and a run starts from one; extract it with `seqkd select`")
    if model is None:
        return theirs
    kind, given = models.kind_of(theirs), models.kind_of(model)
    differing = [(named("model"), given, kind)]
    if given == kind:
        differing = [(named(f"{kind}.{name}"), ours, old) for name, old, ours in _decisive(theirs, model)]
    if differing:
        told = "; ".join(f"{name} is {ours}, the start has {old}" for name, ours, old in differing)
        raise UserError(f"{start}: is another model than this run trains: {told}; leave out what differs, or the start")
    return model


def _decisive(before: ModelConfig, now: ModelConfig) -> Iterator[tuple]:
    """The fields in which two configurations of one kind differ, but for those that training may change."""
    for name, old, new in settings.differences(before, now):
        if not name.endswith("dropout") and name not in ("init_scale", "compute"):
            yield name, old, new
