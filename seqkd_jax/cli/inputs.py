"""What the commands read: corpora and vocabularies, as their arguments name them; and what config.json says of it."""

import contextlib
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from seqkd_jax.cli.options import Distill, Pairs, Repeatable, Train
from seqkd_jax.config import CorpusConfig
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, progress, remote, settings, urls

Split = Literal["train", "valid", "test"]


def splits(pairs: Pairs) -> Callable[[Split], Any]:
    """A function that gives a split of the corpus, read and described once; hold_out makes train and valid of train."""
    from seqkd_jax.data.corpus import load_split
    from seqkd_jax.data.splits import hold_out

    @functools.cache
    def whole(split: Split):
        return _described(load_split(pairs.corpus, split))

    @functools.cache
    def parts():
        return hold_out(whole("train"), pairs.hold_out)

    def read(split: Split):
        return whole(split) if not pairs.hold_out or split == "test" else parts()[split == "valid"]

    return read


def load_pairs(pairs: Pairs, split: Split):
    """One split of the corpus, see `splits`."""
    return splits(pairs)(split)


def compare_with_test(pairs: Pairs, training) -> None:
    """A warning if the corpus has a test split of which sources are in training."""
    from seqkd_jax.data.corpus import load_split
    from seqkd_jax.data.splits import warn_of_overlap

    with contextlib.suppress(UserError):  # it has none: training needs none
        warn_of_overlap(load_split(pairs.corpus, "test"), training)


def _described(corpus):
    """The corpus, after a line that says which it is: the first of a run."""
    from seqkd_jax.data.corpus import describe

    progress.log(f"corpus {describe(corpus)}")
    return corpus


def training_corpus(command: Train, gold: Callable[[], Any]):
    """The corpora of --train-on, each with its weight; without any the gold training split."""
    from seqkd_jax.data.corpus import mix

    parts = [(_part(command, name, gold), weight) for name, weight in map(_weighted, command.train_on)]
    return mix(parts) if parts else gold()


def vocabularies(command: Train, gold: Callable[[], Any]):
    """Those of --vocabulary, else of the teacher or start, else learned from the gold training split."""
    from seqkd_jax import api

    shared = command.vocabulary or command.teacher or command.start
    return api.load_vocabulary(shared) if shared else api.learn_vocabulary(gold(), command.vocab)


def describe(name: str, command: Repeatable, read: Mapping[str, Any]) -> dict:
    """The content of config.json: all options of a command, and what it read.

    UserError if the command was started from such a file, and what it read is not what that says.
    """
    from seqkd_jax.checkpoint import run_config

    # The rules are spelled out in `search`; devices and processes do not change a result.
    left_out = ("config_file", "given", "rules", "overwrite", "several", "devices")
    options = {key: value for key, value in settings.to_json(command).items() if key not in left_out}
    if options.get("out"):
        options["out"] = remote.given(options["out"])
    described = run_config.describe(name, options, read)
    if command.config_file:
        run_config.require_same_inputs(command.config_file, described, command.given)
    return described


def require_as_many(prefixes: Path | None, lines: str) -> None:
    """UserError unless two files have as many lines; of what is no file, such as a pipe, it shows as it is read."""
    from seqkd_jax.data.corpus import read_lines

    if prefixes is None or not prefixes.is_file() or not os.path.isfile(lines):
        return
    one, other = (sum(1 for _ in read_lines(path)) for path in (prefixes, lines))
    if one != other:
        raise UserError(
            f"--prefix-file {prefixes}: has {one:,} lines, {lines} has {other:,}; give one for each, empty for none"
        )


def distilled_languages(command: Distill, teacher: Any) -> tuple[str, str]:
    """The languages of --source-only text and of its translations: as given, else the teacher's, else by their names.

    teacher: a LoadedTranslator; None: n-best lists.
    """
    from seqkd_jax.data import languages

    given, default = command.pairs.corpus, CorpusConfig()
    known = (teacher and teacher.checkpoint.languages) or (languages.of_file(str(command.source_only)), None)
    found = []
    for side, language in zip(("source", "target"), known, strict=True):
        own = getattr(given, side)
        named = own != getattr(default, side) or f"--corpus.{side}" in command.given
        found.append(own if named else language or side)
    if found[1] == "target":
        progress.log(
            "the target language is not known: the corpus is called train.target; name it with --corpus.target"
        )
    return found[0], found[1]


def _part(command: Train, name: str, gold: Callable[[], Any]):
    """A corpus of --train-on: in the languages of the corpus, a distilled one in those of its card."""
    from seqkd_jax.data import distilled, languages
    from seqkd_jax.data.corpus import load_split

    if name == "gold":
        return gold()
    path = files.existing(remote.local(name))
    if not path.exists():
        raise UserError(f"--train-on {name}: no such file or directory; name one that `seqkd distill` wrote, or `gold`")
    own, wanted = distilled.languages(path), languages.of(command.pairs.corpus)
    if own and own != wanted and not {"source", "target"} & {*own, *wanted}:  # which name no language
        progress.log(
            f"--train-on {name}: is {' to '.join(own)}, but validation text is {' to '.join(wanted)}; name a corpus of "
            "the same languages"
        )
    source, target = own or wanted
    named = name if urls.is_url(name) else str(path)
    return _described(load_split(CorpusConfig(named, source, target), "train"))


def _weighted(part: str) -> tuple[str, float]:
    """PATH or PATH=WEIGHT; a path that exists as it is written is a path."""
    name, separator, weight = part.rpartition("=")
    if not separator or os.path.exists(part):
        return part, 1.0
    try:
        return name, float(weight)
    except ValueError:
        raise UserError(f"--train-on {part}: {weight!r} is no weight; write PATH or PATH=WEIGHT") from None
