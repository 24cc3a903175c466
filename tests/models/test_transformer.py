"""The Transformer against PyTorch's layers with the same weights, and its own options."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from seqkd_jax.config import TransformerConfig
from seqkd_jax.models import build, parameter_count
from seqkd_jax.models.transformer import _sinusoids
from seqkd_jax.models.transformer_layers import ACTIVATIONS
from seqkd_jax.types import PAD, UserError

SMALL = TransformerConfig(encoder_layers=1, decoder_layers=2, width=16, heads=4, feed_forward=24, dropout=0.0)
SOURCE = np.array([[5, 6, 7, 8, 3], [9, 5, 3, 0, 0]], np.int32)
TARGET_IN = np.array([[2, 4, 5, 6], [2, 7, 8, 0]], np.int32)


def torch_layer(torch, config, decoder):
    """A PyTorch layer without dropout; decoders attend to the source too."""
    kind = torch.nn.TransformerDecoderLayer if decoder else torch.nn.TransformerEncoderLayer
    activation = {"relu": torch.relu, "gelu": torch.nn.functional.gelu, "swish": torch.nn.functional.silu}
    return kind(
        config.width,
        config.heads,
        config.feed_forward,
        dropout=0.0,
        activation=activation[config.activation],
        batch_first=True,
        norm_first=config.norm == "pre",
    )


def layer_pairs(layer, ours):
    """(PyTorch parameter, path in our parameters, part of a fused kernel) of one layer."""
    pairs = []

    def linear(theirs, *path):
        pairs.extend([(theirs.weight, (*ours, *path, "kernel")), (theirs.bias, (*ours, *path, "bias"))])

    def norm(theirs, name):
        path = (*ours, f"{name}_residual", "norm")
        pairs.extend([(theirs.weight, (*path, "scale")), (theirs.bias, (*path, "bias"))])

    linear(layer.linear1, "feed_forward", "inner")
    linear(layer.linear2, "feed_forward", "outer")
    linear(layer.self_attn.out_proj, "attention", "output")
    pairs.append((layer.self_attn.in_proj_weight, (*ours, "attention", "query_key_value", "kernel")))
    pairs.append((layer.self_attn.in_proj_bias, (*ours, "attention", "query_key_value", "bias")))
    norm(layer.norm1, "attention")
    if hasattr(layer, "multihead_attn"):
        linear(layer.multihead_attn.out_proj, "source_attention", "output")
        pairs.append((layer.multihead_attn.in_proj_weight, (*ours, "source_attention", "kernel")))
        pairs.append((layer.multihead_attn.in_proj_bias, (*ours, "source_attention", "bias")))
        norm(layer.norm2, "source")
        norm(layer.norm3, "feed_forward")
    else:
        norm(layer.norm2, "feed_forward")
    return pairs


def look_up(tree, path):
    """Our array at a path; PyTorch's one fused projection of attention to the source is two of ours, side by side."""
    if path[-2:-1] == ("source_attention",):
        attention = look_up(tree, path[:-1])
        return np.concatenate([attention["query"][path[-1]], attention["key_value"][path[-1]]], axis=-1)
    for name in path:
        tree = tree[name]
    return tree


def run_torch(torch, config, params, cotangent):
    """Features of PyTorch's layers with our parameters, and [(our path, gradient)] of sum(features * cotangent)."""
    tree = jax.tree.map(np.asarray, params["params"])

    def tensor(x):
        return torch.tensor(np.asarray(x), dtype=torch.float32)

    pairs, stacks = [], {}
    for name, depth in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        stacks[name] = [torch_layer(torch, config, name == "decoder") for _ in range(depth)]
        for index, layer in enumerate(stacks[name]):
            pairs.extend(layer_pairs(layer, (f"{name}_{index}",)))
    for parameter, path in pairs:
        parameter.data = tensor(np.asarray(look_up(tree, path)).T)
    embedding = tensor(tree["target_embedding"]).requires_grad_()
    pairs.append((embedding, ("target_embedding",)))

    def embed(ids):
        positions = tensor(_sinusoids(np.arange(ids.shape[1]), config.width))
        return embedding[torch.tensor(ids).long()] * math.sqrt(config.width) + positions

    def final(x, name):
        if config.norm == "post":
            return x
        scale, bias = (tensor(tree[name][part]).requires_grad_() for part in ("scale", "bias"))
        pairs.extend([(scale, (name, "scale")), (bias, (name, "bias"))])
        return torch.nn.functional.layer_norm(x, x.shape[-1:], scale, bias, 1e-5)

    padding = torch.tensor(SOURCE == PAD)
    causal = torch.ones(TARGET_IN.shape[1], TARGET_IN.shape[1]).triu(1).bool()
    x = embed(SOURCE)
    for layer in stacks["encoder"]:
        x = layer(x, src_key_padding_mask=padding)
    memory, x = final(x, "encoder_norm"), embed(TARGET_IN)
    for layer in stacks["decoder"]:
        x = layer(x, memory, tgt_mask=causal, memory_key_padding_mask=padding)
    x = final(x, "decoder_norm")
    (x * tensor(cotangent)).sum().backward()
    return x.detach().numpy(), [
        (path, parameter.grad.numpy() if path[0] == "target_embedding" else parameter.grad.numpy().T)
        for parameter, path in pairs
    ]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    """Exact GELU, as in BERT and GPT-2's paper, not its tanh form."""
    x = np.linspace(-8, 8, 65)
    expected = {
        "relu": np.maximum(x, 0),
        "gelu": x * scipy.stats.norm.cdf(x),
        "swish": x / (1 + np.exp(-x)),
    }
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(x, jnp.float32)), expected[name], atol=1e-5)


@pytest.mark.peers
@pytest.mark.parametrize(("norm", "activation"), [("pre", "relu"), ("post", "gelu"), ("post", "swish")])
def test_values_and_gradients_are_those_of_pytorch(norm, activation):
    import torch

    config = dataclasses.replace(SMALL, norm=norm, activation=activation)
    model = build(config, 11, 11)
    rng = np.random.default_rng(3)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    # biases and norms at random too, or a mix-up of theirs goes unseen
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)
    cotangent = rng.normal(size=(*TARGET_IN.shape, config.width)).astype(np.float32)

    def run(params):
        features = model.features(params, (SOURCE, TARGET_IN), None)
        return (features * cotangent).sum(), features

    gradients, features = jax.jit(jax.grad(run, has_aux=True))(params)
    expected, expected_gradients = run_torch(torch, config, params, cotangent)
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-5)
    tree = jax.tree.map(np.asarray, gradients["params"])
    for path, gradient in expected_gradients:
        scale = max(np.abs(gradient).max(), 1.0)
        actual, gradient = look_up(tree, path) / scale, gradient / scale
        np.testing.assert_allclose(actual, gradient, rtol=0, atol=1e-5, err_msg=str(path))
    split = 2 * config.decoder_layers  # PyTorch has the source attention's projections in one
    assert len(jax.tree.leaves(tree)) == len(expected_gradients) + split, "a parameter was not compared"


@pytest.mark.parametrize(
    ("tied", "norm", "biases", "output_bias"),
    [("none", "pre", True, False), ("target", "post", False, True), ("all", "pre", False, False)],
)
def test_parameters_are_counted_by_formula(tied, norm, biases, output_bias):
    config = dataclasses.replace(SMALL, encoder_layers=3, tied=tied, norm=norm, biases=biases, output_bias=output_bias)
    source_size, target_size, e, f = (13 if tied == "all" else 29), 13, config.width, config.feed_forward
    attention = 4 * e * e + 4 * e * biases
    feed_forward = 2 * e * f + (e + f) * biases
    expected = 3 * (attention + feed_forward + 2 * 2 * e) + 2 * (2 * attention + feed_forward + 3 * 2 * e)
    expected += 2 * 2 * e if norm == "pre" else 0
    expected += {"none": source_size + 2 * target_size, "target": source_size + target_size, "all": target_size}[
        tied
    ] * e
    expected += target_size * output_bias
    assert parameter_count(build(config, source_size, target_size)) == expected


def test_positions_are_marians():
    width, positions = 6, _sinusoids(np.arange(50), 6)
    for position in (0, 1, 49):
        for i in range(width // 2):
            angle = position * math.exp(-i * math.log(10000) / (width // 2 - 1))
            np.testing.assert_allclose(positions[position, i], math.sin(angle), atol=1e-5)
            np.testing.assert_allclose(positions[position, width // 2 + i], math.cos(angle), atol=1e-5)
    np.testing.assert_array_equal(_sinusoids(np.array([[7]]), 6)[0, 0], positions[7])
    assert np.isfinite(_sinusoids(np.arange(3), 2)).all()


def test_the_scale_of_initialisation():
    """Fused kernels start as separate ones do, and scaled embeddings at unit size."""
    config = SMALL
    params = jax.jit(build(config, 500, 500).init)(jax.random.key(0))["params"]
    decoder = params["decoder_0"]
    for name, kernel in {
        "query_key_value": decoder["attention"]["query_key_value"],
        "query": decoder["source_attention"]["query"],
        "key_value": decoder["source_attention"]["key_value"],
    }.items():
        bound = math.sqrt(3 / (2 * config.width))  # fairseq: Glorot with gain 1/sqrt(2) on each ExE part
        np.testing.assert_allclose(np.abs(kernel["kernel"]).max(), bound, rtol=0.02, err_msg=name)
    embedded = np.asarray(params["target_embedding"]) * math.sqrt(config.width)
    np.testing.assert_allclose(embedded.std(), 1, rtol=0.05)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"heads": 3}, "multiple of transformer.heads"),
        ({"width": 15, "heads": 5}, "even"),
        ({"decoder_layers": 0}, "decoder_layers is 0"),
        ({"tied": "all"}, "joint"),
        ({"attention_dropout": 1.0}, "attention_dropout"),
    ],
)
def test_impossible_configurations_are_refused_in_one_line(change, words):
    with pytest.raises(UserError, match=words) as caught:
        build(dataclasses.replace(SMALL, **change), 11, 12 if "tied" in change else 11)
    assert "\n" not in str(caught.value)
