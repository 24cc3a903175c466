"""Results as a person reads them: a table beside published numbers, and what every arm must tell.

`results` is the dict that results.json holds: what ran, once at the top, and `arms`, a list with one dict for each row.
"""

from collections.abc import Callable, Mapping, Sequence

from experiments.core import claims as verdicts
from experiments.core.report import DAGGER, markdown
from experiments.kim_rush_2016 import claims

REQUIRED = (
    "arm",
    "parameters",
    "bleu_beam1",
    "bleu_beam5",
    "chrf_beam5",
    "perplexity",
    "mode_probability",
    "source_words_per_second_beam1",
    "source_words_per_second_beam5",
    "signature",
    "seed",
)


def check(results: dict) -> None:
    """ValueError if an arm lacks what every arm must tell."""
    for arm in results["arms"]:
        missing = [key for key in REQUIRED if key not in arm]
        if missing:
            raise ValueError(f"arm {arm.get('arm')!r} lacks {', '.join(missing)}")


# Columns that stand in a table where every arm has them: heading, key, what it is.
OPTIONAL = (
    ("right", "right_share_beam1", "outputs at K=1 that are a right translation"),
    ("mode", "mode_share_beam1", "outputs at K=1 that are the most probable translation"),
)


def table(results: dict, published: Mapping[str, Sequence]) -> str:
    """The Markdown table of a study's arms, published numbers beside them, and one of the claims.

    published: model label -> tables with a `label` and `rows` by arm, in the order in which their numbers are printed.
    Deltas are against the arm that results["arms"][i]["against"] names, of the same model.
    """
    labels = [" / ".join(table.label for table in published.get(model, ())) for model in _models(results)]
    head = ["model", "arm", "K=1", "Δ", "paper Δ", "K=5", "Δ", "paper Δ", "PPL", "paper", "p(t=ŷ)", "paper"]
    head += ["words/s K=1", "K=5"]
    rows = [_row(results, arm, published.get(arm["model"], ())) for arm in results["arms"]]
    optional = [column for column in OPTIONAL if all(column[1] in arm for arm in results["arms"])]
    head += [heading for heading, *_ in optional]
    for row, arm in zip(rows, results["arms"], strict=True):
        row += [f"{arm[key]:.0%}" for _, key, _ in optional]
    lines = markdown(head, rows, left=2)
    notes = [
        "BLEU " + "; ".join(f"`{name}`" for name in dict.fromkeys(arm["signature"] for arm in results["arms"])) + ".",
        "Δ: against that model's baseline, of a model without one against the teacher; paired bootstrap, "
        "\\* p < 0.05, \\*\\* p < 0.01.",
        f"paper: {', '.join(dict.fromkeys(filter(None, labels))) or 'none'} (tokenised BLEU); {DAGGER} from memory, "
        "not verified.",
        "PPL on the references; p(t=ŷ): mean probability of the greedy output, in percent; words/s: source words.",
        *(f"{heading}: {meaning}, in truth." for heading, _, meaning in optional),
        _seeds(results),
    ]
    tested = claims.claims(results, published)
    lines += ["", *(f"- {note}" for note in notes), "", "## Claims of the paper", "", verdicts.markdown(tested)]
    return "\n".join([*lines, "", f"{verdicts.summary(tested)}. Intervals are over test sentences."]) + "\n"


def _models(results: dict) -> list[str]:
    return list(dict.fromkeys(arm["model"] for arm in results["arms"]))


def _seeds(results: dict) -> str:
    seeds = sorted({arm["seed"] for arm in results["arms"]})
    if len(seeds) == 1:
        return f"A single seed ({seeds[0]}): the bootstrap speaks of test sentences, not of another training."
    return f"Seeds: {', '.join(map(str, seeds))}."


def _row(results: dict, arm: dict, published: Sequence) -> list[str]:
    rows = [table.rows.get(arm["arm"]) for table in published]
    cells = [f"{arm['model']} ({_count(arm['parameters'])})", arm["arm"]]
    for beam in ("beam1", "beam5"):
        cells += [f"{arm[f'bleu_{beam}']:.1f}", _delta(results, arm, beam)]
        cells.append(_published(rows, f"delta_{beam}", lambda value: f"{value:+.1f}"))
    cells += [
        f"{arm['perplexity']:.{1 if arm['perplexity'] >= 10 else 2}f}",
        _published(rows, "perplexity", lambda value: f"{value:.1f}"),
    ]
    cells += [percent(100 * arm["mode_probability"])]
    cells += [_published(rows, "mode_probability", lambda value: f"{value:.1f}%")]
    return cells + [_rate(arm[f"source_words_per_second_{beam}"]) for beam in ("beam1", "beam5")]


def _delta(results: dict, arm: dict, beam: str) -> str:
    """Against the arm it is compared with, and how sure that is."""
    other = reference_of(results, arm)
    if other is None or other is arm:
        return "–"
    found = arm.get("significance", {}).get(other["arm"], {}).get(beam)
    p_value = 1.0 if found is None else found["p_value"]
    mark = "**" if p_value < 0.01 else "*" if p_value < 0.05 else ""
    return f"{arm[f'bleu_{beam}'] - other[f'bleu_{beam}']:+.1f}{mark.replace('*', chr(92) + '*')}"


def reference_of(results: dict, arm: dict) -> dict | None:
    """The row that deltas of `arm` are against: of the same model where there is one."""
    named = [row for row in results["arms"] if row["arm"] == arm["against"]]
    return next((row for row in named if row["model"] == arm["model"]), named[0] if named else None)


def _published(rows: Sequence, cell: str, write: Callable[[float], str]) -> str:
    texts = []
    for row in rows:
        value = None if row is None else getattr(row, cell)
        texts.append("–" if value is None else write(value) + (DAGGER if cell in row.from_memory else ""))
    return " / ".join(texts) if any(text != "–" for text in texts) else "–"


def percent(value: float) -> str:
    """Two significant digits, without an exponent."""
    if value == 0:
        return "0%"
    digits = 1 if value >= 1 else 2 if value >= 0.1 else 4
    return f"{value:.{digits}f}%"


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _count(parameters: int) -> str:
    return f"{parameters / 1e6:.1f}M" if parameters >= 1e5 else f"{parameters / 1e3:.0f}k"
