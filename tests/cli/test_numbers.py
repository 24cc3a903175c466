"""Every numeric option of every command with numbers it may not have: refused in one line that names it, or taken.

The options are found in the dataclasses of the commands; a new one is tried without being listed here. Commands are not
run: what they are given is read, checked, and stopped.
"""

import dataclasses
import functools
import math
import subprocess
import sys
import types
from typing import Annotated, NamedTuple, Union, get_args, get_origin

import pytest

from seqkd_jax.cli import checks, main
from seqkd_jax.types import UserError
from seqkd_jax.utils import settings

VALUES = {
    int: (-1, 0, 10**30, -(10**30)),
    float: (math.nan, math.inf, -math.inf, -1.0, 0.0, 1e30, -1e30, 1e308, 10**30),
}
ARGUMENTS = {
    "train": ["--out", "o"],
    "translate": ["--checkpoint", "c"],
    "distill": ["--checkpoint", "c", "--out", "o"],
    "evaluate": ["--checkpoint", "c"],
    "score": ["--checkpoint", "c", "--source", "s", "--target", "t"],
    "modes": ["--checkpoint", "c"],
    "select": ["c", "--replica", "0", "--out", "o"],
    "prune": ["c", "--out", "o"],
    "export": ["c", "--out", "o"],
    "vocab": ["--out", "o"],
}


class Number(NamedTuple):
    """A numeric option: the fields that lead to it, whether it is one of a list, int or float, and its range."""

    fields: tuple
    option: str
    several: bool
    kind: type
    limits: settings.Range | None


def numbers(kind, fields=(), inside=""):
    """Every number in a command's dataclass and those inside of it."""
    for field in settings.fields(kind):
        hint, limits, several = field.hint, field.range, False
        where, name = (*fields, field.name), f"{inside}{field.shown}"
        if get_origin(hint) in (Union, types.UnionType):
            hint = get_args(hint)[0]
        if get_origin(hint) is tuple:
            hint, several = get_args(hint)[0], True
        if get_origin(hint) is Annotated:
            hint, *notes = get_args(hint)
            limits = next((note for note in notes if isinstance(note, settings.Range)), limits)
        if dataclasses.is_dataclass(hint):
            yield from numbers(hint, where, f"{name}." if field.shown else inside)
        elif hint in (int, float):
            yield Number(where, checks.option(name), several, hint, limits)


OPTIONS = [(command, number) for command, (kind, _) in main.COMMANDS.items() for number in numbers(kind)]


def inside(value, limits):
    """Whether a number is in a range, judged without the code that is tested."""
    low = value > limits.least if limits.above else value >= limits.least
    high = value < limits.most if limits.below else value <= limits.most
    return bool(low and high) or (limits.or_zero and value == 0)


def with_value(settings_, fields, value):
    """The dataclass with another value in a field of a field of it."""
    first, *rest = fields
    new = with_value(getattr(settings_, first), rest, value) if rest else value
    return dataclasses.replace(settings_, **{first: new})


@functools.cache
def defaults(command):
    return main._parse([command, *ARGUMENTS[command]], "seqkd")


def names(command_and_number):
    return getattr(command_and_number, "option", command_and_number)


@pytest.mark.parametrize(("command", "number"), OPTIONS, ids=names)
def test_a_number_is_refused_by_name_or_taken(command, number):
    assert number.limits is not None, f"{number.option} of {command} has no Range: give it one where its field is"
    for value in VALUES[number.kind]:
        changed = with_value(defaults(command), number.fields, (value,) if number.several else value)
        message = ""
        try:
            settings.check(changed, checks.option)
        except UserError as error:
            message = str(error)
        about = f"{command} {number.option} {value} is answered by {message!r}; its range is {number.limits}"
        ours = message.startswith(f"{number.option} is {value!r}: it must be a ")
        assert ours != inside(value, number.limits), about
        assert math.isfinite(value) and abs(value) < 1e30 or ours, f"{about}: a bound is missing"


@pytest.mark.parametrize("command", ARGUMENTS)
def test_what_is_given_on_the_command_line_reaches_the_check(command, capfd):
    """Each option once, through the whole of `main`; the answer is one line that names it."""
    for _, number in (one for one in OPTIONS if one[0] == command):
        wrong = str(10**30) if number.kind is int else "nan"
        given = [command, *ARGUMENTS[command], f"{number.option}={wrong}"]
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main.main(given)
        said = capfd.readouterr().err
        assert ended.value.code == 2 and len(said.splitlines()) == 1, f"seqkd {' '.join(given)}: {said}"
        assert said.startswith(f"seqkd: error: {number.option} is {wrong}: it must be a "), said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["train", "--out", "o", "--lstm.layers", str(10**30)], "--lstm.layers is 1000000000"),
        (["translate", "--checkpoint", "c", "--beam", "nan"], "--beam: 'nan' is not a whole number"),
        (["evaluate", "--checkpoint", "c", "--max-length-a=-inf"], "--max-length-a is -inf"),
    ],
)
def test_the_program_answers_at_once(given, said):
    done = subprocess.run(
        [sys.executable, "-m", "seqkd_jax", *given], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and said in done.stderr, done.stderr
