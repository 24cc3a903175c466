"""Checkpoints that describe themselves: whoever has the directory needs nothing else.

  params/          the weights, an orbax tree
  vocabulary/      both vocabularies as plain files (vocabulary.save)
  state/           optional: everything training needs to go on, an orbax tree
  checkpoint.json  format, model kind and configuration, vocabulary fingerprint, shapes, hash, metadata, versions

A directory is written whole or not at all (files.new_directory). Arrays have no device axis, so what four devices saved
one can load.

  record  checkpoint.json        arrays  leaves on the disk, checked; the only file that imports orbax
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from seqkd_jax import models
from seqkd_jax.checkpoint import arrays
from seqkd_jax.checkpoint.record import FORMAT, RECORD, config_from_json, config_to_json, read_record, versions
from seqkd_jax.config import ModelConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.types import Model, Translator, UserError
from seqkd_jax.utils import files

__all__ = [
    "Checkpoint",
    "average",
    "config_to_json",
    "fingerprint",
    "inputs_of",
    "load",
    "load_all",
    "load_ensemble",
    "load_params",
    "load_state",
    "of_no_use",
    "read_record",
    "save",
    "select",
    "arrays",
    "versions",
]


class Checkpoint(NamedTuple):
    """What `load` finds in a directory, or `load_ensemble` in several: then * is a tuple, one for each member."""

    model: Model | Translator
    params: Any  # * on the device(s) asked for
    model_config: ModelConfig | tuple  # *
    vocabularies: Any
    metadata: dict | tuple  # * what the saver knew: step, losses, ...; JSON values
    directory: Path | tuple  # *
    replica: int | None = None  # which of several seeds in the directory
    fingerprint: str = ""  # of what was read, which may have been replaced since; see `fingerprint`

    @property
    def name(self) -> str:
        """Where it is: the directory as it was given, or the members' with + between."""
        return " + ".join(map(str, self.directory)) if isinstance(self.directory, tuple) else str(self.directory)


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

    params: the model's tree, replicated jax arrays or NumPy; of several replicas stacked, leaves [R,...]. state: a
    pytree of arrays, for `load_state`. metadata: JSON values. UserError if the params are not those of the model;
    ValueError if one is not replicated.
    """
    sizes = vocabularies.source.size, vocabularies.target.size
    params = arrays.host(params)
    expected = arrays.describe(_shapes(model_config, sizes, replicas))
    arrays.require(arrays.describe(params), expected, f"{directory}: cannot save these parameters")
    state_leaves = None if state is None else arrays.named_leaves(arrays.host(state))
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
) -> Checkpoint:
    """The model, its weights and its vocabularies. sharding: where the weights go; None: the first device.

    replica: which of the seeds that were trained at once, from 0; see `select`. UserError, naming the path and the
    remedy: no such directory, not a checkpoint, damaged, wrong shapes or dtypes, a replica that is not named or not
    there.
    """

    def one(replicas: int) -> list[int | None]:
        _check_replica(replica, replicas, directory)
        return [replica]

    return _read(directory, sharding, one)[0]


def load_all(directory: Path | str, sharding: jax.sharding.Sharding | None = None) -> list[Checkpoint]:
    """Every one of the seeds that were trained at once, the files read and checked once; else the one that is there."""
    return _read(directory, sharding, lambda replicas: list(range(replicas)) if replicas > 1 else [None])


def _read(
    directory: Path | str, sharding: jax.sharding.Sharding | None, places: Callable[[int], list[int | None]]
) -> list[Checkpoint]:
    """Of so many seeds as a directory holds those that `places` names.

    A run may put a new best/ in its place meanwhile: then that is read.
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
) -> list[Checkpoint]:
    path = files.existing(directory)
    vocabularies = vocabulary.load(path / "vocabulary")
    vocabulary.require_same(record["vocabulary"], vocabularies, str(directory))
    config = config_from_json(record["model"], path / RECORD)
    sizes, replicas = (record["source_size"], record["target_size"]), record.get("replicas", 1)
    shapes = _shapes(config, sizes, replicas)
    where = f"{directory}: the weights do not fit the configuration beside them"
    arrays.require(record["params"], arrays.describe(shapes), where)
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    params = arrays.read(path / "params", shapes, sharding)
    arrays.require(arrays.describe(params), record["params"], f"{directory}: damaged, params/ is not what was saved")
    host = arrays.host(params)
    if arrays.sha256(host) != record["params_sha256"]:
        raise UserError(f"{directory}: damaged, the weights do not have the hash they were saved with; train again")

    def seed(place: int | None) -> Checkpoint:
        own = params
        if replicas > 1:
            own = jax.device_put(jax.tree.map(lambda leaf: leaf[place], host), sharding)
        model = models.build(config, *sizes)
        read = config, vocabularies, record["metadata"], Path(directory)
        return Checkpoint(model, own, *read, place, _fingerprint(record))

    return [seed(place) for place in places]


def select(directory: Path | str, replica: int, to: Path | str) -> Path:
    """Write one of the seeds that were trained at once as an ordinary checkpoint."""
    found = load(directory, replica=replica)
    if why := of_no_use(found):
        raise UserError(f"{directory}: replica {replica} {why}; take another")
    metadata = {**found.metadata, "replica": replica}
    return save(to, found.params, model_config=found.model_config, vocabularies=found.vocabularies, metadata=metadata)


def of_no_use(found: Checkpoint) -> str:
    """Why a checkpoint must not be used, said of it; "" if it may be.

    One that diverged before its first validation has weights in best/ that nobody has looked at.
    """
    told = found.metadata.get("run", {}).get("replicas", ())
    if found.replica is not None and found.replica < len(told):  # one that was taken out tells of all
        own = told[found.replica]
        if own["diverged"] and not own["best_step"]:
            return "diverged before it was ever validated"
    finite = all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(found.params))
    return "" if finite else "has weights that are no finite numbers: its training diverged"


def load_params(directory: Path | str, like: Any) -> Any:
    """The weights as they were saved, stacked if so, as NumPy arrays in the structure of `like`."""
    shapes = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
    return arrays.restore(files.existing(directory) / "params", shapes)


def _check_replica(replica: int | None, replicas: int, directory: Path | str) -> None:
    if replica is None and replicas > 1:
        raise UserError(
            f"{directory}: holds {replicas} seeds that were trained at once; take one out with `seqkd select`"
        )
    if not 0 <= (replica or 0) < replicas:
        raise UserError(f"{directory}: has no replica {replica}, it holds {replicas}, counted from 0")


def load_ensemble(directories: Sequence[Path | str]) -> Checkpoint:
    """Checkpoints as one whose probabilities are the mean of theirs (models.ensemble); a single one is itself.

    They may be of different models. UserError: none is named, or one has another vocabulary than the first.
    """
    if not directories:
        raise UserError("no checkpoint is named: give --checkpoint, several times for an ensemble")
    first, *others = members = [load(directory) for directory in directories]
    for member in members:
        if models.kind_of(member.model_config) not in models.TRANSLATORS:
            kind = models.kind_of(member.model_config)
            raise UserError(f"{member.name}: holds a {kind}, which does not translate; name a translation model")
    for other in others:
        if other.vocabularies.fingerprint != first.vocabularies.fingerprint:
            prints = f"{other.vocabularies.fingerprint[:12]}, not {first.vocabularies.fingerprint[:12]}"
            raise UserError(f"{other.name}: has vocabulary {prints} of {first.name}; an ensemble needs one vocabulary")
    if not others:
        return first
    translators, params, configs, _, metadata, directories, _, prints = zip(*members, strict=True)
    read = configs, first.vocabularies, metadata, directories
    return Checkpoint(models.ensemble(translators), params, *read, fingerprint=_of_ensemble(prints))


def load_state(directory: Path | str, like: Any) -> Any:
    """The saved training state in the structure, dtypes and shardings of `like`.

    Leaves of `like`: jax arrays or ShapeDtypeStructs (restored with their sharding, on the first device if they have
    none), or NumPy arrays and Python numbers (restored as NumPy). UserError if there is no state or it is another one.
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


# Of metadata: what tells of which run a checkpoint is. A mean of some of a run's is of that run too.
OF_RUN = ("inputs", "config", "replica")


def inputs_of(metadata: dict) -> dict[str, str]:
    """What a run was made of beside its configuration -> SHA-256, as its checkpoints' metadata name it."""
    return metadata.get("inputs") or metadata.get("made_of", {})  # the key before 0.2.0


def _of_run(record: dict) -> tuple:
    """What checkpoints of one run have in common: its inputs, and the seed, unless it started from weights.

    Seeds that were trained at once are told apart by their place.
    """
    metadata = record["metadata"]
    inputs = inputs_of(metadata)
    tuned = inputs.get("start", "none") != "none"
    return inputs, None if tuned else (metadata.get("config", {}).get("seed"), metadata.get("replica", 0))


def average(directories: list[Path | str]) -> Any:
    """The mean of the weights of checkpoints of one model and vocabulary, as NumPy arrays in the saved dtypes."""
    if not directories:
        raise UserError("nothing to average: name at least one checkpoint")
    first = read_record(directories[0])
    total = None
    for directory in directories:
        record = read_record(directory)
        for key in ("model", "vocabulary"):
            if record[key] != first[key]:
                raise UserError(
                    f"{directory}: another {key} than {directories[0]}; only checkpoints of one run average"
                )
        if _of_run(record) != _of_run(first):
            raise UserError(f"{directory}: of another run than {directories[0]}; their mean would be of no use")
        params = jax.tree.map(lambda leaf: leaf.astype(np.float64), arrays.host(load(directory).params))
        total = params if total is None else jax.tree.map(np.add, total, params)
    shapes = _shapes(config_from_json(first["model"], directories[0]), (first["source_size"], first["target_size"]), 1)
    return jax.tree.map(lambda leaf, shape: (leaf / len(directories)).astype(shape.dtype), total, shapes)


def fingerprint(directory: Path | str | tuple) -> str:
    """SHA-256 of what decides a checkpoint's output: configuration, vocabulary, weights; not where it was made.

    A tuple of directories: of their ensemble.
    """
    if isinstance(directory, tuple):
        return _of_ensemble(map(fingerprint, directory))
    return _fingerprint(read_record(directory))


def _fingerprint(record: dict) -> str:
    return files.sha256_json([record[key] for key in ("format", "model", "vocabulary", "params_sha256")])


def _of_ensemble(fingerprints: Iterable[str]) -> str:
    return files.sha256_json(["ensemble", *fingerprints])


def _shapes(config: ModelConfig, sizes: tuple[int, int], replicas: int) -> Any:
    """The model's parameters as ShapeDtypeStructs: traced, neither allocated nor compiled."""
    shapes = jax.eval_shape(lambda: models.build(config, *sizes).init(jax.random.key(0)))
    if replicas == 1:
        return shapes
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((replicas, *leaf.shape), leaf.dtype), shapes)
