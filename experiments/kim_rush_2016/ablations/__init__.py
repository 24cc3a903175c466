"""What the paper's settings and choices are worth: each varied alone, beside the setting of the main run.

`lines` is the table as data, `targets` makes the corpora that the main study does not have, `study` is the value for
the runner. Stages are those of the main run: a teacher, n-best list or student that is there is not made again.
"""
