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
    "#e377c2",
)  # fmt: skip
MARKERS = "sDo^vP<>Xh*"
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid.axis": "x",
    "hatch.linewidth": 0.6,
}


def draw_all(plots: Mapping[str, Callable], results: Any, directory: Path | str, suffix: str = "") -> list[Path]:
    """NAME + suffix + .png for each of `plots`, a function from results to a figure or to None; returns the files.

    None: there is nothing to show, and no file of that name from other results stays.
    """
    paths = []
    for name, draw in plots.items():
        path = Path(directory) / f"{name}{suffix}.png"
        with matplotlib.rc_context(STYLE):
            figure = draw(results)
            if figure is None:
                path.unlink(missing_ok=True)
            else:
                _save(figure, path)
                paths.append(path)
    return paths


def svg(draw: Callable, results: Any) -> str | None:
    """A plot as an SVG element for a page; None if there is nothing to show.

    Its ids are hashes of what they name, so that several plots can stand in one page.
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
    return re.sub(r' id="[a-z_]+\d*(_\d+)?"(?=>)', "", element)  # groups are numbered in every plot alike


def _save(figure, path: Path) -> None:
    """Write a figure and close it; the file names no version of a program, so that equal figures are equal files."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)
    files.write_bytes(path, drawn.getvalue())
