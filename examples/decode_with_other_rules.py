"""The same model under the search rules of seven toolkits: what "BLEU differs between toolkits" comes from.

    python examples/decode_with_other_rules.py

A model is trained on the toy language, then decodes the same test sentences under each named set of rules: they differ
in how a score depends on length, when a search stops, and what a hypothesis at the length limit counts. Under each the
script prints BLEU, the length of the translations, and how many of them differ from those of the default rules. About a
minute on two CPU cores. It writes to runs/examples/rules, and continues there when it is run again.
"""

import argparse
from pathlib import Path

import seqkd_jax as kd
from seqkd_jax.data import toy
from seqkd_jax.decoding.search import PROFILES
from seqkd_jax.evaluation import metrics


def sample(count, split):
    """Sentence pairs with sources of at most 15 words: one width, so one program to compile for each set of rules."""
    pairs = [pair for pair in toy.sample_pairs(0, 2 * count, split) if len(pair.source.split()) <= 15]
    return kd.Corpus(*toy.lines(pairs[:count]), None, f"toy language, {split}")


def trained(out, pairs, epochs):
    """A small model of the toy language, under-trained so that rules matter."""
    train, valid = sample(pairs, "train"), sample(200, "valid")
    optimiser = kd.OptimiserConfig(learning_rate=2e-2, schedule="cosine", warmup_steps=50)
    batch = kd.BatchConfig(tokens=0, sentences=32, buckets=1)
    config = kd.TrainConfig(epochs=epochs, batch=batch, optimiser=optimiser)
    words = kd.learn_vocabulary(train, kd.VocabularyConfig(kind="words", size=400, tokenizer="pretokenised"))
    model = kd.LSTMConfig(layers=1, size=32, dropout=0.0, init_scale=0.5)
    return kd.train(train, valid, out, model=model, config=config, vocabularies=words).last


def main():
    """Train one model and decode with the rules of several toolkits; print where they differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/examples/rules"), help="directory for the checkpoint")
    parser.add_argument("--pairs", type=int, default=2000, help="training pairs")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--sentences", type=int, default=200, help="test sentences")
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--rules", nargs="*", default=sorted(PROFILES), choices=sorted(PROFILES), help="beside ours")
    given = parser.parse_args()

    model = kd.load(trained(given.out / "model", given.pairs, given.epochs))
    test = sample(given.sentences, "test")

    plain = kd.SearchConfig(beam=given.beam)
    rules = {"(default)": plain} | {name: kd.named_rules(plain, name) for name in given.rules}
    usual = None
    print(f"{'rules':12}  BLEU  words  other than by default  score of the first sentence")
    for name, search in rules.items():
        found = model.translate(test.sources, search=search)
        texts = [translation.text for translation in found]
        usual = usual or texts
        bleu = metrics.score(texts, test.targets, "none").bleu  # the text is tokens
        words = sum(len(text.split()) for text in texts) / len(texts)
        changed = sum(text != other for text, other in zip(texts, usual, strict=True))
        print(f"{name:12} {bleu:5.1f} {words:6.2f} {changed:22}  {found[0].hypotheses[0].score:.3f}")


if __name__ == "__main__":
    main()
