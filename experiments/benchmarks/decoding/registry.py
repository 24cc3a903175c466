"""Every system by name, and how it is built: what `--peers` chooses from. A peer that cannot be had says why."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.benchmarks.decoding import opennmt, peers, systems
from experiments.benchmarks.decoding.systems import Missing, System
from seqkd_jax import models
from seqkd_jax.checkpoint import Checkpoint
from seqkd_jax.types import UserError


class Entry(NamedTuple):
    """A system that can be asked for."""

    build: Callable[[Checkpoint, Path], System]  # (model, directory for files); Missing, ImportError: it cannot be had
    kind: str | None = None  # of the models that it decodes; None: any


PEERS: dict[str, dict[str, Entry]] = {
    "ctranslate2": {
        f"CTranslate2 {type_}": Entry(functools.partial(peers.ctranslate2, type_), "transformer")
        for type_ in ("float32", "int8")
    },
    "hf": {"Hugging Face generate": Entry(peers.hugging_face, "transformer")},
    "opennmt": {"PyTorch as OpenNMT-py": Entry(opennmt.open_nmt, "lstm")},
}
OURS: dict[str, Entry] = {
    name: Entry(lambda model, scratch, decoder=decoder: systems.ours(decoder, model))
    for name, decoder in systems.OURS.items()
}
PACKAGES = {  # what a peer imports
    "ctranslate2": ("ctranslate2", "transformers", "torch"),
    "hf": ("transformers", "torch"),
    "opennmt": ("torch",),
}


def chosen(names: str) -> tuple[str, ...]:
    """The peers of --peers: names with commas between, or none. UserError for one that does not exist."""
    found = tuple(name for name in names.split(",") if name and name != "none")
    for name in found:
        if name not in PEERS:
            raise UserError(f"--peers {name}: there is no such peer; there are {', '.join(PEERS)}, or none")
    return found


def entries(names: Sequence[str]) -> dict[str, Entry]:
    """Ours, then those of these peers."""
    return OURS | {name: entry for peer in names for name, entry in PEERS[peer].items()}


def build(
    wanted: Sequence[str], names: Sequence[str], model: Checkpoint, scratch: Path
) -> tuple[dict[str, System], dict[str, str]]:
    """(those of the wanted systems that decode this model, why others are missing).

    A peer for another kind of model is no loss.
    """
    built, missing = {}, {}
    for name in wanted:
        entry = entries(names)[name]
        if entry.kind not in (None, models.kind_of(model.model_config)):
            continue
        try:
            built[name] = entry.build(model, scratch)
        except Missing as error:
            missing[name] = str(error)
        except ImportError as error:
            missing[name] = f"{error.name or error} is not installed: pip install 'seqkd_jax[peers]'"
    return built, missing
