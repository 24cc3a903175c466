"""Sentence pairs: read, turned into ids, batched. The first room that a sentence enters."""
