"""The study of Kim & Rush at a scale of seconds: a teacher, its n-best lists, a student on them, and their evaluation.

python -m experiments.chaos.small_study --out DIR [--devices N] [options of a study]
"""

import sys
from dataclasses import dataclass, replace

import tyro

from experiments.core.study import main as run_study
from experiments.kim_rush_2016 import study
from experiments.kim_rush_2016.scale import Scale
from experiments.kim_rush_2016.scales import SCALES
from seqkd_jax.config import LSTMConfig, SearchConfig, TrainConfig

NAME = "seconds"
ARM = "seq_kd"  # with the teacher that it learns from


@dataclass(frozen=True)
class Options:
    """Kim & Rush 2016 at a scale of seconds."""

    out: str
    """Where results go."""
    devices: int = 1
    """Devices to train on."""


def scale(devices: int) -> Scale:
    """The smoke scale, so small that it learns nothing, and saved after every other update."""
    (smoke,) = SCALES["smoke"]

    def short(config: TrainConfig) -> TrainConfig:
        return replace(config, epochs=1, max_steps=4, validate_every=2, save_minutes=0.0, log_every=1, devices=devices)

    return replace(
        smoke,
        name=NAME,
        toy=(64, 8, 8),
        models={"teacher": (LSTMConfig(1, 12),), "student": (LSTMConfig(1, 8),)},
        training={role: short(config) for role, config in smoke.training.items()},
        fine_tuning={role: short(config) for role, config in smoke.fine_tuning.items()},
        seq_kd_search=SearchConfig(beam=2),
        evaluation=SearchConfig(beam=5),
        timed_sentences=2,
        timed_repetitions=1,
        published={},
    )


def main() -> int:
    """Exit status: that of the study."""
    options, others = tyro.cli(Options, prog="python -m experiments.chaos.small_study", return_unknown_args=True)
    SCALES[NAME] = (scale(options.devices),)
    return run_study(study.STUDY, ["--scale", NAME, "--only", ARM, "--out", options.out, *others])


if __name__ == "__main__":
    sys.exit(main())
