"""Every compiled program of the library lowers for TPU and CUDA, with no such device here and nothing compiled.

PROGRAMS has an entry for each function that makes compiled programs, and a test finds these functions in the code.
Models, losses, optimisers, decoders and rules come from their registries. The update is lowered as `data_parallel`
makes it: JAX lowers a pmap itself for the present backend only, and a jitted function that calls it for any.
"""

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from lowering import assert_lowers, compiling
from updates import VOCABULARIES

import experiments
import seqkd_jax
from experiments.abnar_2020 import predictions
from experiments.benchmarks.training import ours
from seqkd_jax import models
from seqkd_jax.config import (
    CNNConfig,
    LossConfig,
    LSTMConfig,
    MLPConfig,
    OptimiserConfig,
    SearchConfig,
    SequenceLSTMConfig,
    SequenceTransformerConfig,
    TrainConfig,
    TransformerConfig,
)
from seqkd_jax.decoding import scoring, translator
from seqkd_jax.decoding.buckets import Shape
from seqkd_jax.decoding.search import DECODERS, PROFILES, Request, exact, named_rules
from seqkd_jax.evaluation import likelihood
from seqkd_jax.losses import LOSSES, blockwise
from seqkd_jax.training import parts, teacher_cache, teacher_top_k, train_step, trainer
from seqkd_jax.training.optimizer import DIRECTIONS
from seqkd_jax.types import Batch, TopK
from seqkd_jax.utils import performance

V, B, S, T, R = 330, 4, 6, 5, 2  # from 321 entries on the search divides the vocabulary into blocks
COMPUTE = "float32", "bfloat16", "bfloat16_products"


def abstract(*shape, dtype=np.int32):
    return jax.ShapeDtypeStruct(shape, dtype)


TINY = {
    "lstm": LSTMConfig(layers=1, size=8),
    "transformer": TransformerConfig(encoder_layers=1, decoder_layers=1, width=8, heads=2, feed_forward=16),
    "sequence_lstm": SequenceLSTMConfig(layers=1, size=8, reads="every"),
    "sequence_transformer": SequenceTransformerConfig(layers=1, width=8, heads=2, feed_forward=16, reads="last"),
    "cnn": CNNConfig((4, 4, 4), (4, 4, 4), groups=2),
    "mlp": MLPConfig((8, 4)),
}
IMAGES = "cnn", "mlp"
BOTH = "lstm+transformer"  # an ensemble


def built(kind, compute="float32"):
    """A tiny model of MODELS, or the ensemble of both translators."""
    if kind == BOTH:
        return models.ensemble(tuple(built(member, compute) for member in kind.split("+")))
    config = TINY[kind]
    if hasattr(config, "compute"):
        config = dataclasses.replace(config, compute=compute)
    return models.build(config, V, V)


def inputs_of(kind, *before):
    """A batch's inputs, with axes before that of rows."""
    if kind in models.READERS:
        return abstract(*before, B, 28, 28, dtype=np.uint8) if kind in IMAGES else abstract(*before, B, S)
    return abstract(*before, B, S), abstract(*before, B, T)


@functools.cache
def parameters(model):
    return jax.eval_shape(lambda: model.init(jax.random.key(0)))


def batch_of(kind, model, params, *before):
    features = jax.eval_shape(model.features, params, inputs_of(kind), None)
    labels = *before, *features.shape[:-1]
    return Batch(inputs_of(kind, *before), abstract(*labels), abstract(*labels, dtype=np.float32)), features


# Each function below yields (name, make) of the programs of one function; make() -> (program, arguments). some: a
# selection in which every value of every setting occurs.

Programs = Iterator[tuple[str, Callable[[], tuple]]]


class Settings(NamedTuple):
    """What decides the program of an update beside model and loss."""

    replicas: Any
    compute: Any
    optimiser: Any
    average: Any
    microbatches: Any
    devices: Any
    bars: Any
    in_blocks: Any
    teaching: Any
    pruned: Any


CHOICES = Settings(  # of each setting
    replicas=((1, "vmap"), (R, "vmap"), (R, "map")),
    compute=COMPUTE,
    optimiser=tuple(DIRECTIONS),
    average=(0.0, 0.9),
    microbatches=(1, 2),
    devices=(1, 2),
    bars=(False, True),
    in_blocks=(False, True),
    teaching=("own", "each", "cached", "dropout", "each, cached"),
    pruned=(False, True),
)
TURNS = Settings(1, 2, 1, 4, 5, 3, 2, 7, 1, 6)  # after so many programs comes the next choice


def update_cases(some) -> Iterator[tuple[str, str, Settings]]:
    """Every model with every loss, replicas and type; the other settings take turns. some: readers with one loss."""
    pairs = itertools.product(models.MODELS, LOSSES)
    if some:
        pairs = [pair for pair in pairs if pair[0] in models.TRANSLATORS or LOSSES[pair[1]].needs_teacher]
    ways = itertools.product(CHOICES.replicas, CHOICES.compute)
    cases = [(pair, None) for pair in pairs] if some else itertools.product(pairs, ways)
    for number, ((kind, loss), way) in enumerate(cases):
        turns = zip(TURNS, CHOICES, strict=True)
        settings = Settings(*(choices[number // turn % len(choices)] for turn, choices in turns))
        if way:
            settings = settings._replace(replicas=way[0], compute=way[1])
        teaching = settings.teaching if settings.replicas[0] > 1 else settings.teaching.replace("each, ", "")
        teaching = "own" if teaching == "each" and settings.replicas[0] == 1 else teaching
        yield kind, loss, settings._replace(teaching=teaching if LOSSES[loss].needs_teacher else "none")


def updates(some) -> Programs:
    for case in update_cases(some):
        yield ", ".join(map(str, [*case[:2], *case[2]])), lambda case=case: update(*case)


def update(kind, loss, settings):
    """The update of `train_step`, and its arguments on so many devices."""
    count, by = settings.replicas
    decay = {"weight_decay": 0.01} if settings.optimiser == "adamw" else {"l2": 0.01}
    config = TrainConfig(
        loss=LossConfig(loss, teacher_dropout=settings.teaching == "dropout" and not LOSSES[loss].top_k),
        optimiser=OptimiserConfig(settings.optimiser, **decay),
        replicas=count,
        replicas_by=by,
        average_decay=settings.average,
    )
    model, axes = built(kind, settings.compute), (settings.devices, settings.microbatches)
    state = jax.eval_shape(lambda: train_step.start_state(model, config))
    if settings.pruned:
        state = state._replace(held=jax.tree.map(lambda leaf: abstract(*leaf.shape, dtype=bool), state.params))
    params = parameters(model)
    batch, features = batch_of(kind, model, params, *axes)
    teacher, each = None, settings.teaching.startswith("each")
    if settings.teaching != "none":
        teacher = train_step.Teacher(model, state.params if each else params, each)
    if LOSSES[loss].top_k:  # always computed before
        kept, K = (*axes, *features.shape[:-1], *(count,) * each), 3
        top_k = TopK(abstract(*kept, K), abstract(*kept, K + 1, dtype=np.float32))
        batch, teacher = batch._replace(teacher_features=top_k), train_step.Teacher(None, (), each)
    elif settings.teaching.endswith("cached"):
        shape = *axes, *features.shape[:-1], *(count,) * each, features.shape[-1]
        batch = batch._replace(teacher_features=abstract(*shape, dtype=features.dtype))
    devices = tuple(jax.local_devices()[: settings.devices])
    made = train_step.update_for(model, config, devices, teacher, settings.bars)
    arguments = state, batch, abstract(*axes, B), train_step.settings(config, 1e-3), teacher and teacher.params

    def update(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(blockwise.LOGITS, "cpu", B * V if settings.in_blocks else blockwise.LOGITS_ELSEWHERE)
            return made(*arguments)

    return jax.jit(update), arguments


def of_parts(some) -> Programs:
    """What an update in parts has beside the gradient and the optimiser, which are those of `updates`."""
    leaf, devices = abstract(V, dtype=np.float32), tuple(jax.local_devices()[:2])
    made = parts.programs(lambda leaf: [leaf], lambda state, settings, sums: sums, lambda state, _: [state], devices)
    one, both = (abstract(count, V, dtype=np.float32) for count in (1, len(devices)))
    cases = {"add": (leaf, leaf), "everywhere": (both,), "of_part": (leaf,), "finish": (leaf, leaf, one)}
    for name, arguments in cases.items():
        yield name, lambda name=name, arguments=arguments: (getattr(made, name), arguments)


def starts(some) -> Programs:
    cases = list(itertools.product(models.MODELS, (1, R), (0, 1)))
    for kind, count, way in cases[:: 5 if some else 1]:
        name = f"{kind}, {count}, {('from a seed', 'from parameters')[way]}"
        yield name, lambda case=(kind, count, way): start(*case)


def start(kind, count, way):
    model, config = built(kind), TrainConfig(replicas=count)
    made = train_step._make_start(model, train_step.static_rule(config.optimiser), True, count)
    return made[way], (parameters(model) if way else train_step._seeds(config),)


def of_models(compiled, reads, registry=models.MODELS):
    """(params, what it reads of (batch, features)) of every model."""

    def program(kind, compute):
        model = built(kind, compute)
        params = parameters(model)
        jitted = inspect.unwrap(compiled(model), stop=lambda of: hasattr(of, "lower"))
        return jitted, (params, *reads(*batch_of(kind, model, params)))

    def programs_of(some) -> Programs:
        for case in list(itertools.product(registry, COMPUTE))[:: 7 if some else 1]:
            yield ", ".join(case), lambda case=case: program(*case)

    return programs_of


RULES = {name: named_rules(SearchConfig(beam=3), name) for name in sorted(PROFILES)} | {
    "no repeats": SearchConfig(beam=3, no_repeat_ngram=2, min_length_b=2.0, sample_top_k=3),
    "no <unk>": SearchConfig(beam=1, forbid_unk=True, sample_top_p=0.9),
}


def searches(some) -> Programs:
    kinds = [*models.TRANSLATORS, BOTH]
    for number, (kind, decoder, compute) in enumerate(itertools.product(kinds, DECODERS, COMPUTE)):
        if some and (kind == BOTH and decoder != "engine" or (number + number // 2) % 2):
            continue  # each once, the types in turn
        name, rules = list(RULES.items())[number % len(RULES)]
        prefix, attention = (0, 4)[number // 3 % 2], number % 5 == 0
        told = [f"{prefix} given"] * (prefix > 0) + ["attention"] * attention
        if decoder == "engine":
            rules, told = dataclasses.replace(rules, coverage_penalty=0.2), ["coverage", *told]
        case = kind, decoder, compute, rules, prefix, attention
        yield ", ".join([kind, decoder, compute, name, *told]), lambda case=case: search(*case)


def search(kind, decoder, compute, rules, prefix, attention):
    model, rows = built(kind, compute), abstract(B)
    if decoder == "speculative":
        model = models.drafted(built("transformer", compute), model)
    compiled = translator._compiled_search(model, rules, decoder, Shape(B, S, T, prefix, 2), attention)
    request = Request(abstract(B, S), rows, rows, abstract(B, prefix), abstract(B, 2, dtype=np.uint32))
    return compiled.__wrapped__, (jax.eval_shape(model.prepare, parameters(model)), request)


def of_translators(program, *others):
    """Of each translator, and other cases."""

    def programs_of(some) -> Programs:
        for case in [*itertools.product(models.TRANSLATORS), *others]:
            yield ", ".join(map(str, case)), lambda case=case: program(*case)

    return programs_of


def preparation(kind):
    model = built(kind)
    return translator._compiled_preparation(model).__wrapped__, (parameters(model),)


def score(kind):
    model, ids = built(kind, "bfloat16"), abstract(B, T)
    arguments = parameters(model), ids, ids, ids, abstract(B, T, dtype=np.float32)
    return scoring._compiled_score(model, Shape(B, T, T)).__wrapped__, arguments


def attention(kind, layer=None, heads=None):
    model, ids = built(kind), abstract(B, T)
    return scoring._compiled_attention(model, layer, heads, Shape(B, T, T)).__wrapped__, (parameters(model), ids, ids)


def exact_start(kind):
    return exact._compiled_start(built(kind), T, B + 1).__wrapped__, (parameters(built(kind)), abstract(B, S))


def exact_expansion(kind):
    start, arguments = exact_start(kind)
    return exact._compiled_expansion(built(kind), T).__wrapped__, (
        arguments[0],
        *jax.eval_shape(start, *arguments),
        abstract(5, exact.ROWS[-1]),
    )


def start_barred(kind):
    model = built(kind)
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, -1e9, leaf.dtype), parameters(model))
    run = trainer.Run(TINY["lstm"], VOCABULARIES, TrainConfig(), start=Path("start"))
    return called(trainer._barred, run, model, params, inputs_of(kind), {})


class Called(Exception):
    """The program that a function called, and its arguments."""


def called(function, *arguments):
    """The program that a function makes and calls, and the arguments, without running it."""
    jit = jax.jit

    def recorded(function, **options):
        def call(*given):
            raise Called(jit(function, **options), given)

        return call

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Called) as found:
        patch.setattr(jax, "jit", recorded)
        function(*arguments)
    return found.value.args


def yardstick(measure):
    return lambda some: iter([("size 8", lambda: called(measure.__wrapped__, 8))])


PROGRAMS: dict[str, Callable[[bool], Programs]] = {
    "seqkd_jax/training/train_step.py::data_parallel": updates,
    "seqkd_jax/training/parts.py::programs": of_parts,
    "seqkd_jax/training/train_step.py::_make_start": starts,
    "seqkd_jax/training/trainer.py::_barred": of_translators(start_barred),
    "seqkd_jax/training/teacher_cache.py::_compiled_features": of_models(
        teacher_cache._compiled_features, lambda batch, features: (batch.inputs,)
    ),
    "seqkd_jax/training/teacher_top_k.py::compiled_top_k": of_models(
        lambda model: teacher_top_k.compiled_top_k(model, 3), lambda batch, features: (batch.inputs, np.float32(2.0))
    ),
    "seqkd_jax/evaluation/likelihood.py::_summed_nll": of_models(
        likelihood._summed_nll, lambda batch, features: (batch,)
    ),
    "seqkd_jax/evaluation/likelihood.py::_summed_entropy": of_models(
        likelihood._summed_entropy, lambda batch, features: (batch,)
    ),
    "seqkd_jax/evaluation/likelihood.py::_summed_right": of_models(
        likelihood._summed_right, lambda batch, features: (batch,)
    ),
    "seqkd_jax/decoding/translator.py::_compiled_search": searches,
    "seqkd_jax/decoding/translator.py::_compiled_preparation": of_translators(preparation, (BOTH,)),
    "seqkd_jax/decoding/search/exact.py::_compiled_start": of_translators(exact_start),
    "seqkd_jax/decoding/search/exact.py::_compiled_expansion": of_translators(exact_expansion),
    "seqkd_jax/decoding/scoring.py::_compiled_score": of_translators(score, (BOTH,)),
    "seqkd_jax/decoding/scoring.py::_compiled_attention": of_translators(attention, ("transformer", 1, (2,))),
    "seqkd_jax/utils/performance.py::matrix_peak": yardstick(performance.matrix_peak),
    "seqkd_jax/utils/performance.py::memory_bandwidth": yardstick(performance.memory_bandwidth),
    "experiments/benchmarks/training/ours.py::_compiled_forward": of_models(
        ours._compiled_forward, lambda batch, features: (batch.inputs,)
    ),
    "experiments/abnar_2020/predictions.py::_reader": of_models(
        predictions._reader, lambda batch, features: (batch.inputs,), models.READERS
    ),
    "experiments/abnar_2020/predictions.py::_log_probs": of_models(
        predictions._log_probs, lambda batch, features: (features,)
    ),
    "experiments/abnar_2020/predictions.py::_measures": of_models(
        predictions._measures, lambda batch, features: (batch, None, np.float32(2.0))
    ),
}
NOT_THEIR_OWN = {
    "experiments/abnar_2020/study.py::_pass_of",  # traced to count FLOPs and never run
    "experiments/benchmarks/decoding/work.py::from_random",  # random weights: a model's start
    "experiments/benchmarks/training/ours.py::live_teacher",  # likewise
    "experiments/benchmarks/decoding/systems.py::idle_share",  # the engine, and two sums
    "experiments/kim_rush_2016/states.py::end_states",  # a model's features, of one sentence
    "experiments/benchmarks/speculative.py::_rounds",  # speculative decoding, and a sum
    "experiments/kim_rush_2016/ablations/top_k.py::measured",  # the head and losses.top_k, which updates have, and sums
}
SOME = [(place, name, make) for place, found in PROGRAMS.items() for name, make in found(True)]


@pytest.mark.parametrize(
    "make", [case[2] for case in SOME], ids=[f"{place.split('::')[1]}: {n}" for place, n, _ in SOME]
)
def test_it_lowers(make):
    program, arguments = make()
    assert_lowers(program, *arguments)


@pytest.mark.slow
@pytest.mark.parametrize("place", PROGRAMS)
def test_every_one_lowers(place):
    """All settings of the searches and updates, also those that cost nothing new on the other platforms."""
    for name, make in PROGRAMS[place](False):
        try:
            program, arguments = make()
            assert_lowers(program, *arguments, together=False)
        except Exception as error:
            raise AssertionError(f"{name}: {error}") from error


def test_every_compiled_program_is_here():
    """One that is added or moved gets an entry in PROGRAMS."""
    packages = [Path(package.__file__).parent for package in (seqkd_jax, experiments)]
    found = set().union(*map(compiling, packages)) - NOT_THEIR_OWN
    assert found == set(PROGRAMS), (
        f"not lowered: {sorted(found - set(PROGRAMS))}; gone: {sorted(set(PROGRAMS) - found)}"
    )


def test_every_registered_entry_is_here():
    """A model, loss, optimiser or decoder is lowered from its line in the registry on."""
    assert set(TINY) == set(models.MODELS), "give each model of models.MODELS a tiny configuration in TINY"
    values = lambda cases: [set(map(str, column)) for column in zip(*cases, strict=True)]  # noqa: E731
    some, every = ([(kind, loss, *rest) for kind, loss, rest in update_cases(some)] for some in (True, False))
    assert values(some) == values(every), "the selection leaves a value out"
    names = [name for name, _ in searches(True)]
    wanted = {f"{kind}, {decoder}, " for kind in models.TRANSLATORS for decoder in DECODERS}
    assert all(any(name.startswith(case) for name in names) for case in wanted | {f"{BOTH}, engine, "})


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda x: jax.pure_callback(np.asarray, x, x), "calls back to the host: pure_callback"),
        (lambda x: jax.debug.callback(print, x), "calls back to the host: debug_callback"),
        (lambda x: jax.lax.map(lambda row: jax.experimental.io_callback(np.asarray, row, row), x), "io_callback"),
        (lambda x: jax.lax.sort(x.astype(np.float64)), "64 bits: float64"),
        (lambda x: jax.numpy.linalg.eigh(x), "custom calls that tpu and cuda do not have: Eigh"),
        (lambda x: jax.ffi.ffi_call("of_a_cpu", jax.typeof(x))(x), "not have: of_a_cpu"),
    ],
)
def test_what_cannot_run_there_is_named(function, named):
    with jax.enable_x64("float64" in named), pytest.raises(AssertionError, match=named):
        assert_lowers(jax.jit(function), abstract(4, 4, dtype=np.float32))
