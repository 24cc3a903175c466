"""Train a model: corpora become batches, a teacher and a validation are tied to the loop, checkpoints are written.

`train_model` takes an encoded corpus, of any model. `train_translator` is that with text, and BLEU for validation. A
student of Word-KD is a run with a teacher, of Seq-KD one with another corpus; Seq-Inter is a run from another start.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from seqkd_jax import checkpoint, distributed, losses, models
from seqkd_jax.config import ModelConfig, SearchConfig, TrainConfig
from seqkd_jax.data import batches, shaping, vocabulary
from seqkd_jax.data.corpus import Corpus
from seqkd_jax.data.examples import FORMS
from seqkd_jax.decoding import Decoding, require_length, translate_lines
from seqkd_jax.evaluation import likelihood, metrics, tokenization
from seqkd_jax.training import best, compatibility, loop, run_state, teacher_cache, teacher_top_k, train_step
from seqkd_jax.types import System, UserError
from seqkd_jax.utils import files, programs, progress, remote, settings

SHAPES = "choice of batch shapes"  # its name among the inputs of a run
HUGE = -6e4  # a bar is a parameter below this: float16 holds no number that is much less


class Run(NamedTuple):
    """What to train, how, and from where; its corpora are beside it."""

    model: ModelConfig
    vocabularies: vocabulary.Vocabularies
    config: TrainConfig
    shapes: tuple | None = None  # batch shapes shared with other runs; None: chosen from the lengths
    start: Path | None = None  # checkpoint to start from; None: at random
    teacher: Path | None = None  # checkpoint whose distribution the loss reads
    # Of a teacher that was trained with several seeds: its first for all replicas, or replica i for replica i.
    teachers: Literal["one", "each"] = "one"
    teacher_cache_gib: float = 4.0  # a teacher's features of the whole corpus are kept in memory if they take no more
    keep_teacher_features: bool = False  # they stay for the next run of this process with this teacher and corpus
    # Directory of the teacher's most probable entries, which several runs share; None: beside the run's
    teacher_cache: Path | None = None
    described: Mapping[str, Any] | None = None  # the content of config.json; None: no such file
    # For the checkpoints to say; `evaluate`, `distill` and model cards use them. None: the model does not translate.
    tokenize: str | None = None  # of BLEU
    languages: tuple[str, str] | None = None  # None: also where they are not named
    log: tuple[str, ...] = ()  # records beside metrics.jsonl: names of records.WRITERS


def train_translator(run: Run, train: Corpus, valid: Corpus, directory: Path, name: str = "train") -> loop.Summary:
    """Train a translation model on text, or resume its training; see `loop.fit` for what `directory` holds then."""
    _require_fitting(run)
    tokenize = _tokenizer(run, valid, directory)
    run = run._replace(tokenize=tokenize, languages=train.languages)
    encoded, dropped = batches.encode_corpus(train, run.vocabularies, run.config.batch)
    scored, not_scored = batches.encode_corpus(valid, run.vocabularies, run.config.batch)
    progress.log(f"{name}: {dropped}")
    bleu = None
    if run.config.validate_bleu:
        bleu = partial(_greedy_bleu, run.vocabularies, valid, tokenize, devices=run.config.devices)
        for number, line in enumerate(valid.sources, start=1):  # now, not after an epoch
            require_length(number, len(run.vocabularies.source.encode(line)) + 1, f"{valid.name}: ")
    if not_scored.empty or not_scored.overlong:
        progress.log(f"{name}, validation loss: {not_scored}")
    return train_model(run, encoded, scored, directory, name, bleu)


def train_model(
    run: Run,
    train: batches.Encoded,
    valid: batches.Encoded,
    directory: Path,
    name: str = "train",
    validate: Callable[[Any, Any], dict] | None = None,
) -> loop.Summary:
    """Train any model, or resume its training; see `loop.fit` for what `directory` holds then.

    validate: (model, params) -> measures beside loss (nats a label) and perplexity.
    """
    if run.config.validate_bleu and validate is None:
        raise UserError("validate_bleu: this model is not validated by translating; leave it out")
    _require_fitting(run)
    valid = valid._replace(weights=np.ones_like(valid.weights))  # a perplexity counts tokens
    run = run._replace(config=run_state.with_buckets_of_run(directory, run.config))
    plan = _plan(run, train, directory)
    progress.log(f"{name}: {batches.describe(plan)}")
    (teacher, of_teacher), start = _teacher(run), _start(run, name)
    read = {"start": start.fingerprint, "teacher": of_teacher}
    _require_described(run, read)

    top_k = losses.LOSSES[run.config.loss.name].top_k

    def stream(position: batches.Position):
        corpus = train
        if teacher and top_k:
            place = run.teacher_cache or directory.with_name(f"{directory.name}.{teacher_top_k.NAME}")
            of = teacher_top_k.Of(of_teacher, run.config.loss.top_k, run.config.loss.temperature)
            corpus = teacher_top_k.with_top_k(place, teacher, of, train, plan, name)
        elif teacher and _cache_pays(run, teacher, train, plan):
            read_from = [of_teacher, run.teachers, batches.fingerprint(train), batches.choice(plan)]
            kept_as = files.sha256_json(read_from) if run.keep_teacher_features else ""
            corpus = teacher_cache.with_features(teacher, train, plan, name, kept_as)
        return batches.train_batches(corpus, plan, run.config.batch, position)

    model = models.build(run.model, run.vocabularies.source.size, run.vocabularies.target.size)
    shared = plan.shapes if run.shapes or run.config.batch.buckets else None
    valid_plan = batches.make_plan(valid, batches.few_shapes(run.config.batch), shared, plan.rule)
    scored = [batch for _, batch in batches.eval_batches(valid, valid_plan)]
    corpora = {"training": train, "validation": valid}
    bars = start.params is not None and _barred(run, model, start.params, scored[0].inputs, corpora)
    classifies = not FORMS[valid.form].predicts_eos

    def validation(params) -> dict:
        scores = likelihood.of_batches(model, params, scored)
        more = {"accuracy": likelihood.accuracy(model, params, scored)} if classifies else {}
        more |= {} if validate is None else validate(model, params)
        return {"loss": scores.mean, "perplexity": scores.perplexity, **more}

    summary = loop.fit(
        model,
        loop.Data(stream, plan.batches_per_epoch),
        run.config,
        directory,
        validate=validation,
        save=partial(_save, run, pruned=start.pruned),
        params=start.params,
        pruned=start.pruned,
        teacher=teacher._replace(model=None, params=()) if teacher and top_k else teacher,
        bars=bars,
        inputs=start.mask | _inputs(run, train, valid, plan) | read,
        described=run.described,
        log=run.log,
        name=name,
    )
    progress.log(f"{name}: {_came_to(summary, run.config, 'examples' if classifies else 'target tokens')}")
    return summary


def _plan(run: Run, train: batches.Encoded, directory: Path) -> batches.Plan:
    """The batches of the run. One that is resumed keeps the rule by which its shapes were chosen."""
    plan = batches.make_plan(train, run.config.batch, run.shapes)
    begun_with = run_state.input_of_run(directory, SHAPES)
    if begun_with in (None, batches.choice(plan)):
        return plan
    former = batches.make_plan(train, run.config.batch, run.shapes, shaping.FORMER)
    return former if batches.choice(former) == begun_with else plan


def _require_fitting(run: Run) -> None:
    """UserError for what does not fit together, before anything is read or computed."""
    given = {"start": run.start, "teacher": run.teacher, "teachers": run.teachers}
    compatibility.model_of_run(run.model, run.config, vocabularies=run.vocabularies, **given)


def _came_to(summary: loop.Summary, config: TrainConfig, unit: str) -> str:
    """What a run came to, as its last line: updates, the best of each seed by the metric that chose it, speed."""
    found = []
    for replica in summary.replicas:
        entry = best.at_step(replica.history, replica.best_step)
        seed = f"seed {replica.seed}: " if len(summary.replicas) > 1 else ""
        found.append(f"{seed}{best.described(entry, config.validate_bleu)}")
    speed = f"{summary.tokens_per_second:,.0f} {unit}/s, {summary.peak_fraction:.0%} of this machine's peak"
    return f"{summary.steps:,} updates; {'; '.join(found)}; {speed}"


def _tokenizer(run: Run, valid: Corpus, directory: Path) -> str:
    """The metric's tokenizer: a resumed run keeps its own, whatever has been installed since."""

    def resolved() -> str:
        last, stored = directory / "last", tokenization.AUTO
        if files.existing(last).exists():
            stored = checkpoint.metric_of(checkpoint.read_record(last)["metadata"], last).tokenize
        language = valid.languages and valid.languages[1]
        asked = run.config.metric.tokenize
        return tokenization.resolve(asked, run.vocabularies, valid.targets, stored=stored, language=language)

    return distributed.agreed(resolved() if distributed.first() else None)


def _save(run: Run, directory: Path, params: Any, *, metadata: dict, **options: Any) -> Path:
    """checkpoint.save with what a run knows of its model."""
    if run.tokenize:
        metadata = {**metadata, "metric": {"tokenize": run.tokenize}}
    if run.languages:
        metadata = {**metadata, "languages": list(run.languages)}
    described = {"model_config": run.model, "vocabularies": run.vocabularies, "metadata": metadata}
    saved = checkpoint.save(directory, params, **described, **options)
    if directory.name == "last":  # it comes after all else that belongs to it
        remote.saved(directory.parent)
    return saved


def _greedy_bleu(
    vocabularies: vocabulary.Vocabularies, valid: Corpus, tokenize: str, model: Any, params: Any, devices: int = 0
) -> dict[str, float]:
    """BLEU of a translator's greedy translations of the validation corpus. devices: as those that train."""
    decoding = Decoding(SearchConfig(beam=1), devices=devices)
    lines = translate_lines(System(model, params, vocabularies), valid.sources, decoding)
    outputs = [translation.text for translation in lines]
    references = metrics.metric_references(vocabularies, valid.targets, tokenize)
    return {"bleu": metrics.score(outputs, references, tokenize).bleu}


def _inputs(run: Run, train: batches.Encoded, valid: batches.Encoded, plan: batches.Plan) -> dict[str, str]:
    """What decides the run beside its configuration and the checkpoints that it reads -> SHA-256; another of these is
    another run."""
    return {
        "model": files.sha256_json(settings.identity(run.model)),
        "vocabulary": run.vocabularies.fingerprint,
        "training corpus": batches.fingerprint(train),
        "validation corpus": batches.fingerprint(valid),
        SHAPES: batches.choice(plan),
        "way of teaching": run.teachers if run.teacher and run.config.replicas > 1 else "one",
    }


def _require_described(run: Run, read: Mapping[str, str]) -> None:
    """UserError if config.json would name other weights than those that were read."""
    for name, path in (("start", run.start), ("teacher", run.teacher)):
        described = (run.described or {}).get("inputs", {}).get(name, {})
        if path and described.get("fingerprint", read[name]) != read[name]:
            raise UserError(f"{path}: was replaced while the run began; give the command again when that has ended")


class _Start(NamedTuple):
    """What a run starts from."""

    params: Any = None
    fingerprint: str = "none"  # of the checkpoint
    pruned: checkpoint.Pruned | None = None

    @property
    def mask(self) -> dict[str, str]:
        """What names, among the inputs of the run, which weights stay zero."""
        return {} if self.pruned is None else {run_state.MASK: checkpoint.sparse.sha256(self.pruned)}


def _start(run: Run, name: str) -> _Start:
    """The weights to start from; of a pruned checkpoint it is said that its zeros stay."""
    if run.start is None:
        return _Start()
    start = _load(run.start, run)
    if start.pruned is not None:
        count = checkpoint.sparse.describe(start.pruned)["weights"]
        progress.log(f"{name}: {count:,} weights of {run.start} are pruned and stay zero")
    return _Start(start.params, start.fingerprint, start.pruned)


def _barred(run: Run, model: Any, start: Any, inputs: Any, corpora: Mapping[str, batches.Encoded]) -> bool:
    """Whether the model bars entries; UserError for a corpus with a label that it bars. inputs: of some batch."""
    if all(np.min(np.asarray(leaf, np.float32), initial=0) > HUGE for leaf in jax.tree.leaves(start)):
        return False  # as most starts: no program is compiled to find that out
    features = jax.eval_shape(model.features, start, inputs, None)

    def barred_entries(params, features):
        return losses.barred(model.head(params, features))

    found = programs.announced(jax.jit(barred_entries), lambda *_: "the barred entries")
    barred = np.flatnonzero(np.asarray(found(start, np.zeros(features.shape[-1:], features.dtype))))
    for name, corpus in corpora.items():
        if len(never := np.intersect1d(np.concatenate(corpus.targets), barred)):
            raise UserError(
                f"the {name} corpus has entry {never[0]} of the vocabulary, which the model of {run.start} can never "
                "produce; leave out the pairs that have it"
            )
    return bool(len(barred))


def _teacher(run: Run) -> tuple[train_step.Teacher | None, str]:
    """The teacher of the run, or one for each replica, and its fingerprint; UserError for one that cannot teach."""
    if run.teacher is None:
        return None, "none"
    replicas = checkpoint.read_record(run.teacher).get("replicas", 1)
    if run.teachers == "one" or run.config.replicas == 1:
        teacher = _load(run.teacher, run, 0 if replicas > 1 else None)
        if why := checkpoint.defect(teacher):
            raise UserError(
                f"{run.teacher}: {'its first seed' if replicas > 1 else 'it'} cannot teach, because it {why}"
            )
        return train_step.Teacher(teacher.model, teacher.params), teacher.fingerprint
    teachers = checkpoint.load_all(run.teacher)
    for member in teachers:
        if why := checkpoint.defect(member):
            progress.log(f"{run.teacher}: replica {member.replica} {why}; its student cannot learn from it")
    vocabulary.require_same(teachers[0].vocabularies.fingerprint, run.vocabularies, run.teacher)
    params = jax.tree.map(
        lambda *leaves: np.stack(list(map(np.asarray, leaves))), *(member.params for member in teachers)
    )
    return train_step.Teacher(teachers[0].model, params, each=True), teachers[0].fingerprint


def _cache_pays(run: Run, teacher: train_step.Teacher, train: batches.Encoded, plan: batches.Plan) -> bool:
    """Whether to compute the teacher's features once: they stay the same, are read more than once, and have room."""
    gib = teacher_cache.size(teacher, train, plan) / teacher_cache.GIBIBYTE
    updates = run.config.epochs * plan.batches_per_epoch
    updates = min(updates, run.config.max_steps or updates)
    return updates > plan.batches_per_epoch and gib <= run.teacher_cache_gib and not run.config.loss.teacher_dropout


def _load(directory: Path, run: Run, replica: int | None = None) -> checkpoint.Checkpoint:
    """A checkpoint of the run's vocabulary."""
    loaded = checkpoint.load(directory, replica=replica)
    vocabulary.require_same(loaded.vocabularies.fingerprint, run.vocabularies, directory)
    return loaded
