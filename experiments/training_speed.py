"""Training speed of the paper's LSTM, beside PyTorch on the same cores, in one interleaved run.

    python -m experiments.training_speed [--size 512] [--vocabulary 8000] [--rows 64] [--steps 20] [--repeats 7]

Both do the same work: forward, backward, clipping and an Adam update of a model with input feeding; PyTorch loops over
`nn.LSTMCell`s as OpenNMT-py does with input feeding. Prints target tokens/s, the fraction of the machine's measured
matrix-product peak, and the ratio with its range over the interleaved repetitions. Needs `pip install torch`.
"""

import time
from dataclasses import dataclass

import numpy as np
import tyro


@dataclass(frozen=True)
class Speed:
    """What to time."""

    layers: int = 2
    """Layers of encoder and decoder."""
    size: int = 512
    """Width."""
    vocabulary: int = 8000
    """Entries on each side."""
    rows: int = 64
    """Sentences in a batch."""
    steps: int = 20
    """Source and target positions of each."""
    repeats: int = 7
    """Interleaved repetitions."""
    dropout: float = 0.0
    """Dropout rate (JAX and PyTorch draw their masks differently)."""


def torch_step(speed: Speed, source, target_in, labels):
    """A closure that does one training step in PyTorch and returns the loss."""
    import torch
    from torch import nn

    d, v = speed.size, speed.vocabulary
    cells = [nn.LSTMCell(2 * d if layer == 0 else d, d) for layer in range(speed.layers)]
    model = nn.ModuleDict(
        {
            "source": nn.Embedding(v, d),
            "target": nn.Embedding(v, d),
            "encoder": nn.LSTM(d, d, speed.layers, batch_first=True, dropout=speed.dropout),
            "cells": nn.ModuleList(cells),
            "attention": nn.Linear(d, d, bias=False),
            "combine": nn.Linear(2 * d, d, bias=False),
            "output": nn.Linear(d, v),
            "dropout": nn.Dropout(speed.dropout),
        }
    )
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    source, target_in, labels = (torch.from_numpy(x).long() for x in (source, target_in, labels))

    def step():
        states, (h, c) = model["encoder"](model["source"](source))
        keys = model["attention"](states).transpose(1, 2).contiguous()
        state = [(h[layer], c[layer]) for layer in range(speed.layers)]
        feed, vectors = torch.zeros(speed.rows, d), []
        for embedded in model["target"](target_in).unbind(1):
            below = torch.cat([embedded, feed], -1)
            for layer, cell in enumerate(cells):
                state[layer] = cell(model["dropout"](below) if layer else below, state[layer])
                below = state[layer][0]
            weights = torch.softmax(torch.bmm(below[:, None], keys), -1)
            context = torch.bmm(weights, states)[:, 0]
            feed = model["dropout"](torch.tanh(model["combine"](torch.cat([context, below], -1))))
            vectors.append(feed)
        logits = model["output"](torch.stack(vectors, 1))
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        return float(loss.detach())

    return step


def jax_step(speed: Speed, source, target_in, labels):
    """The same in JAX: a closure that does one update of `seqkd_jax.train` and returns the loss; and its FLOPs."""
    import jax

    from seqkd_jax import models, performance, train
    from seqkd_jax.base import Batch
    from seqkd_jax.config import LSTMConfig, TrainConfig

    model = models.build(
        LSTMConfig(layers=speed.layers, size=speed.size, dropout=speed.dropout), speed.vocabulary, speed.vocabulary
    )
    config = TrainConfig()
    devices = tuple(jax.local_devices()[:1])
    update = train.update_for(model, config, devices)
    batch = Batch((source, target_in), labels, np.ones(labels.shape, np.float32))
    arguments = (*train.arrange(batch, 1, 1), train.settings(config, 1e-3), None)
    state = train.replicate(train.start_state(model, config), devices)
    flops = performance.count_flops(update, state, *arguments)

    def step():
        nonlocal state
        state, metrics = update(state, *arguments)
        return float(metrics.loss_sum) / labels.size

    return step, flops


def main(speed: Speed) -> None:
    """Time both, one after the other in turn, and print what came out."""
    import torch

    from seqkd_jax import performance

    rng = np.random.default_rng(0)
    ids = [rng.integers(4, speed.vocabulary, (speed.rows, speed.steps)).astype(np.int32) for _ in range(3)]
    ours, flops = jax_step(speed, *ids)
    steps, seconds = {"seqkd_jax": ours, "PyTorch": torch_step(speed, *ids)}, {"seqkd_jax": [], "PyTorch": []}
    for step in steps.values():
        step(), step()
    for _ in range(speed.repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    peak = performance.matrix_peak()
    print(
        f"{speed}; {torch.get_num_threads()} threads; "
        f"measured peak {peak / 1e9:.0f} GFLOP/s, {flops / 1e9:.1f} GFLOP an update"
    )
    for name, times in seconds.items():
        median = float(np.median(times))
        tokens = speed.rows * speed.steps
        print(
            f"{name}: {tokens / median:,.0f} target tokens/s (best {tokens / min(times):,.0f}), "
            f"{flops / median / peak:.0%} of peak"
        )
    ratios = np.array(seconds["PyTorch"]) / np.array(seconds["seqkd_jax"])
    print(
        f"seqkd_jax / PyTorch: median {np.median(ratios):.2f}, "
        f"range {ratios.min():.2f} to {ratios.max():.2f} over {speed.repeats} pairs"
    )


if __name__ == "__main__":
    main(tyro.cli(Speed, description=__doc__))
