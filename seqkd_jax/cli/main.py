"""The command `seqkd`: which command is asked for, and how it ends. Above everything.

COMMANDS names for each command the dataclass of its arguments and the function that runs it. Exit codes: 0 done, 2 an
error the user can mend (one line says how), 130 interrupted, 141 the reader of our output went away, 143 stopped by
SIGTERM with a checkpoint saved.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_type_hints

import tyro

from seqkd_jax import __version__
from seqkd_jax.cli import commands, options
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, progress

COMMANDS: dict[str, tuple[type, Callable[[Any], None]]] = {
    "train": (options.Train, commands.train),
    "translate": (options.Translate, commands.translate),
    "distill": (options.Distill, commands.distill),
    "evaluate": (options.Evaluate, commands.evaluate),
    "score": (options.Score, commands.score),
    "average": (options.Average, commands.average),
    "select": (options.Select, commands.select),
    "import": (options.Import, commands.import_model),
    "export": (options.Export, commands.export_model),
    "vocab": (options.Vocab, commands.vocab),
}


def main(given: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code; given: its arguments, None: those of the process."""
    given = sys.argv[1:] if given is None else list(given)
    if given == ["--version"]:
        print(f"seqkd {__version__}")
        sys.exit(0)
    with _reader_may_leave():
        command = _read(given)
    sys.exit(
        _guarded(next(run for arguments_type, run in COMMANDS.values() if type(command) is arguments_type), command)
    )


def _read(given: list[str]) -> Any:
    """The arguments of a command; exits for --help, and for what is none."""
    types = {name: arguments_type for name, (arguments_type, _) in COMMANDS.items()}
    description = f"Train, distil and use translation models. Version {__version__}."
    command = tyro.extras.subcommand_cli_from_dict(types, args=given, prog="seqkd", description=description)
    if getattr(command, "rules", None):
        command = _under_rules(command, given)
    return command


@contextlib.contextmanager
def _reader_may_leave() -> Iterator[None]:
    """Exits with 141 if whoever reads what is printed does not read on, as in `--help | head`."""
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:  # it is where it was closed
                sys.stdout.flush()
    except BrokenPipeError:
        files.drop_output()
        sys.exit(141)


def _under_rules(command: Any, given: Sequence[str]) -> Any:
    """The command read again, its named rules being the defaults: what is given beside them holds."""
    from seqkd_jax.decoding.search import named_rules

    # What may be given several times is added to its default.
    hints = get_type_hints(type(command), include_extras=True).items()
    added = {name: () for name, hint in hints if tyro.conf.UseAppendAction in getattr(hint, "__metadata__", ())}
    default = dataclasses.replace(command, search=named_rules(type(command.search)(), command.rules), **added)
    return tyro.cli(type(command), args=given[1:], default=default, prog=f"seqkd {given[0]}")


def _guarded(run: Callable[[Any], None], command: Any) -> int:
    """The exit code. Only what the user can mend becomes a line; a fault of ours keeps its traceback."""
    try:
        progress.count_compilations()
        run(command)
        if sys.stdout is not None:
            sys.stdout.flush()
        count = progress.compilations()
        if count:
            seconds = sum(seconds for _, seconds in progress.compiled())
            progress.log(f"{count} programs compiled in {progress.duration(seconds)}")
        return 0
    except UserError as error:
        return _say(str(error), 2)
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except BrokenPipeError:  # `| head`: nobody reads on, which is no error
        files.drop_output()
        return 141
    except OSError as error:
        return _say(files.said(error), 2)


def _say(message: str, code: int) -> int:
    print(f"seqkd: error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    main()
