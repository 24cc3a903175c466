"""Peak memory of a system in a process of its own, so that nobody's pages are counted as another's.

    python -m experiments.benchmarks.decoding.memory   (a request, JSON on standard input, an answer on standard output)

What is told, from /proc: what was resident before the model was loaded (interpreter and libraries); the highest
resident memory until the first pass over the sentences is done (weights, compilation, decoding; a peer's process also
holds our copy of the weights); the highest in a second pass, when nothing is compiled. On a GPU also the framework's
own peak, if it tells.
"""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from seqkd_jax.checkpoint import Checkpoint
from seqkd_jax.config import SearchConfig
from seqkd_jax.types import UserError


def peak(
    name: str, peer: str | None, model: Checkpoint, scratch: Path, sentences: list, rows: int, rules: SearchConfig
) -> dict:
    """Bytes: {"before", "first", "again", "device"}, None where the system does not tell. peer: of registry.PEERS.

    scratch: where the peers' files are, if they were made before. UserError: the process failed.
    """
    request = {
        "system": name,
        "peers": [peer] if peer else [],
        "checkpoint": str(Path(model.directory).absolute()),
        "scratch": str(scratch.absolute()),
        "sentences": sentences,
        "rows": rows,
        "rules": asdict(rules),
    }
    command = [sys.executable, "-m", "experiments.benchmarks.decoding.memory"]
    root = Path(__file__).parents[3]
    found = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, cwd=root, check=False)
    if found.returncode:
        last = (found.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"memory of {name}: its process failed ({last[:200]}); leave it out with --no-memory")
    return json.loads(found.stdout.splitlines()[-1])


def of_a_file(checkpoint: Path, lines: list[str], tokens: int, scratch: Path) -> int | None:
    """Bytes: the highest resident memory of `seqkd translate`, greedy, at most so many tokens a line, over a file.

    Told by the process itself: what the system tells of a child counts its parent's memory before the exec.
    """
    path = scratch / "lines"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    files = ["--checkpoint", str(checkpoint), "--out", str(scratch / "translated"), str(path)]
    limits = ["--beam", "1", "--max-length-a", "0", "--max-length-b", str(tokens)]
    command = [sys.executable, "-c", _TRANSLATE, "translate", *limits, *files]
    root = Path(__file__).parents[3]
    found = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    if found.returncode:
        raise UserError(f"memory of `seqkd translate`: its process failed ({found.stderr.strip()[-200:]})")
    return json.loads(found.stdout.splitlines()[-1])


_TRANSLATE = """
import sys
from experiments.benchmarks.decoding import memory
from seqkd_jax import cli
try:
    cli.main(sys.argv[1:])
finally:
    print(memory._resident("VmHWM") or "null")
"""


def _answer(request: dict) -> dict:
    from experiments.benchmarks.decoding import registry
    from seqkd_jax import checkpoint

    for package in {package for peer in request["peers"] for package in registry.PACKAGES[peer]}:
        __import__(package)
    before = _resident("VmRSS")
    model = checkpoint.load(request["checkpoint"])
    system = registry.entries(request["peers"])[request["system"]].build(model, Path(request["scratch"]))
    jobs = system.prepare(request["sentences"], request["rows"], SearchConfig(**request["rules"]))

    def highest() -> int | None:
        for job in jobs:
            system.run(job)
        return _resident("VmHWM")

    first = highest()
    again = highest() if _forget_highest() else None
    return {"before": before, "first": first, "again": again, "device": _device_peak(bool(request["peers"]))}


def _forget_highest() -> bool:
    """Set VmHWM back to what is resident now; False where the system cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return False
    return True


def _resident(field: str) -> int | None:
    """Bytes that /proc tells of this process: VmRSS now, VmHWM at most; None where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def _device_peak(peer: bool) -> int | None:
    """Bytes on the GPU: of JAX's allocator, or of PyTorch's; CTranslate2 does not tell."""
    if peer:
        torch = sys.modules.get("torch")
        return (torch.cuda.max_memory_allocated() or None) if torch and torch.cuda.is_available() else None
    import jax

    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


if __name__ == "__main__":
    print(json.dumps(_answer(json.load(sys.stdin))))
