"""What is decoded: weights, sentences and rules. The same for every system.

Either a checkpoint and a file of sentences, with natural lengths; or, without either, a random Marian-shaped model and
random sentences with forced lengths, which needs no data and gives every system the same number of steps.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from seqkd_jax import checkpoint, models
from seqkd_jax.config import SearchConfig, TransformerConfig, VocabularyConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.data.corpus import read_lines
from seqkd_jax.decoding.search import named_rules
from seqkd_jax.types import BOS, EOS, PAD, UNK, UserError

SPECIALS = (PAD, UNK, BOS, EOS)
NEVER = -1e9  # a bias that leaves no probability
RULES = "ctranslate2"  # that all peers can follow


@dataclass(frozen=True)
class Synthetic:
    """The random model and its sentences. Defaults: 256 wide, 6 + 2 layers, 16k vocabulary, as a Marian student."""

    encoder_layers: int = 6
    decoder_layers: int = 2
    width: int = 256
    heads: int = 8
    feed_forward: int = 1024
    vocabulary: int = 16_000
    source_tokens: int = 24  # EOS included
    target_tokens: int = 32


SMOKE = Synthetic(1, 1, 16, 2, 32, vocabulary=60, source_tokens=8, target_tokens=6)


class Work(NamedTuple):
    """A model and what it translates."""

    name: str
    model: checkpoint.Checkpoint
    sentences: list[list[int]]  # source ids, EOS included
    lines: list[str] | None  # their text; None: there is none, the ids are random
    references: list[str] | None
    rules: SearchConfig


def rules_of(work: Work, beam: int) -> SearchConfig:
    """The rules at this beam. Beam 1 is greedy: it ends with its first EOS, as that of every peer does."""
    return replace(work.rules, beam=beam, stop="first_k_finished") if beam == 1 else replace(work.rules, beam=beam)


def forced(rules: SearchConfig, tokens: int) -> SearchConfig:
    """The rules under which every translation has so many tokens (EOS may be the last)."""
    lengths = {"max_length_a": 0.0, "max_length_b": float(tokens), "min_length_a": 0.0, "min_length_b": float(tokens)}
    return replace(rules, **lengths)


def from_checkpoint(directory: Path, source: Path, references: Path | None, sentences: int, seed: int) -> Work:
    """A checkpoint with lines of a file: at most `sentences`, drawn by the seed, in their order; 0: all. No empty ones.

    UserError: nothing to translate, another number of references than sources, and what loading a checkpoint raises.
    """
    model, lines = checkpoint.load(directory), list(read_lines(source))
    targets = None if references is None else list(read_lines(references))
    if targets is not None and len(targets) != len(lines):
        raise UserError(f"{source} has {len(lines):,} lines but {references} has {len(targets):,}")
    ids = [[*model.vocabularies.source.encode(line), EOS] for line in lines]
    usable = [index for index, sentence in enumerate(ids) if len(sentence) > 1]
    if not usable:
        raise UserError(f"{source}: no line with a word in it; give a file with a sentence a line")
    if 0 < sentences < len(usable):
        usable = sorted(np.random.default_rng(seed).choice(usable, sentences, replace=False).tolist())
    chosen, targets = ([None if of is None else of[index] for index in usable] for of in (lines, targets))
    path = directory.absolute()
    name = path.parent.name if path.name in ("best", "last", "average") else path.name
    rules = named_rules(SearchConfig(), RULES)
    return Work(name, model, [ids[index] for index in usable], chosen, targets if references else None, rules)


def from_random(shape: Synthetic, sentences: int, seed: int, directory: Path) -> Work:
    """A random model, saved under `directory` because peers read files, and so many random sentences for it.

    The four special entries are never produced: their bias is low. Embeddings are three times as large as at the start
    of training, so that probabilities are as peaked as a trained model's, and rounding decides nothing. The signs of
    the last norm are random: with tied embeddings, outputs would repeat one token for ever, and agreement show nothing.
    """
    layers = {"encoder_layers": shape.encoder_layers, "decoder_layers": shape.decoder_layers}
    config = TransformerConfig(
        width=shape.width, heads=shape.heads, feed_forward=shape.feed_forward, norm="post", activation="swish",
        tied="all", output_bias=True, positions="vaswani", **layers,
    )  # fmt: skip
    vocabularies = _random_vocabulary(shape.vocabulary, seed)
    size = vocabularies.source.size
    params = jax.device_get(jax.jit(models.build(config, size, size).init)(jax.random.key(seed)))
    leaves = dict(params["params"])
    leaves["target_embedding"] = 3 * leaves["target_embedding"]
    last = leaves[f"decoder_{shape.decoder_layers - 1}"]["feed_forward_residual"]["norm"]
    last["scale"] = np.random.default_rng(seed).choice(np.float32([-1, 1]), shape.width)
    leaves["output_bias"] = np.where(np.arange(size) <= max(SPECIALS), np.float32(NEVER), np.float32(0))
    path = directory / "random"
    metadata = {"random": True, "seed": seed}
    checkpoint.save(path, {"params": leaves}, model_config=config, vocabularies=vocabularies, metadata=metadata)
    model = checkpoint.load(path)
    ids = random_sentences(model, sentences, shape.source_tokens, seed)
    name = (
        f"random Transformer {shape.encoder_layers}+{shape.decoder_layers}×{shape.width}, {shape.vocabulary:,} entries"
    )
    return Work(name, model, ids, None, None, forced(SearchConfig(), shape.target_tokens))


def random_sentences(model: checkpoint.Checkpoint, count: int, tokens: int, seed: int) -> list[list[int]]:
    """Random source ids, EOS included, none of the special entries."""
    size = model.vocabularies.source.size
    ids = np.random.default_rng(seed).integers(len(SPECIALS), size, (count, tokens - 1))
    return [[*row, EOS] for row in ids.tolist()]


def _random_vocabulary(size: int, seed: int):
    """A joint vocabulary of pieces of random words."""
    random = np.random.default_rng(seed)
    letters, words = np.array(list("abcdefghijklmnopqrstuvwxyz")), []
    for _ in range(2 * size):
        words.append("".join(random.choice(letters, random.integers(3, 9))))
    lines = [" ".join(words[first : first + 20]) for first in range(0, len(words), 20)]
    return vocabulary.learn(lines, lines, VocabularyConfig(size=size))
