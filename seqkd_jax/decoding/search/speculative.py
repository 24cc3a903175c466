"""Greedy search that a cheaper translator drafts for: fewer steps of the dear one, and its own output.

In a round the draft proposes D tokens, one after the other. The translator reads them in a single step, as D + 1
hypotheses of which each has those before it in its past, and so gives its own choice after each of them. What agrees is
kept, and the first choice that differs takes the place of what the draft proposed. Every round adds between 1 and D + 1
tokens; all of them are what `greedy` chooses, up to ties within rounding (Leviathan et al. 2023, at temperature 0;
Xia et al. 2023 for translation).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int

from seqkd_jax.config import SearchConfig
from seqkd_jax.decoding.search.beams import log_softmax
from seqkd_jax.decoding.search.past import Own, extended, nothing_own, with_beam_axis
from seqkd_jax.decoding.search.rules import Request, allowed
from seqkd_jax.decoding.search.simple import Grown, grow, hypotheses, nothing_grown
from seqkd_jax.types import Hypotheses, Translator, UserError


class Reader(NamedTuple):
    """What one of the two has read of the translations."""

    state: Any  # [B,1,...]
    own: Own  # [B,1,C] the entries of tokens that were kept
    caches: Any


def speculative(translator: Translator, config: SearchConfig, max_steps: int) -> Callable[..., Hypotheses]:
    """The search (params, Request) -> Hypotheses with T = max_steps, to be jitted; one hypothesis a sentence.

    The rules are those of `greedy`. UserError: the translator has no draft (models.drafted).
    """
    search = counting_speculative(translator, config, max_steps)
    return lambda params, request: search(params, request)[0]


def counting_speculative(translator: Translator, config: SearchConfig, max_steps: int) -> Callable:
    """The `speculative` search with its rounds: (params, Request) -> (Hypotheses, rounds of each sentence [B])."""
    config.validate()
    draft, count = translator.draft, config.draft_tokens
    if draft is None:
        raise UserError("search: speculative decoding needs a draft: name a student by --draft DIR (draft= in Python)")

    def search(params, request: Request) -> tuple[Hypotheses, Int[Array, " B"]]:
        request = request._replace(max_length=jnp.minimum(request.max_length, max_steps))
        memory, drafts_memory = translator.start(params, request.source), draft.start(params[1], request.source)
        sizes = request.source.shape[0], 1, max_steps + count + 1  # all that may be kept, and a round

        def nothing_read(of: Translator, state) -> Reader:
            return Reader(with_beam_axis(state, 1), nothing_own(*sizes), of.caches(*sizes))

        def round_(carry):
            grown, verifier, reader, rounds = carry
            proposed, drafted = _drafted(config, draft, (params[1], drafts_memory[0]), request, grown, reader)
            block = jnp.concatenate([grown.token, proposed], axis=1)  # [B,D+1]
            found, verified = _verified(config, translator, (params, memory[0]), request, grown, verifier, block)
            after = _grown(config, request, grown, block, *found)
            read = after.t - grown.t  # [B] tokens of the block that were right
            rounds = rounds + jnp.any(grown.running, axis=1)
            return after, _kept(verifier, verified, read), _kept(reader, drafted, read), rounds

        readers = nothing_read(translator, memory[1]), nothing_read(draft, drafts_memory[1])
        carry = nothing_grown(config, request, 1, max_steps), *readers, jnp.zeros(sizes[0], jnp.int32)
        grown, *_, rounds = lax.while_loop(lambda carry: jnp.any(carry[0].running), round_, carry)
        return hypotheses(config, grown), rounds

    return search


def _drafted(config, draft: Translator, given, request: Request, grown: Grown, reader: Reader):
    """The proposed tokens [B,D]; and the Reader, whose state and own entries are those after each token [D+1,B,...]."""
    params, memory = given

    def read(token, reader: Reader):
        own, past = extended(reader.own)
        features, _, state, caches = draft.step(params, token, memory, reader.state, reader.caches, past)
        return features, Reader(state, own, caches)

    def propose(carry, number):
        token, tokens, reader = carry
        features, reader = read(token, reader)
        free = _allowed(config, grown.t + number, tokens, log_softmax(draft.head(params, features)), request)
        token = lax.top_k(free[:, 0], 1)[1]
        at = np.arange(tokens.shape[-1])[None] == (grown.t + number)[:, None]
        tokens = jnp.where(at[:, None], token[..., None], tokens)
        return (token, tokens, reader), (token[:, 0], reader[:2])

    carry = grown.token, grown.tokens, reader
    (token, _, reader), (proposed, after) = lax.scan(propose, carry, np.arange(config.draft_tokens))
    _, last = read(token, reader)  # counts if all are right
    after = jax.tree.map(lambda some, one: jnp.concatenate([some, one[None]]), after, last[:2])
    return proposed.T, Reader(*after, last.caches)


def _verified(config, translator: Translator, given, request: Request, grown: Grown, verifier: Reader, block):
    """Of the block [B,D+1]: (choice after each token, its log-probability, attention [B,D+1,S] or None); the Reader."""
    (params, memory), size = given, block.shape[1]
    own, past = extended(jnp.repeat(verifier.own, size, axis=1))
    earlier = np.tril(np.ones((size, size), bool))  # of the block, each has itself and those before it
    own = jnp.any(own[:, None] & earlier[None, :, :, None], axis=2)
    position = jax.tree.map(lambda leaf: leaf + np.arange(size)[None], verifier.state)  # as Translator.parallel says
    past = past._replace(own=own)
    features, attention, state, caches = translator.step(params, block, memory, position, verifier.caches, past)
    state, own = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0)[:, :, None], (state, own))
    log_probs = log_softmax(translator.head(params, features))
    number = np.arange(size)
    of_block = np.arange(grown.tokens.shape[-1])[None] - grown.t[:, None]  # [B,T] which of the drafted stands there
    drafted = jnp.take_along_axis(block[:, 1:], jnp.clip(of_block, 0, size - 2), axis=1)
    read = (of_block[:, None] >= 0) & (of_block[:, None] < number[None, :, None])
    tokens = jnp.where(read, drafted[:, None], grown.tokens)  # [B,D+1,T] what each choice follows
    free = jax.vmap(_allowed, (None, 1, 1, 1, None), 1)(
        config, grown.t[:, None] + number[None], tokens[:, :, None], log_probs[:, :, None], request
    )
    gained, choices = lax.top_k(free[:, :, 0], 1)
    return (choices[..., 0], gained[..., 0], attention), Reader(state, own, caches)


def _grown(config, request: Request, grown: Grown, block, choices, gained, attention) -> Grown:
    """The choices are added one after the other, until one differs from what was drafted."""

    def add(carry, of_place):
        now, agrees = carry
        choice, gain, weights, drafted = of_place
        weights = None if weights is None else weights[:, None]
        after = grow(
            config,
            request,
            now._replace(running=now.running & agrees[:, None]),
            choice[:, None],
            gain[:, None],
            weights,
        )
        running = jnp.where(agrees[:, None], after.running, now.running)
        return (after._replace(running=running), agrees & (choice == drafted)), None

    following = jnp.pad(block[:, 1:], ((0, 0), (0, 1)))
    places = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), (choices, gained, attention, following))
    return lax.scan(add, (grown, jnp.ones(len(block), bool)), places)[0][0]


def _allowed(config, t: Int[Array, " B"], tokens, log_probs, request: Request):
    return jax.vmap(lambda *row: allowed(config, *row))(t, tokens, log_probs, request)


def _kept(before: Reader, after: Reader, read: Int[Array, " B"]) -> Reader:
    """The Reader after so many tokens of a round; after: with what follows each of them, [D+1,B,...]."""
    of_sentence = jax.vmap(lambda leaf, before, read: jnp.where(read > 0, leaf[read - 1], before), in_axes=(1, 0, 0))
    state, own = jax.tree.map(lambda leaf, before: of_sentence(leaf, before, read), after[:2], before[:2])
    return Reader(state, own, after.caches)
