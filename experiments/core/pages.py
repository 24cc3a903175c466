"""The results pages, docs/results/STUDY.md and speed.md, the table of the README, each table.md and one report.html,
all from results.json.

    python -m experiments.core.pages [--check]

A page says what was found, then has the tables, then how they were made and how that differs from the paper. Every
number comes from a results.json under experiments/results; nothing is trained, and plots are linked as they are.
"""

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from experiments.core import claims, report
from experiments.core.study import Study, read, report_sections
from experiments.core.tables import Section
from experiments.report import page as report_page
from experiments.report import parts as report_parts
from seqkd_jax.cli.main import errors_in_one_line
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, progress
from seqkd_jax.utils.exits import exit_status

BENCHMARKS = ("decoding.__main__", "training.__main__", "devices.training", "replicas")  # in the order of their page
STUDIES = ("kim_rush_2016", "abnar_2020")  # whose `study` module has a STUDY; in the order of the README's table
ROOT = Path(__file__).parents[2]
RESULTS, PAGES, README = "experiments/results", "docs/results", "README.md"
REPORTED = f"{RESULTS}/kim_rush_2016/smoke"  # its page to look at is committed: its texts are of the toy language
SENTENCES = 250  # of its test set, in that page
COMMAND = "python -m experiments.core.pages"
START, END = "<!-- generated: results-summary -->", "<!-- end -->"


@dataclass(frozen=True)
class Options:
    """Write docs/results, the README's table of results and each table.md anew from experiments/results."""

    check: bool = False
    """Write nothing; exit with 1, naming them, if some are not what their results.json says."""


class Run(NamedTuple):
    """One results.json."""

    study: Study
    path: Path  # its directory
    results: dict
    claims: Sequence[claims.Claim]

    @property
    def name(self) -> str:
        """Its data and setting."""
        return ", ".join(filter(None, self.study.headline(self.results)[:2]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 some are stale, 2 an error that the user can mend."""
    with errors_in_one_line(COMMAND):
        options = tyro.cli(Options, args=arguments, prog=COMMAND)
    return exit_status(lambda: update(options, ROOT))


def update(options: Options, root: Path) -> int:
    """Write what is stale under root, or name it."""
    wanted = {root / path: text for path, text in written(root).items()}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if options.check:
            print(f"stale: {path.relative_to(root)}; run {COMMAND}", file=sys.stderr)
        else:
            files.write_text(path, wanted[path])
            print(f"written: {path.relative_to(root)}")
    return int(options.check and bool(stale))


def written(root: Path) -> dict[str, str]:
    """Path under root -> text of every file that is generated from results."""
    runs = [run for name in STUDIES for run in committed(study_of(name), root)]
    texts = {
        f"{run.path.relative_to(root)}/table.md": report.to_markdown(report_sections(run.study, run.results))
        for run in runs
    }
    for name in STUDIES:
        texts[f"{PAGES}/{name}.md"] = page([run for run in runs if run.study.name == name], root)
    for run in runs:
        if run.path == root / REPORTED:
            told = report_parts.of_study(run.study, run.results, run.path)
            texts[f"{REPORTED}/report.html"] = report_page.page([told], SENTENCES)
    measured = speeds(root)
    texts |= {f"{one.path.relative_to(root)}/table.md": one.table for one in measured}
    if measured:
        texts[f"{PAGES}/speed.md"] = speed_page(measured, root)
    texts[f"{PAGES}/index.md"] = index(runs, bool(measured))
    readme = (root / README).read_text(encoding="utf-8")
    if START in readme:
        texts[README] = with_summary(readme, runs)
    return texts


def study_of(name: str) -> Study:
    """The study of that package."""
    return importlib.import_module(f"experiments.{name}.study").STUDY


def committed(study: Study, root: Path) -> list[Run]:
    """The committed results of a study: those on toy data first."""
    runs = [
        Run(study, path.parent, results := read(study, path), study.claims(results))
        for path in sorted((root / RESULTS / study.name).glob("*/results.json"))
    ]
    return sorted(runs, key=lambda run: run.results["scale"] != "smoke")


class Speed(NamedTuple):
    """One results.json of a benchmark."""

    path: Path  # its directory
    table: str


def speeds(root: Path) -> list[Speed]:
    """The committed results of the benchmarks. UserError for results that none has written."""
    from experiments.benchmarks import benchmark  # it imports what the studies import

    found, known = [], benchmarks()
    places = list(known)
    for path in sorted((root / RESULTS / "benchmarks").rglob("results.json")):
        results = files.read_json(path)
        name = results.get("study")
        if name not in known:
            raise UserError(f"{path}: is of no benchmark that is here; measure it again, or delete it")
        found.append((places.index(name), Speed(path.parent, benchmark.table(known[name], results))))
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]


def benchmarks() -> dict[str, Any]:
    """The benchmarks by the name that their results.json has, in the order of their page."""
    known = [importlib.import_module(f"experiments.benchmarks.{name}").BENCHMARK for name in BENCHMARKS]
    return {one.name: one for one in known}


# The README and the index


def with_summary(readme: str, runs: Sequence[Run]) -> str:
    """The text with the table between its marks written anew."""
    before, _, rest = readme.partition(START)
    _, end, after = rest.partition(END)
    if not end:
        raise UserError(f"{README}: {START} without {END} after it; put it there")
    return f"{before}{START}\n{summary(runs)}{END}{after}"


def summary(runs: Sequence[Run]) -> str:
    """A row for each results.json; not aligned, so that lines stay short."""
    rows = [
        ["study", "data", "main effect [95% interval]", *claims.VERDICTS],
        ["---", "---", "---", *["---:"] * len(claims.VERDICTS)],
    ]
    for run in runs:
        headline, verdicts = run.study.headline(run.results), [claim.verdict for claim in run.claims]
        counts = [str(verdicts.count(verdict)) for verdict in claims.VERDICTS]
        rows.append([run.study.title, headline.data, headline.effect, *counts])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def index(runs: Sequence[Run], measured: bool) -> str:
    """The page above the studies' pages and, if benchmarks were measured, theirs."""
    pages = {run.study.name: run.study.title for run in runs} | ({"speed": "Speed"} if measured else {})
    return "\n".join(
        [
            f"<!-- written by `{COMMAND}` -->\n\n# Results\n",
            summary(runs),
            "The right columns count claims of the paper by their verdict. Findings, tables, plots and deviations:\n",
            *(f"- [{title}]({name}.md)" for name, title in pages.items()),
            f"\n[The run on the toy language as one page](../../{REPORTED}/report.html), to be downloaded and opened "
            "in a browser: sortable tables, charts, claims, translations side by side. `python -m experiments.report "
            "RUN ...` makes such a page of any results.",
            "\n```{toctree}\n:hidden:\n",
            *pages,
            "```\n",
        ]
    )


# A page


def page(runs: Sequence[Run], root: Path) -> str:
    """What was found, the tables, how, deviations; of all results of a study."""
    study = runs[0].study

    def part(title: str, points: Callable[[Run], list[str]]) -> list[str]:
        sections = [Section(run.name, points=points(run)) for run in runs]
        return [f"## {title}\n", report.to_markdown(sections, level=3)]

    parts = [
        f"<!-- written by `{COMMAND}` from {RESULTS}/{study.name}/*/results.json -->\n",
        f"# {study.title}: results\n",
        report.to_markdown([Section(text=[study.about, "In brackets: 95% intervals."])]),
        *part("What was found", _found),
        *(text for run in runs for text in (f"## {run.name}\n", report.to_markdown(_tables(run, root), level=3))),
        *part("How", lambda run: _how(run, root)),
        *part("Deviations from the paper", lambda run: run.results.get("deviations", run.results.get("notes"))),
    ]
    return "\n".join(parts)


def speed_page(measured: Sequence[Speed], root: Path) -> str:
    """The tables and plots of all benchmarks."""
    parts = [
        f"<!-- written by `{COMMAND}` from {RESULTS}/benchmarks -->\n",
        "# Speed\n\nWhat the benchmarks measured on the machines that their tables name.\n",
    ]
    for one in measured:
        plots = _plots(sorted((one.path / "plots").glob("*.png")), root)
        parts += [one.table, *([report.to_markdown(plots, level=3)] if plots else [])]
        parts.append(f"All numbers: `{(one.path / 'results.json').relative_to(root)}`\n")
    return "\n".join(parts)


def _found(run: Run) -> list[str]:
    """The main effects, then how many claims held, and which did not."""
    failed = [f"{claim.about}: {claim.text}" for claim in run.claims if claim.verdict == claims.FAILED]
    points = [*run.study.findings(run.results), f"{claims.summary(run.claims)}."]
    return [*points, *([f"Not reproduced: {'; '.join(failed)}."] if failed else [])]


def _tables(run: Run, root: Path) -> list[Section]:
    plots = [run.path / "plots" / f"{name}.png" for name in run.study.plots]
    return [*report_sections(run.study, run.results), *_plots([path for path in plots if path.exists()], root)]


def _plots(paths: Sequence[Path], root: Path) -> list[Section]:
    """A section with these plots, for a page; none without plots."""
    shown = [(path.stem.replace("_", " "), os.path.relpath(path, root / PAGES)) for path in paths]
    return [Section("Plots", images=shown)] if shown else []


def _how(run: Run, root: Path) -> list[str]:
    results = run.results
    trained = [arm["training"] for arm in results["arms"] if arm.get("training")]
    commits = dict.fromkeys(commit for training in trained for commit in report.commits_of(training))
    hashes = ", ".join(f"{name} `{digest[:12]}`" for name, digest in results["data"].items())
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    seconds = sum(training.get("seconds", 0) for training in trained)
    return [
        f"command: `{results['command']}`",
        f"commit: {_commits([results['commit']])}" + (f"; training: {_commits(commits)}" if commits else ""),
        f"machine: {results['host_cpu']}; devices: {', '.join(results['devices'])}",
        f"seeds: {', '.join(map(str, _seeds(results['arms'])))}",
        f"training of all arms: {progress.duration(seconds)}; finished {results['finished'][:10]}",
        f"versions: {versions}",
        f"data (SHA-256): {hashes}",
        f"all numbers: `{(run.path / 'results.json').relative_to(root)}`",
    ]


def _commits(commits: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(f"`{report.short_commit({'commit': commit})}`" for commit in commits))


def _seeds(arms: Sequence[dict]) -> list[int]:
    return sorted({seed for arm in arms for seed in arm.get("seeds", [arm.get("seed")])})


if __name__ == "__main__":
    sys.exit(main())
