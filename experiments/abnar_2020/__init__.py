"""Abnar, Dehghani & Zuidema 2020, *Transferring Inductive Biases through Knowledge Distillation*. README.md has the
command.

Scenario 1: LSTMs teach Transformers subject-verb agreement, as language models and as classifiers. Scenario 2: a CNN
teaches an MLP digits. Read in this order:

  sentences, digits    the data, read, checked, or drawn      arms, setups, scales   who teaches whom; models, rates
  tasks                data -> what models read and decide    pipeline, search       stages, each of earlier ones' files
  predictions          what a model answers to examples       accuracy, mistakes     what is measured
  results              finished stages -> results.json        published, effects     the paper's numbers, beside ours
  claims, questions    what the paper says, what we ask       findings, tables, plots   what a person reads
  study                all of it as a value: the command
"""
