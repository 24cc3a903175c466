"""Rules across the options of a command, checked before anything is loaded.

Ranges and choices of single options are checked by the settings themselves (utils.settings). What stands here are
options that exclude each other, and options that would have no effect. Each function belongs to the command of its
name. UserError names the option and the remedy.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

from seqkd_jax import distributed
from seqkd_jax.cli.options import Distill, Evaluate, Modes, Pairs, Repeatable, Score, Train, Translate, Verify, Vocab
from seqkd_jax.config import ONE_TRANSLATION, LossConfig, MetricConfig, SearchConfig, VocabularyConfig
from seqkd_jax.types import UserError
from seqkd_jax.utils import remote, settings, urls


def option(name: str) -> str:
    """The option that sets a field: --optimiser.clip-norm for optimiser.clip_norm."""
    return f"--{name.replace('_', '-')}"


# What must be local; elsewhere a URL is fetched, or published to.
LOCAL = {Translate: ("out", "attention"), **dict.fromkeys((Score, Modes), ("out",)), Distill: ("n_best",)}
LOCAL[Verify] = ("directories",)


def local(command: Any) -> None:
    """No URL for what must be local, and none whose scheme or package is not there."""
    for name in LOCAL.get(type(command), ()):
        value = getattr(command, name)
        for path in value if isinstance(value, tuple) else (value,):
            urls.require_local(path, "what is verified" if name == "directories" else option(name))
    if isinstance(command, Distill) and (command.status or command.part):
        urls.require_local(command.out, f"--out with --{'status' if command.status else 'part'}")
    for url in _named_urls(command):
        remote.require_known(url)


def lasting(command: Any) -> None:
    """No URL of fsspec's store in memory, of a command that is a process of its own: all in it is gone with that."""
    for url in _named_urls(command):
        if url.lower().startswith("memory:"):
            raise UserError(f"{urls.as_url(url)}: is in memory, which ends with the command; name another place")


def _named_urls(command: Any) -> Iterator[str]:
    """The URLs among the options."""
    todo = [settings.to_json(command)]
    while todo:
        value = todo.pop()
        if isinstance(value, dict | list):
            todo += value.values() if isinstance(value, dict) else value
        elif isinstance(value, str) and urls.is_url(value):
            yield value.rpartition("=")[0] or value  # PATH=WEIGHT


def train(command: Train) -> None:
    """A corpus, and no options of a loss, a model or a vocabulary that this run does not use."""
    from seqkd_jax.losses import require_loss
    from seqkd_jax.training import records
    from seqkd_jax.training.compatibility import require_tieable

    records.require(command.log, "--log")
    loss = command.config.loss
    needs_teacher = require_loss(loss.name, "--loss.name").needs_teacher
    if command.teacher and not needs_teacher:
        raise UserError(f"--teacher has no effect with --loss.name {loss.name}: use --loss.name word_kd")
    if not command.teacher and needs_teacher:
        raise UserError(f"--loss.name {loss.name} needs a teacher: name its checkpoint with --teacher")
    for name in ("teachers", "teacher_cache_gib"):
        if not command.teacher and _is_set(command, name, getattr(command, name), getattr(Train, name)):
            raise UserError(f"{option(name)} needs --teacher: add that, or omit it")
    for other in get_args(get_type_hints(Train)["model"]):
        model = getattr(command, other)
        if other != command.model and _is_set(command, f"{other}.", model, type(model)()):
            of_start = f", that of --start {command.start}" if command.start and "--model" not in command.given else ""
            raise UserError(f"--{other}.… has no effect with --model {command.model}{of_start}: use --model {other}")
    used = command.vocabulary or command.teacher or command.start
    if used and _is_set(command, "vocab.", command.vocab, VocabularyConfig()):
        raise UserError(f"--vocab.… has no effect: the vocabulary of {used} is used; omit --vocab.…")
    top_k = require_loss(loss.name).top_k
    if not top_k and _is_set(command, "loss.top_k", loss.top_k, LossConfig.top_k):
        raise UserError("--loss.top-k needs --loss.name word_kd_top_k: add that, or omit it")
    if not top_k and command.teacher_cache:
        raise UserError("--teacher-cache needs --loss.name word_kd_top_k: add that, or omit it")
    for name in ("alpha", "temperature", "temperature_scaling", "teacher_dropout"):
        if not needs_teacher and _is_set(command, f"loss.{name}", getattr(loss, name), getattr(LossConfig(), name)):
            raise UserError(f"{option(f'loss.{name}')} needs --loss.name word_kd: add that, or omit it")
    if not used:
        require_tieable(getattr(command, command.model), command.vocab.joint and command.vocab.kind != "words", option)
    _corpus(command.pairs)
    _tokenizer(command.config.metric)
    _own_directory(command)


def _own_directory(command: Train) -> None:
    """--out is not what the run reads."""
    corpus = command.pairs.corpus
    read = {"--corpus.path": corpus.path, "--vocabulary": command.vocabulary, "--train-on": command.train_on}
    read |= {"--teacher": command.teacher, "--start": command.start}
    apart(command.out, read)


def apart(out: Path, read: Mapping[str, Any]) -> None:
    """--out is none of the directories that are read, which --overwrite would replace. read: what they are -> paths."""
    for name, paths in read.items():
        for path in paths if isinstance(paths, tuple) else (paths,):
            if path and os.path.isdir(path) and os.path.realpath(path) == os.path.realpath(out):
                raise UserError(f"--out {out}: is the directory of {name}, which is read; name another")


def translate(command: Translate) -> None:
    """No options without the option that they belong to, and none that exclude each other."""
    if command.n_best > command.search.beam:
        raise UserError(f"--n-best {command.n_best} is more than --beam {command.search.beam}: raise the beam")
    _search(command, command.decoder)
    if command.decoder in ONE_TRANSLATION and (command.n_best > 1 or command.mbr != "none"):
        raise UserError(f"--decoder {command.decoder} finds one translation: omit --n-best and --mbr")
    beam = command.search.beam
    if command.decoder in ONE_TRANSLATION and beam > 1 and _is_set(command, "beam", beam, SearchConfig.beam):
        raise UserError(f"--beam has no effect with --decoder {command.decoder}: it keeps one hypothesis; omit it")
    if (command.draft is not None) != (command.decoder == "speculative"):
        raise UserError("--draft DIR and --decoder speculative belong together: give both, or neither")
    if command.mbr == "none" and command.mbr_weights != "uniform":
        raise UserError("--mbr-weights needs --mbr: add that, or omit it")
    if command.mbr == "bleu":
        _tokenizer(command.metric)
    elif _is_set(command, "metric.tokenize", command.metric, MetricConfig()):
        raise UserError("--metric.tokenize needs --mbr bleu: add that, or omit it")
    if str(command.prefix_file) == "-" and str(command.file) == "-":
        raise UserError("--prefix-file - and the input are both standard input: name a file for one")
    if command.dictionary and not command.replace_unknown:
        raise UserError("--dictionary needs --replace-unknown: add that, or omit it")
    if (command.attention_layer is not None or command.attention_head) and not command.attention:
        raise UserError("--attention-layer and --attention-head need --attention FILE: add that, or omit them")
    if command.read_ahead == 1 and command.devices > 1:
        raise UserError(
            f"--devices {command.devices} has no effect with --read-ahead 1: a line at a time is translated on one "
            "device; omit one of them"
        )


def part(command: Distill) -> tuple[int, int] | None:
    """The part of the work that --part names."""
    from seqkd_jax.distillation import require_part

    if command.part is None:
        return None
    if not re.fullmatch("[0-9]{1,9}/[0-9]{1,9}", command.part):
        raise UserError(f"--part {command.part}: is not I/N, such as 1/8")
    number, count = map(int, command.part.split("/"))
    require_part((number, count), "--part")
    return number, count


def distill(command: Distill) -> None:
    """A selection that the sources allow, and one corpus, named."""
    from seqkd_jax.distillation import SELECTIONS

    part(command)
    if command.part and command.n_best:
        raise UserError("--part has no effect with --n-best: nothing is decoded; omit it")
    if command.part and distributed.count() > 1:
        raise UserError("--part is for commands that know nothing of each other: omit it, the processes share the work")
    if command.selection not in SELECTIONS:
        raise UserError(f"--selection is {command.selection!r}: it must be one of {', '.join(SELECTIONS)}")
    if command.source_only and SELECTIONS[command.selection].needs_reference:
        raise UserError(
            f"--selection {command.selection} needs references, and --source-only has none: use --selection best or mbr"
        )
    corpus = command.pairs.corpus
    if command.source_only and (corpus.path or corpus.source_file or command.pairs.hold_out):
        raise UserError(
            "--source-only and a corpus exclude each other: omit --corpus.… and --hold-out, or --source-only"
        )
    if bool(command.checkpoint) == bool(command.n_best):
        raise UserError("--checkpoint and --n-best: give one of them, a teacher or lists that another toolkit made")
    if command.n_best:
        own = Distill(command.out)
        for name in ("shard_lines", "batch_tokens", "overlong", "devices", "compute"):
            if _is_set(command, name, getattr(command, name), getattr(own, name)):
                raise UserError(f"{option(name)} has no effect with --n-best: nothing is decoded; omit it")
        for field in settings.fields(SearchConfig):
            if _is_set(command, field.name, getattr(command.search, field.name), field.default):
                raise UserError(f"{option(field.name)} has no effect with --n-best: nothing is decoded; omit it")
    elif command.selection != "best" and command.search.beam == 1:
        raise UserError(
            f"--selection {command.selection} chooses among --beam hypotheses, and 1 leaves no choice: raise the beam, "
            "or use --selection best"
        )
    _search(command)
    _tokenizer(command.metric)
    if not command.source_only:
        _corpus(command.pairs)
    elif _is_set(command, "metric.tokenize", command.metric, MetricConfig()):
        raise UserError("--metric.tokenize needs references, and --source-only has none: omit it")


def evaluate(command: Evaluate) -> None:
    """A corpus, and no options of a rule that is not used."""
    _search(command)
    _corpus(command.pairs)
    _tokenizer(command.metric)


def vocab(command: Vocab) -> None:
    """A corpus to learn from."""
    _corpus(command.pairs)


def _corpus(pairs: Pairs) -> None:
    """The pairs come from somewhere: no corpus is the default."""
    pairs.corpus.require_named(lambda name: option(f"corpus.{name}"))


def _search(command: Translate | Distill | Evaluate, decoder: str = "engine") -> None:
    """No options of sampling without sampling, and none of a length rule without one."""
    length, sampling = ("length_alpha", "length_counts_eos"), ("sample_temperature", "sample_top_k", "sample_top_p")
    needed = {}
    if command.search.length_rule == "none":
        needed |= dict.fromkeys(length, "--length-rule power or gnmt")
    if decoder != "sample":
        needed |= dict.fromkeys((*sampling, "sample_seed"), "`seqkd translate --decoder sample`")
    if decoder != "speculative":
        needed["draft_tokens"] = "`seqkd translate --decoder speculative`"
    for name, what in needed.items():
        if _is_set(command, name, getattr(command.search, name), getattr(SearchConfig(), name)):
            raise UserError(f"{option(name)} needs {what}: add that, or omit it")


def _tokenizer(metric: MetricConfig) -> None:
    """A tokenizer of BLEU whose package or model is there."""
    from seqkd_jax.evaluation import metrics, tokenization

    if metric.tokenize != tokenization.AUTO:
        metrics.require_tokenizer(metric.tokenize, f"--{tokenization.SETTING}")


def _is_set(command: Repeatable, name: str, value: Any, default: Any) -> bool:
    """Whether the user set a field or those of a configuration; what stands in the file of --config is not counted."""
    if command.config_file is None:
        return value != default
    given = (one.replace("--no-", "--") for one in command.given)
    return any(one.startswith(option(name)) for one in given)
