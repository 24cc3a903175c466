"""Results as a person reads them: tables beside the published numbers, and their notes.

Columns are data: heading -> metric. A cell is the mean over seeds and their standard deviation; a cell of a grid has
the paper's mean in brackets.
"""

from collections.abc import Mapping

from experiments.abnar_2020 import claims, published, questions
from experiments.abnar_2020.arms import Arm
from experiments.core.intervals import mean
from experiments.core.report import DAGGER
from experiments.core.tables import Section, Table

Columns = Mapping[str, str]  # heading -> metric
OF_SENTENCES = {"mu": "mu", "D": "d", "A": "a", "A, gold": "a_gold"}
MILLION = {"ECE, 10⁶ bins": "ece_original"}
AGREEMENT = {"agreement": "agreement"}
COLUMNS: dict[str, Columns] = {
    "lm": {"PPL": "perplexity", "PPL of batches": "perplexity_batches", **OF_SENTENCES, "ECE": "ece", **AGREEMENT},
    "classification": {**OF_SENTENCES, "ECE": "ece", **MILLION, **AGREEMENT},
    "images": {
        **{"clean": "accuracy", "scaled": "accuracy_scaled", "translated": "accuracy_translated"},
        **{"ECE clean": "ece", "ECE scaled": "ece_scaled", "ECE translated": "ece_translated", **AGREEMENT},
    },
}
CLIPPED = {"updates clipped": "clipped"}
MORE_OF_SENTENCES = {"loss": "loss", "D, pooled": "d_pooled", "mu, unseen": "mu_unseen"}
FURTHER: dict[str, Columns] = {
    "lm": MORE_OF_SENTENCES | MILLION | CLIPPED,
    "classification": MORE_OF_SENTENCES | CLIPPED,
    "images": {"loss": "loss"} | MILLION | CLIPPED,
}
GRIDS: dict[str, Columns] = {
    "lm": {"D": "d", "A": "a", "A, gold": "a_gold"},
    "classification": OF_SENTENCES | MILLION,
    "images": {
        "Accuracy on clean digits": "accuracy",
        "Accuracy on scaled digits": "accuracy_scaled",
        "Accuracy on translated digits": "accuracy_translated",
        "ECE on clean digits": "ece",
    },
}
TEACHER_OF_SENTENCES = {"mu": "taught_mu", "D": "taught_d", "A": "taught_a"}
AS_TEACHER: dict[str, Columns] = {
    setup: {"entropy of soft targets": "taught_entropy", "right": "taught_right", **found}
    for setup, found in (
        ("lm", TEACHER_OF_SENTENCES),
        ("classification", TEACHER_OF_SENTENCES),
        ("images", {"clean": "taught_accuracy"}),
    )
}
ABOUT_MU = (
    "mu: accuracy; D: mean over the distances 1 to 16; A: mean over 0 to 4 attractors; gold: its 1 to 4 "
    "attractors from the separate prefixes that carry gold counts; unseen: without prefixes that occur in training; "
    "pooled: distances 9–10, 11–12 and 13–16 as one bin each"
)
ABOUT_ECE = "ECE: expected calibration error in 20 bins, on the validation set"
MEANINGS = {
    "lm": (
        "PPL: perplexity; of batches: the mean over batches, as in the paper; A, gold: with 1 to 4 attractors all "
        "singular forms of verbs are weighed against all plural ones, since the prefixes do not tell the verb",
        ABOUT_MU,
        ABOUT_ECE,
    ),
    "classification": (ABOUT_MU, ABOUT_ECE),
    "images": ("ECE: expected calibration error in 20 bins, on the test images of that kind",),
}
ABOUT_TEACHING = (
    "soft targets: what a teacher's students learn from, on training examples (4,000, or all); entropy in "
    "nats, at the temperature of distillation; right: the share whose most probable class is the label; beside it what "
    "the checkpoint that teaches has on the test set, which need not be the end of training",
    "updates clipped: of the logged ones, the share whose gradient's norm was above the limit",
    "agreement: share of test examples on which a student and its teacher decide alike",
)
ABOUT_MISTAKES = (
    "of test examples that the arm gets wrong the share that its teacher gets wrong too, as it was when it taught; by "
    "chance: the teacher's share of mistakes; error consistency: Cohen's kappa of being right (Geirhos et al. 2020); "
    "of models alone the mean over all seeds of a teacher"
)
ABOUT_POWER = (
    "claims that are inconclusive here and of which the paper's effect is known; of several parts the one that is "
    "hardest to see"
)
EFFECTS = {"lm": ("A", "D"), "classification": ("A", "mu"), "images": ("translated", "scaled")}  # the main one first
THIN = 100  # examples of a bin


def sections(results: dict) -> list[Section]:
    """The tables of one set-up."""
    setup = results["setup"]
    head, rows = ["teacher", *AS_TEACHER[setup]], []
    for arm in ordered(results):
        for called, name in (("taught", arm["arm"]), ("teacher", f"that of {arm['arm']}")):
            if f"{called}_entropy" in arm["metrics"]:
                metrics = (metric.replace("taught", called) for metric in AS_TEACHER[setup].values())
                rows.append([name, *(measured(arm, metric) for metric in metrics)])
    return [
        Section(table=_arms(results)),
        *_grids(results),
        Section("Further measures", table=_further(results)),
        *([Section("Soft targets", table=Table(head, rows))] if rows else []),
        *questions.sections(results),
        *_mistakes(results),
        *_power(results),
        Section("Notes", points=_notes(results)),
    ]


def _mistakes(results: dict) -> list[Section]:
    """Whether a student's mistakes are its teacher's, beside those of the same model alone."""
    found, rows = results.get("mistakes") or {}, []
    for arm in ordered(results):
        for teacher, measures in found.get(arm["arm"], {}).items():
            shared, expected, consistency = (mean(measures[name]) for name in ("shared", "expected", "consistency"))
            rows.append([arm["arm"], teacher, f"{shared:.1%}", f"{expected:.1%}", f"{consistency:.3f}"])
    head = ["arm", "teacher", "mistakes that the teacher makes too", "by chance", "error consistency"]
    return [Section("Mistakes", table=Table(head, rows, 2, [ABOUT_MISTAKES]))] if rows else []


def _power(results: dict) -> list[Section]:
    """Of claims that are inconclusive here: would the paper's effect have been found?"""
    found = claims.power(results)
    rows = [
        [about, text, f"{effect:+.4f}", f"{least:.4f}", "yes" if least <= effect else "no"]
        for about, text, effect, least in found
    ]
    head = ["about", "claim", "the paper's effect", "effect seen in 80% of runs", "the paper's would have been seen"]
    return [Section("What so many seeds can show", table=Table(head, rows, 2, [ABOUT_POWER]))] if rows else []


def _arms(results: dict) -> Table:
    """The arms, the published numbers beside the metrics that have some."""
    setup = results["setup"]
    known = {metric for numbers in published.PUBLISHED[setup].values() for metric in numbers}
    head = ["arm", "parameters", "seeds"]
    for heading, metric in COLUMNS[setup].items():
        head += [heading, "paper"] if metric in known else [heading]
    rows = []
    for arm in ordered(results):
        diverged = arm.get("diverged") or ()
        seeds = f"{len(arm['seeds'])}" + (f" ({len(diverged)} diverged)" if diverged else "")
        row = [arm["arm"], f"{arm['parameters']:,}", seeds]
        for metric in COLUMNS[setup].values():
            row.append(measured(arm, metric))
            if metric in known:
                row.append(str(published.number(setup, arm["arm"], metric) or "–"))
        rows.append(row)
    return Table(head, rows)


def _further(results: dict) -> Table:
    known = metrics(results)
    columns = {heading: metric for heading, metric in FURTHER[results["setup"]].items() if metric in known}
    rows = [[arm["arm"], *(measured(arm, metric) for metric in columns.values())] for arm in ordered(results)]
    return Table(["arm", *columns], rows)


def _grids(results: dict) -> list[Section]:
    """For each measure a table of teachers by students; none without a taught arm."""
    setup, across, down = results["setup"], students(results), teachers(results)
    arms = {arm["arm"]: arm for arm in results["arms"]}

    def cell(name: str, metric: str) -> str:
        here, paper = measured(arms.get(name, {}), metric), published.number(setup, name, metric)
        return f"{here} ({paper.short})" if paper else here

    found = []
    for heading, metric in GRIDS[setup].items() if len(down) > 1 else ():
        if metric in metrics(results):
            rows = [[by or "none", *(cell(Arm(student, by).label, metric) for student in across)] for by in down]
            title = f"{heading} by teacher (rows) and student (columns)"
            found.append(Section(title, table=Table(["teacher", *across], rows)))
    return found


def measured(arm: dict, metric: str) -> str:
    """Mean ± standard deviation over seeds."""
    found = (arm.get("metrics") or {}).get(metric) or {}
    if found.get("mean") is None:
        return "–"
    digits = 2 if metric.startswith("perplexity") else 3 if metric.startswith(("ece", "loss", "agreement")) else 4
    deviation = "" if found.get("sd") is None else f" ± {found['sd']:.{digits}f}"
    return f"{found['mean']:.{digits}f}{deviation}"


# Models and arms of results


def ordered(results: dict) -> list[dict]:
    """The arms: alone first, then by teacher and student; after them those of the controls, likewise, by their ways."""
    models, ways = [None, *names(results)], ["", *results.get("ways", {})]

    def place(arm: dict) -> tuple[int, ...]:
        return ways.index(arm.get("way", "")), models.index(arm["teacher"]), models.index(arm["student"])

    return sorted(results["arms"], key=place)


def plain(results: dict) -> list[dict]:
    """The arms in their order without those of the controls."""
    return [arm for arm in ordered(results) if not arm.get("way")]


def names(results: dict) -> list[str]:
    """The models, in the order in which they first occur among the arms as students, then as teachers."""
    found = [arm["student"] for arm in results["arms"]] + [arm["teacher"] for arm in results["arms"] if arm["teacher"]]
    return list(dict.fromkeys(found))


def students(results: dict) -> list[str]:
    """The models that are trained, alone or taught."""
    return [name for name in names(results) if any(arm["student"] == name for arm in results["arms"])]


def teachers(results: dict) -> list[str | None]:
    """None for the students alone, then the models that teach a plain arm."""
    return [None, *(name for name in names(results) if any(arm["teacher"] == name for arm in plain(results)))]


def metrics(results: dict) -> set[str]:
    """What was measured of at least one arm: without strata of gold counts there is no A by them."""
    return {metric for arm in results["arms"] for metric in arm["metrics"]}


# Notes


def _notes(results: dict) -> list[str]:
    notes = [*MEANINGS[results["setup"]], *ABOUT_TEACHING, *_taken(results)]
    notes += [f"({name}): {about}" for name, about in results.get("ways", {}).items()]
    if results.get("teachers") == "one":
        notes.append("one teacher for all: its first seed; intervals and spreads of taught models are given that one")
    notes.append("± and seeds: standard deviation over seeds; one that diverged, or whose teacher did, is in no number")
    diverged = [f"{arm['arm']}: {', '.join(map(str, arm['diverged']))}" for arm in ordered(results) if arm["diverged"]]
    if diverged:
        notes.append(f"seeds that diverged, or whose teacher did: {'; '.join(diverged)}")
    if results.get("counts"):
        known = (f"{name.replace('_', ' ')} {count:,}" for name, count in results["counts"].items())
        notes.append(f"counts: {', '.join(known)}")
    notes += [f"paper: {DAGGER} from memory, not verified; ‡ read off a figure; – not known"]
    notes += published.NOTES[results["setup"]]
    thin = _thin(results)
    if thin:
        notes.append(f"bins of fewer than {THIN} test examples (results.json has their intervals): {', '.join(thin)}")
    quirks = results["quirks"]
    return notes + ([f"as in the paper's code, not as one would: {', '.join(quirks)}"] if quirks else [])


def _taken(results: dict) -> list[str]:
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


def _thin(results: dict) -> list[str]:
    bins = next((arm["bins"] for arm in results["arms"] if arm.get("bins")), {})
    return [
        f"{kind.replace('_', ' ')} {name}: {found['n']:,}"
        for kind in ("distance", "attractors", "gold_attractors")
        for name, found in (bins.get(kind) or {}).items()
        if found["n"] < THIN
    ]
