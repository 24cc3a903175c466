"""The rules of a search: its inputs, limits of length, allowed tokens, and scores under a length rule.

Nothing here depends on beams or models. The simple search, the engine and sampling use the same rules.
"""

from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from seqkd_jax.config import SearchConfig
from seqkd_jax.types import BOS, EOS, PAD, UNK, UserError

SPECIAL = np.arange(4)  # ids of PAD, UNK, BOS and EOS


class Request(NamedTuple):
    """The inputs of a search over B sentences; inside a vmap over sentences, without the leading axis."""

    source: np.ndarray | Array  # [B,S] int32, PAD on the right
    min_length: np.ndarray | Array  # [B] int32 least tokens before EOS
    max_length: np.ndarray | Array  # [B] int32 greatest tokens, EOS included; 0: a fill row, which needs no step
    prefix: np.ndarray | Array  # [B,P] int32 tokens that each translation begins with, PAD on the right; P = 0: none
    draws: np.ndarray | Array  # [B,2] uint32 seed, index of the sentence in the input; for keys of samples


def length_penalty(config: SearchConfig, length, ends=True):
    """The divisor of a log-probability at `length` tokens, EOS included: a number, or an array of NumPy or JAX.

    none: 1 (Kim & Rush 2016). power: L^a. gnmt: ((5+L)/6)^a (Wu et al. 2016, eq. 14). ends: whether the last token is
    EOS. The penalty does not decrease with L; the bound of the stop rule relies on that.
    """
    if config.length_rule == "none":
        return 1.0
    if not config.length_counts_eos:
        length = jnp.maximum(length - ends, 1)
    return (length if config.length_rule == "power" else (5 + length) / 6) ** config.length_alpha


def score(config: SearchConfig, log_probs: Float[Array, "*pos"], length, ends, coverage: Float[Array, "*pos S"]):
    """The scores that rank hypotheses, [*pos]: log_probs under the length rule, plus the coverage penalty (at most 0).

    coverage: total attention on each source position, EOS included, 1 for padding. Values below 1e-38 count as 1e-38.
    """
    scores = log_probs / length_penalty(config, length, ends)
    if not config.coverage_penalty:
        return scores
    least = jnp.finfo(jnp.float32).tiny
    return scores + config.coverage_penalty * jnp.sum(jnp.log(jnp.clip(coverage, least, 1.0)), axis=-1)


def length_limits(config: SearchConfig, source_lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(least tokens before EOS, greatest tokens with EOS) for source lengths without EOS; int32, NumPy.

    A maximum is at least 1. A minimum is less than the maximum, so that EOS fits.
    """
    lengths = np.asarray(source_lengths)
    longest = np.maximum(np.floor(_exact(config.max_length_a * lengths + config.max_length_b)), 1).astype(np.int32)
    shortest = np.maximum(np.ceil(_exact(config.min_length_a * lengths + config.min_length_b)), 0).astype(np.int32)
    return np.minimum(shortest, longest - 1), longest


def _exact(limits: np.ndarray) -> np.ndarray:
    """Limits without errors of binary fractions: 1.15 * 100 must be 115."""
    return np.round(limits, 9)


def greedy_rules(config: SearchConfig) -> SearchConfig:
    """The rules at beam 1 that make a beam search greedy: the hypothesis ends with its first EOS."""
    return replace(config, beam=1, stop="first_k_finished", eos_among="first_k", ended="replaced")


def allowed(config: SearchConfig, t, live, log_probs: Float[Array, "K V"], request: Request) -> Float[Array, "K V"]:
    """Log-probabilities of one sentence's next tokens, -inf for forbidden ones. The others are not renormalised.

    t: number of tokens so far; live [K,T]: these tokens. `barred`, `repeated` and `forced` are all the rules; a search
    that must not read the whole vocabulary calls them instead.
    """
    vocabulary = log_probs.shape[-1]
    special = jnp.pad(barred(config, t, request), (0, vocabulary - len(SPECIAL)))
    free = jnp.where(special[None], -jnp.inf, log_probs)
    if config.no_repeat_ngram:
        rows, repeats = np.arange(len(live))[:, None], repeated(config, t, live)
        free = free.at[rows, jnp.where(repeats == PAD, vocabulary, repeats)].set(-jnp.inf, mode="drop")
    if not may_force(config, request):
        return free
    token = forced(config, t, request)
    only = jnp.where((np.arange(vocabulary) == token)[None], log_probs, -jnp.inf)
    return jnp.where(token == PAD, free, only)


def barred(config: SearchConfig, t, request: Request) -> Bool[Array, " 4"]:
    """Which of the special ids 0..3 are forbidden as the token after the first t of one sentence."""
    never = (SPECIAL == PAD) | (SPECIAL == BOS) | ((SPECIAL == UNK) & config.forbid_unk)
    return never | ((SPECIAL == EOS) & (t < request.min_length))


def repeated(config: SearchConfig, t, live: Int[Array, "K T"]) -> Int[Array, "K N"]:
    """Tokens that would complete an n-gram that the hypothesis already contains; PAD where there is none."""
    size = config.no_repeat_ngram
    windows = max(live.shape[-1] - size + 1, 0)  # the n-gram that begins at i ends with live[i + size - 1]
    last = lax.dynamic_slice_in_dim(live, t - size + 1, min(size - 1, live.shape[-1]), axis=1)  # before the next
    same = jnp.broadcast_to(np.arange(windows) + size <= t, (len(live), windows))  # the n-gram is complete
    for place in range(size - 1 if windows else 0):
        same &= live[:, place : place + windows] == last[:, place, None]
    return jnp.where(same, live[:, size - 1 :], PAD)


def may_force(config: SearchConfig, request: Request) -> bool:
    """Whether `forced` can return anything but PAD; known when the program is traced."""
    return request.prefix.shape[-1] > 0 or config.at_limit == "forced_eos"


def forced(config: SearchConfig, t, request: Request) -> Int[Array, ""]:
    """The only allowed next token, which overrides other rules: the prefix's, or EOS at the limit. PAD: none."""
    token, length = jnp.int32(PAD), request.prefix.shape[-1]
    if config.at_limit == "forced_eos":
        token = jnp.where(t + 1 >= request.max_length, EOS, token)
    if length:
        given = jnp.where(t < length, request.prefix[jnp.minimum(t, length - 1)], PAD)
        token = jnp.where(given == PAD, token, given)
    return token


def named_rules(config: SearchConfig, name: str) -> SearchConfig:
    """The configuration with the rules of PROFILES[name]; beam, greatest lengths and constraints do not change."""
    if name not in PROFILES:
        raise UserError(f"search: no rules are called {name!r}; there are {', '.join(sorted(PROFILES))}")
    return replace(config, **{rule: getattr(SearchConfig(), rule) for rule in RULES} | PROFILES[name])


RULES = ("length_rule", "length_alpha", "length_counts_eos", "stop", "eos_among", "ended", "keep", "at_limit")

# The rules of other toolkits with their default options (unless noted), taken from their sources: fields that differ
# from the defaults of RULES, and some constraints. Not imitated: limits for a whole batch, the order of ties, PAD and
# BOS as output tokens (never produced here), and what the comment of an entry says.
PROFILES: dict[str, dict] = {
    # harvardnlp/seq2seq-attn, s2sa/beam.lua, generate_beam with simple=0. Only the first of an n-best list is the same:
    # theirs is the final beam, with hypotheses that continued after EOS; ours has the finished hypotheses by score.
    "kim_rush": {"length_rule": "none", "stop": "top_ends", "ended": "extended"},
    # google-research/t5x, t5x/decoding.py, beam_search; also flax's wmt example. They do not list unfinished hypotheses
    # after finished ones.
    "t5x": {"length_rule": "gnmt", "length_alpha": 0.6, "stop": "bound", "eos_among": "all"},
    # facebookresearch/fairseq, sequence_generator.py, SequenceGenerator, with search.BeamSearch: lenpen 1, min_len 1.
    "fairseq": {
        "length_rule": "power",
        "length_alpha": 1.0,
        "stop": "first_k_finished",
        "keep": "first",
        "at_limit": "forced_eos",
        "min_length_b": 1.0,
    },
    # marian-nmt/marian-dev, src/translator/beam_search.cpp and history.h, with --normalize as its recipes have it
    # (without: length_alpha 0); <unk> only with --allow-unk.
    "marian": {
        "length_rule": "power",
        "length_alpha": 1.0,
        "stop": "first_k_finished",
        "ended": "removed",
        "at_limit": "ranked",
        "forbid_unk": True,
    },
    # transformers 5, generation/utils.py, _beam_search, with early_stopping=False (True: first_k_finished, "never":
    # bound) and forced_eos_token_id, which opus-mt's files set (without it: at_limit ranked).
    "hf": {"length_rule": "power", "length_alpha": 1.0, "stop": "current_bound", "at_limit": "free_eos"},
    # OpenNMT/CTranslate2 4, src/decoding.cc, BeamSearch: length_penalty 1, patience 1, min_decoding_length 1. At
    # length_penalty 0 it stops by top_ends. Not imitated: it removes forbidden tokens (EOS at the first step) before
    # the softmax, so that the others are renormalised. Its beam 1 is greedy search.
    "ctranslate2": {
        "length_rule": "power",
        "length_alpha": 1.0,
        "stop": "first_k_finished",
        "at_limit": "ranked",
        "min_length_b": 1.0,
    },
}
