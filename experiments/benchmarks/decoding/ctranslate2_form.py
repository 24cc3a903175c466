"""A Transformer of ours as a model of CTranslate2, written directly: Marian's form cannot hold pre-norm ones."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.benchmarks.workers import Missing
from seqkd_jax.checkpoint import Checkpoint
from seqkd_jax.marian.layout import embedding_scale, sinusoids
from seqkd_jax.types import BOS, EOS, PAD, UNK

ACTIVATIONS = {"relu": "RELU", "gelu": "GELU", "swish": "SWISH"}
POSITIONS = 512  # what sentences may be long there, in tokens


def convert(model: Checkpoint, out: Path, compute_type: str) -> None:
    """Write the model's directory, its weights of this type. Missing: CTranslate2 has no such model."""
    from ctranslate2.specs import common_spec, transformer_spec

    config, vocabularies = model.model_config, model.vocabularies
    if not config.biases:
        raise Missing("biases are False; CTranslate2's norms and layers have them")
    params = model.params["params"]
    spec = transformer_spec.TransformerSpec.from_config(
        (config.encoder_layers, config.decoder_layers),
        config.heads,
        pre_norm=config.norm == "pre",
        activation=getattr(common_spec.Activation, ACTIVATIONS[config.activation]),
    )
    source = params.get("source_embedding", params["target_embedding"])
    sides = {
        "encoder": (spec.encoder, spec.encoder.embeddings[0], source),
        "decoder": (spec.decoder, spec.decoder.embeddings, params["target_embedding"]),
    }
    for name, (side, embedding, table) in sides.items():
        embedding.weight = np.array(table)  # a copy: quantisation works in place
        side.scale_embeddings = embedding_scale(config)
        side.position_encodings.encodings = sinusoids(POSITIONS, config.width, config.positions)
        if config.norm == "pre":
            _norm(side.layer_norm, params[f"{name}_norm"])
        for number, layer in enumerate(side.layer):
            _layer(layer, params[f"{name}_{number}"])
    spec.decoder.projection.weight = np.array(params.get("output_kernel", params["target_embedding"]))
    if config.output_bias:
        spec.decoder.projection.bias = np.array(params["output_bias"])
    entries = vocabularies.target.entries
    spec.register_source_vocabulary(list(vocabularies.source.entries))
    spec.register_target_vocabulary(list(entries))
    spec.config.bos_token = spec.config.decoder_start_token = entries[BOS]
    spec.config.eos_token, spec.config.unk_token = entries[EOS], entries[UNK]
    spec.validate()
    spec.optimize(quantization=compute_type)
    out.mkdir(parents=True)
    spec.save(str(out))


def never(model: Checkpoint) -> list[list[str]]:
    """What must not come out, as CTranslate2's suppress_sequences."""
    return [[model.vocabularies.target.entries[index]] for index in (PAD, BOS)]


def _layer(layer, params: Mapping) -> None:
    _linear(layer.self_attention.linear[0], params["attention"]["query_key_value"])
    _linear(layer.self_attention.linear[1], params["attention"]["output"])
    _norm(layer.self_attention.layer_norm, params["attention_residual"]["norm"])
    if "source_attention" in params:
        for place, name in enumerate(("query", "key_value", "output")):
            _linear(layer.attention.linear[place], params["source_attention"][name])
        _norm(layer.attention.layer_norm, params["source_residual"]["norm"])
    _linear(layer.ffn.linear_0, params["feed_forward"]["inner"])
    _linear(layer.ffn.linear_1, params["feed_forward"]["outer"])
    _norm(layer.ffn.layer_norm, params["feed_forward_residual"]["norm"])


def _linear(linear, params: Mapping) -> None:
    linear.weight, linear.bias = np.array(np.asarray(params["kernel"]).T, order="C"), np.array(params["bias"])


def _norm(norm, params: Mapping) -> None:
    norm.gamma, norm.beta = np.array(params["scale"]), np.array(params["bias"])
