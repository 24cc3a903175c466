"""The controls of the second study: arms that differ from the plain one in one thing, and in no other."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from tiny_studies import MEAN, tiny

from experiments.abnar_2020 import pipeline, results, scales, setups, study, tasks
from experiments.abnar_2020.arms import MATCHED, Arm, Way
from experiments.core.study import Workspace, main
from seqkd_jax import checkpoint, models
from seqkd_jax.data import batches
from seqkd_jax.utils import files

WAYS = {
    "half A": Way("half A", learns="A"),
    "cross-fit": Way("half B, taught by half A", learns="B", teacher="half A"),
    "warm": Way("temperature 2", temperature=2.0),
    "early": Way("its first epoch", teaching="epoch-0001"),
    "matched": Way("no better than the student", teaching=MATCHED),
    "dropout 0.6": Way("more dropout", dropout=0.6),
}
TAUGHT = ("cross-fit", "warm", "early", "matched")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(workspace, results.json) of all ways of a student on half of the toy data, through the command."""
    scale, out = tiny("classification", real=False), tmp_path_factory.mktemp("controls")
    run = dataclasses.replace(scale.training["LSTM"], validate_every=1, keep=9)
    arms = (*scale.arms, Arm("LSTM", way="half A"), Arm("LSTM", way="dropout 0.6"))
    arms += tuple(Arm("Transformer", "LSTM", way) for way in TAUGHT)
    training = scale.training | {"LSTM": run}
    scale = dataclasses.replace(scale, arms=arms, ways=WAYS, training=training, path_seeds=1, name="controls")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "mean", MEAN)
        patch.setitem(scales.SCALES, ("classification", "controls"), scale)
        assert main(study.STUDY, ["--scale", "controls", "--out", str(out)]) == 0
        yield Workspace(scale, tasks.load(scale, None), out / "stages"), files.read_json(out / "results.json")


def inputs_of(made, arm):
    """What a run was made of: name -> SHA-256."""
    return checkpoint.read_record(pipeline.training(made, arm) / pipeline.END)["metadata"]["inputs"]


def taught_by(made, way):
    return inputs_of(made, Arm("Transformer", "LSTM", way))["teacher"]


def test_halves_share_no_input_and_are_all():
    train = tasks.load(tiny("classification"), None).train
    halves = [tasks.half(train, name) for name in "AB"]
    read = [{source.tobytes() for source in half.sources} for half in halves]
    assert not read[0] & read[1]
    assert sum(len(half.targets) for half in halves) == len(train.targets) == len(train.sources)
    assert abs(len(read[0]) - len(read[1])) <= 1
    lines = batches.sequences([[5, 6], [7], [5, 6], [8]])
    kept = [[target.tolist() for target in tasks.half(lines, name).targets] for name in "AB"]
    assert kept == [[[5, 6], [5, 6], [8]], [[7]]], "a language model's examples are what it predicts"


def test_a_cross_fit_teacher_has_not_seen_what_it_teaches(finished):
    made, _ = finished
    teacher, student = Arm("LSTM", way="half A"), Arm("Transformer", "LSTM", "cross-fit")
    for arm, half in ((teacher, "A"), (student, "B")):
        assert inputs_of(made, arm)["training corpus"] == batches.fingerprint(tasks.half(made.data.train, half))
    assert taught_by(made, "cross-fit") == checkpoint.fingerprint(pipeline.training(made, teacher) / "best")


def test_a_teacher_of_one_epoch_is_no_other(finished):
    made, _ = finished
    assert taught_by(made, "early") == checkpoint.fingerprint(pipeline.training(made, Arm("LSTM")) / "epoch-0001")


def test_a_matched_teacher_is_as_good_as_its_student_alone(finished):
    """Of each seed the nearest of all kept checkpoints, with its own weights."""
    made, _ = finished
    chosen = pipeline.matched(made, Arm("Transformer", "LSTM", "matched"))
    assert taught_by(made, "matched") == checkpoint.fingerprint(chosen)
    runs = [pipeline.training(made, Arm(name)) for name in ("LSTM", "Transformer")]
    teachers, alone = ([seed["history"] for seed in files.read_json(run / "summary.json")["replicas"]] for run in runs)
    for place, (history, other) in enumerate(zip(teachers, alone, strict=True)):
        nearest = min(history, key=lambda entry: abs(entry["loss"] - other[-1]["loss"]))
        step = checkpoint.load(runs[0] / f"step-{nearest['step']:07d}", replica=place)
        own = checkpoint.load(chosen, replica=place)
        assert len(history) == 6 and jax.tree.all(jax.tree.map(np.array_equal, step.params, own.params))


def test_a_way_changes_one_thing(finished):
    made, told = finished
    scale, plain = made.scale, Arm("Transformer", "LSTM")
    assert scale.config(plain._replace(way="warm")).loss == dataclasses.replace(scale.soft, temperature=2.0)
    for way in ("early", "matched", "cross-fit"):
        assert scale.config(plain._replace(way=way)) == scale.config(plain)
    more = Arm("LSTM", way="dropout 0.6")
    assert scale.model(more) == dataclasses.replace(scale.models["LSTM"], dropout=0.6)
    assert scale.config(more) == scale.config(Arm("LSTM"))
    metrics = {arm["arm"]: arm["metrics"] for arm in told["arms"]}
    assert len(metrics) == len(scale.arms)
    for way in TAUGHT:
        found = metrics[f"LSTM → Transformer ({way})"]
        assert "teacher_entropy" in found and "agreement" in found and "taught_entropy" not in found
    assert "teacher_entropy" not in metrics["LSTM → Transformer"] and "taught_entropy" in metrics["LSTM"]
    entropies = {way: metrics[f"LSTM → Transformer ({way})"]["teacher_entropy"]["mean"] for way in TAUGHT}
    assert entropies["warm"] > metrics["LSTM"]["taught_entropy"]["mean"]


def test_controls_are_told_apart_from_plain_arms(finished):
    """In tables by their names; the grids and the gains are of the plain arms."""
    made, told = finished
    table = (made.root.parent / "table.md").read_text(encoding="utf-8")
    assert "| LSTM → Transformer (cross-fit)" in table and "| that of LSTM → Transformer (early)" in table
    assert told["ways"] == {name: way.about for name, way in WAYS.items()}
    assert {path["seed"] for path in told["representations"]["paths"]} == {1, 1001}


def test_an_arm_waits_for_what_chooses_its_teacher(finished):
    scale = finished[0].scale
    matched = Arm("Transformer", "LSTM", "matched")
    assert scale.needs(matched) == (Arm("LSTM"), Arm("Transformer"))
    assert scale.needs(Arm("Transformer", "LSTM", "cross-fit")) == (Arm("LSTM", way="half A"),)
    assert scale.needs(Arm("LSTM")) == ()


def test_rate_and_dropout_are_chosen_by_validation_loss(tmp_path, monkeypatch):
    """Rates first, then dropouts at the best of them; every arm of that architecture has what was chosen."""
    losses = {(1e-3, 0.1, 2): 3.0, (1e-2, 0.1, 2): 2.0, (1e-1, 0.1, 2): None, (1e-2, 0.1, 9): 1.5, (1e-2, 0.3, 9): 1.0}
    asked = []

    def loss(run, workspace, directory):
        assert run.config.replicas == 1 and run.config.seed == 2001 and run.config.loss.name == "nll"
        optimiser = run.config.optimiser
        assert optimiser.warmup_steps == round(50 * run.config.max_steps / 6), "in proportion"
        asked.append((optimiser.learning_rate, run.model.dropout, run.config.max_steps))
        return losses[asked[-1]]

    monkeypatch.setattr(pipeline.search, "_loss", loss)
    monkeypatch.setitem(models.MODELS, "mean", MEAN)
    search = setups.Search((1e-3, 1e-2, 1e-1), 2, (0.1, 0.3), 3)
    scale = dataclasses.replace(tiny("lm", real=False), search=search)
    made = Workspace(scale, tasks.load(scale, None), tmp_path)
    for arm in (Arm("Transformer"), Arm("Transformer", "LSTM")):
        model, config = pipeline.setting(made, arm)
        assert (model.dropout, config.optimiser.learning_rate) == (0.3, 1e-2)
        assert dataclasses.replace(config, optimiser=scale.config(arm).optimiser) == scale.config(arm)
    assert asked == list(losses), "each once"
    assert str(search) in scale.deviations


def test_dropout_is_changed_in_proportion_everywhere():
    model = setups.with_dropout(scales.SCALES["lm", "small"].models["Transformer"], 0.3)
    assert (model.dropout, model.embedding_dropout, model.attention_dropout) == (0.3, 0.15, 0.45)
    model = setups.with_dropout(scales.SCALES["classification", "small"].models["LSTM"], 0.6)
    assert (model.dropout, model.input_dropout, model.recurrent_dropout) == (0.6, 0.4, 0.0)


def test_how_often_gradients_were_clipped(tmp_path):
    """Of each seed, of the updates that were logged; a validation is none."""
    lines = [{"step": 20, "gradient_norm": [0.5, 2.0]}, {"validation": True, "step": 30}]
    lines += [{"step": 40, "gradient_norm": [3.0, 4.0]}]
    files.write_text(tmp_path / "metrics.jsonl", "".join(files.json_line(line) for line in lines))
    config = scales.SCALES["images", "controls"].config(Arm("MLP"))
    assert results._clipped(tmp_path, config, [0, 1])["clipped"]["values"] == [0.5, 1.0]
    files.write_text(tmp_path / "metrics.jsonl", "")
    assert results._clipped(tmp_path, config, [0, 1]) == {}


def test_the_original_s_loss_and_norm_are_ways_of_digits():
    scale = scales.SCALES["images", "controls"]
    taught = Arm("MLP", "CNN")
    assert scale.config(taught._replace(way="inverse scaling")).loss.temperature_scaling == "inverse"
    normed = taught._replace(way="batch norm")
    assert scale.model(normed).norm == scale.model(scale.teacher(normed)).norm == "batch"
    assert scale.model(taught).norm == "layer" and scale.model(scale.teacher(taught)).norm == "group"
    assert (scale.config(Arm("CNN")).epochs, scale.config(taught).epochs) == (30, 100)


def test_a_diverged_seed_is_compared_with_nobody(monkeypatch):
    """Not even where the first seed of a teacher teaches all, and is the one that diverged."""
    teacher, alone, truth = Arm("LSTM"), Arm("Transformer"), np.array([0, 1, 0, 1])
    decided = np.stack([1 - truth, truth, truth])  # of the teacher's three seeds
    monkeypatch.setattr(pipeline, "lesson_of", lambda workspace, arm: {"decisions_test": decided})
    arms = teacher, alone, Arm("Transformer", "LSTM")
    scale = SimpleNamespace(arms=arms, teacher=lambda arm: teacher if arm.teacher else None)
    task = SimpleNamespace(tests={"test": SimpleNamespace(truth=truth)})
    kept = {
        teacher: {"places": np.array([1, 2]), "decisions_test": decided[1:]},
        alone: {"places": np.arange(3), "decisions_test": np.stack([np.array([0, 1, 0, 0])] * 3)},
    }
    scale.teachers = "one"
    assert results._mistakes(SimpleNamespace(scale=scale, data=task), kept) == {}
    scale.teachers = "each"
    (shared,) = results._mistakes(SimpleNamespace(scale=scale, data=task), kept)["Transformer"].values()
    assert shared["shared"] == [0.0, 0.0, 0.0]
