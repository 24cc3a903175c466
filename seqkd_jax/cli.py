"""The command `seqkd`: arguments to calls of the library and its results to files, nothing else. Above everything.

A command is a frozen dataclass, from which tyro makes the arguments and their help, and a function that runs it; COMMANDS
names both. The library is imported when a command runs, so that --help answers at once. Results go to standard output or
files, everything else to standard error. Exit codes: 0 done, 2 an error the user can mend (one line says how), 130
interrupted, 141 the reader of our output went away, 143 stopped by SIGTERM with a checkpoint saved.
"""

import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

import tyro

from seqkd_jax import __version__, files, progress
from seqkd_jax.base import UserError
from seqkd_jax.config import (
    BatchConfig,
    CorpusConfig,
    FilterConfig,
    LSTMConfig,
    SearchConfig,
    TrainConfig,
    TransformerConfig,
    VocabularyConfig,
)

Flat = tyro.conf.arg(name="")  # the fields of a configuration as arguments without a prefix
NO_WEIGHT = 1.0


@dataclass(frozen=True)
class Pairs:
    """A corpus that may lack a validation split."""

    corpus: CorpusConfig = CorpusConfig()
    hold_out: int = 0
    """Take so many training pairs as the validation split, for a corpus without one; the same for every command."""


@dataclass(frozen=True)
class Train:
    """Train a teacher or a student. Started again with the same arguments, it goes on where it was.

    A teacher or baseline: seqkd train --out teacher --corpus.path DATA
    A Seq-KD student: the same, and --train-on DISTILLED (from `seqkd distill`) --vocabulary teacher/best
    A Word-KD student: the same, and --loss.name word_kd --teacher teacher/best
    Seq-Inter: --start student/best --train-on DISTILLED (chosen with --selection kim_rush) and a smaller learning rate
    """

    out: Path
    """Directory to write: best/ and last/ are checkpoints, metrics.jsonl is the record."""
    pairs: Annotated[Pairs, Flat] = Pairs()
    train_on: tuple[str, ...] = ()
    """Train on these instead of the training split: directories or files, or `gold` for the split; PATH=WEIGHT weighs one."""
    vocabulary: Path | None = None
    """Directory of `seqkd vocab`, or a checkpoint, whose vocabularies to use. None: the teacher's or start's, or learned."""
    vocab: VocabularyConfig = VocabularyConfig()
    """How to learn the vocabularies from the training split, if there are none to use."""
    model: Literal["lstm", "transformer"] = "lstm"
    """Which of the two configurations below holds."""
    lstm: LSTMConfig = LSTMConfig()
    transformer: TransformerConfig = TransformerConfig()
    teacher: Path | None = None
    """Checkpoint whose distribution the loss reads (word_kd)."""
    start: Path | None = None
    """Checkpoint of the same model to start from; None: at random."""
    config: Annotated[TrainConfig, Flat] = TrainConfig()


@dataclass(frozen=True)
class Translate:
    """Translate lines of a file or of standard input, in order, one for each, as they come.

    seqkd translate --checkpoint student/best < input.en > output.de
    """

    checkpoint: Path
    """Directory of a checkpoint; nothing else is needed."""
    file: tyro.conf.Positional[str] = "-"
    """File to read, UTF-8, one sentence a line; - is standard input."""
    out: Path | None = None
    """File to write, whole or not at all; None: standard output."""
    n_best: int = 0
    """0: plain text, the best translation of each line. N: JSON lines with the N best and their scores in nats."""
    search: Annotated[SearchConfig, Flat] = SearchConfig()
    replace_unknown: bool = False
    """Replace <unk> by the source word most attended to (word vocabularies)."""
    dictionary: Path | None = None
    """For --replace-unknown: `source|||target` lines that translate the word."""
    read_ahead: int = 0
    """Lines read before the first is translated: more is faster. 0: 2048, or 1 if a person types."""
    batch_tokens: int = 1024
    """Source positions in a batch, padding included."""


@dataclass(frozen=True)
class Distill:
    """Translate a training corpus with a teacher and choose a target for each source: the corpus of a student.

    Seq-KD: seqkd distill --checkpoint teacher/best --corpus.path DATA --out seq_kd
    Seq-Inter: the same with --selection kim_rush --beam 35
    Stopped and started again, it goes on where it was. README.md beside the corpus says how it came out.
    """

    checkpoint: Path
    """The teacher."""
    out: Path
    """Directory to write the corpus to; n-best lists go beside it, to <out>.n-best."""
    pairs: Annotated[Pairs, Flat] = Pairs()
    source_only: Path | None = None
    """Distil these source lines instead of the training split; there are no references then."""
    selection: str = "best"
    """best, or what is nearest to the reference by kim_rush, sacrebleu or chrf."""
    search: Annotated[SearchConfig, Flat] = SearchConfig()
    shard_lines: int = 1000
    """Source lines in a shard, the unit in which work is kept."""
    batch_tokens: int = 1024
    """Source positions in a batch, padding included."""
    filters: FilterConfig = FilterConfig()
    """If any is on, filtered/ holds the pairs that pass."""


@dataclass(frozen=True)
class Evaluate:
    """BLEU and chrF at beam 1 and the given beam, perplexity, p(t=y), source words/s, as JSON on standard output.

    seqkd evaluate --checkpoint student/best --corpus.path DATA --compare baseline/best
    """

    checkpoint: Path
    """The system to evaluate."""
    pairs: Annotated[Pairs, Flat] = Pairs()
    split: Literal["test", "valid", "train"] = "test"
    """Part of the corpus."""
    compare: tuple[str, ...] = ()
    """Other systems: checkpoints, or files with one translation a line. Paired bootstrap of each against this one."""
    out: Path | None = None
    """Directory to write results.json and the translations to, beside printing the results."""
    search: Annotated[SearchConfig, Flat] = SearchConfig()
    repetitions: int = 3
    """Passes to time; the median counts. 0: no speed."""
    batch_tokens: int = 1024
    """Source positions in a batch, padding included."""


@dataclass(frozen=True)
class Score:
    """The log-probability (nats) of each given translation, one number a line; the perplexity on standard error."""

    checkpoint: Path
    """The model that scores."""
    source: Path
    """File of source lines."""
    target: Path
    """File of their translations."""
    out: Path | None = None
    """File to write; None: standard output."""


@dataclass(frozen=True)
class Average:
    """Average the weights of checkpoints of one run: seqkd average --out averaged run/step-*"""

    checkpoints: tyro.conf.Positional[tuple[Path, ...]]
    """Directories; one model, one vocabulary."""
    out: Path
    """Checkpoint to write."""


@dataclass(frozen=True)
class Vocab:
    """Learn vocabularies from the training split of a corpus and save them, for `seqkd train --vocabulary`."""

    out: Path
    """Directory to write."""
    pairs: Annotated[Pairs, Flat] = Pairs()
    vocab: Annotated[VocabularyConfig, Flat] = VocabularyConfig()


def train(command: Train) -> None:
    """Ties corpus, vocabulary, model and starting point together; the work is in train_translator."""
    from seqkd_jax import models
    from seqkd_jax.corpus import mix
    from seqkd_jax.losses import LOSSES
    from seqkd_jax.train_translator import Run, train_translator

    loss = _entry(LOSSES, command.config.loss.name, "--loss.name")
    if command.teacher and not loss.needs_teacher:
        raise UserError(f"--teacher is given, but loss {command.config.loss.name} reads none; say --loss.name word_kd")
    gold = functools.cache(lambda: load_pairs(command.pairs, "train"))
    parts = [(_training_part(command, name, gold), weight) for name, weight in map(_weighted, command.train_on)]
    vocabularies = _vocabularies(command, gold)
    model = command.lstm if command.model == "lstm" else command.transformer
    size = models.parameter_count(models.build(model, vocabularies.source.size, vocabularies.target.size))
    progress.log(f"{command.model}: {size:,} parameters; vocabulary {vocabularies.fingerprint[:12]}")
    run = Run(
        model=model,
        vocabularies=vocabularies,
        train=mix(parts) if parts else gold(),
        valid=load_pairs(command.pairs, "valid"),
        config=command.config,
        start=command.start,
        teacher=command.teacher,
    )
    done = train_translator(run, command.out)
    progress.log(
        f"{done.steps:,} updates; best at {done.best_step:,}: {done.best_value:.4g}; "
        f"{done.tokens_per_second:,.0f} target tokens/s, {done.peak_fraction:.0%} of this machine's peak"
    )
    print(done.best)


def translate(command: Translate) -> None:
    """Lines in, lines out; bounded memory, whatever the length of the input."""
    from seqkd_jax import checkpoint, vocab
    from seqkd_jax.corpus import read_lines
    from seqkd_jax.translate import translate_lines, write_jsonl, write_text

    if command.n_best > command.search.beam:
        raise UserError(f"--n-best {command.n_best} is more than --beam {command.search.beam}: raise the beam")
    if command.dictionary and not command.replace_unknown:
        raise UserError("--dictionary is for --replace-unknown: give both")
    loaded = checkpoint.load(command.checkpoint)
    replace = None
    if command.replace_unknown:
        dictionary = vocab.read_dictionary(command.dictionary) if command.dictionary else None
        replace = functools.partial(vocab.replace_unknown, loaded.vocabularies, dictionary=dictionary)
    typed = command.file == "-" and sys.stdin.isatty()
    write = functools.partial(write_jsonl) if command.n_best else write_text
    with _output(command.out) as stream, progress.counter(None, "translate", "sentences") as advance:
        translations = translate_lines(
            loaded.translator,
            loaded.params,
            loaded.vocabularies,
            read_lines(command.file),
            command.search,
            n_best=command.n_best or 1,
            replace_unknown=replace,
            batch_tokens=command.batch_tokens,
            chunk=command.read_ahead or (1 if typed else 2048),
            progress=advance,
        )
        write(translations, stream)


def distill(command: Distill) -> None:
    """The teacher's n-best lists, then the choice among them."""
    from seqkd_jax import checkpoint
    from seqkd_jax import distill as distilling
    from seqkd_jax.corpus import read_lines

    rule = _entry(distilling.SELECTIONS, command.selection, "--selection")
    if command.source_only and rule is not None:
        raise UserError(f"--selection {command.selection} needs references; with --source-only, use best")
    teacher = checkpoint.load(command.checkpoint)
    if command.source_only:
        sources, references = list(read_lines(command.source_only)), None
    else:
        sources, references, *_ = load_pairs(command.pairs, "train")
    found = distilling.n_best(
        command.out.with_name(f"{command.out.name}.n-best"),
        teacher,
        sources,
        command.search,
        shard_lines=command.shard_lines,
        batch_tokens=command.batch_tokens,
    )
    languages = command.pairs.corpus.source, command.pairs.corpus.target
    filters = command.filters if command.filters != FilterConfig() else None
    card = distilling.write_corpus(
        command.out, found, teacher.vocabularies, references, command.selection, languages=languages, filters=filters
    )
    progress.log(distilling.describe(card, languages))
    print(command.out / "filtered" if filters else command.out)


def evaluate(command: Evaluate) -> None:
    """One system measured; others, if named, compared with it on the same sentences."""
    from seqkd_jax import checkpoint
    from seqkd_jax import evaluate as measuring

    loaded = checkpoint.load(command.checkpoint)
    corpus = load_pairs(command.pairs, command.split)
    timed = None if command.repetitions else 0
    found = measuring.evaluate(
        loaded.translator,
        loaded.params,
        loaded.vocabularies,
        corpus,
        search=command.search,
        batch=BatchConfig(),
        batch_tokens=command.batch_tokens,
        repetitions=command.repetitions,
        timed_sentences=timed,
    )
    results = {
        "checkpoint": str(command.checkpoint),
        "fingerprint": checkpoint.fingerprint(command.checkpoint),
        "corpus": corpus.name,
        **found.results,
    }
    beam = f"beam{command.search.beam}"
    if command.compare:
        systems = {name: _outputs_of(name, command, corpus, found.references) for name in command.compare}
        systems[str(command.checkpoint)] = found.outputs[beam]
        tokenize = loaded.vocabularies.metric_tokenizer
        against = str(command.checkpoint)
        results["compared"] = measuring.paired_bootstrap(systems, found.references, against, tokenize)
    if command.out:
        with files.new_directory(command.out) as directory:
            for name, lines in found.outputs.items():
                files.write_text(directory / f"{name}.txt", "".join(f"{line}\n" for line in lines))
            files.write_json(directory / "results.json", results)
    with _output(None) as stream:
        stream.write(files.json_text(results))


def score(command: Score) -> None:
    """Forced decoding of given translations."""
    import math

    from seqkd_jax import checkpoint
    from seqkd_jax.base import EOS
    from seqkd_jax.corpus import read_lines
    from seqkd_jax.translate import force_score

    loaded = checkpoint.load(command.checkpoint)
    sources, targets = (list(read_lines(path)) for path in (command.source, command.target))
    if len(sources) != len(targets):
        raise UserError(f"{command.source} has {len(sources):,} lines but {command.target} has {len(targets):,}")
    source_ids = ([*loaded.vocabularies.source.encode(line), EOS] for line in sources)
    target_ids = [loaded.vocabularies.target.encode(line) for line in targets]
    total = 0.0
    with _output(command.out) as stream, progress.counter(len(sources), "score", "sentences") as advance:
        pairs = zip(source_ids, target_ids, strict=True)
        for nats in force_score(loaded.translator, loaded.params, pairs, progress=advance):
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
    metadata = {"average_of": {str(path): checkpoint.fingerprint(path) for path in command.checkpoints}}
    checkpoint.save(
        command.out, params, model_config=first.model_config, vocabularies=first.vocabularies, metadata=metadata
    )
    print(command.out)


def vocab(command: Vocab) -> None:
    """Vocabularies as plain files."""
    from seqkd_jax import vocab as learning

    pairs = load_pairs(command.pairs, "train")
    learned = learning.learn(pairs.sources, pairs.targets, command.vocab)
    with files.new_directory(command.out) as directory:
        learning.save(learned, directory)
    sizes = f"{learned.source.size:,}" + ("" if learned.joint else f" and {learned.target.size:,}")
    progress.log(f"{pairs.name}: {sizes} entries, fingerprint {learned.fingerprint[:12]}")
    print(command.out)


COMMANDS: dict[str, tuple[type, Callable[[Any], None]]] = {
    "train": (Train, train),
    "translate": (Translate, translate),
    "distill": (Distill, distill),
    "evaluate": (Evaluate, evaluate),
    "score": (Score, score),
    "average": (Average, average),
    "vocab": (Vocab, vocab),
}
