"""Log-likelihood of references under a model: nats, tokens, perplexity. Training validates with it."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqkd_jax.config import BatchConfig, LossConfig
from seqkd_jax.data.batches import Shape, encode_corpus, eval_batches, few_shapes, make_plan
from seqkd_jax.losses import LOSSES, arguments_from, blockwise, over_positions
from seqkd_jax.types import Batch, Model, System, Translator, UserError
from seqkd_jax.utils import programs


class Likelihood(NamedTuple):
    """The log-likelihood of references under a model."""

    nats: float  # summed over the corpus
    tokens: int  # predicted, EOS included

    @property
    def mean(self) -> float:
        """Nats a token; the mean is over the corpus, not over batches."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """exp of the mean."""
        return math.exp(min(self.mean, 700.0))


def of_batches(model: Model | Translator, params, batches: Iterable[Batch]) -> Likelihood:
    """Of the labels of some batches, without dropout. Compiled once for a model and a shape."""
    params = jax.device_put(params, jax.local_devices()[0])  # weights replicated by training: one copy is enough
    sums = [_summed_nll(model)(params, batch) for batch in batches]  # all dispatched before the first is waited for
    nats, tokens = np.sum(np.asarray(jax.device_get(sums), np.float64), axis=0)
    if tokens == 0:
        raise UserError("no reference token to score: the corpus is empty, or every weight is 0")
    return Likelihood(float(nats), round(float(tokens)))


def accuracy(model: Model | Translator, params, batches: Iterable[Batch]) -> float:
    """The share of the labels that are the most probable class, without dropout; for classifiers."""
    params = jax.device_put(params, jax.local_devices()[0])
    sums = [_summed_right(model)(params, batch) for batch in batches]
    right, labels = np.sum(np.asarray(jax.device_get(sums), np.float64), axis=0)
    return float(right / labels)


def entropy(model: Model | Translator, params, batches: Iterable[Batch]) -> float:
    """The mean entropy of the distributions of the next token, in nats, over the labels of some batches."""
    params = jax.device_put(params, jax.local_devices()[0])
    sums = [_summed_entropy(model)(params, batch) for batch in batches]
    nats, labels = np.sum(np.asarray(jax.device_get(sums), np.float64), axis=0)
    return float(nats / labels)


def of_references(system: System, corpus, batch: BatchConfig, shapes: Sequence[Shape] | None = None) -> Likelihood:
    """Of all references of a corpus, in `batches_of_all`."""
    return of_batches(system.translator, system.params, batches_of_all(system, corpus, batch, shapes))


def batches_of_all(
    system: System, corpus, batch: BatchConfig, shapes: Sequence[Shape] | None = None
) -> Iterator[Batch]:
    """Batches of a corpus that leave no pair out, whatever the length limits of `batch`; each token weighs 1.

    shapes: those of training, to share its programs; None: chosen from the lengths.
    """
    unweighted = corpus._replace(weights=None)  # a perplexity counts tokens
    encoded, _ = encode_corpus(unweighted, system.vocabularies, batch, keep_all=True)
    yield from (batch for _, batch in eval_batches(encoded, make_plan(encoded, few_shapes(batch), shapes)))


@functools.cache
def _summed_nll(model: Model | Translator) -> Callable:
    loss, arguments = over_positions(LOSSES["nll"], bars=True), arguments_from(LossConfig())

    def of_logits(logits, others, arguments):
        return loss(logits, None, *others, arguments)

    def summed_nll(params, batch):
        features = model.features(params, batch.inputs, None)
        return blockwise.summed(model.head, of_logits, params, features, (batch.labels, batch.weights), arguments)

    return programs.announced(jax.jit(summed_nll), lambda _, batch: f"the loss for {programs.shapes(batch.inputs)}")


@functools.cache
def _summed_entropy(model: Model | Translator) -> Callable:
    def of_logits(logits, weights, constants):
        log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
        p = jnp.exp(log_probs)
        entropies = -jnp.sum(jnp.where(p > 0, p * log_probs, 0.0), axis=-1)  # an entry that is barred has -inf
        return jnp.sum(jnp.where(weights > 0, entropies * weights, 0.0)), jnp.sum(weights)

    def summed_entropy(params, batch):
        features = model.features(params, batch.inputs, None)
        return blockwise.summed(model.head, of_logits, params, features, batch.weights, ())

    found = jax.jit(summed_entropy)
    return programs.announced(found, lambda _, batch: f"the entropy for {programs.shapes(batch.inputs)}")


@functools.cache
def _summed_right(model: Model | Translator) -> Callable:
    def summed_right(params, batch):
        decisions = jnp.argmax(model.head(params, model.features(params, batch.inputs, None)), axis=-1)
        counted = batch.weights != 0
        return jnp.sum(counted & (decisions == batch.labels)), jnp.sum(counted)

    right = jax.jit(summed_right)
    return programs.announced(right, lambda _, batch: f"the accuracy for {programs.shapes(batch.inputs)}")
