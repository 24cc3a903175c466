"""A distilled corpus on disk: the original source lines, the chosen targets, and a card that describes both."""

import itertools
import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from seqkd_jax import checkpoint
from seqkd_jax.checkpoint import run_config
from seqkd_jax.config import FilterConfig
from seqkd_jax.data import scripts
from seqkd_jax.data.distilled import CARD, HOLDS, MARIAN
from seqkd_jax.data.vocabulary import Vocabularies
from seqkd_jax.distillation.nbest import Candidate, NBest
from seqkd_jax.distillation.nbest_files import GivenLists, write_marian
from seqkd_jax.distillation.selection import SELECTIONS, Choice, choose
from seqkd_jax.evaluation import metrics
from seqkd_jax.evaluation.metrics import metric_references
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, integrity, progress, settings

FORMAT = 1  # of the card
ENOUGH = 10  # pairs whose median says what is usual; fewer do if they are half of a corpus


class Recipe(NamedTuple):
    """What a corpus is made with, beside the n-best lists."""

    languages: tuple[str, str]  # the suffixes of its files
    selection: str = "best"  # an entry of SELECTIONS
    references: Sequence[str] | None = None  # one for each line; None: source-only text
    vocabularies: Vocabularies | None = None  # the teacher's; None: not known
    tokenize: str = "auto"  # the metric's; it plays no part without references
    filters: FilterConfig = FilterConfig()
    marian: bool = False  # also write the lists to n-best.txt

    @property
    def filtered(self) -> bool:
        """Whether any filter is set, so that there is a filtered/."""
        return self.filters != FilterConfig()


def write_corpus(
    directory: Path | str,
    found: NBest | GivenLists,
    recipe: Recipe,
    *,
    described: Mapping[str, Any] | None = None,
    overlong: Collection[int] = (),
) -> dict:
    """Choose for every line and write the distilled corpus; returns its card. An older corpus there is replaced whole.

    train.<source> and train.<target> have the original's lines in the original's order, empty ones too; scores.tsv
    says what was chosen; card.json and README.md what was done. With filters, filtered/ holds the pairs that pass and
    lines.txt their line numbers (from 1). described: the content of config.json (see run_config); None: no such file.
    overlong: the places, from 0, of the lines that were too long to be translated; they have empty targets and count in
    no mean.
    """
    sources, references, tokenize = found.sources, recipe.references, recipe.tokenize
    if references is not None and len(references) != len(sources):
        raise UserError(f"{len(references)} references for {len(sources)} source lines: each line needs one")
    wanted = None if references is None else metric_references(recipe.vocabularies, references, tokenize)
    lists = progress.track(found.read(), len(sources), f"choose ({recipe.selection})", "sentences")
    choices = [
        choose(list_, recipe.selection, reference, tokenize)
        for list_, reference in zip(lists, wanted or [None] * len(sources), strict=True)
    ]
    targets = [choice.candidate.text for choice in choices]
    card = {
        **card_of(found, recipe),
        "splits": ["train"],  # validation and test text is never distilled
        **_statistics(sources, choices, wanted, tokenize, set(overlong)),
        "versions": checkpoint.versions(),
    }
    with files.new_directory(directory, HOLDS) as temporary:
        _write_pairs(temporary, recipe.languages, sources, targets)
        files.write_text(temporary / "scores.tsv", _table(choices))
        if recipe.marian:
            write_marian(found.read(), temporary / MARIAN)
        if recipe.filtered:
            kept, counts = apply_filters(sources, choices, recipe.filters)
            card["filters"] |= {"dropped": counts, "kept": len(kept)}
            _write_pairs(
                temporary / "filtered", recipe.languages, [sources[i] for i in kept], [targets[i] for i in kept]
            )
            files.write_lines(temporary / "filtered" / "lines.txt", (str(index + 1) for index in kept))
        card["files"] = {name: files.sha256_file(temporary / name) for name in files.tree(temporary)}
        files.write_json(temporary / CARD, card)
        files.write_text(temporary / "README.md", describe(card))
        if described is not None:
            run_config.write(temporary / settings.CONFIG_FILE, described)
    return card


def card_of(found: NBest | GivenLists, recipe: Recipe) -> dict:
    """The card of a corpus as far as it is known before anything is decoded: what it is made of."""
    references, tokenize = recipe.references, recipe.tokenize
    card = {
        "format": FORMAT,
        integrity.SEALED: True,
        "languages": list(recipe.languages),
        "selection": recipe.selection,
        "similarity_tokenizer": tokenize if SELECTIONS[recipe.selection].needs_reference else None,
        **found.card,
        "inputs": {
            "source lines": files.sha256_bytes("".join(files.text_lines(found.sources)).encode("utf-8")),
            "references": None if references is None else files.sha256_json(list(references)),
            "metric.tokenize": None if references is None else tokenize,
        },
    }
    if recipe.vocabularies is not None:
        card["teacher"]["vocabulary"] = recipe.vocabularies.fingerprint
    if recipe.filtered:
        card["filters"] = asdict(recipe.filters)
    if recipe.marian:
        card["marian"] = True
    return card


def _statistics(
    sources: Sequence[str],
    choices: Sequence[Choice],
    references: Sequence[str] | None,
    tokenize: str,
    overlong: Collection[int],
) -> dict:
    """The numbers of the card; shares, ratios and means are over the lines with a source that was translated."""
    blank = sum(not line.strip() for line in sources)
    present = [index for index, line in enumerate(sources) if line.strip() and index not in overlong]
    if not present:
        raise UserError("nothing to distil: every source line is blank or too long")
    chosen = [choices[index] for index in present]
    texts, first = [choice.candidate.text for choice in chosen], [choice.first.text for choice in chosen]
    translated = [sources[index] for index in present]
    source_words, words = (sum(map(scripts.words, lines)) for lines in (translated, texts))
    changed = sum(choice.index != 0 for choice in chosen)
    numbers = {
        "lines": len(sources),
        "empty_sources": blank,
        **({"overlong_sources": len(overlong)} if overlong else {}),
        "empty_targets": sum(not text.strip() for text in texts),
        "unfinished": sum(not choice.candidate.finished for choice in chosen),
        "changed": changed,
        "changed_share": changed / len(present),
        "length_ratio_to_sources": words / source_words,
        "length_units": [scripts.unit(sources), scripts.unit(texts)],
        "mean_log_prob_per_token": _mean_log_prob(chosen),
        "mean_probability": _mean_probability(chosen),
        "bleu": None,
    }
    if references is not None:
        against = [references[index] for index in present]
        scores = metrics.score(texts, against, tokenize)
        numbers |= {"bleu": scores.bleu, "chrf": scores.chrf, "length_ratio_to_references": scores.length_ratio}
        numbers |= {"bleu_of_first": metrics.score(first, against, tokenize).bleu}
        numbers |= {"signature": metrics.signatures(tokenize)[0]}
    return numbers


def _scored_tokens(candidate: Candidate) -> int | None:
    """The tokens that its log-probability is of: EOS too, unless it was cut before that. None: not known."""
    return None if candidate.tokens is None else candidate.tokens + candidate.finished


def _mean_log_prob(chosen: Sequence[Choice]) -> float | None:
    """Nats for a token. None: another toolkit did not say."""
    told = [(choice.candidate.log_prob, _scored_tokens(choice.candidate)) for choice in chosen]
    known = [(nats, count) for nats, count in told if nats is not None and count is not None]
    if len(known) < len(told):
        return None
    return sum(nats for nats, _ in known) / max(sum(count for _, count in known), 1)


def _mean_probability(chosen: Sequence[Choice]) -> float | None:
    """That of whole translations; one that was cut is none, as in `evaluate`. None: another toolkit did not say."""
    known = [(c.candidate.log_prob, c.candidate.finished) for c in chosen if c.candidate.log_prob is not None]
    if len(known) < len(chosen):
        return None
    return statistics.fmean(math.exp(log_prob) if finished else 0.0 for log_prob, finished in known)


def _score_per_token(candidate: Candidate) -> float:
    """What the worst are found by: log-probability per token; the score where another toolkit did not say it."""
    count = _scored_tokens(candidate)
    return candidate.score if candidate.log_prob is None or count is None else candidate.log_prob / max(count, 1)


def apply_filters(
    sources: Sequence[str], choices: Sequence[Choice], config: FilterConfig
) -> tuple[list[int], dict[str, int]]:
    """The indices of the pairs that pass all filters, and how many each dropped, in the order they are applied in."""
    config.validate()
    kept, seen = [], set()
    counts: dict[str, int] = dict.fromkeys(("empty", "unfinished", "duplicate", "length_ratio", "worst_score"), 0)
    limit = config.max_length_ratio or math.inf
    ratios = length_ratios(sources, [choice.candidate.text for choice in choices])
    for index, (source, choice) in enumerate(zip(sources, choices, strict=True)):
        pair = source, choice.candidate.text
        if not all(side.strip() for side in pair):
            counts["empty"] += 1
        elif config.drop_unfinished and not choice.candidate.finished:
            counts["unfinished"] += 1
        elif config.deduplicate and pair in seen:
            counts["duplicate"] += 1
        elif ratios[index] > limit:
            counts["length_ratio"] += 1
        else:
            kept.append(index)
        seen.add(pair)
    worst = sorted(kept, key=lambda index: _score_per_token(choices[index].candidate))
    dropped = set(worst[: int(config.drop_worst * len(kept))])
    counts["worst_score"] = len(dropped)
    return [index for index in kept if index not in dropped], counts


def length_ratios(sources: Sequence[str], targets: Sequence[str]) -> list[float]:
    """How many times the words of its shorter side the longer side of each pair has; infinity where a side is blank.

    In scripts without spaces each character is a word, but scripts hold different amounts in a character. So a pair
    with a side of such a script is compared with the median of these pairs, unless they are few among others: its ratio
    is 4 if it is 4 times as unequal as usual.
    """
    pairs = list(zip(sources, targets, strict=True))
    unspaced = [any(map(scripts.is_unspaced, pair)) for pair in pairs]
    counted = [
        tuple(scripts.words(side) if by_character else len(side.split()) for side in pair)
        for pair, by_character in zip(pairs, unspaced, strict=True)
    ]
    of_these = [target / source for source, target in itertools.compress(counted, unspaced) if source and target]
    usual = statistics.median(of_these) if of_these and len(of_these) >= min(ENOUGH, len(pairs) / 2) else 1.0
    ratios = []
    for (source, target), by_character in zip(counted, unspaced, strict=True):
        short, long = sorted((source, target / usual if by_character else target))
        ratios.append(long / short if short else math.inf)
    return ratios


def _write_pairs(directory: Path, languages: tuple[str, str], sources: Sequence[str], targets: Sequence[str]) -> None:
    for language, lines in zip(languages, (sources, targets), strict=True):
        files.write_lines(directory / f"train.{language}", lines)


def _table(choices: Sequence[Choice]) -> str:
    rows = ["line\tindex\tscore\tlog_prob\ttokens\tfinished\tsimilarity"]
    for number, (candidate, _, index, similarity) in enumerate(choices, start=1):
        log_prob, similarity = ("" if value is None else f"{value:.6f}" for value in (candidate.log_prob, similarity))
        tokens = "" if candidate.tokens is None else candidate.tokens
        numbers = f"{candidate.score:.6f}\t{log_prob}\t{tokens}\t{int(candidate.finished)}"
        rows.append(f"{number}\t{index}\t{numbers}\t{similarity}")
    return "\n".join(rows) + "\n"


def describe(card: dict) -> str:
    """The card for a person, in Markdown."""
    source, target = card["languages"]
    overlong = card.get("overlong_sources", 0)
    without = f", over-long sources without a target {overlong:,}" if overlong else ""
    per_source = card["length_units"]
    lines = [
        "# Distilled corpus",
        "",
        f"`train.{target}` holds a teacher's translation of every line of `train.{source}`,",
        "in the original order. Validation and test text is not distilled.",
        "",
        *_origin(card),
        f"- selection: {card['selection']}"
        + (f" (tokenizer {card['similarity_tokenizer']})" if card["similarity_tokenizer"] else ""),
        f"- lines: {card['lines']:,}; empty sources {card['empty_sources']:,}{without}, "
        f"empty targets {card['empty_targets']:,}",
        f"- unfinished (cut at the length limit): {card['unfinished']:,}",
        f"- not the first of its list: {card['changed']:,} ({card['changed_share']:.1%})",
        f"- target {per_source[1]} per source {per_source[0].removesuffix('s')}: {card['length_ratio_to_sources']:.3f}",
    ]
    if card["mean_log_prob_per_token"] is not None:
        lines += [f"- log-probability per token: {card['mean_log_prob_per_token']:.3f} nats"]
    if card["bleu"] is not None:
        lines += [
            f"- BLEU against the references: {card['bleu']:.2f} (first of each list: {card['bleu_of_first']:.2f})",
            f"- chrF {card['chrf']:.2f}, length ratio {card['length_ratio_to_references']:.3f}, `{card['signature']}`",
        ]
    if "filters" in card:
        dropped = ", ".join(f"{name} {count:,}" for name, count in card["filters"]["dropped"].items())
        lines += [f"- `filtered/`: {card['filters']['kept']:,} pairs; dropped: {dropped}"]
    return "\n".join(lines) + "\n"


def _origin(card: dict) -> list[str]:
    """Where the lists are from, for a person."""
    teacher = card["teacher"]
    if card["decoding"] is None:
        return [f"- n-best lists: `{teacher['n_best']}`, form {teacher['form']}, SHA-256 `{teacher['sha256'][:16]}`"]
    teacher_is = f"`{teacher['path']}`, {teacher['model']['kind']}, fingerprint `{teacher['fingerprint'][:16]}`"
    compute = f", computed in {teacher['compute']}" if "compute" in teacher else ""
    rules = ", ".join(f"{key} {value}" for key, value in card["decoding"]["search"].items())
    return [
        f"- teacher: {teacher_is}{compute}",
        f"- vocabulary: `{teacher['vocabulary'][:16]}`",
        f"- decoding: {rules}",
    ]
