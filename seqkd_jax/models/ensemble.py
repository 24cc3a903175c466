"""An ensemble of translators with one vocabulary. It is a Translator, so search, scoring and distillation accept it.

Params, memory, state, caches and features are tuples with one item for each member. Members may be of different kinds.
The head returns the log of the members' mean probability in float32 instead of logits.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from seqkd_jax.models.layers import fold_keys
from seqkd_jax.types import Translator


@functools.cache
def ensemble(members: tuple[Translator, ...]) -> Translator:
    """The Translator of these members, with equal weights; equal tuples give the same Translator.

    Attention is the mean over the members that have attention; None if none has. For dropout each member has its own
    keys.
    """

    def init(key):
        return tuple(
            member.init(part) for member, part in zip(members, jax.random.split(key, len(members)), strict=True)
        )

    def features(params, inputs, keys):
        parts = enumerate(zip(members, params, strict=True))
        return tuple(member.features(part, inputs, fold_keys(keys, index)) for index, (member, part) in parts)

    def head(params, features):
        parts = zip(members, params, features, strict=True)
        log_probs = jnp.stack([jax.nn.log_softmax(member.head(*part).astype(jnp.float32)) for member, *part in parts])
        return jax.nn.logsumexp(log_probs, axis=0) - np.float32(np.log(len(members)))

    def start(params, source):
        started = [member.start(part, source) for member, part in zip(members, params, strict=True)]
        return tuple(zip(*started, strict=True))

    def step(params, token, memory, state, caches, past):
        parts = zip(members, params, memory, state, caches, strict=True)
        features, attention, state, caches = zip(
            *(member.step(part, token, *read, past) for member, part, *read in parts), strict=True
        )
        attention = [weights for weights in attention if weights is not None]
        return features, sum(attention) / len(attention) if attention else None, state, caches

    def caches(*sizes):
        return tuple(member.caches(*sizes) for member in members)

    def prepare(params):
        return tuple(member.prepare(part) for member, part in zip(members, params, strict=True))

    parallel = all(member.parallel for member in members)
    return Translator(init, features, head, start, step, prepare=prepare, caches=caches, parallel=parallel)
