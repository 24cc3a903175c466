"""The study as a value: what its command takes, how a line is made, what results.json says of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.core import dry_run
from experiments.core.study import Options, Study, Workspace
from experiments.kim_rush_2016 import comparisons, evaluations, pipeline
from experiments.kim_rush_2016 import study as main_study
from experiments.kim_rush_2016.ablations import tables, top_k
from experiments.kim_rush_2016.ablations.lines import LINES, Ablation, Line, first_of, repeats
from experiments.kim_rush_2016.arms import BASELINE
from experiments.kim_rush_2016.rows import label
from experiments.kim_rush_2016.scale import Scale, computed
from experiments.kim_rush_2016.scales import asked_for
from experiments.kim_rush_2016.tables import REQUIRED
from seqkd_jax.config import ComputeType
from seqkd_jax.types import UserError
from seqkd_jax.utils import files


@dataclass(frozen=True, kw_only=True)
class Command(Options):
    """Settings and choices of Kim & Rush 2016, each varied alone. Stages are those of the main run, where it made them.

    --only takes a group (alpha, temperature, smoothing, loss, top_k, k, targets, size, selection, vocabulary, beam,
    beam_alone, transformer_student, transformer_teacher) or a line ("alpha 0.9").
    """

    scale: str = "smoke"
    """smoke, multi30k, or another of the main study."""
    seeds: int = 2
    """Of each line; an interval takes at least two."""
    compute: ComputeType = "float32"
    """Type of the products of all models."""


def scales(command: Command) -> dict[str, Scale]:
    """The main study's, of one language pair each."""
    asked = asked_for(command.scale)
    if command.seeds < 1:
        raise UserError(f"--seeds {command.seeds}: it must be at least 1")
    seeds = dict.fromkeys((BASELINE, *(line.arm.name for line in LINES)), command.seeds)
    chosen = (computed(scale, command.compute) for scale in asked)
    return {scale.name: replace(scale, seeds=seeds, max_compilations=0) for scale in chosen}


def lines(scale: Scale) -> list[Line]:
    """Every run, the seeds of a line one after the other."""
    return [Line(ablation, place) for ablation in LINES for place in range(scale.seeds[ablation.arm.name])]


def needs(scale: Scale, line: Line) -> Iterable[Line]:
    """What it is compared with."""
    return [line._replace(ablation=first_of(line.ablation.group))]


def varied(workspace: Workspace, ablation: Ablation) -> Workspace:
    """The workspace under the line's scale."""
    return workspace._replace(scale=ablation.vary(workspace.scale))


def evaluate(workspace: Workspace, line: Line) -> Path:
    """The evaluation's stage."""
    under = varied(workspace, line.ablation)
    return evaluations.measured(under, line.row(under.scale))


def collect(workspace: Workspace, evaluated: Mapping[Line, Path], out: Path) -> dict:
    """What results.json says beside what ran."""
    counts = files.read_json(pipeline.data(workspace) / "counts.json")
    compared = files.read_json(_significance(workspace, evaluated) / "significance.json")
    made = _by_ablation(evaluated)
    asked = sorted(int(one.value) for one in made if one.group == "top_k" and one.value != "all")
    return {
        "data": {split: count["sha256"] for split, count in counts.items()},
        "model": label(workspace.scale.models["student"][0]),
        "arms": [_entry(workspace, of, evaluated, compared) for of in made.values()],
        **({"top_k": top_k.measured(workspace, asked)} if asked else {}),
    }


def _by_ablation(evaluated: Iterable[Line]) -> dict[Ablation, list[Line]]:
    found: dict[Ablation, list[Line]] = {}
    for line in evaluated:
        found.setdefault(line.ablation, []).append(line)
    return found


def _entry(workspace: Workspace, of: Sequence[Line], evaluated: Mapping[Line, Path], compared: Mapping) -> dict:
    ablation, under = of[0].ablation, varied(workspace, of[0].ablation)
    rows = {line.row(under.scale): evaluated[line] for line in of}
    entry = main_study.entry(under, list(rows), rows, {}, {})
    del entry["outputs"]
    told = {"arm": ablation.name, "group": ablation.group, "value": ablation.value}
    against = {"against": first_of(ablation.group).name, "significance": compared.get(ablation.name, {})}
    return entry | told | against


def _significance(workspace: Workspace, evaluated: Mapping[Line, Path]) -> Path:
    """The lines of each group against its first, and that against them, over resampled test sentences."""
    given = {line.key: path for line, path in evaluated.items()}

    def make(directory: Path) -> None:
        seeds = {
            ablation: [evaluations.resampled(workspace, evaluated[line], None) for line in of]
            for ablation, of in _by_ablation(evaluated).items()
        }
        compared: dict[str, dict] = {}
        for ablation in seeds:
            first = first_of(ablation.group)
            for own, other in ((ablation, first), (first, ablation)) if first in seeds and ablation != first else ():
                compared.setdefault(own.name, {})[other.name] = comparisons.compare(seeds[own], seeds[other])
        files.write_json(directory / "significance.json", compared)

    return workspace.stage("ablations-significance", comparisons.COMPARISONS, given, make)


# Dry run


def plan(scale: Scale, line: Line) -> dry_run.Plan:
    """What a dry run must know of a line's training; one that an earlier line has made, too, has no updates."""
    under = line.ablation.vary(scale)
    if under.corpora:  # as many updates as on the main study's corpus, whatever the length of this one
        under = replace(under, training=scale.training)
    found = main_study.plan(under, line.row(under))
    return found._replace(updates=0) if repeats(line.ablation) else found


def further(scale: Scale, chosen: Sequence[Line]) -> list[tuple[str, float]]:
    """The teachers and their n-best lists, each once."""
    found: dict[str, float] = {}
    for ablation in _by_ablation(chosen):
        under, arm = ablation.vary(scale), ablation.arm
        by = f"{under.teacher_arm} {label(under.teacher)}"
        training = f"training of {under.ensemble} × {by}"
        if training not in found and (arm.corpus in pipeline.TAUGHT or arm.loss != "nll"):
            of_teacher = main_study.plan(under, under.teacher_row)
            found[training] = under.ensemble * of_teacher.updates * dry_run.update_flops(of_teacher)
        for what, flops in main_study.further(under, [Line(ablation).row(under)]):
            found[f"{what}, by {under.ensemble} × {by}"] = under.ensemble * flops
    return list(found.items())


ABOUT = (
    "Settings and choices of [Sequence-Level Knowledge Distillation](https://arxiv.org/abs/1606.07947), each varied "
    "alone beside the setting of the main run: the weight and temperature of Word-KD, other losses in its place, the "
    "teacher's beam, which of its translations are the targets, how many, and by which similarity; other vocabularies "
    "and architectures. The first line of each table is what its others are compared with."
)

STUDY = Study(
    name="kim_rush_2016.ablations",
    title="Kim & Rush 2016: ablations",
    about=ABOUT,
    options=Command,
    scales=scales,
    load=main_study.load,
    size=main_study.size,
    arms=lines,
    needs=needs,
    evaluate=evaluate,
    collect=collect,
    plan=plan,
    required=("group", "value", *REQUIRED),
    claims=tables.claims,
    sections=tables.sections,
    plots={"ablations": tables.plot},
    headline=tables.headline,
    findings=tables.findings,
    shares="kim_rush_2016",
    further=further,
)
