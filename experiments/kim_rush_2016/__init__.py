"""Sequence-level knowledge distillation (Kim & Rush 2016): every arm of their table 1. README.md has the command."""
