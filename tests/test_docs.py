"""What README and docs/ say holds: links lead on, commands are parsed by their real parsers, Python runs."""

import ast
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_architecture
import tyro

from seqkd_jax import checkpoint, losses, models
from seqkd_jax.cli import main
from seqkd_jax.config import LSTMConfig, VocabularyConfig
from seqkd_jax.data import vocabulary

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/*.md"),
        *ROOT.glob("experiments/**/README.md"),
    ]
    if "_build" not in path.parts
)
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
README = ROOT / "README.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name, language):
    return [text for kind, text in FENCE.findall(text_of(name)) if kind == language]


def prose(name):
    """A page without its code blocks."""
    return FENCE.sub("", text_of(name))


# Size and form


def test_readme_is_short():
    lines = text_of("README.md").splitlines()
    assert len(lines) <= 150, f"README.md has {len(lines)} lines, at most 150: move what is more into docs/"
    for number, line in enumerate(lines, 1):
        assert len(line) <= 120, f"README.md, line {number}: {len(line)} columns, at most 120"


@pytest.mark.parametrize("name", ["README.md", "docs/quickstart.md", "docs/concepts.md"])
def test_marks_and_commits_stay_out_of_prose(name):
    found = re.findall(r"[†‡§]|\bcommit [0-9a-f]{7,}", prose(name))
    assert not found, f"{name}: {found} belong in generated tables"


def test_the_generated_block_of_the_readme_is_there():
    found = re.findall(r"<!-- generated: results-summary -->\n(.*?)<!-- end -->", text_of("README.md"), re.DOTALL)
    assert len(found) == 1 and found[0].startswith("|"), "README.md: one generated block with the table of results"


# Links


def anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(name)):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), f"{name}: {link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{name}: {path or name} has no heading #{anchor}"


def test_every_page_of_the_site_is_in_its_contents():
    contents = re.search(r"```\{toctree\}\n(.*?)```", text_of("docs/index.md"), re.DOTALL).group(1).split()
    there = {path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in PAGES if "docs" in path.parts}
    reached = there - {"index"} - {page for page in there if page.startswith("results/") and page != "results/index"}
    assert reached <= set(contents), f"docs/index.md: its contents lack {sorted(reached - set(contents))}"


# Commands


def commands(name):
    """Every command of a page: lines of blocks without a language, and code in a line that begins as a command."""
    for text in blocks(name, "") + blocks(name, "bash"):
        yield from text.replace("\\\n", " ").splitlines()
    for code in re.findall(r"`([^`\n]+)`", prose(name)):
        if re.match(r"(make|\.ci/run|python3? -m|python docs/)\b", code):
            yield code


def parsed(line):
    """What a line runs, without a comment, an environment, what is fed to it, or what starts it on other hosts."""
    line = re.sub(r"^.*\| *(?=seqkd )", "", line.strip())
    words = shlex.split(line, comments=True)
    while words and (re.fullmatch(r"\w+=\S*", words[0]) or words[0] in ("&&", "srun")):
        words.pop(0)
    if words[:1] == ["gcloud"]:
        return parsed(next(word for word in words if word.startswith("--command=")).removeprefix("--command="))
    return words[: words.index("&&")] if "&&" in words else words


def accepted(kind, arguments):
    arguments = arguments[: min((arguments.index(sign) for sign in "<>" if sign in arguments), default=None)]
    try:
        tyro.cli(kind, args=arguments)
    except SystemExit as ended:
        return ended.code in (None, 0)
    return True


WRITTEN = [name for name in NAMES if not name.startswith("docs/results/")]  # a record's command is of its commit


@pytest.mark.parametrize("name", WRITTEN)
def test_commands_are_commands(name, capsys):
    targets = set(re.findall(r"^([\w-]+):", text_of("Makefile"), flags=re.MULTILINE))
    for line in commands(name):
        words = parsed(line)
        match words:
            case ["seqkd", ("COMMAND" | "--help" | "--version"), *_]:
                pass
            case ["seqkd", command, *arguments]:
                assert command in main.COMMANDS, f"{name}: there is no `seqkd {command}`: {line}"
                assert accepted(main.COMMANDS[command][0], arguments), f"{name}: this command is refused: {line}"
            case ["make", target, *_] if "=" not in target:
                assert target in targets, f"{name}: the Makefile has no target {target!r}: {line}"
            case ["python" | "python3" | ".venv/bin/python", "-m", module, *arguments] if "experiments" in module:
                entry = module_of(module)
                kind = getattr(entry, "Command", None)
                assert kind is None or accepted(kind, arguments), f"{name}: this command is refused: {line}"
            case ["python", script, *_] if script.endswith(".py"):
                assert (ROOT / script).is_file(), f"{name}: there is no {script}: {line}"
            case [script, *_] if script.startswith(".ci/"):
                assert (ROOT / script).is_file(), f"{name}: there is no {script}"


def module_of(name):
    try:
        module = importlib.import_module(name)
        return importlib.import_module(f"{name}.__main__") if hasattr(module, "__path__") else module
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("experiments"):
            pytest.fail(f"{error.name}: a page names this module, which is not there")
        return None  # of a benchmark's extra


def test_the_makefile_explains_its_targets():
    text = text_of("Makefile")
    targets = set(re.search(r"^\.PHONY: (.*)$", text, flags=re.MULTILINE).group(1).split()) - {"help"}
    told = set(re.findall(r"^# make ([\w-]+)", text, flags=re.MULTILINE))
    assert told == targets, f"Makefile: its head and .PHONY differ in {sorted(told ^ targets)}"


# Python


def test_every_python_example_is_run_here():
    found = {name: len(blocks(name, "python")) for name in NAMES if blocks(name, "python")}
    known = {
        "README.md": 1,
        "docs/quickstart.md": 1,
        "docs/decoding.md": 1,
        "docs/extending.md": 1,
    }
    assert found == known, "run the new example in tests/test_docs.py, too"


def executed(text, name, **names):
    exec(compile(text, name, "exec"), names)  # noqa: S102
    return names


def student_at(directory):
    """A checkpoint of a tiny model."""
    lines = ["a dog sees a man .", "a man sleeps ."]
    known = vocabulary.learn(lines, lines, VocabularyConfig(kind="words", size=20, tokenizer="pretokenised"))
    config = LSTMConfig(layers=1, size=4)
    params = models.build(config, known.source.size, known.target.size).init(jax.random.key(0))
    checkpoint.save(directory, params, model_config=config, vocabularies=known, metadata={})


@pytest.mark.parametrize("name", ["README.md", "docs/quickstart.md", "docs/decoding.md"])
def test_lines_are_translated(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for directory in ("student/best", "tuned/best"):
        student_at(tmp_path / directory)
    (text,) = blocks(name, "python")
    executed(text, name)
    assert capsys.readouterr().out.strip(), f"{name}: the example prints nothing"


def test_a_loss_is_added(monkeypatch):
    monkeypatch.setattr(losses, "LOSSES", dict(losses.LOSSES))
    (text,) = blocks("docs/extending.md", "python")
    executed(text, "docs/extending.md")
    student, teacher = jnp.log(jnp.array([[0.5, 0.5]])), jnp.log(jnp.array([[0.9, 0.1]]))
    arguments = losses.arguments_from(losses.LossConfig())
    lifted = losses.over_positions(losses.LOSSES["logits_apart"])
    total, weight = lifted(student, teacher, jnp.zeros(1, int), jnp.ones(1), arguments)
    assert float(weight) == 1
    assert float(total) == pytest.approx((np.log(0.5 / 0.9) ** 2 + np.log(0.5 / 0.1) ** 2) / 2, rel=1e-5)


# What is written by hand but known to the code


def table_after(mark):
    text = text_of("docs/concepts.md")
    found = re.search(rf"<!-- {mark}.*?-->\n(.*?)<!-- end -->", text, re.DOTALL).group(1)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found.strip().splitlines()[2:]]


def test_concepts_has_the_table_of_directions():
    rooms = test_architecture.ALLOWED
    told = {room.strip("`"): set(re.findall(r"`(\w+)`", allowed)) for room, allowed in table_after("directions")}
    wanted = {room: set(allowed) for room, allowed in rooms.items() if room in told and room != "cli"}
    assert {room: allowed for room, allowed in told.items() if room != "cli"} == wanted
    missing = set(rooms) - set(told)
    assert not missing, f"docs/concepts.md: the table of directions lacks {sorted(missing)}"


def test_the_command_line_page_is_what_the_options_say():
    done = subprocess.run([sys.executable, "docs/command_line.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", list(main.COMMANDS))
def test_the_command_line_page_has_every_option(command, capsys):
    with pytest.raises(SystemExit):
        tyro.cli(main.COMMANDS[command][0], args=["--help"], console_outputs=True)
    offered = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*", re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)))
    page = text_of("docs/command-line.md")
    named = set(re.findall(r"^\| `(--[\w.-]+)`", page, flags=re.MULTILINE))
    ours = {option for option in offered if not option.startswith("--no-") and option != "--help"}
    assert ours & named, "the page tells options as --help does"
    section = page.split(f"\n## seqkd {command}\n")[1].split("\n## ")[0]
    own = set(re.findall(r"^\| `(--[\w.-]+)`", section, flags=re.MULTILINE))
    assert own <= offered, f"docs/command-line.md: {command} has no {sorted(own - offered)}"


def test_python_in_code_spans_names_what_is_there():
    """`losses.word_kd`, `evaluation/metrics.py`: dotted names and paths of the package in docs/papers.md exist."""
    for code in re.findall(r"`([\w./]+)`", prose("docs/papers.md")):
        if code.endswith(".py") and "/" in code:
            assert any((ROOT / base / code).is_file() for base in ("", "seqkd_jax")), f"docs/papers.md: no {code}"
        elif re.fullmatch(r"(losses|distillation)(\.\w+)+", code):
            module, _, name = code.rpartition(".")
            assert hasattr(importlib.import_module(f"seqkd_jax.{module}"), name), f"docs/papers.md: no {code}"


def test_guarantees_name_tests_that_are_there():
    """`tests/a/test_b.py::test_c`: each guarantee of docs/guarantees.md names a test, which exists."""
    text = text_of("docs/guarantees.md")
    for row in re.findall(r"^\| (?!guarantee|refused)(.*) \|$", text, flags=re.MULTILINE):
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, f"docs/guarantees.md names no test that holds: {row[:80]}"
        for path, test in named:
            assert (ROOT / path).is_file(), f"docs/guarantees.md: no file {path}; name the test that holds: {row[:80]}"
            assert re.search(rf"^def {test}\(", text_of(path), flags=re.MULTILINE), (
                f"docs/guarantees.md: no {path}::{test}"
            )


def test_docs_configuration_compiles():
    ast.parse(text_of("docs/conf.py"))
