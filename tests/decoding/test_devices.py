"""Several devices share the sentences: the results are those of one, bit for bit, and none of them is idle for long."""

import os
from dataclasses import replace

import jax
import numpy as np
import pytest
from test_translator import CONFIG, LETTERS, OPTIONS, PARAMS, sentences
from tiny import TINY, parameters

from seqkd_jax.config import LSTMConfig, TransformerConfig, VocabularyConfig
from seqkd_jax.data import vocabulary
from seqkd_jax.decoding import Decoding, force_attention, force_score, prepare, translate_ids, translate_lines
from seqkd_jax.decoding.buckets import Shape, _dealt
from seqkd_jax.models import build
from seqkd_jax.models.ensemble import ensemble
from seqkd_jax.types import System, UserError
from seqkd_jax.utils import devices

COUNTS = (2, 3, 4)
PLAIN = Decoding(CONFIG, **OPTIONS, chunk=40)
CASES = {
    "engine": PLAIN,
    "beam": replace(PLAIN, decoder="beam"),
    "greedy": replace(PLAIN, decoder="greedy"),
    "sample": replace(PLAIN, decoder="sample"),
    "coverage": replace(PLAIN, search=replace(CONFIG, coverage_penalty=0.2)),
    "no repetition": replace(PLAIN, search=replace(CONFIG, no_repeat_ngram=2)),
}


def bits(results):
    """What n-best lists consist of, to the last bit."""
    return [[np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(one)] for one in results]


@pytest.mark.parametrize(("case", "count"), [("engine", 2), ("engine", 4), *((case, 3) for case in CASES)])
def test_results_do_not_depend_on_the_number_of_devices(case, count):
    given = sentences(90)
    one, several = (bits(translate_ids(TINY, PARAMS, given, replace(CASES[case], devices=n))) for n in (1, count))
    assert several == one, "a batch was divided otherwise than on one device: devices share whole batches"


@pytest.mark.parametrize("config", [LSTMConfig(1, 12), TransformerConfig(1, 1, 16, heads=2, feed_forward=32)], ids=type)
def test_nor_do_those_of_the_real_models(config):
    model = build(config, len(LETTERS), len(LETTERS))
    params = model.init(jax.random.key(0))
    decodings = [replace(PLAIN, source_buckets=(8,), devices=n) for n in (1, 2)]
    one, several = (bits(translate_ids(model, params, sentences(60), decoding)) for decoding in decodings)
    assert several == one


def test_prefixes_attention_and_ensembles_too():
    both = ensemble((TINY, TINY))
    params = (PARAMS, parameters(1, vocabulary=len(LETTERS)))
    given = sentences(30)
    prefixes = [[4 + place % 5] * (place % 2) for place in range(len(given))]
    decodings = [replace(PLAIN, search=replace(CONFIG, max_length_b=6.0), devices=n) for n in (1, 2)]
    one, several = (bits(translate_ids(both, params, given, d, prefixes=prefixes)) for d in decodings)
    assert several == one
    words = vocabulary.learn(
        ["a b c d"], ["a b c d"], VocabularyConfig(kind="words", size=20, tokenizer="pretokenised")
    )
    system = System(TINY, parameters(0, vocabulary=8), words)
    lines = ["a strange b", "", "d c", "b b a c d"] * 9
    one, several = (list(translate_lines(system, lines, d, unknown_from_source=True)) for d in decodings)
    assert several == one


@pytest.mark.parametrize("count", COUNTS)
def test_scores_and_attention_of_given_translations(count):
    given = sentences(50)
    pairs = list(zip(given, [ids[:-1][::-1] for ids in given], strict=True))
    options = {"buckets": (4, 8), "batch_tokens": 24}
    one, several = (list(force_score(TINY, PARAMS, pairs, count=n, **options)) for n in (1, count))
    assert several == one
    shapes = [weights.shape for weights in force_attention(TINY, PARAMS, pairs, **options)]
    assert shapes == [(len(target), len(source)) for source, target in pairs]


def test_prepared_parameters_say_on_which_devices():
    ready = prepare(TINY, PARAMS, 3)
    places = [next(iter(jax.tree.leaves(own)[0].devices())) for own in ready.params]
    assert places == list(devices.of_a_thread_each(devices.local(3)))
    assert bits(translate_ids(TINY, ready, sentences(9), PLAIN)) == bits(
        translate_ids(TINY, PARAMS, sentences(9), PLAIN)
    )


@pytest.mark.parametrize("seed", range(8))
def test_no_device_has_more_than_the_mean_and_one_batch(seed):
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 6))
    batches = []
    for width in (16, 32, 64):
        slots = 1024 // width
        sizes = [8 * slots] * random.integers(0, 5) + [int(random.integers(1, 8 * slots))]
        batches += [(Shape(8 * slots, width, 2 * width, 0, slots), list(range(size))) for size in sizes]
    dealt = list(_dealt(batches, count))
    assert sorted((s, b) for s, b, _ in dealt) == sorted(batches), "each batch is decoded once"
    work = [shape.width * max(len(batch), shape.slots) for shape, batch, _ in dealt]
    loads = [sum(w for w, (_, _, device) in zip(work, dealt, strict=True) if device == place) for place in range(count)]
    assert max(loads) <= sum(work) / count + max(work), "a device got work while another had less"


def test_more_devices_than_there_are_is_one_line():
    with pytest.raises(UserError, match=r"devices=9, but this process has 4; use at most that, or 0 for all"):
        next(translate_ids(TINY, PARAMS, sentences(1), replace(PLAIN, devices=9)))


def test_an_environment_that_says_how_many_devices_a_cpu_is_is_obeyed(monkeypatch):
    asked = []
    monkeypatch.setattr(jax.config, "update", lambda name, value: asked.append((name, value)))
    devices.make_cpu_devices(2)  # the tests say 4
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "3")
    monkeypatch.delenv("XLA_FLAGS")
    devices.make_cpu_devices(2)
    assert not asked
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES")
    for count in (1, 0, 60_000):  # what is more than there are cores is refused later, as on other devices
        devices.make_cpu_devices(count)
    assert asked == [("jax_num_cpu_devices", count) for count in (1, devices.cores(), devices.cores())]


def test_each_of_several_cpu_devices_of_a_search_has_a_thread_of_its_own():
    several = devices.of_a_thread_each(devices.local(2))
    assert len(set(several)) == 2 and not set(several) & set(jax.devices()), "make clients of one device each"
    assert devices.of_a_thread_each(devices.local(2)) == several, "clients are made once"
    assert devices.of_a_thread_each(devices.local(1)) == devices.local(1), "a device alone has all threads"
    assert devices.THREADS not in os.environ, "others make clients with all threads"
