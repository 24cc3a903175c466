"""Knowledge distillation for sequences in JAX: Kim & Rush 2016, and Abnar, Dehghani & Zuidema 2020.

Read it in this order, left before right; each module uses only earlier ones.

  base        the axes, and the types that models, losses, search and training pass to each other
  config      everything that can be set
  files       atomic files, hashes                     progress     bars, quiet logs, the count of compilations
  vocab       text <-> ids                             language     the embedded language, all its probabilities known
  corpus      data sets -> sentence pairs              batches      sentence pairs -> batches of few static shapes
  models      translators, language models,            losses       written for one position, lifted by vmap
              classifiers: pure functions
  search      beam search, the engine, sampling        checkpoint   a directory that describes itself
  shortlist   part of the vocabulary, by the source    translate    sentences in, n-best out
  blocks      head and loss, a block of positions      likelihood   of references: nats, perplexity
              at a time
  evaluate    BLEU, p(t = mode), significance, speed   schedule     learning rates
  performance FLOPs, the machine's peak                train        one update of one or more seeds: the
                                                                    only pmap
  run_record  what a run carries from update to        stopping     SIGTERM, noted
              update
  fit         the training loop                        recorded     a fixed teacher's features, made once
  train_model any model on an encoded corpus           train_translator  the same with text and BLEU
  calibration is confidence to be believed             representations  how alike models see examples
  distill     hypotheses -> a distilled corpus         mbr          the hypothesis most like the others
  exchange    Hugging Face's Marian directories        arguments    what the commands of `seqkd` take
  checks      arguments that cannot be together        inputs       loads what the arguments name
  commands    what the commands do                     cli          dispatch and exit status

The studies are in `experiments`: kim_rush_2016, a table of corpora, losses and starting points; abnar_2020, a grid of
teachers and students.
"""

__version__ = "0.1.0"
