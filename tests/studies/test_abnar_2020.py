"""The second study end to end on very little data, and each stage's promises: nothing is lost, nothing is mixed up."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from experiments.abnar_2020 import __main__ as command
from experiments.abnar_2020 import accuracy, dry_run, predictions, results, scales, study, tasks
from experiments.abnar_2020.arms import Arm, select, with_teachers
from experiments.abnar_2020.published import number
from experiments.abnar_2020.scale import WITHOUT_QUIRKS
from experiments.core import stages
from seqkd_jax import checkpoint, models
from seqkd_jax.config import CNNConfig, MLPConfig, SequenceLSTMConfig
from seqkd_jax.data import batches
from seqkd_jax.evaluation import calibration, representations
from seqkd_jax.training.trainer import train_model
from seqkd_jax.types import BOS, EOS, PAD, Model, UserError
from seqkd_jax.utils import files, performance

EMBEDDED = {"train": 160, "valid": 48, "test": 160}


def tiny(setup):
    """The smoke scale of a set-up with two models, two epochs and little data."""
    scale = scales.SCALES[setup, "smoke"]
    names = {"classification": ("LSTM", "Transformer"), "lm": ("LSTM", "Transformer"), "images": ("CNN", "MLP")}[setup]
    kept = {name: model for name, model in scale.models.items() if name in names}
    if setup == "images":
        kept = {"CNN": CNNConfig((4, 4), (4, 4), (4, 2)), "MLP": MLPConfig((16, 8))}
    run = scale.training[names[0]]
    run = dataclasses.replace(run, epochs=2, devices=1, batch=dataclasses.replace(run.batch, buckets=1))  # fast
    arms = (Arm(names[0]), Arm(names[1]), Arm(names[1], names[0]))
    embedded = EMBEDDED if setup != "images" else {"train": 256, "test": 128}
    return dataclasses.replace(
        scale,
        models=kept,
        training=dict.fromkeys(kept, run),
        arms=arms,
        embedded=embedded,
        mapped=40,
        paths=(arms[0], arms[2]),
        teaching="best",
    )


def after_one_epoch(run, train, valid, directory, name):
    """Training whose best/ is what was there after the first epoch, so that it is not the end."""
    found = train_model(run, train, valid, directory, name)
    files.remove(directory / "best")
    shutil.copytree(directory / "epoch-0001", directory / "best")
    return found


slow = pytest.mark.slow


@pytest.fixture(
    scope="module", params=["classification", pytest.param("lm", marks=slow), pytest.param("images", marks=slow)]
)
def finished(request, tmp_path_factory):
    """(study, results.json as read) of a tiny run through the command."""
    out, scale = tmp_path_factory.mktemp(request.param), tiny(request.param)
    scenario = "digits" if request.param == "images" else "agreement"
    arguments = ["--scenario", scenario, "--out", str(out)]
    arguments += ["--setup", request.param] if scenario == "agreement" else []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(scales.SCALES, (request.param, "smoke"), scale)
        patch.setattr(study, "train_model", after_one_epoch)
        assert command.main(arguments) == 0
    return study.Study(scale, tasks.load(scale, None), out / "stages", scale.seeds), files.read_json(
        out / "results.json"
    )


def test_the_command_tells_what_came_out(finished):
    made, told = finished
    assert [arm["arm"] for arm in told["arms"]] == [arm.label for arm in made.scale.arms]
    for arm in told["arms"]:
        assert arm["seeds"] == ([1, 2] if arm["teacher"] is None else [1001, 1002]) and arm["diverged"] == []
        wanted = {"classification": {"mu", "d", "a"}, "lm": {"mu", "perplexity"}, "images": {"accuracy_scaled"}}
        missing = (wanted[made.scale.setup] | {"loss", "ece", "ece_original"}) - arm["metrics"].keys()
        assert not missing, f"{arm['arm']} lacks {missing}"
        assert ("agreement" in arm["metrics"]) == (arm["teacher"] is not None)
        assert ("taught_entropy" in arm["metrics"]) == (arm["arm"] == made.scale.arms[0].label), (
            "only the first teaches"
        )
        assert sum(entry["n"] for entry in arm["reliability"]) > 0
    mapped = told["representations"]
    assert len(mapped["models"]) == 6 and np.shape(mapped["map"]) == (6, 2)
    assert {path["arm"] for path in mapped["paths"]} == {arm.label for arm in made.scale.paths}
    assert all(path["epochs"] == [0, 1, 2] for path in mapped["paths"])
    assert {claim["verdict"] for claim in told["claims"]} <= {
        "reproduced",
        "direction only",
        "not reproduced",
        "not run",
    }
    assert any(claim["verdict"] == "not run" for claim in told["claims"]), "arms that were not made have no verdict"
    out = made.root.parent
    assert "±" in (out / "table.md").read_text(encoding="utf-8")
    assert list((out / "plots").glob("*.png"))


def test_nothing_is_made_twice(finished, monkeypatch):
    made, _ = finished
    monkeypatch.setattr(study, "train_model", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(predictions, "decisions", lambda *_: pytest.fail("evaluated again"))
    for arm in made.scale.arms:
        study.evaluation(made, arm)


def test_decisions_are_those_of_the_probabilities(finished):
    """A slow reference: one example at a time through the model, without batches, padding or chunks."""
    made, _ = finished
    task, arm = made.task, made.scale.arms[2]
    found = checkpoint.load(study.training(made, arm) / study.END, replica=1)
    said = study.read_arrays(study.evaluation(made, arm) / "predictions.npz")["decisions_test"][1]
    test = task.tests["test"]
    for row in range(5):
        if made.scale.setup == "lm":
            inputs = jnp.array([[BOS, *test.encoded.targets[row]]], jnp.int32)
        else:
            inputs = jnp.asarray(test.encoded.sources[row])[None]
        features = found.model.features(found.params, inputs, None)[:, -1]
        logits = np.asarray(found.model.head(found.params, features))[0]
        chosen = logits if test.choices is None else logits[test.choices[row]]
        assert said[row] == chosen.argmax(), f"example {row}"


def test_soft_targets_against_scipy(finished):
    """Entropy and correctness of what teaches, one example at a time, at the temperature of distillation."""
    made, told = finished
    teacher = made.scale.arms[0]
    found = checkpoint.load(study.teaching(made, teacher), replica=1)
    shown = tasks.first(made.task.train, 3)
    config, shapes = made.scale.training[teacher.student].batch, study.shapes(made)
    given = found.model, found.params, shown, config, shapes
    said = predictions.at_labels(*given, temperature=3.0)
    entropies, right = [], []
    for row in range(3):
        labels, logits = one_by_one(made, found, shown, row)
        entropies += scipy.stats.entropy(scipy.special.softmax(logits / 3, axis=-1), axis=-1).tolist()
        right += (logits.argmax(-1) == labels).tolist()
    # Batches hold examples of one shape, so their order may be another.
    np.testing.assert_allclose(np.sort(said.entropy), np.sort(entropies), rtol=1e-4, atol=1e-5)
    assert said.correct.sum() == sum(right)
    # Cold, too: distributions of a few updates may be nearly uniform. And not only: cold ones may all be sure.
    for warmth in (0.01, 1.0):
        plain, other = (predictions.at_labels(*given, temperature=warmth, dropout=on).entropy for on in (False, True))
        assert np.isfinite(other).all()
        if not np.allclose(other, plain, rtol=1e-3, atol=1e-6):
            break
    else:
        pytest.fail("no dropout, though asked for")
    everything = told["arms"][0]["metrics"]["taught_entropy"]["values"]
    assert len(everything) == 2 and all(0 < value <= np.log(logits.shape[-1]) + 1e-6 for value in everything)


def test_a_student_is_compared_with_what_taught_it(finished):
    """Not with what became of its teacher: replica i of a student with replica i of the checkpoint that teaches."""
    made, told = finished
    teacher, _, student = made.scale.arms
    inputs = checkpoint.read_record(study.training(made, student) / study.END)["metadata"]["inputs"]
    assert inputs["teacher"] == checkpoint.fingerprint(study.teaching(made, teacher)), "it was taught by another"
    assert inputs["way of teaching"] == made.scale.teachers == "each"
    agreement, similar, of_teachers = [], [], []
    for place in range(made.seeds):
        taught_by = checkpoint.load(study.teaching(made, teacher), replica=place)
        at_end = checkpoint.load(study.training(made, teacher) / study.END, replica=place)
        assert checkpoint.arrays.sha256(taught_by.params) != checkpoint.arrays.sha256(at_end.params), "both are the end"
        taught = checkpoint.load(study.training(made, student) / study.END, replica=place)
        task = made.task
        said = [predictions.decisions(m.model, m.params, task.tests["test"]) for m in (taught_by, taught)]
        agreement.append(np.mean(said[0] == said[1]))
        right = "taught_accuracy" if made.scale.setup == "images" else "taught_mu"
        as_teacher = told["arms"][0]["metrics"][right]["values"][place]
        assert as_teacher == pytest.approx(np.mean(said[0] == task.tests["test"].truth))
        vectors = [predictions.vectors(m.model, m.params, task.mapped) for m in (taught_by, taught)]
        of_teachers.append(representations.cosine_matrix(vectors[0]))
        similar.append(representations.similarity(of_teachers[-1], representations.cosine_matrix(vectors[1])))
    alone = Arm(student.student)  # is compared with every seed of the teacher
    found = told["representations"]["to_teachers"][alone.label][teacher.label]
    for place, value in enumerate(found):
        model = checkpoint.load(study.training(made, alone) / study.END, replica=place)
        of_it = representations.cosine_matrix(predictions.vectors(model.model, model.params, made.task.mapped))
        each = [representations.similarity(of_it, one) for one in of_teachers]
        assert value == pytest.approx(np.mean(each), abs=1e-4)
    entry = next(arm for arm in told["arms"] if arm["arm"] == student.label)
    assert entry["metrics"]["agreement"]["values"] == pytest.approx(agreement)
    assert told["representations"]["to_teachers"][student.label][teacher.label] == pytest.approx(similar, abs=1e-4)


def test_metrics_are_counted_from_what_was_said(finished):
    made, told = finished
    for arm, entry in zip(made.scale.arms, told["arms"], strict=True):
        metrics = {name: found["values"] for name, found in entry["metrics"].items()}
        said = study.read_arrays(study.evaluation(made, arm) / "predictions.npz")
        right = (said["decisions_test"] == made.task.tests["test"].truth).mean(axis=1)
        assert metrics["accuracy" if made.scale.setup == "images" else "mu"] == pytest.approx(right.tolist())
        calibrated = [name for name, test in made.task.tests.items() if test.calibrated]
        assert calibrated == (["scaled", "translated"] if made.scale.setup == "images" else [])
        for name in ("valid", *calibrated):
            pairs = zip(said[f"{name}_confidence"], said[f"{name}_correct"], strict=True)
            errors = [calibration.expected_calibration_error(*pair, calibration.BINS) for pair in pairs]
            assert metrics["ece" if name == "valid" else f"ece_{name}"] == pytest.approx(errors)
        for name in calibrated:
            correct = said[f"{name}_correct"].mean(axis=1)
            assert metrics[f"accuracy_{name}"] == pytest.approx(correct.tolist()), (
                "of other images, or in another order"
            )
        if made.scale.setup == "lm":
            ends = [replica["history"][-1]["loss"] for replica in entry["training"]["replicas"]]
            assert metrics["perplexity"] == pytest.approx(np.exp(ends).tolist(), rel=1e-4)
            for nats, count, found in zip(
                said["valid_nats"], said["valid_count"], metrics["perplexity_batches"], strict=True
            ):
                batches_of_64 = [nats[:48].sum() / count[:48].sum()]  # the only one: of 48 sentences
                assert found == pytest.approx(np.mean(np.exp(batches_of_64)))


def test_a_diverged_teacher_takes_its_student_along(finished, monkeypatch):
    """Neither is averaged; where one teaches all and it is the first, no student is left."""
    made, _ = finished
    alone, student = made.scale.arms[0], made.scale.arms[2]
    read = files.read_json

    def with_divergence(path):
        told = read(path)
        if path.name == "summary.json" and path.parent.name == _directory(made, alone):
            told["replicas"][0]["diverged"] = 7
        return told

    monkeypatch.setattr(study.files, "read_json", with_divergence)
    assert study.diverged(made, alone) == {0}
    assert study.diverged(made, student) == {0}, "the student of a diverged teacher"
    common = made._replace(scale=dataclasses.replace(made.scale, teachers="one"))
    monkeypatch.setattr(study, "training", lambda _, arm: made.root / _directory(made, arm))
    assert study.diverged(common, student) == {0, 1}
    told = results.collect(made, {alone: {0}, student: {0}})
    assert [arm["seeds"] for arm in told["arms"]] == [[2], [1002]]
    assert [arm["diverged"] for arm in told["arms"]] == [[1], [1001]]
    assert all(len(arm["metrics"]["loss"]["values"]) == 1 for arm in told["arms"])
    # What is told of a seed that is left is the same as with the other: rows of predictions and lessons stay together.
    for name, metrics in ((alone.label, ("taught_entropy", "loss")), (student.label, ("agreement", "loss"))):
        left, whole = ({arm["arm"]: arm["metrics"] for arm in found["arms"]}[name] for found in (told, finished[1]))
        for metric in metrics:
            assert left[metric]["values"] == whole[metric]["values"][1:], f"{name} in {metric}"
    before, after = (found["representations"]["to_teachers"][student.label] for found in (finished[1], told))
    assert after[alone.label] == pytest.approx(before[alone.label][1:])


def test_an_arm_without_a_seed_left_is_reported(tmp_path, monkeypatch, capsys):
    """Its students are not trained, the others go on, and nothing breaks."""
    scale = tiny("images")
    healthy = scale.training["MLP"]
    broken = dataclasses.replace(healthy, optimiser=dataclasses.replace(healthy.optimiser, learning_rate=1e38))
    scale = dataclasses.replace(
        scale,
        models={"CNN": MLPConfig((16, 8)), "MLP": MLPConfig((16, 8))},
        training={"CNN": broken, "MLP": healthy},
    )
    monkeypatch.setitem(scales.SCALES, ("images", "smoke"), scale)
    assert command.main(["--scenario", "digits", "--out", str(tmp_path)]) == 0
    assert "no seed of CNN is left" in capsys.readouterr().err
    told = files.read_json(tmp_path / "results.json")
    by_arm = {arm["arm"]: arm for arm in told["arms"]}
    assert [arm["diverged"] for arm in told["arms"]] == [[1, 2], [], [1001, 1002]], "CNN, MLP, CNN → MLP"
    assert by_arm["MLP"]["metrics"] and not by_arm["CNN"]["metrics"] and not by_arm["CNN → MLP"]["metrics"]
    assert (
        by_arm["CNN"]["training"]["replicas"][0]["diverged"] > 0 and "replicas" not in by_arm["CNN → MLP"]["training"]
    )
    assert not list((tmp_path / "stages").glob("train-cnn-to-mlp-*")), "a student of no teacher was trained"
    assert "CNN: 1, 2" in (tmp_path / "table.md").read_text(encoding="utf-8")
    assert all(claim["verdict"] == "not run" for claim in told["claims"] if "CNN" in claim["about"])


def _directory(made, arm):
    hexadecimal = "[0-9a-f]" * 12  # not that of a student of this arm
    return next(path.name for path in made.root.glob(f"train-{arm.key}-{hexadecimal}"))


def test_other_data_are_other_stages(finished, monkeypatch):
    """What is learned from decides what is trained; what is tested on only what is evaluated."""
    made, _ = finished
    arm, looked_up = made.scale.arms[0], made._replace(make=False)
    task = made.task
    test = task.tests["test"]
    other_tests = {**task.tests, "test": test._replace(truth=test.truth[::-1])}
    other = looked_up._replace(task=dataclasses.replace(task, tests=other_tests))
    assert study.training(other, arm) == study.training(made, arm)
    with pytest.raises(stages.NotMade):
        study.evaluation(other, arm)
    turned = task.train._replace(sources=task.train.sources[::-1], targets=task.train.targets[::-1])
    other = made._replace(task=dataclasses.replace(task, train=turned))
    looked_up = other._replace(make=False)
    study.prepared(other)  # the same vocabulary and shapes: the stages after it must tell the data apart by themselves
    for stage in (study.training, study.evaluation, study.lesson):
        with pytest.raises(stages.NotMade, match="train-"):
            stage(looked_up, arm)
    monkeypatch.setattr(study, "training", lambda _, arm: made.root / _directory(made, arm))
    for stage in (study.evaluation, study.lesson):
        with pytest.raises(stages.NotMade, match="evaluate-|lesson-"):
            stage(looked_up, arm)


def test_a_run_killed_before_its_stage_was_is_not_made_again(tmp_path, monkeypatch):
    made = study.Study(tiny("images"), tasks.load(tiny("images"), None), tmp_path, 1)
    arm = Arm("MLP")
    study.prepared(made)

    def killed(work):
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "_drop_unfinished", killed)  # the first thing after the stage's own work
    with pytest.raises(KeyboardInterrupt):
        study.training(made, arm)
    monkeypatch.undo()
    monkeypatch.setattr(study, "train_model", lambda *_: pytest.fail("trained again"))
    assert (study.training(made, arm) / study.END).is_dir()


def test_arms_are_made_one_by_one(tmp_path, monkeypatch, capsys):
    """What --only made before is reported with what it makes now; what nobody asked for is not."""
    monkeypatch.setitem(scales.SCALES, ("images", "smoke"), tiny("images"))
    arguments = ["--scenario", "digits", "--out", str(tmp_path), "--seeds", "1", "--only"]
    for name, made in (("mlp", ["MLP"]), ("cnn", ["CNN", "MLP"])):
        assert command.main([*arguments, name]) == 0
        assert [arm["arm"] for arm in files.read_json(tmp_path / "results.json")["arms"]] == made
        assert "[cnn-to-mlp] left out: not among --only" in capsys.readouterr().err


def test_an_arm_that_was_not_made_is_left_out(finished):
    made, _ = finished
    with pytest.raises(stages.NotMade):
        study.evaluation(made._replace(make=False), Arm(made.scale.arms[0].student, made.scale.arms[1].student))


def test_classifiers_read_what_stands_before_the_verb():
    task = tasks.load(tiny("classification"), None)
    entries = task.vocabularies.source.entries
    read = [[entries[index] for index in ids] for ids in task.train.sources[:3]]
    drawn = tasks.agreement.load(None, tasks.DATA_SEED, EMBEDDED)["train"]
    for ids, words, verb in zip(read, drawn.words, drawn.verb, strict=False):
        assert ids[:-1] == words[:verb] and ids[-1] == entries[EOS], "the verb and what follows are not shown"


@pytest.mark.parametrize("setup", ["classification", "lm"])
def test_rows_that_neither_d_nor_a_counts_are_said_before_training(monkeypatch, setup):
    load = tasks.agreement.load

    def far_apart(*arguments):
        splits = load(*arguments)
        return splits | {"test": splits["test"]._replace(distance=splits["test"].distance * 0 + 17)}

    monkeypatch.setattr(tasks.agreement, "load", far_apart)
    with pytest.raises(UserError, match="split test: no row that D or A counts"):
        tasks.load(tiny(setup), None)


def test_language_models_that_cannot_be_scored_are_said_before_training(monkeypatch):
    load = tasks.agreement.load

    def without_forms(*arguments):
        splits = load(*arguments)
        test = splits["test"]
        return splits | {"test": test._replace(forms=[(verb, "") for verb, _ in test.forms])}

    monkeypatch.setattr(tasks.agreement, "load", without_forms)
    with pytest.raises(UserError, match="split test: no row can be scored"):
        tasks.load(tiny("lm"), None)


def test_a_stratum_that_training_has_shown_is_left_out(monkeypatch):
    drawn = tasks.agreement.load(None, tasks.DATA_SEED, EMBEDDED)["train"]
    words = [line[:verb] for line, verb in zip(drawn.words[:4], drawn.verb[:4].tolist(), strict=True)]
    shown = tasks.Prefixes(words, drawn.plural[:4], np.ones(4, np.int32), "shown")
    monkeypatch.setattr(tasks.agreement, "strata", lambda data: {1: shown})
    task = tasks.load(tiny("classification"), None)
    assert set(task.tests) == {"test"} and (task.counts["gold_1"], task.counts["gold_1_in_training"]) == (0, 4)


def test_language_models_weigh_the_verb_against_its_other_form():
    task = tasks.load(tiny("lm"), None)
    entries = task.vocabularies.source.entries
    test = task.tests["test"]
    drawn = tasks.agreement.load(None, tasks.DATA_SEED, EMBEDDED)["test"]
    kept = tasks.sentences.take(drawn, tasks.sentences.scorable(drawn, set(entries)))
    for choices, forms, plural in zip(test.choices, kept.forms, test.truth, strict=True):
        assert entries[choices[plural]] == forms[0], "the right form stands at the place of its number"
        assert entries[choices[1 - plural]] == forms[1]


def test_strata_weigh_all_singular_forms_against_all_plural_ones(monkeypatch):
    unseen = tasks.Prefixes([["no", "such", "words"]], np.array([True]), np.ones(1, np.int32), "unseen")
    monkeypatch.setattr(tasks.agreement, "strata", lambda data: {1: unseen})
    task = tasks.load(tiny("lm"), None)
    forms = tasks.sentences.verb_forms(tasks.agreement.load(None, tasks.DATA_SEED, EMBEDDED)["train"])
    entries = task.vocabularies.source.entries
    for ids, plural in zip(task.tests["gold_1"].choices, (False, True), strict=True):
        assert ids and {entries[index] for index in ids} == {form for form, number in forms.items() if number == plural}
    assert task.tests["gold_1"].truth.tolist() == [1], "the place of the plural forms"


@pytest.mark.parametrize("setup", ["classification", "lm"])
def test_a_sentence_that_no_model_can_read_is_said_before_training(setup, monkeypatch):
    """A model has so many positions; the longest that is let through is read."""
    load, room = tasks.agreement.load, 128 - tasks.BESIDE

    def with_long_one(count):
        def loaded(*arguments):
            splits = load(*arguments)
            valid = splits["valid"]
            verb = valid.verb.copy()
            verb[3] = count
            words = [*valid.words[:3], ["far", *["away"] * count][:count] + valid.words[3], *valid.words[4:]]
            kept = words if setup == "classification" else [line[:count] for line in words]
            return splits | {"valid": valid._replace(words=kept, verb=verb)}

        return loaded

    monkeypatch.setattr(tasks.agreement, "load", with_long_one(room + 1))
    with pytest.raises(UserError, match=f"split valid: {room + 1} words to read.*'far away away.*read {room} at most"):
        tasks.load(tiny(setup), None)
    monkeypatch.setattr(tasks.agreement, "load", with_long_one(room))
    scale = tiny(setup)
    task = tasks.load(scale, None)
    model = models.build(scale.models["Transformer"], task.vocabularies.source.size, task.vocabularies.target.size)
    params = model.init(jax.random.key(0))
    shapes = batches.make_plan(task.valid, scale.training["Transformer"].batch).shapes
    said = predictions.at_labels(model, params, task.valid, scale.training["Transformer"].batch, shapes)
    assert np.isfinite(said.nats).all()


def test_a_language_model_decides_between_words_or_sums_of_words():
    """After the last word that it has read: the two of each row, or all singular forms against all plural ones."""
    model = models.build(SequenceLSTMConfig(1, 8, reads="every"), 16, 16)
    params = jax.tree.map(lambda leaf: 4 * leaf, jax.jit(model.init)(jax.random.key(0)))
    lines = [[5, 6], [7], [8, 9, 4], [10, 11, 12, 13, 14], [6]]
    pairs, sums = np.array([[5, 7], [6, 8], [15, 4], [9, 10], [12, 5]]), ([5, 7, 9], [6, 8])
    logits = [model.head(params, model.features(params, jnp.array([[BOS, *line]]), None))[0, -1] for line in lines]
    probabilities = scipy.special.softmax(np.array(logits, np.float64), axis=-1)
    expected = {
        "of two": [int(row[pair[1]] > row[pair[0]]) for row, pair in zip(probabilities, pairs, strict=True)],
        "of sums": [int(row[sums[1]].sum() > row[sums[0]].sum()) for row in probabilities],
    }
    encoded, truth = batches.sequences(lines), np.zeros(5, int)
    for name, choices in {"of two": pairs, "of sums": sums}.items():
        found = predictions.decisions(model, params, tasks.Test(encoded, truth, choices)).tolist()
        assert found == expected[name] and len(set(found)) > 1, f"{name}: {found}, expected {expected[name]}"


def test_labels_are_measured_in_order(finished):
    made, _ = finished
    task, arm = made.task, made.scale.arms[0]
    found = checkpoint.load(study.training(made, arm) / study.END, replica=0)
    batch = made.scale.training[arm.student].batch
    # Shapes of their own, several of them: rows then come in another order than the examples.
    plan = batches.make_plan(task.valid, dataclasses.replace(batch, sentences=8, buckets=2))
    assert len(plan.shapes) == (1 if made.scale.setup == "images" else 2)
    said = predictions.at_labels(found.model, found.params, task.valid, batch, plan.shapes)
    last = files.read_json(study.training(made, arm) / "summary.json")["replicas"][0]["history"][-1]
    assert accuracy.corpus_perplexity(said.nats, said.count) == pytest.approx(np.exp(last["loss"]), rel=1e-4)
    assert len(said.confidence) == said.count.sum() == len(said.correct)
    some = tasks.first(task.valid, 16)
    said = predictions.at_labels(found.model, found.params, some, batch, plan.shapes)
    each = [one_by_one(made, found, some, row) for row in range(len(said.nats))]
    highest = np.concatenate([scipy.special.softmax(logits, axis=-1).max(axis=-1) for _, logits in each])
    np.testing.assert_allclose(np.sort(said.confidence), np.sort(highest), rtol=1e-3)
    correct = np.concatenate([logits.argmax(axis=-1) == labels for labels, logits in each])
    assert said.correct.sum() == correct.sum()
    for row, (labels, logits) in enumerate(each):
        nats = -scipy.special.log_softmax(logits, axis=-1)[np.arange(len(labels)), labels].sum()
        assert said.nats[row] == pytest.approx(nats, rel=1e-3, abs=1e-4), f"example {row}"
        assert said.count[row] == len(labels)


def one_by_one(made, found, encoded, row):
    """The labels of one example and the logits at them, without batches or padding."""
    labels, inputs = np.array(encoded.targets[row]), encoded.sources[row]
    if made.scale.setup == "lm":
        labels, inputs = np.array([*labels, EOS]), np.array([BOS, *labels])
    features = found.model.features(found.params, jnp.asarray(inputs)[None], None)
    return labels, np.asarray(found.model.head(found.params, features))[0].astype(np.float64)


def test_differences_are_those_of_the_arms(finished):
    """Their intervals decide verdicts: the arms, the metric and the examples must be the ones that are named."""
    made, told = finished
    by_arm = {arm["arm"]: arm["metrics"] for arm in told["arms"]}
    seen = set()
    for key, found in told["differences"].items():
        first, second = key.split(" | ")
        for metric, entry in found.items():
            expected = by_arm[first][metric]["mean"] - by_arm[second][metric]["mean"]
            assert entry["mean"] == pytest.approx(expected, abs=1e-9), f"{key} in {metric}"
            assert entry["low"] <= entry["mean"] <= entry["high"]
            seen.add(metric)
    wanted = {"images": {"accuracy", "accuracy_scaled", "accuracy_translated"}, "lm": {"d", "a"}}
    assert seen == wanted.get(made.scale.setup, {"mu", "d", "a"})


def test_every_published_size_is_a_model():
    """Parameter counts of the paper, where it tells them (PAPERS: about 9.6M, 24.6M, 7.6M; 3.62M, 2.6M)."""
    lm, classification = scales.SCALES["lm", "paper"], scales.SCALES["classification", "paper"]
    told = {"Small LSTM": 9.6e6, "Transformer": 24.6e6, "Small Transformer": 7.6e6}
    for name, count in told.items():
        assert models.parameter_count(models.build(lm.models[name], 10_036, 10_036)) == pytest.approx(count, rel=0.05)
    told = {"LSTM": 3.62e6, "Transformer": 2.6e6, "Transformer-seq": 2.6e6, "UTransformer-seq": 3.62e6}
    for name, count in told.items():
        found = models.parameter_count(models.build(classification.models[name], 10_036, 2))
        assert found == pytest.approx(count, rel=0.05), name


@pytest.mark.parametrize("scale", scales.SCALES.values(), ids=lambda scale: f"{scale.setup}-{scale.name}")
def test_every_arm_can_be_made(scale):
    for arm in scale.arms:
        config = scale.config(arm, 2)
        assert arm.student in scale.models and (arm.teacher is None or Arm(arm.teacher) in scale.arms)
        assert (config.loss.name == "word_kd") == (arm.teacher is not None)
    read = {scale.training[name].batch for name in scale.models}
    assert len(read) == 1, "teacher and student must read the same batches"


def test_the_grids_are_the_paper_s():
    arms = scales.SCALES["classification", "small"].arms
    assert len(arms) == 20 and len(set(arms)) == 20
    assert len(scales.SCALES["lm", "paper"].arms) == 20 and len(scales.SCALES["images", "small"].arms) == 6
    assert number("classification", "LSTM → Transformer", "mu") is not None
    named = select(arms, ["lstm-to-transformer", "Transformer"])
    assert named == (Arm("Transformer"), Arm("Transformer", "LSTM"))
    assert with_teachers(arms, named) == (Arm("LSTM"), Arm("Transformer"), Arm("Transformer", "LSTM"))
    with pytest.raises(UserError, match="no arm is called 'gru'"):
        select(arms, ["gru"])


def test_quirks_of_the_original_code_are_switched_on_by_name():
    plain = scales.scale_of("digits", None, "small")
    both = scales.scale_of("digits", None, "small", ["teacher_dropout", "temperature_scaling"])
    assert plain.quirks == () and both.quirks == ("teacher_dropout", "temperature_scaling")
    taught = both.config(Arm("MLP", "CNN"), 2).loss
    assert taught.teacher_dropout and taught.temperature_scaling == "inverse" and taught.temperature == 5
    assert both.config(Arm("MLP"), 2) == plain.config(Arm("MLP"), 2), "what is trained alone is as before"
    assert set(plain.deviations) - set(both.deviations) == set(WITHOUT_QUIRKS.values())
    told = scales.scale_of("agreement", "lm", "small").deviations
    assert not any("T²" in note for note in told), "at T = 1 there is nothing to multiply"


def test_a_fifth_architecture_is_one_line(monkeypatch):
    four = scales._classifiers
    monkeypatch.setattr(scales, "_classifiers", lambda *parts: four(*parts) | {"GRU": SequenceLSTMConfig(1, 8)})
    smoke, small, paper = (
        build() for build in (scales._classification_smoke, scales._classification_small, scales._classification_paper)
    )
    assert {Arm("GRU"), Arm("GRU", "LSTM")} <= set(smoke.arms) and len(small.arms) == len(paper.arms) == 5 + 25
    for scale in (smoke, small, paper):
        assert scale.config(Arm("GRU", "LSTM"), 2).loss == scale.soft and scale.config(Arm("GRU"), 2).loss != scale.soft


@dataclasses.dataclass(frozen=True)
class MeanConfig:
    """A bag of words."""

    width: int = 8
    dropout: float = 0.0


def build_mean(config, source_size, target_size):
    def init(key):
        return {
            "in": jax.random.normal(key, (source_size, config.width)),
            "out": jnp.zeros((target_size, config.width)),
        }

    def features(params, inputs, keys):
        real = (inputs != PAD)[..., None]
        return jnp.sum(params["in"][inputs] * real, axis=1, keepdims=True) / jnp.sum(real, axis=1, keepdims=True)

    return Model(init, features, lambda params, found: found @ params["out"].T)


def test_a_fifth_architecture_is_trained_taught_and_teaches(tmp_path, monkeypatch):
    """What stands above could be a file; these are its two lines, in the models and in a scale."""
    monkeypatch.setitem(models.MODELS, "mean", models.Entry(MeanConfig, build_mean))
    scale = tiny("classification")
    run = dataclasses.replace(scale.training["LSTM"], epochs=1)
    architectures = {"Mean": MeanConfig(), "Wide mean": MeanConfig(16)}
    arms = (Arm("Mean"), Arm("Wide mean"), Arm("Wide mean", "Mean"))
    scale = dataclasses.replace(scale, models=architectures, training=dict.fromkeys(architectures, run), arms=arms)
    monkeypatch.setitem(scales.SCALES, ("classification", "smoke"), dataclasses.replace(scale, paths=arms))
    assert command.main(["--out", str(tmp_path)]) == 0
    told = files.read_json(tmp_path / "results.json")
    assert [arm["arm"] for arm in told["arms"]] == ["Mean", "Wide mean", "Mean → Wide mean"]
    assert all(np.isfinite(arm["metrics"]["loss"]["values"]).all() for arm in told["arms"])
    assert len(list((tmp_path / "plots").glob("*.png"))) == 6


def test_taught_models_have_the_schedule_of_distillation():
    """At scale paper those trained alone and taught have rates of their own; elsewhere the same."""
    for setup, student in (("classification", "Transformer"), ("images", "MLP"), ("lm", "LSTM")):
        scale = scales.SCALES[setup, "paper"]
        alone, taught = (scale.config(Arm(student, by), 1).optimiser for by in (None, next(iter(scale.models))))
        assert alone == scale.training[student].optimiser != taught == scale.distilling[student].optimiser
    small = scales.SCALES["classification", "small"]
    assert small.config(Arm("LSTM", "LSTM"), 1).optimiser == small.config(Arm("LSTM"), 1).optimiser


def test_students_may_learn_the_label_too():
    """A mixture, told as what the paper has not."""
    asked = command.Command(alpha=0.5)
    mixed, pure = command._scale(asked), command._scale(command.Command())
    assert mixed.config(Arm("Transformer", "LSTM"), 2).loss == dataclasses.replace(pure.soft, alpha=0.5)
    assert mixed.config(Arm("Transformer"), 2) == pure.config(Arm("Transformer"), 2)
    assert command._out(mixed, asked).name == "classification-smoke-alpha_0.5"
    (note,) = set(mixed.deviations) - set(pure.deviations)
    assert "a weight of 0.5" in note


def test_one_teacher_may_teach_all():
    chosen = command._scale(command.Command(teachers="one"))
    assert chosen.teachers == "one" and command._scale(command.Command()).teachers == "each"
    asked = command.Command(teachers="one", quirks=("temperature_scaling", "teacher_dropout"))
    turned = dataclasses.replace(asked, quirks=asked.quirks[::-1])
    places = {command._out(chosen, one).name for one in (asked, turned)}
    assert places == {"classification-smoke-teacher_dropout-temperature_scaling-one_teacher"}, "another order, the same"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scenario", "digits", "--setup", "lm"], "digits has no set-up 'lm'"),
        (["--scale", "small"], "needs --data: train.tsv"),
        (["--scale", "small", "--data", "nowhere"], "nowhere: no such file"),
        (["--data", "."], "embedded data"),
        (["--seeds", "0"], "--seeds 0"),
        (["--alpha", "0"], "--alpha 0: above 0"),
        (["--only", "gru"], "no arm is called 'gru'"),
    ],
)
def test_wrong_commands_say_so_in_one_line(arguments, message, capsys):
    assert command.main(arguments) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said


def _pass_of_teacher(scale, arm, batches_of):
    """FLOPs in which three teachers read the training set, by the count of a whole model's forward pass."""
    taught = dry_run._build(scale, arm.teacher)
    batch = dry_run._batch(scale, scale.config(arm, 3).batch.sentences)
    inputs = jax.ShapeDtypeStruct(batch.inputs.shape[2:], batch.inputs.dtype)
    params = dry_run._params(taught, 1)
    return 3 * batches_of * performance.count_flops(jax.jit(lambda p, x: taught.features(p, x, None)), params, inputs)


@pytest.mark.parametrize("setup", [pytest.param("classification", marks=slow), "images"])
def test_a_dry_run_trains_nothing(setup, capsys):
    scenario = "digits" if setup == "images" else "agreement"
    assert command.main(["--scenario", scenario, "--scale", "small", "--dry-run"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")][2:]
    rows = {cells[0]: cells[1:] for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)}
    scale = scales.SCALES[setup, "small"]
    assert list(rows) == [arm.label for arm in scale.arms]
    batches_of = {"classification": 624, "images": 469}[setup]  # 39,929 / 64 and 60,000 / 128, rounded up
    for arm in scale.arms:
        parameters, updates, flops, total = (float(cell.replace(",", "")) for cell in rows[arm.label])
        sizes = (10_004, 2) if setup == "classification" else (0, 10)
        assert parameters == models.parameter_count(models.build(scale.models[arm.student], *sizes))
        once = 0.0 if arm.teacher is None else _pass_of_teacher(scale, arm, batches_of)
        assert updates == 10 * batches_of and total == pytest.approx(updates * flops + once, rel=0.1)
    # The MLP by hand: its dense layers on 128 images, forward and twice as much backward (the pixels have no gradient).
    if setup == "images":
        layers = [784 * 512, 512 * 128, 128 * 32, 32 * 10]
        expected = 3 * 2 * 128 * (3 * sum(layers) - layers[0])
        assert float(rows["MLP"][2]) == pytest.approx(expected, rel=0.05)
        # A teacher's features are recorded: in the step only its head is left, as small as the student's.
        assert float(rows["CNN → MLP"][2]) == pytest.approx(expected, rel=0.05)
