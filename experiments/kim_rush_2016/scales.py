"""The scales by name: `smoke` for minutes, `multi30k` and `tatoeba` for days, `paper` as published.

Every setting but the arms stands here. Where a scale departs from the paper it says so in `deviations`, which are
stored with the results.
"""

from dataclasses import replace
from functools import partial

from experiments.kim_rush_2016 import published
from experiments.kim_rush_2016.arms import ARMS, BASELINE, BEST, PRUNED, TEACHER
from experiments.kim_rush_2016.recipes import AUTHORS, LUONG, OF_AUTHORS, SEARCHED, Recipe, sgd
from experiments.kim_rush_2016.scale import Facts, Scale
from seqkd_jax.config import (
    BatchConfig,
    LossConfig,
    LSTMConfig,
    OptimiserConfig,
    SearchConfig,
    TrainConfig,
    TransformerConfig,
    VocabularyConfig,
)
from seqkd_jax.data.toy import MAX_SOURCE, MAX_TARGET
from seqkd_jax.types import UserError

_ADAM = "Adam instead of SGD; fine-tuning at 0.1 x the peak rate (the paper's 0.1 is SGD's)"


def _adam(rate: float, batch: BatchConfig, warmup: int = 100, clip: float = 5.0, **settings) -> TrainConfig:
    optimiser = OptimiserConfig(learning_rate=rate, schedule="cosine", warmup_steps=warmup, clip_norm=clip)
    return replace(TrainConfig(optimiser=optimiser, batch=batch, seed=1), **settings)


def _fine(config: TrainConfig, epochs: int) -> TrainConfig:
    """Fine-tuning: from a tenth of the peak rate on, to its end."""
    rate = 0.1 * config.optimiser.learning_rate
    optimiser = replace(config.optimiser, learning_rate=rate, warmup_steps=0)
    return replace(config, optimiser=optimiser, epochs=epochs, patience=0)


_MAIN = (BASELINE, "Word-KD", "Seq-KD", "Seq-KD + Word-KD")
_CERTAIN = (*_MAIN, "Baseline + gold", "Seq-KD + gold")  # more seeds than others


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
        others=dict.fromkeys(_MAIN[1:], 3),
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
        seeds={arm.name: 3 for arm in ARMS if arm.role == "student"} | dict.fromkeys(_CERTAIN, 5) | {PRUNED: 3},
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
