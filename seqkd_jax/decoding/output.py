"""Translations as text or JSON lines."""

from collections.abc import Iterable
from io import TextIOBase

from seqkd_jax.decoding.translator import Translation
from seqkd_jax.utils import files


def write_text(translations: Iterable[Translation], stream: TextIOBase) -> int:
    """Write the best hypothesis of each translation on a line of its own, as they come. Returns the number of lines."""
    count = 0
    for translation in translations:
        stream.write(f"{files.one_line(translation.text)}\n")
        count += 1
    return count


def write_jsonl(translations: Iterable[Translation], stream: TextIOBase, first_line: int = 1) -> int:
    """Write one object a line: {"line", "source", "hypotheses": [...]}.

    A hypothesis is {"text", "score", "log_prob", "tokens", "finished"}, tokens without EOS. "line" counts from
    first_line; hypotheses are best first, scores in nats. Returns the number of lines.
    """
    count = 0
    for count, (source, hypotheses) in enumerate(translations, start=1):
        rows = [
            {"text": h.text, "score": h.score, "log_prob": h.log_prob, "tokens": len(h.tokens), "finished": h.finished}
            for h in hypotheses
        ]
        row = {"line": first_line + count - 1, "source": source, "hypotheses": rows}
        stream.write(files.json_line(row))
    return count
