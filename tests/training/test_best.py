"""The rule of the best validation: over histories that are written down here, and once from end to end."""

import dataclasses
import math

import pytest
from updates import CONFIG, fit, killed_at, stream

from seqkd_jax import checkpoint
from seqkd_jax.training import best
from seqkd_jax.training.run_state import Replica

BLEU = dataclasses.replace(CONFIG, validate_bleu=True)


def history(*measured):
    """Validations after updates 10, 20, ...: (BLEU, loss) each."""
    return [{"step": 10 * number, "loss": loss, "bleu": bleu} for number, (bleu, loss) in enumerate(measured, start=1)]


def ended(entries, config):
    """(update of the best, update at which it stopped early or None)."""
    replica = Replica(0)
    for entry in entries:
        replica = best.judged(replica, entry, config)
        if replica.stopped:
            return replica.best_step, entry["step"]
    return replica.best_step, None


@pytest.mark.parametrize(
    ("measured", "patience", "expected"),
    [
        ([(0, 5.3), (0, 4.6), (0, 4.0), (0, 3.6), (0, 3.5)], 3, (50, None)),  # at its floor: the loss does both
        ([(0, 5.3), (0, 4.6), (0, 4.7), (0, 4.8), (0, 4.9)], 3, (20, 50)),  # the loss stops, too
        ([(0.003, 5.0), (0.001, 4.0), (0.002, 3.0), (0.04, 3.5)], 2, (30, None)),  # what reads 0.0 is 0
        ([(0, 5.0), (0, 4.0), (0.2, 6.0), (0, 3.0)], 0, (30, None)),  # once it has left, it decides
        ([(9, 5.0), (8, 4.0), (8, 3.0)], 2, (10, 30)),  # and a falling loss does not keep it from stopping
        ([(9, 5.0), (9, 4.0), (9, 4.5)], 2, (20, None)),  # a tie goes to the loss
        ([(100, 2.0), (100, 1.0), (100, 0.5)], 1, (30, None)),  # at the ceiling as well
        ([(30, math.nan), (20, 1.0)], 1, (20, None)),  # what is not finite is never the best, nor a reason to stop
    ],
)
def test_the_metric_then_the_loss(measured, patience, expected):
    assert ended(history(*measured), dataclasses.replace(BLEU, patience=patience)) == expected


def test_without_bleu_it_is_the_loss_alone():
    falling = history((9, 3.0), (8, 2.0), (7, 2.5), (6, 2.4))
    assert ended(falling, dataclasses.replace(CONFIG, patience=2)) == (20, 40)


@pytest.mark.parametrize(
    ("entry", "by_bleu", "said"),
    [
        ({"step": 3660, "loss": 1.2, "perplexity": 3.32, "bleu": 33.14}, True, "best BLEU 33.1 at update 3,660"),
        ({"step": 60, "loss": 3.6, "perplexity": 38.2, "bleu": 0.0}, True, "best perplexity 38.2 at update 60, where"),
        ({"step": 60, "loss": 3.6, "perplexity": 38.2}, False, "best perplexity 38.2 at update 60"),
        ({"step": 8, "loss": 0.25, "perplexity": 1.3, "accuracy": 0.9125}, False, "best loss 0.25, accuracy 91.2%"),
        (None, False, "no validation was finite"),
    ],
)
def test_the_last_line_names_the_metric_that_chose(entry, by_bleu, said):
    assert best.described(entry, by_bleu).startswith(said)


def test_a_bleu_at_its_floor_neither_picks_nor_stops(tmp_path):
    losses = iter([5.0, 4.0, 3.0, 2.0, 2.5])
    config = dataclasses.replace(BLEU, validate_every=1, patience=1)
    found = fit(tmp_path, config, validate=lambda params: {"loss": next(losses), "bleu": 0.0})
    assert (found.steps, found.replicas[0].best_step) == (5, 4)
    assert checkpoint.read_record(found.best)["metadata"]["step"] == 4


def test_a_run_that_was_saved_under_the_old_rule_goes_on(tmp_path, monkeypatch):
    """Its best/ is the first of those at the floor; the next validation of a lower loss replaces it."""
    losses = iter([5.0, 4.0, 3.0])
    config = dataclasses.replace(BLEU, epochs=3)
    options = {"validate": lambda params: {"loss": next(losses), "bleu": 0.0}}
    with monkeypatch.context() as before, pytest.raises(KeyboardInterrupt):
        before.setattr(best, "rank", lambda entry, by_bleu: -entry["bleu"])
        fit(tmp_path, config, killed_at(stream, 6), **options)
    assert checkpoint.read_record(tmp_path / "last")["metadata"]["run"]["replicas"][0]["best_step"] == 3
    found = fit(tmp_path, config, **options)
    assert (found.steps, found.replicas[0].best_step) == (9, 9)
