"""The paper's LSTM in PyTorch as OpenNMT-py has it: cuDNN's `nn.LSTM` encodes, `nn.LSTMCell`s decode step by step."""

import torch
from torch import nn

from seqkd_jax.config import LSTMConfig


class LSTM(nn.Module):
    """Attention and input feeding, one direction. Bias names and shapes are those of torch.nn."""

    def __init__(self, config: LSTMConfig, source_entries: int, target_entries: int):
        super().__init__()
        d = config.size
        self.source, self.target = nn.Embedding(source_entries, d), nn.Embedding(target_entries, d)
        self.encoder = nn.LSTM(d, d, config.layers, batch_first=True)
        self.cells = nn.ModuleList(nn.LSTMCell(d if layer else 2 * d, d) for layer in range(config.layers))
        self.attention, self.combine = nn.Linear(d, d, bias=False), nn.Linear(2 * d, d, bias=False)
        self.output = nn.Linear(d, target_entries)

    def keys(self, states):
        """What the attention compares states [B,S,E] by: [B,E,S]."""
        return self.attention(states).transpose(1, 2).contiguous()

    def step(self, embedded, feed, state, states, keys, padding=None):
        """The attentional vector [N,E] and the state of every layer after one token more; padding: [N,S] or None."""
        below, after = torch.cat([embedded, feed], -1), []
        for cell, before in zip(self.cells, state, strict=True):
            below, c = cell(below, before)
            after.append((below, c))
        scores = torch.bmm(below[:, None], keys)
        if padding is not None:
            scores = scores.masked_fill(padding[:, None], float("-inf"))
        context = torch.bmm(torch.softmax(scores, -1), states)[:, 0]
        return torch.tanh(self.combine(torch.cat([context, below], -1))), after

    def forward(self, inputs):
        """Logits [B,T,V] of (source [B,S], target_in [B,T]) without padding."""
        source, target = inputs
        states, (h, c) = self.encoder(self.source(source))
        keys, state = self.keys(states), list(zip(h.unbind(0), c.unbind(0), strict=True))
        feed, vectors = torch.zeros_like(states[:, 0]), []
        for embedded in self.target(target).unbind(1):
            feed, state = self.step(embedded, feed, state, states, keys)
            vectors.append(feed)
        return self.output(torch.stack(vectors, 1))
