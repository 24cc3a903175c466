"""What a run of the study is made of, as data: `smoke` for minutes, `multi30k` and `tatoeba` for days, `paper` as
published.

Everything but the arms stands here; nothing is set elsewhere. Where a scale departs from the paper it says so in
`deviations`, which are stored with the results.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from experiments.core.study import Workspace
from experiments.kim_rush_2016 import published
from experiments.kim_rush_2016.arms import ARMS, BASELINE, BEST, NAMED, PRUNED, TEACHER, Arm, pruned_arms, slug
from experiments.kim_rush_2016.published import Published
from experiments.kim_rush_2016.recipes import AUTHORS, LUONG, OF_AUTHORS, SEARCHED, Recipe, sgd
from seqkd_jax.config import (
    BatchConfig,
    ComputeType,
    LossConfig,
    LSTMConfig,
    ModelConfig,
    OptimiserConfig,
    PruningConfig,
    SearchConfig,
    TrainConfig,
    TransformerConfig,
    VocabularyConfig,
)
from seqkd_jax.data.toy import MAX_SOURCE, MAX_TARGET
from seqkd_jax.types import UserError


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
    def teacher_row(self) -> "Row":
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


class Row(NamedTuple):
    """One training run: an arm under one model and one seed."""

    arm: Arm
    model: ModelConfig
    place: int = 0  # added to the seed of the arm's training
    teacher: int = 0  # the place of the teacher that it learns from

    @property
    def label(self) -> str:
        """In tables."""
        teacher = f", teacher +{self.teacher}" if self.teacher else ""
        return f"{self.arm.name}, {label(self.model)}{teacher}" + (f", seed +{self.place}" if self.place else "")

    @property
    def key(self) -> str:
        """In names of files and in logs."""
        teacher = f"-teacher{self.teacher}" if self.teacher else ""
        seed = f"-seed{self.place}" if self.place else ""
        return f"{slug(self.arm.name)}-{label(self.model).replace('×', 'x').replace(' ', '')}{teacher}{seed}"

    @property
    def names(self) -> tuple[str, ...]:
        """On the command line."""
        return slug(self.arm.name), self.arm.name, self.key


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


def by_arm(rows: Iterable[Row]) -> dict[Row, list[Row]]:
    """The lines of the table, each the first of its seeds, with all of them."""
    lines: dict[tuple, list[Row]] = {}
    for row in rows:
        lines.setdefault((row.arm, row.model, row.teacher), []).append(row)
    return {seeds[0]: seeds for seeds in lines.values()}


def start_of(row: Row) -> Row | None:
    """The row that this one is fine-tuned from, of the same seed."""
    if row.arm.start is None:
        return None
    arms = (*ARMS, *(pruned_arms(row.arm.pruning) if row.arm.pruning else ()))
    return row._replace(arm=next(arm for arm in arms if arm.name == row.arm.start))


def label(config: ModelConfig) -> str:
    """How a model is called in tables."""
    if hasattr(config, "layers"):
        return f"{config.layers}×{config.size}"
    return f"Transformer {config.encoder_layers}+{config.decoder_layers}×{config.width}"


_ADAM = "Adam instead of SGD; fine-tuning at 0.1 x the peak rate (the paper's 0.1 is SGD's)"


def _adam(rate: float, batch: BatchConfig, warmup: int = 100, clip: float = 5.0, **settings) -> TrainConfig:
    optimiser = OptimiserConfig(learning_rate=rate, schedule="cosine", warmup_steps=warmup, clip_norm=clip)
    return replace(TrainConfig(optimiser=optimiser, batch=batch, seed=1), **settings)


def _fine(config: TrainConfig, epochs: int) -> TrainConfig:
    """Fine-tuning: from a tenth of the peak rate on, to its end."""
    rate = 0.1 * config.optimiser.learning_rate
    optimiser = replace(config.optimiser, learning_rate=rate, warmup_steps=0)
    return replace(config, optimiser=optimiser, epochs=epochs, patience=0)


def _smoke() -> Scale:
    shape = (64, MAX_SOURCE + 1, MAX_TARGET + 1)
    batch = BatchConfig(tokens=0, sentences=shape[0], buckets=1, max_source=shape[1] - 1, max_target=shape[2] - 1)
    teacher, student = _adam(1e-2, batch, epochs=3, seed=3), _adam(1.5e-2, batch, epochs=5, seed=3)
    return Scale(
        name="smoke",
        languages=("en", "de"),
        facts=Facts(20_000, 10.3, 11.3),
        toy=(20_000, 200, 1000),
        vocabulary=VocabularyConfig("words", 400, joint=False, tokenizer="pretokenised"),
        models={
            "teacher": (LSTMConfig(2, 128, dropout=0.0, init_scale=0.3),),
            "student": (LSTMConfig(2, 32, dropout=0.0, init_scale=0.5),),
        },
        training={"teacher": teacher, "student": student},
        fine_tuning={"teacher": _fine(teacher, 2), "student": _fine(student, 2)},
        shapes=(shape,),
        pick="last",
        seq_inter_search=SearchConfig(beam=16),
        source_buckets=(shape[1],),
        decode_tokens=2048,
        timed_sentences=200,
        seq_inter_share=0.25,
        seed=3,
        max_compilations=20,
        published={"2×128": (published.TH_EN_TEACHER,), "2×32": (published.TH_EN_100,)},
        deviations=(
            "the toy language, not a natural one; far smaller models",
            "rates and initialisation were chosen in sight of the effect, under other seeds, so on other sentences",
            _ADAM,
            "loss divided by tokens, not by sentences",
            "Seq-Inter with K = 16, not 35, for a quarter of the training set",
        ),
    )


_MAIN = (BASELINE, "Word-KD", "Seq-KD", "Seq-KD + Word-KD")
_CERTAIN = (*_MAIN, "Baseline + gold", "Seq-KD + gold")  # more seeds than others


def _multi30k() -> Scale:
    batch = BatchConfig(tokens=2048, buckets=6, max_source=50, max_target=50)
    adam = partial(_adam, batch=batch, clip=1.0, validate_bleu=True, seed=0)
    teacher, student = adam(1.5e-3, warmup=400, epochs=10), adam(3e-3, warmup=400, epochs=15, patience=4)
    transformer = adam(1e-3, warmup=600, epochs=10, loss=LossConfig(label_smoothing=0.1))
    transformer = replace(transformer, batch=replace(batch, tokens=1024))
    return Scale(
        name="multi30k",
        languages=("en", "de"),
        facts=Facts(29_000, 15.5, 17.5),
        vocabulary=VocabularyConfig("sentencepiece", 4000, joint=True),
        models={
            "teacher": (LSTMConfig(2, 500, dropout=0.3),),
            "student": (
                LSTMConfig(2, 100, dropout=0.1, init_scale=0.2),
                LSTMConfig(2, 200, dropout=0.2, init_scale=0.14),
            ),
            "transformer": (TransformerConfig(3, 3, 256, heads=4, feed_forward=1024, dropout=0.2),),
        },
        training={"teacher": teacher, "student": student, "transformer": transformer},
        fine_tuning={"teacher": _fine(teacher, 3), "student": _fine(student, 5)},
        end_bonuses=(-1.0, -0.5, 0.0, 0.5, 1.0, 1.5),
        seeds={arm.name: 3 for arm in ARMS if arm.role == "student"} | dict.fromkeys(_CERTAIN, 5) | {PRUNED: 2},
        some={"2×200": dict.fromkeys(_MAIN, 3)},
        others=dict.fromkeys(_MAIN[1:], 3),
        published={
            "2×500": (published.EN_DE_TEACHER, published.TH_EN_TEACHER),
            "2×100": (published.EN_DE_500, published.TH_EN_100),
        },
        deviations=(
            "Multi30k (29,000 image captions) with one sentencepiece vocabulary, not WMT or IWSLT with words",
            _ADAM,
            "loss divided by tokens, not by sentences",
            "sacrebleu, cased and detokenised, not multi-bleu.perl on tokens",
            "the checkpoint with the best BLEU on the validation set; students stop once 4 epochs brought no better",
        ),
    )


def _tatoeba() -> Scale:
    """Models and about as many updates as on Multi30k. Of its distinct training sources 18% have several targets."""
    like = _multi30k()
    training = {role: replace(like.training[role], epochs=4, patience=0) for role in ("teacher", "student")}
    return replace(
        like,
        name="tatoeba",
        facts=Facts(164_490, 10.6, 11.2),
        models={"teacher": like.models["teacher"], "student": like.models["student"][:1]},
        training=training,
        fine_tuning={role: _fine(config, 3) for role, config in training.items()},
        seq_inter_share=0.2,
        seeds={},
        others={},
        some={"2×500": {TEACHER: 1}, "2×100": dict.fromkeys((BASELINE, "Word-KD", "Seq-KD", BEST), 2)},
        deviations=(
            "Tatoeba (164,490 everyday sentences) with one sentencepiece vocabulary, not WMT or IWSLT with words",
            "Seq-Inter for a fifth of the training set",
            "one reference for each test sentence, since the test set has no more",
            *like.deviations[1:-1],
            "the checkpoint with the best BLEU on the validation set",
        ),
    )


def _paper(
    recipe: Recipe, name: str, languages: tuple[str, str], words: int, facts: Facts, sizes, tables, share: float
) -> Scale:
    teacher, *students = (LSTMConfig(layers, size, dropout=recipe.dropout) for layers, size in sizes)
    roles = ("teacher", "student")
    return Scale(
        name=name + recipe.suffix,
        languages=languages,
        facts=facts,
        vocabulary=VocabularyConfig("words", words + 4, joint=False, tokenizer="pretokenised"),
        models={"teacher": (teacher,), "student": tuple(students)},
        training=dict.fromkeys(roles, sgd(recipe, 1.0, recipe.epochs, "paper")),
        fine_tuning=dict.fromkeys(roles, sgd(recipe, 0.1, 3, "constant")),
        pick="last",
        seq_kd_search=OF_AUTHORS,
        evaluation=OF_AUTHORS,
        seq_inter_share=share,
        source_buckets=(8, 16, 24, 32, 40, 51),
        published=tables,
        deviations=(
            f"{recipe.about}; which recipe the tables used cannot be recovered",
            "fine-tuning for 3 epochs: its length is not published",
            *SEARCHED,
        ),
    )


def _en_de(recipe: Recipe) -> Scale:
    tables = {"4×1000": (published.EN_DE_TEACHER,), "2×500": (published.EN_DE_500,), "2×300": (published.EN_DE_300,)}
    facts = Facts(4_000_000, 25.0, 25.0)  # lengths are guesses
    sizes = (4, 1000), (2, 500), (2, 300)
    return _paper(recipe, "paper-en-de", ("en", "de"), 50_000, facts, sizes, tables, share=0.5)


def _th_en(recipe: Recipe) -> Scale:
    tables = {"2×500": (published.TH_EN_TEACHER,), "2×100": (published.TH_EN_100,)}
    facts, sizes = Facts(90_000, 20.0, 20.0), ((2, 500), (2, 100))  # lengths are guesses
    # The half of En–De was to spare time.
    return _paper(recipe, "paper-th-en", ("th", "en"), 25_000, facts, sizes, tables, share=1.0)


def _multi30k_words() -> Scale:
    """As the paper measured: tokens, words and <unk>, the search of its authors, multi-bleu; trained as `multi30k`."""
    subwords = _multi30k()
    roles = ("teacher", "student")
    return replace(
        subwords,
        name="multi30k-words",
        tokenizer="13a",
        vocabulary=VocabularyConfig("words", 8_000 + 4, joint=False, tokenizer="pretokenised"),
        facts=Facts(29_000, 14.0, 13.5),
        models={role: subwords.models[role][:1] for role in roles},
        training={role: subwords.training[role] for role in roles},
        seq_kd_search=OF_AUTHORS,
        evaluation=OF_AUTHORS,
        seeds={},
        some={},
        others={},
        end_bonuses=(),
        deviations=(
            "Multi30k (29,000 image captions), not WMT or IWSLT, tokenised by 13a; the 8,000 most frequent words "
            "of each side, of which the paper has 50,000 or 25,000",
            _ADAM,
            "loss divided by tokens, not by sentences",
            *SEARCHED,
            subwords.deviations[-1],
        ),
    )


MORE_MODES = {"tatoeba": "multi30k"}  # a scale whose sources have more translations than the other's
_OF_RECIPE = {recipe.suffix: (_en_de(recipe), _th_en(recipe)) for recipe in (LUONG, AUTHORS)}
SCALES: dict[str, tuple[Scale, ...]] = {
    "smoke": (_smoke(),),
    "multi30k": (_multi30k(),),
    "multi30k-words": (_multi30k_words(),),
    "tatoeba": (_tatoeba(),),
    **{f"paper{suffix}": scales for suffix, scales in _OF_RECIPE.items()},
    **{scale.name: (scale,) for scales in _OF_RECIPE.values() for scale in scales},
}


def asked_for(name: str) -> tuple[Scale, ...]:
    """Those of --scale; UserError: there is none of that name."""
    if name not in SCALES:
        raise UserError(f"--scale {name}: there is none of that name; there are {', '.join(SCALES)}")
    return SCALES[name]


def named(name: str) -> Scale:
    """The scale of that name, as results.json has it, one language pair; UserError if there is none."""
    for scale in (scale for several in SCALES.values() for scale in several):
        if scale.name == name:
            return scale
    raise UserError(f"no scale has results called {name!r}; there are those of {', '.join(SCALES)}")
