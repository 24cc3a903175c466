"""Unknown words of a translation: replaced by what they attend to, or by its entry in a dictionary."""

import pytest

from seqkd_jax.config import VocabularyConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.decoding.unknown import read_dictionary, replace_unknown
from seqkd_jax.types import UNK, UserError

TEXT = ["the man sees the dog .", "a dog sees the man ."], ["der Mann sieht den Hund .", "ein Hund sieht der Mann ."]


def test_unknown_words_are_replaced_by_what_they_attend_to():
    both = vocabulary.learn(*TEXT, VocabularyConfig(kind="words", size=9, tokenizer="pretokenised"))
    known = both.target.encode("der")[0]
    source = "Anna sees Bob"
    ids, positions = [UNK, known, UNK, UNK], [0, 1, 2, 3]
    assert replace_unknown(both, source, ids, positions) == "Anna der Bob Bob", "EOS (3) stands for the last word"
    assert replace_unknown(both, source, ids[:3], positions[:3], {"Bob": "Robert"}) == "Anna der Robert"
    assert replace_unknown(both, "", [UNK], [0]) == "<unk>", "nothing to replace it with"
    assert replace_unknown(both, source, [], []) == ""
    with pytest.raises(UserError, match="word vocabularies"):
        replace_unknown(vocabulary.learn(*TEXT, VocabularyConfig(size=40)), source, [UNK], [0])


def test_dictionary(tmp_path):
    path = tmp_path / "dictionary.txt"
    path.write_text("Bob|||Robert\nMunich ||| München\n", encoding="utf-8")
    assert read_dictionary(path) == {"Bob": "Robert", "Munich": "München"}
    path.write_text("Bob|||Robert\nMunich\n")
    with pytest.raises(UserError, match="line 2"):
        read_dictionary(path)
    with pytest.raises(UserError, match="No such file"):
        read_dictionary(tmp_path / "none")
