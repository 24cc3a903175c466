"""Results as tables. Every function takes the dict of results.json, or what it is made of."""

from collections.abc import Mapping, Sequence

from experiments.accelerator.parts import COMPUTE, DECODERS, SUBJECTS
from experiments.core import report
from experiments.core.tables import Section, Table

REFERENCE = "decode-simple"
OURS = ("engine", "simple")


def compared(parts: Mapping[str, Mapping]) -> dict[str, dict]:
    """The parts without the translations, in whose place is the share of tokens that the simple search has too."""
    references = {beam: found["outputs"] for beam, found in parts.get(REFERENCE, {}).get("beams", {}).items()}

    def one(beam: str, found: Mapping) -> dict:
        kept = {key: value for key, value in found.items() if key != "outputs"}
        if beam in references:
            kept["identical_tokens"] = identical(found["outputs"], references[beam])
        return kept

    def without(part: Mapping) -> dict:
        beams = {beam: one(beam, found) for beam, found in part.get("beams", {}).items()}
        return {**part, "beams": beams} if beams else dict(part)

    return {name: without(part) for name, part in parts.items()}


def identical(outputs: Sequence[Sequence[int]], reference: Sequence[Sequence[int]]) -> float:
    """The share of tokens that are the same at the same place."""
    pairs = list(zip(outputs, reference, strict=True))
    same = sum(a == b for x, y in pairs for a, b in zip(x, y, strict=False))
    return same / max(1, sum(max(len(x), len(y)) for x, y in pairs))


def sections(results: Mapping) -> list[Section]:
    """What ran where, a table for each kind of part, and what was left out."""
    parts, settings, machine = results["parts"], results["settings"], results["machine"]
    peaks = ", ".join(
        f"{rate / 1e12:,.1f} TFLOP/s in {compute}" for compute, rate in machine["matrix_flops_per_second"].items()
    )
    points = [
        f"`{results['command']}`, commit {report.short_commit(results)}",
        f"{', '.join(machine['devices'])}; {results['host_cpu']}; one device measured {peaks} matrix products, "
        f"{machine['memory_bytes_per_second'] / 1e9:,.0f} GB/s of memory",
        f"jax {machine['jax']}; seed {settings['seed']}; medians, in brackets 95% intervals by order statistics",
        "each part in a process of its own, one after the other: ratios have no interval",
    ]
    if settings["toy"]:
        points.append("Toy sizes: the numbers mean nothing.")
    tables = [
        ("Training on one device", _training(parts)),
        ("Decoding on one device", _decoding(parts)),
        ("Several seeds in one step", _replicas(parts.get("replicas"))),
        ("The main comparison of Kim & Rush, by seeds", _seeds(parts.get("seeds"))),
    ]
    found = [Section(title, table=table) for title, table in tables if table]
    left_out = [f"{name}: {reason}" for name, reason in results["left_out"].items()]
    return [
        Section("Accelerator", points=points),
        *found,
        *([Section("Left out", points=left_out)] if left_out else []),
    ]


def _training(parts: Mapping) -> Table | None:
    rows = []
    for subject in SUBJECTS:
        for compute in COMPUTE:
            ours, theirs = parts.get(f"train-{subject}-{compute}"), parts.get(f"train-{subject}-{compute}-pytorch")
            if ours is None:
                continue
            share = f"{ours['share_of_peak']['median']:.0%}"
            cells = [report.interval(ours["tokens_per_second"]), share, f"{ours['start_seconds']:.0f}"]
            cells += _beside(ours, theirs)
            rows.append([ours["about"], compute, *cells])
    head = ["update", "type", "target tokens/s", "of the peak", "start, s", "PyTorch, compiled", "times as fast"]
    return Table(head, rows, left=2) if rows else None


def _beside(ours: Mapping, theirs: Mapping | None) -> list[str]:
    if theirs is None:
        return ["–", "–"]
    rates = [part["tokens_per_second"] for part in (ours, theirs)]
    return [report.interval(rates[1]), f"{rates[0]['median'] / rates[1]['median']:.2f}"]


def _decoding(parts: Mapping) -> Table | None:
    rows = []
    for name, system in DECODERS.items():
        for beam, found in parts.get(f"decode-{name}", {}).get("beams", {}).items():
            rates = [report.interval(found[f"{what}_per_second"]) for what in ("sentences", "tokens")]
            same = f"{found['identical_tokens']:.2%}" if "identical_tokens" in found else "–"
            share = f"{found['share_of_peak']['median']:.1%}"
            rows.append([system, beam.removeprefix("beam"), *rates, share, same, f"{found['start_seconds']:.0f}"])
    head = ["system", "beam", "sentences/s", "target tokens/s", "of the peak", "tokens as simple", "start, s"]
    return Table(head, rows) if rows else None


def _replicas(found: Mapping | None) -> Table | None:
    if not found:
        return None
    rows = []
    for model in found["models"]:
        seconds = model["seconds"]
        times = [f"{1000 * seconds[way]:.1f}" for way in ("solo", "vmap", "map")]
        rows.append([model["setup"], model["model"], *times, f"{seconds['solo'] / seconds['vmap']:.2f}"])
    head = ["set-up", "model", f"solo × {found['replicas']}, ms", "vmap, ms", "map, ms", "vmap: times as fast"]
    return Table(head, rows, left=2)


def _seeds(found: Mapping | None) -> Table | None:
    if not found:
        return None
    rows = [[name, str(len(scores)), f"{sum(scores) / len(scores):.2f}"] for name, scores in found["bleu"].items()]
    added = report.interval(found["seq_kd_adds"], lambda value: f"{value:+.2f}")
    note = f"scale {found['scale']}, {found['sentences']:,} test sentences; Seq-KD adds {added} BLEU"
    return Table(["student", "seeds", "mean BLEU"], rows, notes=[note])
