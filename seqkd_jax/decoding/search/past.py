"""Which entries of the caches are a hypothesis's own: caches are never reordered, this small table is (types.Past).

All slots of a search write at the same place, whatever the ages of their sentences. That place is the first one whose
entries no living sentence reads. So T places are enough for sentences of T steps, and while sentences are short only
the first places are in use.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from seqkd_jax.types import Past


class Lineage(NamedTuple):
    """Who wrote what, for B slots of K hypotheses and T places. Steps are numbered from 0."""

    step: Int[Array, ""]  # the number of the next step
    written: Int[Array, " T"]  # the step that wrote last at each place; -1: none
    began: Int[Array, " B"]  # the first step of the slot's sentence
    ancestors: Int[Array, "B K T"]  # the hypothesis that wrote at each place what each one descends from


def unwritten(rows: int, beam: int, length: int) -> Lineage:
    """The Lineage before the first step."""
    nothing = jnp.zeros((rows, beam, length), jnp.int32)
    return Lineage(jnp.int32(0), jnp.full(length, -1, jnp.int32), jnp.zeros(rows, jnp.int32), nothing)


def extended(lineage: Lineage, lives: Bool[Array | np.ndarray, " B"] | None = None) -> tuple[Lineage, Past]:
    """The Lineage after the next step, and that step's Past. lives: slots whose entries are still read; None: all."""
    step, written, began, ancestors = lineage
    _, beam, length = ancestors.shape
    oldest = jnp.min(began if lives is None else jnp.where(lives, began, step))
    place = jnp.argmax(written < oldest)
    here = np.arange(length) == place
    written = jnp.where(here, step, written)
    ancestors = jnp.where(here[None, None], np.arange(beam)[None, :, None], ancestors)
    used = jnp.max(jnp.where(written >= oldest, np.arange(1, length + 1), 0))
    of_sentence = written[None] >= began[:, None]
    own = (ancestors[..., None] == np.arange(beam)[None, None, None]) & of_sentence[:, None, :, None]
    return Lineage(step + 1, written, began, ancestors), Past(place, used, own)


def followed(state, lineage: Lineage, parents: Int[Array | np.ndarray, "B K"]):
    """(state [B,K,...], Lineage) of the hypotheses that extend these parents."""
    return reordered(state, parents), lineage._replace(ancestors=reordered(lineage.ancestors, parents))


def reordered(tree, parents: Int[Array | np.ndarray, "B K"]):
    """Leaves [B,K,...] of a tree with each sentence's hypotheses replaced by their parents."""
    return jax.vmap(lambda rows, parents: jax.tree.map(lambda leaf: leaf[parents], rows))(tree, parents)


def with_beam_axis(state, beam: int):
    """A model's state [B,...] repeated over the beam: [B,K,...]."""
    return jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf[:, None], (leaf.shape[0], beam, *leaf.shape[1:])),
        state,
    )
