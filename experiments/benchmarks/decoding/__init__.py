"""Decoding speed: our decoders and their peers on the same weights, the same sentences, the same rules, interleaved.

    python -m experiments.benchmarks.decoding [--checkpoint DIR ... --input FILE] [--peers NAME ...] [--out DIR]

`work` holds weights, sentences and rules; `worker` the list of systems, each in a process of its own (ours in
`systems`, others in `peers` and `opennmt`); `study` compares outputs, then
measures; `costs` counts what the work needs.
"""
