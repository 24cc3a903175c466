"""The command: every subject under every system, interleaved; results.json, table.md, and the table printed."""

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.benchmarks.training.subjects import SUBJECTS, Subject, tiny
from experiments.core import measure, report
from experiments.core.command import exit_status
from seqkd_jax.types import UserError, require_at_least
from seqkd_jax.utils import files, progress

OURS, AT_ONCE, PYTORCH = "seqkd_jax", "seqkd_jax, all positions at once", "PyTorch"
LOGITS = 4  # bytes


@dataclass(frozen=True)
class Command:
    """Training speed beside PyTorch, of models of the same sizes on the same cores."""

    only: Annotated[tuple[Literal[tuple(SUBJECTS)], ...], tyro.conf.arg()] = ()
    """What to train; nothing: all of them."""
    rounds: int = 9
    """Interleaved repetitions; from 6 on there are intervals, and thus speed-ups."""
    updates: int = 2
    """Updates in one repetition."""
    seed: int = 0
    """Of the starts, the batches and the order of systems in a round."""
    torch: bool = True
    """Beside PyTorch (`pip install torch`); otherwise ours alone."""
    out: Path = Path("runs/training_speed")
    """Where results.json and table.md go."""
    smoke: bool = False
    """Tiny sizes: shows that the command works here, measures nothing."""


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 an error that the user can mend."""
    command = tyro.cli(Command, args=arguments, prog="python -m experiments.benchmarks.training", description=__doc__)
    return exit_status(lambda: _run(command), "nothing was written")


def _run(command: Command) -> int:
    require_at_least(command, "--{}".format, rounds=1, updates=1, seed=0)
    if command.torch and importlib.util.find_spec("torch") is None:
        raise UserError("PyTorch is not installed: `pip install torch`, or --no-torch for ours alone")
    from experiments.benchmarks.training import table
    from experiments.core import stages
    from seqkd_jax.utils import performance

    stages.commit()
    found = {}
    for name in command.only or SUBJECTS:
        progress.log(f"{name}: {SUBJECTS[name].about}")
        found[name] = _measured(tiny(SUBJECTS[name]) if command.smoke else SUBJECTS[name], command)
    results = {
        "study": "training_speed",
        **report.what_ran({}),
        "torch": _torch() if command.torch else None,
        "environment": {name: os.environ[name] for name in ("GLIBC_TUNABLES", "XLA_FLAGS") if name in os.environ},
        "settings": {
            "rounds": command.rounds,
            "updates": command.updates,
            "seed": command.seed,
            "smoke": command.smoke,
        },
        "matrix_flops_per_second": performance.matrix_peak(),
        "subjects": found,
    }
    files.write_json(command.out / "results.json", results)
    files.write_text(command.out / "table.md", table.report(results))
    print(table.report(results))
    print(f"results and table: {command.out}")
    return 0


def _torch() -> dict:
    import torch

    return {"version": torch.__version__, "threads": torch.get_num_threads()}


def _measured(subject: Subject, command: Command) -> dict:
    """Seconds of an update under each system, by round, and what else is known of it."""
    import jax

    from experiments.benchmarks.training import ours

    systems = {OURS: ours.update(subject, command.seed, True), AT_ONCE: ours.update(subject, command.seed, False)}
    if command.torch:
        from experiments.benchmarks.training import pytorch

        systems[PYTORCH] = pytorch.update(subject, command.seed)
    losses = {name: [system.run(), system.run()] for name, system in systems.items()}  # threads, caches, allocators
    runs = {
        name: lambda run=system.run: measure.time_jobs(lambda _: run(), range(command.updates))
        for name, system in systems.items()
    }
    pause = 0.0 if command.smoke else measure.PAUSE
    timed = measure.interleave(runs, command.rounds, command.seed, pause=pause)
    seconds = {name: [sum(one.seconds) / command.updates for one in rounds] for name, rounds in timed.items()}
    jax.clear_caches()
    return {
        "about": subject.about,
        "positions": subject.rows * subject.steps,
        "logits_bytes": LOGITS * subject.rows * subject.steps * subject.entries,
        "flops": systems[AT_ONCE].flops,  # the last block may be filled up: in blocks there are a few more
        "systems": {
            name: {
                "parameters": system.parameters,
                "temporary_bytes": system.temporary_bytes,
                "first_losses": losses[name],
                "seconds": seconds[name],
            }
            for name, system in systems.items()
        },
        "speed_ups": {
            name: measure.ratio(seconds[name], seconds[OURS])._asdict() for name in systems if name != OURS
        },
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
