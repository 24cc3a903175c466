"""The rate and dropout of a model, chosen by its validation loss: `scales.Search` says what is tried, and for how long.

Every architecture has the same budget. One seed, which no arm has, trained alone; of a run only its loss is kept.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.abnar_2020.setups import OWN_SEEDS, with_dropout
from experiments.core.study import Workspace
from seqkd_jax.config import TrainConfig
from seqkd_jax.data import batches
from seqkd_jax.training import loop
from seqkd_jax.training.trainer import Run, train_model
from seqkd_jax.utils import files

TRIED = "tried.json"  # each rate and dropout with its loss, and what was chosen


def searched(workspace: Workspace, name: str, prepared: Path, shapes: Sequence[batches.Shape]) -> Path:
    """The stage that holds TRIED. prepared, shapes: the batch shapes of all arms, and the stage that has them."""
    scale, task, search = workspace.scale, workspace.data, workspace.scale.search
    plain = scale.training[name]

    def make(directory: Path) -> None:
        def tried(rate: float, dropout: float, updates: int) -> dict:
            """What a run came to; one that was made before a kill is not made again."""
            run = directory / f"rate-{rate:g}-dropout-{dropout:g}-updates-{updates}"
            done = run.with_name(f"{run.name}.json")
            if not done.exists():
                given = (
                    with_dropout(scale.models[name], dropout),
                    task.vocabularies,
                    _config(workspace, plain, rate, updates),
                )
                loss = _loss(Run(*given, shapes), workspace, run)
                files.write_json(done, {"rate": rate, "dropout": dropout, "updates": updates, "loss": loss})
            if run.exists():
                files.remove(run)
            return files.read_json(done)

        rates = [tried(rate, search.dropouts[0], search.updates) for rate in search.rates]
        rate = min(rates, key=_ranked)["rate"]
        updates = search.epochs * _in_epoch(workspace, plain)
        dropouts = [tried(rate, dropout, updates) for dropout in search.dropouts]
        chosen = {"rate": rate, "dropout": min(dropouts, key=_ranked)["dropout"]}
        files.write_json(directory / TRIED, {"tried": [*rates, *dropouts], "chosen": chosen})

    settings = [scale.setup, task.learned_from, scale.models[name], plain, search]
    key = name.lower().replace(" ", "-")
    return workspace.stage(f"search-{key}", settings, {"prepared": prepared}, make, resumable=True)


def _config(workspace: Workspace, plain: TrainConfig, rate: float, updates: int) -> TrainConfig:
    """A run of so many updates: its schedule is of that length, and its warm-up in proportion."""
    whole = plain.epochs * _in_epoch(workspace, plain)
    warmup = round(plain.optimiser.warmup_steps * updates / whole)
    optimiser = dataclasses.replace(plain.optimiser, learning_rate=rate, warmup_steps=warmup)
    seed = plain.seed + 2 * OWN_SEEDS
    return dataclasses.replace(plain, optimiser=optimiser, max_steps=updates, seed=seed, validate_every=0, keep=0)


def _loss(run: Run, workspace: Workspace, directory: Path) -> float | None:
    """On the validation set after the last update; None: it is not finite."""
    try:
        summary = train_model(run, workspace.data.train, workspace.data.valid, directory, directory.name)
    except loop.Diverged:
        return None
    return summary.replicas[0].history[-1]["loss"]


def _in_epoch(workspace: Workspace, plain: TrainConfig) -> int:
    """Updates, about: batches of one shape each that are not full are not counted."""
    return math.ceil(len(workspace.data.train.targets) / plain.batch.sentences)


def _ranked(tried: Mapping) -> float:
    return math.inf if tried["loss"] is None else tried["loss"]
