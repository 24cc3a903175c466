"""N-best lists in one file: those of other toolkits, read; and ours, written in the form of Marian and Moses.

The form of a file is seen in its lines:

  marian   `id ||| text ||| features ||| score`, the hypotheses of a line together, best first; ids count from 0. An
           alignment, of Marian before the features and of Moses after the score, is skipped. Of the features F0= (the
           log-probability in nats, if it is the only F), Tokens= and Finished= are read; see `write_marian`.
  fairseq  the output of fairseq-generate: H- and D-lines (D is used where there is one) with scores to base 2, P-lines
           with those of the tokens, EOS included; sentences in any order; other lines are skipped
  jsonl    one object for each source line: {"hypotheses": [{"text": ..., "score": ...}, ...]}, best first, and if
           wanted "line" (from 1) and "source", which must be right; of a hypothesis "log_prob" (nats), "tokens"
           (without EOS) and "finished". `seqkd translate --n-best` writes it

Every source line has a list with a hypothesis at least; a blank one may have none. UserError names file and line.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from seqkd_jax.data.text import json_object, read_lines, whole_characters
from seqkd_jax.distillation.nbest import Candidate
from seqkd_jax.types import UserError
from seqkd_jax.utils import files

EMPTY = [Candidate("", 0.0, 0.0, True, 0)]  # the list of a blank source line
FAIRSEQ = re.compile(r"([A-Z])-([0-9]{1,12})\t(.*)", re.DOTALL)
ALIGNMENT = "(?:[0-9]+-[0-9]+ ?)*"
Line = tuple[int, str]  # its number, from 1


class GivenLists(NamedTuple):
    """The n-best lists of a file."""

    path: Path
    form: str  # an entry of FORMS
    sha256: str  # of the file
    sources: list[str]

    @property
    def card(self) -> dict:
        """What a card says of their teacher, of whom no more is known."""
        return {"teacher": {"n_best": str(self.path), "form": self.form, "sha256": self.sha256}, "decoding": None}

    def read(self) -> Iterator[list[Candidate]]:
        """The list of each source line, in order, best first."""
        yield from FORMS[self.form](enumerate(read_lines(self.path), start=1), self.path, self.sources)


def open_lists(path: Path | str, sources: list[str]) -> GivenLists:
    """The n-best lists in a file, read once to the end, so that a fault in it is found now."""
    path = Path(path)
    form = next(filter(None, map(_form, read_lines(path))), None)
    if form is None:
        raise UserError(
            f"{path}: holds no n-best lists; expected lines `id ||| text ||| features ||| score`, H- and D-lines of "
            "fairseq-generate, or JSON objects"
        )
    lists = GivenLists(path, form, files.sha256_file(path), sources)
    for _ in lists.read():
        pass
    return lists


def write_marian(lists: Iterable[list[Candidate]], path: Path) -> None:
    """Write lists as Marian does: `id ||| text ||| F0= log-probability ||| score`, ids from 0.

    Among the features are also Tokens=, their number without EOS, and Finished=, 0 for a translation that was cut:
    `open_lists` gives back the same candidates.
    """
    with files.new_file(path) as stream:
        for number, candidates in enumerate(lists):
            for text, score, log_prob, finished, tokens in candidates:
                known = {"F0": log_prob, "Tokens": tokens, "Finished": int(finished)}
                features = " ".join(f"{name}= {value!r}" for name, value in known.items() if value is not None)
                stream.write(f"{number} ||| {text} ||| {features} ||| {score!r}\n")


def _form(line: str) -> str | None:
    if re.match(r"\d+ \|\|\|", line):
        return "marian"
    if line.lstrip().startswith("{"):
        return "jsonl"
    return "fairseq" if FAIRSEQ.match(line) else None


def _marian(lines: Iterator[Line], path: Path, sources: list[str]) -> Iterator[list[Candidate]]:
    def parsed() -> Iterator[tuple[str, int, Candidate]]:
        for number, line in lines:
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            if line.endswith(" |||"):  # Moses: an empty alignment
                line = line[:-4]
            start, _, last = line.rpartition(" ||| ")
            if not _is_number(last) and _is_number(start.rpartition(" ||| ")[2]):  # Moses: an alignment
                line = start
            first, _, rest = line.partition(" ||| ")
            fields = rest.rsplit(" ||| ", 2)  # from the end: a text may hold |||
            if len(fields) == 2 and fields[0].startswith("||| "):  # one space stands for an empty text
                fields = ["", fields[0][4:], fields[1]]
            if len(fields) < 3 or not re.fullmatch("[0-9]{1,12}", first):
                raise UserError(f"{where}: is not `id ||| text ||| features ||| score`, with ids from 0")
            text, features, score = fields
            yield where, int(first), _of_marian(text, features, score, where)

    return _in_order(parsed(), path, sources)


def _of_marian(text: str, features: str, score: str, where: str) -> Candidate:
    names = re.findall(r"(?:^|\s)(\S+?)=\s*(\S+)", features)
    known = dict(names)
    if not {"Tokens", "Finished"} & known.keys():  # not ours: Marian may add fields, Moses ends a text with a space
        for added in (r" \|\|\| WordScores=[^|]*", rf" \|\|\| {ALIGNMENT}"):
            text = re.sub(f"{added}$", "", text)
        text = text.strip()
    only = sum(re.fullmatch("F[0-9]+", name) is not None for name, _ in names) == 1
    log_prob = _number(known["F0"], "F0", where) if only and "F0" in known else None
    tokens = round(_number(known["Tokens"], "Tokens", where)) if "Tokens" in known else None
    finished = "Finished" not in known or _number(known["Finished"], "Finished", where) != 0
    return Candidate(files.one_line(text), _number(score, "score", where), log_prob, finished, tokens)


def _jsonl(lines: Iterator[Line], path: Path, sources: list[str]) -> Iterator[list[Candidate]]:
    def parsed() -> Iterator[tuple[str, int, Candidate]]:
        place = -1
        for number, line in lines:
            if not line.strip():
                continue
            place, where = place + 1, f"{path}, line {number}"
            if place >= len(sources):
                raise UserError(f"{where}: is of source line {place + 1:,}, but there are {len(sources):,}")
            row = json_object(line, where, "hypotheses")
            if row.get("line", place + 1) != place + 1:
                raise UserError(f'{where}: "line" is {row["line"]!r}: this is the list of source line {place + 1}')
            if row.get("source", sources[place]) != sources[place]:
                given, wanted = str(row["source"])[:40], sources[place][:40]
                raise UserError(f'{where}: "source" is {given!r}, but source line {place + 1} is {wanted!r}')
            listed = row.get("hypotheses")
            if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
                raise UserError(f'{where}: "hypotheses" must be a list of objects with "text" and "score"')
            if not listed and sources[place].strip():
                raise UserError(f"{where}: the list is empty")
            for hypothesis in listed:
                yield where, place, _of_json(hypothesis, where)

    return _in_order(parsed(), path, sources)


def _of_json(row: dict, where: str) -> Candidate:
    text, tokens, finished = row.get("text"), row.get("tokens"), row.get("finished", True)
    if not isinstance(text, str):
        raise UserError(f'{where}: "text" is {str(text)[:40]!r}: it must be text')
    if not isinstance(finished, bool) or not (tokens is None or (type(tokens) is int and tokens >= 0)):
        raise UserError(f'{where}: "finished" must be true or false, "tokens" a whole number')
    log_prob = None if row.get("log_prob") is None else _number(row["log_prob"], "log_prob", where)
    text = files.one_line(whole_characters(text, f'{where}: "text"'))
    return Candidate(text, _number(row.get("score"), "score", where), log_prob, finished, tokens)


def _in_order(found: Iterable[tuple[str, int, Candidate]], path: Path, sources: list[str]) -> Iterator[list[Candidate]]:
    """The lists of candidates that come with their ids, from 0 and in order."""
    current: list[Candidate] = []
    last = -1
    for where, place, candidate in found:
        if place != last:
            if place < last:
                raise UserError(f"{where}: id {place} follows {last}: lists must be in the order of the source lines")
            if place >= len(sources):
                raise UserError(f"{where}: id {place} is of source line {place + 1:,}, but there are {len(sources):,}")
            if current:
                yield current
            yield from _blank(sources, last + 1, place, where)
            current, last = [], place
        current.append(candidate)
    if current:
        yield current
    yield from _blank(sources, last + 1, len(sources), f"{path}, at its end")


def _blank(sources: list[str], start: int, end: int, where: str) -> Iterator[list[Candidate]]:
    """Lists for source lines that have none, which must be blank."""
    for place in range(start, end):
        if sources[place].strip():
            raise UserError(f"{where}: there is no list with id {place}, for source line {place + 1:,}")
        yield EMPTY


class Sentence(NamedTuple):
    """What fairseq-generate printed of one sentence."""

    hypotheses: list[tuple[str, float, str]]  # of H-lines: where, score in nats, text
    detokenised: list[tuple[str, float, str]]  # of D-lines
    tokens: list[list[float]]  # of P-lines, which follow those of their hypothesis


def _fairseq(lines: Iterator[Line], path: Path, sources: list[str]) -> Iterator[list[Candidate]]:
    found: dict[int, Sentence] = {}
    for number, line in lines:
        match, where = FAIRSEQ.match(line), f"{path}, line {number}"
        if match is None or match[1] not in "HDP":
            if match is None and re.match(r"[HDP]-?\d", line):
                raise UserError(f"{where}: is not {line[0]}-, a number, a tab and more")
            continue
        kind, place, rest = match[1], int(match[2]), match[3]
        if place >= len(sources):
            raise UserError(f"{where}: id {place} is of source line {place + 1:,}, but there are {len(sources):,}")
        sentence = found.setdefault(place, Sentence([], [], []))
        if kind == "P":
            if len(sentence.tokens) == max(len(sentence.hypotheses), len(sentence.detokenised)) - 1:
                sentence.tokens.append([_number(one, "score", where) * math.log(2) for one in rest.split()])
            continue
        score, tab, text = rest.partition("\t")
        if not tab:
            raise UserError(f"{where}: is not {kind}-{place}, a score and a text, with tabs between")
        listed = sentence.hypotheses if kind == "H" else sentence.detokenised
        listed.append((where, _number(score, "score", where) * math.log(2), text))
    for place, source in enumerate(sources):
        if place not in found and source.strip():
            raise UserError(f"{path}: there is no H- or D-line with id {place}, for source line {place + 1:,}")
        yield _of_fairseq(found[place], place, path) if place in found else EMPTY


def _of_fairseq(sentence: Sentence, number: int, path: Path) -> list[Candidate]:
    """The candidates of one sentence, those of D-lines where there are, best first."""
    plain, detokenised, tokens = sentence
    used = detokenised or plain
    if not used:
        raise UserError(f"{path}: id {number} has P-lines but no H- or D-line")
    if plain and detokenised and [one[1] for one in plain] != [one[1] for one in detokenised]:
        where = detokenised[0][0]
        raise UserError(f"{where}: the D-lines of id {number} have other scores than the H-lines, or are not as many")
    told = len(tokens) == len(used) and all(tokens)
    candidates = []
    for place, (_, score, text) in enumerate(used):
        log_prob, count = (sum(tokens[place]), len(tokens[place]) - 1) if told else (None, None)
        candidates.append(Candidate(files.one_line(text), score, log_prob, True, count))
    return sorted(candidates, key=lambda candidate: -candidate.score)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _number(value: Any, name: str, where: str) -> float:
    if isinstance(value, str | int | float) and not isinstance(value, bool) and _is_number(str(value)):
        return float(value)
    raise UserError(f"{where}: {name} is {str(value)[:40]!r}: it must be a number")


# name -> a reader of numbered lines, for so many source lines
FORMS: dict[str, Callable[[Iterator[Line], Path, list[str]], Iterator[list[Candidate]]]] = {
    "marian": _marian,
    "fairseq": _fairseq,
    "jsonl": _jsonl,
}
