"""The study's results as a person reads them: its tables beside published numbers, its main effects in words."""

from collections.abc import Callable, Mapping
from itertools import permutations

from experiments.core.report import DAGGER
from experiments.core.study import Headline
from experiments.core.tables import Column, Section, mean_and_deviation, of_arms
from experiments.kim_rush_2016 import scales
from experiments.kim_rush_2016.arms import ARMS, BASELINE, BEAMS, NAMED, TEACHER, control_of
from experiments.kim_rush_2016.claims import percent
from experiments.kim_rush_2016.comparisons import ACROSS, difference, over_sentences, values

CONTROLS = {arm.name: control for arm in ARMS if (control := control_of(arm))}
ABOUT_CONTROLS = (
    "+ gold: not of the paper; fine-tuned on references, of the same sources, at the same rates and for as many epochs "
    "as + Seq-Inter, whose gain over that is the effect of its targets: over gold"
)
REQUIRED = (
    "arm",
    "model",
    "against",
    "parameters",
    "bleu_beam1",
    "bleu_beam5",
    "chrf_beam1",
    "chrf_beam5",
    "length_ratio_beam1",
    "length_ratio_beam5",
    "perplexity",
    "mode_probability",
    "source_words_per_second_beam1",
    "source_words_per_second_beam5",
    "signature",
    "chrf_signature",
    "seed",
)


def sections(results: dict) -> list[Section]:
    """Scores, gains over what an arm is compared with, what is left of them whatever the lengths, and speeds."""
    arms = results["arms"]
    compared = [arm for arm in arms if reference_of(results, arm) not in (None, arm)]
    found = [Section(table=of_arms(SCORES, results, arms, left=2, notes=_about_scores(results)))]
    if compared:
        table = of_arms(GAINS, results, compared, left=3, notes=_about_gains(results))
        found.append(Section("Gains, with 95% intervals", table=table))
    if known := [arm for arm in arms if "recall_beam1" in arm]:
        table = of_arms(RECALL, results, known, left=3, notes=ABOUT_RECALL)
        found.append(Section("What is not length: recall", table=table))
    if tuned := [arm for arm in arms if "tuned_bleu_beam1" in arm]:
        table = of_arms(LENGTHS, results, tuned, left=3, notes=ABOUT_LENGTHS)
        found.append(Section("With lengths tuned on the validation set", table=table))
    if others := results.get("other_teachers"):
        table = of_arms(OTHERS, results, others, left=2, notes=_about_others(results))
        found.append(Section("Students of another teacher", table=table))
    notes = [
        "source words/s at K=1 and K=5, the median of some passes over a part of the test set, the mean of seeds; "
        "beside whatever else ran on the machine: the decoding benchmark measures speed"
    ]
    return [*found, Section("Speed", table=of_arms(SPEEDS, results, arms, left=2, notes=notes))]


def reference_of(results: dict, arm: dict) -> dict | None:
    """The arm that gains of `arm` are against: of the same model where there is one."""
    named = [row for row in results["arms"] if row["arm"] == arm["against"]]
    return next((row for row in named if row["model"] == arm["model"]), named[0] if named else None)


def _model(results: dict, arm: dict) -> str:
    count = arm["parameters"]
    return f"{arm['model']} ({f'{count / 1e6:.1f}M' if count >= 1e5 else f'{count / 1e3:.0f}k'})"


def _gained(name: str) -> Callable[[dict, dict], str]:
    """A comparison with the arm's reference, and how sure that is."""

    def cell(results: dict, arm: dict) -> str:
        other = reference_of(results, arm)
        return "–" if other in (None, arm) else gain(arm, other, name)

    return cell


def _over_control(name: str) -> Callable[[dict, dict], str | None]:
    """A comparison of an arm of Seq-Inter with what was fine-tuned alike on gold."""

    def cell(results: dict, arm: dict) -> str | None:
        if not any(control_in(results, other) for other in results["arms"]):
            return None
        other = control_in(results, arm)
        return "–" if other is None else gain(arm, other, name)

    return cell


def _than_first(name: str) -> Callable[[dict, dict], str]:
    """A comparison of an arm under another teacher with the same under the first."""

    def cell(results: dict, arm: dict) -> str:
        same = [row for row in results["arms"] if (row["arm"], row["model"]) == (arm["arm"], arm["model"])]
        return gain(arm, same[0], name) if same else "–"

    return cell


def control_in(results: dict, arm: dict) -> dict | None:
    """The control of an arm, of the same model, if it was run."""
    name = CONTROLS.get(arm["arm"])
    found = (other for other in results["arms"] if other["arm"] == name and other["model"] == arm["model"])
    return next(found, None)


def gain(arm: Mapping, other: Mapping, name: str = "beam1", digits: int = 1) -> str:
    """A difference with its 95% interval: over seeds and sentences, or in (), of a single seed, over sentences."""
    size, interval, _ = difference(arm, other, name)
    of_sentences = over_sentences(arm, other, name)
    if interval:
        return f"{size:+.{digits}f} [{interval[0]:+.{digits}f}, {interval[1]:+.{digits}f}]"
    return f"{size:+.{digits}f}" + (" ({:+.1f}, {:+.1f})".format(*of_sentences) if of_sentences else "")


def _published(name: str, form: str) -> Callable[[dict, dict], str]:
    """The paper's numbers, one of each table that stands beside the model."""

    def cell(results: dict, arm: dict) -> str:
        texts = []
        for table in scales.named(results["scale"]).published.get(arm["model"], ()):
            row = table.rows.get(arm["arm"])
            value = None if row is None else getattr(row, name)
            texts.append("–" if value is None else form.format(value) + DAGGER * (name in row.from_memory))
        return " / ".join(texts) if any(text != "–" for text in texts) else "–"

    return cell


def _number(name: str, write: Callable[[float], str]) -> Callable[[dict, dict], str | None]:
    return lambda results, arm: write(arm[name]) if name in arm else None


def over_seeds(name: str, write: Callable[[float], str]) -> Callable[[dict, dict], str | None]:
    """The mean over seeds, and their standard deviation where there are several."""

    def cell(results: dict, arm: dict) -> str | None:
        return mean_and_deviation(values(arm, name), write) if name in arm else None

    return cell


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def perplexity(value: float) -> str:
    """As text."""
    return f"{value:.{1 if value >= 10 else 2}f}"


ARM = (Column("model", _model), Column("arm", _number("arm", str)))
SCORES = (
    *ARM,
    Column("BLEU K=1", over_seeds("bleu_beam1", "{:.1f}".format)),
    Column("K=5", over_seeds("bleu_beam5", "{:.1f}".format)),
    Column("multi-bleu K=1", over_seeds("multi_bleu_beam1", "{:.1f}".format)),
    Column("K=5", over_seeds("multi_bleu_beam5", "{:.1f}".format)),
    Column("chrF K=1", over_seeds("chrf_beam1", "{:.1f}".format)),
    Column("K=5", over_seeds("chrf_beam5", "{:.1f}".format)),
    Column("length K=1", over_seeds("length_ratio_beam1", "{:.2f}".format)),
    Column("K=5", over_seeds("length_ratio_beam5", "{:.2f}".format)),
    Column("PPL", over_seeds("perplexity", perplexity)),
    Column("paper", _published("perplexity", "{:.1f}")),
    Column("p(t=ŷ)", over_seeds("mode_probability", percent)),
    Column("paper", _published("mode_probability", "{:.1f}%")),
    Column("right", over_seeds("right_share_beam1", "{:.0%}".format)),
    Column("mode", over_seeds("mode_share_beam1", "{:.0%}".format)),
)
GAINS = (
    *ARM,
    Column("against", _number("against", str)),
    Column("BLEU K=1", _gained("beam1")),
    Column("paper", _published("delta_beam1", "{:+.1f}")),
    Column("BLEU K=5", _gained("beam5")),
    Column("paper", _published("delta_beam5", "{:+.1f}")),
    Column("chrF K=1", _gained("chrf beam1")),
    Column("chrF K=5", _gained("chrf beam5")),
    Column("BLEU K=1 over gold", _over_control("beam1")),
    Column("K=5", _over_control("beam5")),
)
RECALL = (
    *ARM,
    Column("against", _number("against", str)),
    *(
        column
        for beam, name in zip(BEAMS, ("K=1", "K=5"), strict=True)
        for column in (
            Column(f"recall {name}", over_seeds(f"recall_{beam}", "{:.1f}".format)),
            Column("gain", _gained(f"recall {beam}")),
            Column("BLEU's gain", _gained(beam)),
            Column("length", over_seeds(f"length_ratio_{beam}", "{:.2f}".format)),
        )
    ),
)
ABOUT_RECALL = (
    "recall: the share of the references' n-grams that outputs have, as BLEU puts orders together: BLEU with outputs "
    "and references exchanged, without its brevity penalty. An output that is too long loses BLEU and no recall: what "
    "shorter outputs gain in both is not their length alone",
)
LENGTHS = (
    *ARM,
    Column("against", _number("against", str)),
    *(
        column
        for beam, name in zip(BEAMS, ("K=1", "K=5"), strict=True)
        for column in (
            Column(f"BLEU {name}", over_seeds(f"tuned_bleu_{beam}", "{:.1f}".format)),
            Column("gain", _gained(f"tuned {beam}")),
            Column("chrF", over_seeds(f"tuned_chrf_{beam}", "{:.1f}".format)),
            Column("length", over_seeds(f"tuned_length_ratio_{beam}", "{:.2f}".format)),
            Column("bonus", over_seeds(f"tuned_end_bonus_{beam}", "{:+.2f}".format)),
        )
    ),
)
ABOUT_LENGTHS = (
    "bonus: added to the logit of the end of a translation in every step, for each system and beam that with the best "
    "BLEU on the validation set; above 0: shorter",
    "gain: in BLEU, against the arm that is named, whose lengths are tuned too; [ ] and ( ) as above",
    "a model that adds nothing to its logits has no bonus, and is left out",
)
OTHERS = (
    *ARM,
    Column("teacher", _number("teacher", "seed {}".format)),
    Column("BLEU K=1", over_seeds("bleu_beam1", "{:.1f}".format)),
    Column("gain", _gained("beam1")),
    Column("more than of the first", _than_first("beam1")),
    Column("BLEU K=5", over_seeds("bleu_beam5", "{:.1f}".format)),
    Column("gain", _gained("beam5")),
    Column("more than of the first", _than_first("beam5")),
)
SPEEDS = (
    *ARM,
    Column("words/s K=1", _number("source_words_per_second_beam1", _rate)),
    Column("K=5", _number("source_words_per_second_beam5", _rate)),
)


def _about_scores(results: dict) -> list[str]:
    toy = all("right_share_beam1" in arm for arm in results["arms"])
    signatures = [dict.fromkeys(arm[name] for arm in results["arms"]) for name in ("signature", "chrf_signature")]
    bleu, chrf = ("; ".join(f"`{name}`" for name in of) for of in signatures)
    multi_bleu = any("multi_bleu_beam1" in arm for arm in results["arms"])
    return [
        f"K: beam; BLEU {bleu}; chrF {chrf}; length: tokens of the outputs / tokens of the references",
        *(["multi-bleu: BLEU as multi-bleu.perl has it, which the paper reports"] * multi_bleu),
        f"paper: {_labels(results)}; {DAGGER} from memory, not verified",
        "PPL: perplexity of the references, by tokens of this vocabulary, so not to be compared with the paper's, "
        "which is by words of other data; p(t=ŷ): mean probability of the greedy output",
        *(["right, mode: greedy outputs that are a correct, or the most probable, translation in truth"] * toy),
        _about_chrf(results),
        _about_seeds(results),
    ]


def _about_seeds(results: dict) -> str:
    """Which arms have how many."""
    arms: dict[tuple[str, int], list[str]] = {}
    for arm in results["arms"]:
        arms.setdefault((arm["model"], len(arm.get("seeds", [0]))), []).append(arm["arm"])
    counts = {count for _, count in arms}
    if len(counts) == 1:
        (count,) = counts
        return "one seed" if count == 1 else f"±: standard deviation over {count} seeds"
    told = "; ".join(f"{count} of {model} {', '.join(names)}" for (model, count), names in arms.items())
    return f"±: standard deviation over seeds: {told}"


def _about_others(results: dict) -> list[str]:
    teacher = next((arm for arm in results["arms"] if arm["arm"] == TEACHER), None)
    known = [f"{value:.1f}" for value in values(teacher, "bleu_beam1")] if teacher else []
    return [
        "the same arms, taught by a teacher of another seed; gain: against the baseline, which has no teacher; more "
        "than of the first: against the same arm under the first teacher; [ ] and ( ) as above",
        f"the teachers' own BLEU at K=1, by seed: {', '.join(known) or 'not known'}",
    ]


REVERSED = 0.5  # points, in both


def _about_chrf(results: dict) -> str:
    """Pairs of arms of one model that BLEU and chrF rank otherwise, greedily."""
    found = []
    for model in dict.fromkeys(arm["model"] for arm in results["arms"]):
        arms = [arm for arm in results["arms"] if arm["model"] == model]
        for first, second in permutations(arms, 2):
            bleu, chrf = (first[name] - second[name] for name in ("bleu_beam1", "chrf_beam1"))
            if bleu >= REVERSED and -chrf >= REVERSED:
                found.append(f"{model} {first['arm']} against {second['arm']} {bleu:+.1f} BLEU, {chrf:+.1f} chrF")
    rule = f"pairs that BLEU and chrF rank otherwise at K=1, by {REVERSED:g} or more in both"
    return f"{rule}: {'; '.join(found) or 'none'}"


def _about_gains(results: dict) -> list[str]:
    controlled = any(control_in(results, arm) for arm in results["arms"])
    return [
        "[ ]: 95% interval over seeds and test sentences; ( ): of arms with one seed, over test sentences alone, which "
        "says nothing of another training",
        f"paper: {_labels(results)} (tokenised BLEU); {DAGGER} from memory, not verified",
        *([ABOUT_CONTROLS] * controlled),
    ]


def _labels(results: dict) -> str:
    printed = scales.named(results["scale"]).published
    of_models = [printed.get(model, ()) for model in dict.fromkeys(arm["model"] for arm in results["arms"])]
    return ", ".join(" / ".join(table.label for table in tables) for tables in of_models if tables) or "none"


# In words


def headline(results: dict) -> Headline:
    """Data, models and epochs; the effect of Seq-KD."""
    models = dict.fromkeys(arm["model"] for arm in results["arms"] if NAMED[arm["arm"]].role != "transformer")
    epochs = {arm["arm"]: arm["training"]["config"]["epochs"] for arm in results["arms"]}
    roles = {"teacher": epochs.get(TEACHER), "student": epochs.get(BASELINE)}
    trained = ", ".join(f"{role} {count}" for role, count in roles.items() if count)
    data = f"{DATA.get(results['scale'], results['scale'])}: {trained} epochs"
    effects = [f"Seq-KD {gain(seq_kd, baseline)} BLEU" for seq_kd, baseline in _students(results)]
    return Headline(data, f"LSTM {' to '.join(models)}", "; ".join(effects) or "–")


DATA = {
    "smoke": "Toy language",
    "multi30k": "Multi30k",
    "tatoeba": "Tatoeba",
    "multi30k-words": "Multi30k, words",
    "paper-en-de": "WMT En–De",
    "paper-th-en": "IWSLT Th–En",
}


def findings(results: dict) -> list[str]:
    """The main effects, of each student that has a baseline and Seq-KD."""
    teacher = next((arm for arm in results["arms"] if arm["arm"] == TEACHER), None)
    sentences = []
    for seq_kd, baseline in _students(results):
        adds, usual = (arm["bleu_beam5"] - arm["bleu_beam1"] for arm in (seq_kd, baseline))
        sentences += [
            f"The {seq_kd['model']} student trained by Seq-KD and decoded greedily, against its baseline: "
            f"{gain(seq_kd, baseline)} BLEU; against its baseline with a beam of 5: {gain(seq_kd, baseline, ACROSS)} "
            "BLEU.",
            *([f"Against its teacher, both greedy: {gain(seq_kd, teacher)} BLEU."] if teacher else []),
            f"A beam of 5 adds {adds:+.1f} BLEU to Seq-KD, {usual:+.1f} to the baseline.",
            f"Seq-KD gives its own greedy output a probability of {percent(seq_kd['mode_probability'])}, the baseline "
            f"{percent(baseline['mode_probability'])}. Its perplexity on references is "
            f"{perplexity(seq_kd['perplexity'])}, the baseline's {perplexity(baseline['perplexity'])}.",
            f"In chrF, both greedy, Seq-KD is {gain(seq_kd, baseline, 'chrf beam1')} against the baseline. Its outputs "
            f"are {seq_kd['length_ratio_beam1']:.2f} times as long as the references, the baseline's "
            f"{baseline['length_ratio_beam1']:.2f} times.",
        ]
        others = [arm for arm in results["arms"] if arm["model"] == seq_kd["model"] and arm not in (seq_kd, baseline)]
        if others:
            gains = ", ".join(f"{arm['arm']} {gain(arm, baseline)}" for arm in others)
            sentences.append(f"The others in BLEU against the baseline, greedily: {gains}.")
    return sentences


def _students(results: dict) -> list[tuple[dict, dict]]:
    """(Seq-KD, baseline) of each student that has both."""
    arms = {(arm["model"], arm["arm"]): arm for arm in results["arms"]}
    students = [(arm, arms.get((arm["model"], BASELINE))) for arm in results["arms"] if arm["arm"] == "Seq-KD"]
    return [(seq_kd, baseline) for seq_kd, baseline in students if baseline]
