"""The scripts and the notebook of examples/ run, each at a small size of its own and as a user runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SMALL = {
    "distil_two_text_files": (
        ["--pairs", "64", "--tested", "4", "--epochs", "1", "--sizes", "8", "8"],
        ["teacher", "baseline", "Seq-KD"],
    ),
    "classifier_taught_by_an_lstm": (["--sentences", "64", "--epochs", "1"], ["LSTM", "Transformer", "LSTM -> Transf"]),
    "decode_with_other_rules": (
        ["--pairs", "64", "--epochs", "1", "--sentences", "4", "--beam", "2", "--rules", "hf"],
        ["(default)", "hf"],
    ),
}


@pytest.fixture
def environment(tmp_path):
    """One device, programs compiled as quickly as those of other tests, nothing written outside the test directory."""
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("--xla_force_host_platform_device_count=4", ""),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "jupyter"),
    }


def test_every_script_is_run_here():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SMALL), "run the new script in tests/test_examples.py"


@pytest.mark.parametrize("name", SMALL)
def test_scripts_run(name, tmp_path, environment):
    options, rows = SMALL[name]
    command = [sys.executable, EXAMPLES / f"{name}.py", "--out", tmp_path / "out", *options]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for row in rows:
        assert re.search(rf"^{re.escape(row)}.*\d", done.stdout, flags=re.MULTILINE), f"{row}: {done.stdout}"


def test_the_notebook_runs(tmp_path, environment, monkeypatch):
    for name, value in (environment | {"SEQKD_NOTEBOOK": "tiny", "SEQKD_NOTEBOOK_OUT": str(tmp_path / "out")}).items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(EXAMPLES / "colab.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells), "examples/colab.ipynb: commit it without outputs"
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert any("Baseline" in output["data"].get("text/markdown", "") for output in shown), "the table is shown"
    assert any("image/png" in output["data"] for output in shown), "so are the plots"
