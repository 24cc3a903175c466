"""Sampling: independent translations of a sentence, drawn token by token from the model's distribution.

It is narrowed in the usual order before each draw: the rules forbid, the temperature sharpens, top-k and then top-p
(the nucleus of Holtzman et al. 2020) cut the tail. What is reported of a sample is the model's own log-probability, of
temperature 1 and uncut, as of any other hypothesis.

A draw is a function of the seed, the sentence's number in the input, the sample's number and the step; nothing else.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from seqkd_jax.config import SearchConfig
from seqkd_jax.decoding.search.rules import Request
from seqkd_jax.decoding.search.simple import one_by_one
from seqkd_jax.types import Hypotheses, Translator


def sample(translator: Translator, config: SearchConfig, max_steps: int) -> Callable[..., Hypotheses]:
    """config.beam samples of each sentence, equal ones too, sorted by score. Signature as of `beam_search`.

    The samples of a smaller beam are among them. One that the rules leave no token for is impossible (score -inf).
    """
    config.validate()
    numbers = np.arange(config.beam)
    draw = jax.vmap(jax.vmap(lambda *each: _draw(config, *each), (None, None, 0, 0)), (None, 0, None, 0))
    samples = one_by_one(
        translator,
        config,
        max_steps,
        config.beam,
        lambda t, log_probs, request: draw(t, request.draws, numbers, log_probs),
    )

    def search(params, request: Request) -> Hypotheses:
        found = samples(params, request)
        order = jnp.argsort(-found.scores, axis=-1)
        return jax.tree.map(lambda leaf: jax.vmap(lambda row, places: row[places])(leaf, order), found)

    return search


def narrowed(config: SearchConfig, log_probs: Float[Array, " V"]) -> tuple[Float[Array, " N"], Int[Array, " N"]]:
    """What a token is drawn from: N logits, -inf: cut, and the ids that they are of."""
    logits, ids, vocabulary = log_probs / config.sample_temperature, np.arange(log_probs.size), log_probs.size
    if config.sample_top_k or config.sample_top_p < 1:
        logits, ids = lax.top_k(logits, min(config.sample_top_k or vocabulary, vocabulary))
    if config.sample_top_p < 1:  # as few as reach p: a token stays if those before it do not
        probabilities = jax.nn.softmax(logits)
        logits = jnp.where(jnp.cumsum(probabilities) - probabilities < config.sample_top_p, logits, -jnp.inf)
    return logits, jnp.asarray(ids, jnp.int32)


def _draw(config: SearchConfig, t, draws, sample, log_probs: Float[Array, " V"]) -> Int[Array, ""]:
    seed, number = draws  # arguments of the program, so that another seed needs no other one
    key = jax.random.key(seed)
    for part in (number, sample, t):
        key = jax.random.fold_in(key, part)
    logits, ids = narrowed(config, log_probs)
    return ids[jax.random.categorical(key, logits)]
