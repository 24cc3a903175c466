"""A small disk that can be filled: a tmpfs, which an ordinary user may mount in a name space of his own (Linux)."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from seqkd_jax.utils import files

INSIDE = "SEQKD_CHAOS_MOUNTS"  # an environment variable: this process is in a name space in which it may mount
SPACE = ("unshare", "--user", "--map-root-user", "--mount")
FILLER = "filler"


def enter(module: str, arguments: Sequence[str]) -> bool:
    """Start the command again where it may mount a disk, if that can be; False if it cannot. Returns only in there."""
    if os.environ.get(INSIDE):
        return True
    try:
        tried = subprocess.run([*SPACE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True)
    except OSError:  # no such program: not Linux
        return False
    if tried.returncode:
        return False
    sys.stdout.flush()
    os.execvpe(SPACE[0], [*SPACE, sys.executable, "-m", module, *arguments], {**os.environ, INSIDE: "1"})


def mount(directory: Path, size: int) -> None:
    """An empty disk of `size` bytes at a directory."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(directory)], check=True)


def unmount(directory: Path) -> None:
    """Let the disk go, with what is on it."""
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


def fill(directory: Path) -> None:
    """Leave no free block."""
    descriptor = os.open(directory / FILLER, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        size = 0
        while free := _free(descriptor):
            try:
                os.posix_fallocate(descriptor, size, free)
            except OSError:  # another process was faster
                continue
            size += free
    finally:
        os.close(descriptor)


def empty(directory: Path) -> None:
    """Free what `fill` took."""
    files.remove(directory / FILLER)


def _free(descriptor: int) -> int:
    status = os.fstatvfs(descriptor)
    return status.f_bavail * status.f_frsize
