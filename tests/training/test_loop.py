"""The training loop: nothing is lost by a kill, bad numbers stop it, what it is told is what it does."""

import dataclasses
import errno
import functools
import json
import math
import os
import signal
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from updates import CONFIG, MODEL, V, assert_close, batch, killed_at, stream

from seqkd_jax import checkpoint
from seqkd_jax.config import LossConfig, LSTMConfig, OptimiserConfig
from seqkd_jax.data.batches import Position
from seqkd_jax.training import hooks, loop, train_step
from seqkd_jax.training.optimizer import Decay, learning_rate
from seqkd_jax.types import UserError
from seqkd_jax.utils import files


class Vocabulary:
    """Enough of a vocabulary for a checkpoint that is only read as a training state."""

    size, name, data = V, "words.txt", b""


@pytest.fixture
def saver(monkeypatch):
    monkeypatch.setattr(checkpoint.vocabulary, "save", lambda vocabularies, directory: None)
    vocabularies = type("Vocabularies", (), {"source": Vocabulary, "target": Vocabulary, "fingerprint": "f"})
    return functools.partial(
        checkpoint.save, model_config=LSTMConfig(layers=2, size=8, dropout=0.3), vocabularies=vocabularies
    )


class Clock:
    """The loop's clock: a reading takes a millisecond, and what calls `busy` a minute."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        for module in (loop, hooks):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=self.read))

    def read(self):
        self.now += 1e-3
        return self.now

    def busy(self):
        self.now += 60.0


def validate(params):
    return {"loss": float(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(params)))}


def fit(directory, saver, config=CONFIG, data=stream, **options):
    return loop.fit(MODEL, loop.Data(data, 3), config, directory, validate=validate, save=saver, **options)


def final(directory, config=CONFIG):
    """The training state that a run left."""
    return checkpoint.load_state(directory / "last", jax.eval_shape(lambda: train_step.start_state(MODEL, config)))


def test_a_killed_run_is_resumed_to_the_same_weights(tmp_path, saver):
    """Of several replicas, with moments and a moving average: all of it is resumed."""
    rule = dataclasses.replace(CONFIG.optimiser, name="adam", learning_rate=0.1)
    config = dataclasses.replace(CONFIG, optimiser=rule, replicas=2, average_decay=0.5)
    whole = fit(tmp_path / "whole", saver, config)

    killed = killed_at(stream, 4)  # after the checkpoint at update 3, within epoch 2
    for _ in range(2):  # killed twice, once before it got any further
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "killed", saver, config, lambda p: killed(Position(0, 0)) if p == (0, 0) else iter_stop())
    again = fit(tmp_path / "killed", saver, config)
    assert again.steps == whole.steps == 6 and again.replicas == whole.replicas
    assert [entry["step"] for entry in again.replicas[0].history] == [3, 6]
    ends = [final(tmp_path / name, config) for name in ("killed", "whole")]
    assert_close(*ends, "resumed training differs from uninterrupted")
    lines = [json.loads(line) for line in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation" not in line] == [1, 2, 3, 4, 5, 6], "a step twice or never"


def test_a_run_killed_within_an_epoch_goes_on_to_the_same_weights(tmp_path, saver):
    """No batch of the epoch is read twice or left out; what is due by time is saved between validations."""
    config = dataclasses.replace(CONFIG, save_minutes=0.0)
    fit(tmp_path / "whole", saver, config)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "killed", saver, config, data=killed_at(stream, 5))
    stored = checkpoint.read_record(tmp_path / "killed" / "last")["metadata"]["run"]
    assert stored["position"] == [1, 2], "saved within the epoch"
    fit(tmp_path / "killed", saver, config)
    ends = [final(tmp_path / name, config) for name in ("killed", "whole")]
    assert_close(*ends, "resumed within an epoch")


def test_so_many_checkpoints_are_kept(tmp_path, saver):
    """The newest of the run's own; what somebody put beside them stays."""
    (tmp_path / "step-averaged").mkdir()
    (tmp_path / "step-0-backup").mkdir()
    fit(tmp_path, saver, dataclasses.replace(CONFIG, validate_every=1, keep=2))
    kept = sorted(path.name for path in tmp_path.glob("step-*"))
    assert kept == ["step-0-backup", "step-0000005", "step-0000006", "step-averaged"]


def iter_stop():
    raise KeyboardInterrupt


def test_a_finished_run_returns_at_once(tmp_path, saver):
    first = fit(tmp_path, saver)
    second = fit(tmp_path, saver, data=lambda position: pytest.fail("trained again"))
    assert (second.steps, second.replicas) == (first.steps, first.replicas)


def test_sigterm_saves_and_exits(tmp_path, saver):
    def preempted(position):
        for index, item in enumerate(stream(position)):
            if index == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield item

    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path, saver, data=preempted)
    assert stopped.value.code == 143
    assert checkpoint.read_record(tmp_path / "last")["metadata"]["step"] == 2
    assert fit(tmp_path, saver).steps == 6


@pytest.mark.parametrize("loss", [1.0, np.nan], ids=["finished", "diverged"])
def test_sigterm_at_the_end_is_not_forgotten(tmp_path, saver, loss):
    """While the last validation runs, or the one that finds no number: what comes next must not begin."""

    def preempted(params):
        os.kill(os.getpid(), signal.SIGTERM)
        return {"loss": loss}

    config = dataclasses.replace(CONFIG, epochs=1)
    with pytest.raises(SystemExit) as stopped:
        loop.fit(MODEL, loop.Data(stream, 3), config, tmp_path, validate=preempted, save=saver)
    assert stopped.value.code == 143
    if np.isfinite(loss):
        assert fit(tmp_path, saver, config, data=lambda position: pytest.fail("it was saved, and finished")).steps == 3


def test_the_paper_s_rate_decays_whenever_validations_are(tmp_path, saver):
    rule = OptimiserConfig("sgd", 0.1, "paper", decay_from_epoch=1, decay_factor=0.5)
    fit(tmp_path, saver, dataclasses.replace(CONFIG, optimiser=rule, epochs=3, validate_every=2))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines if "validation" not in line]
    assert rates == pytest.approx([0.1] * 3 + [0.05] * 3 + [0.025] * 3), "three updates an epoch"


@pytest.mark.parametrize("schedule", ["cosine", "inverse_sqrt"])
def test_rates_are_the_schedule_s_over_the_whole_run(tmp_path, saver, schedule):
    rule = OptimiserConfig("sgd", 0.1, schedule, warmup_steps=2)
    fit(tmp_path, saver, dataclasses.replace(CONFIG, optimiser=rule, epochs=2))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines if "validation" not in line]
    assert rates == pytest.approx([learning_rate(rule, step, 6, Decay()) for step in range(1, 7)])


def test_an_infinite_loss_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, saver):
    with pytest.raises(UserError, match="update 5.*lower the learning rate.*last"):
        fit(tmp_path, saver, data=lambda position: stream(position, bad=5))
    assert checkpoint.read_record(tmp_path / "last")["metadata"]["step"] == 3


@pytest.mark.parametrize("patience", [0, 1])
def test_a_validation_that_is_not_finite_is_no_early_stop(tmp_path, saver, patience):
    """The weights are lost; a run that ended as if all was well would be believed."""
    config = dataclasses.replace(CONFIG, patience=patience)
    with pytest.raises(loop.Diverged, match="validation loss nan after update 3"):
        loop.fit(MODEL, loop.Data(stream, 3), config, tmp_path, validate=lambda params: {"loss": np.nan}, save=saver)
    assert not (tmp_path / "best").exists()


def test_another_run_in_the_directory_is_refused(tmp_path, saver):
    short = dataclasses.replace(CONFIG, max_steps=1)
    fit(tmp_path, saver, short)
    with pytest.raises(UserError, match=f"holds a run with seed={CONFIG.seed}, not {CONFIG.seed + 1}"):
        fit(tmp_path, saver, dataclasses.replace(short, seed=CONFIG.seed + 1))


def test_a_run_of_other_inputs_is_refused(tmp_path, saver):
    """Also when it is finished: it would be taken for the run that was asked for."""
    inputs = {"training corpus": "a" * 64, "vocabulary": "b" * 64}
    fit(tmp_path, saver, inputs=inputs)
    fit(tmp_path, saver, inputs=inputs)
    with pytest.raises(UserError, match="another training corpus .aaaaaaaaaaaa, not cccccccccccc.; use another"):
        fit(tmp_path, saver, inputs={**inputs, "training corpus": "c" * 64})


@pytest.mark.parametrize("line", ['{"step": 9, "accuracy": 0.5}', '{"epoch": 1}', "[1, 2]"])
def test_somebody_else_s_metrics_are_left(tmp_path, saver, line):
    (tmp_path / "metrics.jsonl").write_text(f"{line}\n")
    with pytest.raises(UserError, match="metrics.jsonl, line 1: not of a training run; use another directory"):
        fit(tmp_path, saver)
    assert (tmp_path / "metrics.jsonl").read_text() == f"{line}\n"


def test_metrics_before_the_first_checkpoint_are_not_kept_twice(tmp_path, saver):
    config = dataclasses.replace(CONFIG, log_every=1)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, saver, config, data=killed_at(stream, 2))
    assert (tmp_path / "metrics.jsonl").read_text(), "the test needs updates that were logged before the kill"
    fit(tmp_path, saver, config)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "validation" not in line]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("options", [{"max_steps": 2}, {"validate_every": 4}, {"average_decay": 0.5}])
def test_the_path_is_that_of_epochs_whatever_is_validated(tmp_path, saver, options):
    config = dataclasses.replace(CONFIG, keep_path=True, **options)
    found = fit(tmp_path, saver, config)
    ran = found.steps // 3
    assert sorted(path.name for path in tmp_path.glob("epoch-*")) == [f"epoch-{n:04d}" for n in range(ran + 1)]
    at_end = checkpoint.read_record(tmp_path / "end")["metadata"]
    assert at_end["step"] == found.steps
    like = jax.eval_shape(lambda: train_step.start_state(MODEL, config))
    left = checkpoint.load_state(tmp_path / "last", like)
    wanted = left.average if config.average_decay else left.params
    assert_close(checkpoint.load_params(tmp_path / "end", wanted), wanted, "end/ holds what was validated at the end")


def test_writing_checkpoints_is_no_training_time(tmp_path, saver, monkeypatch):
    clock = Clock(monkeypatch)

    def slowly(directory, *arguments, **options):
        clock.busy()
        return saver(directory, *arguments, **options)

    config = dataclasses.replace(CONFIG, keep_path=True, epochs=3, validate_every=9)
    fit(tmp_path, slowly, config)
    assert len(list(tmp_path.glob("epoch-*"))) == 3
    seconds = checkpoint.read_record(tmp_path / "last")["metadata"]["run"]["seconds"]
    assert clock.now > 240 and 0 < seconds < 1, f"{seconds:.2f} s for nine updates: the writing was counted"


def test_word_kd_without_a_teacher_is_refused(tmp_path, saver):
    with pytest.raises(UserError, match="word_kd.*needs a teacher"):
        fit(tmp_path, saver, dataclasses.replace(CONFIG, loss=LossConfig("word_kd")))


def test_patience_stops_early(tmp_path, saver):
    def rising(params):
        rising.loss += 1.0
        return {"loss": rising.loss}

    rising.loss = 0.0
    config = dataclasses.replace(CONFIG, validate_every=1, patience=2, epochs=9)
    found = loop.fit(MODEL, loop.Data(stream, 3), config, tmp_path, validate=rising, save=saver)
    assert (found.steps, found.replicas[0].best_step) == (3, 1)


def test_bleu_picks_the_best_checkpoint(tmp_path, saver):
    """The highest, and not that of the lowest loss."""
    told = iter([{"loss": 3.0, "bleu": 10.0}, {"loss": 2.0, "bleu": 30.0}, {"loss": 1.0, "bleu": 20.0}])
    config = dataclasses.replace(CONFIG, epochs=3, validate_bleu=True)
    data = loop.Data(stream, 3)
    found = loop.fit(MODEL, data, config, tmp_path, validate=lambda params: next(told), save=saver)
    assert (found.replicas[0].best_step, found.replicas[0].best_value) == (6, 30.0)
    assert checkpoint.read_record(found.best)["metadata"]["step"] == 6


def test_the_average_is_validated_and_kept(tmp_path, saver):
    config = dataclasses.replace(CONFIG, average_decay=0.5)
    scored = []

    def noted(params):
        scored.append(jax.tree.map(np.asarray, params))
        return {"loss": -float(len(scored))}

    loop.fit(MODEL, loop.Data(stream, 3), config, tmp_path, validate=noted, save=saver)
    left = checkpoint.load_state(tmp_path / "last", jax.eval_shape(lambda: train_step.start_state(MODEL, config)))
    assert_close(scored[-1], left.average, "what was validated is not the average")
    for name in ("best", "last"):
        kept = checkpoint.load_params(tmp_path / name, left.average)
        assert_close(kept, left.average, f"as a checkpoint {name}/ must hold the average")
    apart = max(
        float(np.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (left.average, left.params)), strict=True)
    )
    assert apart > 1e-6, "the test needs an average that differs from the weights"


def test_too_many_devices_are_refused(tmp_path, saver):
    with pytest.raises(UserError, match="devices=99, but this machine has 4"):
        fit(tmp_path, saver, dataclasses.replace(CONFIG, devices=99))


def test_what_is_left_without_last_is_not_another_run_s(tmp_path, saver):
    """A study deletes last/ of finished runs; their best/ must not be replaced by a run of other settings."""
    fit(tmp_path, saver)
    files.remove(tmp_path / "last")
    before = checkpoint.fingerprint(tmp_path / "best")
    with pytest.raises(UserError, match="holds a run with seed=3, not 4"):
        fit(tmp_path, saver, dataclasses.replace(CONFIG, seed=4))
    assert checkpoint.fingerprint(tmp_path / "best") == before
    (tmp_path / "step-9999999").mkdir()  # would be the newest of those that are kept
    (tmp_path / "step-averaged").mkdir()  # is nobody's
    assert fit(tmp_path, saver).steps == 6, "the same run starts over"
    assert not (tmp_path / "step-9999999").exists() and (tmp_path / "step-averaged").exists()


def test_a_run_goes_on_under_a_version_that_has_more_settings(tmp_path, saver):
    """What is stored lacks a field, also one inside another; that differs only if it is set."""
    fit(tmp_path, saver)
    path = tmp_path / "last" / "checkpoint.json"
    record = json.loads(path.read_text())
    del record["metadata"]["config"]["patience"], record["metadata"]["config"]["optimiser"]["l2"]
    path.write_text(json.dumps(record))
    assert fit(tmp_path, saver).steps == 6
    changed = dataclasses.replace(CONFIG, optimiser=dataclasses.replace(CONFIG.optimiser, l2=0.5))
    with pytest.raises(UserError, match="holds a run with optimiser.l2=0.0, not 0.5"):
        fit(tmp_path, saver, changed)
    record["metadata"]["config"]["optimiser"]["l3"] = 1
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match="holds a run whose optimiser.l3: there is no such setting"):
        fit(tmp_path, saver)


def test_a_checkpoint_of_no_run_is_not_replaced(tmp_path, saver):
    """Such as one that was imported there."""
    params = train_step.start_state(MODEL, CONFIG).params
    saver(tmp_path / "best", params, metadata={"from": "hf"})
    with pytest.raises(UserError, match="a checkpoint that is of no training run"):
        fit(tmp_path, saver)


def test_a_state_of_another_version_is_refused_in_one_line(tmp_path, saver):
    """Its leaves have other names: such as those of an optimiser that was no chain."""
    fit(tmp_path, saver, dataclasses.replace(CONFIG, max_steps=1))
    record = checkpoint.read_record(tmp_path / "last")
    record["state"] = {name.replace("optimiser/clip", "moments"): leaf for name, leaf in record["state"].items()}
    files.write_json(tmp_path / "last" / "checkpoint.json", record)
    assert fit(tmp_path, saver, dataclasses.replace(CONFIG, max_steps=1)).steps == 1, "a finished run needs no state"
    record["metadata"]["run"]["finished"] = False
    files.write_json(tmp_path / "last" / "checkpoint.json", record)
    with pytest.raises(
        UserError, match="^[^\n]*last: its training state is of another version .* with --start [^\n]*last"
    ):
        fit(tmp_path, saver, dataclasses.replace(CONFIG, max_steps=1))


def test_a_file_system_without_locks_is_written_to(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", refused)
    with files.locked(tmp_path):
        pass


def test_two_processes_do_not_train_in_one_directory(tmp_path, saver):
    with files.locked(tmp_path), pytest.raises(UserError, match="another process is writing there"):
        fit(tmp_path, saver)
    fit(tmp_path, saver)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs is 0: it must be a whole number from 1 to"),
        ({"seed": 20260711123000}, "seed is 20260711123000"),
        ({"seed": 2**32 - 1, "replicas": 2}, "seed is 4294967295: it and those of all replicas must be below"),
        ({"loss": LossConfig(alpha=1.5)}, "loss.alpha is 1.5"),
        ({"loss": LossConfig(name="nil")}, "loss.name is 'nil': it must be one of nll, word_kd"),
        ({"optimiser": OptimiserConfig(clip_norm=math.nan)}, "optimiser.clip_norm is nan: it must be a number from 0"),
    ],
)
def test_settings_are_looked_at_before_anything_is_written(tmp_path, saver, settings, message):
    with pytest.raises(UserError, match=f"^{message}"):
        fit(tmp_path, saver, dataclasses.replace(CONFIG, keep_path=True, **settings))
    assert not list(tmp_path.iterdir()), "the corrected command would be refused as another run"


@pytest.mark.parametrize(
    ("part", "name", "message"),
    [
        ("config", "replicas_by", "replicas_by is 'other': it must be one of auto, vmap, map"),
        ("optimiser", "name", "optimiser.name is 'other': it must be one of sgd, adam"),
        ("optimiser", "schedule", "optimiser.schedule is 'other': it must be one of constant, paper, "),
    ],
)
def test_a_misspelled_choice_is_not_the_default(tmp_path, saver, part, name, message):
    """From Python, where no command line has looked at it, and without the type checker of the tests."""
    config = dataclasses.replace(CONFIG, optimiser=dataclasses.replace(CONFIG.optimiser))
    object.__setattr__(config if part == "config" else config.optimiser, name, "other")
    with pytest.raises(UserError, match=f"^{message}"):
        fit(tmp_path, saver, config)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("order", ["AABC", "ABCA"])
def test_compiling_is_no_training_time(tmp_path, saver, monkeypatch, order):
    """Whatever shapes come in which order."""
    count, clock = loop.performance.count_flops, Clock(monkeypatch)

    def slowly(*arguments):
        clock.busy()
        return count(*arguments)

    def shapes(position):
        for number in range(position.batch, len(order)):
            made = batch(number)
            rows = len(made.weights) - "ABC".index(order[number])
            yield Position(0, number + 1), jax.tree.map(lambda leaf, rows=rows: leaf[:rows], made)

    monkeypatch.setattr(loop.performance, "count_flops", slowly)
    fit(tmp_path, saver, dataclasses.replace(CONFIG, max_steps=4, epochs=9), shapes)
    run = checkpoint.read_record(tmp_path / "last")["metadata"]["run"]
    assert clock.now > 180, "three shapes, three programs"
    assert run["tokens"] > 0 and run["seconds"] < 1, f"{run['seconds']:.2f} s: what was compiled was counted"


def test_tokens_are_labels_whatever_they_weigh(tmp_path, saver):
    def half(position):
        for after, made in stream(position):
            yield after, made._replace(weights=made.weights * 0.5)

    def tokens(directory, data):
        fit(directory, saver, data=data)
        return checkpoint.read_record(directory / "last")["metadata"]["run"]["tokens"]

    assert tokens(tmp_path / "half", half) == tokens(tmp_path / "whole", stream) > 0
