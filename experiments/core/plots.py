"""How every plot is drawn and written, as a PNG file: the same results give the same bytes. No window is opened."""

import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  (after the choice of the backend)

from seqkd_jax.utils import files  # noqa: E402

# As many as a study has arms, like the markers.
COLOURS = (
    "#000000", "#777777", "#1f77b4", "#17becf", "#d62728", "#7fbf3f", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b",
    "#e377c2", "#bcbd22", "#393b79", "#e7969c",
)  # fmt: skip
MARKERS = "sDo^vP<>Xh*pd8"
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid.axis": "x",
    "hatch.linewidth": 0.6,
}


def drawn(plots: Mapping[str, Callable], results: Any, suffix: str = "") -> dict[str, bytes | None]:
    """NAME + suffix + .png -> what the file holds, for each of `plots`, a function from results to a figure or to None:
    there is nothing to show."""
    found: dict[str, bytes | None] = {}
    for name, draw in plots.items():
        with matplotlib.rc_context(STYLE):
            figure = draw(results)
            found[f"{name}{suffix}.png"] = None if figure is None else _png(figure)
    return found


def write(plots: Mapping[str, bytes | None], directory: Path | str) -> list[Path]:
    """What `drawn` gave as files, whose paths are returned; of what is not shown none from other results stays."""
    paths = {Path(directory) / name: content for name, content in plots.items()}
    for path, content in paths.items():
        if content is None:
            path.unlink(missing_ok=True)
        else:
            files.write_bytes(path, content)
    return [path for path, content in paths.items() if content is not None]


def svg(draw: Callable, results: Any) -> str | None:
    """A plot as an SVG element for a page; None if there is nothing to show.

    Its ids are hashes of what they name: a page of several plots has to make them different.
    """
    with matplotlib.rc_context({**STYLE, "svg.fonttype": "none", "svg.hashsalt": "seqkd_jax"}):
        figure = draw(results)
        if figure is None:
            return None
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", bbox_inches="tight", metadata={"Date": None})
        pyplot.close(figure)
    element = drawn.getvalue()
    element = re.sub(r"<metadata>.*?</metadata>", "", element[element.index("<svg") :], flags=re.DOTALL)
    return re.sub(r'<g id="[^"]*"', "<g", element)  # groups are numbered in every plot alike, and nothing leads to them


def _png(figure) -> bytes:
    """A figure, which is closed; the file names no version of a program, so that equal figures are equal files."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)
    return drawn.getvalue()
