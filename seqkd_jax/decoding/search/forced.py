"""What a model says of given translations: their probability, and where it looked. Teacher-forced, no search."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from seqkd_jax.decoding.search.simple import with_beam_axis
from seqkd_jax.types import BOS, EOS, PAD, Translator, UserError


def sequence_log_probs(translator: Translator, params, source, target_in, labels, weights) -> Float[Array, " B"]:
    """Log-probability in nats of each row of labels [B,T] given source [B,S] and target_in [B,T], weights [B,T] 1 or 0.

    By `head(features)`: what the search must agree with, and what scores given translations.
    """
    logits = translator.head(params, translator.features(params, (source, target_in), None)).astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    log_probs = chosen - jax.nn.logsumexp(logits, axis=-1)
    return jnp.sum(jnp.where(weights > 0, log_probs * weights, 0.0), axis=-1)


def attention_weights(
    translator: Translator,
    params,
    source,
    tokens: Int[Array, "B K T"],
    *,
    layer: int | None = None,
    heads: tuple[int, ...] | None = None,
) -> Float[Array, "B K T S"]:
    """What the model looked at as it produced each token; a row sums to 1 over the source's ids, EOS among them.

    Of the last layer and the mean over its heads, or of those named; they count from 1. UserError, when traced: the
    model has no attention, or not that layer or head.
    """
    if layer is None and heads is None:
        return _attention_of_steps(translator, params, source, tokens)
    if translator.attention is None:
        raise UserError("attention: this model has no layers and heads to choose from; leave layer and heads off")
    target_in = jnp.pad(tokens, ((0, 0), (0, 0), (1, 0)), constant_values=BOS)[..., :-1]
    layers = jax.vmap(lambda rows: translator.attention(params, (source, rows)), 1, 1)(target_in)  # [B,K,H,T,S] each
    weights = layers[_place("layer", len(layers) if layer is None else layer, len(layers))]
    every = weights.shape[2]
    places = [_place("head", head, every) for head in heads or range(1, every + 1)]
    return jnp.mean(weights[:, :, np.array(places)], axis=2)


def attended(translator: Translator, params, source, tokens: Int[Array, "B K T"]) -> Int[Array, "B K T"]:
    """The source word (a position, EOS left out) most attended to as each token was produced, for UNK replacement."""
    words = ((source != PAD) & (source != EOS))[:, None, None]
    weights = attention_weights(translator, params, source, tokens)
    return jnp.argmax(jnp.where(words, weights, -jnp.inf), axis=-1).astype(jnp.int32)


def _attention_of_steps(translator: Translator, params, source, tokens) -> Float[Array, "B K T S"]:
    """As the search's own steps have it, repeated."""
    memory, state = translator.start(params, source, tokens.shape[-1])
    state = with_beam_axis(state, tokens.shape[1])

    def step(carry, token):
        previous, state = carry
        _, attention, state = translator.step(params, previous, memory, state)
        if attention is None:
            raise UserError("attention: this model has none; leave off what reads it, such as replacing <unk>")
        return (token, state), attention

    first = jnp.full(tokens.shape[:2], BOS, jnp.int32)
    _, weights = lax.scan(step, (first, state), jnp.moveaxis(tokens, -1, 0))
    return jnp.moveaxis(weights, 0, 2)


def _place(what: str, number: int, count: int) -> int:
    if not 1 <= number <= count:
        raise UserError(f"attention: there is no {what} {number}; the model has 1 to {count}")
    return number - 1
