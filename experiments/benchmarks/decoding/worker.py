"""The list of systems, and a system in a process of its own. In one process the systems' thread pools slow each other
down, some of them fourfold at one sentence, and the comparison would be of that.

One process works at a time; the others wait for a request. What a request costs is on the clock: some tenths of a ms.
"""

import importlib
import multiprocessing
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from experiments.benchmarks.decoding.systems import Job, Missing, Sentences, System, ours
from seqkd_jax import checkpoint, models
from seqkd_jax.checkpoint import Checkpoint
from seqkd_jax.config import SearchConfig
from seqkd_jax.types import UserError
from seqkd_jax.utils import programs


class Entry(NamedTuple):
    """A system that can be asked for."""

    build: Callable[[Checkpoint, Path], System]  # (model, directory for files); Missing, ImportError: it cannot be had
    peer: str = ""  # what --peers calls it; "": ours
    kind: str | None = None  # of the models that it decodes; None: any
    packages: tuple[str, ...] = ()  # what it imports


def _peer(module: str, function: str, *arguments) -> Callable[[Checkpoint, Path], System]:
    """A function of a module of this package, which imports the peer."""
    load = lambda: importlib.import_module(f"{__package__}.{module}")  # noqa: E731
    return lambda model, scratch: getattr(load(), function)(*arguments, model, scratch)


BASE = "seqkd_jax engine"  # what the others' speed is compared with
REFERENCE = "seqkd_jax simple"  # what all outputs are compared with
SYSTEMS = {
    BASE: Entry(lambda model, scratch: ours("engine", model)),
    REFERENCE: Entry(lambda model, scratch: ours("beam", model)),
    **{
        f"CTranslate2 {name}": Entry(
            _peer("peers", "ctranslate2", name), "ctranslate2", "transformer", ("ctranslate2",)
        )
        for name in ("float32", "int8")
    },
    "Hugging Face generate": Entry(_peer("peers", "hugging_face"), "hf", "transformer", ("transformers", "torch")),
    "PyTorch as OpenNMT-py": Entry(_peer("opennmt", "open_nmt"), "opennmt", "lstm", ("torch",)),
}


class Worker(NamedTuple):
    """A system in its process."""

    prepare: Callable[[Sentences, int, SearchConfig], list[Job]]  # as System's; a job's inputs are its number
    run: Callable[[Job], list[list[int]]]
    built: Callable[[], list[programs.Program]]  # programs so far, compiled or loaded
    memory: Callable[[], dict]  # {"resident": its peak since the last call, "device"}: bytes, None: not told
    close: Callable[[], None]
    before: int | None  # bytes resident before the model was loaded: interpreter and libraries


def start(name: str, model: Checkpoint, scratch: Path) -> Worker | None:
    """The system in a process that ends with ours, or by its `close`; None if it decodes no model of this kind.

    Missing: it cannot be had, and why. UserError: its process failed.
    """
    if SYSTEMS[name].kind not in (None, models.kind_of(model.model_config)):
        return None
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(there, name, model.directory, scratch), daemon=True)
    process.start()
    there.close()

    def answer() -> Any:
        try:
            return here.recv()
        except EOFError:
            raise UserError(f"{name}: its process failed; what it says stands above") from None

    def ask(*request) -> Any:
        here.send(request)
        return answer()

    def close() -> None:
        here.close()
        process.join()

    told = answer()
    if isinstance(told, Missing):
        close()
        raise told
    return Worker(*(partial(ask, call) for call in ("prepare", "run", "built", "memory")), close, told)


def peak_memory(name: str, model: Checkpoint, scratch: Path, sentences: Sentences, rows: int, rules) -> dict:
    """Bytes of a fresh process: {"before", "first", "again", "device"}; None where the system does not tell.

    before: with its libraries; first: the peak of loading, compiling and decoding the sentences (a peer's process also
    holds our copy of the weights); again: the peak of a second pass; device: the framework's own peak on a GPU.
    """
    worker = start(name, model, scratch)
    jobs = worker.prepare(sentences, rows, rules)

    def peaks() -> dict:
        for job in jobs:
            worker.run(job)
        return worker.memory()

    first, again = peaks(), peaks()
    worker.close()
    resident = {"first": first["resident"], "again": again["resident"]}
    return {"before": worker.before, **resident, "device": again["device"]}


def _serve(connection, name: str, directory: Path, scratch: Path) -> None:
    programs.count()
    try:
        for package in SYSTEMS[name].packages:
            importlib.import_module(package)
        before = _resident("VmRSS")
        system = SYSTEMS[name].build(checkpoint.load(directory), scratch)
    except Missing as error:
        return connection.send(error)
    except ImportError as error:
        return connection.send(Missing(f"{error.name or error} is not installed: pip install 'seqkd_jax[peers]'"))
    jobs: list[Job] = []

    def prepare(*given) -> list[Job]:
        made = system.prepare(*given)
        jobs.extend(made)
        return [job._replace(inputs=number) for number, job in enumerate(made, len(jobs) - len(made))]

    calls = {
        "prepare": prepare,
        "run": lambda job: [list(map(int, ids)) for ids in system.run(jobs[job.inputs])],
        "built": programs.built,
        "memory": lambda: {"resident": _highest(), "device": _device_peak(SYSTEMS[name].peer)},
    }
    connection.send(before)
    try:
        while True:
            call, *arguments = connection.recv()
            connection.send(calls[call](*arguments))
    except EOFError:  # closed
        return


def _resident(field: str) -> int | None:
    """Bytes that /proc tells of this process: VmRSS now, VmHWM at most; None where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def _highest() -> int | None:
    """The highest resident memory since the last call; None where the system does not forget it between calls."""
    found = _resident("VmHWM")
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return None
    return found


def _device_peak(peer: str) -> int | None:
    """Bytes on the GPU: of JAX's allocator, or of PyTorch's; CTranslate2 does not tell."""
    if peer:
        torch = sys.modules.get("torch")
        return (torch.cuda.max_memory_allocated() or None) if torch and torch.cuda.is_available() else None
    import jax

    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
