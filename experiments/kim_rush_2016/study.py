"""The study as a value: what its command takes, how an arm is made, what results.json says of it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import jax
import numpy as np

from experiments.core import dry_run, outputs, stages
from experiments.core.claims import corrected
from experiments.core.study import Options, Study, Workspace, read
from experiments.kim_rush_2016 import (
    charts,
    claims,
    comparisons,
    evaluations,
    explanation,
    explanation_tables,
    length,
    pipeline,
    plots,
    states,
    table_2,
    table_3,
    tables,
)
from experiments.kim_rush_2016.arms import BASELINE, BEAMS, TEACHER, against
from experiments.kim_rush_2016.rows import Row, by_arm, label, start_of
from experiments.kim_rush_2016.scale import Scale, computed, longer, rows, with_seeds
from experiments.kim_rush_2016.scales import MORE_MODES, asked_for
from seqkd_jax import models
from seqkd_jax.config import BatchConfig, ComputeType, ModelConfig
from seqkd_jax.losses import LOSSES
from seqkd_jax.types import Batch, Translator, UserError
from seqkd_jax.utils import files

PADDING = 1.1  # cells for each id in a bucketed batch, about


@dataclass(frozen=True, kw_only=True)
class Command(Options):
    """Kim & Rush 2016: a teacher, students distilled from it in every way of the paper, and a table beside theirs."""

    scale: str = "smoke"
    """smoke (minutes on two cores), multi30k or tatoeba (days on two cores), multi30k-words (as the paper measured),
    paper or paper-authors (two recipes), or a language pair of these, as paper-en-de."""
    seeds: int | None = None
    """Of each arm, instead of as many as the scale has. --only seq_kd-2x100-seed1 makes the second seed of one arm."""
    epochs: int | None = None
    """Of students that start at random, instead of the scale's; a copy of OUT/stages saves the teacher's work."""
    teachers: int = 1
    """Seeds of the teacher that have students, where a scale says which: how much is the teacher's luck?"""
    pruning: bool = False
    """Also table 3: the best student pruned, retrained on Seq-KD data, then fine-tuned on Seq-Inter data."""
    explanation: bool = False
    """Also the paper's explanation, measured: exact modes, search errors, mass, entropy, oracles, decoder states."""
    beside: Path | None = None
    """tatoeba: a directory with results.json of multi30k, to tell whether Seq-KD gains more here."""
    speed: Path | None = None
    """Also table 2: a directory with the results.json of the decoding benchmark, run on checkpoints of this study."""
    compute: ComputeType = "float32"
    """Type of matrix products and activations of all models. bfloat16_products takes half the time on CPUs with AMX."""


def scales(command: Command) -> dict[str, Scale]:
    """The language pairs of a scale."""
    asked = asked_for(command.scale)
    if command.seeds is not None and command.seeds < 1:
        raise UserError(f"--seeds {command.seeds}: it must be at least 1")
    if command.epochs is not None and command.epochs < 1:
        raise UserError(f"--epochs {command.epochs}: it must be at least 1")
    chosen = map(table_3.added, asked) if command.pruning else asked
    chosen = map(explanation.added, chosen) if command.explanation else chosen
    seeded = [with_seeds(scale, command.seeds) if command.seeds else scale for scale in chosen]
    seeded = [longer(scale, command.epochs) if command.epochs else scale for scale in seeded]
    found = {scale.name: replace(computed(scale, command.compute), teachers=command.teachers) for scale in seeded}
    if command.teachers != 1 and not all(command.teachers > 1 and scale.others for scale in found.values()):
        raise UserError(
            f"--teachers {command.teachers}: give 1, or 2 and more on a scale that says which arms they have"
        )
    if command.speed:
        table_2.read(command.speed)  # now, not after hours
        found = {name: replace(scale, speed=command.speed) for name, scale in found.items()}
    if command.beside:
        found = {name: replace(scale, beside=_summary(name, command.beside)) for name, scale in found.items()}
    return found


def _summary(name: str, directory: Path) -> dict:
    """What the claims of a scale read of the run that it is compared with."""
    if name not in MORE_MODES:
        raise UserError(f"--beside has no effect on scale {name}: it is for {', '.join(MORE_MODES)}; leave it out")
    found = comparisons.summary(read(STUDY, directory / "results.json"))
    if found["scale"] != MORE_MODES[name]:
        raise UserError(f"--beside {directory}: is of scale {found['scale']}; name a run of {MORE_MODES[name]}")
    return found


def load(scale: Scale, data: Path | None) -> Path | None:
    """Where the corpus is; None: the toy language."""
    pair = data and data / "-".join(scale.languages)
    return pair if pair and pair.is_dir() else data


def size(workspace: Workspace) -> str:
    """How many pairs each split has, and of which languages."""
    counts = workspace.scale.toy
    if not counts:
        read = files.read_json(pipeline.data(workspace) / "counts.json")
        counts = [read[split]["pairs"] for split in pipeline.SPLITS]
    pairs = ", ".join(f"{count:,} {split}" for count, split in zip(counts, pipeline.SPLITS, strict=True))
    return f"{pairs} pairs, {' to '.join(workspace.scale.languages)}"


def needs(scale: Scale, row: Row) -> Iterable[Row]:
    """What it is fine-tuned from, and the teacher if it learns from it or is measured on its outputs."""
    start = start_of(row)
    taught = row.arm.corpus in pipeline.TAUGHT or LOSSES[row.arm.loss].needs_teacher
    own = [_teacher_of(scale, row)] if taught else [scale.teacher_row] if scale.explanation else []
    return ([start] if start else []) + own


def collect(workspace: Workspace, evaluated: Mapping[Row, Path], out: Path) -> dict:
    """What results.json says beside what ran."""
    pruned = {row: path for row, path in evaluated.items() if row.arm.pruning}
    whole = {row: path for row, path in evaluated.items() if row not in pruned}
    lines = by_arm(whole)
    tuned = {row: length.tuned(workspace, row) for row in whole} if workspace.scale.end_bonuses else {}
    compared = files.read_json(evaluations.significance(workspace, whole, tuned) / "significance.json")
    counts, speed = files.read_json(pipeline.data(workspace) / "counts.json"), workspace.scale.speed
    explained = explanation.entries(workspace, whole) if workspace.scale.explanation else []
    arms = [entry(workspace, of, whole, tuned, compared) for row, of in lines.items() if not row.teacher]
    return {
        "data": {split: count["sha256"] for split, count in counts.items()},
        "arms": arms,
        "other_teachers": [entry(workspace, of, whole, tuned, compared) for row, of in lines.items() if row.teacher],
        **({"speed": table_2.entries(speed, arms)} if speed else {}),
        **({"pruned": table_3.entries(workspace, whole, pruned)} if pruned else {}),
        **({"beside": workspace.scale.beside} if workspace.scale.beside else {}),
        **({"states": states.entries(explained), "explanation": explained} if explained else {}),
        "outputs": outputs.copy(evaluations.outputs(workspace, evaluated), out),
        "distilled": {name: _card(workspace, name) for name in ("seq_kd", "seq_inter")},
    }


def evaluate(workspace: Workspace, row: Row) -> Path:
    """The row's evaluation; of an arm of table 1 also that with tuned lengths and the explanation, where the scale has
    them."""
    found = evaluations.measured(workspace, row)
    if workspace.scale.end_bonuses and not row.arm.pruning:
        length.tuned(workspace, row)
    if workspace.scale.explanation and workspace.make and explanation.concerns(row):
        explanation.measured(workspace, row)
    return found


def entry(
    workspace: Workspace,
    rows: Sequence[Row],
    evaluated: Mapping[Row, Path],
    tuned: Mapping[Row, Path],
    compared: Mapping[str, dict],
) -> dict:
    """One of results.json's `arms`: means over its seeds, and of several seeds the numbers of each in `by_seed`.

    How it was trained is that of the first, but for commits and seconds, which are those of all.
    """
    first, seeds = rows[0], [pipeline.of_row(workspace.scale, row).seed for row in rows]
    runs, config = [pipeline.training(workspace, row) for row in rows], pipeline.of_row(workspace.scale, first)
    manifests, found = (
        [stages.read_manifest(run) for run in runs],
        [evaluations.numbers(workspace, evaluated[row]) for row in rows],
    )
    for row, numbers in zip(rows, found, strict=True):
        of_lengths = files.read_json(tuned[row] / "results.json") if row in tuned else {}
        numbers |= {name: value for name, value in of_lengths.items() if isinstance(value, float)}
    by_seed = {name: [one[name] for one in found] for name, value in found[0].items() if isinstance(value, float)}
    return {
        "arm": first.arm.name,
        "model": label(first.model),
        "against": against(first.arm),
        **(
            {"teacher": pipeline.of_row(workspace.scale, _teacher_of(workspace.scale, first)).seed}
            if first.teacher
            else {}
        ),
        "outputs": {beam: evaluations.output_name(first, beam) for beam in BEAMS},
        **found[0],
        **{name: math.fsum(values) / len(values) for name, values in by_seed.items()},
        "seed": config.seed,
        **({"seeds": seeds, "by_seed": by_seed} if len(rows) > 1 else {}),
        "significance": compared.get(first.label, {}),
        "training": {
            "start": first.arm.start,
            "corpus": first.arm.corpus,
            "loss": first.arm.loss,
            "config": asdict(config),
            "commits": list(dict.fromkeys(commit for how in manifests for commit in how["commits"])),
            "seconds": math.fsum(how["seconds"] for how in manifests),
            **files.read_json(runs[0] / "summary.json"),
        },
    }


def _teacher_of(scale: Scale, row: Row) -> Row:
    return scale.teacher_row._replace(place=row.teacher)


def _card(workspace: Workspace, name: str) -> dict | None:
    """The numbers of a distilled corpus's card; None if no arm needed it."""
    try:
        card = files.read_json(pipeline.CORPORA[name](workspace._replace(make=False)) / "card.json")
    except stages.NotMade:
        return None
    return {key: value for key, value in card.items() if isinstance(value, int | float | str | None)}


def samples(workspace: Workspace, evaluated: Mapping[Row, Path], count: int = 4) -> str:
    """Some test sentences under the teacher, the baseline and Seq-KD, greedily: for the screen, not for a file."""
    shown = [row for row in by_arm(evaluated) if row.arm.name in (TEACHER, BASELINE, "Seq-KD") and not row.teacher]
    sources = pipeline.read(workspace, pipeline.data(workspace), "test").sources
    outputs = {row.key: files.read_json(evaluated[row] / "outputs.json") for row in shown}
    lines = []
    for place in np.linspace(0, len(sources) - 1, count).astype(int) if outputs else ():
        lines.append(f"\nsource: {sources[place]}")
        lines.append(f"  reference: {next(iter(outputs.values()))['references'][place]}")
        lines += [f"  {key}: {output['beam1'][place]}" for key, output in outputs.items()]
    return "\n".join(lines) + "\n"


# Dry run


def build(scale: Scale, config: ModelConfig) -> Translator:
    """A model with the scale's whole vocabulary."""
    return models.build(config, scale.vocabulary.size, scale.vocabulary.size)


def plan(scale: Scale, row: Row) -> dry_run.Plan:
    """What a dry run must know of a row's training: of a corpus as long as gold, or the share of fine-tuning."""
    config = pipeline.train_config(scale, row.arm)
    pairs = scale.facts.pairs * (scale.seq_inter_share if row.arm.corpus in pipeline.OF_A_SHARE else 1.0)
    sentences = config.batch.sentences or config.batch.tokens / (scale.facts.target_length * PADDING)
    updates = config.epochs * math.ceil(pairs / sentences)
    return dry_run.Plan(
        model=build(scale, row.model),
        config=config,
        updates=min(updates, config.max_steps) if config.max_steps else updates,
        batch=_batch(scale, config.batch, largest=False),
        largest=_batch(scale, config.batch, largest=True),
        teacher=build(scale, scale.teacher) if LOSSES[config.loss.name].needs_teacher else None,
    )


def _batch(scale: Scale, batch: BatchConfig, largest: bool) -> Batch:
    """A batch of shapes without content: the largest there is, or one of mean length."""
    source, target = batch.max_source + 1, batch.max_target + 1
    if not largest:
        source, target = (math.ceil(mean * PADDING) for mean in (scale.facts.source_length, scale.facts.target_length))
    count = batch.sentences or max(1, batch.tokens // target)
    if scale.shapes:
        count, source, target = scale.shapes[-1]
    ids = [jax.ShapeDtypeStruct((count, width), np.int32) for width in (source, target, target)]
    return Batch((ids[0], ids[1]), ids[2], jax.ShapeDtypeStruct((count, target), np.float32))


def further(scale: Scale, chosen: Sequence[Row]) -> list[tuple[str, float]]:
    """The n-best lists that the arms need, and what explains them."""
    searches = {"seq_kd": (scale.seq_kd_search, 1.0), "seq_inter": (scale.seq_inter_search, scale.seq_inter_share)}
    lengths, lists = (scale.facts.source_length, scale.facts.target_length), []
    for corpus, (search, share) in searches.items():
        if any(row.arm.corpus == corpus for row in chosen):
            each = dry_run.decoding_flops(build(scale, scale.teacher), *lengths, search.beam)
            sentences = round(share * scale.facts.pairs)
            lists.append((f"{corpus}: n-best lists with K={search.beam} for {sentences:,} sentences", each * sentences))
    if scale.explanation:
        lists.append(explanation.cost(scale, list(filter(explanation.concerns, chosen)), partial(build, scale)))
    return lists


ABOUT = (
    "[Sequence-Level Knowledge Distillation](https://arxiv.org/abs/1606.07947): a large translation model, the "
    "teacher, teaches a small one, the student. Word-KD: the student learns the teacher's distribution at every "
    "position, beside the reference. Seq-KD: it is trained on the teacher's beam-search outputs. Seq-Inter: it is "
    "fine-tuned on that hypothesis of the teacher's n-best list that is nearest to the reference. Baseline: the "
    "student without a teacher."
)

PARTS = (claims, table_2, table_3, explanation)  # what has claims of its own, in the order in which they are told
STUDY = Study(
    name="kim_rush_2016",
    title="Kim & Rush 2016",
    about=ABOUT,
    options=Command,
    scales=scales,
    load=load,
    size=size,
    arms=rows,
    needs=needs,
    evaluate=evaluate,
    collect=collect,
    plan=plan,
    further=further,
    samples=samples,
    required=tables.REQUIRED,
    claims=lambda results: corrected([claim for part in PARTS for claim in part.claims(results)]),
    sections=lambda results: [
        *tables.sections(results),
        *table_2.sections(results),
        *table_3.sections(results),
        *explanation_tables.sections(results),
    ],
    plots=plots.PLOTS
    | {"pruning": table_3.plot, "explanation": explanation_tables.plot, "decoder_states": states.plot},
    charts=charts.CHARTS,
    compared=(BASELINE, "Seq-KD"),
    headline=tables.headline,
    findings=tables.findings,
)
