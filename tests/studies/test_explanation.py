"""The paper's explanation: what is told of made-up searches, tables and plots of made-up numbers; a run."""

import json
import math

import numpy as np
import pytest
from test_kim_rush_2016 import micro

from experiments.core import plots as core_plots
from experiments.core.claims import INCONCLUSIVE, NOT_RUN, REPRODUCED
from experiments.core.study import main
from experiments.kim_rush_2016 import arms, capacity, explanation, explanation_tables, states, study
from experiments.kim_rush_2016.scale import Explanation
from experiments.kim_rush_2016.scales import SCALES
from seqkd_jax.data import corpus, toy
from seqkd_jax.decoding import Hypothesis, Translation
from seqkd_jax.decoding.modes import Mode


def mode(log_prob, bound=None, text="a b"):
    return Mode("x y", text.split(), text, log_prob, log_prob if bound is None else bound, 7, log_prob)


def found(*hypotheses):
    """A translation of (text, log-probability, finished)."""
    return Translation("x y", [Hypothesis(text.split(), text, p, p, ends) for text, p, ends in hypotheses])


def test_search_errors_are_those_of_proven_modes():
    """The third sentence is not proven: what a beam found there is more probable than the best of the exact search."""
    modes = [mode(math.log(0.5)), mode(math.log(0.2), text=""), mode(math.log(0.01), bound=math.log(0.3))]
    greedy = [[("a b", math.log(0.5), True)], [("c", math.log(0.1), True)], [("d", math.log(0.02), False)]]
    wide = [*greedy[:1], [("", math.log(0.2) - 1e-6, True)], [("e", math.log(0.04), True)]]
    lists = {beam: [found(*one) for one in (greedy if beam == 1 else wide)] for beam in explanation.BEAMS}
    told = explanation.of_searches(modes, lists)
    assert told["proven"] == pytest.approx(2 / 3) and told["mode"] == pytest.approx(0.35)
    assert told["errors"] == {"1": 0.5, "2": 0.0, "5": 0.0, "10": 0.0}, "rounding is no error"
    assert told["searched"]["1"] == pytest.approx(0.3) and told["empty"] == 0.5
    assert told["known"] == pytest.approx((0.5 + 0.2 + 0.04) / 3)
    assert told["missed"]["1"] == pytest.approx(2 / 3), "what was cut is no translation"
    assert told["greedy_is_beam"] == pytest.approx(1 / 3)
    none = explanation.of_searches([mode(-3.0, bound=-1.0)], {beam: lists[beam][:1] for beam in lists})
    assert none["mode"] is None and none["errors"]["1"] is None


def test_the_mass_of_a_list_and_the_best_in_it():
    first = found(("der Hund", math.log(0.3), True), ("die Katze schläft", math.log(0.2), True), ("x", 0.0, False))
    told = explanation.of_lists({2: [first]}, ["die Katze schläft"], "none")
    assert told["mass"] == {"2": pytest.approx(0.5)}
    assert told["oracle"] == {"2": pytest.approx(100)} and told["first"]["2"] < 50


def entry(arm, seed=0, known=0.01, **others):
    of_beams = {name: {str(beam): value for beam in explanation.BEAMS} for name, value in OF_BEAMS.items()}
    numbers = dict.fromkeys(NUMBERS, 2.0) | of_beams | {"known": known, "sentences": 10} | others
    return {"arm": arm, "model": "2×100", "seed": seed, **numbers}


OF_BEAMS = {"searched": 0.1, "errors": 0.05, "missed": 0.2, "mass": 0.3, "oracle": 40.0, "first": 30.0}
NUMBERS = (
    *("proven", "mode", "empty", "bleu_mode", "bleu_beam5", "greedy_is_beam"),
    *(f"{name}_{of}" for name in ("entropy", "perplexity") for of in ("references", "own", "teacher")),
)


def results(*entries):
    named = dict.fromkeys((one["model"], one["arm"]) for one in entries)
    return {"scale": "multi30k", "arms": [{"arm": arm, "model": model} for model, arm in named], "explanation": entries}


def test_tables_and_plots_have_a_line_for_each_arm(tmp_path):
    told = results(entry(arms.BASELINE), entry("Seq-KD", 0, 0.1, mode=None), entry("Seq-KD", 1, 0.2, mode=None))
    search, mass, oracle = explanation_tables.sections(told)
    assert [row[1] for row in search.table.rows] == [arms.BASELINE, "Seq-KD"]
    assert search.table.rows[1][3] == "–", "nothing is proven"
    assert mass.table.rows[1][2] == "15.0% ± 7.1%" and oracle.table.rows[0][-1] == "40.0"
    points = np.random.default_rng(0).normal(size=(8, 2)).tolist()
    panel = {"arm": "Teacher", "model": "2×500", "points": points, "log_probs": [-1.0 - i for i in range(7)]}
    nothing = {"arm": "Seq-KD", "model": "2×100", "points": points[:1], "log_probs": [], "nearest": None}
    drawn = {"explanation": explanation_tables.plot, "decoder_states": states.plot}
    assert (
        len(core_plots.write(core_plots.drawn(drawn, told | {"states": [{**panel, "nearest": 2}, nothing]}), tmp_path))
        == 2
    )
    assert explanation_tables.sections({"arms": []}) == [] and not core_plots.write(
        core_plots.drawn(drawn, {"arms": []}), tmp_path
    )


def test_claims_are_of_students_with_both_arms_and_take_seeds():
    assert explanation.claims(results(entry("Seq-KD"))) == []
    (mass, *_) = explanation.claims(results(entry(arms.BASELINE), entry("Seq-KD", 0, 0.1)))
    assert mass.verdict == INCONCLUSIVE and mass.measured.startswith("10.0% against 1.0%, 10.0 times")
    seeds = [entry(arms.BASELINE, n, 0.01 + n / 1e4) for n in range(3)]
    seeds += [entry("Seq-KD", n, 0.1 + n / 1e3, missed={"1": 0.1}, entropy_own=1.0 + n / 10) for n in range(3)]
    mass, missed, on_teacher, entropy = explanation.claims(results(*seeds))
    assert mass.verdict == entropy.verdict == REPRODUCED and mass.seeds == 3
    assert mass.published == "16.9 against 0.9 percent / 6.9 against 1.4 percent"
    assert on_teacher.verdict == INCONCLUSIVE and NOT_RUN not in (missed.verdict, on_teacher.verdict)


def test_a_model_that_is_the_truth_holds_every_right_translation(monkeypatch):
    """And one that has only the modes holds nothing else."""
    sources = corpus.toy_pairs(5, "test", 1).sources

    class Words:
        source = target = type("", (), {"encode": staticmethod(str.split)})

    system = type("", (), {"vocabularies": Words, "translator": None, "params": None})

    def scored(probability):
        def score(translator, params, pairs, **_):
            return (math.log(probability(" ".join(source[:-1]), " ".join(target))) for source, target in pairs)

        monkeypatch.setattr(capacity, "force_score", score)
        return capacity.divergence(system, sources)

    truth = scored(toy.probability)
    assert truth["kl"] == pytest.approx(0, abs=1e-9) and truth["right"] == truth["kept"] == pytest.approx(1)
    assert truth["effective"] == pytest.approx(math.exp(np.mean([toy.entropy(source) for source in sources])))
    modes = scored(lambda source, target: 0.9 if target == toy.mode(source)[0] else 1e-9)
    assert modes["effective"] == pytest.approx(1, abs=1e-3) and modes["kept"] < 0.1 and modes["mode"] == 0.9
    assert modes["kept_mass"] == pytest.approx(np.mean([toy.mode(source)[1] for source in sources])) and modes["kl"] > 5


def test_the_record_of_sizes_is_a_table_and_a_plot(tmp_path):
    numbers = dict.fromkeys(capacity.MEASURES, 0.5) | {"parameters": 1000}
    runs = [{"arm": "Teacher", "model": "2×128", "size": 128, "seed": 1, **numbers}]
    runs += [
        {"arm": arms.BASELINE, "model": f"2×{size}", "size": size, "seed": seed, **numbers, "kl": size / seed}
        for seed in (1, 2)
        for size in (8, 16)
    ]
    record = {"command": "c", "commit": "0" * 40, "finished": "2026-01-01", "sources": 5, "runs": runs}
    record["truth"] = {"translations": 9.0, "effective": 4.0, "mode": 0.3}
    (section,) = capacity.sections(record)
    assert [row[:2] for row in section.table.rows[:2]] == [["Teacher", "2×128"], [arms.BASELINE, "2×8"]]
    assert section.table.rows[1][3] == "6.00 ± 2.83" and section.table.rows[-1][0] == "the truth"
    assert core_plots.write(core_plots.drawn({"capacity": capacity.plot}, record), tmp_path)


@pytest.mark.slow
def test_a_run_is_explained(monkeypatch, tmp_path, capfd):
    monkeypatch.setitem(SCALES, "micro", (micro(),))
    monkeypatch.setitem(explanation.AMOUNTS, "micro", Explanation(6, 40))
    asked = ["--scale", "micro", "--out", str(tmp_path), "--explanation", "--only", "baseline", "seq_kd"]
    assert main(study.STUDY, [*asked, "--dry-run"]) == 0 and "40 prefixes at most" in capfd.readouterr().out
    status = main(study.STUDY, asked)
    told = capfd.readouterr()
    assert status == 0, told.out[-2000:] + told.err[-2000:]
    found = json.loads((tmp_path / "results.json").read_text())
    assert [one["arm"] for one in found["explanation"]] == ["Teacher", arms.BASELINE, "Seq-KD"]
    for one in found["explanation"]:
        assert one["sentences"] == 6 and 0 <= one["proven"] <= 1 and one["nodes"] <= 40
        assert one["perplexity_own"] <= one["perplexity_references"] and one["mass"]["35"] >= one["mass"]["1"]
    assert [panel["arm"] for panel in found["states"]] == list(states.ARMS)
    assert "The mode, found exactly" in told.out and (tmp_path / "plots" / "explanation.png").exists()
