"""Checkpoints that describe themselves: the directory is all that is needed to load the model.

  params/          the weights, an orbax tree; of a pruned model (pruning) what is left of them, and a mask (sparse)
  vocabulary/      both vocabularies as plain files (vocabulary.save)
  state/           optional: everything that resuming the training needs, an orbax tree
  checkpoint.json  format, model kind and configuration, vocabulary fingerprint, shapes, hash, metadata, versions

A directory is written whole or not at all, with the hash of every file (files.new_directory). What is read is compared
with these first, and is of one version of the directory, though a run may replace it meanwhile (integrity.whole).
Arrays have no device axis: a checkpoint saved from four devices loads on one.

  loaded        Checkpoint and Ensemble, which `load` and `load_translators` return
  record        checkpoint.json
  metadata      what that says of the run
  arrays        trees of arrays on the disk, checked; the only file that imports orbax
  sparse        the weights of a pruned model on the disk
  run_config    config.json: what a run was started with, beside its results
  interchange   a checkpoint as safetensors, out and in
  tensor_files  files of safetensors; the only file that imports the package
  model_card    README.md of an exported model
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from seqkd_jax import models
from seqkd_jax.checkpoint import arrays, sparse
from seqkd_jax.checkpoint.loaded import (
    Checkpoint,
    Ensemble,
    drafted,
    fingerprint_of_ensemble,
    metric_of,
    require_same_vocabulary,
)
from seqkd_jax.checkpoint.metadata import OF_RUN, defect, inputs_of, run_of
from seqkd_jax.checkpoint.record import FORMAT, RECORD, REMEDY, config_from_json, config_to_json, read_at, versions
from seqkd_jax.checkpoint.sparse import Pruned
from seqkd_jax.config import ComputeType, ModelConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.types import Model, Translator, UserError
from seqkd_jax.utils import files, integrity, progress, settings

__all__ = [
    "HOLDS",
    "Checkpoint",
    "Ensemble",
    "Pruned",
    "average",
    "config_to_json",
    "defect",
    "drafted",
    "fingerprint",
    "fingerprint_of_ensemble",
    "inputs_of",
    "load",
    "load_all",
    "load_params",
    "load_state",
    "load_translator",
    "load_translators",
    "load_vocabularies",
    "metric_of",
    "param_shapes",
    "read_record",
    "save",
    "select",
    "sparse",
    "verify_at",
    "with_compute",
    "arrays",
    "versions",
]


HOLDS = (RECORD, "params", "state", "vocabulary")  # what is in a checkpoint


def save(
    directory: Path | str,
    params: Any,
    *,
    model_config: ModelConfig,
    vocabularies: Any,
    metadata: dict,
    state: Any = None,
    replicas: int = 1,
    pruned: Pruned | None = None,
) -> Path:
    """Write a checkpoint and wait until it is on the disk; an older one at `directory` is replaced.

    params: the model's tree, replicated jax arrays or NumPy; several replicas are stacked, leaves [R,...]. state: a
    pytree of arrays, for `load_state`. metadata: JSON values. pruned: which weights are pruned, +0.0 and a bit
    each. UserError if the params are not those of the model; ValueError if one is not replicated.
    """
    sizes = vocabularies.source.size, vocabularies.target.size
    params = arrays.host(params)
    expected = arrays.describe(param_shapes(model_config, sizes, replicas))
    arrays.require(arrays.describe(params), expected, f"{directory}: cannot save these parameters")
    state_leaves = {} if state is None else arrays.named_leaves(arrays.host(state))
    record = {
        "format": FORMAT,
        integrity.SEALED: True,
        "model": config_to_json(model_config),
        "vocabulary": vocabularies.fingerprint,
        "source_size": sizes[0],
        "target_size": sizes[1],
        "replicas": replicas,
        "params": arrays.describe(params),
        "params_sha256": arrays.sha256(params),
        **({"pruned": sparse.describe(pruned)} if pruned else {}),
        "state": None if state is None else arrays.describe(state_leaves),
        "metadata": metadata,
        "versions": versions(),
    }
    with files.new_directory(directory, HOLDS) as temporary:
        if pruned:
            sparse.write(temporary / "params", params, pruned)
        else:
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


def read_record(directory: Path | str, parts: Sequence[str] = (), remedy: str = REMEDY) -> dict:
    """The content of checkpoint.json. UserError, with the remedy, if it or one of `parts` (record.PARTS) is damaged."""
    return integrity.whole(directory, lambda path: read_at(path, directory, parts, remedy))


def _read(
    directory: Path | str, sharding: jax.sharding.Sharding | None, places: Callable[[int], list[int | None]]
) -> list[Checkpoint[Model | Translator]]:
    """Load the replicas that `places`, given their number, names. A run may replace best/ while it is read."""
    return integrity.whole(directory, lambda path: _read_at(path, directory, sharding, places))


def _read_at(
    path: Path,
    directory: Path | str,
    sharding: jax.sharding.Sharding | None,
    places: Callable[[int], list[int | None]],
) -> list[Checkpoint[Model | Translator]]:
    record = read_at(path, directory, ("params/*", "vocabulary/*"))
    vocabularies = _vocabularies(path, directory, record)
    config = config_from_json(record["model"], path / RECORD)
    sizes, replicas = (record["source_size"], record["target_size"]), record.get("replicas", 1)
    chosen = places(replicas)
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    params, host, pruned = _weights(path, directory, record, param_shapes(config, sizes, replicas), sharding)

    def checkpoint_of(place: int | None) -> Checkpoint[Model | Translator]:
        own = params
        if replicas > 1:
            own = jax.device_put(jax.tree.map(lambda leaf: leaf[place], host), sharding)
        model = models.build(config, *sizes)
        read = config, vocabularies, record["metadata"], Path(directory)
        return Checkpoint(model, own, *read, place, _fingerprint(record), pruned)

    if name := _not_finite(host):
        progress.log(f"{directory}: {name} has values that are not finite: its training diverged; train again")
    return [checkpoint_of(place) for place in chosen]


def verify_at(path: Path, directory: Path | str) -> tuple[dict, str | None]:
    """The content of checkpoint.json, after all of the checkpoint at `path` was compared with it and with its hashes;
    and the name of an array that has values that are not finite.
    """
    record = read_at(path, directory, ("*",))
    _vocabularies(path, directory, record)
    config, sizes = config_from_json(record["model"], path / RECORD), (record["source_size"], record["target_size"])
    shapes, device = param_shapes(config, sizes, record.get("replicas", 1)), jax.local_devices()[0]
    weights = _weights(path, directory, record, shapes, jax.sharding.SingleDeviceSharding(device))
    return record, _not_finite(weights.host)


def _not_finite(params: Any) -> str | None:
    """The name of an array with values that are not finite."""
    return next((name for name, leaf in arrays.named_leaves(params).items() if not np.isfinite(leaf).all()), None)


def _vocabularies(path: Path, directory: Path | str, record: dict) -> vocabulary.Vocabularies:
    """Those of a checkpoint, of the sizes that its record says."""
    vocabularies = vocabulary.load(path / "vocabulary")
    vocabulary.require_same(record["vocabulary"], vocabularies, str(directory))
    sizes = {"source_size": vocabularies.source.size, "target_size": vocabularies.target.size}
    for key, size in sizes.items():
        if record[key] != size:
            raise UserError(f"{path / RECORD}: damaged, {key} is {record[key]}, but its vocabulary has {size} entries")
    return vocabularies


class _Weights(NamedTuple):
    params: Any  # jax arrays
    host: Any  # the same as NumPy
    pruned: Pruned | None


def _weights(path: Path, directory: Path | str, record: dict, shapes: Any, sharding: Any) -> _Weights:
    """The weights, of these shapes and with the hash that they were saved with; and which ones are pruned, with its."""
    where = f"{directory}: the weights do not fit the configuration beside them"
    arrays.require(record["params"], arrays.describe(shapes), where)
    pruned = None
    if about := record.get("pruned"):
        host, pruned = sparse.read(path / "params", shapes, record.get("replicas", 1))
        if sparse.describe(pruned) != about:
            raise UserError(f"{directory}: damaged, other weights are pruned than when it was saved; {REMEDY}")
        params = jax.device_put(host, sharding)
    else:
        params = arrays.read(path / "params", shapes, sharding)
        host = arrays.host(params)
    arrays.require(arrays.describe(params), record["params"], f"{directory}: damaged, params/ is not what was saved")
    if arrays.sha256(host) != record["params_sha256"]:
        raise UserError(f"{directory}: damaged, the weights do not have the hash they were saved with; train again")
    return _Weights(params, host, pruned)


def load_vocabularies(directory: Path | str) -> vocabulary.Vocabularies:
    """Those of a checkpoint, or of a directory that vocabulary.save wrote. UserError: missing or damaged."""

    def read(path: Path) -> vocabulary.Vocabularies:
        if not (path / "vocabulary").is_dir():
            return vocabulary.load(path)
        return _vocabularies(path, directory, read_at(path, directory, ("vocabulary/*",)))

    return integrity.whole(directory, read)


def select(directory: Path | str, replica: int, to: Path | str) -> Path:
    """Write one replica of a directory that holds several seeds as an ordinary checkpoint."""
    loaded = load(directory, replica=replica)
    if reason := defect(loaded):
        raise UserError(f"{directory}: replica {replica} {reason}; select another")
    metadata = {**loaded.metadata, "replica": replica}
    described = {"model_config": loaded.model_config, "vocabularies": loaded.vocabularies, "metadata": metadata}
    return save(to, loaded.params, **described, pruned=loaded.pruned)


def load_params(directory: Path | str, like: Any) -> Any:
    """The saved weights as NumPy arrays in the structure of `like`; those of several replicas are stacked."""
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), like)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def read(path: Path) -> Any:
        record = read_at(path, directory, ("params/*",))
        return _weights(path, directory, record, shapes, device).host

    return integrity.whole(directory, read)


def _check_replica(replica: int | None, replicas: int, directory: Path | str) -> None:
    if replica is None and replicas > 1:
        raise UserError(
            f"{directory}: holds {replicas} replicas (seeds trained together); extract one with `seqkd select`"
        )
    if not 0 <= (replica or 0) < replicas:
        raise UserError(f"{directory}: has no replica {replica}; it holds {replicas}, numbered from 0")


def load_translator(
    directory: Path | str,
    sharding: jax.sharding.Sharding | None = None,
    replica: int | None = None,
    compute: ComputeType | None = None,
) -> Checkpoint[Translator]:
    """`load` of a translation model. compute: in place of the one that it was trained with; None: that.

    UserError for a checkpoint of another kind, or a compute that there is not.
    """
    loaded = load(directory, sharding, replica)
    kind = models.kind_of(loaded.model_config)
    if kind not in models.TRANSLATORS:
        raise UserError(f"{directory}: holds a {kind}, which does not translate; name a translation model")
    return with_compute(cast(Checkpoint[Translator], loaded), compute)


def with_compute(loaded: Checkpoint[Translator], compute: ComputeType | None) -> Checkpoint[Translator]:
    """The same weights under another type of products and activations; None, or the own one: as it is.

    So one computation has one name, whether its type was given or was that of the training.
    """
    if compute in (None, cast(Any, loaded.model_config).compute):
        return loaded
    config = replace(loaded.model_config, compute=compute)
    model = models.build(config, loaded.vocabularies.source.size, loaded.vocabularies.target.size)
    return replace(loaded, model=model, model_config=config, compute=compute)


def load_translators(
    directories: Sequence[Path | str], compute: ComputeType | None = None
) -> Checkpoint[Translator] | Ensemble:
    """The translation model of one directory, or the ensemble of several, which may be of different kinds.

    compute: as in `load_translator`. UserError: no directory, a model that does not translate, members with different
    vocabularies.
    """
    if not directories:
        raise UserError("no checkpoint is named: give one (--checkpoint), or several for an ensemble")
    first, *others = members = [load_translator(directory, compute=compute) for directory in directories]
    for other in others:
        require_same_vocabulary(first, other, "an ensemble needs one vocabulary")
    return Ensemble(tuple(members)) if others else first


def load_state(directory: Path | str, like: Any) -> Any:
    """The saved training state in the structure, dtypes and shardings of `like`.

    Leaves of `like`: jax arrays or ShapeDtypeStructs (restored with their sharding, on the first device if they have
    none), or NumPy arrays and Python numbers (restored as NumPy). UserError if there is no state, or one of another
    structure, or one without hashes.
    """
    leaves, structure = jax.tree.flatten(like)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    targets = {f"{i:05d}": arrays.target(leaf, device) for i, leaf in enumerate(leaves)}

    def read(path: Path) -> Any:
        record = read_at(path, directory, ("state/*",))
        if record["state"] is None:
            raise UserError(f"{directory}: holds weights but no training state; start from it instead of resuming")
        if integrity.SEALED not in record:
            raise UserError(
                f"{directory}: its training state has no hashes, as a version before 0.3.0 saved it, so it cannot be "
                f"resumed; train in another directory, with --start {directory} to begin with its weights"
            )
        arrays.require(record["state"], arrays.describe(like), f"{directory}: the training state is of another run")
        return arrays.restore(path / "state", targets)

    restored = integrity.whole(directory, read)
    return jax.tree.unflatten(structure, [restored[name] for name in sorted(restored)])


def average(directories: Sequence[Path | str]) -> Checkpoint[Model | Translator]:
    """The first of these checkpoints of one run, with the mean of the weights of all, NumPy arrays of the saved dtypes.

    Its metadata have what identifies the run, and `average_of`: directory -> fingerprint. UserError: no directory,
    one that is named twice, or checkpoints that differ in model, vocabulary or run.
    """
    if not directories:
        raise UserError("nothing to average: name at least one checkpoint")
    places = [os.path.realpath(directory) for directory in directories]
    for number, directory in enumerate(directories):
        if places[number] in places[:number]:
            raise UserError(f"{directory}: is named twice; an average counts each checkpoint once")
    first, total, prints = None, None, {}
    for directory in directories:
        loaded = load(directory)
        first = first or loaded
        differs = [
            (settings.identity(loaded.model_config) != settings.identity(first.model_config), "has another model than"),
            (loaded.vocabularies.fingerprint != first.vocabularies.fingerprint, "has another vocabulary than"),
            (run_of(loaded) != run_of(first), "is of another run than"),
            (not sparse.same(loaded.pruned, first.pruned), "has other pruned weights than"),
        ]
        for differ, how in differs:
            if differ:
                raise UserError(f"{directory}: {how} {directories[0]}; average checkpoints of one run only")
        params = jax.tree.map(lambda leaf: leaf.astype(np.float64), arrays.host(loaded.params))
        total = params if total is None else jax.tree.map(np.add, total, params)
        prints[str(directory)] = loaded.fingerprint
    assert first is not None
    mean = jax.tree.map(lambda leaf, of: (leaf / len(directories)).astype(of.dtype), total, first.params)
    metadata = {key: first.metadata[key] for key in OF_RUN if key in first.metadata}
    return replace(first, params=mean, metadata={**metadata, "average_of": prints}, fingerprint="")


def fingerprint(directory: Path | str) -> str:
    """SHA-256 of what decides a checkpoint's output: configuration, vocabulary and weights."""
    return _fingerprint(read_record(directory))


def _fingerprint(record: dict) -> str:
    model = settings.identity(config_from_json(record["model"], RECORD))
    return files.sha256_json([record["format"], model, record["vocabulary"], record["params_sha256"]])


def param_shapes(config: ModelConfig, sizes: tuple[int, int], replicas: int = 1) -> Any:
    """The model's parameters as ShapeDtypeStructs; nothing is allocated or compiled."""
    shapes = jax.eval_shape(lambda: models.build(config, *sizes).init(jax.random.key(0)))
    if replicas == 1:
        return shapes
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((replicas, *leaf.shape), leaf.dtype), shapes)
