"""How the paper trained and decoded, as far as it is known: two recipes, and the search of the authors' code."""

from typing import NamedTuple

from seqkd_jax.config import BatchConfig, OptimiserConfig, SearchConfig, TrainConfig
from seqkd_jax.decoding.search import named_rules

OF_AUTHORS = named_rules(SearchConfig(beam=5), "kim_rush")
SEARCHED = (
    "outputs of at most 1.5 x + 10 words, not 250; Seq-Inter's lists by our stop rule: theirs ends with the first "
    "hypothesis, and lists what has not finished",
)


class Recipe(NamedTuple):
    """One of the recipes that the tables of the paper may have used: it is not known which."""

    suffix: str  # of the scale's name
    sentences: int  # in a batch
    dropout: float
    epochs: int
    decay_from: int  # the first epoch after which the rate is halved
    about: str


LUONG = Recipe(
    "",
    128,
    0.2,
    12,
    8,
    "training as in Luong et al. 2015, from memory: batches of 128, dropout 0.2, 12 epochs, the rate halved after each "
    "from the eighth on (without dropout theirs are 10 epochs and the fifth), and also once the validation perplexity "
    "has risen, as in the authors' code",
)
AUTHORS = Recipe(
    "-authors",
    64,
    0.3,
    13,
    9,
    "training by the defaults of the authors' code: batches of 64, dropout 0.3, 13 epochs, the rate halved after each "
    "from the ninth on, and once the validation perplexity has risen",
)


def sgd(recipe: Recipe, rate: float, epochs: int, schedule: str) -> TrainConfig:
    """SGD on sentence means, clipped at 5; pairs over 50 words dropped."""
    optimiser = OptimiserConfig(
        "sgd", rate, schedule, warmup_steps=0, decay_from_epoch=recipe.decay_from, clip_norm=5.0, normalise="sentences"
    )
    batch = BatchConfig(tokens=0, sentences=recipe.sentences, buckets=5, max_source=50, max_target=50)
    return TrainConfig(optimiser=optimiser, batch=batch, epochs=epochs, seed=1)
