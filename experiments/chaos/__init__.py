"""Kills real runs at random moments and compares what they come to with a run that was left alone.

  python -m experiments.chaos --kills 1000 --work DIR --out OUT

runs         the experiments: commands of train, distill and a small study, on some devices and processes
kills        a process, a moment in its life, and what is done to it then
lives        from an empty directory to the result, through some kills; what has been done is on the disk
content      what a result holds, without times
disk         a small disk that can be filled
tables       results.json as tables
small_study  the command of the study that is killed
"""
