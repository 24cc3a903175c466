"""Writes docs/command-line.md from the dataclasses that the command line is made of: `python docs/command_line.py`.

With --check it writes nothing and exits with 1 if the page is not what they say.
"""

import ast
import dataclasses
import inspect
import sys
import types
import typing
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import tyro  # noqa: E402

from seqkd_jax.cli import main  # noqa: E402
from seqkd_jax.utils.settings import Range  # noqa: E402

PAGE = ROOT / "docs" / "command-line.md"
HEAD = """# Command line

<!-- Written by docs/command_line.py from the options' dataclasses: change those, and run it again. -->

`seqkd COMMAND --help` says the same. Results go to standard output or to files, everything else to standard error. The
exit status is 0; 2 for an error that you can correct, which is one line; 130 after an interruption, 143 after SIGTERM;
75 where one of several processes is gone, was stopped or did not come: the same command goes on.

A boolean option is switched off by `--no-NAME`. *None* as a default means that nothing is given.
"""
# Groups of options that several commands have, by their dataclass, each told once.
GROUPS = {
    "CorpusConfig": "The corpus",
    "TrainConfig": "Training",
    "SearchConfig": "The rules of the search",
    "VocabularyConfig": "The vocabulary",
    "LSTMConfig": "The LSTM",
    "TransformerConfig": "The Transformer",
    "LossConfig": "The loss",
    "OptimiserConfig": "The optimiser",
    "BatchConfig": "Batches",
    "FilterConfig": "Filters",
    "Processes": "Several processes",
}


class Option(typing.NamedTuple):
    """A row of a table."""

    name: str
    values: str
    default: str
    text: str


def texts(kind: type) -> dict[str, str]:
    """The string under each field of a dataclass, of those that it inherits too."""
    if not dataclasses.is_dataclass(kind):
        return {}
    found = {name: text for base in kind.__bases__ for name, text in texts(base).items()}
    (body,) = ast.parse(inspect.getsource(kind)).body
    for field, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            found[field.target.id] = " ".join(str(below.value.value).split())
    return found


def bounds(limits: Range) -> str:
    """A range; without its end where that is only what the program can hold."""
    return str(limits) if limits.most <= 65_536 else str(limits).split(" to ")[0] + ", or 0" * limits.or_zero


def values(hint) -> str:
    """What may be given for a type."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return values(parts[0]) + "".join(f" {bounds(part)}" for part in parts[1:] if isinstance(part, Range))
    if origin is typing.Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (typing.Union, types.UnionType):
        return ", ".join(values(part) for part in parts if part is not type(None))
    if origin is tuple:
        return f"{values(parts[0])} …"
    return {Path: "path", str: "text", int: "whole number", float: "number", bool: "flag"}[hint]


def told(default) -> str:
    """A default as it is given on the command line."""
    if default is dataclasses.MISSING:
        return "required"
    if default is None:
        return "None"
    if default in ((), ""):
        return "–"
    return f"`{'yes' if default is True else 'no' if default is False else default}`"


def rows(kind: type, prefix: str) -> tuple[list[Option], list[tuple[type, str]]]:
    """The options of a dataclass itself, and the dataclasses inside it with their prefixes."""
    own, inside = [], []
    hints = typing.get_type_hints(kind, include_extras=True)
    said = texts(kind)
    for field in dataclasses.fields(kind):
        hint, marks = hints[field.name], ()
        given = hint  # with its range
        if typing.get_origin(hint) is typing.Annotated:
            hint, *marks = typing.get_args(hint)
        renamed = next((mark.name for mark in marks if getattr(mark, "name", None) is not None), None)
        name = field.name.replace("_", "-") if renamed is None else renamed
        if dataclasses.is_dataclass(hint):
            inside.append((hint, f"{prefix}{name}." if name else prefix))
            continue
        if tyro.conf.Suppress in marks:
            continue
        positional = tyro.conf.Positional in marks
        text = said.get(field.name, "")
        if tyro.conf.UseAppendAction in marks:
            text = text or "May be given several times."
        own.append(Option(name if positional else f"--{prefix}{name}", values(given), told(field.default), text))
    return own, inside


def flattened(kind: type, prefix: str = "") -> tuple[list[Option], list[tuple[type, str]]]:
    """As `rows`, with what has no title of its own among GROUPS taken into the command's own table."""
    own, inside = rows(kind, prefix)
    groups = []
    for inner, its_prefix in inside:
        if inner.__name__ in GROUPS:
            groups.append((inner, its_prefix))
        else:
            more, further = flattened(inner, its_prefix)
            own, groups = own + more, groups + further
    return own, groups


def table(options: list[Option]) -> list[str]:
    """The options as lines of a Markdown table, and an empty line."""
    cell = lambda text: text.replace("|", "\\|").replace("<", "\\<").replace("*", "\\*")  # noqa: E731
    lines = ["| option | values | default | |", "|---|---|---|---|"]
    return lines + [f"| `{o.name}` | {o.values} | {o.default} | {cell(o.text)} |" for o in options] + [""]


def title(kind: type, prefix: str) -> str:
    """A group's heading; the prefix tells apart one that is told under two."""
    return GROUPS[kind.__name__] + (f" (`--{prefix}…`)" if prefix else "")


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    kept = [c for c in heading.lower() if c.isalnum() or c in " -_"]
    return "".join(kept).replace(" ", "-")


def linked(groups: list[tuple[type, str]]) -> list[str]:
    """A line with a link to each group of options; no line without a group."""
    if not groups:
        return []
    links = [f"[{title(*group)}](#{anchor(title(*group))})" for group in groups]
    return [f"Also: {', '.join(links)}.", ""]


def page() -> str:
    """The whole page: each command with its own options, then each group of options once."""
    lines, seen = [HEAD], []
    for name, (kind, _) in main.COMMANDS.items():
        about = inspect.cleandoc(kind.__doc__).split("\n\n")
        own, groups = flattened(kind)
        lines += [f"## seqkd {name}", ""]
        for paragraph in about:
            lines += [paragraph.replace("<", "\\<").replace("*", "\\*"), ""]
        lines += [*table(own), *linked(groups)]
        seen += [group for group in groups if group not in seen]
    for group in seen:  # grows
        own, groups = flattened(*group)
        lines += [f"## {title(*group)}", "", inspect.cleandoc(group[0].__doc__).split("\n\n")[0], ""]
        lines += [*table(own), *linked(groups)]
        seen += [inner for inner in groups if inner not in seen]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    now = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(now, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != now:
        sys.exit(f"{PAGE.relative_to(ROOT)} is not what the options say: run python docs/command_line.py")
