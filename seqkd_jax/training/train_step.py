"""One update, on any number of devices and processes; the only module that uses pmap. `loop.fit` makes a run of it.

`make_update` is the whole algorithm: every device sums loss, weight and gradient over its microbatches, `psum` adds the
devices up, and the sum is divided once, clipped, and applied. So the objective does not depend on how many
devices or microbatches share a batch, dropout included: its keys derive from (seed, step, row of the global batch).
Learning rate, loss settings and seed are arguments of the compiled step; arms of a study share it.

Several seeds can be trained at once, as replicas: their states are stacked [R,...], the batch and a common teacher are
shared, and replica i is, to rounding, the solo run of its seed.

A model that normalises over the batch has running statistics among its parameters. No gradient and no decay changes
them: an update moves them towards the statistics of its batch. These are of a whole batch, on one device.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from seqkd_jax import checkpoint
from seqkd_jax.config import OptimiserConfig, TrainConfig
from seqkd_jax.losses import LOSSES, LossArguments, arguments_from, blockwise, over_positions
from seqkd_jax.training import parts, processes
from seqkd_jax.training.optimizer import gradient_norm, moving_average, optimiser, static_rule
from seqkd_jax.types import STATISTICS, Batch, Model, Translator, UserError
from seqkd_jax.utils.devices import local

AnyModel = Model | Translator


class TrainState(NamedTuple):
    """What an update reads and writes. It never has a device axis."""

    step: Any  # updates done
    params: Any
    optimiser: Any  # the state of its chain
    average: Any  # moving average of the parameters; () when off
    held: Any = None  # a tree of booleans: which parameters stay zero (`held_in`); None: none


class Settings(NamedTuple):
    """The scalars of a step: arguments, not constants, so that runs which differ in them share one program.

    Of several replicas: each an array [R].
    """

    seed: Any
    active: Any  # False: a replica whose state stays as it is
    learning_rate: Any
    clip_norm: Any  # 0: no clipping
    average_decay: Any
    loss: LossArguments


class Metrics(NamedTuple):
    """What an update reports, summed over the global batch; of several replicas each [R]."""

    loss_sum: Any  # nats
    weight: Any  # target positions
    gradient_norm: Any  # before clipping; where this or the loss is not finite, the state was left as it was


class Teacher(NamedTuple):
    """The model whose distribution a loss reads, beside the gold labels."""

    model: AnyModel | None  # None: what the loss reads of it is in the batches
    params: Any
    each: bool = False  # one teacher a replica: params are stacked [R,...]


class Replicas(NamedTuple):
    """How many seeds a step trains, and how; static."""

    count: int = 1
    by: str = "vmap"  # or "map"
    each_teacher: bool = False  # Teacher.each


SOLO = Replicas()
# The faster way on a backend; `python -m experiments.benchmarks.replicas` measures it.
FASTER = {"cpu": "map"}
MOMENTUM = 0.99  # of running statistics, what an update keeps: Keras' default, as in Abnar et al.'s code
TEACHER_SITE = 2**31 - 1  # of the keys of a teacher's dropout


def replicas(config: TrainConfig, teacher: Teacher | None = None) -> Replicas:
    """The replicas of a run on the present backend."""
    by = FASTER.get(jax.default_backend(), "vmap") if config.replicas_by == "auto" else config.replicas_by
    return Replicas(config.replicas, by, teacher is not None and teacher.each)


def _row_keys(settings, step, rows):
    """Dropout keys of rows of the global batch: a function of seed, step and row only."""
    key = jax.random.fold_in(jax.random.key(settings.seed), step)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, rows)


def update_for(
    model: AnyModel, config: TrainConfig, devices: tuple, teacher: Teacher | None = None, bars: bool = False
) -> Callable:
    """The update that a run of this configuration compiles: `make_update` with what follows from it."""
    return make_update(
        model,
        config.loss.name,
        static_rule(config.optimiser),
        config.average_decay > 0,
        teacher.model if teacher else None,
        devices,
        replicas(config, teacher),
        config.loss.teacher_dropout,
        bars,
        config.parts > 0,
    )


@functools.cache
def make_update(
    model: AnyModel,
    loss_name: str,
    rule: OptimiserConfig,
    average: bool,
    teacher_model: AnyModel | None,
    devices: tuple,
    replicas: Replicas = SOLO,
    teacher_dropout: bool = False,
    bars: bool = False,
    in_parts: bool = False,
) -> Callable:
    """The compiled update: (state, batch [G,M,B,...], rows [G,M,B], settings, teacher params) -> (state, Metrics).

    Only the static part of `rule` matters here (`static_rule`); everything else is in the settings. Replicas share the
    batch, and a teacher that is the same for all runs once. bars: the model may bar entries (see losses). in_parts: see
    `parts`.
    """
    if _observed(model) and (len(devices) > 1 or in_parts):
        raise UserError("norm batch is over the whole batch: train on one device (devices 1), without parts")
    lift, each = _lifted(replicas), 0 if replicas.each_teacher else None
    apply = lift(functools.partial(_apply, rule, average), (0, 0, 0))
    teach = functools.partial(_teacher_features, teacher_model, teacher_dropout)
    # A teacher runs with its student; one that is common to replicas which run one after the other runs once for all.
    one_by_one = replicas.count > 1 and replicas.by == "map"
    common_teacher = teacher_model is not None and one_by_one and not (replicas.each_teacher or teacher_dropout)
    own_teacher = teacher_model is not None and not common_teacher
    teacher_head = _as_given if teacher_model is None else teacher_model.head
    loss = over_positions(LOSSES[loss_name], bars)
    gradient = functools.partial(_gradient, model, loss, teacher_head if own_teacher else _as_given)

    def learn(state, settings, teacher_params, teaching, batch, rows):
        if own_teacher:
            teaching = teach(teacher_params, teaching, batch, state.step, settings, rows)
        return gradient(state, settings, teacher_params, teaching, batch, rows)

    def sums(state, batch, rows, settings, teacher_params):
        teaching = batch.teacher_features
        if replicas.each_teacher and teaching is not None:
            teaching = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -2, 0), teaching)  # [*pos,R,E]
        if common_teacher:
            features = teach(teacher_params, teaching, batch, None, None, rows)
            teaching = teacher_head(teacher_params, features)
        axes = (0, 0, each, each if teaching is not None else None, None, None)
        return lift(learn, axes)(state, settings, teacher_params, teaching, batch, rows)

    def update(state, batch, rows, settings, teacher_params):
        def microbatch(total, scanned):
            batch, rows = scanned
            return jax.tree.map(jnp.add, total, sums(state, batch, rows, settings, teacher_params)), None

        if _observed(model) and len(rows) > 1:
            raise UserError("norm batch is over the whole batch: leave accumulate at 1")
        total, _ = jax.lax.scan(microbatch, _nothing(state, settings), (batch, rows))
        return apply(state, settings, processes.over_devices(total, devices))

    return parts.update(sums, apply, _nothing, devices) if in_parts else data_parallel(update, devices)


def _nothing(state, settings):
    """The sums over no microbatch: loss, weight, sentences, gradient, statistics."""
    zero, nothing = jnp.zeros(jnp.shape(settings.learning_rate)), jax.tree.map(jnp.zeros_like, state.params)
    return zero, zero, zero, nothing, _statistics(nothing)


def _observed(model: AnyModel) -> Callable | None:
    """Model.observed; a translator has none."""
    return getattr(model, "observed", None)


def _statistics(params: Any) -> Any:
    """The running statistics among parameters; () without any."""
    return params.get(STATISTICS, ()) if isinstance(params, dict) else ()


def _lifted(replicas: Replicas) -> Callable:
    """A function that lifts another over replicas: (function, axes) -> function; axis 0 is that of replicas."""

    def lift(function, axes):
        if replicas.count == 1:
            return function
        if replicas.by == "vmap":
            return jax.vmap(function, in_axes=axes)

        def one_by_one(*arguments):
            mapped = [argument for argument, axis in zip(arguments, axes, strict=True) if axis == 0]

            def call(mapped):
                own = iter(mapped)
                chosen = zip(arguments, axes, strict=True)
                return function(*(next(own) if axis == 0 else argument for argument, axis in chosen))

            return jax.lax.map(call, mapped)

        return one_by_one

    return lift


def _as_given(params, logits):
    """In the place of a head, where logits are there already."""
    return logits


def _teacher_features(model, with_dropout, params, cached, batch, step, settings, rows):
    """A teacher's features [*pos,E], if they are not cached."""
    if cached is not None:
        return cached
    keys = None
    if with_dropout:
        keys = jax.vmap(jax.random.fold_in, (0, None))(_row_keys(settings, step, rows), TEACHER_SITE)
    return model.features(params, batch.inputs, keys)


def _gradient(model, loss, teacher_head, state, settings, teacher_params, teaching, batch, rows):
    """Sums over one microbatch: loss, weight, sentences, gradient, and what the model observed of it.

    teacher_head: of teaching, the teacher's logits.
    """
    keys = _row_keys(settings, state.step, rows)

    def of_logits(logits, others, constants):
        labels, weights, teaching = others
        teacher_params, arguments = constants
        teacher = None if teaching is None else teacher_head(teacher_params, teaching)
        return loss(logits, teacher, labels, weights, arguments)

    def of(params):
        if observed := _observed(model):
            features, statistics = observed(params, batch.inputs, keys, batch.weights)
        else:
            features, statistics = model.features(params, batch.inputs, keys), ()
        others, constants = (batch.labels, batch.weights, teaching), (teacher_params, settings.loss)
        value, weight = blockwise.summed(model.head, of_logits, params, features, others, constants)
        return value, (weight, statistics)

    (value, (weight, statistics)), gradient = jax.value_and_grad(of, has_aux=True)(state.params)
    sentences = jnp.sum(batch.weights.reshape(batch.weights.shape[0], -1)[:, 0])
    return value, weight, sentences, gradient, statistics


def _apply(rule, average, state, settings, total):
    """The sums over all microbatches and devices, through the optimiser's chain; no update if they are not finite."""
    value, weight, sentences, gradient, statistics = total
    scalars = {
        "divisor": jnp.maximum(weight if rule.normalise == "tokens" else sentences, 1e-9),
        "clip_norm": settings.clip_norm,
        "rate": settings.learning_rate,
    }
    running = _statistics(state.params)
    decayed = state.params
    if running:  # they are not decayed, and add nothing to the norm of the gradient
        decayed = {**state.params, STATISTICS: jax.tree.map(jnp.zeros_like, running)}
    updates, chain = optimiser(rule).update(gradient, state.optimiser, decayed, held=state.held, **scalars)
    norm = gradient_norm(chain)
    params: Any = optax.apply_updates(state.params, updates)
    if running:
        moved = jax.tree.map(lambda old, new: MOMENTUM * old + (1 - MOMENTUM) * new, running, statistics)
        params = {**params, STATISTICS: moved}
    averaged = moving_average(state.average, params, state.step, settings.average_decay) if average else ()
    updated = TrainState(state.step + 1, params, chain, averaged, state.held)
    good = settings.active & jnp.isfinite(value) & jnp.isfinite(norm)
    return jax.tree.map(lambda new, old: jnp.where(good, new, old), updated, state), Metrics(value, weight, norm)


def data_parallel(update: Callable, devices: tuple) -> Callable:
    """Run (state, batch [G,...], rows [G,...], settings, teacher) on G devices; state in and out without a device axis.

    The one pmap: another way to use many devices is an edit of this function.
    """
    return jax.pmap(
        update, "devices", in_axes=(None, 0, 0, None, None), out_axes=None, devices=devices, donate_argnums=0
    )


def replicate(tree: Any, devices: tuple) -> Any:
    """Put arrays on every device of this process, as the update returns them; else its second call would compile again.

    Of several processes all get what process 0 has.
    """
    mesh = jax.sharding.Mesh(np.array(processes.own(devices)), ("devices",))
    return jax.device_put(processes.broadcast(tree), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def arrange(batch: Batch, devices: int, accumulate: int) -> tuple[Batch, np.ndarray]:
    """A global batch of N rows as [G,M,B,...], padded with rows of weight 0, and the rows' numbers [G,M,B]."""
    count = len(batch.weights)
    each = -(-count // (devices * accumulate))

    def split(array):
        padded = np.zeros((devices * accumulate * each, *array.shape[1:]), array.dtype)
        padded[:count] = array
        return padded.reshape(devices, accumulate, each, *array.shape[1:])

    return jax.tree.map(split, batch), split(np.arange(count, dtype=np.int32))


@functools.cache
def _make_start(model: AnyModel, rule: OptimiserConfig, average: bool, replicas: int) -> tuple[Callable, Callable]:
    def from_params(params, held=None):
        step, chain = jnp.zeros((), jnp.int32), optimiser(rule).init(params)
        return TrainState(step, params, chain, params if average else (), held)

    def from_seed(seed):
        return from_params(model.init(jax.random.key(seed)))

    if replicas == 1:
        return jax.jit(from_seed), jax.jit(from_params)
    # Seeds one after the other: the QR products of orthogonal starts, stacked, hang XLA on machines with two cores.
    one_by_one = functools.partial(jax.lax.map, from_seed)
    return jax.jit(one_by_one), jax.jit(jax.vmap(from_params, axis_size=replicas, in_axes=None))


def start_state(
    model: AnyModel, config: TrainConfig, params: Any = None, pruned: checkpoint.Pruned | None = None
) -> TrainState:
    """The state before the first update: from the seed, or from given parameters; of several replicas stacked.

    pruned: which of the given parameters stay zero.
    """
    average = config.average_decay > 0
    from_seed, from_params = _make_start(model, static_rule(config.optimiser), average, config.replicas)
    return from_seed(_seeds(config)) if params is None else from_params(params, held_in(params, pruned))


def held_in(params: Any, pruned: checkpoint.Pruned | None) -> Any:
    """TrainState.held of these parameters; one False for an array of which no weight is pruned."""
    if pruned is None:
        return None
    masks = [pruned.get(name, np.zeros((), bool)) for name in checkpoint.arrays.named_leaves(params)]
    return jax.tree.unflatten(jax.tree.structure(params), masks)


def _seeds(config: TrainConfig) -> np.ndarray | np.uint32:
    """uint32, [R] of several replicas."""
    seeds = config.seed + np.arange(config.replicas, dtype=np.uint32)
    return seeds if config.replicas > 1 else seeds[0]


def settings(config: TrainConfig, rate: float | Sequence[float], active: bool | Sequence[bool] = True) -> Settings:
    """The scalars of an update as NumPy float32: a Python number would be weakly typed and compile another program.

    rate, active: of several replicas one for each, or one for all.
    """

    def each(value: Any, dtype: Any = np.float32) -> Any:
        values = np.broadcast_to(np.asarray(value, dtype), config.replicas)
        return values if config.replicas > 1 else values[0]

    clip, decay = config.optimiser.clip_norm, config.average_decay
    loss = LossArguments(*map(each, arguments_from(config.loss)))
    return Settings(_seeds(config), each(active, bool), each(rate), each(clip), each(decay), loss)


def devices(count: int) -> tuple:
    """The first `count` devices of each process, 0: all; those of process 0 first. UserError if this one has fewer."""
    local(count)
    numbers = range(jax.process_count())
    return tuple(device for number in numbers for device in jax.local_devices(number)[: count or None])


def ran_on(devices: tuple) -> dict:
    """What the checkpoints of a run say of its devices: for people, and no part of what a run is."""
    processes = {device.process_index for device in devices}
    return {"platform": devices[0].platform, "devices": len(devices), "processes": len(processes)}
