"""A translation model as `load` returns it, and what its options have in common with those of other functions."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from seqkd_jax import checkpoint
from seqkd_jax.checkpoint import Checkpoint, Ensemble
from seqkd_jax.config import ComputeType, ExactConfig, MetricConfig, Overlong, SearchConfig
from seqkd_jax.decoding import (
    Decoding,
    Translation,
    force_score,
    require_overlong,
    require_translatable,
    translate_lines,
)
from seqkd_jax.decoding.modes import Mode, modes
from seqkd_jax.distillation.mbr import by_expected_utility
from seqkd_jax.evaluation import tokenization
from seqkd_jax.types import EOS, System, Translator, UserError
from seqkd_jax.utils import program_cache
from seqkd_jax.utils.devices import local

T = TypeVar("T")
AnyTranslator = Checkpoint[Translator] | Ensemble


class LoadedTranslator(NamedTuple):
    """A translation model, or an ensemble of several, as `load` returns it."""

    checkpoint: AnyTranslator
    devices: int = 0  # of this process, that share the work; 0: all
    draft: Checkpoint[Translator] | None = None  # proposes tokens (decoder speculative)
    compute: ComputeType | None = None  # given to `load`

    @property
    def system(self) -> System:
        """What the decoding functions take."""
        return checkpoint.drafted(self.checkpoint, self.draft) if self.draft else self.checkpoint.system

    def translate(
        self,
        lines: Iterable[str],
        *,
        beam: int | None = None,
        search: SearchConfig = SearchConfig(),
        decoder: str = "engine",
        n_best: int | None = None,
        prefixes: Iterable[str] | None = None,
        mbr: Literal["none", "chrf", "bleu"] = "none",
        mbr_weights: Literal["uniform", "probability"] = "uniform",
        metric: MetricConfig = MetricConfig(),
        replace_unknown: bool = False,
        dictionary: Mapping[str, str] | None = None,
        batch_tokens: int = 1024,
        overlong: Overlong = "fail",
    ) -> list[Translation]:
        """Translate lines of text: one Translation for each, in order. The options are those of `stream`.

        student = kd.load("student/best")
        for translation in student.translate(["Two dogs are playing."], beam=5):
            print(translation.text, translation.hypotheses[0].score)
        """
        return list(
            self.stream(
                lines,
                beam=beam,
                search=search,
                decoder=decoder,
                n_best=n_best,
                prefixes=prefixes,
                mbr=mbr,
                mbr_weights=mbr_weights,
                metric=metric,
                replace_unknown=replace_unknown,
                dictionary=dictionary,
                batch_tokens=batch_tokens,
                overlong=overlong,
            )
        )

    def stream(
        self,
        lines: Iterable[str],
        *,
        beam: int | None = None,
        search: SearchConfig = SearchConfig(),
        decoder: str = "engine",
        n_best: int | None = None,
        prefixes: Iterable[str] | None = None,
        mbr: Literal["none", "chrf", "bleu"] = "none",
        mbr_weights: Literal["uniform", "probability"] = "uniform",
        metric: MetricConfig = MetricConfig(),
        replace_unknown: bool = False,
        dictionary: Mapping[str, str] | None = None,
        batch_tokens: int = 1024,
        overlong: Overlong = "fail",
        read_ahead: int = 2048,
        progress: Callable[[int], object] | None = None,
    ) -> Iterator[Translation]:
        """Translate lines as they are read, in bounded memory, whatever their number.

        beam: hypotheses kept for each line, instead of search.beam. search: the rules, see `named_rules` for those of
        other toolkits. decoder: engine, beam (the same search, slower), greedy, sample, or speculative (what greedy
        gives, drafted by a smaller model: `load` with draft). n_best: hypotheses returned for each line; None: all.
        prefixes: for each line a text that its translation begins with. mbr: order the hypotheses by expected
        similarity (minimum Bayes risk), their weights by mbr_weights. metric: the tokenizer of mbr's BLEU; auto: that
        of the training, or by the script of the hypotheses. replace_unknown: each <unk> becomes the source word that it
        attends to most, or that word's entry in dictionary. batch_tokens: source positions decoded at once. overlong: a
        line of more than 4,096 tokens is an error, after the translations of the lines before it, or gets an empty
        translation. read_ahead: lines read before the first is translated. progress: called with the number of lines
        that were done.
        UserError: an invalid rule, a line of more than 4,096 tokens, no prefix for a line, no attention to replace
        <unk> with, or a tokenizer that is not there.

            for translation in kd.load("student/best").stream(open("input.en")):
                print(translation.text)
        """
        require_overlong(overlong)
        if n_best is not None and n_best < 1:
            raise UserError(f"n_best is {n_best}: it must be 1 or more, or None for all")
        rules = with_beam(search, beam)
        decoding = Decoding(rules, decoder, batch_tokens=batch_tokens, chunk=read_ahead, devices=self.devices)
        decoding.validate(lambda name: "read_ahead" if name == "chunk" else name)
        metric.validate(lambda name: f"metric.{name}")
        tokenize = tokenization.AUTO
        if mbr == "bleu":
            stored, vocabularies = self.checkpoint.metric.tokenize, self.checkpoint.vocabularies
            tokenize = tokenization.known(metric.tokenize, vocabularies, stored)
        program_cache.keep()
        translations = translate_lines(
            self.system,
            require_list("lines", lines),
            decoding,
            prefixes=require_list("prefixes", prefixes),
            n_best=n_best if mbr == "none" else None,
            unknown_from_source=replace_unknown,
            dictionary=dictionary,
            progress=progress,
            overlong=overlong,
        )
        if mbr == "none":
            return translations
        ranked = by_expected_utility(translations, mbr, mbr_weights, tokenize)
        return (one._replace(hypotheses=one.hypotheses[:n_best]) for one in ranked)

    def modes(
        self,
        lines: Iterable[str],
        exact: ExactConfig = ExactConfig(),
        *,
        progress: Callable[[int], object] | None = None,
    ) -> Iterator[Mode]:
        """The most probable translation of each line, in order, by exact search on one device.

        A Mode tells whether it is proven, and whether the beam search missed it. exact: where the search starts, and
        its limits. progress: as in `stream`. UserError: a line of more than 4,096 tokens, invalid limits.

            for mode in student.modes(["Two dogs are playing."]):
                print(mode.text, mode.log_prob, mode.proven)
        """
        exact.validate(lambda name: f"exact.{name}")
        program_cache.keep()
        return modes(self.checkpoint.system, require_list("lines", lines), exact, progress=progress)

    def score(
        self, sources: Sequence[str], targets: Sequence[str], *, progress: Callable[[int], object] | None = None
    ) -> list[float]:
        """log p(target | source) in nats, EOS included, of each pair of lines, in order. progress: as in `stream`.

        UserError: unequal numbers of sources and targets, or a line of more than 4,096 tokens.

            teacher = kd.load("teacher/best")
            teacher.score(["Two dogs are playing."], ["Zwei Hunde spielen."])
        """
        if len(require_reusable("sources", sources)) != len(require_reusable("targets", targets)):
            raise UserError(f"{len(sources):,} sources for {len(targets):,} targets: give one target for each source")
        program_cache.keep()
        translator, params, vocabularies = self.checkpoint.system
        sides = (vocabularies.source, "sources"), (vocabularies.target, "targets")
        for lines, (side, name) in zip((sources, targets), sides, strict=True):
            require_translatable(side, lines, name, "split or drop it")
        source_ids = ([*vocabularies.source.encode(line), EOS] for line in sources)
        pairs = zip(source_ids, map(vocabularies.target.encode, targets), strict=True)
        return list(force_score(translator, params, pairs, progress=progress, count=self.devices))


def load(
    *paths: Path | str,
    replica: int | None = None,
    devices: int = 0,
    draft: Path | str | None = None,
    compute: ComputeType | None = None,
) -> LoadedTranslator:
    """Load a translation model from a checkpoint; of several, their ensemble (the mean of their probabilities).

    replica: which one, from 0, of a single checkpoint that holds several seeds. devices: of this process, that share
    the work, 0: all; results are the same. A CPU is one device, unless jax_num_cpu_devices divides it before the first
    computation. draft: the checkpoint of a smaller model that proposes tokens for decoder="speculative". compute: the
    type of matrix products and activations, in place of the one that the model was trained with; bfloat16_products is
    twice as fast on CPUs with AMX. UserError: a path that holds no checkpoint, a damaged one, a model that does not
    translate, members or a draft with different vocabularies, a draft for a model that cannot verify one, fewer
    devices.

        student = kd.load("student/best")
        both = kd.load("student/best", "teacher/best")
        both.translate(["Two dogs are playing."], beam=5)
    """
    local(devices)
    if replica is not None and len(paths) != 1:
        raise UserError(f"replica {replica} of {len(paths)} checkpoints: name one checkpoint")
    found = (
        checkpoint.load_translators(paths, compute)
        if replica is None
        else checkpoint.load_translator(paths[0], replica=replica, compute=compute)
    )
    drafts = checkpoint.load_translator(draft, compute=compute) if draft is not None else None
    loaded = LoadedTranslator(found, devices, drafts, compute)
    _ = loaded.system  # an error of a draft
    return loaded


def require_list(name: str, given: T) -> T:
    """TypeError for one text where a list is expected: its characters would be taken for lines or paths."""
    if isinstance(given, str):
        raise TypeError(f"{name} must be a list, such as [{given[:20]!r}], not one text")
    return given


def require_reusable(name: str, given: T) -> T:
    """TypeError also for a generator, which is empty when it is read a second time."""
    if isinstance(given, Iterator):
        raise TypeError(f"{name} must be a list, and a {type(given).__name__} is read only once: give list(...) of it")
    return require_list(name, given)


def bleu_tokenizer(
    metric: MetricConfig,
    loaded: AnyTranslator | None,
    references: Sequence[str],
    language: str | None,
) -> str:
    """The tokenizer that BLEU applies to references of a language and to translations by a checkpoint, or by others."""
    metric.validate(lambda name: f"metric.{name}")
    stored, vocabularies = (loaded.metric.tokenize, loaded.vocabularies) if loaded else (tokenization.AUTO, None)
    return tokenization.resolve(metric.tokenize, vocabularies, references, stored=stored, language=language)


def with_beam(search: SearchConfig, beam: int | None) -> SearchConfig:
    """The rules with another beam; None: with their own."""
    return search if beam is None else replace(search, beam=beam)
