"""The measures of a translation model, and its comparison with other systems."""

import functools
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from seqkd_jax import checkpoint, distributed
from seqkd_jax.api.translating import AnyTranslator, LoadedTranslator, bleu_tokenizer, load, require_list, with_beam
from seqkd_jax.config import BatchConfig, ComputeType, MetricConfig, SearchConfig
from seqkd_jax.data import scripts
from seqkd_jax.data.corpus import Corpus, read_lines, require_pairs
from seqkd_jax.data.vocabulary import Vocabularies
from seqkd_jax.decoding import Decoding, require_translatable
from seqkd_jax.decoding.search import greedy_rules
from seqkd_jax.evaluation import evaluation, metrics
from seqkd_jax.evaluation.evaluation import Evaluation
from seqkd_jax.types import UserError
from seqkd_jax.utils import program_cache, progress, remote, urls


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
    distributed.start()
    loaded, search = translator.checkpoint, with_beam(search, beam)
    require_pairs(corpus)
    if not corpus.sources:
        raise UserError(f"{corpus.name}: has no sentence to evaluate")
    decoding = Decoding(search, batch_tokens=batch_tokens, devices=translator.devices)
    decoding.validate()
    if not repetitions >= 0:
        raise UserError(f"repetitions is {repetitions}: it must be a whole number from 0")
    tokenize = bleu_tokenizer(metric, loaded, corpus.targets, corpus.languages and corpus.languages[1])
    names, compare = _distinct(map(urls.shown, require_list("compare", compare))), list(map(remote.local, compare))
    for other in compare:
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
        **({"compute": translator.compute} if translator.compute else {}),  # of what it is compared with too
        "corpus": corpus.name,
        "source_unit": scripts.unit(corpus.sources),
        **found.results,
    }
    if compare:
        others = {
            name: _outputs_of(other, decoding, corpus, loaded, tokenize, translator.compute)
            for name, other in zip(names, compare, strict=True)
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
    other: Path | str,
    decoding: Decoding,
    corpus: Corpus,
    loaded: AnyTranslator,
    tokenize: str,
    compute: ComputeType | None,
) -> list[str]:
    """Translations of the corpus by another system: the lines of a file, or made by a checkpoint as `evaluate` does."""
    if Path(other).is_file():
        return metrics.metric_references(loaded.vocabularies, read_lines(other), tokenize)
    search = decoding.search if decoding.search.beam > 1 else greedy_rules(decoding.search)
    translator = load(other, devices=decoding.devices, compute=compute)
    with progress.counter(len(corpus.sources), f"translate with {remote.given(other)}", "sentences") as advance:
        decode = functools.partial(
            translator.stream,
            search=search,
            n_best=1,
            batch_tokens=decoding.batch_tokens,
            progress=advance,
        )
        return [translation.text for translation in evaluation.by_all_processes(decode, corpus.sources)]


def _word_splitter(vocabularies: Vocabularies) -> str:
    """What decides which words a system's text consists of: "" where it is not of words."""
    return vocabularies.config.tokenizer if vocabularies.tokenised else ""
