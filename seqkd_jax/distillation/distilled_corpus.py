"""A distilled corpus on disk: the original source lines, the chosen targets, and a card that describes both."""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seqkd_jax import checkpoint
from seqkd_jax.config import FilterConfig
from seqkd_jax.data import scripts
from seqkd_jax.distillation.nbest import Candidate, NBest, read_n_best
from seqkd_jax.distillation.selection import SELECTIONS, Choice, choose
from seqkd_jax.evaluation import metrics
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, progress, settings

CARD = "card.json"
FORMAT = 1  # of it
ENOUGH = 10  # pairs whose median says what is usual; fewer do if they are half of a corpus
HOLDS = (CARD, settings.CONFIG_FILE, "README.md", "scores.tsv", "train.*", "filtered")


def write_corpus(
    directory: Path | str,
    found: NBest,
    vocabularies,
    references: Sequence[str] | None,
    selection: str,
    *,
    languages: tuple[str, str],
    tokenize: str = "auto",
    filters: FilterConfig | None = None,
    described: Mapping[str, Any] | None = None,
) -> dict:
    """Choose for every line and write the distilled corpus; returns its card. An older corpus there is replaced whole.

    train.<source> and train.<target> have the original's lines in the original's order, empty ones too; scores.tsv
    says what was chosen; card.json and README.md what was done. With filters, filtered/ holds the pairs that pass and
    lines.txt their line numbers (from 1). references: one for each line, or None for source-only text.
    tokenize: the metric's; it plays no part without references. described: the content of config.json (see run_config);
    None: no such file.
    """
    sources = [line for shard in found.shards for line in shard]
    if references is not None and len(references) != len(sources):
        raise UserError(f"{len(references)} references for {len(sources)} source lines: each line needs one")
    wanted = None if references is None else metrics.metric_references(vocabularies, references, tokenize)
    lists = progress.track(read_n_best(found), len(sources), f"choose ({selection})", "sentences")
    choices = [
        choose(list_, selection, reference, tokenize)
        for list_, reference in zip(lists, wanted or [None] * len(sources), strict=True)
    ]
    targets = [choice.candidate.text for choice in choices]
    card = {
        "format": FORMAT,
        "selection": selection,
        "similarity_tokenizer": None if SELECTIONS[selection] is None else tokenize,
        "teacher": {
            **found.teacher,
            "fingerprint": found.settings["checkpoint"],
            "vocabulary": vocabularies.fingerprint,
        },
        "decoding": {key: found.settings[key] for key in ("search", "decoder", "source_buckets", "batch_tokens")},
        "splits": ["train"],  # validation and test text is never distilled
        **_statistics(sources, choices, wanted, tokenize),
        "versions": checkpoint.versions(),
    }
    with files.new_directory(directory, HOLDS) as temporary:
        _write_pairs(temporary, languages, sources, targets)
        files.write_text(temporary / "scores.tsv", _table(choices))
        if filters is not None:
            kept, counts = apply_filters(sources, choices, filters)
            card["filters"] = {**asdict(filters), "dropped": counts, "kept": len(kept)}
            _write_pairs(temporary / "filtered", languages, [sources[i] for i in kept], [targets[i] for i in kept])
            files.write_lines(temporary / "filtered" / "lines.txt", (str(index + 1) for index in kept))
        card["files"] = {name: files.sha256_file(temporary / name) for name in files.tree(temporary)}
        files.write_json(temporary / CARD, card)
        files.write_text(temporary / "README.md", describe(card, languages))
        if described is not None:
            files.write_json(temporary / settings.CONFIG_FILE, described)
    return card


def _statistics(sources: Sequence[str], choices: Sequence[Choice], references: list[str] | None, tokenize: str) -> dict:
    """The numbers of the card; shares, ratios and means are over the lines with a source."""
    present = [index for index, line in enumerate(sources) if line.strip()]
    if not present:
        raise UserError("nothing to distil: every source line is blank")
    chosen = [choices[index] for index in present]
    texts, first = [choice.candidate.text for choice in chosen], [choice.first.text for choice in chosen]
    source_words, words = (sum(map(scripts.words, lines)) for lines in (sources, texts))
    log_prob, tokens = sum(c.candidate.log_prob for c in chosen), sum(_paid(c.candidate) for c in chosen)
    changed = sum(choice.index != 0 for choice in chosen)
    numbers = {
        "lines": len(sources),
        "empty_sources": len(sources) - len(present),
        "empty_targets": sum(not text.strip() for text in texts),
        "unfinished": sum(not choice.candidate.finished for choice in chosen),
        "changed": changed,
        "changed_share": changed / len(present),
        "length_ratio_to_sources": words / source_words,
        "length_units": [scripts.unit(sources), scripts.unit(texts)],
        "mean_log_prob_per_token": log_prob / max(tokens, 1),
        "mean_probability": statistics.fmean(map(_probability, chosen)),
        "bleu": None,
    }
    if references is not None:
        against = [references[index] for index in present]
        scores = metrics.score(texts, against, tokenize)
        numbers |= {"bleu": scores.bleu, "chrf": scores.chrf, "length_ratio_to_references": scores.length_ratio}
        numbers |= {"bleu_of_first": metrics.score(first, against, tokenize).bleu}
        numbers |= {"signature": metrics.signatures(tokenize)[0]}
    return numbers


def _paid(candidate: Candidate) -> int:
    """The tokens that its log-probability is of: EOS too, unless it was cut before that."""
    return candidate.tokens + candidate.finished


def _probability(choice: Choice) -> float:
    """That of a whole translation; one that was cut is none, as in `evaluate`."""
    return math.exp(choice.candidate.log_prob) if choice.candidate.finished else 0.0


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
    worst = sorted(kept, key=lambda i: choices[i].candidate.log_prob / max(_paid(choices[i].candidate), 1))
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
        numbers = f"{candidate.score:.6f}\t{candidate.log_prob:.6f}\t{candidate.tokens}\t{int(candidate.finished)}"
        rows.append(f"{number}\t{index}\t{numbers}\t{'' if similarity is None else f'{similarity:.6f}'}")
    return "\n".join(rows) + "\n"


def describe(card: dict, languages: tuple[str, str]) -> str:
    """The card for a person, in Markdown."""
    teacher, search = card["teacher"], card["decoding"]["search"]
    rules, per_source = ", ".join(f"{key} {value}" for key, value in search.items()), card["length_units"]
    lines = [
        "# Distilled corpus",
        "",
        f"`train.{languages[1]}` holds a teacher's translation of every line of `train.{languages[0]}`,",
        "in the original order. Validation and test text is not distilled.",
        "",
        f"- teacher: `{teacher['path']}`, {teacher['model']['kind']}, fingerprint `{teacher['fingerprint'][:16]}`",
        f"- vocabulary: `{teacher['vocabulary'][:16]}`",
        f"- decoding: {rules}",
        f"- selection: {card['selection']}"
        + (f" (tokenizer {card['similarity_tokenizer']})" if card["similarity_tokenizer"] else ""),
        f"- lines: {card['lines']:,}; empty sources {card['empty_sources']:,}, empty targets {card['empty_targets']:,}",
        f"- unfinished (cut at the length limit): {card['unfinished']:,}",
        f"- not the first of its list: {card['changed']:,} ({card['changed_share']:.1%})",
        f"- target {per_source[1]} per source {per_source[0].removesuffix('s')}: {card['length_ratio_to_sources']:.3f}",
        f"- log-probability per token: {card['mean_log_prob_per_token']:.3f} nats",
    ]
    if card["bleu"] is not None:
        lines += [
            f"- BLEU against the references: {card['bleu']:.2f} (first of each list: {card['bleu_of_first']:.2f})",
            f"- chrF {card['chrf']:.2f}, length ratio {card['length_ratio_to_references']:.3f}, `{card['signature']}`",
        ]
    if "filters" in card:
        dropped = ", ".join(f"{name} {count:,}" for name, count in card["filters"]["dropped"].items())
        lines += [f"- `filtered/`: {card['filters']['kept']:,} pairs; dropped: {dropped}"]
    return "\n".join(lines) + "\n"
