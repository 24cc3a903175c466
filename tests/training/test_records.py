"""Records that people plot hold what metrics.jsonl holds, every step once, however often the run was stopped.

Event files are read by a reader of their format: TFRecord frames around protocol buffers, each with its checksum.
"""

import csv
import dataclasses
import importlib.util
import struct
import sys
from types import SimpleNamespace
from typing import get_args, get_type_hints

import pytest
from commands import fails
from updates import CONFIG, fit, killed_at, stream

from seqkd_jax.cli.options import Train
from seqkd_jax.training import records
from seqkd_jax.types import UserError
from seqkd_jax.utils import files


def crc32c(data):
    """Castagnoli's checksum, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def fields(message):
    """(number, value) of each field of a protocol buffer: whole numbers, and bytes of what is not varint."""
    at = 0
    while at < len(message):
        key, at = varint(message, at)
        if key & 7 == 0:
            value, at = varint(message, at)
        else:
            size = {1: 8, 5: 4}.get(key & 7)
            if size is None:
                size, at = varint(message, at)
            value, at = message[at : at + size], at + size
        yield key >> 3, value


def scalars_in(path):
    """(step, tag, value) of each scalar of an event file."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        event = data[at + 12 : at + 12 + size]
        assert struct.unpack_from("<I", data, at + 8) == (masked(data[at : at + 8]),)
        assert struct.unpack_from("<I", data, at + 12 + size) == (masked(event),)
        at += 16 + size
        of_event = dict(fields(event))
        for _, value in fields(of_event.get(5, b"")):  # Event.summary.value
            of_value = dict(fields(value))
            yield of_event[2], of_value[1].decode(), struct.unpack("<f", of_value[2])[0]


def in_tensorboard(directory):
    (path,) = (directory / "tensorboard").glob("*")
    return list(scalars_in(path))


def in_csv(directory):
    with open(directory / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    cells = ((int(row.pop("step")), row) for row in rows)
    return [(step, name, float(value)) for step, row in cells for name, value in row.items() if value]


def in_metrics(directory):
    """What metrics.jsonl holds, as records have it."""
    found = []
    for line in files.read_jsonl(directory / "metrics.jsonl"):
        step, part = line.pop("step"), "validation" if line.pop("validation", False) else "train"
        found += [(step, f"{part}/{name}", value) for name, value in line.items()]
    return found


def assert_same_events(found, expected):
    assert [event[:2] for event in found] == [event[:2] for event in expected]
    assert [event[2] for event in found] == pytest.approx([event[2] for event in expected], rel=1e-6)


BOTH = ("csv", "tensorboard")


def test_records_hold_what_metrics_jsonl_holds(tmp_path):
    fit(tmp_path, log=BOTH)
    expected = in_metrics(tmp_path)
    assert len(expected) == 6 * 3 + 2 and (3, "validation/loss") in [event[:2] for event in expected]
    assert_same_events(in_csv(tmp_path), expected)
    assert_same_events(in_tensorboard(tmp_path), expected)


def test_after_kills_every_step_is_there_once(tmp_path):
    """Killed after updates that no checkpoint has, twice; and one record is asked for at the end only."""
    fit(tmp_path / "whole", log=BOTH)
    for index in (2, 2):
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "killed", data=killed_at(stream, index), log=["tensorboard"])
    assert in_tensorboard(tmp_path / "killed"), "it was killed with events that are made again"
    fit(tmp_path / "killed", log=BOTH)
    for read in (in_csv, in_tensorboard):
        assert read(tmp_path / "killed") == read(tmp_path / "whole")


def test_a_finished_run_can_be_given_a_record(tmp_path):
    fit(tmp_path)
    before = files.read_jsonl(tmp_path / "metrics.jsonl")
    fit(tmp_path, log=["csv"])
    assert_same_events(in_csv(tmp_path), in_metrics(tmp_path))
    assert files.read_jsonl(tmp_path / "metrics.jsonl") == before


def test_seeds_have_names_of_their_own(tmp_path):
    fit(tmp_path, dataclasses.replace(CONFIG, replicas=2, epochs=1), log=["csv"])
    names = {name for _, name, _ in in_csv(tmp_path)}
    assert {"train/loss/seed-3", "train/loss/seed-4", "validation/loss/seed-4"} <= names


def test_numbers_that_are_not_finite_stay_so():
    event = records._event({"step": 4, "loss": "nan", "gradient_norm": "inf"}, 0)
    assert event.step == 4 and str(event.scalars) == "{'train/loss': nan, 'train/gradient_norm': inf}"


def test_the_option_offers_every_record():
    (choices, _) = get_args(get_args(get_type_hints(Train, include_extras=True)["log"])[0])
    assert set(get_args(choices)) == set(records.WRITERS)


def test_a_record_that_cannot_be_written_is_one_line_before_anything_is_read(tmp_path, monkeypatch, capfd):
    with pytest.raises(UserError, match="^log is 'tensorbord': it must be one of csv, tensorboard, wandb"):
        fit(tmp_path / "run", log=["tensorbord"])
    assert not (tmp_path / "run").exists()
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else found(name))
    said = fails(capfd, "train", "--corpus.path", tmp_path / "nowhere", "--out", tmp_path / "run", "--log", "wandb")
    assert said == "seqkd: error: --log wandb needs the package wandb: pip install wandb"


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match="tensorboard: is a link"):
        fit(tmp_path / "run", log=["tensorboard"])
    assert not list((tmp_path / "precious").iterdir())


def test_a_run_of_w_and_b_is_continued(tmp_path, monkeypatch):
    """By its id, from the step that it has reached."""
    started, logged = [], []

    def init(**options):
        started.append(options)
        reached = logged[-1][0] + 1 if logged else 0
        return SimpleNamespace(
            step=reached, log=lambda scalars, step: logged.append((step, scalars)), finish=lambda: None
        )

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, __spec__=importlib.util.find_spec("csv")))
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, data=killed_at(stream, 5), log=["wandb"])
    fit(tmp_path, log=["wandb"])
    one, other = started
    assert one["id"] == other["id"] and one["resume"] == "allow"
    assert [(step, name, value) for step, scalars in logged for name, value in scalars.items()] == in_metrics(tmp_path)
