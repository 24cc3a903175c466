"""A corpus that `seqkd distill` wrote is read only as it was written."""

import pytest

from seqkd_jax.config import CorpusConfig
from seqkd_jax.data.corpus import load_split
from seqkd_jax.data.distilled import CARD, HOLDS
from seqkd_jax.types import UserError
from seqkd_jax.utils import files


@pytest.fixture
def corpus(tmp_path):
    with files.new_directory(tmp_path / "kd", HOLDS) as directory:
        files.write_json(directory / CARD, {"languages": ["en", "de"]})
        for place in (directory, directory / "filtered"):
            files.write_text(place / "train.en", "a\nb\n")
            files.write_text(place / "train.de", "c\nd\n")
    return tmp_path / "kd"


def test_other_splits_may_be_put_beside_a_distilled_one(corpus):
    for name in ("valid.en", "valid.de"):
        files.write_text(corpus / name, "x\n")
    assert load_split(CorpusConfig(str(corpus)), "train").sources == ["a", "b"]
    assert load_split(CorpusConfig(str(corpus)), "valid").sources == ["x"]


@pytest.mark.parametrize("name", [CARD, "train.de", "filtered/train.en", files.SUMS])
@pytest.mark.parametrize("part", ["", "filtered"])
def test_a_damaged_file_of_it_is_named(corpus, name, part):
    data = (corpus / name).read_bytes()
    for damaged in (data[:-2], bytes([data[0] ^ 1]) + data[1:]):
        (corpus / name).write_bytes(damaged)
        with pytest.raises(UserError, match="kd/.*: damaged, .*; if it was changed on purpose, remove .*SHA256SUMS"):
            load_split(CorpusConfig(str(corpus / part)), "train")
