"""What a set-up is, and what a scale of one is: models, rates, arms, and in what it differs from the paper."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from experiments.abnar_2020.arms import Arm
from seqkd_jax.config import LossConfig, ModelConfig, TrainConfig


class Setup(NamedTuple):
    """What is learned and decided, at any scale; data, columns, numbers and claims stand under the same name."""

    scenario: str
    files: str  # what --data leads to
    length: int  # ids of a training example, about, padding included; 0: an image
    classes: int  # to decide between; 0: at every position the next word
    examples: dict[str, int]  # for training, by scale; that of an embedded one is told there


SENTENCES = "train.tsv, valid.tsv and test.tsv, or Linzen et al.'s file"
SETUPS = {  # of a scenario, the last is what it means if none is named
    "lm": Setup("agreement", SENTENCES, 27, 0, {"small": 39_929, "paper": 157_700}),
    "classification": Setup("agreement", SENTENCES, 12, 2, {"small": 39_929, "paper": 157_700}),
    "images": Setup("digits", "the four idx files of MNIST", 0, 10, {"small": 60_000, "paper": 60_000}),
}

SOFT = LossConfig("word_kd", alpha=1.0)  # the teacher's distribution alone, T = 1: all of the paper's runs on sentences

# What the paper's code does otherwise than one would, by the field of LossConfig; and what is said where it is not so.
Quirk = Literal["teacher_dropout", "temperature_scaling"]
QUIRKS: dict[Quirk, bool | str] = {"teacher_dropout": True, "temperature_scaling": "inverse"}
WITHOUT_QUIRKS: dict[Quirk, str] = {
    "teacher_dropout": "teachers teach without dropout, so that soft targets are computed once; the original's with it",
    "temperature_scaling": "the teacher's term is multiplied by T², in the original code divided",
}
BEST_TEACHES = (
    "a teacher teaches from its checkpoint of the lowest validation loss: at the end it has the training sentences by "
    "heart, and its soft targets are the labels"
)
CLIPPING = "gradients are clipped by the norm of all together; Keras' clipnorm, in the original, clips each tensor's"
OWN_SEEDS = 1000  # what is added to the seeds of taught models


@dataclass(frozen=True)
class Scale:
    """One set-up at one size."""

    name: str
    setup: str
    models: dict[str, ModelConfig]
    training: dict[str, TrainConfig]  # alone, by model
    arms: tuple[Arm, ...]
    distilling: dict[str, TrainConfig] = field(default_factory=dict)  # by student; {}: as alone, with the loss `soft`
    soft: LossConfig = SOFT
    seeds: int = 3
    teachers: Literal["one", "each"] = "each"  # replica i is taught by replica i of its teacher, or all by the first
    # Of a teacher's checkpoints that of the lowest validation loss, or the end of its training, as in the paper's code.
    teaching: Literal["best", "end"] = "end"
    embedded: dict[str, int] | None = None  # examples of the embedded data; None: real data
    vocabulary: int = 10_000  # words at most, the most frequent of the training split
    mapped: int = 1000  # examples whose representations are compared
    paths: tuple[Arm, ...] = ()  # arms whose learning paths are shown
    notes: tuple[str, ...] = ()  # what differs from the paper, beside what follows from the fields

    @property
    def quirks(self) -> tuple[Quirk, ...]:
        """Those of QUIRKS that taught models have."""
        return tuple(name for name, theirs in QUIRKS.items() if getattr(self.soft, name) == theirs)

    @property
    def deviations(self) -> tuple[str, ...]:
        """What differs from the paper."""
        told = [*self.notes, *([BEST_TEACHES] if self.teaching == "best" else []), CLIPPING]
        if self.soft.alpha != 1:
            told.append(f"students learn the label too: the teacher's distribution has a weight of {self.soft.alpha:g}")
        named = [name for name in QUIRKS if name != "temperature_scaling" or self.soft.temperature != 1]
        return (*told, *(WITHOUT_QUIRKS[name] for name in named if name not in self.quirks))

    def config(self, arm: Arm, seeds: int) -> TrainConfig:
        """How an arm is trained.

        Students have seeds of their own: one of its teacher's architecture would else start as the very copy of it.
        """
        config = self.training[arm.student]
        if arm.teacher is not None:
            config = self.distilling.get(arm.student, config)
            config = replace(config, loss=self.soft, seed=config.seed + OWN_SEEDS)
        return replace(config, replicas=seeds, keep_path=True)

    def with_quirks(self, quirks: Sequence[Quirk]) -> "Scale":
        """This scale, with some of QUIRKS."""
        return replace(self, soft=replace(self.soft, **{quirk: QUIRKS[quirk] for quirk in quirks}))
