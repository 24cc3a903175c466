"""Table 3: which arms prune what and are trained how; the table and the plot of made-up numbers; a run."""

import json
from dataclasses import replace

import pytest
from test_kim_rush_2016 import micro

from experiments.core import plots as core_plots
from experiments.core.study import main
from experiments.kim_rush_2016 import arms, pipeline, study, table_3
from experiments.kim_rush_2016.rows import start_of
from experiments.kim_rush_2016.scale import rows, with_seeds
from experiments.kim_rush_2016.scales import SCALES
from seqkd_jax import checkpoint
from seqkd_jax.config import PruningConfig
from seqkd_jax.utils import settings


def test_the_best_student_is_pruned_retrained_and_fine_tuned():
    scale = table_3.added(with_seeds(SCALES["multi30k"][0], 1))
    pruned = [row for row in rows(scale) if row.arm.pruning]
    assert len(pruned) == 2 * 16 and len({row.key for row in pruned}) == len(pruned)
    assert not any(row.arm.pruning for row in rows(SCALES["multi30k"][0])), "only where it is asked for"
    for retrained, tuned in zip(pruned[::2], pruned[1::2], strict=True):
        assert start_of(tuned) == retrained and start_of(retrained).arm.name == arms.BEST
        assert (retrained.arm.prunes, tuned.arm.prunes) == (True, False), "the mask is that of the start"
        assert (retrained.arm.corpus, tuned.arm.corpus) == ("seq_kd", "seq_inter")
        rates = [pipeline.train_config(scale, row.arm).optimiser.learning_rate for row in (retrained, tuned)]
        assert rates[0] == pytest.approx(0.2 * scale.training["student"].optimiser.learning_rate)
        assert rates[1] == pytest.approx(0.1 * scale.training["student"].optimiser.learning_rate)
    paper = table_3.added(SCALES["paper-en-de"][0])
    row = next(row for row in rows(paper) if row.arm.prunes)
    assert pipeline.train_config(paper, row.arm).optimiser.learning_rate == pytest.approx(0.2)


def made(*runs):
    """results.json of runs (arm, corpus, pruning, seed, BLEU at beam 5, difference)."""
    entries = []
    for arm, corpus, pruning, seed, bleu, delta in runs:
        compared = {"delta": delta, "delta_low": delta - 0.2, "delta_high": delta + 0.1, "p_value": 0.5}
        entries.append(
            {
                "arm": arm,
                "model": "2×100",
                "corpus": corpus,
                "pruning": pruning and settings.to_json(pruning),
                "parameters": 1000,
                "nonzero": 200 if pruning else 1000,
                "bytes": 925 if pruning else 4000,
                "bleu_beam1": bleu - 1,
                "bleu_beam5": bleu,
                "seed": seed,
                "compared": pruning and {"beam1": compared, "beam5": compared},
            }
        )
    return {"pruned": entries}


MOST = PruningConfig(0.8)
WHOLE = (arms.BEST, "seq_inter", None, 0, 50.0, 0.0)
TUNED = ("Pruned 80 + Seq-Inter", "seq_inter", MOST, 0, 49.6, -0.4)
UNIFORM = ("Pruned 80 class-uniform + Seq-Inter", "seq_inter", replace(MOST, rule="class_uniform"), 0, 49.0, -1.0)


def test_the_table_stands_beside_the_paper_s():
    retrained = ("Pruned 80", "seq_kd", MOST, 0, 49.1, -0.9)
    (section,) = table_3.sections(made(WHOLE, retrained, TUNED, UNIFORM))
    whole, before, tuned, uniform = (row[2:] for row in section.table.rows)
    assert whole == ["0%", "1,000", "84m", "4,000", "49.0", "–", "50.0", "–", "19.3", "–"]
    cost = "-0.4 [-0.6, -0.3]"
    assert tuned == ["80%", "200", "17m", "925", "48.6", cost, "49.6", cost, "19.1", "-0.2"]
    assert before[2] == uniform[2] == "–", "of which the paper has no number"
    (section,) = table_3.sections(made(WHOLE, TUNED, (*TUNED[:3], 1, 49.0, -0.8)))
    assert section.table.rows[1][8:10] == ["49.3", "-0.6 ± 0.3"], "the mean of two seeds"
    assert table_3.sections({"arms": []}) == [] and table_3.plot({"arms": []}) is None


def test_the_plot_is_drawn(tmp_path):
    assert core_plots.write(core_plots.drawn({"pruning": table_3.plot}, made(WHOLE, TUNED, UNIFORM)), tmp_path)


def test_a_small_cost_is_claimed_of_the_paper_s_way_alone():
    """Three seeds that lose next to nothing; a loss beyond the limit; one seed says nothing."""
    at = lambda *deltas: [(*TUNED[:3], seed, 50.0 + delta, delta) for seed, delta in enumerate(deltas)]  # noqa: E731
    judged = {
        name: table_3.claims(made(WHOLE, *runs, UNIFORM))
        for name, runs in (("close", at(0.05, 0.0, 0.1)), ("far", at(-1.5, -1.6, -1.4)), ("one", at(0.0)))
    }
    assert {name: [claim.verdict for claim in found] for name, found in judged.items()} == {
        "close": ["reproduced"],
        "far": ["contradicted"],
        "one": ["inconclusive"],
    }
    (close,) = judged["close"]
    assert close.effect == pytest.approx(0.05 + table_3.LOSS) and close.seeds == 3 and close.published == "-0.2"
    assert table_3.claims(made(WHOLE, UNIFORM)) == table_3.claims({"arms": []}) == []


@pytest.mark.slow
def test_a_pruned_student_is_made_and_told_of(monkeypatch, tmp_path, capfd):
    """Beside the tables of the arms, which are as without it."""
    monkeypatch.setitem(SCALES, "micro", (micro(),))
    monkeypatch.setitem(table_3.FEWER, "micro", (PruningConfig(0.9),))
    common = ["--scale", "micro", "--out", str(tmp_path)]
    status = main(study.STUDY, [*common, "--pruning", "--only", "pruned_90+seq_inter"])
    told = capfd.readouterr()
    assert status == 0, told.out[-2000:] + told.err[-2000:]
    found = json.loads((tmp_path / "results.json").read_text())
    assert [arm["arm"] for arm in found["arms"]] == ["Teacher", "Seq-KD", arms.BEST]
    whole, retrained, tuned = found["pruned"]
    assert tuned["nonzero"] == retrained["nonzero"] < 0.2 * whole["nonzero"] and tuned["bytes"] < 0.4 * whole["bytes"]
    assert tuned["compared"]["beam5"]["delta"] == pytest.approx(tuned["bleu_beam5"] - whole["bleu_beam5"])
    assert "Pruned 90 + Seq-Inter" in told.out and (tmp_path / "plots" / "pruning.png").exists()
    runs = [next((tmp_path / "stages").glob(f"train-pruned_90{name}-1x8-*")) for name in ("", "+seq_inter")]
    masks = [checkpoint.read_record(run / "last")["pruned"] for run in runs]
    assert masks[0] == masks[1], "one mask, held through both"
    assert main(study.STUDY, [*common, "--only", "seq_kd+seq_inter"]) == 0
