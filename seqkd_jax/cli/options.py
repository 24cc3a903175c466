"""What the commands of `seqkd` take: a frozen dataclass each, from which tyro makes the arguments and their help.

Configurations are those of `config`; what stands here beside them are files, directories and what to do with them. No
module of the library is imported but `config`: `seqkd --help` answers at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from seqkd_jax.config import (
    Amount,
    CorpusConfig,
    Count,
    FilterConfig,
    Layers,
    Length,
    LSTMConfig,
    Positive,
    SearchConfig,
    Tokens,
    TrainConfig,
    TransformerConfig,
    VocabularyConfig,
    Width,
)
from seqkd_jax.utils.settings import Range

Flat = tyro.conf.arg(name="")  # the fields of a configuration as arguments without a prefix
Rules = Literal["ctranslate2", "fairseq", "hf", "kim_rush", "marian", "t5x"] | None  # search.PROFILES
Checkpoints = Annotated[tuple[Path, ...], tyro.conf.UseAppendAction]  # --checkpoint A --checkpoint B


@dataclass(frozen=True)
class Pairs:
    """A corpus that may lack a validation split."""

    corpus: CorpusConfig = CorpusConfig()
    hold_out: Count = 0
    """Take so many training pairs as the validation split, for a corpus without one; the same for every command."""


@dataclass(frozen=True, kw_only=True)
class Repeatable:
    """A command that writes config.json, and starts again from one."""

    config_file: Annotated[Path | None, tyro.conf.arg(name="config")] = None
    """Start from the settings in this file, the config.json of a run; options given beside it override it."""
    given: Annotated[tuple[str, ...], tyro.conf.Suppress] = ()  # the options on the command line, as they were called


@dataclass(frozen=True)
class Train(Repeatable):
    """Train a teacher or a student. Started again with the same arguments, it goes on where it was.

    A teacher or baseline: seqkd train --out teacher --corpus.path DATA

    A Seq-KD student: the same, and --train-on DISTILLED (from `seqkd distill`) --vocabulary teacher/best

    A Word-KD student: the same, and --loss.name word_kd --teacher teacher/best

    Seq-Inter: --start student/best --train-on DISTILLED (chosen with --selection kim_rush), a smaller learning rate
    """

    out: Path
    """Directory to write: best/ and last/ are checkpoints, metrics.jsonl the metrics, config.json the settings."""
    pairs: Annotated[Pairs, Flat] = Pairs()
    train_on: tuple[str, ...] = ()
    """Train on these, not on the training split: directories, files, `gold` for the split; PATH=WEIGHT weighs one."""
    vocabulary: Path | None = None
    """A directory of `seqkd vocab`, or a checkpoint to share one with. None: the teacher's, the start's, or learned."""
    vocab: VocabularyConfig = VocabularyConfig()
    """How to learn the vocabularies from the training split, if there are none to use."""
    model: Literal["lstm", "transformer"] = "lstm"
    """Which of the two configurations below holds."""
    lstm: LSTMConfig = LSTMConfig()
    transformer: TransformerConfig = TransformerConfig()
    teacher: Path | None = None
    """Checkpoint whose distribution the loss reads (word_kd)."""
    teachers: Literal["one", "each"] = "one"
    """Of a teacher of several seeds: its first teaches all replicas, or each its own."""
    teacher_cache_gib: Amount = 4.0
    """Compute the teacher's features of the corpus once and keep them, if they take at most this; 0: never."""
    start: Path | None = None
    """Checkpoint of the same model to start from; None: at random."""
    config: Annotated[TrainConfig, Flat] = TrainConfig()


@dataclass(frozen=True)
class Translate(Repeatable):
    """Translate lines of a file or of standard input, in order, one for each, as they come.

    seqkd translate --checkpoint student/best < input.en > output.de
    """

    checkpoint: Checkpoints
    """Directory of a checkpoint; nothing else is needed. Several, each after --checkpoint: their ensemble."""
    file: tyro.conf.Positional[str] = "-"
    """File to read, UTF-8, one sentence a line; - is standard input."""
    out: Path | None = None
    """File to write, whole or not at all, and FILE.config.json with the settings beside it; None: standard output."""
    n_best: Annotated[int, Range(0, 4096)] = 0
    """0: plain text, the best translation of each line. N: JSON lines with the N best and their scores in nats."""
    decoder: str = "engine"
    """engine; beam, the same search as the engine's, slower; greedy; sample: as many samples as the beam is wide."""
    rules: Rules = None
    """Search as this toolkit does: sets the rules below that are not given themselves."""
    search: Annotated[SearchConfig, Flat] = SearchConfig()
    mbr: Literal["none", "chrf", "bleu"] = "none"
    """Of the whole beam, or of all samples, take what is most similar to the others (minimum Bayes risk)."""
    mbr_weights: Literal["uniform", "probability"] = "uniform"
    """What the others count: all alike, as samples should, or as probable as the model says, for a beam."""
    replace_unknown: bool = False
    """Replace <unk> by the source word most attended to (word vocabularies)."""
    dictionary: Path | None = None
    """For --replace-unknown: `source|||target` lines that translate the word."""
    attention: Path | None = None
    """File to write: JSON lines with the pieces of source and best translation, and what each target piece saw."""
    attention_layer: Layers | None = None
    """For --attention: a decoder layer of a Transformer, from 1; None: the last."""
    attention_head: Annotated[tuple[Width, ...], tyro.conf.UseAppendAction] = ()
    """For --attention: heads, from 1, each after --attention-head, of which the mean is written; none: of all."""
    prefix_file: Path | None = None
    """File with a line for each of the input: what its translation must begin with; an empty line: nothing."""
    read_ahead: Annotated[int, Range(0, 2**24)] = 0
    """Lines read before the first is translated: more is faster. 0: 2048, or 1 if a person types."""
    batch_tokens: Tokens = 1024
    """Source positions in a batch, padding included."""


@dataclass(frozen=True)
class Distill(Repeatable):
    """Translate a training corpus with a teacher and choose a target for each source: the corpus of a student.

    Seq-KD: seqkd distill --checkpoint teacher/best --corpus.path DATA --out seq_kd

    Seq-Inter: the same with --selection kim_rush --beam 35

    Stopped and started again, it goes on where it was. README.md beside the corpus says how it came out.
    """

    checkpoint: Checkpoints
    """The teacher; several, each after --checkpoint: their ensemble."""
    out: Path
    """Directory to write the corpus to; n-best lists go beside it, to <out>.n-best."""
    pairs: Annotated[Pairs, Flat] = Pairs()
    source_only: Path | None = None
    """Distil these source lines instead of the training split; there are no references then."""
    selection: str = "best"
    """best, or what is nearest to the reference by kim_rush, sacrebleu or chrf."""
    rules: Rules = None
    """Search as this toolkit does: sets the rules below that are not given themselves."""
    search: Annotated[SearchConfig, Flat] = SearchConfig()
    shard_lines: Positive = 1000
    """Source lines in a shard, the unit in which work is kept."""
    batch_tokens: Tokens = 1024
    """Source positions in a batch, padding included."""
    filters: FilterConfig = FilterConfig()
    """If any is on, filtered/ holds the pairs that pass."""


@dataclass(frozen=True)
class Evaluate(Repeatable):
    """BLEU and chrF at beam 1 and the given beam, perplexity, p(t=y), source words/s, as JSON on standard output.

    seqkd evaluate --checkpoint student/best --corpus.path DATA --compare baseline/best
    """

    checkpoint: Checkpoints
    """The system to evaluate; several, each after --checkpoint: their ensemble."""
    pairs: Annotated[Pairs, Flat] = Pairs()
    split: Literal["test", "valid", "train"] = "test"
    """Part of the corpus."""
    compare: tuple[str, ...] = ()
    """Other systems: checkpoints, or files with one translation a line. Paired bootstrap of each against this one."""
    out: Path | None = None
    """Directory to write results.json, the translations and config.json to, beside printing the results."""
    rules: Rules = None
    """Search as this toolkit does: sets the rules below that are not given themselves."""
    search: Annotated[SearchConfig, Flat] = SearchConfig()
    repetitions: Annotated[int, Range(0, 1000)] = 3
    """Passes to time; the median counts. 0: no speed."""
    batch_tokens: Tokens = 1024
    """Source positions in a batch, padding included."""


@dataclass(frozen=True)
class Score:
    """The log-probability (nats) of each given translation, one number a line; the perplexity on standard error."""

    checkpoint: Checkpoints
    """The model that scores; several, each after --checkpoint: their ensemble."""
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
class Select:
    """Take out one of the seeds that were trained at once: seqkd select many/best --replica 0 --out one"""

    checkpoint: tyro.conf.Positional[Path]
    """Checkpoint of several seeds."""
    replica: Annotated[int, Range(0, 1023)]
    """Which, counted from 0."""
    out: Path
    """Checkpoint to write."""


@dataclass(frozen=True)
class Import:
    """Make a checkpoint of a model of another toolkit: seqkd import --from hf opus-mt-en-de --out teacher

    hf: a Marian directory of Hugging Face, with config.json, model.safetensors, vocab.json, source.spm and target.spm.
    """

    directory: tyro.conf.Positional[Path]
    """Directory to read; pickled weights are refused."""
    out: Path
    """Checkpoint to write."""
    form: Annotated[Literal["hf"], tyro.conf.arg(name="from")] = "hf"
    """The form it is in."""


@dataclass(frozen=True)
class Export:
    """Write a Transformer for other toolkits: seqkd export --to hf student/best --out student-hf

    hf: a Marian directory, for transformers' MarianMTModel and MarianTokenizer and for CTranslate2's converter.
    """

    checkpoint: tyro.conf.Positional[Path]
    """A post-norm Transformer with one joint sentencepiece vocabulary, all embeddings tied."""
    out: Path
    """Directory to write."""
    form: Annotated[Literal["hf"], tyro.conf.arg(name="to")] = "hf"
    """The form to write."""
    max_positions: Length = 512
    """Longest sentence that transformers will take, in tokens."""


@dataclass(frozen=True)
class Vocab:
    """Learn vocabularies from the training split of a corpus and save them, for `seqkd train --vocabulary`."""

    out: Path
    """Directory to write."""
    pairs: Annotated[Pairs, Flat] = Pairs()
    vocab: Annotated[VocabularyConfig, Flat] = VocabularyConfig()
