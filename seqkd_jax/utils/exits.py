"""How a command ends: its exit status, and one line for an error."""

import sys
from collections.abc import Callable

from seqkd_jax.types import UserError
from seqkd_jax.utils import files


def exit_status(run: Callable[[], int], *, program: str = "", interrupted: str = "interrupted") -> int:
    """The result of `run`; 2 after a UserError or OSError, 130 when interrupted, each with one line on standard error;
    141 when the reader of standard output is gone. Other exceptions are our bugs and pass.
    """
    try:
        status = run()
        if sys.stdout is not None:  # None: it was closed before the start
            sys.stdout.flush()
        return status
    except UserError as error:
        return report(program, str(error), 2)
    except KeyboardInterrupt:
        return report(program, interrupted, 130)
    except BrokenPipeError:  # as in `| head`: not an error
        files.drop_output()
        return 141
    except OSError as error:
        return report(program, files.describe_error(error), 2)


def report(program: str, message: str, status: int) -> int:
    """Print an error as one line; returns the status."""
    print(f"{program}{': ' if program else ''}error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    return status
