"""Results of `seqkd evaluate`, `verify` and `distill --status` as tables for a person; into a pipe they are JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from seqkd_jax.utils import progress


def of_results(results: Mapping[str, Any]) -> str:
    """Plain text: the metrics of each beam with their 95% intervals, the systems that were compared, the signatures."""
    beams = [key.removeprefix("bleu_beam") for key in results if key.startswith("bleu_beam")]

    def row(name: str, measure: str, form: str) -> list[str]:
        return [name, *(format(results[f"{measure}_beam{beam}"], form) for beam in beams)]

    bleu = [
        f"{results[f'bleu_beam{beam}']:.1f} ({_range(results, f'bleu_low_beam{beam}', f'bleu_high_beam{beam}')})"
        for beam in beams
    ]
    rows = [
        ["", *(f"beam {beam}" for beam in beams)],
        ["BLEU (95%)", *bleu],
        row("chrF", "chrf", ".1f"),
        row("length ratio", "length_ratio", ".3f"),
        row("unfinished", "unfinished", ",d"),
        row("p(t=y)", "mode_probability", ".4f"),
    ]
    if all(results[f"source_words_per_second_beam{beam}"] is not None for beam in beams):
        rows.append(row(f"source {results['source_unit']}/s", "source_words_per_second", ",.0f"))
    parts = [
        f"{results['checkpoint']} on {results['corpus']}: {results['sentences']:,} sentences",
        _aligned(rows),
        f"perplexity {results['perplexity']:.2f} of {results['reference_tokens']:,} reference tokens",
    ]
    if "compared" in results:
        compared = [
            [
                name,
                f"{one['bleu']:.1f}",
                f"{one['delta']:+.1f} ({_range(one, 'delta_low', 'delta_high', '+.1f')})",
                f"{one['p_value']:.4f}",
            ]
            for name, one in results["compared"].items()
        ]
        parts.append(_aligned([["compared with", "BLEU", "difference (95%)", "p"], *compared]))
    parts.append(f"BLEU {results['signature']}\nchrF {results['chrf_signature']}")
    return "\n\n".join(parts) + "\n"


def of_verified(objects: Sequence[Any]) -> str:
    """A row for each directory that was verified, and under the table a line for each damage."""
    rows = [[one.object, one.kind, f"{one.files:,}", f"{one.bytes:,}", one.result] for one in objects]
    parts = [_aligned([["", "kind", "files", "bytes", "result"], *rows])]
    if damages := [damage for one in objects for damage in one.damages]:
        parts.append("\n".join(damages))
    return "\n\n".join(parts) + "\n"


def of_status(status: Mapping[str, Any]) -> str:
    """Plain text: how many shards are complete, who makes which, what is damaged, whether the corpus is written."""
    total, lines = (f" of {status[name]:,}" if status[name] is not None else "" for name in ("shards", "lines"))
    parts = [
        f"{status['out']}: the corpus is {status['corpus']}",
        f"{status['lists']}: {status['complete']:,}{total} shards are complete, {status['lines_complete']:,}{lines} "
        "sentences",
    ]
    held = [
        [
            "corpus" if one["shard"] is None else f"{one['shard']:05d}",
            f"process {one['pid']} of {one['host']}" if one["host"] else "not known",
            one["since"],
            progress.duration(one["heartbeat_seconds"]),
            "" if one["alive"] else "dead",
        ]
        for one in status["held"]
    ]
    if held:
        parts.append(_aligned([["shard", "owner", "since", "heartbeat", ""], *held]))
    if status["damaged"]:
        parts.append("\n".join(f"{one['path']}: {one['reason']}" for one in status["damaged"]))
    return "\n\n".join(parts) + "\n"


def _range(numbers: Mapping[str, Any], low: str, high: str, form: str = ".1f") -> str:
    return f"{numbers[low]:{form}} to {numbers[high]:{form}}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, two spaces between them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
