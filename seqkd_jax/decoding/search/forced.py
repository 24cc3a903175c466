"""Log-probability and attention of given translations, teacher-forced."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from seqkd_jax.decoding.search.past import extended, nothing_own, with_beam_axis
from seqkd_jax.types import BOS, EOS, PAD, Translator, UserError


def sequence_log_probs(translator: Translator, params, source, target_in, labels, weights) -> Float[Array, " B"]:
    """Log-probability in nats of each row of labels [B,T] given source [B,S] and target_in [B,T], weights [B,T] 1 or 0.

    Computed from `features` in one call; the log-probabilities of the searches must agree with it.
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
    """Attention on the source at each target token; a row sums to 1 over the source's ids, EOS included.

    layer, heads: from 1; the mean over these heads. None: the last layer, all heads. UserError, when traced: the model
    has no attention, no layers to choose from, or no such layer or head.
    """
    if layer is None and heads is None:
        return _attention_of_steps(translator, params, source, tokens)
    attention = translator.attention
    if attention is None:
        raise UserError("attention: this model has no layers and heads to choose from; leave layer and heads out")
    target_in = jnp.pad(tokens, ((0, 0), (0, 0), (1, 0)), constant_values=BOS)[..., :-1]
    layers = jax.vmap(lambda rows: attention(params, (source, rows)), 1, 1)(target_in)  # [B,K,H,T,S] each
    weights = layers[_place("layer", len(layers) if layer is None else layer, len(layers))]
    every = weights.shape[2]
    places = [_place("head", head, every) for head in heads or range(1, every + 1)]
    return jnp.mean(weights[:, :, np.array(places)], axis=2)


def attended(translator: Translator, params, source, tokens: Int[Array, "B K T"]) -> Int[Array, "B K T"]:
    """The source position (EOS excluded) with the greatest attention at each target token, to replace <unk>."""
    words = ((source != PAD) & (source != EOS))[:, None, None]
    weights = attention_weights(translator, params, source, tokens)
    return jnp.argmax(jnp.where(words, weights, -jnp.inf), axis=-1).astype(jnp.int32)


def _attention_of_steps(translator: Translator, params, source, tokens) -> Float[Array, "B K T S"]:
    """The attention that `step` returns, step by step."""
    memory, state = translator.start(params, source)

    def step(carry, token):
        previous, state, caches, own = carry
        own, past = extended(own)
        _, attention, state, caches = translator.step(params, previous, memory, state, caches, past)
        if attention is None:
            raise UserError("attention: this model has none; leave out what needs it, such as replacing <unk>")
        return (token, state, caches, own), attention

    first = jnp.full(tokens.shape[:2], BOS, jnp.int32)
    rows, beam, length = tokens.shape
    own = nothing_own(rows, beam, beam * length)
    carry = first, with_beam_axis(state, beam), translator.caches(rows, beam, length), own
    _, weights = lax.scan(step, carry, jnp.moveaxis(tokens, -1, 0))
    return jnp.moveaxis(weights, 0, 2)


def _place(what: str, number: int, count: int) -> int:
    if not 1 <= number <= count:
        raise UserError(f"attention: there is no {what} {number}; the model has 1 to {count}")
    return number - 1
