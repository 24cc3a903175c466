"""Checkpoints that describe themselves: the directory is all that is needed to load the model.

  params/          the weights, an orbax tree
  vocabulary/      both vocabularies as plain files (vocabulary.save)
  state/           optional: everything that resuming the training needs, an orbax tree
  checkpoint.json  format, model kind and configuration, vocabulary fingerprint, shapes, hash, metadata, versions

A directory is written whole or not at all (files.new_directory). Arrays have no device axis: a checkpoint saved from
four devices loads on one.

  record  checkpoint.json        arrays  trees of arrays on the disk, checked; the only file that imports orbax
  run_config  config.json: what a run was started with, beside its results
  interchange  a checkpoint as safetensors, out and in    tensor_files  the only file that imports safetensors
  model_card  README.md of an exported model
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast

import jax
import numpy as np

from seqkd_jax import models
from seqkd_jax.checkpoint import arrays
from seqkd_jax.checkpoint.record import FORMAT, RECORD, config_from_json, config_to_json, read_record, versions
from seqkd_jax.config import MetricConfig, ModelConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.types import Model, System, Translator, UserError
from seqkd_jax.utils import files, settings

__all__ = [
    "Checkpoint",
    "Ensemble",
    "average",
    "config_to_json",
    "defect",
    "fingerprint",
    "inputs_of",
    "load",
    "load_all",
    "load_params",
    "load_state",
    "load_translator",
    "load_translators",
    "metric_of",
    "param_shapes",
    "read_record",
    "save",
    "select",
    "arrays",
    "versions",
]


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

    @property
    def name(self) -> str:
        """The directory as it was given."""
        return str(self.directory)

    @property
    def metric(self) -> MetricConfig:
        """The metric of the run that saved it, `auto` where it says nothing (before 0.3.0, or imported)."""
        return metric_of(self.metadata, self.directory)

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
        return files.sha256_json(["ensemble", *(member.fingerprint for member in self.members)])

    @property
    def replica(self) -> None:
        """No member is one of several seeds in a directory."""
        return None

    @property
    def metric(self) -> MetricConfig:
        """That of its members, `auto` if they differ."""
        found = {member.metric for member in self.members}
        return found.pop() if len(found) == 1 else MetricConfig()

    @property
    def config_json(self) -> dict:
        """The configurations of the members, as JSON."""
        return {"kind": "ensemble", "members": [member.config_json for member in self.members]}

    @property
    def system(self) -> System:
        """What the decoding functions take."""
        translator = models.ensemble(tuple(member.model for member in self.members))
        return System(translator, tuple(member.params for member in self.members), self.vocabularies)


def save(
    directory: Path | str,
    params: Any,
    *,
    model_config: ModelConfig,
    vocabularies: Any,
    metadata: dict,
    state: Any = None,
    replicas: int = 1,
) -> Path:
    """Write a checkpoint and wait until it is on the disk; an older one at `directory` is replaced.

    params: the model's tree, replicated jax arrays or NumPy; several replicas are stacked, leaves [R,...]. state: a
    pytree of arrays, for `load_state`. metadata: JSON values. UserError if the params are not those of the model;
    ValueError if one is not replicated.
    """
    sizes = vocabularies.source.size, vocabularies.target.size
    params = arrays.host(params)
    expected = arrays.describe(param_shapes(model_config, sizes, replicas))
    arrays.require(arrays.describe(params), expected, f"{directory}: cannot save these parameters")
    state_leaves = {} if state is None else arrays.named_leaves(arrays.host(state))
    record = {
        "format": FORMAT,
        "model": config_to_json(model_config),
        "vocabulary": vocabularies.fingerprint,
        "source_size": sizes[0],
        "target_size": sizes[1],
        "replicas": replicas,
        "params": arrays.describe(params),
        "params_sha256": arrays.sha256(params),
        "state": None if state is None else arrays.describe(state_leaves),
        "metadata": metadata,
        "versions": versions(),
    }
    with files.new_directory(directory, (RECORD, "params", "state", "vocabulary")) as temporary:
        arrays.write(temporary / "params", params)
        if state is not None:
            arrays.write(temporary / "state", {f"{i:05d}": leaf for i, leaf in enumerate(state_leaves.values())})
        vocabulary.save(vocabularies, temporary / "vocabulary")
        files.write_json(temporary / RECORD, record)  # last: a directory without it is not a checkpoint
    return Path(directory)


def load(
    directory: Path | str, sharding: jax.sharding.Sharding | None = None, replica: int | None = None
) -> Checkpoint[Model | Translator]:
    """Load a model with its weights and vocabularies. sharding: where the weights go; None: the first device.

    replica: which one, from 0, of a directory that holds several seeds (see `select`). UserError that names the path
    and the remedy: no such directory, not a checkpoint, damaged, wrong shapes or dtypes, no such replica, or several
    replicas and none named.
    """

    def one(replicas: int) -> list[int | None]:
        _check_replica(replica, replicas, directory)
        return [replica]

    return _read(directory, sharding, one)[0]


def load_all(
    directory: Path | str, sharding: jax.sharding.Sharding | None = None
) -> list[Checkpoint[Model | Translator]]:
    """Every replica of a directory that holds several seeds, else its one model. The files are read only once."""
    return _read(directory, sharding, lambda replicas: list(range(replicas)) if replicas > 1 else [None])


def _read(
    directory: Path | str, sharding: jax.sharding.Sharding | None, places: Callable[[int], list[int | None]]
) -> list[Checkpoint[Model | Translator]]:
    """Load the replicas that `places`, given their number, names.

    A run may replace best/ while it is read: then the new one is read.
    """
    record = None
    while True:
        try:
            record = read_record(directory)
            return _read_as(record, directory, sharding, places(record.get("replicas", 1)))
        except UserError:
            if read_record(directory) == record:
                raise


def _read_as(
    record: dict, directory: Path | str, sharding: jax.sharding.Sharding | None, places: list[int | None]
) -> list[Checkpoint[Model | Translator]]:
    path = files.existing(directory)
    vocabularies = vocabulary.load(path / "vocabulary")
    vocabulary.require_same(record["vocabulary"], vocabularies, str(directory))
    config = config_from_json(record["model"], path / RECORD)
    sizes, replicas = (record["source_size"], record["target_size"]), record.get("replicas", 1)
    shapes = param_shapes(config, sizes, replicas)
    where = f"{directory}: the weights do not fit the configuration beside them"
    arrays.require(record["params"], arrays.describe(shapes), where)
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    params = arrays.read(path / "params", shapes, sharding)
    arrays.require(arrays.describe(params), record["params"], f"{directory}: damaged, params/ is not what was saved")
    host = arrays.host(params)
    if arrays.sha256(host) != record["params_sha256"]:
        raise UserError(f"{directory}: damaged, the weights do not have the hash they were saved with; train again")

    def checkpoint_of(place: int | None) -> Checkpoint[Model | Translator]:
        own = params
        if replicas > 1:
            own = jax.device_put(jax.tree.map(lambda leaf: leaf[place], host), sharding)
        model = models.build(config, *sizes)
        read = config, vocabularies, record["metadata"], Path(directory)
        return Checkpoint(model, own, *read, place, _fingerprint(record))

    return [checkpoint_of(place) for place in places]


def select(directory: Path | str, replica: int, to: Path | str) -> Path:
    """Write one replica of a directory that holds several seeds as an ordinary checkpoint."""
    loaded = load(directory, replica=replica)
    if reason := defect(loaded):
        raise UserError(f"{directory}: replica {replica} {reason}; select another")
    metadata = {**loaded.metadata, "replica": replica}
    return save(
        to, loaded.params, model_config=loaded.model_config, vocabularies=loaded.vocabularies, metadata=metadata
    )


def defect(loaded: Checkpoint) -> str:
    """Why a checkpoint must not be used, as a predicate such as "has weights that ..."; "" for a sound one.

    A replica that diverged before its first validation has unvalidated weights in best/.
    """
    replicas = loaded.metadata.get("run", {}).get("replicas", ())
    if loaded.replica is not None and loaded.replica < len(replicas):
        own = replicas[loaded.replica]
        if own["diverged"] and not own["best_step"]:
            return "diverged before its first validation"
    finite = all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(loaded.params))
    return "" if finite else "has weights that are not finite: its training diverged"


def load_params(directory: Path | str, like: Any) -> Any:
    """The saved weights as NumPy arrays in the structure of `like`; those of several replicas are stacked."""
    shapes = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
    return arrays.restore(files.existing(directory) / "params", shapes)


def _check_replica(replica: int | None, replicas: int, directory: Path | str) -> None:
    if replica is None and replicas > 1:
        raise UserError(
            f"{directory}: holds {replicas} replicas (seeds trained together); extract one with `seqkd select`"
        )
    if not 0 <= (replica or 0) < replicas:
        raise UserError(f"{directory}: has no replica {replica}; it holds {replicas}, numbered from 0")


def load_translator(
    directory: Path | str, sharding: jax.sharding.Sharding | None = None, replica: int | None = None
) -> Checkpoint[Translator]:
    """`load` of a translation model. UserError for a checkpoint of another kind."""
    loaded = load(directory, sharding, replica)
    kind = models.kind_of(loaded.model_config)
    if kind not in models.TRANSLATORS:
        raise UserError(f"{directory}: holds a {kind}, which does not translate; name a translation model")
    return cast(Checkpoint[Translator], loaded)


def load_translators(directories: Sequence[Path | str]) -> Checkpoint[Translator] | Ensemble:
    """The translation model of one directory, or the ensemble of several, which may be of different kinds.

    UserError: no directory, a model that does not translate, members with different vocabularies.
    """
    if not directories:
        raise UserError("no checkpoint is named: give one (--checkpoint), or several for an ensemble")
    first, *others = members = [load_translator(directory) for directory in directories]
    for other in others:
        if other.vocabularies.fingerprint != first.vocabularies.fingerprint:
            prints = f"{other.vocabularies.fingerprint[:12]}, not {first.vocabularies.fingerprint[:12]}"
            raise UserError(f"{other.name}: has vocabulary {prints} of {first.name}; an ensemble needs one vocabulary")
    return Ensemble(tuple(members)) if others else first


def load_state(directory: Path | str, like: Any) -> Any:
    """The saved training state in the structure, dtypes and shardings of `like`.

    Leaves of `like`: jax arrays or ShapeDtypeStructs (restored with their sharding, on the first device if they have
    none), or NumPy arrays and Python numbers (restored as NumPy). UserError if there is no state, or one of another
    structure.
    """
    record, path = read_record(directory), files.existing(directory)
    if record["state"] is None:
        raise UserError(f"{directory}: holds weights but no training state; start from it instead of resuming")
    leaves, structure = jax.tree.flatten(like)
    arrays.require(record["state"], arrays.describe(like), f"{directory}: the training state is of another run")
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    targets = {f"{i:05d}": arrays.target(leaf, device) for i, leaf in enumerate(leaves)}
    restored = arrays.restore(path / "state", targets)
    return jax.tree.unflatten(structure, [restored[name] for name in sorted(restored)])


# The entries of metadata that identify the run of a checkpoint. An average of checkpoints keeps them.
OF_RUN = ("inputs", "config", "replica", "metric", "languages")


def metric_of(metadata: dict, directory: Path | str) -> MetricConfig:
    """The metric in the metadata of a checkpoint, `auto` if there is none. UserError if that is no metric's."""
    where = f"{directory}: metadata.metric"
    return settings.from_json(MetricConfig, metadata.get("metric", {}), lambda name: f"{where}.{name}")


def inputs_of(metadata: dict) -> dict[str, str]:
    """The inputs of the run that saved a checkpoint with this metadata: name -> SHA-256."""
    return metadata.get("inputs") or metadata.get("made_of", {})  # the key before 0.2.0


def _of_run(record: dict) -> tuple:
    """The identity of the run that a checkpoint is from: its inputs, and its seed unless it started from weights.

    Replicas of one run differ by their number.
    """
    metadata = record["metadata"]
    inputs = inputs_of(metadata)
    tuned = inputs.get("start", "none") != "none"
    return inputs, None if tuned else (metadata.get("config", {}).get("seed"), metadata.get("replica", 0))


def average(directories: Sequence[Path | str]) -> Any:
    """The mean of the weights of checkpoints of one run, as NumPy arrays in the saved dtypes.

    UserError: no directory, one that is named twice, or checkpoints that differ in model, vocabulary or run.
    """
    if not directories:
        raise UserError("nothing to average: name at least one checkpoint")
    places = [os.path.realpath(directory) for directory in directories]
    for number, directory in enumerate(directories):
        if places[number] in places[:number]:
            raise UserError(f"{directory}: is named twice; an average counts each checkpoint once")
    first = read_record(directories[0])
    total = None
    for directory in directories:
        record = read_record(directory)
        for key in ("model", "vocabulary"):
            if _decides(record, key) != _decides(first, key):
                raise UserError(
                    f"{directory}: has another {key} than {directories[0]}; average checkpoints of one run only"
                )
        if _of_run(record) != _of_run(first):
            raise UserError(
                f"{directory}: is of another run than {directories[0]}; average checkpoints of one run only"
            )
        params = jax.tree.map(lambda leaf: leaf.astype(np.float64), arrays.host(load(directory).params))
        total = params if total is None else jax.tree.map(np.add, total, params)
    shapes = param_shapes(
        config_from_json(first["model"], directories[0]), (first["source_size"], first["target_size"]), 1
    )
    return jax.tree.map(lambda leaf, shape: (leaf / len(directories)).astype(shape.dtype), total, shapes)


def _decides(record: dict, key: str) -> Any:
    """What a record says under a key, to compare with another's: a model's configuration by its identity."""
    return settings.identity(config_from_json(record[key], RECORD)) if key == "model" else record[key]


def fingerprint(directory: Path | str) -> str:
    """SHA-256 of what decides a checkpoint's output: configuration, vocabulary and weights."""
    return _fingerprint(read_record(directory))


def _fingerprint(record: dict) -> str:
    return files.sha256_json([_decides(record, key) for key in ("format", "model", "vocabulary", "params_sha256")])


def param_shapes(config: ModelConfig, sizes: tuple[int, int], replicas: int = 1) -> Any:
    """The model's parameters as ShapeDtypeStructs; nothing is allocated or compiled."""
    shapes = jax.eval_shape(lambda: models.build(config, *sizes).init(jax.random.key(0)))
    if replicas == 1:
        return shapes
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((replicas, *leaf.shape), leaf.dtype), shapes)
