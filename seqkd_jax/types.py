"""The types at the joints: what models, losses, search and training pass to each other.

Axes, the same letters everywhere (docstrings, jaxtyping, einsum):
  B sentences   S source positions   T target positions   V vocabulary or classes   K beam
  E width       H heads              G devices            R replicas                *pos any position axes

A model is a NamedTuple of pure functions and `logits = head o features`. The split is what lets a loss in
blocks of positions or a map of representations exist without touching a model.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

# The four special ids, the same in every vocabulary (Kim & Rush's code has the same four).
PAD, UNK, BOS, EOS = 0, 1, 2, 3
STATISTICS = "statistics"  # what `Model.observed` returns, and where it is among the parameters


class UserError(Exception):
    """An error that the user can correct: one line that names the file or value, the line number, and the remedy."""


class Batch(NamedTuple):
    """What one training step reads. Labels and weights have the position axes of the model's features."""

    inputs: Any  # for the model only; translation: (source [B,S], target_in [B,T])
    labels: Any  # [*pos] ids to predict
    weights: Any  # [*pos] 1 counts, 0 is padding; a weighted corpus multiplies its sentence weight in
    # Of a fixed teacher, where it was computed before training: its features [*pos,E], or a TopK
    teacher_features: Any = None


class TopK(NamedTuple):
    """What is kept of a teacher's distribution at each position: the k most probable entries, and the rest as one."""

    entries: Any  # [*pos,k] ids, none of them twice
    probabilities: Any  # [*pos,k+1] of these; the last: of all other entries together


class Model(NamedTuple):
    """A classifier or language model."""

    init: Callable  # (key) -> params
    features: Callable  # (params, inputs, keys [B] | None) -> [*pos, E]; keys None: no dropout
    head: Callable  # (params, features) -> [*pos, V] logits
    # Of a model that normalises over the batch: (params, inputs, keys, weights [B,P]) -> (features, statistics of this
    # batch), of the form of params["statistics"], which `features` reads. Rows of weight 0 do not count.
    observed: Callable | None = None


class Past(NamedTuple):
    """Where a step writes in the caches, and what each hypothesis reads there: C entries of each sentence.

    A step writes one entry for each hypothesis, where no living one reads, and no entry is ever moved: when hypotheses
    change their order, only `own` changes.
    """

    place: Any  # [B,K] the entry that each hypothesis writes in this step
    used: Any  # [] no hypothesis reads this entry or a later one
    own: Any  # [B,K,C] the entries of a hypothesis: those of the hypotheses it extends, and the one of this step


class Translator(NamedTuple):
    """A Model that can also decode a token at a time. Memory exists once per sentence; the rest has a beam axis.

    `step` repeated gives the features that `features` computes in one call; the contract tests hold every model to it.
    What a step leaves for later ones is of two kinds. The state is small, and the search reorders it. Caches grow with
    the steps: a step writes in them as its Past says, and reads nothing but what that calls a hypothesis's own.
    """

    init: Callable
    features: Callable
    head: Callable
    start: Callable  # (params, source [B,S]) -> (memory, state), leaves [B,...]; the search adds the state's beam axis
    # (params, token [B,K], memory, state [B,K,...], caches, Past)
    #   -> (features [B,K,E], attention [B,K,S] | None, state, caches)
    step: Callable
    # (params, inputs) -> weights on the source [B,H,T,S] of each layer; None: it has no layers and heads to tell apart
    attention: Callable | None = None
    # (params) -> params with a copy of the head's weights, laid out as the few rows of a step read them fastest; for
    # decoding only. Every function takes either
    prepare: Callable = lambda params: params
    caches: Callable = lambda rows, beam, length: ()  # (B, K, T) -> empty caches [B,...], for T steps: C = K T entries
    # The state is the number of tokens read. So one step can read several tokens of a sentence, each as a hypothesis
    # that counts those before it among its own.
    parallel: bool = False
    draft: Any = None  # a cheaper Translator that proposes tokens to this one (models.drafted)


class System(NamedTuple):
    """A translator with the parameters and the vocabularies that it translates with."""

    translator: Translator
    params: Any
    vocabularies: Any  # data.vocabulary.Vocabularies


class Hypotheses(NamedTuple):
    """Translations of B sentences, best first, always. An impossible slot has score -inf and no tokens."""

    tokens: Any  # [B,K,T] without BOS; EOS ends a finished one, PAD after it
    scores: Any  # [B,K] log-probability under the length rule, nats
    log_probs: Any  # [B,K] plain sum of token log-probabilities (EOS included), nats
    finished: Any  # [B,K] False: cut at the length limit
