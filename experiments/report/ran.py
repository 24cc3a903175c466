"""What ran, as HTML: the command, commits, versions and hashes of results.json, and the training of each arm."""

from collections.abc import Mapping, Sequence

from experiments.core.report import commits_of, short_commit
from experiments.core.tables import Table
from experiments.report.markup import escape, table, terms
from seqkd_jax.utils import progress


def section(results: Mapping) -> str:
    """The facts, then tables of trainings and of files."""
    facts = [
        ("command", f"<code>{escape(results['command'])}</code>"),
        ("commit", _commit(results["commit"])),
        *([("report made by", _commit(results["rendered"]))] if "rendered" in results else []),
        ("finished", escape(results["finished"].replace("T", " "))),
        ("machine", escape(results["host_cpu"])),
        ("devices", escape(", ".join(results["devices"]))),
        ("processes", str(results.get("processes", 1))),
        ("versions", escape(", ".join(f"{name} {version}" for name, version in _versions(results).items()))),
    ]
    return terms(facts) + _trainings(results.get("arms", [])) + _hashes(results)


def _versions(results: Mapping) -> dict[str, str]:
    return results["versions"] | results.get("peer_versions", {})


def _commit(commit: str) -> str:
    return f"<code>{escape(short_commit({'commit': commit}))}</code>"


def _trainings(arms: Sequence[Mapping]) -> str:
    """How each arm was trained."""
    rows = []
    for arm in arms:
        training = arm.get("training")
        if not training or "steps" not in training:
            continue
        seeds = arm.get("seeds", [arm.get("seed")])
        commits = dict.fromkeys(short_commit({"commit": commit}) for commit in commits_of(training))
        rate = training.get("tokens_per_second")
        rows.append(
            [
                " · ".join(dict.fromkeys(filter(None, (arm.get("model"), arm["arm"])))),
                f"{arm['parameters']:,}",
                ", ".join(map(str, seeds)),
                str(training["config"]["epochs"]),
                f"{training['steps']:,}",
                progress.duration(training["seconds"]),
                "–" if rate is None else f"{rate:,.0f}",
                ", ".join(commits) or "–",
            ]
        )
    if not rows:
        return ""
    head = ["arm", "parameters", "seeds", "epochs", "updates", "time of all seeds", "tokens/s", "commit"]
    return table(Table(head, rows), "Training of each arm")


def _hashes(results: Mapping) -> str:
    known = [*results["data"].items(), *results.get("outputs", {}).items()]
    if not known:
        return ""
    rows = [[name, digest] for name, digest in known]
    inside = table(Table(["data or file", "SHA-256"], rows), "Data and outputs by their SHA-256")
    return f"<details><summary>{len(rows)} hashes of data and outputs</summary>\n{inside}</details>\n"
