"""The ablations: lines that share what the main run made; targets; tables of made-up numbers; a run."""

import json
import math
from dataclasses import replace

import pytest
from test_kim_rush_2016 import micro

from experiments.core import dry_run, stages
from experiments.core import plots as core_plots
from experiments.core.claims import CONTRADICTED, INCONCLUSIVE, NOT_RUN, REPRODUCED
from experiments.core.study import Workspace, main
from experiments.kim_rush_2016 import pipeline
from experiments.kim_rush_2016 import study as main_study
from experiments.kim_rush_2016.ablations import study, tables, targets
from experiments.kim_rush_2016.ablations.lines import GROUPS, LINES, TWICE, Line, first_of, repeats
from experiments.kim_rush_2016.scales import SCALES
from seqkd_jax import losses
from seqkd_jax.data import corpus
from seqkd_jax.distillation import Candidate


def scale_of(name, seeds=2):
    (scale,) = study.scales(study.Command(scale=name, seeds=seeds)).values()
    return scale


@pytest.mark.parametrize("name", ["smoke", "multi30k"])
def test_lines_hold_together(name):
    scale = scale_of(name)
    assert len({line.name for line in LINES}) == len(LINES) and {line.group for line in LINES} == set(GROUPS)
    assert len({line.key for line in study.lines(scale)}) == 2 * len(LINES)
    for ablation in LINES:
        under = ablation.vary(scale)
        row = Line(ablation).row(under)
        assert row.arm.loss in losses.LOSSES and row.arm.corpus in pipeline.CORPORA
        config = pipeline.train_config(under, row.arm)
        config.validate()
        assert under.teacher_row.arm.role in under.training
        if repeats(ablation) or ablation == first_of(ablation.group):
            assert under.word_kd == scale.word_kd and under.seq_kd_search == scale.seq_kd_search


def test_updates_stay_the_same_whatever_the_corpus():
    """But for rounding: its epochs follow its length."""
    scale = scale_of("multi30k")
    epochs = scale.training["student"].epochs
    of = {line.name: line.vary(scale).training["student"].epochs for line in LINES}
    assert of["size 50%"] == 2 * epochs and of["size 25%"] == 4 * epochs
    assert of[f"beam {TWICE}"] == of[f"beam_alone {TWICE}"] == 2 * epochs
    assert of["targets the whole list, renormalised"] == round(epochs / scale.seq_kd_search.beam)


def candidate(text, probability, finished=True):
    return Candidate(text, math.log(probability), math.log(probability), finished, 1)


def test_what_a_beam_adds_is_asked_of_students_of_the_main_run():
    """Those of twice the epochs are its `--epochs`, those of twice the width its second size: the same stages."""
    scale, lines = scale_of("multi30k"), {line.name: line for line in LINES}
    longer = lines[f"beam {TWICE}"].vary(scale)
    (main_run,) = main_study.scales(main_study.Command(scale="multi30k", epochs=30)).values()
    assert longer.training == main_run.training and longer.models == main_run.models
    wide = Line(lines["beam twice as wide"]).row(lines["beam twice as wide"].vary(scale))
    assert wide.model == scale.models["student"][1] and wide.label.endswith("2×200")


def test_weights_of_a_list_are_renormalised():
    listed = [candidate("a", 0.4), candidate("b", 0.1), candidate("a", 0.1), candidate("cut", 0.3, finished=False)]
    assert targets.renormalised(listed) == {"a": pytest.approx(5 / 6), "b": pytest.approx(1 / 6)}
    assert targets.renormalised([candidate("cut", 1e-300, finished=False)]) == {"cut": 1.0}


# The table


def over_sentences(found, line, other):
    delta = found[line.value] - found[other.value]
    return {"delta": delta, "delta_low": delta - 0.1, "delta_high": delta + 0.1, "shared": 0.0}


def made(seeds=3, **shifts):
    """Results of two lines a group, with BLEU that is so much above the first's; Δ is certain to 0.1 over sentences."""
    arms = []
    for group, found in shifts.items():
        names = [line for line in LINES if line.group == group]
        for line in names:
            if line.value in found:
                own = {name: 30.0 + found[line.value] + beam for beam, name in enumerate(("bleu_beam1", "bleu_beam5"))}
                numbers = own | {"perplexity": 9.0, "mode_probability": 0.1, "chrf_beam1": 50.0, "chrf_beam5": 50.0}
                numbers |= {"length_ratio_beam1": 1.0, "length_ratio_beam5": 1.0}
                by_seed = {
                    name: [value + 0.01 * seed for seed in range(-1, seeds - 1)] for name, value in numbers.items()
                }
                arms.append(
                    {
                        "arm": line.name,
                        "group": group,
                        "value": line.value,
                        "against": first_of(group).name,
                        "model": "2×100",
                        **numbers,
                        **({"by_seed": by_seed} if seeds > 1 else {}),
                        "significance": {
                            other.name: dict.fromkeys(("beam1", "beam5"), over_sentences(found, line, other))
                            for other in names
                            if other.value in found
                        },
                    }
                )
    return {"scale": "multi30k", "model": "2×100", "arms": arms}


def verdicts(results):
    return [claim.verdict for claim in tables.claims(results)]


def test_claims_of_the_paper_about_its_settings():
    right = {
        "alpha": {"0.5": 1.0, "0.9": 0.0},
        "temperature": {"1": 1.0, "1.5": 0.0, "2": 0.0},
        "k": {"5": 0.0, "10": 0.2},
        "targets": {tables.MODE: 1.0, tables.WHOLE: 0.0},
    }
    assert set(verdicts(made(**right))) == {REPRODUCED}
    wrong = {group: {value: -3 * shift for value, shift in lines.items()} for group, lines in right.items()}
    wrong["k"] = {"5": 0.0, "10": 2.0}
    assert set(verdicts(made(**wrong))) == {CONTRADICTED}
    assert set(verdicts(made(seeds=1, **right))) == {INCONCLUSIVE}, "a single seed says nothing of another training"
    assert set(verdicts(made(alpha={"0.5": 0.0}))) == {NOT_RUN}


def test_a_table_for_each_group_and_a_plot(tmp_path):
    results = made(alpha={"0.5": 1.0, "0.9": 0.0}, k={"5": 0.0, "10": 0.2})
    results["top_k"] = [
        {"k": 4, "bytes": 28, "rest": 0.4, "value": 1.0, "whole": 1.5, "gradient_error": 0.2, "cosine": 0.98}
    ]
    alpha, k, kept = tables.sections(results)
    assert (alpha.title, k.title) == (GROUPS["alpha"], GROUPS["k"]) and alpha.table.rows[0][2] == "–"
    assert not tables.sections(made(alpha={"0.5": 1.0})), "nothing to compare"
    assert alpha.table.rows[1][2].startswith("-1.0 [") and kept.table.rows[0][:2] == ["4", "28"]
    assert [path.name for path in core_plots.write(core_plots.drawn(study.STUDY.plots, results), tmp_path)] == [
        "ablations.png"
    ]
    assert not core_plots.write(core_plots.drawn(study.STUDY.plots, made(alpha={"0.5": 1.0})), tmp_path / "nothing")
    beams = made(beam={"as in table 1": 0.0, TWICE: 1.0})
    assert tables.findings(beams)[-1].endswith(f"as in table 1 +1.0 ± 0.0; {TWICE} +1.0 ± 0.0.")
    assert "0.9 -1.0" in tables.findings(results)[0] and tables.headline(results).effect == "–"


# Made


def micro_scale():
    return replace(micro(), seeds={line.arm.name: 1 for line in LINES})


def test_a_dry_run_counts_no_run_twice(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(SCALES, "micro", (micro(),))
    assert main(study.STUDY, ["--scale", "micro", "--seeds", "1", "--dry-run", "--only", "alpha 0.9"]) == 0
    told = capsys.readouterr().out
    assert all(word in told for word in ("| alpha 0.9 ", "| alpha 0.5 ")) and "n-best" not in told
    updates = {line.ablation.name: study.plan(micro_scale(), line).updates for line in study.lines(micro_scale())}
    assert updates["alpha 0.5"] == 3 and updates["temperature 1"] == updates["loss cross-entropy"] == 0
    assert told.count("training of 1 × Teacher") == 1


def test_a_dry_run_asks_a_teacher_once_for_its_top_k():
    plans = {line.ablation.name: study.plan(micro_scale(), line) for line in study.lines(micro_scale())}
    whole, kept = plans["loss cross-entropy"], dry_run.asked_before(plans["top_k 4"])
    assert 0 < dry_run.update_flops(kept) < dry_run.update_flops(whole) and kept.once > 0
    assert dry_run.update_memory(kept, 1).teacher == 0 and dry_run.asked_before(whole) is whole


def test_targets_of_the_lists_that_are_there(tmp_path, monkeypatch):
    """The whole list with its weights, a share of its best, another choice: nothing is decoded again."""
    sources, lists = [f"s{place}" for place in range(8)], []
    for source in sources:
        lists.append([candidate(f"{source} x", 0.6), candidate(f"{source} y", 0.2)])
    scale = replace(micro(), toy=None)
    workspace = Workspace(scale, None, tmp_path)

    def written(name, targets):
        def make(directory):
            pipeline.write_split(directory, "train", scale, corpus.Corpus(sources, targets))

        return stages.stage(name, None, {}, make, tmp_path)

    gold, best = written("data", sources), written("seq_kd", [listed[0].text for listed in lists])
    monkeypatch.setattr(pipeline, "data", lambda workspace: gold)
    monkeypatch.setattr(pipeline, "seq_kd", lambda workspace: best)
    monkeypatch.setattr(pipeline, "teachers", lambda workspace: [gold])
    monkeypatch.setattr(pipeline, "n_best", lambda workspace, search, share: (best, None))
    monkeypatch.setattr(pipeline, "lists_in", lambda *arguments: None)
    monkeypatch.setattr(targets.distillation, "read_n_best", lambda found: iter(lists))
    whole = pipeline.read(workspace, targets.k_best(workspace), "train")
    assert whole.sources == [source for source in sources for _ in range(2)]
    assert whole.targets == [candidate.text for listed in lists for candidate in listed]
    assert whole.weights == [pytest.approx(share) for _ in sources for share in (0.75, 0.25)]
    half = pipeline.read(workspace, targets.part(0.5)(workspace), "train")
    assert half.sources == [sources[place] for place in pipeline.drawn(scale, 8, 0.5)]
    assert half.targets == [f"{source} x" for source in half.sources]


@pytest.mark.slow
def test_a_run_of_every_line(tmp_path, monkeypatch, capsys):
    """And another one: everything is there already, and nothing of the main run is made twice."""
    monkeypatch.setitem(SCALES, "micro", (micro(),))
    arguments = ["--scale", "micro", "--seeds", "1", "--out", str(tmp_path / "out"), "--stages", str(tmp_path / "made")]
    assert main(study.STUDY, arguments) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert [arm["arm"] for arm in results["arms"]] == [line.name for line in LINES]
    live = results["top_k"][-1]
    assert live["value"] == pytest.approx(live["whole"]) and live["gradient_error"] < 1e-3, "all entries are Word-KD"
    errors = [entry["gradient_error"] for entry in results["top_k"]]
    assert errors == sorted(errors, reverse=True)
    made = sorted(path.name for path in (tmp_path / "made").glob("train-word_kd-2*"))
    assert len({name for name in made if name.startswith("train-teacher-")}) <= 2
    capsys.readouterr()
    assert main(study.STUDY, arguments) == 0
    assert sorted(path.name for path in (tmp_path / "made").glob("train-word_kd-2*")) == made
