"""The benchmark of speculative decoding, at a tiny size."""

import json

import jax

from experiments.benchmarks import speculative
from seqkd_jax import checkpoint, models
from seqkd_jax.config import TransformerConfig, VocabularyConfig
from seqkd_jax.data import vocabulary

LINES = ["a b c d e f g h", "h g f e d c b a", "a c e g", "b d f h"]


def test_a_draft_that_is_the_teacher_is_always_right(tmp_path, capsys):
    """And another one is not; the outputs are those of greedy search."""
    vocabularies = vocabulary.learn(LINES, LINES, VocabularyConfig(size=40, kind="words", tokenizer="pretokenised"))
    config, size = TransformerConfig(1, 1, 16, heads=2, feed_forward=32), vocabularies.source.size
    for seed, name in enumerate(("teacher", "other")):
        params = jax.tree.map(lambda leaf: 3 * leaf, models.build(config, size, size).init(jax.random.key(seed)))
        given = {"model_config": config, "vocabularies": vocabularies, "metadata": {}}
        checkpoint.save(tmp_path / name, jax.device_get(params), **given)
    (tmp_path / "input").write_text("\n".join(LINES))
    paths = [str(tmp_path / name) for name in ("teacher", "other")]
    arguments = ["--checkpoint", paths[0], "--drafts", *paths, "--input", str(tmp_path / "input"), "--tokens", "3"]
    out = ["--smoke", "--rounds", "1", "--out", str(tmp_path / "out")]
    assert speculative.main([*arguments, *out]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    ways = {way["name"]: way for way in results["ways"]}
    assert set(ways) == {"greedy", "engine", "teacher drafts 3", "other drafts 3"}
    own, other = ways["teacher drafts 3"], ways["other drafts 3"]
    assert own["rounds"] < other["rounds"] and own["accepted"] > other["accepted"] >= 0
    assert all(way["same"] == {"1": len(LINES), "32": len(LINES)} for way in ways.values())
    assert "other drafts 3" in capsys.readouterr().out


def test_what_is_missing_is_named(capsys):
    assert speculative.main([]) == 2
    assert "--drafts DIR" in capsys.readouterr().err
