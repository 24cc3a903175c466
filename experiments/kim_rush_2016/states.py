"""The paper's figure of decoder states: where the hypotheses of one beam end, and where their probability is.

The states of a beam's finished hypotheses, from which their end is predicted, are laid out on a plane by t-SNE.
Contours are their probabilities, smoothed over the plane. Before distillation the mass lies in many
places, and the top of the beam may be far from the reference. A figure illustrates one sentence and proves nothing: it
is the first of median length among those that are measured, whatever it shows.
"""

from collections.abc import Sequence

import jax
import numpy as np

from experiments.core.plots import pyplot
from experiments.kim_rush_2016.arms import BASELINE, TEACHER
from seqkd_jax.decoding import Translation
from seqkd_jax.distillation.selection import kim_rush
from seqkd_jax.evaluation.representations import tsne
from seqkd_jax.types import BOS, EOS, PAD, System

ARMS = (TEACHER, BASELINE, "Seq-KD")  # whose panels are drawn, of the first student


def place_of(sources: Sequence[str]) -> int:
    """The sentence that is shown: the first of median length."""
    lengths = [len(source.split()) for source in sources]
    return lengths.index(sorted(lengths)[len(lengths) // 2])


def of_sentence(system: System, translation: Translation, reference: str, tokenize: str) -> dict:
    """Each finished hypothesis of a beam, best first, and the reference, last: where its state is on the plane.

    points [N+1,2]; of the N hypotheses log_probs and nearest, the one that is most similar to the reference.
    """
    found = [one for one in translation.hypotheses if one.finished]
    wanted = system.vocabularies.target.encode(reference)
    vectors = end_states(system, translation.source, [*(one.tokens for one in found), wanted])
    similar = kim_rush([one.text for one in found], reference, tokenize)
    return {
        "points": tsne(vectors).round(3).tolist(),
        "log_probs": [one.log_prob for one in found],
        "nearest": int(np.argmax(similar)) if found else None,
    }


def end_states(system: System, source: str, targets: Sequence[Sequence[int]]) -> np.ndarray:
    """The features [N,E] from which the end of each target is predicted."""
    translator, params, vocabularies = system
    ids, width = [*vocabularies.source.encode(source), EOS], max(map(len, targets)) + 1
    target_in = np.full((len(targets), width), PAD, np.int32)
    for row, target in zip(target_in, targets, strict=True):
        row[: len(target) + 1] = [BOS, *target]
    sources = np.tile(np.array(ids, np.int32), (len(targets), 1))
    features = np.asarray(jax.jit(translator.features)(params, (sources, target_in), None))
    return features[np.arange(len(targets)), [len(target) for target in targets]]


def entries(explained: Sequence[dict]) -> list[dict]:
    """results.json's `states`: the panels, taken out of the entries of `explanation`."""
    panels = [{"arm": one["arm"], "model": one["model"], **one.pop("states")} for one in explained]
    chosen = (next((panel for panel in panels if panel["arm"] == arm), None) for arm in ARMS)
    return [panel for panel in chosen if panel is not None]


def plot(results: dict):
    """A panel for the teacher, the baseline and Seq-KD."""
    panels = results.get("states")
    if not panels:
        return None
    figure, every = pyplot.subplots(1, len(panels), figsize=(3.4 * len(panels), 3.6), layout="constrained")
    for axes, panel in zip(np.atleast_1d(every), panels, strict=True):
        points, p = np.array(panel["points"]), np.exp(panel["log_probs"])
        own, reference = points[:-1], points[-1]
        if len(own):
            axes.contourf(*_smoothed(points, own, p), levels=8, cmap="Blues", alpha=0.8)
            axes.scatter(*own.T, s=12, c="#444444", linewidths=0, label="hypotheses")
            axes.scatter(*own[0], s=70, marker="*", c="#2ca02c", edgecolors="white", label="top of the beam", zorder=3)
            nearest = own[panel["nearest"]]
            axes.scatter(*nearest, s=45, marker="D", c="#9467bd", edgecolors="white", label="nearest to the reference")
        axes.scatter(*reference, s=45, marker="s", c="#d62728", edgecolors="white", label="reference")
        axes.set_title(f"{panel['arm']}, {panel['model']}\nmass of {len(own)} hypotheses: {p.sum():.1%}", fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    handles, labels = np.atleast_1d(every)[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _smoothed(points: np.ndarray, own: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x [80], y [80] and the probabilities there [80,80], by Gaussians a tenth as wide as the plane."""
    low, high = points.min(axis=0), points.max(axis=0)
    wide = max(float(np.max(high - low)), 1e-6) / 10
    x, y = (np.linspace(least - 2 * wide, most + 2 * wide, 80) for least, most in zip(low, high, strict=True))
    squares = (x[None, :, None] - own[:, 0]) ** 2 + (y[:, None, None] - own[:, 1]) ** 2
    return x, y, np.exp(-squares / (2 * wide**2)) @ p
