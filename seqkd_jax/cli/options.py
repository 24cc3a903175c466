"""The options of each command of `seqkd`: frozen dataclasses, from which tyro makes the arguments and their help.

They hold the configurations of `config`, and beside them the files and directories of the command. Nothing of the
library is imported but `config`, so that `seqkd --help` is quick.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from seqkd_jax.config import (
    Amount,
    ComputeType,
    CorpusConfig,
    Count,
    Devices,
    ExactConfig,
    FilterConfig,
    Layers,
    Length,
    LSTMConfig,
    MetricConfig,
    Overlong,
    Positive,
    PruningConfig,
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
Overwrite = Annotated[
    bool, tyro.conf.arg(help="Replace what another command or corpus left at --out; without it that is refused.")
]
Checkpoints = Annotated[tuple[Path, ...], tyro.conf.UseAppendAction]  # --checkpoint A --checkpoint B
Computing = Annotated[
    ComputeType | None,
    tyro.conf.arg(
        help="Type of matrix products and activations; None: that of the training. With bfloat16_products weights and "
        "what they are multiplied with are rounded, which takes half the time on CPUs with AMX."
    ),
]
SharedDevices = Annotated[
    Devices, tyro.conf.arg(help="Devices that share the work, 0: all; of a CPU each core is one. Results are the same.")
]


@dataclass(frozen=True)
class Pairs:
    """A corpus, and the validation split of one that has none."""

    corpus: CorpusConfig = CorpusConfig()
    hold_out: Count = 0
    """Training pairs that become the validation split, for a corpus without one; the same pairs in every command. No
    source and no target is on both sides."""


@dataclass(frozen=True, kw_only=True)
class Repeatable:
    """A command that writes config.json and can be started from it."""

    config_file: Annotated[Path | None, tyro.conf.arg(name="config")] = None
    """The config.json of an earlier run, whose settings are used; options given beside it override them."""
    given: Annotated[tuple[str, ...], tyro.conf.Suppress] = ()  # the options on the command line, as they were called


@dataclass(frozen=True)
class Processes:
    """Which of several processes this is, of one command that is started on several hosts."""

    coordinator: str | None = None
    """HOST:PORT of process 0, of a command that several processes run; each has the same command but for --process.
    None: found under SLURM (srun), Open MPI and on TPU pods; else this process is alone."""
    processes: Annotated[int, Range(1, 65536)] | None = None
    """How many there are; 1: this process is alone, whatever started it."""
    process: Annotated[int, Range(0, 65535)] | None = None
    """The number of this one, from 0."""


@dataclass(frozen=True)
class Train(Repeatable):
    """Train a teacher or a student. Called again with the same arguments, it resumes.

    A teacher or baseline: seqkd train --out teacher --corpus.path DATA

    A Seq-KD student: the same, and --train-on DISTILLED (from `seqkd distill`) --vocabulary teacher/best

    A Word-KD student: the same, and --loss.name word_kd --teacher teacher/best

    Seq-Inter: --start student/best --train-on DISTILLED (made with --selection kim_rush), a smaller learning rate
    """

    out: Path
    """Directory to write: best/ and last/ are checkpoints, metrics.jsonl the metrics, config.json the settings."""
    pairs: Annotated[Pairs, Flat] = Pairs()
    train_on: tuple[str, ...] = ()
    """Corpora instead of the training split: directories, files, `gold` for the split; PATH=WEIGHT weights one."""
    vocabulary: Path | None = None
    """Directory of `seqkd vocab`, or a checkpoint, to take it from. None: the teacher's, the start's, or a new one."""
    vocab: VocabularyConfig = VocabularyConfig()
    """How to learn a new vocabulary from the training split."""
    model: Literal["lstm", "transformer"] = "lstm"
    """Model to train: which of the two configurations below is used. With --start both are taken from there."""
    lstm: LSTMConfig = LSTMConfig()
    transformer: TransformerConfig = TransformerConfig()
    teacher: Path | None = None
    """Checkpoint of the teacher that the loss reads (all but nll)."""
    teachers: Literal["one", "each"] = "one"
    """For a teacher of several replicas: its first teaches all students, or each replica its own student."""
    teacher_cache_gib: Amount = 4.0
    """GiB of memory for the teacher's features of the corpus, computed once and kept if they fit; 0: never kept."""
    teacher_cache: Path | None = None
    """For --loss.name word_kd_top_k: directory of the teacher's most probable entries at every label, which several
    students of one teacher and corpus share. None: <out>.teacher-top-k."""
    start: Path | None = None
    """Checkpoint to start from; its model is trained. None: random weights."""
    log: Annotated[tuple[Literal["csv", "tensorboard", "wandb"], ...], tyro.conf.UseAppendAction] = ()
    """Also write the metrics as metrics.csv, tensorboard/, or to Weights & Biases; several, each after --log."""
    config: Annotated[TrainConfig, Flat] = TrainConfig()
    several: Annotated[Processes, Flat] = Processes()


@dataclass(frozen=True)
class Translate(Repeatable):
    """Translate the lines of a file or of standard input: one line out for each line in, in order.

    seqkd translate --checkpoint student/best < input.en > output.de
    """

    checkpoint: Checkpoints
    """Checkpoint directory. Given several times, each after --checkpoint: an ensemble."""
    file: tyro.conf.Positional[str] = "-"
    """File to read, UTF-8, one sentence a line; -: standard input."""
    out: Path | None = None
    """File to write, complete or not at all; the settings go to FILE.config.json. None: standard output."""
    n_best: Annotated[int, Range(0, 4096)] = 0
    """Hypotheses to write for each line, as JSON lines with scores in nats; 0: the best one, as plain text."""
    decoder: str = "engine"
    """engine: fast beam search; beam: the same search, slower; greedy; sample: --beam samples of each sentence;
    speculative: what greedy gives, in fewer steps of the model, since --draft proposes the tokens."""
    draft: Path | None = None
    """Checkpoint of a smaller model, such as its student, that proposes tokens; the model must be a Transformer."""
    rules: Rules = None
    """Search rules of another toolkit; rules that are given as options override them."""
    search: Annotated[SearchConfig, Flat] = SearchConfig()
    mbr: Literal["none", "chrf", "bleu"] = "none"
    """Minimum Bayes risk: choose the hypothesis that is most similar to the others, by chrF or BLEU."""
    mbr_weights: Literal["uniform", "probability"] = "uniform"
    """Weights of the other hypotheses: equal, for samples, or their probabilities, for a beam."""
    metric: MetricConfig = MetricConfig()
    """For --mbr bleu: how BLEU splits text into words."""
    replace_unknown: bool = False
    """Replace each <unk> by the source word that it attends to most (word vocabularies)."""
    dictionary: Path | None = None
    """For --replace-unknown: file of `source|||target` lines, translations of source words."""
    attention: Path | None = None
    """File to write, JSON lines: the pieces of source and best translation, and the attention weights between them."""
    attention_layer: Layers | None = None
    """For --attention: decoder layer of a Transformer, from 1; None: the last."""
    attention_head: Annotated[tuple[Width, ...], tyro.conf.UseAppendAction] = ()
    """For --attention: heads to average, from 1, each after --attention-head; none given: all."""
    prefix_file: Path | None = None
    """File with one line for each input line: the text that its translation begins with, possibly empty."""
    read_ahead: Annotated[int, Range(0, 2**24)] = 0
    """Lines read before the first is translated; more is faster. 0: 2048, or 1 at a terminal."""
    batch_tokens: Tokens = 1024
    """Source positions in a batch, padding included."""
    devices: SharedDevices = 0
    compute: Computing = None
    overlong: Overlong = "fail"
    """A line of more than 4,096 tokens: an error after the translations before it, or an empty translation."""
    overwrite: Overwrite = False


@dataclass(frozen=True)
class Distill(Repeatable):
    """Translate a training corpus with a teacher and choose a target for each source: a student's training corpus.

    Seq-KD: seqkd distill --checkpoint teacher/best --corpus.path DATA --out seq_kd

    Seq-Inter: the same with --selection kim_rush --beam 35

    Called again with the same arguments, it resumes. Called several times at once, by processes of any machines with
    this file system, they share the work. README.md beside the corpus describes the result.
    """

    out: Path
    """Directory to write the corpus and config.json to; the n-best lists go to <out>.n-best beside it."""
    checkpoint: Checkpoints = ()
    """Checkpoint of the teacher. Given several times, each after --checkpoint: an ensemble."""
    n_best: Path | None = None
    """Instead of a checkpoint: file of n-best lists by any toolkit, as Moses, Marian or fairseq-generate write them, or
    JSON lines; see docs/other-toolkits.md."""
    pairs: Annotated[Pairs, Flat] = Pairs()
    source_only: Path | None = None
    """File of source lines to distil instead of the training split; there are no references then."""
    selection: str = "best"
    """Target of each source: best; the hypothesis nearest to the reference by kim_rush, sacrebleu or chrf; or mbr, the
    one nearest to the others of its list."""
    rules: Rules = None
    """Search rules of another toolkit; rules that are given as options override them."""
    search: Annotated[SearchConfig, Flat] = SearchConfig()
    status: bool = False
    """Only say how far the job of --out is, and who makes which shard; a table at a terminal, JSON into a pipe."""
    part: str | None = None
    """For array jobs: I/N, from 1/N to N/N. Makes only every N-th shard, and no corpus; the command without --part
    writes it, where all shards lie together. In SLURM: --array=1-8 and --part $SLURM_ARRAY_TASK_ID/8."""
    shard_lines: Positive = 1000
    """Source lines in a shard; a stopped run resumes after its last complete shard."""
    batch_tokens: Tokens = 1024
    """Source positions in a batch, padding included."""
    devices: SharedDevices = 0
    compute: Computing = None
    overlong: Overlong = "fail"
    """A source of more than 4,096 tokens: an error before anything is decoded, or an empty target, which is counted."""
    filters: FilterConfig = FilterConfig()
    """If any filter is set, filtered/ holds the pairs that pass."""
    metric: MetricConfig = MetricConfig()
    """How BLEU splits text into words, for the selection and the card."""
    write_n_best: bool = False
    """Also write the n-best lists to n-best.txt in the directory, as Marian does, for other toolkits and --n-best."""
    overwrite: Overwrite = False
    several: Annotated[Processes, Flat] = Processes()


@dataclass(frozen=True)
class Evaluate(Repeatable):
    """BLEU and chrF at beam 1 and the given beam, perplexity, p(t=y), source words/s, of a test set.

    seqkd evaluate --checkpoint student/best --corpus.path DATA --compare baseline/best

    Prints a table at a terminal, and JSON into a pipe or a file.
    """

    checkpoint: Checkpoints
    """Checkpoint of the system to evaluate. Given several times, each after --checkpoint: an ensemble."""
    pairs: Annotated[Pairs, Flat] = Pairs()
    split: Literal["test", "valid", "train"] = "test"
    """Split of the corpus to evaluate on."""
    compare: tuple[str, ...] = ()
    """Other systems to compare by paired bootstrap: checkpoints, or files with one translation a line."""
    out: Path | None = None
    """Directory to write results.json, the translations and config.json to, beside printing the results."""
    rules: Rules = None
    """Search rules of another toolkit; rules that are given as options override them."""
    search: Annotated[SearchConfig, Flat] = SearchConfig()
    metric: MetricConfig = MetricConfig()
    """How BLEU splits text into words."""
    repetitions: Annotated[int, Range(0, 1000)] = 3
    """Timed passes, of which the median counts; 0: speed is not measured."""
    batch_tokens: Tokens = 1024
    """Source positions in a batch, padding included."""
    devices: SharedDevices = 0
    compute: Computing = None
    overwrite: Overwrite = False
    several: Annotated[Processes, Flat] = Processes()


@dataclass(frozen=True)
class Score:
    """The log-probability (nats) of each given translation, one number a line; the perplexity on standard error."""

    checkpoint: Checkpoints
    """Checkpoint of the model that scores. Given several times, each after --checkpoint: an ensemble."""
    source: Path
    """File of source lines."""
    target: Path
    """File of their translations."""
    out: Path | None = None
    """File to write; None: standard output."""
    devices: SharedDevices = 0
    compute: Computing = None
    overwrite: Overwrite = False


@dataclass(frozen=True)
class Modes:
    """The most probable translation of each line, found exactly and proven, as JSON lines with log-probabilities.

    seqkd modes --checkpoint student/best test.en --out modes.jsonl

    The exact search starts from the best translation of a beam search and drops all prefixes that are no more
    probable. How many sentences are proven, and how many the beam search missed, is told on standard error.
    """

    checkpoint: Checkpoints
    """Checkpoint of the model. Given several times, each after --checkpoint: an ensemble."""
    file: tyro.conf.Positional[str] = "-"
    """File to read, UTF-8, one sentence a line; -: standard input."""
    out: Path | None = None
    """File to write, complete or not at all; None: standard output."""
    exact: Annotated[ExactConfig, Flat] = ExactConfig()
    compute: Computing = None
    overwrite: Overwrite = False


@dataclass(frozen=True)
class Average:
    """Average the weights of checkpoints of one run: seqkd average --out averaged run/step-*"""

    checkpoints: tyro.conf.Positional[tuple[Path, ...]]
    """Checkpoints of one run."""
    out: Path
    """Checkpoint to write."""
    overwrite: Overwrite = False


@dataclass(frozen=True)
class Select:
    """Extract one replica from a checkpoint of several: seqkd select many/best --replica 0 --out one"""

    checkpoint: tyro.conf.Positional[Path]
    """Checkpoint of several replicas."""
    replica: Annotated[int, Range(0, 1023)]
    """Number of the replica, from 0."""
    out: Path
    """Checkpoint to write."""
    overwrite: Overwrite = False


@dataclass(frozen=True)
class Prune:
    """Set the weights of least magnitude to zero: seqkd prune student/best --share 0.8 --out pruned

    A zero takes one bit on the disk. Train on with --start pruned: the pruned weights stay exactly zero, in all
    checkpoints of that run.
    """

    checkpoint: tyro.conf.Positional[Path]
    """Checkpoint of one model; of several replicas, extract one with seqkd select first."""
    out: Path
    """Checkpoint to write."""
    pruning: Annotated[PruningConfig, Flat] = PruningConfig()
    overwrite: Overwrite = False


@dataclass(frozen=True)
class Import:
    """Convert a model of another form to a checkpoint: seqkd import --from hf opus-mt-en-de --out teacher

    hf: a Marian directory of Hugging Face, with config.json, model.safetensors, vocab.json, source.spm and target.spm;
    added tokens, padded vocabularies and weights in several files are read too. safetensors: a directory that seqkd
    export --to safetensors wrote.
    """

    directory: tyro.conf.Positional[Path]
    """Directory to read; pickled weights are refused."""
    out: Path
    """Checkpoint to write."""
    form: Annotated[Literal["hf", "safetensors"], tyro.conf.arg(name="from")] = "hf"
    """Format to read."""
    overwrite: Overwrite = False


@dataclass(frozen=True)
class Export:
    """Write a model for other toolkits, with a model card: seqkd export --to hf student/best --out student-hf

    hf: a Marian directory, for transformers' MarianMTModel and MarianTokenizer and for CTranslate2's converter; of a
    post-norm Transformer with a joint sentencepiece vocabulary and all embeddings tied. safetensors: weights,
    configuration and vocabulary of any kind of model.
    """

    checkpoint: tyro.conf.Positional[Path]
    """Checkpoint of one model; of several replicas, extract one with seqkd select first."""
    out: Path
    """Directory to write."""
    form: Annotated[Literal["hf", "safetensors"], tyro.conf.arg(name="to")] = "hf"
    """Format to write."""
    max_positions: Length = 512
    """hf: longest sentence that transformers accepts, in tokens."""
    overwrite: Overwrite = False


@dataclass(frozen=True)
class Verify:
    """Check what stands in directories: hashes, counts, order, completeness. Reads only, also beside a running job.

    seqkd verify teacher seq_kd --checkpoint teacher/best

    Prints a table at a terminal, and JSON into a pipe or a file; the exit status is 2 if anything is damaged.
    """

    directories: tyro.conf.Positional[tuple[Path, ...]]
    """Training runs, checkpoints, distilled corpora, n-best lists, vocabularies, results of seqkd evaluate, exported
    models, studies; or a directory of such."""
    checkpoint: Checkpoints = ()
    """Checkpoint of the teacher that corpora and n-best lists must be of. Given several times: the ensemble."""
    complete: bool = False
    """What is not finished, such as a training run or n-best lists without all shards, counts as damaged."""


@dataclass(frozen=True)
class Vocab:
    """Learn vocabularies from the training split of a corpus and save them, for `seqkd train --vocabulary`."""

    out: Path
    """Directory to write."""
    pairs: Annotated[Pairs, Flat] = Pairs()
    vocab: VocabularyConfig = VocabularyConfig()
    overwrite: Overwrite = False
