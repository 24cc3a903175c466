"""Arms of an earlier results.json beside those that were made here."""

from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
from test_abnar_2020_report import made_up

from experiments.abnar_2020 import accuracy, answers, claims, earlier, effects, plots, tables
from experiments.abnar_2020.arms import grid
from experiments.abnar_2020.effects import Comparison
from experiments.core.claims import NOT_RUN, together, welch
from seqkd_jax.types import UserError

MODELS = ("LSTM", "Transformer")
STRATA = {"distance": np.arange(60) % 7 + 1, "intervening": np.arange(60) % 3, "attractors": np.arange(60) % 3}
MADE = SimpleNamespace(scale=SimpleNamespace(arms=grid(MODELS), setup="classification"))
MADE.task = SimpleNamespace(strata=STRATA, tests={"test": SimpleNamespace(truth=np.zeros(60, int))})
HERE = ("LSTM", "LSTM → Transformer")


def split(names=HERE):
    """(all arms as an earlier report, those of these names as if made alone): the same numbers."""
    whole = made_up("classification", models=MODELS) | {"differences": {}, "commit": "1234567890", "finished": "then"}
    pairs = ("LSTM | Transformer", "LSTM → Transformer | Transformer", "LSTM | LSTM → Transformer")
    whole["differences"] = {pair: {"mu": {"mean": 0.1, "low": 0.09, "high": 0.11}} for pair in pairs}
    here = deepcopy(whole)
    here["arms"] = [arm for arm in here["arms"] if arm["arm"] in names]
    here["differences"] = {
        pair: found for pair, found in here["differences"].items() if set(pair.split(" | ")) <= {*names}
    }
    if not names:
        return whole, here | {"representations": None}
    found = here["representations"]
    kept = [i for i, model in enumerate(found["models"]) if model["arm"] in names]
    found["similarity"] = [[found["similarity"][i][j] for j in kept] for i in kept]
    for key in ("models", "map"):
        found[key] = [found[key][i] for i in kept]
    found["paths"] = [path for path in found["paths"] if path["arm"] in names]
    towards = {arm: found["to_teachers"][arm] for arm in names}
    found["to_teachers"] = {
        arm: {name: of for name, of in said.items() if name in names} for arm, said in towards.items()
    }
    return whole, here


def joined(here, there):
    """Of reports whose answers were not kept; all that is here had been asked for."""
    return earlier.joined(MADE, (here, {}), (there, {}), [arm["arm"] for arm in here["arms"]])[0]


def drawn():
    """What arms of MODELS have right."""
    random = np.random.default_rng(0)
    return {arm.label: {"test": random.random((3, 60)) < 0.8} for arm in grid(MODELS)}


def test_with_the_same_numbers_everything_is_as_if_made_together():
    whole, here = split()
    joint = joined(here, whole)
    assert [arm["arm"] for arm in joint["arms"]] == [arm["arm"] for arm in whole["arms"]]
    assert {arm["arm"] for arm in joint["arms"] if "reported" in arm} == {
        arm["arm"] for arm in whole["arms"] if arm["arm"] not in HERE
    }
    assert joint["differences"] == whole["differences"]
    assert claims.claims(joint) == claims.claims(whole)
    assert "taken from results of commit 1234567: " in tables.table(joint)
    for draw in plots.PLOTS.values():
        draw(joint)


def test_of_an_arm_that_was_made_anew_only_what_is_seen_here_is_said():
    """Its paired differences from arms that were taken, and how near those are to it, are not known."""
    whole, here = split()
    for arm in here["arms"]:
        found = arm["metrics"]["mu"]
        found["values"] = [value + 1e-4 for value in found["values"]]
    joint = joined(here, whole)
    assert joint["differences"] == here["differences"]
    agreement = {arm["arm"]: "agreement" in arm["metrics"] for arm in joint["arms"] if arm["teacher"]}
    assert agreement == {name: name == "LSTM → Transformer" or "Transformer →" in name for name in agreement}, (
        "with an LSTM that is not in these results"
    )
    towards = joint["representations"]["to_teachers"]
    assert towards["LSTM → Transformer"] == here["representations"]["to_teachers"]["LSTM → Transformer"]
    assert towards["Transformer"] == {}
    nearer = effects.nearer(joint, "LSTM → Transformer", "Transformer", "LSTM")
    assert nearer.size is None and nearer.missing == ("similarity to LSTM of Transformer",)
    closer = effects.closer_together(joint, "LSTM → Transformer", "Transformer")
    assert closer == effects.closer_together(whole, "LSTM → Transformer", "Transformer"), "each of its own report"
    assert NOT_RUN in {claim.verdict for claim in claims.claims(joint)}


@pytest.mark.parametrize("here_again", [("Transformer",), ("LSTM",), ()])
def test_whichever_arms_are_made_again_the_verdicts_are_the_same(here_again):
    """Unless one of them has other values; with none the report is the earlier one."""
    whole, here = split(here_again)
    assert claims.claims(joined(here, whole)) == claims.claims(whole)


def test_a_teacher_that_was_made_anew_only_to_teach_does_not_replace_the_one_before():
    """What stands of the others with it stands on; the new student is told to have had another teacher."""
    whole, here = split()
    student = "LSTM → Transformer"
    whole["arms"] = [arm for arm in whole["arms"] if arm["arm"] != student]
    for arm in here["arms"]:
        if arm["arm"] == "LSTM":
            arm["metrics"]["mu"]["values"] = [0.1, 0.2, 0.3]
    right = drawn()
    joint, kept = earlier.joined(MADE, (here, {name: right[name] for name in HERE}), (whole, {}), [student])
    entries = {arm["arm"]: arm for arm in joint["arms"]}
    before = next(arm for arm in whole["arms"] if arm["arm"] == "LSTM")
    assert entries["LSTM"]["metrics"] == before["metrics"] and "reported" in entries["LSTM"]
    assert entries[student]["teacher_made_anew"] and "reported" not in entries[student]
    assert kept.keys() == {student}, "answers of a teacher that is not in the report"
    assert joint["differences"]["LSTM | Transformer"] == whole["differences"]["LSTM | Transformer"]
    shown = joint["representations"]
    assert {model["arm"] for model in shown["models"]} >= {"LSTM", "Transformer"}, "the larger map is shown"
    assert len(shown["map"]) == len(shown["similarity"]) == len(shown["models"])
    table = tables.table(joint)
    assert f"taught by teachers trained anew, which are not those of this table: {student}" in table
    asked = earlier.joined(MADE, (here, {}), (whole, {}), HERE)[0]["arms"]
    assert next(arm for arm in asked if arm["arm"] == "LSTM")["metrics"]["mu"]["values"] == [0.1, 0.2, 0.3]


def test_an_unpaired_interval_is_that_of_two_means():
    """Of each arm's own examples: the reaches add in squares, and those over seeds are added to that."""
    results = {"arms": [], "differences": {}}
    for name, mean, low, high in (("A", 0.9, 0.87, 0.92), ("B", 0.8, 0.76, 0.83)):
        values = [mean - 0.01, mean + 0.01]
        results["arms"].append(
            {"arm": name, "metrics": {"d": {"mean": mean, "low": low, "high": high, "values": values}}}
        )
    found = effects.unpaired(results, "A", "B", "d")
    assert found == pytest.approx((0.1 - (0.03**2 + 0.03**2) ** 0.5, 0.1 + (0.02**2 + 0.04**2) ** 0.5))
    assert effects.unpaired(results, "B", "A", "d") == pytest.approx((-found[1], -found[0]))
    seeds = welch([0.89, 0.91], [0.79, 0.81])
    assert effects.difference(results, Comparison("A", "B", "d")).interval == pytest.approx(together(0.1, seeds, found))
    del results["arms"][1]["metrics"]["d"]["low"]
    assert effects.unpaired(results, "A", "B", "d") is None
    assert effects.unpaired(results, "A", "C", "d") is None


def test_what_was_taken_stays_taken():
    """An arm keeps the commit of the report that it was made for."""
    whole, here = split()
    first = joined(here, whole) | {"commit": "later", "finished": "now"}
    alone = here | {"arms": here["arms"][:1]}
    again = joined(alone, first)
    reported = {arm["arm"]: arm.get("reported", {}).get("commit") for arm in again["arms"]}
    assert reported["LSTM"] is None and reported["LSTM → Transformer"] == "later"
    assert reported["Transformer"] == "1234567890"
    assert effects.alike(again, "Transformer") == effects.alike(whole, "Transformer")


def test_answers_that_were_kept_are_compared_example_by_example():
    """Of an arm from there and one that was made anew: as if both had been made together."""
    whole, here = split()
    right = drawn()
    anew = {name: {"test": ~right[name]["test"]} for name in HERE}
    for arm in here["arms"]:
        arm["metrics"]["mu"]["values"] = [0.2, 0.3, 0.4]
    joint, kept = earlier.joined(MADE, (here, anew), (whole, right), HERE)
    assert kept.keys() == right.keys()
    for name in right:
        expected = anew.get(name, right[name])["test"]
        np.testing.assert_array_equal(kept[name]["test"], expected, f"answers of {name}")
    assert joint["differences"].items() >= answers.differences("classification", STRATA, kept).items()
    pair = kept["LSTM → Transformer"]["test"], kept["Transformer"]["test"]
    found = effects.paired(joint, "LSTM → Transformer", "Transformer", "mu")
    assert found == tuple(accuracy.difference(*pair)[end] for end in ("low", "high"))


def test_answers_come_back_bit_by_bit(tmp_path):
    """And a file that is not the one that results.json was written with is refused."""
    right, path = drawn(), tmp_path / answers.FILE
    sha = answers.save(path, right)
    found = answers.load(path, sha, MADE.task)
    assert found.keys() == right.keys()
    for name, tests in right.items():
        np.testing.assert_array_equal(found[name]["test"], tests["test"])
        assert found[name]["test"].dtype == bool
    assert sha == answers.save(path, right), "the same answers, another file"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="answers.npz: missing, or not of the results.json beside it"):
        answers.load(path, sha, MADE.task)
    path.unlink()
    with pytest.raises(UserError, match="missing"):
        answers.load(path, sha, MADE.task)
