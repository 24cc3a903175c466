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
from jaxtyping import Array, Bool, Int

from seqkd_jax.config import SearchConfig
from seqkd_jax.decoding.search.beams import log_softmax
from seqkd_jax.decoding.search.past import with_beam_axis
from seqkd_jax.decoding.search.rules import Request, allowed
from seqkd_jax.decoding.search.simple import Grown, grow, hypotheses, nothing_grown
from seqkd_jax.types import Hypotheses, Past, Translator, UserError


class Reader(NamedTuple):
    """What one of the two has read of the translations: its state, its caches, and whose entries count."""

    state: Any  # [B,1,...]
    caches: Any
    valid: Bool[Array, "B T K"]  # entries of tokens that were kept
    place: Int[Array, ""]  # the next one that is free


def speculative(translator: Translator, config: SearchConfig, max_steps: int) -> Callable[..., Hypotheses]:
    """The search (params, Request) -> Hypotheses with T = max_steps, to be jitted; one hypothesis a sentence.

    The rules are those of `greedy`. UserError: the translator has no draft (models.drafted).
    """
    config.validate()
    draft, count = translator.draft, config.draft_tokens
    if draft is None:
        raise UserError("search: speculative decoding needs a draft: name a student by --draft DIR (draft= in Python)")

    def search(params, request: Request) -> Hypotheses:
        request = request._replace(max_length=jnp.minimum(request.max_length, max_steps))
        memory, drafts_memory = translator.start(params, request.source), draft.start(params[1], request.source)
        rows = request.source.shape[0]
        sizes = {"verifier": (max_steps, count + 1), "draft": (max_steps * (count + 1), 1)}  # places, entries of each

        def nothing_read(of: Translator, state, places: int, entries: int) -> Reader:
            valid = jnp.zeros((rows, places, entries), bool)
            return Reader(with_beam_axis(state, 1), of.caches(rows, entries, places), valid, jnp.int32(0))

        def round_(carry):
            grown, verifier, reader = carry
            own = params[1], drafts_memory[0]
            proposed, states, reader = _drafted(config, draft, own, request, grown, reader)
            block = jnp.concatenate([grown.token, proposed], axis=1)  # [B,D+1]
            found, caches = _verified(config, translator, (params, memory[0]), request, grown, verifier, block)
            after = _grown(config, request, grown, block, *found)
            read = (after.t - grown.t)[:, None]  # [B,1] tokens of the block that were right
            kept = np.arange(count + 1)[None] < read
            position = jax.tree.map(lambda leaf: leaf + read, verifier.state)
            of_last = jax.tree.map(lambda leaf: _one_of(leaf, jnp.maximum(read[:, 0] - 1, 0)), states)
            verifier = _kept(verifier, position, caches, kept[:, None])
            return after, verifier, _kept(reader, of_last, reader.caches, kept[:, :, None])

        readers = (
            nothing_read(translator, memory[1], *sizes["verifier"]),
            nothing_read(draft, drafts_memory[1], *sizes["draft"]),
        )
        carry = nothing_grown(config, request, 1, max_steps), *readers
        grown, *_ = lax.while_loop(lambda carry: jnp.any(carry[0].running), round_, carry)
        return hypotheses(config, grown)

    return search


def _drafted(config, draft: Translator, own, request: Request, grown: Grown, reader: Reader):
    """The proposed tokens [B,D], the states after each token read [D+1,B,1,...], the Reader with all entries."""
    (params, memory), here = own, np.arange(reader.valid.shape[1])

    def read(token, state, caches, number):
        new = (here >= reader.place) & (here <= reader.place + number)
        past = Past(
            reader.place + number, reader.place + number + 1, (reader.valid[:, :, 0] | new[None])[:, None, :, None]
        )
        features, _, state, caches = draft.step(params, token, memory, state, caches, past)
        return features, state, caches

    def propose(carry, number):
        token, tokens, state, caches = carry
        features, state, caches = read(token, state, caches, number)
        free = _allowed(config, grown.t + number, tokens, log_softmax(draft.head(params, features)), request)
        token = lax.top_k(free[:, 0], 1)[1]
        at = np.arange(tokens.shape[-1])[None] == (grown.t + number)[:, None]
        return (token, jnp.where(at[:, None], token[..., None], tokens), state, caches), (token[:, 0], state)

    carry = grown.token, grown.tokens, reader.state, reader.caches
    (token, _, state, caches), (proposed, states) = lax.scan(propose, carry, np.arange(config.draft_tokens))
    _, last, caches = read(token, state, caches, config.draft_tokens)  # counts if all are right
    states = jax.tree.map(lambda some, one: jnp.concatenate([some, one[None]]), states, last)
    return proposed.T, states, reader._replace(caches=caches)


def _verified(config, translator: Translator, own, request: Request, grown: Grown, verifier: Reader, block):
    """(choice after each token of the block [B,D+1], its log-probability, attention [B,D+1,S] or None), the caches."""
    (params, memory), size = own, block.shape[1]
    here = np.arange(verifier.valid.shape[1]) == verifier.place
    earlier = np.tril(np.ones((size, size), bool))  # of the block, each has itself and those before it
    past = verifier.valid[:, None] | (here[None, None, :, None] & earlier[None, :, None])
    past = Past(verifier.place, verifier.place + 1, past)
    position = jax.tree.map(lambda leaf: leaf + np.arange(size)[None], verifier.state)  # as Translator.parallel says
    features, attention, _, caches = translator.step(params, block, memory, position, verifier.caches, past)
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
    return (choices[..., 0], gained[..., 0], attention), caches


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


def _kept(reader: Reader, state, caches, kept: Bool[Array, "B P K"]) -> Reader:
    """After a round that wrote at P places: these entries of it count."""
    valid = lax.dynamic_update_slice(reader.valid, kept, (0, reader.place, 0))
    return Reader(state, caches, valid, reader.place + kept.shape[1])


def _one_of(states, place: Int[Array, " B"]):
    """Of states [D+1,B,1,...] that of each sentence after its own number of tokens."""
    return jax.vmap(lambda of_sentence, place: of_sentence[place], in_axes=(1, 0))(states, place)
