"""What a reader needs to know of a directory that `seqkd distill` wrote: is it whole, and in which languages is it."""

from pathlib import Path

from seqkd_jax.data.languages import in_json
from seqkd_jax.utils import files, integrity, progress, settings
from seqkd_jax.utils.untrusted import inside

CARD = "card.json"  # what was done to make it
MARIAN = "n-best.txt"  # the lists in Marian's form
HOLDS = (CARD, settings.CONFIG_FILE, "README.md", "scores.tsv", "train.*", "filtered", MARIAN)


def require_whole(path: Path) -> None:
    """UserError unless a distilled corpus is what was written; of other directories nothing is asked.

    A user may put other splits beside the training split.
    """
    root = _root(path)
    if root is not None:
        remedy = f"if it was changed on purpose, remove {root / files.SUMS}; if not, distil again with --overwrite"
        if not files.verify(root, remedy, (*HOLDS, "filtered/*")) and integrity.SEALED in _card(root):
            progress.log(f"{root}: its {files.SUMS} was removed, so it is read as it is now")


def languages(path: Path) -> tuple[str, str] | None:
    """Source and target, as the card names them; None for another corpus, or one of a version before 0.3.0."""
    root = _root(path)
    if root is None:
        return None
    named = in_json(_card(root).get("languages"))
    for one in named or ():
        inside(root, one, root / CARD)  # it becomes part of a file's name
    return named


def _card(root: Path) -> dict:
    card = files.read_json(root / CARD)
    return card if isinstance(card, dict) else {}


def _root(path: Path) -> Path | None:
    """The directory of a distilled corpus, if a path is that or its filtered/."""
    for root in (path, path.parent) if path.name == "filtered" else (path,):
        listed = root / files.SUMS
        if (root / CARD).is_file() or (listed.is_file() and f"  {CARD}\n".encode() in listed.read_bytes()):
            return root
    return None
