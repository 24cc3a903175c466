"""What the paper says that these results can test: each claim with what was measured and whether it held.

A claim that fails is reported as that; nothing is tuned here, and no result is left out.
"""

from collections.abc import Callable
from typing import NamedTuple

from experiments.kim_rush_2016.arms import BASELINE, TEACHER

SEVERAL = 3.0  # times; "several times the baseline's"
NEAR = 0.5  # BLEU; beam 1 is near beam 5 within this, or where the gain is under half the baseline's


class Claim(NamedTuple):
    """One claim about one student model (or the teacher)."""

    model: str
    text: str
    measured: str
    passed: bool

    def __str__(self) -> str:
        return f"{'PASS' if self.passed else 'FAIL'}  {self.model}: {self.text} ({self.measured})"


def claims(results: dict) -> list[Claim]:
    """Every claim whose arms are among the results."""
    arms = {(arm["model"], arm["arm"]): arm for arm in results["arms"]}
    found = []
    for model in dict.fromkeys(arm["model"] for arm in results["arms"]):
        for needed, test in CLAIMS:
            present = [arms.get((model, name)) for name in needed]
            if all(present):
                found.append(Claim(model, *test(*present)))
    return found


def _seq_kd_wins(baseline: dict, seq_kd: dict):
    delta = seq_kd["bleu_beam1"] - baseline["bleu_beam1"]
    compared = seq_kd.get("significance", {}).get(BASELINE, {}).get("beam1")
    sure = f", bootstrap p = {compared['p_value']:.3f}" if compared else ""
    return "Seq-KD is above the baseline at beam 1", f"{delta:+.2f} BLEU{sure}", delta > 0


def _mode_grows(baseline: dict, seq_kd: dict):
    ratio = seq_kd["mode_probability"] / max(baseline["mode_probability"], 1e-12)
    text = "Seq-KD's p(t=ŷ) is several times the baseline's"
    return text, f"{ratio:.1f} times; several: at least {SEVERAL:g}", ratio >= SEVERAL


def _beams_meet(baseline: dict, seq_kd: dict):
    gain, usual = (arm["bleu_beam5"] - arm["bleu_beam1"] for arm in (seq_kd, baseline))
    measured = f"beam 5 adds {gain:+.2f}, to the baseline {usual:+.2f}"
    return "under Seq-KD, beam 1 is about beam 5", measured, abs(gain) <= max(NEAR, usual / 2)


def _perplexity_rises(baseline: dict, seq_kd: dict):
    measured = f"{baseline['perplexity']:.2f} -> {seq_kd['perplexity']:.2f}"
    return (
        "Seq-KD's perplexity on references is worse, though its BLEU is not",
        measured,
        (seq_kd["perplexity"] > baseline["perplexity"]),
    )


def _teacher_gains(teacher: dict, tuned: dict):
    delta = tuned["bleu_beam1"] - teacher["bleu_beam1"]
    return "Seq-Inter helps the teacher itself at beam 1", f"{delta:+.2f} BLEU", delta > 0


CLAIMS: tuple[tuple[tuple[str, ...], Callable], ...] = (
    ((BASELINE, "Seq-KD"), _seq_kd_wins),
    ((BASELINE, "Seq-KD"), _mode_grows),
    ((BASELINE, "Seq-KD"), _beams_meet),
    ((BASELINE, "Seq-KD"), _perplexity_rises),
    ((TEACHER, "Teacher + Seq-Inter"), _teacher_gains),
)
