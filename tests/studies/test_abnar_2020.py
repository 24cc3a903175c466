"""The second study end to end on very little data, and each stage's promises: nothing is lost, nothing is mixed up."""

import dataclasses
import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from tiny_studies import MEAN, TOY, MeanConfig, tiny

from experiments.abnar_2020 import accuracy, pipeline, predictions, results, scales, study, tasks
from experiments.abnar_2020.arms import Arm
from experiments.abnar_2020.published import number
from experiments.abnar_2020.setups import WITHOUT_QUIRKS
from experiments.core import stages
from experiments.core.claims import VERDICTS
from experiments.core.study import Workspace, main
from seqkd_jax import checkpoint, models
from seqkd_jax.config import OptimiserConfig, SequenceLSTMConfig
from seqkd_jax.data import batches
from seqkd_jax.evaluation import calibration, representations
from seqkd_jax.training import loop
from seqkd_jax.training.trainer import train_model
from seqkd_jax.types import BOS, EOS, UserError
from seqkd_jax.utils import files, performance

slow = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def own_model():
    """What stands in tiny_studies could be a file of models/; this is its line there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "mean", MEAN)
        yield


def after_one_epoch(run, train, valid, directory, name):
    """Training whose best/ is what was there after the first epoch, so that it is not the end."""
    found = train_model(run, train, valid, directory, name)
    files.remove(directory / "best")
    shutil.copytree(directory / "epoch-0001", directory / "best")
    return found


RUNS = {
    "classification": ("classification", False),
    "lm": ("lm", False),
    "digits": ("images", True),
    "classification, the paper's models": ("classification", True),
    "lm, the paper's models": ("lm", True),
}


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[slow] if real else []) for name, (_, real) in RUNS.items()]
)
def finished(request, tmp_path_factory):
    """(workspace, results.json as read) of a tiny run through the command."""
    setup, real = RUNS[request.param]
    out, scale = tmp_path_factory.mktemp(setup), tiny(setup, real)
    arguments = ["--scenario", "digits"] if setup == "images" else ["--setup", setup]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(scales.SCALES, (setup, "smoke"), scale)
        patch.setattr(pipeline, "train_model", after_one_epoch)
        assert main(study.STUDY, [*arguments, "--out", str(out)]) == 0
    return Workspace(scale, tasks.load(scale, None), out / "stages"), files.read_json(out / "results.json")


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
    assert {claim["verdict"] for claim in told["claims"]} <= set(VERDICTS)
    assert any(claim["verdict"] == "not run" for claim in told["claims"]), "arms that were not made have no verdict"
    out = made.root.parent
    assert "±" in (out / "table.md").read_text(encoding="utf-8")
    assert list((out / "plots").glob("*.png"))


def test_nothing_is_made_twice(finished, monkeypatch):
    made, _ = finished
    monkeypatch.setattr(pipeline, "train_model", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(predictions, "decisions", lambda *_: pytest.fail("evaluated again"))
    for arm in made.scale.arms:
        pipeline.evaluation(made, arm)


def test_decisions_are_those_of_the_probabilities(finished):
    """A slow reference: one example at a time through the model, without batches, padding or chunks."""
    made, _ = finished
    task, arm = made.data, made.scale.arms[2]
    found = checkpoint.load(pipeline.training(made, arm) / pipeline.END, replica=1)
    said = pipeline.read_arrays(pipeline.evaluation(made, arm) / "predictions.npz")["decisions_test"][1]
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
    found = checkpoint.load(pipeline.teaching(made, made.scale.arms[2]), replica=1)
    shown = tasks.first(made.data.train, 3)
    config, shapes = made.scale.training[teacher.student].batch, pipeline.shapes(made)
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
    inputs = checkpoint.read_record(pipeline.training(made, student) / pipeline.END)["metadata"]["inputs"]
    assert inputs["teacher"] == checkpoint.fingerprint(pipeline.teaching(made, student)), "it was taught by another"
    assert inputs["way of teaching"] == made.scale.teachers == "each"
    agreement, similar, of_teachers = [], [], []
    for place in range(made.scale.seeds):
        taught_by = checkpoint.load(pipeline.teaching(made, student), replica=place)
        at_end = checkpoint.load(pipeline.training(made, teacher) / pipeline.END, replica=place)
        assert checkpoint.arrays.sha256(taught_by.params) != checkpoint.arrays.sha256(at_end.params), "both are the end"
        taught = checkpoint.load(pipeline.training(made, student) / pipeline.END, replica=place)
        task = made.data
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
        model = checkpoint.load(pipeline.training(made, alone) / pipeline.END, replica=place)
        of_it = representations.cosine_matrix(predictions.vectors(model.model, model.params, made.data.mapped))
        each = [representations.similarity(of_it, one) for one in of_teachers]
        assert value == pytest.approx(each, abs=1e-4)
    entry = next(arm for arm in told["arms"] if arm["arm"] == student.label)
    assert entry["metrics"]["agreement"]["values"] == pytest.approx(agreement)
    assert told["representations"]["to_teachers"][student.label][teacher.label] == pytest.approx(similar, abs=1e-4)


def test_metrics_are_counted_from_what_was_said(finished):
    made, told = finished
    for arm, entry in zip(made.scale.arms, told["arms"], strict=True):
        metrics = {name: found["values"] for name, found in entry["metrics"].items()}
        said = pipeline.read_arrays(pipeline.evaluation(made, arm) / "predictions.npz")
        right = (said["decisions_test"] == made.data.tests["test"].truth).mean(axis=1)
        assert metrics["accuracy" if made.scale.setup == "images" else "mu"] == pytest.approx(right.tolist())
        calibrated = [name for name, test in made.data.tests.items() if test.calibrated]
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

    monkeypatch.setattr(pipeline.files, "read_json", with_divergence)
    assert pipeline.diverged(made, alone) == {0}
    assert pipeline.diverged(made, student) == {0}, "the student of a diverged teacher"
    common = made._replace(scale=dataclasses.replace(made.scale, teachers="one"))
    monkeypatch.setattr(pipeline, "training", lambda _, arm: made.root / _directory(made, arm))
    assert pipeline.diverged(common, student) == {0, 1}
    told = results.collect(made, {alone: {0}, student: {0}}, made.root)
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
    scale = tiny("classification", real=False)
    healthy = scale.training["Transformer"]
    broken = dataclasses.replace(healthy, optimiser=OptimiserConfig("sgd", 1e9, "constant", 0, clip_norm=0.0))
    scale = dataclasses.replace(scale, training={"LSTM": broken, "Transformer": healthy})
    monkeypatch.setitem(scales.SCALES, ("classification", "smoke"), scale)
    assert main(study.STUDY, ["--out", str(tmp_path)]) == 0
    assert "no seed of LSTM is left" in capsys.readouterr().err
    told = files.read_json(tmp_path / "results.json")
    failed, alone, taught = told["arms"]
    assert [arm["diverged"] for arm in told["arms"]] == [[1, 2], [], [1001, 1002]]
    assert alone["metrics"] and not failed["metrics"] and not taught["metrics"]
    assert failed["training"]["replicas"][0]["diverged"] > 0 and "replicas" not in taught["training"]
    assert not list((tmp_path / "stages").glob("train-lstm-to-*")), "a student of no teacher was trained"
    assert "LSTM: 1, 2" in (tmp_path / "table.md").read_text(encoding="utf-8")
    assert all(claim["verdict"] == "not run" for claim in told["claims"] if "LSTM" in claim["about"])


def _directory(made, arm):
    hexadecimal = "[0-9a-f]" * 12  # not that of a student of this arm
    return next(path.name for path in made.root.glob(f"train-{arm.key}-{hexadecimal}"))


def test_other_data_are_other_stages(finished, monkeypatch):
    """What is learned from decides what is trained; what is tested on only what is evaluated."""
    made, _ = finished
    arm, looked_up = made.scale.arms[0], made._replace(make=False)
    task = made.data
    test = task.tests["test"]
    other_tests = {**task.tests, "test": test._replace(truth=test.truth[::-1])}
    other = looked_up._replace(data=dataclasses.replace(task, tests=other_tests))
    assert pipeline.training(other, arm) == pipeline.training(made, arm)
    with pytest.raises(stages.NotMade):
        pipeline.evaluation(other, arm)
    turned = task.train._replace(sources=task.train.sources[::-1], targets=task.train.targets[::-1])
    other = made._replace(data=dataclasses.replace(task, train=turned))
    looked_up = other._replace(make=False)
    pipeline.prepared(
        other
    )  # the same vocabulary and shapes: the stages after it must tell the data apart by themselves
    student = made.scale.arms[2]
    for stage, of in ((pipeline.training, arm), (pipeline.evaluation, arm), (pipeline.lesson, student)):
        with pytest.raises(stages.NotMade, match="train-"):
            stage(looked_up, of)
    monkeypatch.setattr(pipeline, "training", lambda _, arm: made.root / _directory(made, arm))
    for stage, of in ((pipeline.evaluation, arm), (pipeline.lesson, student)):
        with pytest.raises(stages.NotMade, match="evaluate-|lesson-"):
            stage(looked_up, of)


def test_a_run_killed_before_its_stage_was_is_not_made_again(tmp_path, monkeypatch):
    scale = tiny("classification", real=False)
    workspace = Workspace(scale, tasks.load(scale, None), tmp_path)
    pipeline.prepared(workspace)
    runs = []

    def trained(run, train, valid, directory, name):
        runs.append(name)
        for checkpoints in ("end", "last"):
            files.write_text(directory / checkpoints / "checkpoint.json", "")
        return loop.Summary(directory / "end", directory / "last", 1, [], 0.0, 0.0)

    def killed(work):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "train_model", trained)
    with monkeypatch.context() as patch:
        patch.setattr(stages, "_drop_unfinished", killed)  # the first thing after the stage's own work
        with pytest.raises(KeyboardInterrupt):
            pipeline.training(workspace, Arm("LSTM"))
    run = pipeline.training(workspace, Arm("LSTM"))
    assert runs == ["lstm"], "trained again"
    assert (run / "end").is_dir() and not (run / "last").exists()


def test_classifiers_read_what_stands_before_the_verb():
    task = tasks.load(tiny("classification"), None)
    told = study.STUDY.size(Workspace(tiny("classification"), task, None))
    assert told == "160 train, 48 valid, 160 test sentences"
    entries = task.vocabularies.source.entries
    read = [[entries[index] for index in ids] for ids in task.train.sources[:3]]
    drawn = tasks.sentences.load(None, tasks.DATA_SEED, TOY)["train"]
    for ids, words, verb in zip(read, drawn.words, drawn.verb, strict=False):
        assert ids[:-1] == words[:verb] and ids[-1] == entries[EOS], "the verb and what follows are not shown"


ROOM = 128 - tasks.BESIDE  # words that the models of scale smoke have positions for, beside marks


def with_words(part, count):
    """Row 3 has so many words before its verb."""
    words, verb = [list(line) for line in part.words], part.verb.copy()
    words[3], verb[3] = ["far", *["away"] * count][:count] + words[3], count
    return part._replace(words=words, verb=verb)


def far_apart(part):
    return part._replace(distance=part.distance * 0 + 17)


def without_forms(part):
    return part._replace(forms=[(verb, "") for verb, _ in part.forms])


@pytest.mark.parametrize(
    ("setup", "split", "change", "message"),
    [
        ("classification", "test", far_apart, "no row that D or A counts"),
        ("lm", "test", far_apart, "no row that D or A counts"),
        ("lm", "test", without_forms, "no row can be scored"),
        ("classification", "valid", lambda part: with_words(part, ROOM + 1), f"{ROOM + 1} words.* read {ROOM} at most"),
        ("lm", "valid", lambda part: with_words(part, ROOM + 1), "words to read in the row that has 'far away away"),
    ],
)
def test_sentences_that_cannot_be_used_are_named_before_training(monkeypatch, setup, split, change, message):
    drawn = tasks.sentences.load(None, tasks.DATA_SEED, TOY)
    monkeypatch.setattr(tasks.sentences, "load", lambda *_: drawn | {split: change(drawn[split])})
    with pytest.raises(UserError, match=f"split {split}: .*{message}"):
        tasks.load(tiny(setup), None)


@pytest.mark.parametrize("setup", ["classification", "lm"])
def test_the_longest_sentence_that_is_let_through_is_read(monkeypatch, setup):
    drawn = tasks.sentences.load(None, tasks.DATA_SEED, TOY)
    part = with_words(drawn["valid"], ROOM)
    if setup == "lm":
        part = part._replace(words=[line[:ROOM] for line in part.words])
    monkeypatch.setattr(tasks.sentences, "load", lambda *_: drawn | {"valid": part})
    scale = tiny(setup)
    task = tasks.load(scale, None)
    model = models.build(scale.models["Transformer"], task.vocabularies.source.size, task.vocabularies.target.size)
    params = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)))
    plan = batches.make_plan(task.valid, scale.training["Transformer"].batch)
    for _, batch in batches.eval_batches(task.valid, plan):
        jax.eval_shape(model.features, params, batch.inputs, None)


def test_a_stratum_that_training_has_shown_is_left_out(monkeypatch):
    drawn = tasks.sentences.load(None, tasks.DATA_SEED, TOY)["train"]
    words = [line[:verb] for line, verb in zip(drawn.words[:4], drawn.verb[:4].tolist(), strict=True)]
    shown = tasks.Prefixes(words, drawn.plural[:4], np.ones(4, np.int32), "shown")
    monkeypatch.setattr(tasks.sentences, "strata", lambda data: {1: shown})
    task = tasks.load(tiny("classification"), None)
    assert set(task.tests) == {"test"} and (task.counts["gold_1"], task.counts["gold_1_in_training"]) == (0, 4)


def test_language_models_weigh_the_verb_against_its_other_form():
    task = tasks.load(tiny("lm"), None)
    entries = task.vocabularies.source.entries
    test = task.tests["test"]
    drawn = tasks.sentences.load(None, tasks.DATA_SEED, TOY)["test"]
    kept = tasks.sentences.take(drawn, tasks.sentences.scorable(drawn, set(entries)))
    for choices, forms, plural in zip(test.choices, kept.forms, test.truth, strict=True):
        assert entries[choices[plural]] == forms[0], "the right form stands at the place of its number"
        assert entries[choices[1 - plural]] == forms[1]


def test_strata_weigh_all_singular_forms_against_all_plural_ones(monkeypatch):
    unseen = tasks.Prefixes([["no", "such", "words"]], np.array([True]), np.ones(1, np.int32), "unseen")
    monkeypatch.setattr(tasks.sentences, "strata", lambda data: {1: unseen})
    task = tasks.load(tiny("lm"), None)
    forms = tasks.sentences.verb_forms(tasks.sentences.load(None, tasks.DATA_SEED, TOY)["train"])
    entries = task.vocabularies.source.entries
    for ids, plural in zip(task.tests["gold_1"].choices, (False, True), strict=True):
        assert ids and {entries[index] for index in ids} == {form for form, number in forms.items() if number == plural}
    assert task.tests["gold_1"].truth.tolist() == [1], "the place of the plural forms"


def test_a_language_model_decides_between_words_or_sums_of_words():
    """After the last word that it has read: the two of each row, or all singular forms against all plural ones."""
    model = models.build(MeanConfig(every=True), 16, 16)
    params = jax.tree.map(lambda leaf: 2 * leaf, model.init(jax.random.key(0)))
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
    task, arm = made.data, made.scale.arms[0]
    found = checkpoint.load(pipeline.training(made, arm) / pipeline.END, replica=0)
    batch = made.scale.training[arm.student].batch
    # Shapes of their own, several of them: rows then come in another order than the examples.
    plan = batches.make_plan(task.valid, dataclasses.replace(batch, sentences=8, buckets=2))
    assert len(plan.shapes) == (1 if made.scale.setup == "images" else 2)
    said = predictions.at_labels(found.model, found.params, task.valid, batch, plan.shapes)
    last = files.read_json(pipeline.training(made, arm) / "summary.json")["replicas"][0]["history"][-1]
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
        config = scale.config(arm)
        assert arm.student in scale.models and (arm.teacher is None or Arm(arm.teacher) in scale.arms)
        assert (config.loss.name == "word_kd") == (arm.teacher is not None)
    read = {scale.training[name].batch for name in scale.models}
    assert len(read) == 1, "teacher and student must read the same batches"


def test_the_grids_are_the_paper_s():
    arms = scales.SCALES["classification", "small"].arms
    assert len(arms) == 20 and len(set(arms)) == 20
    assert len(scales.SCALES["lm", "paper"].arms) == 20 and len(scales.SCALES["images", "small"].arms) == 6
    assert number("classification", "LSTM → Transformer", "mu") is not None


def test_quirks_of_the_original_code_are_switched_on_by_name():
    plain = scales.scale_of("digits", None, "small")
    both = scales.scale_of("digits", None, "small", ["teacher_dropout", "temperature_scaling"])
    assert plain.quirks == () and both.quirks == ("teacher_dropout", "temperature_scaling")
    taught = both.config(Arm("MLP", "CNN")).loss
    assert taught.teacher_dropout and taught.temperature_scaling == "inverse" and taught.temperature == 5
    assert both.config(Arm("MLP")) == plain.config(Arm("MLP")), "what is trained alone is as before"
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
        assert scale.config(Arm("GRU", "LSTM")).loss == scale.soft and scale.config(Arm("GRU")).loss != scale.soft


def test_taught_models_have_the_schedule_of_distillation():
    """At scale paper those trained alone and taught have rates of their own; elsewhere the same."""
    for setup, student in (("classification", "Transformer"), ("images", "MLP"), ("lm", "LSTM")):
        scale = scales.SCALES[setup, "paper"]
        alone, taught = (scale.config(Arm(student, by)).optimiser for by in (None, next(iter(scale.models))))
        assert alone == scale.training[student].optimiser != taught == scale.distilling[student].optimiser
    small = scales.SCALES["classification", "small"]
    assert small.config(Arm("LSTM", "LSTM")).optimiser == small.config(Arm("LSTM")).optimiser


def asked(**options):
    """(the scale of a command, the name of its directory)"""
    ((name, scale),) = study.scales(study.Command(**options)).items()
    return scale, name


def test_students_may_learn_the_label_too():
    """A mixture, told as what the paper has not."""
    (mixed, name), (pure, _) = asked(alpha=0.5), asked()
    assert mixed.config(Arm("Transformer", "LSTM")).loss == dataclasses.replace(pure.soft, alpha=0.5)
    assert mixed.config(Arm("Transformer")) == pure.config(Arm("Transformer"))
    assert name == "classification-smoke-alpha_0.5"
    (note,) = set(mixed.deviations) - set(pure.deviations)
    assert "a weight of 0.5" in note


def test_other_options_make_another_directory():
    quirks = ("temperature_scaling", "teacher_dropout")
    for given in (quirks, quirks[::-1]):
        scale, name = asked(teachers="one", quirks=given)
        assert scale.teachers == "one" and asked()[0].teachers == "each"
        assert name == "classification-smoke-teacher_dropout-temperature_scaling-one_teacher"
    scale, name = asked(compute="bfloat16_products", setup="lm")
    assert {model.compute for model in scale.models.values()} == {"bfloat16_products"}
    assert "--compute bfloat16_products, not float32" in scale.deviations and name == "lm-smoke-bfloat16_products"
    assert asked(scenario="digits", scale="small")[1] == "images-small"
    assert asked(seeds=5)[0].config(Arm("LSTM")).replicas == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scenario", "digits", "--setup", "lm"], "digits has no set-up 'lm'"),
        (["--scale", "small"], "needs --data: train.tsv"),
        (["--scale", "small", "--data", "nowhere"], "nowhere: no such file"),
        (["--data", "."], "on toy data"),
        (["--seeds", "0"], "--seeds 0"),
        (["--seeds", str(10**30)], "at most 1,024"),
        (["--alpha", "0"], "--alpha 0: above 0"),
        (["--scenario", "digits", "--compute", "bfloat16"], "digits compute in float32"),
        (["--only", "gru"], "--only gru: no arm of this scale has that name"),
    ],
)
def test_wrong_commands_say_so_in_one_line(arguments, message, capsys):
    assert main(study.STUDY, arguments) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said


def test_an_argument_that_is_no_number_is_one_line_too(capsys):
    with pytest.raises(SystemExit) as ended:
        main(study.STUDY, ["--seeds", "nan"])
    said = capsys.readouterr().err.strip()
    assert ended.value.code == 2 and "--seeds" in said and "\n" not in said


def test_a_dry_run_trains_nothing(capsys):
    assert main(study.STUDY, ["--scenario", "digits", "--scale", "small", "--dry-run"]) == 0
    told = capsys.readouterr().out
    lines = [line for line in told.splitlines() if line.startswith("|")][2:]
    rows = {cells[0]: cells[1:] for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)}
    scale = scales.SCALES["images", "small"]
    assert "Abnar et al. 2020: images, small" in told and list(rows) == [arm.label for arm in scale.arms]
    in_epoch = 469  # 60,000 / 128, rounded up
    found = {
        name: [float(cell.replace(",", "").removesuffix(" MiB")) for cell in cells] for name, cells in rows.items()
    }
    for arm in scale.arms:
        parameters, updates, _, flops, total = found[arm.label]
        assert parameters == models.parameter_count(models.build(scale.models[arm.student], 0, 10))
        once = 0.0
        if arm.teacher is not None:  # three teachers read the training set once
            teacher = study.build(scale, arm.teacher)
            given = jax.eval_shape(teacher.init, jax.random.key(0)), jax.ShapeDtypeStruct((128, 28, 28), np.uint8)
            read = jax.jit(functools.partial(teacher.features, keys=None))
            once = 3 * in_epoch * performance.count_flops(read, *given)
        assert updates == 10 * in_epoch and total == pytest.approx(updates * flops + once, rel=0.1)
    # The MLP by hand: its dense layers on 128 images, forward and twice as much backward (the pixels have no gradient).
    layers = [784 * 512, 512 * 128, 128 * 32, 32 * 10]
    expected = 3 * 2 * 128 * (3 * sum(layers) - layers[0])
    assert found["MLP"][3] == pytest.approx(expected, rel=0.05)
    # A teacher's features are cached: in the step only its head is left, as small as the student's.
    assert found["CNN → MLP"][3] == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("arm", [Arm("LSTM"), Arm("Transformer", "LSTM")], ids=lambda arm: arm.key)
@pytest.mark.parametrize("setup", ["classification", "lm"])
def test_sentences_are_planned_too(setup, arm):
    """With features of one teacher, of one for each replica, and of a teacher that is asked anew in each step."""
    for options in ({}, {"teachers": "one"}, {"quirks": ("teacher_dropout",)}):
        plan = study.plan(asked(setup=setup, scale="small", **options)[0], arm)
        cached = plan.batch.teacher_features
        assert (cached is not None) == (plan.once > 0) == (arm.teacher is not None and "quirks" not in options)
        if cached is not None:
            replicas = [] if options else [plan.config.replicas]
            assert cached.shape == (*plan.batch.labels.shape, *replicas, cached.shape[-1])
