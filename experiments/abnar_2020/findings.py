"""Results in words: the headline, what models have alone, what teachers hand on, and what so many seeds can tell."""

from collections.abc import Mapping, Sequence

from experiments.abnar_2020 import claims, effects, questions
from experiments.abnar_2020.effects import Comparison
from experiments.abnar_2020.tables import COLUMNS, EFFECTS, plain, students, teachers
from experiments.core.intervals import mean
from experiments.core.study import Headline

KINDS = {"lm": "Language models", "classification": "Classifiers", "images": "Digits"}
STRONG = ("LSTM", "CNN")  # teachers whose bias the paper hands on


def headline(results: dict) -> Headline:
    """Data and how the paper's code is followed; models and epochs; what the strong teacher's first student gains."""
    setup = results["setup"]
    controls = ["controls"] * (results["scale"] == "controls")
    parts = [KINDS[setup], *controls, *(quirk.replace("_", " ") for quirk in results["quirks"])]
    epochs = {arm["training"]["config"]["epochs"] for arm in results["arms"] if arm.get("training")}
    models = f"{len(students(results))} models, {'/'.join(map(str, sorted(epochs)))} epochs"
    setting = models if setup == "images" else f"agreement of verbs, {models}"
    gained = [
        f"{arm['arm']}: {EFFECTS[setup][0]} {gain}"
        for arm in plain(results)
        if arm["teacher"] in STRONG and arm["student"] in ("Transformer", "MLP")
        if (gain := _gain(results, arm, EFFECTS[setup][0]))
    ]
    data = ", ".join([*parts, *(["toy data"] if results["scale"] == "smoke" else [])])
    return Headline(data, setting, gained[0] if gained else "–")


def findings(results: dict) -> list[str]:
    """What models have alone, what teachers hand on, how sharp the strong teacher's soft targets are."""
    setup, arms = results["setup"], plain(results)
    found = []
    for heading in (*(["PPL"] if setup == "lm" else []), *EFFECTS[setup]):
        known = [(arm, arm["metrics"].get(COLUMNS[setup][heading])) for arm in arms if arm["teacher"] is None]
        known = sorted(((one["mean"], arm["arm"]) for arm, one in known if one), reverse=heading != "PPL")
        digits = 1 if heading == "PPL" else 3
        if known:
            found.append(f"Trained alone, {heading}: {', '.join(f'{name} {mean:.{digits}f}' for mean, name in known)}.")
    for teacher in [name for name in teachers(results) if name]:
        for heading in EFFECTS[setup] if teacher in STRONG else EFFECTS[setup][:1]:
            taught = [arm for arm in arms if arm["teacher"] == teacher]
            gains = [f"{arm['student']} {gain}" for arm in taught if (gain := _gain(results, arm, heading))]
            if gains:
                found.append(f"Taught by {teacher}, {heading} against the same model alone: {', '.join(gains)}.")
    for arm in arms:
        entropy, right = (arm["metrics"].get(f"taught_{name}") for name in ("entropy", "right"))
        if arm["arm"] in STRONG and entropy and right:
            share = f"{entropy['mean']:.3f} nats, and {right['mean']:.1%} of them are right"
            found.append(f"The soft targets of the {arm['arm']} have an entropy of {share}.")
    return [*_answers(results), *found, *_calibrated(results), *_alike(results), *_powerless(results)]


def _answers(results: dict) -> list[str]:
    """What the controls say to each question, in the main measures; nothing where there are no controls."""
    told = []
    for question in questions.QUESTIONS[results["setup"]] if results.get("ways") else ():
        for heading in EFFECTS[results["setup"]]:
            metric = COLUMNS[results["setup"]][heading]
            found = [
                f"{contrast.first.label} against {contrast.second.label} {gain}"
                for contrast in question.contrasts
                if metric in question.metrics
                if (gain := _difference(results, contrast.first.label, contrast.second.label, metric))
            ]
            told += [f"{question.text} {heading}: {'; '.join(found)}."] if found else []
    return told


def _calibrated(results: dict) -> list[str]:
    """Calibration by a count of bins that means something, and by the original's."""
    if results["setup"] != "classification":
        return []
    told = []
    for heading, bins in (("ECE", "20 bins"), ("ECE, 10⁶ bins", "the original's million bins")):
        taught = [arm for arm in plain(results) if arm["teacher"] == "LSTM" and arm["student"] != "LSTM"]
        gains = [f"{arm['student']} {gain}" for arm in taught if (gain := _gain(results, arm, heading))]
        if gains:
            told.append(
                f"Calibration error of the LSTM's students against the same model alone, in {bins} (below zero: better "
                f"calibrated): {', '.join(gains)}."
            )
    return told


def _alike(results: dict) -> list[str]:
    """How far a Transformer's nearness to the LSTM, in representations and mistakes, comes from being taught at all."""
    told = []
    names = ("LSTM → Transformer", "Transformer → Transformer", "Transformer")
    near = [effects.similar_to(results, name, "LSTM") for name in names]
    if None not in near and near[0] > near[2]:
        share = (near[1] - near[2]) / (near[0] - near[2])
        told.append(
            f"Similarity to the LSTM's representations, over all pairs of seeds: LSTM → Transformer {near[0]:.4f}, "
            f"Transformer → Transformer {near[1]:.4f}, Transformer alone {near[2]:.4f}; the Transformer's student has "
            f"{share:.0%} of what the LSTM's student gains."
        )
    known = [(results.get("mistakes") or {}).get(name, {}).get("LSTM") for name in (names[0], names[2])]
    if all(known):
        taught, alone = known
        told.append(
            f"Of the mistakes of LSTM → Transformer {mean(taught['shared']):.0%} are the LSTM's too, of those of the "
            f"Transformer alone {mean(alone['shared']):.0%}; by chance it were {mean(taught['expected']):.0%}."
        )
    return told


def _powerless(results: dict) -> list[str]:
    """Of how many claims these seeds could have told."""
    found = claims.power(results)
    if not found:
        return []
    seen = sum(least <= effect for *_, effect, least in found)
    return [
        f"Of {len(found)} inconclusive claims whose effect in the paper is known, so many seeds would have shown the "
        f"paper's effect (in 80% of runs) in {seen}."
    ]


def _gain(results: dict, arm: Mapping, heading: str) -> str:
    """A taught arm above the same model alone; "" if one of them is missing."""
    return _difference(results, arm["arm"], arm["student"], COLUMNS[results["setup"]][heading])


def _difference(results: dict, first: str, second: str, metric: str) -> str:
    """One arm above another; "" if one of them is missing."""
    found = effects.difference(results, Comparison(first, second, metric)).estimate
    if found is None:
        return ""
    ends: Sequence[float] = found.interval or ()
    return f"{found.size:+.3f}" + (f" [{', '.join(f'{end:+.3f}' for end in ends)}]" if ends else "")
