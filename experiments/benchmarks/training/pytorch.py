"""The same update in PyTorch, as its users write it: modules of torch.nn, eager or compiled, where ours is computed."""

import math

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from experiments.benchmarks.benchmark import cores
from experiments.benchmarks.pytorch_lstm import LSTM
from experiments.benchmarks.training.ours import Update
from experiments.benchmarks.training.subjects import Subject, batch, teacher_kernel
from seqkd_jax.config import LSTMConfig, SequenceTransformerConfig, TransformerConfig


class Transformer(nn.Module):
    """`nn.Transformer` with one embedding for source, target and output, and sinusoids."""

    def __init__(self, config: TransformerConfig, entries: int):
        super().__init__()
        self.embedding = nn.Embedding(entries, config.width)
        self.layers = nn.Transformer(
            config.width, config.heads, config.encoder_layers, config.decoder_layers, config.feed_forward, 0.0,
            config.activation, batch_first=True, norm_first=config.norm == "pre",
        )  # fmt: skip
        position = torch.arange(512)[:, None] * torch.exp(
            torch.arange(config.width // 2) * (-math.log(10_000) / max(config.width // 2 - 1, 1))
        )
        self.register_buffer("positions", torch.cat([position.sin(), position.cos()], -1))
        nn.init.normal_(self.embedding.weight, std=config.width**-0.5)

    def forward(self, inputs):
        source, target = (self._embedded(ids) for ids in inputs)
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1], target.device)
        return self.layers(source, target, tgt_mask=causal, tgt_is_causal=True) @ self.embedding.weight.T

    def _embedded(self, ids):
        return self.embedding(ids) * self.embedding.embedding_dim**0.5 + self.positions[: ids.shape[1]]


class LanguageModel(nn.Module):
    """A causal `nn.TransformerEncoder` with learned positions and tied embeddings."""

    def __init__(self, config: SequenceTransformerConfig, entries: int):
        super().__init__()
        self.embedding = nn.Embedding(entries, config.width)
        self.positions = nn.Parameter(torch.randn(config.max_length, config.width) * config.init_scale)
        layer = nn.TransformerEncoderLayer(
            config.width, config.heads, config.feed_forward, 0.0, config.activation, batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(config.width)
        self.layers = nn.TransformerEncoder(layer, config.layers, norm, enable_nested_tensor=False)
        self.bias = nn.Parameter(torch.zeros(entries))
        nn.init.normal_(self.embedding.weight, std=config.init_scale)

    def forward(self, ids):
        x = self.embedding(ids) + self.positions[: ids.shape[1]]
        causal = nn.Transformer.generate_square_subsequent_mask(ids.shape[1], ids.device)
        return self.layers(x, causal, is_causal=True) @ self.embedding.weight.T + self.bias


MODELS = {
    LSTMConfig: lambda config, entries: LSTM(config, entries, entries),
    TransformerConfig: Transformer,
    SequenceTransformerConfig: LanguageModel,
}


def update(subject: Subject, seed: int, compiled: bool = False) -> Update:
    """The update of a random start; compiled: by torch.compile. bfloat16 as PyTorch has it, by autocast."""
    torch.set_num_threads(cores())
    torch.manual_seed(seed)
    device = torch.device("cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu")
    model = MODELS[type(subject.model)](subject.model, subject.entries).to(device)
    mixed = torch.autocast(device.type, torch.bfloat16, enabled=subject.model.compute != "float32")
    forward = torch.compile(model) if compiled else model
    optimiser = torch.optim.Adam(model.parameters(), 1e-3, (0.9, 0.98), 1e-9)
    made = batch(subject, seed)
    ids = lambda array: torch.from_numpy(array).long().to(device)  # noqa: E731
    inputs = tuple(map(ids, made.inputs)) if subject.translates else ids(made.inputs)
    labels, features, kernel = ids(made.labels).flatten(), None, None
    if subject.teacher:
        features, kernel = made.teacher_features, teacher_kernel(subject, seed)
        features, kernel = (torch.from_numpy(array).to(device) for array in (features, kernel))

    def run() -> float:
        wanted = labels
        if features is not None:
            with torch.no_grad():
                wanted = torch.softmax(features @ kernel.T, -1).flatten(0, 1)
        with mixed:
            logits = forward(inputs)
        loss = functional.cross_entropy(logits.float().flatten(0, 1), wanted)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        return loss.item()

    return Update(run, int(np.sum([parameter.numel() for parameter in model.parameters()])))
