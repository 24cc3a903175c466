"""What the paper says that these results can test; `experiments.core.claims` has the form of a claim and the rule.

What makes a claim more than a direction here:
- a difference in BLEU: the interval of the paired bootstrap over test sentences (`significance`) lies above zero. Its
  p-value is shown; the interval can be the stricter of the two. Each arm is one seed, so neither speaks of another
  training. Results that an older commit wrote have no bootstrap of an arm at beam 1 against another at beam 5;
- "several times" and "about": the thresholds SEVERAL and NEAR;
- perplexity: results hold no interval of it, so the most that it can get is "direction only".
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from typing import NamedTuple

from experiments.core.claims import FAILED, NOT_RUN, Claim, verdict
from experiments.core.report import DAGGER
from experiments.kim_rush_2016 import scales
from experiments.kim_rush_2016.arms import ACROSS, BASELINE, COMPARED, ROLES, TEACHER
from experiments.kim_rush_2016.published import Row

SEVERAL = 3.0  # times; "several times the baseline's"
NEAR = 0.5  # BLEU; beam 1 is near beam 5 within this, or where the gain is under half the baseline's


class Measured(NamedTuple):
    """What a claim's test finds; `verdict` by the rule."""

    text: str
    interval: tuple[float, float] | None
    verdict: str


def claims(results: dict) -> list[Claim]:
    """Every claim, for each model whose arms it is about; "not run" where one of those is missing."""
    published = scales.named(results["scale"]).published
    arms = {(arm["model"], arm["arm"]): arm for arm in results["arms"]}
    teacher = next((arm for arm in results["arms"] if arm["arm"] == TEACHER), None)
    tested = []
    for role in ("teacher", "student"):
        models = dict.fromkeys(arm["model"] for arm in results["arms"] if ROLES[arm["arm"]] == role)
        for model in models or (role,):
            printed_rows = _printed_rows(published, model, teacher)
            for needed, text, printed, test in CLAIMS[role]:
                rows = [rows for rows in printed_rows if all(name in rows for name in needed)]
                paper = " / ".join(printed(*(row[name] for name in needed)) for row in rows)
                present = [teacher if name == TEACHER else arms.get((model, name)) for name in needed]
                measured = test(*present) if all(present) else Measured("", None, NOT_RUN)
                tested.append(Claim(model, text, paper, measured.text, int(all(present)), *measured[1:]))
    return tested


def _printed_rows(published: Mapping[str, Sequence], model: str, teacher: dict | None) -> list[dict[str, Row]]:
    """The rows by arm of each published table about a model, with those about its teacher."""
    tables = published.get(model, ())
    above = published.get(teacher["model"], ()) if teacher else ()
    return [
        {**(teaching.rows if teaching else {}), **table.rows} for table, teaching in zip_longest(tables, above) if table
    ]


class Difference(NamedTuple):
    """BLEU of an arm above another's, and what the paired bootstrap over test sentences says, if it was asked."""

    delta: float
    interval: tuple[float, float] | None  # 95%
    p_value: float | None


def difference(arm: dict, reference: dict, compared_as: str = "beam1") -> Difference:
    """Of two arms of results.json; compared_as: at which beams, a name of COMPARED."""
    beam, reference_beam = COMPARED[compared_as]
    delta = arm[f"bleu_{beam}"] - reference[f"bleu_{reference_beam}"]
    compared = arm.get("significance", {}).get(reference["arm"], {}).get(compared_as)
    if not compared:
        return Difference(delta, None, None)
    return Difference(delta, (compared["delta_low"], compared["delta_high"]), compared["p_value"])


def _gain(reference: dict, arm: dict, compared_as: str = "beam1") -> Measured:
    delta, interval, p_value = difference(arm, reference, compared_as)
    tested = "" if p_value is None else f", p = {p_value:.3f}"
    return Measured(f"{delta:+.2f} BLEU{tested}", interval, verdict(delta, interval))


def _mode_grows(baseline: dict, seq_kd: dict) -> Measured:
    ratio = seq_kd["mode_probability"] / max(baseline["mode_probability"], 1e-12)
    found = verdict(ratio - 1, threshold=SEVERAL - 1)
    return Measured(f"{ratio:.1f} times; several: at least {SEVERAL:g}", None, found)


def _beams_meet(baseline: dict, seq_kd: dict) -> Measured:
    gain, usual = (arm["bleu_beam5"] - arm["bleu_beam1"] for arm in (seq_kd, baseline))
    found = verdict(usual - abs(gain), threshold=usual - max(NEAR, usual / 2))
    return Measured(_beams(gain, usual), None, found)


def _perplexity_rises(baseline: dict, seq_kd: dict) -> Measured:
    before, after = baseline["perplexity"], seq_kd["perplexity"]
    gain = seq_kd["bleu_beam1"] - baseline["bleu_beam1"]
    found = FAILED if gain < 0 else verdict(after - before)
    return Measured(f"{before:.2f} -> {after:.2f}, BLEU {gain:+.2f}", None, found)


def _beams(gain: float, usual: float, digits: int = 2) -> str:
    return f"beam 5 adds {gain:+.{digits}f}, to the baseline {usual:+.{digits}f}"


def _printed(row: Row, cell: str, form: str) -> str:
    return format(getattr(row, cell), form) + (DAGGER if cell in row.from_memory else "")


def _printed_gain(reference: Row, arm: Row) -> str:
    return _printed(arm, "delta_beam1", "+.1f")


def _printed_difference(reference: Row, arm: Row, compared_as: str = "beam1") -> str:
    beam, reference_beam = (f"bleu_{beam}" for beam in COMPARED[compared_as])
    dagger = DAGGER if beam in arm.from_memory or reference_beam in reference.from_memory else ""
    return f"{getattr(arm, beam) - getattr(reference, reference_beam):+.1f}{dagger}"


def _printed_modes(baseline: Row, seq_kd: Row) -> str:
    return " against ".join(_printed(row, "mode_probability", ".1f") for row in (seq_kd, baseline)) + " percent"


def _printed_beams(baseline: Row, seq_kd: Row) -> str:
    unsure = {"bleu_beam1", "bleu_beam5"} & (baseline.from_memory | seq_kd.from_memory)
    gain, usual = (row.bleu_beam5 - row.bleu_beam1 for row in (seq_kd, baseline))
    return _beams(gain, usual, digits=1) + (DAGGER if unsure else "")


def _printed_perplexities(baseline: Row, seq_kd: Row) -> str:
    return " -> ".join(_printed(row, "perplexity", ".1f") for row in (baseline, seq_kd))


class Statement(NamedTuple):
    """One claim: the arms it needs, in the order in which they go to what prints the paper's rows and to the test."""

    arms: tuple[str, ...]
    text: str
    printed: Callable[..., str]
    test: Callable[..., Measured]


PAIR = (BASELINE, "Seq-KD")
CLAIMS: dict[str, tuple[Statement, ...]] = {  # by the role of the models they are about
    "teacher": (
        Statement(
            (TEACHER, "Teacher + Seq-Inter"), "Seq-Inter helps the teacher itself at beam 1", _printed_gain, _gain
        ),
    ),
    "student": (
        Statement(PAIR, "Seq-KD is above the baseline at beam 1", _printed_gain, _gain),
        Statement(
            PAIR,
            "Seq-KD at beam 1 is above the baseline at beam 5",
            partial(_printed_difference, compared_as=ACROSS),
            partial(_gain, compared_as=ACROSS),
        ),
        Statement(
            (TEACHER, "Seq-KD"), "Seq-KD is above its teacher, both at beam 1 (in En–De)", _printed_difference, _gain
        ),
        Statement(PAIR, "Seq-KD's p(t=ŷ) is several times the baseline's", _printed_modes, _mode_grows),
        Statement(PAIR, "under Seq-KD, beam 1 is about beam 5", _printed_beams, _beams_meet),
        Statement(
            PAIR,
            "Seq-KD's perplexity on references is worse, though its BLEU is not",
            _printed_perplexities,
            _perplexity_rises,
        ),
    ),
}
