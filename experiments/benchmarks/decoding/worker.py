"""A system in a process of its own, behind the same interface. In one process the systems' thread pools slow each other
down, some of them fourfold at one sentence, and the comparison would be of that.

    python -m experiments.benchmarks.decoding.worker      (JSON lines: requests in, answers out)

One process works at a time; the others wait for a line. What the line costs is on the clock: some tenths of a ms.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from experiments.benchmarks.decoding import registry
from experiments.benchmarks.decoding.systems import Job, Missing, Sentences, System
from seqkd_jax import checkpoint
from seqkd_jax.checkpoint import Checkpoint
from seqkd_jax.config import SearchConfig
from seqkd_jax.types import UserError
from seqkd_jax.utils import progress


def start(name: str, peers: tuple[str, ...], model: Checkpoint, scratch: Path) -> System | None:
    """The system in a process that ends with ours, or by its `close`; None if it decodes no model of this kind.

    Missing: it cannot be had, and why. UserError: its process failed.
    """
    errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  (as long as the process)
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.benchmarks.decoding.worker"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    atexit.register(process.kill)

    def ask(**request) -> Any:
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            errors.seek(0)
            last = ([line for line in errors.read().splitlines() if line.strip()] or ["no message"])[-1]
            raise UserError(f"{name}: its process failed ({last.strip()[:200]})") from None

    def prepare(sentences: Sentences, rows: int, rules: SearchConfig) -> list[Job]:
        described = ask(
            do="prepare", sentences=[list(map(int, ids)) for ids in sentences], rows=rows, rules=asdict(rules)
        )
        return [Job(places, number, positions) for number, places, positions in described]

    def close() -> None:
        process.stdin.close()
        process.wait()
        atexit.unregister(process.kill)

    paths = {"checkpoint": str(Path(model.directory).absolute()), "scratch": str(Path(scratch).absolute())}
    can = ask(do="build", system=name, peers=list(peers), **paths)
    if "missing" in can or not can:
        close()
        if can:
            raise Missing(can["missing"])
        return None
    return System(
        prepare,
        run=lambda job: ask(do="run", job=job.inputs),
        encode=(lambda job: ask(do="encode", job=job.inputs)) if can["encode"] else None,
        transfer=(lambda job: ask(do="transfer", job=job.inputs)) if can["transfer"] else None,
        compiled=lambda: tuple(ask(do="compiled")),
        close=close,
    )


def _serve(requests: TextIO, answers: TextIO) -> None:
    progress.count_compilations()
    system, jobs = None, []
    for line in requests:
        request = json.loads(line)
        match request.pop("do"):
            case "build":
                model = checkpoint.load(request["checkpoint"])
                built, missing = registry.build((request["system"],), request["peers"], model, Path(request["scratch"]))
                system = next(iter(built.values()), None)
                answer = {"missing": next(iter(missing.values()))} if missing else {}
                if system:
                    answer = {"encode": bool(system.encode), "transfer": bool(system.transfer)}
            case "prepare":
                made = system.prepare(request["sentences"], request["rows"], SearchConfig(**request["rules"]))
                answer = [(len(jobs) + number, job.places, job.positions) for number, job in enumerate(made)]
                jobs.extend(made)
            case "run":
                answer = [list(map(int, ids)) for ids in system.run(jobs[request["job"]])]
            case "encode":
                system.encode(jobs[request["job"]])
                answer = None
            case "transfer":
                answer = system.transfer(jobs[request["job"]])
            case "compiled":
                answer = progress.compilations(), sum(seconds for _, seconds in progress.compiled())
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    _serve(sys.stdin, own)
