"""Several seeds at once: each is the solo run of its seed, and what happens to one does not touch the others."""

import dataclasses

import jax
import numpy as np
import pytest
import updates
from updates import CONFIG, MODEL, assert_close, batch, stream

from seqkd_jax import checkpoint, models
from seqkd_jax.config import LossConfig, SequenceLSTMConfig
from seqkd_jax.training import train_step
from seqkd_jax.types import UserError

R = 3
MANY = dataclasses.replace(CONFIG, replicas=R)


def updated(config, rates=0.5, active=True, updates=3, devices=1, teacher=None, start=None):
    """The state after some updates, made directly."""
    chosen = tuple(jax.local_devices()[:devices])
    rule = train_step.static_rule(config.optimiser)
    known = None if teacher is None else train_step.replicate(teacher.params, chosen)
    taught = None if teacher is None else teacher.model
    replicas, dropout = train_step.replicas(config, teacher), config.loss.teacher_dropout
    update = train_step.make_update(MODEL, config.loss.name, rule, False, taught, chosen, replicas, dropout)
    state = train_step.replicate(train_step.start_state(MODEL, config) if start is None else start, chosen)
    for seed in range(updates):
        settings = train_step.settings(config, rates, active)
        state, metrics = update(state, *train_step.arrange(batch(seed), devices, 1), settings, known)
    return state, metrics


def replica(tree, place):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[place], tree)


def solo(place, config=MANY):
    return dataclasses.replace(config, replicas=1, seed=config.seed + place)


@pytest.mark.parametrize(("by", "devices"), [("vmap", 2), ("map", 1)])
def test_each_replica_is_the_solo_run_of_its_seed(by, devices):
    config = dataclasses.replace(MANY, replicas_by=by)
    rates = [0.5, 0.25, 0.1]
    state, metrics = updated(config, rates, devices=devices)
    for place in range(R):
        alone, measured = updated(solo(place), rates[place])
        where = f"replica {place} by {by} on {devices} device(s), dropout on: not the run of seed {3 + place} alone"
        assert_close(replica(state, place), alone, where)
        assert_close(replica(metrics, place), measured, where)
    assert not np.allclose(*(np.asarray(state.params["params"]["combine"])[place] for place in (0, 1))), "seeds alike"


slow = pytest.mark.slow


def test_orthogonal_starts_are_not_stacked():
    """QR products of several seeds at once never return from XLA on two cores (JAX 0.10: a race of its own threads)."""
    model = models.build(SequenceLSTMConfig(2, 16, "every", tied=True), 50, 50)
    config = dataclasses.replace(MANY, replicas=2)
    made = str(jax.make_jaxpr(lambda: train_step.start_state(model, config))())
    outputs = [line for line in made.splitlines() if " = qr[" in line]
    assert outputs, "the start has no QR product any more: delete this test"
    assert not any("f32[2," in line for line in outputs), f"stacked over seeds: {outputs}; use lax.map"


@pytest.mark.parametrize(
    ("by", "each", "dropout"),
    [
        ("map", True, False),
        pytest.param("vmap", False, False, marks=slow),
        pytest.param("map", False, True, marks=slow),
        pytest.param("vmap", True, False, marks=slow),
        pytest.param("vmap", True, True, marks=slow),
        pytest.param("map", True, True, marks=slow),
    ],
)
def test_taught_replicas_are_solo_students(by, each, dropout):
    """One teacher for all, or one for each; its dropout, where it is on, is that of the student's seed."""
    loss = LossConfig("word_kd", alpha=1.0, teacher_dropout=dropout)
    config = dataclasses.replace(MANY, loss=loss, replicas_by=by)
    stacked = train_step.start_state(MODEL, dataclasses.replace(MANY, seed=40)).params
    params = stacked if each else replica(stacked, 0)
    state, _ = updated(config, teacher=train_step.Teacher(MODEL, params, each))
    for place in range(R):
        own = train_step.Teacher(MODEL, replica(stacked, place if each else 0))
        alone, _ = updated(solo(place, config), teacher=own)
        assert_close(replica(state, place), alone, f"student {place} of {'its own' if each else 'the common'} teacher")


def test_a_replica_that_is_not_active_stays_as_it_was():
    before = train_step.start_state(MODEL, MANY)
    state, _ = updated(MANY, active=[True, False, True])
    assert_close(replica(state, 1), replica(before, 1), "an inactive replica was updated")
    assert_close(replica(state, 2), updated(solo(2))[0], "the others must go on as if it were not there")


def test_a_replica_that_is_not_finite_stays_as_it_was():
    start = train_step.start_state(MODEL, MANY)
    broken = jax.tree.map(lambda leaf: np.asarray(leaf).copy(), start)
    broken.params["params"]["combine"][1] = np.nan
    state, metrics = updated(MANY, start=broken)
    assert not np.isfinite(np.asarray(metrics.loss_sum)[1])
    assert int(state.step[1]) == 0, "a replica whose loss is not finite was updated"
    assert_close(replica(state, 0), updated(solo(0))[0], "its neighbours must not notice")


def fit(directory, config=MANY, data=stream, **options):
    return updates.fit(directory, config, data, **options)


def select(directory, place=None):
    return checkpoint.load(directory, replica=place)


def test_fit_trains_every_seed_as_alone(tmp_path):
    found = fit(tmp_path / "many")
    for place in range(R):
        alone = fit(tmp_path / str(place), solo(place))
        told, told_alone = found.replicas[place], alone.replicas[0]
        assert told.seed == 3 + place
        assert told.best_step == told_alone.best_step
        assert told.best_value == pytest.approx(told_alone.best_value, rel=1e-5)
        expected = select(alone.best).params
        assert_close(select(found.best, place).params, expected, f"replica {place} of best/ is not seed {3 + place}")
        one = checkpoint.select(found.best, place, tmp_path / "taken")
        assert_close(select(one).params, expected, "checkpoint.select must write an ordinary checkpoint")


def test_each_replica_has_its_own_best_and_its_own_end(tmp_path):
    """Losses as written down here: seed 3 is best at 2, seed 4 at 4, and stops early after 2; seed 5 at 1."""
    planned = {3: [5, 1, 2, 3], 4: [5, 4, 3, 2, 6, 7], 5: [1, 2, 3]}
    seen = {seed: [] for seed in planned}
    turn = iter([seed for step in range(6) for seed in planned if step < len(planned[seed])])

    def scripted(params):
        seed = next(turn)
        seen[seed].append(params)
        return {"loss": float(planned[seed][len(seen[seed]) - 1])}

    config = dataclasses.replace(MANY, validate_every=1, patience=2, epochs=9)
    found = fit(tmp_path, config, validate=scripted)
    assert [replica.best_step for replica in found.replicas] == [2, 4, 1]
    assert all(replica.stopped for replica in found.replicas)
    assert found.steps == 6, "the run ends when its last replica has stopped"
    for place, seed in enumerate(planned):
        best = planned[seed].index(min(planned[seed]))
        assert_close(select(found.best, place).params, seen[seed][best], f"best/ of seed {seed} is of another step")
        assert len(found.replicas[place].history) == len(planned[seed])


def test_a_diverged_replica_is_reported_and_the_others_go_on(tmp_path):
    """A rate so high that one seed overflows would overflow all: here the loss of one is made infinite by its start."""
    start = train_step.start_state(MODEL, MANY)
    original, calls = train_step.start_state, []

    def with_nan(*_):
        calls.append(1)
        leaves = jax.tree.map(lambda leaf: np.asarray(leaf).copy(), start)
        leaves.params["params"]["combine"][1] = np.nan
        return leaves

    train_step.start_state = with_nan
    try:
        found = fit(tmp_path, data=stream)
    finally:
        train_step.start_state = original
    assert [replica.diverged for replica in found.replicas] == [0, 1, 0]
    assert found.replicas[1].history == [], "a diverged replica is not validated"
    assert [len(replica.history) for replica in found.replicas] == [2, 0, 2]


def test_a_last_update_that_overflows_is_found_by_validation(tmp_path):
    """Its own loss was that of the weights before it."""
    calls = iter(range(100))

    def scripted(params):
        return {"loss": np.nan if next(calls) == 1 else 1.0}  # the second of three seeds

    found = fit(tmp_path, validate=scripted)
    assert [bool(replica.diverged) for replica in found.replicas] == [False, True, False]
    assert len(found.replicas[1].history) == 1
    with pytest.raises(UserError, match="validation loss nan after update"):
        fit(tmp_path / "all", validate=lambda params: {"loss": np.nan})


def test_what_is_not_finite_is_never_the_best(tmp_path):
    """A model of NaN has a BLEU, of 0."""
    calls = iter(range(100))

    def scripted(params):
        return {"loss": np.nan if next(calls) == 1 else 1.0, "bleu": 0.0}  # the second of three seeds

    found = fit(tmp_path, dataclasses.replace(MANY, validate_bleu=True), validate=scripted)
    assert [bool(replica.best_step) for replica in found.replicas] == [True, False, True]
    defects = [checkpoint.defect(member) for member in checkpoint.load_all(found.best)]
    assert defects == ["", "diverged before its first validation", ""]


def test_all_diverged_is_an_error(tmp_path):
    with pytest.raises(UserError, match="seed 5: loss inf.*update 2"):
        fit(tmp_path, data=lambda position: stream(position, bad=2))


def test_all_seeds_at_once_are_those_one_by_one(tmp_path):
    found = fit(tmp_path, dataclasses.replace(MANY, epochs=1))
    together = checkpoint.load_all(found.best)
    assert [one.replica for one in together] == [0, 1, 2]
    for place, one in enumerate(together):
        assert_close(one.params, select(found.best, place).params, f"replica {place}")
    alone = checkpoint.load_all(checkpoint.select(found.best, 1, tmp_path / "one"))
    assert len(alone) == 1 and alone[0].replica is None
    assert_close(alone[0].params, together[1].params, "the one that an ordinary checkpoint holds")


def test_the_path_is_kept(tmp_path):
    config = dataclasses.replace(MANY, epochs=5, keep_path=True)
    found = fit(tmp_path, config)
    kept = sorted(path.name for path in tmp_path.glob("epoch-*"))
    assert kept == ["epoch-0000", "epoch-0001", "epoch-0002", "epoch-0004"]
    start = replica(train_step.start_state(MODEL, config).params, 2)
    assert_close(select(tmp_path / "epoch-0000", 2).params, start, "epoch-0000 holds the weights before any update")
    final = select(found.last, 2).params
    assert_close(select(tmp_path / "end", 2).params, final, "end/ holds the weights after the last update")


def test_what_cannot_be(tmp_path):
    with pytest.raises(UserError, match="replicas is 0"):
        fit(tmp_path / "none", dataclasses.replace(MANY, replicas=0))
    found = fit(tmp_path / "many", dataclasses.replace(MANY, epochs=1))
    with pytest.raises(UserError, match="holds 3 replicas.*seqkd select"):
        select(found.best)
    with pytest.raises(UserError, match="no replica 3"):
        select(found.best, 3)
    with pytest.raises(UserError, match="holds a run with replicas=3, not 1"):
        fit(tmp_path / "many", dataclasses.replace(MANY, epochs=1, replicas=1))


def test_no_update_is_made_for_nobody(tmp_path, capfd):
    """Two seeds stop early at update 3; the third goes on to 7, and its epoch would to 9."""
    losses = iter([1.0, 1.0, 1.0, 2.0, 2.0, 0.5])
    config = dataclasses.replace(MANY, validate_every=3, patience=1, epochs=9, log_every=100)
    drawn = []

    def bad_from_7(position):
        for after, made in stream(position):
            drawn.append(after)
            infinite = len(drawn) >= 7
            yield after, made._replace(weights=np.full_like(made.weights, np.inf)) if infinite else made

    found = fit(tmp_path, config, bad_from_7, validate=lambda params: {"loss": next(losses)})
    assert [replica.stopped for replica in found.replicas] == [True, True, False]
    assert found.replicas[2].diverged == 7
    assert len(drawn) == 8, "one update had been started; the rest of the epoch is for nobody"
    assert "the others had stopped before" in capfd.readouterr().err


def test_a_seed_that_diverged_at_once_cannot_be_taken_out(tmp_path):
    losses = iter([1.0, np.nan, 1.0, 0.9, 0.9])
    found = fit(tmp_path, validate=lambda params: {"loss": next(losses)})
    with pytest.raises(UserError, match="replica 1 diverged before its first validation"):
        checkpoint.select(found.best, 1, tmp_path / "taken")
    taken = checkpoint.select(found.best, 2, tmp_path / "taken")
    why = checkpoint.defect(checkpoint.load(taken))
    assert why == "", "one that was taken out is good, whatever became of the others"
    again = fit(tmp_path, data=lambda position: pytest.fail("trained again"))
    assert np.isnan(again.replicas[1].history[0]["loss"]), "a loss that is no number is read back as one"
