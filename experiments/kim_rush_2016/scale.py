"""The settings of a study's run as one type, how they vary, and the training runs that they ask for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

from experiments.core.study import Workspace
from experiments.kim_rush_2016.arms import ARMS, NAMED, PRUNED, TEACHER, Arm, pruned_arms
from experiments.kim_rush_2016.published import Published
from experiments.kim_rush_2016.rows import Row, label
from seqkd_jax.config import (
    BatchConfig,
    ComputeType,
    LossConfig,
    ModelConfig,
    PruningConfig,
    SearchConfig,
    TrainConfig,
    VocabularyConfig,
)


class Facts(NamedTuple):
    """What a dry run assumes of the training data, which it does not read: mean lengths in ids, the end included."""

    pairs: int
    source_length: float
    target_length: float


class Explanation(NamedTuple):
    """How much of the paper's explanation is measured."""

    sentences: int  # of the test set
    nodes: int  # prefixes that the exact search expands for each, at most


@dataclass(frozen=True)
class Scale:
    """One language pair, one teacher, some students, and how everything is trained and decoded."""

    name: str
    languages: tuple[str, str]
    facts: Facts
    vocabulary: VocabularyConfig
    models: Mapping[str, tuple[ModelConfig, ...]]
    """role -> its models: one teacher, some students."""
    training: Mapping[str, TrainConfig]
    """role -> training from random weights."""
    fine_tuning: Mapping[str, TrainConfig]
    """role -> fine-tuning, on Seq-Inter."""
    pruning: tuple[PruningConfig, ...] = ()
    """Table 3: how the best student is pruned; (): that table is left out."""
    explanation: Explanation | None = None
    """The paper's explanation, measured; None: it is left out."""
    tokenizer: str = ""
    """sacrebleu's tokenizer, applied to all data before anything reads them; "": they are as they are."""
    toy: tuple[int, int, int] | None = None
    """Sentences (train, valid, test) of the toy language, instead of data on disk."""
    shapes: tuple[tuple[int, int, int], ...] | None = None
    """Batch shapes (rows, source, target); None: chosen over the lengths of the training corpus."""
    pick: Literal["best", "last"] = "best"
    """The checkpoint that goes on from a training run. `best` needs a measure that is fair to every arm: BLEU is, the
    loss on references is not (Seq-KD does not model them)."""
    word_kd: LossConfig = LossConfig("word_kd", alpha=0.5, temperature=1.0)
    seq_kd_search: SearchConfig = SearchConfig(beam=5)
    seq_inter_search: SearchConfig = SearchConfig(beam=35)
    seq_inter_share: float = 0.5
    """Share of the training set, drawn with `seed`, for which Seq-Inter's targets are made (the paper, En–De: half)."""
    seq_inter_selection: str = "kim_rush"
    """Similarity to the reference: a rule of distill.SELECTIONS."""
    teacher_arm: str = ARMS[0].name
    """The arm that the students learn from."""
    ensemble: int = 1
    """So many seeds of the teacher make the n-best lists together; Word-KD reads the first."""
    corpora: Mapping[str, Callable[[Workspace], Path]] = field(default_factory=dict)
    """Arm.corpus -> how it is made, instead of by pipeline.CORPORA."""
    evaluation: SearchConfig = SearchConfig(beam=5)
    source_buckets: tuple[int, ...] = (8, 16, 24, 32, 48, 64)
    """Widths of sources when decoding, EOS included."""
    decode_tokens: int = 1024
    """Source positions in a batch when decoding."""
    beside: Mapping | None = None
    """What the claims compare this run with: `comparisons.summary` of another."""
    end_bonuses: tuple[float, ...] = ()
    """What `length.tuned` chooses from, on the validation set; (): lengths are not tuned."""
    timed_sentences: int | None = 200
    """Test sentences for the source words/s; None: all."""
    timed_repetitions: int = 3
    seed: int = 1
    """Of the data."""
    seeds: Mapping[str, int] = field(default_factory=dict)
    """Arm, or PRUNED for those of table 3 -> its seeds; of those not named 1. The students of all seeds have the
    teacher of the first."""
    teachers: int = 1
    """Seeds of the teacher that have students. The arms of all but the first are in `others`."""
    others: Mapping[str, int] = field(default_factory=dict)
    """Arm that is trained from random weights -> its seeds, under each further teacher."""
    teaching: int = 0
    """The teacher that students learn from, by its place among the seeds."""
    some: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Label of a model that has not all arms of its role -> those that it has, and their seeds."""
    max_compilations: int = 0
    """More are a failure; 0: no limit."""
    published: Mapping[str, tuple[Published, ...]] = field(default_factory=dict)
    """Label of a model -> the published tables whose numbers stand beside it."""
    deviations: tuple[str, ...] = ()
    speed: Path | None = None
    """A record of the decoding benchmark, for table 2."""

    def count(self, arm: Arm, model: ModelConfig) -> int:
        """Seeds of an arm under a model; 0: the model does not have that arm."""
        name, some = PRUNED if arm.pruning else arm.name, self.some.get(label(model))
        found = self.seeds.get(name, 1) if some is None else some.get(name, 0)
        return max(found, self.teachers) if name == TEACHER else found

    @property
    def teacher(self) -> ModelConfig:
        """The model that the students learn from."""
        return self.teacher_row.model

    @property
    def teacher_row(self) -> Row:
        """The row of the arm that the students learn from."""
        arm = NAMED[self.teacher_arm]
        return Row(arm, self.models[arm.role][0], self.teaching)

    @property
    def multi_bleu(self) -> bool:
        """Whether BLEU is also told as the paper has it: of tokens that are words."""
        return self.toy is None and self.vocabulary.kind == "words"

    @property
    def files(self) -> str:
        """What --data leads to."""
        pair = "-".join(self.languages)
        return f"a corpus with train, valid and test files in {pair}, or a directory that has it as {pair}"

    def __str__(self) -> str:
        return self.name

    @property
    def batch(self) -> BatchConfig:
        """How all arms make batches."""
        return self.training["teacher"].batch


def student_trained(scale: Scale, **settings) -> Scale:
    """The scale whose students are trained from random weights with other settings of TrainConfig."""
    return replace(scale, training={**scale.training, "student": replace(scale.training["student"], **settings)})


def longer(scale: Scale, epochs: int) -> Scale:
    """The same for so many epochs, which is told."""
    deviations = *scale.deviations, f"--epochs {epochs} of the students"
    return replace(student_trained(scale, epochs=epochs), deviations=deviations)


def computed(scale: Scale, compute: ComputeType) -> Scale:
    """The scale with this type of products and activations."""
    if compute == "float32":
        return scale
    chosen = {role: tuple(replace(model, compute=compute) for model in of) for role, of in scale.models.items()}
    return replace(scale, models=chosen, deviations=(*scale.deviations, f"--compute {compute}, not float32"))


def rows(scale: Scale) -> list[Row]:
    """Every run of a scale, in the order of its table: the seeds of an arm one after the other; then those of further
    teachers.
    """
    first = [
        Row(arm, model, place)
        for role, configs in scale.models.items()
        for model in configs
        for arm in (*ARMS, *(arm for pruning in scale.pruning for arm in pruned_arms(pruning)))
        if arm.role == role
        for place in range(scale.count(arm, model))
    ]
    models = [model for model in scale.models["student"] if label(model) not in scale.some]
    return first + [
        Row(arm, model, place, teacher)
        for teacher in range(1, scale.teachers)
        for model in models
        for arm in ARMS
        for place in range(scale.others.get(arm.name, 0))
    ]


def with_seeds(scale: Scale, count: int) -> Scale:
    """The scale with so many seeds of each arm."""
    names = (*(arm.name for arm in ARMS), PRUNED)
    some = {label: dict.fromkeys(seeds, count) for label, seeds in scale.some.items()}
    others = dict.fromkeys(scale.others, count)
    return replace(scale, seeds=dict.fromkeys(names, count), some=some, others=others)
