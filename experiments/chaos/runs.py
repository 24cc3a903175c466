"""What is killed: commands as a user gives them, so small that they take seconds, which save as often as they can."""

import random
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.chaos.kills import FULL, KILL, TERM
from experiments.core.pages import ROOT
from seqkd_jax.utils import files

INPUTS, TEACHER = "../inputs", "../inputs/teacher/best"  # from the directory of an experiment
PAIRS, SHARDS = 64, 32
WORDS = ("red", "green", "blue", "black", "white")
SIGNALS = (KILL, TERM)


class Experiment(NamedTuple):
    """A command that is killed again and again."""

    name: str
    command: Callable[[str], Sequence[str]]  # where it is to write -> its words, after the interpreter
    share: float  # of all kills
    devices: int = 1  # of each process
    processes: int = 1
    joined: bool = False  # the processes are told of each other, and end together; otherwise they share what they find
    actions: Sequence[str] = SIGNALS
    depth: int = 2  # of the directories that are watched
    doing: Callable[[Path], str] = lambda life: "working"  # between two writes, by what was written
    verified: Sequence[str] = ()  # the directories that `seqkd verify` knows

    @property
    def slug(self) -> str:
        """In names of directories."""
        return re.sub(r"\W+", "-", self.name)


def environment(work: Path, experiment: Experiment) -> dict[str, str]:
    """Variables of its processes: this code, the CPU as so many devices, and programs that are kept here."""
    return {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={experiment.devices}",
        "SEQKD_COMPILED_PROGRAMS": str(work / "programs"),
        "PYTHONFAULTHANDLER": "1",  # one that hangs is asked where
        "OPENBLAS_NUM_THREADS": "1",  # a pool of threads less at each start
    }


SEQKD = ("-m", "seqkd_jax")
OWN = ("--vocab.size", "9", "--vocab.kind", "words", "--vocab.tokenizer", "pretokenised", "--vocab.no-joint")
TRAIN = (
    *SEQKD, "train", "--corpus.path", INPUTS, "--batch.buckets", "1", "--batch.tokens", "64",
    "--log-every", "1", "--save-minutes", "0", "--log", "csv",
)  # fmt: skip
SMALL = ("--lstm.layers", "1", "--lstm.size", "8")
UPDATES, VALIDATED = 12, 2  # so many, and every so many are followed by a validation
SHORT = ("--max-steps", str(UPDATES), "--validate-every", str(VALIDATED), "--keep", "1")
WORD_KD = ("--loss.name", "word_kd", "--teacher", TEACHER)
TRANSFORMER = (
    "--model", "transformer", "--transformer.encoder-layers", "1", "--transformer.decoder-layers", "1",
    "--transformer.width", "8", "--transformer.heads", "2", "--transformer.feed-forward", "16",
    "--transformer.tied", "target",
)  # fmt: skip


def _train(devices: int, *options: str) -> Callable[[str], Sequence[str]]:
    return lambda out: (*TRAIN, *SHORT, *options, "--devices", str(devices), "--out", f"{out}/out")


def _distill(devices: int) -> Callable[[str], Sequence[str]]:
    words = (*SEQKD, "distill", "--checkpoint", TEACHER, "--corpus.path", INPUTS, "--beam", "3")
    shards = ("--shard-lines", str(PAIRS // SHARDS))
    rules = ("--max-length-a", "0", "--max-length-b", "8", "--write-n-best", "--filters.deduplicate")
    return lambda out: (*words, *shards, *rules, "--devices", str(devices), "--out", f"{out}/out")


def _training(life: Path) -> str:
    """By the last line of metrics.jsonl."""
    path = life / "out/metrics.jsonl"
    lines = files.read_jsonl(path) if path.exists() else []
    step, validated = (lines[-1]["step"], "validation" in lines[-1]) if lines else (0, True)
    if validated:
        return "ending" if step == UPDATES else "training"
    return "training" if step % VALIDATED else "validating"


def _distilling(life: Path) -> str:
    made = len(list((life / "out.n-best").glob("shard-*.jsonl.json")))
    return "ending" if (life / "out").exists() else "decoding" if made < SHARDS else "choosing"


def _studying(life: Path) -> str:
    if (life / "out/report.html").exists():
        return "ending"
    at_work = [path.name for path in (life / "out/stages").glob("*.partial")]
    return f"in a stage: {at_work[0].partition('-')[0]}" if at_work else "between stages"


def _study(devices: int) -> Callable[[str], Sequence[str]]:
    module = "experiments.chaos.small_study"
    return lambda out: ("-m", module, "--devices", str(devices), "--out", f"{out}/out")


AVERAGE, TWO_SEEDS = ("--average-decay", "0.5"), ("--replicas", "2")
TRAINING = {"doing": _training, "verified": ("out",)}
DISTILLING = {"doing": _distilling, "verified": ("out", "out.n-best")}
STUDYING = {"doing": _studying, "verified": ("out",), "depth": 4}
EXPERIMENTS = (
    Experiment("train, 1 device", _train(1, *OWN, *SMALL, *AVERAGE), 140, **TRAINING),
    Experiment("train, 2 devices", _train(2, *SMALL, *WORD_KD), 110, devices=2, **TRAINING),
    Experiment("train, 4 devices", _train(4, *OWN, *TRANSFORMER, *TWO_SEEDS), 80, devices=4, **TRAINING),
    Experiment("train, 2 processes", _train(1, *OWN, *SMALL, *AVERAGE), 30, processes=2, joined=True, **TRAINING),
    Experiment("train, 2 processes of 2 devices", _train(2, *SMALL, *WORD_KD), 20, 2, 2, joined=True, **TRAINING),
    Experiment("train, 4 processes", _train(1, *OWN, *SMALL, *AVERAGE), 10, processes=4, joined=True, **TRAINING),
    Experiment("train, full disk", _train(1, *OWN, *SMALL, *AVERAGE), 80, actions=(FULL,), **TRAINING),
    Experiment("distill, 1 device", _distill(1), 140, **DISTILLING),
    Experiment("distill, 2 devices", _distill(2), 90, devices=2, **DISTILLING),
    Experiment("distill, 4 devices", _distill(4), 60, devices=4, **DISTILLING),
    Experiment("distill, 2 processes", _distill(1), 60, processes=2, **DISTILLING),
    Experiment("distill, 4 processes", _distill(1), 30, processes=4, **DISTILLING),
    Experiment("distill, full disk", _distill(1), 50, actions=(FULL,), **DISTILLING),
    Experiment("study, 1 device", _study(1), 50, **STUDYING),
    Experiment("study, 2 devices", _study(2), 30, devices=2, **STUDYING),
    Experiment("study, 2 processes", _study(1), 20, processes=2, joined=True, **STUDYING),
)


def inputs() -> Mapping[str, Sequence[str]]:
    """Lines of the corpus by file: some English words and, in capitals, their German."""
    rng, found = random.Random(0), {}
    for split, count in (("train", PAIRS), ("valid", 8), ("test", 8)):
        lines = [" ".join(rng.choices(WORDS, k=rng.randint(2, 5))) for _ in range(count)]
        found |= {f"{split}.en": lines, f"{split}.de": [line.upper() for line in lines]}
    return found


def write_inputs(work: Path) -> dict[str, str]:
    """Write the corpus; file -> SHA-256."""
    for name, lines in inputs().items():
        files.write_lines(work / "inputs" / name, lines)
    return {name: files.sha256_file(work / "inputs" / name) for name in inputs()}


def teacher_command() -> Sequence[str]:
    """What trains the teacher; it learns something, so that its translations differ."""
    directory = str(Path(TEACHER).parent)
    longer = ("--max-steps", "200", "--epochs", "30", "--optimiser.learning-rate", "0.02", "--save-minutes", "10")
    return (sys.executable, *TRAIN, *OWN, *SMALL, *longer, "--lstm.dropout", "0", "--devices", "1", "--out", directory)
