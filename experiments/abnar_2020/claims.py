"""What the paper says, as one list for each setup: each claim with its measurement on the dict of results.json.

`effects` measures, `experiments.core.claims` has the rule that turns an effect into a verdict. A claim of several parts
shows the one that decides, beside the paper's numbers of the same part. What the paper claims of a Transformer or of
students in general is one claim for each arm that it covers, unless its parts only mean something together.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from experiments.abnar_2020 import effects, questions
from experiments.abnar_2020.arms import Arm
from experiments.abnar_2020.effects import Comparison
from experiments.abnar_2020.published import SIMILARITY_EXAMPLE
from experiments.core.claims import INCONCLUSIVE, Claim, Part, corrected, judged
from experiments.core.intervals import detectable

PAIRED = ("mu", "d", "a", "accuracy", "accuracy_scaled", "accuracy_translated")  # metrics with paired intervals
NAMES = {"mu": "mu", "d": "D", "a": "A", "a_gold": "A by gold counts", "perplexity": "perplexity"}
NAMES |= {"ece": "calibration error in 20 bins", "ece_original": "calibration error in a million bins"}
DIGITS = {"": "clean", "_scaled": "scaled", "_translated": "translated"}
NAMES |= {f"accuracy{key}": f"accuracy on {kind} digits" for key, kind in DIGITS.items()}
NAMES |= {f"ece{key}": f"calibration error on {kind} digits" for key, kind in DIGITS.items() if key}


class Statement(NamedTuple):
    """One claim of the paper."""

    about: str
    text: str
    measure: Callable[[dict], list[Part]]
    comparisons: tuple[Comparison, ...] = ()


def claims(results: dict) -> list[Claim]:
    """Every claim about the setup of these results; "not run" where an arm is missing or has no seed left.

    What the paper says of A is asked of A by gold counts too, in results that have it.
    """
    return corrected([judged(one.about, one.text, one.measure(results)) for one in _asked(results)])


def _asked(results: dict) -> list[Statement]:
    gold = any("a_gold" in arm["metrics"] for arm in results["arms"])
    return [one for one in CLAIMS[results["setup"]] if gold or NAMES["a_gold"] not in one.text]


def comparisons(setup: str) -> list[tuple[str, str, str]]:
    """(A, B, metric) for which results["differences"]["A | B"][metric] should hold the paired interval of A - B."""
    asked = [one[:3] for statement in CLAIMS[setup] for one in statement.comparisons if one.metric in PAIRED]
    more = [one for one in questions.comparisons(setup) if one[2] in PAIRED]
    known = set(asked) | {(second, first, metric) for first, second, metric in asked}
    return list(dict.fromkeys([*asked, *(one for one in more if one not in known)]))


def power(results: dict) -> list[tuple[str, str, float, float]]:
    """Of each difference that is inconclusive here, and known in the paper: (about, claim, the paper's effect, the one
    that so many seeds show in 80% of runs)."""
    found = []
    for statement, claim in zip(_asked(results), claims(results), strict=True):
        if claim.verdict == INCONCLUSIVE and statement.comparisons:
            parts = [part for part in statement.measure(results) if part.estimate and part.published]
            seen = [(part.published[0], detectable(part.estimate.interval, part.seeds)) for part in parts]
            known = [(effect, least) for effect, least in seen if least is not None]
            if known:
                found.append((claim.about, claim.text, *max(known, key=lambda pair: pair[1] - pair[0])))
    return found


# Forms of statements


def compared(about: str, text: str, *links: Comparison, premise: Comparison | None = None) -> Statement:
    """Differences between arms, all of which must be there; premise: what they presuppose."""

    def measure(results: dict) -> list[Part]:
        found = [effects.difference(results, link, named=len(links) > 1) for link in links]
        if premise is None:
            return found
        return [effects.presupposing(results, premise, NAMES[premise.metric], part) for part in found]

    return Statement(about, text, measure, links)


def above(arm: str, other: str, metric: str, sign: int = 1) -> Statement:
    """One arm above (or below) another, as a claim about the first."""
    text = f"{'above' if sign > 0 else 'below'} {other} in {NAMES[metric]}"
    return compared(arm, text, Comparison(arm, other, metric, sign))


def handed_on(
    student: str, teacher: str, metric: str, sign: int = 1, presupposed: str = "", other: str = ""
) -> Statement:
    """A student above (or below) itself alone, or taught by `other`.

    It presupposes that the teacher is above the student alone, in this metric or in the one that is `presupposed`:
    what a teacher has not got it cannot hand on.
    """
    plain = above(Arm(student, teacher).label, Arm(student, other or None).label, metric, sign)
    premise = Comparison(teacher, student, presupposed or metric)
    return compared(plain.about, plain.text, *plain.comparisons, premise=premise)


def steadier(arm: str, alone: str, metric: str) -> Statement:
    """Smaller variation over seeds than when trained alone."""
    text = f"{NAMES[metric]} varies less over seeds than that of {alone} alone"
    return Statement(arm, text, lambda results: [effects.steadier(results, arm, alone, metric)])


def representations(student: str, teacher: str) -> tuple[Statement, Statement]:
    """Where the students of one teacher lie."""
    arm = Arm(student, teacher).label
    example = f"{SIMILARITY_EXAMPLE} in one example, of either set-up" if arm == "LSTM → Transformer" else ""
    closer = f"representations are closer to each other than those of {student} alone"
    nearer = f"representations are nearer to {teacher}'s than those of {student} alone"

    def near(results: dict) -> list[Part]:
        return [effects.nearer(results, arm, student, teacher)._replace(printed=example)]

    return (
        Statement(arm, closer, lambda results: [effects.closer_together(results, arm, student)]),
        Statement(arm, nearer, near),
    )


def scatter(model: str, other: str) -> Statement:
    """Whose models are more alike, both trained alone."""
    text = f"trained alone, representations are closer to each other than those of {other}"
    return Statement(model, text, lambda results: [effects.closer_together(results, model, other)])


IN_A = ("a", "a_gold")
LONG = ("d", *IN_A)  # what long and misleading sentences make hard
ALONE = "trained alone"

# Language models

LSTMS, TRANSFORMERS = ("LSTM", "Small LSTM"), ("Transformer", "Small Transformer")
MODELS = LSTMS + TRANSFORMERS
BEST, WORST = "Small Transformer", "Small LSTM"  # in perplexity


def similar_perplexity() -> Statement:
    """All language models, of which some have the bias and others have not."""
    text = "and that at similar perplexity"
    return Statement(ALONE, text, lambda results: [effects.similar_perplexity(results, MODELS)])


def the_best_in_perplexity_is_below(metric: str) -> Statement:
    """The LSTM above whichever language model has the best perplexity in these results."""

    def measure(results: dict) -> list[Part]:
        printed, effect = effects.printed_difference(results["setup"], Comparison("LSTM", BEST, metric))
        part = effects.best_is_below(results, MODELS, "LSTM", metric)
        return [part._replace(printed=f"{printed}; the best: {BEST}", published=effect)]

    return Statement(
        ALONE,
        f"in {NAMES[metric]}, the LSTM is above whichever model has the best perplexity here",
        measure,
        tuple(Comparison("LSTM", other, metric) for other in MODELS[1:]),
    )


def all_lstms_above(metric: str) -> Statement:
    """Each LSTM above each Transformer."""
    links = [Comparison(lstm, transformer, metric) for lstm in LSTMS for transformer in TRANSFORMERS]
    return compared(ALONE, f"both LSTMs are above both Transformers in {NAMES[metric]}", *links)


def best_yet_below(metric: str) -> Statement:
    """The best in perplexity below the LSTM."""
    best = [Comparison(BEST, other, "perplexity", -1) for other in (*LSTMS, "Transformer")]
    text = f"has the best perplexity, yet is below the LSTM in {NAMES[metric]}"
    return compared(BEST, text, *best, Comparison(BEST, "LSTM", metric, -1))


def better_teacher(metric: str) -> Statement:
    """The LSTM as the teacher of every student."""
    pairs = [[Arm(student, teacher).label for teacher in ("LSTM", "Transformer")] for student in MODELS]
    text = f"the LSTM as the teacher is above the Transformer as the teacher in {NAMES[metric]}"
    return compared("every student", text, *(Comparison(*pair, metric) for pair in pairs))


TAUGHT_BY_TRANSFORMERS = (Arm("Transformer", "Transformer"), Arm(BEST, "Transformer"), Arm(BEST, BEST))
LM = (
    *(above("LSTM", "Transformer", metric) for metric in LONG),
    *map(all_lstms_above, LONG),
    similar_perplexity(),
    *map(best_yet_below, IN_A),
    *map(the_best_in_perplexity_is_below, IN_A),
    *(handed_on("Transformer", teacher, metric) for teacher in LSTMS for metric in LONG),
    above(Arm("Transformer", "LSTM").label, "Transformer", "perplexity", -1),
    *(above(arm.label, arm.student, metric, -1) for arm in TAUGHT_BY_TRANSFORMERS for metric in LONG),
    *map(better_teacher, LONG),
    # Of that what one student can tell: does it need the LSTM, or would any teacher do?
    *(handed_on("Transformer", "LSTM", metric, other="Transformer") for metric in LONG),
    *(statement for student in TRANSFORMERS for statement in representations(student, "LSTM")),
)

# Classifiers

ORDER = ("LSTM", "UTransformer-seq", "Transformer-seq", "Transformer")
CLASSIFIERS = ORDER[1:]  # those that are not the LSTM
WEAKER = (  # than a student is alone: its teachers
    ("LSTM", "each Transformer", CLASSIFIERS),
    ("UTransformer-seq", "each weaker Transformer", ORDER[2:]),
    ("Transformer-seq", "the Transformer", ORDER[3:]),
)


def in_order(metric: str) -> Statement:
    """Each model above the next."""
    links = [Comparison(better, worse, metric) for better, worse in zip(ORDER, ORDER[1:], strict=False)]
    return compared(ALONE, f"{' > '.join(ORDER)} in {NAMES[metric]}", *links)


def best_teacher(student: str) -> Statement:
    """The LSTM above each Transformer, as a teacher."""
    arm = Arm(student, "LSTM").label
    others = [Comparison(arm, Arm(student, teacher).label, "mu") for teacher in CLASSIFIERS]
    return compared(arm, f"above {student} taught by each Transformer in {NAMES['mu']}", *others)


def weaker_teachers(student: str, of_whom: str, teachers: Sequence[str], metric: str) -> Statement:
    """Teachers that are below their student alone."""
    links = [Comparison(Arm(student, teacher).label, student, metric, -1) for teacher in teachers]
    return compared(f"{student} taught by {of_whom}", f"below the {student} alone in {NAMES[metric]}", *links)


CLASSIFICATION = (
    *map(in_order, ("mu", *LONG)),
    *(handed_on(student, "LSTM", metric) for metric in ("mu", *LONG) for student in CLASSIFIERS),
    *map(best_teacher, ORDER),
    *(handed_on(student, "LSTM", error, -1, "mu") for error in ("ece_original", "ece") for student in CLASSIFIERS),
    *(weaker_teachers(*of, metric) for of in WEAKER for metric in ("mu", *LONG)),
    *(steadier(Arm(student, "LSTM").label, student, metric) for metric in IN_A for student in CLASSIFIERS),
    scatter("LSTM", "Transformer"),
    *(statement for student in CLASSIFIERS for statement in representations(student, "LSTM")),
)

# Digits

CORRUPTED = ("accuracy_scaled", "accuracy_translated")
ACCURACIES = ("accuracy", *CORRUPTED)
ERRORS = ("ece", "ece_scaled", "ece_translated")

IMAGES = (
    *(above("CNN", "MLP", metric) for metric in ACCURACIES),
    *(above("CNN", "MLP", error, -1) for error in ERRORS[1:]),
    *(handed_on("MLP", "CNN", metric) for metric in ACCURACIES),
    *(handed_on("MLP", "CNN", metric, other="MLP") for metric in ACCURACIES),
    *(handed_on("MLP", "CNN", error, -1, metric) for error, metric in zip(ERRORS, ACCURACIES, strict=True)),
    *(above(Arm("CNN", "MLP").label, "CNN", metric, -1) for metric in ACCURACIES),
    *(steadier(Arm("MLP", "CNN").label, "MLP", metric) for metric in CORRUPTED),
    scatter("CNN", "MLP"),
    *representations("MLP", "CNN"),
)

CLAIMS: dict[str, tuple[Statement, ...]] = {"lm": LM, "classification": CLASSIFICATION, "images": IMAGES}
