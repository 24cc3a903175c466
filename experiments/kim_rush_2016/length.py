"""BLEU with lengths as good as they can be: how readily a translation ends, chosen on the validation set.

Outputs that are too long or too short lose BLEU for that alone, so an arm may gain by its lengths what it does not gain
by its words. Here a constant, the end bonus, is added to the logit of EOS in every step: above zero it makes outputs
shorter, below zero longer. It acts on a greedy search too, which has no hypotheses of other lengths to choose from. Of
the scale's constants each system takes, greedily and with the beam, the one with the best BLEU on the validation set,
of equal ones the nearest to zero, and translates the test set with it once.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.core.study import Workspace
from experiments.kim_rush_2016 import pipeline
from experiments.kim_rush_2016.rows import Row
from seqkd_jax import checkpoint
from seqkd_jax.data.corpus import Corpus
from seqkd_jax.decoding import Decoding, translate_lines
from seqkd_jax.evaluation import metrics
from seqkd_jax.types import EOS, System
from seqkd_jax.utils import files, progress

PARAMETER = "output_bias"  # is added to the logits


def tuned(workspace: Workspace, row: Row) -> Path:
    """results.json and outputs.json of the row under the bonuses that were chosen; both empty without `PARAMETER`."""
    scale, given, weights = workspace.scale, pipeline.data(workspace), pipeline.trained(workspace, row)

    def make(directory: Path) -> None:
        system, results, outputs = checkpoint.load_translator(weights).system, {}, {}
        valid, test = (pipeline.read(workspace, given, split) for split in ("valid", "test"))
        searches = pipeline.searches(scale) if with_bonus(system.params, 0.0) is not None else {}
        passes = len(searches) * (len(scale.end_bonuses) + 1)
        with progress.counter(passes, f"lengths {row.key}", "passes") as advance:
            for beam, rules in searches.items():
                measure = _measuring(system, rules, pipeline.tokenizer(workspace), advance)
                on_valid = {bonus: measure(valid, bonus)[1] for bonus in scale.end_bonuses}
                best = chosen({bonus: found.bleu for bonus, found in on_valid.items()})
                outputs[beam], found = measure(test, best)
                named = {**found._asdict(), "end_bonus": float(best)}
                results |= {f"tuned_{name}_{beam}": value for name, value in named.items()}
                results[f"valid_{beam}"] = [[bonus, *found] for bonus, found in on_valid.items()]
        files.write_json(directory / "results.json", results)
        files.write_json(directory / "outputs.json", outputs)

    settings = [*pipeline.decoded_by(scale), scale.end_bonuses]
    inputs = {"data": given, "checkpoint": weights, "vocabulary": pipeline.learned_vocabulary(workspace)}
    return workspace.stage(f"lengths-{row.key}", settings, inputs, make)


def _measuring(system: System, rules: Decoding, tokenize: str, advance: Callable[[float], None]) -> Callable:
    """(corpus, bonus) -> (a line for each source, their scores)."""

    def measure(corpus: Corpus, bonus: float) -> tuple[list[str], metrics.CorpusScores]:
        shifted = system._replace(params=with_bonus(system.params, bonus))
        lines = [found.text for found in translate_lines(shifted, corpus.sources, rules, n_best=1)]
        references = metrics.metric_references(system.vocabularies, corpus.targets, tokenize)
        advance(1)
        return lines, metrics.score(lines, references, tokenize)

    return measure


def with_bonus(params: Any, bonus: float) -> Any:
    """The parameters of a model whose logit of EOS is larger by so much; None if it adds nothing to its logits."""
    found = []

    def shifted(path: tuple, leaf: Any) -> Any:
        if getattr(path[-1], "key", None) != PARAMETER:
            return leaf
        found.append(path)
        changed = np.array(leaf)
        changed[EOS] += bonus
        return changed

    changed = jax.tree_util.tree_map_with_path(shifted, params)
    return changed if found else None


def chosen(bleu: Mapping[float, float]) -> float:
    """The bonus with the best BLEU; of equal ones the nearest to zero."""
    return max(bleu, key=lambda bonus: (bleu[bonus], -abs(bonus)))
