"""Scripts: which text has spaces between its words, and how many words a line of any text has.

Scripts without spaces: Han and kana; Thai, Lao, Khmer, Myanmar and others, whose line breaks need a dictionary or the
shapes of syllables (Unicode Standard Annex 14: classes SA, AK and AS); Tibetan. Python knows no scripts: the ranges are
those of Unicode's Scripts.txt, letters and marks.
"""

import re
from collections.abc import Sequence
from typing import Literal

Script = Literal["Han", "Japanese", "Hangul", "unspaced", "spaced"]  # unspaced: the others without spaces
UNSPACED: tuple[Script, ...] = ("Han", "Japanese", "unspaced")

_HAN = "々〇\u3021-\u3029\u3105-\u312f\u31a0-\u31bf\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_KANA = "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9d\U0001aff0-\U0001b16f"
_HANGUL = "\u1100-\u11ff\u3131-\u318e\ua960-\ua97c\uac00-\ud7fb\uffa0-\uffdc"
_OTHERS = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf"  # Thai, Lao
    "\u0f40-\u0fbc\u1000-\u109f\ua9e0-\ua9fe\uaa60-\uaa7f\u1780-\u17dd"  # Tibetan, Myanmar, Khmer
    "\u1950-\u1974\u1980-\u19df\u1a20-\u1aad\uaa80-\uaadd"  # Tai Le, New Tai Lue, Tai Tham, Tai Viet
    "\u1b00-\u1b4c\ua980-\ua9c0\U00011700-\U00011746"  # Balinese, Javanese, Ahom
)
_LETTER = r"[^\W\d_]"
_LETTERS = re.compile(_LETTER)
_LETTERS_OF = [re.compile(f"(?={_LETTER})[{block}]") for block in (_HAN, _KANA, _HANGUL, _OTHERS)]
_UNSPACED = re.compile(f"[{_HAN}{_KANA}{_OTHERS}]")
SAMPLE = 2000  # lines, about, that tell the script of a corpus
PART = 0.1  # of the letters, from which text counts as of a script
KANA_SHARE = 0.1  # of Han and kana, from which text is Japanese; running text has about a half


def words(line: str) -> int:
    """The words of a line: what white space separates; in scripts without spaces each character is one."""
    return len(_UNSPACED.sub(" x ", line).split())


def unit(lines: Sequence[str]) -> Literal["words", "characters"]:
    """What the `words` of these lines mostly are."""
    return "characters" if script_of(lines) in UNSPACED else "words"


def is_unspaced(line: str) -> bool:
    """Whether a line is of a script without spaces, at least in part: a foreign name in it makes no difference."""
    found = len(_UNSPACED.findall(line))
    return found > 0 and found >= PART * len(_LETTERS.findall(line))


def shares(lines: Sequence[str]) -> dict[Script, float]:
    """The share of each script in the letters of a corpus, or of lines of it at even distances; {} without letters."""
    text = "\n".join(lines[:: max(1, len(lines) // SAMPLE)])
    total = len(_LETTERS.findall(text))
    if not total:
        return {}
    han, kana, hangul, others = (len(letters.findall(text)) for letters in _LETTERS_OF)
    east: Script = "Japanese" if kana and kana >= KANA_SHARE * (han + kana) else "Han"
    counts: dict[Script, int] = {east: han + kana, "Hangul": hangul, "unspaced": others}
    counts["spaced"] = total - sum(counts.values())
    return {script: count / total for script, count in counts.items()}


def script_of(lines: Sequence[str]) -> Script | None:
    """The script of most letters; None without letters."""
    found = shares(lines)
    return max(found, key=lambda script: found[script]) if found else None
