"""The second study's mu, D, A and loss counted a second time, in PyTorch, on tiny trained models.

Rows, words, networks, decisions and means are written once more here, one sentence at a time. Shared with the study are
only the search for its checkpoints, their reader and the vocabulary that a checkpoint holds. Run by `make test-peers`.
"""

import csv
import dataclasses
from collections import defaultdict

import numpy as np
import pytest
from tiny_studies import TOY, tiny

from experiments.abnar_2020 import scales, sentences
from experiments.abnar_2020.study import STUDY
from experiments.core.study import main
from seqkd_jax import checkpoint
from seqkd_jax.utils import files

pytestmark = pytest.mark.peers
UNK, BOS, EOS = 1, 2, 3  # in every vocabulary of the study
TAGS = ("VBZ", "VBP")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Toy sentences as the files that `--data` reads."""
    directory = tmp_path_factory.mktemp("data")
    columns = "sentence verb_pos subj_idx verb_idx distance n_intervening n_attractors verb inflected_verb"
    for split, part in sentences.load(None, 0, TOY).items():
        tags = [TAGS[int(plural)] for plural in part.plural]
        numbers = part.subject, part.verb, part.distance, part.intervening, part.attractors
        cells = zip(map(" ".join, part.words), tags, *numbers, *zip(*part.forms, strict=True), strict=True)
        lines = ["\t".join(columns.split()), *("\t".join(map(str, row)) for row in cells)]
        (directory / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory


@pytest.mark.parametrize("setup", ["lm", "classification"])
def test_numbers_are_counted_again(setup, data, tmp_path, monkeypatch):
    scale = dataclasses.replace(tiny(setup), name="small", toy=None, teaching="end")
    monkeypatch.setitem(scales.SCALES, (setup, "small"), scale)
    run = ["--setup", setup, "--scale", "small", "--data", str(data), "--out", str(tmp_path)]
    assert main(STUDY, run) == 0
    told = {arm["arm"]: arm for arm in files.read_json(tmp_path / "results.json")["arms"]}
    assert len(told) == 3
    for arm in scale.arms:
        (run,) = (tmp_path / "stages").glob(f"train-{arm.key}-{'[0-9a-f]' * 12}")
        for place, seed in enumerate(told[arm.label]["seeds"]):
            counted = count(run / "end", place, setup == "lm", rows(data / "test.tsv"), rows(data / "valid.tsv"))
            for metric, value in counted.items():
                wanted = told[arm.label]["metrics"][metric]["values"][place]
                assert value == pytest.approx(wanted, abs=1e-6), f"{metric} of {arm.label}, seed {seed}"


def rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def count(directory, replica, is_lm, test, valid):
    """mu, D, A and loss of one seed of a checkpoint."""
    entries = (directory / "vocabulary" / "source.txt").read_text("utf-8").split("\n")
    number = {word: place for place, word in enumerate(entries) if word}
    logits, reads = network(directory, replica)

    def ids(words):
        return [number.get(word, UNK) for word in words]

    def decision(row):
        """The logits of singular and plural by the words before the verb; None where a language model has none."""
        words, at = row["sentence"].split(), int(row["verb_idx"])
        before = ids(words[:at])
        if not is_lm:
            return logits([BOS, *before, EOS])[0] if reads == "first" else logits([*before, EOS])[-1]
        pair = (row["verb"], row["inflected_verb"])[:: -1 if row["verb_pos"] == "VBP" else 1]
        if words[at] != row["verb"] or len({*pair} & number.keys()) < 2:
            return None
        return logits([BOS, *before])[-1, [number[form] for form in pair]]

    right, distances, attractors = [], defaultdict(list), defaultdict(list)
    for row, found in [(row, found) for row in test if (found := decision(row)) is not None]:
        right.append(TAGS[int(found.argmax())] == row["verb_pos"])
        between, distance = int(row["n_intervening"]), int(row["distance"])
        if between <= 4 and distance <= 16:
            distances[distance].append(right[-1])
            if between == int(row["n_attractors"]):
                attractors[between].append(right[-1])
    nats = []
    for row in valid:
        line = ids(row["sentence"].split())
        wanted = [*line, EOS] if is_lm else [TAGS.index(row["verb_pos"])]
        at_labels = logits([BOS, *line]) if is_lm else decision(row)[None]
        nats += (at_labels.logsumexp(1) - at_labels[range(len(wanted)), wanted]).tolist()
    macro = {
        name: np.mean([np.mean(of) for of in bins.values()]) for name, bins in (("d", distances), ("a", attractors))
    }
    return {"mu": np.mean(right), "loss": np.mean(nats), **macro}


def network(directory, replica):
    """(ids of one sentence -> logits [T,V] in float64, which position a classifier reads)"""
    import torch

    config = files.read_json(directory / "checkpoint.json")["model"]
    flat, todo = {}, [("", checkpoint.load(directory, replica=replica).params["params"])]
    while todo:
        path, tree = todo.pop()
        if isinstance(tree, dict):
            todo += [(f"{path}/{name}" if path else name, inner) for name, inner in tree.items()]
        else:
            flat[path] = torch.tensor(np.asarray(tree)).double()
    features = {"sequence_lstm": lstm, "sequence_transformer": transformer}[config["kind"]](flat, config)
    kernel = flat.get("output_kernel", flat["embedding"])

    @torch.no_grad()
    def logits(ids):
        return features(torch.tensor([ids]))[0] @ kernel.T + flat["output_bias"]

    return logits, config["reads"]


def lstm(flat, config):
    """torch.nn.LSTM: its gates are input, forget, cell, output; the checkpoint's input, forget, output, cell."""
    import torch

    width, layers = config["size"], config["layers"]
    cells = torch.nn.LSTM(width, width, layers, batch_first=True).double()
    order = [*range(2 * width), *range(3 * width, 4 * width), *range(2 * width, 3 * width)]
    weights = {}
    for layer in range(layers):
        kernel, bias = flat[f"layer_{layer}_kernel"][:, order], flat[f"layer_{layer}_bias"][order]
        weights |= {f"weight_ih_l{layer}": kernel[:width].T, f"weight_hh_l{layer}": kernel[width:].T}
        weights |= {f"bias_ih_l{layer}": bias, f"bias_hh_l{layer}": torch.zeros_like(bias)}
    cells.load_state_dict(weights)

    def features(ids):
        states = cells(flat["embedding"][ids])[0]
        return states @ flat["projection"] if "projection" in flat else states

    return features


PARTS = {  # of torch.nn.TransformerEncoderLayer -> of a checkpoint
    "self_attn.in_proj_weight": "attention/query_key_value/kernel",
    "self_attn.in_proj_bias": "attention/query_key_value/bias",
    "self_attn.out_proj.weight": "attention/output/kernel",
    "self_attn.out_proj.bias": "attention/output/bias",
    "linear1.weight": "feed_forward/inner/kernel",
    "linear1.bias": "feed_forward/inner/bias",
    "linear2.weight": "feed_forward/outer/kernel",
    "linear2.bias": "feed_forward/outer/bias",
    "norm1.weight": "attention_residual/norm/scale",
    "norm1.bias": "attention_residual/norm/bias",
    "norm2.weight": "feed_forward_residual/norm/scale",
    "norm2.bias": "feed_forward_residual/norm/bias",
}


def transformer(flat, config):
    """torch.nn.TransformerEncoderLayers, pre-norm, GELU."""
    import torch

    sizes = config["width"], config["heads"], config["feed_forward"], 0.0, "gelu"
    layers = []
    for depth in range(config["layers"]):
        layers.append(torch.nn.TransformerEncoderLayer(*sizes, batch_first=True, norm_first=True).double().eval())
        weights = {name: flat[f"layers_{depth}/{path}"] for name, path in PARTS.items()}
        layers[-1].load_state_dict({name: one.T if one.ndim == 2 else one for name, one in weights.items()})

    def features(ids):
        length = ids.shape[1]
        mask = torch.ones(length, length).triu(1).bool() if config["causal"] else None
        states = flat["embedding"][ids] + flat["positions"][:length]
        for layer in layers:
            states = layer(states, src_mask=mask)
        return torch.nn.functional.layer_norm(states, states.shape[-1:], flat["norm/scale"], flat["norm/bias"], 1e-5)

    return features
