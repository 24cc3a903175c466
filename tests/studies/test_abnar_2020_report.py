"""Claims on made-up results in which the paper is right, or wrong in everything; tables and plots of committed ones."""

import itertools
import re
from copy import deepcopy

import numpy as np
import pytest

from experiments.abnar_2020 import claims, effects, findings, mistakes, plots, published, questions, scales, tables
from experiments.abnar_2020.arms import grid
from experiments.abnar_2020.effects import Comparison
from experiments.abnar_2020.study import STUDY
from experiments.core import plots as core_plots
from experiments.core.claims import CONTRADICTED, INCONCLUSIVE, NOT_RUN, REPRODUCED
from experiments.core.intervals import detectable, estimate, of_seeds, welch
from experiments.core.pages import RESULTS, ROOT
from experiments.core.study import read

LEVELS = {  # how strong each model's bias is: 0 to 1, in the paper's order
    "lm": {"LSTM": 1.0, "Small LSTM": 0.9, "Transformer": 0.4, "Small Transformer": 0.5},
    "classification": {"LSTM": 1.0, "Transformer": 0.2, "Transformer-seq": 0.4, "UTransformer-seq": 0.6},
    "images": {"CNN": 1.0, "MLP": 0.3},
}
STRONG = ("LSTM", "Small LSTM", "CNN")
PERPLEXITY = {"LSTM": 56.7, "Small LSTM": 58.0, "Transformer": 57.5, "Small Transformer": 55.3}
ACCURACIES = ("mu", "d", "d_pooled", "a", "a_gold", "mu_unseen")
IMAGES = ("accuracy", "accuracy_scaled", "accuracy_translated")
SETUPS = tuple(LEVELS)


def level_of(setup, arm):
    """An arm's place: a strong teacher lifts its students, another one lowers them."""
    levels = LEVELS[setup]
    if arm.teacher is None:
        return levels[arm.student]
    return (levels[arm.student] + levels[arm.teacher]) / 2 - (0 if arm.teacher in STRONG else 0.15)


def metric(mean, spread):
    values = [mean + offset * spread for offset in (-1, 0, 1)]
    return {"mean": mean, "sd": spread, "low": mean - 0.01, "high": mean + 0.01, "values": values}


def metrics_of(setup, arm, right):
    """right: 1, the paper is; -1: the opposite of everything."""
    level, taught = level_of(setup, arm), arm.teacher in STRONG
    spread = 0.0005 if taught == (right > 0) else 0.01
    names = IMAGES if setup == "images" else ACCURACIES
    found = {name: metric(0.7 + right * 0.25 * (level - 0.5), spread) for name in names}
    errors = ("ece", "ece_original", "ece_scaled", "ece_translated")[: 4 if setup == "images" else 2]
    found |= {name: metric(0.1 - right * 0.08 * (level - 0.5), 0.001) for name in errors}
    found["loss"] = metric(2.0 - level, 0.01)
    if setup == "lm":
        perplexity = 57.0 + right * (PERPLEXITY[arm.student] - 57.0 - 0.5 * taught)
        found |= {name: metric(perplexity, 0.1) for name in ("perplexity", "perplexity_batches")}
    return found | ({"agreement": metric(0.9, 0.01)} if arm.teacher else {})


def representations_of(setup, arms, right):
    """Each model a point: those of an arm on an uneven triangle, small and near the strong teacher if that taught."""
    models, points, strong = [], [], next(iter(LEVELS[setup]))
    for number, arm in enumerate(arms):
        near = (arm.teacher == strong) == (right > 0)
        angle = 2 * np.pi * number / len(arms)
        centre = (0.15 if near else 0.6) * np.array([np.cos(angle), np.sin(angle)]) * (arm.label != strong)
        size = 0.02 if near else 0.1
        if arm.label == strong:
            size = 0.02 if right > 0 else 0.15
        for seed in (1, 2, 3):
            turn = 2 * np.pi * seed / 3
            models.append({"arm": arm.label, "seed": seed})
            points.append(centre + (0.95 + 0.05 * seed) * size * np.array([np.cos(turn), np.sin(turn)]))
    points = np.array(points)
    far = np.linalg.norm(points[:, None] - points[None], axis=-1)
    towards = {arm.label: to_teachers(arm, models, far) for arm in arms}
    return {"models": models, "similarity": (1 - far / 2).tolist(), "to_teachers": towards}


def to_teachers(arm, models, far):
    """As the study has it: of a student its similarity to its own teacher, alone to all teachers."""
    places = {name: [i for i, one in enumerate(models) if one["arm"] == name] for name in {m["arm"] for m in models}}
    own, said = places[arm.label], {}
    for teacher in [name for name in places if "→" not in name]:
        if arm.teacher == teacher:
            said[teacher] = [1 - far[i, j] / 2 for i, j in zip(own, places[teacher], strict=True)]
        elif arm.teacher is None and teacher != arm.label:
            said[teacher] = (1 - far[np.ix_(own, places[teacher])] / 2).tolist()
    return said


def made_up(setup, right=1):
    """Results of every arm."""
    arms = grid(tuple(LEVELS[setup]))
    entries = [
        {"arm": arm.label, "student": arm.student, "teacher": arm.teacher, "metrics": metrics_of(setup, arm, right)}
        for arm in arms
    ]
    shown = representations_of(setup, arms, right)
    return {"setup": setup, "scale": "small", "arms": entries, "representations": shown}


def committed(setup):
    """Results of a run that was made."""
    return read(STUDY, ROOT / RESULTS / "abnar_2020" / {"images": "digits"}.get(setup, setup) / "results.json")


def broken(setup):
    """Of a run: one seed of its first arm only, another arm without any, a third missing, no representations."""
    results = committed(setup) | {"representations": None}
    one, none, *_ = results["arms"] = [arm for arm in results["arms"] if not arm.pop("reported", None)]
    for found in one["metrics"].values():
        found.update(sd=None, values=found["values"][:1])
    one.update(seeds=[1], diverged=[2, 3])
    none.update(seeds=[], diverged=[1, 2, 3], metrics={}, reliability=[], bins={})
    del results["arms"][2]
    return results


# Claims


@pytest.mark.parametrize("setup", SETUPS)
def test_every_claim_is_reproduced_where_the_paper_is_right(setup):
    for claim in claims.claims(made_up(setup)):
        assert claim.verdict == REPRODUCED and claim.seeds == 3 and claim.measured, str(claim)


def with_better_teachers(results):
    """The same, but those that the paper has as good teachers are best in every accuracy."""
    results = deepcopy(results)
    for arm in results["arms"]:
        if arm["teacher"] is None and arm["student"] in STRONG:
            names = [name for name in arm["metrics"] if name in (*ACCURACIES, *IMAGES)]
            arm["metrics"] |= {name: metric(0.999, 0.0005) for name in names}
    return results


@pytest.mark.parametrize("setup", SETUPS)
def test_no_claim_is_reproduced_where_it_is_wrong_in_everything(setup):
    wrong = made_up(setup, right=-1)
    presupposing = 0
    for claim, taught in zip(claims.claims(wrong), claims.claims(with_better_teachers(wrong)), strict=True):
        if "premise" in claim.measured:
            presupposing += 1
            assert claim.verdict == NOT_RUN, str(claim)
            claim = taught
        if "similar perplexity" not in claim.text and "whichever" not in claim.text:
            assert claim.effect < 0 and claim.verdict != REPRODUCED, f"oriented the wrong way round: {claim}"
    assert presupposing > 3, "claims that a teacher hands something on presuppose that it has it"


@pytest.mark.parametrize("setup", SETUPS)
def test_what_is_missing_was_not_run(setup):
    empty = {"setup": setup, "arms": []}
    assert {claim.verdict for claim in claims.claims(empty)} == {NOT_RUN}
    assert all(claim.measured.startswith("no ") for claim in claims.claims(empty))
    results = made_up(setup)
    gone = results["arms"][-1]
    gone.update(seeds=[], diverged=[1, 2, 3], metrics={})
    for claim, whole in zip(claims.claims(results), claims.claims(made_up(setup)), strict=True):
        named = gone["arm"] in claim.measured
        assert (claim.verdict == NOT_RUN) == named, str(claim)
        assert named or claim._replace(p_holm=None) == whole._replace(p_holm=None)


@pytest.mark.parametrize("setup", SETUPS)
def test_without_the_teacher_nothing_is_said_of_what_it_hands_on(setup):
    """A premise that cannot be looked at does not hold."""
    results = made_up(setup)
    strong = next(iter(LEVELS[setup]))
    results["arms"] = [arm for arm in results["arms"] if arm["arm"] != strong]
    found = [one for one in claims.claims(results) if one.about.startswith(f"{strong} →") and "above" in one.text]
    assert found
    for claim in found:
        if "taught by each" not in claim.text:
            assert claim.verdict == NOT_RUN and strong in claim.measured, str(claim)


@pytest.mark.parametrize("setup", SETUPS)
def test_one_seed_gives_no_verdict(setup):
    results = made_up(setup)
    for arm in results["arms"]:
        for found in arm["metrics"].values():
            found["values"] = found["values"][1:2]
    for claim in claims.claims(results):
        if "varies less" in claim.text:
            assert claim.verdict == NOT_RUN and "two seeds" in claim.measured
        elif "representations" not in claim.text and "similar perplexity" not in claim.text:
            assert claim.verdict == INCONCLUSIVE and claim.interval is None and claim.seeds == 1, str(claim)


@pytest.mark.parametrize("setup", SETUPS)
def test_every_paired_interval_that_is_asked_for_is_used(setup):
    """One that holds zero takes the verdict away, whichever arm is named first; it is added to that over seeds."""
    of_claims = {one[:3] for statement in claims.CLAIMS[setup] for one in statement.comparisons}
    asked = [one for one in claims.comparisons(setup) if one in of_claims]
    more = {frozenset(one) for one in questions.comparisons(setup) if one[2] in claims.PAIRED}
    assert more <= set(map(frozenset, claims.comparisons(setup))), "questions have paired intervals too"
    if setup == "lm":  # needed only where the Small LSTM has the best perplexity
        asked.remove(("LSTM", "Small LSTM", "a"))
    assert len(set(asked)) == len(asked) and {metric for *_, metric in asked} <= set(claims.PAIRED)
    whole = made_up(setup)
    for first, second, metric in asked:
        interval = {"mean": 0.0, "low": -5.0, "high": 5.0}
        for key in (f"{first} | {second}", f"{second} | {first}"):
            results = whole | {"differences": {key: {metric: interval}}}
            pairs = zip(claims.claims(results), claims.claims(whole), strict=True)
            found = [one for one, before in pairs if one.verdict != before.verdict]
            assert found and {one.verdict for one in found} == {INCONCLUSIVE}, (
                f"{key} in {metric} was asked for in vain"
            )


def test_the_paired_interval_is_put_together_with_that_over_seeds():
    results = made_up("images")
    comparison = Comparison("CNN → MLP", "MLP", "accuracy_scaled")
    over_seeds = of_seeds(*(effects.values(results, arm, comparison.metric) for arm in comparison[:2]))
    size = effects.difference(results, comparison).estimate.size
    examples = size - 0.03, size + 0.01
    results["differences"] = {"CNN → MLP | MLP": {"accuracy_scaled": dict(zip(("low", "high"), examples, strict=True))}}
    expected = pytest.approx(estimate(size, over_seeds, examples).interval)
    assert effects.difference(results, comparison).estimate.interval == expected
    other = Comparison("MLP", "CNN → MLP", "accuracy_scaled", sign=-1)
    assert effects.difference(results, other).estimate.interval == expected


@pytest.mark.parametrize("setup", SETUPS)
def test_the_paper_s_numbers_are_those_of_the_part_that_is_shown(setup):
    """And its effect is what is looked for in the interval."""
    shown = 0
    for claim in claims.claims(made_up(setup)):
        part = claim.measured.removeprefix("least: ").split(" against ")
        names = [re.sub(r" [\d.]+$", "", side) for side in part]
        beside = claim.published.removeprefix("least: ").split(" against ")
        if claim.measured.startswith("least: ") and claim.published:
            shown += 1
            assert [re.sub(r" [\d.]+[†‡§]?$", "", side) for side in beside] == names, str(claim)
            assert claim.published_inside in ("yes", "no")
    assert shown or setup == "images"


def test_jackknife_against_leaving_each_out():
    """Pseudo-values of the mean over pairs: n U - (n-1) U without one."""
    similarity = np.random.default_rng(0).random((5, 5))
    similarity = (similarity + similarity.T) / 2

    def over_pairs(models):
        return np.mean([similarity[pair] for pair in itertools.combinations(models, 2)])

    means = [float(np.mean([similarity[i, j] for j in range(5) if j != i])) for i in range(5)]
    expected = [5 * over_pairs(range(5)) - 4 * over_pairs([j for j in range(5) if j != i]) for i in range(5)]
    assert effects.jackknifed(means) == pytest.approx(expected)
    assert effects.jackknifed(means[:2]) == []


def test_nearness_varies_with_the_teachers_too():
    """The models alone share them: the interval covers the truth in 95% of draws of models and teachers."""
    draw, covered = np.random.default_rng(0), 0
    for _ in range(1000):
        teachers, taught, alone = 0.02 * draw.normal(size=4), 0.01 * draw.normal(size=4), 0.01 * draw.normal(size=4)
        towards = {
            "A → B": {"A": (0.9 + teachers + taught).tolist()},
            "B": {"A": (0.8 + alone[:, None] + teachers).tolist()},
        }
        part = effects.nearer({"representations": {"to_teachers": towards}}, "A → B", "B", "A")
        low, high = part.estimate.interval
        covered += low <= 0.1 <= high
    assert covered >= 940


def test_nearness_of_older_results_is_read_off_all_similarities():
    """Where teachers taught as they were at their end; elsewhere no interval is known."""
    results = committed("lm")
    found = effects.nearer(results, "LSTM → Transformer", "Transformer", "LSTM")
    assert found.estimate.interval is not None and found.text == "0.9771 against 0.9662"
    assert (
        effects.nearer(results | {"teaching": "best"}, "LSTM → Transformer", "Transformer", "LSTM").estimate.interval
        is None
    )


def test_the_ratio_of_deviations_holds_what_it_should():
    """The 95% interval covers the true ratio in 95% of draws."""
    draw, covered = np.random.default_rng(0), 0
    for _ in range(4000):
        values = {"A": 2 * draw.normal(size=3), "B": draw.normal(size=4)}
        arms = [{"arm": name, "metrics": {"a": {"values": found.tolist()}}} for name, found in values.items()]
        size, (low, high), p = effects.steadier({"setup": "lm", "arms": arms}, "A", "B", "a").estimate
        covered += low <= np.log(0.5) <= high
        assert (low <= 0 <= high) == (p >= 0.05)
    assert covered == pytest.approx(3800, abs=35), "with the two sides' degrees of freedom swapped it is 3,740"


def test_an_unpaired_interval_is_that_of_two_means():
    """Of each arm's own examples: the reaches add in squares, and those over seeds are added to that."""
    results = {"setup": "lm", "arms": [], "differences": {}}
    for name, mean, low, high in (("A", 0.9, 0.87, 0.92), ("B", 0.8, 0.76, 0.83)):
        found = {"mean": mean, "low": low, "high": high, "values": [mean - 0.01, mean + 0.01]}
        results["arms"].append({"arm": name, "metrics": {"d": found}})
    found = effects.unpaired(results, "A", "B", "d")
    assert found == pytest.approx((0.1 - (0.03**2 + 0.03**2) ** 0.5, 0.1 + (0.02**2 + 0.04**2) ** 0.5))
    assert effects.unpaired(results, "B", "A", "d") == pytest.approx((-found[1], -found[0]))
    expected = estimate(0.1, of_seeds([0.89, 0.91], [0.79, 0.81]), found).interval
    assert effects.difference(results, Comparison("A", "B", "d")).estimate.interval == pytest.approx(expected)
    del results["arms"][1]["metrics"]["d"]["low"]
    assert effects.unpaired(results, "A", "B", "d") is None
    assert effects.unpaired(results, "A", "C", "d") is None


def test_the_best_perplexity_may_be_anyone_s():
    results = made_up("lm")
    arms = {arm["arm"]: arm for arm in results["arms"]}
    arms["Transformer"]["metrics"]["perplexity"] = metric(50.0, 0.1)
    found = {claim.text: claim for claim in claims.claims(results)}
    chosen = found["in A, the LSTM is above whichever model has the best perplexity here"]
    assert chosen.verdict == REPRODUCED and chosen.measured.endswith("the best: Transformer")
    assert found["has the best perplexity, yet is below the LSTM in A"].verdict == CONTRADICTED
    arms["LSTM"]["metrics"]["perplexity"] = metric(40.0, 0.1)
    found = {claim.text: claim for claim in claims.claims(results)}
    alone = found["in A, the LSTM is above whichever model has the best perplexity here"]
    assert alone.verdict == NOT_RUN and "the best in perplexity is the LSTM itself" in alone.measured
    assert found["and that at similar perplexity"].verdict == CONTRADICTED


def test_what_is_said_of_a_is_asked_by_gold_counts_too():
    """Unless there are none."""
    for setup in ("lm", "classification"):
        results = made_up(setup)
        texts = [claim.text for claim in claims.claims(results)]
        gold = [text for text in texts if "A by gold counts" in text]
        assert gold, setup
        counted = {text.replace("A by gold counts", "A") for text in gold}
        assert counted <= set(texts), "each has its counterpart by the test set's own counts"
        for arm in results["arms"]:
            del arm["metrics"]["a_gold"]
        assert [claim.text for claim in claims.claims(results)] == [text for text in texts if text not in gold]


# Published numbers


def test_published_numbers_and_their_marks():
    said = published.number
    assert str(said("lm", "LSTM → Transformer", "a")) == "0.9296"
    assert str(said("lm", "LSTM", "d")) == "0.9501 ± 0.0018"
    assert str(said("lm", "Transformer", "perplexity")) == "57.50 ± 0.12‡"
    assert str(said("classification", "LSTM → UTransformer-seq", "mu")) == "0.975‡"
    assert str(said("classification", "UTransformer-seq → LSTM", "a")) == "0.8447"
    assert str(said("classification", "Transformer", "ece_original")) == "0.055‡"
    assert str(said("images", "CNN → MLP", "accuracy_translated")) == "0.510 ± 0.0148"
    assert said("classification", "LSTM → Transformer", "a") is None, "no source has it"
    assert said("lm", "Transformer → GRU", "a") is None


def test_every_arm_of_the_paper_has_numbers():
    for setup, levels in LEVELS.items():
        assert set(published.PUBLISHED[setup]) == {arm.label for arm in grid(tuple(levels))}
    for numbers in published.PUBLISHED.values():
        for found in itertools.chain.from_iterable(row.values() for row in numbers.values()):
            assert 0 < found.value < 60 and found.mark in published.MARKS
            assert found.deviation is None or 0 < float(found.deviation) < 0.2


def test_the_paper_s_numbers_agree_with_its_claims():
    """A number typed wrongly, or a claim the wrong way round, would show here."""
    for setup, statements in claims.CLAIMS.items():
        for link in itertools.chain.from_iterable(statement.comparisons for statement in statements):
            first, second = (published.number(setup, arm, link.metric) for arm in link[:2])
            if first and second:
                assert link.sign * (first.value - second.value) > 0, link


# Tables


def parts_of(results):
    """Heading -> rows, with the head."""
    return {part.title: [part.table.columns, *part.table.rows] for part in tables.sections(results) if part.table}


@pytest.mark.parametrize("setup", SETUPS)
def test_tables_hold_every_arm_and_note(setup):
    results = committed(setup)
    (head, *rows), notes = parts_of(results)[""], tables.sections(results)[-1].points
    assert sorted(row[0] for row in rows) == sorted(arm["arm"] for arm in results["arms"])
    alone = [arm["arm"] for arm in results["arms"] if arm["teacher"] is None]
    assert [row[0] for row in rows[: len(alone)]] == alone, "first those that were trained alone"
    assert all(len(row) == len(head) for row in rows)
    for note in (*published.NOTES[setup], "paper: † from memory, not verified; ‡ read off a figure; – not known"):
        assert note in notes
    if setup != "images":
        bins = results["arms"][0]["bins"]["distance"]
        (thin,) = [note for note in notes if note.startswith("bins of fewer than 100")]
        assert all((f"distance {name}: " in thin) == (found["n"] < 100) for name, found in bins.items())


@pytest.mark.parametrize("setup", SETUPS)
def test_what_teachers_teach_is_told_of_teachers(setup):
    results = committed(setup)
    for arm in results["arms"]:
        arm["metrics"] = {name: of for name, of in arm["metrics"].items() if not name.startswith("taught_")}
    assert "Soft targets" not in parts_of(results), "it was not looked at"
    alone = next(arm for arm in results["arms"] if arm["teacher"] is None)
    columns = tables.AS_TEACHER[setup]
    alone["metrics"] |= {name: metric(0.1234, 0.001) for name in columns.values()}
    assert parts_of(results)["Soft targets"][1:] == [[alone["arm"], *["0.1234 ± 0.0010"] * len(columns)]]


def test_published_numbers_stand_beside_ours():
    results = committed("lm")
    parts, of = parts_of(results), {arm["arm"]: arm["metrics"] for arm in results["arms"]}

    def ours(name):
        return f"{of[name]['d']['mean']:.4f} ± {of[name]['d']['sd']:.4f}"

    head, *rows = parts[""]
    row = next(row for row in rows if row[0] == "LSTM")
    assert row[head.index("D") : head.index("D") + 2] == [ours("LSTM"), "0.9501 ± 0.0018"]
    assert row[head.index("PPL of batches") + 1] == "56.15 ± 0.09‡"
    head, *rows = parts["D by teacher (rows) and student (columns)"]
    rows, column = {row[0]: row for row in rows}, head.index("Transformer")
    assert rows["none"][column] == f"{ours('Transformer')} (0.9417)"
    assert rows["LSTM"][column] == f"{ours('LSTM → Transformer')} (0.9492)", "the row is the teacher"
    assert rows["Transformer"][head.index("LSTM")] == "– (0.9439)", "an arm that was not made"


@pytest.mark.parametrize("setup", SETUPS)
def test_tables_of_broken_results(setup):
    results = broken(setup)
    first, second = (arm["arm"] for arm in results["arms"][:2])
    rows = {row[0]: row for row in parts_of(results)[""]}
    assert rows[first][2] == "1 (2 diverged)" and "±" not in rows[first][3], "one seed has no deviation"
    assert rows[second][2] == "0 (3 diverged)" and rows[second][3] == "–"
    said = f"seeds that diverged, or whose teacher did: {first}: 2, 3; {second}: 1, 2, 3"
    assert said in tables.sections(results)[-1].points
    assert NOT_RUN in {claim.verdict for claim in claims.claims(results)}
    assert findings.headline(results).setting and isinstance(findings.findings(results), list)


def test_what_was_found_is_told_with_its_interval():
    results = committed("lm")
    comparison = Comparison("LSTM → Transformer", "Transformer", "a")
    size, (low, high), _ = effects.difference(results, comparison).estimate
    told = f"{size:+.3f} [{low:+.3f}, {high:+.3f}]"
    assert findings.headline(results).effect == f"LSTM → Transformer: A {told}"
    assert f"Taught by LSTM, A against the same model alone: Transformer {told}." in findings.findings(results)
    nothing = results | {"arms": [], "representations": None, "mistakes": {}}
    assert findings.headline(nothing).effect == "–" and findings.findings(nothing) == []


# Plots


@pytest.mark.parametrize("setup", SETUPS)
def test_plots_are_what_the_results_allow(setup):
    whole = {"grid", "calibration", "variation", "representations", "learning_paths"}
    whole |= {"accuracy"} if setup == "images" else {"accuracy_by_distance", "accuracy_by_attractors"}
    nothing = committed(setup) | {"arms": [], "representations": None}
    # Of the classifiers nothing of several seeds is left.
    missing = {"representations", "learning_paths"} | ({"variation"} if setup == "classification" else set())
    without = broken(setup), whole - missing
    for results, expected in ((committed(setup), whole), without, (nothing, set())):
        drawn = {name: draw(results) for name, draw in plots.PLOTS.items()}
        assert {name for name, figure in drawn.items() if figure is not None} == expected
        plots.pyplot.close("all")


def test_a_plot_with_nothing_to_show_does_not_stay(tmp_path):
    """In a directory that had other results."""
    core_plots.write(core_plots.drawn({"accuracy": plots.accuracy}, committed("images")), tmp_path)
    assert (tmp_path / "accuracy.png").is_file()
    assert core_plots.write(core_plots.drawn({"accuracy": plots.accuracy}, committed("lm")), tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_paths_are_walked_in_the_order_of_their_epochs():
    results = committed("images")
    straight = plots.learning_paths(results).axes[0].lines
    for path in results["representations"]["paths"]:
        path["epochs"].reverse()
        path["points"].reverse()
    turned = plots.learning_paths(results).axes[0].lines
    for one, other in zip(straight, turned, strict=True):
        np.testing.assert_array_equal(one.get_xydata(), other.get_xydata())
    plots.pyplot.close("all")


def test_an_architecture_of_one_s_own_is_drawn_too():
    results = committed("images")
    for arm in results["arms"]:
        for role in ("student", "teacher"):
            arm[role] = {"MLP": "Mixer"}.get(arm[role], arm[role])
    assert all(draw(results) for draw in (plots.grid, plots.accuracy, plots.calibration))
    plots.pyplot.close("all")


def test_names_do_not_overlap():
    """Those of the setup with the longest names, at the size they are drawn in."""
    for draw in (plots.grid, plots.calibration):
        figure = draw(committed("classification"))
        figure.canvas.draw()
        for texts in (*(axes.texts for axes in figure.axes), [axes.title for axes in figure.axes if axes.get_title()]):
            boxes = [text.get_window_extent() for text in texts]
            for place, box in enumerate(boxes):
                assert not any(box.overlaps(other) for other in boxes[place + 1 :]), "make the panels wider"
        plots.pyplot.close(figure)


@pytest.mark.parametrize("setup", SETUPS)
def test_a_premise_is_of_the_teacher_as_it_teaches(setup):
    """Not of the end of its training, which its students have not seen."""
    results = made_up(setup)
    told = {claim.verdict for claim in claims.claims(results) if "above" in claim.text}
    for arm in results["arms"]:
        if arm["teacher"] is None:
            worst = {f"taught_{name}": metric(0.0, 0.001) for name in arm["metrics"]}
            arm["metrics"] |= worst
    found = claims.claims(results)
    assert told != {NOT_RUN} and any("premise does not hold" in claim.measured for claim in found)
    for arm in results["arms"]:
        arm["metrics"] = {name: of for name, of in arm["metrics"].items() if not name.startswith("taught_")}
    assert [claim.verdict for claim in claims.claims(results)] != [claim.verdict for claim in found]


# What goes beyond the paper's claims


def test_mistakes_against_counting():
    """Of examples 0 to 9 the student gets 0, 1, 2 and 3 wrong, the teacher 2, 3 and 4."""
    student, teacher = np.arange(10) > 3, ~np.isin(np.arange(10), (2, 3, 4))
    found = mistakes.overlap(student, teacher)
    alike, chance = 0.7, 0.6 * 0.7 + 0.4 * 0.3
    assert found == pytest.approx({"shared": 0.5, "expected": 0.3, "consistency": (alike - chance) / (1 - chance)})
    assert mistakes.overlap(student, student)["consistency"] == pytest.approx(1)
    everything = np.ones(10, bool)
    assert mistakes.overlap(everything, teacher) == {"shared": 0.3, "expected": pytest.approx(0.3), "consistency": 0.0}


def test_mistakes_are_compared_with_the_own_teacher():
    """Alone with all of them, and not with models of the same architecture."""
    right = np.random.default_rng(0).random((5, 2, 40)) > 0.3
    correct = dict(zip(("A", "B", "A → B"), right, strict=False))
    found = mistakes.of_arms(correct, {"A → B": ("A", right[3])}, {"A": right[3], "B": right[4]})
    assert found["A → B"]["A"] == mistakes.with_own(right[2], right[3]) and set(found["A"]) == {"B"}
    each = [mistakes.overlap(right[1, 0], teacher)["consistency"] for teacher in right[3]]
    assert found["B"]["A"]["consistency"][0] == pytest.approx(np.mean(each))
    one = mistakes.with_own(right[2], right[3, :1])
    assert one["shared"][1] == mistakes.overlap(right[2, 1], right[3, 0])["shared"]


@pytest.mark.parametrize("setup", SETUPS)
def test_questions_are_answered_by_arms_of_the_scales(setup):
    """Every arm that a contrast names can be made, and its two sides differ."""
    made = {arm for scale in scales.SCALES.values() if scale.setup == setup for arm in scale.arms}
    for question in questions.QUESTIONS[setup]:
        for contrast in question.contrasts:
            assert {contrast.first, contrast.second} <= made and contrast.first != contrast.second, contrast.text
    shown = questions.sections(made_up(setup))
    assert shown and all(len(row) == len(part.table.columns) for part in shown for row in part.table.rows)


def test_an_effect_of_the_size_that_is_told_is_found_in_80_of_100_runs():
    draw, found, told = np.random.default_rng(0), 0, []
    for _ in range(2000):
        a, b = draw.normal(size=(2, 5))
        told.append(detectable(welch(a.tolist(), b.tolist()).interval, 5))
    effect = float(np.mean(told))
    for _ in range(2000):
        a, b = draw.normal(size=(2, 5))
        found += welch((a + effect).tolist(), b.tolist()).interval[0] > 0
    assert 0.72 < found / 2000 < 0.88
    assert detectable(None, 5) is None


def test_what_the_seeds_could_show_stands_beside_the_paper_s_effect():
    results = made_up("classification")
    for arm in results["arms"]:
        arm["metrics"]["mu"] = metric(0.9, 0.01)
    rows = claims.power(results)
    assert rows and all(claim.verdict == INCONCLUSIVE for claim in claims.claims(results) if claim.text == rows[0][1])
    (told,) = [one for one in findings.findings(results) if one.startswith("Of ")]
    assert told.startswith(f"Of {len(rows)} inconclusive claims")


def test_what_being_taught_gives_by_itself_is_told_like_for_like():
    (told,) = [one for one in findings.findings(committed("lm")) if one.startswith("Similarity to the LSTM's")]
    assert told.endswith("has 65% of what the LSTM's student gains.")


def test_answers_come_first_where_there_are_controls():
    results = made_up("lm") | {"ways": {"matched": "no better"}}
    told = findings.findings(results)
    for student in ("Small Transformer", "Transformer"):
        answer = next(one for one in told if one.startswith(f"Is a bias handed on to the {student}, "))
        assert f"Small LSTM → {student} against {student} → {student}" in answer and "(matched)" not in answer
    assert told[0].startswith("Is a bias handed on")


def test_a_model_that_teaches_ways_alone_has_no_panel_of_its_own():
    results = made_up("classification")
    arms = [arm for arm in results["arms"] if arm["teacher"] in (None, "LSTM")]
    arms.append({**arms[-1], "arm": "LSTM (cross-fit)", "teacher": "Transformer", "way": "cross-fit"})
    assert tables.teachers({**results, "arms": arms, "ways": {"cross-fit": ""}}) == [None, "LSTM"]
