"""What is measured of trained arms, in stages as `pipeline` has them for what is trained.

  an arm's checkpoint -> its evaluation -> numbers of a seed
                              all evaluations -> significance, outputs

`comparisons` has the statistics; `length` tunes the rules that some evaluations are repeated under.
"""

import statistics
from collections.abc import Mapping
from pathlib import Path

from experiments.core.outputs import Outputs
from experiments.core.outputs import write as write_outputs
from experiments.core.study import Workspace
from experiments.kim_rush_2016 import comparisons
from experiments.kim_rush_2016.arms import ARMS, BASELINE, BEAMS, TEACHER, against, control_of
from experiments.kim_rush_2016.pipeline import (
    data,
    decoded_by,
    decoding,
    learned_vocabulary,
    read,
    shapes,
    tokenizer,
    trained,
)
from experiments.kim_rush_2016.rows import Row, by_arm
from seqkd_jax import checkpoint, models
from seqkd_jax.data import toy
from seqkd_jax.evaluation import evaluation, metrics
from seqkd_jax.utils import files


def measured(workspace: Workspace, row: Row) -> Path:
    """The row's results.json, and its outputs."""
    scale, given, weights = workspace.scale, data(workspace), trained(workspace, row)

    def make(directory: Path) -> None:
        loaded = checkpoint.load_translator(weights)
        result = evaluation.evaluate(
            loaded.system,
            read(workspace, given, "test"),
            decoding(scale, scale.evaluation),
            batch=scale.batch,
            tokenize=tokenizer(workspace),
            shapes=shapes(workspace),
            repetitions=scale.timed_repetitions,
            timed_sentences=scale.timed_sentences,
            name=f"evaluate {row.key}",
        )
        parameters = models.parameter_count(loaded.model)
        measured = {"parameters": parameters, **result.results, **(_truth(result, workspace) if scale.toy else {})}
        files.write_json(directory / "results.json", measured)
        files.write_json(directory / "outputs.json", {**result.outputs, "references": result.references})
        files.write_json(directory / "probabilities.json", result.probabilities)

    settings = [
        *decoded_by(scale),
        scale.timed_sentences,
        scale.timed_repetitions,
        scale.toy is not None,
        "probabilities of sources that are not empty",  # which an older stage has not kept
    ]
    inputs = {"data": given, "checkpoint": weights, "vocabulary": learned_vocabulary(workspace)}
    return workspace.stage(f"evaluate-{row.key}", settings, inputs, make)


def _truth(result: evaluation.Evaluation, workspace: Workspace) -> dict[str, float]:
    """Of the toy language we know what is right: the share of outputs that are, and that are the very mode."""
    sources = read(workspace, data(workspace), "test").sources
    shares = {}
    for beam, outputs in result.outputs.items():
        pairs = list(zip(sources, outputs, strict=True))
        shares[f"right_share_{beam}"] = statistics.fmean(toy.is_right(*pair) for pair in pairs)
        shares[f"mode_share_{beam}"] = statistics.fmean(toy.mode(source)[0] == output for source, output in pairs)
    return shares


def numbers(workspace: Workspace, evaluated: Path) -> dict:
    """What was measured of one seed, and what its outputs tell besides: recall, and BLEU as the paper has it, if the
    scale does.
    """
    outputs, tokenize = files.read_json(evaluated / "outputs.json"), tokenizer(workspace)
    references, found = outputs["references"], files.read_json(evaluated / "results.json")
    for beam in BEAMS:
        found[f"recall_{beam}"] = metrics.recall(outputs[beam], references, tokenize)
        if workspace.scale.multi_bleu:
            found[f"multi_bleu_{beam}"] = metrics.multi_bleu(outputs[beam], references)
    return found


def significance(workspace: Workspace, evaluated: Mapping[Row, Path], tuned: Mapping[Row, Path]) -> Path:
    """Every arm against its model's baseline, the teacher and its control, over resampled test sentences.

    tuned: of each row what `length.tuned` made; {}: of none.
    """
    given = {row.key: path for row, path in evaluated.items()}
    given |= {f"lengths {row.key}": path for row, path in tuned.items()}

    def make(directory: Path) -> None:
        seeds = {
            arm: [resampled(workspace, evaluated[row], tuned.get(row)) for row in of]
            for arm, of in by_arm(evaluated).items()
        }
        compared: dict[str, dict] = {}
        for row in seeds:
            for reference in [other for other in seeds if other != row and _compared(row, other)]:
                found = comparisons.compare(seeds[row], seeds[reference])
                compared.setdefault(row.label, {})[reference.arm.name] = found
        files.write_json(directory / "significance.json", compared)

    return workspace.stage("significance", comparisons.COMPARISONS, given, make, version=2)


def _compared(row: Row, reference: Row) -> bool:
    """Whether a reference's arm is one that every arm is compared with, or the control of this one.

    A student of a further teacher is compared with its baseline, and with the same arm under the first teacher.
    """
    if reference.teacher:
        return False
    if row.teacher:
        return row.model == reference.model and reference.arm.name in (BASELINE, row.arm.name)
    of_model = row.model == reference.model
    every = {against(arm) for arm in ARMS}
    return reference.arm.name == TEACHER or of_model and reference.arm.name in {*every, control_of(row.arm)}


def resampled(workspace: Workspace, path: Path, tuned: Path | None) -> comparisons.Resampled:
    """An evaluation on resamples of its test sentences. tuned: what `length.tuned` made; None: nothing."""
    found, outputs = numbers(workspace, path), files.read_json(path / "outputs.json")
    if tuned:
        found |= files.read_json(tuned / "results.json")
        outputs |= {f"tuned_{beam}": lines for beam, lines in files.read_json(tuned / "outputs.json").items()}
    probabilities = files.read_json(path / "probabilities.json")
    return comparisons.resampled(found, outputs, probabilities, tokenizer(workspace))


def outputs(workspace: Workspace, evaluated: Mapping[Row, Path]) -> Path:
    """The outputs of every row, as text, with their sentence chrF; of the toy language also whether each is right."""
    inputs = {"data": data(workspace), **{row.key: path for row, path in evaluated.items()}}

    def make(directory: Path) -> None:
        sources = read(workspace, inputs["data"], "test").sources
        found = {row.key: files.read_json(path / "outputs.json") for row, path in evaluated.items()}
        references = next((of_row["references"] for of_row in found.values()), [])
        texts = {
            output_name(row, beam): lines
            for row in evaluated
            for beam, lines in found[row.key].items()
            if beam != "references"
        }
        pairs = {pair for lines in texts.values() for pair in zip(lines, references, strict=True)}
        chrf = {pair: round(metrics.sentence_chrf([pair[0]], pair[1], "")[0], 1) for pair in sorted(pairs)}
        measures: dict[str, dict] = {
            name: {"chrf": [chrf[pair] for pair in zip(lines, references, strict=True)]}
            for name, lines in texts.items()
        }
        for name, lines in texts.items() if workspace.scale.toy else ():
            measures[name]["right"] = [int(toy.is_right(*pair)) for pair in zip(sources, lines, strict=True)]
        write_outputs(directory, Outputs(sources, references, texts, measures))

    return workspace.stage("outputs", workspace.scale.toy is not None, inputs, make)


def output_name(row: Row, beam: str) -> str:
    """Of a row's outputs, as files and as results.json names them."""
    return f"{row.key}.{beam}"
