"""A teacher as far as distillation looks at it, and a search that only spells backwards: corpora without a model."""

from tiny import TINY, parameters

from seqkd_jax import checkpoint
from seqkd_jax.checkpoint.record import FORMAT
from seqkd_jax.config import LSTMConfig, VocabularyConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.decoding import Hypothesis, Translation
from seqkd_jax.distillation import nbest
from seqkd_jax.utils import files

WORDS = ["a", "b", "c", "d", "e", "f", "g", "h"]
VOCABULARIES = vocabulary.learn(
    WORDS, WORDS, VocabularyConfig(kind="words", size=12, joint=False, tokenizer="pretokenised")
)


def make_teacher(directory, weights="0" * 64, metadata=None):
    """A checkpoint as far as distillation looks at it."""
    model = checkpoint.config_to_json(LSTMConfig(layers=1, size=4))
    record = {"format": FORMAT, "model": model, "vocabulary": "v", "params_sha256": weights}
    record |= {"source_size": 12, "target_size": 12, "params": {}, "state": None, "metadata": {}}
    files.write_json(directory / "checkpoint.json", record)
    params = parameters(1, vocabulary=12)
    read = LSTMConfig(layers=1, size=4), VOCABULARIES, metadata or {}, directory
    return checkpoint.Checkpoint(TINY, params, *read, fingerprint=checkpoint.fingerprint(directory))


def spell_backwards(monkeypatch):
    """Replace the search; returns the function that does it, with `seen`, the lines it was given, and `kill_at`."""
    seen, firsts, killed = [], [], {}

    def backwards(system, lines, decoding, **options):
        firsts.append(options["first"])
        for line in lines:
            if line == killed.get("line"):
                raise killed["by"]
            seen.append(line)
            if len(line.split()) > 4095:
                assert options["overlong"] == "empty"
                yield Translation(line, [Hypothesis([], "", 0.0, 0.0, True)])
                continue
            best = Hypothesis([5] * len(line.split()), line[::-1], -1.0, -1.5, True)
            yield Translation(line, [best, Hypothesis([4], "a", -2.0, -2.0, False)])

    monkeypatch.setattr(nbest, "translate_lines", backwards)
    backwards.seen, backwards.firsts = seen, firsts
    backwards.kill_at = lambda line, by=KeyboardInterrupt: killed.update(line=line, by=by)
    return backwards
