"""One update, on any number of devices; the only module that uses pmap. `fit` makes a training run of it.

`make_update` is the whole algorithm: every device sums loss, weight and gradient over its microbatches, `psum` adds the
devices up, and the sum is divided once, clipped, and applied. So the objective does not depend on how many
devices or microbatches share a batch, dropout included: its keys derive from (seed, step, row of the global batch).
Learning rate, loss settings and seed are arguments of the compiled step; arms of a study share it.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from seqkd_jax.base import Batch, Model, Translator, UserError
from seqkd_jax.config import OptimiserConfig, TrainConfig
from seqkd_jax.losses import LOSSES, LossArguments, arguments_from, over_positions

AnyModel = Model | Translator


class TrainState(NamedTuple):
    """What an update reads and writes. It never has a device axis."""

    step: Any  # updates done
    params: Any
    moments: Any  # of the optimiser
    average: Any  # moving average of the parameters; () when off


class Settings(NamedTuple):
    """The scalars of a step: arguments, not constants, so that runs which differ in them share one program."""

    seed: Any
    learning_rate: Any
    clip_norm: Any  # 0: no clipping
    average_decay: Any
    loss: LossArguments


class Metrics(NamedTuple):
    """What an update reports, summed over the global batch."""

    loss_sum: Any  # nats
    weight: Any  # target positions
    gradient_norm: Any  # before clipping


class Teacher(NamedTuple):
    """The model whose distribution a loss reads, beside the gold labels."""

    model: AnyModel
    params: Any


def optimiser(config: OptimiserConfig) -> optax.GradientTransformation:
    """The direction of a step; the learning rate is applied outside, as an argument."""
    if config.name == "sgd":
        return optax.identity()
    return optax.scale_by_adam(config.b1, config.b2, config.epsilon)


def _microbatch_loss(model, loss, teacher_model, params, batch, keys, settings, teacher_params):
    logits = model.head(params, model.features(params, batch.inputs, keys))
    taught = None
    if teacher_model is not None:
        features = batch.taught
        if features is None:
            features = teacher_model.features(teacher_params, batch.inputs, None)
        taught = teacher_model.head(teacher_params, features)
    return over_positions(loss)(logits, taught, batch.labels, batch.weights, settings.loss)


def _row_keys(settings, step, rows):
    """Dropout keys of rows of the global batch: a function of seed, step and row only."""
    key = jax.random.fold_in(jax.random.key(settings.seed), step)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, rows)


@functools.cache
def make_update(
    model: AnyModel,
    loss_name: str,
    rule: OptimiserConfig,
    average: bool,
    teacher_model: AnyModel | None,
    devices: tuple,
) -> Callable:
    """The compiled update: (state, batch [G,M,R,...], rows [G,M,R], settings, teacher params) -> (state, Metrics).

    Only `rule`'s name, moments and normalisation matter here (`static_rule`); everything else is in the settings.
    """
    loss, direction = LOSSES[loss_name], optimiser(rule)
    loss_of = functools.partial(_microbatch_loss, model, loss, teacher_model)

    def update(state, batch, rows, settings, teacher_params):
        def microbatch(total, scanned):
            batch, rows = scanned
            keys = _row_keys(settings, state.step, rows)
            (value, weight), gradient = jax.value_and_grad(loss_of, has_aux=True)(
                state.params, batch, keys, settings, teacher_params
            )
            sentences = jnp.sum(batch.weights.reshape(batch.weights.shape[0], -1)[:, 0])
            return jax.tree.map(jnp.add, total, (value, weight, sentences, gradient)), None

        nothing = (0.0, 0.0, 0.0, jax.tree.map(jnp.zeros_like, state.params))
        total, _ = jax.lax.scan(microbatch, jax.tree.map(jnp.asarray, nothing), (batch, rows))
        value, weight, sentences, gradient = jax.lax.psum(total, "devices")
        divisor = jnp.maximum(weight if rule.normalise == "tokens" else sentences, 1e-9)
        norm = optax.tree.norm(gradient) / divisor
        clip = jnp.where((settings.clip_norm > 0) & (norm > settings.clip_norm), settings.clip_norm / norm, 1.0)
        gradient = jax.tree.map(lambda g: g * (clip / divisor), gradient)
        steps, moments = direction.update(gradient, state.moments, state.params)
        params = jax.tree.map(lambda p, s: p - settings.learning_rate * s, state.params, steps)
        averaged = _average(state, params, settings.average_decay) if average else ()
        return TrainState(state.step + 1, params, moments, averaged), Metrics(value, weight, norm)

    return data_parallel(update, devices)


def _average(state, params, decay):
    # The warm-up keeps the random start out of the average (as TensorFlow's ExponentialMovingAverage with num_updates).
    decay = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step))
    return jax.tree.map(lambda a, p: a + (1.0 - decay) * (p - a), state.average, params)


def static_rule(config: OptimiserConfig) -> OptimiserConfig:
    """The part of an optimiser's configuration that is compiled in; the rest at its default."""
    names = ("name", "b1", "b2", "epsilon", "normalise")
    return OptimiserConfig(**{name: getattr(config, name) for name in names})


def data_parallel(update: Callable, devices: tuple) -> Callable:
    """Run (state, batch [G,...], rows [G,...], settings, teacher) on G devices; state in and out without a device axis.

    The one pmap: another way to use many devices is an edit of this function.
    """
    return jax.pmap(
        update, "devices", in_axes=(None, 0, 0, None, None), out_axes=None, devices=devices, donate_argnums=0
    )


def replicate(tree: Any, devices: tuple) -> Any:
    """Put host arrays on every device, as the update returns them; otherwise its second call would compile again."""
    mesh = jax.sharding.Mesh(np.array(devices), ("devices",))
    return jax.device_put(tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def arrange(batch: Batch, devices: int, accumulate: int) -> tuple[Batch, np.ndarray]:
    """A global batch of N rows as [G,M,R,...], padded with rows of weight 0, and the rows' numbers [G,M,R]."""
    count = len(batch.weights)
    each = -(-count // (devices * accumulate))

    def split(array):
        padded = np.zeros((devices * accumulate * each, *array.shape[1:]), array.dtype)
        padded[:count] = array
        return padded.reshape(devices, accumulate, each, *array.shape[1:])

    return jax.tree.map(split, batch), split(np.arange(count, dtype=np.int32))


@functools.cache
def _make_start(model: AnyModel, rule: OptimiserConfig, average: bool) -> tuple[Callable, Callable]:
    def from_params(params):
        return TrainState(jnp.zeros((), jnp.int32), params, optimiser(rule).init(params), params if average else ())

    return jax.jit(lambda seed: from_params(model.init(jax.random.key(seed)))), jax.jit(from_params)


def start_state(model: AnyModel, config: TrainConfig, params: Any = None) -> TrainState:
    """The state before the first update: from the seed, or from given parameters."""
    from_seed, from_params = _make_start(model, static_rule(config.optimiser), config.average_decay > 0)
    return from_seed(np.uint32(config.seed)) if params is None else from_params(params)


def settings(config: TrainConfig, rate: float) -> Settings:
    """The scalars of an update as NumPy float32: a Python number would be weakly typed and compile another program."""
    clip, decay = np.float32(config.optimiser.clip_norm), np.float32(config.average_decay)
    return Settings(
        np.uint32(config.seed),
        np.float32(rate),
        clip,
        decay,
        LossArguments(*map(np.float32, arguments_from(config.loss))),
    )


def devices(count: int) -> tuple:
    """The first `count` devices of this host, 0: all. UserError if there are fewer."""
    found = jax.local_devices()
    if count > len(found):
        raise UserError(f"devices={count}, but this machine has {len(found)}; use at most that, or 0 for all")
    return tuple(found[: count or None])
