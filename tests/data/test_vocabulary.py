"""Vocabularies: text comes back, the same text gives the same bytes, another vocabulary is refused."""

import json
import random
import re
from dataclasses import replace

import pytest
from unspaced import ENGLISH, REFERENCES

from seqkd_jax.config import VocabularyConfig
from seqkd_jax.data import tokenizers, vocabulary
from seqkd_jax.types import BOS, EOS, PAD, UNK, UserError

SOURCES = ["the old man sees the dog .", "a dog sees the man .", "", "the dog sleeps , and the man sees it ."]
TARGETS = [
    "der alte Mann sieht den Hund .",
    "ein Hund sieht den Mann .",
    "",
    "der Hund schläft , und der Mann sieht es .",
]
BPE, UNIGRAM = VocabularyConfig(size=60), VocabularyConfig(size=60, algorithm="unigram")
SEPARATE = VocabularyConfig(size=40, joint=False)
WORDS = VocabularyConfig(kind="words", size=9, tokenizer="pretokenised")
KINDS = [BPE, UNIGRAM, SEPARATE, WORDS]
# Spaces that are no line feed, a combining accent, an emoji, half and full width: what normalisers like to change.
CHARACTERS = [*map(chr, range(33, 127)), *"äß\u2028\x85\x0b\xa0\u3000日\U0001f600\u0301\xad\u200b\tＡ"]


def learned(config, sources=SOURCES, targets=TARGETS):
    return vocabulary.learn(sources, targets, config)


@pytest.mark.parametrize("config", KINDS)
def test_contract(config):
    both = learned(config)
    for side, lines in ((both.source, SOURCES), (both.target, TARGETS)):
        assert 4 < side.size <= config.size
        for line in lines:
            ids = side.encode(line)
            assert all(isinstance(i, int) and UNK <= i < side.size and i not in (BOS, EOS) for i in ids)
            assert len(side.split(line)) == len(ids)
            assert side.decode([BOS, *ids, EOS, PAD]) == side.decode(ids), "special ids must not show in text"
        assert side.encode("") == side.encode("  \t ") == [] and side.decode([]) == ""
        assert UNK in side.encode("Ω") and "<unk>" in side.decode(side.encode("Ω"))
    assert both.joint == (both.source is both.target) == (config in (BPE, UNIGRAM))
    assert both.tokenised == (config.kind == "words")


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_text_comes_back(algorithm):
    """Of seen characters and single spaces every character, whatever it is: BLEU is counted on what decodes."""
    rng = random.Random(0)
    lines = [
        " ".join("".join(rng.choice(CHARACTERS) for _ in range(rng.randint(1, 6))) for _ in range(rng.randint(1, 4)))
        for _ in range(300)
    ]
    lines = [line for line in lines if line == line.strip(" ")]
    side = learned(VocabularyConfig(size=300, algorithm=algorithm), lines, lines).source
    assert [side.decode(side.encode(line)) for line in lines] == lines


@pytest.mark.parametrize("config", KINDS)
def test_names_of_special_entries_in_text_are_text(config):
    """A sentence that spells </s> must not end, nor one that spells <pad> have holes."""
    text = [f"{line} <pad> <unk> <s> </s>" for line in SOURCES]
    for side in learned(config, text, text)[:2]:
        for name in ("<pad>", "<s>", "</s>"):
            assert not {PAD, BOS, EOS} & set(side.encode(f"the {name} dog"))


@pytest.mark.parametrize("config", KINDS)
def test_learning_is_a_function_of_text_and_configuration(config):
    first, again, other = learned(config), learned(config), learned(config, SOURCES[:2], TARGETS[:2])
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert first.source.data == again.source.data


def test_iterators_are_read_once():
    assert learned(BPE, iter(SOURCES), iter(TARGETS)).fingerprint == learned(BPE).fingerprint


def test_joint_or_separate():
    assert UNK not in learned(BPE).source.encode("schläft")
    assert UNK in learned(SEPARATE).source.encode("schläft")


def test_words_are_the_most_frequent_and_ties_alphabetical():
    side = learned(WORDS, ["b b c a", "d c <unk>"]).source
    assert side.data.decode().split() == ["<pad>", "<unk>", "<s>", "</s>", "b", "c", "a", "d"]
    side = learned(VocabularyConfig(kind="words", size=7, tokenizer="pretokenised"), ["b b c a", "d c"]).source
    assert side.encode("a b\u2028d") == [6, 4, UNK] and side.decode([6, UNK, 4]) == "a <unk> b"


@pytest.mark.parametrize("tokenizer, words", [("13a", "Hi , you ."), ("intl", "Hi , you ."), ("char", "H i , y o u .")])
def test_named_tokenizer(tokenizer, words):
    config = VocabularyConfig(kind="words", size=30, tokenizer=tokenizer)
    side = learned(config, ["Hi, you."]).source
    assert side.decode(side.encode("Hi, you.")) == words == " ".join(side.split("Hi, you."))


def test_raw_text_is_refused_for_words():
    with pytest.raises(UserError, match="pretokenised"):
        learned(VocabularyConfig(kind="words"))


@pytest.mark.parametrize(
    "config, sources, problem",
    [
        (VocabularyConfig(size=4), SOURCES, "size is 4"),
        (VocabularyConfig(size=9), SOURCES, "size 9.*raise --vocab.size"),
        (BPE, ["", "  "], None),
        (SEPARATE, [], "no text"),
        (WORDS, ["", ""], "no text"),
    ],
)
def test_what_cannot_be_learned(config, sources, problem):
    if problem is None:  # the other side of a joint vocabulary has text
        assert learned(config, sources).source.size > 4
        return
    with pytest.raises(UserError, match=problem) as error:
        learned(config, sources)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("config", KINDS)
def test_saved_is_loaded(tmp_path, config):
    both = learned(config)
    vocabulary.save(both, tmp_path / "new" / "place")
    loaded = vocabulary.load(tmp_path / "new" / "place")
    assert loaded.fingerprint == both.fingerprint and loaded.config == config and loaded.joint == both.joint
    for side, again in zip(both[:2], loaded[:2], strict=True):
        assert [side.encode(line) for line in SOURCES + TARGETS] == [again.encode(line) for line in SOURCES + TARGETS]
        assert (side.size, side.data) == (again.size, again.data)
    vocabulary.save(loaded, tmp_path / "new" / "place")  # over itself
    assert vocabulary.load(tmp_path / "new" / "place").fingerprint == both.fingerprint
    assert not [path for path in (tmp_path / "new" / "place").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("config", [*KINDS, VocabularyConfig(kind="words", size=9, tokenizer="13a")])
def test_what_a_classifier_reads_is_saved_too(tmp_path, config):
    read = learned(config)
    made = vocabulary.labels(read, ("bad", "good"))
    assert made.source is read.source and made.target.encode("good") == [1]
    vocabulary.save(made, tmp_path)
    loaded = vocabulary.load(tmp_path)
    assert loaded.fingerprint == made.fingerprint and loaded.target.entries == ("bad", "good")
    for line in ("The dog, sees. ", *SOURCES):
        assert loaded.source.encode(line) == read.source.encode(line)


def test_a_classifier_does_not_read_an_imported_vocabulary():
    imported = learned(WORDS)._replace(config=VocabularyConfig(kind="marian"))
    with pytest.raises(UserError, match="imported"):
        vocabulary.labels(imported, ("bad", "good"))


@pytest.mark.parametrize("config", [SEPARATE, WORDS])
def test_a_changed_file_is_refused(tmp_path, config):
    both = learned(config)
    vocabulary.save(both, tmp_path)
    other = learned(config, SOURCES[:2], TARGETS[:2])
    (tmp_path / both.target.name).write_bytes(other.target.data)
    with pytest.raises(UserError, match=both.fingerprint[:12]):
        vocabulary.load(tmp_path)
    (tmp_path / both.target.name).write_bytes(b"\xff damaged")
    with pytest.raises(UserError, match="target"):
        vocabulary.load(tmp_path)
    (tmp_path / both.target.name).unlink()
    with pytest.raises(UserError, match="target.*no such file"):
        vocabulary.load(tmp_path)


def test_a_bad_description_is_refused(tmp_path):
    with pytest.raises(UserError, match="vocabulary.json"):
        vocabulary.load(tmp_path)
    vocabulary.save(learned(WORDS), tmp_path)
    path = tmp_path / "vocabulary.json"
    good = json.loads(path.read_text())
    for bad in ([], {**good, "format": 99}, {"format": 1}, {**good, "config": {"sise": 3}}):
        path.write_text(json.dumps(bad))
        with pytest.raises(UserError, match="seqkd vocab|sise: there is no such setting"):
            vocabulary.load(tmp_path)


def test_another_vocabulary_is_refused_by_name():
    one, other = learned(BPE), learned(UNIGRAM)
    vocabulary.require_same(one.fingerprint, one, "here")
    with pytest.raises(UserError) as error:
        vocabulary.require_same(one.fingerprint, other, "runs/teacher")
    for name in ("runs/teacher", one.fingerprint[:12], other.fingerprint[:12]):
        assert name in str(error.value)


@pytest.mark.parametrize("name", ["pretokenised", "13a", "intl", "char"])
def test_an_unknown_word_of_a_model_s_output_is_one_unknown_word(name):
    """A student reads what its teacher wrote: <unk> must not become three words."""
    split = tokenizers.tokenizer(name)
    line = "ab <unk> c <unk>"
    known = tokenizers.word_list(
        "words", [*vocabulary.SPECIALS, *dict.fromkeys(split("ab c"))], VocabularyConfig(kind="words", tokenizer=name)
    )
    ids = known.encode(line)
    assert ids.count(UNK) == 2 and known.encode(known.decode(ids)) == ids
    assert split("a<unk>b") == (["a<unk>b"] if name == "pretokenised" else split("a< unk >b")), "only a word by itself"


def test_characters_without_an_entry_are_bytes_or_unknown():
    """--vocab.byte-fallback and --vocab.character-coverage; by default every character of the text has an entry."""
    sources, strange = SOURCES * 200 + ["a rare Ω"], "the dog 厨师 Ω \u2028 ."
    common = VocabularyConfig(size=400, character_coverage=0.98)
    for config, unknown in ((VocabularyConfig(size=400), 1), (common, 2), (replace(common, byte_fallback=True), 0)):
        side = learned(config, sources).source
        ids = side.encode("the dog 厨 Ω .")
        assert ids.count(UNK) == unknown and len(side.split("the dog 厨 Ω .")) == len(ids)
        if config.byte_fallback:
            assert side.decode(side.encode(strange)) == strange
    for field in ({"byte_fallback": True}, {"character_coverage": 0.99}):
        with pytest.raises(UserError, match="byte_fallback have no effect with kind words: use sentencepiece"):
            replace(WORDS, **field).validate()


def test_too_small_a_size_is_answered_with_options_that_exist():
    with pytest.raises(UserError, match=r"size 9: .* are 27 already; raise --vocab.size, or lower --vocab.character-c"):
        learned(VocabularyConfig(size=9))
    with pytest.raises(UserError, match=r"size 260: .* are 283 already, 256 bytes counted; raise --vocab.size"):
        learned(VocabularyConfig(size=260, byte_fallback=True))


def test_unknown_characters_of_the_validation_text_are_told(capfd):
    """In one line, with the options that change it; not where there are few of them, nor of words."""
    quiet = [*SOURCES * 100, "Ω"]
    for config in (BPE, WORDS, VocabularyConfig(size=400, byte_fallback=True)):
        vocabulary.warn_of_unknown(learned(config), quiet if config == BPE else ["厨师"], TARGETS)
    assert not capfd.readouterr().err
    vocabulary.warn_of_unknown(learned(BPE), ["a dog 厨 师"], ["Hund 厨", "ein Mann"])
    said = (
        "validation: 33.3% of the characters of the sources (厨 师) and 8.3% of the characters of the targets (厨) are"
    )
    assert capfd.readouterr().err == f"{said} <unk> in this vocabulary; learn one with --vocab.byte-fallback\n"
    vocabulary.warn_of_unknown(learned(replace(BPE, character_coverage=0.99)), ["厨"], [])
    assert capfd.readouterr().err.endswith("--vocab.byte-fallback or a higher --vocab.character-coverage\n")
    spm = learned(BPE).source
    imported = vocabulary.mapped(spm.data, spm.data, spm.entries)
    vocabulary.warn_of_unknown(imported, ["厨"], TARGETS)
    assert capfd.readouterr().err.endswith("in this vocabulary; an imported model has no other: leave such text out\n")


@pytest.mark.parametrize("language", REFERENCES)
def test_words_that_are_whole_phrases_are_told(language, capfd):
    """Of text without spaces, unless it was split, or its characters are the words."""
    raw, split = REFERENCES[language], [" ".join(re.findall("..?.?", line)) for line in REFERENCES[language]]
    for tokenizer, text, told in (
        ("pretokenised", raw, 1),
        ("13a", raw, 1),
        ("pretokenised", split, 0),
        ("char", raw, 0),
    ):
        vocabulary.learn(ENGLISH, text, VocabularyConfig(kind="words", size=99, joint=False, tokenizer=tokenizer))
        assert capfd.readouterr().err.count("are whole phrases") == told, tokenizer
