"""Import: a Marian directory to a checkpoint."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from seqkd_jax import checkpoint
from seqkd_jax.checkpoint import tensor_files
from seqkd_jax.config import TransformerConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.data.vocabulary import SPECIALS
from seqkd_jax.marian.layout import EXPRESSIBLE, FIXED_TOKENIZER, KINDS, NEVER, embedding_scale, modules, sinusoids
from seqkd_jax.types import BOS, EOS, PAD, UNK, UserError
from seqkd_jax.utils import files

ACTIVATIONS: dict[str, Literal["relu", "gelu", "swish"]] = {  # theirs -> ours
    "relu": "relu",
    "gelu": "gelu",
    "swish": "swish",
    "silu": "swish",
}
EMBEDDINGS = (
    "model.shared",
    "model.encoder.embed_tokens",
    "model.decoder.embed_tokens",
    "lm_head",
)  # names of the shared table

# Options of config.json that must have these values; absent ones count as having them.
FIXED = {
    "is_encoder_decoder": True,
    "normalize_before": False,
    "normalize_embedding": False,
    "add_final_layer_norm": False,
    "static_position_embeddings": True,
    "share_encoder_decoder_embeddings": True,
    "tie_word_embeddings": True,
    "encoder_layerdrop": 0,
    "decoder_layerdrop": 0,
    "force_bos_token_to_be_generated": False,
    "forced_bos_token_id": None,
    "quantization_config": None,
}


def import_marian(directory: Path | str, out: Path | str) -> Path:
    """Import a Marian directory: config.json, model.safetensors, vocab.json, source.spm, target.spm.

    Text is split and joined as by MarianTokenizer, except that names of special entries are treated as text. UserError:
    a file is missing or damaged, or an option is not supported.
    """
    directory = Path(directory)
    described = _read_config(directory)
    config = _model_config(described, directory / "config.json")
    entries, order = _read_entries(directory, described)
    tensors = _read_tensors(directory)
    size, pad = described["vocab_size"], described["pad_token_id"]
    table = _one_embedding(tensors, (size, config.width), directory)
    bias = _take(tensors, "final_logits_bias", (1, size), directory, default=0.0)[0]
    positions, shift = _read_positions(tensors, config.width, directory)
    config = dataclasses.replace(config, positions=positions)
    params = {"target_embedding": table[order], "output_bias": bias[order]}
    params["target_embedding"][PAD], params["output_bias"][PAD] = 0.0, NEVER
    if shift.any():
        if bias[pad] > NEVER / 2:  # <pad> would need different rows as input and as output
            raise UserError(f"{directory}: model.decoder.embed_positions.weight: position 0 is not a sinusoid")
        params["target_embedding"][BOS] += shift / embedding_scale(config)
    for ours, theirs in modules(config):
        _put(params, ours, _joined(tensors, ours, theirs, config, directory))
    if tensors:
        raise UserError(f"{directory}: model.safetensors has a tensor {min(tensors)}, which is not supported")
    return checkpoint.save(
        out,
        {"params": params},
        model_config=config,
        vocabularies=vocabulary.mapped(_read(directory / "source.spm"), _read(directory / "target.spm"), entries),
        metadata={"imported": {"from": "hf", "model_sha256": files.sha256_file(directory / "model.safetensors")}},
    )


def _read_config(directory: Path) -> dict:
    path = directory / "config.json"
    config = _read_object(path)
    if config.get("model_type") != "marian":
        raise UserError(
            f"{path}: model_type is {config.get('model_type')!r}; only marian (the opus-mt family) is supported"
        )
    _require_fixed(config, FIXED, path)
    tokenizer = directory / "tokenizer_config.json"
    if tokenizer.exists():
        options = {name: _content(value) for name, value in _read_object(tokenizer).items()}
        _require_fixed(options, FIXED_TOKENIZER, tokenizer)
    if config.get("decoder_start_token_id") != config.get("pad_token_id"):
        raise UserError(f"{path}: decoder_start_token_id is not pad_token_id; Marian's decoder starts with <pad>")
    return config


def _require_fixed(config: Mapping, fixed: Mapping, path: Path) -> None:
    for name, value in fixed.items():
        if config.get(name, value) not in (value, None):
            raise UserError(f"{path}: {name} is {config[name]!r}; only {value!r} is supported")


def _content(token: Any) -> Any:
    """The text of a token; tokenizer_config.json may store it in an object."""
    return token.get("content", token) if isinstance(token, dict) else token


def _read_entries(directory: Path, config: Mapping) -> tuple[list[str], list[int]]:
    """Our entries and their ids in the directory; PAD, which has no counterpart, gets the id of UNK."""
    path = directory / "vocab.json"
    ids = _read_object(path)
    size, decoder_size = config.get("vocab_size"), config.get("decoder_vocab_size")
    if decoder_size not in (size, None):
        raise UserError(f"{directory / 'config.json'}: decoder_vocab_size {decoder_size} is not vocab_size {size}")
    if len(ids) != size or set(ids.values()) != set(range(len(ids))):
        raise UserError(f"{path}: its ids must be 0 to {size} - 1 (vocab_size of config.json), each of them once")
    missing = [name for name in (SPECIALS[PAD], SPECIALS[UNK], SPECIALS[EOS]) if name not in ids]
    if missing:
        raise UserError(f"{path}: has no {missing[0]}; only vocabularies of the opus-mt family are supported")
    pad, unk, eos = ids[SPECIALS[PAD]], ids[SPECIALS[UNK]], ids[SPECIALS[EOS]]
    for name, index in (("pad_token_id", pad), ("eos_token_id", eos)):
        if config.get(name) != index:
            raise UserError(f"{directory / 'config.json'}: {name} is {config.get(name)}, but {index} in vocab.json")
    rest = sorted((index, name) for name, index in ids.items() if index not in (pad, unk, eos))
    return [*SPECIALS, *(name for _, name in rest)], [unk, unk, pad, eos, *(index for index, _ in rest)]


def _model_config(config: Mapping, path: Path) -> TransformerConfig:
    for name in ("attention_heads", "ffn_dim"):
        if config.get(f"encoder_{name}") != config.get(f"decoder_{name}"):
            raise UserError(f"{path}: encoder_{name} and decoder_{name} differ; they must be equal")
    try:
        activation = config["activation_function"]
        if activation not in ACTIVATIONS:
            raise UserError(
                f"{path}: activation_function is {activation!r}; it must be one of {', '.join(ACTIVATIONS)}"
            )
        return TransformerConfig(
            encoder_layers=config["encoder_layers"],
            decoder_layers=config["decoder_layers"],
            width=config["d_model"],
            heads=config["encoder_attention_heads"],
            feed_forward=config["encoder_ffn_dim"],
            activation=ACTIVATIONS[activation],
            scale_embeddings=config["scale_embedding"],
            output_bias=True,
            dropout=float(config["dropout"]),
            attention_dropout=float(config["attention_dropout"]),
            activation_dropout=float(config["activation_dropout"]),
            **EXPRESSIBLE,
        )
    except KeyError as error:
        raise UserError(f"{path}: lacks {error}; save the model again with transformers") from None


def _read_tensors(directory: Path) -> dict[str, np.ndarray]:
    path = directory / "model.safetensors"
    if (directory / "model.safetensors.index.json").exists():
        raise UserError(f"{directory}: model.safetensors.index.json: weights in several files are not supported")
    if not path.exists() and (directory / "pytorch_model.bin").exists():
        raise UserError(f"{directory}: pytorch_model.bin is pickled and not read; save the model with safetensors")
    return tensor_files.read(path)


def _take(
    tensors: dict, name: str, shape: tuple[int, ...], directory: Path, default: float | None = None
) -> np.ndarray:
    """Remove a tensor and return it in float32; UserError if it is missing or has another shape."""
    if name not in tensors and default is not None:
        return np.full(shape, default, np.float32)
    if name not in tensors or tensors[name].shape != shape:
        found = list(tensors[name].shape) if name in tensors else "missing"
        raise UserError(
            f"{directory}: model.safetensors: {name} is {found}, expected {list(shape)}; download the file again"
        )
    return tensors.pop(name).astype(np.float32)


def _one_embedding(tensors: dict, shape: tuple[int, int], directory: Path) -> np.ndarray:
    """The shared embeddings, under the first of their names that the file has."""
    names = [f"{name}.weight" for name in EMBEDDINGS if f"{name}.weight" in tensors] or [f"{EMBEDDINGS[0]}.weight"]
    tables = {name: _take(tensors, name, shape, directory) for name in names}
    for name, table in tables.items():
        if not np.array_equal(table, tables[names[0]]):
            raise UserError(f"{directory}: {name} differs from {names[0]}; only shared embeddings are supported")
    return tables[names[0]]


def _read_positions(tensors: dict, width: int, directory: Path) -> tuple[str, np.ndarray]:
    """The kind of sinusoids, and the difference [E] of the decoder's position 0 from it."""
    kinds, shift = [], np.zeros(width, np.float32)
    for side in ("encoder", "decoder"):
        name = f"model.{side}.embed_positions.weight"
        if name not in tensors:
            kinds.append(KINDS[0])
            continue
        table = _take(tensors, name, (len(tensors[name]), width), directory)
        if side == "decoder":
            first = sinusoids(1, width, KINDS[0])
            shift = np.where(np.abs(table[:1] - first) > 1e-6, table[:1] - first, 0)[0]
            table = np.concatenate([first, table[1:]])
        worst = {kind: np.abs(table - sinusoids(len(table), width, kind)).max() for kind in KINDS}
        kinds.append(min(worst, key=lambda kind: worst[kind]))
        if worst[kinds[-1]] > 2e-3:  # float16 has smaller rounding errors
            raise UserError(f"{directory}: {name}: only sinusoids are supported, not learned positions")
    if kinds[0] != kinds[1]:
        raise UserError(f"{directory}: the positions of encoder and decoder are {kinds}; they must be of one kind")
    return kinds[0], shift


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a Marian directory has it beside config.json") from None


def _read_object(path: Path) -> dict:
    value = files.read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: not a JSON object; download the file again")
    return value


def _joined(tensors: dict, ours: str, theirs: tuple, config: TransformerConfig, directory: Path) -> dict:
    """One of our modules from their tensors; kernels [I,O] are weights [O,I] transposed."""
    width, inner = config.width, config.feed_forward
    sizes = {"feed_forward/inner": (inner, width), "feed_forward/outer": (width, inner)}
    outputs, inputs = sizes.get(ours.partition("/")[2], (width, width))
    biases = np.concatenate([_take(tensors, f"{name}.bias", (outputs,), directory) for name in theirs])
    if ours.endswith("norm"):
        return {"scale": _take(tensors, f"{theirs[0]}.weight", (width,), directory), "bias": biases}
    weights = [_take(tensors, f"{name}.weight", (outputs, inputs), directory) for name in theirs]
    return {"kernel": np.ascontiguousarray(np.concatenate(weights).T), "bias": biases}


def _put(tree: dict, path: str, value: dict) -> None:
    *parents, last = path.split("/")
    for name in parents:
        tree = tree.setdefault(name, {})
    tree[last] = value
