"""The stages up to a trained arm, each a function of earlier ones' directories; `stages.stage` makes each once.

  data -> vocabulary -> teacher -> n-best lists -> seq_kd, seq_inter -> an arm's training
  data -> gold_part, the references of seq_inter's sources --------------^
  table 3: the best student -> prune -> training on seq_kd -> training on seq_inter

What is measured of them: `evaluations`.

A stage is asked for by whoever needs it, so that asking for one arm makes what that arm needs and no more.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.core import stages
from experiments.core.study import Workspace
from experiments.kim_rush_2016.arms import Arm
from experiments.kim_rush_2016.rows import Row, start_of
from experiments.kim_rush_2016.scale import Scale
from seqkd_jax import checkpoint, distillation, distributed, pruning
from seqkd_jax.config import CorpusConfig, LossConfig, SearchConfig, TrainConfig
from seqkd_jax.data import batches, corpus, vocabulary
from seqkd_jax.decoding import Decoding
from seqkd_jax.decoding.search import greedy_rules
from seqkd_jax.distillation import nbest
from seqkd_jax.evaluation import metrics, tokenization
from seqkd_jax.losses import LOSSES
from seqkd_jax.training.trainer import Run, train_translator
from seqkd_jax.utils import files, progress

SPLITS = ("train", "valid", "test")


# Data


def data(workspace: Workspace) -> Path:
    """train, valid and test as plain text, every pair of the original in its order."""
    scale = workspace.scale

    def make(directory: Path) -> None:
        counts = {}
        for split, number in zip(SPLITS, scale.toy or (None,) * 3, strict=True):
            if scale.toy:
                pairs = corpus.toy_pairs(number, split, scale.seed)
            else:
                pairs = corpus.load_split(CorpusConfig(str(workspace.data), *scale.languages), split)
            counts[split] = {"pairs": len(pairs.sources), "sha256": corpus.fingerprint(pairs)}
            if scale.tokenizer:
                pairs = tokenised(pairs, scale.tokenizer)
            write_split(directory, split, scale, pairs)
        files.write_json(directory / "counts.json", counts)

    settings = {"languages": scale.languages, "toy": None}
    if scale.tokenizer:
        settings["tokenizer"] = scale.tokenizer
    if scale.toy:  # its first sentences stand for the language: another grammar makes another stage
        settings["toy"] = [*scale.toy, scale.seed, _first_sentences(scale.seed)]
    return workspace.stage("data", settings, {} if workspace.data is None else {"data": workspace.data}, make)


def write_split(directory: Path, split: str, scale: Scale, pairs: corpus.Corpus) -> None:
    """Plain text, a file for each language."""
    for suffix, lines in zip(scale.languages, (pairs.sources, pairs.targets), strict=True):
        files.write_text(directory / f"{split}.{suffix}", "".join(f"{line}\n" for line in lines))


def tokenised(pairs: corpus.Corpus, tokenizer: str) -> corpus.Corpus:
    """Words between spaces, after sacrebleu's tokenizer of that name."""
    sources, targets = (
        [" ".join(metrics.tokenise(line, tokenizer)) for line in side] for side in (pairs.sources, pairs.targets)
    )
    return pairs._replace(sources=sources, targets=targets)


@functools.cache
def _first_sentences(seed: int) -> str:
    return corpus.fingerprint(corpus.toy_pairs(200, "train", seed))


def read(workspace: Workspace, directory: Path, split: str) -> corpus.Corpus:
    """A split of a corpus that a stage wrote."""
    return corpus.load_split(CorpusConfig(str(directory), *workspace.scale.languages), split)


def learned_vocabulary(workspace: Workspace) -> Path:
    """The vocabularies, and the batch shapes that all arms share."""
    scale, given = workspace.scale, data(workspace)
    batch = scale.batch

    def make(directory: Path) -> None:
        gold = read(workspace, given, "train")
        learned = vocabulary.learn(gold.sources, gold.targets, scale.vocabulary)
        vocabulary.save(learned, directory)
        encoded, dropped = batches.encode_corpus(gold, learned, batch)
        plan = batches.make_plan(encoded, batch, scale.shapes and [batches.Shape(*shape) for shape in scale.shapes])
        progress.log(f"gold: {dropped}; {batches.describe(plan)}")
        files.write_json(directory / "shapes.json", [list(shape) for shape in plan.shapes])

    return workspace.stage("vocabulary", [scale.vocabulary, batch, scale.shapes], {"data": given}, make)


def shapes(workspace: Workspace) -> tuple[batches.Shape, ...]:
    """The batch shapes that all arms share which make batches alike."""
    return tuple(batches.Shape(*shape) for shape in files.read_json(learned_vocabulary(workspace) / "shapes.json"))


# Distilled corpora


def n_best(workspace: Workspace, search: SearchConfig, share: float) -> tuple[Path, np.ndarray]:
    """The teacher's lists for a share of the training sources, and the places of these in the corpus."""
    scale, given, by = workspace.scale, data(workspace), teachers(workspace)
    gold = read(workspace, given, "train")
    chosen = drawn(scale, len(gold.sources), share)

    def make(directory: Path) -> None:
        lists_in(workspace, directory, by, [gold.sources[place] for place in chosen], search)

    made_by = [decoding(scale, search).decoder, nbest.FORMAT]
    settings = [search, share, scale.seed, scale.source_buckets, scale.decode_tokens, *made_by]
    inputs = {"data": given, **{f"teacher {place}" if place else "teacher": path for place, path in enumerate(by)}}
    return workspace.stage(f"n-best-{search.beam}", settings, inputs, make, resumable=True, together=True), chosen


def drawn(scale: Scale, count: int, share: float) -> np.ndarray:
    """The places of a share of so many training pairs."""
    return np.sort(np.random.default_rng(scale.seed).permutation(count)[: round(share * count)])


def teachers(workspace: Workspace) -> list[Path]:
    """The checkpoints that decode the training sources, as one."""
    row = workspace.scale.teacher_row
    return [trained(workspace, row._replace(place=row.place + place)) for place in range(workspace.scale.ensemble)]


def lists_in(
    workspace: Workspace, directory: Path, by: Sequence[Path], lines: list[str], search: SearchConfig
) -> nbest.NBest:
    """The lists of these lines in a directory, where those that are missing are made. by: see `teachers`."""
    rules, name = decoding(workspace.scale, search), f"n-best {search.beam}"
    return distillation.n_best(directory, checkpoint.load_translators(by), lines, rules, name=name)


def decoding(scale: Scale, search: SearchConfig) -> Decoding:
    """The scale's way of decoding, under these rules."""
    return Decoding(search, source_buckets=scale.source_buckets, batch_tokens=scale.decode_tokens)


def searches(scale: Scale) -> dict[str, Decoding]:
    """Those that arms are evaluated by: greedy, and with the scale's beam."""
    rules = decoding(scale, scale.evaluation)
    return {"beam1": replace(rules, search=greedy_rules(rules.search)), f"beam{rules.search.beam}": rules}


def decoded_by(scale: Scale) -> list:
    """What decides outputs beside model and sources."""
    return [scale.evaluation, decoding(scale, scale.evaluation).decoder, scale.source_buckets, scale.decode_tokens]


def distilled(workspace: Workspace, search: SearchConfig, share: float, selection: str, name: str) -> Path:
    """A corpus with the teacher's targets, chosen from its n-best lists."""
    candidates, chosen = n_best(workspace, search, share)
    given, by = data(workspace), teachers(workspace)

    def make(directory: Path) -> None:
        gold = corpus.take(read(workspace, given, "train"), chosen)
        lists = lists_in(workspace, candidates, by, gold.sources, search)
        vocabularies = vocabulary.load(learned_vocabulary(workspace))
        recipe = distillation.Recipe(
            workspace.scale.languages, selection, gold.targets, vocabularies, tokenizer(workspace)
        )
        distillation.write_corpus(directory / "corpus", lists, recipe)

    return workspace.stage(name, {"selection": selection}, {"lists": candidates, "data": given}, make) / "corpus"


def tokenizer(workspace: Workspace) -> str:
    """That of BLEU, by the vocabulary and the target language."""
    vocabularies = vocabulary.load(learned_vocabulary(workspace))
    return tokenization.resolve(tokenization.AUTO, vocabularies, (), language=workspace.scale.languages[1])


def seq_kd(workspace: Workspace) -> Path:
    """The teacher's best translation of every training source."""
    return distilled(workspace, workspace.scale.seq_kd_search, 1.0, "best", "seq_kd")


def seq_inter(workspace: Workspace) -> Path:
    """The hypothesis nearest the reference, for a share of the training sources."""
    scale = workspace.scale
    return distilled(workspace, scale.seq_inter_search, scale.seq_inter_share, scale.seq_inter_selection, "seq_inter")


def gold_part(workspace: Workspace) -> Path:
    """The references of the sources that Seq-Inter's targets are made for."""
    scale, given = workspace.scale, data(workspace)

    def make(directory: Path) -> None:
        gold = read(workspace, given, "train")
        write_split(
            directory, "train", scale, corpus.take(gold, drawn(scale, len(gold.sources), scale.seq_inter_share))
        )

    return workspace.stage("gold_part", [scale.seq_inter_share, scale.seed], {"data": given}, make)


CORPORA: dict[str, Callable[[Workspace], Path]] = {
    "gold": data,
    "gold_part": gold_part,
    "seq_kd": seq_kd,
    "seq_inter": seq_inter,
}


def corpus_of(workspace: Workspace, name: str) -> Path:
    """The corpus of that name, as the scale has it made."""
    return (workspace.scale.corpora.get(name) or CORPORA[name])(workspace)


TAUGHT = ("seq_kd", "seq_inter")  # corpora that the teacher made
OF_A_SHARE = ("gold_part", "seq_inter")  # corpora of a share of the training sources


# Arms


RETRAINING = 2.0  # times the rate of fine-tuning, for what was just pruned (the paper: 0.2 and 0.1)


def train_config(scale: Scale, arm: Arm) -> TrainConfig:
    """How an arm is trained: the scale's, with the arm's loss."""
    config = (scale.training if arm.start is None else scale.fine_tuning)[arm.role]
    if arm.prunes:
        rate = RETRAINING * config.optimiser.learning_rate
        config = replace(config, optimiser=replace(config.optimiser, learning_rate=rate))
    loss = scale.word_kd if LOSSES[arm.loss].needs_teacher else config.loss
    return replace(config, loss=replace(loss, name=arm.loss))


def of_row(scale: Scale, row: Row) -> TrainConfig:
    """The same, under the row's seed."""
    config = train_config(scale, row.arm)
    return replace(config, seed=config.seed + row.place)


def training(workspace: Workspace, row: Row) -> Path:
    """The training run of a row: checkpoints, metrics.jsonl, summary.json."""
    workspace = workspace._replace(scale=replace(workspace.scale, teaching=row.teacher))
    scale, config, start = workspace.scale, of_row(workspace.scale, row), start_of(row)
    read_from, words = corpus_of(workspace, row.arm.corpus), learned_vocabulary(workspace)
    inputs = {"corpus": read_from, "gold": data(workspace), "vocabulary": words}
    if start is not None:
        inputs["start"] = pruned(workspace, row) if row.arm.prunes else trained(workspace, start)
    if LOSSES[config.loss.name].needs_teacher:
        inputs["teacher"] = trained(workspace, scale.teacher_row)

    def make(directory: Path) -> None:
        run = Run(
            model=row.model,
            vocabularies=vocabulary.load(words),
            config=config,
            shapes=shapes(workspace) if config.batch == scale.batch else None,
            start=inputs.get("start"),
            teacher=inputs.get("teacher"),
            keep_teacher_features=True,  # for the next seed
            teacher_cache=_top_k_of(workspace, config.loss, inputs) if LOSSES[config.loss.name].top_k else None,
        )
        train, valid = read(workspace, read_from, "train"), read(workspace, inputs["gold"], "valid")
        outcome = train_translator(run, train, valid, directory, row.key)
        summary = outcome.replicas[0]._asdict() | outcome._asdict()
        del summary["best"], summary["last"], summary["replicas"]
        distributed.by_first(lambda: files.write_json(directory / "summary.json", summary))

    return workspace.stage(f"train-{row.key}", [row.model, config], inputs, make, resumable=True, together=True)


def _top_k_of(workspace: Workspace, loss: LossConfig, inputs: Mapping[str, Path]) -> Path:
    """Where the teacher's most probable entries are, which the seeds of an arm share. It is no stage: they go on."""
    read_by = [stages.content_hash(inputs[name]) for name in ("teacher", "corpus", "vocabulary")]
    return workspace.root / f"teacher-top-k-{files.sha256_json([read_by, loss.top_k, loss.temperature])[:12]}"


def pruned(workspace: Workspace, row: Row) -> Path:
    """The checkpoint that a row of table 3 is retrained from: its start without some of its weights."""
    start, config = start_of(row), row.arm.pruning
    assert start is not None and config is not None  # Arm.prunes
    weights = trained(workspace, start)

    def make(directory: Path) -> None:
        pruning.prune(weights, directory / "checkpoint", config)

    return workspace.stage(f"prune-{row.key}", config, {"checkpoint": weights}, make) / "checkpoint"


def trained(workspace: Workspace, row: Row) -> Path:
    """The checkpoint of a row that others go on from."""
    return training(workspace, row) / workspace.scale.pick
