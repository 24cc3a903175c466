"""What the paper says that these results can test; `experiments.core.claims` has the form of a claim and the rule.

Effects are differences between arms (`comparisons`), each with an interval over seeds and, but for perplexity, over
test sentences. Probabilities and perplexities are compared by their logarithms. What makes "several times" is the
threshold SEVERAL; "about" is that a beam of 5 changes Seq-KD by at most half of what it adds to the baseline. Of one
seed there is no interval, so its verdict is "inconclusive"; what is shown then is the interval over test sentences,
which takes the trained models as given.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from typing import NamedTuple

from experiments.core.claims import Claim, Part, judged
from experiments.core.intervals import mean
from experiments.core.report import DAGGER
from experiments.kim_rush_2016 import scales
from experiments.kim_rush_2016.arms import BASELINE, BEAMS, NAMED, TEACHER, control_of
from experiments.kim_rush_2016.comparisons import (
    ACROSS,
    COMPARISONS,
    HALVED,
    difference,
    gained_more,
    measures,
    over_sentences,
    values,
)
from experiments.kim_rush_2016.published import Row

NAMES = ("Seq-KD", BASELINE)
CHRF = {name: f"chrf {name}" for name in (*BEAMS, ACROSS)}  # of a comparison by BLEU that by chrF
SEVERAL = 3.0  # times; "several times the baseline's"


class Test(NamedTuple):
    """One part of a statement about an arm and its reference, as `test(reference, arm)`; of the paper, of results."""

    comparison: str  # of COMPARISONS
    text: Callable[[dict, dict], str]  # the numbers here
    printed: Callable[[Row, Row], str]  # those of the paper
    above: float = 0.0  # what the difference must exceed


class Statement(NamedTuple):
    """One claim: an arm, what it is compared with, and tests all of which must hold."""

    reference: str
    arm: str
    text: str
    tests: tuple[Test, ...]


def claims(results: dict) -> list[Claim]:
    """Every claim, for each model whose arms it is about; "not run" where one of those is missing.

    Not corrected yet.
    """
    published = scales.named(results["scale"]).published
    arms = {(arm["model"], arm["arm"]): arm for arm in results["arms"]}
    teacher = next((arm for arm in results["arms"] if arm["arm"] == TEACHER), None)
    tested = []
    for role in ("teacher", "student"):
        models = dict.fromkeys(arm["model"] for arm in results["arms"] if NAMED[arm["arm"]].role == role)
        for model in models or (role,):
            beside = _printed_rows(published, model, teacher)
            for statement in CLAIMS[role]:
                pair = [
                    teacher if name == TEACHER else arms.get((model, name))
                    for name in (statement.reference, statement.arm)
                ]
                parts = [_part(statement, test, pair, beside) for test in statement.tests]
                tested.append(judged(model, statement.text, parts))
            if role == "student" and results["scale"] in scales.MORE_MODES:
                tested.append(_more_modes(results, arms, model))
    return tested


def _more_modes(results: dict, arms: Mapping[tuple, dict], model: str) -> Claim:
    """Whether Seq-KD gains more than in the run beside this one, whose sources have fewer translations."""
    other, beside = scales.MORE_MODES[results["scale"]], results.get("beside")
    text = f"not of the paper: Seq-KD gains more at beam 1 where sources have more translations, here than on {other}"
    there = {arm["arm"]: arm for arm in beside["arms"] if arm["model"] == model} if beside else {}
    pairs = [(of.get("Seq-KD"), of.get(BASELINE)) for of in ({name: arms.get((model, name)) for name in NAMES}, there)]
    if None in (*pairs[0], *pairs[1]):
        return judged(model, text, [Part(None, f"no {' or '.join(NAMES)} here, or of {other}; give --beside")])
    found = gained_more(*pairs)
    gains = [seq_kd["bleu_beam1"] - baseline["bleu_beam1"] for seq_kd, baseline in pairs]
    told = " against ".join(f"{gain:+.2f}" for gain in gains)
    seeds = min(len(values(one, "bleu_beam1")) for pair in pairs for one in pair)
    return judged(model, text, [Part(found, told, seeds)])


def _printed_rows(published: Mapping[str, Sequence], model: str, teacher: dict | None) -> list[dict[str, Row]]:
    """The rows by arm of each published table about a model, with those about its teacher."""
    tables = published.get(model, ())
    above = published.get(teacher["model"], ()) if teacher else ()
    return [
        {**(teaching.rows if teaching else {}), **table.rows} for table, teaching in zip_longest(tables, above) if table
    ]


def _part(statement: Statement, test: Test, pair: Sequence[dict | None], beside: Sequence[dict[str, Row]]) -> Part:
    """What these results and the paper's tables say of one test."""
    names = statement.reference, statement.arm
    rows = [[table[name] for name in names] for table in beside if all(name in table for name in names)]
    printed = " / ".join(test.printed(*both) for both in rows)
    effects = [_of_paper(test, *both) for both in rows]
    reference, arm = pair
    if reference is None or arm is None:
        absent = [name for name, one in zip(names, pair, strict=True) if one is None]
        return Part(None, f"no {', '.join(absent)}", 0, printed, effects)
    found = difference(arm, reference, test.comparison, test.above)
    sentences = over_sentences(arm, reference, test.comparison, test.above)
    text = test.text(reference, arm) + _in_chrf(found.size, reference, arm, test)
    if found.interval is None and sentences:
        text += "; over test sentences alone [{:+.2f}, {:+.2f}]".format(*sentences)
    return Part(found, text, min(len(values(one, "bleu_beam1")) for one in (reference, arm)), printed, effects)


def _in_chrf(size: float, reference: dict, arm: dict, test: Test) -> str:
    """What chrF says of a difference in BLEU where it has the other sign."""
    name = CHRF.get(test.comparison)
    if name is None or not all(f"chrf_{beam}" in one for beam in BEAMS for one in (reference, arm)):
        return ""
    found = difference(arm, reference, name).size
    return f"; chrF says otherwise: {found:+.2f}" if found * size < 0 else ""


def _of_paper(test: Test, reference: Row, arm: Row) -> float:
    """The paper's effect."""
    ours, theirs = (
        math.fsum(weight * _printed_measure(row, name) for name, weight in weights.items())
        for row, weights in zip((arm, reference), COMPARISONS[test.comparison], strict=True)
    )
    return ours - theirs - test.above


def _printed_measure(row: Row, name: str) -> float:
    if name.startswith("ln "):
        return math.log(row.perplexity if name == "ln perplexity" else row.mode_probability / 100)
    return getattr(row, name)


# Numbers of both


def _bleu(reference: dict, arm: dict, compared_as: str = "beam1") -> str:
    beams = (next(iter(weights)) for weights in COMPARISONS[compared_as])
    return " against ".join(f"{one[beam]:.2f}" for one, beam in zip((arm, reference), beams, strict=True))


def _modes(reference: dict, arm: dict) -> str:
    of = [math.exp(mean(measures(one)["ln p(t=ŷ)"])) for one in (arm, reference)]
    shares = " against ".join(percent(share) for share in of)
    return f"{shares}, {of[0] / of[1]:.1f} times; several: {SEVERAL:g}"


def _perplexities(reference: dict, arm: dict) -> str:
    return " -> ".join(f"{one['perplexity']:.2f}" for one in (reference, arm))


def _gains(reference: dict, arm: dict) -> str:
    return _beams(*(one["bleu_beam5"] - one["bleu_beam1"] for one in (arm, reference)))


def _beams(gain: float, usual: float, digits: int = 2) -> str:
    return f"beam 5 adds {gain:+.{digits}f}, to the baseline {usual:+.{digits}f}"


def percent(share: float) -> str:
    """A share in percent, of two significant digits or one decimal, without an exponent."""
    value = 100 * share
    decimals = 1 if value >= 1 else 1 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:.{decimals}f}%"


def _printed(row: Row, cell: str, form: str) -> str:
    return format(getattr(row, cell), form) + (DAGGER if cell in row.from_memory else "")


def _printed_gain(reference: Row, arm: Row) -> str:
    return _printed(arm, "delta_beam1", "+.1f")


def _printed_difference(reference: Row, arm: Row, compared_as: str = "beam1") -> str:
    beam, other = (next(iter(weights)) for weights in COMPARISONS[compared_as])
    dagger = DAGGER if beam in arm.from_memory or other in reference.from_memory else ""
    return f"{getattr(arm, beam) - getattr(reference, other):+.1f}{dagger}"


def _printed_modes(baseline: Row, seq_kd: Row) -> str:
    return " against ".join(_printed(row, "mode_probability", ".1f") for row in (seq_kd, baseline)) + " percent"


def _printed_gains(baseline: Row, seq_kd: Row) -> str:
    unsure = {"bleu_beam1", "bleu_beam5"} & (baseline.from_memory | seq_kd.from_memory)
    gain, usual = (row.bleu_beam5 - row.bleu_beam1 for row in (seq_kd, baseline))
    return _beams(gain, usual, digits=1) + (DAGGER if unsure else "")


def _printed_perplexities(baseline: Row, seq_kd: Row) -> str:
    return " -> ".join(_printed(row, "perplexity", ".1f") for row in (baseline, seq_kd))


GAIN = Test("beam1", _bleu, _printed_gain)
CONTROLLED = Test("beam1", _bleu, _printed_difference)  # the paper has no control


def _more_than_gold(name: str) -> Statement:
    """Of an arm that is fine-tuned on Seq-Inter's targets, against its control."""
    control = control_of(NAMED[name])
    assert control is not None
    text = f"a control, not of the paper: {name} gains more at beam 1 than by as many epochs on gold"
    return Statement(control, name, text, (CONTROLLED,))


CLAIMS: dict[str, tuple[Statement, ...]] = {  # by the role of the models they are about
    "teacher": (
        Statement(TEACHER, "Teacher + Seq-Inter", "Seq-Inter helps the teacher itself at beam 1", (GAIN,)),
        _more_than_gold("Teacher + Seq-Inter"),
    ),
    "student": (
        Statement(BASELINE, "Seq-KD", "Seq-KD is above the baseline at beam 1", (GAIN,)),
        Statement(
            BASELINE,
            "Seq-KD",
            "Seq-KD at beam 1 is above the baseline at beam 5",
            (Test(ACROSS, partial(_bleu, compared_as=ACROSS), partial(_printed_difference, compared_as=ACROSS)),),
        ),
        Statement(
            TEACHER,
            "Seq-KD",
            "Seq-KD is above its teacher, both at beam 1 (in En–De)",
            (Test("beam1", _bleu, _printed_difference),),
        ),
        Statement(
            BASELINE,
            "Seq-KD",
            "Seq-KD's p(t=ŷ) is several times the baseline's",
            (Test("ln p(t=ŷ)", _modes, _printed_modes, math.log(SEVERAL)),),
        ),
        Statement(
            BASELINE,
            "Seq-KD",
            "under Seq-KD, beam 1 is about beam 5",
            tuple(Test(name, _gains, _printed_gains) for name in HALVED),
        ),
        Statement(
            BASELINE,
            "Seq-KD",
            "Seq-KD's perplexity on references is worse, though its BLEU is not",
            (Test("ln perplexity", _perplexities, _printed_perplexities), GAIN),
        ),
        _more_than_gold("Baseline + Seq-Inter"),
        _more_than_gold("Seq-KD + Seq-Inter"),
    ),
}
