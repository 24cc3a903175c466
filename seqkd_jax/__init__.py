"""Knowledge distillation for sequences in JAX: Kim & Rush 2016, and Abnar, Dehghani & Zuidema 2020.

The public API is what `__all__` names:

  import seqkd_jax as kd
  student = kd.load("student/best")
  student.translate(["Two dogs are playing."], beam=5)

`kd.train`, `kd.distill`, `kd.evaluate` and `kd.verify` are the commands of the same names. All other modules and names
are internal and may move. They are, in the order in which they use each other:

  types         the axes, and the types that models, losses, search and training pass to each other
  config        everything that can be set
  utils         files (atomic, hashed), progress (bars), programs (compiled ones), performance (FLOPs, peak, memory)
  distributed   several processes that run one command
  data          corpus and readers, vocabulary and tokenizers, examples, shapes and batches, toy (the toy language)
  models        translators, language models, classifiers: pure functions
  losses        written for one position, lifted by vmap; blockwise: head and loss, a block of positions at a time
  checkpoint    a directory that describes itself
  decoding      translator (sentences in, n-best out), search (rules, beams, engine, sampling), scoring
  evaluation    BLEU, p(t = mode), significance, perplexity, calibration, representations
  pruning       the weights of least magnitude become zero
  training      train_step (one update: the only pmap), loop, run_state, teacher_cache, trainer
  distillation  hypotheses -> a distilled corpus; minimum Bayes risk
  verification  is a directory just what was written there?
  marian        Hugging Face's Marian directories, in and out
  api           the public functions
  cli           the command `seqkd`

The studies are in `experiments`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seqkd_jax.api import (
        Batch,
        BatchConfig,
        Checkpoint,
        Corpus,
        CorpusConfig,
        Distilled,
        Ensemble,
        Evaluation,
        ExactConfig,
        FilterConfig,
        Hypotheses,
        Hypothesis,
        LoadedTranslator,
        LossConfig,
        LSTMConfig,
        MetricConfig,
        Mode,
        Model,
        OptimiserConfig,
        PruningConfig,
        SearchConfig,
        Summary,
        System,
        TrainConfig,
        TransformerConfig,
        Translation,
        Translator,
        UserError,
        Verification,
        Verified,
        Vocabularies,
        VocabularyConfig,
        distill,
        distill_n_best,
        distill_status,
        evaluate,
        hold_out,
        learn_vocabulary,
        load,
        load_split,
        load_vocabulary,
        named_rules,
        prune,
        train,
        verify,
    )

__version__ = "0.5.0"

__all__ = [
    "Batch",
    "BatchConfig",
    "Checkpoint",
    "Corpus",
    "CorpusConfig",
    "Distilled",
    "Ensemble",
    "Evaluation",
    "ExactConfig",
    "FilterConfig",
    "Hypotheses",
    "Hypothesis",
    "LSTMConfig",
    "LoadedTranslator",
    "LossConfig",
    "MetricConfig",
    "Mode",
    "Model",
    "OptimiserConfig",
    "PruningConfig",
    "SearchConfig",
    "Summary",
    "System",
    "TrainConfig",
    "TransformerConfig",
    "Translation",
    "Translator",
    "UserError",
    "Verification",
    "Verified",
    "Vocabularies",
    "VocabularyConfig",
    "distill",
    "distill_n_best",
    "distill_status",
    "evaluate",
    "hold_out",
    "learn_vocabulary",
    "load",
    "load_split",
    "load_vocabulary",
    "named_rules",
    "prune",
    "train",
    "verify",
]


def __getattr__(name: str):
    """A public name, imported when it is first used: `import seqkd_jax` alone imports no JAX."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from seqkd_jax import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
