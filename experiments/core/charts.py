"""Charts as values: what results show in a picture, before `experiments.report` draws it.

Texts are plain text.
"""

from collections.abc import Sequence
from typing import NamedTuple

Interval = tuple[float, float] | None  # its ends


class Axis(NamedTuple):
    """A numeric axis."""

    label: str
    log: bool = False
    zero: bool = False  # zero is on it, with a line
    unit: str = ""  # after each number


class Mark(NamedTuple):
    """One measured value."""

    x: float
    y: float | str  # a number, or the name of a row
    text: str  # what it says, in words: read out, and shown to who points at it
    interval: Interval = None  # of y; of x where y is a row
    hollow: bool = False


class Series(NamedTuple):
    """Marks of one colour and shape, which the legend names. What is shown in several charts has one look."""

    name: str
    marks: Sequence[Mark]
    joined: bool = False  # by a line, in the order in which they stand
    look: int | None = None  # its colour and shape; None: by its place in the chart


class Chart(NamedTuple):
    """Numbers against numbers, or rows of numbers."""

    title: str
    about: str  # what it shows and how to read it, a sentence or two
    x: Axis
    y: Axis | Sequence[str]  # names of rows, the first at the top
    series: Sequence[Series]
