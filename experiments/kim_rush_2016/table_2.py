"""Table 2: source words a second of the teacher and its students, greedily and with a beam of 5 (`--speed`).

What is read is the record of the decoding benchmark, which has timed some of the study's checkpoints:

    python -m experiments.benchmarks.decoding --checkpoint TEACHER STUDENT --input test.en --batches 1 32 --out SPEED
    python -m experiments.kim_rush_2016 --scale multi30k --data DIR --speed SPEED

Its models are those of the study with as many parameters; others are left out.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.core.claims import Claim, Part, judged
from experiments.core.intervals import Parts, Spread, between
from experiments.core.report import interval
from experiments.core.results import named
from experiments.core.tables import Section, Table
from experiments.kim_rush_2016.published import SMALLER, TABLE_2, Speed
from seqkd_jax.types import UserError
from seqkd_jax.utils.untrusted import require_form

BENCHMARK = "decoding_speed"
TIMES = 10.0  # that the student is faster (the paper's abstract)
WORDS = {"median": float, "low": (float, type(None)), "high": (float, type(None))}
CASE = {"rows": int, "systems": {...: {"source_words_per_second": WORDS}}}
MODEL = {"parameters": int, "base": str, "beams": [{"beam": int, "cases": [CASE]}]}
# Of the record, what is read of it.
FORM = {"command": str, "commit": str, "host_cpu": str, "devices": [str], "settings": dict, "models": [MODEL]}


def read(directory: Path) -> dict:
    """The record of the benchmark; UserError for what is none."""
    path = directory / "results.json" if directory.is_dir() else directory
    name, record = named(path)
    if name != BENCHMARK:
        raise UserError(f"--speed {path}: is no record of the decoding benchmark; name one that it has written")
    return require_form(record, FORM, path, "measure it anew")


def entries(directory: Path, arms: Sequence[Mapping]) -> dict:
    """results.json's `speed`: where it was measured, and each model at each beam. UserError: none is of this run."""
    record = read(directory)
    known = {arm["parameters"]: arm["model"] for arm in arms}
    lines = [
        {
            "model": known[model["parameters"]],
            "parameters": model["parameters"],
            "beam": of_beam["beam"],
            "rows": case["rows"],
            "words": case["systems"][model["base"]]["source_words_per_second"],
        }
        for model in record["models"]
        if model["parameters"] in known
        for of_beam in model["beams"]
        for case in of_beam["cases"]
    ]
    if not lines:
        counts = ", ".join(f"{model['parameters']:,}" for model in record["models"])
        raise UserError(f"--speed {directory}: its models have {counts} parameters, which no arm of this run has")
    told = {name: record[name] for name in ("command", "commit", "host_cpu", "devices")}
    return {**told, "rules": record["settings"].get("rules"), "lines": lines}


def sections(results: Mapping) -> list[Section]:
    """The paper's table, and ours below it: one sentence at a time, and at the number of rows that is fastest."""
    found = results.get("speed")
    if not found:
        return []
    number = lambda value: "–" if value is None else f"{value:,.1f}"  # noqa: E731
    slowest = _printed("4×1000", 5)
    rows = [
        [f"paper, {line.model}", str(line.beam), *map(number, (line.gpu, line.cpu, line.android))]
        + [f"{line.gpu / slowest.gpu:.1f} / {line.cpu / slowest.cpu:.1f}", "–", "–", "–"]
        for line in TABLE_2
    ]
    lines = _fastest(found["lines"])
    base = lines.get((_teacher(found), 5))
    for (model, beam), best in sorted(lines.items(), key=lambda pair: (pair[0][1], -pair[1]["parameters"])):
        single = next((line for line in found["lines"] if _is(line, model, beam, 1)), None)
        one = interval(single["words"]) if single else "–"
        times = f"{best['words']['median'] / base['words']['median']:.1f}" if base else "–"
        ours = [times, one, interval(best["words"]), str(best["rows"])]
        rows.append([f"here, {model}", str(beam), "–", "–", "–", *ours])
    head = ["source words/s", "beam", "Titan X", "their CPU", "Galaxy 6", "times the teacher with a beam of 5"]
    notes = [
        "here: the engine, medians with 95% intervals over rounds; one: a sentence at a time; batches: at the number "
        f"of rows that is fastest. {found['host_cpu']}; rules of the search: {found['rules'] or 'the defaults'}; "
        f"`{found['command']}`",
        "times: of the paper on its GPU / CPU. The paper's numbers are from secondary texts; how many sentences at a "
        "time they are of is not known",
    ]
    return [Section("Table 2: decoding speed", table=Table([*head, "one", "batches", "rows"], rows, 1, notes))]


def claims(results: Mapping) -> list[Claim]:
    """Whether each student, greedily, is so many times as fast as its teacher with a beam of 5. Not corrected yet.

    Both are taken at the number of rows that is fastest. The interval is over the benchmark's rounds: how fast a model
    is follows from its shape, not from its seed.
    """
    found = results.get("speed")
    lines = _fastest(found["lines"]) if found else {}
    base = lines.get((_teacher(found), 5)) if lines else None
    if base is None:
        return []
    text = f"a student is {TIMES:g} times as fast greedily as its teacher with a beam of 5"
    return [
        judged(model, text, [_times(line, base)])
        for (model, beam), line in lines.items()
        if beam == 1 and line["parameters"] < base["parameters"]
    ]


def _times(of_student: Mapping, of_teacher: Mapping) -> Part:
    """How many times as fast, by the logarithm."""
    found = between(_rate(of_student, TIMES), _rate(of_teacher))
    slow, fast = _printed("4×1000", 5), _printed("2×500", 1)
    printed = fast.gpu / slow.gpu, fast.cpu / slow.cpu
    told = "{:.1f} times on a GPU, {:.1f} on a CPU, with {:.1f} times fewer parameters".format(*printed, SMALLER)
    fewer = of_teacher["parameters"] / of_student["parameters"]
    measured = f"{TIMES * math.exp(found.size):.1f} times, with {fewer:.1f} times fewer parameters"
    return Part(found, measured, 0, told, [math.log(times / TIMES) for times in printed])


def _rate(line: Mapping, parts: float = 1.0) -> Parts:
    """The logarithm of a part of its words a second, which rounds alone make uncertain; too few tell nothing."""
    words = line["words"]
    middle = math.log(words["median"] / parts)
    if words["low"] is None:
        return Parts(middle, None)
    return Parts(middle, Spread(0.0, math.inf), (math.log(words["low"] / parts), math.log(words["high"] / parts)))


def _printed(model: str, beam: int) -> Speed:
    """The paper's line."""
    return next(line for line in TABLE_2 if (line.model, line.beam) == (model, beam))


def _teacher(found: Mapping) -> str:
    """The largest model."""
    return max(found["lines"], key=lambda line: line["parameters"])["model"]


def _fastest(lines: Sequence[Mapping]) -> dict[tuple[str, int], Mapping]:
    best: dict[tuple[str, int], Mapping] = {}
    for line in lines:
        key = line["model"], line["beam"]
        if key not in best or line["words"]["median"] > best[key]["words"]["median"]:
            best[key] = line
    return best


def _is(line: Mapping, model: str, beam: int, rows: int) -> bool:
    return (line["model"], line["beam"], line["rows"]) == (model, beam, rows)
