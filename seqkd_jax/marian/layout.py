"""How our checkpoints and Marian directories correspond; used by import and export."""

import math
from collections.abc import Iterator

import numpy as np

from seqkd_jax.config import TransformerConfig
from seqkd_jax.data.vocabulary import SPECIALS
from seqkd_jax.types import EOS, PAD, UNK

WEIGHTS = "model.safetensors"
NEVER = -1e9  # output bias of an entry with probability 0; finite, since 0 * infinity is NaN
KINDS = ("vaswani", "tensor2tensor")  # of positions; transformers computes the first where a file has no table

# Settings that a model must have to be exported.
EXPRESSIBLE = {"norm": "post", "tied": "all", "biases": True}

# Options that tokenizer_config.json must have; export writes them.
FIXED_TOKENIZER = {
    "separate_vocabs": False,
    "sp_model_kwargs": {},
    "unk_token": SPECIALS[UNK],
    "eos_token": SPECIALS[EOS],
    "pad_token": SPECIALS[PAD],
}

# Our module -> their modules, which are fused side by side in ours; only the decoder has source attention.
LAYER = {
    "attention/query_key_value": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention/output": ("self_attn.out_proj",),
    "attention_residual/norm": ("self_attn_layer_norm",),
    "source_attention/query": ("encoder_attn.q_proj",),
    "source_attention/key_value": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "source_attention/output": ("encoder_attn.out_proj",),
    "source_residual/norm": ("encoder_attn_layer_norm",),
    "feed_forward/inner": ("fc1",),
    "feed_forward/outer": ("fc2",),
    "feed_forward_residual/norm": ("final_layer_norm",),
}


def modules(config: TransformerConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(our module, their modules) for all layers."""
    for side, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        for layer in range(layers):
            for ours, theirs in LAYER.items():
                if side == "decoder" or not ours.startswith("source_"):
                    yield f"{side}_{layer}/{ours}", tuple(f"model.{side}.layers.{layer}.{name}" for name in theirs)


def embedding_scale(config: TransformerConfig) -> float:
    """The factor of the embeddings."""
    return math.sqrt(config.width) if config.scale_embeddings else 1.0


def sinusoids(length: int, width: int, kind: str) -> np.ndarray:
    """The position encodings [length, width] of models.transformer, rounded once."""
    half = width // 2
    steps = max(half - 1, 1) if kind == "tensor2tensor" else half
    angle = np.arange(length)[:, None] * 10_000.0 ** -(np.arange(half) / steps)
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=-1).astype(np.float32)
