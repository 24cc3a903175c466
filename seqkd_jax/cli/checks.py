"""A command's options looked at together, before anything is loaded: what cannot be, and what would change nothing.

Each function is of the command of its name; UserError says which option, and the remedy.
"""

from collections.abc import Mapping
from typing import TypeVar

from seqkd_jax.cli.options import Distill, Evaluate, Train, Translate
from seqkd_jax.config import LossConfig, SearchConfig, VocabularyConfig
from seqkd_jax.types import UserError

Value = TypeVar("Value")


def train(command: Train) -> None:
    """Options of a loss, a model or a vocabulary that this run does not have."""
    from seqkd_jax.losses import LOSSES

    needs_teacher = _entry(LOSSES, command.config.loss.name, "--loss.name").needs_teacher
    if command.teacher and not needs_teacher:
        raise UserError(f"--teacher is given, but loss {command.config.loss.name} reads none; say --loss.name word_kd")
    other = {"lstm": "transformer", "transformer": "lstm"}[command.model]
    if getattr(command, other) != type(getattr(command, other))():
        raise UserError(f"--{other}.… is given, but --model {command.model} is trained: say --model {other}")
    given = command.vocabulary or command.teacher or command.start
    if given and command.vocab != VocabularyConfig():
        raise UserError(f"--vocab.… says how to learn a vocabulary, but that of {given} is used: leave it out")
    for name in ("alpha", "temperature", "temperature_scaling", "teacher_dropout"):
        if not needs_teacher and getattr(command.config.loss, name) != getattr(LossConfig(), name):
            raise UserError(f"--loss.{name.replace('_', '-')} is for --loss.name word_kd: leave it out, or give that")


def translate(command: Translate) -> None:
    """Options without what they are for, and pairs that exclude each other."""
    if command.n_best > command.search.beam:
        raise UserError(f"--n-best {command.n_best} is more than --beam {command.search.beam}: raise the beam")
    _search(command.search, command.decoder)
    if command.decoder == "greedy" and (command.n_best > 1 or command.mbr != "none"):
        raise UserError("--decoder greedy gives one translation: leave out --n-best and --mbr")
    if command.mbr == "none" and command.mbr_weights != "uniform":
        raise UserError("--mbr-weights is for --mbr: give both")
    if str(command.prefix_file) == "-" and str(command.file) == "-":
        raise UserError("--prefix-file - and the input are both standard input: name a file for one")
    if command.dictionary and not command.replace_unknown:
        raise UserError("--dictionary is for --replace-unknown: give both")
    if (command.attention_layer is not None or command.attention_head) and not command.attention:
        raise UserError("--attention-layer and --attention-head are for --attention FILE: give that too")


def distill(command: Distill) -> None:
    """A selection, a source and filters that fit together."""
    from seqkd_jax.distillation import SELECTIONS

    rule = _entry(SELECTIONS, command.selection, "--selection")
    if command.source_only and rule is not None:
        raise UserError(f"--selection {command.selection} needs references; with --source-only, use best")
    corpus = command.pairs.corpus
    if command.source_only and (corpus.path or corpus.source_file or command.pairs.hold_out):
        raise UserError("--source-only is instead of a corpus: leave out --corpus.… and --hold-out, or it")
    _search(command.search)


def evaluate(command: Evaluate) -> None:
    """Numbers that are none, options of a rule that is not asked for."""
    _search(command.search)


def _search(search: SearchConfig, decoder: str = "engine") -> None:
    """Options of samples where none are drawn, of a length rule where there is none."""
    for name in ("length_alpha", "length_counts_eos"):
        if search.length_rule == "none" and getattr(search, name) != getattr(SearchConfig(), name):
            raise UserError(f"{option(name)} is for --length-rule power or gnmt: leave it out, or give that")
    for name in ("sample_temperature", "sample_top_k", "sample_top_p", "sample_seed"):
        if decoder != "sample" and getattr(search, name) != getattr(SearchConfig(), name):
            raise UserError(f"{option(name)} is for `seqkd translate --decoder sample`: leave it out, or give that")


def option(name: str) -> str:
    """The option that a setting is given by."""
    return f"--{name.replace('_', '-')}"


def _entry(entries: Mapping[str, Value], name: str, option: str) -> Value:
    if name not in entries:
        raise UserError(f"{option} {name}: there is no such entry; one of {', '.join(entries)}")
    return entries[name]
