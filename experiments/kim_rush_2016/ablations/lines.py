"""The ablations as data: a line is an arm of the main study, and what of its scale is another than there.

The first line of a group is what its others are compared with; where the group varies a setting, it is the main run's.
What a line leaves as it is gives the same stages as the main run, so nothing is trained or decoded twice.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from experiments.kim_rush_2016.ablations import targets
from experiments.kim_rush_2016.arms import BASELINE, BEST, NAMED, Arm
from experiments.kim_rush_2016.rows import Row
from experiments.kim_rush_2016.scale import Scale, student_trained
from seqkd_jax.config import LSTMConfig, OptimiserConfig, TransformerConfig

Vary = Callable[[Scale], Scale]


class Ablation(NamedTuple):
    """One line of the table."""

    group: str  # a key of GROUPS
    value: str  # of what the group varies
    arm: Arm
    vary: Vary

    @property
    def name(self) -> str:
        """In results.json."""
        return f"{self.group} {self.value}"


class Line(NamedTuple):
    """One training run: an ablation under one seed."""

    ablation: Ablation
    place: int = 0

    def row(self, scale: Scale) -> Row:
        """The run as the main study has it, under the scale that `Ablation.vary` gives."""
        return Row(self.ablation.arm, scale.models[self.ablation.arm.role][0], self.place)

    @property
    def label(self) -> str:
        """In tables."""
        return self.ablation.name + (f", seed +{self.place}" if self.place else "")

    @property
    def key(self) -> str:
        """In logs."""
        seed = f"-seed{self.place}" if self.place else ""
        return self.ablation.name.lower().replace(" ", "-").replace(",", "") + seed

    @property
    def names(self) -> tuple[str, ...]:
        """On the command line: those of its group, or of its line."""
        return self.ablation.group, self.ablation.name, self.key


def _same(scale: Scale) -> Scale:
    return scale


def _word_kd(**settings) -> Vary:
    return lambda scale: replace(scale, word_kd=replace(scale.word_kd, **settings))


def _smoothed(scale: Scale, mass: float = 0.1) -> Scale:
    loss = replace(scale.training["student"].loss, label_smoothing=mass)
    return student_trained(_word_kd(label_smoothing=mass)(scale), loss=loss)


def _beam(count: int) -> Vary:
    return lambda scale: replace(scale, seq_kd_search=replace(scale.seq_kd_search, beam=count))


def _targets(corpus: Callable, times: Callable[[Scale], float] = lambda scale: 1.0) -> Vary:
    """Another corpus in the place of Seq-KD's, so many times as long: about as many updates as there, by its epochs."""

    def vary(scale: Scale) -> Scale:
        epochs = max(1, round(scale.training["student"].epochs / times(scale)))
        return student_trained(replace(scale, corpora={**scale.corpora, "seq_kd": corpus}), epochs=epochs)

    return vary


def _part(share: float) -> Vary:
    return _targets(targets.part(share), lambda scale: share)


def _selected(selection: str) -> Vary:
    return lambda scale: replace(scale, seq_inter_selection=selection)


def _own_vocabulary(scale: Scale) -> Scale:
    """Half as many entries: the student reads the teacher's text, and shares nothing else with it."""
    half = replace(scale.vocabulary, size=scale.vocabulary.size // 2)
    return replace(scale, vocabulary=half, corpora={**scale.corpora, "seq_kd": targets.under(scale)})


def _twice_as_long(scale: Scale) -> Scale:
    return student_trained(scale, epochs=2 * scale.training["student"].epochs)


def _twice_as_wide(scale: Scale) -> Scale:
    """The scale's own student of that size, if it has one."""
    first, *others = (model for model in scale.models["student"] if isinstance(model, LSTMConfig))
    double = replace(first, size=2 * first.size)
    found = next((other for other in others if (other.layers, other.size) == (double.layers, double.size)), double)
    return replace(scale, models={**scale.models, "student": (found,)})


# Transformers beside a scale's LSTMs, where it has none of its own: the teacher, and how it is trained.
_TOY_TEACHER = TransformerConfig(2, 2, 128, heads=4, feed_forward=256, dropout=0.0)
_STUDENTS = {"smoke": TransformerConfig(1, 1, 32, heads=2, feed_forward=64, dropout=0.0)}
_STUDENT = TransformerConfig(2, 2, 128, heads=4, feed_forward=512, dropout=0.1)


def _transformer_student(scale: Scale) -> Scale:
    student = _tied(_STUDENTS.get(scale.name, _STUDENT), scale)
    scale = replace(scale, models={**scale.models, "student": (student,)})
    return student_trained(scale, optimiser=_adam(1e-3))


def _transformer_teacher(scale: Scale) -> Scale:
    """Its own arm, where the scale has that."""
    if "transformer" not in scale.models:
        models = {**scale.models, "transformer": (_tied(_TOY_TEACHER, scale),)}
        trained = replace(scale.training["teacher"], optimiser=_adam(2e-3))
        scale = replace(scale, models=models, training={**scale.training, "transformer": trained})
    return replace(scale, teacher_arm="Transformer teacher")


def _tied(model: TransformerConfig, scale: Scale) -> TransformerConfig:
    """One embedding takes one vocabulary."""
    return model if scale.vocabulary.joint else replace(model, tied="target")


def _adam(rate: float) -> OptimiserConfig:
    return OptimiserConfig(learning_rate=rate, schedule="cosine", warmup_steps=100, clip_norm=1.0)


TWICE = "twice as many epochs, or until validation stops"
_ALONE, _WORD_KD, _SEQ_KD = (NAMED[name] for name in (BASELINE, "Word-KD", "Seq-KD"))


def _by(loss: str) -> Arm:
    """Word-KD with another of the losses."""
    return _WORD_KD._replace(name=f"Word-KD by {loss}", loss=loss)


GROUPS: dict[str, str] = {
    "alpha": "Word-KD: weight of the teacher's term (the paper: 0.5 and 0.9 tried, 0.5 best)",
    "temperature": "Word-KD: temperature, the term times T² (the paper: 1, 1.5 and 2 tried, 1 best)",
    "smoothing": "Label smoothing against Word-KD: mass spread over the vocabulary",
    "loss": "Word-KD by another measure of how far the student is from its teacher (not in the paper)",
    "top_k": "Word-KD from the teacher's k most probable entries, all others one (not in the paper)",
    "k": "Seq-KD: beam of the teacher (the paper: 5; more gave no significant gain)",
    "targets": "Seq-KD: which of the teacher's translations (the paper: the mode)",
    "size": "Seq-KD: share of the training set that is distilled, for as many updates",
    "selection": "Seq-KD + Seq-Inter: similarity to the reference (the paper: smoothed sentence BLEU)",
    "vocabulary": "Seq-KD across vocabularies; Word-KD needs one vocabulary",
    "beam": "Why does a beam still add to Seq-KD: too little training, too small a student? (not in the paper)",
    "beam_alone": "The same of the baseline (not in the paper)",
    "transformer_student": "A Transformer learns from the LSTM",
    "transformer_teacher": "The LSTM learns from a Transformer",
}
LINES: tuple[Ablation, ...] = (
    Ablation("alpha", "0.5", _WORD_KD, _same),
    Ablation("alpha", "0.9", _WORD_KD, _word_kd(alpha=0.9)),
    Ablation("alpha", "1", _WORD_KD, _word_kd(alpha=1.0)),
    Ablation("temperature", "1", _WORD_KD, _same),
    Ablation("temperature", "1.5", _WORD_KD, _word_kd(temperature=1.5)),
    Ablation("temperature", "2", _WORD_KD, _word_kd(temperature=2.0)),
    Ablation("smoothing", "Baseline, 0", _ALONE, _same),
    Ablation("smoothing", "Baseline, 0.1", _ALONE, _smoothed),
    Ablation("smoothing", "Word-KD, 0", _WORD_KD, _same),
    Ablation("smoothing", "Word-KD, 0.1", _WORD_KD, _smoothed),
    Ablation("loss", "cross-entropy", _WORD_KD, _same),
    Ablation("loss", "reverse KL", _by("reverse_kl"), _same),
    Ablation("loss", "Jensen-Shannon", _by("jensen_shannon"), _same),
    Ablation("loss", "total variation", _by("total_variation"), _same),
    Ablation("loss", "TIE-KD", _by("tie_kd"), _same),
    Ablation("top_k", "all", _WORD_KD, _same),
    Ablation("top_k", "64", _by("word_kd_top_k"), _word_kd(top_k=64)),
    Ablation("top_k", "16", _by("word_kd_top_k"), _word_kd(top_k=16)),
    Ablation("top_k", "4", _by("word_kd_top_k"), _word_kd(top_k=4)),
    Ablation("k", "5", _SEQ_KD, _same),
    Ablation("k", "1", _SEQ_KD, _beam(1)),
    Ablation("k", "2", _SEQ_KD, _beam(2)),
    Ablation("k", "10", _SEQ_KD, _beam(10)),
    Ablation("targets", "the best of the list", _SEQ_KD, _same),
    Ablation(
        "targets",
        "the whole list, renormalised",
        _SEQ_KD,
        _targets(targets.k_best, lambda scale: scale.seq_kd_search.beam),
    ),
    Ablation("targets", "the nearest to the list (MBR)", _SEQ_KD, _targets(targets.minimum_bayes_risk)),
    Ablation("targets", "the best of two teachers", _SEQ_KD, lambda scale: replace(scale, ensemble=2)),
    Ablation("size", "100%", _SEQ_KD, _same),
    Ablation("size", "50%", _SEQ_KD, _part(0.5)),
    Ablation("size", "25%", _SEQ_KD, _part(0.25)),
    Ablation("selection", "kim_rush", NAMED[BEST], _same),
    Ablation("selection", "sacrebleu", NAMED[BEST], _selected("sacrebleu")),
    Ablation("selection", "chrf", NAMED[BEST], _selected("chrf")),
    Ablation("vocabulary", "the teacher's", _SEQ_KD, _same),
    Ablation("vocabulary", "its own, alone", _ALONE, _own_vocabulary),
    Ablation("vocabulary", "its own", _SEQ_KD, _own_vocabulary),
    *(
        Ablation(group, value, arm, vary)
        for group, arm in (("beam", _SEQ_KD), ("beam_alone", _ALONE))
        for value, vary in (("as in table 1", _same), (TWICE, _twice_as_long), ("twice as wide", _twice_as_wide))
    ),
    Ablation("transformer_student", "Baseline", _ALONE, _transformer_student),
    Ablation("transformer_student", "Word-KD", _WORD_KD, _transformer_student),
    Ablation("transformer_student", "Seq-KD", _SEQ_KD, _transformer_student),
    Ablation("transformer_teacher", "Baseline", _ALONE, _same),
    Ablation("transformer_teacher", "Word-KD", _WORD_KD, _transformer_teacher),
    Ablation("transformer_teacher", "Seq-KD", _SEQ_KD, _transformer_teacher),
)


def repeats(ablation: Ablation) -> bool:
    """Whether an earlier line is the same run."""
    return ablation != next(line for line in LINES if (line.arm, line.vary) == (ablation.arm, ablation.vary))


def first_of(group: str) -> Ablation:
    """What the lines of a group are compared with."""
    return next(line for line in LINES if line.group == group)
