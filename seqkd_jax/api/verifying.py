"""Whether what stands in directories is what was written there."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from seqkd_jax import verification
from seqkd_jax.api.translating import require_list
from seqkd_jax.verification import Verified


class Verification(NamedTuple):
    """What `verify` found."""

    objects: list[Verified]  # each directory that was named, and those in them that are verified on their own

    @property
    def damages(self) -> list[str]:
        """A line for each damage; empty: all is as it was written."""
        return [damage for one in self.objects for damage in one.damages]


def verify(*directories: Path | str, checkpoints: Sequence[Path | str] = (), complete: bool = False) -> Verification:
    """Compare directories with what was written there: hashes, counts, order and completeness. Nothing is changed.

    directories: training runs, checkpoints, distilled corpora, n-best lists, vocabularies, results of `evaluate`,
    exported models, studies, or a directory of such. checkpoints: the teacher that corpora and n-best lists must be of;
    of several the ensemble. complete: a run or lists that are not finished count as damaged.
    Each of `objects` has a state, which is whole, unfinished, incomplete or damaged, and words for it. UserError: no
    such directory, or one with nothing that this library wrote.

        found = kd.verify("teacher", "seq_kd", checkpoints=["teacher/best"])
        assert not found.damages, found.damages
    """
    return Verification(verification.verify(directories, require_list("checkpoints", checkpoints), complete))
