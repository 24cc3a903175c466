"""The outputs of a study's arms as files of lines, so that anybody can score them again, with any program.

    sources.txt, references.txt, NAME.txt    a sentence a line; NAME says which arm and which search
    sentences.json                           NAME -> measure -> a number for each sentence
    SHA256SUMS                               for `sha256sum -c`

results.json names these files with their hashes under `outputs`, also where the texts may not be given on; each of its
arms names its own under `outputs`: the search -> NAME.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from seqkd_jax.types import UserError
from seqkd_jax.utils import files, untrusted

DIRECTORY = "outputs"  # in the directory of a run
SENTENCES = "sentences.json"
Measures = Mapping[str, Mapping[str, Sequence[float]]]  # NAME -> measure -> of each sentence


class Outputs(NamedTuple):
    """A test set under several systems."""

    sources: Sequence[str]
    references: Sequence[str]
    texts: Mapping[str, Sequence[str]]
    measures: Measures


def write(directory: Path, outputs: Outputs) -> None:
    """Every file but the sums."""
    named = {"sources": outputs.sources, "references": outputs.references, **outputs.texts}
    for name, lines in named.items():
        files.write_lines(directory / f"{name}.txt", lines)
    files.write_text(directory / SENTENCES, files.json_line(outputs.measures))


def copy(stage: Path, out: Path) -> dict[str, str]:
    """The files of a stage into the directory of a run, whole, with their sums; returns name -> SHA-256."""
    names = sorted(path.name for path in [*stage.glob("*.txt"), stage / SENTENCES])
    with files.new_directory(out / DIRECTORY, (SENTENCES, "*.txt")) as directory:
        for name in names:
            files.write_bytes(directory / name, (stage / name).read_bytes())
    return {name: files.sha256_file(stage / name) for name in names}


def read(run: Path, results: Mapping) -> Outputs | None:
    """What stands beside a results.json; None if there is nothing. UserError for what is not what it names."""
    hashes, directory = results.get("outputs"), run / DIRECTORY
    if not hashes or not directory.is_dir():
        return None
    for name, digest in hashes.items():
        path = untrusted.inside(directory, name, run / "results.json")
        if not path.is_file() or files.sha256_file(path) != digest:
            raise UserError(f"{path}: is not what results.json names; copy it anew, or delete {directory}")
    lines = {name[: -len(".txt")]: _lines(directory / name) for name in hashes if name.endswith(".txt")}
    measures = files.read_json(directory / SENTENCES)
    return Outputs(lines.pop("sources"), lines.pop("references"), lines, measures)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
