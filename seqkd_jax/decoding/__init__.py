"""Translation of sentences in their order, for distillation, evaluation, benchmarks and the command line.

buckets       sentences -> batches of few shapes, results in order      translator    ids or lines -> n-best lists
scoring       probability and attention of given outputs                output        plain text, JSON lines
modes         the most probable translations, found exactly
"""

from seqkd_jax.decoding.buckets import SOURCE_BUCKETS, require_length
from seqkd_jax.decoding.output import write_jsonl, write_text
from seqkd_jax.decoding.scoring import force_attention, force_score, record_attention
from seqkd_jax.decoding.translator import (
    Decoding,
    Hypothesis,
    Translation,
    compile_searches,
    compiled_searches,
    overlong_lines,
    prepare,
    requests,
    require_overlong,
    require_translatable,
    translate_ids,
    translate_lines,
    without_ends,
)

__all__ = [
    "SOURCE_BUCKETS",
    "Decoding",
    "Hypothesis",
    "Translation",
    "compile_searches",
    "compiled_searches",
    "force_attention",
    "force_score",
    "overlong_lines",
    "prepare",
    "record_attention",
    "require_length",
    "require_overlong",
    "require_translatable",
    "requests",
    "translate_ids",
    "translate_lines",
    "without_ends",
    "write_jsonl",
    "write_text",
]
