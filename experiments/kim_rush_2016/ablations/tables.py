"""The ablations as a person reads them: a table for each group, what the paper says of them, main effects in words."""

from collections.abc import Sequence

from experiments.core.claims import Claim, Part, corrected, judged
from experiments.core.plots import COLOURS, pyplot
from experiments.core.study import Headline
from experiments.core.tables import Column, Section, mean_and_deviation, of_arms
from experiments.kim_rush_2016 import tables
from experiments.kim_rush_2016.ablations import top_k
from experiments.kim_rush_2016.ablations.lines import GROUPS
from experiments.kim_rush_2016.arms import BEAMS
from experiments.kim_rush_2016.comparisons import ADDED, difference, over_sentences, values

MODE, WHOLE = "the best of the list", "the whole list, renormalised"  # of "targets"
OF_BEAMS = ("beam", "beam_alone")  # groups that ask what a beam adds
ENOUGH = 0.5  # BLEU that a larger beam of the teacher would have to bring


def first(results: dict, arm: dict) -> dict | None:
    """What a line is compared with; None: it was not made, or is the line itself."""
    found = next((other for other in results["arms"] if other["arm"] == arm["against"]), None)
    return None if found is arm else found


def _gain(name: str):
    def cell(results: dict, arm: dict) -> str:
        other = first(results, arm)
        return "–" if other is None else tables.gain(arm, other, name)

    return cell


def added(results: dict, arm: dict) -> str:
    """What a beam adds to the greedy outputs."""
    pairs = zip(values(arm, "bleu_beam5"), values(arm, "bleu_beam1"), strict=True)
    return mean_and_deviation([beam - greedy for beam, greedy in pairs], "{:+.1f}".format)


COLUMNS = (
    Column("", lambda _, arm: arm["value"]),
    Column("BLEU K=1", tables.over_seeds("bleu_beam1", "{:.1f}".format)),
    Column("Δ", _gain("beam1")),
    Column("K=5", tables.over_seeds("bleu_beam5", "{:.1f}".format)),
    Column("Δ", _gain("beam5")),
    Column("K=5 adds", added),
    Column("Δ", _gain(ADDED)),
    Column("chrF K=1", tables.over_seeds("chrf_beam1", "{:.1f}".format)),
    Column("Δ", _gain("chrf beam1")),
    Column("length K=1", tables.over_seeds("length_ratio_beam1", "{:.2f}".format)),
    Column("PPL", tables.over_seeds("perplexity", tables.perplexity)),
    Column("p(t=ŷ)", tables.over_seeds("mode_probability", tables.percent)),
)
NOTES = (
    "Δ: against the first line, with its 95% interval over seeds and test sentences; in ( ), of one seed, over test "
    "sentences alone",
    "±: standard deviation over seeds",
)


def sections(results: dict) -> list[Section]:
    """A table for each group of which more than the first line was made, and what the entries of a teacher take."""
    found = []
    for group, title in GROUPS.items():
        arms = [arm for arm in results["arms"] if arm["group"] == group]
        if any(first(results, arm) for arm in arms):
            found.append(Section(title, table=of_arms(COLUMNS, results, arms, 1, () if found else NOTES)))
    return [*found, *top_k.section(results)]


# What the paper says

# text -> (group, the line that is better, another), above: by what the difference must exceed
STATEMENTS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "Word-KD: a weight of 0.5 is better than 0.9": (("alpha", "0.5", "0.9"),),
    "Word-KD: a temperature of 1 is better than 1.5 and 2": (
        ("temperature", "1", "1.5"),
        ("temperature", "1", "2"),
    ),
    f"Seq-KD: a beam of 10 brings no more than 5 (here: less than {ENOUGH} BLEU)": (("k", "5", "10"),),
    "Seq-KD: the mode alone is better than the list with renormalised weights": (("targets", MODE, WHOLE),),
}
ABOVE = {"k": -ENOUGH}


def claims(results: dict) -> list[Claim]:
    """Every statement, in BLEU of greedy outputs."""
    arms = {(arm["group"], arm["value"]): arm for arm in results["arms"]}
    model = results["model"]
    return corrected(
        [judged(model, text, [_part(arms, *part) for part in parts]) for text, parts in STATEMENTS.items()]
    )


def _part(arms: dict, group: str, better: str, other: str) -> Part:
    pair = [arms.get((group, value)) for value in (better, other)]
    if None in pair:
        missing = [value for value, arm in zip((better, other), pair, strict=True) if arm is None]
        return Part(None, f"no {group} {', '.join(missing)}")
    own, reference = pair
    found = difference(own, reference, "beam1", ABOVE.get(group, 0.0))
    text = f"{own['bleu_beam1']:.2f} against {reference['bleu_beam1']:.2f}"
    return Part(found, text, min(len(values(arm, "bleu_beam1")) for arm in pair))


# In words


def headline(results: dict) -> Headline:
    """The data, how many settings, and what the paper's other way of Seq-KD is worth."""
    arms = {(arm["group"], arm["value"]): arm for arm in results["arms"]}
    mode, whole = (arms.get(("targets", value)) for value in (MODE, WHOLE))
    effect = "–" if mode is None or whole is None else f"K-best for the mode {tables.gain(whole, mode)} BLEU"
    data = tables.DATA.get(results["scale"], results["scale"])
    return Headline(f"{data}: ablations", f"LSTM {results['model']}", effect)


def findings(results: dict) -> list[str]:
    """What each group's lines gain or lose, greedily."""
    sentences = []
    for group, title in GROUPS.items():
        arms = [arm for arm in results["arms"] if arm["group"] == group]
        told = [f"{arm['value']} {tables.gain(arm, other)}" for arm in arms if (other := first(results, arm))]
        if told:
            what = title.partition(" (")[0]
            sentences.append(f"{what}: against {arms[0]['value']}, BLEU of greedy outputs: {'; '.join(told)}.")
        if told and group in OF_BEAMS:
            adds = [f"{arm['value']} {added(results, arm)}" for arm in arms]
            sentences.append(f"{what}: a beam of 5 adds, in BLEU: {'; '.join(adds)}.")
    return sentences


def plot(results: dict):
    """BLEU of each line above the first of its group, greedily and with a beam of 5."""
    drawn = [arm for arm in results["arms"] if first(results, arm) is not None]
    if not drawn:
        return None
    figure, axes = pyplot.subplots(figsize=(7.5, 1.2 + 0.3 * len(drawn)), layout="constrained")
    groups = list(dict.fromkeys(arm["group"] for arm in drawn))
    for place, arm in enumerate(drawn):
        colour = COLOURS[1 + groups.index(arm["group"]) % (len(COLOURS) - 1)]
        for beam, shift, face in zip(BEAMS, (-0.15, 0.15), ("white", colour), strict=True):
            size, interval = _drawn(arm, first(results, arm), beam)
            if interval:
                axes.plot(interval, [place + shift] * 2, color=colour, linewidth=0.8, alpha=0.6)
            axes.plot(size, place + shift, "o", color=colour, markerfacecolor=face, markersize=5)
    axes.axvline(0, color="#888888", linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(drawn)), [f"{arm['group'].replace('_', ' ')}: {arm['value']}" for arm in drawn])
    axes.set_ylim(len(drawn) - 0.5, -0.5)
    axes.set_xlabel("BLEU against the first line of the group; hollow: beam 1, filled: beam 5; lines: 95% intervals")
    axes.grid(axis="x", alpha=0.3)
    return figure


def _drawn(arm: dict, other: dict, beam: str) -> tuple[float, Sequence[float] | None]:
    size, interval, _ = difference(arm, other, beam)
    return size, interval or over_sentences(arm, other, beam)
