"""The study's results as a person reads them: its table beside published numbers, its main effects in words."""

from collections.abc import Callable

from experiments.core.report import DAGGER
from experiments.core.study import Headline
from experiments.core.tables import Column, Section, of_arms
from experiments.kim_rush_2016 import scales
from experiments.kim_rush_2016.arms import ACROSS, BASELINE, ROLES, TEACHER
from experiments.kim_rush_2016.claims import difference

REQUIRED = (
    "arm",
    "model",
    "against",
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


def sections(results: dict) -> list[Section]:
    """The table of the arms."""
    return [Section(table=of_arms(COLUMNS, results, results["arms"], left=2, notes=_notes(results)))]


def reference_of(results: dict, arm: dict) -> dict | None:
    """The arm that deltas of `arm` are against: of the same model where there is one."""
    named = [row for row in results["arms"] if row["arm"] == arm["against"]]
    return next((row for row in named if row["model"] == arm["model"]), named[0] if named else None)


def _model(results: dict, arm: dict) -> str:
    count = arm["parameters"]
    return f"{arm['model']} ({f'{count / 1e6:.1f}M' if count >= 1e5 else f'{count / 1e3:.0f}k'})"


def _delta(beam: str) -> Callable[[dict, dict], str]:
    """BLEU above the arm it is compared with, and how sure that is."""

    def cell(results: dict, arm: dict) -> str:
        other = reference_of(results, arm)
        if other is None or other is arm:
            return "–"
        delta, _, p_value = difference(arm, other, beam)
        mark = "" if p_value is None else "**" if p_value < 0.01 else "*" if p_value < 0.05 else ""
        return f"{delta:+.1f}{mark}"

    return cell


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


def percent(share: float) -> str:
    """A share in percent, of two significant digits, without an exponent."""
    value = 100 * share
    if value == 0:
        return "0%"
    return f"{value:.{1 if value >= 1 else 2 if value >= 0.1 else 4}f}%"


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _perplexity(value: float) -> str:
    return f"{value:.{1 if value >= 10 else 2}f}"


COLUMNS = (
    Column("model", _model),
    Column("arm", _number("arm", str)),
    Column("K=1", _number("bleu_beam1", "{:.1f}".format)),
    Column("Δ", _delta("beam1")),
    Column("paper Δ", _published("delta_beam1", "{:+.1f}")),
    Column("K=5", _number("bleu_beam5", "{:.1f}".format)),
    Column("Δ", _delta("beam5")),
    Column("paper Δ", _published("delta_beam5", "{:+.1f}")),
    Column("PPL", _number("perplexity", _perplexity)),
    Column("paper", _published("perplexity", "{:.1f}")),
    Column("p(t=ŷ)", _number("mode_probability", percent)),
    Column("paper", _published("mode_probability", "{:.1f}%")),
    Column("words/s K=1", _number("source_words_per_second_beam1", _rate)),
    Column("K=5", _number("source_words_per_second_beam5", _rate)),
    Column("right", _number("right_share_beam1", "{:.0%}".format)),
    Column("mode", _number("mode_share_beam1", "{:.0%}".format)),
)


def _notes(results: dict) -> list[str]:
    printed = scales.named(results["scale"]).published
    of_models = [printed.get(model, ()) for model in dict.fromkeys(arm["model"] for arm in results["arms"])]
    labels = ", ".join(" / ".join(table.label for table in tables) for tables in of_models if tables)
    seeds = sorted({arm["seed"] for arm in results["arms"]})
    toy = all("right_share_beam1" in arm for arm in results["arms"])
    return [
        "K: beam; BLEU "
        + "; ".join(f"`{name}`" for name in dict.fromkeys(arm["signature"] for arm in results["arms"])),
        "Δ: against that model's baseline, of a model without one against the teacher; paired bootstrap over test "
        "sentences, * p < 0.05, ** p < 0.01",
        f"paper: {labels or 'none'} (tokenised BLEU); {DAGGER} from memory, not verified",
        "PPL: perplexity of the references; p(t=ŷ): mean probability of the greedy output; words/s: source words",
        *(["right, mode: greedy outputs that are a correct, or the most probable, translation in truth"] * toy),
        f"one seed ({seeds[0]}): the bootstrap says nothing of another training"
        if len(seeds) == 1
        else f"seeds: {', '.join(map(str, seeds))}",
    ]


# In words


def headline(results: dict) -> Headline:
    """Data, models and epochs; the effect of Seq-KD."""
    models = dict.fromkeys(arm["model"] for arm in results["arms"] if ROLES[arm["arm"]] != "transformer")
    epochs = {arm["arm"]: arm["training"]["config"]["epochs"] for arm in results["arms"]}
    roles = {"teacher": epochs.get(TEACHER), "student": epochs.get(BASELINE)}
    trained = ", ".join(f"{role} {count}" for role, count in roles.items() if count)
    data = f"{DATA.get(results['scale'], results['scale'])}: {trained} epochs"
    effects = [f"Seq-KD {_gain(seq_kd, baseline)} BLEU" for seq_kd, baseline in _students(results)]
    return Headline(data, f"LSTM {' to '.join(models)}", "; ".join(effects) or "–")


DATA = {"smoke": "Toy language", "multi30k": "Multi30k", "paper-en-de": "WMT En–De", "paper-th-en": "IWSLT Th–En"}


def findings(results: dict) -> list[str]:
    """The main effects, of each student that has a baseline and Seq-KD."""
    teacher = next((arm for arm in results["arms"] if arm["arm"] == TEACHER), None)
    sentences = []
    for seq_kd, baseline in _students(results):
        adds, usual = (arm["bleu_beam5"] - arm["bleu_beam1"] for arm in (seq_kd, baseline))
        sentences += [
            f"The {seq_kd['model']} student trained by Seq-KD and decoded greedily is {_apart(seq_kd, baseline)} its "
            f"baseline, and {_apart(seq_kd, baseline, ACROSS)} its baseline with a beam of 5.",
            *([f"It is {_apart(seq_kd, teacher)} its teacher, both greedy."] if teacher else []),
            f"A beam of 5 adds {adds:+.1f} BLEU to Seq-KD, {usual:+.1f} to the baseline.",
            f"Seq-KD gives its own greedy output a probability of {percent(seq_kd['mode_probability'])}, the baseline "
            f"{percent(baseline['mode_probability'])}. Its perplexity on references is "
            f"{_perplexity(seq_kd['perplexity'])}, the baseline's {_perplexity(baseline['perplexity'])}.",
        ]
        others = [arm for arm in results["arms"] if arm["model"] == seq_kd["model"] and arm not in (seq_kd, baseline)]
        if others:
            gains = ", ".join(f"{arm['arm']} {_gain(arm, baseline)}" for arm in others)
            sentences.append(f"The others in BLEU against the baseline, greedily: {gains}.")
    return sentences


def _students(results: dict) -> list[tuple[dict, dict]]:
    """(Seq-KD, baseline) of each student that has both."""
    arms = {(arm["model"], arm["arm"]): arm for arm in results["arms"]}
    students = [(arm, arms.get((arm["model"], BASELINE))) for arm in results["arms"] if arm["arm"] == "Seq-KD"]
    return [(seq_kd, baseline) for seq_kd, baseline in students if baseline]


def _gain(arm: dict, other: dict) -> str:
    """A difference in BLEU, both greedy, with its 95% interval over test sentences where that was computed."""
    delta, interval, _ = difference(arm, other)
    return f"{delta:+.1f} " + (f"[{interval[0]:+.1f}, {interval[1]:+.1f}]" if interval else "(not tested)")


def _apart(arm: dict, other: dict, compared_as: str = "beam1") -> str:
    """The same in words."""
    delta, interval, _ = difference(arm, other, compared_as)
    sign = 1 if delta >= 0 else -1
    reach = "[{:.1f}, {:.1f}]".format(*sorted(sign * end for end in interval)) if interval else "(not tested)"
    return f"{abs(delta):.1f} BLEU {reach} {'above' if sign > 0 else 'below'}"
