"""A run's directory -> `Part`: all that the page tells of it. results.json and what stands beside it are read."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from experiments.core import outputs as outputs_of
from experiments.core.charts import Chart
from experiments.core.claims import DEMONSTRATION, is_demonstration
from experiments.core.outputs import Outputs
from experiments.core.tables import Section

if TYPE_CHECKING:
    from experiments.benchmarks.benchmark import Benchmark
    from experiments.core.study import Study


class Part(NamedTuple):
    """One run."""

    title: str  # the study
    name: str  # its data and setting
    results: Mapping
    sections: Sequence[Section]  # tables with their notes
    caption: str = ""  # of a table that has no title; "": its first heading
    about: str = ""
    headline: str = ""  # the main effect
    findings: Sequence[str] = ()
    claims: Sequence[Mapping] = ()
    charts: Sequence[Chart] = ()
    figures: Sequence[tuple[str, str]] = ()  # (what it shows, HTML of the picture)
    outputs: Outputs | None = None
    compared: tuple[str, str] = ("", "")  # the arms whose outputs are shown first


def of_study(study: "Study", results: Mapping, directory: Path) -> Part:
    """What a study's run says. UserError for outputs that are not what results.json names."""
    from experiments.core.plots import svg

    results = dict(results)
    data, setting, effect = study.headline(results)
    charts = {name: draw(results) for name, draw in study.charts.items()}
    others = {name: svg(draw, results) for name, draw in study.plots.items() if name not in charts}
    return Part(
        title=study.title,
        name=", ".join(filter(None, (data, setting))),
        results=results,
        sections=study.sections(results),
        caption=f"All arms. {data}",
        about=study.about,
        headline=effect,
        findings=[*study.findings(results), *([f"{DEMONSTRATION.capitalize()}."] if is_demonstration(results) else [])],
        claims=[claim._asdict() for claim in study.claims(results)],
        charts=[chart for drawn in charts.values() for chart in drawn],
        figures=[(name.replace("_", " ").capitalize(), drawn) for name, drawn in others.items() if drawn],
        outputs=outputs_of.read(directory, results),
        compared=study.compared,
    )


def of_benchmark(benchmark: "Benchmark", results: Mapping, directory: Path) -> Part:
    """What a benchmark measured: its tables, and the plots that stand beside them."""
    from experiments.benchmarks.benchmark import heading

    told = heading(dict(results))
    plots = sorted((directory / "plots").glob("*.png"))
    return Part(
        title=told.title,
        name=results["host_cpu"],
        results=results,
        sections=[told._replace(title=""), *benchmark.sections(dict(results))],
        figures=[(path.stem.replace("_", " ").capitalize(), _image(path)) for path in plots],
    )


def _image(path: Path) -> str:
    """A PNG file inside of the page; the figure around it names it."""
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'
