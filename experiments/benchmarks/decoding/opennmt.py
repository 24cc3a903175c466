"""The paper's LSTM decoded in PyTorch as OpenNMT-py does it: the peer for recurrent models.

The encoder's states are tiled K times, all hypotheses are one batch of rows, states are reordered by indexing, and
sentences that have ended leave the batch at every step. The rules of the search are ours: 2K candidates, an EOS among
the first K ends a hypothesis, and a sentence ends when K hypotheses have ended.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from experiments.benchmarks.benchmark import cores
from experiments.benchmarks.decoding.peers import on_gpu
from experiments.benchmarks.decoding.systems import Loaded, Outputs, Sentences, in_place, sorted_batches
from experiments.benchmarks.pytorch_lstm import LSTM
from experiments.benchmarks.workers import Missing
from seqkd_jax.checkpoint import Checkpoint
from seqkd_jax.config import SearchConfig
from seqkd_jax.decoding.search import length_limits, length_penalty
from seqkd_jax.types import BOS, EOS, PAD, UNK


def open_nmt(rounded: bool, model: Checkpoint, scratch: Path) -> Loaded:
    """The decoder for a checkpoint of an LSTM with attention and input feeding that encodes forwards.

    rounded: in bfloat16, all but the probabilities.
    """
    config = model.model_config
    if config.bidirectional or not (config.attention and config.input_feeding and config.start_from_encoder):
        raise Missing("is written for the paper's LSTM: one direction, attention, input feeding, start from encoder")
    torch.set_num_threads(cores())
    device = torch.device("cuda" if on_gpu() and torch.cuda.is_available() else "cpu")
    network = _load(model).to(device, torch.bfloat16 if rounded else torch.float32).eval()

    def loaded(sentences: Sentences, rows: int, rules: SearchConfig) -> Callable[[], Outputs]:
        places = [part[::-1] for part in sorted_batches(sentences, rows)]  # packed sequences want the longest first
        sources = []
        for part in places:
            source = np.full((len(part), len(sentences[part[0]])), PAD, np.int64)
            for row, place in zip(source, part, strict=True):
                row[: len(sentences[place])] = sentences[place]
            sources.append(source)
        return lambda: in_place(places, [decode(source, rules) for source in sources])

    @torch.inference_mode()
    def decode(source: np.ndarray, rules: SearchConfig) -> Outputs:
        return _search(network, torch.from_numpy(source).to(device), source, rules)

    return loaded


@torch.no_grad()
def _load(model: Checkpoint) -> LSTM:
    """Our parameters in PyTorch's layers: kernels transposed, gates from i,f,o,g to i,f,g,o, the second bias 0."""
    params = {name: np.asarray(leaf) for name, leaf in model.params["params"].items()}
    network = LSTM(model.model_config, len(params["source_embedding"]), len(params["target_embedding"]))

    def gates(array: np.ndarray):
        i, f, o, g = np.split(array, 4, axis=-1)
        return torch.from_numpy(np.ascontiguousarray(np.concatenate([i, f, g, o], axis=-1).T))

    def fill(layer: nn.Module, suffix: str, name: str) -> None:
        kernel, bias = params[f"{name}_kernel"], params[f"{name}_bias"]
        inputs = len(kernel) - model.model_config.size
        values = {"weight_ih": gates(kernel[:inputs]), "weight_hh": gates(kernel[inputs:]), "bias_ih": gates(bias)}
        for part, value in (values | {"bias_hh": torch.zeros_like(values["bias_ih"])}).items():
            getattr(layer, f"{part}{suffix}").copy_(value)

    for layer, cell in enumerate(network.cells):
        fill(network.encoder, f"_l{layer}", f"encoder_forward_{layer}")
        fill(cell, "", f"decoder_{layer}")
    whole = {
        network.source.weight: params["source_embedding"],
        network.target.weight: params["target_embedding"],
        network.attention.weight: params["attention"],
        network.combine.weight: params["combine"].T,
        network.output.weight: params["output_kernel"],
        network.output.bias: params["output_bias"],
    }
    for parameter, value in whole.items():
        parameter.copy_(torch.from_numpy(value.copy()))
    return network


def _search(network: LSTM, source, on_host: np.ndarray, rules: SearchConfig) -> list[list[int]]:
    """The best hypothesis of each row of source [B,S], the longest first: target ids without EOS."""
    beam, device = rules.beam, source.device
    shortest, longest = length_limits(rules, (on_host != PAD).sum(1) - 1)
    lengths = (source != PAD).sum(1).cpu()
    packed, (h, c) = network.encoder(pack_padded_sequence(network.source(source), lengths, batch_first=True))
    states, _ = pad_packed_sequence(packed, batch_first=True)
    tiled = [x.repeat_interleave(beam, 0) for x in (states, network.keys(states), source == PAD)]
    state = [(h[layer].repeat_interleave(beam, 0), c[layer].repeat_interleave(beam, 0)) for layer in range(len(h))]
    rows = list(range(len(source)))  # sentences that go on
    feed = torch.zeros_like(state[0][0])
    token = torch.full((len(rows) * beam,), BOS, device=device)
    totals = torch.full((len(rows), beam), float("-inf"), device=device)
    totals[:, 0] = 0
    tokens = torch.empty((len(rows), beam, 0), dtype=torch.long, device=device)
    never = torch.tensor([PAD, BOS, UNK] if rules.forbid_unk else [PAD, BOS], device=device)
    ended: list[list[tuple[float, list[int]]]] = [[] for _ in rows]
    results: list[list[int]] = [[] for _ in rows]
    for t in range(int(longest.max())):
        feed, state = network.step(network.target(token), feed, state, *tiled)
        log_probs = torch.log_softmax(network.output(feed).float(), -1)
        log_probs[:, never] = float("-inf")
        log_probs = log_probs.view(len(rows), beam, -1)
        log_probs[torch.from_numpy(t < shortest[rows]).to(device), :, EOS] = float("-inf")
        size = log_probs.shape[-1]
        best, flat = (totals[:, :, None] + log_probs).flatten(1).topk(2 * beam)
        parents, words = flat // size, flat % size
        ends = words == EOS
        totals, on = best.masked_fill(ends, float("-inf")).topk(beam)
        _collect(rules, t, rows, ended, tokens, best[:, :beam].cpu(), ends[:, :beam].cpu(), parents)
        parents, words = parents.gather(1, on), words.gather(1, on)
        tokens = torch.cat([tokens.gather(1, parents[:, :, None].expand(-1, -1, t)), words[:, :, None]], -1)
        full = np.array([len(ended[row]) == beam for row in rows])
        over = full | (t + 1 >= longest[rows]) | np.isneginf(totals[:, 0].cpu().numpy())
        for place in np.flatnonzero(over):
            found = ended[rows[place]]
            results[rows[place]] = max(found, key=lambda pair: pair[0])[1] if found else tokens[place, 0].tolist()
        keep = torch.from_numpy(np.flatnonzero(~over)).to(device)
        if not len(keep):
            break
        origin = (torch.arange(len(rows), device=device)[:, None] * beam + parents)[keep].flatten()
        feed, state = feed.index_select(0, origin), [(h[origin], c[origin]) for h, c in state]
        if over.any():  # sentences that have ended leave the batch
            tiled = [x.view(len(rows), beam, *x.shape[1:])[keep].flatten(0, 1) for x in tiled]
            totals, tokens, words = totals[keep], tokens[keep], words[keep]
            rows = [row for row, gone in zip(rows, over, strict=True) if not gone]
        token = words.flatten()
    return results


def _collect(rules: SearchConfig, t: int, rows: Sequence[int], ended: list, tokens, best, ends, parents) -> None:
    """Add the hypotheses that end at step t to those of their sentence, of which the best K stay."""
    for place, slot in ends.nonzero().tolist():
        if best[place, slot] > float("-inf"):
            score = best[place, slot].item() / length_penalty(rules, t + 1)
            found = ended[rows[place]]
            found.append((score, tokens[place, parents[place, slot]].tolist()))
            found.sort(key=lambda pair: -pair[0])  # stable: of equal ones the earlier
            del found[rules.beam :]
