"""What messages advise exists: each option that a string of the package or of the studies names is one of a command."""

import ast
import dataclasses
import importlib
import re
from pathlib import Path
from typing import Annotated, get_args, get_origin

from seqkd_jax.cli import checks, main
from seqkd_jax.utils import settings

ROOT = Path(__file__).parents[2]
STUDIES = (
    "kim_rush_2016.study",
    "abnar_2020.study",
    "benchmarks.decoding.__main__",
    "benchmarks.training.__main__",
    "benchmarks.speculative",
)
OF_OTHERS = {"--local-dir"}  # of `hf download`
NAMED = re.compile(r"(?<![\w-])--[a-z][a-z0-9.-]*")


def told(path):
    """(line, option) of each option that a sentence of a file names, f-strings too, docstrings not."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    expressions = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and " " in str(node.value) and id(node) not in expressions:
            yield from ((node.lineno, option) for option in NAMED.findall(str(node.value)))


def options_of(kind, inside=""):
    """Every option that the dataclass of a command has, as the user writes it."""
    for field in settings.fields(kind):
        hint, name = field.hint, f"{inside}{field.shown}"
        if get_origin(hint) is Annotated:
            hint = get_args(hint)[0]
        if dataclasses.is_dataclass(hint):
            yield from options_of(hint, f"{name}." if field.shown else inside)
        else:
            yield checks.option(name)


def all_options():
    modules = [importlib.import_module(f"experiments.{name}") for name in STUDIES]
    kinds = [kind for kind, _ in main.COMMANDS.values()]
    kinds += [getattr(module, "Command", None) or module.Options for module in modules]
    return {"--version", "--help", *OF_OTHERS}.union(*map(options_of, kinds))


def exists(option, known):
    """Also the beginning of some, as in `--corpus.…`, and the last word of a sentence."""
    option = option.replace("--no-", "--")
    return option.rstrip(".") in known or option[-1] in ".-" and any(one.startswith(option) for one in known)


def test_options_that_are_named_exist():
    known = all_options()
    for path in sorted(path for folder in ("seqkd_jax", "experiments") for path in (ROOT / folder).rglob("*.py")):
        wrong = [(line, option) for line, option in told(path) if not exists(option, known)]
        assert not wrong, f"{path.relative_to(ROOT)} names options that no command has: {wrong}"


def fields_of(kind):
    for field in settings.fields(kind):
        hint = get_args(field.hint)[0] if get_origin(field.hint) is Annotated else field.hint
        yield field.name
        if dataclasses.is_dataclass(hint):
            yield from fields_of(hint)


def test_settings_are_named_as_options():
    """Where a command says it: `--batch.max-source`, not max_source. Python alone reaches what is left out here."""
    fields = {name for kind, _ in main.COMMANDS.values() for name in fields_of(kind) if "_" in name}
    rooms = ("data", "decoding", "distillation", "evaluation", "checkpoint", "marian", "cli")
    for path in sorted(path for room in rooms for path in (ROOT / "seqkd_jax" / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("UserError", "progress.log"):
                said = " ".join(part.value for part in ast.walk(node) if isinstance(getattr(part, "value", 0), str))
                named = fields & set(re.findall(r"(?<![\w.-])[a-z]+(?:_[a-z]+)+(?![\w=])", said))
                assert not named, f"{path.relative_to(ROOT)}, line {node.lineno}: name the options of {named}"
