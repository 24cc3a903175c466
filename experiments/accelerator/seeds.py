"""Kim & Rush's main comparison with as many seeds as there is time: students with and without the teacher's corpus.

Teacher, vocabulary and distilled corpus are the stages of the study `kim_rush_2016`, made by its own functions. The
students of some seeds are trained at once, as replicas; each group of seeds is a stage. On Multi30k, or another corpus
with --data; on the toy language without.
"""

import time
from dataclasses import replace
from pathlib import Path

import jax

from experiments.accelerator.speed import Clock, Job
from experiments.core import measure
from experiments.core.study import Workspace
from experiments.kim_rush_2016 import pipeline, study
from experiments.kim_rush_2016.arms import ARMS, BASELINE
from experiments.kim_rush_2016.rows import Row
from experiments.kim_rush_2016.scale import Scale
from experiments.kim_rush_2016.scales import SCALES
from seqkd_jax import checkpoint
from seqkd_jax.config import BatchConfig, SearchConfig, VocabularyConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.decoding import translate_lines
from seqkd_jax.evaluation import metrics
from seqkd_jax.training.trainer import Run, train_translator
from seqkd_jax.utils import files, progress

COMPARED = (BASELINE, "Seq-KD")
AT_ONCE = {"cpu": 2}  # seeds of a group
AT_ONCE_ELSEWHERE = 8


def main_comparison(job: Job) -> dict:
    """BLEU of each seed, without a teacher and with the teacher's corpus, and the interval of what it adds."""
    scale, clock = _scale(job), Clock(job)
    workspace = Workspace(scale, study.load(scale, job.data), job.root)
    count, dearest, found = AT_ONCE.get(jax.default_backend(), AT_ONCE_ELSEWHERE), 0.0, []
    for arm in COMPARED:
        pipeline.CORPORA[_arm(arm).corpus](workspace)  # the teacher, and what it makes of the corpus
    while not found or clock.left() > dearest and len(found) < (count if job.toy else 100):
        started = time.monotonic()
        first = scale.seed + len(found)
        directory = workspace.stage(
            f"seeds-{first}-to-{first + count - 1}",
            [
                [pipeline.train_config(scale, _arm(name)) for name in COMPARED],
                _student(scale),
                first,
                count,
                scale.pick,
                *pipeline.decoded_by(scale),
            ],
            {
                "corpus": pipeline.seq_kd(workspace),
                "vocabulary": pipeline.learned_vocabulary(workspace),
                "gold": pipeline.data(workspace),  # baselines learn from it; all are tested on it
            },
            lambda directory, first=first: _students(workspace, first, count, directory),
            resumable=True,
        )
        found += files.read_json(directory / "results.json")
        dearest = max(dearest, time.monotonic() - started)
        progress.log(f"{len(found)} seeds, {clock.left():.0f}s left")
    adds = [one["Seq-KD"] - one[BASELINE] for one in found]
    return {
        "scale": scale.name,
        "sentences": len(pipeline.read(workspace, pipeline.data(workspace), "test").sources),
        "bleu": {name: [one[name] for one in found] for name in COMPARED},
        "seq_kd_adds": measure.interval(adds)._asdict(),
    }


def _scale(job: Job) -> Scale:
    if job.data is not None:
        (scale,) = SCALES["multi30k"]
        return scale
    (scale,) = SCALES["smoke"]
    if not job.toy:
        return scale
    batch = BatchConfig(tokens=0, sentences=16, buckets=1, max_source=24, max_target=24)
    training = {role: replace(config, batch=batch, epochs=1) for role, config in scale.training.items()}
    models = {role: tuple(replace(model, size=8) for model in scale.models[role]) for role in scale.models}
    tiny = {"toy": (48, 8, 8), "shapes": ((16, 25, 25),), "source_buckets": (25,), "models": models}
    words = VocabularyConfig("words", 60, joint=False, tokenizer="pretokenised")
    return replace(scale, training=training, vocabulary=words, seq_kd_search=SearchConfig(beam=2), **tiny)


def _arm(name: str):
    return next(arm for arm in ARMS if arm.name == name)


def _student(scale: Scale):
    return scale.models["student"][0]


def _students(workspace: Workspace, first: int, count: int, directory: Path) -> None:
    """Train a group of seeds under each arm, translate the test set with each, and write their BLEU."""
    scale, gold = workspace.scale, pipeline.data(workspace)
    known = vocabulary.load(pipeline.learned_vocabulary(workspace))
    valid, test = (pipeline.read(workspace, gold, split) for split in ("valid", "test"))
    scores: list[dict] = [{} for _ in range(count)]
    for name in COMPARED:
        row = Row(_arm(name), _student(scale))
        config = replace(pipeline.train_config(scale, row.arm), seed=first, replicas=count)
        corpus = pipeline.read(workspace, pipeline.CORPORA[row.arm.corpus](workspace), "train")
        run = Run(row.model, known, config, shapes=pipeline.shapes(workspace))
        outcome = train_translator(run, corpus, valid, directory / row.key, row.key)
        tokenize = pipeline.tokenizer(workspace)
        references = metrics.metric_references(known, test.targets, tokenize)
        rules = pipeline.decoding(scale, scale.evaluation)
        for place, score in enumerate(scores):
            system = checkpoint.load(outcome.best if scale.pick == "best" else outcome.last, replica=place).system
            outputs = [found.text for found in translate_lines(system, test.sources, rules, n_best=1)]
            score[name] = metrics.score(outputs, references, tokenize).bleu
    files.write_json(directory / "results.json", scores)
