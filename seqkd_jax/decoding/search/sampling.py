"""Sampling: independent translations of a sentence, drawn token by token from the model's distribution.

Before each draw, in this order: the rules forbid tokens, logits are divided by the temperature, top-k and then top-p
(nucleus sampling, Holtzman et al. 2020) remove the least probable tokens. The reported log-probability of a sample is
the model's own, at temperature 1 and without top-k or top-p.

A draw depends on the seed, the sentence's index in the input, the sample's index and the step, and on nothing else.
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
    """config.beam samples of each sentence, sorted by score; equal ones are kept. Signature as of `beam_search`.

    They include the samples of every smaller beam. A sample without an allowed token is impossible (score -inf).
    """
    config.validate()
    numbers = np.arange(config.beam)
    draw = jax.vmap(jax.vmap(lambda *each: _draw(config, *each), (None, None, 0, 0)), (0, 0, None, 0))
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
    """The distribution that a token is drawn from: N logits (-inf: removed) and their ids."""
    logits, ids, vocabulary = log_probs / config.sample_temperature, np.arange(log_probs.size), log_probs.size
    if config.sample_top_k or config.sample_top_p < 1:
        logits, ids = lax.top_k(logits, min(config.sample_top_k or vocabulary, vocabulary))
    if config.sample_top_p < 1:  # the fewest tokens that reach p: a token stays if those before it do not reach p
        probabilities = jax.nn.softmax(logits)
        logits = jnp.where(jnp.cumsum(probabilities) - probabilities < config.sample_top_p, logits, -jnp.inf)
    return logits, jnp.asarray(ids, jnp.int32)


def _draw(config: SearchConfig, t, draws, sample, log_probs: Float[Array, " V"]) -> Int[Array, ""]:
    seed, number = draws  # arguments of the program, so that all seeds share it
    key = jax.random.key(seed)
    for part in (number, sample, t):
        key = jax.random.fold_in(key, part)
    logits, ids = narrowed(config, log_probs)
    return ids[jax.random.categorical(key, logits)]
