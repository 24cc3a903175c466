"""Results as tables, and the paper's Table 2 beside our numbers. Every function takes the dict of results.json.

A speed-up whose interval holds 1 is not given as one. Systems that this version does not have are left out.
"""

from collections.abc import Iterator, Mapping

from experiments.benchmarks.decoding.worker import REFERENCE, SYSTEMS
from experiments.core.report import interval, speed_up
from experiments.core.tables import Section, Table
from experiments.kim_rush_2016 import published


def sections(results: Mapping) -> list[Section]:
    """Every table of every model, then the paper's."""
    found = []
    for model in results["models"]:
        tables = [_agreement(model), _speeds(model), _latencies(model), _starts(model), _memory(model), _growth(model)]
        found += [Section(model["model"], points=_about(results, model)), *(Section(table=t) for t in tables if t)]
    return [*found, Section("Beside the paper's Table 2", table=_beside_the_paper(results))]


def rows(model: Mapping) -> Iterator[tuple[Mapping, str, Mapping]]:
    """(case, system, its numbers) of a model."""
    for case in model["cases"]:
        for system, found in case["systems"].items():
            if system in SYSTEMS:
                yield case, system, found


def _about(results: Mapping, model: Mapping) -> list[str]:
    lengths = "random sentences, forced lengths" if model["random"] else "real sentences, natural lengths"
    told = [f"{model['kind']}, {model['parameters']:,} parameters; {model['sentences']:,} {lengths}"]
    told.append(f"rules of the search: {results['settings'].get('rules', 'the defaults')}")
    return told + [f"missing: {name}: {reason}" for name, reason in model["missing"].items()]


def _agreement(model: Mapping) -> Table:
    """Of each system and beam the numbers of rows at which it agreed least."""
    least: dict[tuple, tuple] = {}
    for case in model["cases"]:
        for system, found in case["agreement"].items():
            known = least.get((system, case["beam"]))
            if system in SYSTEMS and (known is None or found["identical_tokens"] < known[1]["identical_tokens"]):
                least[system, case["beam"]] = case["rows"], found
    lines = []
    for (system, beam), (at, found) in least.items():
        same = f"{found['sentences'] - found['sentences_that_differ']:,} of {found['sentences']:,}"
        length = f"{found['tokens'] / max(found['reference_tokens'], 1):.3f}"
        lines.append([system, str(beam), str(at), same, f"{found['identical_tokens']:.2%}", length])
    note = f"outputs compared with those of {REFERENCE}, token by token, at the rows at which they agree least"
    return Table(["outputs", "beam", "rows", "sentences the same", "tokens the same", "length"], lines, notes=[note])


def _speeds(model: Mapping) -> Table:
    head = ["system", "beam", "rows", "sentences/s", "source words/s", "target tokens/s", "of peak", "of bandwidth"]
    lines, scored = [], any("bleu" in case for case in model["cases"])
    for case, system, found in rows(model):
        rates = [interval(found[f"{what}_per_second"]) for what in ("sentences", "source_words", "target_tokens")]
        shares = [f"{found[f'share_of_{what}']['median']:.0%}" for what in ("peak", "bandwidth")]
        ratio = speed_up(case["speed_ups"].get(system))
        bleu = [f"{case['bleu'][system]:.2f}" if "bleu" in case else "–"] * scored
        lines.append([system, str(case["beam"]), str(case["rows"]), *rates, *shares, *bleu, ratio])
    return Table([*head, *["BLEU"] * scored, f"{model['base']} is"], lines)


def _latencies(model: Mapping) -> Table | None:
    milliseconds = lambda value: f"{1000 * value:,.1f}"  # noqa: E731
    lines = [
        [system, str(case["beam"]), *(interval(found[f"{name}_seconds"], milliseconds) for name in ("p50", "p95"))]
        for case, system, found in rows(model)
        if case["rows"] == 1
    ]
    return Table(["one sentence at a time", "beam", "p50 ms", "p95 ms"], lines) if lines else None


def _starts(model: Mapping) -> Table:
    lines = []
    for case, system, found in rows(model):
        cells = model["load_seconds"][system], found["first_seconds"], found["compile_seconds"]
        warm = found["seconds"]["median"]
        load, first, compiling, later = (f"{cell:.2f}" for cell in (*cells, warm))
        if "loaded_programs" in found:
            compiling = f"{compiling} ({found['loaded_programs']} of {found['compilations']} programs were loaded)"
        lines.append([system, str(case["beam"]), str(case["rows"]), load, first, compiling, later])
    return Table(["seconds", "beam", "rows", "load", "first pass", "of it compiling", "a later pass"], lines)


def _memory(model: Mapping) -> Table | None:
    if "memory" not in model:
        return None
    found = model["memory"]
    mib = lambda value: "–" if value is None else f"{value / 2**20:,.0f}"  # noqa: E731
    lines = [
        [name, *(mib(of[key]) for key in ("before", "first", "again", "device"))]
        for name, of in found["systems"].items()
        if name in SYSTEMS
    ]
    note = (
        "resident memory of a process that runs this system alone: with its libraries loaded; the peak of loading, "
        "compiling and decoding (a peer's process also holds our copy of the weights); the peak of a second pass"
    )
    head = [f"MiB, beam {found['beam']}, rows {found['rows']}", "libraries", "peak", "second pass", "device"]
    return Table(head, lines, notes=[note])


def _growth(model: Mapping) -> Table | None:
    if "growth" not in model:
        return None
    found, two = model["growth"], lambda value: f"{value:.2f}"
    lines = [
        [system, ", ".join(map(str, curve["sizes"])), interval(curve["exponent"], two)]
        for system, curve in found["curves"]["length"].items()
    ]
    head = [f"time by length, beam {found['at_beam']}, rows {found['rows']}", "target tokens", "exponent"]
    return Table(head, lines, left=2)


def _beside_the_paper(results: Mapping) -> Table:
    """Source words/s, ours of each real model one sentence at a time, below the paper's Table 2."""
    number = lambda value: "–" if value is None else f"{value:,.1f}"  # noqa: E731
    lines = [
        [f"Kim & Rush, {line.model}", str(line.beam), *map(number, (line.gpu, line.cpu, line.android)), "–"]
        for line in published.TABLE_2
    ]
    for model in results["models"]:
        for case, system, found in rows(model):
            if case["rows"] == 1 and not model["random"] and system == model["base"]:
                rate = interval(found["source_words_per_second"])
                lines.append([f"{system}, {model['model']}", str(case["beam"]), "–", "–", "–", rate])
    head = ["source words/s (here one sentence at a time)", "beam", "Titan X", "their CPU", "Galaxy 6", "here"]
    return Table(head, lines)
