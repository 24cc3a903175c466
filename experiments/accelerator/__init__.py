"""What a given machine does in a given time: one command for whatever accelerator is there.

    python -m experiments.accelerator --minutes 10 [--data DIR] [--out DIR]

`parts` lists what is measured, the most important first; `plan` gives each a process of its own and no more time than
is left; `speed` and `seeds` measure; `tables` writes what was found. A part is a stage (`core.stages`), so that the
same command goes on where it was stopped, or has more minutes.
"""
