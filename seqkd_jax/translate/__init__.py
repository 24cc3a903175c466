"""Sentences in, n-best out, in the original order: for distillation, evaluation, benchmarks and the command line alike.

batching      sentences -> batches of few shapes, results in order      translating   ids or lines -> n-best lists
forced        probability and attention of given outputs                writing       plain text, JSON lines
"""

from seqkd_jax.translate.batching import SOURCE_BUCKETS, require_length
from seqkd_jax.translate.forced import force_attention, force_score, record_attention
from seqkd_jax.translate.translating import (
    Decoding,
    Hypothesis,
    Translation,
    compile_searches,
    compiled_searches,
    prepare,
    translate_ids,
    translate_lines,
    without_ends,
)
from seqkd_jax.translate.writing import write_jsonl, write_text

__all__ = [
    "SOURCE_BUCKETS",
    "Decoding",
    "Hypothesis",
    "Translation",
    "compile_searches",
    "compiled_searches",
    "force_attention",
    "force_score",
    "prepare",
    "record_attention",
    "require_length",
    "translate_ids",
    "translate_lines",
    "without_ends",
    "write_jsonl",
    "write_text",
]
