"""A translator small enough to enumerate: a one-layer recurrent net with attention, its state a tree with a beam axis.

`TINY` serves every width and vocabulary (its parameters say which). `next_log_probs` is the same net in float64 NumPy,
started again from the first token each time: no state, no batch, no beam.
"""

import jax
import jax.numpy as jnp
import numpy as np

from seqkd_jax.types import BOS, PAD, Translator


def parameters(seed: int, vocabulary: int, width: int = 6, spread: float = 1.5, eos_bias: float = 0.0):
    """Random float32 parameters, NumPy. A larger spread: more peaked; a larger eos_bias: shorter outputs."""
    random = np.random.default_rng(seed)
    shapes = {"source": (vocabulary, width), "target": (vocabulary, width), "output": (vocabulary, width)}
    shapes |= {"recurrent": (width, width), "context": (width, width), "bias": (vocabulary,)}
    params = {name: random.normal(scale=spread, size=shape).astype(np.float32) for name, shape in shapes.items()}
    params["bias"][3] += eos_bias
    return params


def _start(params, source):
    values = params["source"][source]
    return (values, source != PAD), {"hidden": jnp.mean(values, axis=1) * 0, "position": jnp.zeros(source.shape[0])}


def _step(params, token, memory, state, caches, past):
    values, mask = memory
    scores = jnp.einsum("bke,bse->bks", state["hidden"] + params["target"][token], values)
    attention = jax.nn.softmax(jnp.where(mask[:, None], scores, -jnp.inf), axis=-1)
    context = jnp.einsum("bks,bse->bke", attention, values)
    rhythm = jnp.cos(state["position"])[..., None]
    hidden = state["hidden"] @ params["recurrent"] + context @ params["context"] + params["target"][token] + rhythm
    hidden = jnp.tanh(hidden)
    return hidden, attention, {"hidden": hidden, "position": state["position"] + 1}, caches


def _features(params, inputs, keys):
    source, target_in = inputs
    memory, state = _start(params, source)

    def body(state, token):
        features, _, state, _ = _step(params, token[:, None], memory, state, (), None)
        return state, features[:, 0]

    _, features = jax.lax.scan(body, jax.tree.map(lambda leaf: leaf[:, None], state), target_in.T)
    return jnp.swapaxes(features, 0, 1)


def _head(params, features):
    kernel, bias = params["output"], params["bias"]
    return features @ kernel.T + jnp.expand_dims(bias, tuple(range(features.ndim - 1)))


def _step_without_attention(*arguments):
    features, _, *rest = _step(*arguments)
    return features, None, *rest


TINY = Translator(init=None, features=_features, head=_head, start=_start, step=_step)
WITHOUT_ATTENTION = TINY._replace(step=_step_without_attention)


def next_log_probs(params, source):
    """A function: prefix (ids without BOS) -> log-probabilities [V] of the next token. source: ids without PAD.

    Its `attention(prefix)` gives the weights [S] of that step.
    """
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}
    values = p["source"][np.asarray(source)]
    known = {}  # prefix -> (hidden state after its last token was read, log-probabilities, attention)

    def ask(prefix):
        prefix = tuple(prefix)
        if prefix not in known:
            if prefix:
                ask(prefix[:-1])
            hidden = known[prefix[:-1]][0] if prefix else np.zeros(values.shape[1])
            embedded = p["target"][prefix[-1] if prefix else BOS]
            weights = np.exp(values @ (hidden + embedded))
            weights = weights / weights.sum()
            context = weights @ values
            rhythm = np.cos(len(prefix))
            hidden = np.tanh(hidden @ p["recurrent"] + context @ p["context"] + embedded + rhythm)
            logits = p["output"] @ hidden + p["bias"]
            known[prefix] = hidden, logits - np.log(np.exp(logits).sum()), weights
        return known[prefix][1]

    ask.attention = lambda prefix: (ask(prefix), known[tuple(prefix)][2])[1]
    return ask


def log_prob(params, source, target):
    """Of a whole target: ids, both with EOS at their ends."""
    ask = next_log_probs(params, source)
    return sum(ask(target[:place])[token] for place, token in enumerate(target))
