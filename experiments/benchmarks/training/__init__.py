"""Training speed: updates of our models and of PyTorch's, of the same sizes, on the same cores, interleaved.

    python -m experiments.benchmarks.training [--only NAME ...] [--rounds 9] [--out DIR]

`subjects` says what is trained, on which batch; `ours` and `pytorch` give one update each. Two parts more are ours
alone: `distilling`, what an update by Word-KD costs beside one by likelihood and the teacher's forward pass, and
`memory`, what it takes with a large vocabulary. The table begins with the targets.
"""
