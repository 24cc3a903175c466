"""Training speed: updates of our models and of PyTorch's, of the same sizes, on the same cores, interleaved.

    python -m experiments.benchmarks.training [--only NAME ...] [--rounds 9] [--out DIR]

Flow: `subjects` (what is trained, on which batch) -> `ours`, `pytorch` (one update behind one interface) -> rounds by
`experiments.core.measure` -> results.json, table.md.
"""
