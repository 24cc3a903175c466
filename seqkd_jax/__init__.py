"""Knowledge distillation for sequences in JAX: Kim & Rush 2016, and Abnar, Dehghani & Zuidema 2020.

The rooms, in the order in which they use each other:

  types         the axes, and the types that models, losses, search and training pass to each other
  config        everything that can be set
  utils         files (atomic, hashed), progress (bars, the count of compilations), performance (FLOPs, peak, memory)
  data          corpus and readers, vocabulary and tokenizers, examples, shapes and batches, toy (the toy language)
  models        translators, language models, classifiers: pure functions
  losses        written for one position, lifted by vmap; blockwise: head and loss, a block of positions at a time
  checkpoint    a directory that describes itself
  decoding      translator (sentences in, n-best out), search (rules, beams, engine, sampling), scoring
  evaluation    BLEU, p(t = mode), significance, perplexity, calibration, representations
  training      train_step (one update: the only pmap), loop, run_state, teacher_cache, trainer
  distillation  hypotheses -> a distilled corpus; minimum Bayes risk
  marian        Hugging Face's Marian directories, in and out
  cli           the command `seqkd`

The studies are in `experiments`.
"""

__version__ = "0.2.0"
