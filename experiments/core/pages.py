"""The results pages, docs/results/STUDY.md and speed.md, the tables of verdicts in README.md and docs/papers.md, each
table.md and one report.html, all from results.json.

    python -m experiments.core.pages [--check]

A page says what was found, then has the tables, then how they were made and how that differs from the paper. Every
number comes from a results.json under experiments/results; nothing is trained, and plots are linked as they are.
"""

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from experiments.core import claims, report
from experiments.core import results as results_of
from experiments.core.results import reading
from experiments.core.study import Headline, Study, read, report_sections
from experiments.core.tables import Section
from experiments.report import page as report_page
from experiments.report import parts as report_parts
from seqkd_jax.cli.main import errors_in_one_line
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, progress
from seqkd_jax.utils.exits import exit_status

# In the order of their page.
BENCHMARKS = ("decoding.__main__", "speculative", "training.__main__", "devices.training", "replicas")
# Their `study` modules have a STUDY; in the order of the README's table.
STUDIES = ("kim_rush_2016", "kim_rush_2016.ablations", "abnar_2020")
ROOT = Path(__file__).parents[2]
RESULTS, PAGES, README, PAPERS = "experiments/results", "docs/results", "README.md", "docs/papers.md"
REPORTED = f"{RESULTS}/kim_rush_2016/smoke"  # its page to look at is committed: its texts are of the toy language
SENTENCES = 250  # of its test set, in that page
COMMAND = "python -m experiments.core.pages"
START, CLAIMS, END = "<!-- generated: results-summary -->", "<!-- generated: claims of {} -->", "<!-- end -->"


@dataclass(frozen=True)
class Options:
    """Write docs/results, each table.md, and the tables of README.md and docs/papers.md anew from the results."""

    check: bool = False
    """Write nothing; exit with 1, naming them, if some are not what their results.json says."""


class Run(NamedTuple):
    """One results.json."""

    study: Study
    path: Path  # its directory
    results: dict
    claims: Sequence[claims.Claim]
    headline: Headline
    findings: Sequence[str]
    sections: Sequence[Section]
    how: Sequence[str]  # what ran

    @property
    def demonstration(self) -> bool:
        """Whether its verdicts do not count."""
        return claims.is_demonstration(self.results)

    @property
    def name(self) -> str:
        """Its data and setting."""
        return ", ".join(filter(None, self.headline[:2]))


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
    texts = {f"{run.path.relative_to(root)}/table.md": report.to_markdown(run.sections) for run in runs}
    for name in dict.fromkeys(run.study.name for run in runs):
        texts[f"{PAGES}/{name}.md"] = page([run for run in runs if run.study.name == name], root)
    for run in runs:
        if run.path == root / REPORTED:
            with reading(run.path / results_of.NAME):
                told = report_parts.of_study(run.study, run.results, run.path)
                texts[f"{REPORTED}/report.html"] = report_page.page([told], SENTENCES)
    measured = speeds(root)
    texts |= {f"{one.path.relative_to(root)}/table.md": one.table for one in measured}
    if measured:
        texts[f"{PAGES}/speed.md"] = speed_page(measured, root)
    texts[f"{PAGES}/index.md"] = index(runs, bool(measured))
    for path, tables in ((README, {START: summary(runs)}), (PAPERS, by_study(runs))):
        text = (root / path).read_text(encoding="utf-8") if (root / path).exists() else ""
        if any(start in text for start in tables):
            texts[path] = with_tables(text, tables, path)
    return texts


def study_of(name: str) -> Study:
    """The study of that package."""
    return importlib.import_module(f"experiments.{name}.study").STUDY


def committed(study: Study, root: Path) -> list[Run]:
    """The committed results of a study: those on toy data first."""
    runs = []
    for path in sorted((root / RESULTS / study.name).glob(f"*/{results_of.NAME}")):
        results = read(study, path)
        with reading(path):
            told = study.claims(results), study.headline(results), study.findings(results)
            how = _how(results, path.relative_to(root))
            runs.append(Run(study, path.parent, results, *told, report_sections(study, results), how))
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
    for path in sorted((root / RESULTS / "benchmarks").rglob(results_of.NAME)):
        name, results = results_of.named(path)
        if name not in known:
            raise UserError(f"{path}: is of no benchmark that is here; measure it again, or delete it")
        with reading(path):
            found.append((places.index(name), Speed(path.parent, benchmark.table(known[name], results))))
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]


def benchmarks() -> dict[str, Any]:
    """The benchmarks by the name that their results.json has, in the order of their page."""
    known = [importlib.import_module(f"experiments.benchmarks.{name}").BENCHMARK for name in BENCHMARKS]
    return {one.name: one for one in known}


# The README, the page of the papers and the index


def with_tables(text: str, tables: Mapping[str, str], path: str) -> str:
    """The text with what stands between each mark and the END after it written anew."""
    for start, table in tables.items():
        before, found, rest = text.partition(start)
        _, end, after = rest.partition(END)
        if found and not end:
            raise UserError(f"{path}: {start} without {END} after it; put it there")
        text = f"{before}{start}\n{table}{END}{after}" if found else text
    return text


def summary(runs: Sequence[Run]) -> str:
    """A row for each results.json; not aligned, so that lines stay short. A demonstration's verdicts do not count."""
    rows = [
        ["study", "data", "main effect [95% interval]", *claims.VERDICTS],
        ["---", "---", "---", *["---:"] * len(claims.VERDICTS)],
    ]
    for run in runs:
        verdicts = [claim.verdict for claim in run.claims]
        counts = [str(verdicts.count(verdict)) for verdict in claims.VERDICTS]
        if run.demonstration:
            counts = ["demo", *["–"] * (len(counts) - 1)]
        rows.append([run.study.title, run.headline.data, run.headline.effect, *counts])
    return _compact(rows)


def by_study(runs: Sequence[Run]) -> dict[str, str]:
    """Mark -> each claim of a study with its verdict in every one of its results."""
    return {CLAIMS.format(name): _verdicts([run for run in runs if run.study.name == name]) for name in STUDIES}


def _verdicts(runs: Sequence[Run]) -> str:
    """Rows by text; where results have a claim of several models, the verdict of each."""
    heads = [run.headline.data + ", a demonstration" * run.demonstration for run in runs]
    texts = dict.fromkeys(claim.text for run in runs for claim in run.claims)
    rows = [["claim", *heads], ["---"] * (len(runs) + 1)]
    for text in texts:
        found = [[claim.verdict for claim in run.claims if claim.text == text] for run in runs]
        rows.append([text, *(", ".join(verdicts) or "–" for verdicts in found)])
    return _compact(rows)


def _compact(rows: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(map(report.cell, row))} |\n" for row in rows)


def index(runs: Sequence[Run], measured: bool) -> str:
    """The page above the studies' pages and, if benchmarks were measured, theirs."""
    pages = {run.study.name: run.study.title for run in runs} | ({"speed": "Speed"} if measured else {})
    return "\n".join(
        [
            f"<!-- written by `{COMMAND}` -->\n\n# Results\n",
            summary(runs),
            "The right columns count claims of the paper by their verdict, but for those of a demonstration (demo). "
            "Findings, tables, plots and deviations:\n",
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

INTERVALS = (
    "[ ]: 95% intervals, over seeds, and over test examples too where those are known. ( ): over test examples alone, "
    "of a single seed, which says nothing of another training."
)


def page(runs: Sequence[Run], root: Path) -> str:
    """What was found, the tables, how, deviations; of all results of a study."""
    study = runs[0].study

    def part(title: str, points: Callable[[Run], Sequence[str]]) -> list[str]:
        sections = [Section(run.name, points=points(run)) for run in runs]
        return [f"## {title}\n", report.to_markdown(sections, level=3)]

    parts = [
        f"<!-- written by `{COMMAND}` from {RESULTS}/{study.name}/*/results.json -->\n",
        f"# {study.title}: results\n",
        report.to_markdown([Section(text=[study.about, INTERVALS])]),
        *part("What was found", _found),
        *(text for run in runs for text in (f"## {run.name}\n", report.to_markdown(_tables(run, root), level=3))),
        *part("How", lambda run: run.how),
        *part("Deviations from the paper", lambda run: run.results.get("deviations", run.results.get("notes", []))),
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
    against = [f"{claim.about}: {claim.text}" for claim in run.claims if claim.verdict == claims.CONTRADICTED]
    told = f"{claims.DEMONSTRATION}: " if run.demonstration else ""
    points = [*run.findings, f"{told}{claims.summary(run.claims)}."]
    return [*points, *([f"Contradicted: {'; '.join(against)}."] if against else [])]


def _tables(run: Run, root: Path) -> list[Section]:
    plots = [run.path / "plots" / f"{name}.png" for name in run.study.plots]
    return [*run.sections, *_plots([path for path in plots if path.exists()], root)]


def _plots(paths: Sequence[Path], root: Path) -> list[Section]:
    """A section with these plots, for a page; none without plots."""
    shown = [(path.stem.replace("_", " "), os.path.relpath(path, root / PAGES)) for path in paths]
    return [Section("Plots", images=shown)] if shown else []


def _how(results: dict, path: Path) -> list[str]:
    """What ran. path: of the results, as it is told."""
    trained = [arm["training"] for arm in results["arms"] if arm.get("training")]
    commits = dict.fromkeys(commit for training in trained for commit in report.commits_of(training))
    hashes = ", ".join(f"{name} `{digest[:12]}`" for name, digest in results["data"].items())
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    once = {files.json_line(training): training for training in trained}  # lines of an ablation may be one run
    seconds = sum(training.get("seconds", 0) for training in once.values())
    return [
        f"command: {report.code(results['command'])}",
        f"commit: {_commits([results['commit']])}" + (f"; training: {_commits(commits)}" if commits else ""),
        f"machine: {results['host_cpu']}; devices: {', '.join(results['devices'])}",
        f"seeds: {', '.join(map(str, _seeds(results['arms'])))}",
        f"training of all arms: {progress.duration(seconds)}; finished {results['finished'][:10]}",
        f"versions: {versions}",
        f"data (SHA-256): {hashes}",
        f"all numbers: `{path}`",
    ]


def _commits(commits: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(f"`{report.short_commit({'commit': commit})}`" for commit in commits))


def _seeds(arms: Sequence[dict]) -> list[int]:
    return sorted({seed for arm in arms for seed in arm.get("seeds", [arm.get("seed")])})


if __name__ == "__main__":
    sys.exit(main())
