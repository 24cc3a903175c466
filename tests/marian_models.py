"""What the tests of the Marian layout and of its peers share: ids, logits and translations of an imported model."""

import json

import jax
import numpy as np

from seqkd_jax import checkpoint, models
from seqkd_jax.config import SearchConfig
from seqkd_jax.decoding import Decoding, translate_ids
from seqkd_jax.decoding.search import named_rules
from seqkd_jax.types import BOS, PAD

STEPS = 40
LIMIT = {"max_length_a": 0.0, "max_length_b": STEPS}
HF = named_rules(SearchConfig(beam=5, **LIMIT), "hf")


def to_ours(directory, vocabularies):
    """A map of the directory's ids to ours."""
    ours = {name: index for index, name in enumerate(vocabularies.source.entries)}
    ours |= {"<pad>": BOS, "<start>": BOS, "<blank>": PAD}  # what an export calls our unused entries
    names = (directory / name for name in ("vocab.json", "added_tokens.json"))
    theirs = [json.loads(path.read_text()) for path in names if path.exists()]
    return {index: ours[name] for ids in theirs for name, index in ids.items()}


def translated(loaded, sources, config, decoder="beam"):
    """(ids with EOS if finished, score) of the best hypothesis of each."""
    options = {"decoder": decoder, "source_buckets": (32,), "batch_tokens": 512}
    found = translate_ids(loaded.model, loaded.params, sources, Decoding(config, **options))
    return [(best.tokens[0][best.tokens[0] != PAD].tolist(), float(best.scores[0])) for best in found]


def forced_logits(loaded, source, target):
    """[T,V] of a target that ends with EOS, given a source."""

    def run(params, source, target_in):
        return loaded.model.head(params, loaded.model.features(params, (source, target_in), None))

    arrays = np.array([source], np.int32), np.array([[BOS, *target[:-1]]], np.int32)
    return np.asarray(jax.jit(run)(loaded.params, *arrays))[0]


def random_checkpoint(path, config, vocabularies):
    """A checkpoint of large random weights, so that outputs vary."""
    sizes = vocabularies.source.size, vocabularies.target.size
    shapes = jax.eval_shape(lambda: models.build(config, *sizes).init(jax.random.key(0)))
    random = np.random.default_rng(0)

    def draw(leaf):
        spread = 0.8 if leaf.shape[0] in sizes else 2 * leaf.shape[0] ** -0.5 if len(leaf.shape) == 2 else 0.3
        return (random.normal(size=leaf.shape) * spread).astype(np.float32)

    params = jax.tree.map(draw, shapes)
    return checkpoint.save(path, params, model_config=config, vocabularies=vocabularies, metadata={})
