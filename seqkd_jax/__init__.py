"""Sequence-level knowledge distillation (Kim & Rush 2016) in JAX.

Read it in this order; each module uses only earlier ones.

  base        the axes, and the types that models, losses, search and training pass to each other
  config      everything that can be set
  files       atomic files, hashes                     progress     bars, quiet logs, the count of compilations
  vocab       text <-> ids                             language     the embedded language, all its probabilities known
  corpus      data sets -> sentence pairs              batches      sentence pairs -> batches of few static shapes
  models      LSTM, Transformer: pure functions        losses       written for one position, lifted by vmap
  search      beam search, the engine, sampling        checkpoint   a directory that describes itself
  shortlist   part of the vocabulary, by the source    translate    sentences in, n-best out
  schedule    learning rates                           performance  FLOPs, the machine's peak
  train       one update, one pmap                     fit          the training loop
  recorded    a fixed teacher's features, made once    evaluate     BLEU, perplexity, p(t = mode)
  train_translator  corpus, model, start -> fit
  distill     hypotheses -> a distilled corpus         mbr          the hypothesis most like the others
  exchange    Hugging Face's Marian directories        arguments    what the commands take
  cli         the command `seqkd`

The study itself is `experiments/kim_rush_2016.py`: a table of corpora, losses and starting points.
"""

__version__ = "0.1.0"
