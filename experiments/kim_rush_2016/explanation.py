"""The paper's explanation, measured (`--explanation`): where a model's mass is, and whether a search finds it.

Kim & Rush explain why greedy search suffices after Seq-KD by the mode: it has most of the mass. They took a beam
search's output for the mode. Here the mode is found exactly and proven, where the limit of prefixes allows it, so that
search errors are counted and not guessed. results.json's `explanation` has an entry for each training run.

  exact     the proven modes, their probability, which searches miss them
  lists     n-best lists of each beam: their mass, and the best translation in them (an oracle)
  entropy   of the next token, along references and along a model's own outputs; perplexities
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.core import dry_run, stages
from experiments.core.claims import Claim, Part, judged
from experiments.core.intervals import estimate, mean, of_seeds
from experiments.core.study import Workspace
from experiments.kim_rush_2016 import evaluations, pipeline, scales, states
from experiments.kim_rush_2016.arms import BASELINE
from experiments.kim_rush_2016.claims import SEVERAL, percent
from experiments.kim_rush_2016.rows import Row, label
from experiments.kim_rush_2016.scale import Explanation, Scale
from seqkd_jax import checkpoint
from seqkd_jax.config import BatchConfig, ExactConfig
from seqkd_jax.data import corpus
from seqkd_jax.data.batches import Shape
from seqkd_jax.decoding import Decoding, Translation, translate_lines
from seqkd_jax.decoding.modes import SAME, Mode, modes
from seqkd_jax.decoding.search import greedy_rules
from seqkd_jax.distillation.selection import kim_rush
from seqkd_jax.evaluation import likelihood, metrics
from seqkd_jax.types import System
from seqkd_jax.utils import files, progress

BEAMS = (1, 2, 5, 10, 35)  # 1: greedy; 5: of Seq-KD's data; 35: of Seq-Inter's
SEARCHED = (1, 2, 5, 10)  # whose search errors are told
AMOUNTS = {"smoke": Explanation(200, 2000)}  # of scales that are measured less than the others
OTHERWISE = Explanation(500, 10_000)
PROGRAMS = 40  # more than without: searches by five beams, exact searches, entropies, of two sizes of model


def added(scale: Scale) -> Scale:
    """The scale with this part."""
    most = scale.max_compilations and scale.max_compilations + PROGRAMS
    return replace(scale, explanation=AMOUNTS.get(scale.name, OTHERWISE), max_compilations=most)


def concerns(row: Row) -> bool:
    """Whether a row is explained: of table 1, and of the first teacher."""
    return not row.arm.pruning and not row.teacher


# Made


def measured(workspace: Workspace, row: Row) -> Path:
    """explanation.json of a row, and sentences.json: of each sentence what the searches found."""
    scale, asked = workspace.scale, workspace.scale.explanation
    given, weights = pipeline.data(workspace), pipeline.trained(workspace, row)
    inputs = {"data": given, "checkpoint": weights, "vocabulary": pipeline.learned_vocabulary(workspace)}
    inputs["teacher"] = evaluations.measured(workspace, scale.teacher_row)

    def make(directory: Path) -> None:
        system, tokenize = checkpoint.load_translator(weights).system, pipeline.tokenizer(workspace)
        test = pipeline.read(workspace, given, "test")
        places = np.linspace(0, len(test.sources) - 1, min(asked.sentences, len(test.sources))).astype(int)
        chosen = corpus.take(test, places)
        passes = (len(BEAMS) + 1) * len(places)
        with progress.counter(passes, f"explain {row.key}", "sentences") as advance:
            lists = {
                beam: list(translate_lines(system, chosen.sources, rules(scale, beam), progress=advance))
                for beam in BEAMS
            }
            exact = ExactConfig(nodes=asked.nodes)
            decoding = rules(scale, exact.beam)
            found = list(modes(system, chosen.sources, exact, decoding=decoding, progress=advance))
        references = metrics.metric_references(system.vocabularies, chosen.targets, tokenize)
        teacher = files.read_json(inputs["teacher"] / "outputs.json")["beam5"]
        others = {
            "references": chosen,
            "teacher": chosen._replace(targets=[teacher[place] for place in places]),
            "own": chosen._replace(targets=[translation.text for translation in lists[1]]),
        }
        numbers = {
            **of_searches(found, lists),
            **of_lists(lists, references, tokenize),
            **_bleu(found, lists, references, tokenize),
            **_uncertainty(system, others, scale.batch, pipeline.shapes(workspace)),
        }
        shown = states.place_of(chosen.sources)
        numbers["states"] = states.of_sentence(system, lists[35][shown], chosen.targets[shown], tokenize)
        files.write_json(directory / "explanation.json", numbers)
        files.write_json(directory / "sentences.json", _sentences(found, lists))

    made_by = [asked, list(BEAMS), scale.evaluation, *pipeline.decoded_by(scale)[1:]]
    return workspace.stage(f"explain-{row.key}", made_by, inputs, make)


def rules(scale: Scale, beam: int) -> Decoding:
    """How a beam of this size searches: by the scale's rules, of which the paper's have no length rule."""
    search = replace(scale.evaluation, beam=beam)
    return pipeline.decoding(scale, greedy_rules(search) if beam == 1 else search)


def log_probs(translations: Sequence[Translation]) -> np.ndarray:
    """Of each best translation; -inf where it was cut, since that is no translation."""
    best = [translation.hypotheses[0] for translation in translations]
    return np.array([one.log_prob if one.finished else -np.inf for one in best])


def of_searches(found: Sequence[Mode], lists: Mapping[int, Sequence[Translation]]) -> dict[str, Any]:
    """The modes and what searches miss of them.

    proven: share of the sentences; of these alone: mode, the mean probability of the mode, searched and errors: that of
    each beam's output, and the share of sentences for which that is another, less probable one. known: over all
    sentences, the mean probability of the most probable translation that anything found, at most that of the mode;
    missed: the share for which an output is less probable than that, at most that of the errors.
    """
    proven = np.array([one.proven for one in found])
    mode = np.array([one.log_prob for one in found])
    best = {beam: log_probs(lists[beam]) for beam in lists}
    known = np.max([mode, *best.values()], axis=0)
    of_proven = lambda values: float(np.mean(values[proven])) if proven.any() else None  # noqa: E731
    return {
        "sentences": len(found),
        "proven": float(np.mean(proven)),
        "nodes": float(np.mean([one.nodes for one in found])),
        "mode": of_proven(np.exp(mode)),
        "empty": of_proven(np.array([not one.tokens and bool(one.source.strip()) for one in found], float)),
        "searched": {str(beam): of_proven(np.exp(best[beam])) for beam in SEARCHED},
        "errors": {str(beam): of_proven((mode > best[beam] + SAME).astype(float)) for beam in SEARCHED},
        "known": float(np.mean(np.exp(known))),
        "missed": {str(beam): float(np.mean(known > best[beam] + SAME)) for beam in SEARCHED},
        "greedy_is_beam": float(np.mean([one.text == other.text for one, other in zip(*_pair(lists), strict=True)])),
    }


def _pair(lists: Mapping[int, Sequence[Translation]]) -> tuple[Sequence[Translation], Sequence[Translation]]:
    return lists[1], lists[5]


def of_lists(
    lists: Mapping[int, Sequence[Translation]], references: Sequence[str], tokenize: str
) -> dict[str, dict[str, float]]:
    """By beam: the mass of the finished translations in a list, and the mean sentence BLEU (0 to 100) of the first and
    of the nearest to the reference, by the rule of Seq-Inter."""
    mass: dict[str, float] = {}
    oracle: dict[str, float] = {}
    first: dict[str, float] = {}
    for beam, translations in lists.items():
        scored = [
            kim_rush([one.text for one in translation.hypotheses], reference, tokenize)
            for translation, reference in zip(translations, references, strict=True)
        ]
        finished = [math.fsum(math.exp(one.log_prob) for one in of.hypotheses if one.finished) for of in translations]
        mass[str(beam)] = statistics.fmean(finished)
        oracle[str(beam)] = 100 * statistics.fmean(max(similar) for similar in scored)
        first[str(beam)] = 100 * statistics.fmean(similar[0] for similar in scored)
    return {"mass": mass, "oracle": oracle, "first": first}


def _bleu(found: Sequence[Mode], lists: Mapping[int, Sequence[Translation]], references, tokenize: str) -> dict:
    """Corpus BLEU of the proven modes and of a beam of 5 on the same sentences."""
    of = [place for place, one in enumerate(found) if one.proven]
    if not of:
        return {"bleu_mode": None, "bleu_beam5": None}
    wanted = [references[place] for place in of]
    outputs = {"bleu_mode": found, "bleu_beam5": lists[5]}
    return {
        name: metrics.score([texts[place].text for place in of], wanted, tokenize).bleu
        for name, texts in outputs.items()
    }


def _uncertainty(
    system: System, corpora: Mapping[str, corpus.Corpus], batch: BatchConfig, shapes: Sequence[Shape]
) -> dict[str, float]:
    """Perplexities and entropies a token, the end included, along each of some targets of the same sources."""
    numbers = {}
    for name, pairs in corpora.items():
        batches = list(likelihood.batches_of_all(system, pairs, batch, shapes))
        numbers[f"perplexity_{name}"] = likelihood.of_batches(system.translator, system.params, batches).perplexity
        numbers[f"entropy_{name}"] = likelihood.entropy(system.translator, system.params, batches)
    return numbers


def _sentences(found: Sequence[Mode], lists: Mapping[int, Sequence[Translation]]) -> list[dict]:
    best = {beam: log_probs(translations) for beam, translations in lists.items()}
    return [
        {
            "log_prob": one.log_prob,
            "bound": one.bound,
            "nodes": one.nodes,
            "tokens": len(one.tokens),
            "beams": {str(beam): float(of[place]) if np.isfinite(of[place]) else None for beam, of in best.items()},
        }
        for place, one in enumerate(found)
    ]


def entries(workspace: Workspace, evaluated: Mapping[Row, Path]) -> list[dict]:
    """results.json's `explanation`: an entry for each row that was explained."""
    found = []
    for row in filter(concerns, evaluated):
        try:
            path = measured(workspace._replace(make=False), row)
        except stages.NotMade:
            continue
        seed = pipeline.of_row(workspace.scale, row).seed
        numbers = files.read_json(path / "explanation.json")
        found.append({"arm": row.arm.name, "model": label(row.model), "seed": seed, **numbers})
    return found


def cost(scale: Scale, rows: Sequence[Row], build: Callable[[Any], Any]) -> tuple[str, float]:
    """What a dry run says of these rows, and their FLOPs at most. build: a model from its configuration."""
    asked, lengths = scale.explanation, (scale.facts.source_length, scale.facts.target_length)
    each = {}
    for config in dict.fromkeys(row.model for row in rows):
        model = build(config)
        searches = math.fsum(dry_run.decoding_flops(model, *lengths, beam) for beam in (*BEAMS, 5))
        each[config] = asked.sentences * (searches + asked.nodes * dry_run.step_flops(model, *lengths))
    told = f"explanation: {asked.sentences:,} sentences of each run by {len(BEAMS)} beams and exactly"
    return f"{told}, of each {asked.nodes:,} prefixes at most", math.fsum(each[row.model] for row in rows)


# Claims


def lines(results: dict) -> dict[tuple[str, str], list[dict]]:
    """(model, arm) -> the entries of its seeds, in the order of the table."""
    found: dict[tuple[str, str], list[dict]] = {}
    for entry in results.get("explanation", ()):
        found.setdefault((entry["model"], entry["arm"]), []).append(entry)
    return found


def claims(results: dict) -> list[Claim]:
    """What the paper says of mass and search, and what follows from it, of each student that has both arms.

    Intervals are over seeds alone. Not corrected yet.
    """
    found, tested = lines(results), []
    for model in dict.fromkeys(model for model, _ in found):
        pair = found.get((model, "Seq-KD")), found.get((model, BASELINE))
        if pair[0] and pair[1]:
            tested += [judged(model, text, [part(*pair, results["scale"], model)]) for text, part in CLAIMS.items()]
    return tested


def _part(seq_kd: Sequence[dict], baseline: Sequence[dict], of, above: float = 0.0) -> tuple:
    """The mean of `of` under Seq-KD minus that under the baseline and a threshold, and the fewer seeds."""
    values = [of(one) for one in seq_kd], [of(one) for one in baseline]
    size = mean(values[0]) - mean(values[1]) - above
    return estimate(size, of_seeds(*values)), min(map(len, values))


def _mass(seq_kd: Sequence[dict], baseline: Sequence[dict], scale: str, model: str) -> Part:
    several = math.log(SEVERAL)
    found, seeds = _part(seq_kd, baseline, lambda one: math.log(one["known"]), several)
    shares = [math.exp(mean([math.log(one["known"]) for one in of])) for of in (seq_kd, baseline)]
    text = f"{percent(shares[0])} against {percent(shares[1])}, {shares[0] / shares[1]:.1f} times; several: {SEVERAL:g}"
    printed = [
        (table.rows["Seq-KD"].mode_probability, table.rows[BASELINE].mode_probability)
        for table in scales.named(scale).published.get(model, ())
        if {"Seq-KD", BASELINE} <= table.rows.keys()
    ]
    told = " / ".join(f"{ours:.1f} against {theirs:.1f} percent" for ours, theirs in printed)
    return Part(found, text, seeds, told, [math.log(ours / theirs) - several for ours, theirs in printed])


def _errors(seq_kd: Sequence[dict], baseline: Sequence[dict], scale: str, model: str) -> Part:
    found, seeds = _part(baseline, seq_kd, lambda one: one["missed"]["1"])
    shares = (mean([one["missed"]["1"] for one in of]) for of in (seq_kd, baseline))
    return Part(found, " against ".join(f"{share:.1%}" for share in shares), seeds)


def _on_teacher(seq_kd: Sequence[dict], baseline: Sequence[dict], scale: str, model: str) -> Part:
    found, seeds = _part(baseline, seq_kd, lambda one: math.log(one["perplexity_teacher"]))
    numbers = (math.exp(mean([math.log(one["perplexity_teacher"]) for one in of])) for of in (seq_kd, baseline))
    return Part(found, " against ".join(f"{number:.2f}" for number in numbers), seeds)


def _entropy(seq_kd: Sequence[dict], baseline: Sequence[dict], scale: str, model: str) -> Part:
    found, seeds = _part(baseline, seq_kd, lambda one: one["entropy_own"])
    numbers = (mean([one["entropy_own"] for one in of]) for of in (seq_kd, baseline))
    return Part(found, " against ".join(f"{number:.2f} nats" for number in numbers), seeds)


CLAIMS = {
    "the most probable translation found has several times the mass after Seq-KD (the paper: p(t=ŷ))": _mass,
    "not of the paper: after Seq-KD greedy search misses a more probable translation less often": _errors,
    "not of the paper: Seq-KD has the lower perplexity on the teacher's outputs for the test set": _on_teacher,
    "not of the paper: after Seq-KD the next token's entropy is lower along a model's own outputs": _entropy,
}
