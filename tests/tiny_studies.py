"""The study of Abnar et al. at a scale of seconds: two models, two epochs, little data.

`MeanConfig` is a model of one's own, whose programs compile fast: it reads the mean of the embeddings before a place.
`tiny` gives it the names of the paper's models, so that claims and plots are told of it.
"""

import dataclasses

import jax
import jax.numpy as jnp

from experiments.abnar_2020 import scales
from experiments.abnar_2020.arms import Arm
from seqkd_jax.config import CNNConfig, MLPConfig, Rate, Width
from seqkd_jax.models import Entry
from seqkd_jax.types import PAD, Model
from seqkd_jax.utils.settings import Settings

TOY = {"train": 160, "valid": 48, "test": 160}
NAMES = {"classification": ("LSTM", "Transformer"), "lm": ("LSTM", "Transformer"), "images": ("CNN", "MLP")}


@dataclasses.dataclass(frozen=True)
class MeanConfig(Settings):
    """A bag of words; with `every`, of those up to each position."""

    width: Width = 8
    every: bool = False
    dropout: Rate = 0.3


def build_mean(config, source_size, target_size):
    def init(key):
        sizes = {"in": source_size, "out": target_size}
        return {name: jax.random.normal(key, (size, config.width)) for name, size in sizes.items()}

    def features(params, inputs, keys):
        real = (inputs != PAD)[..., None].astype(jnp.float32)
        over = jnp.cumsum if config.every else lambda values, axis: values.sum(axis, keepdims=True)
        found = over(params["in"][inputs] * real, axis=1) / jnp.maximum(over(real, axis=1), 1)
        if keys is None:
            return found
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - config.dropout, found.shape[1:]))(keys)
        return found * kept / (1 - config.dropout)

    def head(params, found, ids=None):
        return found @ params["out"][slice(None) if ids is None else ids].T

    return Model(init, features, head)


MEAN = Entry(MeanConfig, build_mean)  # to be put into models.MODELS as "mean"


def tiny(setup, real=True):
    """The smoke scale of a set-up; real: with the paper's models, otherwise with means in their places."""
    scale, names = scales.SCALES[setup, "smoke"], NAMES[setup]
    models = {name: scale.models[name] for name in names}
    if setup == "images":
        models = {"CNN": CNNConfig((4, 4), (4, 4), (4, 2)), "MLP": MLPConfig((16, 8))}
    elif not real:
        models = {name: MeanConfig(width, setup == "lm") for name, width in zip(names, (8, 16), strict=True)}
    run = scale.training[names[0]]
    run = dataclasses.replace(run, epochs=2, devices=1, batch=dataclasses.replace(run.batch, buckets=1))
    arms = (Arm(names[0]), Arm(names[1]), Arm(names[1], names[0]))
    return dataclasses.replace(
        scale,
        models=models,
        training=dict.fromkeys(names, run),
        arms=arms,
        toy={"train": 256, "test": 128} if setup == "images" else TOY,
        mapped=40,
        paths=(arms[0], arms[2]),
        teaching="best",
    )
