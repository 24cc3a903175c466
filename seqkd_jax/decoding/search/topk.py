"""The best extensions of all hypotheses with one pass over the vocabulary, which is divided into blocks.

The pass computes the maximum and the sum of exponentials of every block. Then only the best blocks are ranked.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from seqkd_jax.config import SearchConfig
from seqkd_jax.decoding.search.beams import Beams, Candidates, log_softmax
from seqkd_jax.decoding.search.rules import SPECIAL, Request, allowed, barred, may_force

BLOCK = 80  # approximate number of entries in a block of the vocabulary


def extensions(config: SearchConfig, t, beams: Beams, logits: Float[Array, "B K V"], request: Request) -> Candidates:
    """`beams.candidates` for B sentences. Rules about special ids alone need no second pass over the vocabulary."""
    live = beams.live_log_probs
    if config.no_repeat_ngram or may_force(config, request):
        rule = jax.vmap(lambda *row: allowed(config, *row))
        return best_extensions(rule(t, beams.live, log_softmax(logits), request), live, 2 * config.beam, None)
    return best_extensions(logits, live, 2 * config.beam, jax.vmap(lambda *row: barred(config, *row))(t, request))


def best_extensions(
    scores: Float[Array, "B K V"], live: Float[Array, "B K"], number: int, special: Bool[Array, "B 4"] | None
) -> Candidates:
    """The best extensions of each sentence's hypotheses; ties: the lower parent, then the lower token, first.

    scores: logits if `special` is given, which marks forbidden special ids (the others are not renormalised); else
    log-probabilities, -inf for forbidden tokens. live: log-probabilities of the hypotheses.
    The result is exact: the n best entries lie in the n blocks with the greatest maxima, the first ones among ties.
    """
    rows, _, vocabulary = scores.shape
    width = _block_width(vocabulary)
    lowest = jnp.finfo(jnp.float32).min
    scores = jnp.pad(scores, ((0, 0), (0, 0), (0, -vocabulary % width)), constant_values=lowest)
    blocks, inside = scores.reshape(*scores.shape[:2], -1, width), np.arange(width)[None, None]
    highest, total = blocks.max(-1), 0.0
    if special is not None:
        mass = jnp.sum(jnp.exp(blocks - highest[..., None]), -1)
        highest, mass = lax.optimization_barrier((highest, mass))
        top = jnp.max(highest, -1, keepdims=True)
        total = top + jnp.log(jnp.sum(mass * jnp.exp(highest - top), -1, keepdims=True))
        first = _bar(blocks[..., 0, :], inside, special).max(-1)
        highest = highest.at[..., 0].set(first)
    highest = (live[..., None] + (highest - total)).reshape(rows, -1)
    _, chosen = _top_k(highest, min(number, highest.shape[-1]))
    chosen = jnp.sort(chosen, axis=-1)  # the second top-k breaks ties by this order
    parents, ids = jnp.divmod(chosen[..., None] * width + inside, blocks.shape[-2] * width)
    values = jnp.take_along_axis(blocks.reshape(rows, -1, width), chosen[..., None], axis=1)
    total = jnp.take_along_axis(jnp.broadcast_to(total, (*live.shape, 1))[..., 0], parents[..., 0], axis=-1)[..., None]
    values = jnp.take_along_axis(live, parents[..., 0], axis=-1)[..., None] + (values - total)
    values = values if special is None else _bar(values, ids, special)
    values = jnp.where(ids < vocabulary, values, -jnp.inf).reshape(rows, -1)
    values, place = _top_k(values, number)
    pick = lambda ids: jnp.take_along_axis(ids.reshape(rows, -1), place, axis=-1).astype(jnp.int32)  # noqa: E731
    return Candidates(values, pick(parents), pick(ids))


def _top_k(values, number: int):
    """lax.top_k behind a barrier: without it XLA sorts all values when only a slice of the result is used."""
    return lax.optimization_barrier(lax.top_k(values, number))


def _bar(values: Float[Array, "B J n"], ids, barred: Bool[Array, "B 4"]):
    """The values with -inf for forbidden special ids; ids: [1,1,n] or [B,J,n]."""
    for special in SPECIAL:
        values = jnp.where((ids == special) & barred[:, special, None, None], -jnp.inf, values)
    return values


def _block_width(vocabulary: int) -> int:
    """A divisor of the vocabulary near BLOCK, which avoids padding, else BLOCK; a small vocabulary is one block."""
    if vocabulary <= 4 * BLOCK:
        return vocabulary
    divisors = [width for width in range(BLOCK // 4, 2 * BLOCK + 1) if vocabulary % width == 0]
    return min(divisors, key=lambda width: abs(width - BLOCK), default=BLOCK)
