"""What the paper says that these results can test; `experiments.claims` has the form of a claim and the rule.

What makes a claim more than a direction here:
- a difference in BLEU: the interval of the paired bootstrap over test sentences (`significance`) lies above zero. Its
  p-value is shown; the interval can be the stricter of the two. Each arm is one seed, so neither speaks of another
  training;
- "several times" and "about": the thresholds SEVERAL and NEAR;
- perplexity: results hold no interval of it, so the most that it can get is "direction only".
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from experiments.claims import FAILED, NOT_RUN, Claim, verdict
from experiments.kim_rush_2016.arms import BASELINE, TEACHER, named
from experiments.kim_rush_2016.published import Row
from experiments.report import DAGGER

SEVERAL = 3.0  # times; "several times the baseline's"
NEAR = 0.5  # BLEU; beam 1 is near beam 5 within this, or where the gain is under half the baseline's
NOTHING: Mapping[str, Sequence] = MappingProxyType({})


class Measured(NamedTuple):
    """What a claim's test finds; `verdict` by the rule."""

    text: str
    interval: tuple[float, float] | None
    verdict: str


def claims(results: dict, published: Mapping[str, Sequence] = NOTHING) -> list[Claim]:
    """Every claim, for each model whose arms it is about; "not run" where one of those is missing.

    published: label of a model -> tables with `rows` by arm.
    """
    arms = {(arm["model"], arm["arm"]): arm for arm in results["arms"]}
    found = []
    for role in ("teacher", "student"):
        models = dict.fromkeys(arm["model"] for arm in results["arms"] if named(arm["arm"]).role == role)
        for model in models or (role,):
            for needed, text, printed, test in CLAIMS[role]:
                rows = [table.rows for table in published.get(model, ()) if all(name in table.rows for name in needed)]
                paper = " / ".join(printed(*(row[name] for name in needed)) for row in rows)
                present = [arms.get((model, name)) for name in needed]
                measured = test(*present) if all(present) else Measured("", None, NOT_RUN)
                found.append(Claim(model, text, paper, measured.text, int(all(present)), *measured[1:]))
    return found


def _gain(reference: dict, arm: dict) -> Measured:
    """BLEU at beam 1 above that of the arm it is compared with."""
    delta = arm["bleu_beam1"] - reference["bleu_beam1"]
    compared = arm.get("significance", {}).get(reference["arm"], {}).get("beam1")
    if not compared:
        return Measured(f"{delta:+.2f} BLEU", None, verdict(delta))
    interval = (compared["delta_low"], compared["delta_high"])
    return Measured(f"{delta:+.2f} BLEU, p = {compared['p_value']:.3f}", interval, verdict(delta, interval))


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
