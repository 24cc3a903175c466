"""From finished stages to what results.json holds, and to what the screen shows."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from experiments.core import stages
from experiments.kim_rush_2016.arms import BASELINE, TEACHER, against
from experiments.kim_rush_2016.scales import label
from experiments.kim_rush_2016.study import CORPORA, Row, Study, data, read, significance, train_config, training
from seqkd_jax.utils import files


def results_of(study: Study, row: Row, directory: Path, compared: dict) -> dict:
    """One entry of results.json's `arms`."""
    run, config = training(study, row), train_config(study.scale, row.arm)
    summary = files.read_json(run / "summary.json")
    how = stages.read_manifest(run)
    return {
        "arm": row.arm.name,
        "model": label(row.model),
        "against": against(row.arm),
        **files.read_json(directory / "results.json"),
        "seed": config.seed,
        "significance": compared[row.key],
        "training": {
            "start": row.arm.start,
            "corpus": row.arm.corpus,
            "loss": row.arm.loss,
            "config": asdict(config),
            "commits": stages.commits_of(how),
            "seconds": how["seconds"],
            **summary,
        },
    }


def collect(study: Study, evaluated: Mapping[Row, Path]) -> dict:
    """What results.json says beside what ran: the arms, the distilled corpora, the deviations."""
    compared = files.read_json(significance(study, evaluated) / "significance.json")
    return {
        "arms": [results_of(study, row, path, compared) for row, path in evaluated.items()],
        "distilled": {name: _card(study, name) for name in ("seq_kd", "seq_inter")},
        "deviations": list(study.scale.deviations),
    }


def _card(study: Study, name: str) -> dict | None:
    """The numbers of a distilled corpus's card; None if no arm needed it."""
    try:
        card = files.read_json(CORPORA[name](study._replace(make=False)) / "card.json")
    except stages.NotMade:
        return None
    return {key: value for key, value in card.items() if isinstance(value, int | float | str | None)}


def data_hashes(study: Study) -> dict[str, str]:
    """Split -> SHA-256 of its pairs as they were read."""
    counts = files.read_json(data(study) / "counts.json")
    return {split: found["sha256"] for split, found in counts.items()}


def samples(study: Study, evaluated: Mapping[Row, Path], count: int = 4) -> str:
    """Some test sentences under the teacher, the baseline and Seq-KD, greedily: for the screen, not for a file."""
    shown = [row for row in evaluated if row.arm.name in (TEACHER, BASELINE, "Seq-KD")]
    sources = read(study, data(study), "test").sources
    outputs = {row.key: files.read_json(evaluated[row] / "outputs.json") for row in shown}
    lines = []
    for place in np.linspace(0, len(sources) - 1, count).astype(int) if outputs else ():
        lines.append(f"\nsource: {sources[place]}")
        lines.append(f"  reference: {next(iter(outputs.values()))['references'][place]}")
        lines += [f"  {key}: {found['beam1'][place]}" for key, found in outputs.items()]
    return "\n".join(lines) + "\n"
