"""Results as a person reads them: Markdown tables, and the paper's Table 2 beside our numbers. Plots are in `plots`.

Every function takes the dict of results.json. A speed-up whose interval holds 1 is not printed as one.
"""

from collections.abc import Mapping

from experiments.benchmarks.decoding.systems import REFERENCE
from experiments.core.report import interval, markdown, short_commit, speed_up
from experiments.kim_rush_2016 import published


def report(results: Mapping) -> str:
    """The whole Markdown text."""
    parts = ["# Decoding speed", _machine(results)]
    for model in results["models"]:
        parts += [f"## {model['model']}", _about(model), _agreement(model), _speeds(model), _latencies(model)]
        parts += [_parts(model), _waste(model), _memory(model), _growth(model)]
    parts.append(_beside_the_paper(results))
    return "\n\n".join(part for part in parts if part) + "\n"


def _machine(results: Mapping) -> str:
    machine, versions = results["machine"], results["versions"] | results["peer_versions"]
    shown = ("jax", "jaxlib", "ctranslate2", "transformers", "torch")
    lines = [
        f"`{results['command']}`, commit {short_commit(results)}",
        f"{', '.join(results['devices'])}; {results['host_cpu']}; measured "
        f"{machine['matrix_flops_per_second'] / 1e9:,.0f} GFLOP/s in matrix products and "
        f"{machine['memory_bytes_per_second'] / 1e9:,.1f} GB/s of memory",
        ", ".join(f"{name} {versions[name]}" for name in shown if name in versions),
        f"{results['settings']['rounds']} interleaved rounds, seed {results['settings']['seed']}; medians, in brackets "
        "95% intervals by order statistics; ratios are paired by round",
        f"the search's rules: {results['settings'].get('rules', 'the defaults')}",
    ]
    if results["settings"]["smoke"]:
        lines.append("**A smoke run: tiny sizes, the numbers mean nothing.**")
    return "\n".join(f"- {line}" for line in lines)


def _about(model: Mapping) -> str:
    lengths = "random sentences, forced lengths" if model["random"] else "real sentences, natural lengths"
    lines = [f"{model['kind']}, {model['parameters']:,} parameters; {model['sentences']:,} {lengths}"]
    lines += [f"Missing: {name}: {reason}" for name, reason in model["missing"].items()]
    if model["tokenising"]:
        of = model["tokenising"]
        lines.append(f"Tokenising {of['lines']:,} lines takes {of['encode_seconds']:.3f} s; nobody is charged for it")
    return "\n".join(f"- {line}" for line in lines)


def _agreement(model: Mapping) -> str:
    """Of each system and beam the numbers of rows at which it agreed least."""
    least: dict[tuple, tuple] = {}
    for case in model["cases"]:
        for system, found in case["agreement"].items():
            known = least.get((system, case["beam"]))
            if known is None or found["identical_tokens"] < known[1]["identical_tokens"]:
                least[system, case["beam"]] = case["rows"], found
    rows = []
    for (system, beam), (at, found) in least.items():
        same = f"{found['sentences'] - found['sentences_that_differ']:,} of {found['sentences']:,}"
        length = f"{found['tokens'] / max(found['reference_tokens'], 1):.3f}"
        rows.append([system, str(beam), str(at), same, f"{found['identical_tokens']:.2%}", length])
    if not rows:
        return ""
    head = ["outputs", "beam", "rows", "sentences the same", "tokens the same", "length"]
    note = f"Outputs compared with those of {REFERENCE}, token by token; the rows at which they agree least:"
    return "\n".join([note, "", *markdown(head, rows, left=1)])


def _speeds(model: Mapping) -> str:
    head = ["system", "beam", "rows", "sentences/s", "source words/s", "target tokens/s", "of peak", "of bandwidth"]
    head.append(f"{model['base']} is")
    rows = []
    for case in model["cases"]:
        for system, found in case["systems"].items():
            rates = [found[f"{what}_per_second"] for what in ("sentences", "source_words", "target_tokens")]
            cells = [system, str(case["beam"]), str(case["rows"]), *map(interval, rates)]
            cells += [f"{found[f'share_of_{what}']['median']:.0%}" for what in ("peak", "bandwidth")]
            rows.append([*cells, speed_up(case["speed_ups"].get(system))])
    return "\n".join(markdown(head, rows, left=1))


def _latencies(model: Mapping) -> str:
    milliseconds = lambda value: f"{1000 * value:,.1f}"  # noqa: E731
    rows = [
        [system, str(case["beam"]), *(interval(found[f"{name}_seconds"], milliseconds) for name in ("p50", "p95"))]
        for case in model["cases"]
        for system, found in case["systems"].items()
        if case["rows"] == 1
    ]
    head = ["one sentence at a time", "beam", "p50 ms", "p95 ms"]
    return "\n".join(markdown(head, rows, left=1)) if rows else ""


def _parts(model: Mapping) -> str:
    head = ["seconds", "beam", "rows", "load", "first pass", "compiling", "warm", "encode", "transfer", "decode"]
    keys = ("first", "compile", "warm_up", "encode", "transfer", "decode")
    rows = []
    for case in model["cases"]:
        for system, found in case["systems"].items():
            cells = [f"{model['load_seconds'][system]:.2f}", *(_seconds(found[f"{key}_seconds"]) for key in keys)]
            rows.append([system, str(case["beam"]), str(case["rows"]), *cells])
    note = "encode, transfer: run apart; decode: a timed pass without them; –: this system cannot be taken apart."
    return "\n".join([*markdown(head, rows, left=1), "", note])


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _waste(model: Mapping) -> str:
    lines = []
    for case in model["cases"]:
        shares = {name: found["padding_waste"] for name, found in case["systems"].items()}
        told = ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share is not None)
        if case["beam"] == model["cases"][-1]["beam"] and told:
            lines.append(f"Source positions that are padding, rows {case['rows']}: {told}")
        for name, steps in case.get("steps", {}).items():
            told = f"{steps['waste']:.1%} of {steps['computed']:,}" if steps else "cannot be counted"
            where = f"beam {case['beam']}, rows {case['rows']}, {name}"
            lines.append(f"Steps of finished or filling rows, {where}: {told}")
    return "\n".join(f"- {line}" for line in lines)


def _memory(model: Mapping) -> str:
    if "memory" not in model:
        return ""
    found = model["memory"]
    megabytes = lambda value: "–" if value is None else f"{value / 2**20:,.0f}"  # noqa: E731
    rows = [
        [name, *(megabytes(of[key]) for key in ("before", "first", "again", "device"))]
        for name, of in found["systems"].items()
    ]
    head = [f"MiB, beam {found['beam']}, rows {found['rows']}", "libraries", "peak", "second pass", "device"]
    note = (
        "Resident memory of a process that runs this system alone: with its libraries loaded; the peak of loading, "
        "compiling and decoding (a peer's process also holds our copy of the weights); the peak of a second pass."
    )
    return "\n".join([*markdown(head, rows, left=1), "", note])


def _growth(model: Mapping) -> str:
    if "growth" not in model:
        return ""
    two = lambda value: f"{value:.2f}"  # noqa: E731
    rows = [
        [
            axis,
            system,
            ", ".join(map(str, curve["sizes"])),
            interval(curve["exponent"], two) if curve["exponent"] else "–",
        ]
        for axis, curves in model["growth"]["curves"].items()
        for system, curve in curves.items()
    ]
    compiled = model["growth"]["compilations"]
    pairs = zip(compiled["sizes"], compiled["compilations"], strict=True)
    told = ", ".join(f"{count} at {size:,}" for size, count in pairs)
    lines = markdown(["time grows with", "system", "sizes", "exponent"], rows, left=3)
    lines += ["", f"Programs compiled by the size of the corpus (sentences): {told}."]
    if "file_memory" in model["growth"]:
        found = model["growth"]["file_memory"]
        pairs = zip(found["lines"], found["bytes"], strict=True)
        told = ", ".join(f"{size / 2**20:,.0f} MiB at {count:,}" for count, size in pairs)
        lines.append(f"Peak memory of `seqkd translate` by the lines of the file: {told}.")
    return "\n".join(lines)


def _beside_the_paper(results: Mapping) -> str:
    """Source words/s, ours of each real model one sentence at a time, below the paper's Table 2."""
    rows = [
        [f"Kim & Rush, {line.model}", str(line.beam), *(_number(x) for x in (line.gpu, line.cpu, line.android)), "–"]
        for line in published.TABLE_2
    ]
    for model in results["models"]:
        for case in model["cases"]:
            if case["rows"] == 1 and not model["random"]:
                rate = interval(case["systems"][model["base"]]["source_words_per_second"])
                rows.append([f"{model['base']}, {model['model']}", str(case["beam"]), "–", "–", "–", rate])
    head = ["source words/s (here one sentence at a time)", "beam", "Titan X", "their CPU", "Galaxy 6", "here"]
    return "\n".join(["## Beside the paper's Table 2", "", *markdown(head, rows, left=1)])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}"
