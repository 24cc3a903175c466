"""Checkpoints that describe themselves: whoever has the directory needs nothing else. The only module importing orbax.

  params/          the weights, an orbax tree
  vocabulary/      both vocabularies as plain files (vocab.save)
  state/           optional: everything training needs to go on, an orbax tree
  checkpoint.json  format, model kind and configuration, vocabulary fingerprint, shapes, hash, metadata, versions

A directory is written whole or not at all (files.new_directory). Arrays have no device axis, so what four devices saved
one can load. Orbax casts dtypes silently and its NumPy targets accept wrong shapes: both are compared here.
"""

import hashlib
import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from seqkd_jax import files, models, vocab
from seqkd_jax.base import Model, Translator, UserError
from seqkd_jax.config import ModelConfig

FORMAT = 1
RECORD = "checkpoint.json"
KEYS = ("model", "vocabulary", "source_size", "target_size", "params", "params_sha256", "state", "metadata")  # of it


class Checkpoint(NamedTuple):
    """What `load` finds in a directory, or `load_ensemble` in several: then * is a tuple, one for each member."""

    model: Model | Translator
    params: Any  # * on the device(s) asked for
    model_config: ModelConfig | tuple  # *
    vocabularies: Any
    metadata: dict | tuple  # * what the saver knew: step, losses, ...; JSON values
    directory: Path | tuple  # *
    replica: int | None = None  # which of several seeds in the directory

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
    params = _host(params)
    expected = describe(_shapes(model_config, sizes, replicas))
    _require(describe(params), expected, f"{directory}: cannot save these parameters")
    state_leaves = None if state is None else _named_leaves(_host(state))
    record = {
        "format": FORMAT,
        "model": config_to_json(model_config),
        "vocabulary": vocabularies.fingerprint,
        "source_size": sizes[0],
        "target_size": sizes[1],
        "replicas": replicas,
        "params": describe(params),
        "params_sha256": tree_sha256(params),
        "state": None if state is None else describe(state_leaves),
        "metadata": metadata,
        "versions": versions(),
    }
    with files.new_directory(directory, (RECORD, "params", "state", "vocabulary")) as temporary:
        _write_tree(temporary / "params", params)
        if state is not None:
            _write_tree(temporary / "state", {f"{i:05d}": leaf for i, leaf in enumerate(state_leaves.values())})
        vocab.save(vocabularies, temporary / "vocabulary")
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
    _check_replica(replica, read_record(directory).get("replicas", 1), directory)
    return _read(directory, sharding, [replica])[0]


def load_all(directory: Path | str, sharding: jax.sharding.Sharding | None = None) -> list[Checkpoint]:
    """Every one of the seeds that were trained at once, the files read and checked once; else the one that is there."""
    replicas = read_record(directory).get("replicas", 1)
    return _read(directory, sharding, list(range(replicas)) if replicas > 1 else [None])


def _read(directory: Path | str, sharding: jax.sharding.Sharding | None, places: list[int | None]) -> list[Checkpoint]:
    """These of the seeds in a directory."""
    record, path = read_record(directory), files.existing(directory)
    vocabularies = vocab.load(path / "vocabulary")
    vocab.require_same(record["vocabulary"], vocabularies, str(directory))
    config = config_from_json(record["model"], path / RECORD)
    sizes, replicas = (record["source_size"], record["target_size"]), record.get("replicas", 1)
    shapes = _shapes(config, sizes, replicas)
    where = f"{directory}: the weights do not fit the configuration beside them"
    _require(record["params"], describe(shapes), where)
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    params = _read_tree(path / "params", shapes, sharding)
    _require(describe(params), record["params"], f"{directory}: damaged, params/ is not what was saved")
    host = _host(params)
    if tree_sha256(host) != record["params_sha256"]:
        raise UserError(f"{directory}: damaged, the weights do not have the hash they were saved with; train again")

    def seed(place: int | None) -> Checkpoint:
        own = params
        if replicas > 1:
            own = jax.device_put(jax.tree.map(lambda leaf: leaf[place], host), sharding)
        model = models.build(config, *sizes)
        return Checkpoint(model, own, config, vocabularies, record["metadata"], Path(directory), place)

    return [seed(place) for place in places]


def select(directory: Path | str, replica: int, to: Path | str) -> Path:
    """Write one of the seeds that were trained at once as an ordinary checkpoint."""
    found = load(directory, replica=replica)
    parts = {"model_config": found.model_config, "vocabularies": found.vocabularies, "metadata": found.metadata}
    return save(to, found.params, **parts)


def load_params(directory: Path | str, like: Any) -> Any:
    """The weights as they were saved, stacked if so, as NumPy arrays in the structure of `like`."""
    shapes = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
    return _restore(files.existing(directory) / "params", shapes)


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
    for other in others:
        if other.vocabularies.fingerprint != first.vocabularies.fingerprint:
            prints = f"{other.vocabularies.fingerprint[:12]}, not {first.vocabularies.fingerprint[:12]}"
            raise UserError(f"{other.name}: has vocabulary {prints} of {first.name}; an ensemble needs one vocabulary")
    if not others:
        return first
    translators, params, configs, _, metadata, directories, _ = zip(*members, strict=True)
    return Checkpoint(models.ensemble(translators), params, configs, first.vocabularies, metadata, directories)


def load_state(directory: Path | str, like: Any) -> Any:
    """The saved training state in the structure, dtypes and shardings of `like`.

    Leaves of `like`: jax arrays or ShapeDtypeStructs (restored with their sharding, on the first device if they have
    none), or NumPy arrays and Python numbers (restored as NumPy). UserError if there is no state or it is another one.
    """
    record, path = read_record(directory), files.existing(directory)
    if record["state"] is None:
        raise UserError(f"{directory}: holds weights but no training state; start from it instead of resuming")
    leaves, structure = jax.tree.flatten(like)
    _require(record["state"], describe(_named_leaves(like)), f"{directory}: the training state is of another run")
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    targets = {f"{i:05d}": _target(leaf, device) for i, leaf in enumerate(leaves)}
    restored = _restore(path / "state", targets)
    return jax.tree.unflatten(structure, [restored[name] for name in sorted(restored)])


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
        params = jax.tree.map(lambda leaf: leaf.astype(np.float64), _host(load(directory).params))
        total = params if total is None else jax.tree.map(np.add, total, params)
    shapes = _shapes(config_from_json(first["model"], directories[0]), (first["source_size"], first["target_size"]), 1)
    return jax.tree.map(lambda leaf, shape: (leaf / len(directories)).astype(shape.dtype), total, shapes)


def fingerprint(directory: Path | str | tuple) -> str:
    """SHA-256 of what decides a checkpoint's output: configuration, vocabulary, weights; not where it was made.

    A tuple of directories: of their ensemble.
    """
    if isinstance(directory, tuple):
        return files.sha256_json(["ensemble", *map(fingerprint, directory)])
    record = read_record(directory)
    return files.sha256_json([record[key] for key in ("format", "model", "vocabulary", "params_sha256")])


def read_record(directory: Path | str) -> dict:
    """The content of checkpoint.json, its format checked."""
    path = files.existing(directory)
    if not path.is_dir():
        raise UserError(
            f"{directory}: no such checkpoint; give a directory that `seqkd train` or `seqkd average` wrote"
        )
    if not (path / RECORD).is_file():
        inside = sorted(str(Path(directory) / found.parent.name) for found in path.glob(f"*/{RECORD}"))
        remedy = f"did you mean {' or '.join(inside)}?" if inside else "give a directory that `seqkd train` wrote"
        raise UserError(f"{directory}: not a checkpoint (it has no checkpoint.json); {remedy}")
    record = files.read_json(path / RECORD)
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise UserError(f"{directory}: checkpoint format {found}, this version reads {FORMAT}; train again")
    lacking = [key for key in KEYS if key not in record]
    if lacking:
        raise UserError(f"{path / RECORD}: damaged, it lacks {', '.join(lacking)}; train again")
    return record


def config_to_json(config: ModelConfig | tuple) -> dict:
    """A model's configuration with its kind, as JSON; of a tuple, an ensemble's: its members'."""
    if isinstance(config, tuple):
        return {"kind": "ensemble", "members": [config_to_json(member) for member in config]}
    return {"kind": models.kind_of(config), **asdict(config)}


def config_from_json(value: dict, where: Path | str) -> ModelConfig:
    """The inverse. Unknown kinds, fields and types are refused by name; a field added since then takes its default."""
    value = dict(value)
    kind = value.pop("kind", None)
    if kind not in models.MODELS:
        raise UserError(f"{where}: unknown model kind {kind!r}; this version knows {', '.join(models.MODELS)}")
    config = models.MODELS[kind].config
    known = {field.name: type(field.default) for field in fields(config)}
    for name, content in value.items():
        if name not in known:
            raise UserError(f"{where}: unknown field {name!r} for model kind {kind}; a newer version wrote it")
        if known[name] is tuple and isinstance(content, list):
            content = value[name] = tuple(content)
        if type(content) is not known[name] and not (known[name] is float and type(content) is int):
            raise UserError(f"{where}: {name} is {content!r}, expected {known[name].__name__}")
    return config(**value)


def describe(tree: Any) -> dict[str, list]:
    """Name -> [shape, dtype] of every leaf."""
    return {name: [list(np.shape(leaf)), str(_dtype(leaf))] for name, leaf in _named_leaves(tree).items()}


def tree_sha256(tree: Any) -> str:
    """SHA-256 over names, shapes, dtypes and bytes of a tree of host arrays, in the order of their names."""
    digest = hashlib.sha256()
    for name, leaf in sorted(_named_leaves(tree).items()):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{name} {array.shape} {array.dtype}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)  # as bytes: bfloat16 has no buffer protocol
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """The versions that decide results, for provenance."""
    packages = (
        "seqkd_jax",
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "orbax-checkpoint",
        "numpy",
        "sentencepiece",
        "sacrebleu",
    )
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
            continue
    return found


def _shapes(config: ModelConfig, sizes: tuple[int, int], replicas: int) -> Any:
    """The model's parameters as ShapeDtypeStructs: traced, neither allocated nor compiled."""
    shapes = jax.eval_shape(lambda: models.build(config, *sizes).init(jax.random.key(0)))
    if replicas == 1:
        return shapes
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((replicas, *leaf.shape), leaf.dtype), shapes)


def _require(found: dict, expected: dict, where: str) -> None:
    """UserError that names the first leaf that differs."""
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            there, here = (
                "missing" if leaf is None else f"{leaf[1]}{leaf[0]}" for leaf in (found.get(name), expected.get(name))
            )
            raise UserError(f"{where}: {name} is {there}, expected {here}; use the configuration it was made with")


def _named_leaves(tree: Any) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _dtype(leaf: Any) -> np.dtype:
    return leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype


def _host(tree: Any) -> Any:
    """NumPy leaves, a replicated array's first copy. What is not replicated would be saved in part: it is refused."""
    for name, leaf in _named_leaves(tree).items():
        if isinstance(leaf, jax.Array) and not leaf.is_fully_replicated:
            raise ValueError(f"{name} is not replicated: {leaf.sharding}; reduce it over the devices before saving")
    return jax.tree.map(np.asarray, tree)


def _write_tree(path: Path, tree: Any) -> None:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), tree)
        checkpointer.wait_until_finished()  # saves are asynchronous


def _read_tree(path: Path, shapes: Any, sharding: jax.sharding.Sharding) -> Any:
    return _restore(
        path, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)
    )


def _restore(path: Path, targets: Any) -> Any:
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(path.absolute(), targets)
    except (FileNotFoundError, KeyError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: damaged, cannot be restored ({reason[:200]}); delete it and train again") from error


def _target(leaf: Any, device: jax.sharding.Sharding) -> Any:
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or device)
    return np.asarray(leaf)
