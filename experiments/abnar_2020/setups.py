"""The types of the study: what is learned (`Setup`), and one set-up at one size (`Scale`), with its notes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from experiments.abnar_2020.arms import MATCHED, PLAIN, Arm, Way
from seqkd_jax.config import ComputeType, LossConfig, ModelConfig, TrainConfig
from seqkd_jax.types import UserError


class Setup(NamedTuple):
    """What is learned and decided, at any scale; data, columns, numbers and claims stand under the same name."""

    scenario: str
    files: str  # what --data leads to
    length: int  # ids of a training example, about, padding included; 0: an image
    classes: int  # to decide between; 0: at every position the next word
    examples: int  # for training, of the data that the small scales were made for; that of toy data is in the scale
    published: int  # of the paper


SENTENCES = "train.tsv, valid.tsv and test.tsv, or Linzen et al.'s file"
SETUPS = {  # of a scenario, the last is what it means if none is named
    "lm": Setup("agreement", SENTENCES, 27, 0, 39_929, 157_700),
    "classification": Setup("agreement", SENTENCES, 12, 2, 39_929, 157_700),
    "images": Setup("digits", "the four idx files of MNIST", 0, 10, 60_000, 60_000),
}

# In what this differs from the paper

POSITIONS = "verbs are looked up by white-space position; in the paper's code about 7% were misplaced"
WORDS = "the vocabulary is that of the training split, 10,000 words at most; in the paper's code the 10,030 of all rows"
STARTS = (
    "linear layers start Glorot uniform; the original's normal, 0.05 (Transformers), width^-1/2 (LSTM language models)"
)
MAPPED = "representations are of the last word before the verb, of test sentences; the original's of all words"
MASKED = "the bidirectional Transformer does not attend to padding; the original's mask had no effect"
BEST_TEACHES = (
    "a teacher teaches from its checkpoint of the lowest validation loss: at the end it has the training sentences by "
    "heart, and its soft targets are the labels"
)
CLIPPING = "gradients are clipped by the norm of all together; Keras' clipnorm, in the original, clips each tensor's"
OF_IMAGES = (
    "group and layer instead of batch normalisation: no running statistics, no dependence on neighbours",
    "the scaled and translated test sets are made here, not tfds' mnist_corrupted: levels differ",
)
OF_CLASSIFIERS, OF_LANGUAGE_MODELS = (POSITIONS, WORDS, MASKED, STARTS), (POSITIONS, WORDS, MAPPED, STARTS)

# What the paper's code does otherwise than one would, by the field of LossConfig; and the deviation where it is off.
Quirk = Literal["teacher_dropout", "temperature_scaling"]
QUIRKS: dict[Quirk, bool | str] = {"teacher_dropout": True, "temperature_scaling": "inverse"}
WITHOUT_QUIRKS: dict[Quirk, str] = {
    "teacher_dropout": "teachers teach without dropout, so that soft targets are computed once; the original's with it",
    "temperature_scaling": "the teacher's term is multiplied by T², in the original code divided",
}

SOFT = LossConfig("word_kd", alpha=1.0)  # the teacher's distribution alone, T = 1: all of the paper's runs on sentences
OWN_SEEDS = 1000  # what is added to the seeds of taught models; twice that, in a search


class Search(NamedTuple):
    """How the rate and the dropout of each model are chosen: by its validation loss, alone, with the same budget for
    every architecture. Each rate is tried with the first dropout, for so many updates; with the best rate then each
    dropout, for so many epochs; always with a schedule of that length.
    """

    rates: tuple[float, ...]
    updates: int
    dropouts: tuple[float, ...]
    epochs: int

    def __str__(self) -> str:
        rates, dropouts = (", ".join(f"{value:g}" for value in values) for values in (self.rates, self.dropouts))
        return (
            f"rate and dropout of every model are the best in validation loss, one seed, alone: of the rates {rates} "
            f"after {self.updates} updates with dropout {self.dropouts[0]:g}, then of the dropouts {dropouts} after "
            f"{self.epochs} epochs; taught models have those of the same model alone"
        )


def with_dropout(model: ModelConfig, rate: float) -> ModelConfig:
    """The model with this dropout; those of other places are changed in proportion."""
    factor = rate / model.dropout
    names = [name for name in vars(model) if name.endswith("dropout")]
    return replace(model, **{name: round(factor * getattr(model, name), 6) for name in names})


@dataclass(frozen=True)
class Scale:
    """One set-up at one size."""

    name: str
    setup: str
    models: dict[str, ModelConfig]
    training: dict[str, TrainConfig]  # alone, by model
    arms: tuple[Arm, ...]
    notes: tuple[str, ...]  # what differs from the paper, beside what follows from the fields
    distilling: dict[str, TrainConfig] = field(default_factory=dict)  # by student; {}: as alone, with the loss `soft`
    soft: LossConfig = SOFT
    seeds: int = 3
    teachers: Literal["one", "each"] = "each"  # replica i is taught by replica i of its teacher, or all by the first
    # Of a teacher's checkpoints that of the lowest validation loss, or the end of its training, as in the paper's code.
    teaching: Literal["best", "end"] = "end"
    toy: dict[str, int] | None = None  # examples of each split of the toy data; None: real data
    vocabulary: int = 10_000  # words at most, the most frequent of the training split
    mapped: int = 1000  # examples whose representations are compared
    paths: tuple[Arm, ...] = ()  # arms whose learning paths are shown
    path_seeds: int = 0  # of so many seeds of each; 0: of all
    ways: Mapping[str, Way] = field(default_factory=dict)  # those that arms name
    search: Search | None = None  # how rates and dropout are chosen; None: they are as `models` and `training` say
    max_compilations: int = 0

    def __str__(self) -> str:
        return f"{self.setup}, {self.name}"

    @property
    def files(self) -> str:
        """What --data leads to."""
        return SETUPS[self.setup].files

    @property
    def quirks(self) -> tuple[Quirk, ...]:
        """Those of QUIRKS that taught models have."""
        return tuple(name for name, theirs in QUIRKS.items() if getattr(self.soft, name) == theirs)

    @property
    def deviations(self) -> tuple[str, ...]:
        """What differs from the paper."""
        found = [*self.notes, *([BEST_TEACHES] if self.teaching == "best" else []), CLIPPING]
        found += [str(self.search)] if self.search else []
        if self.soft.alpha != 1:
            found.append(
                f"students learn the label too: the teacher's distribution has a weight of {self.soft.alpha:g}"
            )
        named = [name for name in QUIRKS if name != "temperature_scaling" or self.soft.temperature != 1]
        return (*found, *(WITHOUT_QUIRKS[name] for name in named if name not in self.quirks))

    @property
    def examples(self) -> int:
        """For training, about."""
        setup = SETUPS[self.setup]
        return self.toy["train"] if self.toy else setup.published if self.name == "paper" else setup.examples

    def way(self, arm: Arm) -> Way:
        """In what an arm differs from the plain one."""
        return self.ways[arm.way] if arm.way else PLAIN

    def model(self, arm: Arm) -> ModelConfig:
        """What an arm trains, before a search."""
        model, way = self.models[arm.student], self.way(arm)
        model = model if way.dropout is None else with_dropout(model, way.dropout)
        return replace(model, norm="batch") if way.batch_norm else model

    def teacher(self, arm: Arm) -> Arm | None:
        """The arm that taught it."""
        return None if arm.teacher is None else Arm(arm.teacher, way=self.way(arm).teacher)

    def needs(self, arm: Arm) -> tuple[Arm, ...]:
        """The arms that must be trained before it: its teacher, and what that is chosen by."""
        teacher = self.teacher(arm)
        matched = (Arm(arm.student),) if self.way(arm).teaching == MATCHED else ()
        return () if teacher is None else (teacher, *matched)

    def loss(self, arm: Arm) -> LossConfig:
        """What a taught arm learns by."""
        way = self.way(arm)
        asked = {"temperature": way.temperature, "temperature_scaling": way.scaling}
        return replace(self.soft, **{name: value for name, value in asked.items() if value is not None})

    def config(self, arm: Arm) -> TrainConfig:
        """How an arm is trained, before a search.

        Students have seeds of their own: one of its teacher's architecture would else start as the very copy of it.
        """
        config = self.training[arm.student]
        if arm.teacher is not None:
            config = self.distilling.get(arm.student, config)
            config = replace(config, loss=self.loss(arm), seed=config.seed + OWN_SEEDS)
        return replace(config, replicas=self.seeds, keep_path=True)


def computed(scale: Scale, compute: ComputeType) -> Scale:
    """The scale with this type of products and activations. UserError: its models have no choice."""
    if compute == "float32":
        return scale
    if scale.setup == "images":
        raise UserError(f"--compute {compute}: the models of digits compute in float32; leave it out")
    models = {name: replace(model, compute=compute) for name, model in scale.models.items()}
    return replace(scale, models=models, notes=(*scale.notes, f"--compute {compute}, not float32"))
