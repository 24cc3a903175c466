"""Sequence-level knowledge distillation, the study (Kim & Rush 2016): every arm of their table 1.

    python -m experiments.kim_rush_2016 --scale smoke|multi30k|paper [--data DIR] [--out DIR] [--only ARM ...]
                                        [--dry-run]

Read it in this order: `arms` is the table, `scales` everything else that is set, `study` the stages from corpus to
significance, `results` what they amount to, `claims` what that says about the paper, `published` the paper's numbers,
`dry_run` what a scale would take, `__main__` the command. Stopped and started again, it goes on where it was.
"""
