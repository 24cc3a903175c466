"""What the commands of `seqkd` take: a frozen dataclass each, from which tyro makes the arguments and their help.

Configurations are those of `config`; what stands here beside them are files, directories and what to do with them. No
module of the library is imported but `config`: `seqkd --help` answers at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from seqkd_jax.config import (
    CorpusConfig,
    FilterConfig,
    LSTMConfig,
    SearchConfig,
    TrainConfig,
    TransformerConfig,
    VocabularyConfig,
)

Flat = tyro.conf.arg(name="")  # the fields of a configuration as arguments without a prefix


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

    Seq-Inter: --start student/best --train-on DISTILLED (chosen with --selection kim_rush), a smaller learning rate
    """

    out: Path
    """Directory to write: best/ and last/ are checkpoints, metrics.jsonl is the record."""
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
