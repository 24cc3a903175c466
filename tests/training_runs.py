"""Small runs of one process or of several, for the tests that compare them: what decides a run, one case each."""

import dataclasses
import os
import signal
import unittest.mock

from updates import CONFIG, MODEL, final, fit, save, stream, validate

import seqkd_jax as kd
from seqkd_jax import checkpoint, distributed
from seqkd_jax.config import LossConfig, OptimiserConfig
from seqkd_jax.training import train_step
from seqkd_jax.utils import files

ADAM = OptimiserConfig(learning_rate=0.01, schedule="constant", warmup_steps=0)
CASES = {
    "dropout and accumulation": {"accumulate": 2},
    "Adam and its average": {"optimiser": ADAM, "average_decay": 0.9},
    "replicas": {"replicas": 2},
    "Word-KD": {"loss": LossConfig("word_kd")},
}


def settings(case, devices=0):
    """Those of a run: two epochs of three updates."""
    return dataclasses.replace(CONFIG, devices=devices, **case)


def train(case, directory, devices=0):
    """One of CASES."""
    config = settings(CASES[case], devices)
    teacher = train_step.Teacher(MODEL, train_step.start_state(MODEL, dataclasses.replace(CONFIG, seed=9)).params)
    fit(directory / case, config, teacher=teacher if case == "Word-KD" else None)


def distil(corpus, directory, devices=0):
    """Word-KD with recorded features, BLEU and a text corpus, by the public functions."""
    text, valid = (kd.load_split(kd.CorpusConfig(str(corpus), "en", "de"), split) for split in ("train", "valid"))
    model, batch = kd.LSTMConfig(1, 8, dropout=0.2), kd.BatchConfig(tokens=256, buckets=1)
    config = kd.TrainConfig(optimiser=ADAM, batch=batch, epochs=2, devices=devices, max_steps=6, validate_bleu=True)
    words = kd.VocabularyConfig(kind="words", tokenizer="pretokenised", joint=False)
    options = {"model": model, "vocabularies": kd.learn_vocabulary(text, words)}
    teacher = kd.train(text, valid, directory / "teacher", config=config, **options).best
    taught = dataclasses.replace(config, loss=LossConfig("word_kd"))
    kd.train(text, valid, directory / "student", config=taught, teacher=teacher, **options)


def train_all(cases, directory, devices=0):
    """These of CASES, and "text" for `distil`, in `directory`; a corpus is in it."""
    for case in cases:
        if case == "text":
            distil(directory, directory, devices)
        else:
            train(case, directory, devices)


def left(directory):
    """Run in `directory` -> what it came to: the hashes of its weights, its training state, best/ and validations."""
    found = {}
    for run in sorted(path.parent for path in directory.glob("*/last")):
        last, best = checkpoint.read_record(run / "last"), checkpoint.read_record(run / "best")
        state = None
        if run.name not in ("teacher", "student"):  # of another model
            state = checkpoint.arrays.sha256(checkpoint.arrays.host(final(run, settings(CASES.get(run.name, {})))))
        replicas = last["metadata"]["run"]["replicas"]
        found[run.name] = [last["params_sha256"], state, best["params_sha256"], replicas]
    return found


def interrupted(directory, moment, victim):
    """A run whose process `victim` ends at a moment: killed in an update, a validation or a save, or by SIGTERM."""

    def at(name, ending=signal.SIGKILL):
        if name == moment and distributed.index() == victim:
            os.kill(os.getpid(), ending)

    def batches(position):
        for count, item in enumerate(stream(position)):
            if count == 2:
                at("SIGTERM", signal.SIGTERM)
            if count == 4:  # the first of the second epoch was started, and last/ is of the first epoch
                at("update")
            yield item

    def validated(params):
        found = validate(params)
        if (directory / "last").exists():
            at("validation")
        return found

    def saved(place, *arguments, **options):
        with unittest.mock.patch.object(files, "_take_place", taking_place):
            return save(place, *arguments, **options)

    def taking_place(filled, place):
        if (directory / "last").exists():
            at("save")
        take_place(filled, place)

    take_place = files._take_place
    fit(directory, settings({}), batches, validate=validated, save=saved)
