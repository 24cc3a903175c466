"""Parts that measure speed: updates, decoding, replicas. Each takes a Job and gives a dict of JSON values.

A part runs in a process of its own, so a peer has the whole card, and what it lacks or what ends it is its own. So
systems do not take turns: their rounds follow each other within a part.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax

from experiments.benchmarks import replicas as replicas_benchmark
from experiments.benchmarks.decoding import costs, systems, work
from experiments.benchmarks.training import ours, subjects
from experiments.benchmarks.workers import Missing
from experiments.core import measure, stages
from seqkd_jax import checkpoint
from seqkd_jax.config import LSTMConfig, SearchConfig, TransformerConfig
from seqkd_jax.types import UserError
from seqkd_jax.utils import performance, progress

ROUNDS = 9
SUBJECTS = {
    "lstm-4x1000": subjects.Subject(
        "LSTM 4×1000 with attention and input feeding, 50,000 entries",
        LSTMConfig(4, 1000, dropout=0.0), 50_000, rows=128, steps=25,
    ),
    "transformer-base": subjects.Subject(
        "Transformer base (6+6×512), 32,000 entries",
        TransformerConfig(6, 6, 512, heads=8, feed_forward=2048, dropout=0.0), 32_000, rows=128, steps=32,
    ),
}  # fmt: skip
SENTENCES, ROWS, BEAMS = 512, 128, (1, 5)
SEEDS_AT_ONCE = 4


class Job(NamedTuple):
    """What a part is given."""

    seconds: float  # to measure for, compilation included, about
    seed: int
    toy: bool
    root: Path  # of stages
    data: Path | None


class Clock:
    """The seconds of a job that are left."""

    def __init__(self, job: Job):
        self.until = time.monotonic() + job.seconds

    def left(self) -> float:
        """Never less than 0."""
        return max(0.0, self.until - time.monotonic())


def seconds_of(run: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of a call, of each of up to ROUNDS rounds: as many calls a round as fit, one round at least."""
    once = _timed(run, 1)
    calls = max(1, min(1000, math.floor(seconds / ROUNDS / max(once, 1e-6))))
    found, until = [], time.monotonic() + seconds
    while not found or len(found) < ROUNDS and time.monotonic() + calls * once < until:
        found.append(_timed(run, calls))
    return found


def _timed(run: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def _interval(values: Iterator[float] | list[float]) -> dict:
    return measure.interval(list(values))._asdict()


def training(subject: str, compute: str, job: Job) -> dict:
    """Updates of one of our models on one device."""
    made, clock, started = _subject(subject, compute, job), Clock(job), time.monotonic()
    update = ours.update(made, job.seed, in_blocks=True)
    found = _updates(made, update, started, clock)
    peak = _peak(job, compute)
    share = _interval(update.flops / peak / seconds for seconds in found["seconds"])
    return {**found, "flops": update.flops, "peak_flops_per_second": peak, "share_of_peak": share}


def training_in_pytorch(subject: str, compute: str, job: Job) -> dict:
    """The same update in PyTorch, compiled, on the same card. UserError: it cannot be had here."""
    made, clock, started = _subject(subject, compute, job), Clock(job), time.monotonic()
    try:
        import torch

        from experiments.benchmarks.training import pytorch
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install 'seqkd_jax[peers]'") from None
    _require_same_card("PyTorch", torch.cuda.is_available())
    found = _updates(made, pytorch.update(made, job.seed, compiled=not job.toy), started, clock)
    return {**found, "peer": f"torch {torch.__version__}"}


def _subject(name: str, compute: str, job: Job) -> subjects.Subject:
    subject = SUBJECTS[name]
    subject = subjects.tiny(subject) if job.toy else subject
    return subject._replace(model=replace(subject.model, compute=compute))  # pyright: ignore[reportArgumentType]


def _updates(subject: subjects.Subject, update: ours.Update, started: float, clock: Clock) -> dict:
    losses = [update.run(), update.run()]
    start_seconds = time.monotonic() - started
    seconds, positions = seconds_of(update.run, clock.left()), subject.rows * subject.steps
    return {
        "about": subject.about,
        "positions": positions,
        "parameters": update.parameters,
        "first_losses": losses,
        "start_seconds": start_seconds,
        "seconds": seconds,
        "tokens_per_second": _interval(positions / one for one in seconds),
    }


def _require_same_card(name: str, on_cuda: bool) -> None:
    """UserError unless a peer runs on what we run on."""
    backend = jax.default_backend()
    if backend not in ("cpu", "gpu"):
        raise UserError(f"{name} does not run on {backend}")
    if backend == "gpu" and not on_cuda:
        raise UserError(f"{name} finds no CUDA device here")


def decoding(system: str, job: Job) -> dict:
    """One decoder on a random Marian-shaped Transformer, at beams 1 and 5. UserError: it cannot be had here."""
    clock, todo = Clock(job), _work(job)
    if system.startswith("CTranslate2"):
        _require_same_card(system, _ctranslate2_on_cuda())
    try:
        if systems.SYSTEMS[system].peer == "hf":
            import torch

            _require_same_card(system, torch.cuda.is_available())
        made = systems.SYSTEMS[system].load(todo.model, job.root / "peers")
    except (ImportError, Missing) as error:
        raise UserError(f"{system} cannot be had: {error}") from None
    rows = 4 if job.toy else ROWS
    found = {}
    for place, beam in enumerate(BEAMS):
        run, started = made(todo.sentences, rows, work.rules_of(todo, beam)), time.monotonic()
        outputs = run()
        start_seconds, tokens = time.monotonic() - started, sum(map(len, outputs))
        seconds = seconds_of(run, clock.left() / (len(BEAMS) - place))
        lengths = [len(ids) + 1 for ids in outputs]
        flops, _ = costs.needed(todo.model, [len(ids) for ids in todo.sentences], lengths, beam, rows)
        share = _interval(flops / _peak(job) / one for one in seconds)
        found[f"beam{beam}"] = {
            "start_seconds": start_seconds,
            "seconds": seconds,
            "tokens_per_second": _interval(tokens / one for one in seconds),
            "sentences_per_second": _interval(len(outputs) / one for one in seconds),
            "share_of_peak": share,
            "outputs": outputs,
        }
    return {"model": todo.name, "sentences": len(todo.sentences), "rows": rows, "beams": found}


def _ctranslate2_on_cuda() -> bool:
    try:
        import ctranslate2
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install 'seqkd_jax[peers]'") from None
    return ctranslate2.get_cuda_device_count() > 0


def _work(job: Job) -> work.Work:
    """The model, which is made once, and its sentences."""
    shape, count = (work.SMOKE, 8) if job.toy else (work.Synthetic(), SENTENCES)

    def make(directory: Path) -> None:
        work.from_random(shape, 1, job.seed, directory)

    made = stages.stage("random-model", [shape, job.seed], {}, make, job.root) / "random"
    model = checkpoint.load(made)
    sentences = work.random_sentences(model, count, shape.source_tokens, job.seed)
    name = (
        f"random Transformer {shape.encoder_layers}+{shape.decoder_layers}×{shape.width}, {shape.vocabulary:,} entries"
    )
    return work.Work(name, model, sentences, None, None, work.forced(SearchConfig(), shape.target_tokens))


def replicas(job: Job) -> dict:
    """Several seeds by vmap, by map, and one after the other: of as many models of the small study as there is time."""
    clock, found, dearest = Clock(job), [], 0.0
    options = replicas_benchmark.Options(replicas=SEEDS_AT_ONCE, rounds=6, updates=3, seed=job.seed, smoke=job.toy)
    if job.toy:
        options = replace(options, replicas=2, rounds=1, updates=1)
    for scale, name in replicas_benchmark.subjects(options):
        if found and clock.left() < dearest:
            progress.log(f"replicas: {name} and what comes after it are left out: the time is over")
            break
        started = time.monotonic()
        seconds = replicas_benchmark.seconds_of(scale, name, options)
        found.append({"setup": scale.setup, "model": name, "seconds": seconds})
        dearest = max(dearest, time.monotonic() - started)
        jax.clear_caches()
    return {"replicas": options.replicas, "models": found}


def _peak(job: Job, compute: str = "float32") -> float:
    return performance.matrix_peak(256 if job.toy else 0, dtype=compute)


def machine(job: Job) -> dict:
    """What runs here: devices, and the peaks of one as measured."""
    devices = [f"{device.platform} {device.device_kind}" for device in jax.local_devices()]
    peaks = {compute: _peak(job, compute) for compute in ("float32", "bfloat16")}
    return {
        "devices": devices,
        "jax": jax.__version__,
        "matrix_flops_per_second": peaks,
        "memory_bytes_per_second": performance.memory_bandwidth(8 if job.toy else 0),
    }
