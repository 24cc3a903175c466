"""The paper's LSTM decoded in PyTorch as OpenNMT-py does it: the peer for recurrent models.

Layers are cuDNN's own `nn.LSTM` and `nn.LSTMCell`; the encoder's states are tiled K times, all hypotheses are one batch
of rows, states are reordered by `index_select`, and sentences that have ended leave the batch at every step. The rules
of the search are ours (2K candidates, an EOS among the first K ends a hypothesis, stop at the bound).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.benchmarks.decoding.peers import cores, on_gpu
from experiments.benchmarks.decoding.systems import Job, Missing, Sentences, System, sorted_batches
from seqkd_jax import models
from seqkd_jax.checkpoint import Checkpoint
from seqkd_jax.config import SearchConfig
from seqkd_jax.decoding.search import length_limits, length_penalty
from seqkd_jax.types import BOS, EOS, PAD, UNK


class Weights(NamedTuple):
    """The layers of the model."""

    source: object  # nn.Embedding
    encoder: object  # nn.LSTM
    target: object  # nn.Embedding
    cells: object  # nn.ModuleList of nn.LSTMCell
    attention: object  # [E,E]
    combine: object  # nn.Linear
    output: object  # nn.Linear


def open_nmt(model: Checkpoint, scratch: object = None) -> System:
    """The decoder for a checkpoint of an LSTM with attention and input feeding that encodes forwards."""
    import torch

    del scratch
    _require_lstm(model)
    torch.set_num_threads(cores())
    device = torch.device("cuda" if on_gpu() and torch.cuda.is_available() else "cpu")
    weights = _load(model, device)

    def prepare(sentences: Sentences, rows: int, rules: SearchConfig) -> list[Job]:
        jobs = []
        for places in sorted_batches(sentences, rows):
            chosen = [sentences[place] for place in reversed(places)]  # packed sequences want the longest first
            source = np.full((len(chosen), max(map(len, chosen))), PAD, np.int64)
            for row, ids in zip(source, chosen, strict=True):
                row[: len(ids)] = ids
            jobs.append(Job(places[::-1], (source, rules), source.size))
        return jobs

    @torch.inference_mode()
    def run(job: Job) -> list[list[int]]:
        source, rules = job.inputs
        return _search(weights, torch.from_numpy(source).to(device), source, rules)

    @torch.inference_mode()
    def encode(job: Job) -> None:
        _encode(weights, torch.from_numpy(job.inputs[0]).to(device))[0][0, 0, 0].item()

    return System(prepare, run, encode)


def _require_lstm(model: Checkpoint) -> None:
    if models.kind_of(model.model_config) != "lstm":
        raise Missing("is for LSTMs")
    config = model.model_config
    if config.bidirectional or not (config.attention and config.input_feeding and config.start_from_encoder):
        raise Missing("is written for the paper's LSTM: one direction, attention, input feeding, start from encoder")


def _load(model: Checkpoint, device) -> Weights:
    """Our parameters in PyTorch's layers: kernels transposed, gates from i,f,o,g to i,f,g,o, the second bias 0."""
    import torch
    from torch import nn

    params = {name: np.asarray(leaf) for name, leaf in model.params["params"].items()}
    config = model.model_config
    width = config.size

    def gates(array: np.ndarray):
        i, f, o, g = np.split(array, 4, axis=-1)
        return torch.from_numpy(np.ascontiguousarray(np.concatenate([i, f, g, o], axis=-1).T))

    def fill(layer, suffix: str, name: str) -> None:
        kernel, bias = params[f"{name}_kernel"], params[f"{name}_bias"]
        inputs = len(kernel) - width
        values = {"weight_ih": gates(kernel[:inputs]), "weight_hh": gates(kernel[inputs:]), "bias_ih": gates(bias)}
        for part, value in (values | {"bias_hh": torch.zeros(4 * width)}).items():
            getattr(layer, f"{part}{suffix}").copy_(value)

    def tensor(name: str):
        return torch.from_numpy(params[name].copy()).to(device)

    with torch.no_grad():
        encoder = nn.LSTM(width, width, config.layers, batch_first=True)
        cells = nn.ModuleList([nn.LSTMCell(width if layer else 2 * width, width) for layer in range(config.layers)])
        for layer in range(config.layers):
            fill(encoder, f"_l{layer}", f"encoder_forward_{layer}")
            fill(cells[layer], "", f"decoder_{layer}")
        combine = nn.Linear(2 * width, width, bias=False)
        combine.weight.copy_(torch.from_numpy(params["combine"].T.copy()))
        output = nn.Linear(width, len(params["output_bias"]))
        output.weight.copy_(torch.from_numpy(params["output_kernel"].copy()))
        output.bias.copy_(torch.from_numpy(params["output_bias"].copy()))
    embeddings = [nn.Embedding.from_pretrained(tensor(f"{side}_embedding")) for side in ("source", "target")]
    layers = [layer.to(device).eval() for layer in (encoder, cells, combine, output)]
    return Weights(embeddings[0], layers[0], embeddings[1], layers[1], tensor("attention"), layers[2], layers[3])


def _encode(weights: Weights, source):
    """States [B,S,E], keys [B,E,S] and the last (h, c) [L,B,E] of source [B,S], the longest first."""
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    lengths = (source != PAD).sum(1).cpu()
    packed = pack_padded_sequence(weights.source(source), lengths, batch_first=True)
    states, last = weights.encoder(packed)
    states, _ = pad_packed_sequence(states, batch_first=True)
    return states, (states @ weights.attention.T).transpose(1, 2).contiguous(), last


def _step(weights: Weights, token, feed, state, states, keys, padding):
    """Log-probabilities [N,V], the attentional vector and the next state of N hypotheses."""
    import torch

    below, after = torch.cat([weights.target(token), feed], -1), []
    for cell, (h, c) in zip(weights.cells, state, strict=True):
        below, c = cell(below, (h, c))
        after.append((below, c))
    scores = torch.bmm(below[:, None], keys).masked_fill(padding[:, None], float("-inf"))
    context = torch.bmm(torch.softmax(scores, -1), states)[:, 0]
    feed = torch.tanh(weights.combine(torch.cat([context, below], -1)))
    return torch.log_softmax(weights.output(feed), -1), feed, after


def _search(weights: Weights, source, on_host: np.ndarray, rules: SearchConfig) -> list[list[int]]:
    """The best hypothesis of each row of source [B,S]: target ids without EOS."""
    import torch

    beam, device = rules.beam, source.device
    shortest, longest = length_limits(rules, (on_host != PAD).sum(1) - 1)
    states, keys, (h, c) = _encode(weights, source)
    tiled = [x.repeat_interleave(beam, 0) for x in (states, keys, source == PAD)]
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
        log_probs, feed, state = _step(weights, token, feed, state, *tiled)
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
        over = _over(rules, t, rows, ended, totals[:, 0].tolist(), longest)
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


def _over(rules: SearchConfig, t: int, rows, ended: list, live: Sequence[float], longest) -> np.ndarray:
    """Which sentences are done after step t; live: the best log-probability that goes on."""
    over = []
    for row, log_prob in zip(rows, live, strict=True):
        found, bound = ended[row], log_prob / length_penalty(rules, int(longest[row]))
        full = len(found) == rules.beam
        settled = full and (rules.stop == "first_k_finished" or found[-1][0] >= bound)
        over.append(settled or t + 1 >= longest[row] or log_prob == float("-inf"))
    return np.array(over)
