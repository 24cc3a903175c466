"""The commands on a disk that is really full, and under a limit of the size of files: one line, and nothing is lost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import write_corpus

TESTS = Path(__file__).parents[1]
COMMANDS = """
import contextlib, io, os, resource, subprocess, sys
from pathlib import Path
from commands import SEARCH, SMALL_MODEL, SMALL_RUN, WORD_VOCABULARY
from seqkd_jax.cli import main
data, disk, model = (Path(name).absolute() for name in sys.argv[1:])
words = ["--vocab.size", "9", *WORD_VOCABULARY]
train = ["train", "--corpus.path", data, *words, *SMALL_MODEL, *SMALL_RUN]

def seqkd(*arguments):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            main.main([str(argument) for argument in arguments])
        except SystemExit as ended:
            return ended.code or 0, said.getvalue()

assert seqkd(*train, "--out", model)[0] == 0
best = model / "best"
writes = {
    "trained": train,
    "averaged": ["average", best],
    "pruned": ["prune", best],
    "distilled": ["distill", "--checkpoint", best, "--corpus.path", data, *SEARCH],
    "vocabulary": ["vocab", "--corpus.path", data, *words],
    "exported": ["export", "--to", "safetensors", best],
}
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", disk], check=True)
for name, command in writes.items():
    for reason, filler in (("No space left on device", 2**30), ("File too large", 0)):
        place = disk / name
        place.mkdir()
        with open(place / "filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
            file.write(bytes(filler and 2**20))
        kept = sorted(place.rglob("*"))
        if not filler:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20, resource.RLIM_INFINITY))
        status, said = seqkd(*command, "--out", place / "out")
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        errors = [line for line in said.splitlines() if "rror" in line or "Traceback" in line]
        assert status == 2 and len(errors) == 1, (name, status, said)
        assert errors[0].startswith(f"seqkd: error: {place}/out") and reason in errors[0], errors
        assert not [path for path in place.rglob("*") if path.name.endswith((".new", ".old"))], name
        subprocess.run(["rm", "-r", place], check=True)
print("done")
"""


def test_every_command_names_the_file_that_it_cannot_write(tmp_path):
    (tmp_path / "disk").mkdir()
    data = write_corpus(tmp_path)
    command = ["unshare", "-r", "-m", sys.executable, "-c", COMMANDS, data, tmp_path / "disk", tmp_path / "model"]
    environment = {"PYTHONPATH": f"{TESTS.parent}:{TESTS}"}

    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, **environment})
    except FileNotFoundError:
        pytest.skip("there is no `unshare` here")
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip("this system does not let us mount")
    assert done.stdout == "done\n", done.stderr
