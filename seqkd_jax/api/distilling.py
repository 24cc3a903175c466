"""A corpus of a teacher's translations, and one of the n-best lists of any toolkit."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seqkd_jax import distillation, distributed
from seqkd_jax.api.places import publishing
from seqkd_jax.api.translating import AnyTranslator, LoadedTranslator, bleu_tokenizer, require_reusable, with_beam
from seqkd_jax.checkpoint import run_config
from seqkd_jax.config import CorpusConfig, FilterConfig, MetricConfig, Overlong, SearchConfig
from seqkd_jax.data.corpus import Corpus, load_split
from seqkd_jax.decoding import Decoding, overlong_lines, require_overlong, require_translatable
from seqkd_jax.distillation import Recipe
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, program_cache, remote, settings, urls


class Distilled(NamedTuple):
    """A distilled corpus on disk, as `distill` returns it."""

    directory: Path  # train.<source> and train.<target>; with filters, those of the pairs that passed
    languages: tuple[str, str]  # the suffixes of the two files
    card: dict  # how it was made, and its statistics; JSON values

    @property
    def corpus(self) -> Corpus:
        """The pairs, read from the directory."""
        return load_split(CorpusConfig(str(self.directory), *self.languages), "train")


@publishing
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
    part: tuple[int, int] | None = None,
    described: Mapping[str, Any] | None = None,
) -> Distilled:
    """Translate training sources with a teacher and write the corpus of a student to directory `out`.

    The n-best lists are kept in `<out>.n-best` in shards of shard_lines; called again, it resumes there. references:
    one for each source, for a selection that needs them and for BLEU on the card. languages: suffixes of the files;
    None: those that the teacher was trained on, else source and target.
    selection: best (Seq-KD), the hypothesis nearest to the reference by kim_rush (Seq-Inter), sacrebleu or chrf, or
    the one that is nearest to all of its list (mbr: minimum Bayes risk, chrF).
    beam, search, batch_tokens: as in LoadedTranslator.stream. filters: if any is set, `filtered/` holds what passes.
    metric: the tokenizer of the selection and of the card's BLEU.
    overlong: a source of more than 4,096 tokens is an error before anything is decoded, or it gets an empty target.
    marian: also write the lists to n-best.txt, in the form of Marian. overwrite: whether a corpus and n-best lists of
    another job may be replaced, once the new ones are complete; lines that are the same are not decoded again: their
    text is that of a fresh run, their scores up to the last bits. described: as in `train`.
    Any number of processes on any machines with this file system may be given the same call: they share the shards, and
    all return the same corpus. part (i, n), i from 1 to n: only every n-th shard is made, from the i-th, and no corpus;
    where all shards lie together the same call without part writes it.
    UserError: an unknown selection, references missing or of another number, no sources, an `out` with other files or
    of another job.

        corpus = kd.load_split(kd.CorpusConfig("data"), "train")
        distilled = kd.distill(kd.load("teacher/best"), corpus.sources, "seq_kd", references=corpus.targets)
        kd.train(distilled.corpus, valid, "student", vocabularies=kd.load_vocabulary("teacher/best"))
    """
    distributed.start()
    out, absolute, search = Path(out), Path(os.path.abspath(out)), with_beam(search, beam)
    loaded = teacher.checkpoint
    languages = languages or loaded.languages or ("source", "target")
    recipe = Recipe(languages, selection, references, loaded.vocabularies, filters=filters, marian=marian)
    recipe = _checked(recipe, absolute, sources, metric, loaded)
    require_overlong(overlong)
    if part:
        distillation.require_part(part)
    if described is None:
        sizes = {"shard_lines": shard_lines, "batch_tokens": batch_tokens, "overlong": overlong, "marian": marian}
        given = {
            "out": remote.given(out),
            "selection": selection,
            "search": search,
            "filters": filters,
            "metric": metric,
            **sizes,
        }
        read = distilling_inputs(teacher, sources, references)
        described = run_config.describe("distill", settings.to_json({**given, "checkpoint": [loaded.name]}), read)
    directory = absolute.with_name(f"{absolute.name}.n-best")
    decoding = Decoding(search, batch_tokens=batch_tokens, devices=teacher.devices)
    planned = distillation.plan(directory, loaded, sources, decoding, shard_lines=shard_lines)

    def require() -> None:
        if overlong == "fail":
            remedy = "split or drop it, or give --overlong empty for an empty target"
            require_translatable(loaded.vocabularies.source, sources, "source lines", remedy)

    def make(lists: Any) -> tuple[distillation.NBest, list[int]]:
        program_cache.keep()
        made = distillation.make(lists, loaded, part=part or (1, 1), overlong=overlong, other=directory)
        return made, overlong_lines(loaded.vocabularies.source, sources) if overlong == "empty" else []

    claim = lambda: distillation.claim(planned, overwrite)  # noqa: E731
    job = {"overwrite": overwrite, "described": described, "part": part, "require": require}
    card = distillation.make_corpus(absolute, planned, claim, make, recipe, **job)
    return Distilled(out / "filtered" if recipe.filtered else out, languages, card)


@publishing
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
        given = {
            "n_best": Path(lists),
            "out": remote.given(out),
            "selection": selection,
            "filters": filters,
            "metric": metric,
        }
        read = n_best_inputs(lists, sources, references)
        described = run_config.describe("distill", settings.to_json({**given, "marian": marian}), read)
    make = lambda lists: (lists, ())  # noqa: E731 - as they are, and no line was too long
    job = {"overwrite": overwrite, "described": described}
    card = distillation.make_corpus(absolute, found, lambda: found, make, recipe, **job)
    return Distilled(out / "filtered" if recipe.filtered else out, languages, card)


def distill_status(out: Path | str) -> dict:
    """How far the job of the corpus at `out` is: JSON values; see distillation.status. Nothing is changed.

    shards and complete: how many there are, and how many are whole; held: who makes which; damaged: what is.

        if kd.distill_status("seq_kd")["corpus"] == "complete": ...
    """
    urls.require_local(out, "what is looked at")
    return distillation.status(Path(out))


def _checked(
    recipe: Recipe, out: Path, sources: Any, metric: MetricConfig, loaded: AnyTranslator | None = None
) -> Recipe:
    """The recipe of a corpus of these sources with its tokenizer. UserError for one that no corpus can be made by."""
    for name, lines in (("sources", sources), ("references", recipe.references)):
        require_reusable(name, lines)
    distillation.require_distillable(out, sources, recipe)
    if recipe.references is None:
        return recipe
    return recipe._replace(tokenize=bleu_tokenizer(metric, loaded, recipe.references, recipe.languages[1]))


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
