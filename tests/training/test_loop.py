"""The training loop and its hooks: bad numbers stop it, time is counted, what it is told is what it does."""

import dataclasses
import errno
import json
import math
import os
import signal
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from updates import CONFIG, MODEL, assert_close, batch, fit, killed_at, save, stream

from seqkd_jax import checkpoint
from seqkd_jax.config import LossConfig, OptimiserConfig
from seqkd_jax.data.batches import Position
from seqkd_jax.training import hooks, loop, train_step
from seqkd_jax.training.optimizer import Decay, learning_rate
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, locks, progress


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


def test_so_many_checkpoints_are_kept(tmp_path):
    """The newest of the run's own; what somebody put beside them stays."""
    (tmp_path / "step-averaged").mkdir()
    (tmp_path / "step-0-backup").mkdir()
    fit(tmp_path, dataclasses.replace(CONFIG, validate_every=1, keep=2))
    kept = sorted(path.name for path in tmp_path.glob("step-*"))
    assert kept == ["step-0-backup", "step-0000005", "step-0000006", "step-averaged"]


def test_sigterm_saves_and_exits(tmp_path):
    def preempted(position):
        for index, item in enumerate(stream(position)):
            if index == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield item

    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path, data=preempted)
    assert stopped.value.code == 143
    metadata = checkpoint.read_record(tmp_path / "last")["metadata"]
    assert metadata["step"] == 2 and metadata["ran_on"] == {"platform": "cpu", "devices": 1, "processes": 1}
    assert fit(tmp_path).steps == 6


@pytest.mark.parametrize("loss", [1.0, np.nan], ids=["finished", "diverged"])
def test_sigterm_at_the_end_is_not_forgotten(tmp_path, loss):
    """While the last validation runs, or the one that finds no number: what comes next must not begin."""

    def preempted(params):
        os.kill(os.getpid(), signal.SIGTERM)
        return {"loss": loss}

    config = dataclasses.replace(CONFIG, epochs=1)
    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path, config, validate=preempted)
    assert stopped.value.code == 143
    if np.isfinite(loss):
        assert fit(tmp_path, config, data=lambda position: pytest.fail("it was saved, and finished")).steps == 3


def test_the_paper_s_rate_decays_whenever_validations_are(tmp_path):
    rule = OptimiserConfig("sgd", 0.1, "paper", decay_from_epoch=1, decay_factor=0.5)
    fit(tmp_path, dataclasses.replace(CONFIG, optimiser=rule, epochs=3, validate_every=2))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines if "validation" not in line]
    assert rates == pytest.approx([0.1] * 3 + [0.05] * 3 + [0.025] * 3), "three updates an epoch"


@pytest.mark.parametrize("schedule", ["cosine", "inverse_sqrt"])
def test_rates_are_the_schedule_s_over_the_whole_run(tmp_path, schedule):
    rule = OptimiserConfig("sgd", 0.1, schedule, warmup_steps=2)
    fit(tmp_path, dataclasses.replace(CONFIG, optimiser=rule, epochs=2))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines if "validation" not in line]
    assert rates == pytest.approx([learning_rate(rule, step, 6, Decay()) for step in range(1, 7)])


def test_an_infinite_loss_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(UserError, match="update 5.*lower the learning rate.*last"):
        fit(tmp_path, data=lambda position: stream(position, bad=5))
    assert checkpoint.read_record(tmp_path / "last")["metadata"]["step"] == 3


@pytest.mark.parametrize(
    ("bad", "clip_norm", "advice"),
    [
        (1, 1.0, "the weights that it starts from, or the weights of the corpus, are too large;"),  # no rate acted yet
        (2, 1.0, "lower the learning rate;"),  # it clips already
        (2, 0.0, r"lower the learning rate, or clip \(optimiser.clip_norm\);"),
    ],
)
def test_the_advice_about_a_loss_that_is_not_finite(tmp_path, bad, clip_norm, advice):
    config = dataclasses.replace(CONFIG, optimiser=dataclasses.replace(CONFIG.optimiser, clip_norm=clip_norm))
    with pytest.raises(loop.Diverged, match=advice):
        fit(tmp_path, config, data=lambda position: stream(position, bad=bad))


@pytest.mark.parametrize("patience", [0, 1])
def test_a_validation_that_is_not_finite_is_no_early_stop(tmp_path, patience):
    """The weights are lost; a run that ended as if all was well would be believed."""
    config = dataclasses.replace(CONFIG, patience=patience)
    with pytest.raises(loop.Diverged, match="validation loss nan after update 3"):
        fit(tmp_path, config, validate=lambda params: {"loss": np.nan})
    assert not (tmp_path / "best").exists()


@pytest.mark.parametrize("options", [{"max_steps": 2}, {"validate_every": 4}, {"average_decay": 0.5}])
def test_the_path_is_that_of_epochs_whatever_is_validated(tmp_path, options):
    config = dataclasses.replace(CONFIG, keep_path=True, **options)
    found = fit(tmp_path, config)
    ran = found.steps // 3
    assert sorted(path.name for path in tmp_path.glob("epoch-*")) == [f"epoch-{n:04d}" for n in range(ran + 1)]
    at_end = checkpoint.read_record(tmp_path / "end")["metadata"]
    assert at_end["step"] == found.steps
    like = jax.eval_shape(lambda: train_step.start_state(MODEL, config))
    left = checkpoint.load_state(tmp_path / "last", like)
    wanted = left.average if config.average_decay else left.params
    assert_close(checkpoint.load_params(tmp_path / "end", wanted), wanted, "end/ holds what was validated at the end")


def test_writing_checkpoints_is_no_training_time(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)

    def slowly(directory, *arguments, **options):
        clock.busy()
        return save(directory, *arguments, **options)

    config = dataclasses.replace(CONFIG, keep_path=True, epochs=3, validate_every=9)
    fit(tmp_path, config, save=slowly)
    assert len(list(tmp_path.glob("epoch-*"))) == 3
    seconds = checkpoint.read_record(tmp_path / "last")["metadata"]["run"]["seconds"]
    assert clock.now > 240 and 0 < seconds < 1, f"{seconds:.2f} s for nine updates: the writing was counted"


def test_word_kd_without_a_teacher_is_refused(tmp_path):
    with pytest.raises(UserError, match="word_kd.*needs a teacher"):
        fit(tmp_path, dataclasses.replace(CONFIG, loss=LossConfig("word_kd")))


def test_a_teacher_that_no_loss_reads_is_refused(tmp_path):
    teacher = train_step.Teacher(MODEL, train_step.start_state(MODEL, CONFIG).params)
    with pytest.raises(UserError, match="loss 'nll' reads no teacher: leave the teacher out, or use the loss word_kd"):
        fit(tmp_path / "run", teacher=teacher)
    assert not (tmp_path / "run").exists()


def test_patience_stops_early(tmp_path):
    def rising(params):
        rising.loss += 1.0
        return {"loss": rising.loss}

    rising.loss = 0.0
    config = dataclasses.replace(CONFIG, validate_every=1, patience=2, epochs=9)
    found = fit(tmp_path, config, validate=rising)
    assert (found.steps, found.replicas[0].best_step) == (3, 1)


def test_bleu_picks_the_best_checkpoint(tmp_path):
    """The highest, and not that of the lowest loss."""
    told = iter([{"loss": 3.0, "bleu": 10.0}, {"loss": 2.0, "bleu": 30.0}, {"loss": 1.0, "bleu": 20.0}])
    config = dataclasses.replace(CONFIG, epochs=3, validate_bleu=True)
    found = fit(tmp_path, config, validate=lambda params: next(told))
    assert (found.replicas[0].best_step, found.replicas[0].best_value) == (6, 30.0)
    assert checkpoint.read_record(found.best)["metadata"]["step"] == 6


def test_the_average_is_validated_and_kept(tmp_path):
    config = dataclasses.replace(CONFIG, average_decay=0.5)
    scored = []

    def noted(params):
        scored.append(jax.tree.map(np.asarray, params))
        return {"loss": -float(len(scored))}

    fit(tmp_path, config, validate=noted)
    left = checkpoint.load_state(tmp_path / "last", jax.eval_shape(lambda: train_step.start_state(MODEL, config)))
    assert_close(scored[-1], left.average, "what was validated is not the average")
    for name in ("best", "last"):
        kept = checkpoint.load_params(tmp_path / name, left.average)
        assert_close(kept, left.average, f"as a checkpoint {name}/ must hold the average")
    apart = max(
        float(np.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (left.average, left.params)), strict=True)
    )
    assert apart > 1e-6, "the test needs an average that differs from the weights"


def test_too_many_devices_are_refused(tmp_path):
    with pytest.raises(UserError, match="devices=99, but this process has 4"):
        fit(tmp_path, dataclasses.replace(CONFIG, devices=99))


def test_a_file_system_without_locks_is_written_to(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refused)
    with files.locked(tmp_path):
        pass


def test_two_processes_do_not_train_in_one_directory(tmp_path):
    with files.locked(tmp_path), pytest.raises(UserError, match="another process is writing there"):
        fit(tmp_path)
    fit(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs is 0: it must be a whole number from 1 to"),
        ({"seed": 20260711123000}, "seed is 20260711123000"),
        ({"seed": 2**32 - 1, "replicas": 2}, "seed is 4294967295: it and those of all replicas must be below"),
        ({"loss": LossConfig(alpha=1.5)}, "loss.alpha is 1.5"),
        ({"loss": LossConfig(name="nil")}, "loss.name is 'nil': it must be one of nll, word_kd"),
        ({"optimiser": OptimiserConfig(epsilon=0.0)}, "optimiser.epsilon is 0.0: it must be a number from 1e-30"),
        ({"optimiser": OptimiserConfig(clip_norm=math.nan)}, "optimiser.clip_norm is nan: it must be a number from 0"),
    ],
)
def test_settings_are_looked_at_before_anything_is_written(tmp_path, settings, message):
    with pytest.raises(UserError, match=f"^{message}"):
        fit(tmp_path, dataclasses.replace(CONFIG, keep_path=True, **settings))
    assert not list(tmp_path.iterdir()), "the corrected command would be refused as another run"


@pytest.mark.parametrize(
    ("part", "name", "message"),
    [
        ("config", "replicas_by", "replicas_by is 'other': it must be one of auto, vmap, map"),
        ("optimiser", "name", "optimiser.name is 'other': it must be one of sgd, adam"),
        ("optimiser", "schedule", "optimiser.schedule is 'other': it must be one of constant, paper, "),
    ],
)
def test_a_misspelled_choice_is_not_the_default(tmp_path, part, name, message):
    """From Python, where no command line has looked at it, and without the type checker of the tests."""
    config = dataclasses.replace(CONFIG, optimiser=dataclasses.replace(CONFIG.optimiser))
    object.__setattr__(config if part == "config" else config.optimiser, name, "other")
    with pytest.raises(UserError, match=f"^{message}"):
        fit(tmp_path, config)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("order", ["AABC", "ABCA"])
def test_compiling_is_no_training_time(tmp_path, monkeypatch, order):
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
    fit(tmp_path, dataclasses.replace(CONFIG, max_steps=4, epochs=9), shapes)
    run = checkpoint.read_record(tmp_path / "last")["metadata"]["run"]
    assert clock.now > 180, "three shapes, three programs"
    assert run["tokens"] > 0 and run["seconds"] < 1, f"{run['seconds']:.2f} s: what was compiled was counted"


def test_what_stands_between_updates_is_named(tmp_path, monkeypatch):
    """Compiling, once for each shape, validating and saving."""
    said = []
    monkeypatch.setattr(progress, "_later", lambda seconds, message: said.append(message) or (lambda: None))
    fit(tmp_path, dataclasses.replace(CONFIG, epochs=1))
    assert said == [
        "compiling the initial state …",
        "train: compiling the training step for 6 x 4 …",
        "train: validating …",
        "train: saving …",
    ]


def test_a_resumed_run_counts_from_where_it_was(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, data=killed_at(stream, 4))
    assert "train: stopped, 3/6 updates" in capsys.readouterr().err, "the fourth was started, and lost"
    fit(tmp_path)
    assert "train: done, 6/6 updates" in capsys.readouterr().err


def test_tokens_are_labels_whatever_they_weigh(tmp_path):
    def half(position):
        for after, made in stream(position):
            yield after, made._replace(weights=made.weights * 0.5)

    def tokens(directory, data):
        fit(directory, data=data)
        return checkpoint.read_record(directory / "last")["metadata"]["run"]["tokens"]

    assert tokens(tmp_path / "half", half) == tokens(tmp_path / "whole", stream) > 0
