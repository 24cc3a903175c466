"""Export: a checkpoint to a Marian directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from seqkd_jax import checkpoint, models
from seqkd_jax.checkpoint import model_card, tensor_files
from seqkd_jax.checkpoint.interchange import load_sound
from seqkd_jax.config import TransformerConfig
from seqkd_jax.data.vocabulary import SPECIALS, Vocabularies
from seqkd_jax.marian.layout import (
    EXPRESSIBLE,
    FIXED_TOKENIZER,
    KINDS,
    NEVER,
    WEIGHTS,
    embedding_scale,
    modules,
    sinusoids,
)
from seqkd_jax.types import BOS, EOS, PAD, UNK, UserError
from seqkd_jax.utils import files

HOLDS = ("generation_config.json", "*config.json", "vocab.json", WEIGHTS, "source.spm", "target.spm", "README.md")
CARD = model_card.Form(
    header={
        "library_name": "transformers",
        "pipeline_tag": "translation",
        "tags": ["translation", "marian", "seqkd_jax"],
    },
    use="""
```python
from transformers import MarianMTModel, MarianTokenizer

tokenizer, model = MarianTokenizer.from_pretrained(DIRECTORY), MarianMTModel.from_pretrained(DIRECTORY)
batch = tokenizer(["A sentence."], return_tensors="pt", padding=True)
print(tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True))
```

CTranslate2's converter `ct2-transformers-converter` reads the directory too.
""",
    limits=[],
)
EXTRA = {PAD: "<blank>", BOS: "<start>"}  # their names in an exported directory, whose own <pad> is the last entry


def export_marian(directory: Path | str, out: Path | str, max_positions: int = 512) -> Path:
    """Export a Transformer's checkpoint for MarianMTModel, MarianTokenizer and CTranslate2's converter.

    max_positions: greatest length of a sentence in tokens, since transformers has a table of positions. UserError: the
    model or its vocabulary cannot be expressed in Marian.
    """
    loaded = load_sound(directory)
    config, entries = _require_expressible(loaded, directory), loaded.vocabularies.target.entries
    params = loaded.params["params"]
    table = np.asarray(params["target_embedding"])
    bias = np.asarray(params["output_bias"]) if config.output_bias else np.zeros(len(table), np.float32)
    start = table[BOS]
    extra = [i for i in EXTRA if bias[i] > NEVER / 2 and (i != BOS or start.any())]
    order = [EOS, UNK, *range(len(SPECIALS), len(table)), *extra]
    names = [*(EXTRA.get(i, entries[i]) for i in order), SPECIALS[PAD]]
    if len(set(names)) < len(names):
        raise UserError(f"{directory}: its vocabulary has an entry {' or '.join(EXTRA.values())}; rename it")
    last = NEVER if start.any() else bias[BOS]
    tensors = {
        "model.shared.weight": np.concatenate([table[order], np.zeros_like(table[:1])]),
        "final_logits_bias": np.concatenate([bias[order], [last]])[None].astype(np.float32),
    }
    if start.any() or config.positions != KINDS[0]:
        for side in ("encoder", "decoder"):
            tensors[f"model.{side}.embed_positions.weight"] = sinusoids(max_positions, config.width, config.positions)
        tensors["model.decoder.embed_positions.weight"][0] += start * np.float32(embedding_scale(config))
    for ours, theirs in modules(config):
        tensors |= _parted(_get(params, ours), theirs)
    never = [[names.index(name)] for name in (*(EXTRA[i] for i in extra), SPECIALS[PAD])]
    with files.new_directory(out, HOLDS) as path:
        tensor_files.write(path / WEIGHTS, tensors, {"format": "pt"})
        for name, value in _descriptions(config, names, never, max_positions, loaded.vocabularies).items():
            files.write_json(path / name, value)
        for name, side in (("source.spm", loaded.vocabularies.source), ("target.spm", loaded.vocabularies.target)):
            files.write_bytes(path / name, side.data)
        card = CARD._replace(limits=[f"A sentence has at most {max_positions:,} tokens.", *_limits(tensors)])
        files.write_text(path / "README.md", model_card.text(loaded, Path(out).name, card))
    return Path(out)


def _limits(tensors: Mapping[str, np.ndarray]) -> list[str]:
    """What a user of the directory must know."""
    if not any("embed_positions" in name for name in tensors):
        return []
    return ["`save_pretrained` of transformers leaves out the position tables of this model; copy the files instead."]


def _require_expressible(loaded: checkpoint.Checkpoint, directory: Path | str) -> TransformerConfig:
    """The configuration, if Marian can express it."""
    config = loaded.model_config
    if not isinstance(config, TransformerConfig):
        kind = models.kind_of(config)
        raise UserError(f"{directory}: the model is of kind {kind}; a Marian directory can hold only a transformer")
    for name, value in EXPRESSIBLE.items():
        found = getattr(config, name)
        if found != value:
            raise UserError(f"{directory}: {name} is {found}; a Marian directory needs {value}: train such a model")
    vocabularies = loaded.vocabularies
    if vocabularies.config.kind == "words":
        raise UserError(f"{directory}: its vocabulary is of kind words; a Marian directory needs sentencepiece")
    if vocabularies.source.entries != vocabularies.target.entries:
        raise UserError(f"{directory}: it has separate vocabularies; a Marian directory needs a joint one")
    return config


def _descriptions(
    config: TransformerConfig, names: list[str], never: list, max_positions: int, vocabularies: Vocabularies
) -> dict[str, Any]:
    """The JSON files of a Marian directory."""
    eos, pad = names.index(SPECIALS[EOS]), names.index(SPECIALS[PAD])
    ids = {"pad_token_id": pad, "eos_token_id": eos, "decoder_start_token_id": pad, "forced_eos_token_id": None}
    sides = {}
    for side, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        sizes = {"layers": layers, "attention_heads": config.heads, "ffn_dim": config.feed_forward, "layerdrop": 0.0}
        sides |= {f"{side}_{name}": value for name, value in sizes.items()}
    model = {
        "architectures": ["MarianMTModel"],
        "model_type": "marian",
        "d_model": config.width,
        "vocab_size": len(names),
        "decoder_vocab_size": len(names),
        "max_position_embeddings": max_positions,
        "activation_function": config.activation,
        "scale_embedding": config.scale_embeddings,
        "share_encoder_decoder_embeddings": True,
        "tie_word_embeddings": True,
        "is_encoder_decoder": True,
        "use_cache": True,
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.activation_dropout,
        "dtype": "float32",
        "torch_dtype": "float32",
    }
    tokenizer = {"tokenizer_class": "MarianTokenizer", "model_max_length": max_positions, **FIXED_TOKENIZER}
    if added := vocabularies.source.added:
        about = {names.index(token.text): token for token in added}
        tokenizer["added_tokens_decoder"] = {
            str(index): {
                "content": token.text,
                "normalized": not token.special,
                **dict(list(token._asdict().items())[1:]),
            }
            for index, token in about.items()
        }
        tokenizer["additional_special_tokens"] = [token.text for token in added if token.special]
    return {
        "config.json": model | sides | ids,
        "generation_config.json": {**ids, "bad_words_ids": never, "max_length": max_positions},
        "tokenizer_config.json": tokenizer,
        "vocab.json": {name: index for index, name in enumerate(names)},
    }


def _parted(module: Mapping, theirs: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The parts of a module as their tensors: the inverse of `load._joined`."""
    weight = module["scale"] if "scale" in module else np.asarray(module["kernel"]).T
    parts = {}
    for name, value in (("weight", weight), ("bias", module["bias"])):
        pieces = np.split(np.asarray(value), len(theirs))
        parts |= {f"{their}.{name}": piece for their, piece in zip(theirs, pieces, strict=True)}
    return parts


def _get(tree: Mapping, path: str) -> Mapping:
    for name in path.split("/"):
        tree = tree[name]
    return tree
