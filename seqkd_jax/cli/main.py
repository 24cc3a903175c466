"""The command `seqkd`: reads the arguments, runs the command, sets the exit code.

COMMANDS names for each command the dataclass of its arguments and the function that runs it. Exit codes: 0 done; 2 an
error that the user can correct, described in one line; 75 one of several processes is gone, was stopped by SIGTERM or
did not come, so the same command goes on; 130 interrupted; 141 the reader of the output is gone; 143 stopped by
SIGTERM, of training after a checkpoint was saved.
"""

import contextlib
import dataclasses
import functools
import io
import itertools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import tyro

from seqkd_jax import __version__, distributed
from seqkd_jax.cli import checks, commands, options
from seqkd_jax.types import UserError
from seqkd_jax.utils import exits, files, program_cache, programs, progress, remote, settings, urls

COMMANDS: dict[str, tuple[type, Callable[[Any], None]]] = {
    "train": (options.Train, commands.train),
    "translate": (options.Translate, commands.translate),
    "distill": (options.Distill, commands.distill),
    "evaluate": (options.Evaluate, commands.evaluate),
    "score": (options.Score, commands.score),
    "modes": (options.Modes, commands.modes),
    "average": (options.Average, commands.average),
    "select": (options.Select, commands.select),
    "prune": (options.Prune, commands.prune),
    "import": (options.Import, commands.import_model),
    "export": (options.Export, commands.export_model),
    "vocab": (options.Vocab, commands.vocab),
    "verify": (options.Verify, commands.verify),
}
SMALLER = {  # what to do where memory is short
    "train": "lower --batch.tokens (--accumulate keeps the size of an update) or choose a smaller model",
    **dict.fromkeys(("translate", "distill", "evaluate"), "lower --batch-tokens or --beam"),
    "modes": "lower --max-length-a or --beam",
}


def main(arguments: Sequence[str] | None = None, program: str = "seqkd") -> None:
    """Run one command and exit with its code. arguments: None for those of the process; program: the name shown."""
    given = sys.argv[1:] if arguments is None else list(arguments)

    def run() -> int:
        if given == ["--version"]:
            exits.say(f"seqkd {__version__}")
            return 0
        with _broken_pipe_exits(), errors_in_one_line(program):
            command = _parse(given, program)
            if arguments is None:
                checks.lasting(command)
        exits.require_address_space()
        programs.count()
        program_cache.keep()
        with remote.named():
            _run(command)
        if programs.built():
            progress.log(programs.summary(programs.built()))
        return 0

    smaller = {"smaller": SMALLER[given[0]]} if given and given[0] in SMALLER else {}
    status = exits.exit_status(run, program=program, **smaller)
    distributed.leave(status)
    sys.exit(status)


def _run(command: Any) -> None:
    settings.check(command, checks.option)
    checks.local(command)
    run = next(run for arguments_type, run in COMMANDS.values() if type(command) is arguments_type)
    run = functools.partial(_published, run)
    if not hasattr(command, "several"):
        run(command)
        return
    if urls.is_url(command.out):
        from seqkd_jax.api.places import require_one_process

        require_one_process(command.out, command.several.processes or 1)  # before the others are waited for
    own = ("given", *vars(command.several))  # what may differ: a host has several names
    same = {name: value for name, value in settings.flat(command).items() if name not in own}
    with distributed.joined(**vars(command.several), command={**same, "version": __version__}):
        run(command)


def _published(run: Callable[[Any], None], command: Any) -> None:
    """Run a command; its results are published where --out is a URL."""
    if not urls.is_url(getattr(command, "out", None)):
        return run(command)
    from seqkd_jax.api.places import working_directory

    with working_directory(command.out) as directory:
        run(dataclasses.replace(command, out=directory))


def _parse(given: list[str], program: str) -> Any:
    """The arguments of a command. Exits after --help and for invalid arguments; UserError of --config and its file."""
    if given and not given[0].startswith("-") and given[0] not in COMMANDS:
        raise UserError(f"{given[0]}: there is no such command; there are {', '.join(COMMANDS)}")
    _require_lists_once(given)
    stored = _stored(given)
    if stored:
        command = _with_defaults(stored, given, program)
    else:
        types = {name: arguments_type for name, (arguments_type, _) in COMMANDS.items()}
        description = (
            f"Train, distil and use translation models. Version {__version__}. Compiled programs are kept in the "
            f"user's cache directory; the environment variable {program_cache.SETTING} names another, or none."
        )
        command = tyro.extras.subcommand_cli_from_dict(types, args=given, prog=program, description=description)
    if getattr(command, "rules", None):
        from seqkd_jax.decoding.search import named_rules

        search = (stored or type(command)).search  # not what is given: that holds, read once more
        ruled = dataclasses.replace(command, search=named_rules(search, command.rules))
        command = _with_defaults(ruled, given, program)
    if isinstance(command, options.Train) and command.start and not stored:
        command = _with_start(command, command.start, given, program)
    if isinstance(command, options.Repeatable):
        command = dataclasses.replace(command, given=_names(given))
    return command


def _require_lists_once(given: Sequence[str]) -> None:
    """UserError for an option of several values that is given twice: tyro would forget the first ones."""
    kind = COMMANDS[given[0]][0] if given and given[0] in COMMANDS else None
    names = _names(given)
    for field, hint in get_type_hints(kind, include_extras=True).items() if kind else ():
        option = "--" + field.replace("_", "-")
        # One that is appended to, or positional, is Annotated.
        if get_origin(hint) is tuple and names.count(option) > 1:
            raise UserError(f"{option} is given twice: name all its values after one, {option} A B")


def _names(given: Sequence[str]) -> tuple[str, ...]:
    """The options on the command line, as they are called."""
    return tuple(word.partition("=")[0].replace("_", "-") for word in given if word.startswith("--"))


def _with_start(command: options.Train, start: Path, given: Sequence[str], program: str) -> options.Train:
    """The command with the model of its start, from which only what is given can differ."""
    from seqkd_jax import models
    from seqkd_jax.training.compatibility import model_of

    config = model_of(start)
    kind = models.kind_of(config)
    if kind not in models.TRANSLATORS:
        raise UserError(f"--start {start}: holds a {kind}, which does not translate; name a translation model")
    started = _with_defaults(dataclasses.replace(command, model=kind, **{kind: config}), given, program)
    return started if started.model == kind else command


def _stored(given: Sequence[str]) -> Any:
    """The settings in the file that --config names; None without it."""
    kind = COMMANDS[given[0]][0] if given and given[0] in COMMANDS else None
    named = None
    for word, following in itertools.zip_longest(given[1:], given[2:]):
        if word == "--config" and following or word.startswith("--config="):
            named = following if word == "--config" else word.partition("=")[2]  # of several the last, as tyro has it
    asks = "--help" in given or "-h" in given  # and gets an answer, whatever the file is
    if named is None or asks or kind is None or not issubclass(kind, options.Repeatable):
        return None
    from seqkd_jax.checkpoint import run_config

    return run_config.read(named, given[0], kind)


def _with_defaults(default: Any, given: Sequence[str], program: str) -> Any:
    """The arguments read with the values of `default` for those that are not given."""
    # A repeatable option is appended to its default, so that default must be empty.
    hints = get_type_hints(type(default), include_extras=True).items()
    added = [name for name, hint in hints if tyro.conf.UseAppendAction in getattr(hint, "__metadata__", ())]
    empty = dataclasses.replace(default, **dict.fromkeys(added, ()))
    command = tyro.cli(type(default), args=given[1:], default=empty, prog=f"{program} {given[0]}")
    kept = {name: getattr(default, name) for name in added if not getattr(command, name)}
    return dataclasses.replace(command, **kept)


@contextlib.contextmanager
def errors_in_one_line(program: str) -> Iterator[None]:
    """Print what is wrong with the arguments as one line, like every other error, without the box that tyro draws."""
    drawn = io.StringIO()
    try:
        with contextlib.redirect_stderr(drawn):
            yield
    except SystemExit as ending:
        if ending.code == 2:
            lines = [line.strip("│ ") for line in drawn.getvalue().splitlines() if line.strip() and line[0] not in "╭╰"]
            if len(lines) > 1 and not lines[1].strip("-"):  # where standard output is not UTF-8: a title, and a rule
                lines = lines[2:]
            message = list(itertools.takewhile(lambda line: line.strip("─-"), lines))
            hints = [line for line in lines[len(message) :] if line.startswith("--")]
            also = f"; did you mean {hints[0].split()[0]}?" if hints and message[0].startswith("Unrecognized") else ""
            text = " ".join(message)
            text = re.sub(r"invalid literal for int\(\) with base 10: (.*)", r"\1 is not a whole number", text)
            text = re.sub("could not convert string to float: (.*)", r"\1 is not a number", text)
            exits.report(program, text + also, 2)
        raise


@contextlib.contextmanager
def _broken_pipe_exits() -> Iterator[None]:
    """Exit with 141 if the reader of standard output closes it, as in `--help | head`."""
    try:
        with files.naming(exits.OUTPUT):
            try:
                yield
            finally:
                if sys.stdout is not None:  # None: it was closed before the start
                    sys.stdout.flush()
    except BrokenPipeError:
        exits.drop(sys.stdout)
        sys.exit(141)


if __name__ == "__main__":
    main()
