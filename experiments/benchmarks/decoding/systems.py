"""Decoders behind one interface, so that the measurement never learns which it times.

A system is loaded once with a model. `loaded(sentences, rows, rules)` does what may be done before the clock starts,
and gives a function that decodes all these sentences: ids to ids, since text is tokenised apart. Ours go through
`translate_ids`, what a user calls: padding, transfer and fetching count, as they do inside the peers.
"""

import importlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax

from experiments.benchmarks import workers
from experiments.benchmarks.workers import Worker
from seqkd_jax import checkpoint, models
from seqkd_jax.checkpoint import Checkpoint
from seqkd_jax.config import ComputeType, SearchConfig
from seqkd_jax.decoding import Decoding, prepare, requests, translate_ids, without_ends
from seqkd_jax.decoding.search import counting_engine
from seqkd_jax.utils import devices, program_cache, programs

MIDDLE = 32  # source positions; the engine and the simple search decode more sentences of fewer at a time
Sentences = Sequence[Sequence[int]]  # source ids, EOS included
Outputs = list[list[int]]  # the best hypothesis of each sentence: our target ids without EOS
Loaded = Callable[[Sentences, int, SearchConfig], Callable[[], Outputs]]  # rows: sentences in a batch


class System(NamedTuple):
    """A decoder that can be asked for."""

    load: Callable[[Checkpoint, Path], Loaded]  # (model, directory for files); Missing, ImportError: it cannot be had
    peer: str = ""  # what --peers calls it; "": ours
    kind: str | None = None  # of the models that it decodes; None: any
    packages: tuple[str, ...] = ()  # what it imports
    devices: int = 1  # of ours, 0: one a core
    against: str = "seqkd_jax engine"  # the one of ours that its speed is compared with


def ours(decoder: str, compute: ComputeType, model: Checkpoint) -> Loaded:
    """One of our decoders, on all devices of this process; `rows` of MIDDLE positions are decoded at a time."""
    model = checkpoint.with_compute(model, compute)  # whatever the training had
    params = prepare(model.model, model.params)  # as the peers do when they load

    def loaded(sentences: Sentences, rows: int, rules: SearchConfig) -> Callable[[], Outputs]:
        decoding = _decoding(decoder, sentences, rows, rules)

        def run() -> Outputs:
            found = translate_ids(model.model, params, sentences, decoding)
            return [without_ends(hypotheses.tokens[0]) for hypotheses in found]

        return run

    return loaded


def _decoding(decoder: str, sentences: Sentences, rows: int, rules: SearchConfig) -> Decoding:
    return Decoding(rules, decoder, batch_tokens=1 if rows == 1 else rows * MIDDLE, chunk=max(len(sentences), 1))


def idle_share(model: Checkpoint, sentences: Sentences, rows: int, rules: SearchConfig) -> float:
    """The share of the engine's slots, over all steps, in which no sentence is decoded."""
    (params,) = prepare(model.model, model.params, 1).params
    use = [
        jax.device_get(jax.jit(counting_engine(model.model, rules, shape.steps, shape.slots))(params, request)[1])
        for shape, request in requests(sentences, _decoding("engine", sentences, rows, rules))
    ]
    return 1 - float(sum(one.busy for one in use)) / float(sum(one.slots for one in use))


def _ours(decoder: str, count: int, compute: ComputeType = "float32") -> System:
    return System(lambda model, scratch: ours(decoder, compute, model), devices=count)


def _peer(peer: str, kind: str, packages: tuple[str, ...], module: str, function: str, *arguments) -> System:
    """A function of a module of this package, which imports the peer."""
    load = lambda: importlib.import_module(f"{__package__}.{module}")  # noqa: E731
    return System(lambda *given: getattr(load(), function)(*arguments, *given), peer, kind, packages)


BASE = System._field_defaults["against"]
ROUNDED = f"{BASE}, bfloat16 products"  # what is compared with peers that round, too
REFERENCE = "seqkd_jax simple"  # what all outputs are compared with
EACH, TOGETHER = "a worker a core", "all cores on a batch"
SYSTEMS = {
    BASE: _ours("engine", 0),
    ROUNDED: _ours("engine", 0, "bfloat16_products"),
    f"{BASE}, one device": _ours("engine", 1),
    REFERENCE: _ours("beam", 1),
    **{
        f"CTranslate2 {name}, {way}": _peer(
            "ctranslate2", "transformer", ("ctranslate2",), "peers", "ctranslate2", name, way == EACH
        )._replace(against=ours_)
        for name, ours_ in (("float32", BASE), ("int8", ROUNDED))
        for way in (EACH, TOGETHER)
    },
    "Hugging Face generate": _peer("hf", "transformer", ("transformers", "torch"), "peers", "hugging_face"),
    "PyTorch as OpenNMT-py": _peer("opennmt", "lstm", ("torch",), "opennmt", "open_nmt", False),
    "PyTorch as OpenNMT-py, bfloat16": _peer("opennmt", "lstm", ("torch",), "opennmt", "open_nmt", True)._replace(
        against=ROUNDED
    ),
}


def start(name: str, model: Checkpoint, scratch: Path, count: int | None = None) -> Worker | None:
    """The system in a process; None if it decodes no model of this kind. count: another number of devices.

    Requests: prepare (key, sentences, rows, rules) -> what its first pass gave and took; run (key) -> seconds, of each
    sentence at rows 1, of all otherwise; memory () -> bytes; idle (sentences, rows, rules) -> `idle_share`. Missing: it
    cannot be had here.
    """
    system = SYSTEMS[name]
    if system.kind not in (None, models.kind_of(model.model_config)):
        return None
    return workers.start(name, answers, name, system.devices if count is None else count, model.directory, scratch)


def answers(name: str, count: int, directory: Path, scratch: Path) -> dict[str, Callable]:
    """What the process of a system does; see `start`."""
    programs.count()
    if not SYSTEMS[name].peer:
        devices.make_cpu_devices(count)
        program_cache.keep()
    for package in SYSTEMS[name].packages:
        importlib.import_module(package)
    before = workers.resident()
    model = checkpoint.load(directory)
    loaded = SYSTEMS[name].load(model, scratch)
    prepared: dict = {}

    def prepare_(key, sentences: Sentences, rows: int, rules: SearchConfig) -> dict:
        parts = [[sentence] for sentence in sentences] if rows == 1 else [sentences]
        prepared[key] = [loaded(part, rows, rules) for part in parts]
        built = len(programs.built())
        start = time.perf_counter()
        outputs = [ids for run in prepared[key] for ids in run()]
        seconds, new = time.perf_counter() - start, programs.built()[built:]
        compiling = sum(program.seconds for program in new)
        return {
            "outputs": outputs,
            "first": {"seconds": seconds, "programs": len(new), "seconds_of_compiling": compiling},
        }

    def run(key) -> list[float]:
        return [_seconds(decode) for decode in prepared[key]]

    def memory() -> dict:
        of_device = workers.device_peak(bool(SYSTEMS[name].peer))
        return {"before": before, "highest": workers.highest_resident(), "device": of_device}

    return {"prepare": prepare_, "run": run, "memory": memory, "idle": partial(idle_share, model)}


def _seconds(run: Callable) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def fresh(name: str, model: Checkpoint, scratch: Path, sentences: Sentences, rows: int, rules, cache: Path) -> dict:
    """A process from its start: seconds to its first translation of one sentence; peaks of memory, in bytes.

    cache: of our compiled programs, empty or not. first: the peak of loading, compiling and decoding the sentences (a
    peer's process also holds our copy of the weights); again: the peak of a second pass.
    """
    started, before = time.perf_counter(), os.environ.get(program_cache.SETTING)
    os.environ[program_cache.SETTING] = str(cache)  # the process inherits it
    try:
        worker = start(name, model, scratch)
    finally:
        os.environ.pop(program_cache.SETTING)
        os.environ.update({program_cache.SETTING: before} if before else {})
    worker.ask("prepare", "one", sentences[:1], 1, rules)
    seconds = time.perf_counter() - started
    worker.ask("prepare", "all", sentences, rows, rules)
    first = worker.ask("memory")
    worker.ask("run", "all")
    again = worker.ask("memory")
    worker.close()
    peaks = {"before": first["before"], "first": first["highest"], "again": again["highest"], "device": again["device"]}
    return {"seconds_to_first_translation": seconds, "bytes": peaks}


def sorted_batches(sentences: Sentences, rows: int) -> list[list[int]]:
    """Places of the sentences in batches of at most so many, of similar lengths."""
    places = sorted(range(len(sentences)), key=lambda place: len(sentences[place]))
    return [places[first : first + rows] for first in range(0, len(places), rows)]


def in_place(batches: Sequence[Sequence[int]], outputs: Sequence[Outputs]) -> Outputs:
    """The outputs of batches in the order of the sentences."""
    found = {
        place: ids for batch, made in zip(batches, outputs, strict=True) for place, ids in zip(batch, made, strict=True)
    }
    return [found[place] for place in range(len(found))]


def agreement(outputs: Mapping[str, Sequence], reference: str) -> dict[str, dict]:
    """For each other system: how many sentences differ from the reference's, and the share of identical tokens.

    A token is identical that stands at the same place; the share is of the longer of the two outputs.
    """
    found = {}
    for name, made in outputs.items():
        if name != reference:
            pairs = list(zip(made, outputs[reference], strict=True))
            longest = sum(max(len(a), len(b)) for a, b in pairs)
            same = sum(x == y for a, b in pairs for x, y in zip(a, b, strict=False))
            found[name] = {
                "sentences": len(pairs),
                "sentences_that_differ": sum(list(a) != list(b) for a, b in pairs),
                "identical_tokens": same / longest if longest else 1.0,
                "tokens": sum(len(a) for a, _ in pairs),
                "reference_tokens": sum(len(b) for _, b in pairs),
            }
    return found
