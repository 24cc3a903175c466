"""What each command of `seqkd` does: its arguments to calls of the library, their results to files, nothing else.

Each function imports what it needs when it runs. Results go to standard output or files, the rest to standard error.
"""

import contextlib
import functools
import io
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from seqkd_jax.cli import checks, inputs
from seqkd_jax.cli.options import (
    Average,
    Distill,
    Evaluate,
    Export,
    Import,
    Score,
    Select,
    Train,
    Translate,
    Vocab,
)
from seqkd_jax.config import BatchConfig, FilterConfig
from seqkd_jax.types import EOS, UserError
from seqkd_jax.utils import files, progress

RESULTS = ("results.json", "*.txt")  # of `seqkd evaluate`


def train(command: Train) -> None:
    """Ties corpus, vocabulary, model and starting point together; the work is in train_translator."""
    from seqkd_jax import models
    from seqkd_jax.training.trainer import Run, train_translator

    checks.train(command)
    gold = functools.cache(lambda: inputs.load_pairs(command.pairs, "train"))
    valid = inputs.load_pairs(command.pairs, "valid")  # before anything is learned
    corpus, vocabularies = inputs.training_corpus(command, gold), inputs.vocabularies(command, gold)
    model = getattr(command, command.model)
    size = models.parameter_count(models.build(model, vocabularies.source.size, vocabularies.target.size))
    progress.log(f"{command.model}: {size:,} parameters; vocabulary {vocabularies.fingerprint[:12]}")
    run = Run(
        model=model,
        vocabularies=vocabularies,
        config=command.config,
        start=command.start,
        teacher=command.teacher,
        teachers=command.teachers,
        teacher_cache_gib=command.teacher_cache_gib,
    )
    done = train_translator(run, corpus, valid, command.out)
    best = ", ".join(f"{found.best_value:.4g} at {found.best_step:,}" for found in done.replicas)
    progress.log(
        f"{done.steps:,} updates; best {best}; "
        f"{done.tokens_per_second:,.0f} target tokens/s, {done.peak_fraction:.0%} of this machine's peak"
    )
    print(done.best)


def translate(command: Translate) -> None:
    """Lines in, lines out; bounded memory, whatever the length of the input."""
    from seqkd_jax import checkpoint
    from seqkd_jax.data.corpus import read_lines
    from seqkd_jax.decoding import record_attention, translate_lines, write_jsonl, write_text
    from seqkd_jax.decoding.unknown import read_dictionary
    from seqkd_jax.distillation import mbr

    checks.translate(command)
    loaded = checkpoint.load_translators(command.checkpoint)
    system = loaded.system
    dictionary = read_dictionary(command.dictionary) if command.dictionary else None
    decoding = _decoding(command)
    write = write_jsonl if command.n_best else write_text
    recorded = _output(command.attention) if command.attention else contextlib.nullcontext()
    counter = progress.counter(None, "translate", "sentences")
    with _output(command.out) as stream, recorded as attention, counter as advance:
        translations = translate_lines(
            system,
            read_lines(command.file),
            decoding,
            prefixes=read_lines(command.prefix_file) if command.prefix_file else None,
            n_best=command.n_best or 1 if command.mbr == "none" else None,
            unknown_from_source=command.replace_unknown,
            dictionary=dictionary,
            progress=advance,
        )
        if command.mbr != "none":
            tokenize = loaded.vocabularies.metric_tokenizer
            lists = mbr.by_expected_utility(translations, command.mbr, command.mbr_weights, tokenize)
            translations = (one._replace(hypotheses=one.hypotheses[: command.n_best or 1]) for one in lists)
        if attention:
            translations = record_attention(
                system,
                translations,
                attention,
                layer=command.attention_layer,
                heads=command.attention_head or None,
                batch_tokens=command.batch_tokens,
                chunk=decoding.chunk,
            )
        write(translations, stream)


def _decoding(command: Translate):
    """How lines are decoded: many at a time, or one at a time for a person who types them."""
    from seqkd_jax.decoding import Decoding

    typed = command.file == "-" and sys.stdin is not None and sys.stdin.isatty()
    chunk = command.read_ahead or (1 if typed else 2048)
    batch_tokens = 1 if chunk == 1 else command.batch_tokens  # a person waits for one sentence: one row
    return Decoding(command.search, command.decoder, batch_tokens=batch_tokens, chunk=chunk)


def distill(command: Distill) -> None:
    """The teacher's n-best lists, then the choice among them."""
    from seqkd_jax import checkpoint
    from seqkd_jax import distillation as distilling
    from seqkd_jax.data.corpus import read_lines
    from seqkd_jax.decoding import Decoding

    checks.distill(command)
    out = Path(os.path.abspath(command.out))
    files.require_replaceable(out, distilling.HOLDS)
    teacher = checkpoint.load_translators(command.checkpoint)
    if command.source_only:
        sources, references = list(read_lines(command.source_only)), None
    else:
        sources, references, weights, name = inputs.load_pairs(command.pairs, "train")
        if weights is not None:
            progress.log(f"{name}: its pairs have weights; the distilled corpus has none")
    found = distilling.n_best(
        out.with_name(f"{out.name}.n-best"),
        teacher,
        sources,
        Decoding(command.search, batch_tokens=command.batch_tokens),
        shard_lines=command.shard_lines,
    )
    languages = command.pairs.corpus.source, command.pairs.corpus.target
    filters = command.filters if command.filters != FilterConfig() else None
    distilling.write_corpus(
        command.out, found, teacher.vocabularies, references, command.selection, languages=languages, filters=filters
    )
    progress.log((command.out / "README.md").read_text(encoding="utf-8").rstrip())
    print(command.out / "filtered" if filters else command.out)


def evaluate(command: Evaluate) -> None:
    """One system measured; others, if named, compared with it on the same sentences."""
    from seqkd_jax import checkpoint
    from seqkd_jax.decoding import Decoding
    from seqkd_jax.evaluation import evaluation, metrics

    checks.evaluate(command)
    if command.out:
        files.require_replaceable(command.out, RESULTS)
    loaded = checkpoint.load_translators(command.checkpoint)
    corpus = inputs.load_pairs(command.pairs, command.split)
    for name in command.compare:
        _check_compared(name, corpus, loaded)
    timed = None if command.repetitions else 0
    found = evaluation.evaluate(
        loaded.system,
        corpus,
        Decoding(command.search, batch_tokens=command.batch_tokens),
        batch=BatchConfig(),
        repetitions=command.repetitions,
        timed_sentences=timed,
    )
    results = {
        "checkpoint": loaded.name,
        "fingerprint": loaded.fingerprint,
        "corpus": corpus.name,
        **found.results,
    }
    beam = f"beam{command.search.beam}"
    if command.compare:
        systems = {name: _outputs_of(name, command, corpus, loaded) for name in command.compare}
        systems[loaded.name] = found.outputs[beam]
        tokenize = loaded.vocabularies.metric_tokenizer
        results["compared"] = metrics.paired_bootstrap(systems, found.references, loaded.name, tokenize)
    if command.out:
        with files.new_directory(command.out, RESULTS) as directory:
            for name, lines in found.outputs.items():
                files.write_text(directory / f"{name}.txt", "".join(f"{line}\n" for line in lines))
            files.write_json(directory / RESULTS[0], results)
    with _output(None) as stream:
        stream.write(files.json_text(results))


def score(command: Score) -> None:
    """Forced decoding of given translations."""
    from seqkd_jax import checkpoint
    from seqkd_jax.data.corpus import read_lines
    from seqkd_jax.decoding import force_score

    loaded = checkpoint.load_translators(command.checkpoint)
    sources, targets = (list(read_lines(path)) for path in (command.source, command.target))
    if not sources:
        raise UserError(f"{command.source}: has no line")
    if len(sources) != len(targets):
        raise UserError(f"{command.source} has {len(sources):,} lines but {command.target} has {len(targets):,}")
    source_ids = ([*loaded.vocabularies.source.encode(line), EOS] for line in sources)
    target_ids = [loaded.vocabularies.target.encode(line) for line in targets]
    total = 0.0
    with _output(command.out) as stream, progress.counter(len(sources), "score", "sentences") as advance:
        pairs = zip(source_ids, target_ids, strict=True)
        for nats in force_score(loaded.system.translator, loaded.system.params, pairs, progress=advance):
            stream.write(f"{nats:.6f}\n")
            total += nats
    tokens = sum(len(ids) + 1 for ids in target_ids)
    mean = -total / max(tokens, 1)
    progress.log(f"{total:,.2f} nats over {tokens:,} tokens (EOS included): perplexity {math.exp(min(mean, 700)):.4f}")


def average(command: Average) -> None:
    """The mean of weights as a checkpoint of its own."""
    from seqkd_jax import checkpoint

    params = checkpoint.average(list(command.checkpoints))
    first = checkpoint.load(command.checkpoints[0])
    metadata = {key: first.metadata[key] for key in checkpoint.OF_RUN if key in first.metadata}
    metadata["average_of"] = {str(path): checkpoint.fingerprint(path) for path in command.checkpoints}
    checkpoint.save(
        command.out, params, model_config=first.model_config, vocabularies=first.vocabularies, metadata=metadata
    )
    print(command.out)


def select(command: Select) -> None:
    """One of several seeds as a checkpoint of its own."""
    from seqkd_jax import checkpoint

    print(checkpoint.select(command.checkpoint, command.replica, command.out))


def import_model(command: Import) -> None:
    """Another toolkit's model as a checkpoint."""
    from seqkd_jax.marian import import_marian

    print(import_marian(command.directory, command.out))


def export_model(command: Export) -> None:
    """A checkpoint as another toolkit's model."""
    from seqkd_jax.marian import export_marian

    print(export_marian(command.checkpoint, command.out, command.max_positions))


def vocab(command: Vocab) -> None:
    """Vocabularies as plain files."""
    from seqkd_jax.data import vocabulary as learning

    files.require_replaceable(command.out, learning.HOLDS)
    pairs = inputs.load_pairs(command.pairs, "train")
    learned = learning.learn(pairs.sources, pairs.targets, command.vocab)
    with files.new_directory(command.out, learning.HOLDS) as directory:
        learning.save(learned, directory)
    sizes = f"{learned.source.size:,}" + ("" if learned.joint else f" and {learned.target.size:,}")
    progress.log(f"{pairs.name}: {sizes} entries, fingerprint {learned.fingerprint[:12]}")
    print(command.out)


@contextlib.contextmanager
def _output(path: Path | None) -> Iterator[io.TextIOBase]:
    """A stream of UTF-8 lines: a file that appears whole at the end, or standard output, line by line."""
    if path is not None:
        with files.new_file(path) as stream:
            yield stream
        return
    if sys.stdout is None:
        raise UserError("standard output is closed: name a file with --out")
    sys.stdout.flush()
    with open(sys.stdout.fileno(), "w", encoding="utf-8", newline="\n", buffering=1, closefd=False) as stream:
        yield stream


def _check_compared(name: str, corpus, loaded) -> None:
    """What can be seen of another system before anything is translated."""
    from seqkd_jax import checkpoint
    from seqkd_jax.data.corpus import read_lines

    if not os.path.isfile(name):
        other = checkpoint.load_translators([name])
        if _cut_by(other.vocabularies) != _cut_by(loaded.vocabularies):
            raise UserError(f"{name}: cuts text into words otherwise than {loaded.name}: BLEU cannot compare them")
        return
    count = sum(1 for _ in read_lines(name))
    if count != len(corpus.sources):
        raise UserError(
            f"{name}: has {count:,} lines, {corpus.name} has {len(corpus.sources):,}: one for each is needed"
        )


def _outputs_of(name: str, command: Evaluate, corpus, loaded) -> list[str]:
    """Translations of the corpus by another system: a file of them, or a checkpoint to make them."""
    from seqkd_jax import checkpoint
    from seqkd_jax.data.corpus import read_lines
    from seqkd_jax.decoding import Decoding, translate_lines
    from seqkd_jax.decoding.search import greedy_rules
    from seqkd_jax.evaluation import metrics

    if os.path.isfile(name):
        return metrics.metric_references(loaded.vocabularies, read_lines(name))
    other = checkpoint.load_translators([name])
    with progress.counter(len(corpus.sources), f"translate with {name}", "sentences") as advance:
        rules = command.search if command.search.beam > 1 else greedy_rules(command.search)  # as `evaluate` does
        decoding = Decoding(rules, batch_tokens=command.batch_tokens)
        lines = translate_lines(other.system, corpus.sources, decoding, n_best=1, progress=advance)
        return [translation.text for translation in lines]


def _cut_by(vocabularies) -> tuple:
    """What decides which words BLEU counts in a system's text."""
    cut = vocabularies.metric_tokenizer
    return cut, vocabularies.config.tokenizer if cut == "none" else ""
