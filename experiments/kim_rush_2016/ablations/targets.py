"""Corpora of the teacher's translations that the main study does not have: `Scale.corpora` puts them in its place."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from experiments.core.study import Workspace
from experiments.kim_rush_2016 import pipeline
from experiments.kim_rush_2016.scale import Scale
from seqkd_jax import distillation
from seqkd_jax.data import corpus
from seqkd_jax.distillation import Candidate
from seqkd_jax.utils import files


def minimum_bayes_risk(workspace: Workspace) -> Path:
    """Of Seq-KD's n-best lists the hypothesis nearest to the others (MBR distillation, Finkelstein & Freitag 2024)."""
    return pipeline.distilled(workspace, workspace.scale.seq_kd_search, 1.0, "mbr", "seq_kd_mbr")


def k_best(workspace: Workspace) -> Path:
    """Every hypothesis of Seq-KD's lists, weighed by the teacher's probability, renormalised over its list.

    Section 3.2 of the paper: the expectation over the K-best list, which it found no better than the mode alone.
    """
    scale, given, by = workspace.scale, pipeline.data(workspace), pipeline.teachers(workspace)
    candidates, _ = pipeline.n_best(workspace, scale.seq_kd_search, 1.0)

    def make(directory: Path) -> None:
        sources = pipeline.read(workspace, given, "train").sources
        lists = pipeline.lists_in(workspace, candidates, by, sources, scale.seq_kd_search)
        lines = [
            files.json_line(dict(zip(scale.languages, (source, text), strict=True)) | {"weight": weight})
            for source, listed in zip(sources, distillation.read_n_best(lists), strict=True)
            for text, weight in renormalised(listed).items()
        ]
        files.write_text(directory / "train.jsonl", "".join(lines))

    return workspace.stage("seq_kd_k_best", None, {"lists": candidates, "data": given}, make)


def renormalised(listed: list[Candidate]) -> Mapping[str, float]:
    """Text -> its share of the list's probability. Equal texts are one; cut ones count only if none is finished."""
    known = [candidate for candidate in listed if candidate.finished] or listed
    best = max(candidate.log_prob for candidate in known)
    shares: dict[str, float] = {}
    for candidate in known:
        shares[candidate.text] = shares.get(candidate.text, 0.0) + math.exp(candidate.log_prob - best)
    total = math.fsum(shares.values())
    return {text: share / total for text, share in shares.items()}


def part(share: float) -> Callable[[Workspace], Path]:
    """A share of Seq-KD's pairs, drawn as Seq-Inter's are."""

    def corpus_of(workspace: Workspace) -> Path:
        scale, whole = workspace.scale, pipeline.seq_kd(workspace)

        def make(directory: Path) -> None:
            pairs = pipeline.read(workspace, whole, "train")
            rows = pipeline.drawn(scale, len(pairs.sources), share)
            pipeline.write_split(directory, "train", scale, corpus.take(pairs, rows))

        return workspace.stage("seq_kd_part", [share, scale.seed], {"whole": whole}, make)

    return corpus_of


def under(scale: Scale) -> Callable[[Workspace], Path]:
    """Seq-KD's corpus as another scale has it made: its teacher's vocabulary need not be the student's."""
    return lambda workspace: pipeline.seq_kd(workspace._replace(scale=scale))
