"""What each command of `seqkd` does: reads its files, calls the public functions (api), writes their results.

Each function imports what it needs when it runs. Results go to standard output or files, messages to standard error.
"""

import contextlib
import functools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqkd_jax import distributed
from seqkd_jax.cli import checks, inputs, outputs, table
from seqkd_jax.cli.options import (
    Average,
    Distill,
    Evaluate,
    Export,
    Import,
    Modes,
    Prune,
    Score,
    Select,
    Train,
    Translate,
    Verify,
    Vocab,
)
from seqkd_jax.types import UserError
from seqkd_jax.utils import devices, exits, files, progress, remote, settings

if TYPE_CHECKING:
    from seqkd_jax.api import LoadedTranslator

RESULTS = ("results.json", settings.CONFIG_FILE, "*.txt")  # of `seqkd evaluate`


def train(command: Train) -> None:
    """Train a model; prints the path of the best checkpoint."""
    from seqkd_jax import api
    from seqkd_jax.api.training import training_inputs
    from seqkd_jax.training.compatibility import model_of_run

    checks.train(command)
    model, own = getattr(command, command.model), command.vocabulary and api.load_vocabulary(command.vocabulary)
    given = {"start": command.start, "teacher": command.teacher, "teachers": command.teachers}
    model_of_run(model, command.config, vocabularies=own, **given, named=checks.option)
    split = inputs.splits(command.pairs)
    gold = functools.partial(split, "train")
    corpus, valid = inputs.training_corpus(command, gold), split("valid")  # before anything is learned
    inputs.compare_with_test(command.pairs, corpus)
    vocabularies = inputs.vocabularies(command, gold)
    read = training_inputs(corpus, valid, vocabularies, command.start, command.teacher)
    done = api.train(
        corpus,
        valid,
        command.out,
        model=model,
        config=command.config,
        vocabularies=vocabularies,
        **given,
        teacher_cache_gib=command.teacher_cache_gib,
        teacher_cache=command.teacher_cache,
        log=command.log,
        described=inputs.describe("train", command, read),
    )
    exits.say(remote.given(done.best))


def translate(command: Translate) -> None:
    """Translate lines as they are read, in bounded memory."""
    from seqkd_jax.checkpoint import run_config
    from seqkd_jax.data.corpus import read_lines
    from seqkd_jax.decoding import record_attention, write_jsonl, write_text
    from seqkd_jax.decoding.unknown import read_dictionary

    checks.translate(command)
    beside = command.out and command.out.with_name(f"{command.out.name}.{settings.CONFIG_FILE}")
    if beside:
        run_config.require_replaceable(beside)
    typed = command.file == "-" and sys.stdin is not None and sys.stdin.isatty()
    read_ahead = command.read_ahead or (1 if typed else 2048)
    if read_ahead == 1 and command.devices > 1:
        progress.log("--devices has no effect at a terminal: a line at a time is translated on one device")
    count = 1 if read_ahead == 1 else command.devices  # one sentence, one device
    translator = _load(command, count, command.draft)
    read = {"checkpoint": translator.checkpoint.fingerprint}
    read |= {"draft": translator.draft.fingerprint} if translator.draft else {}
    described = inputs.describe("translate", command, read)
    known = beside if command.file != "-" else None  # nobody knows what came from standard input
    for path, option in ((command.out, "--out"), (command.attention, "--attention")):
        outputs.require_free(path, command.overwrite, known, described, option)
    dictionary = read_dictionary(command.dictionary) if command.dictionary else None
    inputs.require_as_many(command.prefix_file, command.file)
    write = write_jsonl if command.n_best else write_text
    recorded = outputs.stream(command.attention) if command.attention else contextlib.nullcontext()
    counter = progress.counter(None, "translate", "sentences")
    with outputs.stream(command.out) as stream, recorded as attention, counter as advance:
        translations = translator.stream(
            read_lines(command.file),
            search=command.search,
            decoder=command.decoder,
            n_best=command.n_best or 1,
            prefixes=read_lines(command.prefix_file) if command.prefix_file else None,
            mbr=command.mbr,
            mbr_weights=command.mbr_weights,
            metric=command.metric,
            replace_unknown=command.replace_unknown,
            dictionary=dictionary,
            batch_tokens=1 if read_ahead == 1 else command.batch_tokens,  # a single sentence needs a single row
            read_ahead=read_ahead,
            overlong=command.overlong,
            progress=advance,
        )
        if attention:
            translations = record_attention(
                translator.checkpoint.system,
                translations,
                attention,
                layer=command.attention_layer,
                heads=command.attention_head or None,
                batch_tokens=command.batch_tokens,
                chunk=read_ahead,
            )
        write(translations, stream)
    if beside and command.out and command.out.is_file():  # not a device or a pipe
        run_config.write(beside, described)


def _load(
    command: Translate | Distill | Evaluate | Score | Modes, count: int, draft: Path | None = None
) -> "LoadedTranslator":
    """The translation model of a command on `count` devices, 0: all; with a draft for speculative decoding."""
    from seqkd_jax import api

    devices.make_cpu_devices(count)
    return api.load(*command.checkpoint, devices=count, draft=draft, compute=command.compute)


def distill(command: Distill) -> None:
    """Write a distilled corpus; prints its directory."""
    from seqkd_jax import api
    from seqkd_jax.api import distilling
    from seqkd_jax.data.corpus import read_lines

    if command.status:
        _print(api.distill_status(command.out), table.of_status)
        return
    checks.distill(command)
    teacher = _load(command, command.devices) if command.checkpoint else None
    if command.source_only:
        sources, references = list(read_lines(command.source_only)), None
        languages = inputs.distilled_languages(command, teacher)
        progress.log(f"source lines {command.source_only}: {len(sources):,}, {' to '.join(languages)}")
    else:
        pairs = inputs.load_pairs(command.pairs, "train")
        sources, references, languages = pairs.sources, pairs.targets, pairs.languages or ("source", "target")
        if pairs.weights is not None:
            progress.log(f"{pairs.name}: its pairs have weights; the distilled corpus has none")
    options: dict[str, Any] = {
        "references": references,
        "languages": languages,
        "selection": command.selection,
        "filters": command.filters,
        "metric": command.metric,
        "marian": command.write_n_best,
        "overwrite": command.overwrite,
    }
    if teacher is None:
        assert command.n_best is not None  # checks.distill
        read = distilling.n_best_inputs(command.n_best, sources, references)
        described = inputs.describe("distill", command, read)
        distilled = api.distill_n_best(command.n_best, sources, command.out, described=described, **options)
    else:
        read = distilling.distilling_inputs(teacher, sources, references)
        distilled = api.distill(
            teacher,
            sources,
            command.out,
            search=command.search,
            shard_lines=command.shard_lines,
            batch_tokens=command.batch_tokens,
            overlong=command.overlong,
            part=checks.part(command),
            described=inputs.describe("distill", command, read),
            **options,
        )
    if command.part and not distilled.card:  # no corpus yet
        return
    for line in (command.out / "README.md").read_text(encoding="utf-8").rstrip().splitlines():
        progress.log(line)
    exits.say(remote.given(distilled.directory))


def evaluate(command: Evaluate) -> None:
    """Measure one system, and compare others with it on the same sentences; prints a table or JSON."""
    from seqkd_jax import api
    from seqkd_jax.checkpoint import run_config

    checks.evaluate(command)
    if command.out:
        files.require_replaceable(command.out, RESULTS)
    translator = _load(command, command.devices)
    corpus = inputs.load_pairs(command.pairs, command.split)
    read = {"checkpoint": translator.checkpoint.fingerprint, "corpus": corpus}
    described = inputs.describe("evaluate", command, read)
    if command.out:
        outputs.require_free(command.out, command.overwrite, command.out / settings.CONFIG_FILE, described)
    found = api.evaluate(
        translator,
        corpus,
        search=command.search,
        compare=command.compare,
        metric=command.metric,
        repetitions=command.repetitions,
        batch_tokens=command.batch_tokens,
    )
    if command.out and distributed.first():
        with files.new_directory(command.out, RESULTS) as directory:
            for name, lines in found.outputs.items():
                files.write_lines(directory / f"{name}.txt", lines)
            files.write_json(directory / RESULTS[0], found.results)
            run_config.write(directory / settings.CONFIG_FILE, described)
    _print(found.results, table.of_results)


def _print(results: dict, as_table: Callable[[dict], str]) -> None:
    """Results on standard output, of several processes once: a table for a person, JSON into a pipe or a file."""
    if not distributed.first():
        return
    person = sys.stdout is not None and sys.stdout.isatty()
    with outputs.stream(None) as stream:
        stream.write(as_table(results) if person else files.json_text(results))


def score(command: Score) -> None:
    """Write the log-probability of each given translation; the perplexity goes to standard error."""
    from seqkd_jax.data.corpus import read_lines

    outputs.require_free(command.out, command.overwrite)
    translator = _load(command, command.devices)
    sources, targets = (list(read_lines(path)) for path in (command.source, command.target))
    if not sources:
        raise UserError(f"{command.source}: has no line")
    if len(sources) != len(targets):
        raise UserError(f"{command.source} has {len(sources):,} lines but {command.target} has {len(targets):,}")
    with outputs.stream(command.out) as stream, progress.counter(len(sources), "score", "sentences") as advance:
        scores = translator.score(sources, targets, progress=advance)
        stream.writelines(files.text_lines(f"{nats:.6f}" for nats in scores))
    total, vocabulary = sum(scores), translator.checkpoint.vocabularies.target
    tokens = sum(len(vocabulary.encode(line)) + 1 for line in targets)
    mean = -total / max(tokens, 1)
    progress.log(f"{total:,.2f} nats over {tokens:,} tokens (EOS included): perplexity {math.exp(min(mean, 700)):.4f}")


def modes(command: Modes) -> None:
    """Write the exact mode of each line; what it comes to goes to standard error."""
    from seqkd_jax.data.corpus import read_lines
    from seqkd_jax.decoding import modes

    outputs.require_free(command.out, command.overwrite)
    translator = _load(command, 1)
    counter = progress.counter(None, "modes", "sentences")
    with outputs.stream(command.out) as stream, counter as advance:
        found = translator.modes(read_lines(command.file), command.exact, progress=advance)
        told = modes.write_jsonl(found, stream)
    progress.log(str(told))


def average(command: Average) -> None:
    """The mean of weights as a checkpoint of its own."""
    from seqkd_jax import checkpoint

    checks.apart(command.out, {"the checkpoint": command.checkpoints})
    averaged = checkpoint.average(list(command.checkpoints))
    parts = {"vocabularies": averaged.vocabularies, "metadata": averaged.metadata, "pruned": averaged.pruned}
    save = functools.partial(checkpoint.save, params=averaged.params, model_config=averaged.model_config, **parts)
    written = outputs.write_directory(command.out, command.overwrite, checkpoint.HOLDS, save, checkpoint.fingerprint)
    exits.say(remote.given(written))


def select(command: Select) -> None:
    """One of several seeds as a checkpoint of its own."""
    from seqkd_jax import checkpoint

    checks.apart(command.out, {"the checkpoint": command.checkpoint})
    select = functools.partial(checkpoint.select, command.checkpoint, command.replica)
    written = outputs.write_directory(command.out, command.overwrite, checkpoint.HOLDS, select, checkpoint.fingerprint)
    exits.say(remote.given(written))


def prune(command: Prune) -> None:
    """A checkpoint whose weights of least magnitude are zero."""
    from seqkd_jax import checkpoint, pruning

    checks.apart(command.out, {"the checkpoint": command.checkpoint})
    prune = functools.partial(pruning.prune, command.checkpoint, config=command.pruning)
    written = outputs.write_directory(command.out, command.overwrite, checkpoint.HOLDS, prune, checkpoint.fingerprint)
    exits.say(remote.given(written))


def import_model(command: Import) -> None:
    """Another toolkit's model, or safetensors of ours, as a checkpoint."""
    from seqkd_jax import checkpoint
    from seqkd_jax.checkpoint.interchange import import_tensors
    from seqkd_jax.marian import import_marian

    checks.apart(command.out, {"the model": command.directory})
    read = {"hf": import_marian, "safetensors": import_tensors}[command.form]
    read = functools.partial(read, remote.local(command.directory))
    written = outputs.write_directory(command.out, command.overwrite, checkpoint.HOLDS, read, checkpoint.fingerprint)
    exits.say(remote.given(written))


def export_model(command: Export) -> None:
    """A checkpoint as another toolkit's model, or as safetensors."""
    from seqkd_jax.checkpoint import interchange
    from seqkd_jax.marian import export

    checks.apart(command.out, {"the checkpoint": command.checkpoint})
    holds = export.HOLDS if command.form == "hf" else interchange.HOLDS

    def write(out: Path) -> None:
        if command.form == "hf":
            export.export_marian(command.checkpoint, out, command.max_positions)
        else:
            interchange.export_tensors(command.checkpoint, out)

    exits.say(remote.given(outputs.write_directory(command.out, command.overwrite, holds, write, files.sha256_tree)))


def vocab(command: Vocab) -> None:
    """Vocabularies as plain files."""
    from seqkd_jax import api
    from seqkd_jax.data import vocabulary

    checks.vocab(command)
    files.require_replaceable(command.out, vocabulary.HOLDS)
    pairs = inputs.load_pairs(command.pairs, "train")
    learned = api.learn_vocabulary(pairs, command.vocab)
    write = functools.partial(vocabulary.write, learned)
    outputs.write_directory(command.out, command.overwrite, vocabulary.HOLDS, write, files.sha256_tree)
    sizes = f"{learned.source.size:,}" + ("" if learned.joint else f" and {learned.target.size:,}")
    progress.log(f"{pairs.name}: {sizes} entries, fingerprint {learned.fingerprint[:12]}")
    exits.say(remote.given(command.out))


def verify(command: Verify) -> None:
    """Compare directories with what was written there; prints a table or JSON. UserError if anything is damaged."""
    import jax

    jax.config.update("jax_platforms", "cpu")  # a training may hold the accelerator, and none is needed
    from seqkd_jax import api

    found = api.verify(*command.directories, checkpoints=command.checkpoint, complete=command.complete)
    person = sys.stdout is not None and sys.stdout.isatty()
    with outputs.stream(None) as stream:
        verified = {"objects": [one._asdict() for one in found.objects], "damages": len(found.damages)}
        stream.write(table.of_verified(found.objects) if person else files.json_text(verified))
    if found.damages:
        count, first = len(found.damages), found.damages[0]
        raise UserError(f"{count:,} damage{'s' * (count > 1)}, the first: {first}")
