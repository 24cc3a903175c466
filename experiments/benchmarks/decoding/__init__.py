"""Decoding speed: our decoders and their peers on the same weights, the same sentences, the same rules, interleaved.

    python -m experiments.benchmarks.decoding [--checkpoint DIR ... --input FILE] [--peers NAME,NAME] [--out DIR]

Flow: `work` (weights, sentences, rules) -> `systems`, `peers`, `opennmt` (decoders behind one interface), each in a
process of its own (`worker`) -> `agreement` (outputs compared, token by token) -> `measure` (interleaved rounds),
`memory`, `growth` -> `render` (tables, plots).
"""
