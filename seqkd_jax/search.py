"""From a translator to its best hypotheses: beam search and greedy search, jittable, and the scores they work with.

The loop is outside ("some sentence is not done") and works on all B sentences; what one sentence does in a step is
`_advance`, written for K beams and lifted by vmap. The model's memory is closed over by the loop and never copied; its
state gets a beam axis once, and beams are reordered by one gather, so the search never learns which model it serves.

`search = beam_search(translator, config, max_steps)` gives a pure function for the caller to jit. What a sentence has
when step t begins (t tokens are behind it) is `Beams`; a sentence that is done keeps its Beams while others go on.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from seqkd_jax.base import BOS, EOS, PAD, UNK, Hypotheses, Translator, UserError
from seqkd_jax.config import SearchConfig


class Beams(NamedTuple):
    """The search's state of one sentence, best first. Outside of `_advance` every leaf has a leading axis B."""

    done: Bool[Array, "*B"]
    live: Int[Array, "*B K T"]  # hypotheses that go on: t tokens, then PAD
    live_log_probs: Float[Array, "*B K"]  # -inf: an impossible slot
    finished: Int[Array, "*B K T"]  # hypotheses that ended with EOS
    finished_scores: Float[Array, "*B K"]  # under the length rule; -inf: an empty slot
    finished_log_probs: Float[Array, "*B K"]


def length_penalty(config: SearchConfig, length):
    """What a log-probability is divided by at `length` tokens, EOS included: a number, or an array of either library.

    none: 1 (the paper). power: L^a. gnmt: ((5+L)/6)^a (Wu et al. 2016, eq. 14). It never falls as L grows: the stop
    bound needs that.
    """
    if config.length_rule == "none":
        return 1.0
    return (length if config.length_rule == "power" else (5 + length) / 6) ** config.length_alpha


def length_limits(config: SearchConfig, source_lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(fewest tokens before EOS, most tokens with EOS) for sources of these many tokens, EOS not counted; int32, NumPy.

    A maximum is at least 1, and a minimum always leaves room for EOS.
    """
    lengths = np.asarray(source_lengths)
    longest = np.maximum(np.floor(config.max_length_a * lengths + config.max_length_b), 1).astype(np.int32)
    shortest = np.maximum(np.ceil(config.min_length_a * lengths + config.min_length_b), 0).astype(np.int32)
    return np.minimum(shortest, longest - 1), longest


def check(config: SearchConfig) -> None:
    """Raise UserError for rules that cannot be searched under."""
    if config.beam < 1:
        raise UserError(f"search: beam is {config.beam}; it must be 1 or more")
    if config.length_alpha < 0:
        raise UserError(f"search: length_alpha is {config.length_alpha}; below 0 the stop bound fails, take 0 or more")
    if config.min_length_a > config.max_length_a or config.min_length_b > config.max_length_b:
        least, most = f"{config.min_length_a}x+{config.min_length_b}", f"{config.max_length_a}x+{config.max_length_b}"
        raise UserError(f"search: the least length {least} can exceed the greatest {most}; lower min_length_a or _b")


def beam_search(translator: Translator, config: SearchConfig, max_steps: int) -> Callable[..., Hypotheses]:
    """The search (params, source [B,S], min_length [B], max_length [B]) -> Hypotheses with T = max_steps, to be jitted.

    Lengths as from `length_limits`; a row of max_length 0 is done at once and has no hypotheses (a fill row). Of 2K
    candidates a step, an EOS among the first K finishes its hypothesis, and the first K others live on.
    """
    check(config)
    advance = jax.vmap(lambda *row: _advance(config, *row), in_axes=(None, 0, 0, 0, 0))
    reorder = jax.vmap(lambda state, parents: jax.tree.map(lambda leaf: leaf[parents], state))
    n_best = jax.vmap(lambda *row: _n_best(config, *row))

    def search(params, source, min_length, max_length) -> Hypotheses:
        max_length = jnp.minimum(max_length, max_steps)
        memory, state = translator.start(params, source, max_steps)
        state = jax.tree.map(lambda leaf: _repeat(leaf, config.beam), state)
        beams = _first_beams(config.beam, max_steps, max_length)

        def some_sentence_is_not_done(carry):
            return ~jnp.all(carry[1].done)

        def step(carry):
            t, beams, token, state = carry
            features, _, state = translator.step(params, token, memory, state)
            logits = translator.head(params, features)
            beams, token, parents = advance(t, beams, logits, min_length, max_length)
            if config.beam > 1:  # a single beam is its own parent
                state = reorder(state, parents)
            return t + 1, beams, token, state

        first = jnp.full((source.shape[0], config.beam), BOS, jnp.int32)
        _, beams, _, _ = lax.while_loop(some_sentence_is_not_done, step, (jnp.int32(0), beams, first, state))
        return n_best(beams, max_length)

    return search


def greedy(translator: Translator, config: SearchConfig, max_steps: int) -> Callable[..., Hypotheses]:
    """The most probable token at each step, as a loop of its own: what beam search at K = 1 is held to. Same signature.

    Returns one hypothesis whatever config.beam is; its score is under the length rule, which chooses nothing here.
    """
    check(config)

    def search(params, source, min_length, max_length) -> Hypotheses:
        max_length = jnp.minimum(max_length, max_steps)
        memory, state = translator.start(params, source, max_steps)
        rows = source.shape[0]

        def step(carry):
            t, token, tokens, total, running, state = carry
            features, _, state = translator.step(
                params, token[:, None], memory, jax.tree.map(lambda x: x[:, None], state)
            )
            state = jax.tree.map(lambda x: x[:, 0], state)
            log_probs = jax.vmap(lambda row, early: _log_probs(config, row, early))(
                translator.head(params, features)[:, 0], t < min_length
            )
            best, token = (x[:, 0] for x in lax.top_k(log_probs, 1))  # on CPUs several times faster than argmax
            total = jnp.where(running, total + best, total)
            tokens = lax.dynamic_update_slice(tokens, jnp.where(running, token, PAD)[:, None], (0, t))
            running &= (token != EOS) & (t + 1 < max_length)
            return t + 1, token, tokens, total, running, state

        tokens = jnp.full((rows, max_steps), PAD, jnp.int32)
        first = (jnp.int32(0), jnp.full(rows, BOS, jnp.int32), tokens, jnp.zeros(rows), max_length > 0, state)
        _, _, tokens, total, _, _ = lax.while_loop(lambda carry: jnp.any(carry[4]), step, first)
        total = jnp.where(max_length > 0, total, -jnp.inf)
        scores = total / length_penalty(config, jnp.sum(tokens != PAD, axis=-1))
        finished = jnp.any(tokens == EOS, axis=-1)
        return Hypotheses(tokens[:, None], scores[:, None], total[:, None], finished[:, None])

    return search


def sequence_log_probs(translator: Translator, params, source, target_in, labels, weights) -> Float[Array, " B"]:
    """Log-probability in nats of each row of labels [B,T] given source [B,S] and target_in [B,T], weights [B,T] 1 or 0.

    Teacher-forced, by `head(features)`: what the search must agree with, and what scores given translations.
    """
    logits = translator.head(params, translator.features(params, (source, target_in), None)).astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    log_probs = chosen - jax.nn.logsumexp(logits, axis=-1)
    return jnp.sum(jnp.where(weights > 0, log_probs * weights, 0.0), axis=-1)


def attended(translator: Translator, params, source, tokens: Int[Array, "B K T"]) -> Int[Array, "B K T"]:
    """The source word (a position, EOS left out) most attended to as each token was produced: the steps again, forced.

    For UNK replacement. Raises UserError, when traced, if the model has no attention.
    """
    memory, state = translator.start(params, source, tokens.shape[-1])
    state = jax.tree.map(lambda leaf: _repeat(leaf, tokens.shape[1]), state)
    words = ((source != PAD) & (source != EOS))[:, None]

    def step(carry, token):
        previous, state = carry
        _, attention, state = translator.step(params, previous, memory, state)
        if attention is None:
            raise UserError("translate: replacing <unk> needs a model with attention; this one has none, leave it off")
        return (token, state), jnp.argmax(jnp.where(words, attention, -jnp.inf), axis=-1).astype(jnp.int32)

    first = jnp.full(tokens.shape[:2], BOS, jnp.int32)
    _, positions = lax.scan(step, (first, state), jnp.moveaxis(tokens, -1, 0))
    return jnp.moveaxis(positions, 0, -1)


def _repeat(leaf, beam: int):
    return jnp.broadcast_to(leaf[:, None], (leaf.shape[0], beam, *leaf.shape[1:]))


def _first_beams(beam: int, max_steps: int, max_length) -> Beams:
    """B empty hypotheses, one possible each; a row of max_length 0 has none and is done."""
    rows = max_length.shape[0]
    possible = (jnp.arange(beam) == 0)[None] & (max_length > 0)[:, None]
    tokens = jnp.full((rows, beam, max_steps), PAD, jnp.int32)
    nothing = jnp.full((rows, beam), -jnp.inf, jnp.float32)
    return Beams(max_length <= 0, tokens, jnp.where(possible, 0.0, nothing), tokens, nothing, nothing)


def _log_probs(config: SearchConfig, logits: Float[Array, "*pos V"], too_early) -> Float[Array, "*pos V"]:
    """Float32 log-probabilities, -inf where the rules forbid; not renormalised, so that scores stay the model's own."""
    ids = np.arange(logits.shape[-1])
    never = (ids == PAD) | (ids == BOS) | ((ids == UNK) & config.forbid_unk)
    logits = logits.astype(jnp.float32)
    log_probs = logits - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    forbidden = jnp.expand_dims(never | ((ids == EOS) & too_early), tuple(range(logits.ndim - 1)))
    return jnp.where(forbidden, -jnp.inf, log_probs)


def _advance(config: SearchConfig, t, beams: Beams, logits: Float[Array, "K V"], min_length, max_length):
    """One step of one sentence: (Beams, the tokens [K] that live hypotheses now end with, and their parents [K])."""
    beam, vocabulary = logits.shape
    totals = beams.live_log_probs[:, None] + _log_probs(config, logits, t < min_length)
    # At most K of the 2K candidates end (each parent has one EOS), so K are left to live on. Ties: the lower index.
    totals, flat = lax.top_k(totals.reshape(-1), 2 * beam)
    parents, tokens = flat // vocabulary, flat % vocabulary
    extended = lax.dynamic_update_slice_in_dim(beams.live[parents], tokens[:, None], t, axis=1)
    ends = tokens == EOS

    ended = jnp.where(ends, totals, -jnp.inf)[:beam]
    scores = jnp.concatenate([beams.finished_scores, ended / length_penalty(config, t + 1)])
    scores, best = lax.top_k(scores, beam)
    live_log_probs, on = lax.top_k(jnp.where(ends, -jnp.inf, totals), beam)

    # A later hypothesis has a smaller log-probability and at most the greatest penalty: it scores at most `bound`.
    bound = live_log_probs[0] / length_penalty(config, max_length)
    settled = scores[-1] >= bound if config.stop == "bound" else (scores[-1] > -jnp.inf) | (bound == -jnp.inf)
    after = Beams(
        done=settled | (t + 1 >= max_length),
        live=extended[on],
        live_log_probs=live_log_probs,
        finished=jnp.concatenate([beams.finished, extended[:beam]])[best],
        finished_scores=scores,
        finished_log_probs=jnp.concatenate([beams.finished_log_probs, ended])[best],
    )
    after = jax.tree.map(lambda old, new: jnp.where(beams.done, old, new), beams, after)
    return after, tokens[on].astype(jnp.int32), parents[on]


def _n_best(config: SearchConfig, beams: Beams, max_length) -> Hypotheses:
    """The finished hypotheses of one sentence, then live ones for the slots that are left, marked unfinished."""
    count = jnp.sum(beams.finished_scores != -jnp.inf)  # not `> -inf`: a NaN must be seen by the caller
    slot = jnp.arange(config.beam)
    finished = slot < count
    chosen = jnp.where(finished, slot, config.beam + slot - count)
    live_scores = beams.live_log_probs / length_penalty(config, max_length)
    scores = jnp.concatenate([beams.finished_scores, live_scores])[chosen]
    log_probs = jnp.concatenate([beams.finished_log_probs, beams.live_log_probs])[chosen]
    tokens = jnp.concatenate([beams.finished, beams.live])[chosen]
    return Hypotheses(jnp.where((scores == -jnp.inf)[:, None], PAD, tokens), scores, log_probs, finished)


# (translator, config, max_steps) -> search(params, source, min_length, max_length) -> Hypotheses
DECODERS = {"beam": beam_search, "greedy": greedy}
