"""Digits: MNIST's files and what can be wrong with them, the transforms against a loop over pixels, drawn digits."""

import gzip
import struct

import numpy as np
import pytest

from experiments.abnar_2020 import digits
from seqkd_jax.types import UserError

TRAIN, TEST = 40, 30
LABELS = "t10k-labels-idx1-ubyte"


def idx(values):
    """The bytes of an idx file of unsigned bytes."""
    return struct.pack(f">{1 + values.ndim}I", 0x800 + values.ndim, *values.shape) + values.tobytes()


@pytest.fixture
def directory(tmp_path):
    """Four small files; those of the test split are packed."""
    random = np.random.default_rng(0)
    for prefix, count, packed in (("train", TRAIN, False), ("t10k", TEST, True)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        images[:, 0, 0] = np.arange(count)  # which image it is; no transform is asked about this corner
        labels = random.integers(0, 10, count, dtype=np.uint8)
        for name, values in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
            data = idx(values)
            path = tmp_path / (f"{name}.gz" if packed else name)
            path.write_bytes(gzip.compress(data) if packed else data)
    return tmp_path


def load(directory, train=None, test=None, seed=0):
    """train, test: of drawn digits."""
    return digits.load(directory, seed, {"train": train, "test": test})


def test_files_are_read_as_they_are(directory):
    found = load(directory)
    assert {use: part.name for use, part in found.items()} == {
        "train": "MNIST train",
        "test": "MNIST test",
        "scaled": "MNIST scaled",
        "translated": "MNIST translated",
    }
    raw = (directory / "train-images-idx3-ubyte").read_bytes()
    np.testing.assert_array_equal(found["train"].images.reshape(-1), np.frombuffer(raw, np.uint8)[16:])
    raw = gzip.decompress((directory / f"{LABELS}.gz").read_bytes())
    for use in ("test", "scaled", "translated"):
        np.testing.assert_array_equal(found[use].labels, np.frombuffer(raw, np.uint8)[8:])
        assert (found[use].images.shape, found[use].images.dtype) == ((TEST, 28, 28), np.uint8)
        assert found[use].labels.dtype == np.int32


def replaced(directory, name, data):
    """Write a file in the place of the packed or plain one."""
    for path in (directory / name, directory / f"{name}.gz"):
        path.unlink(missing_ok=True)
    (directory / name).write_bytes(data)


BAD = {
    "another magic number": (LABELS, struct.pack(">II", 0x803, 1) + b"1", "begins with 00000803, not with 00000801"),
    "truncated": (LABELS, idx(np.zeros(TEST, np.uint8))[:-1], "truncated, 37 of 38 bytes"),
    "no whole head": ("t10k-images-idx3-ubyte", idx(np.zeros((1, 28, 28), np.uint8))[:9], "truncated, 9 of 16 bytes"),
    "nothing in it": (LABELS, b"", "truncated, 0 of 8 bytes"),
    "too long": (LABELS, idx(np.zeros(TEST, np.uint8)) + b"1", "31 bytes, where its head tells of 30"),
    "no digits": (LABELS, idx(np.zeros(0, np.uint8)), "0 bytes"),
    "fewer labels": (LABELS, idx(np.zeros(TEST - 1, np.uint8)), "29 labels, but 30 images in .*t10k-images"),
    "a label above 9": (LABELS, idx(np.repeat(np.uint8([9, 10]), 15)), "row 16: label 10"),
    "other pixels": ("train-images-idx3-ubyte", idx(np.zeros((TRAIN, 28, 27), np.uint8)), "images of 28 x 27 pixels"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_file_is_named(directory, bad):
    name, data, message = BAD[bad]
    replaced(directory, name, data)
    with pytest.raises(UserError, match=f"^{directory / name}.*{message}"):
        load(directory)


def test_a_missing_or_badly_packed_file_is_named(directory):
    path = directory / f"{LABELS}.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(UserError, match=f"{path}: truncated"):
        load(directory)
    path.write_bytes(b"not packed")
    with pytest.raises(UserError, match=f"{path}: .*not packed"):
        load(directory)
    path.unlink()
    with pytest.raises(UserError, match=f"{LABELS}: no such file"):
        load(directory)


def shrunk(image, factor):
    """Each pixel looks where it comes from and takes a weighted mean of the four around there; black beyond."""

    def pixel(row, column):
        return float(image[row, column]) if 0 <= row < 28 and 0 <= column < 28 else 0.0

    result = np.zeros((28, 28))
    for row in range(28):
        for column in range(28):
            y, x = 13.5 + (row - 13.5) / factor, 13.5 + (column - 13.5) / factor
            top, left = int(np.floor(y)), int(np.floor(x))
            for r, by_row in ((top, top + 1 - y), (top + 1, y - top)):
                for c, by_column in ((left, left + 1 - x), (left + 1, x - left)):
                    result[row, column] += by_row * by_column * pixel(r, c)
    return result


def test_scaled_is_the_affine_map_about_the_centre():
    images = np.random.default_rng(1).integers(0, 256, (2, 28, 28), dtype=np.uint8)
    for found, image in zip(digits.scaled(images, 0), images, strict=True):
        assert np.abs(found - shrunk(image, 0.7)).max() < 0.51, "bilinear interpolation, then rounding"
    assert not digits.scaled(images, 0)[:, :4].any(), "0.7 of 28 pixels leave a black margin"


def test_translated_moves_by_three_pixels_along_both_axes():
    images = np.random.default_rng(2).integers(1, 256, (200, 28, 28), dtype=np.uint8)
    found, directions = digits.translated(images, 0), []
    for image, moved in zip(images, found, strict=True):
        padded = np.pad(image, 3)
        shifts = [(y, x) for y in (-3, 3) for x in (-3, 3)]
        [direction] = [
            (y, x) for y, x in shifts if np.array_equal(moved, padded[3 - y : 31 - y, 3 - x : 31 - x])
        ]  # nothing else would do: a whole number of pixels needs no interpolation
        directions.append(direction)
    counts = [directions.count(direction) for direction in set(directions)]
    assert len(counts) == 4 and min(counts) > 30, "all four directions, about equally often"
    np.testing.assert_array_equal(digits.translated(images[:7], 0), found[:7], "the number of images has no say")
    assert np.any(digits.translated(images, 1) != found), "another seed, other directions"


def test_drawn_digits_are_derived_from_the_seed():
    found = digits.drawn(120, 5)
    assert (found.images.shape, found.images.dtype, found.labels.dtype) == ((120, 28, 28), np.uint8, np.int32)
    assert set(found.labels) == set(range(10))
    fewer = digits.drawn(50, 5)
    np.testing.assert_array_equal(fewer.images, found.images[:50])
    np.testing.assert_array_equal(fewer.labels, found.labels[:50])
    four = load(None, 60, 60)
    assert four["train"].name == "drawn train digits" and four["scaled"].name == "drawn scaled digits"
    drawings = {image.tobytes() for use in ("train", "test") for image in four[use].images}
    assert len(drawings) == 120, "no digit is drawn twice, least of all for training and for testing"
    np.testing.assert_array_equal(four["translated"].images, digits.translated(four["test"].images, 0))


def test_drawn_digits_look_like_mnist():
    """Black margins, white strokes that the transforms hardly cut; a digit's own class is the nearest on average."""
    images, labels, _ = digits.drawn(600, 0)
    frame = np.ones((28, 28), bool)
    frame[1:-1, 1:-1] = False
    assert images[:, frame].max() == 0 and images.max() == 255, "strokes must stay within the frame"
    assert 0.05 < np.mean(images > 127) < 0.3
    kept = digits.translated(images, 0).sum(dtype=float) / images.sum(dtype=float)
    assert kept > 0.97, "moved digits must stay in the frame"
    means = np.stack([images[:400][labels[:400] == digit].mean(0) for digit in range(10)])
    distance = np.square(images[400:, None].astype(float) - means).sum((2, 3))
    accuracy = np.mean(distance.argmin(1) == labels[400:])
    assert 0.5 < accuracy < 0.95, f"nearest mean is right for {accuracy:.0%}: digits too alike, or too easy"
