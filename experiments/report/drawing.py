"""Charts as inline SVG, each twice: for wide pages and for narrow ones; the style shows the one that fits.

A mark is a group with its words as its label, so that a screen reader and the script have the same text.
"""

from collections.abc import Sequence
from typing import NamedTuple

from experiments.core.charts import Axis, Chart, Mark
from experiments.core.tables import Table
from experiments.report import axes
from experiments.report.markup import escape, slug, table

COLOURS = 14  # as many as the style has
SHAPES = (
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",  # a disc
    "M-4.4-4.4h8.8v8.8h-8.8z",  # a square
    "M0-6.2L6.2 0L0 6.2L-6.2 0z",  # a diamond
    "M0-5.8L5.6 4.2H-5.6z",  # triangles
    "M0 5.8L5.6-4.2H-5.6z",
    "M-1.8-5.4h3.6v3.6h3.6v3.6h-3.6v3.6h-3.6v-3.6h-3.6v-3.6h3.6z",  # a cross
    "M0-5.8L5.5-1.8L3.4 4.7H-3.4L-5.5-1.8z",  # a pentagon
)


class Frame(NamedTuple):
    """A drawing's size, and the part of it inside of the axes."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float


def figure(chart: Chart, name: str) -> str:
    """The whole of a chart: what it shows, the drawing, its legend, its numbers. name: for ids."""
    drawn = "\n".join(_svg(chart, kind) for kind in ("wide", "narrow"))
    legend = _legend(chart) if len(chart.series) > 1 else ""
    numbers = f"<details><summary>Numbers</summary>\n{table(_numbers(chart), f'Numbers of: {chart.title}')}</details>"
    return (
        f'<figure class="chart" id="{escape(name)}">\n<figcaption><h4>{escape(chart.title)}</h4>'
        f"<p>{escape(chart.about)}</p></figcaption>\n"
        f'<div class="drawing">\n<div class="canvas">{drawn}</div>\n{legend}</div>\n{numbers}\n</figure>\n'
    )


def _svg(chart: Chart, kind: str) -> str:
    inside = _xy if isinstance(chart.y, Axis) else _rows
    frame, parts = inside(chart, kind == "wide")
    size = f"0 0 {frame.width:g} {frame.height:g}"
    label = escape(f"{chart.title}: move between its marks with the arrow keys")
    return f'<svg class="{kind}" viewBox="{size}" role="group" aria-label="{label}">\n{"".join(parts)}</svg>'


# Numbers against numbers


def _xy(chart: Chart, wide: bool) -> tuple[Frame, list[str]]:
    assert isinstance(chart.y, Axis)
    width, height = (720, 370) if wide else (310, 300)
    frame = Frame(width, height, 50, width - 14, 24, height - 44)
    marks = [mark for series in chart.series for mark in series.marks]
    ends = [end for mark in marks for end in mark.interval or ()]
    across = _scale(chart.x, [mark.x for mark in marks], frame.left, frame.right, 8 if wide else 5)
    heights = [*ends, *(mark.y for mark in marks if isinstance(mark.y, float | int))]
    down = _scale(chart.y, heights, frame.bottom, frame.top, 6)
    parts = [*_across(frame, chart.x, across), *_down(frame, chart.y, down)]
    for place, series in enumerate(chart.series):
        spots = [(across.place(mark.x), down.place(mark.y)) for mark in series.marks if not isinstance(mark.y, str)]
        parts.append(_open(chart, place))
        if series.joined and len(spots) > 1:
            parts.append(f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in spots)}"/>')
        for mark, spot in zip(series.marks, spots, strict=True):
            reach = mark.interval and [(spot[0], down.place(end)) for end in mark.interval]
            parts.append(_mark(mark, spot, reach, _look(chart, place)))
        parts.append("</g>\n")
    return frame, parts


def _down(frame: Frame, axis: Axis, scale: axes.Scale) -> list[str]:
    """The grid and the numbers at the left."""
    parts = [f'<text class="label" x="4" y="13">{escape(axis.label)}</text>\n']
    for tick in scale.ticks:
        y = scale.place(tick)
        parts.append(_line(frame.left, y, frame.right, y, "zero" if axis.zero and tick == 0 else "grid"))
        told = escape(axes.number(tick) + axis.unit)
        parts.append(f'<text class="tick" x="{frame.left - 7:g}" y="{y + 4:.1f}" text-anchor="end">{told}</text>\n')
    return parts


# Rows of numbers


def _rows(chart: Chart, wide: bool) -> tuple[Frame, list[str]]:
    """The names of rows stand at the left, on narrow pages above."""
    assert not isinstance(chart.y, Axis)
    count, several = len(chart.y), len(chart.series)
    row = max(30, 12 + 13 * several) + (0 if wide else 16)
    width = 720 if wide else 310
    left = min(20 + 6.9 * max(map(len, chart.y), default=0), 300) if wide else 12
    frame = Frame(width, 12 + row * count + 44, left, width - 16, 6, 12 + row * count)
    marks = [mark for series in chart.series for mark in series.marks]
    values = [value for mark in marks for value in (mark.x, *(mark.interval or ()))]
    across = _scale(chart.x, values, frame.left, frame.right, 8 if wide else 5)
    parts = _across(frame, chart.x, across)
    middles = {}
    for place, name in enumerate(chart.y):
        top = frame.top + row * place
        middles[name] = top + row / 2 + (0 if wide else 8)
        at = (left - 10, middles[name] + 4, "end") if wide else (2, top + 15, "start")
        parts.append(_line(0, top + row, frame.right, top + row, "rule"))
        parts.append(
            f'<text class="name" x="{at[0]:.1f}" y="{at[1]:.1f}" text-anchor="{at[2]}">{escape(name)}</text>\n'
        )
    for place, series in enumerate(chart.series):
        parts.append(_open(chart, place))
        shift = 13 * (place - (several - 1) / 2)
        for mark in series.marks:
            y = middles[str(mark.y)] + shift
            reach = mark.interval and [(across.place(end), y) for end in mark.interval]
            parts.append(_mark(mark, (across.place(mark.x), y), reach, _look(chart, place)))
        parts.append("</g>\n")
    return frame, parts


# Parts


def _scale(axis: Axis, values: Sequence[float], first: float, last: float, ticks: int) -> axes.Scale:
    return axes.scale(values, first, last, log=axis.log, zero=axis.zero, ticks=ticks)


def _across(frame: Frame, axis: Axis, scale: axes.Scale) -> list[str]:
    """The grid and the numbers at the bottom."""
    parts = []
    for tick in scale.ticks:
        x = scale.place(tick)
        parts.append(_line(x, frame.top, x, frame.bottom, "zero" if axis.zero and tick == 0 else "grid"))
        told = escape(axes.number(tick) + axis.unit)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{frame.bottom + 17:.1f}" text-anchor="middle">{told}</text>\n')
    middle, bottom = (frame.left + frame.right) / 2, frame.bottom + 37
    return [
        *parts,
        f'<text class="label" x="{middle:.1f}" y="{bottom:.1f}" text-anchor="middle">{escape(axis.label)}</text>\n',
    ]


def _open(chart: Chart, place: int) -> str:
    return f'<g class="series s{_look(chart, place) % COLOURS}" data-series="{place}">\n'


def _look(chart: Chart, place: int) -> int:
    """Rows have few series: they leave out the colours of black and grey."""
    given = chart.series[place].look
    return given if given is not None else place if isinstance(chart.y, Axis) else place + 2


def _mark(mark: Mark, spot: tuple[float, float], reach: Sequence[tuple[float, float]] | None, look: int) -> str:
    x, y = spot
    line = _line(*reach[0], *reach[1], "interval") if reach else ""
    kind = "mark hollow" if mark.hollow else "mark"
    return (
        f'{line}<g class="{kind}" role="img" tabindex="-1" aria-label="{escape(mark.text)}" '
        f'transform="translate({x:.1f} {y:.1f})"><circle class="hit" r="11"/>'
        f'<path d="{SHAPES[look % len(SHAPES)]}"/></g>\n'
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>\n'


def _legend(chart: Chart) -> str:
    """Buttons, which hide and show a series."""
    items = ""
    for place, series in enumerate(chart.series):
        look, hollow = _look(chart, place), bool(series.marks) and all(mark.hollow for mark in series.marks)
        items += (
            f'<li><button type="button" class="s{look % COLOURS}" aria-pressed="true" data-series="{place}">'
            f'<svg viewBox="-8 -8 16 16" aria-hidden="true"><g class="mark{" hollow" * hollow}">'
            f'<path d="{SHAPES[look % len(SHAPES)]}"/></g></svg>{escape(series.name)}</button></li>\n'
        )
    return f'<ul class="legend" aria-label="{escape(chart.title)}: shown series">\n{items}</ul>\n'


def _numbers(chart: Chart) -> Table:
    """Every mark as a row."""
    rows, by_row = [], not isinstance(chart.y, Axis)
    for series in chart.series:
        for mark in series.marks:
            reach = "–" if mark.interval is None else f"{mark.interval[0]:,.4g} to {mark.interval[1]:,.4g}"
            y = mark.y if isinstance(mark.y, str) else f"{mark.y:,.4g}"
            rows.append([y, series.name, f"{mark.x:,.4g}", reach] if by_row else [series.name, f"{mark.x:,.6g}", y])
    if by_row:
        return Table(["row", "series", chart.x.label, "interval"], rows, left=2)
    assert isinstance(chart.y, Axis)
    return Table(["series", chart.x.label, chart.y.label], rows)


def anchor(part: str, chart: Chart) -> str:
    """The id of a chart in its part of the page."""
    return f"{part}-{slug(chart.title)}"
