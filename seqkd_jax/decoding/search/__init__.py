"""From a translator to its best hypotheses: beam search and greedy search, jittable, and the scores they work with.

  rules       what is asked and allowed: lengths, tokens, scores    beams   the bookkeeping of one sentence's hypotheses
  simple      the searches as they are meant, the reference         forced  probability and attention of given outputs
  engine      the same beam search, sooner: sentences go through `slots`, `topk` ranks the vocabulary in blocks
  sampling    drawn translations

`search = beam_search(translator, config, max_steps)` gives a pure function (params, Request) -> Hypotheses for the
caller to jit.
"""

from seqkd_jax.decoding.search.engine import engine
from seqkd_jax.decoding.search.forced import attended, attention_weights, sequence_log_probs
from seqkd_jax.decoding.search.rules import PROFILES, Request, greedy_rules, length_limits, length_penalty, named_rules
from seqkd_jax.decoding.search.sampling import sample
from seqkd_jax.decoding.search.simple import beam_search, greedy

__all__ = [
    "DECODERS",
    "POOLS",
    "PROFILES",
    "Request",
    "attended",
    "attention_weights",
    "beam_search",
    "engine",
    "greedy",
    "greedy_rules",
    "length_limits",
    "length_penalty",
    "named_rules",
    "sample",
    "sequence_log_probs",
]

# (translator, config, max_steps) -> search(params, request) -> Hypotheses
DECODERS = {"engine": engine, "beam": beam_search, "greedy": greedy, "sample": sample}
# Those that refill their slots (one more argument, `slots`), and how many sentences a slot should have to go through.
POOLS = {"engine": 8}
