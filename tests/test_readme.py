"""The README's examples do what it says: its Python runs as it stands, its commands are commands."""

import re
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro

from seqkd_jax import checkpoint, cli, losses, models, vocab
from seqkd_jax.config import LSTMConfig, VocabularyConfig

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


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
    known = vocab.learn(lines, lines, VocabularyConfig(kind="words", size=20, tokenizer="pretokenised"))
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
        arguments_type, _ = cli.COMMANDS[name]
        try:
            tyro.cli(arguments_type, args=arguments)
        except SystemExit:
            pytest.fail(f"README.md: this command is refused: {line}")
