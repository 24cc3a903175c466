"""The run state: nothing is lost by a kill, and another run is never taken for this one."""

import dataclasses
import errno
import itertools
import json
import os
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from damage import as_before, edit
from updates import CONFIG, MODEL, assert_close, final, fit, killed_at, save, stream

from seqkd_jax import checkpoint
from seqkd_jax.data.batches import Position
from seqkd_jax.training import loop, train_step
from seqkd_jax.types import UserError
from seqkd_jax.utils import files


def test_a_killed_run_is_resumed_to_the_same_weights(tmp_path):
    """Of several replicas, with moments and a moving average: all of it is resumed."""
    rule = dataclasses.replace(CONFIG.optimiser, name="adam", learning_rate=0.1)
    config = dataclasses.replace(CONFIG, optimiser=rule, replicas=2, average_decay=0.5)
    whole = fit(tmp_path / "whole", config)

    killed = killed_at(stream, 4)  # after the checkpoint at update 3, within epoch 2
    for _ in range(2):  # killed twice, once before it got any further
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "killed", config, lambda p: killed(Position(0, 0)) if p == (0, 0) else iter_stop())
    again = fit(tmp_path / "killed", config)
    assert again.steps == whole.steps == 6 and again.replicas == whole.replicas
    assert [entry["step"] for entry in again.replicas[0].history] == [3, 6]
    ends = [final(tmp_path / name, config) for name in ("killed", "whole")]
    assert_close(*ends, "resumed training differs from uninterrupted")
    lines = [json.loads(line) for line in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation" not in line] == [1, 2, 3, 4, 5, 6], "a step twice or never"


def test_a_run_killed_within_an_epoch_is_resumed_to_the_same_weights(tmp_path):
    """No batch of the epoch is read twice or left out; what is due by time is saved between validations."""
    config = dataclasses.replace(CONFIG, save_minutes=0.0)
    fit(tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "killed", config, data=killed_at(stream, 5))
    stored = checkpoint.read_record(tmp_path / "killed" / "last")["metadata"]["run"]
    assert stored["position"] == [1, 2], "saved within the epoch"
    fit(tmp_path / "killed", config)
    ends = [final(tmp_path / name, config) for name in ("killed", "whole")]
    assert_close(*ends, "resumed within an epoch")


@pytest.mark.parametrize("write, number", [("a checkpoint", 4), ("metrics", 5)])
def test_a_run_whose_disk_was_full_is_resumed_to_the_same_weights(tmp_path, monkeypatch, write, number):
    """The file is named, and what was there before is whole. Of a line of metrics a half may be left."""
    config = dataclasses.replace(CONFIG, keep=1)
    fit(tmp_path / "whole", config)
    module, name = (files.sums, "write") if write == "a checkpoint" else (files, "append")
    written, calls = getattr(module, name), itertools.count(1)

    def fills(path, *text):
        if next(calls) == number:
            if text:
                written(path, text[0][: len(text[0]) // 2])
            with files.naming(path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written(path, *text)

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left on device") as raised:
        patched.setattr(module, name, fills)
        fit(tmp_path / "full", config)
    named = Path(raised.value.filename).relative_to(tmp_path / "full").as_posix()
    assert re.fullmatch("metrics.jsonl" if write == "metrics" else "best|last|step-[0-9]{7}", named)
    fit(tmp_path / "full", config)
    ends = [jax.tree.leaves(final(tmp_path / name, config)) for name in ("full", "whole")]
    assert all(np.array_equal(*leaves) for leaves in zip(*ends, strict=True)), "it differs from uninterrupted"
    lines = [json.loads(line) for line in (tmp_path / "full" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation" not in line] == [1, 2, 3, 4, 5, 6]


def iter_stop():
    raise KeyboardInterrupt


def test_a_finished_run_returns_at_once(tmp_path):
    first = fit(tmp_path)
    second = fit(tmp_path, data=lambda position: pytest.fail("trained again"))
    assert (second.steps, second.replicas) == (first.steps, first.replicas)


def _cut(path):
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 1)


def _largest(directory):
    return max((path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda run: files.remove(run / "best"), "best/ is gone or damaged"),
        (lambda run: _cut(_largest(run / "best")), "best/ is gone or damaged"),
        (lambda run: _cut(_largest(run / "last" / "state")), "last/ is gone or damaged"),
        (lambda run: _cut(_largest(run / "last" / "params")), "last/ is gone or damaged"),
    ],
)
def test_a_finished_run_does_not_name_what_is_gone_or_damaged(tmp_path, harm, said):
    fit(tmp_path)
    harm(tmp_path)
    with pytest.raises(UserError, match=f"its run is finished, but {said} .* put it back, or train in another"):
        fit(tmp_path)


def test_a_refused_resume_leaves_config_json_as_it_is(tmp_path, monkeypatch):
    described = {"format": 1, "command": "train", "settings": {"seed": 1}, "inputs": {}}
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, data=killed_at(stream, 4), described=described)
    before = (tmp_path / "config.json").read_bytes()

    def refuse(directory, start):
        raise UserError("damaged")

    monkeypatch.setattr(loop, "load_state", refuse)
    with pytest.raises(UserError, match="damaged"):
        fit(tmp_path, described={**described, "settings": {"seed": 2}})
    assert (tmp_path / "config.json").read_bytes() == before


def test_another_run_in_the_directory_is_refused(tmp_path):
    short = dataclasses.replace(CONFIG, max_steps=1)
    fit(tmp_path, short)
    with pytest.raises(UserError, match=f"holds a run with seed={CONFIG.seed}, not {CONFIG.seed + 1}"):
        fit(tmp_path, dataclasses.replace(short, seed=CONFIG.seed + 1))


def test_a_run_of_other_inputs_is_refused(tmp_path):
    """Also when it is finished: it would be taken for the run that was asked for."""
    inputs = {"training corpus": "a" * 64, "vocabulary": "b" * 64}
    fit(tmp_path, inputs=inputs)
    fit(tmp_path, inputs=inputs)
    with pytest.raises(UserError, match="another training corpus .aaaaaaaaaaaa, not cccccccccccc.; use another"):
        fit(tmp_path, inputs={**inputs, "training corpus": "c" * 64})


@pytest.mark.parametrize("line", ['{"step": 9, "accuracy": 0.5}', '{"epoch": 1}', "[1, 2]"])
def test_somebody_else_s_metrics_are_left(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text(f"{line}\n")
    with pytest.raises(UserError, match="metrics.jsonl, line 1: not of a training run; use another directory"):
        fit(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == f"{line}\n"


def test_metrics_before_the_first_checkpoint_are_not_kept_twice(tmp_path):
    config = dataclasses.replace(CONFIG, log_every=1)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, config, data=killed_at(stream, 2))
    assert (tmp_path / "metrics.jsonl").read_text(), "the test needs updates that were logged before the kill"
    fit(tmp_path, config)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "validation" not in line]
    assert steps == sorted(set(steps))


def test_what_is_left_without_last_is_not_another_run_s(tmp_path):
    """A study deletes last/ of finished runs; their best/ must not be replaced by a run of other settings."""
    fit(tmp_path)
    files.remove(tmp_path / "last")
    before = checkpoint.fingerprint(tmp_path / "best")
    with pytest.raises(UserError, match="holds a run with seed=3, not 4"):
        fit(tmp_path, dataclasses.replace(CONFIG, seed=4))
    assert checkpoint.fingerprint(tmp_path / "best") == before
    (tmp_path / "step-9999999").mkdir()  # would be the newest of those that are kept
    (tmp_path / "step-averaged").mkdir()  # is nobody's
    assert fit(tmp_path).steps == 6, "the same run starts over"
    assert not (tmp_path / "step-9999999").exists() and (tmp_path / "step-averaged").exists()


def test_a_run_goes_on_under_a_version_that_has_more_settings(tmp_path):
    """What is stored lacks a field, also one inside another; that differs only if it is set."""
    fit(tmp_path)

    def older(record):
        del record["metadata"]["config"]["patience"], record["metadata"]["config"]["optimiser"]["l2"]

    edit(tmp_path / "last", older)
    assert fit(tmp_path).steps == 6
    changed = dataclasses.replace(CONFIG, optimiser=dataclasses.replace(CONFIG.optimiser, l2=0.5))
    with pytest.raises(UserError, match="holds a run with optimiser.l2=0.0, not 0.5"):
        fit(tmp_path, changed)
    edit(tmp_path / "last", lambda record: record["metadata"]["config"]["optimiser"].update(l3=1))
    with pytest.raises(UserError, match="holds a run whose optimiser.l3: there is no such setting"):
        fit(tmp_path)


def test_a_checkpoint_of_no_run_is_not_replaced(tmp_path):
    """Such as one that was imported there."""
    params = train_step.start_state(MODEL, CONFIG).params
    save(tmp_path / "best", params, metadata={"from": "hf"})
    with pytest.raises(UserError, match="a checkpoint that is of no training run"):
        fit(tmp_path)


def test_a_run_of_the_first_version_is_refused_in_one_line(tmp_path):
    """Its inputs have another key and other identities: what differs is not the run but the version."""
    fit(tmp_path)
    for name in ("last", "best"):
        edit(tmp_path / name, lambda record: record["metadata"].update(made_of=record["metadata"].pop("inputs")))
        as_before(tmp_path / name)
    with pytest.raises(UserError, match="holds a run of seqkd_jax 0.1, .* with --start [^\n]*last to begin"):
        fit(tmp_path)


def test_a_state_of_another_version_is_refused_in_one_line(tmp_path):
    """Its leaves have other names: such as those of an optimiser that was no chain."""
    fit(tmp_path, dataclasses.replace(CONFIG, max_steps=1))

    def older(record):
        record["state"] = {name.replace("optimiser/clip", "moments"): leaf for name, leaf in record["state"].items()}

    edit(tmp_path / "last", older)
    assert fit(tmp_path, dataclasses.replace(CONFIG, max_steps=1)).steps == 1, "a finished run needs no state"
    edit(tmp_path / "last", lambda record: record["metadata"]["run"].update(finished=False))
    with pytest.raises(
        UserError, match="^[^\n]*last: its training state is of another version .* with --start [^\n]*last"
    ):
        fit(tmp_path, dataclasses.replace(CONFIG, max_steps=1))
