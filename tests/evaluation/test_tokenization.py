"""The tokenizer of BLEU: how `auto` chooses, what cannot be used, what is warned of."""

import importlib.util
from types import SimpleNamespace

import pytest
from unspaced import ENGLISH, REFERENCES, TOKENIZERS

from seqkd_jax.config import MetricConfig
from seqkd_jax.evaluation import metrics, tokenization
from seqkd_jax.types import UserError

SUBWORDS, WORDS = SimpleNamespace(tokenised=False), SimpleNamespace(tokenised=True)
KOREAN = ["요리사가 정원에서 의자를 그린다", "아이들이 강가에서 새를 본다"]
TEXTS = REFERENCES | {"en": ENGLISH, "ko": KOREAN}


@pytest.fixture(autouse=True)
def without_mecab(monkeypatch):
    """Whether or not it is installed here."""
    monkeypatch.setattr(metrics, "available", lambda tokenize: tokenize not in metrics.EXTRAS)


@pytest.mark.parametrize("language", [None, "de", "right"])
@pytest.mark.parametrize("text", TEXTS)
def test_auto_goes_by_the_text_where_the_language_is_not_named_or_another(text, language):
    expected = TOKENIZERS.get(text, "13a")
    found = tokenization.resolve("auto", SUBWORDS, TEXTS[text], language=text if language == "right" else language)
    assert found == expected


@pytest.mark.parametrize(
    "language, tokenize",
    [
        *dict.fromkeys(["zh", "zh-CN", "zh_Hans", "zho_Hans", "ZH-TW", "cmn_Hans", "yue"], "zh").items(),
        *dict.fromkeys(["ja", "jpn_Jpan", "ja-JP"], "ja-mecab").items(),
        *dict.fromkeys(["ko", "kor_Hang"], "ko-mecab").items(),
        *dict.fromkeys(["th", "tha_Thai", "km", "khm_Khmr", "lo", "my", "mya_Mymr", "bod_Tibt"], "char").items(),
        *dict.fromkeys(["de", "en-GB", "zza", "hi", "", None], "13a").items(),
    ],
)  # fmt: skip
def test_languages_by_their_codes(language, tokenize, monkeypatch):
    assert tokenization.for_text([], language) == tokenize.replace("ja-mecab", "char").replace("ko-mecab", "13a")
    monkeypatch.setattr(metrics, "available", lambda tokenize: True)
    assert tokenization.for_text([], language) == tokenize


def test_a_language_holds_for_text_that_is_partly_of_its_script():
    assert tokenization.for_text(["在 Microsoft Windows 上运行"], "zh") == "zh"
    assert tokenization.for_text(["在 Microsoft Windows 上运行"], "de") == "13a"
    assert tokenization.for_text(ENGLISH, "zh") == "13a"
    assert tokenization.for_text(["今日東京"], "ja") == "char", "a heading may have no kana"


def test_words_are_tokens_then_comes_what_is_stored_then_the_text(capfd):
    text = REFERENCES["zh"]
    assert tokenization.resolve("auto", WORDS, text, stored="zh", language="zh") == "none"
    assert tokenization.resolve("auto", SUBWORDS, text, stored="char", language="zh") == "char"
    assert capfd.readouterr().err == ""
    assert tokenization.resolve("auto", SUBWORDS, text, language="de") == "zh"
    assert "BLEU with sacrebleu's tokenizer zh (script of the text: Han)" in capfd.readouterr().err
    assert tokenization.resolve("auto", SUBWORDS, REFERENCES["ja"], language="ja") == "char"
    assert 'char (target language ja; ja-mecab needs `pip install "sacrebleu[ja]"`)' in capfd.readouterr().err
    assert tokenization.resolve("auto", SUBWORDS, KOREAN) == "13a"
    assert '13a (script of the text: Hangul; ko-mecab needs `pip install "sacrebleu[ko]"`)' in capfd.readouterr().err
    assert tokenization.resolve("intl", SUBWORDS, ENGLISH, stored="char") == "intl"
    assert tokenization.resolve("auto", SUBWORDS, ENGLISH, language="de") == "13a"
    assert capfd.readouterr().err == "", "the usual case needs no word"


@pytest.mark.parametrize("language", REFERENCES)
@pytest.mark.parametrize(
    "given", [{"asked": "13a"}, {"asked": "intl"}, {"asked": "none"}, {"asked": "auto", "stored": "13a"}]
)
def test_a_tokenizer_that_splits_at_spaces_is_warned_of_where_there_are_none(given, language, capfd):
    asked = given["asked"]
    assert tokenization.resolve(vocabularies=SUBWORDS, text=REFERENCES[language], **given) in (asked, "13a")
    (line,) = capfd.readouterr().err.splitlines()
    assert "mostly of a script without" in line and line.endswith(f"give --metric.tokenize {TOKENIZERS[language]}")
    tokenization.resolve(vocabularies=SUBWORDS, text=ENGLISH, **given)
    assert capfd.readouterr().err == ""


def test_what_cannot_be_used_is_one_line_with_the_remedy(monkeypatch, tmp_path):
    if importlib.util.find_spec("MeCab") is None:
        with pytest.raises(UserError, match=r'metric.tokenize is ja-mecab, .*`pip install "sacrebleu\[ja\]"`'):
            tokenization.known("ja-mecab", SUBWORDS)
        with pytest.raises(UserError, match="of the checkpoint's training is ja-mecab"):
            tokenization.known("auto", SUBWORDS, "ja-mecab")
    from sacrebleu.tokenizers import tokenizer_spm

    def offline(*_):
        raise OSError("no route to host")

    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(tmp_path))
    monkeypatch.setattr(tokenizer_spm, "download_file", offline)
    for name in ("spm", "flores200"):
        with pytest.raises(UserError, match=f"metric.tokenize is {name}, .*no route to host.*connect to the network"):
            tokenization.known(name, SUBWORDS)


def test_names_are_sacrebleus():
    from typing import get_type_hints

    names = set(get_type_hints(MetricConfig)["tokenize"].__args__)
    assert names - {"auto"} <= set(metrics.BLEU.TOKENIZERS)
