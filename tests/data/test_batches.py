"""Batches: every sentence once an epoch, few shapes with the least padding, the same rest from any position."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from seqkd_jax.config import BatchConfig, VocabularyConfig
from seqkd_jax.data import batches, shaping, vocabulary
from seqkd_jax.data.batches import Encoded, Position, Shape
from seqkd_jax.data.corpus import Corpus
from seqkd_jax.data.examples import lengths
from seqkd_jax.types import BOS, EOS, PAD, UserError

CONFIG = BatchConfig(tokens=96, buckets=3, data_seed=7)


def random_encoded(seed=0, count=101, longest=30):
    """Sentences of distinct content, with lengths as skewed as real ones."""
    rng = np.random.default_rng(seed)
    lengths = np.minimum(rng.geometric(0.12, (count, 2)), longest)
    ids = iter(range(4, 10**9))
    sources = [np.array([*itertools.islice(ids, int(n)), EOS], np.int32) for n, _ in lengths]
    targets = [np.array([*itertools.islice(ids, int(n))], np.int32) for _, n in lengths]
    return Encoded(sources, targets, rng.choice([0.5, 1.0, 2.0], count).astype(np.float32))


def pairs_of(batch):
    """The sentences of a batch, read back from its arrays; also checks that they agree with each other."""
    (source, target_in), labels, weights, _ = batch
    assert source.dtype == target_in.dtype == labels.dtype == np.int32 and weights.dtype == np.float32
    for x, given, wanted, weight in zip(source, target_in, labels, weights, strict=True):
        length = int((wanted != PAD).sum())
        if not weight.any():  # a row of fill
            assert list(x[x != PAD]) == [EOS] and list(given[given != PAD]) == [BOS] and not length
            continue
        assert given[0] == BOS and wanted[length - 1] == EOS
        assert list(given[1:length]) == list(wanted[: length - 1]) and not given[length:].any()
        assert (weight[:length] == weight[0]).all() and not weight[length:].any()
        yield tuple(x[x != PAD].tolist()), tuple(wanted[: length - 1].tolist()), float(weight[0])


def wanted_pairs(encoded):
    return sorted((tuple(x.tolist()), tuple(y.tolist()), float(w)) for x, y, w in zip(*encoded[:3], strict=True))


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip((*one[0], *one[1:]), (*other[0], *other[1:]), strict=True))


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, buckets=1), replace(CONFIG, tokens=0, sentences=5)])
@pytest.mark.parametrize("seed", range(3))
def test_every_sentence_once_an_epoch_in_the_shapes_of_the_plan(config, seed):
    encoded = random_encoded(seed)
    plan = batches.make_plan(encoded, config)
    assert 1 <= len(plan.shapes) <= config.buckets
    for shape in plan.shapes:
        assert shape.source % 2 == shape.target % 2 == 0
        assert shape.rows == 5 if config.sentences else shape.rows % 8 == 0
        assert config.sentences or shape.rows * shape.target <= config.tokens or shape.rows == 8
    epochs = [[batch for _, batch in take(batches.train_batches(encoded, plan, config, Position(e, 0)), n)]
              for e in (0, 1) for n in [plan.batches_per_epoch]]  # fmt: skip
    for made in (*epochs, [batch for _, batch in batches.eval_batches(encoded, plan)]):
        assert len(made) == plan.batches_per_epoch
        assert {Shape(*b.inputs[0].shape, b.labels.shape[1]) for b in made} <= set(plan.shapes)
        assert sorted(pair for batch in made for pair in pairs_of(batch)) == wanted_pairs(encoded)
    cells = sum(b.inputs[0].size + b.labels.size for b in epochs[0])
    filled = sum(len(x) + len(y) + 1 for x, y in zip(encoded.sources, encoded.targets, strict=True))
    assert batches.padding_share(plan) == pytest.approx(1 - filled / cells)
    assert f"{batches.padding_share(plan):.1%}" in batches.describe(plan)


def test_evaluation_says_where_each_sentence_is():
    encoded = random_encoded()
    plan = batches.make_plan(encoded, CONFIG)
    for rows, batch in batches.eval_batches(encoded, plan):
        for place, row in enumerate(rows):
            length = len(encoded.sources[row])
            assert np.array_equal(batch.inputs[0][place, :length], encoded.sources[row])
        assert list(rows) == sorted(rows)


def test_the_rest_is_the_same_from_any_position():
    """Stopped and resumed at every place, twice in a row, over two epoch borders."""
    encoded = random_encoded()
    plan = batches.make_plan(encoded, CONFIG)
    total = 2 * plan.batches_per_epoch + 3
    whole = take(batches.train_batches(encoded, plan, CONFIG), total)
    assert whole[-1][0] == Position(2, 3)
    for start in range(1, total - 1):
        first = take(batches.train_batches(encoded, plan, CONFIG, whole[start - 1][0]), 1)
        rest = take(batches.train_batches(encoded, plan, CONFIG, first[0][0]), total - start - 1)
        for (position, batch), (expected_position, expected) in zip(first + rest, whole[start:], strict=True):
            assert position == expected_position and same(batch, expected)


def test_order_is_a_function_of_seed_and_epoch():
    encoded = random_encoded()
    plan = batches.make_plan(encoded, CONFIG)

    def order(seed, epoch):
        config = replace(CONFIG, data_seed=seed)
        made = take(batches.train_batches(encoded, plan, config, Position(epoch, 0)), plan.batches_per_epoch)
        return [pair for _, batch in made for pair in pairs_of(batch)]

    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert all(one != other for one, other in itertools.combinations(orders, 2)), (
        "each epoch and seed has its own order"
    )
    assert order(1, 1) == orders[4]


def test_sentences_of_a_batch_are_mixed_anew():
    """Not only the order of fixed batches: two epochs share few pairs of neighbours."""
    encoded = random_encoded(count=200)
    plan = batches.make_plan(encoded, CONFIG)
    made = take(batches.train_batches(encoded, plan, CONFIG), 2 * plan.batches_per_epoch)
    groups = [frozenset(x for x, _, _ in pairs_of(batch)) for _, batch in made]
    assert not set(groups[: plan.batches_per_epoch]) & {g for g in groups[plan.batches_per_epoch :] if len(g) > 1}


def work(encoded, shapes, rule):
    """Each sentence in the smallest shape that holds it, under FORMER in whole batches. None: one is too long."""
    counts = [0] * len(shapes)
    for x, y in zip(encoded.sources, encoded.targets, strict=True):
        fits = [i for i, s in enumerate(shapes) if len(x) <= s.source and len(y) < s.target]
        if not fits:
            return None
        counts[min(fits, key=lambda i: shapes[i].source + shapes[i].target)] += 1
    rows = counts if rule.moves else [-(-n // s.rows) * s.rows for n, s in zip(counts, shapes, strict=True)]
    return sum(n * (s.source + rule.target * s.target) for n, s in zip(rows, shapes, strict=True))


@pytest.mark.parametrize("rule", [shaping.RULE, shaping.FORMER])
@pytest.mark.parametrize("buckets", [1, 2, 3])
def test_no_nested_shapes_need_less_work(rule, buckets):
    """Against every chain of so many shapes."""
    for seed in range(4):
        encoded, longest = random_encoded(seed, 60, 7 if rule.step == 2 else 15), 8 if rule.step == 2 else 16
        widths = range(rule.step, longest + 1, rule.step)
        every = [Shape(max(96 // t // 8 * 8, 8), s, t) for s in widths for t in widths]
        best = None
        for chain in (chain for count in range(1, buckets + 1) for chain in itertools.combinations(every, count)):
            if all(a.source <= b.source and a.target <= b.target for a, b in itertools.pairwise(chain)):
                found = work(encoded, chain, rule)
                best = found if best is None or found is not None and found < best else best
        offered = itertools.islice(shaping.chains(*lengths(encoded), CONFIG, rule), buckets)
        assert min(work(encoded, chain.shapes, rule) for chain in offered) == best


def test_more_buckets_never_pad_more_and_few_suffice():
    encoded = random_encoded(count=400)
    plans = [batches.make_plan(encoded, replace(CONFIG, buckets=k)) for k in range(1, 8)]
    cells = [sum(n * (s.source + 2 * s.target) for n, s in epoch(plan)) for plan in plans]
    assert cells == sorted(cells, reverse=True)
    assert batches.padding_share(plans[0]) > 1.5 * batches.padding_share(plans[-1])
    alike = Encoded([np.array([4, 5, EOS], np.int32)] * 9, [np.array([4], np.int32)] * 9, np.ones(9, np.float32))
    assert batches.make_plan(alike, CONFIG).shapes == (Shape(48, 4, 2),), "one length needs one shape"


def epoch(plan):
    """Rows of each shape in an epoch, those of fill included."""
    counts = np.bincount(plan.buckets, minlength=len(plan.shapes)).tolist()
    return [(-(-n // shape.rows) * shape.rows, shape) for n, shape in zip(counts, plan.shapes, strict=True)]


@pytest.mark.parametrize("count, most", [(20_000, shaping.MOST), (400, 8), (40, 3)])
def test_without_a_number_there_are_as_many_shapes_as_pay(count, most):
    """Many for much data: at most a tenth is padding; few for little, where a shape would save next to nothing."""
    rng = np.random.default_rng(count)
    lengths = np.clip(rng.normal(16, 6, count).astype(int), 2, 49)
    pairs = (
        [np.full(n, 7, np.int32) for n in lengths],
        [np.full(n + d, 7, np.int32) for n, d in zip(lengths, rng.integers(-1, 2, count), strict=True)],
    )
    plan = batches.make_plan(Encoded(*pairs, np.ones(count, np.float32)), BatchConfig())
    assert len(plan.shapes) <= most and (count < 1000 or batches.padding_share(plan) <= shaping.PADDING)


def test_sentences_that_fill_no_batch_move_up():
    """The longest of them, unless that is more work than a batch which is not full."""
    source, target = np.array([[3, 1, 5, 4, 6, 2, 9, 9], [2, 2, 5, 3, 6, 1, 9, 9]])
    above = Shape(4, 10, 10)
    assert shaping.assign(source, target, (Shape(4, 6, 6), above)).tolist() == [0, 0, 1, 0, 1, 0, 1, 1]
    assert shaping.assign(source, target, (Shape(4, 6, 6), above), shaping.FORMER).tolist() == [0] * 6 + [1] * 2
    wide = Shape(4, 100, 10)
    assert shaping.assign(source, target, (Shape(4, 6, 6), wide)).tolist() == [0] * 6 + [1] * 2


def test_very_long_sentences_are_planned_too():
    """As in an evaluation that drops nothing: many widths are thinned out, the longest still fits."""
    rng = np.random.default_rng(0)
    sources = [np.full(n, EOS, np.int32) for n in rng.integers(1, 3000, 300)]
    encoded = Encoded(sources, [x[1:] for x in reversed(sources)], np.ones(300, np.float32))
    plan = batches.make_plan(encoded, CONFIG)
    assert len(plan.shapes) <= 3 and plan.buckets.min() >= 0
    assert sum(b.weights.any(1).sum() for _, b in batches.eval_batches(encoded, plan)) == 300


def test_given_shapes_are_kept_and_at_most_one_is_added():
    encoded = random_encoded()
    shapes = (Shape(4, 40, 36), Shape(16, 12, 12))
    plan = batches.make_plan(encoded, CONFIG, shapes)
    assert set(plan.shapes) == set(shapes) and plan.shapes[0].source == 12
    small = batches.make_plan(encoded, CONFIG, shapes[1:])
    assert len(small.shapes) == 2 and shapes[1] in small.shapes
    assert sorted(p for _, b in batches.eval_batches(encoded, small) for p in pairs_of(b)) == wanted_pairs(encoded)


def test_a_position_of_another_plan_is_refused():
    encoded = random_encoded()
    plan = batches.make_plan(encoded, CONFIG)
    for position in (Position(0, plan.batches_per_epoch), Position(-1, 0), Position(0, -1)):
        with pytest.raises(UserError, match=f"{plan.batches_per_epoch} batches"):
            next(batches.train_batches(encoded, plan, CONFIG, position))


@pytest.mark.parametrize(
    "config, problem",
    [
        (BatchConfig(tokens=0), "exactly one"),
        (BatchConfig(tokens=10, sentences=3), "exactly one"),
        (BatchConfig(tokens=-5, sentences=3), "tokens is -5"),
        (BatchConfig(buckets=0), "buckets is 0"),
        (BatchConfig(data_seed=-1), "data_seed is -1"),
    ],
)
def test_bad_configurations_are_named(config, problem):
    with pytest.raises(UserError, match=problem):
        batches.make_plan(random_encoded(), config)


WORDS = vocabulary.learn(["a b c d"], ["A B C D"], VocabularyConfig(kind="words", size=20, tokenizer="pretokenised"))
SHORT = BatchConfig(max_source=3, max_target=2)


def test_unusable_pairs_are_dropped_and_counted():
    sources = ["a b", "", "a", "a b c d", "a b c", "a", "  "]
    targets = ["A", "A", " ", "A", "A B", "A B C", ""]
    corpus = Corpus(sources, targets, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], "a corpus")
    encoded, dropped = batches.encode_corpus(corpus, WORDS, SHORT)
    assert dropped == (3, 2, 2) and "3 empty, 2 overlong" in str(dropped)
    assert [WORDS.source.decode(x) for x in encoded.sources] == ["a b", "a b c"]
    assert [x[-1] for x in encoded.sources] == [EOS, EOS] and encoded.targets[1].tolist() == WORDS.target.encode("A B")
    assert encoded.weights.tolist() == [1, 5] and encoded.sources[0].dtype == encoded.targets[0].dtype == np.int32
    everything, dropped = batches.encode_corpus(corpus, WORDS, SHORT, keep_all=True)
    assert dropped == (0, 0, 7) and len(everything.sources) == 7
    plan = batches.make_plan(everything, SHORT)
    assert sum(batch.weights.any(1).sum() for _, batch in batches.eval_batches(everything, plan)) == 7


def test_nothing_left_is_an_error():
    with pytest.raises(UserError, match=r"a corpus: no usable pair left of 2 \(1 empty, 1 longer"):
        batches.encode_corpus(Corpus(["", "a b c d"], ["A", "A"], None, "a corpus"), WORDS, SHORT)
    with pytest.raises(UserError, match="left of 0"):
        batches.encode_corpus(Corpus([], [], None, "a corpus"), WORDS, SHORT, keep_all=True)


def test_a_side_that_is_no_sequence_is_not_padded():
    """A class, an image, and the source that a language model does not have are one cell wide."""
    words = [np.arange(4, 4 + length, dtype=np.int32) for length in (3, 5, 11)]
    config = BatchConfig(tokens=0, sentences=4, buckets=1)
    pictures = [np.zeros((28, 28), np.uint8)] * 3
    for encoded, shape in (
        (batches.classified(words, [0, 1, 0]), Shape(4, 12, 1)),
        (batches.sequences([row.tolist() for row in words]), Shape(4, 1, 12)),
        (batches.classified(pictures, [0, 1, 0]), Shape(4, 1, 1)),
    ):
        plan = batches.make_plan(encoded, config)
        assert plan.shapes == (shape,), encoded.form
        _, batch = next(batches.eval_batches(encoded, plan))
        assert batch.labels.shape == (4, shape.target) and batch.weights.shape == (4, shape.target), encoded.form


def test_no_example_is_said():
    with pytest.raises(UserError, match="no example to classify"):
        batches.classified([], [])
    with pytest.raises(UserError, match="no example to batch"):
        batches.make_plan(batches.sequences([]), BatchConfig())


def test_the_fingerprint_is_of_every_id_and_their_order():
    ids = [[4, 5], [6]]
    first = batches.sequences(ids)
    assert batches.fingerprint(first) == batches.fingerprint(batches.sequences([[4, 5], [6]]))
    others = [
        batches.sequences(ids[::-1]),
        batches.sequences([[4], [5, 6]]),
        batches.sequences([[4, 5], [7]]),
        first._replace(weights=first.weights / 2),
        first._replace(form="pairs"),
    ]
    assert len({batches.fingerprint(one) for one in (first, *others)}) == 6
