"""Commands run in the process of the tests."""

import pytest

from seqkd_jax.cli import main


def seqkd(*arguments):
    """Run a command in this process; its exit code."""
    with pytest.raises(SystemExit) as caught:
        main.main([str(argument) for argument in arguments])
    return caught.value.code or 0


def fails(capfd, *arguments):
    """Run a command that must fail as the user's mistake; the one line it says."""
    capfd.readouterr()
    assert seqkd(*arguments) == 2
    said = capfd.readouterr().err.splitlines()
    assert len([line for line in said if line.startswith("seqkd: error: ")]) == 1, said
    assert not any("Traceback" in line for line in said)
    return said[-1]
