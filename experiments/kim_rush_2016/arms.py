"""Tables 1 and 3 of Kim & Rush 2016 as data: an arm is where a model starts, what it reads, and the loss.

Adding an arm is adding a line: any corpus of `pipeline.CORPORA`, any loss of `losses.LOSSES` (one that has a teacher is
weighed as the scale weighs Word-KD), any earlier arm to start from. How each arm is made: sections 3 and 4.2 of the
paper; Seq-Inter is always fine-tuning of a trained model. The arms "+ gold" are not of the paper: they are the controls
of Seq-Inter, fine-tuned alike on the references of the same sources.
"""

from typing import Literal, NamedTuple

from seqkd_jax.config import PruningConfig


class Arm(NamedTuple):
    """One line of the table."""

    name: str
    role: Literal["teacher", "student", "transformer"]  # which of the scale's models
    start: str | None  # the arm it is fine-tuned from; None: random weights
    corpus: Literal["gold", "gold_part", "seq_kd", "seq_inter"]
    loss: str  # an entry of losses.LOSSES
    pruning: PruningConfig | None = None  # table 3: how its model is pruned, of the arm BEST; None: it is not

    @property
    def prunes(self) -> bool:
        """Whether its start is pruned before it is trained; what starts from such an arm is pruned already."""
        return self.pruning is not None and self.start == BEST


TEACHER, BASELINE = "Teacher", "Baseline"  # what the others are compared with
BEST = "Seq-KD + Seq-Inter"  # the student that table 3 prunes
PRUNED = "Pruned"  # all arms of table 3, where their seeds are counted
BEAMS = ("beam1", "beam5")  # every arm is decoded so

ARMS = (
    Arm(TEACHER, "teacher", None, "gold", "nll"),
    Arm("Teacher + Seq-Inter", "teacher", TEACHER, "seq_inter", "nll"),
    Arm(BASELINE, "student", None, "gold", "nll"),
    Arm("Word-KD", "student", None, "gold", "word_kd"),
    Arm("Seq-KD", "student", None, "seq_kd", "nll"),
    Arm("Baseline + Seq-Inter", "student", BASELINE, "seq_inter", "nll"),
    Arm("Word-KD + Seq-Inter", "student", "Word-KD", "seq_inter", "nll"),
    Arm("Seq-KD + Seq-Inter", "student", "Seq-KD", "seq_inter", "nll"),
    Arm("Seq-KD + Word-KD", "student", None, "seq_kd", "word_kd"),
    Arm("All three", "student", "Seq-KD", "seq_inter", "word_kd"),
    Arm("Teacher + gold", "teacher", TEACHER, "gold_part", "nll"),
    Arm("Baseline + gold", "student", BASELINE, "gold_part", "nll"),
    Arm("Seq-KD + gold", "student", "Seq-KD", "gold_part", "nll"),
    Arm("Transformer teacher", "transformer", None, "gold", "nll"),  # not in the paper; where a scale has one
)
NAMED = {arm.name: arm for arm in ARMS}


def pruned_arms(pruning: PruningConfig) -> tuple[Arm, Arm]:
    """Table 3 at one share: the best student pruned and retrained on Seq-KD data, then fine-tuned on Seq-Inter data."""
    how = [] if pruning.rule == "class_blind" else [pruning.rule.replace("_", "-")]
    how += [] if pruning.embeddings else ["no embeddings"]
    name = " ".join([f"Pruned {100 * pruning.share:g}", *how])
    return (
        Arm(name, "student", BEST, "seq_kd", "nll", pruning),
        Arm(f"{name} + Seq-Inter", "student", name, "seq_inter", "nll", pruning),
    )


def slug(name: str) -> str:
    """An arm's name in file names and on the command line: "Seq-KD + Seq-Inter" -> seq_kd+seq_inter."""
    return name.lower().replace(" + ", "+").replace("-", "_").replace(" ", "_")


def control_of(arm: Arm) -> str | None:
    """The arm that was fine-tuned alike, but on references; None: it has none."""
    if arm.corpus != "seq_inter":
        return None
    alike = arm._replace(corpus="gold_part")
    return next((other.name for other in ARMS if other == alike._replace(name=other.name)), None)


def against(arm: Arm) -> str:
    """The arm that this one's deltas are against."""
    return BASELINE if arm.role == "student" else TEACHER
