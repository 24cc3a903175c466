"""A finished study of sentences, counted a second time: from rows and weights to mu, D, both A and loss, in PyTorch.

  python -m experiments.abnar_2020.recount --out runs/abnar_2020/lm-small --data DIR     (pip install -e ".[peers]")

The study says where its checkpoints are and reads them; all else is written once more here, as plainly as it can be,
and shares nothing with it: rows, words, networks, decisions, means. DIR holds train.tsv, valid.tsv and test.tsv, and
linzen_strata/ if the study had it. Exit status 1 if a number is further from that in results.json than rounding and a
tie or two can bring it.
"""

import csv
import importlib.util
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro

from experiments.abnar_2020 import results, study, tasks
from experiments.abnar_2020.arms import Arm
from experiments.abnar_2020.scales import scale_of
from experiments.core import report, stages
from experiments.core.command import exit_status
from seqkd_jax import checkpoint
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, progress

UNK, BOS, EOS = 1, 2, 3  # in every vocabulary of the study
NATS, DECISIONS = 1e-4, 2  # what rounding may change: a loss, and how many decisions of one seed
METRICS = ("mu", "d", "a", "a_gold", "loss")

Row = Mapping[str, str]
Features = Callable[[Any], Any]  # ids [B,T], all of a length -> [B,T',E]


class Gold(NamedTuple):
    """Prefixes with gold counts of attractors, and the verbs that a language model weighs there."""

    strata: dict[int, list[tuple[list[str], str]]]  # attractors -> (the words before the verb, VBZ or VBP)
    forms: dict[str, set[str]]  # VBZ and VBP -> verbs of that number


@dataclass(frozen=True)
class Command:
    """Count a finished study of sentences again, with PyTorch."""

    out: Path
    """Where the study's results.json and stages are."""
    data: Path
    """The directory with the files that it was given."""


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 the same, 1 something differs, 2 an error that the user can mend."""
    command = tyro.cli(Command, args=arguments, prog="python -m experiments.abnar_2020.recount")
    return exit_status(lambda: _run(command))


def _run(command: Command) -> int:
    if importlib.util.find_spec("torch") is None:
        raise UserError("PyTorch is not installed: pip install '.[peers]'")
    found = results.read(command.out / "results.json")
    if found["setup"] not in ("lm", "classification"):
        raise UserError(f"{command.out}: not a study of sentences")
    train, valid, test = (_rows(command.data / f"{split}.tsv") for split in ("train", "valid", "test"))
    metrics = [name for name in METRICS if all(name in told["metrics"] for told in found["arms"] if told["seeds"])]
    gold = _gold(command.data / "linzen_strata", train) if "a_gold" in metrics else None
    scale = scale_of("agreement", found["setup"], found["scale"], found["quirks"])
    scale = replace(scale, teachers=found["teachers"])
    seeds, is_lm = len(found["seeds"]), found["setup"] == "lm"
    made = study.Study(scale, tasks.load(scale, command.data), command.out / "stages", seeds, make=False)
    table, same, scored = [], True, found["counts"].get("test_scored" if is_lm else "test")
    for told in found["arms"]:
        if "reported" in told or not told["seeds"]:
            progress.log(f"{told['arm']}: not counted again, taken from earlier results or without a seed")
            continue
        progress.log(told["arm"])
        try:
            directory = study.training(made, Arm(told["student"], told["teacher"])) / study.END
        except stages.NotMade:
            raise UserError(f"{command.out}: no checkpoints of {told['arm']} by this code and these data") from None
        offset = told["training"]["config"]["seed"]
        for place, seed in enumerate(told["seeds"]):
            network = Network(directory, seed - offset)
            counted = count(network, is_lm, test, valid, gold)
            wanted = {metric: told["metrics"][metric]["values"][place] for metric in metrics}
            same &= scored == counted["rows"] and _alike(counted, wanted)
            pairs = [f"{wanted[metric]:.6f} / {counted[metric]:.6f}" for metric in metrics]
            table.append([told["arm"], str(seed), *pairs])
    print("\n".join(report.markdown(["arm", "seed", *metrics], table, left=1)))
    print(f"\nresults.json / PyTorch: {'the same' if same else 'DIFFERENT'} to rounding")
    return 0 if same else 1


def _rows(path: Path) -> list[Row]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def _gold(folder: Path, train: Sequence[Row]) -> Gold:
    """Without prefixes that stand before a training row's verb; forms that are of both numbers are of none."""
    before = {tuple(row["sentence"].split()[: int(row["verb_idx"])]) for row in train}
    strata = {}
    for attractors in range(1, 5):
        lines = (folder / f"attractors_{attractors}.tsv").read_text("utf-8").splitlines()
        pairs = [(words.split(), tag) for tag, words in (line.split("\t") for line in lines)]
        kept = [(words, tag) for words, tag in pairs if tuple(words) not in before]
        strata |= {attractors: kept} if kept else {}
    found = {"VBZ": set(), "VBP": set()}
    for row in train:
        other = {"VBZ": "VBP", "VBP": "VBZ"}[row["verb_pos"]]
        found[row["verb_pos"]].add(row["verb"])
        found[other].add(row["inflected_verb"])
    both = found["VBZ"] & found["VBP"] | {""}
    return Gold(strata, {tag: forms - both for tag, forms in found.items()})


class Network:
    """One seed of a checkpoint: its words, its features and its output."""

    def __init__(self, directory: Path, replica: int) -> None:
        import torch

        config = files.read_json(directory / "checkpoint.json")["model"]
        loaded = checkpoint.load(directory, replica=replica).params["params"]
        tensors = _tensors(loaded, lambda leaf: torch.tensor(np.asarray(leaf)))
        entries = (directory / "vocabulary" / "source.txt").read_text("utf-8").split("\n")
        self.number = {word: place for place, word in enumerate(entries) if word}
        self.first = config["reads"] == "first"
        if config["kind"] not in NETWORKS:
            raise UserError(f"{directory}: a {config['kind']}; recount has networks for {', '.join(NETWORKS)} alone")
        self.features = NETWORKS[config["kind"]](tensors, config)
        self.kernel = tensors.get("output_kernel", tensors["embedding"])
        self.bias = tensors["output_bias"]

    def ids(self, words: Sequence[str]) -> list[int]:
        """A number for each word."""
        return [self.number.get(word, UNK) for word in words]

    def read(self, lines: Sequence[list[int]]) -> Iterator[tuple[int, Any]]:
        """(the place of a line, its features [T',E]), lines of one length together, so that none is padded."""
        import torch

        lengths = defaultdict(list)
        for place, line in enumerate(lines):
            lengths[len(line)].append(place)
        for places in lengths.values():
            for start in range(0, len(places), 64):
                part = places[start : start + 64]
                with torch.no_grad():
                    features = self.features(torch.tensor([lines[place] for place in part]))
                yield from zip(part, features, strict=True)


def _tensors(tree, tensor: Callable, path: str = "") -> dict[str, Any]:
    """Nested dicts as one, with paths for keys."""
    if not isinstance(tree, Mapping):
        return {path: tensor(tree)}
    found = {}
    for name, inner in tree.items():
        found |= _tensors(inner, tensor, f"{path}/{name}" if path else name)
    return found


def _lstm(tensors: Mapping[str, Any], config: Mapping[str, Any]) -> Features:
    """torch.nn.LSTM: its gates are input, forget, cell, output; the checkpoint's input, forget, output, cell."""
    import torch

    width, layers = config["size"], config["layers"]
    lstm = torch.nn.LSTM(width, width, layers, batch_first=True)

    def reordered(kernel):
        i, f, o, g = kernel.split(width, -1)
        return torch.cat([i, f, g, o], -1)

    with torch.no_grad():
        for layer in range(layers):
            kernel = reordered(tensors[f"layer_{layer}_kernel"])
            getattr(lstm, f"weight_ih_l{layer}").copy_(kernel[:width].T)
            getattr(lstm, f"weight_hh_l{layer}").copy_(kernel[width:].T)
            getattr(lstm, f"bias_ih_l{layer}").copy_(reordered(tensors[f"layer_{layer}_bias"]))
            getattr(lstm, f"bias_hh_l{layer}").zero_()

    def features(ids):
        states = lstm(tensors["embedding"][ids])[0]
        return states @ tensors["projection"] if "projection" in tensors else states

    return features


def _transformer(tensors: Mapping[str, Any], config: Mapping[str, Any]) -> Features:
    """torch.nn.TransformerEncoderLayers, pre-norm, GELU."""
    import torch

    def layer(depth: int):
        one = torch.nn.TransformerEncoderLayer(
            config["width"], config["heads"], config["feed_forward"], 0.0, "gelu", batch_first=True, norm_first=True
        )
        at = f"layers_{0 if config['shared'] else depth}"
        theirs = {
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
        weights = {name: tensors[f"{at}/{path}"] for name, path in theirs.items()}
        one.load_state_dict({name: weight.T if weight.ndim == 2 else weight for name, weight in weights.items()})
        return one.eval()

    layers = [layer(depth) for depth in range(config["layers"])]

    def features(ids):
        length = ids.shape[1]
        mask = torch.ones(length, length).triu(1).bool() if config["causal"] else None
        x = tensors["embedding"][ids] + tensors["positions"][:length]
        for one in layers:
            x = one(x, src_mask=mask)
        return torch.nn.functional.layer_norm(x, x.shape[-1:], tensors["norm/scale"], tensors["norm/bias"], 1e-5)

    return features


NETWORKS = {"sequence_lstm": _lstm, "sequence_transformer": _transformer}


def count(
    network: Network, is_lm: bool, test: Sequence[Row], valid: Sequence[Row], gold: Gold | None = None
) -> dict[str, Any]:
    """The METRICS of one seed; `rows`, how many mu counts; `share`, the most that one decision is of D and of A.

    a_gold only if the strata are given.
    """
    right = _language_model(network, test) if is_lm else _classifier(network, test)
    distances, attractors = defaultdict(list), defaultdict(list)
    for place, correct in right.items():
        row = test[place]
        between, distance = int(row["n_intervening"]), int(row["distance"])
        if between <= 4 and distance <= 16:
            distances[distance].append(correct)
            if between == int(row["n_attractors"]):
                attractors[between].append(correct)
    loss = _loss_of_words(network, valid) if is_lm else _loss_of_labels(network, valid)
    bins = {"d": distances, "a": attractors}
    if gold:
        by_number = _by_sums if is_lm else _by_class
        bins["a_gold"] = {0: attractors[0], **{number: by_number(network, gold, number) for number in gold.strata}}
    macro = {metric: np.mean([np.mean(members) for members in of.values()]) for metric, of in bins.items()}
    share = {metric: 1 / (min(map(len, of.values())) * len(of)) for metric, of in bins.items()}
    return {"mu": np.mean(list(right.values())), **macro, "loss": loss, "rows": len(right), "share": share}


def _alike(found: Mapping[str, Any], wanted: Mapping[str, float]) -> bool:
    """Whether two counts differ by no more than rounding can explain; D and A by no more than mu does."""
    moved = round(abs(found["mu"] - wanted["mu"]) * found["rows"])
    macro = all(abs(found[name] - wanted[name]) <= moved * found["share"][name] + 1e-9 for name in ("d", "a"))
    if "a_gold" in wanted:
        macro &= abs(found["a_gold"] - wanted["a_gold"]) <= DECISIONS * found["share"]["a_gold"] + 1e-9
    return macro and moved <= DECISIONS and abs(found["loss"] - wanted["loss"]) <= NATS


def _language_model(network: Network, rows: Sequence[Row]) -> dict[int, bool]:
    """Row -> whether its verb is above its other inflection after the words before it; rows where that can be said."""
    places, lines = [], []
    for place, row in enumerate(rows):
        words, at = row["sentence"].split(), int(row["verb_idx"])
        forms = {row["verb"], row["inflected_verb"]}
        if words[at] == row["verb"] and len(forms) == 2 and forms <= network.number.keys():
            places.append(place)
            lines.append([BOS, *network.ids(words[:at])])
    right = {}
    for line, features in network.read(lines):
        verb, other = (network.number[rows[places[line]][form]] for form in ("verb", "inflected_verb"))
        weights, biases = (side[[verb, other]] for side in (network.kernel, network.bias))
        scores = weights @ features[-1] + biases
        right[places[line]] = bool(scores[0] > scores[1])
    return right


def _before(network: Network, rows: Sequence[Row]) -> list[list[int]]:
    """What a classifier reads."""
    start = [BOS] if network.first else []
    return [[*start, *network.ids(row["sentence"].split()[: int(row["verb_idx"])]), EOS] for row in rows]


def _classes(network: Network, rows: Sequence[Row]) -> Iterator[tuple[int, Any, int]]:
    """(row, logits of singular and plural, the right one)."""
    for place, features in network.read(_before(network, rows)):
        logits = network.kernel @ features[0 if network.first else -1] + network.bias
        yield place, logits, ("VBZ", "VBP").index(rows[place]["verb_pos"])


def _classifier(network: Network, rows: Sequence[Row]) -> dict[int, bool]:
    """Row -> whether its verb's number is told right."""
    return {place: bool(logits.argmax() == label) for place, logits, label in _classes(network, rows)}


def _by_class(network: Network, gold: Gold, attractors: int) -> list[bool]:
    """Of a stratum's prefixes, whether each verb's number is told right."""
    start = [BOS] if network.first else []
    found = network.read([[*start, *network.ids(words), EOS] for words, _ in gold.strata[attractors]])
    right = []
    for place, features in found:
        logits = network.kernel @ features[0 if network.first else -1] + network.bias
        right.append(("VBZ", "VBP")[int(logits.argmax())] == gold.strata[attractors][place][1])
    return right


def _by_sums(network: Network, gold: Gold, attractors: int) -> list[bool]:
    """Likewise, whether all verbs of the right number together are more probable than all of the other."""
    ids = {tag: [network.number[form] for form in forms if form in network.number] for tag, forms in gold.forms.items()}
    output = {tag: (network.kernel[of], network.bias[of]) for tag, of in ids.items()}
    right = []
    for place, features in network.read([[BOS, *network.ids(words)] for words, _ in gold.strata[attractors]]):
        sums = {tag: (kernel @ features[-1] + bias).logsumexp(0) for tag, (kernel, bias) in output.items()}
        right.append(max(sums, key=sums.__getitem__) == gold.strata[attractors][place][1])
    return right


def _loss_of_labels(network: Network, rows: Sequence[Row]) -> float:
    """Nats per row."""
    return float(np.mean([float(logits.logsumexp(0) - logits[label]) for _, logits, label in _classes(network, rows)]))


def _loss_of_words(network: Network, rows: Sequence[Row]) -> float:
    """Nats per word, the end of a sentence being one."""
    lines = [network.ids(row["sentence"].split()) for row in rows]
    nats = words = 0.0
    for place, features in network.read([[BOS, *line] for line in lines]):
        logits = features @ network.kernel.T + network.bias
        labels = [*lines[place], EOS]
        nats += float((logits.logsumexp(1) - logits[range(len(labels)), labels]).sum())
        words += len(labels)
    return nats / words


if __name__ == "__main__":
    sys.exit(main())
