"""What was loaded: a Checkpoint is one model with its weights and vocabularies, an Ensemble decodes as one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from seqkd_jax import models
from seqkd_jax.checkpoint.record import config_to_json
from seqkd_jax.checkpoint.sparse import Pruned
from seqkd_jax.config import ComputeType, MetricConfig, ModelConfig
from seqkd_jax.data import languages, vocabulary
from seqkd_jax.types import Model, System, Translator, UserError
from seqkd_jax.utils import files, settings, urls

M = TypeVar("M", bound=Model | Translator, covariant=True)


@dataclass(frozen=True, eq=False)
class Checkpoint(Generic[M]):
    """One model, loaded from a directory. `load_translator` gives a Checkpoint[Translator]."""

    model: M
    params: Any  # on the devices that `load` was given
    model_config: ModelConfig
    vocabularies: vocabulary.Vocabularies
    metadata: dict  # from the run that saved it: step, losses, ...; JSON values
    directory: Path
    replica: int | None = None  # the replica that was loaded, of a directory that holds several seeds
    fingerprint: str = ""  # of the weights that were read; the directory may have been replaced since
    pruned: Pruned | None = None  # which weights are pruned, NumPy; None: of a model that was not
    compute: ComputeType | None = None  # given when it was loaded, in place of the one that it was trained with

    @property
    def name(self) -> str:
        """The directory as it was given."""
        return urls.shown(self.directory)

    @property
    def metric(self) -> MetricConfig:
        """The metric of the run that saved it, `auto` where it says nothing (before 0.3.0, or imported)."""
        return metric_of(self.metadata, self.directory)

    @property
    def languages(self) -> tuple[str, str] | None:
        """Those of source and target that it was trained on, if its metadata say so."""
        return languages.in_json(self.metadata.get("languages"))

    @property
    def config_json(self) -> dict:
        """The model's kind and configuration, as JSON."""
        return config_to_json(self.model_config)

    @property
    def system(self: "Checkpoint[Translator]") -> System:
        """What the decoding functions take."""
        return System(self.model, self.params, self.vocabularies)


class Ensemble(NamedTuple):
    """Two or more translators of one vocabulary; the probability of a token is the mean of theirs (models.ensemble)."""

    members: tuple[Checkpoint[Translator], ...]

    @property
    def name(self) -> str:
        """The directories of the members with + between."""
        return " + ".join(member.name for member in self.members)

    @property
    def vocabularies(self) -> vocabulary.Vocabularies:
        """Those of every member."""
        return self.members[0].vocabularies

    @property
    def fingerprint(self) -> str:
        """Differs from those of its members."""
        return fingerprint_of_ensemble([member.fingerprint for member in self.members])

    @property
    def replica(self) -> None:
        """No member is one of several seeds in a directory."""
        return None

    @property
    def compute(self) -> ComputeType | None:
        """Given when they were loaded, for all; those that were trained with it have none. None: all have their own."""
        return next((member.compute for member in self.members if member.compute), None)

    @property
    def metric(self) -> MetricConfig:
        """That of its members, `auto` if they differ."""
        found = {member.metric for member in self.members}
        return found.pop() if len(found) == 1 else MetricConfig()

    @property
    def languages(self) -> tuple[str, str] | None:
        """Those of the first member that has any."""
        return next((member.languages for member in self.members if member.languages), None)

    @property
    def config_json(self) -> dict:
        """The configurations of the members, as JSON."""
        return {"kind": "ensemble", "members": [member.config_json for member in self.members]}

    @property
    def system(self) -> System:
        """What the decoding functions take."""
        translator = models.ensemble(tuple(member.model for member in self.members))
        return System(translator, tuple(member.params for member in self.members), self.vocabularies)


def drafted(verifier: Checkpoint[Translator] | Ensemble, draft: Checkpoint[Translator]) -> System:
    """The system of a translator with a draft, for speculative decoding.

    UserError: they have different vocabularies, or the first cannot verify (models.drafted).
    """
    require_same_vocabulary(verifier, draft, "a draft needs that of what it drafts for")
    system = verifier.system
    return System(models.drafted(system.translator, draft.model), (system.params, draft.params), verifier.vocabularies)


def require_same_vocabulary(first: Checkpoint | Ensemble, other: Checkpoint, reason: str) -> None:
    """UserError with the reason unless both have one vocabulary."""
    prints = [one.vocabularies.fingerprint for one in (first, other)]
    if prints[0] != prints[1]:
        raise UserError(
            f"{other.name}: has vocabulary {prints[1][:12]}, not {prints[0][:12]} of {first.name}; {reason}"
        )


def fingerprint_of_ensemble(fingerprints: Sequence[str]) -> str:
    """That of an ensemble whose members have these fingerprints."""
    return files.sha256_json(["ensemble", *fingerprints])


def metric_of(metadata: dict, directory: Path | str) -> MetricConfig:
    """The metric in the metadata of a checkpoint, `auto` if there is none. UserError if that is no metric's."""
    where = f"{directory}: metadata.metric"
    return settings.from_json(MetricConfig, metadata.get("metric", {}), lambda name: f"{where}.{name}")
