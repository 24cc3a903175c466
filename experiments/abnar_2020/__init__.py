"""Abnar, Dehghani & Zuidema 2020, *Transferring Inductive Biases through Knowledge Distillation*.

Scenario 1: LSTMs teach Transformers subject-verb agreement, as language models and as classifiers. Scenario 2: a CNN
teaches an MLP digits. Read in this order:

  sentences, digits    the data, read, checked, or drawn      arms       who teaches whom
  scales               models, sizes, rates, seeds            tasks      data -> what models read and decide
  predictions          what a model says of examples          study      the stages, each of earlier ones' files
  accuracy             what is measured                       results    finished stages -> results.json
  published, effects, claims   the paper's numbers and statements, beside ours
  tables, looks, plots         what a person looks at
"""
