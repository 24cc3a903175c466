"""The study through the one runner: its arms and scales, dry run, claims, tables and plots; a run that is made here."""

import json
import math
from argparse import Namespace
from copy import deepcopy
from dataclasses import replace

import jax
import numpy as np
import pytest

from experiments.core import dry_run
from experiments.core import plots as core_plots
from experiments.core.claims import CONTRADICTED, INCONCLUSIVE, NOT_RUN, REPRODUCED
from experiments.core.intervals import estimate, of_seeds
from experiments.core.pages import RESULTS, ROOT
from experiments.core.plots import pyplot
from experiments.core.study import Workspace, main, read, select
from experiments.kim_rush_2016 import (
    arms,
    claims,
    comparisons,
    length,
    pipeline,
    plots,
    published,
    study,
    tables,
)
from experiments.kim_rush_2016.rows import by_arm, label, start_of
from experiments.kim_rush_2016.scale import rows, with_seeds
from experiments.kim_rush_2016.scales import SCALES
from experiments.report import drawing
from seqkd_jax import distillation, losses, models
from seqkd_jax.config import LSTMConfig, SearchConfig
from seqkd_jax.evaluation import metrics
from seqkd_jax.types import EOS, System, UserError
from seqkd_jax.utils import programs


def micro():
    """The smoke scale, but so small that it learns nothing."""
    (smoke,) = SCALES["smoke"]
    tiny = {"teacher": (LSTMConfig(1, 12, dropout=0.1),), "student": (LSTMConfig(1, 8, dropout=0.0),)}

    def short(config):
        return replace(config, epochs=1, max_steps=3)

    return replace(
        smoke,
        name="micro",
        toy=(64, 8, 12),
        models=tiny,
        training={role: short(config) for role, config in smoke.training.items()},
        fine_tuning={role: short(config) for role, config in smoke.fine_tuning.items()},
        seq_kd_search=SearchConfig(beam=2),
        seq_inter_search=SearchConfig(beam=3),
        timed_sentences=4,
        timed_repetitions=1,
        published={},
        max_compilations=0,  # its corpora fill no batch of the smoke scale, so it has more shapes
    )


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """A function: arguments -> (exit status, standard output, standard error) of the study at the micro scale."""
    monkeypatch.setitem(SCALES, "micro", (micro(),))

    def call(*arguments):
        status = main(study.STUDY, ["--scale", "micro", "--out", str(tmp_path), *arguments])
        return status, *capsys.readouterr()

    return call


# The table


def test_each_arm_is_one_cell_and_starts_from_an_earlier_one():
    cells = [arm[1:] for arm in arms.ARMS]
    assert len(set(cells)) == len(cells)
    for place, arm in enumerate(arms.ARMS):
        assert arm.corpus in pipeline.CORPORA and arm.loss in losses.LOSSES
        earlier = {other.name: other for other in arms.ARMS[:place]}
        as_in_the_paper = (arm.corpus in pipeline.OF_A_SHARE) == (arm.start is not None)
        assert as_in_the_paper, "Seq-Inter and its control are fine-tuning, nothing else is; your own arm: leave it out"
        assert arm.start is None or earlier[arm.start].role == arm.role


def test_controls_of_seq_inter_are_fine_tuned_alike():
    """Their start, rates and loss; the references of the same sources."""
    named = {arm.name: arm for arm in arms.ARMS}
    pairs = {name: arms.control_of(arm) for name, arm in named.items()}
    assert {name: control for name, control in pairs.items() if control} == {
        "Teacher + Seq-Inter": "Teacher + gold",
        "Baseline + Seq-Inter": "Baseline + gold",
        "Seq-KD + Seq-Inter": "Seq-KD + gold",
    }, "All three has another loss"
    for name in ("Teacher + Seq-Inter", "Baseline + Seq-Inter", "Seq-KD + Seq-Inter"):
        arm, control = named[name], named[pairs[name]]
        assert control == arm._replace(name=control.name, corpus="gold_part")
        assert pipeline.train_config(micro(), control) == pipeline.train_config(micro(), arm)


def test_a_control_reads_the_references_of_seq_inter_s_sources(tmp_path):
    """And needs no teacher."""
    workspace = Workspace(micro(), None, tmp_path)
    part, gold = (pipeline.read(workspace, make(workspace), "train") for make in (pipeline.gold_part, pipeline.data))
    chosen = pipeline.drawn(workspace.scale, 64, 0.25)
    assert part.targets == [gold.targets[place] for place in chosen] and len(part.sources) == 16
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("train-")]
    control = next(row for row in rows(micro()) if row.arm.name == "Baseline + gold")
    assert [row.arm.name for row in study.needs(micro(), control)] == ["Baseline"]


def test_an_arm_is_trained_with_the_loss_that_it_names(monkeypatch):
    """Also with one of one's own."""
    scale = next(iter(SCALES.values()))[0]
    for arm in arms.ARMS:
        if arm.role in scale.training:
            assert pipeline.train_config(scale, arm).loss.name == arm.loss
    monkeypatch.setitem(losses.LOSSES, "own", losses.LOSSES["word_kd"])
    own = pipeline.train_config(scale, arms.Arm("Own", "student", None, "gold", "own")).loss
    assert own.name == "own" and own.alpha == scale.word_kd.alpha


def test_every_arm_of_the_table_has_a_colour_of_its_own():
    assert len(set(core_plots.COLOURS)) == len(set(core_plots.MARKERS)) == drawing.COLOURS >= len(arms.ARMS)


def test_arms_are_named_as_in_the_table_or_by_their_slug_or_key():
    (smoke,) = SCALES["smoke"]
    given = rows(smoke)
    both = select(given, ["seq_kd+seq_inter"])
    assert both == select(given, ["Seq-KD + Seq-Inter"]) == select(given, ["seq_kd+seq_inter-2x32"])
    assert [row.arm.name for row in select(given, ["seq_kd", "baseline"])] == ["Baseline", "Seq-KD"]
    assert select(given, []) == given
    with pytest.raises(UserError, match="--only seq_kd_inter: no arm.*all_three"):
        select(given, ["seq_kd_inter"])


# Scales


@pytest.mark.parametrize("scale", {id(scale): scale for pair in SCALES.values() for scale in pair}.values(), ids=str)
def test_scales_hold_together(scale):
    given = rows(scale)
    assert len({row.key for row in given}) == len(given)
    assert {row.arm.role for row in given} == set(scale.models) == set(scale.training)
    assert scale.seq_inter_selection in distillation.SELECTIONS
    assert scale.word_kd.alpha == 0.5 and scale.word_kd.temperature == 1.0
    of_the_paper = {role: config for role, config in scale.training.items() if role != "transformer"}
    batches = {config.batch for config in [*of_the_paper.values(), *scale.fine_tuning.values()]}
    assert batches == {scale.batch}, "the paper's arms share batches, and with them compiled steps"
    assert scale.evaluation.beam == 5, "results are named beam1 and beam5"
    assert scale.pick == "last" or all(config.validate_bleu for config in scale.training.values())
    for role, config in scale.fine_tuning.items():
        rate = config.optimiser.learning_rate
        assert rate == pytest.approx(0.1 * scale.training[role].optimiser.learning_rate)
    assert set(scale.published) | set(scale.some) <= {label(row.model) for row in given}
    assert not any(config.patience for config in scale.fine_tuning.values()), "it is short, and its rate falls to 0"
    for row in given:
        assert set(study.needs(scale, row)) <= set(given), row.label


def test_a_scale_states_the_seeds_of_each_arm():
    """And, of a model without all arms, which it has; --seeds puts one number in the place of all."""
    (scale,) = SCALES["multi30k"]

    def counted(scale, model):
        names = [row.arm.name for row in rows(scale) if label(row.model) == model]
        return {name: names.count(name) for name in names}

    main = dict.fromkeys(("Baseline", "Word-KD", "Seq-KD", "Seq-KD + Word-KD"), 5)
    found = counted(scale, "2×100")
    assert main.items() <= found.items() and found["Baseline + gold"] == 5 and found["All three"] == 3
    assert counted(scale, "2×200") == dict.fromkeys(main, 3) and counted(scale, "2×500")["Teacher"] == 1
    twice = with_seeds(scale, 2)
    assert set(counted(twice, "2×100").values()) == {2} and counted(twice, "2×200") == dict.fromkeys(main, 2)


def test_published_settings():
    en_de, th_en = SCALES["paper"]
    for scale in (en_de, th_en):
        assert (scale.seq_kd_search.beam, scale.seq_inter_search.beam) == (5, 35)
        assert scale.training["student"].optimiser.normalise == "sentences"
        assert scale.seq_inter_selection == "kim_rush" and scale.evaluation.length_rule == "none"
    assert (en_de.seq_inter_share, th_en.seq_inter_share) == (0.5, 1.0)
    for scale, sizes in (
        (en_de, {"4×1000": 221_094_004, "2×500": 84_814_004, "2×300": 48_568_404}),
        (th_en, {"2×500": 47_289_004, "2×100": 7_917_804}),
    ):
        given = {row.model: models.parameter_count(study.build(scale, row.model)) for row in rows(scale)}
        assert {label(model): count for model, count in given.items()} == sizes


def test_two_recipes_and_the_rules_of_the_authors():
    recipes = {name: [scale.training["student"] for scale in SCALES[name]] for name in ("paper", "paper-authors")}
    told = {
        name: {(c.batch.sentences, c.epochs, c.optimiser.decay_from_epoch) for c in of} for name, of in recipes.items()
    }
    assert told == {"paper": {(128, 12, 8)}, "paper-authors": {(64, 13, 9)}}
    for name in ("paper", "paper-authors", "multi30k-words"):
        for scale in SCALES[name]:
            assert (scale.evaluation.stop, scale.evaluation.ended) == ("top_ends", "extended")
            assert scale.evaluation == scale.seq_kd_search and scale.multi_bleu
            assert {model.dropout for model in scale.models["student"]} != {0.2} or name == "paper"
    assert not any(scale.multi_bleu for scale in (*SCALES["smoke"], *SCALES["multi30k"]))


def test_tokens_are_made_of_raw_data_once(tmp_path):
    raw, made = tmp_path / "raw", tmp_path / "made"
    raw.mkdir()
    for split in pipeline.SPLITS:
        (raw / f"{split}.en").write_text("A dog, running.\n", encoding="utf-8")
        (raw / f"{split}.de").write_text("Ein Hund rennt.\n", encoding="utf-8")
    workspace = Workspace(SCALES["multi30k-words"][0], raw, made)
    found = pipeline.read(workspace, pipeline.data(workspace), "test")
    assert (found.sources, found.targets) == (["A dog , running ."], ["Ein Hund rennt ."])
    same = pipeline.tokenised(found, "13a")
    assert same.sources == found.sources, "tokens stay as they are"


def test_published_deltas_are_those_of_the_printed_bleu():
    """But one, which the paper prints so."""
    for table in (published.EN_DE_500, published.EN_DE_300, published.TH_EN_100):
        base = table.rows["Baseline"]
        for name, row in table.rows.items():
            for beam in ("beam1", "beam5"):
                delta = getattr(row, f"delta_{beam}")
                found = getattr(row, f"bleu_{beam}") - getattr(base, f"bleu_{beam}")
                if delta is not None and (table.label, name, beam) != ("En–De 2×500", "Baseline + Seq-Inter", "beam1"):
                    assert found == pytest.approx(delta, abs=0.051), (table.label, name, beam)
            assert row.from_memory <= published.ALL


# Dry run


def test_a_dry_run_trains_and_compiles_nothing(run, tmp_path):
    programs.count()
    before = len(programs.built())
    status, told, _ = run("--dry-run")
    assert status == 0 and not list(tmp_path.iterdir()) and len(programs.built()) == before
    for word in ("Baseline", "All three", "parameters", "updates", "memory per device", "FLOPs"):
        assert word in told


def test_a_dry_run_of_some_arms_counts_what_they_need(run):
    """And no more."""
    _, told, _ = run("--dry-run", "--only", "baseline")
    assert "n-best lists" not in told and "Teacher" not in told
    _, told, _ = run("--dry-run", "--only", "seq_kd+seq_inter")
    assert told.count("n-best lists") == 2 and "| Word-KD" not in told
    assert "| Teacher, " in told and "| Seq-KD, " in told


def test_updates_are_counted_by_hand():
    (smoke,) = SCALES["smoke"]
    updates = {row.arm.name: study.plan(smoke, row).updates for row in rows(smoke)}
    pairs, _, _ = smoke.toy
    epochs = smoke.training["student"].epochs
    assert smoke.facts.pairs == pairs and smoke.seq_inter_share == 0.25
    assert updates["Baseline"] == updates["Seq-KD"] == epochs * -(-pairs // smoke.shapes[0][0])
    epochs = smoke.fine_tuning["student"].epochs
    assert updates["Baseline + Seq-Inter"] == epochs * -(-pairs // 4 // smoke.shapes[0][0])


def test_word_kd_costs_a_teacher_more():
    scale = micro()
    plans = {
        row.arm.name: study.plan(scale, row) for row in rows(scale) if row.arm.name in ("Baseline", "Word-KD", "Seq-KD")
    }
    flops = {name: dry_run.update_flops(plan) for name, plan in plans.items()}
    assert flops["Word-KD"] > flops["Baseline"] == flops["Seq-KD"]
    memory = {name: dry_run.update_memory(plan, 1) for name, plan in plans.items()}
    assert memory["Word-KD"].teacher > 0 == memory["Baseline"].teacher


def test_memory_of_a_training_state():
    plan = study.plan(micro(), rows(micro())[0])
    weights = 4 * models.parameter_count(plan.model)
    once = dry_run.update_memory(plan, devices=1)
    assert (once.parameters, once.gradients, once.average) == (weights, weights, 0)
    assert once.optimiser - 2 * weights <= 64, "Adam has two moments, and counts"
    assert once.activations > 64 * 17 * 12 * 4, "at least the states of one layer are stored"
    config = replace(plan.config, average_decay=0.99, accumulate=2)
    found = dry_run.update_memory(plan._replace(config=config), devices=1)
    assert (found.average, found.gradients) == (weights, 2 * weights)
    assert found.activations < once.activations and found.total == sum(found)
    three = dry_run.update_memory(plan._replace(config=replace(plan.config, replicas=3)), devices=1)
    assert three.parameters == 3 * weights and three.activations == 3 * once.activations


# Claims


NAMES = ("bleu_beam1", "bleu_beam5", "mode_probability", "perplexity")


def made(seeds=3, sentences=0.2, **arms):
    """Results of a baseline, Seq-KD and their teacher; an arm's numbers are NAMES, the same under each seed but for 1%.

    sentences: on each side the reach of every interval over test sentences.
    """
    found = []
    for name, numbers in arms.items():
        by_seed = {
            key: [n * (1 + 0.01 * (i - (seeds - 1) / 2)) for i in range(seeds)]
            for key, n in zip(NAMES, numbers, strict=True)
        }
        name = name.replace("_+_", " + ").replace("_", "-")
        arm = {"model": "2×500" if name == "Teacher" else "2×100", "arm": name, "by_seed": by_seed}
        found.append(arm | dict(zip(NAMES, numbers, strict=True)))
    for arm in found:
        arm["significance"] = {other["arm"]: compared(arm, other, sentences) for other in found if other is not arm}
    return {"scale": "multi30k", "arms": found}


def compared(arm, other, reach):
    """What the stage of that name would say."""
    known = [
        name for name in comparisons.COMPARISONS if not {"chrf", "tuned", "recall", "perplexity"} & set(name.split())
    ]
    sizes = {name: comparisons.difference(arm, other, name).size for name in known}
    return {
        name: {"delta_low": size - reach, "delta_high": size + reach, "shared": 0.0} for name, size in sizes.items()
    }


GOOD = {"Baseline": (20.0, 22.0, 0.01, 5.0), "Seq_KD": (24.0, 24.2, 0.1, 9.0), "Teacher": (22.0, 24.0, 0.02, 4.0)}


def verdicts_of(results):
    return [claim.verdict for claim in claims.claims(results)]


def test_claims_get_their_verdicts_as_measured():
    assert verdicts_of(made(**GOOD)) == [NOT_RUN, NOT_RUN, *[REPRODUCED] * 6, NOT_RUN, NOT_RUN]
    bad = GOOD | {"Seq_KD": (18.0, 20.5, 0.011, 4.0)}
    assert verdicts_of(made(**bad)) == [NOT_RUN, NOT_RUN, *[CONTRADICTED] * 6, NOT_RUN, NOT_RUN]
    near = GOOD | {"Seq_KD": (20.1, 21.2, 0.03, 5.0)}
    assert verdicts_of(made(**near))[2:8] == [INCONCLUSIVE, CONTRADICTED, CONTRADICTED, *[INCONCLUSIVE] * 3]
    assert verdicts_of(made(Baseline=GOOD["Baseline"])) == [NOT_RUN] * 10, "no verdict on arms that were not run"


def test_seq_inter_is_judged_against_its_control():
    more = {"Baseline_+_gold": (22.0, 24.0, 0.01, 5.0), "Baseline_+_Seq_Inter": (21.0, 23.0, 0.01, 5.0)}
    results = made(Baseline=GOOD["Baseline"], **more)
    claim = claims.claims(results)[-2]
    assert claim.verdict == CONTRADICTED and claim.measured == "21.00 against 22.00" and not claim.published
    arm = results["arms"][-1]
    assert tables.control_in(results, arm)["arm"] == "Baseline + gold"
    assert tables.control_in(results, results["arms"][0]) is None


def test_a_threshold_takes_an_interval_too():
    several = made(**GOOD | {"Seq_KD": (24.0, 24.2, 0.033, 9.0)})
    claim = claims.claims(several)[5]
    assert claim.effect == pytest.approx(math.log(3.3 / 3), rel=1e-3) and claim.interval[0] < 0 < claim.interval[1]
    assert claim.verdict == INCONCLUSIVE and "3.3 times" in claim.measured


def test_a_single_seed_gives_no_verdict():
    """What it gives is an interval over test sentences, which is shown as that."""
    for claim in claims.claims(made(seeds=1, **GOOD))[2:8]:
        assert (claim.verdict, claim.interval, claim.p, claim.seeds) == (INCONCLUSIVE, None, None, 1)
        assert "perplexity" in claim.text or "over test sentences alone" in claim.measured
    results = made(seeds=1, **GOOD)
    for arm in results["arms"]:
        del arm["significance"], arm["by_seed"]  # of an older commit
    assert verdicts_of(results)[2:8] == [INCONCLUSIVE] * 6


def test_intervals_are_over_seeds_and_sentences():
    results = made(**GOOD)
    arms = {arm["arm"]: arm for arm in results["arms"]}
    seeds = of_seeds(*(arms[name]["by_seed"]["bleu_beam1"] for name in ("Seq-KD", "Baseline")))
    claim = claims.claims(results)[2]
    assert claim.interval == pytest.approx(estimate(4.0, seeds, (3.8, 4.2)).interval) and claim.seeds == 3
    arms["Seq-KD"]["significance"]["Baseline"]["beam1"]["shared"] = seeds.variance
    less = claims.claims(results)[2].interval
    assert less == pytest.approx(estimate(4.0, seeds, (3.8, 4.2), seeds.variance).interval) and less != claim.interval
    perplexity = comparisons.difference(arms["Seq-KD"], arms["Baseline"], "ln perplexity")
    assert perplexity.size == pytest.approx(math.log(9 / 5)) and perplexity.interval is not None


def test_claims_show_the_numbers_of_the_paper():
    gain, across, above, modes, beams, perplexities = claims.claims(made(**GOOD))[2:8]
    assert across.published == "+1.3 / +0.1" and above.published == "+1.2 / -1.5"
    assert gain.published == "+4.2 / +2.2†" and gain.published_inside == "yes / no"
    assert modes.published == "16.9 against 0.9 percent / 6.9† against 1.4 percent"
    assert modes.published_inside == "no / no", "ln 18.8 and ln 4.9 beside ln 10, less ln 3 each"
    told = "least: beam 5 adds +0.1, to the baseline +2.9 / beam 5 adds +0.6, to the baseline +2.1†"
    assert beams.published == told and beams.effect == pytest.approx(0.8)
    assert perplexities.published in ("least: 8.2 -> 22.7 / 37.0 -> 125.4†", "least: +4.2 / +2.2†")


# Comparisons


def test_the_bootstrap_draws_sentences_for_all_seeds_of_both_arms():
    """Against a loop: each comparison on each resample, each seed with the same sentences."""
    draw = np.random.default_rng(0)
    sides = [
        [
            comparisons.Resampled(
                dict(zip(KNOWN, draw.normal(size=len(KNOWN)), strict=True)),
                dict(zip(KNOWN, draw.normal(size=(len(KNOWN), 40)), strict=True)),
            )
            for _ in range(seeds)
        ]
        for seeds in (3, 2)
    ]
    found = comparisons.compare(*sides)
    assert set(found) == set(comparisons.COMPARISONS) - {"ln perplexity"}
    for name, of in found.items():
        weighed = [
            [sum(weight * seed.samples[key] for key, weight in weights.items()) for seed in side]
            for side, weights in zip(sides, comparisons.COMPARISONS[name], strict=True)
        ]
        samples = [
            np.mean([of_seed[i] for of_seed in weighed[0]]) - np.mean([s[i] for s in weighed[1]]) for i in range(40)
        ]
        assert (of["delta_low"], of["delta_high"]) == pytest.approx(tuple(np.percentile(samples, [2.5, 97.5])))
        deviations = [
            [
                of_seed - sum(weight * seed.values[key] for key, weight in weights.items())
                for seed, of_seed in zip(side, of_side, strict=True)
            ]
            for side, of_side, weights in zip(sides, weighed, comparisons.COMPARISONS[name], strict=True)
        ]
        shared = sum(
            np.mean([np.var([d[i] for d in side], ddof=1) for i in range(40)]) / len(side) for side in deviations
        )
        assert of["shared"] == pytest.approx(shared)
    assert comparisons.compare(sides[0][:1], sides[1][:1])["beam1"]["shared"] == 0.0


def test_resamples_of_the_mode_s_probability_are_of_its_own_mean():
    """Empty sources are in neither."""
    lines = ["a b c d"] * 40
    outputs = {"beam1": lines, "beam5": lines, "references": lines}
    sides = []
    for probability in (0.1, 0.01):
        values = dict.fromkeys(SCORES, 100.0) | {"perplexity": 3.0, "mode_probability": probability}
        known = [probability] * 30 + [None] * 10
        sides.append([comparisons.resampled(values, outputs, {"beam1": known}, "none")])
    found = comparisons.compare(*sides)["ln p(t=ŷ)"]
    assert [found[name] for name in ("delta", "delta_low", "delta_high")] == pytest.approx([math.log(10)] * 3)


SCORES = ("bleu_beam1", "bleu_beam5", "chrf_beam1", "chrf_beam5", "recall_beam1", "recall_beam5")
KNOWN = (*SCORES, "tuned_bleu_beam1", "tuned_bleu_beam5", "ln p(t=ŷ)")


def test_beam_1_is_about_beam_5_within_half_of_what_the_beam_adds_to_the_baseline():
    arm, other = {"bleu_beam1": 20.0, "bleu_beam5": 20.3}, {"arm": "B", "bleu_beam1": 10.0, "bleu_beam5": 12.0}
    both = {"perplexity": 2.0, "mode_probability": 0.5}
    sizes = [comparisons.difference(arm | both, other | both, name).size for name in comparisons.HALVED]
    assert sizes == pytest.approx([0.7, 1.3])


def test_chrf_is_told_where_it_reverses_a_ranking():
    results = made(**GOOD)
    for arm, chrf in zip(results["arms"], (50.0, 49.0, 55.0), strict=True):
        arm |= {"chrf_beam1": chrf, "chrf_beam5": chrf}
    gain, across, above, *_ = claims.claims(results)[2:8]
    assert gain.measured == "24.00 against 20.00; chrF says otherwise: -1.00"
    assert "otherwise: -1.00" in across.measured and "otherwise: -6.00" in above.measured
    assert tables._about_chrf(results).endswith("both: 2×100 Seq-KD against Baseline +4.0 BLEU, -1.0 chrF")
    results["arms"][1] |= {"chrf_beam1": 51.0, "chrf_beam5": 51.0}
    assert claims.claims(results)[2].measured == "24.00 against 20.00"
    assert tables._about_chrf(results).endswith("both: none")


def test_two_gains_are_compared_over_the_seeds_and_sentences_of_both():
    here, there = made(**GOOD), made(**GOOD | {"Seq_KD": (21.0, 22.5, 0.1, 9.0)})
    results = here | {"scale": "tatoeba", "beside": comparisons.summary(there)}
    claim = claims.claims(results)[-1]
    assert claim.effect == pytest.approx(3.0) and claim.measured == "+4.00 against +1.00" and claim.seeds == 3
    spreads = [of_seeds(*(one["by_seed"]["bleu_beam1"] for one in of["arms"][1::-1])) for of in (here, there)]
    variance = sum(spread.variance for spread in spreads)
    freedom = variance**2 / sum(spread.variance**2 / spread.freedom for spread in spreads)
    reach = 0.2 * 2**0.5
    expected = estimate(3.0, type(spreads[0])(variance, freedom), (3.0 - reach, 3.0 + reach))
    assert claim.interval == pytest.approx(expected.interval) and claim.verdict == REPRODUCED
    del results["beside"]
    claim = claims.claims(results)[-1]
    assert claim.verdict == NOT_RUN and "--beside" in claim.measured
    single = made(seeds=1, **GOOD)
    assert claims.claims(single | {"scale": "tatoeba", "beside": comparisons.summary(single)})[-1].interval is None


def test_a_run_is_compared_with_one_of_the_scale_with_fewer_modes(tmp_path):
    committed = ROOT / RESULTS / "kim_rush_2016"
    scale = study.scales(study.Command(scale="tatoeba", beside=committed / "multi30k"))["tatoeba"]
    assert scale.beside["scale"] == "multi30k" and [arm["arm"] for arm in scale.beside["arms"]] == [
        "Baseline",
        "Seq-KD",
    ]
    with pytest.raises(UserError, match="is of scale smoke; name a run of multi30k"):
        study.scales(study.Command(scale="tatoeba", beside=committed / "smoke"))
    with pytest.raises(UserError, match="has no effect on scale smoke"):
        study.scales(study.Command(scale="smoke", beside=committed / "multi30k"))


# Further teachers


def test_a_further_teacher_has_students_of_its_own(monkeypatch, tmp_path):
    """Of its own corpus and distribution; what does not learn from it is not made again."""
    (scale,) = SCALES["multi30k"]
    both = replace(scale, teachers=2)
    added = [row for row in rows(both) if row not in rows(scale)]
    assert {row.key for row in added if row.teacher == 0} == {"teacher-2x500-seed1"}
    of_second = [row for row in added if row.teacher]
    assert {row.arm.name for row in of_second} == {"Word-KD", "Seq-KD", "Seq-KD + Word-KD"} and len(of_second) == 9
    assert "seq_kd-2x100-teacher1-seed2" in {row.key for row in of_second}
    for row in of_second:
        assert [needed.key for needed in study.needs(both, row)] == ["teacher-2x500-seed1"] and row.arm.start is None
    seen = []
    monkeypatch.setattr(pipeline, "trained", lambda workspace, row: seen.append(row.key))
    monkeypatch.setattr(pipeline, "data", lambda workspace: tmp_path)
    monkeypatch.setattr(pipeline, "learned_vocabulary", lambda workspace: tmp_path)
    distilled = {"seq_kd": lambda workspace: seen.append(f"corpus of {workspace.scale.teacher_row.key}")}
    monkeypatch.setattr(pipeline, "CORPORA", distilled)
    workspace = Workspace(both, None, tmp_path)
    monkeypatch.setattr(Workspace, "stage", lambda *_, **__: tmp_path)
    pipeline.training(workspace, next(row for row in of_second if row.arm.name == "Seq-KD + Word-KD"))
    assert seen == ["corpus of teacher-2x500-seed1", "teacher-2x500-seed1"]


def test_students_of_another_teacher_have_a_table(committed):
    assert not [section for section in tables.sections(committed) if "another teacher" in section.title]
    (seq_kd,) = (arm for arm in committed["arms"] if arm["arm"] == "Seq-KD")
    committed["other_teachers"] = [deepcopy(seq_kd) | {"teacher": 1, "bleu_beam1": seq_kd["bleu_beam1"] + 0.5}]
    committed["other_teachers"][0]["significance"] = {}
    (table,) = (section.table for section in tables.sections(committed) if "another teacher" in section.title)
    assert table.rows[0][2] == "seed 1" and table.rows[0][5] == "+0.5"
    (teacher,) = (arm["bleu_beam1"] for arm in committed["arms"] if arm["arm"] == "Teacher")
    assert f"{teacher:.1f}" in table.notes[1]


@pytest.mark.parametrize("scale, teachers", [("tatoeba", "2"), ("multi30k", "0")])
def test_a_number_of_teachers_that_cannot_be(scale, teachers):
    with pytest.raises(UserError, match=f"--teachers {teachers}: give 1"):
        study.scales(study.Command(scale=scale, teachers=int(teachers)))


# Lengths


def test_a_deviation_has_no_sign():
    cell = tables.over_seeds("bonus", "{:+.1f}".format)
    assert cell({}, {"bonus": 1.0, "by_seed": {"bonus": [0.0, 2.0]}}) == "+1.0 ± 1.4"
    assert cell({}, {"bonus": 1.0}) == "+1.0" and cell({}, {}) is None


def test_a_bonus_is_added_to_the_logit_of_eos_alone():
    model = models.build(LSTMConfig(1, 4), 6, 6)
    params = model.init(jax.random.key(0))
    shifted = jax.tree.map(jax.numpy.asarray, length.with_bonus(params, 1.5))
    logits = [model.head(given, jax.numpy.ones((1, 4))) for given in (params, shifted)]
    np.testing.assert_allclose(logits[1] - logits[0], [[1.5 * (place == EOS) for place in range(6)]], atol=1e-6)
    assert length.with_bonus({"kernel": np.ones(6)}, 1.0) is None


def test_of_equal_bonuses_the_nearest_to_zero_is_chosen():
    assert length.chosen({-1.0: 3.0, -0.5: 5.0, 0.0: 4.0, 0.5: 5.0}) in (-0.5, 0.5)
    assert length.chosen({-1.0: 5.0, 0.0: 5.0, 1.0: 5.0}) == 0.0


def test_lengths_are_tuned_on_valid_and_the_test_set_is_translated_once(monkeypatch, tmp_path):
    workspace, seen = Workspace(replace(micro(), end_bonuses=(-1.0, 0.0, 1.0)), None, tmp_path / "stages"), []
    test = pipeline.read(workspace, pipeline.data(workspace), "test")

    def translated(system, sources, rules, n_best):
        bonus, split = system.params["output_bias"][EOS], "test" if sources == test.sources else "valid"
        seen.append((split, rules.search.beam, bonus))
        targets = pipeline.read(workspace, pipeline.data(workspace), split).targets
        return [Namespace(text=target if bonus == 1.0 else "wrong") for target in targets]

    given = tmp_path / "given"
    given.mkdir()
    monkeypatch.setattr(length, "translate_lines", translated)
    monkeypatch.setattr(pipeline, "trained", lambda *_: given)
    monkeypatch.setattr(pipeline, "learned_vocabulary", lambda _: given)
    monkeypatch.setattr(pipeline, "tokenizer", lambda _: "none")
    monkeypatch.setattr(pipeline, "decoded_by", lambda _: [])
    system = System(None, {"output_bias": np.zeros(5, np.float32)}, None)
    monkeypatch.setattr(length.checkpoint, "load_translator", lambda _: Namespace(system=system))
    found = json.loads((length.tuned(workspace, rows(workspace.scale)[0]) / "results.json").read_text())
    assert found["tuned_end_bonus_beam1"] == 1.0 and found["tuned_bleu_beam5"] == pytest.approx(100.0)
    assert [bonus for bonus, *_ in found["valid_beam5"]] == [-1.0, 0.0, 1.0]
    assert [one for one in seen if one[0] == "test"] == [("test", 1, 1.0), ("test", 5, 1.0)]


def test_gains_at_tuned_lengths_have_a_table(committed):
    assert not [section for section in tables.sections(committed) if "lengths" in section.title]
    for arm in committed["arms"][3:5]:
        for beam in arms.BEAMS:
            arm |= {f"tuned_{name}_{beam}": arm[f"{name}_{beam}"] + 1 for name in ("bleu", "chrf", "length_ratio")}
            arm[f"tuned_end_bonus_{beam}"] = 0.5
    (table,) = (section.table for section in tables.sections(committed) if "lengths" in section.title)
    baseline, word_kd = table.rows
    gain = committed["arms"][4]["bleu_beam1"] - committed["arms"][3]["bleu_beam1"]
    assert baseline[4] == "–" and word_kd[4].startswith(f"{gain:+.1f}") and word_kd[7] == "+0.50"


# Tables and plots


@pytest.fixture
def committed():
    """Table 1 on real text, of the first seed of each arm, with published numbers beside it."""
    results = read(study.STUDY, ROOT / RESULTS / "kim_rush_2016" / "multi30k" / "results.json")
    for arm in results["arms"]:
        arm |= {name: found[0] for name, found in arm.pop("by_seed", {}).items()}
        for name in [name for name in arm if name == "seeds" or name.startswith("tuned_")]:
            del arm[name]
    return {name: value for name, value in results.items() if name not in ("speed", "pruned", "explanation", "states")}


def test_every_arm_has_a_row_beside_the_paper(committed):
    scores, gains, recall, speed = (section.table for section in tables.sections(committed))
    assert [row[1] for row in scores.rows] == [arm["arm"] for arm in committed["arms"]]
    assert [row[1] for row in speed.rows] == [row[1] for row in recall.rows] == [row[1] for row in scores.rows]
    seq_kd = next(arm for arm in committed["arms"] if arm["arm"] == "Seq-KD")
    columns = dict(zip(scores.columns[2:], next(row[2:] for row in scores.rows if row[1] == "Seq-KD"), strict=True))
    names = ("bleu_beam1", "chrf_beam1", "length_ratio_beam1")
    shown = [columns[name] for name in ("BLEU K=1", "chrF K=1", "length K=1")]
    assert shown == [f"{seq_kd[name]:.{digits}f}" for name, digits in zip(names, (1, 1, 2), strict=True)]
    cells = [cell for row in scores.rows if row[1] == "Seq-KD" for cell in row]
    assert "22.7 / 125.4†" in cells and "16.9% / 6.9%†" in cells
    notes = "; ".join(scores.notes)
    assert seq_kd["signature"] in notes and seq_kd["chrf_signature"] in notes and "En–De 2×500 / Th–En 2×100" in notes


def test_gains_have_intervals_beside_the_paper_s(committed):
    gains = tables.sections(committed)[1].table
    rows = {arm: cells for _, arm, *cells in gains.rows}
    assert "Teacher" not in rows and "Baseline" not in rows, "what is compared with itself"
    assert rows["Teacher + Seq-Inter"][0] == "Teacher" and rows["Seq-KD"][0] == "Baseline"
    assert rows["Seq-KD"][2] == "+4.2 / +2.2†"
    arms = {arm["arm"]: arm for arm in committed["arms"]}
    seq_kd, baseline = arms["Seq-KD"], arms["Baseline"]
    size = seq_kd["bleu_beam1"] - baseline["bleu_beam1"]
    seq_kd["significance"] = {"Baseline": {"beam1": {"delta_low": size - 1, "delta_high": size + 1}}}
    assert tables.gain(seq_kd, baseline) == f"{size:+.1f} ({size - 1:+.1f}, {size + 1:+.1f})", "one seed"
    for arm in (seq_kd, baseline):
        arm["by_seed"] = {"bleu_beam1": [arm["bleu_beam1"]] * 2}
    assert tables.gain(seq_kd, baseline) == f"{size:+.1f} [{size - 1:+.1f}, {size + 1:+.1f}]"
    del seq_kd["significance"], seq_kd["by_seed"]
    assert tables.gain(seq_kd, baseline) == f"{size:+.1f}", "nothing is known of it"


def test_several_seeds_have_a_mean_and_a_deviation(committed):
    seq_kd = next(arm for arm in committed["arms"] if arm["arm"] == "Seq-KD")
    seq_kd |= {"seeds": [0, 1, 2], "by_seed": {"bleu_beam1": [27.0, 28.0, 29.0]}}
    scores = tables.sections(committed)[0].table
    cells = next(row for row in scores.rows if row[1] == "Seq-KD")
    assert cells[2] == "28.0 ± 1.0" and any(note.endswith("; 3 of 2×100 Seq-KD") for note in scores.notes)


@pytest.mark.parametrize("percent, text", [(0, "0%"), (12.345, "12.3%"), (0.456, "0.46%"), (0.0123, "0.012%")])
def test_small_percentages_keep_their_digits(percent, text):
    assert tables.percent(percent / 100) == text


def test_findings_are_signed_as_the_numbers_are(committed):
    gain, teacher, beam, *_, chrf, _ = tables.findings(committed)
    arms = {arm["arm"]: arm for arm in committed["arms"]}
    below = arms["Seq-KD"]["bleu_beam1"] - arms["Teacher"]["bleu_beam1"]
    assert below < 0 and f"Against its teacher, both greedy: {below:+.1f} " in teacher
    assert f"against its baseline: {tables.gain(arms['Seq-KD'], arms['Baseline'])} BLEU" in gain
    assert "A beam of 5 adds +" in beam and "times as long as the references" in chrf
    committed["arms"] = committed["arms"][:2]
    assert tables.findings(committed) == [] and tables.headline(committed).effect == "–"


def test_plots_are_drawn_and_the_same_twice_also_without_curves_and_times(committed, tmp_path):
    bare = deepcopy(committed)
    for arm in bare["arms"]:
        arm["training"]["history"], arm["source_words_per_second_beam1"], arm["mode_probability"] = [], None, 0.0
    first, again, without = (
        core_plots.write(core_plots.drawn(plots.PLOTS, results), tmp_path / name)
        for name, results in (("one", committed), ("two", committed), ("bare", bare))
    )
    assert [path.stem for path in first] == [path.stem for path in without] == list(plots.PLOTS)
    for left, right in zip(first, again, strict=True):
        assert left.read_bytes() == right.read_bytes(), f"{left.name} differs from run to run"


def test_labels_do_not_overlap(committed):
    """The names of the arms, and the numbers beside the dots, with two students of each arm."""
    committed["arms"] += [arm | {"model": "2×300"} for arm in committed["arms"] if arm["model"] == "2×100"]
    for draw in (plots.bleu, plots.mode_probability):
        figure = draw(committed)
        figure.canvas.draw()
        (axes,) = figure.axes
        boxes = [text.get_window_extent() for text in (*axes.get_yticklabels(), *axes.texts)]
        for place, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[place + 1 :]), "make the figure taller"
        pyplot.close(figure)


# The command


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--scale", "nano"], "--scale nano: there is none"),
        (["--only", "seqkd"], "--only seqkd: no arm"),
        (["--only", "transformer_teacher"], "no arm of this scale has that name"),
        (["--data", "."], "toy data"),
        (["--scale", "multi30k"], "needs --data"),
        (["--scale", "multi30k", "--data", "nowhere"], "no such file or directory"),
    ],
)
def test_errors_are_one_line(run, arguments, said):
    status, out, error = run(*arguments)
    assert status == 2 and not out and error.count("\n") == 1 and said in error and "Traceback" not in error


def test_one_arm_makes_what_it_needs_and_is_found_again(run, tmp_path):
    status, told, log = run("--only", "baseline")
    assert status == 0, log
    assert log.splitlines()[0] == "corpus toy data: 64 train, 8 valid, 12 test pairs, en to de"
    made = sorted(path.name.rsplit("-", 1)[0] for path in (tmp_path / "stages").iterdir() if path.name[0] != ".")
    assert made == ["data", "evaluate-baseline-1x8", "outputs", "significance", "train-baseline-1x8", "vocabulary"]
    found = json.loads((tmp_path / "results.json").read_text())
    (arm,) = found["arms"]
    assert arm["arm"] == "Baseline" and arm["training"]["steps"] == 1 and "commit" in found
    (kept,) = (tmp_path / "stages").glob("evaluate-baseline-*/outputs.json")
    outputs, tokenize = json.loads(kept.read_text()), arm["signature"].split("tok:")[1].split("|")[0]
    for beam in ("beam1", "beam5"):
        assert arm[f"recall_{beam}"] == metrics.recall(outputs[beam], outputs["references"], tokenize)
    table = (tmp_path / "table.md").read_text()
    assert "| 1×8" in table and "| recall K=1 " in table and " programs, " in told and " of them compiled" in told
    assert (tmp_path / "plots" / "bleu.png").exists()
    before = len(programs.built())
    status, _, log = run("--only", "baseline")
    assert status == 0 and len(programs.built()) == before, "a finished study computes nothing"
    assert " starts " not in log and "made in" not in log


def test_each_arm_learns_from_its_corpus_its_start_and_its_teacher(monkeypatch, tmp_path):
    workspace, seen = Workspace(micro(), None, tmp_path / "stages"), []
    source, target = workspace.scale.languages

    def made(name, files):
        (tmp_path / name).mkdir(exist_ok=True)
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
        return tmp_path / name

    def stopped(run, train, valid, directory, key):
        seen.append((run, train, valid))
        raise InterruptedError

    def corpus_of(kind):
        return lambda _: made(kind, {f"train.{source}": "source\n", f"train.{target}": f"{kind}\n"})

    distilled = {kind: corpus_of(kind) for kind in pipeline.CORPORA if kind != "gold"}
    monkeypatch.setattr(pipeline, "CORPORA", {"gold": pipeline.data, **distilled})
    monkeypatch.setattr(pipeline, "trained", lambda _, row: made(row.key, {"weights": row.key}))
    monkeypatch.setattr(pipeline, "train_translator", stopped)
    gold, valid = (pipeline.read(workspace, pipeline.data(workspace), split) for split in ("train", "valid"))
    for row in [row for row in rows(workspace.scale) if row.arm.role == "student"]:
        with pytest.raises(InterruptedError):
            pipeline.training(workspace, row)
        (run, train, validation), arm = seen.pop(), row.arm
        assert train.targets == (gold.targets if arm.corpus == "gold" else [arm.corpus])
        assert validation.targets == valid.targets != gold.targets
        start, taught = start_of(row), arm.loss == "word_kd"
        assert run.start == (tmp_path / start.key if arm.start else None)
        assert run.teacher == (tmp_path / workspace.scale.teacher_row.key if taught else None)
        assert run.model == row.model and run.config.loss.name == arm.loss


def test_seeds_of_an_arm_are_runs_of_their_own():
    """The first keeps its name, so that what was made before is found; a start is that of the same seed."""
    once, twice = rows(micro()), rows(with_seeds(micro(), 2))
    assert [row for row in twice if not row.place] == once and len({row.key for row in twice}) == 2 * len(once)
    assert [row.place for row in twice[:4]] == [0, 1, 0, 1]
    second = next(row for row in twice if row.key == "baseline+seq_inter-1x8-seed1")
    assert start_of(second).key == "baseline-1x8-seed1"
    assert select(twice, ["baseline"]) == select(twice, ["baseline-1x8", "baseline-1x8-seed1"])
    first = next(row for row in twice if row.arm == second.arm)
    seeds = [pipeline.of_row(micro(), row).seed for row in (first, second)]
    assert seeds[1] == seeds[0] + 1 and by_arm(twice)[first] == [first, second]
    assert not any(row.place for row in study.needs(micro(), next(row for row in twice if row.arm.name == "Seq-KD")))


def test_the_type_of_products_is_that_of_every_model_and_is_told(run):
    status, told, error = run("--compute", "bfloat16_products", "--dry-run")
    assert status == 0 and "- --compute bfloat16_products, not float32" in told, error
    scale = study.scales(study.Command(scale="smoke", compute="bfloat16_products"))["smoke"]
    assert {model.compute for models in scale.models.values() for model in models} == {"bfloat16_products"}
    assert {row.model.compute for row in rows(scale)} == {"bfloat16_products"}


def test_students_may_be_trained_for_longer_and_it_is_told():
    """Their teacher and all fine-tuning stay what they are."""
    once, longer = (study.scales(study.Command(scale="smoke", epochs=epochs))["smoke"] for epochs in (None, 30))
    for row in rows(once):
        before, after = (pipeline.train_config(scale, row.arm) for scale in (once, longer))
        from_random = row.arm.role == "student" and row.arm.start is None
        assert after == (replace(before, epochs=30) if from_random else before)
    assert "--epochs 30 of the students" in longer.deviations
    with pytest.raises(UserError, match="--epochs 0"):
        study.scales(study.Command(epochs=0))


def test_a_number_of_seeds_that_cannot_be(run):
    status, _, error = run("--seeds", "0")
    assert status == 2 and "--seeds 0" in error


@pytest.mark.slow
def test_two_seeds_give_verdicts(run, tmp_path):
    """Means over seeds, each seed's numbers, intervals over seeds and sentences."""
    status, told, log = run("--seeds", "2", "--only", "baseline", "seq_kd", "teacher-1x12")
    assert status == 0, log
    found = json.loads((tmp_path / "results.json").read_text())
    seeds = {arm["arm"]: arm.get("seeds") for arm in found["arms"]}
    assert seeds == {"Teacher": None, "Baseline": [3, 4], "Seq-KD": [3, 4]}
    for arm in found["arms"][1:]:
        assert len(set(arm["by_seed"]["perplexity"])) == 2, "each seed is a training of its own"
        assert arm["perplexity"] == pytest.approx(np.mean(arm["by_seed"]["perplexity"]))
    compared = found["arms"][2]["significance"]["Baseline"]
    assert set(compared) == {name for name in comparisons.COMPARISONS if "tuned" not in name} - {"ln perplexity"}
    claims_of = {claim["text"]: claim for claim in found["claims"]}
    gain = claims_of["Seq-KD is above the baseline at beam 1"]
    assert gain["seeds"] == 2 and gain["interval"] is not None and gain["p_holm"] >= gain["p"]
    assert claims_of["Seq-KD is above its teacher, both at beam 1 (in En–De)"]["interval"] is None, "one teacher"
    assert "±" in (tmp_path / "table.md").read_text()


@pytest.mark.slow
def test_a_second_teacher_and_tuned_lengths(run, tmp_path, monkeypatch):
    """A control, too: all of them in one run."""
    scale = replace(micro(), end_bonuses=(0.0, 1.0), others={"Seq-KD": 1})
    monkeypatch.setitem(SCALES, "micro", (scale,))
    status, told, log = run("--only", "baseline+gold", "seq_kd", "--teachers", "2")
    assert status == 0, log
    found = json.loads((tmp_path / "results.json").read_text())
    assert [arm["arm"] for arm in found["arms"]] == ["Teacher", "Baseline", "Seq-KD", "Baseline + gold"]
    assert found["arms"][0]["seeds"] == [3, 4] and found["arms"][0]["tuned_end_bonus_beam1"] in (0.0, 0.5, 1.0)
    (other,) = found["other_teachers"]
    assert (other["arm"], other["teacher"]) == ("Seq-KD", 4) and {"Seq-KD", "Baseline"} == set(other["significance"])
    assert {"beam1", "tuned beam1"} <= set(other["significance"]["Seq-KD"])
    seq_kd, *_ = (arm for arm in found["arms"] if arm["arm"] == "Seq-KD")
    assert other["perplexity"] != seq_kd["perplexity"], "it reads another corpus"
    table = (tmp_path / "table.md").read_text()
    assert "## Students of another teacher" in table and "## With lengths tuned on the validation set" in table


@pytest.mark.slow
def test_the_whole_table(run, tmp_path):
    """Every stage and arm."""
    status, told, log = run()
    assert status == 0, log
    found = json.loads((tmp_path / "results.json").read_text())
    assert [arm["arm"] for arm in found["arms"]] == [row.arm.name for row in rows(micro())]
    for arm in found["arms"]:
        wanted = {"Teacher"} if arm["arm"] == "Baseline" else {"Teacher", arm["against"]} - {arm["arm"]}
        assert set(arm["significance"]) >= wanted - {arm["arm"]}
    assert found["distilled"]["seq_inter"]["lines"] == 16 and found["distilled"]["seq_kd"]["lines"] == 64
    assert {claim["verdict"] for claim in found["claims"]} == {INCONCLUSIVE}, "of one seed"
    assert len(found["claims"]) == 10 and "10 claims:" in told and "reference:" in told
    assert str(tmp_path) not in json.dumps(found["arms"])
