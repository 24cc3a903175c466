"""From a teacher to a distilled corpus: n-best lists, a choice among them, a corpus with a card. Uses `decoding`.

Sequence-level distillation is another corpus, not another loss: Seq-KD takes the teacher's best translation of every
training source, Seq-Inter the one of its n-best list nearest to the reference (Kim & Rush 2016, sections 3.2 and 3.3).

  nbest             the teacher's n-best lists, in shards written atomically
  ledger            the shards that are missing, made by any number of processes, each once
  reuse             lines that other lists hold already
  nbest_files       n-best lists of other toolkits
  selection         one hypothesis of a list, under a rule of SELECTIONS
  distilled_corpus  train.<source> and train.<target> line by line beside the original, scores, filters, a card
  earlier_results   what stands there already: the same result is kept, that of another job is refused
  job               `make_corpus`, the way through all of these
  status            how far such a job is
  mbr               hypotheses in the order of their expected similarity
"""

from seqkd_jax.distillation.distilled_corpus import HOLDS, Recipe, write_corpus
from seqkd_jax.distillation.earlier_results import claim
from seqkd_jax.distillation.job import make_corpus, require_distillable
from seqkd_jax.distillation.ledger import make, n_best, require_part
from seqkd_jax.distillation.nbest import Candidate, NBest, plan, read_n_best
from seqkd_jax.distillation.nbest_files import open_lists
from seqkd_jax.distillation.selection import SELECTIONS, Choice, choose, kim_rush, require_rule
from seqkd_jax.distillation.status import status

__all__ = [
    "HOLDS",
    "SELECTIONS",
    "Candidate",
    "Choice",
    "NBest",
    "Recipe",
    "choose",
    "claim",
    "make_corpus",
    "kim_rush",
    "make",
    "n_best",
    "open_lists",
    "plan",
    "read_n_best",
    "require_distillable",
    "require_part",
    "require_rule",
    "status",
    "write_corpus",
]
