"""Tables and sections as values: what results say, before `report` writes it as Markdown or HTML.

Cells and texts are plain text; in texts `code` and [links](target) stand as in Markdown.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """Columns and rows of text."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1  # so many of the first columns hold words, the others numbers
    notes: Sequence[str] = ()  # what its headings and marks mean


class Section(NamedTuple):
    """A part of a report; an empty field is left out."""

    title: str = ""
    text: Sequence[str] = ()  # paragraphs
    points: Sequence[str] = ()  # a list
    table: Table | None = None
    images: Sequence[tuple[str, str]] = ()  # (what it shows, path)


class Column(NamedTuple):
    """One column of a table that has a row for each arm."""

    heading: str
    cell: Callable[[dict, dict], str | None]  # (results, one of its arms) -> text; None: this arm has no such number


def mean_and_deviation(values: Sequence[float], write: Callable[[float], str]) -> str:
    """Of one value it is that alone. A deviation has no sign, whatever `write` gives."""
    middle = write(statistics.fmean(values))
    return middle if len(values) == 1 else f"{middle} ± {write(statistics.stdev(values)).removeprefix('+')}"


def of_arms(columns: Iterable[Column], results: dict, arms: Iterable[dict], left: int = 1, notes=()) -> Table:
    """A row for each arm, with the columns that every one of them has a number for."""
    filled = [(column.heading, [column.cell(results, arm) for arm in arms]) for column in columns]
    filled = [(heading, cells) for heading, cells in filled if None not in cells]
    headings, cells = zip(*filled, strict=True)
    return Table(headings, list(zip(*cells, strict=True)), left, notes)
