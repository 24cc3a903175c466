"""The public functions: load, train, distill, evaluate. The command line is a layer over them.

`import seqkd_jax as kd` exports what `__all__` names here. An error that the user can correct is a UserError.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from seqkd_jax import checkpoint, distillation, models
from seqkd_jax.checkpoint import Checkpoint, Ensemble, run_config
from seqkd_jax.config import (
    BatchConfig,
    CorpusConfig,
    FilterConfig,
    LossConfig,
    LSTMConfig,
    MetricConfig,
    ModelConfig,
    OptimiserConfig,
    Overlong,
    SearchConfig,
    TrainConfig,
    TransformerConfig,
    VocabularyConfig,
)
from seqkd_jax.data import scripts, vocabulary
from seqkd_jax.data.corpus import Corpus, load_split, read_lines, require_pairs
from seqkd_jax.data.splits import hold_out, warn_of_overlap
from seqkd_jax.data.vocabulary import Vocabularies
from seqkd_jax.decoding import (
    Decoding,
    Hypothesis,
    Translation,
    force_score,
    overlong_lines,
    require_overlong,
    require_translatable,
    translate_lines,
)
from seqkd_jax.decoding.search import greedy_rules, named_rules
from seqkd_jax.distillation import Recipe
from seqkd_jax.distillation.mbr import by_expected_utility
from seqkd_jax.evaluation import evaluation, metrics, tokenization
from seqkd_jax.evaluation.evaluation import Evaluation
from seqkd_jax.training import records
from seqkd_jax.training.compatibility import model_of_run
from seqkd_jax.training.loop import Summary
from seqkd_jax.training.trainer import Run, train_translator
from seqkd_jax.types import EOS, Batch, Hypotheses, Model, System, Translator, UserError
from seqkd_jax.utils import files, program_cache, progress, settings

__all__ = [
    "Batch",
    "BatchConfig",
    "Checkpoint",
    "Corpus",
    "CorpusConfig",
    "Distilled",
    "Ensemble",
    "Evaluation",
    "FilterConfig",
    "Hypotheses",
    "Hypothesis",
    "LSTMConfig",
    "LoadedTranslator",
    "LossConfig",
    "MetricConfig",
    "Model",
    "OptimiserConfig",
    "SearchConfig",
    "Summary",
    "System",
    "TrainConfig",
    "TransformerConfig",
    "Translation",
    "Translator",
    "UserError",
    "Vocabularies",
    "VocabularyConfig",
    "distill",
    "distill_n_best",
    "evaluate",
    "hold_out",
    "learn_vocabulary",
    "load",
    "load_split",
    "load_vocabulary",
    "named_rules",
    "train",
]

T = TypeVar("T")
AnyTranslator = Checkpoint[Translator] | Ensemble


class LoadedTranslator(NamedTuple):
    """A translation model, or an ensemble of several, as `load` returns it."""

    checkpoint: AnyTranslator

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
        other toolkits. decoder: engine, beam (the same search, slower), greedy, or sample. n_best: hypotheses returned
        for each line; None: all. prefixes: for each line a text that its translation begins with. mbr: order the
        hypotheses by expected similarity (minimum Bayes risk), their weights by mbr_weights. metric: the tokenizer of
        mbr's BLEU; auto: that of the training, or by the script of the hypotheses. replace_unknown: each <unk> becomes
        the source word that it attends to most, or that word's entry in dictionary. batch_tokens: source positions
        decoded at once. overlong: a line of more than 4,096 tokens is an error, after the translations of the lines
        before it, or gets an empty translation. read_ahead: lines read before the first is translated. progress: called
        with the number of lines that were done.
        UserError: an invalid rule, a line of more than 4,096 tokens, no prefix for a line, no attention to replace
        <unk> with, or a tokenizer that is not there.

            for translation in kd.load("student/best").stream(open("input.en")):
                print(translation.text)
        """
        require_overlong(overlong)
        if n_best is not None and n_best < 1:
            raise UserError(f"n_best is {n_best}: it must be 1 or more, or None for all")
        decoding = Decoding(_with_beam(search, beam), decoder, batch_tokens=batch_tokens, chunk=read_ahead)
        decoding.validate(lambda name: "read_ahead" if name == "chunk" else name)
        metric.validate(lambda name: f"metric.{name}")
        tokenize = tokenization.AUTO
        if mbr == "bleu":
            stored, vocabularies = self.checkpoint.metric.tokenize, self.checkpoint.vocabularies
            tokenize = tokenization.known(metric.tokenize, vocabularies, stored)
        program_cache.keep()
        translations = translate_lines(
            self.checkpoint.system,
            _lines("lines", lines),
            decoding,
            prefixes=_lines("prefixes", prefixes),
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

    def score(
        self, sources: Sequence[str], targets: Sequence[str], *, progress: Callable[[int], object] | None = None
    ) -> list[float]:
        """log p(target | source) in nats, EOS included, of each pair of lines, in order. progress: as in `stream`.

        UserError: unequal numbers of sources and targets, or a line of more than 4,096 tokens.

            teacher = kd.load("teacher/best")
            teacher.score(["Two dogs are playing."], ["Zwei Hunde spielen."])
        """
        if len(_lines("sources", sources)) != len(_lines("targets", targets)):
            raise UserError(f"{len(sources):,} sources for {len(targets):,} targets: give one target for each source")
        program_cache.keep()
        translator, params, vocabularies = self.checkpoint.system
        sides = (vocabularies.source, "sources"), (vocabularies.target, "targets")
        for lines, (side, name) in zip((sources, targets), sides, strict=True):
            require_translatable(side, lines, name, "split or drop it")
        source_ids = ([*vocabularies.source.encode(line), EOS] for line in sources)
        pairs = zip(source_ids, map(vocabularies.target.encode, targets), strict=True)
        return list(force_score(translator, params, pairs, progress=progress))


def load(*paths: Path | str, replica: int | None = None) -> LoadedTranslator:
    """Load a translation model from a checkpoint; of several, their ensemble (the mean of their probabilities).

    replica: which one, from 0, of a single checkpoint that holds several seeds. UserError: a path that holds no
    checkpoint, a damaged one, a model that does not translate, members with different vocabularies.

        student = kd.load("student/best")
        both = kd.load("student/best", "teacher/best")
        both.translate(["Two dogs are playing."], beam=5)
    """
    if replica is None:
        return LoadedTranslator(checkpoint.load_translators(paths))
    if len(paths) != 1:
        raise UserError(f"replica {replica} of {len(paths)} checkpoints: name one checkpoint")
    return LoadedTranslator(checkpoint.load_translator(paths[0], replica=replica))


def load_vocabulary(path: Path | str) -> Vocabularies:
    """The vocabularies of a checkpoint, or of a directory that `seqkd vocab` wrote. UserError: missing or damaged.

    shared = kd.load_vocabulary("teacher/best")
    print(shared.source.size, shared.fingerprint)
    """
    return checkpoint.load_vocabularies(path)


def learn_vocabulary(corpus: Corpus, config: VocabularyConfig = VocabularyConfig()) -> Vocabularies:
    """Learn the vocabularies of both sides of a training corpus. UserError: no text, too small a size, raw words.

    corpus = kd.load_split(kd.CorpusConfig("data"), "train")
    vocabularies = kd.learn_vocabulary(corpus, kd.VocabularyConfig(size=8000))
    """
    return vocabulary.learn(corpus.sources, corpus.targets, config)


def train(
    corpus: Corpus,
    valid: Corpus,
    out: Path | str,
    *,
    model: ModelConfig | None = None,
    config: TrainConfig = TrainConfig(),
    vocabularies: Vocabularies | None = None,
    start: Path | str | None = None,
    teacher: Path | str | None = None,
    teachers: Literal["one", "each"] = "one",
    teacher_cache_gib: float = 4.0,
    log: Sequence[str] = (),
    described: Mapping[str, Any] | None = None,
) -> Summary:
    """Train a teacher or a student in directory `out`; called again with the same arguments, it resumes.

    model: None for that of the start, else LSTMConfig(). vocabularies: None for those of the teacher, else of the
    start, else learned from the corpus. start: checkpoint of the same model to start from; None: random parameters.
    teacher: checkpoint whose distribution the loss reads (loss word_kd). teachers: of a teacher with several replicas,
    the first teaches all students, or each its own.
    teacher_cache_gib: keep the teacher's features of the corpus in memory if they need no more (GiB); 0: never.
    log: records of the metrics beside metrics.jsonl: csv, tensorboard, wandb (if their packages are installed).
    described: the content of config.json, which the command line gives; None: these arguments.
    Returns the paths of the best and the last checkpoint, the validations and the speed (target tokens/s).
    UserError: an invalid setting, another run in `out`, a start or teacher that does not fit, a loss not finite.

        corpus, valid = (kd.load_split(kd.CorpusConfig("data"), split) for split in ("train", "valid"))
        teacher = kd.train(corpus, valid, "teacher", model=kd.LSTMConfig(size=500))
        word_kd = kd.TrainConfig(kd.LossConfig("word_kd"))
        student = kd.train(corpus, valid, "student", config=word_kd, teacher=teacher.best)
    """
    for split in (corpus, valid):
        require_pairs(split)
    if teachers not in ("one", "each"):
        raise UserError(f"teachers is {teachers!r}: it must be one or each")
    if not teacher_cache_gib >= 0:
        raise UserError(f"teacher_cache_gib is {teacher_cache_gib}: it must be a number from 0")
    if teachers == "each" and teacher is None:
        raise UserError("teachers is each, but no teacher is named: name it, or leave teachers out")
    records.require(_lines("log", log))
    model = model_of_run(model, config, vocabularies=vocabularies, start=start, teacher=teacher, teachers=teachers)
    program_cache.keep()
    warn_of_overlap(valid, corpus)
    if vocabularies is None:
        shared = teacher or start
        vocabularies = load_vocabulary(shared) if shared else learn_vocabulary(corpus)
    vocabulary.warn_of_unknown(vocabularies, valid.sources, valid.targets)
    size = models.parameter_count(models.build(model, vocabularies.source.size, vocabularies.target.size))
    progress.log(f"{models.kind_of(model)}: {size:,} parameters; vocabulary {vocabularies.fingerprint[:12]}")
    if described is None:
        sources = {"start": start, "teacher": teacher, "teachers": teachers, "teacher_cache_gib": teacher_cache_gib}
        sources["log"] = list(log)
        kind = models.kind_of(model)
        given = {"out": out, "model": kind, kind: model, "config": config, **sources}
        read = training_inputs(corpus, valid, vocabularies, start, teacher)
        described = run_config.describe("train", settings.to_json(given), read)
    run = Run(
        model=model,
        vocabularies=vocabularies,
        config=config,
        start=Path(start) if start else None,
        teacher=Path(teacher) if teacher else None,
        teachers=teachers,
        teacher_cache_gib=teacher_cache_gib,
        log=tuple(log),
        described=described,
    )
    return train_translator(run, corpus, valid, Path(out))


def training_inputs(
    corpus: Corpus,
    valid: Corpus,
    vocabularies: Vocabularies,
    start: Path | str | None = None,
    teacher: Path | str | None = None,
) -> dict[str, Any]:
    """What `train` reads, by the names that config.json has for it."""
    checkpoints = {"start": start, "teacher": teacher}
    return {
        "training corpus": corpus,
        "validation corpus": valid,
        "vocabulary": vocabularies,
        **{name: checkpoint.fingerprint(path) for name, path in checkpoints.items() if path},
    }


class Distilled(NamedTuple):
    """A distilled corpus on disk, as `distill` returns it."""

    directory: Path  # train.<source> and train.<target>; with filters, those of the pairs that passed
    languages: tuple[str, str]  # the suffixes of the two files
    card: dict  # how it was made, and its statistics; JSON values

    @property
    def corpus(self) -> Corpus:
        """The pairs, read from the directory."""
        return load_split(CorpusConfig(str(self.directory), *self.languages), "train")


def distill(
    teacher: LoadedTranslator,
    sources: Sequence[str],
    out: Path | str,
    *,
    references: Sequence[str] | None = None,
    languages: tuple[str, str] | None = None,
    selection: str = "best",
    beam: int | None = None,
    search: SearchConfig = SearchConfig(),
    filters: FilterConfig = FilterConfig(),
    metric: MetricConfig = MetricConfig(),
    shard_lines: int = 1000,
    batch_tokens: int = 1024,
    overlong: Overlong = "fail",
    marian: bool = False,
    overwrite: bool = False,
    described: Mapping[str, Any] | None = None,
) -> Distilled:
    """Translate training sources with a teacher and write the corpus of a student to directory `out`.

    The n-best lists are kept in `<out>.n-best` in shards of shard_lines; called again, it resumes there. references:
    one for each source, for a selection that needs them and for BLEU on the card. languages: suffixes of the files;
    None: those that the teacher was trained on, else source and target.
    selection: best (Seq-KD), or the hypothesis nearest to the reference by kim_rush (Seq-Inter), sacrebleu or chrf.
    beam, search, batch_tokens: as in LoadedTranslator.stream. filters: if any is set, `filtered/` holds what passes.
    metric: the tokenizer of the selection and of the card's BLEU.
    overlong: a source of more than 4,096 tokens is an error before anything is decoded, or it gets an empty target.
    marian: also write the lists to n-best.txt, in the form of Marian. overwrite: whether a corpus and n-best lists of
    another job may be replaced, once the new ones are complete. described: as in `train`.
    UserError: an unknown selection, references missing or of another number, no sources, an `out` with other files or
    of another job.

        corpus = kd.load_split(kd.CorpusConfig("data"), "train")
        distilled = kd.distill(kd.load("teacher/best"), corpus.sources, "seq_kd", references=corpus.targets)
        kd.train(distilled.corpus, valid, "student", vocabularies=kd.load_vocabulary("teacher/best"))
    """
    out, absolute, search = Path(out), Path(os.path.abspath(out)), _with_beam(search, beam)
    loaded = teacher.checkpoint
    languages = languages or loaded.languages or ("source", "target")
    recipe = Recipe(languages, selection, references, loaded.vocabularies, filters=filters, marian=marian)
    recipe = _checked(recipe, absolute, sources, metric, loaded)
    require_overlong(overlong)
    if described is None:
        sizes = {"shard_lines": shard_lines, "batch_tokens": batch_tokens, "overlong": overlong, "marian": marian}
        given = {"out": out, "selection": selection, "search": search, "filters": filters, "metric": metric, **sizes}
        read = distilling_inputs(teacher, sources, references)
        described = run_config.describe("distill", settings.to_json({**given, "checkpoint": [loaded.name]}), read)
    directory = absolute.with_name(f"{absolute.name}.n-best")
    decoding = Decoding(search, batch_tokens=batch_tokens)
    planned = distillation.plan(directory, loaded, sources, decoding, shard_lines=shard_lines)

    def make() -> tuple[distillation.NBest, list[int]]:
        if overlong == "fail":
            remedy = "split or drop it, or give --overlong empty for an empty target"
            require_translatable(loaded.vocabularies.source, sources, "source lines", remedy)
        lists = distillation.claim(planned, overwrite)
        program_cache.keep()
        distillation.make(lists, loaded, overlong=overlong, other=directory)
        return lists, overlong_lines(loaded.vocabularies.source, sources)

    card = distillation.make_corpus(absolute, planned, make, recipe, overwrite=overwrite, described=described)
    return Distilled(out / "filtered" if recipe.filtered else out, languages, card)


def distill_n_best(
    lists: Path | str,
    sources: Sequence[str],
    out: Path | str,
    *,
    references: Sequence[str] | None = None,
    languages: tuple[str, str] = ("source", "target"),
    selection: str = "best",
    filters: FilterConfig = FilterConfig(),
    metric: MetricConfig = MetricConfig(),
    marian: bool = False,
    overwrite: bool = False,
    described: Mapping[str, Any] | None = None,
) -> Distilled:
    """Choose from the n-best lists of any toolkit and write the corpus of a student to directory `out`.

    lists: a file with a list for each source: lines of Moses or Marian with |||, the output of fairseq-generate, or
    JSON lines (see distillation.nbest_files). The other arguments are those of `distill`.
    UserError: also a list missing, out of order or damaged, with its line.

        corpus = kd.load_split(kd.CorpusConfig("data"), "train")
        distilled = kd.distill_n_best("marian.n-best", corpus.sources, "seq_kd", languages=("en", "de"))
    """
    out, absolute = Path(out), Path(os.path.abspath(out))
    recipe = Recipe(languages, selection, references, filters=filters, marian=marian)
    recipe = _checked(recipe, absolute, sources, metric)
    found = distillation.open_lists(lists, list(sources))
    if described is None:
        given = {"n_best": Path(lists), "out": out, "selection": selection, "filters": filters, "metric": metric}
        read = n_best_inputs(lists, sources, references)
        described = run_config.describe("distill", settings.to_json({**given, "marian": marian}), read)
    done = found, ()  # the lists as they are, and no line that was too long
    card = distillation.make_corpus(absolute, found, lambda: done, recipe, overwrite=overwrite, described=described)
    return Distilled(out / "filtered" if recipe.filtered else out, languages, card)


def _checked(
    recipe: Recipe, out: Path, sources: Sequence[str], metric: MetricConfig, loaded: AnyTranslator | None = None
) -> Recipe:
    """The recipe of a corpus of these sources with its tokenizer. UserError for one that no corpus can be made by."""
    for name, lines in (("sources", sources), ("references", recipe.references)):
        _lines(name, lines)
    distillation.require_distillable(out, sources, recipe)
    if recipe.references is None:
        return recipe
    return recipe._replace(tokenize=_tokenizer(metric, loaded, recipe.references, recipe.languages[1]))


def distilling_inputs(
    teacher: LoadedTranslator, sources: Sequence[str], references: Sequence[str] | None
) -> dict[str, Any]:
    """What `distill` reads, by the names that config.json has for it."""
    return {"checkpoint": teacher.checkpoint.fingerprint, "source lines": _source_lines(sources, references)}


def n_best_inputs(lists: Path | str, sources: Sequence[str], references: Sequence[str] | None) -> dict[str, Any]:
    """What `distill_n_best` reads, by the names that config.json has for it."""
    if not Path(lists).is_file():
        raise UserError(f"{lists}: no such file of n-best lists")
    return {"n-best lists": files.sha256_file(lists), "source lines": _source_lines(sources, references)}


def _source_lines(sources: Sequence[str], references: Sequence[str] | None) -> Corpus:
    return Corpus(list(sources), [""] * len(sources) if references is None else list(references), None, "source lines")


def evaluate(
    translator: LoadedTranslator,
    corpus: Corpus,
    *,
    beam: int | None = None,
    search: SearchConfig = SearchConfig(),
    compare: Sequence[Path | str] = (),
    metric: MetricConfig = MetricConfig(),
    repetitions: int = 3,
    batch_tokens: int = 1024,
) -> Evaluation:
    """BLEU and chrF (0 to 100) at beam 1 and the given beam, perplexity, p(t = mode) and speed (source words/s).

    compare: other systems, each a checkpoint or a file with one translation a line; results["compared"] has the paired
    bootstrap of each against this one. metric: the tokenizer of BLEU. repetitions: passes that are timed, the median
    counts; 0: no speed; "source_unit" says whether its source words are characters. beam, search, batch_tokens: as in
    LoadedTranslator.stream. Returns `results` (JSON values), `outputs` and `references`.
    UserError: no sentences, a system with another number of lines or another tokenizer, a tokenizer that is not there.

        test = kd.load_split(kd.CorpusConfig("data"), "test")
        found = kd.evaluate(kd.load("student/best"), test, beam=5, compare=["baseline/best"])
        print(found.results["bleu_beam5"], found.results["compared"])
    """
    loaded, search = translator.checkpoint, _with_beam(search, beam)
    require_pairs(corpus)
    if not corpus.sources:
        raise UserError(f"{corpus.name}: has no sentence to evaluate")
    decoding = Decoding(search, batch_tokens=batch_tokens)
    decoding.validate()
    if not repetitions >= 0:
        raise UserError(f"repetitions is {repetitions}: it must be a whole number from 0")
    tokenize = _tokenizer(metric, loaded, corpus.targets, corpus.languages and corpus.languages[1])
    for other in _lines("compare", compare):
        _require_comparable(other, corpus, loaded)
    program_cache.keep()
    found = evaluation.evaluate(
        loaded.system,
        corpus,
        decoding,
        batch=BatchConfig(),
        tokenize=tokenize,
        repetitions=repetitions,
        timed_sentences=None if repetitions else 0,
    )
    results = {
        "checkpoint": loaded.name,
        "fingerprint": loaded.fingerprint,
        "corpus": corpus.name,
        "source_unit": scripts.unit(corpus.sources),
        **found.results,
    }
    if compare:
        others = {
            name: _outputs_of(other, decoding, corpus, loaded, tokenize)
            for name, other in zip(_distinct(map(str, compare)), compare, strict=True)
        }
        own = found.outputs[f"beam{search.beam}"]
        results["compared"] = metrics.paired_bootstrap(own, others, found.references, tokenize)
    return found._replace(results=results)


def _distinct(names: Iterable[str]) -> list[str]:
    """The names as the keys of results: one that was there before gets a number, and none replaces another."""
    keys: list[str] = []
    for name in names:
        numbered = (f"{name} ({number})" for number in itertools.count(2))
        keys.append(next(key for key in itertools.chain([name], numbered) if key not in keys))
    return keys


def _lines(name: str, given: T) -> T:
    """TypeError for one text where a list is expected: its characters would be taken for lines or paths."""
    if isinstance(given, str):
        raise TypeError(f"{name} must be a list, such as [{given[:20]!r}], not one text")
    return given


def _tokenizer(
    metric: MetricConfig,
    loaded: AnyTranslator | None,
    references: Sequence[str],
    language: str | None,
) -> str:
    """The tokenizer that BLEU applies to references of a language and to translations by a checkpoint, or by others."""
    metric.validate(lambda name: f"metric.{name}")
    stored, vocabularies = (loaded.metric.tokenize, loaded.vocabularies) if loaded else (tokenization.AUTO, None)
    return tokenization.resolve(metric.tokenize, vocabularies, references, stored=stored, language=language)


def _with_beam(search: SearchConfig, beam: int | None) -> SearchConfig:
    return search if beam is None else replace(search, beam=beam)


def _require_comparable(other: Path | str, corpus: Corpus, loaded: AnyTranslator) -> None:
    """UserError for another system that BLEU cannot compare, before anything is translated."""
    if not Path(other).is_file():
        vocabularies = checkpoint.load_translator(other).vocabularies
        if _word_splitter(vocabularies) != _word_splitter(loaded.vocabularies):
            raise UserError(f"{other}: uses a different tokenizer from {loaded.name}: BLEU cannot compare them")
        require_translatable(vocabularies.source, corpus.sources, f"{corpus.name}, for {other}", "split or drop it")
        return
    count = sum(1 for _ in read_lines(other))
    if count != len(corpus.sources):
        raise UserError(f"{other}: has {count:,} lines, {corpus.name} has {len(corpus.sources):,}: give one for each")


def _outputs_of(
    other: Path | str, decoding: Decoding, corpus: Corpus, loaded: AnyTranslator, tokenize: str
) -> list[str]:
    """Translations of the corpus by another system: the lines of a file, or made by a checkpoint as `evaluate` does."""
    if Path(other).is_file():
        return metrics.metric_references(loaded.vocabularies, read_lines(other), tokenize)
    search = decoding.search if decoding.search.beam > 1 else greedy_rules(decoding.search)
    with progress.counter(len(corpus.sources), f"translate with {other}", "sentences") as advance:
        translations = load(other).stream(
            corpus.sources, search=search, n_best=1, batch_tokens=decoding.batch_tokens, progress=advance
        )
        return [translation.text for translation in translations]


def _word_splitter(vocabularies: Vocabularies) -> str:
    """What decides which words a system's text consists of: "" where it is not of words."""
    return vocabularies.config.tokenizer if vocabularies.tokenised else ""
