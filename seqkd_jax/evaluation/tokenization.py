"""Which of sacrebleu's tokenizers BLEU applies: one rule for validation, evaluation, selections, minimum Bayes risk.

`auto` takes the first that is known: text of word vocabularies is tokens (`none`); what the checkpoint was trained
with; what suits the target language; where none is named, or the text is of another script, what suits the script.
"""

import re
from collections.abc import Sequence

from seqkd_jax.config import Tokenize
from seqkd_jax.data import scripts
from seqkd_jax.data.scripts import Script
from seqkd_jax.evaluation import metrics
from seqkd_jax.utils import progress

AUTO = "auto"
SETTING = "metric.tokenize"
AT_SPACES = ("none", "13a", "intl")  # split at white space and punctuation only

# ISO 639-1 and -3 (the older bibliographic codes too) of languages whose script has a tokenizer of its own.
LANGUAGES: dict[Script, str] = {
    "Han": "zh zho chi cmn yue wuu gan hak hsn nan cdo cjy lzh",
    "Japanese": "ja jpn",
    "Hangul": "ko kor",
    "unspaced": "th tha lo lao km khm my mya bur shn mnw bo bod tib dz dzo nod khb tdd",
}
SCRIPTS: dict[str, Script] = {code: script for script, codes in LANGUAGES.items() for code in codes.split()}
# Script -> tokenizers, the first whose package is installed. sacrebleu chooses so for zh, ja and ko; it has nothing for
# the others but `char` (and `flores200`, whose model is a download).
TOKENIZERS: dict[Script, tuple[Tokenize, ...]] = {
    "Han": ("zh",),
    "Japanese": ("ja-mecab", "char"),
    "Hangul": ("ko-mecab", "13a"),
    "unspaced": ("char",),
    "spaced": ("13a",),
}
ALIASES = {"spm": "flores101"}  # sacrebleu's own, which it warns of


def resolve(asked: str, vocabularies, text: Sequence[str], *, stored: str = AUTO, language: str | None = None) -> str:
    """The tokenizer that a job applies, at its start: said where it is not the usual one, warned of where it is wrong.

    asked: the setting. text: the references, or what else BLEU will read. stored: that of the checkpoint's training.
    UserError: see `known`.
    """
    tokenize = known(asked, vocabularies, stored)
    if tokenize == AUTO:
        return _chosen(language, text)
    if asked != AUTO or not vocabularies or not vocabularies.tokenised:
        warn_unless_suited(tokenize, text)
    return tokenize


def known(asked: str, vocabularies, stored: str = AUTO) -> str:
    """The tokenizer that is asked for, that the vocabularies demand, or that a checkpoint has stored; else `auto`.

    UserError: one whose package or model is not there.
    """
    if asked == AUTO and vocabularies and vocabularies.tokenised:
        return "none"
    tokenize = stored if asked == AUTO else asked
    if tokenize == AUTO:
        return AUTO
    metrics.require_tokenizer(tokenize, SETTING if tokenize == asked else f"{SETTING} of the checkpoint's training")
    return ALIASES.get(tokenize, tokenize)


def for_text(text: Sequence[str], language: str | None = None) -> str:
    """The tokenizer for text whose language may be known: the first of its script that is there."""
    return next(name for name in TOKENIZERS[_script(text, language)] if metrics.available(name))


def warn_unless_suited(tokenize: str, text: Sequence[str]) -> bool:
    """A line for a tokenizer that takes whole sentences for words. Returns whether there was need of it."""
    if tokenize not in AT_SPACES or scripts.script_of(text) not in scripts.UNSPACED:
        return False
    progress.log(
        f"{SETTING} is {tokenize}, which splits at spaces, but the text is mostly of a script without them: BLEU "
        f"compares whole phrases; give --{SETTING} {for_text(text)}"
    )
    return True


def _chosen(language: str | None, text: Sequence[str]) -> str:
    tokenize, script = for_text(text, language), _script(text, language)
    if script != "spaced":
        named = SCRIPTS.get(_code(language)) == script
        why, first = f"target language {language}" if named else f"script of the text: {script}", TOKENIZERS[script][0]
        more = "" if tokenize == first else f'; {first} needs `pip install "sacrebleu[{metrics.EXTRAS[first]}]"`'
        progress.log(f"BLEU with sacrebleu's tokenizer {tokenize} ({why}{more})")
    return tokenize


def _script(text: Sequence[str], language: str | None) -> Script:
    """That of a language if a part of the text is of it, else that of most letters."""
    shares, named = scripts.shares(text), SCRIPTS.get(_code(language))
    if named and (not shares or shares.get(named, 0) >= scripts.PART):
        return named
    if named == "Japanese" and shares.get("Han", 0) >= scripts.PART:  # a few lines may have no kana
        return named
    return max(shares, key=lambda script: shares[script]) if shares else "spaced"


def _code(language: str | None) -> str:
    """The language of a name such as zh, zh-CN, zh_Hans or zho_Hans."""
    return re.split("[-_]", (language or "").lower())[0]
