"""The most probable translation of each sentence, found exactly (`search.exact`), beside that of a beam search."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from io import TextIOBase
from typing import NamedTuple

import numpy as np

from seqkd_jax.config import ExactConfig, SearchConfig
from seqkd_jax.decoding.buckets import Ids, Shape, in_order, padded, rows_of, width_of
from seqkd_jax.decoding.search import length_limits
from seqkd_jax.decoding.search.exact import NOTHING, Best, Known, exact_search
from seqkd_jax.decoding.translator import Decoding, prepare, translate_ids, without_ends
from seqkd_jax.types import EOS, System, Translator
from seqkd_jax.utils import files

BATCH_TOKENS = 2048  # source positions of the sentences that are searched at a time
CHUNK = 256  # sentences read ahead, to be sorted by length
SAME = 1e-4  # nats: a smaller difference between two translations is rounding


class Mode(NamedTuple):
    """The most probable translation of a line, or the best that was found before a limit."""

    source: str
    tokens: list[int]  # ids without EOS
    text: str
    log_prob: float  # nats, EOS included
    bound: float  # no translation is more probable than this, nats
    nodes: int  # prefixes expanded
    beam_log_prob: float  # of the best that the beam search finished, nats; -inf: none

    @property
    def proven(self) -> bool:
        """Whether no translation is more probable, up to rounding: none of any length, with any tokens."""
        return self.bound <= self.log_prob

    @property
    def search_error(self) -> bool:
        """Whether the beam search missed a more probable translation than its own."""
        return self.log_prob > self.beam_log_prob + SAME


def modes(
    system: System,
    lines: Iterable[str],
    exact: ExactConfig,
    *,
    decoding: Decoding = Decoding(),
    progress: Callable[[int], object] | None = None,
) -> Iterator[Mode]:
    """The mode of p(translation | line) of each line, in order; line ends are removed.

    The translation of an empty line is empty, without a search. decoding: buckets and batches of the beam search that
    comes first, to share its programs; its rules are those of `exact`. progress: called with the number of sentences
    of each finished batch. UserError: a line of more than 4,096 tokens, invalid limits, NaN scores.
    """
    translator, params, vocabularies = system
    waiting: deque[str] = deque()  # read, not yet yielded

    def encoded() -> Iterator[list[int]]:
        for line in lines:
            waiting.append(line.rstrip("\r\n"))
            yield [*vocabularies.source.encode(waiting[-1]), EOS]

    for best, beam in modes_of_ids(translator, params, encoded(), exact, decoding, progress=progress):
        tokens = list(best.tokens[:-1])
        text = vocabularies.target.decode(tokens)
        yield Mode(waiting.popleft(), tokens, text, best.log_prob, best.bound, best.nodes, beam)


def modes_of_ids(
    translator: Translator,
    params,
    sentences: Iterable[Ids],
    exact: ExactConfig,
    decoding: Decoding = Decoding(),
    *,
    progress: Callable[[int], object] | None = None,
) -> Iterator[tuple[Best, float]]:
    """What the exact search found for each sentence of ids, which ends with EOS; and the beam search's log-probability.

    params: those of the model, or from `prepare`, on one device. decoding: as in `modes`. Two log-probabilities that
    differ by rounding alone may be taken for each other.
    """
    exact.validate()
    ready, waiting = prepare(translator, params, 1), deque[Ids]()
    rules = SearchConfig(beam=exact.beam, max_length_a=exact.max_length_a, max_length_b=exact.max_length_b)
    first = replace(decoding, search=rules, chunk=CHUNK, devices=1)

    def noted() -> Iterator[Ids]:
        for ids in sentences:
            waiting.append(ids)
            yield ids

    def with_known() -> Iterator[tuple[Ids, Known]]:
        for found in translate_ids(translator, ready, noted(), first):
            finished = np.where(found.finished, found.log_probs, -np.inf)
            best = int(np.argmax(finished))
            tokens = *without_ends(found.tokens[best]), EOS
            yield waiting.popleft(), Known(tokens, float(finished[best])) if found.finished[best] else NOTHING

    def shape_of(item: tuple[Ids, Known]) -> Shape | None:
        if len(item[0]) < 2:
            return None
        width = width_of(len(item[0]), decoding.source_buckets)
        steps = int(length_limits(rules, np.array([width - 1]))[1][0])
        return Shape(rows_of(width, BATCH_TOKENS), width, steps)

    def run(shape: Shape, batch: list[tuple[Ids, Known]], device: int):
        source = padded([ids for ids, _ in batch], shape, EOS)
        _, longest = length_limits(rules, np.array([len(ids) - 1 for ids, _ in batch]))
        known = [one for _, one in batch]
        found = exact_search(
            translator, ready.params[device], source, longest.tolist(), known, shape.steps, exact.nodes
        )
        tokens = np.zeros((len(found), shape.steps), np.int32)
        for row, best in zip(tokens, found, strict=True):
            row[: len(best.tokens)] = best.tokens
        numbers = np.array([(best.log_prob, best.bound) for best in found])
        nodes = np.array([best.nodes for best in found])
        return tokens, numbers, nodes, np.array([one.log_prob for one in known])

    results = in_order(with_known(), lambda item: (len(item[0]),), shape_of, run, CHUNK, progress)
    for result in results:
        if result is None:
            yield Best((EOS,), 0.0, 0.0, 0), 0.0
            continue
        tokens, numbers, nodes, beam = result
        log_prob, bound = numbers.tolist()
        yield Best((*without_ends(tokens), EOS), log_prob, bound, int(nodes)), float(beam)


class Told(NamedTuple):
    """What the modes of some lines come to; blank lines are not searched, and count in nothing but their number."""

    lines: int = 0
    blank: int = 0
    proven: int = 0
    search_errors: int = 0
    empty: int = 0  # modes without a token, of lines that have some
    nodes: int = 0
    mass: float = 0.0  # the sum of the modes' probabilities

    def __str__(self) -> str:
        searched = max(self.lines - self.blank, 1)
        blank = f", {self.blank:,} of them blank" if self.blank else ""
        return (
            f"{self.lines:,} lines{blank}: {self.proven:,} modes are proven, {self.search_errors:,} are more probable "
            f"than what the beam search found, {self.empty:,} are empty; mean probability {self.mass / searched:.4f}; "
            f"{self.nodes:,} prefixes expanded"
        )


def write_jsonl(found: Iterable[Mode], stream: TextIOBase) -> Told:
    """Write one object a line, as they come, and return what they come to.

    {"line", "source", "text", "tokens", "log_prob", "bound", "proven", "beam_log_prob", "search_error", "nodes"}:
    tokens without EOS; log-probabilities in nats; beam_log_prob is null if the beam search finished no translation.
    """
    told = Told()
    for line, mode in enumerate(found, start=1):
        row = {
            "line": line,
            "source": mode.source,
            "text": mode.text,
            "tokens": len(mode.tokens),
            "log_prob": mode.log_prob,
            "bound": mode.bound,
            "proven": mode.proven,
            "beam_log_prob": mode.beam_log_prob if math.isfinite(mode.beam_log_prob) else None,
            "search_error": mode.search_error,
            "nodes": mode.nodes,
        }
        stream.write(files.json_line(row))
        told = told._replace(lines=line)
        if not mode.source.strip():
            told = told._replace(blank=told.blank + 1)
            continue
        told = told._replace(
            proven=told.proven + mode.proven,
            search_errors=told.search_errors + mode.search_error,
            empty=told.empty + (not mode.tokens),
            nodes=told.nodes + mode.nodes,
            mass=told.mass + math.exp(mode.log_prob),
        )
    return told
