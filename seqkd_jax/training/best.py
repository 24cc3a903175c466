"""Which validation is the best: the one rule that picks best/, that `patience` counts by, and that the last line names.

A validation is a dict: its step, the loss, and what else was measured. With BLEU as the metric, the better BLEU is
better, and of two equal ones that with the lower loss. A BLEU that reads 0.0 is 0: a metric that has not left its floor
yet says nothing, so the loss alone decides until then.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from seqkd_jax.config import TrainConfig
from seqkd_jax.training.run_state import Replica

FLOOR = 0.05  # BLEU; what is below reads 0.0


def rank(entry: Mapping[str, Any], by_bleu: bool) -> tuple[float, float]:
    """What orders validations, the lowest first."""
    return -_bleu(entry) if by_bleu else 0.0, entry["loss"]


def judged(replica: Replica, entry: Mapping[str, Any], config: TrainConfig) -> Replica:
    """A replica after one more validation: its best, the validations since then, whether it stops early.

    A loss that is not finite neither improves nor stops: the replica diverged.
    """
    finite = math.isfinite(entry["loss"])
    better = finite and is_better(entry, at_step(replica.history, replica.best_step), config.validate_bleu)
    worse = 0 if better else replica.worse + 1
    replica = replica._replace(history=(*replica.history, entry), worse=worse)
    if better:
        value = -entry["bleu"] if config.validate_bleu else entry["loss"]
        replica = replica._replace(best_value=value, best_step=entry["step"])
    return replica._replace(stopped=finite and 0 < config.patience <= worse)


def is_better(entry: Mapping[str, Any], best: Mapping[str, Any] | None, by_bleu: bool) -> bool:
    """Whether a validation is better than the best so far; None: there is none."""
    return best is None or rank(entry, by_bleu) < rank(best, by_bleu)


def at_step(history: Iterable[Mapping[str, Any]], step: int) -> Mapping[str, Any] | None:
    """The validation after update `step`; None if there is none."""
    return next((entry for entry in history if entry["step"] == step), None)


def described(best: Mapping[str, Any] | None, by_bleu: bool) -> str:
    """The best validation by the metric that chose it: "best BLEU 33.1 at update 3,660"."""
    if best is None:
        return "no validation was finite"
    if by_bleu and _bleu(best):
        measured = f"BLEU {best['bleu']:.1f}"
    elif "accuracy" in best:
        measured = f"loss {best['loss']:.4g}, accuracy {best['accuracy']:.1%}"
    elif "perplexity" in best:
        measured = f"perplexity {best['perplexity']:.4g}"
    else:
        measured = f"loss {best['loss']:.4g}"
    floor = ", where BLEU is 0.0: the loss chose" if by_bleu and not _bleu(best) else ""
    return f"best {measured} at update {best['step']:,}{floor}"


def _bleu(entry: Mapping[str, Any]) -> float:
    return entry["bleu"] if entry["bleu"] >= FLOOR else 0.0
