"""The tables of results.json, as sections; a difference without an interval that excludes 1 is not told as one."""

from collections.abc import Iterator, Mapping

from experiments.benchmarks.decoding.systems import BASE, REFERENCE, ROUNDED
from experiments.core.report import interval, speed_up
from experiments.core.tables import Section, Table
from experiments.kim_rush_2016 import published

OURS = "ours is"


def sections(results: Mapping) -> list[Section]:
    """Every table of every model, then the paper's."""
    found = []
    for model in results["models"]:
        tables = [_best(model), _speeds(model), _latencies(model), _starts(model), _growth(model), _agreement(model)]
        found += [Section(model["model"], points=_about(results, model)), *(Section(table=t) for t in tables if t)]
    return [*found, Section("Beside the paper's Table 2", table=_beside_the_paper(results))]


def rows(model: Mapping) -> Iterator[tuple[int, Mapping, str, Mapping]]:
    """(beam, case, system, its numbers) of a model."""
    for of_beam in model["beams"]:
        for case in of_beam["cases"]:
            for system, found in case["systems"].items():
                yield of_beam["beam"], case, system, found


def _about(results: Mapping, model: Mapping) -> list[str]:
    lengths = "random sentences, forced lengths" if model["random"] else "real sentences, natural lengths"
    told = [f"{model['kind']}, {model['parameters']:,} parameters; {model['sentences']:,} {lengths}"]
    rounding = [name for name, ours in model.get("against", {}).items() if ours == ROUNDED]
    told.append(f"ours is {BASE}; beside {', '.join(rounding)} it is {ROUNDED}" if rounding else f"ours is {BASE}")
    told.append(f"rules of the search: {results['settings'].get('rules', 'the defaults')}")
    for of_beam in model["beams"]:
        if "idle_share" in of_beam:  # not in records of older versions
            at = f"beam {of_beam['beam']}, rows {of_beam['best_rows'][BASE]}"
            told.append(f"{at}: {of_beam['idle_share']:.1%} of the engine's slots, over all steps, decode nothing")
    return told + [f"missing: {name}: {reason}" for name, reason in model["missing"].items()]


def _best(model: Mapping) -> Table:
    """Each system at the rows at which it is fastest."""
    lines = []
    for of_beam in model["beams"]:
        cases = {case["rows"]: case for case in of_beam["cases"]}
        for system, best in of_beam["best_rows"].items():
            found, ratio = cases[best]["systems"][system], speed_up(of_beam["speed_ups_at_best"].get(system))
            tokens = interval(found["target_tokens_per_second"])
            lines.append(
                [system, str(of_beam["beam"]), str(best), tokens, f"{found['share_of_peak']['median']:.0%}", ratio]
            )
    head = ["each at its best", "beam", "rows", "target tokens/s", "of peak", OURS]
    return Table(head, lines)


def _speeds(model: Mapping) -> Table:
    head = ["system", "beam", "rows", "sentences/s", "target tokens/s", "of peak", "of bandwidth"]
    scored = any("bleu" in case for _, case, _, _ in rows(model))
    lines = []
    for beam, case, system, found in rows(model):
        rates = [interval(found[f"{what}_per_second"]) for what in ("sentences", "target_tokens")]
        shares = [f"{found[f'share_of_{what}']['median']:.0%}" for what in ("peak", "bandwidth")]
        bleu = [f"{case['bleu'][system]:.2f}" if "bleu" in case else "–"] * scored
        ratio = speed_up(case["speed_ups"].get(system))
        lines.append([system, str(beam), str(case["rows"]), *rates, *shares, *bleu, ratio])
    return Table([*head, *["BLEU"] * scored, OURS], lines)


def _latencies(model: Mapping) -> Table | None:
    milliseconds = lambda value: f"{1000 * value:,.1f}"  # noqa: E731
    single = [(beam, case, system, found) for beam, case, system, found in rows(model) if case["rows"] == 1]
    if not single:
        return None
    lines = []
    for beam, case, system, found in single:
        cells = [interval(found[f"{name}_seconds"], milliseconds) for name in ("p50", "p95")]
        lines.append([system, str(beam), *cells, speed_up(case["speed_ups"].get(system))])
    head = [
        f"{single[0][1]['sentences']:,} sentences, one at a time",
        "beam",
        "p50 ms",
        "p95 ms",
        OURS,
    ]
    return Table(head, lines)


def _starts(model: Mapping) -> Table | None:
    if "starts" not in model:
        return None
    lines = []
    for name, found in model["starts"].items():
        seconds = found["seconds_to_first_translation"]
        first = [interval(seconds[cache]) if cache in seconds else "–" for cache in ("empty", "filled")]
        mib = ["–" if (value := found["bytes"][key]) is None else f"{value / 2**20:,.0f}" for key in found["bytes"]]
        lines.append([name, *first, *mib])
    head = [
        "a new process",
        "s to a translation",
        "with kept programs",
        "MiB libraries",
        "peak",
        "second pass",
        "device",
    ]
    at = next(iter(model["starts"].values()))
    note = (
        "seconds from the start of the process to its first translation of one sentence, without and with compiled "
        f"programs of an earlier one; resident memory at beam {at['beam']}, rows {at['rows']}: with its libraries, the "
        "peak of loading, compiling and decoding, the peak of a second pass; a peer's process also imports ours and "
        "holds our copy of the weights, so its numbers are upper bounds"
    )
    return Table(head, lines, notes=[note])


def _growth(model: Mapping) -> Table | None:
    if "growth" not in model:
        return None
    two, at = lambda value: f"{value:.2f}", model["growth"]["at"]
    lines = [
        [
            axis,
            system,
            ", ".join(map(str, curve["sizes"])),
            ", ".join(f"{one['median']:.2f}" for one in curve["seconds"]),
        ]
        + [interval(curve["exponent"], two) if "exponent" in curve else "–"]
        for axis, curves in model["growth"]["curves"].items()
        for system, curve in curves.items()
    ]
    note = "otherwise " + ", ".join(f"{name} {size}" for name, size in at.items()) + "; length in target tokens"
    return Table(["what grows", "system", "sizes", "seconds", "exponent"], lines, left=3, notes=[note])


def _agreement(model: Mapping) -> Table:
    """Of each system and beam the numbers of rows at which it agreed least."""
    least: dict[tuple, tuple] = {}
    for beam, case, system, _ in rows(model):
        found = case["agreement"].get(system)
        known = least.get((system, beam))
        if found and (known is None or found["identical_tokens"] < known[1]["identical_tokens"]):
            least[system, beam] = case["rows"], found
    lines = []
    for (system, beam), (at, found) in least.items():
        same = f"{found['sentences'] - found['sentences_that_differ']:,} of {found['sentences']:,}"
        length = f"{found['tokens'] / max(found['reference_tokens'], 1):.3f}"
        lines.append([system, str(beam), str(at), same, f"{found['identical_tokens']:.2%}", length])
    note = f"outputs compared with those of {REFERENCE}, token by token, at the rows at which they agree least"
    return Table(["outputs", "beam", "rows", "sentences the same", "tokens the same", "length"], lines, notes=[note])


def _beside_the_paper(results: Mapping) -> Table:
    """Source words/s, ours of each real model one sentence at a time, below the paper's Table 2."""
    number = lambda value: "–" if value is None else f"{value:,.1f}"  # noqa: E731
    lines = [
        [f"Kim & Rush, {line.model}", str(line.beam), *map(number, (line.gpu, line.cpu, line.android)), "–"]
        for line in published.TABLE_2
    ]
    for model in results["models"]:
        for beam, case, system, found in rows(model):
            if case["rows"] == 1 and not model["random"] and system == model["base"]:
                rate = interval(found["source_words_per_second"])
                lines.append([f"{system}, {model['model']}", str(beam), "–", "–", "–", rate])
    head = ["source words/s (here one sentence at a time)", "beam", "Titan X", "their CPU", "Galaxy 6", "here"]
    return Table(head, lines)
