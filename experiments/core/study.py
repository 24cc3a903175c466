"""The one runner of studies: a `Study` is a value, and `main(study)` is its command, `python -m experiments.NAME`.

    options -> scales -> for each: its arms, made in stages -> results.json -> claims, table.md, report.html, plots

Options hold --scale, --data, --out, --only, --dry-run and --render; a study may add its own. Stopped and started again,
a command continues where it was, since stages are files (`stages`). Several processes (--coordinator, --processes,
--process) train and decode together; all else is process 0's. What a study has to say about a results.json (`claims`,
`sections`, `plots`, `headline`, `findings`) is read off that file alone, so --render and `pages` write it anew without
a checkpoint.

A study's scales and arms are of its own types. Of a scale the runner reads

    name            as it stands in results.json
    toy             sizes of the data that is made here; None: --data leads to the data
    files           what --data leads to, in words
    deviations      from the paper, a sentence each
    max_compilations  more are a failure; 0: no limit

and of an arm, which is hashable, `label` (in tables), `key` (in names of files and logs) and `names` (those that --only
knows; the first is shown to the user).
"""

import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import tyro

from experiments.core import claims, dry_run, report, stages
from experiments.core import results as results_of
from experiments.core.charts import Chart
from experiments.core.tables import Section
from seqkd_jax import distributed
from seqkd_jax.cli.main import errors_in_one_line
from seqkd_jax.cli.options import Flat, Processes
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, program_cache, programs, progress
from seqkd_jax.utils.exits import exit_status

PAGE = "report.html"  # in the directory of a run


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every study's command takes."""

    scale: str = "smoke"
    """How large: smoke takes minutes on two cores."""
    data: Path | None = None
    """The data of a scale that is not on toy data."""
    out: Path | None = None
    """Where results go (default: runs/STUDY/SCALE)."""
    stages: Path | None = None
    """Where the stages are (default: OUT/stages); runs that share the directory make nothing twice."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ARM ...")] = ()
    """Make only these arms, and those that they learn from; arms that were made before are reported, too."""
    several: Annotated[Processes, Flat] = Processes()
    dry_run: bool = False
    """Print parameters, updates, memory and FLOPs; train nothing."""
    render: Path | None = None
    """A directory with results.json: write its verdicts, table and plots anew; train nothing and read nothing else."""


class Workspace(NamedTuple):
    """A scale, its data and where its stages are: what each stage is a function of."""

    scale: Any
    data: Any  # what `Study.load` gave
    root: Path
    make: bool = True  # False: only look up what is there; NotMade if it is not

    def stage(self, name: str, settings: Any, inputs: Mapping[str, Path], make: Callable, **options: Any) -> Path:
        """One stage, as `stages.stage` makes it."""
        return stages.stage(name, settings, inputs, make if self.make else None, self.root, **options)


class Study(NamedTuple):
    """A paper's experiments. `results` is the dict of results.json; its `arms` is a list with a dict for each arm."""

    name: str  # of its package, and in results.json
    title: str  # authors and year
    about: str  # the paper and the names of its arms, a paragraph for the results page
    options: type[Options]
    # Made
    scales: Callable[[Any], Mapping[str, Any]]  # options -> name of the output directory -> scale; UserError
    load: Callable[[Any, Path | None], Any]  # (scale, --data) -> the data, as Workspace has it
    size: Callable[[Workspace], str]  # -> how many examples each split has, and of what
    arms: Callable[[Any], Sequence[Any]]  # scale -> its arms, in the order of the table
    needs: Callable[[Any, Any], Iterable[Any]]  # (scale, arm) -> the arms that it learns from or starts from
    evaluate: Callable[[Workspace, Any], Any]  # (workspace, arm) -> what collect needs; asks for every stage of the arm
    # (workspace, arm -> what evaluate gave, OUT) -> `arms`, `data` (what -> SHA-256) and what else results.json has
    collect: Callable[[Workspace, Mapping[Any, Any], Path], dict]
    plan: Callable[[Any, Any], dry_run.Plan]  # (scale, arm) -> what a dry run must know of its training
    # Read off results.json
    required: Sequence[str]  # what each of results["arms"] has
    claims: Callable[[dict], list[claims.Claim]]
    sections: Callable[[dict], list[Section]]  # tables with their notes, without the claims
    plots: Mapping[str, Callable[[dict], Any]]  # name -> a figure, or None
    headline: Callable[[dict], "Headline"]
    findings: Callable[[dict], Sequence[str]]  # the main effects in plain words, a sentence each
    # On the page to look at (`experiments.report`)
    charts: Mapping[str, Callable[[dict], Sequence[Chart]]] = MappingProxyType({})  # in the place of plots of that name
    compared: tuple[str, str] = ("", "")  # the arms whose outputs are shown first, side by side
    shares: str = ""  # the study in whose default directory its stages are, if no directory is named
    # Beside training
    further: Callable[[Any, Sequence[Any]], Sequence[tuple[str, float]]] = lambda scale, arms: ()  # for a dry run
    samples: Callable[[Workspace, Mapping[Any, Any]], str] = lambda workspace, evaluated: ""  # for the screen


class Headline(NamedTuple):
    """Results in a line of the README's table; a study's results differ in data or setting."""

    data: str
    setting: str  # models, how long; shown on the page only
    effect: str  # of teaching against the student alone, with its interval; at most about 50 characters


def main(study: Study, arguments: Sequence[str] | None = None) -> int:
    """Run a study's command. Exit status: 0 done, 1 too many programs, 2 an error that the user can mend."""
    program = f"python -m experiments.{study.name}"
    with errors_in_one_line(program):
        options = tyro.cli(study.options, args=arguments, prog=program)

    def run() -> int:
        if options.render:
            return render(study, options.render)
        named = study.scales(options)
        select([arm for scale in named.values() for arm in study.arms(scale)], options.only)  # before hours of work
        same = {name: str(value) for name, value in vars(options).items() if name != "several"}
        with distributed.joined(**vars(options.several), command=same):
            return max([_run(study, options, name, scale, len(named) > 1) for name, scale in named.items()])

    status = exit_status(run, interrupted="interrupted; the same command continues from here")
    distributed.leave(status)
    return status


def _run(study: Study, options: Options, name: str, scale: Any, several: bool) -> int:
    """One scale. several: it is one of several of the command, so that it may have none of the arms of --only."""
    arms = study.arms(scale)
    only = [one for one in options.only if any(one in arm.names for arm in arms)]
    if options.only and not only:
        progress.log(f"{name}: has none of the arms of --only")
        return 0
    asked = _needed(study, scale, select(arms, only))
    if options.dry_run:
        distributed.by_first(lambda: print(describe(study, scale, asked)))
        return 0
    _check_data(scale, options.data)
    programs.count()
    program_cache.keep()
    started, before = time.monotonic(), len(programs.built())
    base = options.out or Path("runs") / study.name
    out = base / name if options.out is None or several else base
    of_stages = Path("runs") / study.shares / name if study.shares and options.out is None else out
    workspace = Workspace(scale, study.load(scale, options.data), options.stages or of_stages / "stages")
    progress.log(f"corpus {options.data or 'toy data'}: {study.size(workspace)}")
    progress.log(f"{len(asked)} training runs with their evaluation; --dry-run tells what they take")
    evaluated = evaluate_arms(study, workspace, arms, asked)

    def finish() -> int:
        command = stages.provenance()["command"]
        if several:
            command = naming(command, "--scale", [scale.name])
        if several or set(evaluated) != set(asked):
            command = naming(command, "--only", _asking_for(study, scale, evaluated))
        _report(study, workspace, evaluated, out, command)
        return _count(scale.max_compilations, time.monotonic() - started, programs.built()[before:])

    return distributed.by_first(finish)


def _report(study: Study, workspace: Workspace, evaluated: Mapping[Any, Any], out: Path, command: str) -> None:
    """Write what the study came to, and print it.

    command: what makes these arms of this scale, also those that earlier commands have made.
    """
    scale, collected = workspace.scale, study.collect(workspace, evaluated, out)
    ran = report.what_ran(collected.pop("data")) | {"command": command}
    results = {"study": study.name, "scale": scale.name, **ran, **collected}
    results["deviations"] = list(scale.deviations)
    told = _told(study, out, results)
    _write(told, out, results)
    print(study.samples(workspace, evaluated))
    print(told.table)
    print("".join(f"- not as in the paper: {deviation}\n" for deviation in scale.deviations), end="")
    against = sum(claim["verdict"] == claims.CONTRADICTED for claim in results["claims"])
    if against and not claims.is_demonstration(results):
        print(f"warning: {against} claim(s) of the paper are contradicted by this run", file=sys.stderr)
    print(f"\nresults, table and plots: {out}\na page to look at: {out / PAGE}")


def describe(study: Study, scale: Any, arms: Sequence[Any]) -> str:
    """The dry run of these arms as Markdown."""
    import jax

    plan = lambda arm: study.plan(scale, arm)  # noqa: E731
    parts = dry_run.sections(arms, plan, study.further(scale, arms), jax.local_device_count())
    return report.to_markdown([Section(f"{study.title}: {scale}"), *parts, Section(points=scale.deviations)])


def select(arms: Sequence[Any], names: Sequence[str]) -> list[Any]:
    """The arms of these names in the order of the table; all if none is named; UserError for one not there."""
    for name in names:
        if not any(name in arm.names for arm in arms):
            there = dict.fromkeys(arm.names[0] for arm in arms)
            raise UserError(f"--only {name}: no arm of this scale has that name; there are {', '.join(there)}")
    return [arm for arm in arms if not names or set(names) & set(arm.names)]


def _needed(study: Study, scale: Any, asked: Iterable[Any]) -> list[Any]:
    """These arms and those that they need, in the order of the table."""
    needed, rest = set(), list(asked)
    while rest:
        arm = rest.pop()
        if arm not in needed:
            needed.add(arm)
            rest += study.needs(scale, arm)
    return [arm for arm in study.arms(scale) if arm in needed]


def _asking_for(study: Study, scale: Any, reported: Collection[Any]) -> list[str]:
    """What --only has to name so that just these arms are made; nothing if they are all."""
    if set(reported) == set(study.arms(scale)):
        return []
    implied = {needed for arm in reported for needed in _needed(study, scale, [arm]) if needed != arm}
    return [arm.key for arm in reported if arm not in implied]


def naming(command: str, option: str, values: Sequence[str]) -> str:
    """The command with these values of an option, in the place of those that it has."""
    words, kept = shlex.split(command), []
    while words:
        word = words.pop(0)
        if word == option:
            while words and not words[0].startswith("-"):
                words.pop(0)
        elif not word.startswith(f"{option}="):
            kept.append(word)
    return shlex.join([*kept, *([option, *values] if values else [])])


def _check_data(scale: Any, data: Path | None) -> None:
    if scale.toy and data:
        raise UserError(f"--data: scale {scale.name} is on toy data; leave it out or name another --scale")
    if not scale.toy and data is None:
        raise UserError(f"--scale {scale.name} needs --data: {scale.files}")
    if data is not None and not data.exists():
        raise UserError(f"--data {data}: no such file or directory; it must lead to {scale.files}")


def evaluate_arms(study: Study, workspace: Workspace, arms: Sequence[Any], asked: Sequence[Any]) -> dict:
    """Arm -> study.evaluate, of those that are asked for or were made before; the others are told by their key.

    Those that are asked for come first: by the time that they are made, another process may have made the others.
    """
    evaluated = {}
    for arm in sorted(arms, key=lambda arm: arm not in asked):
        try:
            evaluated[arm] = study.evaluate(workspace._replace(make=arm in asked), arm)
        except stages.NotMade:
            progress.log(f"[{arm.key}] left out: not among --only, and not made before")
    return {arm: evaluated[arm] for arm in arms if arm in evaluated}


class _Told(NamedTuple):
    """What is read off results, before anything of it is written."""

    table: str
    page: str
    plots: Mapping[str, bytes | None]


def _told(study: Study, out: Path, results: dict) -> _Told:
    """Of results, which get their claims. out: where their outputs are."""
    from experiments.core.plots import drawn
    from experiments.report import page, parts

    results["claims"] = [claim._asdict() for claim in study.claims(results)]
    results_of.check(results, out / results_of.NAME, study.required)
    table = report.to_markdown(report_sections(study, results))
    return _Told(table, page.page([parts.of_study(study, results, out)]), drawn(study.plots, results))


def _write(told: _Told, out: Path, results: dict) -> None:
    """results.json, table.md, report.html and plots/."""
    from experiments.core import plots

    files.write_json(out / results_of.NAME, results)
    files.write_text(out / "table.md", told.table)
    plots.write(told.plots, out / "plots")
    files.write_text(out / PAGE, told.page)


def report_sections(study: Study, results: dict) -> list[Section]:
    """The study's tables, then the claims of its paper."""
    return [*study.sections(results), claims.section(study.claims(results), claims.is_demonstration(results))]


def read(study: Study, path: Path) -> dict:
    """A results.json of this study; UserError for what is none."""
    return results_of.read(path, study.name, study.required)


def render(study: Study, directory: Path) -> int:
    """Verdicts, tables and plots anew from results.json: after claims or plots were changed, or of somebody else.

    UserError, and nothing is written, for results that do not give all of them.
    """
    path = directory / results_of.NAME
    results = read(study, path) | {"rendered": stages.commit()}
    with results_of.reading(path):
        told = _told(study, directory, results)
    _write(told, directory, results)
    print(f"{directory}: table.md, report.html, plots and {len(results['claims'])} verdicts written anew")
    return 0


def _count(most: int, seconds: float, built: list[programs.Program]) -> int:
    """Print which programs were built, compiled now or kept from before; too many are a failure."""
    names = ", ".join(f"{program.name} {program.seconds:.1f}s" for program in built)
    limit = f" (at most {most} programs)" if most else ""
    print(f"{progress.duration(seconds)}; {programs.summary(built)}{limit}: {names}")
    if most and len(built) > most:
        print("error: too many programs: what should be shared differs in a shape or setting", file=sys.stderr)
        return 1
    return 0
