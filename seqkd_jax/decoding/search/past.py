"""Which entries of the caches are a hypothesis's own: caches are never reordered, this table is (types.Past).

An entry is free when no living hypothesis of its sentence descends from the one that wrote it. Every step takes the
lowest free entries. The hypotheses of a beam share most of their past, so few entries are in use at any time: after t
steps about t and a few for each hypothesis, where K t were written. Only the first entries are therefore read.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int

from seqkd_jax.types import Past

Own = Bool[Array, "B K C"]  # the entries that each hypothesis reads


def nothing_own(rows: int, beam: int, entries: int) -> Own:
    """The table before the first step. K entries a step are always enough; a single hypothesis needs one."""
    return jnp.zeros((rows, beam, entries), bool)


def extended(own: Own) -> tuple[Own, Past]:
    """The table after the next step, and that step's Past."""
    _, beam, entries = own.shape
    taken, entry = jnp.any(own, axis=1), np.arange(entries)
    # On CPUs the fast top-k is that of float32.
    place = lax.top_k(jnp.where(taken, -jnp.inf, -entry.astype(np.float32)[None]), beam)[1]
    own |= entry[None, None] == place[..., None]
    used = jnp.max(jnp.where(jnp.any(own, axis=(0, 1)), entry + 1, 0))
    return own, Past(place, used, own)


def followed(state, own: Own, parents: Int[Array | np.ndarray, "B K"]):
    """(state [B,K,...], table) of the hypotheses that extend these parents."""
    return reordered((state, own), parents)


def reordered(tree, parents: Int[Array | np.ndarray, "B K"]):
    """Leaves [B,K,...] of a tree with each sentence's hypotheses replaced by their parents."""
    return jax.vmap(lambda rows, parents: jax.tree.map(lambda leaf: leaf[parents], rows))(tree, parents)


def with_beam_axis(state, beam: int):
    """A model's state [B,...] repeated over the beam: [B,K,...]."""
    return jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf[:, None], (leaf.shape[0], beam, *leaf.shape[1:])),
        state,
    )
