"""The shortlist: what it holds against counting by hand, and a search over it against that of a smaller model."""

import jax
import numpy as np
import pytest
from searches import as_list, limits, request, sources
from tiny import TINY, parameters

from seqkd_jax.config import SearchConfig, VocabularyConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.decoding import Decoding, shortlist, translate_ids
from seqkd_jax.decoding.search import engine
from seqkd_jax.decoding.shortlist import Shortlist
from seqkd_jax.types import PAD, UserError

LINES = [f"a{i} b{i % 3} c{i % 7} der" for i in range(40)]
VOCABULARIES = vocabulary.learn(LINES, LINES, VocabularyConfig("words", 60, joint=False, tokenizer="pretokenised"))
STEPS = 7


def encoded(lines):
    return [(VOCABULARIES.source.encode(line), VOCABULARIES.target.encode(line)) for line in lines]


@pytest.mark.parametrize("block", [shortlist.BLOCK, 7])
def test_partners_are_ranked_as_by_hand(block, monkeypatch):
    monkeypatch.setattr(shortlist, "BLOCK", block)
    pairs = encoded(LINES)
    found = shortlist.learn(pairs, VOCABULARIES, frequent=3, partners=4)
    count = lambda side, id_: sum(id_ in pair[side] for pair in pairs)  # noqa: E731
    both = lambda s, t: sum(s in source and t in target for source, target in pairs)  # noqa: E731
    targets = sorted({id_ for _, target in pairs for id_ in target})
    assert found.frequent.tolist() == sorted(targets, key=lambda t: (-count(1, t), t))[:3]
    for source in {id_ for pair in pairs for id_ in pair[0]}:
        strength = {t: both(source, t) ** 2 / (count(0, source) * count(1, t)) for t in targets if both(source, t)}
        wanted = sorted(strength, key=lambda t: (-strength[t], t))[:4]
        assert [t for t in found.partners[source].tolist() if t != PAD] == wanted, f"source entry {source}"


def test_words_of_some_sources():
    partners = np.zeros((400, 2), np.int32)
    partners[9], partners[11] = (7, 300), (5, PAD)
    found = shortlist.words(Shortlist(np.array([6, 7]), partners, 400, ""), [[9, 3], [11, 9, 3]])
    assert found.dtype == np.int32 and len(found) == 256
    assert found[:8].tolist() == [0, 1, 2, 3, 5, 6, 7, 300] and not found[8:].any()
    assert shortlist.words(Shortlist(np.array([6]), partners, 200, ""), [[9]]) is None, "a list as long as all is none"


def test_saved_loaded_and_refused(tmp_path):
    found = shortlist.learn(encoded(LINES), VOCABULARIES)
    path = tmp_path / "list.npz"
    shortlist.save(found, path)
    again = shortlist.load(path, VOCABULARIES)
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one, other)
    others = vocabulary.learn(LINES[:9], LINES[:9], VOCABULARIES.config)
    with pytest.raises(UserError, match="another vocabulary"):
        shortlist.load(path, others)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="no shortlist"):
        shortlist.load(path, VOCABULARIES)
    with open(path, "wb") as stream:
        np.save(stream, np.arange(3))
    with pytest.raises(UserError, match="no shortlist"):
        shortlist.load(path, VOCABULARIES)
    with pytest.raises(UserError, match="no such file"):
        shortlist.load(tmp_path / "none.npz", VOCABULARIES)
    with pytest.raises(UserError, match="no sentence pair"):
        shortlist.learn([], VOCABULARIES)


def test_the_search_over_a_shortlist_is_the_search_of_a_smaller_model():
    """A model whose vocabulary is the list, padding left out, gives the same hypotheses under other names."""
    vocabulary, words = 40, np.array([0, 1, 2, 3, 6, 9, 17, 33, 0, 0], np.int32)
    params = parameters(1, vocabulary)
    kept = words[:8]
    names = ("target", "output", "bias")
    smaller = {name: leaf[kept] if name in names else leaf for name, leaf in params.items()}
    asked = request(sources(1, vocabulary), *limits(0, STEPS))
    search = jax.jit(engine(TINY, SearchConfig(beam=3), STEPS, 2))
    mine, theirs = jax.device_get(search(params, asked, words)), jax.device_get(search(smaller, asked))
    for row in range(len(asked.source)):
        wanted = [(kept[ids].tolist(), finished) for ids, *_, finished in as_list(theirs, row)]
        assert [(ids, finished) for ids, *_, finished in as_list(mine, row)] == wanted
    np.testing.assert_allclose(mine.scores, theirs.scores, rtol=1e-5)


def test_what_does_not_go_with_a_shortlist_is_refused():
    params, asked, words = parameters(0, 40), request(sources(0, 40), *limits(0, STEPS)), np.arange(8, dtype=np.int32)
    with pytest.raises(UserError, match="shortlist"):
        jax.eval_shape(engine(TINY, SearchConfig(no_repeat_ngram=2), STEPS), params, asked, words)
    prefix = np.full((len(asked.source), 1), 5, np.int32)
    with pytest.raises(UserError, match="shortlist"):
        jax.eval_shape(engine(TINY, SearchConfig(), STEPS), params, asked._replace(prefix=prefix), words)
    found = shortlist.learn(encoded(LINES), VOCABULARIES)
    with pytest.raises(UserError, match="reads no shortlist"):
        list(translate_ids(TINY, params, [[5, 3]], Decoding(SearchConfig(), decoder="beam", shortlist=found)))
