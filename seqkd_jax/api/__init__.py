"""The public functions: load, train, distill, evaluate, verify. The command line is a layer over them.

`import seqkd_jax as kd` exports what `__all__` names here. An error that the user can correct is a UserError.

  translating  `load`, and a model that translates        training    vocabularies, `train`, `prune`
  distilling   `distill`, `distill_n_best`,               evaluating  `evaluate`
               `distill_status`                           verifying   `verify`
"""

from seqkd_jax.api.distilling import Distilled, distill, distill_n_best, distill_status
from seqkd_jax.api.evaluating import evaluate
from seqkd_jax.api.training import learn_vocabulary, load_vocabulary, prune, train
from seqkd_jax.api.translating import LoadedTranslator, load
from seqkd_jax.api.verifying import Verification, verify
from seqkd_jax.checkpoint import Checkpoint, Ensemble
from seqkd_jax.config import (
    BatchConfig,
    CorpusConfig,
    ExactConfig,
    FilterConfig,
    LossConfig,
    LSTMConfig,
    MetricConfig,
    OptimiserConfig,
    PruningConfig,
    SearchConfig,
    TrainConfig,
    TransformerConfig,
    VocabularyConfig,
)
from seqkd_jax.data.corpus import Corpus, load_split
from seqkd_jax.data.splits import hold_out
from seqkd_jax.data.vocabulary import Vocabularies
from seqkd_jax.decoding import Hypothesis, Translation
from seqkd_jax.decoding.modes import Mode
from seqkd_jax.decoding.search import named_rules
from seqkd_jax.evaluation.evaluation import Evaluation
from seqkd_jax.training.loop import Summary
from seqkd_jax.types import Batch, Hypotheses, Model, System, Translator, UserError
from seqkd_jax.verification import Verified

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
