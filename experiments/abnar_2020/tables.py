"""Results as a person reads them: Markdown tables beside the published numbers, and the verdicts on the claims.

Each setup has its columns as data, a heading and a metric; beside those that the paper has stand its numbers. A cell
is the mean over seeds and their standard deviation; a cell of a grid holds the paper's mean in brackets.
"""

from collections.abc import Sequence
from typing import NamedTuple

from experiments.abnar_2020 import claims, published
from experiments.abnar_2020.arms import Arm
from experiments.core import claims as verdicts
from experiments.core.report import DAGGER, markdown


class Column(NamedTuple):
    """One metric of the table of arms."""

    heading: str
    metric: str


COLUMNS: dict[str, tuple[Column, ...]] = {
    "lm": (
        Column("PPL", "perplexity"),
        Column("PPL of batches", "perplexity_batches"),
        Column("mu", "mu"),
        Column("D", "d"),
        Column("A", "a"),
        Column("A, gold", "a_gold"),
        Column("ECE", "ece"),
        Column("agreement", "agreement"),
    ),
    "classification": (
        Column("mu", "mu"),
        Column("D", "d"),
        Column("A", "a"),
        Column("A, gold", "a_gold"),
        Column("ECE", "ece"),
        Column("ECE, 10⁶ bins", "ece_original"),
        Column("agreement", "agreement"),
    ),
    "images": (
        Column("clean", "accuracy"),
        Column("scaled", "accuracy_scaled"),
        Column("translated", "accuracy_translated"),
        Column("ECE clean", "ece"),
        Column("ECE scaled", "ece_scaled"),
        Column("ECE translated", "ece_translated"),
        Column("agreement", "agreement"),
    ),
}
TAUGHT = (Column("entropy of soft targets", "taught_entropy"), Column("right", "taught_right"))
OF_SENTENCES = (Column("mu", "taught_mu"), Column("D", "taught_d"), Column("A", "taught_a"))
AS_TEACHER = {"lm": OF_SENTENCES, "classification": OF_SENTENCES, "images": (Column("clean", "taught_accuracy"),)}
FURTHER: dict[str, tuple[Column, ...]] = {
    "lm": (
        Column("loss", "loss"),
        Column("D, pooled", "d_pooled"),
        Column("mu, unseen", "mu_unseen"),
        Column("ECE, 10⁶ bins", "ece_original"),
    ),
    "classification": (
        Column("loss", "loss"),
        Column("D, pooled", "d_pooled"),
        Column("mu, unseen", "mu_unseen"),
    ),
    "images": (Column("loss", "loss"), Column("ECE, 10⁶ bins", "ece_original")),
}
GRIDS: dict[str, tuple[Column, ...]] = {
    "lm": (Column("D", "d"), Column("A", "a"), Column("A, gold", "a_gold")),
    "classification": (
        Column("mu", "mu"),
        Column("D", "d"),
        Column("A", "a"),
        Column("A, gold", "a_gold"),
        Column("ECE, 10⁶ bins", "ece_original"),
    ),
    "images": (
        Column("Accuracy on clean digits", "accuracy"),
        Column("Accuracy on scaled digits", "accuracy_scaled"),
        Column("Accuracy on translated digits", "accuracy_translated"),
        Column("ECE on clean digits", "ece"),
    ),
}
MEANINGS = {
    "lm": "PPL: perplexity; of batches: the mean over batches, as in the paper; A, gold: with 1 to 4 attractors all "
    "singular forms of verbs are weighed against all plural ones, since the prefixes do not tell the verb",
    "mu": "mu: accuracy; D: mean over the distances 1 to 16; A: mean over 0 to 4 attractors; gold: its 1 to 4 "
    "attractors from the separate prefixes that carry gold counts; unseen: without prefixes that occur in training; "
    "pooled: distances 9–10, 11–12 and 13–16 as one bin each",
    "ece": "ECE: expected calibration error in 20 bins, on the validation set",
    "ece_images": "ECE: expected calibration error in 20 bins, on the test images of that kind",
    "taught": "soft targets: what a teacher's students learn from, on training examples (4,000, or all); entropy in "
    "nats, at the temperature of distillation; right: the share whose most probable class is the label; beside it what "
    "the checkpoint that teaches has on the test set, which need not be the end of training",
    "agreement": "agreement: share of test examples on which a student and its teacher decide alike",
}


def table(results: dict) -> str:
    """The whole Markdown text for the results of one setup."""
    setup = results["setup"]
    found = claims.claims(results)
    parts = [
        f"# Abnar et al. 2020: {setup}, scale {results['scale']}",
        _arms(results, COLUMNS[setup], "paper"),
        _grids(results),
        "## Further measures",
        _arms(results, FURTHER[setup]),
        _taught(results),
        "## Notes",
        "\n".join(f"- {note}" for note in _notes(results)),
        "## Claims of the paper",
        verdicts.markdown(found),
        f"{verdicts.summary(found)}. Verdicts: reproduced, the 95% interval of the difference has the claimed sign; "
        "direction only, the difference has it, but the interval holds zero or there is none. Intervals are over "
        "seeds, of accuracies over seeds and test examples together.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def ordered(results: dict) -> list[dict]:
    """The arms: alone first, then by teacher and student."""
    models = names(results)
    return sorted(results["arms"], key=lambda arm: (_place(models, arm["teacher"]), _place(models, arm["student"])))


def names(results: dict) -> list[str]:
    """The models, in the order in which they first occur among the arms as students, then as teachers."""
    found = [arm["student"] for arm in results["arms"]] + [arm["teacher"] for arm in results["arms"] if arm["teacher"]]
    return list(dict.fromkeys(found))


def students(results: dict) -> list[str]:
    """The models that are trained, alone or taught."""
    return [name for name in names(results) if any(arm["student"] == name for arm in results["arms"])]


def teachers(results: dict) -> list[str | None]:
    """None for the students alone, then the models that teach."""
    return [None, *(name for name in names(results) if any(arm["teacher"] == name for arm in results["arms"]))]


def metrics(results: dict) -> set[str]:
    """What was measured of at least one arm: without strata of gold counts there is no A by them."""
    return {metric for arm in results["arms"] for metric in arm["metrics"]}


def _place(models: Sequence[str], name: str | None) -> int:
    return -1 if name is None else models.index(name)


def _arms(results: dict, columns: Sequence[Column], paper: str = "") -> str:
    """paper: the heading of the published numbers, beside the metrics that have some; "": without them."""
    known = (
        {metric for numbers in published.PUBLISHED[results["setup"]].values() for metric in numbers} if paper else ()
    )
    head = ["arm", "parameters", "seeds"] if paper else ["arm"]
    for column in columns:
        head += [column.heading, paper] if column.metric in known else [column.heading]
    rows = []
    for arm in ordered(results):
        row = [arm["arm"], f"{arm['parameters']:,}", _seeds(arm)] if paper else [arm["arm"]]
        for column in columns:
            row.append(measured(arm, column.metric))
            if column.metric in known:
                row.append(str(published.number(results["setup"], arm["arm"], column.metric) or "–"))
        rows.append(row)
    return "\n".join(markdown(head, rows, left=1))


def _taught(results: dict) -> str:
    """What the teachers teach; empty if it was not looked at."""
    taught = [arm for arm in ordered(results) if TAUGHT[0].metric in arm["metrics"]]
    columns = (*TAUGHT, *AS_TEACHER[results["setup"]])
    rows = [[arm["arm"], *(measured(arm, column.metric) for column in columns)] for arm in taught]
    head = ["teacher", *(column.heading for column in columns)]
    return "\n".join(["## Soft targets", "", *markdown(head, rows, left=1)]) if rows else ""


def measured(arm: dict, metric: str) -> str:
    """Mean ± standard deviation over seeds."""
    found = (arm.get("metrics") or {}).get(metric) or {}
    if found.get("mean") is None:
        return "–"
    digits = 2 if metric.startswith("perplexity") else 3 if metric.startswith(("ece", "loss", "agreement")) else 4
    deviation = "" if found.get("sd") is None else f" ± {found['sd']:.{digits}f}"
    return f"{found['mean']:.{digits}f}{deviation}"


def _seeds(arm: dict) -> str:
    diverged = arm.get("diverged") or ()
    return f"{len(arm['seeds'])}" + (f" ({len(diverged)} diverged)" if diverged else "")


def _grids(results: dict) -> str:
    """For each measure a table of teachers by students; empty without a taught arm."""
    arms = {arm["arm"]: arm for arm in results["arms"]}
    across, down, parts = students(results), teachers(results), []
    known = metrics(results)
    for column in [column for column in GRIDS[results["setup"]] if column.metric in known] if len(down) > 1 else ():
        rows = []
        for teacher in down:
            cells = [_cell(results, arms, Arm(student, teacher).label, column.metric) for student in across]
            rows.append([teacher or "none", *cells])
        parts += [f"## {column.heading} by teacher (rows) and student (columns)"]
        parts += ["\n".join(markdown(["teacher", *across], rows, left=1))]
    return "\n\n".join(parts)


def _cell(results: dict, arms: dict, name: str, metric: str) -> str:
    here = measured(arms[name], metric) if name in arms else "–"
    paper = published.number(results["setup"], name, metric)
    return f"{here} ({paper.short})" if paper else here


def _notes(results: dict) -> list[str]:
    setup = results["setup"]
    used = {"images": ("ece_images",), "lm": ("lm", "mu", "ece"), "classification": ("mu", "ece")}[setup]
    notes = [MEANINGS[key] for key in (*used, "taught", "agreement")]
    runs = [arm.get("training") or {} for arm in ordered(results)]
    trained = [commit[:7] for run in runs for commit in run.get("commits", [run.get("commit", "")])]
    if any(trained):
        notes.append(f"trained at commits: {', '.join(dict.fromkeys(filter(None, trained)))}")
    notes += _reported(results)
    if results.get("teachers") == "one":
        notes.append("one teacher for all: its first seed; intervals and spreads of taught models are given that one")
    notes.append("± and seeds: standard deviation over seeds; one that diverged, or whose teacher did, is in no number")
    diverged = [f"{arm['arm']}: {', '.join(map(str, arm['diverged']))}" for arm in ordered(results) if arm["diverged"]]
    if diverged:
        notes.append(f"seeds that diverged, or whose teacher did: {'; '.join(diverged)}")
    if results.get("counts"):
        known = (f"{name.replace('_', ' ')} {count:,}" for name, count in results["counts"].items())
        notes.append(f"counts: {', '.join(known)}")
    notes.append(f"paper: {DAGGER} from memory, not verified; ‡ read off a figure; – not known")
    notes += published.NOTES[setup]
    thin = [f"{name} {count:,}" for name, count in _thin(results)]
    if thin:
        notes.append(f"bins of fewer than {THIN} test examples (results.json has their intervals): {', '.join(thin)}")
    quirks = [f"as in the paper's code, not as one would: {', '.join(results['quirks'])}"] if results["quirks"] else []
    return notes + quirks + [f"not as in the paper: {note}" for note in results["notes"]]


def _reported(results: dict) -> list[str]:
    """Of results that an earlier form of this study put together: which arms were taken from results before them."""
    taken: dict[str, list[str]] = {}
    for arm in ordered(results):
        if "reported" in arm:
            taken.setdefault(arm["reported"]["commit"][:7], []).append(arm["arm"])
    if not taken:
        return []
    anew = [arm["arm"] for arm in results["arms"] if arm.get("teacher_made_anew")]
    shown = {model["arm"] for model in results["representations"]["models"]}
    unseen = [arm["arm"] for arm in ordered(results) if arm["arm"] not in shown]
    return [
        *(f"taken from results of commit {commit}: {', '.join(arms)}" for commit, arms in taken.items()),
        "where one of those is compared with an arm that was made since and has other values, the interval over "
        "examples is as if each had examples of its own; a premise about a teacher is asked of the one that this table "
        "has; whether the code that trained them is the same is told by the commits alone",
        *([f"taught by teachers trained anew, which are not those of this table: {', '.join(anew)}"] if anew else []),
        *([f"on no map: {', '.join(unseen)}"] if unseen else []),
    ]


THIN = 100  # examples


def _thin(results: dict) -> list[tuple[str, int]]:
    bins = next((arm["bins"] for arm in results["arms"] if arm.get("bins")), {})
    kinds = {"distance": "distance", "attractors": "attractors", "gold_attractors": "gold attractors"}
    return [
        (f"{kind} {name}:", found["n"])
        for key, kind in kinds.items()
        for name, found in (bins.get(key) or {}).items()
        if found["n"] < THIN
    ]
