"""Beam search, greedy search and sampling over a translator, jittable; scores and attention of given translations.

  rules       limits of length, allowed tokens, scores              beams   the state of one sentence's hypotheses
  simple      the reference implementation of every search          forced  scores and attention of given translations
  engine      the same beam search, faster: sentences go through `slots`, `topk` ranks the vocabulary in blocks
  sampling    random translations                                   past    what each hypothesis reads in the caches
  speculative greedy search whose tokens a cheaper model drafts
  exact       the most probable translation by branch and bound, a loop on the host

`search = beam_search(translator, config, max_steps)` gives a pure function (params, Request) -> Hypotheses for the
caller to jit.
"""

from seqkd_jax.decoding.search.engine import counting_engine, engine
from seqkd_jax.decoding.search.forced import attended, attention_weights, sequence_log_probs
from seqkd_jax.decoding.search.rules import PROFILES, Request, greedy_rules, length_limits, length_penalty, named_rules
from seqkd_jax.decoding.search.sampling import sample
from seqkd_jax.decoding.search.simple import beam_search, greedy
from seqkd_jax.decoding.search.speculative import counting_speculative, speculative

__all__ = [
    "DECODERS",
    "POOLS",
    "PROFILES",
    "Request",
    "attended",
    "attention_weights",
    "beam_search",
    "counting_engine",
    "counting_speculative",
    "engine",
    "greedy",
    "greedy_rules",
    "length_limits",
    "length_penalty",
    "named_rules",
    "sample",
    "sequence_log_probs",
    "speculative",
]

# (translator, config, max_steps) -> search(params, request) -> Hypotheses
DECODERS = {"engine": engine, "beam": beam_search, "greedy": greedy, "sample": sample, "speculative": speculative}
# Decoders that refill their slots take one more argument, `slots`. The number: sentences of a pool for each slot.
POOLS = {"engine": 8}
