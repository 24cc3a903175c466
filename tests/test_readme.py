"""The README's examples do what it says: its Python runs as it stands, its commands are commands, its links lead on."""

import re
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro

from seqkd_jax import checkpoint, losses, models
from seqkd_jax.cli import main
from seqkd_jax.config import LSTMConfig, VocabularyConfig
from seqkd_jax.data import vocabulary

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(*parts, language="python"):
    """The one example that holds these parts."""
    found = re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    having = [text for text in found if all(part in text for part in parts)]
    assert len(having) == 1, f"README.md: {len(having)} examples hold {parts}; name what only the one meant has"
    return having[0]


def executed(text, **names):
    exec(compile(text, "README.md", "exec"), names)  # noqa: S102
    return names


def test_every_python_example_is_run_here():
    assert len(re.findall(r"^```python$", README, flags=re.MULTILINE)) == 3, "run the new example here, too"


def test_a_classifier_is_taught(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    for name, count in (("train.tsv", 60), ("valid.tsv", 12)):
        lines = []
        for _ in range(count):
            words = draw.choice(["not", "bad", "good", "very", "quite"], size=4)
            lines.append(f"{' '.join(words)}\t{'good' if words[-1] == 'good' else 'bad'}\n")
        (tmp_path / name).write_text("".join(lines), encoding="utf-8")
    text = block("vocab.labels", "train_model")
    # The example's vocabulary is learned from far more text; its models are for minutes, not for a test.
    for large, small in (
        ("size=4000", "size=30"),
        ("size=256", "size=8"),
        ("width=64", "width=8"),
        ("epochs=10", "epochs=1"),
    ):
        assert large in text, f"README.md: the example has no {large} any more; change it here, too"
        text = text.replace(large, small)
    names = executed(text)
    assert capsys.readouterr().out.strip() in ("bad", "good")
    assert [len(names[run].replicas) for run in ("teacher", "taught")] == [3, 3]
    assert all(np.isfinite(replica.best_value) for replica in names["taught"].replicas)


def test_lines_are_translated(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = ["a dog sees a man .", "a man sleeps ."]
    known = vocabulary.learn(lines, lines, VocabularyConfig(kind="words", size=20, tokenizer="pretokenised"))
    config = LSTMConfig(layers=1, size=4)
    params = models.build(config, known.source.size, known.target.size).init(jax.random.key(0))
    checkpoint.save(Path("tuned/best"), params, model_config=config, vocabularies=known, metadata={})
    Path("input.en").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    executed(block("translate_lines"))
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(lines)
    assert all(float(line.rsplit(" ", 1)[-1]) < 0 for line in printed), "each line ends with its log-probability"


def test_a_loss_is_added(monkeypatch):
    monkeypatch.setattr(losses, "LOSSES", dict(losses.LOSSES))
    executed(block("reverse_kl"), jax=jax, jnp=jnp, LOSSES=losses.LOSSES, Loss=losses.Loss)
    student, teacher = jnp.log(jnp.array([[0.5, 0.5]])), jnp.log(jnp.array([[0.9, 0.1]]))
    arguments = losses.arguments_from(losses.LossConfig())
    lifted = losses.over_positions(losses.LOSSES["reverse_kl"])
    total, weight = lifted(student, teacher, jnp.zeros(1, int), jnp.ones(1), arguments)
    assert float(weight) == 1
    assert float(total) == pytest.approx(0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1), rel=1e-5)


def test_commands_are_commands():
    """Every `seqkd` of the example with two text files has arguments that there are."""
    text = block("seqkd distill", "--out seq_inter", language="").replace("\\\n", " ")
    data = re.search(r'DATA="(.*)"', text).group(1)
    lines = [line for line in text.replace("$DATA", data).splitlines() if "seqkd " in line]
    assert len(lines) == 7, "as many as the README has"
    for line in lines:
        name, *arguments = shlex.split(line.split("seqkd ", 1)[1], comments=True)
        arguments_type, _ = main.COMMANDS[name]
        try:
            tyro.cli(arguments_type, args=arguments)
        except SystemExit:
            pytest.fail(f"README.md: this command is refused: {line}")


@pytest.mark.parametrize(
    "page", ["README.md", "experiments/abnar_2020/README.md", "experiments/benchmarks/decoding/README.md"]
)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    assert found
    for link in [link for link in found if "://" not in link]:
        path, _, heading = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page}: {link} leads nowhere"
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
            known = [re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-") for name in headings]
            assert heading in known, f"{page}: {path} has no heading {heading!r}"


RESULTS = ROOT / "experiments" / "results"
# What the header of a table of the README holds -> the committed table with the same rows, what stands above it there
# (nothing: it is the first), and the column that names a row.
COMMITTED = {
    "the mode": ("kim_rush_2016/smoke", "", 1),
    "paper's Δ": ("kim_rush_2016/multi30k", "", 1),
    "mu, taught by": ("abnar_2020/classification", "## mu by teacher", 0),
    "D, taught by": ("abnar_2020/classification", "## D by teacher", 0),
    "A, taught by": ("abnar_2020/classification", "## A by teacher", 0),
    "ECE, taught by": ("abnar_2020/classification", "## ECE, 10⁶ bins by teacher", 0),
    "ECE, 10⁶ bins": ("abnar_2020/classification", "", 0),
    "ECE clean": ("abnar_2020/digits", "", 0),
    "PPL of batches": ("abnar_2020/lm", "", 0),
}
OTHER_NAMES = {
    "+ Seq-Inter": "Teacher + Seq-Inter",
    "a teacher, not in the paper": "Transformer teacher",
    "nobody": "none",
}
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def rows(text, column):
    """Each table as its header and its rows by what they have in a column."""
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        header, _, *lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]
        yield header, {re.sub(r"\*\*| \(.*", "", line[column]): line for line in lines}


def stands_in(number, others):
    """Is it one of them, rounded or not?"""
    size = len(number.partition(".")[2])
    for other in others:
        finer = max(size, len(other.partition(".")[2]))
        slack = 0.5 * 10.0**-size + 0.5 * 10.0**-finer + 1e-12 if finer > size else 1e-12
        if abs(float(number.replace(",", "")) - float(other.replace(",", ""))) <= slack:
            return True
    return False


def tables_of(named, column):
    return [lines for header, lines in rows(README, column) if any(cell.startswith(named) for cell in header)]


@pytest.mark.parametrize("named", [name for name, (*_, column) in COMMITTED.items() if tables_of(name, column)])
def test_results_are_the_committed_ones(named):
    """Every number in a row of results stands in the committed table's row of that arm."""
    directory, above, column = COMMITTED[named]
    text = (RESULTS / directory / "table.md").read_text(encoding="utf-8")
    _, committed = next(rows(text[text.index(above) :], column))
    told = tables_of(named, column)
    assert len(told) == 1, f"README.md: {len(told)} tables have {named!r} in their header; name what only one has"
    for arm, cells in told[0].items():
        row = committed.get(OTHER_NAMES.get(arm, arm))
        assert row, f"README.md: {arm!r} is not in {directory}/table.md"
        numbers = NUMBER.findall(" ".join(row))
        for cell in cells[column + 1 :]:
            wrong = [number for number in NUMBER.findall(cell) if not stands_in(number, numbers)]
            assert not wrong, f"README.md: {arm}: {wrong} of {cell!r} do not stand in {directory}/table.md"
