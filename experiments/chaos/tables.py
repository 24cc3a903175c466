"""results.json of the kills: what it holds, and its tables."""

from collections import Counter
from collections.abc import Mapping, Sequence

from experiments.chaos import lives
from experiments.chaos.kills import FULL, KILL, TERM
from experiments.chaos.lives import Bench
from experiments.core import report
from experiments.core.tables import Section, Table
from seqkd_jax.utils import files, progress

ACTIONS = (KILL, TERM, FULL)


def collect(bench: Bench) -> dict:
    """One of results.json's `experiments`."""
    experiment, found = bench.experiment, lives.over(bench)
    kills = [kill for life in found for kill in life["kills"]]
    return {
        "name": experiment.name,
        "devices": experiment.devices,
        "processes": experiment.processes,
        "lives": len(found),
        "kills": len(kills),
        "by": {action: sum(kill["action"] == action for kill in kills) for action in experiment.actions},
        "of_one_of_several": sum(kill["of"] < experiment.processes for kill in kills),
        "resumes": sum(kill["started"] for kill in kills),
        "phases": dict(sorted(Counter(kill["phase"] for kill in kills).items())),
        "sha256": files.sha256_json(lives.reference(bench)["content"]),
        "equal": sum("fault" not in life for life in found),
        "faults": [life["fault"] for life in found if "fault" in life],
        "seconds": round(sum(life["seconds"] for life in found), 1),
    }


def total(found: Sequence[Mapping], key: str) -> int:
    """Over all experiments."""
    return sum(experiment[key] for experiment in found)


def sections(results: dict) -> list[Section]:
    """The tables: of the experiments, and of what the processes did when they were killed."""
    found = results["experiments"]
    return [_heading(results), Section(table=_experiments(found)), Section("When", table=_phases(found))]


def _heading(results: dict) -> Section:
    found, settings = results["experiments"], results["settings"]
    same = total(found, "equal") == total(found, "lives")
    kills, resumes, ended = (f"{total(found, key):,}" for key in ("kills", "resumes", "lives"))
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    points = [
        f"{kills} kills, {resumes} processes started again, {ended} runs brought to their end: "
        + ("each has the result of a run that was left alone" if same else "NOT all have the result of one left alone"),
        f"`{results['command']}`, commit {report.short_commit(results)}, seed {settings['seed']}",
        f"{results['host_cpu']}; {progress.duration(total(found, 'seconds'))} of runs, {settings['jobs']} at a time",
        versions,
    ]
    return Section("Kills", points=[*points, *results["left_out"]])


def _experiments(found: Sequence[Mapping]) -> Table:
    rows = [
        [
            experiment["name"],
            *(f"{experiment['by'].get(action, 0):,}" for action in ACTIONS),
            f"{experiment['of_one_of_several']:,}",
            f"{experiment['resumes']:,}",
            f"{experiment['lives']:,}",
            f"{experiment['equal']:,}",
            f"`{experiment['sha256'][:12]}`",
        ]
        for experiment in found
    ]
    columns = ["experiment", *ACTIONS, "one of several", "started again", "runs", "equal", "SHA-256"]
    notes = [
        "equal: runs whose files, names and contents, are those of a run that was left alone; SHA-256: of these "
        "contents, without times",
        "one of several: kills that left other processes of the same run alive",
        f"{FULL}: no block was free until the process had ended",
    ]
    return Table(columns, rows, notes=notes)


def _phases(found: Sequence[Mapping]) -> Table:
    kinds = dict.fromkeys(experiment["name"].partition(",")[0] for experiment in found)
    counts = {kind: Counter() for kind in kinds}
    for experiment in found:
        counts[experiment["name"].partition(",")[0]].update(experiment["phases"])
    names = sorted({phase for of in counts.values() for phase in of})
    rows = [[name, *(f"{counts[kind][name]:,}" if counts[kind][name] else "–" for kind in kinds)] for name in names]
    return Table(["killed while", *kinds], rows, notes=["as the names tell that were on the disk just then"])
