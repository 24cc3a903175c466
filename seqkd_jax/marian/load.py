"""Import: a Marian directory to a checkpoint."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import jax.numpy as jnp
import numpy as np

from seqkd_jax import checkpoint
from seqkd_jax.checkpoint import tensor_files
from seqkd_jax.checkpoint.interchange import CHANGED, FORMAT
from seqkd_jax.config import TransformerConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.data.tokenizers import Added
from seqkd_jax.data.vocabulary import SPECIALS
from seqkd_jax.marian import tokenizer_files
from seqkd_jax.marian.layout import EXPRESSIBLE, KINDS, NEVER, WEIGHTS, embedding_scale, modules, sinusoids
from seqkd_jax.marian.tokenizer_files import read_object, require_fixed
from seqkd_jax.types import BOS, EOS, PAD, UNK, UserError
from seqkd_jax.utils import files, progress, settings
from seqkd_jax.utils.untrusted import inside, require_form, shown

ACTIVATIONS: dict[str, Literal["relu", "gelu", "swish"]] = {  # theirs -> ours
    "relu": "relu",
    "gelu": "gelu",
    "swish": "swish",
    "silu": "swish",
}
# Names of the shared table.
EMBEDDINGS = ("model.shared", "model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head")

NAMES = {  # our settings -> the options of config.json that they are
    "encoder_layers": "encoder_layers",
    "decoder_layers": "decoder_layers",
    "width": "d_model",
    "heads": "encoder_attention_heads",
    "feed_forward": "encoder_ffn_dim",
    "scale_embeddings": "scale_embedding",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
}

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

# Options of transformers' search, in generation_config.json or config.json, with the values that change nothing.
SEARCH = {
    "num_beams": 1,
    "length_penalty": 1.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "early_stopping": False,
    "min_length": 0,
    "do_sample": False,
    "suppress_tokens": None,
}
BARRED = "bad_words_ids"


def import_marian(directory: Path | str, out: Path | str) -> Path:
    """Import a Marian directory: config.json, model.safetensors, vocab.json, source.spm, target.spm.

    Text is split and joined as by MarianTokenizer, added tokens too, except that names of special entries are treated
    as text. Rows of the embedding without a text are left out: they are never produced, and have no share of the
    probability. UserError: a file is missing or damaged, or an option is not supported.
    """
    directory = Path(directory)
    if not directory.is_dir():
        name = "/".join(directory.parts[-2:])
        raise UserError(f"{directory}: no such directory; `hf download {name} --local-dir DIR` gets a model of the hub")
    files.verify(directory, CHANGED, ("*.json", "*.safetensors", "*.spm"))  # one that was exported by us
    described = _read_config(directory)
    config = _model_config(described, directory / "config.json")
    size, pad = described["vocab_size"], described["pad_token_id"]
    names = tokenizer_files.read_names(directory, size)
    entries, order = _order(names.ids, described, directory / "config.json")
    tensors, hashed = _read_tensors(directory)
    table = _one_embedding(tensors, (size, config.width), directory)
    bias = _read_bias(tensors, len(names.ids), size, directory)
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
        raise UserError(f"{directory}: {WEIGHTS} has a tensor {shown(min(tensors))}, which is not supported")
    if size > len(names.ids):
        progress.log(f"{directory}: {size - len(names.ids)} rows of the vocabulary have no text and are left out")
    vocabularies = _vocabularies(directory, entries, names.added)
    _tell_of_search(directory, described, names.ids)
    languages = {"languages": list(names.languages)} if names.languages else {}
    return checkpoint.save(
        out,
        {"params": params},
        model_config=config,
        vocabularies=vocabularies,
        metadata={"imported": {"from": "hf", "model_sha256": hashed}, **languages},
    )


def _read_config(directory: Path) -> dict:
    path = directory / "config.json"
    config = read_object(path)
    if config.get("model_type") != "marian":
        found = shown(config.get("model_type"))
        instead = "; it is of a model of ours, --from safetensors" if config.get("format") == FORMAT else ""
        raise UserError(f"{path}: model_type is {found}; only marian (the opus-mt family) is supported{instead}")
    require_fixed(config, FIXED, path)
    if config.get("decoder_start_token_id") != config.get("pad_token_id"):
        raise UserError(f"{path}: decoder_start_token_id is not pad_token_id; Marian's decoder starts with <pad>")
    size = require_form(config, {"vocab_size": int}, path, "download the file again")["vocab_size"]
    if config.get("decoder_vocab_size") not in (size, None):
        raise UserError(f"{path}: decoder_vocab_size {shown(config['decoder_vocab_size'])} is not vocab_size {size:,}")
    return config


def _tell_of_search(directory: Path, config: Mapping, ids: Mapping[str, int]) -> None:
    """A line on the rules that transformers would translate with, and one on what it would never write.

    UserError: it would force the first token.
    """
    path = directory / "generation_config.json"
    asked = {name: config[name] for name in (*SEARCH, BARRED) if name in config} | read_object(path, {})
    require_fixed(asked, {"forced_bos_token_id": None}, path)
    rules = [f"{name} {shown(asked[name])}" for name, none in SEARCH.items() if asked.get(name) not in (none, None)]
    if rules:
        progress.log(
            f"{directory}: transformers translates with {', '.join(rules)}; a checkpoint holds no rules of search, "
            "they are options of each command, such as --rules hf --beam 4"
        )
    if asked.get(BARRED) is not None:
        words, texts = (
            require_form(asked, {BARRED: [[int]]}, path, CHANGED)[BARRED],
            {i: text for text, i in ids.items()},
        )
        told = [
            " ".join(texts.get(index, str(index)) for index in word) for word in words if word != [ids[SPECIALS[PAD]]]
        ]
        if told:
            progress.log(
                f"{directory}: transformers never writes {shown(', '.join(told))} ({BARRED}); a checkpoint has no such "
                "rule, and may write them"
            )


def _order(ids: Mapping[str, int], config: Mapping, path: Path) -> tuple[list[str], list[int]]:
    """Our entries and their ids in the directory; PAD, which has no counterpart, gets the id of UNK."""
    pad, unk, eos = (ids[SPECIALS[special]] for special in (PAD, UNK, EOS))
    for name, index in (("pad_token_id", pad), ("eos_token_id", eos)):
        if config.get(name) != index:
            raise UserError(f"{path}: {name} is {shown(config.get(name))}, but {index} in vocab.json")
    rest = sorted((index, name) for name, index in ids.items() if index not in (pad, unk, eos))
    return [*SPECIALS, *(name for _, name in rest)], [unk, unk, pad, eos, *(index for index, _ in rest)]


def _model_config(config: Mapping, path: Path) -> TransformerConfig:
    for name in ("attention_heads", "ffn_dim"):
        if config.get(f"encoder_{name}") != config.get(f"decoder_{name}"):
            raise UserError(f"{path}: encoder_{name} and decoder_{name} differ; they must be equal")
    lacking = [theirs for theirs in (*NAMES.values(), "activation_function") if theirs not in config]
    if lacking:
        raise UserError(f"{path}: lacks {lacking[0]!r}; save the model again with transformers")
    activation = config["activation_function"]
    if activation not in list(ACTIVATIONS):
        known = ", ".join(ACTIVATIONS)
        raise UserError(f"{path}: activation_function is {shown(activation)}; it must be one of {known}")
    values = {ours: config[theirs] for ours, theirs in NAMES.items()}
    values |= {ours: float(values[ours]) for ours in NAMES if "dropout" in ours and type(values[ours]) is int}
    values |= {"activation": ACTIVATIONS[activation], "output_bias": True, **EXPRESSIBLE}
    return settings.from_json(TransformerConfig, values, lambda name: f"{path}: {NAMES.get(name, name)}")


def _read_tensors(directory: Path) -> tuple[dict[str, np.ndarray], str]:
    """The weights, and a hash of the file or of the files that their index names."""
    path, index = directory / WEIGHTS, directory / f"{WEIGHTS}.index.json"
    if path.exists() or not index.exists():
        if not path.exists() and (directory / "pytorch_model.bin").exists():
            raise UserError(f"{directory}: pytorch_model.bin is pickled and not read; save the model with safetensors")
        return tensor_files.read(path), files.sha256_file(path)
    listed = require_form(read_object(index), {"weight_map": {...: str}}, index, "download the file again")
    parts = [inside(directory, name, index) for name in sorted(set(listed["weight_map"].values()))]
    tensors = {name: tensor for part in parts for name, tensor in tensor_files.read(part).items()}
    return tensors, files.sha256_json({part.name: files.sha256_file(part) for part in parts})


def _read_bias(tensors: dict, named: int, size: int, directory: Path) -> np.ndarray:
    """The output bias [V] of the rows, 0 where the file has none; what is lower than NEVER becomes NEVER.

    transformers resizes it to the tokenizer's length even where the embedding is padded beyond that.
    """
    name = "final_logits_bias"
    found = tensors[name].shape[-1:] if name in tensors else (size,)
    width = found[0] if found and named <= found[0] <= size else size
    bias = _take(tensors, name, (1, width), directory, default=0.0, finite=False)[0]
    if np.isnan(bias).any() or (bias == np.inf).any():
        raise UserError(f"{directory}: {name} holds values that are not numbers; download the file again")
    return np.maximum(bias, np.float32(NEVER))


def _take(
    tensors: dict, name: str, shape: tuple[int, ...], directory: Path, default: float | None = None, finite: bool = True
) -> np.ndarray:
    """Remove a tensor and return it in float32; UserError if it is missing, has another shape, or is not finite."""
    if name not in tensors and default is not None:
        return np.full(shape, default, np.float32)
    if name not in tensors or tensors[name].shape != shape:
        found = list(tensors[name].shape) if name in tensors else "missing"
        raise UserError(f"{directory}: {WEIGHTS}: {name} is {found}, expected {list(shape)}; download the file again")
    tensor = tensors.pop(name)
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        raise UserError(f"{directory}: {WEIGHTS}: {name} is {tensor.dtype}; quantised weights are not supported")
    tensor = tensor.astype(np.float32)
    if finite and not np.isfinite(tensor).all():
        raise UserError(
            f"{directory}: {WEIGHTS}: {name} has values that are not finite; use another copy or checkpoint"
        )
    return tensor


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


def _vocabularies(directory: Path, entries: list[str], added: tuple[Added, ...]) -> vocabulary.Vocabularies:
    source, target = (files.read_bytes(directory / name) for name in ("source.spm", "target.spm"))
    try:
        return vocabulary.mapped(source, target, entries, added)
    except UserError as error:  # it begins with the name of the file
        raise UserError(f"{directory}/{error}") from None


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
