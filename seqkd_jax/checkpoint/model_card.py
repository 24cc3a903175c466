"""Model cards: README.md of an exported model, for a person and, in its YAML header, for the Hugging Face hub.

A card states only what the checkpoint holds, and what config.json and a distilled corpus say of the run it is from.
The fields of the header are those of https://huggingface.co/docs/hub/model-cards. A licence is never guessed.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from seqkd_jax.checkpoint import Checkpoint, inputs_of, run_config, sparse
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, settings

CODE = re.compile("[a-z]{2,3}")  # of a language, ISO 639-1 or 639-3


class Form(NamedTuple):
    """What a card says of the form of the exported files."""

    header: Mapping[str, Any]  # fields of the header beside language
    use: str  # Markdown
    limits: Sequence[str]


def text(loaded: Checkpoint, title: str, form: Form) -> str:
    """The card of a checkpoint in a form. title: a name for the model, such as that of the exported directory."""
    run = _run_of(loaded)
    languages = [_word(code) for code in loaded.languages or ()]
    header = {"language": [code for code in languages if CODE.fullmatch(code)], **form.header}
    translates = f" that translates from `{languages[0]}` to `{languages[1]}`" if languages else ""
    size = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(loaded.params))
    zeros = f", {sparse.describe(loaded.pruned)['weights']:,} of them pruned to zero" if loaded.pruned else ""
    options = ", ".join(f"{name} {value}" for name, value in loaded.config_json.items() if name != "kind")
    vocabularies = loaded.vocabularies
    sizes = f"{vocabularies.source.size:,}" + ("" if vocabularies.joint else f" and {vocabularies.target.size:,}")
    lines = [
        *_yaml(header),
        f"# {_word(title)}",
        "",
        f"A model of kind `{loaded.config_json['kind']}`{translates}, exported from a checkpoint of seqkd_jax.",
        "",
        "## Model",
        "",
        f"- {size:,} parameters{zeros}",
        f"- configuration: {options}",
        f"- vocabulary: {vocabularies.config.kind}, {sizes} entries, fingerprint `{vocabularies.fingerprint[:16]}`",
        f"- fingerprint of the checkpoint: `{loaded.fingerprint[:16]}`",
        "",
        "## Training",
        "",
        *(f"- {line}" for line in (*_training(loaded), *_corpus(run))),
        "",
        "## Use",
        "",
        form.use.strip(),
        "",
        "## Limits",
        "",
        *(f"- {line}" for line in form.limits),
        "- The licence is not stated: that of the training data and, of a distilled model, of its teacher matter too.",
    ]
    return "\n".join(lines) + "\n"


def _yaml(header: Mapping[str, Any]) -> Iterator[str]:
    """The header. Texts are quoted as JSON, which is YAML: the code of Norwegian, no, must not become false."""
    yield "---"
    for name, value in header.items():
        if isinstance(value, str):
            yield f"{name}: {json.dumps(value)}"
        elif value:
            yield f"{name}:"
            yield from (f"- {json.dumps(item)}" for item in value)
    yield "---"
    yield ""


def _training(loaded: Checkpoint) -> Iterator[str]:
    """What the metadata say of how the weights came about."""
    metadata, inputs = loaded.metadata, inputs_of(loaded.metadata)
    if isinstance(average := metadata.get("average_of"), Mapping):
        yield f"mean of {len(average)} checkpoints of one run"
    if "imported" in metadata:
        yield f"imported from `{_word(_at(metadata, 'imported', 'from'))}`"
    step = metadata.get("step")
    if isinstance(step, int):
        yield f"updates of its run: {step:,}"
    if isinstance(ran_on := metadata.get("ran_on"), Mapping):
        counts = " and ".join(f"{what} {_word(ran_on.get(what))}" for what in ("devices", "processes"))
        yield f"trained on {_word(ran_on.get('platform'))}, {counts}"
    loss = _at(metadata, "config", "loss")
    if isinstance(loss, Mapping):
        taught = loss.get("name") != "nll"  # else the other settings have no effect
        acting = [name for name in loss if name == "label_smoothing" or taught and name not in ("name", "top_k")]
        acting += ["top_k"] if "top_k" in loss and loss.get("name") == "word_kd_top_k" else []
        options = ", ".join(f"{_word(name)} {_word(loss[name])}" for name in acting)
        yield f"loss: {_word(loss.get('name'))}{f' ({options})' if options else ''}"
    for name, what in (("teacher", "teacher of the loss"), ("start", "weights at the start")):
        if inputs.get(name, "none") != "none":
            yield f"{what}: checkpoint `{_word(inputs[name])[:16]}`"
    replicas, place = _at(metadata, "run", "replicas"), metadata.get("replica", 0)
    replica = replicas[place] if isinstance(replicas, list) and place in range(len(replicas)) else None
    if (seed := _at(replica, "seed")) is not None:
        yield f"seed: {_word(seed)}"
    history = _at(replica, "history")
    # In best/ of several seeds the weights of one may be of an earlier update than the last improvement of another.
    of_step = replicas is not None and (len(replicas) == 1 or _at(replica, "best_step") == step)
    for entry in history if of_step and isinstance(history, list) else []:
        if _at(entry, "step") == step:
            measures = ", ".join(f"{_word(key)} {_number(value)}" for key, value in entry.items() if key != "step")
            unit = f"; BLEU is sacrebleu's with tokenizer {loaded.metric.tokenize}, of greedy translations"
            yield f"validation of these weights: {measures}{unit if 'bleu' in entry else ''}"


def _corpus(run: Mapping) -> Iterator[str]:
    """What the config.json of the run says of its training corpus, and the card of a distilled one."""
    corpus = _at(run, "inputs", "training corpus")
    if isinstance(corpus, Mapping):
        name = re.sub(r"[^\s,]*/", "", _word(corpus.get("name")))  # a path is of the machine, not of the model
        size, print_ = _number(corpus.get("pairs")), _word(corpus.get("fingerprint"))[:16]
        yield f"training corpus: {name}, {size} pairs, `{print_}`"
    given = _at(run, "settings", "train_on") or ()
    names = [_at(run, "settings", "pairs", "corpus", "path"), *(given if isinstance(given, list) else ())]
    for name in names:
        card = _card(Path(name.rpartition("=")[0] or name)) if isinstance(name, str) else None
        if card:
            teacher, beam = card["teacher"], _at(card, "decoding", "search", "beam")
            kind = _at(teacher, "model", "kind") or "of another toolkit"
            print_ = _word(_at(teacher, "fingerprint") or _at(teacher, "sha256"))[:16]
            rules = f"selection {_word(card['selection'])}" + ("" if beam is None else f", beam {_number(beam)}")
            yield f"distilled targets: {rules}, teacher {_word(kind)} `{print_}`"


def _card(directory: Path) -> Mapping | None:
    """The card of a distilled corpus; None where there is none."""
    root = directory.parent if directory.name == "filtered" else directory  # filtered/ lies in the corpus
    try:
        card = files.read_json(root / "card.json")
    except UserError:
        return None
    return card if isinstance(card, Mapping) and {"selection", "teacher"} <= card.keys() else None


def _run_of(loaded: Checkpoint) -> Mapping:
    """config.json of the run in whose directory the checkpoint is; empty where there is none, or another run's."""
    found = run_config.find(loaded.directory.absolute().parent / settings.CONFIG_FILE)
    same = _at(found, "inputs", "vocabulary", "fingerprint") == loaded.vocabularies.fingerprint
    return found if same and found.get("command") == "train" else {}


def _at(value: Any, *names: str) -> Any:
    """What lies at a path of names in JSON; None where it ends early."""
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _word(value: Any) -> str:
    """A value on one line, without what Markdown reads as code or as HTML."""
    return re.sub(r"[`<>\s]+", " ", str(value)).strip()


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else _word(value)
