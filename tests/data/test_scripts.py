"""Scripts: the ranges are Unicode's, and words are counted as before where there are spaces."""

import unicodedata

import pytest
from unspaced import ENGLISH, REFERENCES

from seqkd_jax.data import scripts

# How the names of a script's letters begin, in the order of scripts._LETTERS_OF.
NAMES = (
    ("CJK UNIFIED", "CJK COMPATIBILITY IDEOGRAPH", "HANGZHOU", "BOPOMOFO LETTER"),
    ("HIRAGANA LETTER", "KATAKANA LETTER", "HALFWIDTH KATAKANA LETTER", "HENTAIGANA LETTER"),
    ("HANGUL SYLLABLE", "HANGUL LETTER", "HANGUL CHOSEONG", "HALFWIDTH HANGUL LETTER"),
    tuple(f"{script} LETTER" for script in (
        "THAI CHARACTER", "LAO", "TIBETAN", "MYANMAR", "KHMER", "TAI LE", "NEW TAI LUE", "TAI THAM", "TAI VIET",
        "BALINESE", "JAVANESE", "AHOM",
    )),
)  # fmt: skip


def test_every_letter_is_of_its_script_and_of_no_other():
    inside = {*range(0x3500, 0x4D00), *range(0x4F00, 0x9F00), *range(0xAD00, 0xD700), *range(0x18000, 0x32300)}
    for code in set(range(0x32400)) - inside:  # no letter of these stands beyond
        name = unicodedata.name(chr(code), "")
        if chr(code).isalpha():
            of = [place for place, letters in enumerate(scripts._LETTERS_OF) if letters.match(chr(code))]
            expected = [place for place, names in enumerate(NAMES) if name.startswith(names)]
            assert of == expected if expected else len(of) < 2, name
            assert not of or not name.startswith(("LATIN", "GREEK", "CYRILLIC", "ARABIC", "DEVANAGARI", "HEBREW")), name


@pytest.mark.parametrize(
    "lines, script",
    [
        (ENGLISH, "spaced"),
        (REFERENCES["zh"], "Han"),
        (REFERENCES["ja"], "Japanese"),
        (REFERENCES["th"], "unspaced"),
        (REFERENCES["km"], "unspaced"),
        (["안녕하세요 세계"], "Hangul"),
        (["हिन्दी पाठ यहाँ है"], "spaced"),
        (["在 Windows 上", "运行程序很容易"], "Han"),
        (["", "12 + 3 = 15 。"], None),
        ([], None),
    ],
)
def test_the_script_of_most_letters(lines, script):
    assert scripts.script_of(lines) == script
    assert scripts.unit(lines) == ("characters" if script in scripts.UNSPACED else "words")


def test_words_are_those_between_spaces_and_the_characters_of_scripts_without():
    for line in [*ENGLISH, "", " a  b\tc\n", "안녕하세요 세계", "ein Wort—zwei"]:
        assert scripts.words(line) == len(line.split()) and not scripts.is_unspaced(line)
    assert scripts.words("他有 3 只鸟。") == 6 and scripts.is_unspaced("他有 3 只鸟。")
    assert scripts.words("使用Photoshop编辑。") == 6 and scripts.is_unspaced("使用Photoshop编辑。")
    assert not scripts.is_unspaced("The cook went to Peking (北) in the spring of that year.")
