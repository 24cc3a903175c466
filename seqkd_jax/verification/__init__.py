"""Is what stands in a directory just what was written there? Hashes, counts, order, completeness; nothing is changed.

`verify` recognises what a directory is (KINDS) and checks all that can be checked of it without running a model:

  trained    training runs and checkpoints
  distilled  distilled corpora and n-best lists
  others     vocabularies, evaluations, exported models, studies and their stages, any directory with SHA256SUMS
  outcome    what is found

A job may be writing there meanwhile: no lock is taken, one version of each directory is read (integrity.whole), and
what is not finished is no damage. Links that lead out of a directory are not followed, and nothing is unpickled.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from seqkd_jax import checkpoint
from seqkd_jax.checkpoint import interchange
from seqkd_jax.checkpoint.record import RECORD
from seqkd_jax.data.distilled import CARD
from seqkd_jax.data.vocabulary import DESCRIPTION
from seqkd_jax.distillation.earlier_results import LISTS
from seqkd_jax.training.run_state import METRICS
from seqkd_jax.types import UserError
from seqkd_jax.utils import files, progress
from seqkd_jax.verification import distilled, others, trained
from seqkd_jax.verification.outcome import Verified

__all__ = ["KINDS", "Verified", "verify"]

Check = Callable[[Path, str | None], Iterator[Verified]]  # (directory, fingerprint of the teacher, if that is known)

# A pattern of a name at the top of a directory -> its check. Of several that fit, the first counts.
KINDS: dict[str, Check] = {
    re.escape(others.MANIFEST): others.check_stage,
    re.escape(RECORD): trained.check_checkpoint,
    re.escape(CARD): distilled.check_corpus,
    re.escape(DESCRIPTION): others.check_vocabulary,
    f"stages|{others.STAGE}|{others.STAGE}[.]partial": others.check_study,
    re.escape(others.RESULTS): others.check_evaluation,
    f"{re.escape(interchange.WEIGHTS)}(.index.json)?": others.check_exported,
    f"{re.escape(LISTS)}|{distilled.SHARD}": distilled.check_lists,
    f"{re.escape(METRICS)}|{trained.CHECKPOINTS.pattern}": trained.check_run,
    re.escape(files.SUMS): others.check_sums,
}


def verify(
    directories: Sequence[Path | str], teachers: Sequence[Path | str] = (), complete: bool = False
) -> list[Verified]:
    """What is found of each of these directories, and of those in them that are verified on their own.

    teachers: the checkpoint that corpora and n-best lists must be of; of several their ensemble. complete: what is not
    finished counts as damaged. UserError for a path that is no directory of ours.
    """
    fingerprint = None
    if teachers:
        prints = [checkpoint.fingerprint(teacher) for teacher in teachers]
        fingerprint = prints[0] if len(prints) == 1 else checkpoint.fingerprint_of_ensemble(prints)
    todo = [(place, check) for directory in directories for place, check in _places(Path(directory))]
    found = []
    for place, check in todo:
        with progress.phase(f"verifying {place}"):
            found += check(place, fingerprint)
    return [_completed(one) if complete else one for one in found]


def _completed(found: Verified) -> Verified:
    if found.state not in ("unfinished", "incomplete"):
        return found
    return found._replace(state="damaged", damages=(f"{found.object}: {found.result}",))


def _places(directory: Path) -> list[tuple[Path, Check]]:
    """The directory and its check; those of the directories in it, if it is none of ours. UserError if none is."""
    path = files.existing(directory)
    if not path.is_dir():
        reason = "is a file" if path.is_file() else "no such directory"
        raise UserError(f"{directory}: {reason}; name a directory that seqkd wrote")
    if check := _check_of(path):
        return [(directory, check)]
    folders = sorted(one for one in path.iterdir() if one.is_dir() and not one.is_symlink() and one.name[0] != ".")
    inner = [(directory / one.name, check) for one in folders if (check := _check_of(one))]
    if not inner:
        raise UserError(
            f"{directory}: holds nothing that seqkd wrote: no run, checkpoint, distilled corpus, n-best lists, "
            "vocabulary, evaluation, exported model or study; name another directory"
        )
    return inner


def _check_of(path: Path) -> Check | None:
    """The check for a directory, by the names at its top and those that its SHA256SUMS lists there: one may be gone."""
    listed = path / files.SUMS
    text = listed.read_bytes().decode("utf-8", "replace") if listed.is_file() else ""
    names = {*os.listdir(path), *re.findall(r"(?m)^.{64}  ([^/\n]+)$", text)}
    return next((check for kind, check in KINDS.items() if any(re.fullmatch(kind, name) for name in names)), None)
